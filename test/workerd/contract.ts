/**
 * What a `KeyValueStore` does, as effect's own in-memory store does it: checks that run wherever the store is, in Node or
 * inside workerd. Each begins with an empty store, and fails with what it found.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"

export class Unlike extends Data.TaggedError("Unlike")<{ readonly message: string }> {}

type Check = Effect.Effect<
  void,
  Unlike | KeyValueStore.KeyValueStoreError | Schema.SchemaError,
  KeyValueStore.KeyValueStore
>

const check = (
  body: (
    store: KeyValueStore.KeyValueStore
  ) => Effect.Effect<void, Unlike | KeyValueStore.KeyValueStoreError | Schema.SchemaError>
): Check => Effect.flatMap(KeyValueStore.KeyValueStore, (store) => Effect.andThen(store.clear, body(store)))

const same = <E>(what: string, actual: Effect.Effect<unknown, E>, expected: unknown): Effect.Effect<void, E | Unlike> =>
  Effect.flatMap(actual, (found) => {
    const [left, right] = [JSON.stringify(plain(found)), JSON.stringify(plain(expected))]
    return left === right ? Effect.void : Effect.fail(new Unlike({ message: `${what}: ${left} instead of ${right}` }))
  })

const plain = (value: unknown): unknown =>
  value instanceof Uint8Array ? ["bytes", ...value] : value === undefined ? "(undefined)" : value

const sorted = (keys: ReadonlyArray<string>): ReadonlyArray<string> => [...keys].sort()

const bytes = new Uint8Array([0, 1, 2, 254, 255])

export const checks: Readonly<Record<string, Check>> = {
  "an absent key is undefined": check((store) =>
    Effect.all([
      same("get", store.get("a"), undefined),
      same("getUint8Array", store.getUint8Array("a"), undefined),
      same("has", store.has("a"), false),
      same("modify", store.modify("a", (text) => `${text}!`), undefined),
      same("modifyUint8Array", store.modifyUint8Array("a", (found) => found), undefined),
      same("still absent", store.has("a"), false)
    ], { discard: true })
  ),
  "what is set is there, until it is set again or removed": check((store) =>
    Effect.gen(function*() {
      yield* store.set("a", "one")
      yield* same("get", store.get("a"), "one")
      yield* same("has", store.has("a"), true)
      yield* store.set("a", "two")
      yield* same("get", store.get("a"), "two")
      yield* same("size", store.size, 1)
      yield* store.remove("a")
      yield* same("get", store.get("a"), undefined)
      yield* store.remove("a")
      yield* same("isEmpty", store.isEmpty, true)
    })
  ),
  "any text is a value": check((store) =>
    Effect.forEach(
      ["", " ", "null", "ä \u{1f600} \u0000 \n", "x".repeat(100_000)],
      (text) => Effect.andThen(store.set("a", text), same("get", store.get("a"), text)),
      { discard: true }
    )
  ),
  "keys with slashes, colons, spaces and umlauts are kept apart": check((store) =>
    Effect.gen(function*() {
      const keys = ["a/b", "a:b", "a b", "ä", "a..b", "a%2Fb", "a"]
      yield* Effect.forEach(keys, (key) => store.set(key, `value of ${key}`), { discard: true })
      yield* same("keys", Effect.map(store.keys, sorted), sorted(keys))
      yield* Effect.forEach(keys, (key) => same(key, store.get(key), `value of ${key}`), { discard: true })
    })
  ),
  "bytes are kept, and read as text they are base64": check((store) =>
    Effect.gen(function*() {
      yield* store.set("a", bytes)
      yield* same("getUint8Array", store.getUint8Array("a"), bytes)
      yield* same("get", store.get("a"), "AAEC/v8=")
      yield* store.set("b", "not base64!")
      yield* same("text as bytes", store.getUint8Array("b"), new TextEncoder().encode("not base64!"))
    })
  ),
  "modify changes what is there": check((store) =>
    Effect.gen(function*() {
      yield* store.set("a", "one")
      yield* same("modify", store.modify("a", (text) => `${text}!`), "one!")
      yield* same("get", store.get("a"), "one!")
      yield* store.set("b", bytes)
      yield* same("modifyUint8Array", store.modifyUint8Array("b", (found) => found.slice(0, 2)), bytes.slice(0, 2))
      yield* same("getUint8Array", store.getUint8Array("b"), bytes.slice(0, 2))
    })
  ),
  "keys, size and isEmpty tell what is there": check((store) =>
    Effect.gen(function*() {
      yield* same("size", store.size, 0)
      yield* same("isEmpty", store.isEmpty, true)
      yield* same("keys", store.keys, [])
      yield* store.set("b", "2")
      yield* store.set("a", "1")
      yield* same("size", store.size, 2)
      yield* same("isEmpty", store.isEmpty, false)
      yield* same("keys", Effect.map(store.keys, sorted), ["a", "b"])
    })
  ),
  "clear and clearPrefix remove no more than they say": check((store) =>
    Effect.gen(function*() {
      yield* Effect.forEach(["a/1", "a/2", "ab", "b"], (key) => store.set(key, "x"), { discard: true })
      yield* store.clearPrefix("a/")
      yield* same("keys", Effect.map(store.keys, sorted), ["ab", "b"])
      yield* store.clearPrefix("")
      yield* same("size", store.size, 0)
      yield* store.set("a", "x")
      yield* store.clear
      yield* same("size", store.size, 0)
    })
  ),
  "a prefixed view sees its own entries only": check((store) =>
    Effect.gen(function*() {
      const view = KeyValueStore.prefix(store, "mine/")
      yield* store.set("other", "x")
      yield* view.set("a", "1")
      yield* same("get", view.get("a"), "1")
      yield* same("under the prefix", store.get("mine/a"), "1")
      yield* same("keys", view.keys, ["a"])
      yield* same("size", view.size, 1)
      yield* view.clear
      yield* same("keys", store.keys, ["other"])
    })
  ),
  "a store of a schema": check((store) =>
    Effect.gen(function*() {
      const numbers = KeyValueStore.toSchemaStore(
        store,
        Schema.Struct({ n: Schema.Number, at: Schema.optional(Schema.Date) })
      )
      yield* numbers.set("a", { n: 7, at: new Date(0) })
      yield* same("get", numbers.get("a"), { _id: "Option", _tag: "Some", value: { n: 7, at: new Date(0) } })
    })
  ),
  "more entries than fit on a page": check((store) =>
    Effect.gen(function*() {
      const keys = Array.from({ length: 1100 }, (_, index) => `key-${String(index).padStart(4, "0")}`)
      yield* Effect.forEach(keys, (key) => store.set(key, "x"), { concurrency: 50, discard: true })
      yield* same("size", store.size, 1100)
      yield* same("keys", Effect.map(store.keys, sorted), keys)
      yield* store.clearPrefix("key-0")
      yield* same("keys", Effect.map(store.keys, sorted), keys.slice(1000))
      yield* store.clear
      yield* same("isEmpty", store.isEmpty, true)
    })
  )
}
