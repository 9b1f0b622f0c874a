import { assert, describe, it } from "@effect/vitest"
import * as Store from "effect-lifeline/server/Store"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"

const service: Store.Service = {
  _tag: "Service",
  id: "s1",
  name: "haul",
  type: "app",
  apiUrl: "http://haul",
  apiKey: Redacted.make("own-secret"),
  healthUrl: "http://haul/health",
  version: "1",
  capabilities: ["a"],
  metadata: "{}",
  status: "online",
  lastSeen: 5,
  registeredAt: 4
}

const client: Store.DownloadClient = {
  _tag: "DownloadClient",
  id: "s1",
  name: "haul",
  kind: "haul",
  protocol: "torrent",
  enabled: true,
  priority: 1,
  host: "haul",
  port: 80,
  useSsl: false,
  username: "",
  password: Redacted.make("own-secret"),
  category: "",
  directory: "",
  settings: "{}"
}

const sorted = (documents: ReadonlyArray<Store.Document>) =>
  documents.toSorted((a, b) => `${a._tag}${a.id}` < `${b._tag}${b.id}` ? -1 : 1)

const stores: ReadonlyArray<[string, Layer.Layer<Store.Store>]> = [
  ["in memory", Store.layerMemory],
  ["over a KeyValueStore", Store.layerKeyValueStore.pipe(Layer.provide(KeyValueStore.layerMemory))]
]

describe.each(stores)("a store %s", (_, layer) => {
  it.effect("gives back what it was given, secrets too", () =>
    Effect.gen(function*() {
      const store = yield* Store.Store
      assert.deepStrictEqual(yield* store.load, [])
      yield* store.save(service)
      yield* store.save(client)
      const loaded = sorted(yield* store.load)
      assert.deepStrictEqual(loaded, [client, service])
      const [first] = loaded
      assert.strictEqual(
        first?._tag === "DownloadClient" && first.password !== undefined ? Redacted.value(first.password) : undefined,
        "own-secret"
      )
    }).pipe(Effect.provide(layer)))

  it.effect("replaces a document of the same kind and id", () =>
    Effect.gen(function*() {
      const store = yield* Store.Store
      yield* store.save(service)
      yield* store.save({ ...service, name: "other" })
      assert.deepStrictEqual(yield* store.load, [{ ...service, name: "other" }])
    }).pipe(Effect.provide(layer)))

  it.effect("removes one document, and does not mind one that is not there", () =>
    Effect.gen(function*() {
      const store = yield* Store.Store
      yield* store.save(service)
      yield* store.save(client)
      yield* store.remove({ _tag: "Service", id: "s1" })
      yield* store.remove({ _tag: "Service", id: "s1" })
      assert.deepStrictEqual(yield* store.load, [client])
    }).pipe(Effect.provide(layer)))
})

describe("a store over a KeyValueStore", () => {
  const withLogs = <A, E, R>(effect: Effect.Effect<A, E, R>) => {
    const lines: Array<string> = []
    const logger = Logger.make((options) => {
      lines.push(`${options.logLevel} ${String(options.message)}`)
    })
    return Effect.map(Effect.provide(effect, Logger.layer([logger])), (result) => ({ lines, result }))
  }

  it.effect.each<[string, string]>([
    ["cut off", "{\"version\":1,\"document\":{\"_tag\":\"Service\",\"apiKey\":\"own-secret"],
    ["empty", ""],
    ["binary", "\u0000\u0001own-secret"],
    ["of a newer version", "{\"version\":2,\"document\":{\"apiKey\":\"own-secret\"}}"],
    ["of wrong types", "{\"version\":1,\"document\":{\"_tag\":\"Service\",\"id\":7,\"apiKey\":\"own-secret\"}}"],
    ["of an unknown kind", "{\"version\":1,\"document\":{\"_tag\":\"Alien\",\"apiKey\":\"own-secret\"}}"]
  ])(
    "skips a record that is %s with a warning that names it and does not quote it",
    ([, text]) =>
      Effect.gen(function*() {
        const keyValueStore = yield* KeyValueStore.KeyValueStore
        yield* keyValueStore.set("registry/Service/broken", text)
        const store = Store.fromKeyValueStore(keyValueStore)
        yield* store.save(client)
        const { lines, result } = yield* withLogs(store.load)
        assert.deepStrictEqual(result, [client])
        assert.strictEqual(lines.length, 1)
        assert.match(lines[0] ?? "", /^Warn .*Service\/broken/)
        assert.notInclude(lines[0], "own-secret")
        assert.strictEqual(yield* keyValueStore.get("registry/Service/broken"), text)
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
  )

  it.effect("leaves what others keep in the same place alone", () =>
    Effect.gen(function*() {
      const keyValueStore = yield* KeyValueStore.KeyValueStore
      yield* keyValueStore.set("something else", "x")
      const store = Store.fromKeyValueStore(keyValueStore, { prefix: "mine/" })
      yield* store.save(service)
      assert.deepStrictEqual(yield* store.load, [service])
      assert.deepStrictEqual((yield* keyValueStore.keys).toSorted(), ["mine/Service/s1", "something else"])
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.effect("fails with the key and never the content when it cannot be used", () =>
    Effect.gen(function*() {
      const broken = (method: string) =>
        Effect.fail(new KeyValueStore.KeyValueStoreError({ method, message: "no disk" }))
      const store = Store.fromKeyValueStore(KeyValueStore.make({
        get: () => broken("get"),
        getUint8Array: () => broken("get"),
        set: () => broken("set"),
        remove: () => broken("remove"),
        clear: broken("clear"),
        size: broken("size"),
        keys: Effect.succeed(["registry/Service/s1"])
      }))
      const errors = yield* Effect.all([
        Effect.flip(store.load),
        Effect.flip(store.save(service)),
        Effect.flip(store.remove(service))
      ])
      assert.deepStrictEqual(
        errors.map((error) => [error._tag, error.operation, error.key]),
        [["StoreError", "load", "Service/s1"], ["StoreError", "save", "Service/s1"], [
          "StoreError",
          "remove",
          "Service/s1"
        ]]
      )
      for (const error of errors) assert.notInclude(`${error.message} ${JSON.stringify(error)}`, "own-secret")
    }))
})
