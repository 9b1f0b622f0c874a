/**
 * Listener: one connection, many subscriptions. It connects when the first one comes, and keeps every one of them on
 * whatever connection there is, until it is closed or refused.
 *
 * The connection is the caller's: anything that sends and receives messages, a WebSocket or a bidirectional stream of gRPC
 * or Connect. What becomes of it when it breaks is decided where it is for every stream: `Reconnect`.
 *
 * - **Two waits.** In the background it reconnects without a bound, as long as there are subscriptions. A caller who
 *   subscribes or sends waits for that same reconnecting, never dials by itself, and gives up after 5 attempts or 15 s
 *   of waiting, with `Exhausted`; the background goes on.
 * - **Replay.** On each new connection every key is subscribed anew before anybody else sends on it. A message whose
 *   connection was replaced meanwhile goes out at once on the new one.
 * - **Isolation.** Each subscription has a queue of its own, and a bound on it: who reads slowly, or fails, is alone with it.
 * - **Who waits is answered**: with a message, or with `Closed`, or with the error that ended it for all. After an error
 *   the next subscription starts afresh.
 * - **Without subscriptions** an open connection stays as it is, and none is made: when it ends, that is the end, until
 *   somebody subscribes.
 * - **The pace** of `Reconnect`, at most 8 dials in any 10 s, holds for a listener as a whole, however often it starts afresh.
 *
 * What a server sent while there was no connection is lost, unless it sends it again when it is subscribed to.
 *
 * **Example** (Prices, over one WebSocket)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as Listener from "effect-lifeline/Listener"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const program = Effect.gen(function*() {
 *   const prices = yield* Listener.make({
 *     connect: WebSocket.open({ url: "wss://feed.example/live" }),
 *     route: (message: string) => message.split(" ")[0],
 *     subscribe: (symbol: string) => `subscribe ${symbol}`,
 *     unsubscribe: (symbol: string) => `unsubscribe ${symbol}`
 *   })
 *   const gold = yield* prices.subscribe("gold")
 *   yield* Stream.runForEach(gold.messages, (message) => Effect.log(message))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Backoff from "./Backoff.ts"
import * as Engine from "./internal/listener.ts"
import type { Lagged } from "./internal/listenerQueue.ts"
import type { Overflow } from "./internal/outbox.ts"
import type { Attempted, AuthFailed, Closed, Exhausted, NoProgress } from "./LifelineError.ts"
import { Inconclusive, Refused } from "./LifelineError.ts"
import type * as Reconnect from "./Reconnect.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The port
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a subscription is known by, on the wire and here.
 *
 * @category port
 * @since 0.1.0
 */
export type Key = string | number

/**
 * What a connection that speaks several versions of a protocol is told when it is asked for. See {@link versions}.
 *
 * @category port
 * @since 0.1.0
 */
export interface Dial<out Version> extends Reconnect.Dial<never> {
  /** The version to speak. */
  readonly version: Version
}

/**
 * A connection, open until its scope is closed. One of `WebSocket` is one.
 *
 * @category port
 * @since 0.1.0
 */
export interface Connection<out In, in Out> {
  /**
   * Read once, from when the connection is there. Ends when the connection does: without an error, or with one of the
   * algebra (`Classify` has the tables). `Stop` counts only while nothing is subscribed.
   */
  readonly messages: Stream.Stream<In, Reconnect.Failure>
  /**
   * Never called twice at the same time. Succeeds when the message is on its way. Fails with what ended the connection,
   * with `Closed` when our side closes it, or with `Overflow`: then this message alone was refused.
   */
  readonly send: (message: Out) => Effect.Effect<void, Reconnect.Failure | Overflow | Closed>
}

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How far the reader of a subscription may be behind, and what happens when it is further.
 *
 * @category models
 * @since 0.1.0
 */
export interface Buffer {
  /** In messages. @default 1024 */
  readonly capacity?: number | undefined
  /**
   * What becomes of a message for which there is no room, once the reader was given a chance to make some:
   * - `"fail"`: the subscription ends with {@link Lagged}, after what waits for it. The others do not notice.
   * - `"dropOldest"`: the oldest message that waits makes room, and is counted in `dropped`. For states, where only the
   *   last one counts. The others do not notice.
   * - `"suspend"`: nothing more is read from the connection until there is room: nothing is lost, and **all** wait. For
   *   a listener whose readers belong together.
   *
   * The default is `"fail"`: it neither holds the others up nor loses messages in silence.
   *
   * @default "fail"
   */
  readonly overflow?: "fail" | "dropOldest" | "suspend" | undefined
}

/**
 * What a listener is made from. The first three are needed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<in out K extends Key, in out In, in out Out, out R = never> {
  /**
   * Makes one connection, in a scope of its own; it never retries. What it and all replaying may take together is
   * `openTimeout`.
   */
  readonly connect: (dial: Reconnect.Dial<never>) => Effect.Effect<Connection<In, Out>, Reconnect.Failure, R>
  /** Whose message it is: of one key, of several, or `undefined`: of none. Must not throw: that would end the listener. */
  readonly route: (message: In) => K | ReadonlyArray<K> | undefined
  /**
   * The message that subscribes. It is sent for each subscription, also for a second one of the same key (a server may answer
   * each with where things stand), and once for each key on each new connection.
   */
  readonly subscribe: (key: K) => Out
  /** The message that is sent when the last subscription of a key is gone. @default none is sent */
  readonly unsubscribe?: ((key: K) => Out) | undefined
  /** The waits between two connections in the background. @default `Backoff.streams` */
  readonly policy?: Backoff.Unbounded | undefined
  /**
   * How long a caller waits for a connection: so many attempts, or, where that comes first, as long as the waits between
   * them may take together. What the attempts themselves take, each `openTimeout` at most, comes on top.
   *
   * @default `Backoff.synchronous`: 5 attempts, 15 seconds
   */
  readonly synchronous?: Backoff.Bounded | undefined
  /** The deadline of sending one message; then the connection counts as broken. @default 10 seconds */
  readonly sendTimeout?: Duration.Input | undefined
  /** For all subscriptions that do not say otherwise. */
  readonly buffer?: Buffer | undefined
  /** What errors and log lines call it. @default `{ operation: "listen", target: "listener" }` */
  readonly at?: Attempted | undefined
  /** As in `Reconnect`. @default 10 (Hatchet's) */
  readonly noProgressLimit?: number | undefined
  /** As in `Reconnect`. @default 10 seconds */
  readonly healthyAfter?: Duration.Input | undefined
  /** As in `Reconnect`. @default 30 seconds */
  readonly openTimeout?: Duration.Input | undefined
}

/**
 * How a listener ends for all who use it: closed, or because of an error that no further connection would help against.
 *
 * @category errors
 * @since 0.1.0
 */
export type Ended = Closed | AuthFailed | Refused | NoProgress

export {
  /**
   * The reader of a subscription was further behind than its {@link Buffer} allows.
   *
   * @category errors
   * @since 0.1.0
   */
  Lagged
} from "./internal/listenerQueue.ts"

/**
 * One subscription. Gone with the scope it was made in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription<out In> {
  /**
   * What came for the key since the subscription was made, over however many connections. What was read once does not come
   * again. Never ends without an error: after what waits for it, it fails with how the listener ended, with {@link Lagged},
   * or with `Closed` when its own scope was closed.
   */
  readonly messages: Stream.Stream<In, Ended | Lagged>
  /** How many messages made room for newer ones (`"dropOldest"`). */
  readonly dropped: Effect.Effect<number>
}

/**
 * How long to wait for one message, and where else to look for it.
 *
 * @category models
 * @since 0.1.0
 */
export interface AwaitOptions<in out In, out E = never, out R = never> {
  /** Which message is meant. @default the first one */
  readonly filter?: ((message: In) => boolean) | undefined
  /** Looks elsewhere meanwhile: {@link poll}. @default nowhere */
  readonly fallback?: Fallback<In, E, R> | undefined
}

/**
 * Where else to look for a message; it is told how many messages of the key came so far. What it fails with ends the wait.
 *
 * @category models
 * @since 0.1.0
 */
export type Fallback<out In, out E = never, out R = never> = (received: () => number) => Effect.Effect<In, E, R>

/**
 * See the functions; made by {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener<in K extends Key, in out In, in Out> {
  /**
   * Subscribes: succeeds once the message that does so is on its way on the present connection. The subscription stays on
   * whatever connection there is until the scope is closed. A caller that is interrupted, or whose subscribing fails, leaves
   * nothing behind.
   */
  readonly subscribe: (
    key: K,
    options?: Buffer
  ) => Effect.Effect<Subscription<In>, Ended | Exhausted, Scope.Scope>
  /**
   * Subscribes, waits for one message and leaves. Fails as soon as subscribing does; once it has succeeded, waits as long as
   * the listener lives. Any number may wait for one key.
   */
  readonly await: <E = never, R = never>(
    key: K,
    options?: AwaitOptions<In, E, R>
  ) => Effect.Effect<In, Ended | Exhausted | E, R>
  /** Sends a message of one's own; connects if need be. It may arrive twice when the connection breaks at that moment. */
  readonly send: (message: Out) => Effect.Effect<void, Ended | Exhausted>
  /** Where the connection stands. `Closed` with `Stop` while nobody subscribes, also before anybody did. */
  readonly status: SubscriptionRef.SubscriptionRef<Reconnect.Status>
  /** How many subscriptions there are. */
  readonly size: Effect.Effect<number>
  /** Skips the rest of a wait. */
  readonly reconnectNow: Effect.Effect<void>
  /** Gives up the present connection, if one is open, as broken, for one that is made anew; `why` is what the log says. */
  readonly replace: (why: string) => Effect.Effect<void>
  /**
   * Ends it, as the end of its scope does: who waits gets `Closed`, nothing is opened any more, the connection is closed.
   * A second time it only waits until that is done.
   */
  readonly close: Effect.Effect<void>
}

// ---------------------------------------------------------------------------------------------------------------------
// Constructors
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Makes a listener that lives as long as the scope. Nothing is dialled before somebody subscribes or sends.
 *
 * The background runs with the services and the log annotations that are there now, not with those of who subscribes first.
 *
 * **Example** (The result of a job, by the stream or else by asking)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Listener from "effect-lifeline/Listener"
 * import type * as Reconnect from "effect-lifeline/Reconnect"
 * import type * as Scope from "effect/Scope"
 *
 * interface Result {
 *   readonly job: string
 *   readonly value: number
 * }
 *
 * declare const open: (
 *   version: "v1" | "v2"
 * ) => Effect.Effect<Listener.Connection<Result, string>, Reconnect.Failure, Scope.Scope>
 * declare const ask: (job: string) => Effect.Effect<Result | undefined>
 *
 * export const program = Effect.gen(function*() {
 *   const results = yield* Listener.make({
 *     connect: Listener.versions(["v2", "v1"], ({ version }: Listener.Dial<"v1" | "v2">) => open(version)),
 *     route: (result: Result) => result.job,
 *     subscribe: (job: string) => job
 *   })
 *   return yield* results.await("job-7", { fallback: Listener.poll(ask("job-7"), "10 seconds") })
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: <K extends Key, In, Out, R = never>(
  options: Options<K, In, Out, R>
) => Effect.Effect<Listener<K, In, Out>, never, Exclude<R, Scope.Scope> | Scope.Scope> = Engine.make

/**
 * A connection that speaks several versions of a protocol, the newest first. Where one is refused as `Unsupported`, the next
 * one is tried, and it counts as one connection that carried nothing; where the oldest one is, that is the end, and who comes
 * then begins with the newest. It is for one listener.
 *
 * **Example** (The newer one, and the one before it)
 *
 * ```ts
 * import type * as Effect from "effect/Effect"
 * import * as Listener from "effect-lifeline/Listener"
 * import type * as Reconnect from "effect-lifeline/Reconnect"
 * import type * as Scope from "effect/Scope"
 *
 * declare const open: (
 *   version: "v1" | "v2"
 * ) => Effect.Effect<Listener.Connection<string, string>, Reconnect.Failure, Scope.Scope>
 *
 * export const connect = Listener.versions(["v2", "v1"], (dial: Listener.Dial<"v1" | "v2">) => open(dial.version))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const versions = <Version, In, Out, R>(
  versions: readonly [Version, ...Array<Version>],
  connect: (dial: Dial<Version>) => Effect.Effect<Connection<In, Out>, Reconnect.Failure, R>
): (dial: Reconnect.Dial<never>) => Effect.Effect<Connection<In, Out>, Reconnect.Failure, R> => {
  let present = 0
  return (dial) => {
    const asked = present
    const judge = <E extends { readonly _tag: string }>(error: E | Refused): E | Refused | Inconclusive => {
      if (!(error instanceof Refused)) return error
      const isLast = error.reason._tag !== "Unsupported" || asked + 1 === versions.length
      present = isLast ? 0 : asked + 1
      if (isLast) return error
      const detail = `version ${String(versions[asked])} is not supported, ${String(versions[present])} comes next`
      return new Inconclusive({ operation: error.operation, target: error.target, detail })
    }
    return Effect.mapBoth(connect({ ...dial, version: versions[asked] as Version }), {
      onFailure: judge,
      onSuccess: ({ messages, send }) => ({
        messages: Stream.mapError(messages, judge),
        send: (message) => Effect.mapError(send(message), judge)
      })
    })
  }
}

/**
 * Asks elsewhere for a message that is awaited, e.g. by a unary call, when the stream was silent for its key for `grace`, and
 * again after each further silence. `undefined`: it is not there yet either.
 *
 * **Example** (The result of a job)
 *
 * ```ts
 * import type * as Effect from "effect/Effect"
 * import * as Listener from "effect-lifeline/Listener"
 *
 * declare const listener: Listener.Listener<string, string, string>
 * declare const ask: Effect.Effect<string | undefined>
 *
 * export const result = listener.await("job-7", { fallback: Listener.poll(ask, "10 seconds") })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const poll = <A, E, R>(
  ask: Effect.Effect<A, E, R>,
  grace: Duration.Input = "30 seconds"
): Fallback<Exclude<A, undefined>, E, R> =>
(received) => {
  const again: Effect.Effect<Exclude<A, undefined>, E, R> = Effect.suspend(() => {
    const before = received()
    return Effect.sleep(grace).pipe(
      Effect.andThen(Effect.suspend(() => received() === before ? ask : Effect.undefined)),
      Effect.flatMap((message) => message === undefined ? again : Effect.succeed(message as Exclude<A, undefined>))
    )
  })
  return again
}

/**
 * Takes what a heartbeat beside the connection learnt: `"active"` and `"inactive"` are what the server says of it, `"missed"`
 * is a beat without an answer, which says nothing of the connection and changes nothing. When `limit` in a row (3, Hatchet's)
 * say `"inactive"` of one connection, it is given up as broken, and made anew.
 *
 * **Example** (Heartbeats that end with the connection)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as SubscriptionRef from "effect/SubscriptionRef"
 * import * as Listener from "effect-lifeline/Listener"
 *
 * declare const listener: Listener.Listener<string, string, string>
 * declare const beat: Effect.Effect<"active" | "inactive" | "missed">
 *
 * const ended = SubscriptionRef.changes(listener.status).pipe(Stream.filter(Listener.isTerminal), Stream.runHead)
 *
 * export const beats = beat.pipe(
 *   Effect.flatMap(Listener.heartbeat(listener)),
 *   Effect.andThen(Effect.sleep("4 seconds")),
 *   Effect.forever,
 *   Effect.raceFirst(ended)
 * )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const heartbeat = <K extends Key, In, Out>(
  listener: Listener<K, In, Out>,
  limit = 3
): (reply: "active" | "inactive" | "missed") => Effect.Effect<void> => {
  let inactive = 0
  /** Since when the connection that was counted is open. */
  let since: number | undefined
  return (reply) =>
    Effect.flatMap(SubscriptionRef.get(listener.status), (status) => {
      if (status._tag !== "Open" || reply === "missed") return Effect.void
      if (status.since !== since || reply === "active") inactive = 0
      since = status.since
      if (reply === "active" || ++inactive < limit) return Effect.void
      return listener.replace(`${inactive} heartbeats in a row were told that it is inactive`)
    })
}

/**
 * Whether a status is the end for good: closed, refused, or without progress. Then also the heartbeats beside the connection
 * should stop, so that the server does not take a program for alive that hears nothing. Subscribing after an error starts
 * afresh, and ends this.
 *
 * **Example** (Waiting for the end)
 *
 * ```ts
 * import * as Listener from "effect-lifeline/Listener"
 * import * as Stream from "effect/Stream"
 * import * as SubscriptionRef from "effect/SubscriptionRef"
 *
 * declare const listener: Listener.Listener<string, string, string>
 *
 * export const ended = SubscriptionRef.changes(listener.status).pipe(
 *   Stream.filter(Listener.isTerminal),
 *   Stream.runHead
 * )
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const isTerminal = (status: Reconnect.Status): boolean =>
  status._tag === "Closed" && status.cause?._tag !== "Stop"
