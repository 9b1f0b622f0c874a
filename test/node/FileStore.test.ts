import { assert, describe, it } from "@effect/vitest"
import * as FileStore from "effect-lifeline/node/FileStore"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-store-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

const files = (directory: string) => Effect.promise(() => Fs.readdir(directory))

describe("FileStore", () => {
  it.live("is a KeyValueStore", () =>
    Effect.gen(function*() {
      const directory = Path.join(yield* temporary, "deep", "down")
      const store = yield* FileStore.make({ directory })
      assert.isUndefined(yield* store.get("a"))
      yield* store.set("a", "eins ü")
      yield* store.set("a", "zwei ü")
      yield* store.set("b/c", new Uint8Array([0, 255]))
      assert.strictEqual(yield* store.get("a"), "zwei ü")
      assert.deepStrictEqual(yield* store.getUint8Array("b/c"), new Uint8Array([0, 255]))
      assert.deepStrictEqual((yield* store.keys).toSorted(), ["a", "b/c"])
      assert.strictEqual(yield* store.size, 2)
      assert.strictEqual(yield* store.has("a"), true)
      yield* store.remove("a")
      yield* store.remove("a")
      assert.strictEqual(yield* store.has("a"), false)
      yield* store.set("b/d", "")
      assert.strictEqual(yield* store.get("b/d"), "")
      yield* store.clearPrefix("b/c")
      assert.deepStrictEqual(yield* store.keys, ["b/d"])
      yield* store.clear
      assert.deepStrictEqual(yield* store.keys, [])
    }))

  it.live("keeps what it has for the next process", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* Effect.flatMap(FileStore.make({ directory, sync: false }), (store) => store.set("k", "v"))
      const next = yield* FileStore.make({ directory })
      assert.strictEqual(yield* next.get("k"), "v")
    }))

  it.live("takes any key, and keeps it inside its directory", () =>
    Effect.gen(function*() {
      const parent = yield* temporary
      const directory = Path.join(parent, "store")
      const store = yield* FileStore.make({ directory })
      const keys = ["..", ".", "../out", "/etc/passwd", "a%2Fb", "a/b", "", "C:\\x", "ключ", "x.tmp"]
      for (const key of keys) yield* store.set(key, key)
      for (const key of keys) assert.strictEqual(yield* store.get(key), key)
      assert.deepStrictEqual((yield* store.keys).toSorted(), keys.toSorted())
      assert.deepStrictEqual(yield* files(parent), ["store"])
    }))

  it.live("refuses a key that no file can be named by", () =>
    Effect.gen(function*() {
      const store = yield* FileStore.make({ directory: yield* temporary })
      const error = yield* Effect.flip(store.set("x".repeat(300), "v"))
      assert.strictEqual(error._tag, "KeyValueStoreError")
      assert.include(error.message, "too long")
    }))

  it.live("replaces a file as a whole: a reader sees one value or the other", () =>
    Effect.gen(function*() {
      const store = yield* FileStore.make({ directory: yield* temporary, sync: false })
      const values = ["a".repeat(200_000), "b".repeat(100_000)]
      yield* store.set("k", values[0] ?? "")
      const write = Effect.forEach(Array.from({ length: 60 }), (_, n) => store.set("k", values[n % 2] ?? ""))
      const read = Effect.forEach(Array.from({ length: 60 }), () => store.get("k"))
      const [, seen] = yield* Effect.all([write, read], { concurrency: 2 })
      assert.strictEqual(seen.every((value) => value !== undefined && values.includes(value)), true)
    }))

  it.live("opens a few files at a time, however much is written at once", () =>
    Effect.gen(function*() {
      const store = yield* FileStore.make({ directory: yield* temporary, sync: false })
      const open = Effect.promise(async () => (await Fs.readdir("/dev/fd")).length)
      const before = yield* open
      const keys = Array.from({ length: 1000 }, (_, n) => `key-${n}`)
      const writing = yield* Effect.forkChild(
        Effect.forEach(keys, (key) => store.set(key, key), { concurrency: "unbounded" })
      )
      let most = 0
      while (writing.pollUnsafe() === undefined) most = Math.max(most, (yield* open) - before)
      yield* Fiber.join(writing)
      assert.isAtMost(most, 40)
      assert.strictEqual(yield* store.size, 1000)
    }))

  it.live("does not take what a crash left unfinished for a value, and removes it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* Effect.flatMap(FileStore.make({ directory }), (store) => store.set("k", "old"))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, "k.value.7.tmp"), "half a va"))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, "README"), "not ours"))
      const store = yield* FileStore.make({ directory })
      assert.strictEqual(yield* store.get("k"), "old")
      assert.deepStrictEqual(yield* store.keys, ["k"])
      assert.deepStrictEqual((yield* files(directory)).toSorted(), ["README", "k.value"])
    }))

  it.live("keeps the old value, and no rest, when a write fails", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const store = yield* FileStore.make({ directory })
      // A directory in the place of the file cannot be replaced by a file.
      yield* Effect.promise(() => Fs.mkdir(Path.join(directory, "k.value", "inside"), { recursive: true }))
      const error = yield* Effect.flip(store.set("k", "secret content"))
      assert.deepStrictEqual([error._tag, error.method, error.key], ["KeyValueStoreError", "set", "k"])
      assert.notInclude(error.message, "secret content")
      assert.deepStrictEqual(yield* files(directory), ["k.value"])
    }))

  it.live("writes for its owner only", () =>
    Effect.gen(function*() {
      const directory = Path.join(yield* temporary, "store")
      const store = yield* FileStore.make({ directory })
      yield* store.set("k", "v")
      const modes = yield* Effect.promise(() =>
        Promise.all([Fs.stat(directory), Fs.stat(Path.join(directory, "k.value"))])
      )
      assert.deepStrictEqual(modes.map((stat) => (stat.mode & 0o777).toString(8)), ["700", "600"])
    }))

  it.live("says what failed when its directory cannot be used", () =>
    Effect.gen(function*() {
      const file = Path.join(yield* temporary, "file")
      yield* Effect.promise(() => Fs.writeFile(file, ""))
      const error = yield* Effect.flip(FileStore.make({ directory: Path.join(file, "store") }))
      assert.strictEqual(error._tag, "KeyValueStoreError")
      assert.include(error.message, "ENOTDIR")
    }))
})
