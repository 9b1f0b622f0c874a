/**
 * Where key pairs survive a restart.
 *
 * | store | what is kept | who can read the private key |
 * |---|---|---|
 * | `browser/KeyStore` (IndexedDB) | the key itself, as a handle | nobody, not even the page: it can only sign |
 * | {@link layerKeyValueStore} (files, Workers KV, Durable Objects, ...) | PKCS#8, encrypted by the caller's {@link Cipher} | whoever has the store and the cipher's key |
 * | {@link layerMemory} | nothing after the process ends | nobody |
 *
 * In use a private key is not extractable, whatever store it came from.
 *
 * **Example** (A key that stays the same from run to run)
 *
 * ```ts
 * import * as KeyStore from "effect-lifeline/KeyStore"
 * import * as Effect from "effect/Effect"
 *
 * export const program = Effect.gen(function*() {
 *   const key = yield* KeyStore.getOrGenerate("device")
 *   yield* Effect.log(`leases are bound to ${key.thumbprint}`)
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import type * as Cipher from "./Cipher.ts"
import * as ProofKey from "./internal/proofKey.ts"

/**
 * The port.
 *
 * @category services
 * @since 0.1.0
 */
export class KeyStore extends Context.Service<KeyStore, {
  /** Whether it keeps bytes, and so needs private keys that are extractable when they are put. */
  readonly extractable: boolean
  /** The key of that name; `undefined`: there is none. */
  readonly get: (name: string) => Effect.Effect<ProofKey.KeyPair | undefined, ProofKey.KeyError>
  /** Keeps a key unless there is one of that name, and gives the one that is there now: of two at once, both get the same. */
  readonly put: (name: string, key: ProofKey.KeyPair) => Effect.Effect<ProofKey.KeyPair, ProofKey.KeyError>
  /** What was bound to the key is lost. */
  readonly remove: (name: string) => Effect.Effect<void, ProofKey.KeyError>
}>()("effect-lifeline/KeyStore/KeyStore") {}

/**
 * The key of that name; where there is none yet, one is made as `Proof.generateKey` does, and kept. A stored key that cannot be
 * read is an error (`Unreadable`) and stays: a new one in its place would lose all that is bound to it.
 *
 * @category accessors
 * @since 0.1.0
 */
export const getOrGenerate = Effect.fnUntraced(function*(
  name: string,
  options: Pick<ProofKey.KeyOptions, "algorithm"> = {}
): Effect.fn.Return<ProofKey.KeyPair, ProofKey.KeyError, KeyStore> {
  const store = yield* KeyStore
  const found = yield* store.get(name)
  if (found !== undefined) return found
  return yield* store.put(name, yield* ProofKey.generateKey({ ...options, extractable: store.extractable }))
})

/**
 * Keys until the process ends.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<KeyStore> = Layer.sync(KeyStore, () => {
  const keys = new Map<string, ProofKey.KeyPair>()
  return {
    extractable: false,
    get: (name) => Effect.sync(() => keys.get(name)),
    put: (name, key) =>
      Effect.sync(() => {
        const kept = keys.get(name) ?? key
        keys.set(name, kept)
        return kept
      }),
    remove: (name) => Effect.sync(() => void keys.delete(name))
  }
})

/**
 * How keys are kept in a `KeyValueStore`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What encrypts the private key, e.g. `Cipher.aesGcm(key)`. */
  readonly cipher: Cipher.Cipher
  /** Before the name of a key, in the store. @default "proof-key/" */
  readonly prefix?: string | undefined
}

const Record = Schema.fromJsonString(Schema.Struct({
  version: Schema.Literal(1),
  algorithm: Schema.Literals(["ES256", "EdDSA"]),
  pkcs8: Schema.String
}))

const decodeRecord = Schema.decodeEffect(Record)

const encodeRecord = Schema.encodeSync(Record)

/**
 * Keys as PKCS#8 in a `KeyValueStore`, encrypted. Two fibers that make a key of one name at the same time get the same one; two
 * processes may not, since a `KeyValueStore` cannot write only what is absent: let one of them make it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKeyValueStore: (
  options: Options
) => Effect.Effect<KeyStore["Service"], never, KeyValueStore.KeyValueStore> = Effect.fnUntraced(
  function*({ cipher, prefix = "proof-key/" }: Options) {
    const store = yield* KeyValueStore.KeyValueStore
    const one = yield* Semaphore.make(1)
    const failed = (operation: string) => (error: KeyValueStore.KeyValueStoreError) =>
      ProofKey.fail(operation, new ProofKey.StoreFailed({ detail: error.message }), error)
    const unreadable = (operation: string, detail: string, cause?: unknown) =>
      ProofKey.fail(operation, new ProofKey.Unreadable({ detail }), cause)
    // What the record is, and whose: neither can be exchanged for another one.
    const contextOf = (name: string, algorithm: string) => `effect-lifeline proof key ${algorithm} ${name}`

    const get = Effect.fnUntraced(function*(name: string) {
      const text = yield* Effect.mapError(store.get(prefix + name), failed("get"))
      if (text === undefined) return undefined
      // Without the cause, whose message would quote the record.
      const { algorithm, pkcs8 } = yield* Effect.mapError(
        decodeRecord(text),
        () => unreadable("get", `the record ${prefix}${name} is not one of this version`)
      )
      const sealed = yield* Effect.mapError(
        Effect.fromResult(Base64.decode(pkcs8)),
        () => unreadable("get", `the record ${prefix}${name} is damaged`)
      )
      const plain = yield* Effect.mapError(
        cipher.decrypt(sealed, contextOf(name, algorithm)),
        (error) => unreadable("get", error.message, error)
      )
      return yield* Effect.mapError(
        ProofKey.fromPkcs8(algorithm, Redacted.make(plain)),
        (error) => unreadable("get", error.message, error)
      )
    })
    const put = Effect.fnUntraced(function*(name: string, key: ProofKey.KeyPair) {
      const there = yield* get(name)
      if (there !== undefined) return there
      const pkcs8 = yield* ProofKey.toPkcs8(key)
      const sealed = yield* Effect.mapError(
        cipher.encrypt(Redacted.value(pkcs8), contextOf(name, key.algorithm)),
        (error) => ProofKey.fail("put", new ProofKey.StoreFailed({ detail: error.message }), error)
      )
      const record = encodeRecord({ version: 1, algorithm: key.algorithm, pkcs8: Base64.encode(sealed) })
      yield* Effect.mapError(store.set(prefix + name, record), failed("put"))
      return yield* ProofKey.fromPkcs8(key.algorithm, pkcs8)
    })
    return {
      extractable: true,
      get,
      put: (name, key) => one.withPermits(1)(put(name, key)),
      remove: (name) => Effect.mapError(store.remove(prefix + name), failed("remove"))
    }
  }
)

/**
 * {@link makeKeyValueStore} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKeyValueStore = (
  options: Options
): Layer.Layer<KeyStore, never, KeyValueStore.KeyValueStore> => Layer.effect(KeyStore, makeKeyValueStore(options))
