/**
 * What the embedded registry keeps, and where: a port with few methods, one implementation in memory and one over any
 * `KeyValueStore` (files on Node, Durable Object storage on Workers).
 *
 * The registry answers reads from memory and asks its store twice only: `load` when it starts, `save` or `remove` **before**
 * it answers a change. So a registration that was answered with 201 is in the store, whatever happens to the process.
 * Heartbeats are not stored: the time of the last one only matters while the registry runs.
 *
 * Documents hold the API keys that services share with their peers, in clear text: whoever can read the store can read
 * them. Where the registry gives leases, the secret that signs their tokens is among the documents, and no token is.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import { issuesOf } from "../internal/issues.ts"
import { showIssues } from "../internal/showIssues.ts"

/**
 * A registered service. Times are milliseconds since 1970, `metadata` is JSON text.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Service = Schema.TaggedStruct("Service", {
  id: Schema.String,
  name: Schema.String,
  type: Schema.String,
  apiUrl: Schema.String,
  apiKey: Schema.optionalKey(Schema.RedactedFromValue(Schema.String)),
  healthUrl: Schema.optionalKey(Schema.String),
  version: Schema.optionalKey(Schema.String),
  capabilities: Schema.Array(Schema.String),
  metadata: Schema.String,
  status: Schema.Literals(["online", "offline", "degraded", "unknown"]),
  lastSeen: Schema.Number,
  registeredAt: Schema.Number
})

/**
 * A registered service, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type Service = typeof Service.Type

/**
 * A download client: made from a service of type `download-client`, then kept up to date with it. `password` is for the
 * registry's own use: no route lists it.
 *
 * @category schemas
 * @since 0.1.0
 */
export const DownloadClient = Schema.TaggedStruct("DownloadClient", {
  id: Schema.String,
  name: Schema.String,
  kind: Schema.String,
  protocol: Schema.String,
  enabled: Schema.Boolean,
  priority: Schema.Number,
  host: Schema.String,
  port: Schema.Number,
  useSsl: Schema.Boolean,
  username: Schema.String,
  password: Schema.optionalKey(Schema.RedactedFromValue(Schema.String)),
  category: Schema.String,
  directory: Schema.String,
  settings: Schema.String
})

/**
 * A download client, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type DownloadClient = typeof DownloadClient.Type

/**
 * An indexer, and the services that it is assigned to. The registry only serves it: to provide one, save it into the store
 * before the registry starts.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Indexer = Schema.TaggedStruct("Indexer", {
  id: Schema.String,
  name: Schema.String,
  kind: Schema.String,
  enabled: Schema.Boolean,
  priority: Schema.Number,
  url: Schema.String,
  settings: Schema.String,
  createdAt: Schema.String,
  updatedAt: Schema.String,
  /** Ids of the services that may use it. */
  assignedTo: Schema.Array(Schema.String)
})

/**
 * An indexer, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type Indexer = typeof Indexer.Type

/**
 * A quality profile. Served as it was saved into the store.
 *
 * @category schemas
 * @since 0.1.0
 */
export const QualityProfile = Schema.TaggedStruct("QualityProfile", {
  id: Schema.String,
  name: Schema.String,
  cutoffJson: Schema.String,
  qualitiesJson: Schema.String,
  upgradeAllowed: Schema.Boolean,
  upgradeUntilJson: Schema.optionalKey(Schema.String),
  minCustomFormatScore: Schema.Number,
  upgradeUntilCfScore: Schema.Number,
  createdAt: Schema.String,
  updatedAt: Schema.String
})

/**
 * A quality profile, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type QualityProfile = typeof QualityProfile.Type

/**
 * The settings that all media services share. There is one such document; its `id` is `"shared"`.
 *
 * @category schemas
 * @since 0.1.0
 */
export const SharedSettings = Schema.TaggedStruct("SharedSettings", {
  id: Schema.Literal("shared"),
  colonReplacement: Schema.String,
  importExtraFiles: Schema.Boolean,
  extraFileExtensions: Schema.String,
  renameFiles: Schema.Boolean,
  updatedAt: Schema.String
})

/**
 * The shared settings, as they are kept.
 *
 * @category models
 * @since 0.1.0
 */
export type SharedSettings = typeof SharedSettings.Type

/**
 * The lease of a service, where the registry gives leases. Its `id` is that of the service, `thumbprint` is of the key that it is
 * bound to (`cnf.jkt`). No token is in it: a token's `jti` and the signing secret say which ones are good.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Lease = Schema.TaggedStruct("Lease", {
  id: Schema.String,
  name: Schema.String,
  type: Schema.String,
  thumbprint: Schema.String,
  state: Schema.Literals(["active", "timed_out", "ended"]),
  /** Why it is not active: it was not beaten (`stale`), an operator timed it out, its service was removed or replaced. */
  reason: Schema.optionalKey(Schema.Literals(["stale", "operator", "deregistered", "replaced"])),
  /** When it got into this state. */
  since: Schema.Number,
  /** As of the last write: heartbeats are not stored. */
  lastBeat: Schema.Number,
  revivals: Schema.Number,
  /** The tokens that are good, the newest last. */
  tokens: Schema.Array(Schema.Struct({ jti: Schema.String, expiresAt: Schema.Number })),
  /** Which token an idempotency key was answered with. */
  answers: Schema.Array(
    Schema.Struct({ operation: Schema.Literals(["refresh", "revival"]), key: Schema.String, jti: Schema.String })
  ),
  /** Grows with each change. */
  revision: Schema.Number
})

/**
 * The lease of a service, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type Lease = typeof Lease.Type

/**
 * What tokens of leases are signed with: 32 random bytes, base64url. There is one such document; its `id` is `"shared"`. Who
 * reads it can make tokens, which are worth nothing without the keys that the leases are bound to. Where it is lost, all
 * tokens are rejected, and their holders get new ones by their keys.
 *
 * @category schemas
 * @since 0.1.0
 */
export const LeaseSecret = Schema.TaggedStruct("LeaseSecret", {
  id: Schema.Literal("shared"),
  secret: Schema.RedactedFromValue(Schema.String)
})

/**
 * What tokens of leases are signed with, as it is kept.
 *
 * @category models
 * @since 0.1.0
 */
export type LeaseSecret = typeof LeaseSecret.Type

/**
 * Everything that a store keeps.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Document = Schema.Union([
  Service,
  DownloadClient,
  Indexer,
  QualityProfile,
  SharedSettings,
  Lease,
  LeaseSecret
])

/**
 * One entry of a store.
 *
 * @category models
 * @since 0.1.0
 */
export type Document = typeof Document.Type

/**
 * Which document: what {@link Store} is asked to remove.
 *
 * @category models
 * @since 0.1.0
 */
export interface Key {
  readonly _tag: Document["_tag"]
  readonly id: string
}

/**
 * The store could not be read or written. `key` names the document, never its content.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreError extends Data.TaggedError("StoreError")<{
  readonly operation: "load" | "save" | "remove"
  readonly key: string
  readonly cause?: unknown
}> {
  override get message() {
    return `the registry's store could not ${this.operation} ${this.key}; see the cause`
  }
}

/**
 * The port. `save` and `remove` return when the change is durable; writes of different documents may run at the same
 * time, those of one document never do.
 *
 * **Example** (A registry that starts with settings of its own)
 *
 * ```ts
 * import * as Store from "effect-lifeline/server/Store"
 * import * as Layer from "effect/Layer"
 *
 * const settings: Store.SharedSettings = {
 *   _tag: "SharedSettings",
 *   id: "shared",
 *   colonReplacement: "dash",
 *   importExtraFiles: true,
 *   extraFileExtensions: "srt",
 *   renameFiles: true,
 *   updatedAt: "2026-01-01T00:00:00Z"
 * }
 *
 * export const seeded = Layer.effectDiscard(Store.Store.use((store) => store.save(settings))).pipe(
 *   Layer.provideMerge(Store.layerMemory)
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Store extends Context.Service<Store, {
  readonly load: Effect.Effect<ReadonlyArray<Document>, StoreError>
  readonly save: (document: Document) => Effect.Effect<void, StoreError>
  readonly remove: (key: Key) => Effect.Effect<void, StoreError>
}>()("effect-lifeline/server/Store") {}

const keyOf = (key: Key): string => `${key._tag}/${key.id}`

/**
 * Keeps everything in memory: what is stored is gone when the layer is.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Store> = Layer.sync(Store, () => {
  const documents = new Map<string, Document>()
  return Store.of({
    load: Effect.sync(() => Array.from(documents.values())),
    save: (document) => Effect.sync(() => void documents.set(keyOf(document), document)),
    remove: (key) => Effect.sync(() => void documents.delete(keyOf(key)))
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// KeyValueStore
// ---------------------------------------------------------------------------------------------------------------------

const Envelope = Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), document: Document }))

const encode = Schema.encodeEffect(Envelope)

const decode = Schema.decodeEffect(Envelope)

/** How many documents are read at the same time when the registry starts. */
const loadConcurrency = 16

const skipped = (key: string, error: Schema.SchemaError): Effect.Effect<undefined> =>
  Effect.as(
    Effect.logWarning(
      `The registry's store holds a record that cannot be read, and starts without it: ${key}: ${
        showIssues(issuesOf(error, "record"))
      }`
    ),
    undefined
  )

/**
 * A store over a `KeyValueStore`: one entry per document, under `prefix`. How durable it is, and whether a write is
 * atomic, is up to the `KeyValueStore`. A record that cannot be read (torn, or of a newer version) is skipped with a
 * warning that names it; it is left where it is.
 *
 * **Example** (Two registries in one place)
 *
 * ```ts
 * import * as Store from "effect-lifeline/server/Store"
 * import * as Effect from "effect/Effect"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 *
 * export const stores = Effect.map(KeyValueStore.KeyValueStore, (keyValueStore) => [
 *   Store.fromKeyValueStore(keyValueStore, { prefix: "production/" }),
 *   Store.fromKeyValueStore(keyValueStore, { prefix: "staging/" })
 * ])
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromKeyValueStore = (
  keyValueStore: KeyValueStore.KeyValueStore,
  options?: {
    /** @default "registry/" */
    readonly prefix?: string | undefined
  }
): Store["Service"] => {
  const entries = KeyValueStore.prefix(keyValueStore, options?.prefix ?? "registry/")

  const read = Effect.fnUntraced(function*(key: string): Effect.fn.Return<Document | undefined, StoreError> {
    const text = yield* Effect.mapError(
      entries.get(key),
      (cause) => new StoreError({ operation: "load", key, cause })
    )
    if (text === undefined) return undefined
    return yield* Effect.catch(
      Effect.map(decode(text), (envelope) => envelope.document),
      (error) => skipped(key, error)
    )
  })

  return Store.of({
    load: Effect.mapError(
      entries.keys,
      (cause) => new StoreError({ operation: "load", key: "its list of keys", cause })
    )
      .pipe(
        Effect.flatMap((keys) => Effect.forEach(keys, read, { concurrency: loadConcurrency })),
        Effect.map((documents) => documents.filter((document) => document !== undefined))
      ),
    save: (document) =>
      Effect.flatMap(
        Effect.orDie(encode({ version: 1, document })),
        (text) => entries.set(keyOf(document), text)
      ).pipe(
        Effect.mapError((cause) => new StoreError({ operation: "save", key: keyOf(document), cause }))
      ),
    remove: (key) =>
      Effect.mapError(
        entries.remove(keyOf(key)),
        (cause) => new StoreError({ operation: "remove", key: keyOf(key), cause })
      )
  })
}

/**
 * {@link fromKeyValueStore} as a layer, with the default prefix.
 *
 * **Example** (Files on Node)
 *
 * ```ts
 * import * as FileStore from "effect-lifeline/node/FileStore"
 * import * as Store from "effect-lifeline/server/Store"
 * import * as Layer from "effect/Layer"
 *
 * export const durable = Store.layerKeyValueStore.pipe(Layer.provide(FileStore.layer({ directory: "./registry" })))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerKeyValueStore: Layer.Layer<Store, never, KeyValueStore.KeyValueStore> = Layer.effect(
  Store,
  Effect.map(KeyValueStore.KeyValueStore, (keyValueStore) => fromKeyValueStore(keyValueStore))
)
