/** The adapters against bindings that misbehave; what they do in workerd is tested in test/workerd. */
import { assert, describe, it } from "@effect/vitest"
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as Effect from "effect/Effect"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import { checks } from "../workerd/contract.ts"

/** A namespace of pages of this size; `log` shows what was asked of it. */
const namespace = (pageSize: number) => {
  const entries = new Map<string, string>()
  const log: Array<string> = []
  let deleting = 0
  let mostDeleting = 0
  const binding: Cloudflare.Namespace = {
    get: async (key) => entries.get(key) ?? null,
    put: async (key, text) => void entries.set(key, text),
    delete: async (key) => {
      mostDeleting = Math.max(mostDeleting, ++deleting)
      await Promise.resolve()
      entries.delete(key)
      deleting--
    },
    list: async ({ cursor = "", prefix = "" }) => {
      log.push(`list ${cursor}`)
      const keys = [...entries.keys()].filter((key) => key.startsWith(prefix) && key > cursor).sort()
      const page = keys.slice(0, pageSize)
      const last = page.at(-1)
      return keys.length <= pageSize || last === undefined
        ? { keys: page.map((name) => ({ name })), list_complete: true }
        : { keys: page.map((name) => ({ name })), list_complete: false, cursor: last }
    }
  }
  return { binding, entries, log, mostDeleting: () => mostDeleting }
}

const storage = () => {
  const entries = new Map<string, unknown>()
  const log: Array<string> = []
  const get = async (key: string): Promise<unknown> => entries.get(key)
  const put = async (key: string, found: unknown): Promise<void> => void entries.set(key, found)
  const binding: Cloudflare.Storage = {
    get,
    put,
    delete: async (keys) => {
      log.push(`delete ${keys.length}`)
      return keys.filter((key) => entries.delete(key)).length
    },
    list: async ({ limit = Infinity, prefix = "", startAfter = "" }) => {
      log.push(`list ${startAfter}`)
      const keys = [...entries.keys()].filter((key) => key.startsWith(prefix) && key > startAfter).sort()
      return new Map(keys.slice(0, limit).map((key) => [key, entries.get(key)]))
    },
    transaction: (f) => {
      log.push("transaction")
      return f({ get, put })
    }
  }
  return { binding, entries, log }
}

const broken = (): never => {
  throw new Error("429 Too Many Requests")
}

const rejected = (): Promise<never> => Promise.reject(new Error("429 Too Many Requests"))

const numbered = (length: number): ReadonlyArray<string> =>
  Array.from({ length }, (_, index) => String(index).padStart(6, "0"))

describe("the contract", () => {
  describe.each(
    [
      ["effect's own store in memory", () => KeyValueStore.layerMemory],
      ["a KV namespace", () => Cloudflare.layerKV(namespace(100).binding)],
      ["a Durable Object", () => Cloudflare.layerDurableObject(storage().binding)]
    ] as const
  )("of %s", (_, layer) => {
    it.effect.each(Object.entries(checks))("%s", ([, check]) => Effect.provide(check, layer()))
  })
})

describe("a KV namespace", () => {
  it.effect("is listed page by page, each from the cursor of the one before", () =>
    Effect.gen(function*() {
      const { binding, entries, log } = namespace(10)
      for (const key of numbered(25)) entries.set(key, "x")
      const store = Cloudflare.makeKV(binding)
      assert.deepStrictEqual(yield* store.keys, [...numbered(25)])
      assert.deepStrictEqual(log, ["list ", "list 000009", "list 000019"])
    }))

  it.effect("is cleared with at most six calls at once", () =>
    Effect.gen(function*() {
      const { binding, entries, mostDeleting } = namespace(10)
      for (const key of numbered(25)) entries.set(key, "x")
      yield* Cloudflare.makeKV(binding).clear
      assert.strictEqual(entries.size, 0)
      assert.isAtMost(mostDeleting(), 6)
    }))

  it.effect("with more pages than an invocation can read is an error, not an endless loop", () =>
    Effect.gen(function*() {
      const { binding, entries, log } = namespace(1)
      for (const key of numbered(Cloudflare.mostPages + 1)) entries.set(key, "x")
      const store = Cloudflare.makeKV(binding)
      for (const effect of [store.keys, store.size]) {
        const error = yield* Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(effect)
        assert.include(error.message, `${Cloudflare.mostPages} pages`)
      }
      assert.lengthOf(log, 2 * Cloudflare.mostPages)
    }))

  it.effect("whose cursor leads nowhere new ends as well", () =>
    Effect.gen(function*() {
      const store = Cloudflare.makeKV({
        ...namespace(1).binding,
        list: async () => ({ keys: [{ name: "a" }], list_complete: false, cursor: "same" })
      })
      const error = yield* Effect.flip(store.size)
      assert.strictEqual(error.method, "size")
    }))
})

describe("the storage of a Durable Object", () => {
  it.effect("is cleared in batches, and never as a whole", () =>
    Effect.gen(function*() {
      const { binding, entries, log } = storage()
      for (const key of numbered(300)) entries.set(key, "x")
      yield* Cloudflare.makeDurableObject(binding).clear
      assert.strictEqual(entries.size, 0)
      assert.deepStrictEqual(log.filter((line) => line.startsWith("delete")), ["delete 128", "delete 128", "delete 44"])
    }))

  it.effect("modifies inside of a transaction", () =>
    Effect.gen(function*() {
      const { binding, entries, log } = storage()
      entries.set("a", "1")
      yield* Cloudflare.makeDurableObject(binding).modify("a", (text) => `${text}!`)
      assert.deepStrictEqual(log, ["transaction"])
      assert.strictEqual(entries.get("a"), "1!")
    }))

  it.effect("keeps bytes as bytes, and does not read what others put there", () =>
    Effect.gen(function*() {
      const { binding, entries } = storage()
      const store = Cloudflare.makeDurableObject(binding)
      yield* store.set("bytes", new Uint8Array([1]))
      assert.deepStrictEqual(entries.get("bytes"), new Uint8Array([1]))
      entries.set("number", 7)
      assert.isUndefined(yield* store.get("number"))
    }))
})

describe("failures", () => {
  const failing = [
    ["rejects", rejected],
    ["throws", broken]
  ] as const

  it.effect.each(failing)(
    "a binding that %s: a typed error with method, key and cause",
    ([, fail]) =>
      Effect.gen(function*() {
        const kv = Cloudflare.makeKV({ get: fail, put: fail, delete: fail, list: fail })
        const object = Cloudflare.makeDurableObject({
          get: fail,
          put: fail,
          delete: fail,
          list: fail,
          transaction: fail
        })
        for (const store of [kv, object]) {
          const errors = yield* Effect.all({
            get: Effect.flip(store.get("k")),
            getUint8Array: Effect.flip(store.getUint8Array("k")),
            set: Effect.flip(store.set("k", "secret value")),
            remove: Effect.flip(store.remove("k")),
            modify: Effect.flip(store.modify("k", (text) => text)),
            has: Effect.flip(store.has("k")),
            keys: Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(store.keys),
            size: Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(store.size),
            clear: Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(store.clear),
            isEmpty: Effect.flip<unknown, KeyValueStore.KeyValueStoreError, never>(store.isEmpty)
          })
          for (const [method, error] of Object.entries(errors)) {
            assert.strictEqual(error._tag, "KeyValueStoreError", method)
            assert.strictEqual(error.cause instanceof Error ? error.cause.message : "", "429 Too Many Requests")
            assert.notInclude(error.message, "secret value")
          }
          assert.strictEqual(errors.get.key, "k")
          assert.strictEqual(errors.set.method, "set")
          assert.isUndefined(errors.keys.key)
        }
      })
  )
})
