/**
 * ControlChannel: an authenticated connection that is kept, over any `Socket` of `effect/socket`: TCP on Node, Deno and Bun,
 * `connect()` on Workers, a WebSocket in browsers.
 *
 * - **Frames.** A `Framing` says where a message ends and how long it may be, a {@link Codec} what it is.
 * - **The handshake** is an effect of the program's, run on each connection before anything else. What it yields is the session:
 *   who we are on this connection, e.g. the port that the server gave. The next handshake is told the session of the last
 *   connection, so that it can ask for the same again. Opening, and each message that it waits for, has a deadline of 3 s.
 * - **Liveness.** A connection on which no message came for 8 s is dead. Pings of our own are optional.
 * - **Reconnecting** is that of `Reconnect`: same engine, same pace, same log, metrics and spans. `AuthFailed` and `Refused` end
 *   the channel at once; everything else is tried again, with `Backoff.boreControl`: 1 s doubling to 64 s.
 * - **The backoff starts over after a healthy period** (10 s), never with a handshake: a server that lets everyone in and then
 *   hangs up is not hammered.
 * - **Sending.** What cannot be sent yet, also as there is no connection, waits in an outbox with limits and a named policy.
 *
 * | how a connection ends | means |
 * |---|---|
 * | the handshake fails with `AuthFailed`, `Refused` | the end, at once |
 * | end of stream in the handshake, a reset, a deadline | `Transient`: tried again |
 * | a frame that is too long, a message that the codec does not know | `Inconclusive`: tried again; 10 in a row without a healthy connection between them are `NoProgress` |
 * | a close code, where the socket is a WebSocket | by `Classify.webSocketSubscribed` |
 *
 * What was handed to the platform when a connection breaks may be lost: that it arrived is for the protocol to say.
 *
 * **Example** (Lines over TCP)
 *
 * ```ts
 * import * as NodeSocket from "@effect/platform-node/NodeSocket"
 * import * as ControlChannel from "effect-lifeline/ControlChannel"
 * import * as Framing from "effect-lifeline/Framing"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const program = Effect.gen(function*() {
 *   const channel = yield* ControlChannel.make({
 *     open: NodeSocket.makeNet({ host: "relay.example", port: 7000 }),
 *     framing: Framing.newline({ maxBytes: 1024 }),
 *     codec: ControlChannel.text,
 *     handshake: Effect.fnUntraced(function*(link: ControlChannel.Link<string, string, string>) {
 *       yield* link.send(`hello ${link.previous ?? "new"}`)
 *       return yield* link.receive
 *     })
 *   })
 *   yield* Effect.log(`we are ${yield* channel.session}`)
 *   yield* Stream.runForEach(channel.messages, (line) => Effect.log(line))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import type * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Backoff from "./Backoff.ts"
import type { FrameError, Framing } from "./Framing.ts"
import * as Engine from "./internal/controlChannel.ts"
import type { Disconnected } from "./internal/controlChannel.ts"
import type { Overflow } from "./internal/outbox.ts"
import type {
  Attempted,
  AuthFailed,
  Closed,
  Exhausted,
  Inconclusive,
  NoProgress,
  Refused,
  Shutdown,
  Transient
} from "./LifelineError.ts"
import type { OutboxOptions } from "./WebSocket.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Codecs
// ---------------------------------------------------------------------------------------------------------------------

/**
 * From frames to messages and back. Neither function may throw.
 *
 * @category models
 * @since 0.1.0
 */
export interface Codec<out In, in Out> {
  /** A failure is a frame that is none of this protocol. What it fails with is not shown: it may hold what came. */
  readonly decode: (frame: Uint8Array) => Result.Result<In, unknown>
  readonly encode: (message: Out) => Uint8Array
}

/**
 * Messages are the bytes of frames.
 *
 * @category codecs
 * @since 0.1.0
 */
export const bytes: Codec<Uint8Array, Uint8Array> = {
  decode: Result.succeed,
  encode: (message) => message
}

const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8", { fatal: true })

/**
 * Messages are text, in UTF-8. A frame that is not is none of this protocol.
 *
 * @category codecs
 * @since 0.1.0
 */
export const text: Codec<string, string> = {
  decode: (frame) => Result.try(() => decoder.decode(frame)),
  encode: (message) => encoder.encode(message)
}

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a connection, and so a handshake, may fail. `Transient` and `Inconclusive` are tried again.
 *
 * @category errors
 * @since 0.1.0
 */
export type Failure = Transient | Inconclusive | AuthFailed | Refused

export {
  /**
   * The connection ended, or did not come about, and the channel was told not to reconnect. `session` is whether the handshake
   * had succeeded.
   *
   * @category errors
   * @since 0.1.0
   */
  Disconnected
} from "./internal/controlChannel.ts"

/**
 * What a handshake says and hears.
 *
 * @category models
 * @since 0.1.0
 */
export interface Exchange<out In, in Out> {
  /** What to call it in errors of one's own. */
  readonly at: Attempted
  /** Waits until it is written, at most `stepTimeout`. A message that does not fit into a frame is `Refused`. */
  readonly send: (message: Out) => Effect.Effect<void, Transient | Refused>
  /** The next message; at most `stepTimeout` is waited for it. The end of the connection is `Transient`. */
  readonly receive: Effect.Effect<In, Failure>
  /** The next message, if there is one within this time; a message that comes later is not lost. */
  readonly receiveWithin: (within: Duration.Input) => Effect.Effect<In | undefined, Failure>
}

/**
 * A connection that is in its handshake.
 *
 * @category models
 * @since 0.1.0
 */
export interface Link<out In, in Out, out Session> extends Exchange<In, Out> {
  /** The session of the last connection whose handshake succeeded: what to ask for again. `undefined`: this is the first. */
  readonly previous: Session | undefined
  /** The how manieth attempt since the last healthy connection, from 1. */
  readonly attempt: number
  /** How long it took to open this connection: about one round trip, where it is TCP. */
  readonly opened: Duration.Duration
}

/**
 * How a dead connection is told from a silent one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Liveness<out Out> {
  /** A connection on which no message came for so long is dead. @default 8 seconds (that of bore's reconnecting branch) */
  readonly deadline?: Duration.Input | undefined
  /** Sent after half of the deadline without a message, and where `every` is given, so often. @default none */
  readonly ping?: Out | undefined
  /** How often to send the ping whatever comes, for a server that has a deadline too. @default never */
  readonly every?: Duration.Input | undefined
}

/**
 * What a channel is made from. The first three are needed, and a codec where messages are not bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<in out In, in out Out, in out Session, out R = never> {
  /**
   * Gives the socket of one connection; run anew for each, in its scope. What it or the socket fails with while it opens,
   * unless it is an error of the algebra, counts as a server that cannot be reached.
   */
  readonly open: Effect.Effect<Socket.Socket, unknown, R>
  /** Where a message ends. */
  readonly framing: Framing
  /** Makes us known, and finds out who the server takes us for. Its verdicts are its errors. */
  readonly handshake: (link: Link<In, Out, Session>) => Effect.Effect<Session, Failure, R>
  /** What a frame is. @default as {@link bytes} */
  readonly codec: Codec<In, Out>
  /** Which messages are there only to show that the server lives: nobody is handed them. @default none */
  readonly isHeartbeat?: ((message: In) => boolean) | undefined
  /** @default a deadline of 8 seconds, and no pings */
  readonly liveness?: Liveness<Out> | undefined
  /** The deadline of opening, and of each message sent or waited for in the handshake. @default 3 seconds */
  readonly stepTimeout?: Duration.Input | undefined
  /** The deadline of opening and handshake together, whatever they do. @default 30 seconds */
  readonly openTimeout?: Duration.Input | undefined
  /** How long closing may take: what waits is sent. @default 500 milliseconds */
  readonly closeTimeout?: Duration.Input | undefined
  /** Staying connected for so long is what starts the backoff over; at least 1 second. @default 10 seconds */
  readonly healthyAfter?: Duration.Input | undefined
  /** As in `Reconnect`. @default 10 */
  readonly noProgressLimit?: number | undefined
  /** What may wait to be sent, and what becomes of more. */
  readonly outbox?: OutboxOptions | undefined
  /**
   * So many messages may wait to be read. Then nothing more is read from the connection, and its silence proves nothing.
   *
   * @default 1024
   */
  readonly inbox?: number | undefined
  /** What errors and log lines call it. @default `{ operation: "connect", target: "control channel" }` */
  readonly at?: Attempted | undefined
}

/**
 * Where a channel stands. Times are milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Status<Session, E> =
  | { readonly _tag: "Connecting"; readonly attempt: number }
  | { readonly _tag: "Ready"; readonly since: number; readonly session: Session }
  | {
    readonly _tag: "Waiting"
    /** The attempt that comes next. */
    readonly attempt: number
    readonly until: number
    readonly cause: Transient | Inconclusive | undefined
  }
  | { readonly _tag: "Paused"; readonly why: "offline" }
  | {
    readonly _tag: "Closed"
    /** `undefined`: a defect. */
    readonly cause: E | Shutdown | undefined
  }

/**
 * What happened, as it happens. `at` is milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Event<Session, E> =
  /** The handshake succeeded; `again`: not for the first time. */
  | { readonly _tag: "Ready"; readonly at: number; readonly session: Session; readonly again: boolean }
  /** A connection with a session ended. */
  | { readonly _tag: "Lost"; readonly at: number; readonly cause: Failure }
  /** An attempt to connect failed. */
  | { readonly _tag: "Failed"; readonly at: number; readonly attempt: number; readonly cause: Failure }
  | { readonly _tag: "Closed"; readonly at: number; readonly cause: E | Shutdown | undefined }

/**
 * See {@link make}. `E` is how it may end for good, beside being closed.
 *
 * @category models
 * @since 0.1.0
 */
export interface ControlChannel<out In, in Out, in out Session, in out E> {
  /**
   * What comes, over however many connections, without heartbeats. To be read, and by one reader: two share what comes. Ends
   * with an error always: after what waits, with how the channel ended.
   */
  readonly messages: Stream.Stream<In, E | Closed>
  /**
   * Succeeds when the platform took the message. While there is no session it waits for one, in the outbox. A caller that is
   * interrupted takes its message back.
   */
  readonly send: (message: Out) => Effect.Effect<void, E | Closed | Overflow | FrameError>
  /** The present session; waits for the next one where there is none. */
  readonly session: Effect.Effect<Session, E | Closed>
  readonly status: SubscriptionRef.SubscriptionRef<Status<Session, E>>
  /** From now on. Ends when the channel does. A reader that is behind loses the oldest events beyond the last 256. */
  readonly events: Stream.Stream<Event<Session, E>>
  /** Skips the rest of a wait. */
  readonly reconnectNow: Effect.Effect<void>
  /** Ends it, as the end of its scope does: what waits to be sent goes out, who waits gets `Closed`. Idempotent. */
  readonly close: Effect.Effect<void>
}

// ---------------------------------------------------------------------------------------------------------------------
// Constructors
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A channel that lives as long as the scope. It connects at once, in the background; `session` waits until it is there.
 *
 * What `reconnect` is leaves its mark in the error type:
 *
 * | `reconnect` | the channel ends with |
 * |---|---|
 * | an unbounded policy (`Backoff.boreControl` by default) | `AuthFailed`, `Refused`, `NoProgress` |
 * | a bounded policy | these, and `Exhausted` |
 * | `false` | `AuthFailed`, `Refused`, and {@link Disconnected} as soon as there is no connection |
 *
 * **Example** (Once, and no more)
 *
 * ```ts
 * import * as ControlChannel from "effect-lifeline/ControlChannel"
 * import * as Effect from "effect/Effect"
 *
 * declare const options: ControlChannel.Options<string, string, number>
 *
 * export const port = Effect.scoped(Effect.gen(function*() {
 *   const channel = yield* ControlChannel.make({ ...options, reconnect: false })
 *   return yield* channel.session
 * })).pipe(
 *   Effect.catchTag("Disconnected", (error) => Effect.fail(error.last))
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <In, Out, Session, R = never>(
    options: Options<In, Out, Session, R> & { readonly reconnect: false }
  ): Effect.Effect<
    ControlChannel<In, Out, Session, AuthFailed | Refused | Disconnected>,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
  <In, Out, Session, R = never>(
    options: Options<In, Out, Session, R> & { readonly reconnect?: Backoff.Unbounded | undefined }
  ): Effect.Effect<
    ControlChannel<In, Out, Session, AuthFailed | Refused | NoProgress>,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
  <In, Out, Session, R = never>(
    options: Options<In, Out, Session, R> & { readonly reconnect?: Backoff.Policy | undefined }
  ): Effect.Effect<
    ControlChannel<In, Out, Session, AuthFailed | Refused | NoProgress | Exhausted>,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
} = Engine.make

/**
 * A channel as a service, under a key of the program's own.
 *
 * **Example** (A key of one's own)
 *
 * ```ts
 * import * as ControlChannel from "effect-lifeline/ControlChannel"
 * import type { AuthFailed, NoProgress, Refused } from "effect-lifeline/LifelineError"
 * import * as Context from "effect/Context"
 *
 * declare const options: ControlChannel.Options<string, string, number>
 *
 * export class Control extends Context.Service<
 *   Control,
 *   ControlChannel.ControlChannel<string, string, number, AuthFailed | Refused | NoProgress>
 * >()("my-program/Control") {}
 *
 * export const layer = ControlChannel.layer(Control, ControlChannel.make(options))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <I, In, Out, Session, E, R>(
  key: Context.Key<I, ControlChannel<In, Out, Session, E>>,
  channel: Effect.Effect<ControlChannel<In, Out, Session, E>, never, R>
): Layer.Layer<I, never, Exclude<R, Scope.Scope>> => Layer.effect(key, channel)
