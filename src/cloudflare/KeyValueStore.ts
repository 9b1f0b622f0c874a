/**
 * Cloudflare's storage as a `KeyValueStore`: a KV namespace ({@link layerKV}) or the storage of a Durable Object
 * ({@link layerDurableObject}). The bindings are described by their shape, so that this depends on no package of
 * Cloudflare's.
 *
 * | | KV namespace | Durable Object |
 * |---|---|---|
 * | reads | may be up to a minute old elsewhere than where it was written | always the last write |
 * | writes | one per second and key, the last one wins | transactional; `modify` is atomic |
 * | key | 512 bytes, but not `.` or `..` | with its value 2 MB; with the key-value backend 2048 bytes |
 * | value | 25 MiB | with its key 2 MB; with the key-value backend 128 KiB |
 * | binary | kept as base64 | kept as it is |
 *
 * Whatever the platform refuses is a `KeyValueStoreError` with its error as cause. Listing and clearing go page by page, at
 * most {@link mostPages} pages, since an invocation may make a limited number of calls: what is larger is an error, not an
 * endless loop. `clear` removes entries only: an alarm or a table of the Durable Object stays.
 *
 * **Example** (A store of its own inside a shared namespace)
 *
 * ```ts
 * import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 *
 * export const layer = (namespace: Cloudflare.Namespace) =>
 *   Layer.effect(
 *     KeyValueStore.KeyValueStore,
 *     Effect.map(KeyValueStore.KeyValueStore, (store) => KeyValueStore.prefix(store, "resizer/"))
 *   ).pipe(Layer.provide(Cloudflare.layerKV(namespace)))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"

/**
 * What is needed of a KV namespace: the binding in `env` is one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Namespace {
  readonly get: (key: string) => Promise<string | null>
  readonly put: (key: string, value: string) => Promise<void>
  readonly delete: (key: string) => Promise<void>
  readonly list: (options: { readonly prefix?: string; readonly cursor?: string }) => Promise<{
    readonly keys: ReadonlyArray<{ readonly name: string }>
    readonly list_complete: boolean
    readonly cursor?: string
  }>
}

/**
 * What is needed of a Durable Object's storage inside of a transaction.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transaction {
  get(key: string): Promise<unknown>
  put(key: string, value: unknown): Promise<void>
}

/**
 * What is needed of a Durable Object's storage: `ctx.storage` is one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Storage extends Transaction {
  delete(keys: Array<string>): Promise<number>
  list(options: {
    readonly prefix?: string
    readonly startAfter?: string
    readonly limit?: number
  }): Promise<ReadonlyMap<string, unknown>>
  transaction<A>(f: (transaction: Transaction) => Promise<A>): Promise<A>
}

/**
 * How many pages `keys`, `size` and `clear` read at most: of a KV namespace 1000 keys each, of a Durable Object 128.
 *
 * @category constants
 * @since 0.1.0
 */
export const mostPages = 100

type Failed = KeyValueStore.KeyValueStoreError

const attempt = <A>(
  what: string,
  method: string,
  key: string | undefined,
  f: () => Promise<A>
): Effect.Effect<A, Failed> =>
  Effect.tryPromise({
    try: f,
    catch: (cause) =>
      new KeyValueStore.KeyValueStoreError({
        method,
        message: `${what}: ${method}${key === undefined ? "" : ` of ${key}`} failed`,
        ...(key === undefined ? {} : { key }),
        cause
      })
  })

interface Page {
  readonly keys: ReadonlyArray<string>
  /** Where the next page begins; `undefined`: this was the last. */
  readonly next: string | undefined
}

/** Gives each page to `use`, as long as there are not too many. */
const eachPage = Effect.fnUntraced(function*(
  what: string,
  method: string,
  read: (from: string | undefined) => Effect.Effect<Page, Failed>,
  use: (keys: ReadonlyArray<string>) => Effect.Effect<void, Failed>
): Effect.fn.Return<void, Failed> {
  let from: string | undefined
  for (let pages = 0; pages < mostPages; pages++) {
    const page: Page = yield* read(from)
    yield* use(page.keys)
    from = page.next
    if (from === undefined) return
  }
  return yield* new KeyValueStore.KeyValueStoreError({
    method,
    message: `${what}: ${method} stopped after ${mostPages} pages of keys; keep less in one place, or use a prefix`
  })
})

/** `keys` and `size` of a store that is listed page by page. */
const listing = (what: string, read: (from: string | undefined) => Effect.Effect<Page, Failed>) => {
  const collect = (method: string): Effect.Effect<Array<string>, Failed> =>
    Effect.suspend(() => {
      const all: Array<string> = []
      return Effect.as(eachPage(what, method, read, (keys) => Effect.sync(() => all.push(...keys))), all)
    })
  return { keys: collect("keys"), size: Effect.map(collect("size"), ({ length }) => length) }
}

/**
 * A KV namespace as a store.
 *
 * **Example** (In a Worker)
 *
 * ```ts
 * import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
 *
 * export const store = (env: { readonly KV: Cloudflare.Namespace }) => Cloudflare.makeKV(env.KV)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKV = (namespace: Namespace): KeyValueStore.KeyValueStore => {
  const what = "Cloudflare KV"
  const page = (prefix: string | undefined) => (cursor: string | undefined): Effect.Effect<Page, Failed> =>
    Effect.map(
      attempt(what, "list", undefined, () =>
        namespace.list({ ...(prefix === undefined ? {} : { prefix }), ...(cursor === undefined ? {} : { cursor }) })),
      (list) => ({
        keys: list.keys.map(({ name }) =>
          name
        ),
        next: list.list_complete ? undefined : list.cursor
      })
    )
  const remove = (key: string) => attempt(what, "remove", key, () => namespace.delete(key))
  const clear = (method: string, prefix?: string) =>
    // More than six calls at once wait for each other in a Worker anyway.
    eachPage(what, method, page(prefix), (keys) => Effect.forEach(keys, remove, { concurrency: 6, discard: true }))
  return KeyValueStore.makeStringOnly({
    get: (key) => Effect.map(attempt(what, "get", key, () => namespace.get(key)), (value) => value ?? undefined),
    set: (key, value) => attempt(what, "set", key, () => namespace.put(key, value)),
    remove,
    clear: clear("clear"),
    clearPrefix: (prefix) => clear("clearPrefix", prefix),
    ...listing(what, page(undefined))
  })
}

/**
 * {@link makeKV} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKV = (namespace: Namespace): Layer.Layer<KeyValueStore.KeyValueStore> =>
  Layer.succeed(KeyValueStore.KeyValueStore, makeKV(namespace))

/** As many keys as one `delete` of a Durable Object takes. */
const batch = 128

const encoder = new TextEncoder()

const toText = (value: unknown): string | undefined =>
  typeof value === "string" ? value : value instanceof Uint8Array ? Base64.encode(value) : undefined

const toBytes = (value: unknown): Uint8Array | undefined =>
  value instanceof Uint8Array ? value : typeof value === "string" ? encoder.encode(value) : undefined

/**
 * The storage of a Durable Object as a store. Entries that are neither text nor bytes are somebody else's, and count as
 * absent for `get`.
 *
 * **Example** (In a Durable Object)
 *
 * ```ts
 * import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
 *
 * export const store = (ctx: { readonly storage: Cloudflare.Storage }) => Cloudflare.makeDurableObject(ctx.storage)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeDurableObject = (storage: Storage): KeyValueStore.KeyValueStore => {
  const what = "Durable Object storage"
  const page = (prefix: string | undefined) => (startAfter: string | undefined): Effect.Effect<Page, Failed> =>
    Effect.map(
      attempt(what, "list", undefined, () =>
        storage.list({
          limit: batch,
          ...(prefix === undefined ? {} : { prefix }),
          ...(startAfter === undefined ? {} : { startAfter })
        })),
      (entries) => {
        const keys = [...entries.keys()]
        return { keys, next: keys.length < batch ? undefined : keys.at(-1) }
      }
    )
  const clear = (method: string, prefix?: string) =>
    eachPage(
      what,
      method,
      page(prefix),
      (keys) =>
        keys.length === 0
          ? Effect.void
          : Effect.asVoid(attempt(what, method, undefined, () => storage.delete([...keys])))
    )
  const modify = <A>(
    method: string,
    key: string,
    read: (value: unknown) => A | undefined,
    f: (value: A) => A
  ): Effect.Effect<A | undefined, Failed> =>
    attempt(what, method, key, () =>
      storage.transaction(async (transaction) => {
        const value = read(await transaction.get(key))
        if (value === undefined) return undefined
        const next = f(value)
        await transaction.put(key, next)
        return next
      }))
  return KeyValueStore.make({
    get: (key) => Effect.map(attempt(what, "get", key, () => storage.get(key)), toText),
    getUint8Array: (key) => Effect.map(attempt(what, "getUint8Array", key, () => storage.get(key)), toBytes),
    set: (key, value) => attempt(what, "set", key, () => storage.put(key, value)),
    remove: (key) => Effect.asVoid(attempt(what, "remove", key, () => storage.delete([key]))),
    modify: (key, f) => modify("modify", key, toText, f),
    modifyUint8Array: (key, f) => modify("modifyUint8Array", key, toBytes, f),
    clear: clear("clear"),
    clearPrefix: (prefix) => clear("clearPrefix", prefix),
    ...listing(what, page(undefined))
  })
}

/**
 * {@link makeDurableObject} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDurableObject = (storage: Storage): Layer.Layer<KeyValueStore.KeyValueStore> =>
  Layer.succeed(KeyValueStore.KeyValueStore, makeDurableObject(storage))
