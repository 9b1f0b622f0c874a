/**
 * Key pairs to prove possession with, and how one is made. Public as members of `Proof`.
 */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as Redacted from "effect/Redacted"
import * as Jwk from "./jwk.ts"

/**
 * This runtime cannot do that. `detail` says what is missing.
 *
 * @category key errors
 * @since 0.1.0
 */
export class Unsupported extends Data.TaggedError("Unsupported")<{ readonly detail: string }> {
  override get message() {
    return `not supported here: ${this.detail}`
  }
}

/**
 * What was given is not such a key. `detail` says what was expected.
 *
 * @category key errors
 * @since 0.1.0
 */
export class InvalidKey extends Data.TaggedError("InvalidKey")<{ readonly detail: string }> {
  override get message() {
    return `not a usable key: ${this.detail}`
  }
}

/**
 * The private key cannot leave the runtime, and the store keeps only what can.
 *
 * @category key errors
 * @since 0.1.0
 */
export class NotExtractable extends Data.TaggedError("NotExtractable") {
  override get message() {
    return "the private key is not extractable, which this store needs; let KeyStore.getOrGenerate make the key"
  }
}

/**
 * There is a stored key, and it cannot be read: another cipher, another key of it, or a damaged record. It is left as it is.
 *
 * @category key errors
 * @since 0.1.0
 */
export class Unreadable extends Data.TaggedError("Unreadable")<{ readonly detail: string }> {
  override get message() {
    return `the stored key cannot be read: ${this.detail}; give the cipher that it was stored with, or remove it: ` +
      "what was bound to it is lost then"
  }
}

/**
 * The store itself failed.
 *
 * @category key errors
 * @since 0.1.0
 */
export class StoreFailed extends Data.TaggedError("StoreFailed")<{ readonly detail: string }> {
  override get message() {
    return `the store failed: ${this.detail}`
  }
}

/**
 * What can be wrong with a key.
 *
 * @category key errors
 * @since 0.1.0
 */
export type KeyErrorReason = Unsupported | InvalidKey | NotExtractable | Unreadable | StoreFailed

/**
 * A key could not be made, read or kept. It never holds key material.
 *
 * @category key errors
 * @since 0.1.0
 */
export class KeyError extends Data.TaggedError("KeyError")<{
  /** What was tried, e.g. `"generateKey"`. */
  readonly operation: string
  readonly reason: KeyErrorReason
  readonly cause?: Error | undefined
}> {
  override get message() {
    return `${this.operation}: ${this.reason.message}`
  }
  /** All but the cause, which is the platform's. */
  override toJSON() {
    return { _tag: this._tag, operation: this.operation, reason: this.reason, message: this.message }
  }
}

export const fail = (operation: string, reason: KeyErrorReason, cause?: unknown): KeyError =>
  new KeyError(cause instanceof Error ? { operation, reason, cause } : { operation, reason })

/** `crypto.subtle`, which browsers have only in secure contexts. */
export const subtleOf = (operation: string, crypto: Crypto | undefined): Effect.Effect<SubtleCrypto, KeyError> =>
  crypto?.subtle === undefined
    ? Effect.fail(
      fail(
        operation,
        new Unsupported({
          detail: "crypto.subtle is missing; browsers have it in secure contexts only (https, or localhost)"
        })
      )
    )
    : Effect.succeed(crypto.subtle)

/** Runs what the platform may refuse. */
export const withSubtle = <A>(
  operation: string,
  reason: () => KeyErrorReason,
  f: (subtle: SubtleCrypto) => Promise<A>
): Effect.Effect<A, KeyError> =>
  Effect.flatMap(
    WebCrypto.use((crypto) => subtleOf(operation, crypto)),
    (subtle) =>
      Effect.tryPromise({
        try: () => f(subtle),
        catch: (cause) => cause instanceof KeyError ? cause : fail(operation, reason(), cause)
      })
  )

/**
 * A key pair to prove possession with. What is shown of it is its algorithm and its thumbprint, never the private key.
 *
 * @category models
 * @since 0.1.0
 */
export class KeyPair extends Inspectable.Class {
  readonly algorithm: Jwk.Algorithm
  readonly publicKey: Jwk.PublicJwk
  /** RFC 7638, SHA-256, base64url: what a token (`cnf.jkt`) or a lease is bound to. */
  readonly thumbprint: string
  readonly #privateKey: CryptoKey

  constructor(algorithm: Jwk.Algorithm, publicKey: Jwk.PublicJwk, thumbprint: string, privateKey: CryptoKey) {
    super()
    this.algorithm = algorithm
    this.publicKey = publicKey
    this.thumbprint = thumbprint
    this.#privateKey = privateKey
  }

  /** To sign with, and for stores. */
  get privateKey(): CryptoKey {
    return this.#privateKey
  }

  toJSON() {
    return { _id: "effect-lifeline/Proof/KeyPair", algorithm: this.algorithm, thumbprint: this.thumbprint }
  }
}

const algorithmOf = (key: CryptoKey): Jwk.Algorithm | undefined =>
  key.algorithm.name === "Ed25519"
    ? "EdDSA"
    : key.algorithm.name === "ECDSA" && (key.algorithm as EcKeyAlgorithm).namedCurve === "P-256"
    ? "ES256"
    : undefined

const expected = () =>
  new InvalidKey({ detail: "a key pair on P-256 (ECDSA) or of Ed25519, to sign with, is expected" })

/** A pair whose private key the platform holds already. */
export const make = async (
  operation: string,
  subtle: SubtleCrypto,
  privateKey: CryptoKey,
  jwk: Readonly<Record<string, unknown>>
): Promise<KeyPair> => {
  const algorithm = algorithmOf(privateKey)
  const publicKey = algorithm === undefined ? undefined : Jwk.publicJwk(algorithm, jwk)
  if (algorithm === undefined || publicKey === undefined || !privateKey.usages.includes("sign")) {
    throw fail(operation, expected())
  }
  return new KeyPair(algorithm, publicKey, await Jwk.thumbprint(subtle, { ...publicKey }) ?? "", privateKey)
}

/**
 * A pair of keys that the platform made or imported. The public one must be extractable, the private one need not be.
 *
 * @category keys
 * @since 0.1.0
 */
export const fromCryptoKeys = (
  keys: { readonly privateKey: CryptoKey; readonly publicKey: CryptoKey }
): Effect.Effect<KeyPair, KeyError> =>
  withSubtle(
    "fromCryptoKeys",
    expected,
    async (subtle) =>
      make("fromCryptoKeys", subtle, keys.privateKey, { ...await subtle.exportKey("jwk", keys.publicKey) })
  )

/**
 * A private key as PKCS#8, made elsewhere or kept encrypted. In use it is not extractable.
 *
 * @category keys
 * @since 0.1.0
 */
export const fromPkcs8 = (
  algorithm: Jwk.Algorithm,
  bytes: Redacted.Redacted<Uint8Array>
): Effect.Effect<KeyPair, KeyError> =>
  withSubtle("fromPkcs8", () => new InvalidKey({ detail: `${algorithm} as PKCS#8 is expected` }), async (subtle) => {
    const { key } = Jwk.kinds[algorithm]
    const pkcs8 = new Uint8Array(Redacted.value(bytes))
    // Only of an extractable key the platform says which public key belongs to it.
    const readable = await subtle.importKey("pkcs8", pkcs8, key, true, ["sign"])
    const jwk = await subtle.exportKey("jwk", readable)
    const privateKey = await subtle.importKey("pkcs8", pkcs8, key, false, ["sign"])
    pkcs8.fill(0)
    return make("fromPkcs8", subtle, privateKey, { ...jwk })
  })

/** The private key as PKCS#8. */
export const toPkcs8 = (pair: KeyPair): Effect.Effect<Redacted.Redacted<Uint8Array<ArrayBuffer>>, KeyError> =>
  pair.privateKey.extractable
    ? withSubtle(
      "toPkcs8",
      () => new NotExtractable(),
      async (subtle) => Redacted.make(new Uint8Array(await subtle.exportKey("pkcs8", pair.privateKey)))
    )
    : Effect.fail(fail("toPkcs8", new NotExtractable()))

/**
 * How a key is made.
 *
 * @category keys
 * @since 0.1.0
 */
export interface KeyOptions {
  /**
   * Absent: Ed25519 (`"EdDSA"`) where the runtime has it, else P-256 (`"ES256"`). Set it to `"ES256"` for servers that take
   * nothing else.
   */
  readonly algorithm?: Jwk.Algorithm | undefined
  /** Whether the private key can be exported. Stores that keep bytes need it; nothing else does. @default false */
  readonly extractable?: boolean | undefined
}

/**
 * Makes a key pair. It fails with `KeyError` (`Unsupported`) where the runtime has no WebCrypto, or not that algorithm.
 *
 * @category keys
 * @since 0.1.0
 */
export const generateKey = (options: KeyOptions = {}): Effect.Effect<KeyPair, KeyError> => {
  const generate = (algorithm: Jwk.Algorithm) =>
    withSubtle(
      "generateKey",
      () => new Unsupported({ detail: `this runtime does not make ${algorithm} keys` }),
      async (subtle) => {
        const pair = await subtle.generateKey(Jwk.kinds[algorithm].key, options.extractable ?? false, [
          "sign",
          "verify"
        ])
        if (!("privateKey" in pair)) throw fail("generateKey", expected())
        return make("generateKey", subtle, pair.privateKey, { ...await subtle.exportKey("jwk", pair.publicKey) })
      }
    )
  return options.algorithm === undefined
    ? Effect.catch(generate("EdDSA"), () => generate("ES256"))
    : generate(options.algorithm)
}

/**
 * The thumbprint of a public key (RFC 7638, SHA-256, base64url): of P-256, Ed25519 and RSA keys. Private members do not count.
 *
 * @category keys
 * @since 0.1.0
 */
export const thumbprint = (jwk: object): Effect.Effect<string, KeyError> => {
  const reason = () => new InvalidKey({ detail: "a JSON Web Key with all members of its kind is expected" })
  return Effect.flatMap(
    withSubtle("thumbprint", reason, (subtle) => Jwk.thumbprint(subtle, { ...jwk })),
    (found) => found === undefined ? Effect.fail(fail("thumbprint", reason())) : Effect.succeed(found)
  )
}
