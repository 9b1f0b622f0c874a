// A fleet that starts at one instant, as after a deployment, and then beats for as long as one likes.
import type * as Heartbeat from "effect-lifeline/Heartbeat"
import { live } from "./fleet.ts"
import { makeRandom } from "./random.ts"
import { makeHistogram } from "./stats.ts"

export interface Scenario {
  readonly clients: number
  readonly policy: Heartbeat.Policy
  /** How long it is watched, in milliseconds. */
  readonly duration: number
  readonly seed: number
  /** The registry is down from the first to before the second moment. */
  readonly down?: readonly [from: number, to: number] | undefined
}

export interface Load {
  /** The most in any second from a moment on, over the mean from then on. */
  readonly peakOverMean: (from: number) => number
  readonly peakPerSecond: (from: number) => number
  readonly total: number
}

export interface Outcome {
  /** Heartbeats only. */
  readonly beats: Load
  /** Everything that is sent: registrations, heartbeats, verifications. */
  readonly requests: Load
}

export const phase = ({ clients, down, duration, policy, seed }: Scenario): Outcome => {
  const random = makeRandom(seed)
  const beats = makeHistogram(duration)
  const requests = makeHistogram(duration)
  for (let client = 0; client < clients; client++) {
    live({
      policy,
      random,
      startAt: random() * 50,
      until: duration,
      isUp: (now) => down === undefined || now < down[0] || now >= down[1],
      onRequest: (sentAt, action) => {
        requests.add(sentAt)
        if (action === "Heartbeat") beats.add(sentAt)
        return true
      }
    })
  }
  const load = (histogram: typeof beats): Load => ({
    peakOverMean: (from) => histogram.peakPerSecond(from) / histogram.meanPerSecond(from),
    peakPerSecond: histogram.peakPerSecond,
    total: histogram.total()
  })
  return { beats: load(beats), requests: load(requests) }
}
