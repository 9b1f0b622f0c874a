/**
 * What a policy that gives up adds to a stream: when it does, and the error that says so. By itself, so that streams that
 * never give up do not carry it.
 */
import * as Duration from "effect/Duration"
import type * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import type { Attempted } from "../LifelineError.ts"
import { Exhausted } from "../LifelineError.ts"
import type { Failure } from "../Reconnect.ts"

/** `Exhausted` has a `Transient` always: what else ended the last attempt, if anything did, is its detail. */
export const exhausted = (
  at: Attempted,
  attempts: number,
  elapsed: number,
  last: Failure | undefined
): Exhausted =>
  new Exhausted({
    attempts,
    elapsed: Duration.millis(Math.round(elapsed)),
    last: last?._tag === "Transient"
      ? last
      : Classify.unreachable({ ...at, detail: last?.message ?? "the connection ended" })
  })

/**
 * For one run of a stream, which began at `began`; then for each failure: after how many attempts, when it was seen, how long
 * the wait is that would follow. All in milliseconds. `undefined`: go on.
 */
export type Limit = (
  at: Attempted,
  began: number
) => (attempts: number, seen: number, wait: number, last: Failure | undefined) => Exhausted | undefined

export const limitOf = (policy: Backoff.Policy): Limit => (at, began) => {
  const { attempts: mostAttempts, elapsed: mostElapsed } = policy.bound === "bounded"
    ? policy
    : { attempts: Infinity, elapsed: Infinity }
  let since = began
  return (attempts, seen, wait, last) => {
    // No attempt before it: it is the loss of a connection that worked, which begins another outage.
    if (attempts === 0) since = seen
    return attempts >= mostAttempts || seen - since + wait > mostElapsed
      ? exhausted(at, attempts, seen - since, last)
      : undefined
  }
}
