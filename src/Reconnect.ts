/**
 * Reconnect: a stream that survives its connections. What is the same for every transport is here, once: when to dial
 * again, what counts as progress, where to resume, when to give up, what to say about it.
 *
 * A transport is a {@link Connect}: it makes one connection and yields what comes as frames. It never retries, and it fails
 * in the algebra of `LifelineError` (`Classify` has the tables). `EventSource` and `WebSocket` are two.
 *
 * - **Progress** is a frame that came, or a connection that stayed open for a healthy period; that it opened is none. Only
 *   progress starts the backoff and the count of fruitless connections over.
 * - **Fruitless** is a connection that ended, without an error or for an unclear reason, before there was progress. Ten of
 *   them in a row are `NoProgress`: the peer is there, and is not what it should be.
 * - **Generations.** Each connection has a scope of its own, which is closed before the next one is dialled.
 * - **The cursor** is that of the last value that was handed to the reader. Each dial is told it. A server that cannot
 *   resume there makes the reader see a {@link Gap}, one for each loss: the time to read everything anew.
 * - **Waits** come from a `Backoff.Policy`. The server may ask for more (`Retry-After`; held inside the policy's limits) and may
 *   set the first window (`retry:` of an event stream; held inside 250 ms to 60 s). A server that asks to be spared gets at
 *   least the first window.
 * - **The pace**: whatever happens, at most 8 dials in any 10 s, 3 of them at once. So a server that says hello and hangs up,
 *   which is progress each time, is not hammered either.
 * - **Connectivity**: while the platform says offline nothing is dialled, and what failed meanwhile is not counted; when it says
 *   online or wake, the rest of a wait is skipped.
 * - **The log** has one line when a connection is first lost, at every fifth failure in a row, when the stream recovered,
 *   and when nothing more is tried. Losses count as in a row until a connection was healthy.
 *
 * Everything happens while the stream is read: a reader that is busy holds the connection up, and one that leaves ends it.
 *
 * **Example** (A transport)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import type { Transient } from "effect-lifeline/LifelineError"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 *
 * declare const open: (after: number | undefined) => Effect.Effect<Stream.Stream<number, Transient>, Transient>
 *
 * export const numbers = Reconnect.stream((dial: Reconnect.Dial<number>) =>
 *   Effect.map(open(dial.cursor), Stream.map((value) => ({ value, cursor: value })))
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Backoff from "./Backoff.ts"
import type { Limit } from "./internal/bounded.ts"
import { limitOf } from "./internal/bounded.ts"
import * as Store from "./internal/cursorStore.ts"
import * as Engine from "./internal/reconnect.ts"
import type {
  Attempted,
  AuthFailed,
  Exhausted,
  Inconclusive,
  NoProgress,
  Refused,
  Shutdown,
  Stop,
  Transient
} from "./LifelineError.ts"

export {
  /**
   * What a transport fails with when a connection ended for a reason that is unclear.
   *
   * @category errors
   * @since 0.1.0
   */
  Inconclusive,
  /**
   * What a transport fails with when the server said that there is nothing more: the stream ends.
   *
   * @category errors
   * @since 0.1.0
   */
  Stop
} from "./LifelineError.ts"

/**
 * What a transport is told when it is asked to connect.
 *
 * @category models
 * @since 0.1.0
 */
export interface Dial<out Cursor> {
  /** Where to resume: after this one. `undefined`: from now on. */
  readonly cursor: Cursor | undefined
  /** The how manieth attempt since there last was progress, from 1. */
  readonly attempt: number
  /** The how manieth connection of this stream, from 1, whether it came about or not. */
  readonly generation: number
}

/**
 * What a transport yields: one value for the consumer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Frame<out A, out Cursor = never> {
  readonly notice?: undefined
  readonly value: A
  /** Where to resume once the consumer was handed this value. */
  readonly cursor?: Cursor | undefined
  /** Whether it shows that the stream works. @default true */
  readonly progress?: boolean | undefined
}

/**
 * What a transport yields for {@link stream} itself, in order with the frames; the consumer does not see it.
 *
 * | notice | means |
 * |---|---|
 * | `Cursor` | resume after this one from now on, e.g. an event that is an id and nothing else; progress, unless it says otherwise |
 * | `Retry` | the server set the first window of the backoff: held inside 250 ms to 60 s, kept until it sets another |
 * | `Gap` | events are lost, e.g. as the server cannot resume where it was asked to: the consumer gets a {@link Gap}; no progress, unless it says otherwise |
 *
 * @category models
 * @since 0.1.0
 */
export type Notice<Cursor = never> =
  | { readonly notice: "Cursor"; readonly cursor: Cursor; readonly progress?: boolean | undefined }
  | { readonly notice: "Retry"; readonly base: Duration.Input }
  | { readonly notice: "Gap"; readonly cursor?: Cursor | undefined; readonly progress?: boolean | undefined }

/**
 * How a connection may fail, while it is made and while it is open. What comes from outside becomes one of these in
 * `Classify`.
 *
 * @category models
 * @since 0.1.0
 */
export type Failure = Transient | Inconclusive | AuthFailed | Refused | Stop

/**
 * A transport: makes one connection, in a scope of its own. Closing the scope must end the connection. A stream that ends
 * without an error is a connection that ended; it is made again. `Stop` ends it for good.
 *
 * It may run in a fiber of its own, which ends when it returns: what it forks has to be forked into the scope. Its requests
 * need no deadline beside `openTimeout`; how long an open connection may be silent is its own business.
 *
 * @category models
 * @since 0.1.0
 */
export type Connect<A, Cursor, R> = (
  dial: Dial<Cursor>
) => Effect.Effect<Stream.Stream<Frame<A, Cursor> | Notice<Cursor>, Failure, R>, Failure, R>

/**
 * What the consumer gets where something may be missing, e.g. where the server could not resume. One for each loss that the
 * transport tells of; those that come together, with no event between them, are one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gap {
  readonly _tag: "Gap"
  /** When the connection before this one was lost, milliseconds since 1970; `undefined` where this is the first one. */
  readonly since: number | undefined
}

/**
 * Where a stream stands. Times are milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Status =
  | { readonly _tag: "Connecting"; readonly attempt: number }
  | { readonly _tag: "Open"; readonly since: number }
  | {
    readonly _tag: "Waiting"
    /** The attempt that comes next. */
    readonly attempt: number
    readonly until: number
    /** How the connection before ended; `undefined`: without an error. */
    readonly cause: Transient | Inconclusive | undefined
  }
  | { readonly _tag: "Paused"; readonly why: "offline" }
  | {
    readonly _tag: "Closed"
    /** `Shutdown`: whoever read the stream left. `undefined`: a defect. */
    readonly cause: AuthFailed | Refused | NoProgress | Exhausted | Stop | Shutdown | undefined
  }

/**
 * Where a cursor is kept beyond the life of a stream: made by {@link cursorStore} or {@link makeCursorStore}.
 *
 * @category models
 * @since 0.1.0
 */
export interface CursorStore<in out Cursor> {
  readonly "~effect-lifeline/Reconnect": Store.Through<Cursor>
}

/**
 * A policy that gives up. See {@link bounded}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounded extends Backoff.Bounded {
  readonly "~effect-lifeline/Reconnect": Limit
}

/**
 * Lets a stream give up, with `Exhausted`, as a policy says: after so many attempts since there last was progress, or when
 * the next one would be too late. The loss of a connection that worked is no attempt. A policy without a bound never gives
 * up, here either.
 *
 * **Example** (Five attempts in a row)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 *
 * export const events = EventSource.stream("http://pulse:9696/api/v1/events", {
 *   policy: Reconnect.bounded(Backoff.synchronous)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const bounded = (policy: Backoff.Policy): Bounded => ({
  attempts: Infinity,
  elapsed: Infinity,
  ...policy,
  bound: "bounded",
  "~effect-lifeline/Reconnect": limitOf(policy)
})

/**
 * What a stream is made from, beside its transport and its policy. Everything has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<in out Cursor> {
  /** What errors and log lines call it. @default `{ operation: "connect", target: "stream" }` */
  readonly at?: Attempted | undefined
  /** So many connections in a row that carry nothing, and it is `NoProgress`. @default 10 (Hatchet's) */
  readonly noProgressLimit?: number | undefined
  /** Staying open for so long is progress too; at least 1 second. @default 10 seconds */
  readonly healthyAfter?: Duration.Input | undefined
  /** The deadline of one attempt to connect, over whatever the transport does for it. @default 30 seconds */
  readonly openTimeout?: Duration.Input | undefined
  /** Where the first connection resumes, unless the store knows better. @default from now on */
  readonly cursor?: Cursor | undefined
  /** Where the cursor is kept. @default nowhere */
  readonly cursorStore?: CursorStore<Cursor> | undefined
  /** To look at the stream and to act on it from outside. @default none */
  readonly handle?: Handle | undefined
}

/**
 * A stream as seen from outside: made by {@link makeHandle}, given to the stream as an option.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handle {
  /** `Connecting` until the stream is first read. */
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  /** Skips the rest of a wait. Nothing else: what is open stays open. */
  readonly reconnectNow: Effect.Effect<void>
  /**
   * Gives up the present connection for a new one, as when it is known to be dead; the loss is not counted. What came
   * on it and was not read yet is not waited for. Skips the rest of a wait.
   */
  readonly replace: Effect.Effect<void>
  readonly "~effect-lifeline/Reconnect": Engine.Wires
}

/**
 * A handle for one stream. A stream that is run again goes on with it.
 *
 * **Example** (A button)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as SubscriptionRef from "effect/SubscriptionRef"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 *
 * declare const connect: Reconnect.Connect<string, string, never>
 * declare const pressed: Stream.Stream<void>
 *
 * export const program = Effect.gen(function*() {
 *   const handle = yield* Reconnect.makeHandle
 *   yield* Effect.forkScoped(Stream.runForEach(pressed, () => handle.reconnectNow))
 *   yield* Effect.forkScoped(
 *     Stream.runForEach(SubscriptionRef.changes(handle.status), (status) => Effect.log(status._tag))
 *   )
 *   yield* Stream.runForEach(Reconnect.stream(connect, { handle }), (event) => Effect.log(event))
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeHandle: Effect.Effect<Handle> = Effect.map(
  SubscriptionRef.make<Status>({ _tag: "Connecting", attempt: 1 }),
  (status) => {
    const listeners: Engine.Wires["listeners"] = new Set()
    const tell = (command: Engine.Command) =>
      Effect.sync(() => {
        for (const listener of listeners) listener(command)
      })
    return {
      status,
      reconnectNow: tell("now"),
      replace: tell("replace"),
      "~effect-lifeline/Reconnect": { listeners, set: (next) => SubscriptionRef.set(status, next) }
    }
  }
)

/**
 * Keeps a cursor that is a text in a `KeyValueStore`, so that a program that was restarted resumes where it was.
 *
 * The cursor is saved when the reader comes back for more, and when it leaves without an error. So an event whose handling
 * was cut off comes again; none is skipped.
 *
 * **Example** (Resuming after a restart)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 * import * as Stream from "effect/Stream"
 *
 * declare const connect: Reconnect.Connect<string, string, never>
 *
 * export const events = Stream.unwrap(Effect.gen(function*() {
 *   const store = yield* KeyValueStore.KeyValueStore
 *   return Reconnect.stream(connect, { cursorStore: Reconnect.cursorStore(store, "events") })
 * }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const cursorStore = (store: KeyValueStore.KeyValueStore, key: string): CursorStore<string> =>
  makeCursorStore({
    load: store.get(key),
    save: (cursor) => store.set(key, cursor)
  })

/**
 * {@link cursorStore} for cursors of any kind, kept anywhere. Each access has 5 seconds. One that fails, or takes longer,
 * is a warning in the log; where it was the reading, the stream begins with a {@link Gap}.
 *
 * **Example** (A number, in a table of one's own)
 *
 * ```ts
 * import type * as Effect from "effect/Effect"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 *
 * declare const table: {
 *   readonly read: Effect.Effect<number | undefined, Error>
 *   readonly write: (position: number) => Effect.Effect<void, Error>
 * }
 *
 * export const cursorStore = Reconnect.makeCursorStore({ load: table.read, save: table.write })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeCursorStore = <Cursor>(access: {
  /** `undefined`: none is kept. */
  readonly load: Effect.Effect<Cursor | undefined, unknown>
  readonly save: (cursor: Cursor) => Effect.Effect<void, unknown>
}): CursorStore<Cursor> => ({ "~effect-lifeline/Reconnect": Store.through(access) })

/**
 * The stream: connects when it is first read, and again whenever a connection ends, until it is told to stop, is refused, or
 * has no progress. Each run is a stream of its own, with connections of its own.
 *
 * The policy leaves its mark in the error type: without a bound `Transient` is gone, with one ({@link bounded}) it is
 * `Exhausted`.
 *
 * **Example** (What is left in the type)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import type { AuthFailed, Exhausted, NoProgress, Refused } from "effect-lifeline/LifelineError"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 * import type * as Stream from "effect/Stream"
 *
 * declare const connect: Reconnect.Connect<number, string, never>
 *
 * export const events: Stream.Stream<number | Reconnect.Gap, AuthFailed | Refused | NoProgress> = Reconnect.stream(connect)
 *
 * export const bounded: Stream.Stream<number | Reconnect.Gap, AuthFailed | Refused | NoProgress | Exhausted> = Reconnect
 *   .stream(connect, { policy: Reconnect.bounded(Backoff.synchronous) })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function stream<A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options?: Options<Cursor> & { readonly policy?: Backoff.Unbounded | undefined }
): Stream.Stream<A | Gap, AuthFailed | Refused | NoProgress, Exclude<R, Scope.Scope>>
export function stream<A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options: Options<Cursor> & { readonly policy?: Backoff.Unbounded | Bounded | undefined }
): Stream.Stream<A | Gap, AuthFailed | Refused | NoProgress | Exhausted, Exclude<R, Scope.Scope>>
export function stream<A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options: Options<Cursor> & { readonly policy?: Backoff.Unbounded | Bounded | undefined } = {}
): Stream.Stream<A | Gap, Engine.Ends, Exclude<R, Scope.Scope>> {
  return Engine.stream(connect, { ...options, at: options.at ?? { operation: "connect", target: "stream" } })
}
