/**
 * What happens in the embedded registry, told to everybody who listens: a hub with ids, a bounded history and resume.
 *
 * A subscriber is a position in the history and nothing else, so a slow one costs no memory: it reads on from its position
 * when it is ready, and is told of a gap when the history has moved past it. Ids are `<boot>-<number>`, where `boot` is
 * different each time the registry starts: an id of an earlier boot is a gap, not a wrong position.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Pull from "effect/Pull"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Wire from "../internal/pulseWire.ts"
import { formatTime } from "../internal/time.ts"

/**
 * Something to tell. `type` is one of Pulse's event types; others pass through.
 *
 * @category models
 * @since 0.1.0
 */
export interface Input {
  readonly type: string
  readonly serviceId?: string | undefined
  readonly data?: { readonly [key: string]: Schema.Json } | undefined
}

/**
 * What a subscriber gets. `Opened` comes first and once: its `id` is where the subscriber stands, so that resuming from it
 * misses nothing even if no event ever came. It has none where the id that was asked for is not of this hub: only the `Gap`
 * that follows may move who asked, or a connection that ends between the two would lose the gap. `Gap` says that events
 * after the requested id, or after the last one delivered, are gone; what is left of the history follows. `Idle` comes when
 * nothing happened for as long as was asked.
 *
 * @category models
 * @since 0.1.0
 */
export type Message =
  | { readonly _tag: "Opened"; readonly id: string | undefined }
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Gap"; readonly id: string; readonly event: Wire.Event }
  | { readonly _tag: "Event"; readonly id: string; readonly event: Wire.Event }

/**
 * What a subscriber may ask for.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions {
  /** The id of the last event that the subscriber has seen. Without it: only what happens from now on. */
  readonly after?: string | undefined
  /** Send `Idle` each time when nothing has happened for so long. Without it: never. */
  readonly idleAfter?: Duration.Input | undefined
}

/**
 * How much history is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Events that a subscriber can still resume from.
   *
   * @default 1000
   */
  readonly history?: number | undefined
}

/**
 * The hub. `subscribe` gives a stream that ends when the hub is closed; what it holds is given back when the stream ends
 * or is interrupted.
 *
 * **Example** (Watching a registry in its own process)
 *
 * ```ts
 * import * as Events from "effect-lifeline/server/Events"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const watch = Events.Events.use((events) =>
 *   events.subscribe().pipe(Stream.runForEach((message) => Effect.log(message)))
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export class Events extends Context.Service<Events, {
  readonly publish: (event: Input) => Effect.Effect<void>
  readonly subscribe: (options?: SubscribeOptions) => Stream.Stream<Message>
  /** The id of the last event, to subscribe after it later. */
  readonly position: Effect.Effect<string>
  /** How many subscribers there are now. */
  readonly subscribers: Effect.Effect<number>
  /** Ends all subscriptions, now and in future. */
  readonly close: Effect.Effect<void>
}>()("effect-lifeline/server/Events") {}

/**
 * Makes a hub. It is closed with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options?: Options
) => Effect.Effect<Events["Service"], never, SecureRandom.SecureRandom | Scope.Scope> = Effect.fnUntraced(function*(
  options?: Options
) {
  const capacity = Math.max(1, options?.history ?? 1000)
  const boot = (yield* (yield* SecureRandom.SecureRandom).uuidV4()).slice(0, 8)
  const history: Array<Wire.Event> = []
  /** Number of the first event that is still in the history, counted from 1. */
  let first = 1
  let closed = false
  const waiting = new Set<() => void>()
  let subscribers = 0

  const idOf = (number: number): string => `${boot}-${number}`
  const last = (): number => first + history.length - 1

  /** The oldest event that is promised; up to as many again may still be there. */
  const oldest = (): number => Math.max(first, last() - capacity + 1)

  const wake = (): void => {
    const all = Array.from(waiting)
    waiting.clear()
    for (const resume of all) resume()
  }

  const publish = (event: Input): Effect.Effect<void> =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      if (closed) return
      history.push({
        type: event.type,
        timestamp: formatTime(now),
        ...(event.serviceId === undefined ? {} : { service_id: event.serviceId }),
        ...(event.data === undefined ? {} : { data: event.data })
      })
      // Drops half at a time: shifting one by one would move the whole array for each event.
      if (history.length >= capacity * 2) {
        const removed = history.length - capacity
        history.splice(0, removed)
        first = first + removed
      }
      wake()
    })

  const changed: Effect.Effect<boolean> = Effect.callback((resume) => {
    const waiter = () => resume(Effect.succeed(true))
    waiting.add(waiter)
    return Effect.sync(() => void waiting.delete(waiter))
  })

  const gap = (after: string, now: number): Message => ({
    _tag: "Gap",
    id: idOf(oldest() - 1),
    event: { type: "gap", timestamp: formatTime(now), data: { after, next: idOf(oldest()) } }
  })

  /** The number after `boot-`, if this id is one that this hub has given out. */
  const numberOf = (id: string): number | undefined => {
    if (!id.startsWith(`${boot}-`)) return undefined
    const digits = id.slice(boot.length + 1)
    const number = /^\d{1,15}$/.test(digits) ? Number(digits) : undefined
    return number !== undefined && number <= last() ? number : undefined
  }

  const idle: Arr.NonEmptyReadonlyArray<Message> = [{ _tag: "Idle" }]

  const subscribe = (options?: SubscribeOptions): Stream.Stream<Message> =>
    Stream.unwrap(Effect.gen(function*() {
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          subscribers = subscribers + 1
        }),
        () =>
          Effect.sync(() => {
            subscribers = subscribers - 1
          })
      )
      const after = options?.after === "" ? undefined : options?.after
      const resumed = after === undefined ? last() : numberOf(after)
      let position = resumed ?? -1
      let lost = resumed === undefined ? after : undefined
      let opened = false
      const wait = options?.idleAfter === undefined
        ? changed
        : Effect.timeoutOrElse(changed, { duration: options.idleAfter, orElse: () => Effect.succeed(false) })

      const pull: Pull.Pull<Arr.NonEmptyReadonlyArray<Message>> = Effect.suspend(() => {
        if (!opened) {
          opened = true
          return Effect.succeed<Arr.NonEmptyReadonlyArray<Message>>([{
            _tag: "Opened",
            id: lost === undefined ? idOf(position) : undefined
          }])
        }
        if (closed) return Cause.done()
        if (position < oldest() - 1) {
          const missed = lost ?? idOf(position)
          lost = undefined
          position = oldest() - 1
          return Effect.map(Clock.currentTimeMillis, (now): Arr.NonEmptyReadonlyArray<Message> => [gap(missed, now)])
        }
        const head = history[position + 1 - first]
        if (head === undefined) {
          return Effect.flatMap(wait, (something) => something ? pull : Effect.succeed(idle))
        }
        const tail = history.slice(position + 2 - first)
        const start = position + 1
        position = last()
        const message = (event: Wire.Event, index: number): Message => ({
          _tag: "Event",
          id: idOf(start + index),
          event
        })
        return Effect.succeed<Arr.NonEmptyReadonlyArray<Message>>([
          message(head, 0),
          ...tail.map((event, index) => message(event, index + 1))
        ])
      })
      return Stream.fromPull(Effect.succeed(pull))
    }))

  const close = Effect.sync(() => {
    closed = true
    wake()
  })

  yield* Effect.addFinalizer(() => close)
  return Events.of({
    publish,
    subscribe,
    position: Effect.sync(() => idOf(last())),
    subscribers: Effect.sync(() => subscribers),
    close
  })
})

/**
 * {@link make} as a layer.
 *
 * **Example** (A longer memory)
 *
 * ```ts
 * import * as Events from "effect-lifeline/server/Events"
 * import * as SecureRandom from "effect/crypto/SecureRandom"
 * import * as Layer from "effect/Layer"
 *
 * export const events = Events.layer({ history: 10_000 }).pipe(Layer.provide(SecureRandom.layerWebCrypto))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Events, never, SecureRandom.SecureRandom> =>
  Layer.effect(Events, make(options))
