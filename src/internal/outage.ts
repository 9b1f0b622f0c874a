/**
 * How an outage grows by one failure, and how long the wait after it is. By itself, since a stream measures time in a way of
 * its own, and needs no more than this of `Backoff`.
 */
import type { Failure, Policy, State } from "../Backoff.ts"

/** An outage without its beginning: all that waits depend on. */
export type Outage = Omit<State, "since">

/** The n-th window in milliseconds, n from 1; 0 for n below 1. */
export const window = (policy: Policy, n: number): number =>
  n < 1 ? 0 : Math.min(policy.cap / policy.jitter.most, policy.base * policy.factor ** (n - 1))

const withHint = (policy: Policy, n: number, draw: number, asked: number | undefined): number => {
  if (asked === undefined || Number.isNaN(asked)) return 0
  const hint = Math.min(policy.hint.ceiling, Math.max(policy.hint.floor, asked))
  return hint + draw * Math.max(window(policy, n), Math.min(policy.cap, hint))
}

/** One failure more, whatever bounds the policy has. */
export const lengthen = (policy: Policy, state: Outage, failure: Pick<Failure, "hint" | "random">): Outage => {
  const failures = state.failures + 1
  const phase = state.failures === 0 ? failure.random : state.phase
  const draw = policy.jitter.draw(phase, failure.random)
  const [least, most] = policy.jitter.range(policy, failures, state.wait)
  const wait = Math.max(policy.floor, least + draw * (most - least), withHint(policy, failures, draw, failure.hint))
  return { failures, phase, wait }
}
