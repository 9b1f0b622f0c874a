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
 * | `Halted` | a definitive no: nothing is sent until the credential changes (`AuthFailed`) or the program asks (`Refused`) |
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
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Backoff from "./Backoff.ts"
import type * as Heartbeat from "./Heartbeat.ts"
import * as Loop from "./internal/loop.ts"
import { notConfigured } from "./internal/notConfigured.ts"
import { traced } from "./internal/traced.ts"
import type * as Lease from "./Lease.ts"
import type { AuthFailed, ClosedReason, Exhausted, LeaseLost, Refused, Transient } from "./LifelineError.ts"
import { Closed, Detached, Shutdown } from "./LifelineError.ts"
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
 * What a lifeline is made from: only `instance` is needed.
 *
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
 * The lifeline of a program: what may be believed, what happens, and what can be asked for. The members of one that
 * {@link make} gives are accessors: spreading it into another object copies none of them.
 *
 * @category services
 * @since 0.1.0
 */
export class Lifeline extends Context.Service<Lifeline, {
  /** What may be believed now, and every change of it (`SubscriptionRef.changes`). Only read it. */
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  /**
   * What happens from now on, until the scope closes. A slow reader misses the oldest of more than 256 unread events.
   */
  readonly events: Stream.Stream<Event>
  /** The lease held now. */
  readonly lease: Effect.Effect<Option.Option<Lease.Lease>>
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

const disabled: Effect.Effect<Lifeline["Service"]> = Effect.gen(function*() {
  const since = yield* Clock.currentTimeMillis
  return {
    status: yield* SubscriptionRef.make<Status>({ _tag: "Disabled", since }),
    events: Stream.empty,
    lease: Effect.succeed(Option.none()),
    beatNow: notConfigured("beatNow"),
    beatSoon: () => Effect.void,
    reregister: notConfigured("reregister"),
    deregister: Effect.void
  }
})

const remove = Effect.fnUntraced(function*(loop: Loop.Loop): Effect.fn.Return<void, Transient | AuthFailed | Refused> {
  const { instance, lease, registry } = loop
  if (lease === undefined) return
  yield* traced(Telemetry.spans.Deregister, { adapter: registry.capabilities.adapter })(
    registry.deregister(lease, instance)
  )
  loop.lease = undefined
})

const shutDown = Effect.fnUntraced(function*(loop: Loop.Loop, { closeTimeout = "3 seconds", onClose }: Options) {
  const removes = (onClose ?? loop.registry.capabilities.onClose) === "deregister"
  if (loop.closed?._tag !== "Replaced") yield* Loop.stop(loop, new Shutdown(), removes ? closeTimeout : undefined)
  if (!removes) return
  yield* remove(loop).pipe(
    Effect.interruptible,
    Effect.timeoutOption(closeTimeout),
    Effect.catch((error) => Effect.logWarning(`${error.message}; the registration is left to expire`))
  )
})

const deregister = Effect.fnUntraced(function*(loop: Loop.Loop) {
  if (loop.closed === undefined) yield* Loop.stop(loop, new Detached(), "3 seconds")
  yield* remove(loop)
})

const reregister = Effect.fnUntraced(function*(loop: Loop.Loop) {
  if (loop.closed?._tag === "Detached") yield* Loop.start(loop)
  yield* Loop.ask(loop, "Register")
  return loop.lease ?? (yield* Loop.closedError(loop))
})

/** A loop as the service. Each part is made when it is asked for: of many thousand lifelines most are left alone. */
class Handle {
  readonly loop: Loop.Loop
  constructor(loop: Loop.Loop) {
    this.loop = loop
  }
  get status() {
    return Loop.shownStatus(this.loop)
  }
  get events() {
    return Loop.events(this.loop)
  }
  get lease() {
    return Effect.sync(() => Option.fromUndefinedOr(this.loop.lease))
  }
  get beatNow() {
    return Loop.ask(this.loop, "Heartbeat")
  }
  get beatSoon() {
    return (within: Duration.Input = "30 seconds") =>
      Loop.poke(this.loop, { _tag: "Asked", action: "Heartbeat", within: Duration.toMillis(within) })
  }
  get reregister() {
    return reregister(this.loop)
  }
  get deregister() {
    return deregister(this.loop)
  }
}

const enabled = Effect.fnUntraced(function*(
  registry: Registry["Service"],
  options: Options,
  instance: ServiceInstance.ServiceInstance
): Effect.fn.Return<Lifeline["Service"], AuthFailed | Refused | Exhausted, Scope.Scope> {
  const startup = options.startup ?? "standalone"
  const loop = yield* Loop.make({
    registry,
    instance,
    heartbeat: { ...options.heartbeat, ...(startup === "await" && { keepTrying: false }) }
  })
  yield* Effect.addFinalizer(() => shutDown(loop, options))
  if (registry.credential.changes !== undefined) {
    yield* registry.credential.changes.pipe(
      Stream.runForEach(() => Loop.poke(loop, { _tag: "CredentialChanged" })),
      Effect.forkScoped({ startImmediately: true })
    )
  }
  yield* Loop.start(loop)
  if (startup !== "background") {
    const started = Deferred.await(loop.started)
    const ready = startup === "await" ? started : Effect.catchTag(started, "Exhausted", () => Effect.void)
    yield* Effect.onError(ready, () => Loop.stop(loop, new Shutdown()))
  }
  return new Handle(loop)
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

/**
 * Waits until a lifeline is `Online`, and gives its lease. Fails when it is halted or closed, when it has given up and tries
 * no more, and with `Refused` (`Unsupported`) where no registry is configured.
 *
 * **Example** (Serve once peers can find us)
 *
 * ```ts
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import * as Effect from "effect/Effect"
 *
 * declare const serve: Effect.Effect<never>
 *
 * export const program = Lifeline.Lifeline.use(Lifeline.awaitOnline).pipe(Effect.andThen(serve))
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const awaitOnline = (
  { status }: Pick<Lifeline["Service"], "status">
): Effect.Effect<Lease.Lease, AuthFailed | Refused | Exhausted | Closed> =>
  SubscriptionRef.changes(status).pipe(
    Stream.map((now): Effect.Effect<Lease.Lease, AuthFailed | Refused | Exhausted | Closed> | undefined => {
      switch (now._tag) {
        case "Online":
          return Effect.succeed(now.lease)
        case "Disabled":
          return notConfigured("awaitOnline")
        case "Halted":
          return Effect.fail(now.cause)
        case "Standalone":
          return now.nextAttemptAt === undefined ? Effect.fail(now.cause) : undefined
        case "Closed":
          return Effect.fail(new Closed({ operation: "awaitOnline", reason: now.reason }))
        default:
          return undefined
      }
    }),
    Stream.filter(Predicate.isNotUndefined),
    Stream.runHead,
    Effect.flatMap(Option.getOrElse(() => Effect.never))
  )
