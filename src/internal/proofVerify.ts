/**
 * The server's side of a proof: what is looked at, and in which order. Public as members of `Proof`.
 *
 * A proof is read by hand and not with a `Schema`, as each thing that is wrong with one has a reason of its own.
 */
import * as Clock from "effect/Clock"
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import type * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Jwk from "./jwk.ts"
import * as Jws from "./jws.ts"
import * as Refusal from "./proofRefusal.ts"
import * as Generations from "./proofReplays.ts"

/**
 * A request as a server received it.
 *
 * @category verification
 * @since 0.1.0
 */
export interface Received {
  readonly method: string
  /**
   * Absolute, as the client sees it: behind a proxy, the public one. Its query and fragment do not count. Its origin comes from
   * the configuration, not from the `Host` header, which whoever sends the request chooses: a server that a client talks to
   * could pass on proofs that were made for it.
   */
  readonly url: string | URL
  /** Names in lower case; values that came more than once as an array, or joined by commas. */
  readonly headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
}

/**
 * What remembers the proofs that were accepted, so that none is accepted twice.
 *
 * @category verification
 * @since 0.1.0
 */
export interface Replays {
  readonly seen: (id: string) => Effect.Effect<boolean>
  /** Remembers one at least until then (milliseconds since 1970). Of two at once with one id, one is `"seen"`. */
  readonly add: (id: string, until: number) => Effect.Effect<"added" | "seen" | "full">
}

/**
 * The nonces of a server.
 *
 * @category verification
 * @since 0.1.0
 */
export interface Nonces {
  /** One to send in `DPoP-Nonce`. */
  readonly issue: Effect.Effect<string>
  /** Whether it is one of ours, and not too old. */
  readonly check: (nonce: string) => Effect.Effect<boolean>
  /** For how long one is good. */
  readonly lifetime: Duration.Duration
}

/**
 * What a proof must be.
 *
 * @category verification
 * @since 0.1.0
 */
export interface VerifyOptions {
  /** What remembers accepted proofs: one for all requests, e.g. of {@link makeReplays}. */
  readonly replays: Replays
  /** The thumbprint that the token, or the lease, is bound to (`cnf.jkt`). Absent: any key will do, and a bearer token too. */
  readonly thumbprint?: string | undefined
  /**
   * Absent: no nonce is asked for. Present: every proof must have one. When it was made is then told by the nonce, and `iat`
   * does not count: a device whose clock is wrong still gets in.
   */
  readonly nonces?: Nonces | undefined
  /** Both, unless set. */
  readonly algorithms?: ReadonlyArray<Jwk.Algorithm> | undefined
  /** How far `iat` may be from now, either way. @default 60 seconds */
  readonly maxAge?: Duration.Input | undefined
}

/**
 * What an accepted proof says.
 *
 * @category verification
 * @since 0.1.0
 */
export interface Verified {
  readonly algorithm: Jwk.Algorithm
  readonly publicKey: Jwk.PublicJwk
  /** What to bind a token or a lease to (`cnf.jkt`). */
  readonly thumbprint: string
  readonly jti: string
  /** `iat`, in milliseconds since 1970 by the clock of whoever made it. */
  readonly issuedAt: number
  readonly nonce: string | undefined
  /** The token that came with it, if any. That it is a good one is not known yet. */
  readonly token: Redacted.Redacted | undefined
}

/** Longer ones are refused before anything is decoded. Those of this library have some 500 characters and the URL. */
const longestProof = 8192

/** The longest `jti` that is looked at. */
const longestId = 256

/** The clock of another server that issues nonces may be ahead by this, in milliseconds. */
const mostAhead = 10_000

const algorithms: ReadonlyArray<Jwk.Algorithm> = ["ES256", "EdDSA"]

/** `Ed25519` is what RFC 9864 calls `EdDSA` on that curve. */
const algorithmOf = (alg: string): string => alg === "Ed25519" ? "EdDSA" : alg

/** Letters, digits and these need no escape, so one may come with and without it (RFC 3986, 6.2.2). */
const unreserved = /^[\w.~-]$/

/** A URL as it is compared: without query and fragment, and with one spelling of everything else. */
export const normalize = (text: string | URL): string | undefined => {
  const url = typeof text === "string" ? URL.parse(text) : text
  if (url?.protocol !== "https:" && url?.protocol !== "http:") return undefined
  const path = url.pathname.replace(/%[\da-f]{2}/gi, (escape) => {
    const character = String.fromCharCode(Number.parseInt(escape.slice(1), 16))
    return unreserved.test(character) ? character : escape.toUpperCase()
  })
  return url.origin + path
}

const refuse = (reason: Refusal.Refusal): Effect.Effect<never, Refusal.ProofRefused> =>
  Effect.fail(new Refusal.ProofRefused({ reason }))

const malformed = (detail: string) => refuse(new Refusal.MalformedProof({ detail }))

const text = (part: Jws.Part, name: string): string | undefined => {
  const value = part[name]
  return typeof value === "string" && value !== "" ? value : undefined
}

/** The scheme of `Authorization`, in lower case, and what follows it. */
const authorizationOf = (value: string | ReadonlyArray<string> | undefined): readonly [string, string] => {
  const header = typeof value === "string" ? value : value?.[0] ?? ""
  const [, scheme = "", credential = ""] = /^([\w-]+) +(\S+)$/.exec(header.trim()) ?? []
  return [scheme.toLowerCase(), credential]
}

/**
 * Checks the proof of a request, in this order; the first that is wrong is the reason:
 *
 * | what | reason |
 * |---|---|
 * | a token that is bound to a key, or comes with a proof, is not sent as `Bearer` | `BearerDowngrade` |
 * | exactly one `DPoP` header | `MissingProof`, `RepeatedProof` |
 * | a JWS of the type `dpop+jwt` with a public key | `MalformedProof` |
 * | `jti`, `htm`, `htu`, `iat`, and `ath` where there is a token | `MissingClaim` |
 * | the algorithm is allowed | `UnsupportedAlgorithm` |
 * | the signature | `BadSignature` |
 * | no private key | `PrivateKeyInProof` |
 * | `htm` is the method, `htu` the URL | `WrongMethod`, `WrongUrl` |
 * | the nonce, where the server wants one; else `iat` within a minute | `NonceRequired`, `WrongTime` |
 * | `jti` was not seen for that URL | `Replayed` |
 * | `ath` is the token's hash | `WrongToken` |
 * | the key is the one that the token or lease is bound to | `WrongKey` |
 * | there is room to remember it | `ReplaysFull` |
 *
 * A proof is remembered once all else is right, so whoever has no token that is bound to their key cannot fill the memory.
 * What is not checked is the token itself: whether it is good, and bound to what, is for the caller to say.
 *
 * **Example** (A handler)
 *
 * ```ts
 * import * as Proof from "effect-lifeline/Proof"
 * import * as Effect from "effect/Effect"
 *
 * export const handler = (replays: Proof.Replays, boundTo: string) => (request: Request) => {
 *   const url = `https://registry.example${new URL(request.url).pathname}`
 *   const headers = Object.fromEntries(request.headers)
 *   return Proof.verify({ method: request.method, url, headers }, { replays, thumbprint: boundTo }).pipe(
 *     Effect.map(() => new Response("hello")),
 *     Effect.catch((refused) => Effect.succeed(new Response(null, Proof.challenge(refused))))
 *   )
 * }
 * ```
 *
 * @category verification
 * @since 0.1.0
 */
export const verify: (
  request: Received,
  options: VerifyOptions
) => Effect.Effect<Verified, Refusal.ProofRefused> = Effect.fnUntraced(
  function*(request: Received, options: VerifyOptions) {
    const { subtle } = yield* WebCrypto
    const [scheme, credential] = authorizationOf(request.headers["authorization"])
    const header = request.headers["dpop"]
    if (scheme === "bearer" && (header !== undefined || options.thumbprint !== undefined)) {
      return yield* refuse(new Refusal.BearerDowngrade())
    }
    const proofs = typeof header === "string" ? header.split(",") : header ?? []
    const proof = proofs[0]?.trim()
    if (proof === undefined) return yield* refuse(new Refusal.MissingProof())
    if (proofs.length > 1 || proof.includes(",")) return yield* refuse(new Refusal.RepeatedProof())

    const parsed = proof.length > longestProof ? undefined : Jws.parse(proof)
    if (parsed === undefined) return yield* malformed("it is not a JWS of three parts, or longer than 8 kB")
    const { header: jose, payload } = parsed
    if (text(jose, "typ")?.toLowerCase() !== "dpop+jwt") return yield* malformed("typ is not dpop+jwt")
    if ("crit" in jose) return yield* malformed("it has critical extensions")
    const alg = text(jose, "alg")
    if (alg === undefined) return yield* malformed("it has no alg")
    const jwk = jose["jwk"]
    if (typeof jwk !== "object" || jwk === null) return yield* malformed("it has no jwk")

    const jti = text(payload, "jti")
    if (jti === undefined || jti.length > longestId) return yield* refuse(new Refusal.MissingClaim({ claim: "jti" }))
    const htm = text(payload, "htm")
    if (htm === undefined) return yield* refuse(new Refusal.MissingClaim({ claim: "htm" }))
    const htu = text(payload, "htu")
    if (htu === undefined) return yield* refuse(new Refusal.MissingClaim({ claim: "htu" }))
    const iat = payload["iat"]
    if (typeof iat !== "number") return yield* refuse(new Refusal.MissingClaim({ claim: "iat" }))
    const token = scheme === "dpop" ? credential : undefined
    const ath = text(payload, "ath")
    if (token !== undefined && ath === undefined) return yield* refuse(new Refusal.MissingClaim({ claim: "ath" }))

    const allowed = options.algorithms ?? algorithms
    const algorithm = allowed.find((candidate) => candidate === algorithmOf(alg))
    const unsupported = () => refuse(new Refusal.UnsupportedAlgorithm({ algorithm: alg.slice(0, 20), allowed }))
    if (algorithm === undefined) return yield* unsupported()
    const publicKey = Jwk.publicJwk(algorithm, { ...jwk })
    if (publicKey === undefined) return yield* malformed(`jwk is not a public key for ${algorithm}`)
    // At once: each is a way to a thread of the platform and back, which takes longer than the work.
    const [key, thumbprint = "", hash] = yield* Effect.promise(() =>
      Promise.all([
        Jwk.importPublic(subtle, algorithm, publicKey).catch(() => undefined),
        Jwk.thumbprint(subtle, { ...publicKey }),
        token === undefined ? undefined : Jwk.sha256(subtle, token)
      ])
    )
    if (key === undefined) return yield* malformed(`jwk is not a public key for ${algorithm}`)
    if (!(yield* Effect.promise(() => Jws.verify(subtle, algorithm, key, parsed).catch(() => false)))) {
      return yield* refuse(new Refusal.BadSignature())
    }
    if (Jwk.isPrivate(jwk)) return yield* refuse(new Refusal.PrivateKeyInProof())

    if (htm !== request.method) return yield* refuse(new Refusal.WrongMethod({ expected: request.method }))
    const expected = normalize(request.url)
    if (expected === undefined || normalize(htu) !== expected) {
      return yield* refuse(new Refusal.WrongUrl({ expected: expected ?? "an absolute http or https URL" }))
    }

    const now = yield* Clock.currentTimeMillis
    const nonce = text(payload, "nonce")
    const maxAge = Duration.toMillis(Duration.fromInputUnsafe(options.maxAge ?? "60 seconds"))
    // By whole seconds: up to the end of the last one it would be accepted again.
    let until = iat * 1000 + maxAge + 1000
    if (options.nonces === undefined) {
      const skew = iat - Math.floor(now / 1000)
      // Not written the other way round: what is not a number is refused.
      if (!(Math.abs(skew) * 1000 <= maxAge)) return yield* refuse(new Refusal.WrongTime({ skew }))
    } else {
      if (nonce === undefined) return yield* refuse(new Refusal.NonceRequired({ had: "none" }))
      if (!(yield* options.nonces.check(nonce))) return yield* refuse(new Refusal.NonceRequired({ had: "another" }))
      until = now + Duration.toMillis(options.nonces.lifetime) + mostAhead + 1
    }

    const id = `${expected} ${jti}`
    if (yield* options.replays.seen(id)) return yield* refuse(new Refusal.Replayed())

    if (hash !== undefined && hash !== ath) return yield* refuse(new Refusal.WrongToken())
    if (options.thumbprint !== undefined && options.thumbprint !== thumbprint) {
      return yield* refuse(new Refusal.WrongKey({ thumbprint }))
    }
    const added = yield* options.replays.add(id, until)
    if (added === "seen") return yield* refuse(new Refusal.Replayed())
    if (added === "full") return yield* refuse(new Refusal.ReplaysFull())
    return {
      algorithm,
      publicKey,
      thumbprint,
      jti,
      issuedAt: iat * 1000,
      nonce,
      token: token === undefined ? undefined : Redacted.make(token)
    }
  }
)

const nowOf = (fiber: Fiber.Fiber<unknown, unknown>): number => fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()

/**
 * Remembers accepted proofs in memory: 11 to 22 bytes each, found in the same time however many there are. One is kept until it
 * could not be accepted again anyway, and at most twice as long. When there is no room, proofs are refused (`ReplaysFull`): to
 * forget one early would let it be replayed.
 *
 * It knows what this process accepted. Where several answer for one URL, each must see what the others accepted (a shared store
 * behind {@link Replays}), or a client must always come to the same one.
 *
 * @category verification
 * @since 0.1.0
 */
export const makeReplays = (options: {
  /** How many it remembers. The default is good for 8,000 requests a second. @default 1,000,000 */
  readonly capacity?: number | undefined
} = {}): Effect.Effect<Replays & { readonly size: Effect.Effect<number> }> =>
  Effect.map(WebCrypto, (crypto) => {
    const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2))
    const generations = Generations.make(options.capacity ?? 1_000_000, [high, low])
    return {
      size: Effect.sync(() => generations.size()),
      seen: (id) => Effect.withFiber((fiber) => Effect.succeed(generations.seen(id, nowOf(fiber)))),
      add: (id, until) => Effect.withFiber((fiber) => Effect.succeed(generations.add(id, until, nowOf(fiber))))
    }
  })

/** Of a nonce, in bytes: when it was issued, and what shows that it is ours. */
const timeSize = 8
const tagSize = 32

/**
 * Nonces that hold the server's time, signed with HMAC-SHA-256: nothing is stored, and all processes with one secret accept
 * each other's. They are no secret, and may be used as often as one likes while they are good.
 *
 * @category verification
 * @since 0.1.0
 */
export const makeNonces = (options: {
  /** 32 random bytes. Absent: some are made, so that a restart invalidates what was issued, which costs clients one request. */
  readonly secret?: Redacted.Redacted<Uint8Array> | undefined
  /** For how long one is good. @default 5 minutes */
  readonly lifetime?: Duration.Input | undefined
} = {}): Effect.Effect<Nonces> =>
  Effect.gen(function*() {
    const crypto = yield* WebCrypto
    const lifetime = Duration.fromInputUnsafe(options.lifetime ?? "5 minutes")
    const millis = Duration.toMillis(lifetime)
    const secret = options.secret === undefined
      ? crypto.getRandomValues(new Uint8Array(32))
      : new Uint8Array(Redacted.value(options.secret))
    const key = yield* Effect.promise(() =>
      crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"])
    )
    const isGood = (time: number, now: number): boolean => now - time <= millis && time - now <= mostAhead
    // The newest, which most answers carry and most requests come with.
    let newest = { nonce: "", time: Number.NEGATIVE_INFINITY }
    const make = (time: number) =>
      Effect.promise(async () => {
        const bytes = new Uint8Array(timeSize + tagSize)
        new DataView(bytes.buffer).setFloat64(0, time)
        bytes.set(new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes.subarray(0, timeSize))), timeSize)
        newest = { nonce: Base64Url.encode(bytes), time }
        return newest.nonce
      })
    return {
      lifetime,
      issue: Effect.flatMap(Clock.currentTimeMillis, (now) =>
        // Ten to a lifetime are enough: each is still good for nine tenths of one.
        Math.abs(now - newest.time) < millis / 10 ? Effect.succeed(newest.nonce) : make(now)),
      check: Effect.fnUntraced(function*(nonce) {
        const now = yield* Clock.currentTimeMillis
        if (nonce === newest.nonce) return isGood(newest.time, now)
        const decoded = Base64Url.decode(nonce)
        if (Result.isFailure(decoded) || decoded.success.length !== timeSize + tagSize) return false
        const bytes = new Uint8Array(decoded.success)
        return isGood(new DataView(bytes.buffer).getFloat64(0), now) &&
          (yield* Effect.promise(() =>
            crypto.subtle.verify("HMAC", key, bytes.subarray(timeSize), bytes.subarray(0, timeSize))
          ))
      })
    }
  })

/**
 * What a server answers to a proof that it refused (RFC 9449, 7.1 and 9): the status and the headers, as `Response` takes them.
 * `nonce` is sent along as `DPoP-Nonce`; after `NonceRequired` there must be one. For pages of other origins all answers need
 * `Access-Control-Expose-Headers: DPoP-Nonce, WWW-Authenticate`.
 *
 * @category verification
 * @since 0.1.0
 */
export const challenge = (
  refused: Refusal.ProofRefused,
  nonce?: string | undefined
): { readonly status: 401 | 503; readonly headers: Record<string, string> } => {
  const { _tag, message } = refused.reason
  const withNonce: Record<string, string> = nonce === undefined ? {} : { "dpop-nonce": nonce }
  if (_tag === "ReplaysFull") return { status: 503, headers: { ...withNonce, "retry-after": "60" } }
  // Whose key it is belongs to the proof (RFC 9449, 4.3, 12b): `invalid_token` would say that another token helps.
  const error = _tag === "NonceRequired" ? "use_dpop_nonce" : "invalid_dpop_proof"
  // What others sent (an algorithm) may be in the message, and a quote would end the value.
  const description = message.replace(/[^\w .,:;/()+-]/g, "?")
  return {
    status: 401,
    headers: {
      ...withNonce,
      "www-authenticate": `DPoP error="${error}", error_description="${description}", algs="${algorithms.join(" ")}"`
    }
  }
}
