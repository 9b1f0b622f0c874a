/**
 * The engine of `Recovery`: what becomes of one lease, and of all of them.
 *
 * Each lease gets a credential of its own for as long as it is looked at: that one knows which tokens were rejected,
 * refreshes and revives once at a time over all processes that share the store, and keeps new tokens. What is left to
 * do here is to ask in the right order, and to act on what `Classify.fromLeaseAnswer` says of the answers.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import * as Credential from "../Credential.ts"
import type { AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"
import type { Beat, Options, Report } from "../Recovery.ts"
import * as Status from "./leaseStatus.ts"
import * as Leases from "./recoveryLeases.ts"
import type { Entry, FinalisedReason } from "./recoveryLeases.ts"

type Failure = Transient | AuthFailed | Refused | LeaseLost

/** In how many boots a dead lease is tried. */
const mostAttempts = 3

const defaultConcurrency = 16

const defaultTimeout = /*#__PURE__*/ Duration.seconds(10)

/** How long a finalised lease is remembered, in milliseconds: as long as a server may still revive one. */
const rememberFor = 7 * 24 * 60 * 60_000

const retrying: Backoff.Unbounded = /*#__PURE__*/ Backoff.make({ cap: "5 minutes" })

const defaultPrefix = "recovery/"

/** What a credential keeps. */
const kinds = ["token", "state", "claim"]

const credentialPrefix = (prefix: string): string => `${prefix}credential/`

const annotated = <A, E, R>(self: Effect.Effect<A, E, R>, id?: string): Effect.Effect<A, E, R> =>
  Effect.annotateLogs(self, {
    package: "effect-lifeline",
    module: "Recovery",
    ...(id === undefined ? {} : { lease: id })
  })

/**
 * In a fiber of its own, so that what cannot be interrupted holds up nobody. `orElse`: it did not come to an end in
 * time.
 */
const bounded = <A, E, R, B, E2>(
  self: Effect.Effect<A, E, R>,
  duration: Duration.Duration,
  orElse: () => Effect.Effect<B, E2>
): Effect.Effect<A | B, E | E2, R> =>
  Effect.flatMap(Effect.forkDetach(self, { startImmediately: true }), (fiber) =>
    Fiber.await(fiber).pipe(
      Effect.onInterrupt(() => Effect.sync(() => fiber.interruptUnsafe())),
      Effect.timeoutOrElse({ duration, orElse: () => Effect.undefined }),
      Effect.flatMap((exit): Effect.Effect<A | B, E | E2> =>
        // One that interrupts itself interrupts nobody else.
        exit === undefined || (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) ? orElse() : exit
      )
    ))

/** What something unexpected may be called: what it says may quote what it was given. */
const nameOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return Classify.codeOf(error) ?? (error instanceof Error ? error.name : typeof error)
}

const possessionOf = ({ proof }: Pick<Options, "proof">, { provenance }: Entry): Status.Possession => ({
  provenance,
  signer: proof !== undefined
})

/** A heartbeat's answer as what a revival may come to; only what the sentence on revivals names ends a lease. */
const revivalOf = (
  table: Status.LeaseTable,
  { token, ...answer }: Beat,
  at: { readonly operation: string; readonly target: string }
): Effect.Effect<Credential.Token, Failure> => {
  const { retryAfter, status = 0 } = answer
  const classified = Status.fromLeaseAnswer(table, answer)
  if (classified._tag === "Terminal") {
    switch (classified.reason) {
      case "Unauthorized":
        return Effect.fail(Classify.unauthorized(at))
      case "NotFound":
        return Effect.fail(Classify.unknownLease(at))
      case "Gone":
      case "TimedOut":
        return Effect.fail(Classify.leaseExpired(at))
    }
  }
  if (status >= 200 && status < 300 && token !== undefined) return Effect.succeed(token)
  const detail = status >= 200 && status < 300
    ? "the lease is alive there, so there is no new token"
    : "whether it is revived is open"
  return Effect.fail(
    status === 0
      ? Classify.unreachable({ ...at, detail })
      : Classify.unavailable({ ...at, status, detail, retryAfter })
  )
}

/** An error of a heartbeat: what does not end the lease is tried again, so nothing is spent on it. */
const beatError = (table: Status.LeaseTable, error: Failure): Effect.Effect<Status.LeaseAnswer, Failure> => {
  if (error._tag === "Transient") return Effect.fail(error)
  const answer = Status.answerOf(error)
  const classified = Status.fromLeaseAnswer(table, answer)
  return classified._tag === "Terminal" && classified.reason !== "Forbidden"
    ? Effect.fail(error)
    : Effect.succeed(answer)
}

/** The credential of a lease; `beat` is told of each answer to a heartbeat. */
const credentialOf = <R>(
  options: Options<R>,
  { lease, provenance }: Pick<Entry, "lease" | "provenance">,
  beat: (answer: Status.LeaseAnswer) => void
): Effect.Effect<
  Credential.Credential["Service"],
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Scope.Scope
> => {
  const { api, cipher, prefix = defaultPrefix, proof } = options
  const { refresh } = api
  const table = api.table ?? Status.leaseStatuses
  return Credential.make({
    provenance: provenance === "Managed" && proof !== undefined ? { _tag: "Managed", proof } : { _tag: "Supplied" },
    name: lease.id,
    prefix: credentialPrefix(prefix),
    cipher,
    ...(refresh === undefined ? {} : { refresh: (context: Credential.RefreshContext) => refresh(lease, context) }),
    revive: (context) =>
      Effect.flatMap(
        Effect.catch(
          api.heartbeat(lease, context),
          (error): Effect.Effect<Beat, Failure> => beatError(table, error)
        ),
        (answer) => {
          beat(answer)
          return revivalOf(table, answer, { operation: "revival", target: lease.id })
        }
      )
  })
}

export const credential = <R>(
  options: Options<R>,
  entry: Pick<Entry, "lease" | "provenance">
): ReturnType<typeof credentialOf> => credentialOf(options, entry, () => {})

/** What one lease came to, and how long it has been failing. */
export interface Outcome {
  readonly report: Report
  readonly backoff: Backoff.State
}

export interface Engine<R> {
  /** The ids of what is kept. */
  readonly ids: Effect.Effect<ReadonlyArray<string>, KeyValueStore.KeyValueStoreError>
  /**
   * `undefined`: there is nothing to recover. `boot`: whether this is the first time since the start, which counts as
   * an attempt for a dead one, and does not tell of what was over before.
   */
  readonly recover: (
    id: string,
    backoff: Backoff.State,
    boot: boolean
  ) => Effect.Effect<Outcome | undefined, never, R>
  readonly sweep: Effect.Effect<void>
  readonly concurrency: number
  readonly policy: Backoff.Unbounded
}

export const make = <R>(
  options: Options<R>
): Effect.Effect<Engine<R>, never, KeyValueStore.KeyValueStore> =>
  Effect.gen(function*() {
    const { api, prefix = defaultPrefix } = options
    const store = yield* KeyValueStore.KeyValueStore
    const leases = yield* Leases.make({ prefix })
    const table = api.table ?? Status.leaseStatuses
    const timeout = Duration.fromInputUnsafe(options.timeout ?? defaultTimeout)
    const policy = options.backoff ?? retrying
    const concurrency = options.concurrency ?? defaultConcurrency

    /** Of this process's wall clock, in milliseconds. */
    const next = (backoff: Backoff.State, hint?: Duration.Duration) =>
      Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        const random = yield* Random.next
        const state = Backoff.step(policy, backoff, { now, random, hint: hint && Duration.toMillis(hint) }) ??
          Backoff.initial
        return { backoff: state, retryAt: now + Math.max(1, Math.ceil(state.wait)) }
      })

    const deferred = Effect.fnUntraced(function*(
      id: string,
      before: Backoff.State,
      detail: string,
      hint?: Duration.Duration
    ): Effect.fn.Return<Outcome> {
      const { backoff, retryAt } = yield* next(before, hint)
      yield* annotated(Effect.logWarning(`not recovered yet: ${detail}`), id)
      return { report: { _tag: "Deferred", id, retryAt, detail }, backoff }
    })

    const attached = Effect.fnUntraced(function*(
      entry: Entry,
      before: Backoff.State,
      how: {
        readonly revived: boolean
        readonly open?: string | undefined
        readonly hint?: Duration.Duration | undefined
      }
    ): Effect.fn.Return<Outcome> {
      const { id } = entry.lease
      const { revived } = how
      if (how.open === undefined) return { report: { _tag: "Attached", id, entry, revived }, backoff: Backoff.initial }
      const { backoff, retryAt } = yield* next(before, how.hint)
      yield* annotated(Effect.logWarning(`attached, as who holds it is alive, but ${how.open}`), id)
      return { report: { _tag: "Attached", id, entry, revived, retryAt }, backoff }
    })

    const dropToken = (id: string) =>
      Effect.forEach(kinds, (kind) => {
        const key = `${credentialPrefix(prefix)}${kind}/${id}`
        return Leases.within("remove", key, Effect.suspend(() => store.remove(key)))
      }, { discard: true })

    const finalised = Effect.fnUntraced(function*(
      entry: Entry,
      reason: FinalisedReason
    ): Effect.fn.Return<Outcome, KeyValueStore.KeyValueStoreError> {
      const { id } = entry.lease
      const at = yield* Clock.currentTimeMillis
      // The record first: a token that is left behind is swept, a lease without its token would be asked for in vain.
      const kept = yield* leases.update(id, (fresh) => ({ ...fresh, finalised: { reason, at } }))
      yield* dropToken(id)
      const why = kept?.finalised?.reason ?? reason
      yield* annotated(Effect.logInfo(`finalised: ${why}`), id)
      return { report: { _tag: "Finalised", id, reason: why }, backoff: Backoff.initial }
    })

    const isAlive = (entry: Entry): Effect.Effect<boolean, Error, R> =>
      bounded(
        Effect.suspend(() => options.isAlive(entry)),
        timeout,
        () => Effect.fail(Classify.timedOut({ operation: "isAlive", target: entry.lease.id, after: timeout }))
      )

    /** Asks for the status; `undefined`: there is nothing to present, so nothing was sent. */
    const ask = Effect.fnUntraced(function*(
      { lease }: Entry,
      credential: Credential.Credential["Service"]
    ): Effect.fn.Return<Status.LeaseAnswer | undefined> {
      const presented = yield* Effect.option(credential.select)
      if (presented._tag === "None") {
        const token = yield* credential.token
        return token !== undefined && (yield* credential.isRejected(token)) ? { status: 401 } : undefined
      }
      const authorizer: Credential.Authorizer = {
        select: Effect.succeed(presented.value),
        authorize: (request) => credential.authorize({ ...request, presented: presented.value }),
        received: credential.received
      }
      let isTokenRejected = false
      const answer = yield* bounded(
        Effect.suspend(() => api.status(lease, authorizer)),
        timeout,
        (): Effect.Effect<Status.LeaseAnswer> => Effect.succeed({})
      ).pipe(
        Effect.tap(({ says, status }) => Effect.sync(() => isTokenRejected = status === 401 && says === undefined)),
        Effect.catch((error) => {
          isTokenRejected = error._tag === "AuthFailed" &&
            (error.reason._tag === "Unauthorized" || error.reason._tag === "CredentialExpired")
          const log = error._tag === "Refused" ? Effect.logWarning(error.message) : Effect.logDebug(error.message)
          return Effect.as(annotated(log, lease.id), Status.answerOf(error))
        })
      )
      const { value } = presented
      if (isTokenRejected && value._tag === "Token") yield* credential.reject(value.token)
      return answer
    })

    const warnUnexpected = (id: string, { status }: Status.LeaseAnswer) =>
      annotated(
        Effect.logWarning(
          `the registry's answer${status === 0 ? "" : ` (${status})`} says nothing of the lease: taken as live`
        ),
        id
      )

    const dead = Effect.fnUntraced(function*(
      found: Entry,
      backoff: Backoff.State,
      boot: boolean
    ): Effect.fn.Return<
      Outcome | undefined,
      KeyValueStore.KeyValueStoreError,
      KeyValueStore.KeyValueStore | Scope.Scope
    > {
      if (found.attempts >= mostAttempts) return yield* finalised(found, "GaveUp")
      const { id } = found.lease
      const entry = boot ? yield* leases.update(id, (fresh) => ({ ...fresh, attempts: fresh.attempts + 1 })) : found
      if (entry === undefined || entry.finalised !== undefined) return over(entry)
      // Neither a refresh nor a revival: nobody is left to use what they would give.
      const answer = yield* ask(
        entry,
        yield* Credential.make({
          provenance: entry.provenance === "Managed" && options.proof !== undefined
            ? { _tag: "Managed", proof: options.proof }
            : { _tag: "Supplied" },
          name: id,
          prefix: credentialPrefix(prefix),
          cipher: options.cipher
        })
      )
      if (answer === undefined) return yield* finalised(entry, "Dead")
      const classified = Status.fromLeaseAnswer(table, answer)
      if (classified._tag === "Terminal") return yield* finalised(entry, classified.reason)
      if (classified._tag !== "Transient") return yield* finalised(entry, "Dead")
      if (entry.attempts >= mostAttempts) return yield* finalised(entry, "GaveUp")
      return yield* deferred(id, backoff, "who held it is dead, and the registry could not be asked", answer.retryAfter)
    })

    const alive = Effect.fnUntraced(function*(
      entry: Entry,
      backoff: Backoff.State,
      boot: boolean
    ): Effect.fn.Return<
      Outcome | undefined,
      KeyValueStore.KeyValueStoreError | Error,
      KeyValueStore.KeyValueStore | Scope.Scope | R
    > {
      const { id } = entry.lease
      const beats: Array<Status.LeaseAnswer> = []
      const credential = yield* credentialOf(options, entry, (answer) => void beats.push(answer))
      const before = yield* credential.token
      let answer = yield* ask(entry, credential)
      let open: Transient | undefined
      if (answer?.status === 401 && answer.says === undefined) {
        // A refresh that was due anyway may have come first.
        const isNewer = (yield* credential.token) !== before
        const refreshed = isNewer ? Result.succeed(undefined) : yield* Effect.result(credential.refresh)
        if (Result.isSuccess(refreshed)) answer = yield* ask(entry, credential)
        else if (refreshed.failure._tag === "Transient") open = refreshed.failure
      }
      if (answer === undefined) return yield* deferred(id, backoff, "there is no token, and nothing that could get one")
      const classified = Status.fromLeaseAnswer(table, answer, possessionOf(options, entry))
      switch (classified._tag) {
        case "Live":
          if (!classified.expected) yield* warnUnexpected(id, answer)
          return yield* attached(entry, backoff, { revived: false })
        case "Transient":
          return yield* attached(entry, backoff, {
            revived: false,
            open: "the registry could not be asked",
            hint: answer.retryAfter
          })
        case "Terminal":
          return open !== undefined && classified.reason === "Unauthorized"
            ? yield* attached(entry, backoff, {
              revived: false,
              open: open.message,
              hint: Status.answerOf(open).retryAfter
            })
            : yield* finalised(entry, classified.reason)
      }
      // It may have died meanwhile, and what is dead is never revived.
      if (!(yield* isAlive(entry))) return yield* dead(entry, backoff, boot)
      const revived = yield* Effect.result(credential.revive)
      // Another process may have finished it meanwhile: what came of the heartbeat is nobody's then.
      const fresh = yield* Effect.orElseSucceed(leases.get(id), () => entry)
      if (fresh === undefined || fresh.finalised !== undefined) {
        yield* dropToken(id)
        return over(fresh)
      }
      if (Result.isSuccess(revived)) return yield* attached(entry, backoff, { revived: true })
      const { failure } = revived
      const { status = 0 } = beats[beats.length - 1] ?? {}
      // Unless it says, whatever its status, that the lease is over.
      if (status >= 200 && status < 300 && failure._tag !== "LeaseLost") {
        return yield* attached(entry, backoff, { revived: false })
      }
      const heartbeat = Status.fromLeaseAnswer(Status.leaseStatuses, Status.answerOf(failure))
      return heartbeat._tag === "Terminal"
        ? yield* finalised(entry, heartbeat.reason)
        : yield* attached(entry, backoff, {
          revived: false,
          open: failure.message,
          hint: Status.answerOf(failure).retryAfter
        })
    })

    const over = (entry: Entry | undefined): Outcome | undefined =>
      entry?.finalised === undefined
        ? undefined
        : {
          report: { _tag: "Finalised", id: entry.lease.id, reason: entry.finalised.reason },
          backoff: Backoff.initial
        }

    const recover: Engine<R>["recover"] = (id, backoff, boot) =>
      Effect.gen(function*() {
        const entry = yield* leases.get(id)
        if (entry === undefined || entry.finalised !== undefined) return boot ? undefined : over(entry)
        return (yield* isAlive(entry)) ? yield* alive(entry, backoff, boot) : yield* dead(entry, backoff, boot)
      }).pipe(
        Effect.scoped,
        Effect.provideService(KeyValueStore.KeyValueStore, store),
        Effect.catchCause((cause) => {
          if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
          const error = Cause.findError(cause)
          const known = Result.isSuccess(error) ? error.success : undefined
          return deferred(
            id,
            backoff,
            known instanceof KeyValueStore.KeyValueStoreError
              ? `the store failed: ${known.message}`
              : `it failed unexpectedly (${nameOf(cause)})`
          )
        })
      )

    /** One that fails is left for the next boot. */
    const left = (error: KeyValueStore.KeyValueStoreError) =>
      annotated(Effect.logWarning(`not all was swept: ${error.message}`))

    const sweep = Effect.gen(function*() {
      const keys = yield* Leases.within("keys", undefined, Effect.suspend(() => store.keys))
      const now = yield* Clock.currentTimeMillis
      const sweepToken = Effect.fnUntraced(function*(id: string) {
        // Afresh: a lease may have come since.
        const entry = yield* leases.get(id)
        if (entry !== undefined && entry.finalised === undefined) return
        yield* dropToken(id)
        yield* annotated(Effect.logInfo("a token without a lease was deleted"), id)
      })
      const sweepLease = Effect.fnUntraced(function*(id: string) {
        const entry = yield* leases.get(id)
        if (entry?.finalised !== undefined && now - entry.finalised.at > rememberFor) yield* leases.remove(id)
      })
      const tokens = new Set(kinds.flatMap((kind) => Leases.namesAfter(`${credentialPrefix(prefix)}${kind}/`, keys)))
      const entries = Leases.namesAfter(Leases.prefixOf(prefix), keys)
      yield* Effect.forEach(
        [...[...tokens].map(sweepToken), ...entries.map(sweepLease)],
        (one) => Effect.catch(one, left),
        { concurrency, discard: true }
      )
    }).pipe(Effect.catch(left))

    return { ids: leases.ids, recover, sweep, concurrency, policy }
  })

/** One pass over all of them; `told` of each as it comes. */
export const pass = <R>(
  engine: Engine<R>,
  told: (outcome: Outcome) => Effect.Effect<void> = () => Effect.void
): Effect.Effect<ReadonlyArray<Outcome>, KeyValueStore.KeyValueStoreError, R> =>
  Effect.gen(function*() {
    const outcomes = yield* Effect.forEach(
      yield* engine.ids,
      (id) =>
        Effect.tap(
          engine.recover(id, Backoff.initial, true),
          (outcome) => outcome === undefined ? Effect.void : told(outcome)
        ),
      { concurrency: engine.concurrency }
    )
    yield* engine.sweep
    return outcomes.filter((outcome) => outcome !== undefined)
  })
