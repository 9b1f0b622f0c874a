/**
 * Pulse with leases: the adapter for an embedded registry that has them on (`leases` of `effect-lifeline/server/Server`).
 *
 * It registers with a proof of possession and gets a short-lived token that is bound to the key. The token is kept as a
 * `Credential`, which refreshes it ahead of its expiry. A program that slept through its lease comes back by itself: a heartbeat
 * with the proof revives it, for as long as and as often as the registry allows. What cannot be revived is registered anew.
 *
 * | answer | what it means here |
 * |---|---|
 * | 401 over the token | one refresh, then one revival, then `AuthFailed` with all causes (`Credential.causes`) |
 * | 401 over the proof | `AuthFailed` (`ProofRejected`): nothing helps but the right key, the right URL, or the right clock |
 * | 401 over the API key | `AuthFailed` (`Forbidden`): neither refreshed nor revived; begins again when the key changes |
 * | 404, 410 | `LeaseLost`: registered anew |
 * | 409 on registering | `Refused` (`Conflict`): another key holds this name and type |
 * | 408, 425, 429, 5xx, no answer | `Transient`: the token stays |
 * | a registration without a lease, 201 | `Refused` (`Unsupported`): the registry gives no leases; use `registry/Pulse` |
 *
 * All else is as in `registry/Pulse`: options, deadlines, what closing does. `verify` and `deregister` need the API key alone.
 *
 * One adapter is for one service: its credential is the token of that lease. Several services of one program may share a key, each
 * with an adapter, and a `name`, of its own.
 *
 * **Example** (A service that comes back)
 *
 * ```ts
 * import * as KeyStore from "effect-lifeline/KeyStore"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import * as Proof from "effect-lifeline/Proof"
 * import * as PulseLease from "effect-lifeline/registry/PulseLease"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 *
 * export const layer = Lifeline.layer({ instance: { name: "haul", type: "app", apiUrl: "http://haul:8484" } }).pipe(
 *   Layer.provide(PulseLease.layer({ url: "https://pulse.example", name: "haul" })),
 *   Layer.provide([
 *     Proof.layerDpopStored({ name: "haul" }).pipe(Layer.provide(KeyStore.layerMemory)),
 *     KeyValueStore.layerMemory,
 *     FetchHttpClient.layer
 *   ])
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Classify from "../Classify.ts"
import * as Credential from "../Credential.ts"
import { discard } from "../internal/discard.ts"
import { readJson } from "../internal/httpExchange.ts"
import { toToken } from "../internal/issuedToken.ts"
import * as Challenge from "../internal/proofChallenge.ts"
import * as Client from "../internal/pulseClient.ts"
import * as leaseRoutes from "../internal/pulseLeaseRoutes.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Wire from "../internal/pulseWire.ts"
import * as WireLease from "../internal/pulseWireLease.ts"
import { showUrl } from "../internal/url.ts"
import type * as Lease from "../Lease.ts"
import type { Attempted, AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"
import * as Proof from "../Proof.ts"
import type * as Recovery from "../Recovery.ts"
import * as Registry from "../Registry.ts"
import * as ServiceInstance from "../ServiceInstance.ts"
import * as Pulse from "./Pulse.ts"

/**
 * Where Pulse is, and how the credential is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Pulse.Options, Pick<Credential.Options, "name" | "prefix" | "cipher" | "backoff"> {}

/**
 * What {@link make} gives: the registry, with the credential's ladder around its calls, and the credential.
 *
 * @category models
 * @since 0.1.0
 */
export interface PulseLease {
  readonly registry: Registry.Registry["Service"]
  readonly credential: Credential.Credential["Service"]
}

type SignedClient = HttpClient.HttpClient.With<HttpClientError.HttpClientError | AuthFailed | Refused>

const readRegistered = readJson(WireLease.Registered)
const readBeat = readJson(WireLease.Beat)
const readToken = readJson(WireLease.Token)
const readStatus = readJson(WireLease.Status)

/** A 401 without the word DPoP in it is not about the proof or the token. */
const isApiKeyRefused = (status: number, challenge: string | undefined): boolean =>
  status === 401 && Challenge.read(challenge) === undefined

/** Signs each attempt. What is wrong with the API key is none of the credential's business. */
const signed = (
  client: HttpClient.HttpClient,
  authorizer: Credential.Authorizer,
  idempotencyKey?: string
): SignedClient =>
  Credential.httpClient(client, authorizer).pipe(
    HttpClient.mapRequest((request) =>
      idempotencyKey === undefined
        ? request
        : HttpClientRequest.setHeader(request, leaseRoutes.idempotencyHeader, idempotencyKey)
    ),
    HttpClient.transform((response, request) =>
      Effect.flatMap(response, (answer) =>
        isApiKeyRefused(answer.status, answer.headers["www-authenticate"])
          ? Effect.andThen(
            discard(answer),
            Effect.fail(Classify.forbidden({
              operation: "authorize",
              target: `${request.method} ${showUrl(request.url) ?? ""}`,
              status: answer.status,
              detail: "the API key was not accepted, so the lease's own credential was not looked at"
            }))
          )
          : Effect.succeed(answer))
    )
  )

const proofOnly = (authorizer: Credential.Authorizer): Credential.Authorizer => ({
  ...authorizer,
  select: Effect.succeed<Credential.Presented>({ _tag: "Proof" })
})

/** The calls, and what they share. */
const connect = Effect.fnUntraced(function*(options: Pulse.Options) {
  const client = yield* HttpClient.HttpClient
  const { send } = yield* Client.make(options)

  /** One call, signed; the token that goes along is kept out of errors. */
  const call = <const T extends Classify.Table, A, E>(
    operation: string,
    route: routes.Route,
    table: T,
    authorizer: Credential.Authorizer,
    { idempotencyKey, secret, ...call }: {
      readonly id?: string
      readonly payload?: unknown
      readonly secret?: Redacted.Redacted | undefined
      readonly idempotencyKey?: string | undefined
      readonly read: (body: string, at: Attempted) => Effect.Effect<A, E>
    }
  ) =>
    Effect.flatMap(authorizer.select, (presented) =>
      send(operation, route, table, {
        ...call,
        client: signed(client, authorizer, idempotencyKey),
        secret: [secret, presented._tag === "Token" ? presented.token.value : undefined]
      }))

  const refresh = <const T extends Classify.Table>(
    table: T,
    id: string,
    context: Credential.RefreshContext | Credential.ReviveContext
  ) =>
    call("refresh", leaseRoutes.leaseRefresh, table, context, {
      id,
      idempotencyKey: context.idempotencyKey,
      read: (body, at) => Effect.flatMap(readToken(body, at), (issued) => toToken(issued, at))
    })

  const heartbeat = (
    id: string,
    authorizer: Credential.Authorizer,
    more: { readonly secret?: Redacted.Redacted | undefined; readonly idempotencyKey?: string } = {}
  ): Effect.Effect<Recovery.Beat, Transient | AuthFailed | Refused | LeaseLost> =>
    call("heartbeat", routes.heartbeat, Classify.httpLease, authorizer, {
      ...more,
      id,
      read: (body, at): Effect.Effect<Recovery.Beat, Refused | LeaseLost> =>
        // Acknowledged as that of a service without a lease: ours is not there any more.
        body === "" ?
          Effect.fail(Classify.unknownLease(at)) :
          Effect.flatMap(readBeat(body, at), (beat) =>
            "token" in beat
              ? Effect.map(toToken(beat, at), (token) => ({ status: 200, token }))
              : Effect.succeed({ status: 200 }))
    })

  const api: Recovery.LeaseApi = {
    status: ({ id }, authorizer) =>
      call("status", leaseRoutes.leaseStatus, Classify.httpLease, authorizer, {
        id,
        read: (body, at): Effect.Effect<Classify.LeaseAnswer, Refused | LeaseLost> =>
          Effect.flatMap(readStatus(body, at), ({ status }) =>
            status === "ended"
              ? Effect.fail(Classify.leaseExpired(at))
              : Effect.succeed({ status: 200, says: status }))
      }),
    refresh: ({ id }, context) => refresh(Classify.http, id, context),
    heartbeat: ({ id }, context) => heartbeat(id, context, { idempotencyKey: context.idempotencyKey })
  }
  return { api, call, heartbeat, refresh }
})

/**
 * The calls about leases, for `Recovery`. Fails as {@link make} does where `url` is not one, and where there is none.
 *
 * **Example** (The leases of earlier runs)
 *
 * ```ts
 * import type * as Credential from "effect-lifeline/Credential"
 * import type * as Lease from "effect-lifeline/Lease"
 * import * as PulseLease from "effect-lifeline/registry/PulseLease"
 * import * as Effect from "effect/Effect"
 *
 * export const status = (lease: Lease.Lease, credential: Credential.Authorizer) =>
 *   Effect.flatMap(PulseLease.makeLeaseApi({ url: "https://pulse.example" }), (api) => api.status(lease, credential))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeLeaseApi = (
  options: Pulse.Options
): Effect.Effect<Recovery.LeaseApi, Refused, HttpClient.HttpClient> => Effect.map(connect(options), ({ api }) => api)

/**
 * Makes the adapter. Reads what is kept of the credential; sends nothing yet. Fails with `Refused` (`InvalidRequest`) where `url`
 * is not an absolute http or https URL, and where the store cannot be read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options: Options) => Effect.Effect<
  PulseLease,
  Refused | KeyValueStore.KeyValueStoreError,
  HttpClient.HttpClient | Proof.Proof | KeyValueStore.KeyValueStore | Scope.Scope
> = Effect.fnUntraced(function*(options: Options) {
  const { backoff, cipher, name, prefix } = options
  const provenance: Credential.Provenance = { _tag: "Managed", proof: yield* Proof.Proof }
  const kept = { provenance, name, prefix, cipher, backoff }
  const plain = yield* Pulse.make(options)
  if (!Client.isConfigured(options)) return { registry: plain, credential: yield* Credential.make(kept) }
  const { call, heartbeat, refresh } = yield* connect(options)
  const { capabilities } = plain

  // The token says whose it is; where there is none any more, the calls do.
  let latest: string | undefined
  const idOf = (token: Credential.Token | undefined): string | undefined => WireLease.serviceOf(token?.jti) ?? latest
  const at = (operation: string): Attempted => ({ operation, target: capabilities.target ?? "pulse" })

  const credential = yield* Credential.make({
    ...kept,
    refresh: (context) => {
      const id = idOf(context.token)
      return id === undefined
        ? Effect.fail(Classify.credentialMissing(at("refresh")))
        : refresh(Classify.http, id, context)
    },
    revive: Effect.fnUntraced(function*(context) {
      const id = idOf(context.token)
      if (id === undefined) return yield* Classify.unknownLease(at("revival"))
      const { token } = yield* heartbeat(id, context, { idempotencyKey: context.idempotencyKey })
      // Alive already, as somebody with the same key was faster: what is missing is a token.
      return token ?? (yield* refresh(Classify.httpLease, id, context))
    })
  })

  const accept = (token: Credential.Token): Effect.Effect<void> =>
    Effect.catch(
      credential.accept(token),
      (error) =>
        Effect.logWarning(`the token was not kept; it counts in this process only: ${error.message}`).pipe(
          Effect.annotateLogs({ package: "effect-lifeline", credential: name })
        )
    )

  const registry = Registry.Registry.of({
    ...plain,
    capabilities: { ...capabilities, adapter: "pulse-lease", heartbeatDetectsLoss: true },
    register: Effect.fnUntraced(function*(input) {
      const instance = yield* ServiceInstance.make(input)
      const { id, lease } = yield* call("register", routes.register, Classify.http, proofOnly(credential), {
        payload: Wire.toRegister(instance),
        secret: instance.apiKey,
        read: readRegistered
      })
      if (lease === undefined) {
        const detail = "the registry gives no leases; turn them on there, or use registry/Pulse"
        return yield* Classify.unsupported({ ...at("register"), detail })
      }
      latest = id
      yield* accept(yield* toToken({ ...lease, expiresAt: lease.expires_at }, at("register")))
      const registered: Lease.Lease = {
        id,
        name: instance.name,
        type: instance.type,
        registeredAt: yield* Clock.currentTimeMillis,
        ...(capabilities.expiresAfter === undefined
          ? {}
          : { expiresAfter: Duration.toMillis(capabilities.expiresAfter) })
      }
      return registered
    }),
    heartbeat: Effect.fnUntraced(function*({ id }, instance) {
      latest = id
      const { token } = yield* heartbeat(id, credential, { secret: instance?.apiKey })
      if (token !== undefined) yield* accept(token)
    })
  })
  const ladder = yield* Effect.provideService(Credential.protect(registry), Credential.Credential, credential)
  const apiKey = Client.credential(options.apiKey)
  const merged: Registry.CredentialInfo = {
    current: Effect.zipWith(
      apiKey.current,
      ladder.credential.current,
      (...both) => Redacted.make(both.map((it) => it === undefined ? "" : Redacted.value(it)).join("\n"))
    ),
    changes: Stream.merge(ladder.credential.changes ?? Stream.empty, apiKey.changes ?? Stream.empty)
  }
  // These present no token: what is wrong with the API key must not cost one.
  const { deregister, verify } = plain
  return { registry: { ...ladder, verify, deregister, credential: merged }, credential }
})

/**
 * {@link make} as a layer: the registry, for `Lifeline` and `CheckIn`, and its credential.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<
  Registry.Registry | Credential.Credential,
  Refused | KeyValueStore.KeyValueStoreError,
  HttpClient.HttpClient | Proof.Proof | KeyValueStore.KeyValueStore
> =>
  Layer.effectContext(
    Effect.map(make(options), ({ credential, registry }) =>
      Context.make(Registry.Registry, registry).pipe(Context.add(Credential.Credential, credential)))
  )
