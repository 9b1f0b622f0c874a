/**
 * Key pairs in IndexedDB: a browser keeps the key itself, so that a page can sign with it after a restart, and neither it nor a
 * script that was smuggled into it can read it. Of tabs that make a key of one name at the same time, all get the same.
 *
 * Keys are those of an origin: they go when its storage is cleared, and a private window has none for long. Where the browser
 * refuses storage, every call fails with `StoreFailed`; without IndexedDB, with `Unsupported`.
 *
 * **Example** (Proofs with a key that a page cannot read)
 *
 * ```ts
 * import * as BrowserKeyStore from "effect-lifeline/browser/KeyStore"
 * import * as Proof from "effect-lifeline/Proof"
 * import * as Layer from "effect/Layer"
 *
 * export const proofs = Proof.layerDpopStored({ name: "device" }).pipe(Layer.provide(BrowserKeyStore.layer()))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ProofKey from "../internal/proofKey.ts"
import * as KeyStore from "../KeyStore.ts"

/**
 * Where the keys are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The name of the database. @default "effect-lifeline" */
  readonly database?: string | undefined
}

const version = 1
const keys = "proof-keys"

/** What is kept; the key as a handle, which a structured clone of it stays. */
interface Entry {
  readonly privateKey: CryptoKey
  readonly publicKey: ProofKey.KeyPair["publicKey"]
}

const isEntry = (value: unknown): value is Entry =>
  typeof value === "object" && value !== null && "privateKey" in value && "publicKey" in value &&
  value.privateKey instanceof CryptoKey && typeof value.publicKey === "object" && value.publicKey !== null

const settled = <A>(request: IDBRequest<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result))
    request.addEventListener("error", () => reject(request.error))
  })

const open = (name: string): Promise<IDBDatabase> => {
  const request = indexedDB.open(name, version)
  request.addEventListener("upgradeneeded", () => void request.result.createObjectStore(keys))
  return settled(request)
}

/**
 * The store.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ database = "effect-lifeline" }: Options = {}): KeyStore.KeyStore["Service"] => {
  const use = <A>(
    operation: string,
    mode: IDBTransactionMode,
    f: (store: IDBObjectStore) => Promise<A>
  ): Effect.Effect<A, ProofKey.KeyError> =>
    typeof indexedDB === "undefined"
      ? Effect.fail(ProofKey.fail(operation, new ProofKey.Unsupported({ detail: "there is no IndexedDB" })))
      : Effect.tryPromise({
        try: async () => {
          const opened = await open(database)
          try {
            const transaction = opened.transaction(keys, mode)
            const done = new Promise<void>((resolve, reject) => {
              transaction.addEventListener("complete", () => resolve())
              transaction.addEventListener("abort", () => reject(transaction.error))
            })
            const [result] = await Promise.all([f(transaction.objectStore(keys)), done])
            return result
          } finally {
            opened.close()
          }
        },
        catch: (cause) => {
          const detail = `IndexedDB ${database}: ${cause instanceof Error ? cause.name : "failed"}`
          return ProofKey.fail(operation, new ProofKey.StoreFailed({ detail }), cause)
        }
      })
  const toPair = (
    operation: string,
    entry: unknown
  ): Effect.Effect<ProofKey.KeyPair | undefined, ProofKey.KeyError> => {
    if (entry === undefined) return Effect.succeed(undefined)
    const reason = () => new ProofKey.Unreadable({ detail: `the entry in ${database} is not one of this version` })
    return isEntry(entry)
      ? ProofKey.withSubtle(
        operation,
        reason,
        (subtle) => ProofKey.make(operation, subtle, entry.privateKey, { ...entry.publicKey })
      )
      : Effect.fail(ProofKey.fail(operation, reason()))
  }
  return {
    extractable: false,
    get: (name) =>
      Effect.flatMap(
        use("get", "readonly", (store) => settled<unknown>(store.get(name))),
        (entry) => toPair("get", entry)
      ),
    put: (name, key) =>
      Effect.flatMap(
        use("put", "readwrite", async (store) => {
          // One transaction: nobody else writes between.
          const there = await settled<unknown>(store.get(name))
          if (there !== undefined) return there
          const entry: Entry = { privateKey: key.privateKey, publicKey: key.publicKey }
          await settled(store.put(entry, name))
          return undefined
        }),
        (there) => Effect.map(toPair("put", there), (pair) => pair ?? key)
      ),
    remove: (name) => use("remove", "readwrite", (store) => settled(store.delete(name)))
  }
}

/**
 * {@link make} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<KeyStore.KeyStore> =>
  Layer.sync(KeyStore.KeyStore, () => make(options))
