/**
 * How what is kept in a store is encrypted: keys ({@link KeyStore}) and tokens. A caller brings its own (a keychain, a KMS), or
 * takes {@link aesGcm}, which needs nothing but WebCrypto.
 *
 * What is encrypted is bound to its place: `context` is authenticated with it, so that a record moved to another name, or taken
 * for something else, does not decrypt.
 *
 * **Example** (Keys in files, encrypted)
 *
 * ```ts
 * import * as Cipher from "effect-lifeline/Cipher"
 * import * as KeyStore from "effect-lifeline/KeyStore"
 * import * as FileStore from "effect-lifeline/node/FileStore"
 * import * as Layer from "effect/Layer"
 * import type * as Redacted from "effect/Redacted"
 *
 * // 32 random bytes that the program is given, e.g. by the system's keychain.
 * declare const key: Redacted.Redacted<Uint8Array>
 *
 * export const keys = KeyStore.layerKeyValueStore({ cipher: Cipher.aesGcm(key) }).pipe(
 *   Layer.provide(FileStore.layer({ directory: "state" }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

/**
 * Something could not be encrypted, or not decrypted: another key, another context, or altered bytes. Which of them, AES-GCM
 * does not tell.
 *
 * @category errors
 * @since 0.1.0
 */
export class CipherError extends Data.TaggedError("CipherError")<{
  readonly operation: "encrypt" | "decrypt"
  /** What is wrong, and never what was encrypted. */
  readonly detail: string
  readonly cause?: Error | undefined
}> {
  override get message() {
    return `${this.operation}: ${this.detail}`
  }
  /** All but the cause, which is the platform's. */
  override toJSON() {
    return { _tag: this._tag, operation: this.operation, detail: this.detail, message: this.message }
  }
}

/**
 * A cipher. `decrypt` takes what `encrypt` gave, with the same `context`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cipher {
  readonly encrypt: (plain: Uint8Array, context: string) => Effect.Effect<Uint8Array, CipherError>
  readonly decrypt: (sealed: Uint8Array, context: string) => Effect.Effect<Uint8Array, CipherError>
}

/** Before the nonce, so that another form can be told from this one. */
const version = 1

/** Of AES-GCM, in bytes. */
const nonceSize = 12

/** Of AES-GCM, in bytes. */
const tagSize = 16

const encoder = new TextEncoder()

const failed = (operation: "encrypt" | "decrypt", detail: string, cause?: unknown): CipherError =>
  new CipherError(cause instanceof Error ? { operation, detail, cause } : { operation, detail })

/**
 * AES-GCM through WebCrypto, with a key of 16 or 32 random bytes, or a `CryptoKey`. A nonce is 12 random bytes: fine for what is
 * written now and then, not for billions of records under one key. A key of another length is a `CipherError` of the first use.
 *
 * @category constructors
 * @since 0.1.0
 */
export const aesGcm = (key: Redacted.Redacted<Uint8Array> | CryptoKey): Cipher => {
  const run = (
    operation: "encrypt" | "decrypt",
    detail: string,
    f: (crypto: Crypto, key: CryptoKey) => Promise<ArrayBuffer | Uint8Array>
  ): Effect.Effect<Uint8Array, CipherError> =>
    WebCrypto.use((crypto: Crypto | undefined) =>
      crypto?.subtle === undefined
        ? Effect.fail(failed(operation, "crypto.subtle is missing; browsers have it in secure contexts only"))
        : Effect.tryPromise({
          try: async () => {
            const imported = Redacted.isRedacted(key)
              ? await crypto.subtle.importKey("raw", new Uint8Array(Redacted.value(key)), "AES-GCM", false, [operation])
              : key
            return new Uint8Array(await f(crypto, imported))
          },
          catch: (cause) => failed(operation, detail, cause)
        })
    )
  return {
    encrypt: (plain, context) =>
      run("encrypt", "a key of 16 or 32 bytes that may encrypt is needed", async (crypto, key) => {
        const iv = crypto.getRandomValues(new Uint8Array(nonceSize))
        const parameters = { name: "AES-GCM", iv, additionalData: encoder.encode(context) }
        const sealed = new Uint8Array(await crypto.subtle.encrypt(parameters, key, new Uint8Array(plain)))
        const all = new Uint8Array(1 + nonceSize + sealed.length)
        all[0] = version
        all.set(iv, 1)
        all.set(sealed, 1 + nonceSize)
        return all
      }),
    decrypt: (sealed, context) =>
      sealed[0] !== version || sealed.length < 1 + nonceSize + tagSize
        ? Effect.fail(failed("decrypt", "it was not encrypted by this cipher"))
        : run("decrypt", "the key or the place is another one, or the bytes were altered", (crypto, key) => {
          const iv = new Uint8Array(sealed.subarray(1, 1 + nonceSize))
          const parameters = { name: "AES-GCM", iv, additionalData: encoder.encode(context) }
          return crypto.subtle.decrypt(parameters, key, new Uint8Array(sealed.subarray(1 + nonceSize)))
        })
  }
}

/**
 * No encryption: for stores that only their owner can read, e.g. `node/FileStore`. Whoever reads the store has the key.
 *
 * @category constructors
 * @since 0.1.0
 */
export const none: Cipher = { encrypt: Effect.succeed, decrypt: Effect.succeed }
