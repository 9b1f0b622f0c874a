/**
 * Credentials that can be revived: which token or proof goes with a request, what happens when it is rejected, and how a
 * program comes back by itself as long as it still holds its key.
 *
 * A credential is `Managed` (it has a key pair, and shows with a `Proof` that it holds it) or `Supplied` (a plain bearer token
 * that somebody pasted). Each request presents, by the first that applies:
 *
 * 1. the token, where it was not rejected and does not expire within 30 s;
 * 2. the proof alone, where it is managed;
 * 3. the stale token, with one warning for each token; never one that was rejected;
 * 4. nothing: `AuthFailed` (`CredentialMissing`), and no request is sent.
 *
 * A rejected token (401) is remembered, also by the next process, and never sent again. {@link revive} is the operator that then
 * refreshes at most once, revives at most once (managed only, with the proof and without the token), and otherwise fails for
 * good with all causes ({@link causes}); {@link protect} puts it around a `Registry`, so that `Lifeline` and `CheckIn` come back
 * by themselves. What fails for now (`Transient`) surfaces as that, and is not counted.
 *
 * | what | when | how |
 * |---|---|---|
 * | refresh | a token was rejected; 30 minutes, or a tenth of its life, before it expires | once at a time, 10 s, with an idempotency key that is kept before the call |
 * | revival | a token was rejected and could not be refreshed | the same; managed credentials only |
 *
 * Tokens are kept in a `KeyValueStore`, encrypted where a `Cipher` is given. What cannot be read there is a fresh start with
 * a warning. Several processes may share one store: who is about to refresh or revive looks there first, adopts a newer token,
 * and waits for another one that is at it. A `KeyValueStore` cannot compare and set, so two processes that claim in the same
 * instant may both call (where reads are late, as in Workers KV, "instant" is up to a minute); they use the same idempotency
 * key where the first one's is seen, and the last token that is written stays.
 *
 * **Example** (A lifeline that comes back after a rejected token)
 *
 * ```ts
 * import * as Credential from "effect-lifeline/Credential"
 * import * as Lifeline from "effect-lifeline/Lifeline"
 * import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
 * import * as Proof from "effect-lifeline/Proof"
 * import type { Registry } from "effect-lifeline/Registry"
 * import type * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * declare const registry: Layer.Layer<Registry, never, Credential.Credential>
 * declare const askForToken: (
 *   context: Credential.RefreshContext
 * ) => Effect.Effect<Credential.Token, Transient | AuthFailed | Refused>
 * declare const beatWithProof: (
 *   context: Credential.ReviveContext
 * ) => Effect.Effect<Credential.Token, Transient | AuthFailed | Refused | LeaseLost>
 *
 * export const layer = Lifeline.layer({ instance: { name: "haul", type: "download-client", apiUrl: "http://haul:8484" } }).pipe(
 *   Layer.provide(Credential.layerRegistry),
 *   Layer.provide(registry),
 *   Layer.provide(Credential.layerManaged({ name: "haul", refresh: askForToken, revive: beatWithProof })),
 *   Layer.provide(Proof.layerDpopStored({ name: "haul" }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import type * as Cipher from "./Cipher.ts"
import * as Engine from "./internal/credential.ts"
import { Spent } from "./internal/credentialSpent.ts"
import type { Step } from "./internal/credentialSpent.ts"
import type { AuthFailed, LeaseLost, Refused, Transient } from "./LifelineError.ts"
import * as Proof from "./Proof.ts"
import * as Registry from "./Registry.ts"

export { Spent } from "./internal/credentialSpent.ts"
export type { Step } from "./internal/credentialSpent.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A token. Its value is what identifies it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Token {
  readonly value: Redacted.Redacted
  /** Milliseconds since 1970. Absent: it does not say. */
  readonly expiresAt?: number | undefined
  /** The server's name for it: no secret. */
  readonly jti?: string | undefined
}

/**
 * Where a credential is from. `Managed`: minted for this device and bound to its key, so that it can prove possession.
 * `Supplied`: given by somebody, a plain bearer token. Only `Managed` can be revived, whatever keys there are.
 *
 * @category models
 * @since 0.1.0
 */
export type Provenance =
  | { readonly _tag: "Managed"; readonly proof: Proof.Proof["Service"] }
  | { readonly _tag: "Supplied" }

/**
 * What a request presents. `stale`: it has expired, or does so within 30 s.
 *
 * @category models
 * @since 0.1.0
 */
export type Presented =
  | { readonly _tag: "Token"; readonly token: Token; readonly stale: boolean }
  | { readonly _tag: "Proof" }

/**
 * What headers are for. They are good for one attempt.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly method: string
  /** Absolute, as it is sent; of a WebSocket `ws` and `wss` will do. */
  readonly url: string | URL
  /** Instead of what is selected now. */
  readonly presented?: Presented | undefined
}

/**
 * Headers for one attempt, and what they present: what to {@link Authorizer.reject} should the answer be 401.
 *
 * @category models
 * @since 0.1.0
 */
export interface Authorization {
  /** Names in lower case. */
  readonly headers: Proof.ProofHeaders
  readonly presented: Presented
}

/**
 * What signs requests: a credential, or what a provider of tokens is given for its own request. See {@link httpClient}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Authorizer {
  /** What a request presents now, by the ladder above. Fails with `AuthFailed` (`CredentialMissing`): send nothing. */
  readonly select: Effect.Effect<Presented, AuthFailed>
  /** The headers for one attempt. Fails also with `Refused` (`InvalidRequest`) where the URL is none. */
  readonly authorize: (request: Request) => Effect.Effect<Authorization, AuthFailed | Refused>
  /** To be told of each answer: `true` where the same request is worth sending once more, as in `Proof`. */
  readonly received: (answer: Proof.Answer) => Effect.Effect<boolean>
}

/**
 * What a refresh is told.
 *
 * @category models
 * @since 0.1.0
 */
export interface RefreshContext extends Authorizer {
  /**
   * The token to be replaced. Where it `isRejected` it is not to be sent: what signs presents the proof instead, and fails with
   * `CredentialMissing` where the credential is supplied, which then needs something else to refresh with.
   */
  readonly token: Token
  readonly isRejected: boolean
  /** The same each time this refresh is made, also after a crash. A server that has seen it answers as it did. */
  readonly idempotencyKey: string
}

/**
 * What a revival is told. What signs presents the proof, and no token.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReviveContext extends Authorizer {
  /** The one that was rejected: for its `jti`, not to be sent. `undefined`: there was none. */
  readonly token: Token | undefined
  /** The same each time this revival is made, also after a crash. */
  readonly idempotencyKey: string
}

/**
 * What a credential is made from.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<out R = never> {
  readonly provenance: Provenance
  /** Of what it is, in the store: one for each registry, or for each lease where leases have tokens of their own. */
  readonly name: string
  /** Before the name, in the store. @default "credential/" */
  readonly prefix?: string | undefined
  /** What encrypts what is kept. @default none: for stores that only their owner can read */
  readonly cipher?: Cipher.Cipher | undefined
  /**
   * A token to begin with. One in the store goes before it, unless this one is another than it was when that one was kept:
   * somebody has supplied a new one.
   */
  readonly token?: Token | undefined
  /**
   * Gets a new token for one that was rejected or expires soon. `AuthFailed` and `Refused` are final for that token, `Transient`
   * is tried again; what it dies with, and what takes longer than the deadline, counts as `Transient`. Absent: there is none.
   */
  readonly refresh?:
    | ((context: RefreshContext) => Effect.Effect<Token, Transient | AuthFailed | Refused, R>)
    | undefined
  /**
   * Brings a lease back that the server reaped, with the proof. As `refresh`; `LeaseLost`: that lease is gone, and its token is
   * deleted. Never called where the credential is supplied. Absent: there is none.
   */
  readonly revive?:
    | ((context: ReviveContext) => Effect.Effect<Token, Transient | AuthFailed | Refused | LeaseLost, R>)
    | undefined
  /** The waits between refreshes that fail for now, ahead of the expiry. @default windows of 1 s, doubling, to 5 minutes */
  readonly backoff?: Backoff.Unbounded | undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A credential.
 *
 * @category services
 * @since 0.1.0
 */
export class Credential extends Context.Service<
  Credential,
  Authorizer & {
    readonly provenance: Provenance
    /** The token that is kept, whether it can be used or not. */
    readonly token: Effect.Effect<Token | undefined>
    /** Whether this token was rejected. */
    readonly isRejected: (token: Token) => Effect.Effect<boolean>
    /**
     * A new token, wherever it is from: the one way in which tokens are kept, of a registration, a refresh, or a revival, while
     * running or after a restart. It ends whatever was spent on the one before. Fails where the store does; the token counts
     * in this process all the same.
     */
    readonly accept: (token: Token) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
    /** The server does not accept this token (401). It is not sent again, by this process or by the next one. */
    readonly reject: (token: Token) => Effect.Effect<void>
    /** Deletes the token, here and in the store. */
    readonly clear: Effect.Effect<void, KeyValueStore.KeyValueStoreError>
    /**
     * Gets a new token now. Callers at the same time share one call; who is interrupted leaves the others alone. Fails with
     * `AuthFailed` (`CredentialMissing`) where there is no token, or nothing to refresh it with.
     */
    readonly refresh: Effect.Effect<Token, Transient | AuthFailed | Refused>
    /** Revives now; as `refresh`. Fails with `AuthFailed` (`CredentialMissing`) where it cannot be revived: see {@link Provenance}. */
    readonly revive: Effect.Effect<Token, Transient | AuthFailed | Refused | LeaseLost>
    /** What the operator {@link revive} does. */
    readonly discharge: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Transient | AuthFailed, R>
    /**
     * As the operator {@link revive}, where a lease that turns out to be lost for good surfaces as `LeaseLost`: for calls that
     * are followed by a new registration then.
     */
    readonly guard: <A, E, R>(
      self: Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | Transient | AuthFailed | LeaseLost, R>
    /** What {@link watch} does. */
    readonly watch: <A, E, R>(
      self: Stream.Stream<A, E, R>
    ) => Effect.Effect<Stream.Stream<A, E | Transient, R>>
    /** Emits after each change of the token. */
    readonly changes: Stream.Stream<void>
  }
>()("effect-lifeline/Credential/Credential") {}

/**
 * Reads what is kept under the name. From then on, as long as the scope is open, the token is refreshed ahead of its expiry.
 * Where it is due at the start already, the first use of {@link revive} waits for it, at most 10 s: what is started for one
 * request has no time for schedules. Fails where the store cannot be read; what it holds and cannot be understood is a fresh
 * start with a warning.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: <R = never>(
  options: Options<R>
) => Effect.Effect<
  Credential["Service"],
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Scope.Scope | R
> = Engine.make

/**
 * {@link make} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<
  Credential,
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Exclude<R, Scope.Scope>
> => Layer.effect(Credential, make(options))

/**
 * A credential that is bound to the key of the `Proof` service, as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerManaged = <R = never>(
  options: Omit<Options<R>, "provenance">
): Layer.Layer<
  Credential,
  KeyValueStore.KeyValueStoreError,
  Proof.Proof | KeyValueStore.KeyValueStore | Exclude<R, Scope.Scope>
> =>
  Layer.effect(
    Credential,
    Effect.flatMap(Proof.Proof, (proof) => make<R>({ ...options, provenance: { _tag: "Managed", proof } }))
  )

/**
 * A plain bearer token, as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSupplied = <R = never>(
  options: Omit<Options<R>, "provenance" | "revive">
): Layer.Layer<
  Credential,
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Exclude<R, Scope.Scope>
> => layer<R>({ ...options, provenance: { _tag: "Supplied" } })

// ---------------------------------------------------------------------------------------------------------------------
// Operators
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Discharges a rejected credential, once: `self` is run again with a token that was refreshed, else revived; each happens at
 * most once, and then it fails with `AuthFailed` for good, with all that was tried as its cause (see {@link causes}). It fails
 * so without running `self` until there is another token.
 *
 * Only what says that the credential itself is no good (`Unauthorized`, `CredentialExpired`) is discharged: a new token does not
 * help against `Forbidden` and `ProofRejected`. `Transient` of a refresh or a revival surfaces, for a `Backoff` around this.
 *
 * `self` is taken to present what the credential hands out while it runs ({@link httpClient}, `authorize`); where it asks for
 * nothing, the token of when it began.
 *
 * **Example** (An event stream that is opened with the credential)
 *
 * ```ts
 * import * as Credential from "effect-lifeline/Credential"
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 * import * as Effect from "effect/Effect"
 *
 * const url = "https://pulse.example/api/v1/events"
 * const connect = EventSource.connect(url, {
 *   headers: Credential.Credential.use((credential) =>
 *     Effect.map(credential.authorize({ method: "GET", url }), ({ headers }) => headers)
 *   )
 * })
 *
 * export const events = Reconnect.stream((dial: Reconnect.Dial<string>) => Credential.revive(connect(dial)))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const revive = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | Transient | AuthFailed, R | Credential> =>
  Credential.use((credential) => credential.discharge(self))

/**
 * A stream over a connection that presented the credential when it was opened. Where it ends because the credential is no good
 * any more, the token is rejected, and the end is `Transient`: whoever opens the next connection within {@link revive} does so
 * with another token, or fails for good. To be used within `revive`, so that it is known what was presented.
 *
 * **Example** (A token that runs out while the connection is open)
 *
 * ```ts
 * import * as Credential from "effect-lifeline/Credential"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 * import * as Effect from "effect/Effect"
 *
 * const url = "wss://feed.example/live"
 * const connect = WebSocket.connect({
 *   url,
 *   credential: WebSocket.perDial(() =>
 *     Credential.Credential.use((credential) => credential.authorize({ method: "GET", url }))
 *   )
 * })
 *
 * export const messages = Reconnect.stream((dial: Reconnect.Dial<unknown>) =>
 *   connect(dial).pipe(Effect.flatMap(Credential.watch), Credential.revive)
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const watch = <A, E, R>(
  self: Stream.Stream<A, E, R>
): Effect.Effect<Stream.Stream<A, E | Transient, R>, never, Credential> =>
  Credential.use((credential) => credential.watch(self))

/**
 * A registry whose calls go through {@link revive}, for `Lifeline` and `CheckIn`: they see a rejected credential only when
 * nothing more can be done about it, and start again by themselves when there is another token. A lease that is gone for good
 * is `LeaseLost`, and so registered anew.
 *
 * @category combinators
 * @since 0.1.0
 */
export const protect = (
  registry: Registry.Registry["Service"]
): Effect.Effect<Registry.Registry["Service"], never, Credential> =>
  Effect.map(Credential, (credential) => {
    const { deadline: _, ...capabilities } = registry.capabilities
    return registry.capabilities.enabled
      ? {
        // A call may be several now, and a refresh: the drivers' own deadline ends one that takes too long.
        capabilities,
        credential: info(credential),
        // There is nothing left that could be revived: register as somebody who has the key, if there is one.
        register: (instance) =>
          Effect.catchTag(
            credential.guard(registry.register(instance)),
            "LeaseLost",
            () => credential.discharge(registry.register(instance))
          ),
        heartbeat: (lease, instance) => credential.guard(registry.heartbeat(lease, instance)),
        verify: (lease, instance) => credential.guard(registry.verify(lease, instance)),
        // Gone already is what was asked for.
        deregister: (lease, instance) =>
          Effect.catchTag(credential.guard(registry.deregister(lease, instance)), "LeaseLost", () => Effect.void)
      }
      : registry
  })

/**
 * {@link protect} as a layer, around the `Registry` that is provided to it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRegistry: Layer.Layer<Registry.Registry, never, Registry.Registry | Credential> = Layer.effect(
  Registry.Registry,
  Effect.flatMap(Registry.Registry, protect)
)

/**
 * A client that signs each request with what the ladder selects, and asks for nonces as `Proof.httpClient` does. It does not
 * reject tokens: that is for who knows what an answer means, mostly {@link revive}.
 *
 * @category combinators
 * @since 0.1.0
 */
export const httpClient: {
  (authorizer: Authorizer): <E, R>(
    self: HttpClient.HttpClient.With<E, R>
  ) => HttpClient.HttpClient.With<E | AuthFailed | Refused, R>
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    authorizer: Authorizer
  ): HttpClient.HttpClient.With<E | AuthFailed | Refused, R>
} = dual(
  2,
  <E, R>(
    self: HttpClient.HttpClient.With<E, R>,
    { authorize, received, select }: Authorizer
  ): HttpClient.HttpClient.With<E | AuthFailed | Refused, R> =>
    Proof.httpClient(self, {
      token: Effect.map(select, (presented) => presented._tag === "Token" ? presented.token.value : undefined),
      proof: {
        thumbprint: "",
        headers: ({ method, token, url }) =>
          Effect.map(
            authorize({
              method,
              url,
              presented: token === undefined
                ? { _tag: "Proof" }
                : { _tag: "Token", token: { value: token }, stale: false }
            }),
            ({ headers }) => headers
          ),
        received
      }
    })
)

// ---------------------------------------------------------------------------------------------------------------------
// Getters
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The credential as drivers need to know it, for an adapter's `Registry`.
 *
 * @category getters
 * @since 0.1.0
 */
export const info = ({ changes, provenance, token }: Credential["Service"]): Registry.CredentialInfo => ({
  current: Effect.map(
    token,
    (token) => token?.value ?? (provenance._tag === "Managed" ? Redacted.make(provenance.proof.thumbprint) : undefined)
  ),
  changes
})

/**
 * What was tried before an `AuthFailed` became final, in order: the request, the refresh, the revival, each with its own error.
 * Empty where nothing was tried.
 *
 * @category getters
 * @since 0.1.0
 */
export const causes = (error: AuthFailed): ReadonlyArray<Step> => error.cause instanceof Spent ? error.cause.steps : []
