/**
 * Proof of possession: a request shows that whoever sends it holds a key, so that a token which was stolen is worth nothing
 * without it. {@link Proof} is the port; {@link dpop} implements it by RFC 9449, {@link closedLoop} in the header style of
 * ClosedLoop servers. {@link verify} is the server's side of DPoP.
 *
 * What a client does:
 * - Each attempt gets a proof of its own, for one method, one URL and one token, with a `jti` of 128 random bits.
 * - A server may want its nonce in the proof. The newest of each origin is remembered, from a 401 that asks for one and from
 *   any other answer that brings one; {@link httpClient} sends a request once more where it was refused for that, and no more
 *   than once.
 * - A device whose clock is wrong gets in: with a nonce comes the server's time (`Date`), and from then on `iat` is by that
 *   clock. Where it cannot be read, as in browsers across origins, the nonce itself says when the proof was made, for servers
 *   that take it so, as {@link verify} does.
 * - Redirects are not followed: proof and token would go along.
 *
 * Keys come from {@link generateKey}, and survive a restart in a `KeyStore`. Random bytes and everything else cryptographic come
 * from `effect/crypto/WebCrypto`, which is `globalThis.crypto` unless another one is provided.
 *
 * **Example** (Signed requests, with a key that stays the same)
 *
 * ```ts
 * import * as Proof from "effect-lifeline/Proof"
 * import * as Effect from "effect/Effect"
 * import * as HttpClient from "effect/http/HttpClient"
 * import type * as Redacted from "effect/Redacted"
 *
 * declare const token: Redacted.Redacted
 *
 * export const program = Effect.gen(function*() {
 *   const proof = yield* Proof.Proof
 *   const client = Proof.httpClient(yield* HttpClient.HttpClient, { proof, token: Effect.succeed(token) })
 *   return yield* client.put("https://registry.example/api/v1/services/7/heartbeat")
 * }).pipe(Effect.provide(Proof.layerDpopStored({ name: "device" })))
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import { dual } from "effect/Function"
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Url from "effect/http/Url"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Classify from "./Classify.ts"
import { discard } from "./internal/discard.ts"
import { setFetchOptions } from "./internal/fetchOptions.ts"
import { sha256 } from "./internal/jwk.ts"
import * as Jws from "./internal/jws.ts"
import * as Challenge from "./internal/proofChallenge.ts"
import type * as ProofKey from "./internal/proofKey.ts"
import { showUrl } from "./internal/url.ts"
import * as KeyStore from "./KeyStore.ts"
import type { AuthFailed, Refused } from "./LifelineError.ts"

export type { Algorithm, PublicJwk } from "./internal/jwk.ts"
export {
  fromCryptoKeys,
  fromPkcs8,
  generateKey,
  InvalidKey,
  KeyError,
  KeyPair,
  NotExtractable,
  StoreFailed,
  thumbprint,
  Unreadable,
  Unsupported
} from "./internal/proofKey.ts"
export type { KeyErrorReason, KeyOptions } from "./internal/proofKey.ts"
export {
  BadSignature,
  BearerDowngrade,
  MalformedProof,
  MissingClaim,
  MissingProof,
  NonceRequired,
  PrivateKeyInProof,
  ProofRefused,
  RepeatedProof,
  Replayed,
  ReplaysFull,
  UnsupportedAlgorithm,
  WrongKey,
  WrongMethod,
  WrongTime,
  WrongToken,
  WrongUrl
} from "./internal/proofRefusal.ts"
export type { Refusal } from "./internal/proofRefusal.ts"
export { challenge, makeNonces, makeReplays, verify } from "./internal/proofVerify.ts"
export type { Nonces, Received, Replays, Verified, VerifyOptions } from "./internal/proofVerify.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The port
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a proof is for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly method: string
  /** Absolute, as it is sent. */
  readonly url: string | URL
  /** Sent along, and bound to the proof. */
  readonly token?: Redacted.Redacted | undefined
  /** Instead of the newest that the origin gave. */
  readonly nonce?: string | undefined
}

/**
 * What to add to a request: names in lower case.
 *
 * @category models
 * @since 0.1.0
 */
export type ProofHeaders = Readonly<Record<string, Redacted.Redacted>>

/**
 * What came back.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  /** Of the request. */
  readonly url: string | URL
  readonly status: number
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string | undefined }
}

/**
 * The port: what to send with a request, and what to learn from its answer.
 *
 * @category services
 * @since 0.1.0
 */
export class Proof extends Context.Service<Proof, {
  /** Of the key: what a token or a lease is bound to. */
  readonly thumbprint: string
  /**
   * The headers for one attempt. They are good for one: another attempt needs others. Fails with `Refused` (`InvalidRequest`)
   * where the URL is not an absolute http or https URL, and with `AuthFailed` (`CredentialMissing`) where the platform does not
   * sign with the key.
   */
  readonly headers: (request: Request) => Effect.Effect<ProofHeaders, AuthFailed | Refused>
  /**
   * To be told of each answer. Gives `true` where the same request is worth sending once more, with new headers: the server
   * asked for a nonce, and gave one. A caller who did so already does not do it again.
   */
  readonly received: (answer: Answer) => Effect.Effect<boolean>
}>()("effect-lifeline/Proof/Proof") {}

// ---------------------------------------------------------------------------------------------------------------------
// DPoP
// ---------------------------------------------------------------------------------------------------------------------

/** What an origin said last. */
interface Origin {
  readonly nonce: string
  /** How far its clock is ahead of ours, in milliseconds. */
  readonly ahead: number
}

/** A client talks to few; one that talks to many forgets the oldest, which costs a request. */
const mostOrigins = 100

/** What a nonce may be made of (RFC 9449, 8.1), and how long one is kept. */
const nonceShape = /^[\x21\x23-\x5b\x5d-\x7e]{1,1024}$/

/** Of a `jti`, in bytes: 128 bits, where 96 are asked for. */
const idSize = 16

const invalidUrl = (method: string): Effect.Effect<never, Refused> =>
  Effect.failSync(() =>
    Classify.invalidRequest({
      operation: "proof",
      target: method,
      issues: [{ path: "url", message: "expected an absolute http or https URL" }]
    })
  )

const httpUrl = (url: string | URL): URL | undefined => {
  const parsed = typeof url === "string" ? URL.parse(url) : url
  return parsed?.protocol === "https:" || parsed?.protocol === "http:" ? parsed : undefined
}

const notSigned = (method: string, url: URL, cause: unknown): AuthFailed =>
  Classify.credentialMissing({ operation: "proof", target: `${method} ${showUrl(url.href)}`, cause })

/**
 * DPoP (RFC 9449): the headers `DPoP`, and `Authorization: DPoP ...` where there is a token.
 *
 * @category constructors
 * @since 0.1.0
 */
export const dpop = (options: { readonly key: ProofKey.KeyPair }): Effect.Effect<Proof["Service"]> =>
  Effect.map(WebCrypto, (crypto) => {
    const { algorithm, privateKey, publicKey, thumbprint } = options.key
    const header = Jws.encode({ typ: "dpop+jwt", alg: algorithm, jwk: publicKey })
    const origins = new Map<string, Origin>()
    // Of the last token: it stays the same for many requests.
    let hashed = { token: "", hash: "" }
    const hashOf = async (token: string): Promise<string> => {
      if (hashed.token !== token) hashed = { token, hash: await sha256(crypto.subtle, token) }
      return hashed.hash
    }
    return {
      thumbprint,
      headers: (request) =>
        Effect.suspend((): Effect.Effect<ProofHeaders, AuthFailed | Refused> => {
          const url = httpUrl(request.url)
          if (url === undefined) return invalidUrl(request.method)
          return Effect.flatMap(Clock.currentTimeMillis, (now) =>
            Effect.tryPromise({
              try: async (): Promise<ProofHeaders> => {
                const origin = origins.get(url.origin)
                const token = request.token === undefined ? undefined : Redacted.value(request.token)
                const proof = await Jws.sign(crypto.subtle, algorithm, privateKey, header, {
                  jti: Base64Url.encode(crypto.getRandomValues(new Uint8Array(idSize))),
                  htm: request.method,
                  htu: url.origin + url.pathname,
                  iat: Math.floor((now + (origin?.ahead ?? 0)) / 1000),
                  ath: token === undefined ? undefined : await hashOf(token),
                  nonce: request.nonce ?? origin?.nonce
                })
                return {
                  dpop: Redacted.make(proof),
                  ...(token === undefined ? {} : { authorization: Redacted.make(`DPoP ${token}`) })
                }
              },
              catch: (cause) => notSigned(request.method, url, cause)
            }))
        }),
      received: (answer) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          const origin = httpUrl(answer.url)?.origin
          const nonce = answer.headers["dpop-nonce"]
          if (origin === undefined || nonce === undefined || !nonceShape.test(nonce)) return false
          const time = Headers.parseHttpDate(answer.headers["date"] ?? "")
          const ahead = Result.isFailure(time)
            ? origins.get(origin)?.ahead ?? 0
            : DateTime.toEpochMillis(time.success) - now
          // Anew, so that the oldest comes first.
          origins.delete(origin)
          origins.set(origin, { nonce, ahead })
          for (const oldest of origins.keys()) {
            if (origins.size <= mostOrigins) break
            origins.delete(oldest)
          }
          return answer.status === 401 && Challenge.read(answer.headers["www-authenticate"])?.error === "use_dpop_nonce"
        })
    }
  })

/**
 * {@link dpop} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDpop = (options: { readonly key: ProofKey.KeyPair }): Layer.Layer<Proof> =>
  Layer.effect(Proof, dpop(options))

/**
 * {@link dpop} with a key of the store, made where there is none of that name.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDpopStored = (
  options: { readonly name: string } & Pick<ProofKey.KeyOptions, "algorithm">
): Layer.Layer<Proof, ProofKey.KeyError, KeyStore.KeyStore> =>
  Layer.effect(Proof, Effect.flatMap(KeyStore.getOrGenerate(options.name, options), (key) => dpop({ key })))

// ---------------------------------------------------------------------------------------------------------------------
// ClosedLoop
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a gateway proves itself to a ClosedLoop server.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClosedLoopOptions {
  /** Of Ed25519: `generateKey({ algorithm: "EdDSA" })`. The server knows its public key. */
  readonly key: ProofKey.KeyPair
  /** Sent as a header, so printable ASCII without spaces around it. */
  readonly gatewayId: string
}

const gatewayShape = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/

const encoder = new TextEncoder()

/**
 * The header style of ClosedLoop servers: `X-Desktop-Gateway-Id`, `X-Desktop-Timestamp` (Unix seconds) and
 * `X-Desktop-Signature`, an Ed25519 signature (base64url) over method, path, timestamp and gateway id, one to a line. The path
 * is the one on the wire, with its escapes, without the query. A token goes as `Authorization: Bearer`: the signature does not
 * cover it. There are no nonces.
 *
 * Fails with `Refused` (`InvalidRequest`) where the key is not of Ed25519, or the gateway id does not fit a header.
 *
 * @category constructors
 * @since 0.1.0
 */
export const closedLoop = (options: ClosedLoopOptions): Effect.Effect<Proof["Service"], Refused> =>
  Effect.flatMap(WebCrypto, (crypto) => {
    const { gatewayId, key } = options
    const issues = [
      ...(key.algorithm === "EdDSA" ? [] : [{ path: "key", message: `expected Ed25519, got ${key.algorithm}` }]),
      ...(gatewayShape.test(gatewayId) ? [] : [{ path: "gatewayId", message: "expected printable ASCII" }])
    ]
    if (issues.length > 0) {
      return Effect.fail(Classify.invalidRequest({ operation: "proof", target: "ClosedLoop", issues }))
    }
    return Effect.succeed<Proof["Service"]>({
      thumbprint: key.thumbprint,
      headers: ({ method, token, url }) =>
        Effect.suspend((): Effect.Effect<ProofHeaders, AuthFailed | Refused> => {
          const parsed = httpUrl(url)
          if (parsed === undefined) return invalidUrl(method)
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const timestamp = `${Math.floor(now / 1000)}`
            const signed = [method.toUpperCase(), parsed.pathname, timestamp, gatewayId].join("\n")
            return Effect.tryPromise({
              try: async (): Promise<ProofHeaders> => {
                const signature = await crypto.subtle.sign("Ed25519", key.privateKey, encoder.encode(signed))
                return {
                  "x-desktop-gateway-id": Redacted.make(gatewayId),
                  "x-desktop-timestamp": Redacted.make(timestamp),
                  "x-desktop-signature": Redacted.make(Base64Url.encode(new Uint8Array(signature))),
                  ...(token === undefined ? {} : { authorization: Redacted.make(`Bearer ${Redacted.value(token)}`) })
                }
              },
              catch: (cause) => notSigned(method, parsed, cause)
            })
          })
        }),
      received: () => Effect.succeed(false)
    })
  })

/**
 * {@link closedLoop} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClosedLoop = (options: ClosedLoopOptions): Layer.Layer<Proof, Refused> =>
  Layer.effect(Proof, closedLoop(options))

// ---------------------------------------------------------------------------------------------------------------------
// Clients
// ---------------------------------------------------------------------------------------------------------------------

/** A server's words, fit for a message: short, of harmless characters, and without the token that it may repeat. */
const clean = (words: string, token: Redacted.Redacted | undefined): string => {
  const value = token === undefined ? "" : Redacted.value(token)
  return (value === "" ? words : words.replaceAll(value, "<redacted>")).replace(/[^\w .,:;/()<>+-]/g, "?").slice(0, 200)
}

/**
 * The error that an answer stands for where the server refused the proof itself: 401 with `invalid_dpop_proof`, or still
 * `use_dpop_nonce`. `undefined`: it did not, whatever else it says.
 *
 * @category getters
 * @since 0.1.0
 */
export const rejection = (
  answer: Answer,
  at: { readonly operation: string; readonly target: string; readonly token?: Redacted.Redacted | undefined }
): AuthFailed | undefined => {
  if (answer.status !== 401) return undefined
  const challenge = Challenge.read(answer.headers["www-authenticate"])
  if (challenge?.error !== "invalid_dpop_proof" && challenge?.error !== "use_dpop_nonce") return undefined
  const words = challenge.description === undefined ? challenge.error : `${challenge.error}, ${challenge.description}`
  return Classify.proofRejected({
    operation: at.operation,
    target: at.target,
    status: answer.status,
    detail: clean(words, at.token)
  })
}

/**
 * What requests are signed with.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientOptions<E = never, R = never> {
  readonly proof: Proof["Service"]
  /** The token of each attempt; `undefined`: none is sent. Absent: none ever is. */
  readonly token?: Effect.Effect<Redacted.Redacted | undefined, E, R> | undefined
}

/** Whether a body can be sent a second time: one that is read as it is sent cannot. */
const isRepeatable = ({ body }: HttpClientRequest.HttpClientRequest): boolean =>
  body._tag !== "Stream" && !(body._tag === "Raw" && body.body instanceof ReadableStream)

/**
 * Headers of requests that prove something, for `Headers.CurrentRedactedNames`. {@link httpClient} hides them in its spans by
 * itself; whoever prints a whole request, or an error of the HTTP client with one in it, adds them there too.
 *
 * @category constants
 * @since 0.1.0
 */
export const redactedHeaders: ReadonlyArray<string> = ["dpop", "x-desktop-signature"]

/**
 * A client that signs each request. A request that is refused for the lack of a nonce is sent once more, unless its body is a
 * stream. A refused proof is `AuthFailed` (`ProofRejected`); every other answer is given as it is, also a 401.
 *
 * Redirects are not followed. What is put around this client must not follow them either: each hop would be signed, and the
 * token would go along to wherever it leads.
 *
 * @category combinators
 * @since 0.1.0
 */
export const httpClient: {
  <E2 = never, R2 = never>(options: ClientOptions<E2, R2>): <E, R>(
    self: HttpClient.HttpClient.With<E, R>
  ) => HttpClient.HttpClient.With<E | E2 | AuthFailed | Refused, R | R2>
  <E, R, E2 = never, R2 = never>(
    self: HttpClient.HttpClient.With<E, R>,
    options: ClientOptions<E2, R2>
  ): HttpClient.HttpClient.With<E | E2 | AuthFailed | Refused, R | R2>
} = dual(2, <E, R, E2 = never, R2 = never>(
  self: HttpClient.HttpClient.With<E, R>,
  { proof, token: current = Effect.succeed(undefined) }: ClientOptions<E2, R2>
): HttpClient.HttpClient.With<E | E2 | AuthFailed | Refused, R | R2> => {
  // What the client does to a request (`preprocess`) it has done by then: what is signed is what is sent.
  const send = (request: HttpClientRequest.HttpClientRequest) =>
    self.postprocess(Effect.as(setFetchOptions({ redirect: "manual" }), request))
  const attempt = (
    request: HttpClientRequest.HttpClientRequest,
    again: boolean
  ): Effect.Effect<HttpClientResponse.HttpClientResponse, E | E2 | AuthFailed | Refused, R | R2> => {
    const url = Url.make(request.url, request.urlParams, Option.getOrUndefined(request.hash))
    // The client itself says what is wrong with it.
    if (Result.isFailure(url)) return send(request)
    const { method } = request
    return Effect.gen(function*() {
      const token = yield* current
      const headers = yield* proof.headers({ method, url: url.success, token })
      const values = Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)] as const)
      const response = yield* send(HttpClientRequest.setHeaders(request, values))
      const answer = { url: url.success, status: response.status, headers: response.headers }
      const worthIt = yield* proof.received(answer)
      if (worthIt && again && isRepeatable(request)) {
        yield* discard(response)
        return yield* attempt(request, false)
      }
      const target = `${method} ${showUrl(url.success.href)}`
      const rejected = rejection(answer, { operation: "request", target, token })
      if (rejected === undefined) return response
      yield* discard(response)
      return yield* rejected
    })
  }
  return HttpClient.makeWith(
    (request: Effect.Effect<HttpClientRequest.HttpClientRequest, E | E2 | AuthFailed | Refused, R | R2>) =>
      Effect.flatMap(
        Headers.CurrentRedactedNames,
        (names) =>
          Effect.flatMap(request, (request) => attempt(request, true)).pipe(
            Effect.provideService(Headers.CurrentRedactedNames, [...names, ...redactedHeaders])
          )
      ),
    self.preprocess
  )
})
