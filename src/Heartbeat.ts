/**
 * The life of a registration as a pure state machine: register, beat, verify, back off, register again.
 *
 * {@link step} takes what just happened and says what to do next and when. It has no clock, no chance and no I/O of its
 * own: the driver brings the time and a draw. The same machine is driven by the long-running loop (`Lifeline`), by the
 * one-shot check-in with stored state (`CheckIn`), by a Durable Object's alarm, and by the simulations of the benchmarks.
 *
 * ```text
 *   Start --> Register --ok--> Heartbeat (at once) --ok--> Heartbeat (at a random phase of the interval) --ok--> ...
 *                ^                  |  every n-th, and after every recovery: Verify
 *                |                  v
 *                +---- Lost <-------+---- Failed: wait by the backoff; every 5th in a row: Register instead of Heartbeat
 *                                   +---- Rejected: Idle until the credential changes or the program asks
 * ```
 *
 * Rules worth knowing:
 * - A lost lease is registered again at once. Lost a second time before a healthy period has passed, or by the very beat
 *   that follows the registration, it waits by the backoff, so that a registry that accepts and forgets sees no hot loop.
 * - After every registration comes one heartbeat at once, since some registries list a service as offline until then.
 * - Failures count as over when the lease was confirmed: by a beat right after registering, else by a beat and a
 *   verification. The backoff starts over only after a healthy period.
 * - After the timer fired much too late (sleep, frozen tab), the first action is to verify, with jitter.
 * - What is asked for from outside makes what is due come sooner. It skips no verification and puts nothing off.
 * - At most two requests follow each other at once, and two more where a healthy lease turns out to be lost.
 * - A clock that was set back makes no wait longer than it was.
 *
 * **Example** (Two steps by hand)
 *
 * ```ts
 * import * as Heartbeat from "effect-lifeline/Heartbeat"
 *
 * const policy = Heartbeat.make({ interval: "30 seconds" })
 * const started = Heartbeat.step(policy, Heartbeat.initial, { _tag: "Start" }, { now: 0, random: 0.5 })
 * started.action // => "Register"
 * const registered = Heartbeat.step(policy, started.state, { _tag: "Registered" }, { now: 20, random: 0.5 })
 * export const next = [registered.action, registered.delay] // => ["Heartbeat", 0]
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Backoff from "./Backoff.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a driver has to do next. `Idle`: nothing, until something is asked for or the credential changes.
 *
 * @category models
 * @since 0.1.0
 */
export type Action = "Register" | "Heartbeat" | "Verify" | "Idle" | "Stop"

/**
 * What happened.
 *
 * - `Start`: the driver begins with a fresh state.
 * - `Registered`, `Beaten`, `Verified`: the action succeeded. `sentAt` is when the beat was sent: the registry counts
 *   from some moment after that.
 * - `Failed`: `Transient`; `hint` is what the server asked to wait, in milliseconds.
 * - `Lost`: `LeaseLost`; `taken` when another instance holds our identity.
 * - `Rejected`: a definitive no; `auth` when a new credential may help.
 * - `Woken`: the timer fired much later than it was set.
 * - `CredentialChanged`: one that changes while a request is in flight is told after the outcome of that request.
 * - `Asked`: the program wants an action within so many milliseconds.
 * - `Stop`: the scope closes, or the program deregisters.
 *
 * @category models
 * @since 0.1.0
 */
export type Event =
  | { readonly _tag: "Start" }
  | { readonly _tag: "Registered" }
  | { readonly _tag: "Beaten"; readonly sentAt: number }
  | { readonly _tag: "Verified" }
  | { readonly _tag: "Failed"; readonly hint?: number | undefined }
  | { readonly _tag: "Lost"; readonly taken: boolean }
  | { readonly _tag: "Rejected"; readonly auth: boolean }
  | { readonly _tag: "Woken" }
  | { readonly _tag: "CredentialChanged" }
  | { readonly _tag: "Asked"; readonly action: "Register" | "Heartbeat"; readonly within: number }
  | { readonly _tag: "Stop" }

/**
 * - `Running`: something is due.
 * - `Refused`, `Unauthorized`: a definitive no; nothing is sent until asked for, respectively until the credential changes.
 * - `GivenUp`: a bounded backoff ended, and the policy says to stop there.
 * - `Stopped`: for good.
 *
 * @category models
 * @since 0.1.0
 */
export type Mode = "Running" | "Refused" | "Unauthorized" | "GivenUp" | "Stopped"

/**
 * The whole state: plain data, fit for a store. Times are milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  readonly mode: Mode
  readonly registered: boolean
  /** Whether there was a registration before: what bounds the first one does not bound those that follow. */
  readonly everRegistered: boolean
  /** Whether the bounded backoff of the first registration gave up: the program goes on standalone. */
  readonly exhausted: boolean
  /** What is due next, and when (`Infinity` for `Idle` and `Stop`). */
  readonly next: Action
  readonly dueAt: number
  /** When that was decided: a clock that was set back since then does not make the wait longer than it was. */
  readonly setAt: number
  /** Failures since the lease was last confirmed. */
  readonly failures: number
  /** Acknowledged beats since the last verification or registration. A failure counts as so many that one is due. */
  readonly beats: number
  /** When the last acknowledged beat was sent; `undefined` when there was none since registering. */
  readonly confirmedAt: number | undefined
  /** Since when everything has gone well; `undefined` when it has not. */
  readonly healthySince: number | undefined
  /** Leases lost since the last healthy period. */
  readonly losses: number
  readonly backoff: Backoff.State
}

/**
 * What a driver does next: `action`, in `delay` milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step {
  readonly state: State
  readonly action: Action
  readonly delay: number
}

/**
 * The time of a step in milliseconds since 1970, and a fresh draw in [0, 1).
 *
 * @category models
 * @since 0.1.0
 */
export interface At {
  readonly now: number
  readonly random: number
}

/**
 * What a policy is made from. Everything has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Time between heartbeats. @default 30 seconds (Pulse's), at most a third of `expiresAfter` */
  readonly interval?: Duration.Input | undefined
  /**
   * How long after the last acknowledged beat the registry drops us. @default undefined: never
   */
  readonly expiresAfter?: Duration.Input | undefined
  /** The backoff of the first registration. @default `Backoff.registration` */
  readonly registering?: Backoff.Policy | undefined
  /**
   * The backoff of failing beats and later registrations. @default `Backoff.heartbeat(interval, expiresAfter)`. Limits of
   * attempts or time do not count here: whoever was registered once is not given up
   */
  readonly failing?: Backoff.Policy | undefined
  /**
   * After so many acknowledged beats, verify that the registration is still there; the first time after a start or a
   * recovery after a random number of them that is not higher; 0: never. @default 10
   */
  readonly verifyEvery?: number | undefined
  /** After so many failures in a row, and each so many more, register instead of beating; 0: never. @default 5 (Pulse's) */
  readonly reregisterAfter?: number | undefined
  /** A timer that fires this much too late means that the machine slept. @default the interval, at least 5 seconds */
  readonly lateAfter?: Duration.Input | undefined
  /** Whether to keep trying once the bounded backoff of the first registration gave up. @default true */
  readonly keepTrying?: boolean | undefined
  /**
   * When another instance registered under our identity: take it back, with growing waits, or stop. @default "reclaim"
   */
  readonly onTaken?: "reclaim" | "yield" | undefined
}

/**
 * How one lifeline behaves: plain data, durations in milliseconds. Made by {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policy {
  readonly interval: number
  readonly expiresAfter: number | undefined
  readonly registering: Backoff.Policy
  readonly failing: Backoff.Unbounded
  readonly verifyEvery: number
  readonly reregisterAfter: number
  readonly lateAfter: number
  readonly keepTrying: boolean
  readonly onTaken: "reclaim" | "yield"
}

// ---------------------------------------------------------------------------------------------------------------------
// Constructors
// ---------------------------------------------------------------------------------------------------------------------

const positive = (input: Duration.Input | undefined): number | undefined => {
  const value = input === undefined ? 0 : Duration.toMillis(input)
  return value > 0 ? value : undefined
}

/**
 * Makes a policy from what is given and defaults for the rest.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options = {}): Policy => {
  const expiresAfter = positive(options.expiresAfter)
  const interval = positive(options.interval) ?? Math.min(30_000, (expiresAfter ?? Infinity) / 3)
  return {
    interval,
    expiresAfter,
    registering: options.registering ?? Backoff.registration,
    failing: options.failing === undefined
      ? Backoff.heartbeat(interval, expiresAfter)
      : { ...options.failing, bound: "unbounded" },
    verifyEvery: options.verifyEvery ?? 10,
    reregisterAfter: options.reregisterAfter ?? 5,
    lateAfter: positive(options.lateAfter) ?? Math.max(interval, 5000),
    keepTrying: options.keepTrying ?? true,
    onTaken: options.onTaken ?? "reclaim"
  }
}

/**
 * Workers of Hatchet (`pkg/client/action_listener.go`): a heartbeat every 4 s; a dispatcher gives a worker's runs to others 30 s
 * after the last one, and new runs to nobody who was silent for 5 s. A timer that is more than 5 s late is told of. The
 * deadline of one heartbeat, 5 s there, is the adapter's. Beats beside a stream: `Listener` says when they have to stop.
 *
 * **Example** (A worker)
 *
 * ```ts
 * import * as Heartbeat from "effect-lifeline/Heartbeat"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 *
 * export const Worker = Lifeline.layer({
 *   instance: { name: "haul", type: "worker", apiUrl: "http://haul:8484" },
 *   heartbeat: Heartbeat.hatchetWorker
 * })
 * ```
 *
 * @category presets
 * @since 0.1.0
 */
export const hatchetWorker: Options = { interval: 4000, expiresAfter: 30_000, lateAfter: 5000 }

/**
 * Before `Start`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const initial: State = {
  mode: "Running",
  registered: false,
  everRegistered: false,
  exhausted: false,
  next: "Register",
  dueAt: 0,
  setAt: 0,
  failures: 0,
  beats: 0,
  confirmedAt: undefined,
  healthySince: undefined,
  losses: 0,
  backoff: Backoff.initial
}

// ---------------------------------------------------------------------------------------------------------------------
// The machine
// ---------------------------------------------------------------------------------------------------------------------

/** After a wake-up or with a new credential, a fleet spreads over this long, in milliseconds. */
const wakeSpread = 5000
const credentialSpread = 1000

const due = (state: State, next: Action, delay: number, { now }: At): State => ({
  ...state,
  next,
  dueAt: now + delay,
  setAt: now
})

const remaining = ({ dueAt, setAt }: State, at: At): number => Math.max(0, Math.min(dueAt - at.now, dueAt - setAt))

const later = (state: State, at: At): State => due(state, state.next, remaining(state, at), at)

const idle = (state: State, mode: Mode, at: At): State =>
  due({ ...state, mode }, mode === "Stopped" ? "Stop" : "Idle", Infinity, at)

/** The beats keep their phase: a late answer shortens the wait, a beat that was missed meanwhile is skipped. */
const nextBeat = ({ interval }: Policy, state: State, at: At): State => {
  const elapsed = at.now - (state.confirmedAt ?? at.now)
  return due({ ...state, failures: 0 }, "Heartbeat", elapsed < 0 ? interval : interval - elapsed % interval, at)
}

/** Whether the last acknowledged beat is less than an interval old. */
const isFresh = ({ interval }: Policy, { confirmedAt = Infinity }: State, { now }: At): boolean =>
  now >= confirmedAt && now - confirmedAt < interval

/**
 * A fleet may start or recover within one interval: the first verification after that comes at a random one of the beats,
 * else all would verify in the same interval, and double the load of the registry in it for as long as they live.
 */
const firstVerification = (policy: Policy, at: At): number => Math.floor(at.random * policy.verifyEvery)

const back = (state: State): Action => state.registered ? "Heartbeat" : "Register"

const unhealthy = (policy: Policy, state: State): State => ({
  ...state,
  failures: state.failures + 1,
  beats: policy.verifyEvery,
  healthySince: undefined
})

const fail = (policy: Policy, state: State, next: Action, at: At, hint?: number): State => {
  const failed = unhealthy(policy, state)
  const backoff = state.everRegistered ? policy.failing : policy.registering
  const failure = { ...at, hint, startedAt: state.dueAt }
  // What bounds the first registration only: whoever was registered once is not given up.
  const bounded = state.exhausted ? undefined : Backoff.step(backoff, state.backoff, failure)
  const exhausted = bounded === undefined
  const outage = bounded ?? Backoff.advance(backoff, state.backoff, failure)
  const outlasting: State = { ...failed, exhausted, backoff: outage }
  return exhausted && !policy.keepTrying ? idle(outlasting, "GivenUp", at) : due(outlasting, next, outage.wait, at)
}

const beaten = (policy: Policy, state: State, sentAt: number, at: At): State => {
  const first = state.confirmedAt === undefined
  const healthySince = Math.min(state.healthySince ?? at.now, at.now)
  const confirmed: State = {
    ...state,
    confirmedAt: sentAt,
    healthySince,
    backoff: Backoff.recovered(policy.failing, state.backoff, healthySince, at.now),
    losses: at.now - healthySince >= Math.max(policy.interval, policy.failing.resetAfter) ? 0 : state.losses,
    beats: state.beats + 1
  }
  // Lost leases are found at a phase of their own already: a further draw would only make the next loss come sooner.
  if (first && state.losses === 0) {
    return due({ ...confirmed, failures: 0 }, "Heartbeat", Math.max(100, at.random * policy.interval), at)
  }
  return !first && policy.verifyEvery > 0 && confirmed.beats >= policy.verifyEvery
    ? due(confirmed, "Verify", 0, at)
    : nextBeat(policy, confirmed, at)
}

const lost = (policy: Policy, state: State, taken: boolean, at: At): State => {
  const without: State = { ...state, registered: false, confirmedAt: undefined, losses: state.losses + 1 }
  if (taken && policy.onTaken === "yield") return idle(without, "Stopped", at)
  const forgotAtOnce = state.confirmedAt === undefined && state.dueAt === state.setAt
  return taken || state.losses > 0 || forgotAtOnce
    ? fail(policy, without, "Register", at)
    : due(unhealthy(policy, without), "Register", 0, at)
}

/** Sooner than it was due, never later. */
const sooner = (state: State, next: Action, delay: number, at: At): State =>
  due(state, next, state.next === next ? Math.min(delay, remaining(state, at)) : delay, at)

const asked = (state: State, action: "Register" | "Heartbeat", within: number, at: At): State => {
  if (state.mode === "Unauthorized") return later(state, at)
  // Whoever asks for a beat gets what is due: the verification or the registration that comes first is not skipped.
  const next = action === "Register" ? action : state.mode === "Running" ? state.next : back(state)
  return sooner({ ...state, mode: "Running" }, next, at.random * within, at)
}

/** What was due in the past gets its jitter; what is still to come is not put off by being woken again. */
const woken = (state: State, spread: number, at: At): State =>
  (state.dueAt > at.now ? sooner : due)(state, state.registered ? "Verify" : "Register", at.random * spread, at)

const after = (policy: Policy, state: State, event: Event, at: At): State => {
  if (state.mode === "Stopped" || event._tag === "Stop") return idle(state, "Stopped", at)
  switch (event._tag) {
    case "Start":
      return due(initial, "Register", 0, at)
    case "Registered": {
      const registered: State = {
        ...state,
        mode: "Running",
        registered: true,
        everRegistered: true,
        exhausted: false,
        beats: firstVerification(policy, at),
        confirmedAt: undefined
      }
      return due(registered, "Heartbeat", 0, at)
    }
    case "Beaten":
      return beaten(policy, state, event.sentAt, at)
    case "Verified": {
      const verified: State = { ...state, beats: state.failures > 0 ? firstVerification(policy, at) : 0 }
      return isFresh(policy, state, at) ? nextBeat(policy, verified, at) : due(verified, "Heartbeat", 0, at)
    }
    case "Failed": {
      const { reregisterAfter } = policy
      const reregisters = reregisterAfter > 0 && (state.failures + 1) % reregisterAfter === 0
      return fail(policy, state, reregisters ? "Register" : back(state), at, event.hint)
    }
    case "Lost":
      return lost(policy, state, event.taken, at)
    case "Rejected":
      return idle(unhealthy(policy, state), event.auth ? "Unauthorized" : "Refused", at)
    case "Woken":
      return state.mode === "Running" ? woken(state, wakeSpread, at) : later(state, at)
    case "CredentialChanged":
      return state.mode === "Unauthorized"
        ? woken({ ...state, mode: "Running" }, credentialSpread, at)
        : later(state, at)
    case "Asked":
      return asked(state, event.action, event.within, at)
  }
}

/**
 * One step of the machine: what happened, and so what to do next and when. Pure.
 *
 * @category combinators
 * @since 0.1.0
 */
export const step = (policy: Policy, state: State, event: Event, at: At): Step => {
  const next = after(policy, state, event, at)
  return { state: next, action: next.next, delay: next.dueAt - at.now }
}

/**
 * Whether the timer that was set for `state.dueAt` fired so late that the machine must have slept meanwhile.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLate = (policy: Policy, state: State, now: number): boolean => now - state.dueAt >= policy.lateAfter

/**
 * When the registry drops us if nothing more is acknowledged, in milliseconds since 1970: from then on a program must
 * not believe that it is registered. `Infinity` where registrations do not expire, `-Infinity` before any beat was
 * acknowledged.
 *
 * @category getters
 * @since 0.1.0
 */
export const expiresAt = (policy: Policy, state: State): number =>
  state.confirmedAt === undefined ? -Infinity : state.confirmedAt + (policy.expiresAfter ?? Infinity)

/**
 * Whether the program may believe that the registry has it online: registered, confirmed by a beat, nothing failing,
 * and not expired. A clock that was set back by more than the lease lasts counts as expired: nobody knows.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isOnline = (policy: Policy, state: State, now: number): boolean =>
  state.mode === "Running" && state.registered && state.failures === 0 && state.confirmedAt !== undefined &&
  Math.abs(now - state.confirmedAt) < (policy.expiresAfter ?? Infinity)

// ---------------------------------------------------------------------------------------------------------------------
// As a Schedule
// ---------------------------------------------------------------------------------------------------------------------

const actions: ReadonlyArray<Action> = ["Register", "Heartbeat", "Verify", "Idle", "Stop"]

/**
 * The machine as a `Schedule`: its input is what happened, its output the action to take after the delay, which the
 * effect that is repeated reads from {@link currentAction}. It ends on `Stop`, and waits for ever on `Idle`.
 *
 * **Example** (A loop of one's own)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Heartbeat from "effect-lifeline/Heartbeat"
 *
 * declare const carryOut: (action: Heartbeat.Action) => Effect.Effect<Heartbeat.Event>
 *
 * export const loop = Heartbeat.currentAction.pipe(
 *   Effect.flatMap(carryOut),
 *   Effect.repeat(Heartbeat.toSchedule(Heartbeat.make()))
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const toSchedule = (policy: Policy): Schedule.Schedule<Action, Event> =>
  Schedule.fromStep(Effect.sync(() => {
    let state = initial
    return (now: number, event: Event) =>
      Effect.flatMap(Random.next, (random) => {
        const next = step(policy, state, event, { now, random })
        state = next.state
        return next.action === "Stop"
          ? Cause.done(next.action)
          : Effect.succeed<[Action, Duration.Duration]>([next.action, Duration.millis(next.delay)])
      })
  }))

/**
 * What to do now, inside an effect that is repeated with {@link toSchedule}: `Register` the first time.
 *
 * @category getters
 * @since 0.1.0
 */
export const currentAction: Effect.Effect<Action> = Effect.map(
  Schedule.CurrentMetadata,
  ({ output }) => actions.find((action) => action === output) ?? "Register"
)
