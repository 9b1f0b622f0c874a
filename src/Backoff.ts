/**
 * Backoff: how long to wait after the n-th failure in a row, and when to give up.
 *
 * A {@link Policy} is a record of numbers and a jitter; `BackoffConfig` reads and writes it as data. The waits come from one pure function, {@link step}, which is driven by {@link retry}
 * (rewrites the error type), by {@link toSchedule}, by {@link waits} (the bare sequence, for tests and tables), and
 * by the heartbeat machine.
 *
 * The n-th wait starts from a window, `min(cap, base * factor^(n - 1))`. The window is capped first and jittered after,
 * so that jitter survives at the cap. {@link Jitter} says how:
 *
 * | jitter | n-th wait | use |
 * |---|---|---|
 * | `"phase"` | one phase u in [0, 1) per outage; attempt n falls at (sum of the windows before n) + u * window n | the default: a fleet comes back at the uniform rate |
 * | `"full"` | uniform in [0, window) | as AWS, Envoy, Hatchet do |
 * | `"equal"` | uniform in [window / 2, window) | where a short wait is never right |
 * | `{ proportional: r }` | uniform in [1 - r, 1 + r) times the window, the window at most cap / (1 + r) | as gRPC (0.2) and bore (0.25) do, but never past the cap |
 * | `"decorrelated"` | uniform in [base, min(cap, 3 * the wait before)) | as AWS describes it |
 * | `"none"` | the window | tests, exact replicas of other clients |
 *
 * No wait is shorter than `floor` or longer than `cap`, unless the server asks for longer (`Retry-After`). Such a hint is
 * held inside `hint.floor` and `hint.ceiling`, never shortens a wait, and is jittered over as long again (at least over the
 * window, at most over the cap), so that a fleet that was given one hint does not come back in one instant.
 *
 * Gotchas:
 * - A wait starts when the failure is seen: the time that attempts take comes on top.
 * - {@link retry} and {@link toSchedule} know one outage only. What lives through many (a connection, a
 *   lifeline) drives {@link step} itself and says with {@link recovered} when an outage is over: on progress that lasted,
 *   never on a connection that merely opened.
 *
 * **Example** (A bounded policy turns `Transient` into `Exhausted`)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import type { AuthFailed, Exhausted, Transient } from "effect-lifeline/LifelineError"
 * import type * as Effect from "effect/Effect"
 *
 * declare const register: Effect.Effect<string, Transient | AuthFailed>
 *
 * export const patient: Effect.Effect<string, AuthFailed> = register.pipe(Backoff.retry(Backoff.streams))
 * export const bounded: Effect.Effect<string, AuthFailed | Exhausted> = register.pipe(
 *   Backoff.retry(Backoff.make({ base: "1 second", cap: "10 seconds", attempts: 4 }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Outage from "./internal/outage.ts"
import type { Transient } from "./LifelineError.ts"
import { Exhausted, retryAfter } from "./LifelineError.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a window becomes a wait; see the table above.
 *
 * @category models
 * @since 0.1.0
 */
export type Jitter = "phase" | "none" | "full" | "equal" | "decorrelated" | { readonly proportional: number }

/**
 * A {@link Jitter} with what it does; see {@link jitter}. A policy holds it, so that who uses one kind does not carry the others.
 *
 * @category models
 * @since 0.1.0
 */
export interface JitterRule {
  readonly name: Jitter
  /** How many times its window a wait may be. @default 1 */
  readonly most?: number | undefined
  /** What decides between the two ends of the range, from 0 to 1: of the phase of the outage and a fresh draw. */
  readonly draw: (phase: number, random: number) => number
  /** The n-th wait lies between these; `before` is the wait before it. */
  readonly range: (policy: Policy, n: number, before: number) => readonly [least: number, most: number]
}

/**
 * What a policy is made from. Everything has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The first window. @default 1 second (gRPC's and Hatchet's) */
  readonly base?: Duration.Input | undefined
  /** By what a window grows with each failure; at least 1. @default 2 */
  readonly factor?: number | undefined
  /** The longest window. @default 30 seconds (Hatchet's) */
  readonly cap?: Duration.Input | undefined
  /** No wait is shorter than this. @default 100 milliseconds */
  readonly floor?: Duration.Input | undefined
  /** @default "phase" */
  readonly jitter?: Jitter | undefined
  /** How many attempts in all, the first one included; then the policy is bounded. @default no limit */
  readonly attempts?: number | undefined
  /** No attempt starts later than this after the first one did; then the policy is bounded. @default no limit */
  readonly elapsed?: Duration.Input | undefined
  /** How long things must go well before the next failure counts as the first one again. @default 10 seconds */
  readonly resetAfter?: Duration.Input | undefined
  /** A shorter hint of the server counts as this. @default the same as `floor` */
  readonly hintFloor?: Duration.Input | undefined
  /** A longer hint of the server counts as this. @default 5 minutes */
  readonly hintCeiling?: Duration.Input | undefined
}

interface Common {
  /** Milliseconds, as are all durations of a policy. */
  readonly base: number
  readonly factor: number
  readonly cap: number
  readonly floor: number
  readonly jitter: JitterRule
  readonly resetAfter: number
  readonly hint: { readonly floor: number; readonly ceiling: number }
}

/**
 * A policy that never gives up.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unbounded extends Common {
  readonly bound: "unbounded"
}

/**
 * A policy that gives up: after `attempts` attempts or `elapsed` milliseconds, whichever comes first (`Infinity` where
 * only the other was given).
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounded extends Common {
  readonly bound: "bounded"
  readonly attempts: number
  readonly elapsed: number
}

/**
 * A record; durations in milliseconds. Made by {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy = Unbounded | Bounded

/**
 * Where one outage stands: plain data, fit for a store. {@link initial} is the state outside of any outage.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  /** Failures so far in this outage. */
  readonly failures: number
  /** When the attempt that was the first to fail began, milliseconds since 1970. */
  readonly since: number
  /** The phase that this outage drew, in [0, 1). */
  readonly phase: number
  /** The last wait, in milliseconds. */
  readonly wait: number
}

/**
 * What {@link step} needs to know of the failure: when it was seen, a fresh draw in [0, 1), and the server's hint.
 *
 * @category models
 * @since 0.1.0
 */
export interface Failure {
  /** Milliseconds since 1970. */
  readonly now: number
  /** When the attempt began, milliseconds since 1970: for the first failure, from which time counts. @default now */
  readonly startedAt?: number | undefined
  /** A fresh draw in [0, 1). */
  readonly random: number
  /** What the server asked to wait, in milliseconds. */
  readonly hint?: number | undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// Constructors
// ---------------------------------------------------------------------------------------------------------------------

/** The longest wait, in milliseconds: what timers and alarms of every runtime can count, 24.8 days. */
const longest = 2 ** 31 - 1

const within = (value: number, otherwise: number, least: number, most: number): number =>
  Math.min(most, Math.max(least, Number.isNaN(value) ? otherwise : value))

const millis = (input: Duration.Input | undefined, otherwise: number, least: number, most = longest): number =>
  within(
    input === undefined ? NaN : typeof input === "number" ? input : Duration.toMillis(input),
    otherwise,
    least,
    most
  )

/**
 * Makes a policy. Given `attempts` or `elapsed` it is bounded: that is what {@link retry} goes by.
 *
 * Never fails. Values that make no sense are moved to the nearest that do: a duration lies between 0 (`base`: 1 ms) and
 * 24.8 days, a factor below 1 is 1, a cap below the base is the base, a floor above the cap is the cap, fewer than 1
 * attempt is 1, a proportional jitter lies between 0 and 1. NaN counts as not given, and as the lowest of limits.
 * `BackoffConfig` is for values that come from outside: it says what is wrong with them instead.
 *
 * **Example** (The waits of a policy)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 *
 * const policy = Backoff.make({ base: "1 second", cap: "5 seconds", jitter: "none", attempts: 5 })
 * export const sequence = Backoff.waits(policy, 0.5) // => [1000, 2000, 4000, 5000]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(options?: Options & { readonly attempts?: undefined; readonly elapsed?: undefined }): Unbounded
export function make(
  options: Options & ({ readonly attempts: number } | { readonly elapsed: Duration.Input })
): Bounded
export function make(options: Options): Policy
export function make(options: Options = {}): Policy {
  const base = millis(options.base, streams.base, 1)
  const cap = millis(options.cap, streams.cap, base)
  const floor = Math.min(cap, millis(options.floor, streams.floor, 0))
  const hintFloor = millis(options.hintFloor, floor, 0)
  const common: Common = {
    base,
    factor: within(options.factor ?? streams.factor, streams.factor, 1, Infinity),
    cap,
    floor,
    jitter: options.jitter === undefined ? streams.jitter : jitter(options.jitter),
    resetAfter: millis(options.resetAfter, streams.resetAfter, 0),
    hint: { floor: hintFloor, ceiling: millis(options.hintCeiling, streams.hint.ceiling, hintFloor) }
  }
  if (options.attempts === undefined && options.elapsed === undefined) return { ...common, bound: "unbounded" }
  return {
    ...common,
    bound: "bounded",
    attempts: within(options.attempts ?? Infinity, 1, 1, Infinity),
    elapsed: options.elapsed === undefined ? Infinity : millis(options.elapsed, 0, 0, Infinity)
  }
}

/**
 * The state outside of any outage.
 *
 * @category constructors
 * @since 0.1.0
 */
export const initial: State = { failures: 0, since: 0, phase: 0, wait: 0 }

// ---------------------------------------------------------------------------------------------------------------------
// The pure core
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The n-th window of a policy in milliseconds, n from 1; 0 for n below 1.
 *
 * @category combinators
 * @since 0.1.0
 */
export const window = (policy: Policy, n: number): number =>
  Math.min(policy.cap / (policy.jitter.most ?? 1), Outage.window(policy, n))

const afresh = (_: number, random: number): number => random
const never = (): number => 0

const rules = {
  none: (policy, n) => [window(policy, n), window(policy, n)],
  full: (policy, n) => [0, window(policy, n)],
  equal: (policy, n) => [window(policy, n) / 2, window(policy, n)],
  decorrelated: ({ base, cap }, _, before) => [base, Math.min(cap, Math.max(base, 3 * before))]
} satisfies { readonly [name: string]: JitterRule["range"] }

const proportional: JitterRule["range"] = (policy, n) => {
  const { most = 1 } = policy.jitter
  return [(2 - most) * window(policy, n), most * window(policy, n)]
}

/**
 * A jitter by its name, for a policy that is made from another one by spreading it; {@link make} takes the name itself.
 *
 * **Example** (Heartbeats that come back as with other clients)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 *
 * export const policy: Backoff.Unbounded = { ...Backoff.heartbeat("30 seconds"), jitter: Backoff.jitter("full") }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const jitter = (name: Jitter): JitterRule => {
  if (name === "phase") return phase
  if (typeof name === "string") return { name, draw: name === "none" ? never : afresh, range: rules[name] }
  const ratio = within(name.proportional, 0, 0, 1)
  return { name: { proportional: ratio }, most: 1 + ratio, draw: afresh, range: proportional }
}

/**
 * One failure more: the new state, whose `wait` is the next wait in milliseconds, or `undefined` where a bounded policy
 * gives up: at the last of its attempts, or when the next one would start later than `elapsed` after the first one did.
 * Pure: the caller brings the time and the draw. Where the clock was set back, `elapsed` counts from then on.
 *
 * **Example** (A loop of one's own)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 *
 * const first = Backoff.step(Backoff.streams, Backoff.initial, { now: 0, random: 0.5 })
 * first?.wait // => 500
 * const second = first && Backoff.step(Backoff.streams, first, { now: 500, random: 0.9, hint: 10_000 })
 * export const wait = second?.wait // => 15000
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const step = (policy: Policy, state: State, failure: Failure): State | undefined => {
  const next = advance(policy, state, failure)
  return policy.bound === "bounded" &&
      (next.failures >= policy.attempts || failure.now - next.since + next.wait > policy.elapsed)
    ? undefined
    : next
}

/**
 * {@link step}, whatever bounds the policy has: for who counts attempts in a way of his own.
 *
 * @category combinators
 * @since 0.1.0
 */
export const advance = (policy: Policy, state: State, failure: Failure): State => ({
  ...Outage.lengthen(policy, state, failure.random, failure.hint),
  since: Math.min(state.failures === 0 ? failure.startedAt ?? failure.now : state.since, failure.now)
})

/**
 * The state after things have gone well since `healthySince`: {@link initial} once that is `resetAfter` ago, else the
 * state as it was. Opening a connection is not yet going well: call this on progress only.
 *
 * @category combinators
 * @since 0.1.0
 */
export const recovered = (policy: Policy, state: State, healthySince: number, now: number): State =>
  now - healthySince >= policy.resetAfter ? initial : state

/**
 * The waits of one outage in milliseconds, all drawn with the same `random`, attempts taking no time: the whole sequence
 * of a bounded policy, the first `limit` of an unbounded one.
 *
 * @category combinators
 * @since 0.1.0
 */
export const waits = (policy: Policy, random: number, limit = 100): ReadonlyArray<number> => {
  const out: Array<number> = []
  let now = 0
  for (
    let state = step(policy, initial, { now, random });
    state !== undefined && out.length < limit;
    state = step(policy, state, { now, random })
  ) {
    out.push(state.wait)
    now += state.wait
  }
  return out
}

// ---------------------------------------------------------------------------------------------------------------------
// Drivers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A policy as a `Schedule` whose input is the failure and whose output is how many failures there were so far. It is the
 * policy of one outage: it starts afresh each time it is run. A bounded policy's schedule ends; what it retried then fails
 * with its last `Transient`, where {@link retry} would fail with `Exhausted`.
 *
 * **Example** (Combined with another schedule)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import * as Backoff from "effect-lifeline/Backoff"
 * import type { Transient } from "effect-lifeline/LifelineError"
 *
 * declare const call: Effect.Effect<number, Transient>
 *
 * export const logged = Effect.retry(
 *   call,
 *   Backoff.toSchedule(Backoff.streams).pipe(
 *     Schedule.tap(({ duration, output }) => Effect.logWarning(`failure ${output}, again in ${duration}`))
 *   )
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const toSchedule = (policy: Policy): Schedule.Schedule<number, Transient> =>
  Schedule.fromStep(Effect.map(Clock.currentTimeMillis, (startedAt) => {
    let state = initial
    return (now: number, error: Transient) =>
      Effect.flatMap(Random.next, (random) => {
        const next = step(policy, state, { now, startedAt, random, hint: hintOf(error) })
        if (next === undefined) return Cause.done(state.failures + 1)
        state = next
        return Effect.succeed<[number, Duration.Duration]>([next.failures, Duration.millis(next.wait)])
      })
  }))

const hintOf = (error: Transient): number | undefined => {
  const hint = retryAfter(error)
  return hint === undefined ? undefined : Duration.toMillis(hint)
}

const isTransient = (error: unknown): error is Transient => Predicate.isTagged(error, "Transient")

/** A clock that nobody sets: only differences of it mean something. */
const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/**
 * Tries an effect again while it fails with `Transient`, and takes `Transient` out of its error type: a bounded policy
 * puts `Exhausted` in its place, an unbounded one nothing, and one of which the type does not say whether it is bounded
 * counts as bounded. Every other failure, a defect and an interruption end it at once.
 *
 * `Exhausted` carries how many attempts there were, how long it all took and the last failure. Interrupting it ends a
 * wait at once. Setting the clock changes nothing: time is measured by the monotonic one.
 *
 * All attempts count as one outage, so this is for what ends when it succeeds. To log each failure, tap the effect before.
 *
 * **Example** (What is left in the type)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import type { Exhausted, Refused, Transient } from "effect-lifeline/LifelineError"
 * import * as Effect from "effect/Effect"
 *
 * declare const call: Effect.Effect<number, Transient | Refused>
 *
 * export const bounded: Effect.Effect<number, Refused | Exhausted> = Backoff.retry(call, Backoff.registration)
 * export const logged: Effect.Effect<number, Refused> = call.pipe(
 *   Effect.tapError((error) => Effect.logWarning(error.message)),
 *   Backoff.retry(Backoff.streams)
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const retry: {
  (policy: Unbounded): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, Exclude<E, Transient>, R>
  (policy: Policy): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, Exclude<E, Transient> | Exhausted, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, policy: Unbounded): Effect.Effect<A, Exclude<E, Transient>, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, policy: Policy): Effect.Effect<A, Exclude<E, Transient> | Exhausted, R>
} = dual(
  2,
  <A, E, R>(
    self: Effect.Effect<A, E, R>,
    policy: Policy
  ): Effect.Effect<A, Exclude<E, Transient> | Exhausted, R> =>
    Effect.flatMap(monotonicMillis, (started) => {
      let state = initial
      const pause = Effect.fnUntraced(function*(last: Transient) {
        const now = yield* monotonicMillis
        const next = step(policy, state, { now, startedAt: started, random: yield* Random.next, hint: hintOf(last) })
        if (next === undefined) {
          return yield* new Exhausted({
            attempts: state.failures + 1,
            elapsed: Duration.millis(Math.round(now - started)),
            last
          })
        }
        state = next
        return yield* Effect.sleep(next.wait)
      })
      const attempt: Effect.Effect<A, Exclude<E, Transient> | Exhausted, R> = Effect.catch(
        self,
        (error) =>
          isTransient(error)
            ? Effect.flatMap(pause(error), () => attempt)
            : Effect.fail(error as Exclude<E, Transient>)
      )
      return attempt
    })
)

// ---------------------------------------------------------------------------------------------------------------------
// Presets: our own
// ---------------------------------------------------------------------------------------------------------------------

/** The default. Here, so that it is there when the presets are made. */
const phase: JitterRule = {
  name: "phase",
  draw: (phase) => phase,
  range: (policy, n) => [Outage.window(policy, n - 1), Outage.window(policy, n)]
}

/**
 * Streams, and whatever else is kept open: windows of 1, 2, 4, 8, 16, 30, 30, ... s, phase jitter, no limit. The windows
 * are those of Hatchet's SDKs.
 *
 * @category presets
 * @since 0.1.0
 */
export const streams: Unbounded = {
  bound: "unbounded",
  base: 1000,
  factor: 2,
  cap: 30_000,
  floor: 100,
  jitter: phase,
  resetAfter: 10_000,
  hint: { floor: 100, ceiling: 300_000 }
}

/** {@link streams}, with a bound. In a call of its own, since no bundler drops a spread at the top of a module. */
const bounded = (options: Partial<Bounded> & { readonly attempts: number }): Bounded => ({
  ...streams,
  elapsed: Infinity,
  ...options,
  bound: "bounded"
})

/**
 * {@link streams} for when a caller waits: 5 attempts, as in Hatchet's SDKs, so at most 15 s of waiting.
 *
 * @category presets
 * @since 0.1.0
 */
export const synchronous: Bounded = bounded({ attempts: 5 })

/**
 * The first registration: windows of 2, 4, 8, 16, 32, 32 s as Pulse's SDK promises, so 7 attempts in at most 94 s and
 * the time of the requests; phase jitter.
 *
 * @category presets
 * @since 0.1.0
 */
export const registration: Bounded = bounded({ base: 2000, cap: 32_000, attempts: 7 })

/**
 * Failing heartbeats: a first window of one interval, then windows of two, phase jitter, no limit. So a registry that is
 * down is never asked more often than one that is up, a fleet comes back to it at the uniform rate, and no wait is
 * longer than Pulse's stale limit of 120 s with its interval of 30 s. No window, and no hint of the server, is longer than
 * half of `expiresAfter`, how long the registry keeps a service without a beat, so that one failure never makes it stale.
 *
 * **Example** (For Pulse's interval)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 *
 * export const policy = Backoff.heartbeat("30 seconds")
 * export const windows = [1, 2, 3].map((n) => Backoff.window(policy, n)) // => [30000, 60000, 60000]
 * ```
 *
 * @category presets
 * @since 0.1.0
 */
export const heartbeat = (interval: Duration.Input, expiresAfter: Duration.Input = Infinity): Unbounded => {
  const beat = Math.max(1, Duration.toMillis(interval))
  const resetAfter = Math.min(2 * beat, longest)
  const cap = Math.max(1, Math.min(resetAfter, Duration.toMillis(expiresAfter) / 2))
  const floor = Math.min(streams.floor, cap)
  const hint = { floor, ceiling: Math.min(streams.hint.ceiling, cap) }
  return { ...streams, base: Math.min(beat, cap), cap, floor, resetAfter, hint }
}

// ---------------------------------------------------------------------------------------------------------------------
// Presets: exactly as others do it
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Registration of Pulse's Go SDK (`pkg/sdk/client.go`), to the second: waits of 2, 4, 8, 16, 32, 32 s, no jitter. It
 * promises six waits in its text and makes five; this makes six.
 *
 * @category presets
 * @since 0.1.0
 */
export const pulseRegistration: Bounded = make({ base: 2000, cap: 32_000, attempts: 7, jitter: "none" })

/**
 * Failing heartbeats of Pulse's Go SDK (`pkg/sdk/client.go`): 30, 45, 67.5, 101.25, 151.9, 227.8, then 300 s, no jitter:
 * its interval of 30 s times 1.5 for each failure in a row, at most 5 min. The cap is longer than Pulse's stale limit of
 * 120 s: a service can stay offline for minutes after a short outage.
 *
 * @category presets
 * @since 0.1.0
 */
export const pulseHeartbeat: Unbounded = make({
  base: 30_000,
  factor: 1.5,
  cap: 300_000,
  jitter: "none",
  resetAfter: 0
})

/**
 * Streams of Hatchet's Go SDK: full jitter in windows of 1, 2, 4, 8, 16, 30, ... s, without a floor.
 *
 * @category presets
 * @since 0.1.0
 */
export const hatchetStreams: Unbounded = make({ jitter: "full", floor: 0 })

/**
 * {@link hatchetStreams} for when a caller waits: 5 attempts.
 *
 * @category presets
 * @since 0.1.0
 */
export const hatchetSynchronous: Bounded = make({ jitter: "full", floor: 0, attempts: 5 })

/**
 * Unary gRPC calls of Hatchet's Go SDK (`pkg/client/retry/grpc.go`): 5 attempts, full jitter in windows of 5 s doubling to at
 * most 80 s, without a floor. There it is for `UNAVAILABLE`, `INTERNAL`, `DEADLINE_EXCEEDED` and `RESOURCE_EXHAUSTED`, which is
 * what is `Transient` by `Classify.grpc`. Its deadline of 30 s for each attempt is the caller's business.
 *
 * @category presets
 * @since 0.1.0
 */
export const hatchetUnary: Bounded = make({ base: 5000, cap: 80_000, attempts: 5, jitter: "full", floor: 0 })

/**
 * REST calls of Hatchet's Go SDK (`pkg/client/retry/rest.go`): 5 attempts, full jitter in windows of 250 ms doubling to at most
 * 5 s, without a floor. There it is for `GET` and `HEAD` without a body that got 429, 502, 503, 504 or no answer, and a longer
 * `Retry-After` than 5 s is ignored; here it counts as 5 s. Jitter comes on top of it.
 *
 * @category presets
 * @since 0.1.0
 */
export const hatchetRest: Bounded = make({
  base: 250,
  cap: 5000,
  attempts: 5,
  jitter: "full",
  floor: 0,
  hintCeiling: 5000
})

/**
 * The control connection of bore, in its reconnecting branch: 1 s doubling to 64 s, times 0.75 to 1.25, no limit. There
 * the jittered wait can pass the cap by a quarter; here the cap holds for it too.
 *
 * @category presets
 * @since 0.1.0
 */
export const boreControl: Unbounded = make({ cap: 64_000, jitter: { proportional: 0.25 } })
