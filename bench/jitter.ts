// Jitter: what is left of it once the waits have reached their cap. 1,000 clients lose the same server in one instant and
// stay without it. The waits are those that each library computes itself, with a random source that can be repeated.
//
// With phase jitter a client draws once, and at the cap all wait exactly the cap, each at a moment of its own: so not only the
// waits are compared, but also the moments at which the clients come.
import * as Backoff from "effect-lifeline/Backoff"
import { waiters } from "./jitter/waiters.ts"
import type { Waiter } from "./jitter/waiters.ts"
import { atLeast, atMost, plain } from "./lib/figure.ts"
import type { Figure, Report, Table } from "./lib/figure.ts"
import { isInstalled, missing } from "./lib/peers.ts"
import "./lib/resolve.ts"
import { makeRandom } from "./sim/random.ts"

export const name = "jitter"

const seed = 20_260_101
const clients = 1000
/** At their caps are all from the 9th wait on (128 ms doubled to 30 s). */
const [from, until] = [12, 20]
const tenths = 10

const ours = (rule: string, policy: Backoff.Unbounded): Waiter => ({
  rule,
  cap: policy.cap,
  waits: async (count, random) => {
    const out: Array<number> = []
    let state: Backoff.State | undefined = Backoff.initial
    for (let now = 0; out.length < count; now += state.wait) {
      state = Backoff.step(policy, state, { now, random: random() })
      if (state === undefined) break
      out.push(state.wait)
    }
    return out
  }
})

const phase = ours("ours: Backoff.streams (phase)", Backoff.streams)
const full = ours("ours: full jitter", Backoff.hatchetStreams)

/** From the 1st to the 99th percentile. */
const spread = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(share * sorted.length)] ?? NaN
  return at(0.99) - at(0.01)
}

interface Spread {
  /** Of the waits of one attempt, of the moments of one attempt: in percent of the cap. */
  readonly waits: number
  readonly moments: number
  /** How many of all clients come in the fullest tenth of a cap, in percent. */
  readonly fullest: number
}

const measure = async ({ cap, waits }: Waiter): Promise<Spread> => {
  const random = makeRandom(seed)
  const drawn: Array<ReadonlyArray<number>> = []
  for (let client = 0; client < clients; client++) drawn.push(await waits(until, random))
  const moments = drawn.map((waits) => {
    let now = 0
    return waits.map((wait) => now += wait)
  })
  const bins = new Map<number, number>()
  for (const moment of moments.flatMap((moments) => moments.slice(from))) {
    const bin = Math.floor(moment / cap * tenths)
    bins.set(bin, (bins.get(bin) ?? 0) + 1)
  }
  const percent = (value: number) => 100 * value / cap
  return {
    waits: percent(spread(drawn.map((waits) => waits[from] ?? NaN))),
    moments: percent(spread(moments.map((moments) => moments[from] ?? NaN))),
    fullest: 100 * Math.max(...bins.values()) / clients
  }
}

const columns = ["waits", "moments", "fullest"] as const

const titles: Readonly<Record<(typeof columns)[number], string>> = {
  waits: "spread of the waits",
  moments: "spread of the moments",
  fullest: "in the fullest tenth of a cap"
}

const figureOf = (waiter: Waiter, column: (typeof columns)[number], spread: Spread | undefined): Figure => {
  const figure = `${waiter.rule}: ${titles[column]}`
  const value = spread?.[column] ?? null
  const unit = column === "fullest" ? "% of clients" : "% of cap"
  if (waiter === phase && column === "moments") return atLeast(figure, value, unit, 80)
  if (waiter === full && column === "waits") return atLeast(figure, value, unit, 80)
  if (waiter === phase && column === "fullest") return atMost(figure, value, unit, 15, "evenly: 10")
  return plain(figure, value, unit, spread === undefined ? missing : undefined)
}

export const run = async (): Promise<Report> => {
  const figures: Array<Figure> = []
  const rows: Array<ReadonlyArray<string>> = []
  for (const waiter of [phase, full, ...waiters]) {
    const spread = waiter.peer === undefined || isInstalled(waiter.peer) ? await measure(waiter) : undefined
    figures.push(...columns.map((column) => figureOf(waiter, column, spread)))
    rows.push([
      waiter.rule,
      `${waiter.cap / 1000} s`,
      ...columns.map((column) => spread === undefined ? "-" : `${spread[column].toFixed(0)} %`)
    ])
  }
  const table: Table = {
    title: `${clients} clients without their server, at the cap (attempts ${from + 1} to ${until}, seed ${seed}).\n` +
      "Spreads from the 1st to the 99th percentile, of the cap. A tenth of a cap: evenly 10 %; where the mean wait is half\n" +
      "the cap, as with full jitter, 20 %",
    head: ["rule", "cap", ...columns.map((column) => titles[column])],
    rows
  }
  return { figures, tables: [table] }
}
