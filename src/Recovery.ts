/**
 * After a restart: which of the leases that a program kept are still its own. One whose holder (a process, a tab) is
 * alive is attached again, with a revival where its token is no good any more and the key is still there; one whose
 * holder is dead stays dead.
 *
 * | holder | the server | what happens |
 * |---|---|---|
 * | alive | says that it is live | attached |
 * | alive | 401 | one refresh, and asked again |
 * | alive | still 401, and the credential is `Managed` with a signer | one heartbeat with the proof: see below |
 * | alive | still 401 otherwise, 403, 404, 410, timed out | finalised |
 * | alive | no answer, 408, 425, 429, 5xx | attached, and tried again |
 * | dead | anything definitive, also that it is live | finalised |
 * | dead | no answer, 408, 425, 429, 5xx | deferred; in the third boot finalised |
 *
 * The heartbeat: with a new token, attached and revived; 401, 404 and 410 finalise the lease; after anything else it is
 * attached, keeps its token, and is tried again. Nothing is ever revived, nor sent a heartbeat, for a holder that is
 * not known to be alive.
 *
 * Finalising deletes the token. Leases are looked at side by side and none stops another: each request, each call of
 * the store, and `isAlive` have deadlines; what fails for now, or cannot be known, is `Deferred`. Several processes
 * over one store make one refresh and one revival between them, as far as `Credential` can see to that. A lease is read
 * afresh before it is written.
 *
 * {@link reconcile} does it once; {@link layer} does it when it is built, in the background, and goes on with what is
 * open. How the registry is asked is an adapter's ({@link LeaseApi}), e.g. of `registry/ClosedLoop`.
 *
 * **Example** (Jobs of earlier runs)
 *
 * ```ts
 * import * as ProcessAlive from "effect-lifeline/node/ProcessAlive"
 * import type * as Proof from "effect-lifeline/Proof"
 * import * as Recovery from "effect-lifeline/Recovery"
 * import * as Effect from "effect/Effect"
 *
 * declare const api: Recovery.LeaseApi
 * declare const proof: Proof.Proof["Service"]
 *
 * export const program = Effect.gen(function*() {
 *   const reports = yield* Recovery.reconcile({
 *     api,
 *     proof,
 *     isAlive: ({ holder }) => ProcessAlive.isAlive(holder)
 *   })
 *   for (const report of reports) {
 *     if (report._tag === "Attached") yield* Effect.log(`goes on: ${report.id}`)
 *   }
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Backoff from "./Backoff.ts"
import type * as Cipher from "./Cipher.ts"
import type * as Classify from "./Classify.ts"
import type * as Credential from "./Credential.ts"
import * as Engine from "./internal/recovery.ts"
import * as Stored from "./internal/recoveryLeases.ts"
import type { Entry, FinalisedReason, Leases } from "./internal/recoveryLeases.ts"
import type * as Lease from "./Lease.ts"
import type { AuthFailed, LeaseLost, Refused, Transient } from "./LifelineError.ts"
import type * as Proof from "./Proof.ts"

export type { Entry, FinalisedReason, Leases } from "./internal/recoveryLeases.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The port
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a heartbeat came to. A `token` is there exactly where the server revived the lease.
 *
 * @category models
 * @since 0.1.0
 */
export interface Beat extends Classify.LeaseAnswer {
  readonly token?: Credential.Token | undefined
}

/**
 * How a registry is asked about a lease. Requests are signed by what each call is given, e.g. through
 * `Credential.httpClient`. An answer is given as it came, whatever its status; an adapter that speaks the error algebra
 * may fail with it instead.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseApi {
  /** What its answers mean. @default `Classify.leaseStatuses` */
  readonly table?: Classify.LeaseTable | undefined
  readonly status: (
    lease: Lease.Lease,
    authorizer: Credential.Authorizer
  ) => Effect.Effect<Classify.LeaseAnswer, Transient | AuthFailed | Refused | LeaseLost>
  /** As in `Credential.Options`. Absent: tokens cannot be refreshed. */
  readonly refresh?:
    | ((
      lease: Lease.Lease,
      context: Credential.RefreshContext
    ) => Effect.Effect<Credential.Token, Transient | AuthFailed | Refused>)
    | undefined
  /** A heartbeat that presents the proof and no token: a server that reaped the lease may revive it for that. */
  readonly heartbeat: (
    lease: Lease.Lease,
    context: Credential.ReviveContext
  ) => Effect.Effect<Beat, Transient | AuthFailed | Refused | LeaseLost>
}

/**
 * What recovery is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<out R = never> {
  readonly api: LeaseApi
  /**
   * Whether who holds a lease is alive, for sure: `false` finalises it. Where that cannot be known it fails, and the
   * lease is deferred. `node/ProcessAlive` and `browser/TabAlive` have this for processes and tabs.
   */
  readonly isAlive: (entry: Entry) => Effect.Effect<boolean, Error, R>
  /** Shows possession of the key that `Managed` leases are bound to. Absent: nothing is revived. */
  readonly proof?: Proof.Proof["Service"] | undefined
  /** What encrypts tokens in the store. @default none: for stores that only their owner can read */
  readonly cipher?: Cipher.Cipher | undefined
  /** Before all keys in the store. @default "recovery/" */
  readonly prefix?: string | undefined
  /** How many leases are looked at side by side. @default 16 */
  readonly concurrency?: number | undefined
  /** How long a status request and `isAlive` may take; refreshes and heartbeats have 10 s. @default 10 seconds */
  readonly timeout?: Duration.Input | undefined
  /** The waits between tries of what is open. @default windows of 1 s, doubling, to 5 minutes */
  readonly backoff?: Backoff.Unbounded | undefined
}

/**
 * What a lease came to. `Attached`: it goes on, `revived` or not; with a `retryAt` where the server could not be asked,
 * so that this is open. `Finalised`: it is over, and its token deleted. `Deferred`: nothing is known, so nothing was
 * changed.
 *
 * Times are in milliseconds since 1970: {@link layer} tries again then.
 *
 * @category models
 * @since 0.1.0
 */
export type Report =
  | {
    readonly _tag: "Attached"
    readonly id: string
    readonly entry: Entry
    readonly revived: boolean
    readonly retryAt?: number | undefined
  }
  | { readonly _tag: "Finalised"; readonly id: string; readonly reason: FinalisedReason }
  | { readonly _tag: "Deferred"; readonly id: string; readonly retryAt: number; readonly detail: string }

// ---------------------------------------------------------------------------------------------------------------------
// Leases
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The leases that are kept in the `KeyValueStore` under a prefix.
 *
 * **Example** (A job that can be recovered)
 *
 * ```ts
 * import type * as Lease from "effect-lifeline/Lease"
 * import * as ProcessAlive from "effect-lifeline/node/ProcessAlive"
 * import * as Recovery from "effect-lifeline/Recovery"
 * import * as Effect from "effect/Effect"
 *
 * declare const lease: Lease.Lease
 *
 * export const program = Effect.gen(function*() {
 *   const leases = yield* Recovery.makeLeases()
 *   yield* leases.put({ lease, provenance: "Managed", holder: yield* ProcessAlive.current })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeLeases: (
  options?: { readonly prefix?: string | undefined }
) => Effect.Effect<Leases, never, KeyValueStore.KeyValueStore> = Stored.make

/**
 * The credential of a lease, as recovery itself uses it: where its first token is accepted, and what keeps it fresh
 * while it goes on. Its `revive` is one heartbeat with the proof. Put the lease into the store before its token is
 * accepted.
 *
 * @category constructors
 * @since 0.1.0
 */
export const credential: <R>(
  options: Options<R>,
  entry: Pick<Entry, "lease" | "provenance">
) => Effect.Effect<
  Credential.Credential["Service"],
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Scope.Scope
> = Engine.credential

// ---------------------------------------------------------------------------------------------------------------------
// Recovery
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Looks at each lease once, and sweeps tokens without a lease. Leases that were finalised before are not reported; a
 * week later they are forgotten. Fails where the store cannot say which leases there are.
 *
 * Each run counts as a boot for leases whose holder is dead.
 *
 * @category combinators
 * @since 0.1.0
 */
export const reconcile = <R = never>(
  options: Options<R>
): Effect.Effect<ReadonlyArray<Report>, KeyValueStore.KeyValueStoreError, KeyValueStore.KeyValueStore | R> =>
  Effect.flatMap(
    Engine.make(options),
    (engine) => Effect.map(Engine.pass(engine), (outcomes) => outcomes.map(({ report }) => report))
  )

/**
 * Recovery in the background.
 *
 * @category services
 * @since 0.1.0
 */
export class Recovery extends Context.Service<Recovery, {
  /**
   * What the leases came to when each of them had been looked at once; what is known by then where the scope is closed
   * before.
   */
  readonly first: Effect.Effect<ReadonlyArray<Report>>
  /** The newest report of each lease so far. */
  readonly reports: Effect.Effect<ReadonlyArray<Report>>
  /** `reports` now, and after each change. */
  readonly changes: Stream.Stream<ReadonlyArray<Report>>
}>()("effect-lifeline/Recovery/Recovery") {}

/**
 * {@link reconcile} when it is built, without being waited for; from then on, as long as the scope is open, what is
 * open is tried again with the backoff.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <R = never>(
  options: Options<R>
): Effect.Effect<Recovery["Service"], never, KeyValueStore.KeyValueStore | Scope.Scope | R> =>
  Effect.gen(function*() {
    const engine = yield* Engine.make(options)
    const few = yield* Semaphore.make(engine.concurrency)
    const state = yield* SubscriptionRef.make<ReadonlyMap<string, Report>>(new Map())
    const first = yield* Deferred.make<ReadonlyArray<Report>>()

    const tell = ({ report }: Engine.Outcome): Effect.Effect<void> =>
      SubscriptionRef.update(state, (known) => new Map(known).set(report.id, report))

    /** Somebody has removed it. */
    const forget = (id: string): Effect.Effect<void> =>
      SubscriptionRef.update(state, (known) => new Map([...known].filter(([other]) => other !== id)))

    const follow = ({ backoff, report }: Engine.Outcome): Effect.Effect<void, never, R> => {
      const retryAt = report._tag === "Finalised" ? undefined : report.retryAt
      return retryAt === undefined ? Effect.void : Effect.gen(function*() {
        yield* Effect.sleep(Math.max(0, retryAt - (yield* Clock.currentTimeMillis)))
        const outcome = yield* few.withPermits(1)(engine.recover(report.id, backoff, false))
        if (outcome === undefined) return yield* forget(report.id)
        yield* tell(outcome)
        yield* follow(outcome)
      })
    }

    const begin = (backoff: Backoff.State): Effect.Effect<ReadonlyArray<Engine.Outcome>, never, R> =>
      Effect.catch(Engine.pass(engine, tell), (error) =>
        Effect.gen(function*() {
          yield* Effect.logWarning(`the store could not say which leases there are: ${error.message}`)
          const now = yield* Clock.currentTimeMillis
          const next = Backoff.step(engine.policy, backoff, { now, random: yield* Random.next }) ?? Backoff.initial
          yield* Effect.sleep(next.wait)
          return yield* begin(next)
        }))

    const toArray = (known: ReadonlyMap<string, Report>): ReadonlyArray<Report> => [...known.values()]
    const reports = Effect.map(SubscriptionRef.get(state), toArray)

    yield* Effect.gen(function*() {
      const outcomes = yield* begin(Backoff.initial)
      yield* Deferred.succeed(first, outcomes.map(({ report }) => report))
      yield* Effect.forEach(outcomes, follow, { concurrency: "unbounded", discard: true })
    }).pipe(
      // Who waits is answered.
      Effect.ensuring(Effect.flatMap(reports, (known) => Deferred.succeed(first, known))),
      Effect.forkScoped({ startImmediately: true })
    )

    return {
      first: Deferred.await(first),
      reports,
      changes: Stream.map(SubscriptionRef.changes(state), toArray)
    }
  })

/**
 * {@link make} as a layer.
 *
 * **Example** (What is recovered, as it comes)
 *
 * ```ts
 * import * as TabAlive from "effect-lifeline/browser/TabAlive"
 * import * as Recovery from "effect-lifeline/Recovery"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * declare const api: Recovery.LeaseApi
 *
 * export const layer = Recovery.layer({ api, isAlive: ({ holder }) => TabAlive.isAlive(holder) })
 *
 * export const program = Effect.gen(function*() {
 *   const recovery = yield* Recovery.Recovery
 *   yield* Stream.runForEach(recovery.changes, (reports) => Effect.log(`${reports.length} leases`))
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<Recovery, never, KeyValueStore.KeyValueStore | Exclude<R, Scope.Scope>> =>
  Layer.effect(Recovery, make(options))
