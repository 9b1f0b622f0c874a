// Server-sent events, end to end over loopback: how many a second, and what they cost. The server and each contender are processes
// of their own. The server writes as fast as it is read, to one contender at a time, and they take many short turns, so that
// what else the machine does meets all of them alike, in several processes one after the other: what the engine decides early
// in one stays for its life, and may be worth a third. A ratio is the median of the ratios of turns that followed each other.
import { withChild } from "./lib/child.ts"
import type { Child } from "./lib/child.ts"
import { atLeast, plain } from "./lib/figure.ts"
import type { Context, Figure, Report, Table } from "./lib/figure.ts"
import { isInstalled, missing } from "./lib/peers.ts"
import { formatNumber } from "./lib/print.ts"
import "./lib/resolve.ts"
import { median } from "./lib/stats.ts"
import type { Heap, Order, Stand, Task } from "./sse/work.ts"

export const name = "sse"

/** In the life of each process, and how many lives each has. */
const turns = 11
const lives = 3
const warm = 5

const works = [
  { label: "64 B", size: 64, slice: 150_000 },
  { label: "1 kB", size: 1000, slice: 30_000 },
  { label: "1 MB", size: 1_000_000, slice: 30 }
] as const

interface Contender {
  readonly label: string
  readonly module: string
  readonly peer?: string
}

const ours: Contender = { label: "ours", module: "ours.ts" }
const eventsource: Contender = { label: "eventsource", module: "eventsource.ts", peer: "eventsource" }
const fetchEventSource: Contender = {
  label: "fetch-event-source",
  module: "fetchEventSource.ts",
  peer: "@microsoft/fetch-event-source"
}
const parser: Contender = { label: "eventsource-parser over fetch", module: "parser.ts", peer: "eventsource-parser" }
const contenders = [ours, eventsource, fetchEventSource, parser]

const moduleOf = (file: string): URL => new URL(`sse/${file}`, import.meta.url)

type Work = (typeof works)[number]

/** What a turn took: milliseconds, and microseconds of CPU. */
interface Took {
  readonly millis: number
  readonly cpu: number
}

interface Taken {
  readonly turns: ReadonlyMap<Contender, ReadonlyArray<Took>>
  readonly heaps: ReadonlyMap<Contender, Heap>
}

const withChildren = <A>(
  left: ReadonlyArray<Contender>,
  use: (children: ReadonlyMap<Contender, Child>) => Promise<A>,
  children: ReadonlyMap<Contender, Child> = new Map()
): Promise<A> => {
  const [first, ...others] = left
  return first === undefined
    ? use(children)
    : withChild(
      moduleOf(first.module),
      [],
      (child) => withChildren(others, use, new Map([...children, [first, child]]))
    )
}

const takeTurns = (server: Child, origin: string, { size, slice }: Work, life: number): Promise<Taken> =>
  withChildren(contenders.filter(({ peer }) => peer === undefined || isInstalled(peer)), async (children) => {
    const taken = new Map<Contender, Array<Took>>()
    const spent = new Map<Contender, number>()
    const order = async (contender: Contender, child: Child): Promise<Took> => {
      const order: Order = { id: `${contender.module}/${size}/${life}`, size, count: slice }
      server.send(order)
      const began = Number(await server.next())
      const { at, cpu } = await child.next() as Stand
      const before = spent.get(contender) ?? 0
      spent.set(contender, cpu)
      return { millis: at - began, cpu: cpu - before }
    }
    for (const [contender, child] of children) {
      const task: Task = { url: `${origin}/${contender.module}/${size}/${life}`, size, slice, warm }
      child.send(task)
      for (let turn = 0; turn < warm; turn++) await order(contender, child)
      taken.set(contender, [])
    }
    const present = [...children]
    for (let turn = 0; turn < turns; turn++) {
      for (let n = 0; n < present.length; n++) {
        const next = present[(turn + n) % present.length]
        if (next !== undefined) taken.get(next[0])?.push(await order(...next))
      }
    }
    const heaps = new Map<Contender, Heap>()
    for (const [contender, child] of children) {
      child.send({})
      heaps.set(contender, await child.next() as Heap)
    }
    return { turns: taken, heaps }
  })

/** The turns of all lives; the heaps are those of the last one. */
const joined = (taken: ReadonlyArray<Taken>): Taken => ({
  turns: new Map(contenders.flatMap((contender) => {
    const all = taken.flatMap(({ turns }) => turns.get(contender) ?? [])
    return all.length === 0 ? [] : [[contender, all]]
  })),
  heaps: taken.at(-1)?.heaps ?? new Map()
})

const of = ({ turns }: Taken, contender: Contender, value: (took: Took) => number): number | null => {
  const values = turns.get(contender)
  return values === undefined ? null : median(values.map(value))
}

/** How many events ours takes for each of theirs in the same time. */
const ratio = ({ turns }: Taken, other: Contender): { readonly value: number | null; readonly note: string } => {
  const theirs = turns.get(other)
  if (theirs === undefined) return { value: null, note: missing }
  const ratios = (turns.get(ours) ?? []).map(({ millis }, turn) => (theirs[turn]?.millis ?? NaN) / millis)
  const sorted = ratios.toSorted((a, b) => a - b)
  const [low = NaN, high = NaN] = [0.25, 0.75].map((share) => sorted[Math.floor(share * sorted.length)])
  return {
    value: median(ratios),
    note: `median of ${turns.get(ours)?.length}, half of them ${low.toFixed(2)} to ${high.toFixed(2)}`
  }
}

interface Measured {
  readonly work: Work
  readonly taken: Taken
}

const figuresOf = ({ taken, work: { label, slice } }: Measured): ReadonlyArray<Figure> => {
  const per100k = 100_000 / slice
  const heapOf = (contender: Contender, value: (heap: Heap) => number): number | null => {
    const heap = taken.heaps.get(contender)
    return heap === undefined ? null : value(heap)
  }
  const bounded = (other: Contender, bound: number | undefined): Figure => {
    const { note, value } = ratio(taken, other)
    const figure = `${label}: ours over ${other.label}`
    return bound === undefined ? plain(figure, value, "x", note) : atLeast(figure, value, "x", bound, note)
  }
  return [
    ...contenders.flatMap((contender) => [
      plain(`${label}: ${contender.label}`, of(taken, contender, ({ millis }) => 1000 * slice / millis), "events/s"),
      plain(
        `${label}: ${contender.label}, CPU per 100,000`,
        of(taken, contender, ({ cpu }) => cpu * per100k / 1000),
        "ms"
      ),
      plain(
        `${label}: ${contender.label}, heap allocated per 100,000`,
        heapOf(contender, ({ allocated }) => allocated * per100k / turns / 1e6),
        "MB"
      ),
      plain(
        `${label}: ${contender.label}, heap kept after ${slice * turns}`,
        heapOf(contender, ({ kept }) => kept / 1e6),
        "MB"
      )
    ]),
    bounded(eventsource, 1),
    bounded(fetchEventSource, 1),
    bounded(parser, undefined)
  ]
}

const tableOf = (measured: ReadonlyArray<Measured>, figures: ReadonlyArray<Figure>): Table => {
  const valueOf = (figure: string): string => {
    const value = figures.find((one) => one.figure === figure)?.value ?? null
    return value === null ? "-" : formatNumber(value)
  }
  return {
    title:
      `Server-sent events over loopback, medians of ${lives} times ${turns} turns. fetch-event-source gets a window and a document.\n` +
      "CPU of the reading process, and heap that it allocated, per 100,000 events",
    head: ["", "events/s", "ours over it", "CPU (ms)", "heap (MB)", "kept (MB)"],
    rows: measured.flatMap(({ work: { label, slice } }) =>
      contenders.map((contender) => {
        const at = `${label}: ${contender.label}`
        return [
          at,
          valueOf(at),
          contender === ours ? "" : valueOf(`${label}: ours over ${contender.label}`),
          valueOf(`${at}, CPU per 100,000`),
          valueOf(`${at}, heap allocated per 100,000`),
          valueOf(`${at}, heap kept after ${slice * turns}`)
        ]
      })
    )
  }
}

export const run = ({ progress }: Context): Promise<Report> =>
  withChild(moduleOf("server.ts"), [], async (server) => {
    const origin = `http://127.0.0.1:${Number(await server.next())}`
    const measured: Array<Measured> = []
    for (const work of works) {
      const taken: Array<Taken> = []
      for (let life = 1; life <= lives; life++) {
        progress(`sse: ${work.label}, ${turns} turns, ${life} of ${lives}`)
        taken.push(await takeTurns(server, origin, work, life))
      }
      measured.push({ work, taken: joined(taken) })
    }
    const figures = measured.flatMap(figuresOf)
    return { figures, tables: [tableOf(measured, figures)] }
  })
