// Herd: a whole fleet loses its server within 50 ms. How hard is the server hit when it is back, and how long do clients wait?
// In virtual time: our rule is the real `Backoff.step`, our heartbeats are the real machine of `Heartbeat`; the rules of others
// follow from the constants that they publish (bench/sim/rules.ts names the sources).
import * as Backoff from "effect-lifeline/Backoff"
import * as Heartbeat from "effect-lifeline/Heartbeat"
import { writeFileSync } from "node:fs"
import { atMost, plain } from "./lib/figure.ts"
import type { Context, Figure, Report, Table } from "./lib/figure.ts"
import * as Fleet from "./sim/fleet.ts"
import { herd } from "./sim/herd.ts"
import type { Outcome } from "./sim/herd.ts"
import { phase } from "./sim/phase.ts"
import { render } from "./sim/plot.ts"
import * as Rules from "./sim/rules.ts"
import { perSecond } from "./sim/stats.ts"

export const name = "herd"

const seed = 20_260_101
const clients = 10_000
const seconds = (value: number): number => value * 1000

// ---------------------------------------------------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------------------------------------------------

/** All windows of the default are at the cap from here on: 1 + 2 + 4 + 8 + 16 s. */
const capped = 31
const outages = [3, 10, 30, capped, 60, 600]

const cell = ({ attempts, p99, peak }: Outcome): string =>
  `${peak.toFixed(1)} / ${p99.toFixed(1)} / ${attempts.toFixed(1)}`

interface StreamRun {
  readonly outage: number
  readonly outcomes: ReadonlyMap<Rules.Rule, Outcome>
}

const streamRuns = (): ReadonlyArray<StreamRun> =>
  outages.map((outage) => ({
    outage,
    outcomes: new Map(Rules.rules.map((rule) => [rule, herd(rule, { clients, outage: seconds(outage), seed })]))
  }))

const streamTable = (runs: ReadonlyArray<StreamRun>): Table => ({
  title: `Streams: ${clients} clients dropped within 50 ms, server back after T (seed ${seed}).\n` +
    "Peak in any second (% of clients) / p99 of recovery (s) / attempts per client",
  head: ["rule", ...outages.map((outage) => `T = ${outage} s`)],
  rows: Rules.rules.map((rule) => [
    rule.name,
    ...runs.map(({ outcomes }) => {
      const outcome = outcomes.get(rule)
      return outcome === undefined ? "" : cell(outcome)
    })
  ])
})

/** Where the bound on the peak is not proven the peak stands without one. */
export const streamFigures = (runs: ReadonlyArray<StreamRun>): ReadonlyArray<Figure> =>
  runs.flatMap(({ outage, outcomes }) =>
    Rules.rules.flatMap((rule): ReadonlyArray<Figure> => {
      const outcome = outcomes.get(rule)
      const full = outcomes.get(Rules.full)
      if (outcome === undefined || full === undefined) return []
      const figure = (what: string) => `streams, T = ${outage} s, ${rule.name}: ${what}`
      if (rule !== Rules.phase) {
        return [
          plain(figure("peak"), outcome.peak, "%/s"),
          plain(figure("p99"), outcome.p99, "s"),
          plain(figure("attempts"), outcome.attempts, "mean")
        ]
      }
      if (outage < 30) {
        return [
          atMost(figure("peak"), outcome.peak, "%/s", full.peak, "full jitter's"),
          atMost(figure("p99"), outcome.p99, "s", full.p99, "full jitter's"),
          plain(figure("attempts"), outcome.attempts, "mean")
        ]
      }
      return [
        outage < capped
          ? plain(figure("peak"), outcome.peak, "%/s", "the window of 16 s ends at 31 s only")
          : atMost(figure("peak"), outcome.peak, "%/s", 4.5),
        atMost(figure("p99"), outcome.p99, "s", 30.5),
        plain(figure("attempts"), outcome.attempts, "mean"),
        ...(outage === 600 ? [atMost(figure("most attempts"), outcome.mostAttempts, "", 26)] : [])
      ]
    })
  )

/** Not only at the moments of the table: whenever the server comes back. */
const sweep = (): ReadonlyArray<Figure> => {
  const outcomes = Array.from(
    { length: 120 },
    (_, index) => herd(Rules.phase, { clients, outage: seconds(capped + index), seed: seed + index })
  )
  return [
    atMost("streams, worst of T = 31, 32, ... 150 s: peak", Math.max(...outcomes.map(({ peak }) => peak)), "%/s", 4.5),
    atMost("streams, worst of T = 31, 32, ... 150 s: p99", Math.max(...outcomes.map(({ p99 }) => p99)), "s", 30.5)
  ]
}

/** The server says `Retry-After: 30` for a minute: obeyed to the letter, the fleet would come in one instant. */
const hinted = (): ReadonlyArray<Figure> => {
  const rule = Rules.fromPolicy("told", "", Backoff.streams, 30_000)
  const outcome = herd(rule, { clients, outage: seconds(60), seed })
  return [atMost("streams, T = 60 s, told to wait 30 s each time: peak", outcome.peak, "%/s", 4.5)]
}

// ---------------------------------------------------------------------------------------------------------------------
// Heartbeats
// ---------------------------------------------------------------------------------------------------------------------

const policy = Heartbeat.make({ interval: "30 seconds" })
const fullPolicy = Heartbeat.make({
  interval: "30 seconds",
  failing: { ...Backoff.heartbeat("30 seconds"), jitter: Backoff.jitter("full") }
})
const cap = policy.failing.cap / 1000
const heartbeatOutages = [3, 10, 30, 60, 600]

interface HeartbeatRun {
  readonly fleet: number
  readonly noticed: "dropped" | "beats"
  readonly outage: number
  readonly ours: Outcome
  readonly full: Outcome
}

const heartbeatRuns = (progress: Context["progress"]): ReadonlyArray<HeartbeatRun> =>
  [10_000, 100_000].flatMap((fleet) =>
    (["dropped", "beats"] as const).flatMap((noticed) =>
      heartbeatOutages.map((outage) => {
        progress(`herd: ${fleet} lifelines, ${noticed}, outage of ${outage} s`)
        const scenario = { clients: fleet, outage: seconds(outage), seed, noticed }
        return {
          fleet,
          noticed,
          outage,
          ours: Fleet.outage({ ...scenario, policy }),
          full: Fleet.outage({ ...scenario, policy: fullPolicy })
        }
      })
    )
  )

const noticedAs = { dropped: "all notice within 50 ms", beats: "each notices at its next beat" }

const heartbeatTable = (runs: ReadonlyArray<HeartbeatRun>): Table => ({
  title: `Heartbeats: the real machine, interval 30 s, windows 30, 60, 60 s, server back after T (seed ${seed}).\n` +
    "Peak of recoveries in any second (% of clients) / p99 of recovery (s) / attempts per client",
  head: ["fleet", "", "rule", ...heartbeatOutages.map((outage) => `T = ${outage} s`)],
  rows: [10_000, 100_000].flatMap((fleet) =>
    (["dropped", "beats"] as const).flatMap((noticed) =>
      (["ours", "full"] as const).map((rule) => [
        String(fleet),
        noticedAs[noticed],
        rule === "ours" ? "phase jitter (ours)" : "full jitter",
        ...runs.filter((run) => run.fleet === fleet && run.noticed === noticed).map((run) => cell(run[rule]))
      ])
    )
  )
})

/** Requests take at most 50 ms here. */
const request = 0.05

/** Within the first interval both rules come at the same rate: there only chance makes the one peak higher. */
const withChance = (peak: number, fleet: number): number => peak + 3 * Math.sqrt(peak * fleet / 100) / fleet * 100

const heartbeatFigures = ({ fleet, full, noticed, ours, outage }: HeartbeatRun): ReadonlyArray<Figure> => {
  const figure = (what: string) => `heartbeats, ${fleet}, ${noticedAs[noticed]}, T = ${outage} s: ${what}`
  const uniform = 100 / cap
  return [
    outage >= cap
      ? atMost(figure("peak"), ours.peak, "%/s", 1.4 * uniform, "1.4 times uniform over the cap")
      : atMost(figure("peak"), ours.peak, "%/s", withChance(full.peak, fleet), "full jitter's, and 3 sigma"),
    // From one interval on the windows are at the cap: there full jitter has a shorter tail, and the higher peak.
    outage >= policy.interval / 1000
      ? atMost(figure("p99"), ours.p99, "s", cap + request, "the cap and one request")
      : atMost(figure("p99"), ours.p99, "s", full.p99, "full jitter's"),
    plain(figure("attempts"), ours.attempts, "mean"),
    plain(figure("peak with full jitter"), full.peak, "%/s"),
    plain(figure("p99 with full jitter"), full.p99, "s")
  ]
}

/** The simulator itself: an hour of 100,000 lifelines with an outage of ten minutes in it. */
const hour = (): ReadonlyArray<Figure> => {
  const started = performance.now()
  const { requests } = phase({
    clients: 100_000,
    policy,
    duration: seconds(3600),
    seed,
    down: [seconds(1500), seconds(2100)]
  })
  const wall = (performance.now() - started) / 1000
  return [
    atMost("one simulated hour of 100,000 lifelines", wall, "s", 60),
    plain("requests in that hour", requests.total, "")
  ]
}

// ---------------------------------------------------------------------------------------------------------------------
// Plot
// ---------------------------------------------------------------------------------------------------------------------

const plotted: ReadonlyArray<readonly [Rules.Rule, string]> = [
  [Rules.phase, "effect-lifeline: phase jitter"],
  [Rules.full, "full jitter (AWS and others)"],
  [Rules.grpc, "gRPC"],
  [Rules.reflector, "Kubernetes reflector"],
  [Rules.socketIo, "socket.io"],
  [Rules.unjittered, "no jitter"]
]

/** The plot of the README: arrivals in each second after an outage of a minute. */
export const plot = (): string => {
  const many = 100_000
  const outage = seconds(60)
  return render({
    title: "Clients that come back in each second after an outage of 60 s",
    subtitle:
      "In percent of all clients, which were dropped within 50 ms. Simulated. At the right: the worst second, and by when 99 % are back.",
    limit: 10,
    reference: { value: 100 / 30, label: "the uniform rate over 30 s, the best there is for a longest wait of 30 s" },
    axis: "seconds after the server is back",
    panels: plotted.map(([rule, title]) => {
      const { p99, peak, recoveries } = herd(rule, { clients: many, outage, seed })
      return {
        title,
        note: `${peak.toFixed(1)} %/s, 99 % in ${p99.toFixed(0)} s`,
        peak: `${peak.toFixed(1)} %`,
        values: perSecond(recoveries, outage, 60).map((count) => 100 * count / many),
        ours: rule === Rules.phase
      }
    })
  })
}

export const run = async ({ progress, write }: Context): Promise<Report> => {
  progress("herd: streams")
  const streams = streamRuns()
  const heartbeats = heartbeatRuns(progress)
  progress("herd: an hour of 100,000 lifelines")
  const figures = [
    ...streamFigures(streams),
    ...sweep(),
    ...hinted(),
    ...heartbeats.flatMap(heartbeatFigures),
    ...hour()
  ]
  if (write) writeFileSync(new URL("../docs/herd.svg", import.meta.url), plot())
  return { figures, tables: [streamTable(streams), heartbeatTable(heartbeats)] }
}
