/**
 * Reconnect: a stream that survives its connections.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
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
 * | `Gap` | the server cannot resume where it was asked to: the consumer gets a {@link Gap} |
 *
 * @category models
 * @since 0.1.0
 */
export type Notice<Cursor = never> =
  | { readonly notice: "Cursor"; readonly cursor: Cursor; readonly progress?: boolean | undefined }
  | { readonly notice: "Retry"; readonly base: Duration.Input }
  | { readonly notice: "Gap" }

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
 * @category models
 * @since 0.1.0
 */
export type Connect<A, Cursor, R> = (
  dial: Dial<Cursor>
) => Effect.Effect<Stream.Stream<Frame<A, Cursor> | Notice<Cursor>, Failure, R>, Failure, R>

/**
 * What the consumer gets where something may be missing: the server could not resume. At most once for each connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gap {
  readonly _tag: "Gap"
  /** When the connection before was lost, milliseconds since 1970; `undefined` where this is the first one. */
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
 * Where a cursor is kept beyond the life of a stream. See `cursorStore`.
 *
 * @category models
 * @since 0.1.0
 */
export interface CursorStore<in out Cursor> {
  /** `undefined`: none is kept. */
  readonly load: Effect.Effect<Cursor | undefined, unknown>
  readonly save: (cursor: Cursor) => Effect.Effect<void, unknown>
}

/**
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
  /** Where the first connection resumes, unless the store knows better. @default from now on */
  readonly cursor?: Cursor | undefined
  /** Where the cursor is kept. @default nowhere */
  readonly cursorStore?: CursorStore<Cursor> | undefined
}
