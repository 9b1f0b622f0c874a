/**
 * How an outage grows by one failure, and how long the wait after it is. By itself, since a stream measures time in a way of
 * its own, and needs no more than this of `Backoff`.
 */
import type { Policy, State } from "../Backoff.ts"

/** An outage without its beginning: all that waits depend on. */
export type Outage = Omit<State, "since">

/** The n-th window in milliseconds, n from 1, before its jitter is looked at; 0 for n below 1. */
export const window = (policy: Policy, n: number): number =>
  n < 1 ? 0 : Math.min(policy.cap, policy.base * policy.factor ** (n - 1))

/**
 * One failure more, whatever bounds the policy has. `asked` is the server's hint; where there is none it is NaN, and so is
 * what follows from it.
 */
export const lengthen = (policy: Policy, state: Outage, random: number, asked = NaN): Outage => {
  const failures = state.failures + 1
  const phase = state.failures === 0 ? random : state.phase
  const draw = policy.jitter.draw(phase, random)
  const [least, most] = policy.jitter.range(policy, failures, state.wait)
  const hint = Math.min(policy.hint.ceiling, Math.max(policy.hint.floor, asked))
  const atLeast = hint + draw * Math.max(window(policy, failures), Math.min(policy.cap, hint))
  const wait = Math.max(policy.floor, least + draw * (most - least), atLeast || 0)
  return { failures, phase, wait }
}
