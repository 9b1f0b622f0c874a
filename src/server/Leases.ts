/**
 * Leases of the embedded registry, without HTTP: a service that registered with a key has a short-lived token that is bound to
 * it, comes back by that key when it slept through its lease, and cannot be taken over by who has not got the key.
 *
 * ```text
 *                      heartbeat, refresh                  a heartbeat with a proof:
 *                          .----.                          at most so often, and so late
 *   registered with a key  |    v     not beaten           .----------------------.
 *   --------------------> active ------------------> timed out ------------------'
 *                          ^  |                          |  |
 *                          '--+--- registered again -----+--' by the same key, or, once it has timed out, by any
 *                             v                          v
 *                           ended: deregistered, or replaced by a registration without a key
 * ```
 *
 * - A token is opaque: its `jti`, signed for the key that the lease is bound to. The store has no tokens but the secret that
 *   signs them, so an answer can be given a second time, and what is in the store is worth nothing without the key.
 * - Of a lease the newest four tokens are good, each until it expires: who shares a key, or lost an answer, is not locked out.
 *   When the lease times out all are revoked.
 * - Every change is stored before it is answered. Heartbeats are not: after a restart, staleness counts from the restart.
 * - While a lease is active, a registration of the same name and type with another key, or with none, is refused
 *   (`lease_held`); deregistering is not, as it is what an operator does with the API key.
 * - That a proof is right is for the caller to say (`Proof.verify`): what is taken here is the thumbprint that it found.
 *
 * Each revival, and each lease that times out or ends, is told as an event (`lease_revived`, `lease_timed_out`, `lease_ended`)
 * and in the log, with the thumbprint and the `jti`, which are no secrets.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as WireLease from "../internal/pulseWireLease.ts"
import * as Catalog from "./Catalog.ts"
import * as Events from "./Events.ts"
import * as Tokens from "./internal/leaseTokens.ts"
import * as KeyedLock from "./internal/lock.ts"
import { write } from "./internal/write.ts"
import * as Store from "./Store.ts"

/**
 * How long things last. All have a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** How long a token is good. @default "1 hour" */
  readonly tokenLifetime?: Duration.Input | undefined
  /** A lease that is not beaten for so long times out. @default "2 hours", as in the reference */
  readonly staleAfter?: Duration.Input | undefined
  /** How often a heartbeat is enough, as clients are told. @default "30 minutes", as in the reference */
  readonly interval?: Duration.Input | undefined
  /** How long after it timed out a lease can be revived; ended ones are remembered as long. @default "7 days" */
  readonly grace?: Duration.Input | undefined
  /** How often a lease can be revived. @default 3 */
  readonly revivals?: number | undefined
  /** How often leases are looked at. @default "1 minute" */
  readonly reapEvery?: Duration.Input | undefined
}

/**
 * A token, and what is known of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Token {
  readonly value: Redacted.Redacted
  /** `<id of the service>.<random>`: no secret. */
  readonly jti: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

/**
 * What a request showed: a proof, by its key, and perhaps a token with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Presented {
  /** Of the key that the proof was made with. */
  readonly thumbprint: string
  readonly token?: Redacted.Redacted | undefined
  /** The same again has the same answer, as long as the token in it is good. */
  readonly idempotencyKey?: string | undefined
}

/**
 * What a registration comes to: with a token where it came with a key.
 *
 * @category models
 * @since 0.1.0
 */
export interface Registered {
  readonly service: Store.Service
  readonly token?: Token | undefined
}

/**
 * Why a revival is refused: it was not for staleness that the lease timed out, it did so too long ago, or it was revived too
 * often.
 *
 * @category errors
 * @since 0.1.0
 */
export type RefusalReason = WireLease.RefusalReason

/**
 * What was asked for is refused. `code` is what the HTTP answer says:
 *
 * | code | what it means |
 * |---|---|
 * | `lease_unknown` | there is no such lease |
 * | `lease_gone` | it has ended: its service was removed, or replaced by one without a lease |
 * | `lease_held` | another key holds this name and type |
 * | `lease_timed_out` | it has timed out; a heartbeat with a proof may revive it |
 * | `token_rejected` | the token is not of this lease and key, was revoked, or has expired |
 * | `revival_refused` | it has timed out, and stays so; `reason` says why |
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseRefused extends Data.TaggedError("LeaseRefused")<{
  readonly code:
    | "lease_unknown"
    | "lease_gone"
    | "lease_held"
    | "lease_timed_out"
    | "token_rejected"
    | "revival_refused"
  readonly reason?: RefusalReason | undefined
}> {
  override get message() {
    return words[this.reason ?? this.code]
  }
}

const words: { readonly [K in LeaseRefused["code"] | RefusalReason]: string } = {
  lease_unknown: "There is no lease with this id: register again.",
  lease_gone: "The lease has ended: register again.",
  lease_held:
    "A lease that is bound to another key holds this name and type. It is free when that one times out or is " +
    "deregistered.",
  lease_timed_out: "The lease timed out. A heartbeat with a proof of its key may revive it.",
  token_rejected: "The token is not good for this lease: it was revoked, has expired, or is another one's.",
  revival_refused: "The lease timed out, and is not revived: register again.",
  not_stale: "The lease was timed out by an operator, and is not revived: register again.",
  grace_over: "The lease timed out too long ago to be revived: register again.",
  too_many_revivals: "The lease was revived too often: register again."
}

/**
 * Leases, and what may be done with them.
 *
 * @category services
 * @since 0.1.0
 */
export class Leases extends Context.Service<Leases, {
  readonly staleAfter: Duration.Duration
  readonly interval: Duration.Duration
  /** With `lastBeat` as it is now. `undefined`: no such lease. */
  readonly get: (id: string) => Effect.Effect<Store.Lease | undefined>
  /** Registers the service, with a lease where there is a key. When it returns, the store has both. */
  readonly register: (
    registration: Catalog.Registration,
    thumbprint?: string | undefined
  ) => Effect.Effect<Registered, LeaseRefused | Store.StoreError>
  /** A token: it was revived. */
  readonly heartbeat: (
    id: string,
    presented: Presented
  ) => Effect.Effect<Token | undefined, LeaseRefused | Store.StoreError>
  /** A new token for a lease that is active; the proof is enough. */
  readonly refresh: (id: string, presented: Presented) => Effect.Effect<Token, LeaseRefused | Store.StoreError>
  /** The lease, for who holds its key and shows no token that is not good. One that can be revived is `lease_timed_out`. */
  readonly status: (id: string, presented: Presented) => Effect.Effect<Store.Lease, LeaseRefused>
  /** Removes the service, and ends its lease. `false`: no such service. */
  readonly deregister: (id: string) => Effect.Effect<boolean, Store.StoreError>
  /** Times a lease out for good, as an operator. `false`: there is none that is active. */
  readonly timeOut: (id: string) => Effect.Effect<boolean, Store.StoreError>
  /** Times out what is stale, and forgets what ended long ago. A failure to store that is logged, and tried again next time. */
  readonly reap: Effect.Effect<void>
}>()("effect-lifeline/server/Leases") {}

/** How many tokens of one lease are good at a time, and how many answers are remembered. */
const mostTokens = 4

/** How many leases are reaped at the same time. */
const reapConcurrency = 8

const identityOf = (service: { readonly name: string; readonly type: string }): string =>
  JSON.stringify([service.type, service.name])

const refuse = (code: LeaseRefused["code"], reason?: RefusalReason): Effect.Effect<never, LeaseRefused> =>
  Effect.fail(new LeaseRefused({ code, reason }))

/**
 * Loads the store and makes the leases. Nothing is reaped by itself: {@link layer} does that.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options?: Options
) => Effect.Effect<
  Leases["Service"],
  Store.StoreError,
  Catalog.Catalog | Store.Store | Events.Events | SecureRandom.SecureRandom
> = Effect.fnUntraced(function*(options?: Options) {
  const catalog = yield* Catalog.Catalog
  const events = yield* Events.Events
  const { load, remove, save } = yield* Store.Store
  const random = yield* SecureRandom.SecureRandom
  const startedAt = yield* Clock.currentTimeMillis
  const lock = KeyedLock.make()
  const millis = (input: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(input))
  const lifetime = millis(options?.tokenLifetime ?? "1 hour")
  const staleAfter = millis(options?.staleAfter ?? "2 hours")
  const grace = millis(options?.grace ?? "7 days")
  const mostRevivals = options?.revivals ?? 3

  const leases = new Map<string, Store.Lease>()
  /** By identity: the newest lease, whatever its state. */
  const ids = new Map<string, string>()
  const beats = new Map<string, number>()

  const put = (lease: Store.Lease): void => {
    leases.set(lease.id, lease)
    ids.set(identityOf(lease), lease.id)
  }

  const lastBeat = (lease: Store.Lease): number => beats.get(lease.id) ?? lease.lastBeat

  const current = (lease: Store.Lease): Store.Lease => ({ ...lease, lastBeat: lastBeat(lease) })

  /** Within the lock of the lease. */
  const commit = Effect.fnUntraced(function*(next: Omit<Store.Lease, "revision" | "_tag">) {
    const lease: Store.Lease = {
      ...next,
      _tag: "Lease",
      revision: (leases.get(next.id)?.revision ?? 0) + 1
    }
    yield* write("save", lease, save(lease))
    put(lease)
    return lease
  })

  const tell = (
    type: "lease_revived" | "lease_timed_out" | "lease_ended",
    text: string,
    lease: Store.Lease,
    details: { readonly [key: string]: string | number } = {}
  ): Effect.Effect<void> => {
    const data = { name: lease.name, type: lease.type, thumbprint: lease.thumbprint, ...details }
    return Effect.andThen(
      events.publish({ type, serviceId: lease.id, data }),
      Effect.logInfo(`The lease of service ${lease.name} (${lease.type}) ${text}`).pipe(
        Effect.annotateLogs({ lease: lease.id, thumbprint: lease.thumbprint, ...details })
      )
    )
  }

  const changed = <A, E>(id: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.uninterruptible(effect).pipe(lock(id))

  // -------------------------------------------------------------------------------------------------------------------
  // Tokens
  // -------------------------------------------------------------------------------------------------------------------

  const documents = yield* load
  let secret = documents.find((document) => document._tag === "LeaseSecret")?.secret
  if (secret === undefined) {
    secret = Redacted.make(Base64Url.encode(yield* random.randomBytes(Tokens.secretSize)))
    yield* save({ _tag: "LeaseSecret", id: "shared", secret })
  }
  const tokens = yield* Tokens.make(secret)

  const mint = Effect.fnUntraced(function*(id: string, thumbprint: string, now: number) {
    const jti = yield* tokens.newId(id)
    return { jti, expiresAt: now + lifetime, value: yield* tokens.make(jti, thumbprint) }
  })

  const goodTokens = (lease: Store.Lease, now: number) => lease.tokens.filter((token) => token.expiresAt > now)

  /** The token that was given for this key before, if it is still good. */
  const answered = Effect.fnUntraced(function*(
    lease: Store.Lease,
    operation: "refresh" | "revival",
    { idempotencyKey }: Presented,
    now: number
  ) {
    const answer = idempotencyKey === undefined
      ? undefined
      : lease.answers.find((answer) => answer.operation === operation && answer.key === idempotencyKey)
    const token = answer && goodTokens(lease, now).find(({ jti }) => jti === answer.jti)
    if (token === undefined) return undefined
    return { ...token, value: yield* tokens.make(token.jti, lease.thumbprint) }
  })

  /** A lease with one more token, and the answer that it was. */
  const withToken = (
    lease: Store.Lease,
    { expiresAt, jti }: Token,
    operation: "refresh" | "revival",
    { idempotencyKey }: Presented,
    now: number
  ): Store.Lease => {
    const kept = [...goodTokens(lease, now), { jti, expiresAt }].slice(-mostTokens)
    const answer = idempotencyKey === undefined ? [] : [{ operation, key: idempotencyKey, jti }]
    return {
      ...lease,
      tokens: kept,
      answers: [...lease.answers, ...answer].filter((it) => kept.some((token) => token.jti === it.jti))
    }
  }

  // -------------------------------------------------------------------------------------------------------------------
  // What may be done with a lease
  // -------------------------------------------------------------------------------------------------------------------

  const find = (id: string, { thumbprint }: Presented): Effect.Effect<Store.Lease, LeaseRefused> =>
    Effect.suspend(() => {
      const lease = leases.get(id)
      if (lease === undefined) return refuse("lease_unknown")
      if (lease.thumbprint !== thumbprint) return refuse("token_rejected")
      return lease.state === "ended" ? refuse("lease_gone") : Effect.succeed(lease)
    })

  /** The `jti` of the token that was shown; one that was never this lease's and this key's is refused. */
  const shown = (id: string, { thumbprint, token }: Presented): Effect.Effect<string | undefined, LeaseRefused> =>
    token === undefined
      ? Effect.succeed(undefined)
      : Effect.flatMap(
        tokens.read(token, id, thumbprint),
        (jti) => jti === undefined ? refuse("token_rejected") : Effect.succeed(jti)
      )

  const isGood = (lease: Store.Lease, jti: string | undefined, now: number): boolean =>
    jti === undefined || goodTokens(lease, now).some((token) => token.jti === jti)

  const end = Effect.fnUntraced(function*(lease: Store.Lease, reason: "deregistered" | "replaced") {
    const since = yield* Clock.currentTimeMillis
    const ended = yield* commit({ ...current(lease), state: "ended", reason, since, tokens: [], answers: [] })
    yield* tell("lease_ended", `ended: ${reason}`, ended, { reason })
  })

  const why = (lease: Store.Lease, now: number): RefusalReason | undefined =>
    lease.reason !== "stale"
      ? "not_stale"
      : now - lease.since > grace
      ? "grace_over"
      : lease.revivals >= mostRevivals
      ? "too_many_revivals"
      : undefined

  const revive = Effect.fnUntraced(function*(
    lease: Store.Lease,
    presented: Presented
  ): Effect.fn.Return<Token | undefined, LeaseRefused | Store.StoreError> {
    const now = yield* Clock.currentTimeMillis
    const reason = why(lease, now)
    if (reason !== undefined) return yield* refuse("revival_refused", reason)
    const token = yield* mint(lease.id, lease.thumbprint, now)
    const isFirst = yield* changed(
      lease.id,
      Effect.gen(function*() {
        if (leases.get(lease.id)?.revision !== lease.revision) return false
        const next = withToken(lease, token, "revival", presented, now)
        const { reason: _, ...revived } = { ...next, revivals: lease.revivals + 1 }
        const after = yield* commit({ ...revived, state: "active", since: now, lastBeat: now })
        beats.set(lease.id, now)
        yield* catalog.heartbeat(lease.id)
        yield* tell("lease_revived", `was revived, for the ${after.revivals}. time`, after, {
          jti: token.jti,
          revivals: after.revivals
        })
        return true
      })
    )
    // Somebody was faster: what there is now is the answer, and nothing was changed.
    return isFirst ? token : yield* heartbeat(lease.id, presented)
  })

  const heartbeat: Leases["Service"]["heartbeat"] = Effect.fnUntraced(function*(id, presented) {
    yield* find(id, presented)
    const jti = yield* shown(id, presented)
    const stale = yield* changed(
      id,
      Effect.gen(function*() {
        const lease = yield* find(id, presented)
        if ((yield* catalog.get(id)) === undefined) {
          yield* end(lease, "deregistered")
          return yield* refuse("lease_gone")
        }
        if (lease.state === "timed_out") return lease
        const now = yield* Clock.currentTimeMillis
        if (!isGood(lease, jti, now)) return yield* refuse("token_rejected")
        beats.set(id, now)
        yield* catalog.heartbeat(id)
        return undefined
      })
    )
    if (stale !== undefined) return yield* revive(stale, presented)
    return yield* answered(
      yield* find(id, presented),
      "revival",
      presented,
      yield* Clock.currentTimeMillis
    )
  })

  const refresh: Leases["Service"]["refresh"] = Effect.fnUntraced(function*(id, presented) {
    yield* find(id, presented)
    yield* shown(id, presented)
    return yield* changed(
      id,
      Effect.gen(function*() {
        const lease = yield* find(id, presented)
        if (lease.state === "timed_out") return yield* refuse("lease_timed_out")
        const now = yield* Clock.currentTimeMillis
        const again = yield* answered(lease, "refresh", presented, now)
        if (again !== undefined) return again
        const token = yield* mint(id, lease.thumbprint, now)
        yield* commit(withToken(current(lease), token, "refresh", presented, now))
        return token
      })
    )
  })

  const status: Leases["Service"]["status"] = Effect.fnUntraced(function*(id, presented) {
    yield* find(id, presented)
    const jti = yield* shown(id, presented)
    const now = yield* Clock.currentTimeMillis
    const lease = yield* find(id, presented)
    if (lease.state === "timed_out") {
      return why(lease, now) === undefined ? yield* refuse("lease_timed_out") : current(lease)
    }
    return isGood(lease, jti, now) ? current(lease) : yield* refuse("token_rejected")
  })

  // -------------------------------------------------------------------------------------------------------------------
  // Registrations
  // -------------------------------------------------------------------------------------------------------------------

  const ofIdentity = (identity: string): Store.Lease | undefined => leases.get(ids.get(identity) ?? "")

  const grant = Effect.fnUntraced(function*(service: Store.Service, thumbprint: string) {
    const { id, name, type } = service
    const now = yield* Clock.currentTimeMillis
    const token = yield* mint(id, thumbprint, now)
    const before = leases.get(id)
    // Who shares the key keeps the tokens that are good, and their answers.
    const kept = before?.thumbprint === thumbprint ? goodTokens(before, now).slice(1 - mostTokens) : []
    beats.set(id, now)
    yield* commit({
      id,
      name,
      type,
      thumbprint,
      state: "active",
      since: now,
      lastBeat: now,
      revivals: 0,
      tokens: [...kept, { jti: token.jti, expiresAt: token.expiresAt }],
      answers: before?.answers.filter((answer) => kept.some(({ jti }) => jti === answer.jti)) ?? []
    })
    return token
  })

  const register: Leases["Service"]["register"] = (registration, thumbprint) => {
    const identity = identityOf(registration)
    return Effect.gen(function*() {
      const lease = ofIdentity(identity)
      const isHeld = lease?.state === "active" && lease.thumbprint !== thumbprint &&
        (yield* catalog.get(lease.id)) !== undefined
      if (isHeld) return yield* refuse("lease_held")
      const service = yield* catalog.register(registration)
      if (thumbprint !== undefined) return { service, token: yield* grant(service, thumbprint).pipe(lock(service.id)) }
      if (lease?.id === service.id && lease.state === "timed_out") yield* end(lease, "replaced").pipe(lock(service.id))
      return { service }
    }).pipe(Effect.uninterruptible, lock(identity))
  }

  const deregister: Leases["Service"]["deregister"] = (id) => {
    const lease = leases.get(id)
    if (lease === undefined) return catalog.deregister(id)
    return Effect.gen(function*() {
      const isKnown = yield* catalog.deregister(id)
      const now = leases.get(id)
      // Where that cannot be stored, a lease without its service counts as ended all the same.
      if (now !== undefined && now.state !== "ended") {
        yield* Effect.ignore(end(now, "deregistered").pipe(lock(id)))
      }
      return isKnown
    }).pipe(Effect.uninterruptible, lock(identityOf(lease)))
  }

  // -------------------------------------------------------------------------------------------------------------------
  // Time
  // -------------------------------------------------------------------------------------------------------------------

  const timeOutOne = (id: string, reason: "stale" | "operator", isDue: (lease: Store.Lease) => boolean) =>
    changed(
      id,
      Effect.gen(function*() {
        const lease = leases.get(id)
        if (lease?.state !== "active" || !isDue(lease)) return false
        const since = yield* Clock.currentTimeMillis
        const after = yield* commit({
          ...current(lease),
          state: "timed_out",
          reason,
          since,
          tokens: [],
          answers: []
        })
        yield* tell("lease_timed_out", `timed out: ${reason}`, after, { reason })
        return true
      })
    )

  const reap = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const isStale = (lease: Store.Lease): boolean => now - lastBeat(lease) > staleAfter
    const stale = Array.from(leases.values()).filter((lease) => lease.state === "active" && isStale(lease))
    yield* Effect.forEach(
      stale,
      ({ id, name }) =>
        Effect.catch(
          timeOutOne(id, "stale", isStale),
          (error) => Effect.logWarning(`That the lease of service ${name} timed out is not stored yet`, error)
        ),
      { concurrency: reapConcurrency, discard: true }
    )
    const old = Array.from(leases.values()).filter((lease) => lease.state === "ended" && now - lease.since > grace)
    yield* Effect.forEach(
      old,
      ({ id }) =>
        Effect.ignore(changed(
          id,
          Effect.gen(function*() {
            const lease = leases.get(id)
            if (lease?.state !== "ended") return
            yield* write("remove", lease, remove(lease))
            leases.delete(id)
            beats.delete(id)
            if (ids.get(identityOf(lease)) === id) ids.delete(identityOf(lease))
          })
        )),
      { concurrency: reapConcurrency, discard: true }
    )
  })

  for (const document of documents) {
    if (document._tag !== "Lease") continue
    const known = ofIdentity(identityOf(document))
    leases.set(document.id, document)
    if (known === undefined || known.state === "ended") put(document)
    if (document.state === "active") beats.set(document.id, Math.max(document.lastBeat, startedAt))
  }

  return Leases.of({
    staleAfter: Duration.millis(staleAfter),
    interval: Duration.fromInputUnsafe(options?.interval ?? "30 minutes"),
    get: (id) =>
      Effect.sync(() => {
        const lease = leases.get(id)
        return lease && current(lease)
      }),
    register,
    heartbeat,
    refresh,
    status,
    deregister,
    timeOut: (id) => timeOutOne(id, "operator", () => true),
    reap
  })
})

/**
 * {@link make} as a layer, and a fiber that reaps for as long as it is there.
 *
 * **Example** (Who holds a lease)
 *
 * ```ts
 * import * as Leases from "effect-lifeline/server/Leases"
 * import * as Effect from "effect/Effect"
 *
 * export const holder = (serviceId: string) =>
 *   Leases.Leases.use((leases) => Effect.map(leases.get(serviceId), (lease) => lease?.thumbprint))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<
  Leases,
  Store.StoreError,
  Catalog.Catalog | Store.Store | Events.Events | SecureRandom.SecureRandom
> =>
  Layer.effect(
    Leases,
    Effect.tap(make(options), ({ reap }) =>
      reap.pipe(
        Effect.catchDefect((defect) => Effect.logWarning("A round over the leases failed", defect)),
        Effect.schedule(Schedule.fixed(options?.reapEvery ?? "1 minute")),
        Effect.forkScoped
      ))
  )
