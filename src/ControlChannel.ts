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
 * - **The other side** is {@link serve}, over whatever listens, or {@link makeServer}, for sockets that come from elsewhere.
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
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import type * as SocketServer from "effect/socket/SocketServer"
import type * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import type * as Backoff from "./Backoff.ts"
import type { FrameError, Framing } from "./Framing.ts"
import * as Engine from "./internal/controlChannel.ts"
import type { Disconnected } from "./internal/controlChannel.ts"
import * as ServerEngine from "./internal/controlServer.ts"
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

// ---------------------------------------------------------------------------------------------------------------------
// The other side
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a connection to a server ends, or does not come about, where its handler did not just return.
 *
 * | it is | as |
 * |---|---|
 * | what the handshake failed with | its verdict |
 * | `Transient` (`TimedOut`) | the client was silent, in the handshake or afterwards; or who held its identity did not let go in time |
 * | `Transient` (`Unreachable`) | the client is gone |
 * | `Transient` (`Throttled`) | there are as many connections as may be |
 * | `Inconclusive` | a frame that is too long, a message that the codec does not know |
 * | `Refused` (`Conflict`) | its identity is taken, where that is refused |
 * | `Closed` (`Replaced`) | evicted: a newer connection proved the same identity |
 * | `Closed` (`Shutdown`) | the server is closed |
 *
 * @category errors
 * @since 0.1.0
 */
export type Ending = Failure | Closed

/**
 * What a client is told as its connection ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface Farewell<out Out> {
  /** The last message. */
  readonly message?: Out | undefined
  /** The close frame. For WebSockets only: a TCP connection would be cut off by it, and the last message be lost. */
  readonly close?: { readonly code: number; readonly reason?: string | undefined } | undefined
}

/**
 * Who a client is. Two connections of one identity are one client: the newer one takes over. `undefined`: nobody in particular.
 * It is shown in log lines, events and errors: a name, never a credential.
 *
 * @category models
 * @since 0.1.0
 */
export interface Identified {
  readonly identity: string | undefined
}

/**
 * A connection that was accepted and is in its handshake.
 *
 * @category models
 * @since 0.1.0
 */
export interface Accepted<out In, in Out> extends Exchange<In, Out> {
  /** The how manieth connection to this server it is, from 1. */
  readonly id: number
}

/**
 * A connection with a session, for its handler.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection<out In, in Out, out Session> {
  readonly id: number
  readonly session: Session
  /**
   * What the client sends, without heartbeats; by one reader: two share what comes. Ends with an error always: after what
   * waits, with how the connection ended.
   */
  readonly messages: Stream.Stream<In, Ending>
  /** Succeeds when the platform took the message. A caller that is interrupted takes its message back. */
  readonly send: (message: Out) => Effect.Effect<void, Ending | Overflow | FrameError>
  /** Whether a newer connection of the same identity took over: for finalizers that would leave something to it. */
  readonly evicted: Effect.Effect<boolean>
}

/**
 * How the two sides of a connection find out that the other one is dead.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServeLiveness<out Out> {
  /** Sent as long as the connection lives and nothing else waits to be sent. @default none */
  readonly heartbeat?: Out | undefined
  /** @default 500 milliseconds */
  readonly every?: Duration.Input | undefined
  /** A client from which no message came for so long is dead. @default it may be silent for ever */
  readonly deadline?: Duration.Input | undefined
}

/**
 * What a server is made from. The first three are needed, and a codec where messages are not bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServeOptions<in out In, in out Out, in out Session extends Identified, out R = never> {
  /** Where a message ends. */
  readonly framing: Framing
  /**
   * Finds out who the client is. Its verdicts are its errors. The older connection of the same identity is still there while
   * it runs: what says to the client that it is in is best sent by the handler, before anything else.
   *
   * What a `SocketServer` provides with each connection, e.g. `NodeSocket.NetSocket`, can be had by `Effect.serviceOption`.
   */
  readonly handshake: (link: Accepted<In, Out>) => Effect.Effect<Session, Failure, R>
  /**
   * What becomes of a connection; the connection ends with it. Run in a scope of its own, which is closed before a newer
   * connection of the same identity gets its handler: what it acquires, e.g. a port, is free for that.
   *
   * When the connection ends, `messages` end, and the handler has `closeTimeout` to come to its end. An evicted one is
   * interrupted at once. What it fails with ends its own connection, and is logged; a {@link Failure} is told by `farewell`.
   */
  readonly handler: (connection: Connection<In, Out, Session>) => Effect.Effect<unknown, unknown, R>
  /** What a frame is. @default as {@link bytes} */
  readonly codec: Codec<In, Out>
  /** Which messages are there only to show that the client lives: no handler is handed them. @default none */
  readonly isHeartbeat?: ((message: In) => boolean) | undefined
  /** @default no heartbeats, and no deadline */
  readonly liveness?: ServeLiveness<Out> | undefined
  /** What a newer connection of an identity does to the older one, once it is authenticated. @default "evict" */
  readonly onTaken?: "evict" | "refuse" | undefined
  /** What a client is told as its connection ends. @default nothing */
  readonly farewell?: ((ending: Ending) => Farewell<Out> | undefined) | undefined
  /**
   * So many connections may have a session. One that evicts another needs no place of its own.
   *
   * @default 1024
   */
  readonly maxConnections?: number | undefined
  /** So many may be in their handshake, or wait for another to be evicted; further ones are turned away. @default 128 */
  readonly maxHandshakes?: number | undefined
  /** The deadline of each message sent or waited for in the handshake. @default 3 seconds */
  readonly stepTimeout?: Duration.Input | undefined
  /** The deadline of the whole handshake. @default 10 seconds */
  readonly handshakeTimeout?: Duration.Input | undefined
  /**
   * How long a newer connection waits for the scope of the one that it evicts. Should it not be closed by then, the newer one
   * is turned away, as `Transient`: never are there two. Less than its client waits for an answer. @default 2 seconds
   */
  readonly evictTimeout?: Duration.Input | undefined
  /** How long the end of a connection may take: for what waits to be sent, and for its handler. @default 500 milliseconds */
  readonly closeTimeout?: Duration.Input | undefined
  /** What may wait to be sent on each connection, and what becomes of more. */
  readonly outbox?: OutboxOptions | undefined
  /**
   * So many messages of each connection may wait to be read. Then nothing more is read from it, and its silence proves nothing.
   *
   * @default 64
   */
  readonly inbox?: number | undefined
  /** What errors and log lines call it. @default `{ operation: "accept", target: "control channel" }` */
  readonly at?: Attempted | undefined
}

/**
 * A connection that has a session. `since` is milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connected<out Session> {
  readonly id: number
  readonly session: Session
  readonly since: number
}

/**
 * Where a server stands: how many connections have a session, and how many are in their handshake.
 *
 * @category models
 * @since 0.1.0
 */
export type ServerStatus =
  | { readonly _tag: "Serving"; readonly connections: number; readonly handshakes: number }
  /** Nobody is let in any more; those who are there are told. */
  | { readonly _tag: "Closing"; readonly connections: number; readonly handshakes: number }
  | { readonly _tag: "Closed" }

/**
 * What happened, as it happens. `at` is milliseconds since 1970. Each `Connected` is followed by one of `Evicted`, `Lost`,
 * `Ended` with the same `id`, unless `Closed` comes first.
 *
 * @category models
 * @since 0.1.0
 */
export type ServerEvent<Session> =
  | { readonly _tag: "Connected"; readonly at: number; readonly id: number; readonly session: Session }
  /** A connection ended before it had a session. */
  | { readonly _tag: "Refused"; readonly at: number; readonly id: number; readonly cause: Ending }
  /** A newer connection, `by`, took over. */
  | {
    readonly _tag: "Evicted"
    readonly at: number
    readonly id: number
    readonly session: Session
    readonly by: number
  }
  /** A connection with a session ended by itself. */
  | {
    readonly _tag: "Lost"
    readonly at: number
    readonly id: number
    readonly session: Session
    readonly cause: Failure
  }
  /** Its handler ended; `cause`: not well. */
  | {
    readonly _tag: "Ended"
    readonly at: number
    readonly id: number
    readonly session: Session
    readonly cause: Cause.Cause<unknown> | undefined
  }
  | { readonly _tag: "Closed"; readonly at: number }

/**
 * See {@link serve}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server<out Session> {
  /**
   * Serves one connection; ends when that has ended. Who is interrupted closes it. For runtimes whose sockets do not come from
   * a `SocketServer`, e.g. one half of a Worker's `WebSocketPair`.
   *
   * A WebSocket takes everything that is sent at once. Where the service `Socket.WebSocket` is provided, as a `SocketServer` for
   * WebSockets does, what it has not sent yet counts for the outbox, if the platform tells (Workers do not).
   */
  readonly accept: (socket: Socket.Socket) => Effect.Effect<void>
  /** Who is connected now, by how long. */
  readonly connections: Effect.Effect<ReadonlyArray<Connected<Session>>>
  readonly status: SubscriptionRef.SubscriptionRef<ServerStatus>
  /** From now on. Ends when the server does. A reader that is behind loses the oldest events beyond the last 256. */
  readonly events: Stream.Stream<ServerEvent<Session>>
  /**
   * As the end of its scope does: lets nobody in any more, tells every client, sends what waits for `closeTimeout` at most.
   * Idempotent.
   */
  readonly close: Effect.Effect<void>
}

/**
 * The server side of a channel, over whatever listens: TCP on Node, Deno and Bun (`NodeSocketServer.layer`), WebSockets
 * (`NodeSocketServer.layerWebSocket`). It lives as long as the scope.
 *
 * - **Nobody is let in** without a handshake that succeeded, in its deadlines; at most `maxHandshakes` may try at once.
 * - **One connection for each identity.** The newer one evicts the older one, but not before it is authenticated: a client whose
 *   link broke unnoticed has its port back at once, and nobody else can take it. The older one's scope is closed before the
 *   newer one's handler runs.
 * - **An evicted client** sees its connection end, and comes back by its backoff: two programs that fight for one identity evict
 *   each other less and less often. What `farewell` makes of `Closed` can tell it to stay away.
 * - **One connection cannot harm another**: its handler's failures and defects, its garbage and its silence are its own; what it
 *   does not read fills its own outbox, what its handler does not read holds up itself.
 *
 * It fails at once, with `Refused`, where the heartbeat does not fit into a frame, or a limit lets nobody in.
 *
 * **Example** (A name for everyone)
 *
 * ```ts
 * import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
 * import * as Classify from "effect-lifeline/Classify"
 * import * as ControlChannel from "effect-lifeline/ControlChannel"
 * import * as Framing from "effect-lifeline/Framing"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 *
 * declare const nameOf: (token: string) => Effect.Effect<string | undefined>
 *
 * const served = ControlChannel.serve({
 *   framing: Framing.newline({ maxBytes: 1024 }),
 *   codec: ControlChannel.text,
 *   liveness: { heartbeat: "beat" },
 *   farewell: (ending) => ({ message: ending._tag === "Closed" ? "bye" : "no" }),
 *   handshake: Effect.fnUntraced(function*(link: ControlChannel.Accepted<string, string>) {
 *     const identity = yield* nameOf(yield* link.receive)
 *     return identity === undefined ? yield* Effect.fail(Classify.unauthorized(link.at)) : { identity }
 *   }),
 *   handler: Effect.fnUntraced(function*({ messages, send, session }) {
 *     yield* send(`welcome ${session.identity}`)
 *     yield* Stream.runForEach(messages, (line) => send(`you said ${line}`))
 *   })
 * })
 *
 * export const layer = Layer.effectDiscard(served).pipe(Layer.provide(NodeSocketServer.layer({ port: 7000 })))
 * ```
 *
 * @category servers
 * @since 0.1.0
 */
export const serve: <In, Out, Session extends Identified, R = never>(
  options: ServeOptions<In, Out, Session, R>
) => Effect.Effect<
  Server<Session>,
  Refused,
  Exclude<R, Scope.Scope> | Scope.Scope | SocketServer.SocketServer
> = ServerEngine.serve

/**
 * As {@link serve}, where nothing listens: the program hands it each connection with `accept`.
 *
 * **Example** (A socket from elsewhere)
 *
 * ```ts
 * import * as ControlChannel from "effect-lifeline/ControlChannel"
 * import * as Effect from "effect/Effect"
 * import * as Socket from "effect/socket/Socket"
 *
 * declare const options: ControlChannel.ServeOptions<string, string, { readonly identity: string }>
 * declare const half: WebSocket
 *
 * const socket = Socket.fromWebSocket(
 *   Effect.acquireRelease(Effect.succeed(half), (webSocket) => Effect.sync(() => webSocket.close()))
 * )
 *
 * export const program = Effect.scoped(Effect.gen(function*() {
 *   const server = yield* ControlChannel.makeServer(options)
 *   yield* Effect.provideService(server.accept(yield* socket), Socket.WebSocket, half)
 * }))
 * ```
 *
 * @category servers
 * @since 0.1.0
 */
export const makeServer: <In, Out, Session extends Identified, R = never>(
  options: ServeOptions<In, Out, Session, R>
) => Effect.Effect<Server<Session>, Refused, Exclude<R, Scope.Scope> | Scope.Scope> = ServerEngine.make
