/**
 * A `KeyValueStore` in a directory, for what must survive a crash: one file per key, replaced atomically.
 *
 * `set` writes a temporary file, flushes it to the disk, renames it over the old one and flushes the directory. When it
 * returns, the new value is there after a `kill -9` and after a power cut; when the process dies on the way, the old one
 * is. (Effect's own file store writes in place: a crash can leave half a file.) Changes of one key are made in the order
 * in which they were asked for. Interrupting one does not wait for the disk: it is not made, unless it was just being made.
 *
 * Files can be read by their owner only. One process at a time: two over one directory do not corrupt it, but neither sees
 * what the other one remembers.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Semaphore from "effect/Semaphore"
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
const temporary = ".tmp"

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

/**
 * Opens the directory, and removes what a crash left unfinished in it.
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
  let written = 0

  const pathOf = (method: string, key: string): Effect.Effect<string, KeyValueStore.KeyValueStoreError> => {
    const name = `${encodeURIComponent(key)}${suffix}`
    return name.length + temporary.length + 12 <= longestName
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
    written = (written + 1) % 1e9
    const draft = `${path}.${written}${temporary}`
    try {
      await flushed(await Fs.open(draft, "w", 0o600), sync, (handle) => handle.writeFile(value))
      signal.throwIfAborted()
      await Fs.rename(draft, path)
    } catch (cause) {
      await Fs.rm(draft, { force: true })
      throw cause
    }
    if (sync) await flushDirectory(directory)
  }

  const delete_ = async (files: ReadonlyArray<string>): Promise<void> => {
    for (const file of files) await Fs.rm(file, { force: true })
    if (sync && files.length > 0) await flushDirectory(directory)
  }

  /**
   * The disk cannot be interrupted: what has begun goes on in a fiber of its own, and keeps its turn and its permit, so that
   * the next change of this key comes after it, and not more files are open than may be.
   */
  const change = (method: string, key: string, run: (path: string, signal: AbortSignal) => Promise<void>) =>
    Effect.flatMap(pathOf(method, key), (path) =>
      Effect.suspend(() => {
        const controller = new AbortController()
        return attempt(method, key, () => run(path, controller.signal)).pipe(
          Effect.uninterruptible,
          writes.withPermits(1),
          lock(path),
          Effect.forkDetach,
          Effect.flatMap((fiber) =>
            Effect.onInterrupt(Fiber.join(fiber), () =>
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
      (files) => files.flatMap((file) => keyOf(file) ?? [])
    )

  const remove = (method: string, key: string) => change(method, key, (path) => delete_([path]))

  const removeAll = (method: string, prefix: string) =>
    Effect.flatMap(
      keys(method),
      (all) =>
        Effect.forEach(all.filter((key) => key.startsWith(prefix)), (key) => remove(method, key), {
          concurrency: "unbounded",
          discard: true
        })
    )

  yield* attempt("open", undefined, async () => {
    await Fs.mkdir(directory, { recursive: true, mode: 0o700 })
    const files = await Fs.readdir(directory)
    await delete_(files.filter((file) => file.endsWith(temporary)).map((file) => Path.join(directory, file)))
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
