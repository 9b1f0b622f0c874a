/**
 * The status of a lifeline, derived from the state of the heartbeat machine and what the last call came to. Kept apart
 * from the loop so that the rule "what may a program believe now" can be read, and tested, on its own.
 */
import * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Status } from "../Lifeline.ts"
import type { AuthFailed, Exhausted, Refused } from "../LifelineError.ts"
import type { CallError } from "./drive.ts"

/** What the loop knows beside the machine's state. */
export interface Facts {
  readonly lease?: Lease.Lease | undefined
  readonly error?: CallError | undefined
  readonly exhausted?: Exhausted | undefined
  /** Until when the registry kept us for certain: outlives the loss of the lease. `undefined`: it never had us. */
  readonly heldUntil?: number | undefined
}

const isDefinitive = (error: CallError | undefined): error is AuthFailed | Refused =>
  error !== undefined && (error._tag === "AuthFailed" || error._tag === "Refused")

/** When the next call is due, if any is. */
export const nextAttempt = (state: Heartbeat.State): number | undefined =>
  Number.isFinite(state.dueAt) ? state.dueAt : undefined

export const statusOf = (
  policy: Heartbeat.Policy,
  state: Heartbeat.State,
  facts: Facts,
  now: number
): Status | undefined => {
  const { error, exhausted, heldUntil, lease } = facts
  const nextAttemptAt = nextAttempt(state)
  if (state.mode === "Stopped") return undefined
  if ((state.mode === "Refused" || state.mode === "Unauthorized") && isDefinitive(error)) {
    return { _tag: "Halted", since: now, cause: error }
  }
  if (lease !== undefined && state.confirmedAt !== undefined && Heartbeat.isOnline(policy, state, now)) {
    const expiresAt = Heartbeat.expiresAt(policy, state)
    return {
      _tag: "Online",
      since: now,
      lease,
      confirmedAt: state.confirmedAt,
      expiresAt: Number.isFinite(expiresAt) ? expiresAt : undefined
    }
  }
  if (state.exhausted && exhausted !== undefined) {
    return { _tag: "Standalone", since: now, cause: exhausted, nextAttemptAt }
  }
  if (heldUntil === undefined) {
    return { _tag: "Registering", since: now, attempt: state.failures + 1, cause: error, nextAttemptAt }
  }
  const failing = { failures: state.failures, cause: error, nextAttemptAt }
  return lease !== undefined && now < heldUntil
    ? { _tag: "Unconfirmed", since: now, lease, ...failing }
    : { _tag: "Offline", since: Math.min(now, heldUntil), ...failing }
}
