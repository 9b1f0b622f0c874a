// Lifeline: what a heartbeat costs in CPU, beside the same beats written by hand and beside a peer, and what an idle lifeline
// holds. Real HTTP over loopback; the registry is a bare server in a process of its own, each side runs in a fresh one, and
// the sides take turns.
import { withChild } from "./lib/child.ts"
import { atMost, plain } from "./lib/figure.ts"
import type { Context, Figure, Report } from "./lib/figure.ts"
import { isInstalled, missing } from "./lib/peers.ts"
import "./lib/resolve.ts"
import { median } from "./lib/stats.ts"
import type { Held, Task } from "./lifeline/idle.ts"
import type { Work } from "./lifeline/work.ts"

export const name = "lifeline"

const count = 10_000
const runs = 3

const work: Omit<Work, "url"> = {
  apiKey: "a-key-of-the-bench",
  count,
  interval: 10_000,
  // Slow enough for one core: services that start faster than it can keep up with pile up, and so do connections, which
  // stay for a while and are not what is measured.
  starting: 16_000,
  concurrency: 64,
  warm: 5000,
  // Long enough that each side meets what it makes the collector do: a major collection comes every ten to twenty seconds.
  intervals: 3
}

const moduleOf = (file: string): URL => new URL(`lifeline/${file}`, import.meta.url)

const withRegistry = <A>(use: (url: string, beats: () => Promise<number>) => Promise<A>): Promise<A> =>
  withChild(moduleOf("registry.ts"), [], async (registry) => {
    const url = `http://127.0.0.1:${Number(await registry.next())}`
    return use(url, async () => {
      registry.send({})
      return Number(await registry.next())
    })
  })

/** Microseconds of CPU for each beat that the registry acknowledged. */
const beating = (module: string, args: ReadonlyArray<string> = []): Promise<number> =>
  withRegistry((url, beats) =>
    withChild(moduleOf(module), args, async (side) => {
      side.send({ ...work, url })
      await side.next()
      const before = await beats()
      const { cpu } = await side.next() as { readonly cpu: number }
      const acknowledged = await beats() - before
      const expected = count * work.intervals
      if (Math.abs(acknowledged / expected - 1) > 0.05) {
        throw new Error(`${module} beat ${acknowledged} times instead of ${expected}: is the machine too busy?`)
      }
      return cpu / acknowledged
    })
  )

const range = (values: ReadonlyArray<number>): string =>
  `median of ${values.length}, ${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)}`

const compare = async ({ progress }: Context): Promise<ReadonlyArray<Figure>> => {
  const ours: Array<number> = []
  const byHand: Array<number> = []
  for (let turn = 1; turn <= runs; turn++) {
    progress(`lifeline: ${count} lifelines, then ${count} services by hand, ${turn} of ${runs}`)
    ours.push(await beating("ours.ts"))
    byHand.push(await beating("byHand.ts"))
  }
  progress("lifeline: with verifications, then eureka-js-client")
  const verifying = await beating("ours.ts", ["defaults"])
  const installed = isInstalled("eureka-js-client")
  const eureka = installed ? await beating("eureka.ts") : null
  const figure = "CPU of a heartbeat"
  return [
    plain(`${figure}, ours`, median(ours), "us", range(ours)),
    plain(`${figure}, by hand (timer and fetch)`, median(byHand), "us", range(byHand)),
    atMost(`${figure}, ours over by hand`, median(ours) / median(byHand), "x", 1.5),
    plain(`${figure}, ours with every 10th verified`, verifying, "us", "the default; nobody else does it"),
    plain(
      `${figure}, eureka-js-client`,
      eureka,
      "us",
      installed ? "a new connection for each beat" : missing
    )
  ]
}

const holding = (task: Task): Promise<Held> =>
  withChild(moduleOf("idle.ts"), [], async (child) => {
    child.send(task)
    return await child.next() as Held
  })

const kilobytes = (bytes: number): number => bytes / 1000

const grow = async ({ progress }: Context): Promise<ReadonlyArray<Figure>> => {
  const held = new Map<number, Held>()
  for (const size of [1000, count, 10 * count]) {
    progress(`lifeline: ${size} idle, then beating`)
    held.set(size, await holding({ count: size, beats: 100_000, beatsPerSecond: 10_000 }))
  }
  const small = held.get(count)
  const large = held.get(10 * count)
  progress("lifeline: idle over Pulse")
  const pulse = await withRegistry((url) => holding({ count, url, beats: 0, beatsPerSecond: 0 }))
  const ratio = (of: (held: Held) => number): number | null =>
    small === undefined || large === undefined ? null : of(large) / of(small)
  const growth = (what: string, of: (held: Held) => number, bound: number, note?: string): Figure =>
    atMost(`${what}, 100,000 over 10,000`, ratio(of), "x", bound, note)
  return [
    atMost("heap of an idle lifeline", small === undefined ? null : kilobytes(small.heap), "kB", 8),
    atMost("heap of an idle lifeline over Pulse", kilobytes(pulse.heap), "kB", 8),
    plain("heap of a bare sleeping fiber", kilobytes(pulse.fiber), "kB"),
    ...[...held].flatMap(([size, { beat, heap, start }]) => [
      plain(`${size} lifelines: heap of each`, kilobytes(heap), "kB"),
      plain(`${size} lifelines: CPU to start each`, start, "us", "registered and beaten once; registry in the process"),
      plain(`${size} lifelines: CPU of a beat`, beat, "us", "registry in the process")
    ]),
    growth("heap of each", ({ heap }) => heap, 1.3),
    growth("CPU to start each", ({ start }) => start, 1.3),
    // As many beats a second whatever the number, so that this is what one costs among so many others. Nothing is searched
    // or copied, but a beat finds ever less of what it needs in the caches: some 4 MB, 40 MB, 400 MB are in turn.
    growth("CPU of a beat", ({ beat }) => beat, 2, "what is over 1 is the caches: 40 MB and 400 MB in turn")
  ]
}

export const run = async (context: Context): Promise<Report> => ({
  figures: [...await compare(context), ...await grow(context)]
})
