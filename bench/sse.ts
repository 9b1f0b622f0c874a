// Server-sent events, end to end over loopback: how many a second, and what they cost. The server is a process of its own and
// writes as fast as it is read; each contender is a fresh process for each turn, and they take turns, so that what else the
// machine does meets all of them. A ratio is the median of the turns' ratios.
import { withChild } from "./lib/child.ts"
import { atLeast, plain } from "./lib/figure.ts"
import type { Context, Figure, Report, Table } from "./lib/figure.ts"
import { isInstalled, missing } from "./lib/peers.ts"
import { formatNumber } from "./lib/print.ts"
import "./lib/resolve.ts"
import { median } from "./lib/stats.ts"
import type { Task, Took } from "./sse/work.ts"

export const name = "sse"

const turns = 7

const works = [
  { label: "64 B", size: 64, warm: 100_000, count: 400_000 },
  { label: "1 kB", size: 1000, warm: 50_000, count: 150_000 },
  { label: "1 MB", size: 1_000_000, warm: 100, count: 300 }
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

const measure = (contender: Contender, task: Task): Promise<Took> =>
  withChild(moduleOf(contender.module), [], async (child) => {
    child.send(task)
    return await child.next() as Took
  })

type Turn = ReadonlyMap<Contender, Took>

const takeTurns = async (
  { progress }: Context,
  origin: string,
  { count, label, size, warm }: (typeof works)[number]
): Promise<ReadonlyArray<Turn>> => {
  const present = contenders.filter(({ peer }) => peer === undefined || isInstalled(peer))
  const done: Array<Turn> = []
  for (let turn = 0; turn < turns; turn++) {
    progress(`sse: ${label}, ${turn + 1} of ${turns}`)
    const took = new Map<Contender, Took>()
    for (let n = 0; n < present.length; n++) {
      const contender = present[(turn + n) % present.length]
      if (contender === undefined) continue
      took.set(contender, await measure(contender, { url: `${origin}/?size=${size}`, size, warm, count }))
    }
    done.push(took)
  }
  return done
}

const of = (turns: ReadonlyArray<Turn>, contender: Contender, value: (took: Took) => number): number | null => {
  const values = turns.flatMap((turn) => {
    const took = turn.get(contender)
    return took === undefined ? [] : [value(took)]
  })
  return values.length === 0 ? null : median(values)
}

/** How many events ours takes for each of theirs in the same time. */
const ratio = (turns: ReadonlyArray<Turn>, other: Contender): { value: number | null; note: string } => {
  const ratios = turns.flatMap((turn) => {
    const [left, right] = [turn.get(ours), turn.get(other)]
    return left === undefined || right === undefined ? [] : [right.millis / left.millis]
  })
  if (ratios.length === 0) return { value: null, note: missing }
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)]
  return { value: median(ratios), note: `median of ${ratios.length}, ${least.toFixed(2)} to ${most.toFixed(2)}` }
}

interface Measured {
  readonly work: (typeof works)[number]
  readonly turns: ReadonlyArray<Turn>
}

const figuresOf = ({ turns, work: { count, label } }: Measured): ReadonlyArray<Figure> => {
  const per100k = 100_000 / count
  const bounded = (other: Contender, bound: number | undefined): Figure => {
    const { note, value } = ratio(turns, other)
    const figure = `${label}: ours over ${other.label}`
    return bound === undefined ? plain(figure, value, "x", note) : atLeast(figure, value, "x", bound, note)
  }
  return [
    ...contenders.flatMap((contender) => [
      plain(`${label}: ${contender.label}`, of(turns, contender, ({ millis }) => 1000 * count / millis), "events/s"),
      plain(
        `${label}: ${contender.label}, CPU per 100,000`,
        of(turns, contender, ({ cpu }) => cpu * per100k / 1000),
        "ms"
      ),
      plain(
        `${label}: ${contender.label}, heap allocated per 100,000`,
        of(turns, contender, ({ allocated }) => allocated * per100k / 1e6),
        "MB"
      ),
      plain(
        `${label}: ${contender.label}, heap kept after ${count}`,
        of(turns, contender, ({ kept }) => kept / 1e6),
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
    title: "Server-sent events over loopback, in turns; medians. fetch-event-source gets a window and a document.\n" +
      "CPU of the reading process, and heap that it allocated, per 100,000 events",
    head: ["", "events/s", "ours over it", "CPU (ms)", "heap (MB)", "kept (MB)"],
    rows: measured.flatMap(({ work: { count, label } }) =>
      contenders.map((contender) => {
        const at = `${label}: ${contender.label}`
        return [
          at,
          valueOf(at),
          contender === ours ? "" : valueOf(`${label}: ours over ${contender.label}`),
          valueOf(`${at}, CPU per 100,000`),
          valueOf(`${at}, heap allocated per 100,000`),
          valueOf(`${at}, heap kept after ${count}`)
        ]
      })
    )
  }
}

export const run = (context: Context): Promise<Report> =>
  withChild(moduleOf("server.ts"), [], async (server) => {
    const origin = `http://127.0.0.1:${Number(await server.next())}`
    const measured: Array<Measured> = []
    for (const work of works) measured.push({ work, turns: await takeTurns(context, origin, work) })
    const figures = measured.flatMap(figuresOf)
    return { figures, tables: [tableOf(measured, figures)] }
  })
