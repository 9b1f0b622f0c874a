/**
 * The adapter for ClosedLoop servers, whose loops are leases: status, token refresh and heartbeat, in their wire
 * format. Their loops are made by the server, so there is nothing to register: `Recovery` takes up the loops that a
 * program holds ({@link makeLeaseApi}), and `Credential` keeps their tokens.
 *
 * | call | on the wire | answer |
 * |---|---|---|
 * | status | `GET /loops/{id}` | `status`: `RUNNING`, `TIMED_OUT`, ... |
 * | refresh | `POST /loops/{id}/refresh-token`, `Idempotency-Key` | `token`, `expiresAt`, `jti` |
 * | heartbeat | `POST /loops/{id}/heartbeat` | `bumped`; with `revived: true` also `token`, `expiresAt`, `jti` |
 *
 * An answer is `{ success: true, data }`, a failure `{ success: false, error, code }`. Ids are percent-encoded once:
 * that path is sent, and that path is signed, byte for byte. Requests with a token carry it as `Authorization: Bearer`;
 * those that prove possession carry the managed API key there ({@link proof}), and both carry the three headers of
 * `Proof.closedLoop`.
 *
 * What is particular to these servers, and how it is taken here:
 * - A heartbeat answers 410 for everything that is not accepted: a loop that ended, a credential that was refused, a
 *   revival that was refused. It ends the lease in each case, so a credential is tried out by the status and the
 *   refresh before.
 * - 403 is also the answer for a loop that is not there or does not run yet: taken as live, with a warning.
 * - A heartbeat sooner than 4.5 minutes after the last one is taken, and not counted (`bumped: false`).
 * - A refresh that lost a race (409 with `RACE_LOST`) is tried again later.
 * - A loop that timed out refuses its token, and says so to who asks with the managed key. That counts as a 401 too, so
 *   that what slept through its lease is revived.
 * - Loops that completed, failed or were cancelled have no word of their own in the table of leases: taken as live,
 *   with a warning.
 *
 * The facts are those of the repository `closedloop-ai/closedloop-ai`, `apps/api/app/loops`, `apps/api/lib/auth` and
 * `apps/desktop/src/main`. What is assumed: the status takes the token of a loop and the managed key, as the desktop
 * client and the API's authentication suggest; an answer without its envelope, as that client reads it, means the same;
 * where the API is mounted below a path, servers verify the path as they receive it.
 *
 * **Example** (Loops of earlier runs)
 *
 * ```ts
 * import * as KeyStore from "effect-lifeline/KeyStore"
 * import * as ProcessAlive from "effect-lifeline/node/ProcessAlive"
 * import * as Recovery from "effect-lifeline/Recovery"
 * import * as ClosedLoop from "effect-lifeline/registry/ClosedLoop"
 * import * as Effect from "effect/Effect"
 * import type * as Redacted from "effect/Redacted"
 *
 * declare const apiKey: Redacted.Redacted
 *
 * export const program = Effect.gen(function*() {
 *   const key = yield* KeyStore.getOrGenerate("gateway", { algorithm: "EdDSA" })
 *   return yield* Recovery.reconcile({
 *     api: yield* ClosedLoop.makeLeaseApi({ url: "https://closedloop.example" }),
 *     proof: yield* ClosedLoop.proof({ key, gatewayId: "gateway-1", apiKey }),
 *     isAlive: ({ holder }) => ProcessAlive.isAlive(holder)
 *   })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import * as Classify from "../Classify.ts"
import * as Credential from "../Credential.ts"
import * as Client from "../internal/closedLoopClient.ts"
import { isOk } from "../internal/httpExchange.ts"
import { readUrl } from "../internal/registryUrl.ts"
import type { Refused } from "../LifelineError.ts"
import * as Proof from "../Proof.ts"
import type * as Recovery from "../Recovery.ts"
import * as Registry from "../Registry.ts"

/**
 * Where the server is, and how to talk to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Where the API is, e.g. `"https://closedloop.example"`; a path before `/loops` is fine. */
  readonly url: string
  /** How long a request may take, its whole answer included. @default 10 seconds */
  readonly requestTimeout?: Duration.Input | undefined
  /** Whether requests carry trace headers (`traceparent`, `b3`). @default false */
  readonly tracePropagation?: boolean | undefined
}

/**
 * What a gateway proves itself with.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProofOptions extends Proof.ClosedLoopOptions {
  /** The managed API key that is bound to the key pair and the gateway. Sent where no token is. */
  readonly apiKey: Redacted.Redacted
}

/**
 * What answers mean: as everywhere, but for 403.
 *
 * @category tables
 * @since 0.1.0
 */
export const statuses = { ...Classify.leaseStatuses, "403": "Unexpected" } as const satisfies Classify.LeaseTable

/** A loop that is one of these is alive; only `TIMED_OUT` says that the lease is over. */
const active: ReadonlySet<string> = /*#__PURE__*/ new Set(["PENDING", "CLAIMED", "RUNNING", "BLOCKED"])

const timedOut = "TIMED_OUT"

/** The server's limit on silence, in hours. */
const expiresAfter = /*#__PURE__*/ Duration.hours(2)

const defaultTimeout = /*#__PURE__*/ Duration.seconds(10)

/**
 * `Proof.closedLoop` with the managed API key as the bearer of requests without a token, as the servers want it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const proof = ({ apiKey, ...options }: ProofOptions): Effect.Effect<Proof.Proof["Service"], Refused> =>
  Effect.map(Proof.closedLoop(options), (signer) => ({
    ...signer,
    headers: (request) => signer.headers({ ...request, token: request.token ?? apiKey })
  }))

/**
 * {@link proof} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProof = (options: ProofOptions): Layer.Layer<Proof.Proof, Refused> =>
  Layer.effect(Proof.Proof, proof(options))

const connect = (options: Options): Effect.Effect<Client.Send, Refused, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    const url = yield* readUrl(options.url.trim())
    return Client.make(yield* HttpClient.HttpClient, {
      url,
      timeout: Duration.fromInputUnsafe(options.requestTimeout ?? defaultTimeout),
      tracePropagation: options.tracePropagation ?? false
    })
  })

const retryAfter = ({ at, headers }: Client.Got): Duration.Duration | undefined =>
  Classify.retryAfter(headers["retry-after"], at.now)

const isRaceLost = (got: Client.Got): boolean => got.status === 409 && Client.codeOf(got) === "RACE_LOST"

/**
 * The calls about loops, for `Recovery`. Fails with `Refused` (`InvalidRequest`) where `url` is not an absolute http or
 * https URL, or holds a user name, a password, a query or a fragment. Sends nothing yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeLeaseApi = (
  options: Options
): Effect.Effect<Recovery.LeaseApi, Refused, HttpClient.HttpClient> =>
  Effect.map(connect(options), (send) => ({
    table: statuses,
    status: Effect.fnUntraced(function*({ id }, authorizer) {
      const got = yield* send({ operation: "status", method: "GET", id, path: "", authorizer })
      if (!isOk(got.status)) return { status: got.status, retryAfter: retryAfter(got) }
      const { status } = yield* Client.readLoop(got)
      // Who asks with its key sees what the token would have been refused for: whether it can be revived is the
      // heartbeat's to say.
      if (status === timedOut && (yield* authorizer.select)._tag === "Proof") return { status: 401 }
      return {
        status: got.status,
        says: status === timedOut ? "timed_out" as const : active.has(status) ? "active" as const : undefined
      }
    }),
    refresh: Effect.fnUntraced(function*({ id }, context) {
      const { idempotencyKey } = context
      const got = yield* send({
        operation: "refresh",
        method: "POST",
        id,
        path: "/refresh-token",
        authorizer: context,
        idempotencyKey
      })
      if (isOk(got.status)) return yield* Client.readToken(got)
      return yield* isRaceLost(got)
        ? Classify.unavailable({ ...got.at, status: got.status, detail: "RACE_LOST" })
        : Client.errorOf(Classify.http, got)
    }),
    heartbeat: Effect.fnUntraced(function*({ id }, authorizer) {
      const got = yield* send({ operation: "heartbeat", method: "POST", id, path: "/heartbeat", authorizer })
      return isOk(got.status)
        ? { status: got.status, token: yield* Client.readBeat(got) }
        : { status: got.status, retryAfter: retryAfter(got) }
    })
  }))

const unsupported = (operation: string, detail: string) => () =>
  Effect.failSync(() => Classify.unsupported({ operation, target: "closedloop", detail }))

/**
 * The port for one loop whose credential is provided: heartbeats, which keep the token of a revival, and the truth
 * check. Registering and deregistering fail with `Refused` (`Unsupported`). Fails as {@link makeLeaseApi} does.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<Registry.Registry["Service"], Refused, HttpClient.HttpClient | Credential.Credential> =>
  Effect.gen(function*() {
    const send = yield* connect(options)
    const credential = yield* Credential.Credential
    return Registry.Registry.of({
      capabilities: {
        adapter: "closedloop",
        target: options.url.trim().replace(/\/+$/, ""),
        enabled: true,
        heartbeatDetectsLoss: true,
        expiresAfter,
        deadline: Duration.fromInputUnsafe(options.requestTimeout ?? defaultTimeout),
        onClose: "leave",
        browser: "no"
      },
      credential: Credential.info(credential),
      register: unsupported("register", "the server makes loops"),
      heartbeat: Effect.fnUntraced(function*({ id }) {
        const got = yield* send({
          operation: "heartbeat",
          method: "POST",
          id,
          path: "/heartbeat",
          authorizer: credential
        })
        if (!isOk(got.status)) return yield* Client.errorOf(Classify.httpLease, got)
        const token = yield* Client.readBeat(got)
        if (token === undefined) return
        yield* Effect.catch(
          credential.accept(token),
          (error) => Effect.logWarning(`a revived token counts in this process only: ${error.message}`)
        )
      }),
      verify: Effect.fnUntraced(function*({ id }) {
        const got = yield* send({ operation: "verify", method: "GET", id, path: "", authorizer: credential })
        if (!isOk(got.status)) return yield* Client.errorOf(Classify.httpLease, got)
        const { status } = yield* Client.readLoop(got)
        if (!active.has(status)) return yield* Classify.leaseExpired(got.at)
      }),
      deregister: unsupported("deregister", "a loop ends by its own events")
    })
  })

/**
 * {@link make} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options
): Layer.Layer<Registry.Registry, Refused, HttpClient.HttpClient | Credential.Credential> =>
  Layer.effect(Registry.Registry, make(options))
