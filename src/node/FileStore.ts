/**
 * A `KeyValueStore` in a directory, for what must survive a crash: one file per key, replaced atomically.
 *
 * `set` writes a temporary file, flushes it to the disk, renames it over the old one and flushes the directory. When it
 * returns, the new value is there after a `kill -9` and after a power cut; when the process dies on the way, the old one
 * is. (Effect's own file store writes in place: a crash can leave half a file.) Changes of one key are made in the order
 * in which they were asked for. Interrupting one does not wait for the disk: it is not made, unless it was just being made.
 *
 * Files can be read by their owner only.
 *
 * Several processes may share a directory, also as several start and are killed:
 *
 * - Each `get`, `keys` and `size` reads the disk: what `set` or `remove` of another process has returned from is seen.
 * - A value is one that somebody has set, and a whole one. Of two that set a key at once, one stays; nothing tells the other one.
 *   There is no compare-and-set, and no order across processes.
 * - `clear` and `clearPrefix` remove what is there, and what this process was asked to set before. What other processes set
 *   meanwhile may stay. `keys` may miss a key that is being replaced: the system promises no more of a directory that changes.
 * - What a killed process left unfinished is never a value. It is removed when the directory is opened next: at once where its pid
 *   is that of no process, else after an hour. On a shared volume, where pids say nothing, that may hit a write that is being
 *   made; that one is made again.
 *
 * This is about the files. A registry (`node/NodeRegistry`) reads its directory once, so each needs one of its own.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Semaphore from "effect/Semaphore"
import { randomBytes } from "node:crypto"
import type { FileHandle } from "node:fs/promises"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import * as KeyedLock from "../server/internal/lock.ts"

/**
 * Where the files are, and how safe a write is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Made, with its parents, when it is not there. */
  readonly directory: string
  /**
   * Whether `set` and `remove` wait for the disk. Without it a `kill -9` still loses nothing; a power cut may.
   *
   * @default true
   */
  readonly sync?: boolean | undefined
}

/** How many files are written at the same time: a burst of writes must not use up the file handles of the process. */
const mostWrites = 32

const suffix = ".value"

/** `<pid>.<random>.<number>.tmp`: no other process, and no other store of this one, has the same. */
const draftOf = (random: string, n: number): string => `${process.pid}.${random}.${n}.tmp`
const draftPattern = /^([1-9]\d{0,9})\.[0-9a-f]{16}\.\d+\.tmp$/

/** A draft that is older than this, in milliseconds, is no longer written, whoever has its pid. */
const oldest = 60 * 60_000

/** How often a write is made whose draft is removed under it. */
const mostTries = 5

/** Of most file systems, in bytes. */
const longestName = 255

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

const attempt = <A>(method: string, key: string | undefined, run: () => Promise<A>) =>
  Effect.tryPromise({
    try: run,
    catch: (cause) =>
      new KeyValueStore.KeyValueStoreError({
        method,
        ...(key === undefined ? {} : { key }),
        message: `${method} failed${key === undefined ? "" : ` for ${key}`}: ${String(codeOf(cause) ?? cause)}`,
        cause
      })
  })

const keyOf = (file: string): string | undefined => {
  if (!file.endsWith(suffix)) return undefined
  try {
    return decodeURIComponent(file.slice(0, -suffix.length))
  } catch {
    return undefined
  }
}

const flushed = async (handle: FileHandle, sync: boolean, write?: (handle: FileHandle) => Promise<void>) => {
  try {
    await write?.(handle)
    if (sync) await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Not every platform can flush a directory (Windows cannot open one), and none needs to where it cannot. */
const flushDirectory = async (directory: string): Promise<void> => {
  try {
    await flushed(await Fs.open(directory, "r"), true)
  } catch (cause) {
    if (codeOf(cause) !== "EPERM" && codeOf(cause) !== "EISDIR" && codeOf(cause) !== "EINVAL") throw cause
  }
}

/** Whether a pid is that of a process, also of one of another user. */
const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return codeOf(cause) !== "ESRCH"
  }
}

/** Removes the drafts that nobody will finish. What cannot be removed is harmless: it is in no one's way. */
const sweep = async (directory: string): Promise<void> => {
  const now = Date.now()
  const started = now - process.uptime() * 1000
  for (const file of await Fs.readdir(directory)) {
    const pid = Number(draftPattern.exec(file)?.[1])
    if (Number.isNaN(pid)) continue
    const path = Path.join(directory, file)
    try {
      // In a container each start may have the same pid.
      const after = pid === process.pid ? Math.max(started, now - oldest) : now - oldest
      if (!isRunning(pid) || (await Fs.stat(path)).mtimeMs < after) await Fs.rm(path, { force: true })
    } catch {
      continue
    }
  }
}

/**
 * Opens the directory, and removes what crashes left unfinished in it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<KeyValueStore.KeyValueStore, KeyValueStore.KeyValueStoreError> {
  const directory = Path.resolve(options.directory)
  const sync = options.sync ?? true
  const writes = yield* Semaphore.make(mostWrites)
  const lock = KeyedLock.make()
  const random = randomBytes(8).toString("hex")
  /** The keys of the changes that were asked for and are not over. */
  const pending = new Set<{ readonly key: string }>()
  let written = 0

  const pathOf = (method: string, key: string): Effect.Effect<string, KeyValueStore.KeyValueStoreError> => {
    const name = `${encodeURIComponent(key)}${suffix}`
    return name.length <= longestName
      ? Effect.succeed(Path.join(directory, name))
      : Effect.fail(
        new KeyValueStore.KeyValueStoreError({
          method,
          key,
          message: `${method} failed: the key is too long for a file`
        })
      )
  }

  const read = (method: string, key: string) =>
    Effect.flatMap(pathOf(method, key), (path) =>
      attempt(method, key, async () => {
        try {
          return await Fs.readFile(path)
        } catch (cause) {
          if (codeOf(cause) === "ENOENT") return undefined
          throw cause
        }
      }))

  const replace = async (path: string, value: string | Uint8Array, signal: AbortSignal): Promise<void> => {
    for (let tries = 1;; tries++) {
      written = (written + 1) % 1e9
      const draft = Path.join(directory, draftOf(random, written))
      try {
        await flushed(await Fs.open(draft, "wx", 0o600), sync, (handle) => handle.writeFile(value))
        signal.throwIfAborted()
        await Fs.rename(draft, path)
        break
      } catch (cause) {
        await Fs.rm(draft, { force: true })
        // Removed by a process that could not know that this one is alive, unless the directory is gone as a whole.
        if (codeOf(cause) !== "ENOENT" || tries === mostTries) throw cause
      }
    }
    if (sync) await flushDirectory(directory)
  }

  const delete_ = async (path: string): Promise<void> => {
    await Fs.rm(path, { force: true })
    if (sync) await flushDirectory(directory)
  }

  /**
   * The disk cannot be interrupted: what has begun goes on in a fiber of its own, and keeps its turn and its permit, so that
   * the next change of this key comes after it, and not more files are open than may be.
   */
  const change = (method: string, key: string, run: (path: string, signal: AbortSignal) => Promise<void>) =>
    Effect.flatMap(pathOf(method, key), (path) =>
      Effect.uninterruptibleMask((restore) => {
        const controller = new AbortController()
        const asked = { key }
        pending.add(asked)
        return attempt(method, key, () => run(path, controller.signal)).pipe(
          Effect.uninterruptible,
          writes.withPermits(1),
          lock(path),
          Effect.ensuring(Effect.sync(() => pending.delete(asked))),
          // At once: what is interrupted before it begins would stay pending.
          Effect.forkDetach({ startImmediately: true }),
          Effect.flatMap((fiber) =>
            Effect.onInterrupt(restore(Fiber.join(fiber)), () =>
              Effect.sync(() => {
                controller.abort()
                fiber.interruptUnsafe()
              }))
          )
        )
      }))

  const keys = (method: string) =>
    Effect.map(
      attempt(method, undefined, () => Fs.readdir(directory)),
      // A system may list a file twice that is replaced meanwhile.
      (files) => [...new Set(files.flatMap((file) => keyOf(file) ?? []))]
    )

  const remove = (method: string, key: string) => change(method, key, (path) => delete_(path))

  const removeAll = (method: string, prefix: string) =>
    Effect.suspend(() => {
      const asked = Array.from(pending, ({ key }) => key)
      return Effect.flatMap(
        keys(method),
        (there) =>
          Effect.forEach(
            new Set([...there, ...asked].filter((key) => key.startsWith(prefix))),
            (key) => remove(method, key),
            { concurrency: "unbounded", discard: true }
          )
      )
    })

  yield* attempt("open", undefined, async () => {
    await Fs.mkdir(directory, { recursive: true, mode: 0o700 })
    await sweep(directory)
  })

  return KeyValueStore.make({
    get: (key) => Effect.map(read("get", key), (bytes) => bytes?.toString("utf8")),
    getUint8Array: (key) => Effect.map(read("getUint8Array", key), (bytes) => bytes && new Uint8Array(bytes)),
    set: (key, value) => change("set", key, (path, signal) => replace(path, value, signal)),
    remove: (key) => remove("remove", key),
    clear: removeAll("clear", ""),
    clearPrefix: (prefix) => removeAll("clearPrefix", prefix),
    keys: keys("keys"),
    size: Effect.map(keys("size"), (all) => all.length)
  })
})

/**
 * {@link make} as a layer.
 *
 * **Example** (A durable registry)
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
export const layer = (
  options: Options
): Layer.Layer<KeyValueStore.KeyValueStore, KeyValueStore.KeyValueStoreError> =>
  Layer.effect(KeyValueStore.KeyValueStore, make(options))
