/**
 * A lifeline: this program is registered while a scope is open. It registers, beats, backs off, registers again when the
 * registry forgot it, and says at any time what may be believed.
 *
 * | startup | the layer is ready | its errors |
 * |---|---|---|
 * | `"standalone"` (default) | once registered, or when the backoff of the first registration gave up: then the program goes on standalone while attempts continue in the background | `AuthFailed`, `Refused` |
 * | `"await"` | once registered | also `Exhausted` where that backoff is bounded |
 * | `"background"` | at once | `Refused`, for a description of the service that is wrong in itself |
 *
 * | status | means |
 * |---|---|
 * | `Disabled` | no registry is configured: nothing is ever sent |
 * | `Registering` | not yet registered |
 * | `Online` | registered, and confirmed by a beat that the registry still counts |
 * | `Unconfirmed` | calls fail, and by its own rules the registry should still list us |
 * | `Offline` | the lease was lost, or has run out unconfirmed |
 * | `Standalone` | the first registration gave up; the program runs without the registry |
 * | `Halted` | a definitive no: nothing is sent until the credential changes or the program asks |
 * | `Closed` | deregistered, replaced by another instance, or the scope is closed |
 *
 * The status leaves `Online` at the latest when the registry drops us by its own rules, whether or not anything was
 * heard from it. Closing the scope stops the beats; whether it also deregisters is the adapter's word, or `onClose`.
 *
 * **Example** (A service that is registered while it runs)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 *
 * const Main = Lifeline.layer({
 *   instance: { name: "haul", type: "download-client", apiUrl: "http://haul:8484", capabilities: ["supports_torrent"] }
 * }).pipe(
 *   Layer.provide(Pulse.layer({ url: "http://pulse:9696" })),
 *   Layer.provide(FetchHttpClient.layer)
 * )
 *
 * export const program = Layer.launch(Main)
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Tracer from "effect/Tracer"
import type * as Backoff from "./Backoff.ts"
import * as Heartbeat from "./Heartbeat.ts"
import * as Drive from "./internal/drive.ts"
import { statusOf } from "./internal/status.ts"
import type * as Lease from "./Lease.ts"
import type { AuthFailed, ClosedReason, LeaseLost, Transient } from "./LifelineError.ts"
import { Closed, Detached, Exhausted, Refused, Replaced, Shutdown, Unsupported } from "./LifelineError.ts"
import { Registry } from "./Registry.ts"
import * as ServiceInstance from "./ServiceInstance.ts"
import * as Telemetry from "./Telemetry.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a call to the registry can fail.
 *
 * @category models
 * @since 0.1.0
 */
export type CallError = Transient | LeaseLost | AuthFailed | Refused

/**
 * What may be believed now; see the table above. Times are milliseconds since 1970; `since` is when this status began.
 *
 * @category models
 * @since 0.1.0
 */
export type Status =
  | { readonly _tag: "Disabled"; readonly since: number }
  | {
    readonly _tag: "Registering"
    readonly since: number
    readonly attempt: number
    readonly cause: CallError | undefined
    readonly nextAttemptAt: number | undefined
  }
  | {
    readonly _tag: "Online"
    readonly since: number
    readonly lease: Lease.Lease
    /** When the last beat that was acknowledged was sent. */
    readonly confirmedAt: number
    /** When the registry drops us if nothing more is acknowledged; `undefined`: never. */
    readonly expiresAt: number | undefined
  }
  | {
    readonly _tag: "Unconfirmed"
    readonly since: number
    readonly lease: Lease.Lease
    readonly failures: number
    readonly cause: CallError | undefined
    readonly nextAttemptAt: number | undefined
  }
  | {
    readonly _tag: "Offline"
    readonly since: number
    readonly failures: number
    readonly cause: CallError | undefined
    readonly nextAttemptAt: number | undefined
  }
  | {
    readonly _tag: "Standalone"
    readonly since: number
    readonly cause: Exhausted
    readonly nextAttemptAt: number | undefined
  }
  | { readonly _tag: "Halted"; readonly since: number; readonly cause: AuthFailed | Refused }
  | { readonly _tag: "Closed"; readonly since: number; readonly reason: ClosedReason }

/**
 * What happened, as it happens. `at` is milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Event =
  | { readonly _tag: "Registered"; readonly at: number; readonly lease: Lease.Lease; readonly again: boolean }
  | { readonly _tag: "Beat"; readonly at: number; readonly nextAt: number }
  | { readonly _tag: "Verified"; readonly at: number }
  | {
    readonly _tag: "Failed"
    readonly at: number
    readonly call: "Register" | "Heartbeat" | "Verify"
    readonly cause: CallError
    readonly failures: number
    readonly nextAttemptAt: number | undefined
  }
  | { readonly _tag: "LeaseLost"; readonly at: number; readonly cause: CallError }
  | { readonly _tag: "Recovered"; readonly at: number; readonly failures: number }
  | { readonly _tag: "WentStandalone"; readonly at: number; readonly cause: Exhausted }
  | { readonly _tag: "Halted"; readonly at: number; readonly cause: CallError }
  /** The timer fired `late` milliseconds after it was set to: the machine slept. */
  | { readonly _tag: "Woken"; readonly at: number; readonly late: number }
  | { readonly _tag: "Closed"; readonly at: number; readonly reason: ClosedReason }

/**
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What this program says of itself. Checked before any request. */
  readonly instance: ServiceInstance.Input
  /** When the layer is ready, and what it can fail with; see the table above. @default "standalone" */
  readonly startup?: "await" | "background" | "standalone" | undefined
  /** How it registers and beats. `expiresAfter` is taken from the registry where it is not given. */
  readonly heartbeat?: Heartbeat.Options | undefined
  /** What closing the scope does to the registration. @default what the adapter says: Pulse leaves it, lease-based ones deregister */
  readonly onClose?: "leave" | "deregister" | undefined
  /** How long deregistering may hold up the closing of the scope. @default 3 seconds */
  readonly closeTimeout?: Duration.Input | undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// Service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * @category services
 * @since 0.1.0
 */
export class Lifeline extends Context.Service<Lifeline, {
  /** What may be believed now, and every change of it (`SubscriptionRef.changes`). Only read it. */
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  /** What happens from now on. A slow reader misses the oldest of more than 256 unread events. */
  readonly events: Stream.Stream<Event>
  /** The lease held now. */
  readonly lease: Effect.Effect<Option.Option<Lease.Lease>>
  /** Waits until the status is `Online`. Fails when it is halted or closed. */
  readonly awaitOnline: Effect.Effect<Lease.Lease, AuthFailed | Refused | Closed>
  /**
   * Beats now (joins a beat in flight) and waits for what came of it: registered and confirmed, or the failure, after
   * which the lifeline goes on by itself.
   */
  readonly beatNow: Effect.Effect<void, CallError | Closed>
  /**
   * Beats at a random moment within this time (default 30 seconds) unless a beat is due earlier. For a fleet that learns
   * at one instant that the registry is back.
   */
  readonly beatSoon: (within?: Duration.Input) => Effect.Effect<void>
  /** Registers again now, also after `deregister`, and waits for what came of it. */
  readonly reregister: Effect.Effect<Lease.Lease, CallError | Closed>
  /** Stops beating, then removes the registration. A registration that is gone already is success. */
  readonly deregister: Effect.Effect<void, Transient | AuthFailed | Refused>
}>()("effect-lifeline/Lifeline") {}

// ---------------------------------------------------------------------------------------------------------------------
// make
// ---------------------------------------------------------------------------------------------------------------------

/** Longer than any adapter's deadline: what is in flight for less than this cannot outlive the lease unnoticed. */
const longestCall = 60_000

const disabled: Effect.Effect<Lifeline["Service"]> = Effect.gen(function*() {
  const since = yield* Clock.currentTimeMillis
  const refused = (operation: string) =>
    Effect.suspend(() =>
      Effect.fail(
        new Refused({
          operation,
          target: "no registry",
          reason: new Unsupported({ detail: "no registry URL is configured, so nothing was sent" })
        })
      )
    )
  return {
    status: yield* SubscriptionRef.make<Status>({ _tag: "Disabled", since }),
    events: Stream.empty,
    lease: Effect.succeed(Option.none()),
    awaitOnline: refused("awaitOnline"),
    beatNow: refused("beatNow"),
    beatSoon: () => Effect.void,
    reregister: refused("reregister"),
    deregister: Effect.void
  }
})

const enabled = Effect.fnUntraced(function*(
  registry: Registry["Service"],
  options: Options,
  instance: ServiceInstance.ServiceInstance
): Effect.fn.Return<Lifeline["Service"], AuthFailed | Refused | Exhausted, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  // The loop lives longer than whoever pokes it: it keeps the services it was made with, and starts traces of its own.
  const context = Context.omit(Tracer.ParentSpan)(yield* Effect.context<never>())
  const { adapter } = registry.capabilities
  const startup = options.startup ?? "standalone"
  const annotations = { package: "effect-lifeline", adapter, service: instance.name, type: instance.type }
  const policyFor = (expiresAfter: Duration.Input | undefined): Heartbeat.Policy => {
    const heartbeat = options.heartbeat ?? {}
    const policy = Heartbeat.make({ ...heartbeat, expiresAfter: heartbeat.expiresAfter ?? expiresAfter })
    return startup === "await" ? { ...policy, keepTrying: false } : policy
  }

  let policy = policyFor(registry.capabilities.expiresAfter)
  let state = Heartbeat.initial
  let lease: Lease.Lease | undefined
  let error: Drive.CallError | undefined
  let exhausted: Exhausted | undefined
  let heldUntil: number | undefined
  let closed: ClosedReason | undefined
  let fiber: Fiber.Fiber<void> | undefined
  let busy = false
  let pending: Heartbeat.Event | undefined
  let waiters: Array<Deferred.Deferred<void, CallError | Closed>> = []
  let hub: PubSub.PubSub<Event> | undefined

  const started = yield* Deferred.make<void, AuthFailed | Refused | Exhausted>()
  const status = yield* SubscriptionRef.make<Status>({
    _tag: "Registering",
    since: clock.currentTimeMillisUnsafe(),
    attempt: 1,
    cause: undefined,
    nextAttemptAt: undefined
  })

  const publish = (event: Event): Effect.Effect<void> => hub === undefined ? Effect.void : PubSub.publish(hub, event)

  const log = (level: "Debug" | "Info" | "Warn" | "Error", message: string): Effect.Effect<void> =>
    Effect.annotateLogs(Effect.logWithLevel(level)(message), annotations)

  const setStatus = (next: Status): Effect.Effect<void> =>
    Effect.suspend(() => {
      const before = SubscriptionRef.getUnsafe(status)
      const set = SubscriptionRef.set(status, before._tag === next._tag ? { ...next, since: before.since } : next)
      const delta = Number(next._tag === "Online") - Number(before._tag === "Online")
      return delta === 0
        ? set
        : Effect.andThen(set, Metric.modify(Metric.withAttributes(Telemetry.online, { adapter }), delta))
    })

  const refresh = (now: number): Effect.Effect<void> => {
    const next = statusOf(policy, state, { lease, error, exhausted, heldUntil }, now)
    return next === undefined ? Effect.void : setStatus(next)
  }

  const close = (reason: ClosedReason): Effect.Effect<void> =>
    Effect.gen(function*() {
      closed = reason
      const at = clock.currentTimeMillisUnsafe()
      yield* setStatus({ _tag: "Closed", since: at, reason })
      yield* publish({ _tag: "Closed", at, reason })
      yield* settle
    })

  /** Completes whoever waits, once nothing is due at once any more. */
  const settle: Effect.Effect<void> = Effect.suspend(() => {
    const settled = waiters
    if (settled.length === 0) return Effect.void
    waiters = []
    const exit: Exit.Exit<void, CallError | Closed> = closed !== undefined
      ? Exit.fail(new Closed({ operation: `the lifeline of ${instance.name}`, reason: closed }))
      : error !== undefined
      ? Exit.fail(error)
      : Exit.void
    return Effect.forEach(settled, (waiter) => Deferred.done(waiter, exit), { discard: true })
  })

  const inSeconds = (delay: number): string => Duration.format(Duration.millis(Math.round(delay)))

  /** What the log and the listeners are told of a step. */
  const report = (
    event: Heartbeat.Event,
    before: Heartbeat.State,
    cause: Drive.CallError | undefined,
    delay: number,
    at: number
  ): Effect.Effect<void> => {
    const nextAttemptAt = Number.isFinite(state.dueAt) ? state.dueAt : undefined
    const next = nextAttemptAt === undefined ? "nothing more is tried" : `next attempt in ${inSeconds(delay)}`
    const call = before.next === "Register" || before.next === "Verify" ? before.next : "Heartbeat"
    switch (event._tag) {
      case "Registered":
        return lease === undefined
          ? Effect.void
          : Effect.andThen(
            publish({ _tag: "Registered", at, lease, again: before.everRegistered }),
            log("Info", `${before.everRegistered ? "registered again" : "registered"} as ${lease.id}`)
          )
      case "Beaten":
        return Effect.andThen(
          publish({ _tag: "Beat", at, nextAt: state.dueAt }),
          log("Debug", `beat acknowledged, ${next}`)
        )
      case "Verified":
        return publish({ _tag: "Verified", at })
      case "Failed": {
        if (cause === undefined) return Effect.void
        const published = publish({ _tag: "Failed", at, call, cause, failures: state.failures, nextAttemptAt })
        const loud = state.failures === 1 || state.failures % 5 === 0
        return Effect.andThen(
          published,
          log(loud ? "Warn" : "Debug", `${cause.message}; failure ${state.failures} in a row, ${next}`)
        )
      }
      case "Lost":
        return cause === undefined
          ? Effect.void
          : Effect.andThen(publish({ _tag: "LeaseLost", at, cause }), log("Warn", `${cause.message}; ${next}`))
      case "Rejected":
        return cause === undefined
          ? Effect.void
          : Effect.andThen(publish({ _tag: "Halted", at, cause }), log("Error", `${cause.message}; ${next}`))
      default:
        return Effect.void
    }
  }

  const giveUp = Effect.fnUntraced(function*(before: Heartbeat.State, cause: Drive.CallError | undefined, at: number) {
    if (before.exhausted || !state.exhausted || cause?._tag !== "Transient") return
    exhausted = new Exhausted({
      attempts: state.failures,
      elapsed: Duration.millis(before.backoff.failures === 0 ? 0 : at - before.backoff.since),
      last: cause
    })
    yield* publish({ _tag: "WentStandalone", at, cause: exhausted })
    const goesOn = state.mode === "Running" ? `trying again in ${inSeconds(state.dueAt - at)}` : "not trying again"
    yield* log(
      "Warn",
      `${startup === "await" ? "not registered" : "going on standalone"}: ${exhausted.message}; ${goesOn}`
    )
    yield* startup === "await" ? Deferred.fail(started, exhausted) : Deferred.succeed(started, void 0)
  })

  /** One event into the machine, and all that follows from it outside. */
  const advance = Effect.fnUntraced(function*(event: Heartbeat.Event, cause?: Drive.CallError) {
    const now = clock.currentTimeMillisUnsafe()
    const before = state
    const at = { now, random: random.nextDoubleUnsafe() }
    const { delay, state: after } = Heartbeat.step(policy, before, event, at)
    state = after
    if (event._tag === "Failed" || event._tag === "Lost" || event._tag === "Rejected") error = cause
    if (state.registered && state.failures === 0 && state.confirmedAt !== undefined && event._tag !== "Rejected") {
      error = undefined
    }
    if (event._tag === "Beaten") heldUntil = Heartbeat.expiresAt(policy, state)
    if (event._tag === "Lost" && heldUntil !== undefined) heldUntil = Math.min(heldUntil, now)
    if ((event._tag === "Failed" || event._tag === "Lost") && before.failures === 0 && before.everRegistered) {
      yield* Metric.update(Metric.withAttributes(Telemetry.outages, { adapter }), 1)
    }
    yield* report(event, before, cause, delay, now)
    yield* giveUp(before, cause, now)
    if (before.failures > 0 && state.failures === 0 && before.everRegistered) {
      yield* publish({ _tag: "Recovered", at: now, failures: before.failures })
      yield* log("Info", `recovered after ${before.failures} failures`)
    }
    yield* refresh(now)
    if (event._tag === "Registered") yield* Deferred.succeed(started, void 0)
    if (cause !== undefined && (cause._tag === "AuthFailed" || cause._tag === "Refused") && event._tag === "Rejected") {
      yield* Deferred.fail(started, cause)
    }
    if (state.mode === "Stopped" && cause?._tag === "LeaseLost" && cause.reason._tag === "LeaseTaken") {
      yield* close(new Replaced({ by: cause.reason.by }))
    }
  })

  /** When the status has to leave `Online` by itself, where that is still to come. */
  const fenceAfter = (now: number): number | undefined =>
    SubscriptionRef.getUnsafe(status)._tag === "Online" && heldUntil !== undefined && heldUntil > now &&
      heldUntil < Infinity
      ? heldUntil
      : undefined

  const call = Effect.fnUntraced(function*(action: Drive.Call) {
    const now = clock.currentTimeMillisUnsafe()
    const performed = Drive.perform(registry, action, lease, instance, state.everRegistered)
    const fence = fenceAfter(now)
    const outcome = yield* fence !== undefined && fence - now < longestCall
      ? Effect.raceFirst(
        performed,
        Effect.sleep(fence - now).pipe(Effect.andThen(refresh(fence)), Effect.andThen(Effect.never))
      )
      : performed
    lease = outcome.lease
    if (outcome.event._tag === "Registered") {
      policy = policyFor(lease?.expiresAfter ?? registry.capabilities.expiresAfter)
    }
    yield* advance(outcome.event, outcome.error)
    if (pending !== undefined) {
      const asked = pending
      pending = undefined
      yield* advance(asked)
    }
  })

  const sleepUntil = Effect.fnUntraced(function*(at: number, now: number) {
    const fence = fenceAfter(now)
    if (fence !== undefined && fence < at) {
      yield* Effect.sleep(fence - now)
      yield* refresh(clock.currentTimeMillisUnsafe())
      yield* Effect.sleep(at - fence)
    } else {
      yield* Effect.sleep(at - now)
    }
  })

  const loop = Effect.gen(function*() {
    while (state.next !== "Idle" && state.next !== "Stop") {
      const now = clock.currentTimeMillisUnsafe()
      if (state.dueAt > now) {
        yield* settle
        yield* sleepUntil(state.dueAt, now)
        const woken = clock.currentTimeMillisUnsafe()
        // A clock that was set back meanwhile does not count: what was due after this sleep is due now.
        if (Heartbeat.isLate(policy, state, woken)) {
          const late = woken - state.dueAt
          yield* advance({ _tag: "Woken" })
          yield* publish({ _tag: "Woken", at: woken, late })
          yield* log("Info", `the timer fired ${inSeconds(late)} late: verifying in ${inSeconds(state.dueAt - woken)}`)
          continue
        }
      }
      busy = true
      yield* call(state.next)
      busy = false
    }
    yield* settle
  })

  const start = Effect.map(Effect.forkIn(loop, scope, { startImmediately: true }), (started) => {
    fiber = started
  })

  const halt = Effect.suspend(() => {
    const running = fiber
    fiber = undefined
    busy = false
    return running === undefined ? Effect.void : Fiber.interrupt(running)
  })

  /** What comes from outside: while a call is in flight it is kept until its result is in, else the wait is cut short. */
  const poke = (event: Heartbeat.Event): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (closed !== undefined) return Effect.void
      if (busy) {
        const joined = event._tag === "Asked" && (event.action === "Heartbeat" || state.next === "Register")
        if (!joined) pending = event
        return Effect.void
      }
      return halt.pipe(Effect.andThen(advance(event)), Effect.andThen(start))
    }).pipe(Effect.provideContext(context), Effect.uninterruptible)

  const ask = (action: "Register" | "Heartbeat"): Effect.Effect<void, CallError | Closed> =>
    Effect.suspend(() => {
      if (closed !== undefined) {
        return Effect.fail(new Closed({ operation: `the lifeline of ${instance.name}`, reason: closed }))
      }
      if (state.mode === "Unauthorized" && error !== undefined) return Effect.fail(error)
      const waiter = Deferred.makeUnsafe<void, CallError | Closed>()
      waiters.push(waiter)
      return Effect.andThen(poke({ _tag: "Asked", action, within: 0 }), Deferred.await(waiter))
    })

  const stop = (reason: ClosedReason): Effect.Effect<void> =>
    Effect.gen(function*() {
      yield* halt
      state = Heartbeat.step(policy, state, { _tag: "Stop" }, { now: 0, random: 0 }).state
      yield* close(reason)
    })

  const remove = Effect.suspend(() => {
    const held = lease
    if (held === undefined) return Effect.void
    return registry.deregister(held).pipe(
      Effect.withSpan(Telemetry.spans.Deregister, { kind: "client", attributes: { adapter } }),
      Effect.andThen(Effect.sync(() => {
        lease = undefined
      }))
    )
  })

  yield* Effect.addFinalizer(() => {
    const deregisters = (options.onClose ?? registry.capabilities.onClose) === "deregister"
    const removed = remove.pipe(
      Effect.interruptible,
      Effect.timeoutOption(options.closeTimeout ?? "3 seconds"),
      Effect.catch((cause) => log("Warn", `${cause.message}; the registration is left to expire`))
    )
    const detached = closed !== undefined
    return Effect.andThen(stop(new Shutdown()), deregisters && !detached ? removed : Effect.void)
  })

  if (registry.credential.changes !== undefined) {
    yield* registry.credential.changes.pipe(
      Stream.runForEach(() => poke({ _tag: "CredentialChanged" })),
      Effect.forkIn(scope)
    )
  }

  yield* Effect.provideContext(Effect.andThen(advance({ _tag: "Start" }), start), context)
  if (startup !== "background") yield* Deferred.await(started)

  return {
    status,
    events: Stream.unwrap(Effect.suspend(() =>
      hub === undefined
        ? Effect.map(PubSub.sliding<Event>(256), (made) => Stream.fromPubSub(hub ??= made))
        : Effect.succeed(Stream.fromPubSub(hub))
    )),
    lease: Effect.sync(() => Option.fromUndefinedOr(lease)),
    awaitOnline: Effect.gen(function*() {
      const found = yield* SubscriptionRef.changes(status).pipe(
        Stream.filter((now) => now._tag === "Online" || now._tag === "Halted" || now._tag === "Closed"),
        Stream.runHead
      )
      const now = Option.getOrUndefined(found)
      if (now?._tag === "Online") return now.lease
      if (now?._tag === "Halted") return yield* Effect.fail(now.cause)
      return yield* new Closed({ operation: "awaitOnline", reason: closed ?? new Shutdown() })
    }),
    beatNow: ask("Heartbeat"),
    beatSoon: (within = "30 seconds") =>
      poke({ _tag: "Asked", action: "Heartbeat", within: Duration.toMillis(within) }),
    reregister: Effect.suspend(() => {
      if (closed?._tag === "Detached") {
        closed = undefined
        state = Heartbeat.initial
      }
      return ask("Register")
    }).pipe(
      Effect.flatMap(() =>
        lease === undefined
          ? Effect.fail(new Closed({ operation: "reregister", reason: closed ?? new Shutdown() }))
          : Effect.succeed(lease)
      )
    ),
    deregister: Effect.suspend(() => Effect.andThen(closed === undefined ? stop(new Detached()) : Effect.void, remove))
  }
})

type MadeWith<E> = Effect.Effect<Lifeline["Service"], E, Registry | Scope.Scope>

type Await = Options & { readonly startup: "await" }
type AwaitForever = Await & { readonly heartbeat: { readonly registering: Backoff.Unbounded } }
type Background = Options & { readonly startup: "background" }
type Standalone = Options & { readonly startup?: "standalone" | undefined }

/**
 * Makes a lifeline that lives as long as the scope. What it can fail with depends on `startup`; see the table above.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make(options: Background): MadeWith<Refused>
export function make(options: AwaitForever | Standalone): MadeWith<AuthFailed | Refused>
export function make(options: Options): MadeWith<AuthFailed | Refused | Exhausted>
export function make(options: Options): MadeWith<AuthFailed | Refused | Exhausted> {
  return Effect.flatMap(Registry, (registry) =>
    registry.capabilities.enabled
      ? Effect.flatMap(ServiceInstance.make(options.instance), (instance) => enabled(registry, options, instance))
      : disabled)
}

/**
 * {@link make} as a layer.
 *
 * **Example** (What is left in the type)
 *
 * ```ts
 * import type { AuthFailed, Exhausted, Refused } from "effect-lifeline/LifelineError"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import type { Registry } from "effect-lifeline/Registry"
 * import type * as Layer from "effect/Layer"
 *
 * const instance = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }
 *
 * export const goesOn: Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused, Registry> = Lifeline.layer({ instance })
 * export const waits: Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused | Exhausted, Registry> = Lifeline.layer({
 *   instance,
 *   startup: "await"
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export function layer(options: Background): Layer.Layer<Lifeline, Refused, Registry>
export function layer(options: AwaitForever | Standalone): Layer.Layer<Lifeline, AuthFailed | Refused, Registry>
export function layer(options: Options): Layer.Layer<Lifeline, AuthFailed | Refused | Exhausted, Registry>
export function layer(options: Options): Layer.Layer<Lifeline, AuthFailed | Refused | Exhausted, Registry> {
  return Layer.effect(Lifeline, make(options))
}

/**
 * Goes on without what a bounded backoff could not get: `Exhausted` becomes `None`. Everything definitive stays: a wrong
 * key is not a reason to go on.
 *
 * **Example** (A registration that may be missing)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import type * as Lease from "effect-lifeline/Lease"
 * import type { AuthFailed, Refused, Transient } from "effect-lifeline/LifelineError"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import type * as Effect from "effect/Effect"
 * import type * as Option from "effect/Option"
 *
 * declare const register: Effect.Effect<Lease.Lease, Transient | AuthFailed | Refused>
 *
 * export const registered: Effect.Effect<Option.Option<Lease.Lease>, AuthFailed | Refused> = register.pipe(
 *   Backoff.retry(Backoff.registration),
 *   Lifeline.standalone
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const standalone = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, Exclude<E, Exhausted>, R> =>
  Effect.catch(
    Effect.map(self, Option.some),
    (error) => Predicate.isTagged(error, "Exhausted") ? Effect.succeedNone : Effect.fail(error as Exclude<E, Exhausted>)
  )
