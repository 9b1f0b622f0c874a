/**
 * What the platform knows of the network and of its own sleep: whoever holds a connection open uses it to come back sooner,
 * and not to try while there is no network.
 *
 * By default nothing is known: always online, no changes. {@link layerBrowser} listens to the page:
 *
 * | event | is |
 * |---|---|
 * | `online`, `offline` of the window | `"online"`, `"offline"` |
 * | `visibilitychange` to visible | `"wake"` |
 * | `pageshow` of a page that was kept (back/forward cache) | `"wake"` |
 * | `resume` of a page that was frozen | `"wake"` |
 *
 * That a page is hidden or frozen is no change: nothing is closed for it. A browser that is online by its own account may
 * still reach nothing; one that is offline reaches nothing for sure.
 *
 * **Example** (A program in a browser)
 *
 * ```ts
 * import * as Connectivity from "effect-lifeline/Connectivity"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const program = Connectivity.Connectivity.use((connectivity) =>
 *   Stream.runForEach(connectivity.changes, (change) => Effect.log(change))
 * ).pipe(Effect.provide(Connectivity.layerBrowser))
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * `"wake"`: the page can be seen again or runs again, so timers may be late and connections may be dead. The several events
 * of one return are one `"wake"`.
 *
 * @category models
 * @since 0.1.0
 */
export type Change = "online" | "offline" | "wake"

/**
 * What the platform knows of the network.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connectivity {
  /** `false` only where the platform is sure that there is no network. */
  readonly online: Effect.Effect<boolean>
  /**
   * What happens while it is read; any number may read it. A stream that ends has nothing more to say. A reader that is
   * behind loses the oldest changes beyond the last 16.
   */
  readonly changes: Stream.Stream<Change>
}

/**
 * Does nothing by default: online, and no changes.
 *
 * @category services
 * @since 0.1.0
 */
export const Connectivity: Context.Reference<Connectivity> = Context.Reference<Connectivity>(
  "effect-lifeline/Connectivity",
  { defaultValue: () => ({ online: Effect.succeed(true), changes: Stream.empty }) }
)

/**
 * The part of the DOM's `EventTarget` that is used.
 *
 * @category models
 * @since 0.1.0
 */
export interface Target {
  addEventListener(type: string, listener: (event: { readonly persisted?: boolean }) => void): void
  removeEventListener(type: string, listener: (event: { readonly persisted?: boolean }) => void): void
}

/**
 * The part of a window, or of a worker's global scope, that is used. What is missing stays silent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Host extends Partial<Target> {
  readonly navigator?: { readonly onLine?: boolean } | undefined
  readonly document?: Target & { readonly visibilityState: string } | undefined
}

/** Changes that a reader may be behind. */
const backlog = 16

/** Signs of waking that come within this time, in nanoseconds, are of one return. */
const oneReturn = 1_000_000_000n

/**
 * Listens to a window, or to a worker's global scope, as long as the scope is open. Then no listener is left, and `changes`
 * ends.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (host: Host) => Effect.Effect<Connectivity, never, Scope.Scope> = Effect.fnUntraced(
  function*(host: Host) {
    const clock = yield* Clock.Clock
    const readers = new Set<Queue.Queue<Change, Cause.Done>>()
    let open = true
    const publish = (change: Change) => {
      for (const reader of readers) Queue.offerUnsafe(reader, change)
    }
    let last: bigint | undefined
    const wake = () => {
      const now = clock.monotonicTimeNanosUnsafe()
      if (last === undefined || now - last >= oneReturn) publish("wake")
      last = now
    }

    const listen = (
      target: Partial<Target> | undefined,
      type: string,
      listener: Parameters<Target["addEventListener"]>[1]
    ) =>
      Effect.acquireRelease(
        Effect.sync(() => target?.addEventListener?.(type, listener)),
        () => Effect.sync(() => target?.removeEventListener?.(type, listener))
      )
    const { document } = host
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        open = false
        for (const reader of readers) Queue.endUnsafe(reader)
      })
    )
    yield* listen(host, "online", () => publish("online"))
    yield* listen(host, "offline", () => publish("offline"))
    yield* listen(host, "pageshow", ({ persisted }) => {
      if (persisted === true) wake()
    })
    yield* listen(document, "resume", wake)
    yield* listen(document, "visibilitychange", () => {
      if (document?.visibilityState === "visible") wake()
    })

    return {
      online: Effect.sync(() => host.navigator?.onLine !== false),
      changes: Stream.callback<Change>((queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            if (open) readers.add(queue)
            else Queue.endUnsafe(queue)
          }),
          () => Effect.sync(() => readers.delete(queue))
        ), { bufferSize: backlog, strategy: "sliding" })
    }
  }
)

/**
 * {@link make} for the page or the worker that the program runs in. Elsewhere it stays silent.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBrowser: Layer.Layer<never> = Layer.effect(
  Connectivity,
  // Each platform's types say something else of its own global scope; what is not there is not used.
  Effect.suspend(() => make(globalThis as unknown as Host))
)
