// A herd: clients lose one server within 50 ms, and come back by a rule. In virtual time, one client after the other:
// they know nothing of each other, so no queue of events is needed. Attempts take no time.
import { makeRandom } from "./random.ts"
import type { Rule } from "./rules.ts"
import { peakPerSecond, quantile } from "./stats.ts"

export interface Scenario {
  readonly clients: number
  /** The server answers again from this moment on, in milliseconds after the drop. */
  readonly outage: number
  readonly seed: number
}

export interface Outcome {
  /** When each client came back, in milliseconds after the drop; sorted. */
  readonly recoveries: Float64Array
  /** The most that came in any second, in percent of all clients. */
  readonly peak: number
  /** By when 99 % were back, in seconds after the server was. */
  readonly p99: number
  /** Attempts of one client until it was back, that one included: on average, and the most. */
  readonly attempts: number
  readonly mostAttempts: number
}

/** Within this many milliseconds all clients lose the server. */
export const dropped = 50

export const outcomeOf = (
  recoveries: Float64Array,
  clients: number,
  outage: number,
  attempts: Uint32Array
): Outcome => {
  recoveries.sort()
  return {
    recoveries,
    peak: 100 * peakPerSecond(recoveries) / clients,
    p99: (quantile(recoveries, 0.99) - outage) / 1000,
    attempts: attempts.reduce((total, count) => total + count, 0) / attempts.length,
    mostAttempts: attempts.reduce((most, count) => Math.max(most, count), 0)
  }
}

export const herd = (rule: Rule, { clients, outage, seed }: Scenario): Outcome => {
  const random = makeRandom(seed)
  const recoveries = new Float64Array(clients)
  const attempts = new Uint32Array(clients)
  for (let client = 0; client < clients; client++) {
    const wait = rule.begin()
    let now = random() * dropped
    let n = 0
    do {
      now += wait({ n: ++n, now, random })
    } while (now < outage)
    recoveries[client] = now
    attempts[client] = n
  }
  return outcomeOf(recoveries, clients, outage, attempts)
}
