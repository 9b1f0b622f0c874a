/**
 * The engine of `Credential`.
 *
 * What is held (the token, which tokens were rejected, what was spent on the present one) is in memory, and written to the store
 * at each change. The store is read when the credential is made, and again before each refresh and revival, where another
 * process may have been faster.
 *
 * There is one flight at a time, a refresh or a revival, in a fiber of its own: callers wait for what it comes to. The provider
 * runs in yet another fiber, so that one which cannot be interrupted holds up nobody.
 *
 * An episode begins when a token is rejected, and ends with the first success after it or with a token from outside. It says
 * what was tried: a token that a refresh gave, and that is rejected too, is revived and not refreshed again.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Hash from "effect/Hash"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Backoff from "../Backoff.ts"
import * as Cipher from "../Cipher.ts"
import * as Classify from "../Classify.ts"
import type { Authorization, Authorizer, Credential, Options, Presented, Request, Token } from "../Credential.ts"
import type { LeaseLost, Refused, Transient } from "../LifelineError.ts"
import { AuthFailed, retryAfter } from "../LifelineError.ts"
import * as Record from "./credentialRecord.ts"
import { Spent } from "./credentialSpent.ts"
import type { Step } from "./credentialSpent.ts"
import { formatTime } from "./time.ts"
import { showUrl } from "./url.ts"

type Operation = Record.Claim["operation"]
type Failure = Transient | AuthFailed | Refused | LeaseLost

/** A token that expires within this, in milliseconds, is stale. */
const staleWithin = 30_000

/** How long before its expiry a token is refreshed, in milliseconds, and which part of its life that is at most. */
const leadTime = 30 * 60_000
const leadPart = 1 / 10

/** Of a refresh or a revival. */
const deadline = /*#__PURE__*/ Duration.seconds(10)

/** How long a claim is respected, in milliseconds: longer than what it is for may take. */
const claimFor = 12_000

/**
 * Who claims looks again after this many milliseconds, or three times what its own look and write took: of two at once both
 * then see whoever wrote last, unless the other one's took longer than that.
 */
const claimSettles = 50
const claimSettlesAtMost = 1000

/** How often who waits for another process looks, and how long in all, in milliseconds. */
const claimPoll = 500
const claimPatience = 2 * claimFor

/** The latest time that there is, in milliseconds since 1970. */
const latest = 8.64e15

/** How many rejected tokens are remembered. */
const mostRejected = 16

/** How often one effect is run: once, after a refresh, after a revival, and where others were faster with a token meanwhile. */
const mostSends = 5

/** No timer of the schedule is longer, in milliseconds: a clock that jumps is seen after this. */
const longestSleep = 60 * 60_000

const refreshing: Backoff.Unbounded = /*#__PURE__*/ Backoff.make({ cap: "5 minutes" })

// What a header can carry: visible Latin-1, spaces within.
const sendable = /^[\x21-\x7e\xa0-\xff](?:[\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?$/

const short = (text: string): string => (Hash.string(text) >>> 0).toString(36)

/** Without an expiry that is no time. */
const lasting = ({ expiresAt = NaN, jti, value }: Token): Token => ({
  value,
  ...(Math.abs(expiresAt) <= latest ? { expiresAt } : {}),
  ...(jti === undefined ? {} : { jti })
})

const identities = /*#__PURE__*/ new WeakMap<Redacted.Redacted, string>()

/** What a token is recognised by. It does not give it away. */
const identify = ({ value }: Token): string => {
  const known = identities.get(value)
  if (known !== undefined) return known
  const text = Redacted.value(value)
  const identity = [text.length, short(text), short([...text].reverse().join(""))].join("-")
  identities.set(value, identity)
  return identity
}

interface Held {
  readonly token: Token
  readonly identity: string
  readonly revision: number
  readonly acceptedAt: number
}

interface Episode {
  readonly of: string
  refresh: boolean
  revival: boolean
  /** What was tried, as far as this process knows. */
  readonly steps: Array<Step>
}

/** What was presented while an effect ran. */
interface Tracking {
  readonly of: object
  last: Presented | undefined
  readonly outer: Tracking | undefined
}

const CurrentTracking = /*#__PURE__*/ Context.Reference<Tracking | undefined>(
  "effect-lifeline/internal/credential/CurrentTracking",
  { defaultValue: () => undefined }
)

/** A revival found that the lease is gone: told apart from a `LeaseLost` of the effect itself. */
class Gone {
  readonly error: LeaseLost
  readonly steps: ReadonlyArray<Step>
  constructor(error: LeaseLost, steps: ReadonlyArray<Step>) {
    this.error = error
    this.steps = [...steps, { tried: "revival", error }]
  }
}

const isAuthFailed = (error: unknown): error is AuthFailed => Predicate.isTagged(error, "AuthFailed")

/** Whether it says that the credential itself is no good: what another token helps against. */
const isRejection = (error: unknown): error is AuthFailed =>
  isAuthFailed(error) && (error.reason._tag === "Unauthorized" || error.reason._tag === "CredentialExpired")

const isLeaseLost = (error: Failure): error is LeaseLost => error._tag === "LeaseLost"

/** The one error for all that was tried: that of the last try that says what is wrong with the credential. */
const fatal = (steps: ReadonlyArray<Step>): AuthFailed | undefined => {
  const errors = steps.map((step) => step.error).filter(isAuthFailed)
  const first = errors[0]
  const last = errors[errors.length - 1]
  const cause = steps[steps.length - 1]?.error
  if (first === undefined || last === undefined || steps.length === 1) return first
  const { operation, target } = steps.find((step) => step.tried === "request")?.error ?? first
  return new AuthFailed({ operation, target, reason: last.reason, cause: new Spent({ steps, cause }) })
}

export const make = Effect.fnUntraced(function*<R = never>(
  options: Options<R>
): Effect.fn.Return<
  Credential["Service"],
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Scope.Scope | R
> {
  const { name, provenance } = options
  const store = yield* KeyValueStore.KeyValueStore
  const crypto = yield* WebCrypto
  const slots = Record.make(store, options.cipher ?? Cipher.none, options.prefix ?? "credential/", name)
  const policy = options.backoff ?? refreshing
  // Flights outlive whoever asks for them: they keep the services of whoever made this, and start traces of their own.
  const context = Context.omit(Tracer.ParentSpan)(yield* Effect.context<R>()) as Context.Context<R>
  const writing = yield* Semaphore.make(1)
  const changes = yield* PubSub.sliding<void>(1)
  const self = {}
  const keyIdentity = provenance._tag === "Managed" ? `key ${provenance.proof.thumbprint}` : undefined
  const seed = options.token === undefined ? undefined : identify(options.token)

  let held: Held | undefined
  /** Whether the store has what is held: if it is not there any more, somebody deleted it. */
  let kept = false
  /** Grows when the token is deleted: what was under way then has come too late. */
  let epoch = 0
  let rejected: ReadonlyArray<string> = []
  let episode: Episode | undefined
  let flight: { readonly operation: Operation; readonly result: Deferred.Deferred<Token, Failure> } | undefined
  let flights: Fiber.Fiber<Token, Failure> | undefined
  let changed = Deferred.makeUnsafe<void>()
  /** The last token whose episode ended well. */
  let ended: string | undefined
  /** The token that cannot be refreshed ahead of its expiry. */
  let refused: string | undefined
  let warned: string | undefined
  let fresh = true

  const newId = Effect.sync(() => Hex.encode(crypto.getRandomValues(new Uint8Array(16))))
  const me = yield* newId

  const annotated = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.annotateLogs(self, { package: "effect-lifeline", credential: name })

  const warn = (message: string): Effect.Effect<void> => annotated(Effect.logWarning(message))

  const notKept = (what: string) => (error: Record.Failed): Effect.Effect<void> =>
    warn(`${what}; it counts in this process only: ${error.message}`)

  const missing = (operation: string, cause?: unknown): AuthFailed =>
    Classify.credentialMissing({ operation, target: name, cause })

  // -------------------------------------------------------------------------------------------------------------------
  // What is held
  // -------------------------------------------------------------------------------------------------------------------

  const currentIdentity = (): string | undefined => held?.identity ?? keyIdentity

  const isRejected = (identity: string | undefined): boolean => identity !== undefined && rejected.includes(identity)

  const episodeOf = (of: string): Episode => {
    if (episode?.of !== of) episode = { of, refresh: false, revival: false, steps: [] }
    return episode
  }

  const hold = (next: Held | undefined): void => {
    const before = held?.identity
    held = next
    Deferred.doneUnsafe(changed, Exit.void)
    changed = Deferred.makeUnsafe()
    if (before !== next?.identity) PubSub.publishUnsafe(changes, undefined)
  }

  const ofRecord = (record: Record.Token): Held => {
    const { acceptedAt, expiresAt, jti, revision, value } = record
    const token = lasting({ value: Redacted.make(value), expiresAt, jti })
    return { token, identity: identify(token), revision, acceptedAt }
  }

  /** Takes over what other processes know; not of an episode that is over. */
  const learn = (state: Record.State | "unreadable" | undefined): void => {
    if (state === undefined || state === "unreadable") return
    const own = rejected
    rejected = [...state.rejected.filter((it) => !own.includes(it)), ...own].slice(-mostRejected)
    if (state.spent !== undefined && state.spent.of === currentIdentity() && state.spent.of !== ended) {
      const known = episodeOf(state.spent.of)
      known.refresh ||= state.spent.refresh
      known.revival ||= state.spent.revival
    }
  }

  // A key that was refused gets another chance from the next process: the credential it stands for may be there by then.
  const stateOf = (): Record.State => ({
    rejected: rejected.filter((it) => it !== keyIdentity),
    spent: episode === undefined || episode.of === keyIdentity
      ? undefined
      : { of: episode.of, refresh: episode.refresh, revival: episode.revival }
  })

  const writeState = Effect.flatMap(slots.state.get, (state) => {
    learn(state)
    return slots.state.set(stateOf())
  })

  /** Not where it is known: another process may be writing what was spent on that token, and a late copy would undo it. */
  const writeRejected = Effect.flatMap(slots.state.get, (state) => {
    const known = state === undefined || state === "unreadable" ? [] : state.rejected
    learn(state)
    const next = stateOf()
    return next.rejected.every((it) => known.includes(it)) ? Effect.void : slots.state.set(next)
  })

  const keeping = (write: Effect.Effect<void, Record.Failed>): Effect.Effect<void> =>
    writing.withPermits(1)(write).pipe(
      Effect.catch(notKept("what is known of rejected tokens was not kept")),
      Effect.uninterruptible
    )

  const keepState = keeping(writeState)

  /** The one function that keeps a token. */
  const keep = (given: Token, next?: (identity: string) => Episode): Effect.Effect<void, Record.Failed> =>
    Effect.flatMap(Clock.currentTimeMillis, (acceptedAt) => {
      const token = lasting(given)
      const identity = identify(token)
      const { expiresAt, jti, value } = token
      const stated = next !== undefined || episode !== undefined
      episode = next?.(identity)
      ended = episode === undefined ? identity : undefined
      rejected = rejected.filter((it) => it !== keyIdentity)
      kept = false
      const revision = (held?.revision ?? 0) + 1
      const mine: Held = { token, identity, revision, acceptedAt }
      hold(mine)
      return writing.withPermits(1)(Effect.gen(function*() {
        // Accepted meanwhile: that one is newer.
        if (held !== mine) return
        const there = yield* slots.token.get
        const after = there === undefined || there === "unreadable" ? 0 : there.revision
        const record = { ...mine, revision: Math.max(revision, after + 1) }
        if (stated) yield* writeState
        yield* slots.token.set({
          value: Redacted.value(value),
          expiresAt,
          jti,
          revision: record.revision,
          acceptedAt,
          seed
        })
        if (held !== mine) return
        held = record
        kept = true
      }))
    }).pipe(Effect.uninterruptible)

  /** What another process did to the token. Whether it is another one now. */
  const adopt = Effect.gen(function*() {
    const record = yield* slots.token.get
    if (record === "unreadable") return false
    const before = currentIdentity()
    if (record === undefined) {
      if (!kept) return false
      kept = false
      hold(undefined)
    } else {
      const found = ofRecord(record)
      if (found.identity === held?.identity) {
        kept = true
        return false
      }
      if (held !== undefined && found.revision < held.revision) return false
      kept = true
      hold(found)
      learn(yield* slots.state.get)
    }
    return currentIdentity() !== before
  })

  /** Deletes the token, and settles what becomes of what is known of rejected ones. */
  const drop = (state: Effect.Effect<void, Record.Failed>): Effect.Effect<void, Record.Failed> =>
    Effect.suspend(() => {
      epoch++
      episode = undefined
      rejected = rejected.filter((it) => it !== keyIdentity)
      kept = false
      hold(undefined)
      return writing.withPermits(1)(
        Effect.all([slots.token.remove, slots.claim.remove, state], { discard: true })
      )
    }).pipe(Effect.uninterruptible)

  /** The token is of no use any more, but is still known to have been rejected. */
  const forget = drop(writeState)

  const rejectIdentity = (identity: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (identity === ended) ended = undefined
      if (isRejected(identity)) return Effect.void
      rejected = [...rejected, identity].slice(-mostRejected)
      return identity === keyIdentity ? Effect.void : keeping(writeRejected)
    })

  // -------------------------------------------------------------------------------------------------------------------
  // The ladder
  // -------------------------------------------------------------------------------------------------------------------

  const lastError = (): Error | undefined => {
    const steps = episode === undefined || episode.of !== currentIdentity() ? [] : episode.steps
    return steps[steps.length - 1]?.error
  }

  const select: Effect.Effect<Presented, AuthFailed> = Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const usable = held !== undefined && !isRejected(held.identity) ? held : undefined
    const { expiresAt = Infinity } = usable?.token ?? {}
    if (usable !== undefined && expiresAt - now > staleWithin) {
      return Effect.succeed<Presented>({ _tag: "Token", token: usable.token, stale: false })
    }
    if (provenance._tag === "Managed") return Effect.succeed<Presented>({ _tag: "Proof" })
    if (usable === undefined) return Effect.fail(missing("authorize", lastError()))
    const presented: Presented = { _tag: "Token", token: usable.token, stale: true }
    if (warned === usable.identity) return Effect.succeed(presented)
    warned = usable.identity
    const when = `${expiresAt <= now ? "expired" : "expires"} at ${formatTime(expiresAt)}`
    return Effect.as(warn(`the token ${when} and there is no newer one: it is sent all the same`), presented)
  })

  const note = (presented: Presented): Effect.Effect<void> =>
    Effect.map(CurrentTracking, (tracking) => {
      for (let it = tracking; it !== undefined; it = it.outer) if (it.of === self) it.last = presented
    })

  const headersOf = ({ method, url }: Request, presented: Presented): Effect.Effect<
    Authorization["headers"],
    AuthFailed | Refused
  > => {
    const value = presented._tag === "Token" ? presented.token.value : undefined
    const given = typeof url === "string" ? URL.parse(url) : url
    // A WebSocket begins as a request over HTTP.
    const parsed = given?.protocol.startsWith("ws") ? URL.parse(given.href.replace(/^ws/, "http")) : given
    const at = { operation: "authorize", target: `${method} ${parsed === null ? name : showUrl(parsed.href)}` }
    if (value !== undefined && !sendable.test(Redacted.value(value))) {
      const detail = "it holds characters that a header cannot carry, or nothing, so nothing was sent"
      return Effect.fail(Classify.unauthorized({ ...at, detail }))
    }
    if (provenance._tag === "Managed") return provenance.proof.headers({ method, url: parsed ?? url, token: value })
    if (parsed?.protocol !== "https:" && parsed?.protocol !== "http:") {
      const issues = [{ path: "url", message: "expected an absolute http or https URL" }]
      return Effect.fail(Classify.invalidRequest({ ...at, issues }))
    }
    return value === undefined
      ? Effect.fail(missing("authorize"))
      : Effect.succeed({ authorization: Redacted.make(`Bearer ${Redacted.value(value)}`) })
  }

  const authorizerOf = (
    select: Authorizer["select"],
    isFit: (presented: Presented) => boolean
  ): Authorizer => ({
    select,
    authorize: (request) =>
      Effect.suspend(() =>
        request.presented !== undefined && isFit(request.presented) ? Effect.succeed(request.presented) : select
      ).pipe(
        Effect.flatMap((presented) =>
          Effect.flatMap(
            headersOf(request, presented),
            (headers) => Effect.as(note(presented), { headers, presented })
          )
        )
      ),
    received: (answer) => provenance._tag === "Managed" ? provenance.proof.received(answer) : Effect.succeed(false)
  })

  // Rejected between being selected and being sent: not sent.
  const byLadder = authorizerOf(select, (it) => it._tag === "Proof" || !isRejected(identify(it.token)))
  const byProof = authorizerOf(Effect.succeed({ _tag: "Proof" }), (it) => it._tag === "Proof")

  // -------------------------------------------------------------------------------------------------------------------
  // Refresh and revival
  // -------------------------------------------------------------------------------------------------------------------

  const isPossible = (operation: Operation): boolean =>
    operation === "refresh"
      ? options.refresh !== undefined && held !== undefined
      : options.revive !== undefined && provenance._tag === "Managed"

  const isSpent = (operation: Operation): boolean =>
    episode !== undefined && episode.of === currentIdentity() && episode[operation]

  const unreachable = (operation: Operation, detail: string): Transient =>
    Classify.unreachable({ operation, target: name, detail })

  const timedOut = (operation: Operation, after: Duration.Duration): Transient =>
    Classify.timedOut({ operation, target: name, after })

  const elsewhere = (operation: Operation): AuthFailed =>
    Classify.unauthorized({
      operation,
      target: name,
      detail: `a ${operation} was tried already, by another process or before a restart`
    })

  /** What a provider dies with may quote what it was given, or was sent: only its name is shown. */
  const unexpected = (operation: Operation, cause: Cause.Cause<never>): Transient => {
    const error = Cause.squash(cause)
    const word = Classify.codeOf(error) ?? (error instanceof Error ? error.name : typeof error)
    return unreachable(operation, `what provides tokens failed unexpectedly (${word})`)
  }

  /** The provider, in a fiber of its own. */
  const callProvider = (
    operation: Operation,
    provider: Effect.Effect<Token, Failure, R>
  ): Effect.Effect<Token, Failure> =>
    Effect.suspend(() => {
      const tracking: Tracking = { of: self, last: undefined, outer: undefined }
      const fiber = Effect.runForkWith(context)(Effect.provideService(provider, CurrentTracking, tracking))
      return Fiber.await(fiber).pipe(
        // Without waiting for it.
        Effect.onInterrupt(() => Effect.sync(() => fiber.interruptUnsafe())),
        Effect.timeoutOrElse({
          duration: deadline,
          orElse: () => Effect.fail<Failure>(timedOut(operation, deadline))
        }),
        Effect.flatMap((exit): Effect.Effect<Token, Failure> => {
          if (Exit.isSuccess(exit)) return Effect.succeed(exit.value)
          const error = Cause.findError(exit.cause)
          return Effect.fail(Result.isSuccess(error) ? error.success : unexpected(operation, error.failure))
        }),
        Effect.tapError((error) =>
          isRejection(error) && tracking.last?._tag === "Token"
            ? rejectIdentity(identify(tracking.last.token))
            : Effect.void
        )
      )
    })

  const isMine = (claim: Record.Claim | "unreadable" | undefined): claim is Record.Claim =>
    claim !== undefined && claim !== "unreadable" && claim.by === me

  const unclaim = Effect.flatMap(
    slots.claim.get,
    (found) => isMine(found) ? slots.claim.remove : Effect.void
  )

  /** The idempotency key to call with; `undefined`: another process has made it needless. */
  const claim = Effect.fnUntraced(function*(
    operation: Operation,
    of: string
  ): Effect.fn.Return<string | undefined, Record.Failed | AuthFailed | Transient> {
    const started = yield* Clock.currentTimeMillis
    while (true) {
      let won: string | undefined
      const now = yield* Clock.currentTimeMillis
      const found = yield* slots.claim.get
      // Of either operation: what comes of the other one may make this one needless.
      const there = found !== undefined && found !== "unreadable" && found.of === of ? found : undefined
      if (there !== undefined && there.by !== me && there.until > now && there.until - now <= claimFor) {
        if (now - started >= claimPatience) return yield* timedOut(operation, Duration.millis(claimPatience))
        yield* Effect.sleep(Math.min(claimPoll, Math.ceil(there.until - now)))
      } else {
        const idempotencyKey = there?.operation === operation ? there.idempotencyKey : yield* newId
        yield* slots.claim.set({ operation, of, idempotencyKey, by: me, until: now + claimFor })
        const took = (yield* Clock.currentTimeMillis) - now
        yield* Effect.sleep(Math.min(Math.max(claimSettles, 3 * took), claimSettlesAtMost))
        if (isMine(yield* slots.claim.get)) won = idempotencyKey
      }
      // Also with a claim: another process may have been through before it was made.
      const isOver = yield* adopt
      learn(yield* slots.state.get)
      const isVain = isRejected(of) && isSpent(operation)
      if (!isOver && !isVain) {
        if (won !== undefined) return won
        continue
      }
      if (won !== undefined) yield* unclaim
      return isOver ? undefined : yield* elsewhere(operation)
    }
  })

  /** Lets others have a try, with the same key. */
  const release = Effect.flatMap(
    slots.claim.get,
    (found) => isMine(found) ? slots.claim.set({ ...found, until: 0 }) : Effect.void
  ).pipe(
    Effect.catch(notKept("a claim was not given back")),
    Effect.uninterruptible
  )

  const settle = Effect.fnUntraced(function*(
    operation: Operation,
    of: string,
    began: number,
    result: Result.Result<Token, Failure>
  ): Effect.fn.Return<Token, Failure> {
    if (epoch !== began || currentIdentity() !== of) {
      // Deleted or replaced meanwhile: what there is now counts.
      yield* Effect.ignore(unclaim)
      return held === undefined ? yield* missing(operation) : held.token
    }
    if (Result.isSuccess(result)) {
      const token = lasting(result.success)
      // Read afresh before it is written: what another process has deleted meanwhile stays deleted.
      if (
        kept && held !== undefined && (yield* Effect.orElseSucceed(slots.token.get, () => "unreadable")) === undefined
      ) {
        kept = false
        hold(undefined)
        return yield* missing(operation)
      }
      if (!isRejected(identify(token))) {
        // Ahead of its expiry it is not an answer to a rejection: that token may be refreshed when it comes to one.
        const next = isRejected(of)
          ? (identity: string): Episode => ({ ...episodeOf(of), of: identity, [operation]: true })
          : undefined
        // A claim stays where its token does not: the next process makes the same call again.
        yield* Effect.catch(Effect.andThen(keep(token, next), unclaim), notKept("a new token was not kept"))
        const until = token.expiresAt === undefined ? "" : `, until ${formatTime(token.expiresAt)}`
        yield* annotated(
          operation === "refresh"
            ? Effect.logDebug(`the token was refreshed${until}`)
            : Effect.logInfo(`revived: there is a new token${until}`)
        )
        return token
      }
    }
    const error = Result.isSuccess(result)
      ? Classify.unauthorized({
        operation,
        target: name,
        detail: "the server gave a token again that was rejected before"
      })
      : result.failure
    if (error._tag === "Transient") {
      yield* release
      yield* warn(`${error.message}`)
      return yield* error
    }
    yield* warn(error.message)
    if (isLeaseLost(error)) {
      yield* Effect.catch(forget, notKept("a token was not deleted"))
      return yield* error
    }
    const known = episodeOf(of)
    known[operation] = true
    known.steps.push({ tried: operation, error })
    yield* keepState
    yield* Effect.catch(unclaim, notKept("a claim was not removed"))
    return yield* error
  })

  const run = Effect.fnUntraced(function*(operation: Operation): Effect.fn.Return<Token, Failure> {
    const began = epoch
    const ready = yield* Effect.result(Effect.gen(function*() {
      const before = currentIdentity()
      if (yield* adopt) return undefined
      learn(yield* slots.state.get)
      if (before === undefined) return undefined
      if (isRejected(before) && isSpent(operation)) return yield* elsewhere(operation)
      const idempotencyKey = yield* claim(operation, before)
      return idempotencyKey === undefined ? undefined : { idempotencyKey, of: before }
    }))
    if (Result.isFailure(ready)) {
      const error = ready.failure
      if (error._tag !== "KeyValueStoreError") return yield* error
      // Without its key in the store a crash would make it twice.
      const transient = unreachable(operation, `the store failed: ${error.message}`)
      yield* warn(transient.message)
      return yield* transient
    }
    const { refresh, revive } = options
    const token = held?.token
    if (ready.success === undefined) return token ?? (yield* missing(operation))
    const { idempotencyKey, of } = ready.success
    // A provider may throw before there is an effect.
    const provider = Effect.suspend((): Effect.Effect<Token, Failure, R> => {
      if (operation === "revival") return revive?.({ ...byProof, token, idempotencyKey }) ?? missing(operation)
      return token === undefined
        ? missing(operation)
        : refresh?.({ ...byLadder, token, isRejected: isRejected(of), idempotencyKey }) ?? missing(operation)
    })
    const result = yield* Effect.onInterrupt(Effect.result(callProvider(operation, provider)), () => release)
    return yield* settle(operation, of, began, result)
  })

  /** Who waits gets an error of the algebra, whatever happened. */
  const answerOf = (operation: Operation, exit: Exit.Exit<Token, Failure>): Exit.Exit<Token, Failure> => {
    if (Exit.isSuccess(exit)) return exit
    if (Cause.hasInterruptsOnly(exit.cause)) return Exit.fail(unreachable(operation, "the credential was closed"))
    const error = Cause.findError(exit.cause)
    return Exit.fail(Result.isSuccess(error) ? error.success : unexpected(operation, error.failure))
  }

  /** Waits for what is in flight, or for one of its own. */
  const join = (operation: Operation): Effect.Effect<Token, Failure> =>
    Effect.suspend(() => {
      const there = flight
      if (there !== undefined) {
        return there.operation === operation
          ? Deferred.await(there.result)
          : Effect.flatMap(Effect.exit(Deferred.await(there.result)), () => join(operation))
      }
      if (!isPossible(operation)) return Effect.fail(missing(operation))
      const result = Deferred.makeUnsafe<Token, Failure>()
      flight = { operation, result }
      flights = Effect.runForkWith(context)(
        Effect.onExit(Effect.suspend(() => run(operation)), (exit) =>
          Effect.sync(() => {
            flight = undefined
            Deferred.doneUnsafe(result, answerOf(operation, exit))
          }))
      )
      return Deferred.await(result)
    })

  // -------------------------------------------------------------------------------------------------------------------
  // The schedule
  // -------------------------------------------------------------------------------------------------------------------

  /** When the token is to be refreshed, in milliseconds since 1970; `Infinity`: not ahead of its time. */
  const dueAt = (): number => {
    if (held === undefined || !isPossible("refresh") || refused === held.identity || isRejected(held.identity)) {
      return Infinity
    }
    const { acceptedAt, token: { expiresAt = Infinity } } = held
    return expiresAt === Infinity
      ? Infinity
      : expiresAt - Math.min(leadTime, Math.max(0, expiresAt - acceptedAt) * leadPart)
  }

  const schedule = Effect.gen(function*() {
    let backoff = Backoff.initial
    while (true) {
      const woken = changed
      const now = yield* Clock.currentTimeMillis
      // Up to a whole millisecond: a clock with fractions may be a rounding short of the time, and then no sleep is long enough.
      const wait = dueAt() - now
      if (wait > 0) {
        backoff = Backoff.initial
        yield* wait === Infinity
          ? Deferred.await(woken)
          : Effect.raceFirst(Deferred.await(woken), Effect.sleep(Math.min(Math.ceil(wait), longestSleep)))
        continue
      }
      const result = yield* Effect.result(join("refresh"))
      const after = yield* Clock.currentTimeMillis
      if (Result.isFailure(result) && result.failure._tag !== "Transient") refused = held?.identity
      // A token that is due as soon as it comes is no reason to hurry.
      if (dueAt() > after) continue
      const hint = Result.isFailure(result) && result.failure._tag === "Transient"
        ? retryAfter(result.failure)
        : undefined
      backoff = Backoff.step(policy, backoff, {
        now: after,
        random: yield* Random.next,
        hint: hint && Duration.toMillis(hint)
      }) ?? Backoff.initial
      yield* Effect.raceFirst(Deferred.await(changed), Effect.sleep(Math.max(1, backoff.wait)))
    }
  })

  // -------------------------------------------------------------------------------------------------------------------
  // The operator
  // -------------------------------------------------------------------------------------------------------------------

  const final = (): AuthFailed => {
    const of = currentIdentity()
    return (episode !== undefined && episode.of === of ? fatal(episode.steps) : undefined) ??
      Classify.unauthorized({
        operation: "authorize",
        target: name,
        detail: "it was rejected before, and nothing more can be done with it; provide a new credential"
      })
  }

  /** Sees to it that there is something to send, or says why there is not. */
  const mend: Effect.Effect<void, Transient | AuthFailed | Gone> = Effect.gen(function*() {
    if (fresh) {
      fresh = false
      // A process that is started now and then has no time for schedules: what is due is done before its first request.
      if (dueAt() <= (yield* Clock.currentTimeMillis)) yield* Effect.exit(join("refresh"))
    }
    if (currentIdentity() === undefined) yield* Effect.ignore(adopt)
    while (isRejected(currentIdentity())) {
      const operation = isPossible("refresh") && !isSpent("refresh")
        ? "refresh"
        : isPossible("revival") && !isSpent("revival")
        ? "revival"
        : undefined
      if (operation === undefined) {
        const of = currentIdentity()
        // Without a way to revive, the request itself may be the one that does, with the proof alone.
        if (of === undefined || of === keyIdentity || keyIdentity === undefined || isSpent("revival")) {
          return yield* final()
        }
        episodeOf(of).revival = true
        yield* keepState
        return
      }
      const steps = episode?.steps ?? []
      const result = yield* Effect.result(join(operation))
      // What came of it is looked at by the loop: others may have been faster.
      if (Result.isSuccess(result)) continue
      const error = result.failure
      if (error._tag === "Transient") return yield* error
      if (isLeaseLost(error)) return yield* Effect.fail(new Gone(error, steps))
    }
  })

  const succeeded = (presented: Presented | undefined): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (episode === undefined) return Effect.void
      if (presented?._tag === "Token" && identify(presented.token) !== currentIdentity()) return Effect.void
      // The proof alone will do: the rejected token has had its day.
      if (presented?._tag === "Proof" && held !== undefined && isRejected(held.identity)) {
        return Effect.catch(forget, notKept("a rejected token was not deleted"))
      }
      ended = episode.of
      episode = undefined
      return keepState
    })

  const failed = (presented: Presented | undefined, error: AuthFailed): Effect.Effect<void> =>
    Effect.suspend(() => {
      const identity = presented?._tag === "Token" ? identify(presented.token) : currentIdentity()
      if (identity === undefined) return Effect.void
      if (identity === currentIdentity() && (presented?._tag === "Proof" || !isRejected(identity))) {
        episodeOf(identity).steps.push({ tried: "request", error })
      }
      return rejectIdentity(identity)
    })

  const guarded = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    sends = 1
  ): Effect.Effect<A, E | Transient | AuthFailed | Gone, R> =>
    Effect.flatMap(mend, () =>
      Effect.flatMap(CurrentTracking, (outer) => {
        const token = held?.token
        const before: Presented | undefined = token && { _tag: "Token", token, stale: false }
        const tracking: Tracking = { of: self, last: undefined, outer }
        const presented = (): Presented | undefined => tracking.last ?? before
        return Effect.matchEffect(Effect.provideService(effect, CurrentTracking, tracking), {
          onSuccess: (value) => Effect.as(succeeded(presented()), value),
          onFailure: (error): Effect.Effect<A, E | Transient | AuthFailed | Gone, R> =>
            isRejection(error) && currentIdentity() !== undefined
              ? Effect.flatMap(
                failed(presented(), error),
                () => sends < mostSends ? guarded(effect, sends + 1) : Effect.fail(error)
              )
              : Effect.fail(error)
        })
      }))

  /** A connection that ended for its credential is made again, with another one if there is one. */
  const renewed = ({ operation, target }: AuthFailed): Transient =>
    Classify.unavailable({
      operation,
      target,
      status: 401,
      detail: "the credential was rejected while the connection was open, and is to be renewed"
    })

  const watch = <A, E, R>(stream: Stream.Stream<A, E, R>): Effect.Effect<Stream.Stream<A, E | Transient, R>> =>
    Effect.map(CurrentTracking, (tracking) => {
      let own = tracking
      while (own !== undefined && own.of !== self) own = own.outer
      const token = held?.token
      const presented = own?.last ?? (token && { _tag: "Token", token, stale: false })
      const end = (error: E): Effect.Effect<never, E | Transient> =>
        isRejection(error)
          ? Effect.andThen(failed(presented, error), Effect.fail(renewed(error)))
          : Effect.fail(error)
      return Stream.catch(stream, (error) => Stream.fromEffect(end(error)))
    })

  // -------------------------------------------------------------------------------------------------------------------
  // The beginning
  // -------------------------------------------------------------------------------------------------------------------

  const record = yield* slots.token.get
  const state = yield* slots.state.get
  if (record === "unreadable" || state === "unreadable") {
    yield* warn(
      `what is kept under ${name} cannot be read, starting afresh: it is damaged, of another version or of another cipher`
    )
  }
  const isSeeded = options.token !== undefined &&
    (record === undefined || record === "unreadable" || record.seed !== seed)
  if (record !== undefined && record !== "unreadable") {
    kept = true
    held = ofRecord(record)
  }
  learn(state)
  if (isSeeded) yield* Effect.catch(keep(options.token), notKept("the token was not kept"))

  yield* Effect.addFinalizer(() => flights === undefined ? Effect.void : Fiber.interrupt(flights))
  if (options.refresh !== undefined) yield* Effect.forkScoped(schedule)

  return {
    ...byLadder,
    provenance,
    token: Effect.sync(() => held?.token),
    isRejected: (token) => Effect.sync(() => isRejected(identify(token))),
    accept: (token) => keep(token),
    reject: (token) => Effect.suspend(() => rejectIdentity(identify(token))),
    clear: drop(slots.state.remove),
    refresh: Effect.catchTag(
      join("refresh"),
      "LeaseLost",
      (error) => Effect.fail(missing("refresh", error))
    ),
    revive: join("revival"),
    guard: (effect) =>
      Effect.catch(guarded(effect), (error) => Effect.fail(error instanceof Gone ? error.error : error)),
    discharge: (effect) =>
      Effect.catch(guarded(effect), (error) =>
        Effect.fail(
          error instanceof Gone
            ? fatal(error.steps) ??
              Classify.credentialExpired({ operation: "revival", target: name, cause: error.error })
            : error
        )),
    watch,
    changes: Stream.fromPubSub(changes)
  }
})
