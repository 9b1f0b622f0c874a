import { assert, describe, it, vi } from "@effect/vitest"
import * as FileStore from "effect-lifeline/node/FileStore"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as ChildProcess from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { parse } from "../support/credential/values.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-store-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

const files = (directory: string) => Effect.promise(() => Fs.readdir(directory))

type Sync = Fs.FileHandle["sync"]

/** What happens when a file is flushed, in place of the disk alone; until the test ends. */
const onSync = Effect.fnUntraced(
  function*(directory: string, run: (handle: Fs.FileHandle, sync: Sync) => Promise<void>) {
    const prototype: Fs.FileHandle = yield* Effect.promise(async () => {
      await using handle = await Fs.open(directory, "r")
      return Object.getPrototypeOf(handle)
    })
    const real = prototype.sync
    const spy = vi.spyOn(prototype, "sync").mockImplementation(function(this: Fs.FileHandle) {
      return run(this, () => real.call(this))
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => spy.mockRestore()))
  }
)

/** A disk that stalls each flush until it is told to go on. `flushes` counts those that have begun. */
const stalling = Effect.fnUntraced(function*(directory: string) {
  const gate = yield* Deferred.make<void>()
  const disk = { flushes: 0, goOn: Deferred.succeed(gate, undefined) }
  yield* onSync(directory, async (_, sync) => {
    disk.flushes++
    await Effect.runPromise(Deferred.await(gate))
    await sync()
  })
  return disk
})

/** More than enough turns of the disk for what could begin to have begun. */
const turns = (directory: string) =>
  Effect.promise(async () => {
    for (let n = 0; n < 50; n++) await Fs.writeFile(Path.join(directory, "turn"), String(n))
    await Fs.rm(Path.join(directory, "turn"))
  })

const until = (condition: () => boolean | Promise<boolean>) =>
  Effect.promise(() => vi.waitUntil(condition, { interval: 1, timeout: 10_000 }))

const writer = fileURLToPath(new URL("../support/credential/writer.ts", import.meta.url))

const rounds = 3

/** A process that writes its own key and one that all write, until it is killed, by its own id. */
const spawnWriter = (directory: string, name: string, told: Map<string, number>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = ChildProcess.spawn(process.execPath, [writer, directory, name, String(told.get(name) ?? 0)], {
        stdio: ["pipe", "pipe", "pipe"]
      })
      const exited = once(child, "close")
      const self = {
        written: 0,
        problems: new Array<string>(),
        kill: Effect.promise(async () => {
          child.kill("SIGKILL")
          await exited
        })
      }
      createInterface({ input: child.stdout }).on("line", (line) => {
        told.set(name, Number(line))
        self.written++
      })
      createInterface({ input: child.stderr }).on("line", (line) => self.problems.push(line))
      return self
    }),
    ({ kill }) => kill
  )

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

  it.live("flushes the new file before it takes the old one's place, and the directory after", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const store = yield* FileStore.make({ directory })
      yield* store.set("k", "old")
      const seen: Array<readonly [what: string, content: string]> = []
      yield* onSync(directory, async (handle, sync) => {
        await sync()
        const what = (await handle.stat()).isDirectory() ? "directory" : "file"
        seen.push([what, await Fs.readFile(Path.join(directory, "k.value"), "utf8").catch(() => "none")])
      })
      yield* store.set("k", "new")
      assert.deepStrictEqual(seen, [["file", "old"], ["directory", "new"]])
      yield* store.remove("k")
      assert.deepStrictEqual(seen.slice(2), [["directory", "none"]])
      const careless = yield* FileStore.make({ directory, sync: false })
      yield* careless.set("k", "v")
      yield* careless.remove("k")
      assert.lengthOf(seen, 3)
    }))

  it.live.each(["set", "remove"] as const)(
    "a write that was interrupted does not undo a later %s",
    (later) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const store = yield* FileStore.make({ directory })
        const disk = yield* stalling(directory)
        const first = yield* Effect.forkChild(store.set("k", "old"))
        yield* until(() => disk.flushes === 1)
        // Who gave up does not wait for the disk.
        yield* Fiber.interrupt(first)
        const next = yield* Effect.forkChild(later === "set" ? store.set("k", "new") : store.remove("k"))
        yield* turns(directory)
        // Else the two would race.
        assert.isUndefined(next.pollUnsafe())
        assert.strictEqual(disk.flushes, 1)
        yield* disk.goOn
        yield* Fiber.join(next)
        const expected = later === "set" ? "new" : undefined
        assert.strictEqual(yield* store.get("k"), expected)
        yield* turns(directory)
        assert.strictEqual(yield* store.get("k"), expected)
        assert.deepStrictEqual(yield* files(directory), later === "set" ? ["k.value"] : [])
      })
  )

  it.live("an interrupted write that has not yet replaced the file does not, and leaves no rest", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const store = yield* FileStore.make({ directory })
      yield* store.set("k", "old")
      const disk = yield* stalling(directory)
      const write = yield* Effect.forkChild(store.set("k", "never"))
      yield* until(() => disk.flushes === 1)
      const waiting = yield* Effect.forkChild(store.set("k", "neither"))
      yield* turns(directory)
      yield* Fiber.interruptAll([write, waiting])
      yield* disk.goOn
      yield* until(async () => (await Fs.readdir(directory)).every((file) => file === "k.value"))
      assert.strictEqual(yield* store.get("k"), "old")
      assert.strictEqual(disk.flushes, 1)
    }))

  it.live("interrupted writes count as long as the disk is at them", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const store = yield* FileStore.make({ directory })
      const disk = yield* stalling(directory)
      const keys = Array.from({ length: 32 }, (_, n) => `key-${n}`)
      const writes = yield* Effect.forEach(keys, (key) => Effect.forkChild(store.set(key, key)))
      yield* until(() => disk.flushes === 32)
      yield* Fiber.interruptAll(writes)
      const next = yield* Effect.forkChild(store.set("one more", "v"))
      yield* turns(directory)
      assert.strictEqual(disk.flushes, 32)
      yield* disk.goOn
      yield* Fiber.join(next)
      assert.strictEqual(yield* store.get("one more"), "v")
    }))

  it.live("clear waits for a write that was interrupted, as for any other that was asked for before it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const store = yield* FileStore.make({ directory })
      const disk = yield* stalling(directory)
      const write = yield* Effect.forkChild(store.set("k", "v"))
      yield* until(() => disk.flushes === 1)
      yield* Fiber.interrupt(write)
      const cleared = yield* Effect.forkChild(store.clear)
      yield* turns(directory)
      assert.isUndefined(cleared.pollUnsafe())
      yield* disk.goOn
      yield* Fiber.join(cleared)
      yield* turns(directory)
      assert.deepStrictEqual(yield* files(directory), [])
    }))
})

/** A write that is under way, and the name of its draft. */
const underWay = Effect.fnUntraced(function*(directory: string) {
  const store = yield* FileStore.make({ directory })
  yield* store.set("k", "old")
  const disk = yield* stalling(directory)
  const write = yield* Effect.forkChild(store.set("k", "new"))
  yield* until(() => disk.flushes === 1)
  const [draft, ...others] = (yield* files(directory)).filter((file) => file !== "k.value")
  assert.lengthOf(others, 0)
  return { store, disk, write, draft: String(draft) }
})

/** The pid of a process that has ended. */
const dead = Effect.promise(async () => {
  const child = ChildProcess.spawn(process.execPath, ["--version"], { stdio: "ignore" })
  await once(child, "exit")
  return Number(child.pid)
})

const aged = (path: string, seconds: number) =>
  Effect.promise(() => {
    const time = Date.now() / 1000 - seconds
    return Fs.utimes(path, time, time)
  })

describe("FileStore: what a crash left unfinished", () => {
  it.live("is not taken for a value, and is removed once its process is dead", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { disk, draft, write } = yield* underWay(directory)
      const ofDead = draft.replace(String(process.pid), String(yield* dead))
      assert.notStrictEqual(ofDead, draft)
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, ofDead), "half a va"))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, "README"), "not ours"))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, "upload.tmp"), "not ours"))
      const next = yield* FileStore.make({ directory })
      assert.strictEqual(yield* next.get("k"), "old")
      assert.deepStrictEqual(yield* next.keys, ["k"])
      assert.sameMembers(yield* files(directory), ["README", "upload.tmp", "k.value", draft])
      yield* disk.goOn
      yield* Fiber.join(write)
      assert.strictEqual(yield* next.get("k"), "new")
      assert.sameMembers(yield* files(directory), ["README", "upload.tmp", "k.value"])
    }))

  it.live("is removed when it is old, should another process have the pid by now", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { disk, draft, write } = yield* underWay(directory)
      const ofParent = draft.replace(String(process.pid), String(process.ppid))
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, ofParent), "half a va"))
      yield* aged(Path.join(directory, ofParent), 3000)
      yield* FileStore.make({ directory })
      assert.include(yield* files(directory), ofParent)
      yield* aged(Path.join(directory, ofParent), 3700)
      yield* FileStore.make({ directory })
      assert.sameMembers(yield* files(directory), ["k.value", draft])
      yield* disk.goOn
      yield* Fiber.join(write)
    }))

  it.live("is removed when this process has its pid: in a container each start may have the same", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { disk, draft, write } = yield* underWay(directory)
      const before = `${draft.slice(0, -4)}0.tmp`
      yield* Effect.promise(() => Fs.writeFile(Path.join(directory, before), "half a va"))
      yield* aged(Path.join(directory, before), process.uptime() + 60)
      yield* FileStore.make({ directory })
      assert.sameMembers(yield* files(directory), ["k.value", draft])
      yield* disk.goOn
      yield* Fiber.join(write)
    }))
})

describe("FileStore: several over one directory", () => {
  it.live("a write whose draft was removed under it is made again", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { disk, draft, store, write } = yield* underWay(directory)
      yield* Effect.promise(() => Fs.rm(Path.join(directory, draft)))
      yield* disk.goOn
      yield* Fiber.join(write)
      assert.strictEqual(yield* store.get("k"), "new")
      assert.deepStrictEqual(yield* files(directory), ["k.value"])
    }))

  it.live("a write fails when the directory was removed", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { disk, write } = yield* underWay(directory)
      yield* Effect.promise(() => Fs.rm(directory, { recursive: true }))
      yield* disk.goOn
      const error = yield* Effect.flip(Fiber.join(write))
      assert.include(error.message, "ENOENT")
    }))

  it.live("each sees what the other one wrote last, and what it removed", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const one = yield* FileStore.make({ directory })
      const other = yield* FileStore.make({ directory })
      yield* one.set("k", "1")
      assert.strictEqual(yield* other.get("k"), "1")
      yield* other.set("k", "2")
      assert.strictEqual(yield* one.get("k"), "2")
      yield* other.set("l", "3")
      assert.deepStrictEqual((yield* one.keys).toSorted(), ["k", "l"])
      yield* one.remove("k")
      assert.isUndefined(yield* other.get("k"))
      yield* other.clear
      assert.strictEqual(yield* one.size, 0)
    }))

  it.live(
    "processes that hammer it, and are killed: nothing is lost or half written, and no draft stays",
    () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const told = new Map<string, number>()
        for (let round = 0; round < rounds; round++) {
          yield* Effect.scoped(Effect.gen(function*() {
            const children = yield* Effect.forEach(["one", "two"], (name) => spawnWriter(directory, name, told), {
              concurrency: 2
            })
            // The first to have answered so often is killed, and starts again while the other one writes on.
            const [first, second] = children
            yield* until(() => children.some((child) => child.written >= 20 + 15 * round))
            yield* first?.kill ?? Effect.void
            const again = yield* spawnWriter(directory, "one", told)
            yield* until(() => again.written >= 20)
            yield* second?.kill ?? Effect.void
            yield* again.kill
            for (const child of [...children, again]) assert.deepStrictEqual(child.problems, [])
          }))
          const store = yield* FileStore.make({ directory })
          assert.sameMembers(yield* files(directory), ["one.value", "shared.value", "two.value"])
          for (const [name, n] of told) {
            const value = parse(yield* store.get(name))
            assert.strictEqual(value?.by, name)
            // One more may have been written that nobody was told of.
            assert.include([n, n + 1], value?.n)
          }
          assert.isDefined(parse(yield* store.get("shared")))
        }
        assert.strictEqual(told.size, 2)
      }),
    60_000
  )
})
