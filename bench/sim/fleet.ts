// A fleet of lifelines: every client is the real heartbeat machine, driven in virtual time against a registry that is up or
// down. One client after the other, since they know nothing of each other.
import * as Heartbeat from "effect-lifeline/Heartbeat"
import { dropped, outcomeOf } from "./herd.ts"
import type { Outcome } from "./herd.ts"
import { makeRandom } from "./random.ts"

/** How long a request takes, in milliseconds: from 5 to 50, answered or not. */
const latency = (random: () => number): number => 5 + 45 * random()

export interface Life {
  readonly policy: Heartbeat.Policy
  readonly random: () => number
  /** In milliseconds; the registry's time is the same. */
  readonly startAt: number
  readonly until: number
  readonly isUp: (now: number) => boolean
  /** Something that happens to the client from outside, at a moment. */
  readonly outside?: { readonly at: number; readonly event: Heartbeat.Event } | undefined
  /** A request is sent. `false` ends this life. */
  readonly onRequest: (sentAt: number, action: Heartbeat.Action, answered: boolean) => boolean
}

const answerOf = (action: Heartbeat.Action, sentAt: number): Heartbeat.Event =>
  action === "Register"
    ? { _tag: "Registered" }
    : action === "Verify"
    ? { _tag: "Verified" }
    : { _tag: "Beaten", sentAt }

/** One client from its start to `until`. */
export const live = ({ isUp, onRequest, outside, policy, random, startAt, until }: Life): void => {
  let step = Heartbeat.step(policy, Heartbeat.initial, { _tag: "Start" }, { now: startAt, random: random() })
  let now = startAt
  let pending = outside
  while (now + step.delay < until) {
    if (pending !== undefined && pending.at < now + step.delay) {
      now = Math.max(now, pending.at)
      step = Heartbeat.step(policy, step.state, pending.event, { now, random: random() })
      pending = undefined
      continue
    }
    const sentAt = now + step.delay
    const answered = isUp(sentAt)
    if (!onRequest(sentAt, step.action, answered)) return
    now = sentAt + latency(random)
    const event: Heartbeat.Event = answered ? answerOf(step.action, sentAt) : { _tag: "Failed" }
    step = Heartbeat.step(policy, step.state, event, { now, random: random() })
  }
}

export interface Outage {
  readonly clients: number
  readonly policy: Heartbeat.Policy
  /** The registry answers again from this moment on, in milliseconds after it went down. */
  readonly outage: number
  readonly seed: number
  /** `dropped`: all notice within 50 ms. `beats`: each notices at its next beat, at its own phase. */
  readonly noticed: "dropped" | "beats"
}

/** A fleet in its steady state loses the registry at 0. Clients that never noticed are not among the recoveries. */
export const outage = ({ clients, noticed, outage, policy, seed }: Outage): Outcome => {
  const random = makeRandom(seed)
  const warm = 4 * policy.interval
  const recoveries: Array<number> = []
  const attempts: Array<number> = []
  for (let client = 0; client < clients; client++) {
    const droppedAt = random() * dropped
    let failed = noticed === "dropped"
    let tried = 0
    live({
      policy,
      random,
      startAt: -warm - random() * policy.interval,
      until: outage + 100 * policy.interval,
      isUp: (now) => now < 0 || now >= outage,
      outside: noticed === "dropped" ? { at: droppedAt, event: { _tag: "Failed" } } : undefined,
      onRequest: (sentAt, _action, answered) => {
        const since = noticed === "dropped" ? droppedAt : 0
        if (sentAt < since) return true
        tried++
        failed ||= !answered
        if (!answered) return true
        if (failed) {
          recoveries.push(sentAt)
          attempts.push(tried)
        }
        return sentAt < outage
      }
    })
  }
  return outcomeOf(Float64Array.from(recoveries), clients, outage, Uint32Array.from(attempts))
}
