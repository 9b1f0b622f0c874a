/**
 * The status of a lifeline, derived from the state of the heartbeat machine and what the last call came to. Kept apart
 * from the loop so that the rule "what may a program believe now" can be read, and tested, on its own.
 */
import * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Status } from "../Lifeline.ts"
import type { Exhausted } from "../LifelineError.ts"
import type { CallError } from "./drive.ts"
import { isDefinitive } from "./drive.ts"

/** What the loop knows beside the machine's state. */
export interface Facts {
  readonly lease?: Lease.Lease | undefined
  readonly error?: CallError | undefined
  readonly exhausted?: Exhausted | undefined
  /** Until when the registry kept us for certain: outlives the loss of the lease. `undefined`: it never had us. */
  readonly heldUntil?: number | undefined
}

const finite = (time: number): number | undefined => Number.isFinite(time) ? time : undefined

/** When the next call is due, if any is. */
export const nextAttempt = ({ dueAt }: Heartbeat.State): number | undefined => finite(dueAt)

export const statusOf = (
  policy: Heartbeat.Policy,
  state: Heartbeat.State,
  { error, exhausted, heldUntil, lease }: Facts,
  now: number
): Status | undefined => {
  const { confirmedAt = now, failures, mode } = state
  const nextAttemptAt = nextAttempt(state)
  if (mode === "Stopped") return undefined
  if (mode !== "Running" && isDefinitive(error)) return { _tag: "Halted", since: now, cause: error }
  if (lease !== undefined && Heartbeat.isOnline(policy, state, now)) {
    return { _tag: "Online", since: now, lease, confirmedAt, expiresAt: finite(Heartbeat.expiresAt(policy, state)) }
  }
  if (state.exhausted && exhausted !== undefined) {
    return { _tag: "Standalone", since: now, cause: exhausted, nextAttemptAt }
  }
  if (heldUntil === undefined) {
    return { _tag: "Registering", since: now, attempt: failures + 1, cause: error, nextAttemptAt }
  }
  return lease !== undefined && now < heldUntil
    ? { _tag: "Unconfirmed", since: now, lease, failures, cause: error, nextAttemptAt }
    : { _tag: "Offline", since: Math.min(now, heldUntil), failures, cause: error, nextAttemptAt }
}
