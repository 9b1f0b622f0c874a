/**
 * Whether the tab (or worker) that held something is still alive, for `Recovery`: it holds a Web Lock, which the
 * browser releases when the tab is closed, crashes or goes to another page. Any other tab of the origin can see that.
 *
 * A frozen tab holds its locks. A tab that is reloaded is another one, unless it holds the same name again, e.g. one
 * that it keeps in its `sessionStorage`. Where there are no Web Locks (insecure origins, outside of browsers) all of
 * this fails with `TabUnknown`.
 *
 * **Example** (What this tab works on)
 *
 * ```ts
 * import * as TabAlive from "effect-lifeline/browser/TabAlive"
 * import type * as Lease from "effect-lifeline/Lease"
 * import * as Recovery from "effect-lifeline/Recovery"
 * import * as Effect from "effect/Effect"
 *
 * declare const lease: Lease.Lease
 *
 * export const program = Effect.gen(function*() {
 *   const leases = yield* Recovery.makeLeases()
 *   yield* leases.put({ lease, provenance: "Managed", holder: yield* TabAlive.hold() })
 *   return yield* Effect.never
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import type * as Scope from "effect/Scope"

/**
 * Whether a tab is alive could not be found out.
 *
 * @category errors
 * @since 0.1.0
 */
export class TabUnknown extends Data.TaggedError("TabUnknown")<{
  readonly detail: string
  readonly cause?: Error | undefined
}> {
  override get message() {
    return `whether a tab is alive cannot be known: ${this.detail}`
  }
  /** All but the cause, which is the platform's. */
  override toJSON() {
    return { _tag: this._tag, detail: this.detail, message: this.message }
  }
}

const prefix = "effect-lifeline/tab/"

const failed = (detail: string) => (cause: unknown): TabUnknown =>
  new TabUnknown(cause instanceof Error ? { detail, cause } : { detail })

/** The types promise it everywhere. */
const locks: Effect.Effect<LockManager, TabUnknown> = /*#__PURE__*/ Effect.suspend(() => {
  const found = (globalThis.navigator as Navigator | undefined)?.locks as LockManager | undefined
  return found === undefined
    ? Effect.fail(new TabUnknown({ detail: "there are no Web Locks; browsers have them in secure contexts" }))
    : Effect.succeed(found)
})

/**
 * Text that stands for this tab, as long as the scope is open. Several may hold the same `name`. It must not be empty.
 *
 * @category constructors
 * @since 0.1.0
 */
export const hold = (
  options: { readonly name?: string | undefined } = {}
): Effect.Effect<string, TabUnknown, Scope.Scope> =>
  Effect.gen(function*() {
    const manager = yield* locks
    const crypto = yield* WebCrypto
    const name = prefix + (options.name ?? Hex.encode(crypto.getRandomValues(new Uint8Array(16))))
    yield* Effect.acquireRelease(
      Effect.callback<() => void, TabUnknown>((resume) => {
        const given = new AbortController()
        manager.request(name, { mode: "shared", signal: given.signal }, () =>
          new Promise<void>((release) =>
            resume(Effect.succeed(release))
          )).catch((cause: unknown) => resume(Effect.fail(failed("the lock was not given")(cause))))
        return Effect.sync(() => given.abort())
      }),
      (release) => Effect.sync(release),
      { interruptible: true }
    )
    return name
  })

/**
 * Whether a tab that holds that text is open. Fails also for what {@link hold} did not give.
 *
 * @category getters
 * @since 0.1.0
 */
export const isAlive = (holder: string | undefined): Effect.Effect<boolean, TabUnknown> =>
  holder === undefined || !holder.startsWith(prefix)
    ? Effect.fail(new TabUnknown({ detail: "there is no text of a tab" }))
    : Effect.flatMap(locks, (manager) =>
      Effect.tryPromise({
        try: async () => (await manager.query()).held?.some(({ name }) => name === holder) === true,
        catch: failed("the locks cannot be read")
      }))
