/**
 * WebSockets that tell the truth: a transport for `Reconnect`, and connections with a bounded outbox.
 *
 * - **Dialling.** URL and credential are asked for anew for each connection; that, the handshake and the first frame share
 *   one deadline (`connectWithin`). What rejects or hangs there is a failure of that attempt, no more.
 * - **Liveness.** {@link liveness} finds half-open connections: after half of its `deadline` without a frame the other side is
 *   pinged, after all of it the connection is dead. After a suspended timer it is pinged once more before it is judged; and
 *   at once, where the platform says that it woke or is online again (`Connectivity`): then half of the deadline is left.
 *   Platforms' WebSockets cannot ping by themselves, except `ws` on Node (`node/NodeWebSocket`): elsewhere it needs a `ping`
 *   of the application, or a server that sends something at least every `deadline`.
 * - **Sending.** `send` succeeds when the platform took the message, and fails otherwise; nothing is dropped silently, also
 *   while the connection closes. That the other side received it is for the application's protocol to say.
 * - **Credentials.** Headers on Node, Deno, Bun, and on Workers with {@link layerFetch}. Browsers send none: there it is a
 *   ticket in the URL, a subprotocol, or the first frame.
 *
 * A global WebSocket does not tell the status of a refused handshake, so a 401 looks like a server that is away, and is
 * tried again. {@link layerFetch} and `node/NodeWebSocket` do tell.
 * Nor can it be cut off: what becomes of a connection whose other side is silent, after it was closed, is up to the platform.
 *
 * The port is {@link Dialer}, not the `Socket` of `effect/socket`: that one's errors bring `Schema` (18 kB gzip), and it tells
 * neither the status of a handshake nor what the platform has buffered, and cannot ping. {@link fromSocket} makes one of the
 * other, for TCP and whatever else there is a `Socket` of.
 *
 * **Example** (A stream that survives, with a ticket for each connection)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Redacted from "effect/Redacted"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * declare const ticket: Effect.Effect<Redacted.Redacted>
 *
 * export const messages = WebSocket.stream({
 *   url: WebSocket.perDial(() =>
 *     Effect.map(ticket, (it) => Redacted.make(`wss://feed.example/live?ticket=${Redacted.value(it)}`))
 *   ),
 *   liveness: WebSocket.liveness({ deadline: "30 seconds", ping: "ping", isPong: (message) => message === "pong" })
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import * as Classify from "./Classify.ts"
import * as Watch from "./internal/liveness.ts"
import * as Outbox from "./internal/outbox.ts"
import { deadline } from "./internal/reconnect.ts"
import { showText } from "./internal/url.ts"
import {
  type Attempted,
  AuthFailed,
  Closed,
  type Exhausted,
  Inconclusive,
  type LeaseLost,
  type NoProgress,
  Refused,
  Shutdown,
  Stop,
  Transient
} from "./LifelineError.ts"
import * as Reconnect from "./Reconnect.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a WebSocket carries: text or bytes.
 *
 * @category models
 * @since 0.1.0
 */
export type Message = string | Uint8Array

/**
 * What a connection accepts, and so what its messages are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Kinds {
  readonly text: string
  readonly binary: Uint8Array
  readonly any: Message
}

/**
 * What goes along with the handshake, or right after it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Credential {
  /** Not in browsers: there a connection with headers is refused as `Unsupported`. */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
  /** Offered beside {@link Options} `protocols`. */
  readonly protocols?: ReadonlyArray<string | Redacted.Redacted> | undefined
  /** The first frame, sent as soon as the connection is open. */
  readonly first?: Message | Redacted.Redacted | undefined
}

/**
 * What is asked for anew for each connection. Made by {@link perDial}.
 *
 * @category models
 * @since 0.1.0
 */
export interface PerDial<in Cursor, out A, out R = never> {
  readonly ask: (
    dial: Reconnect.Dial<Cursor>,
    at: Attempted,
    name: string
  ) => Effect.Effect<A, Reconnect.Failure, R>
  readonly "~effect-lifeline/WebSocket": typeof reveal
}

/** What of a credential is sent, and what of that must not come back in an error. */
interface Revealed {
  readonly headers: { readonly [name: string]: string }
  readonly protocols: ReadonlyArray<string>
  readonly first?: Message | undefined
  readonly secrets: ReadonlyArray<Redacted.Redacted>
}

const reveal = ({ first, headers = {}, protocols = [] }: Credential): Revealed => ({
  headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, plain(value)])),
  protocols: protocols.map(plain),
  first: first === undefined ? undefined : plain(first),
  secrets: [...Object.values(headers), ...protocols, first].filter((value) => Redacted.isRedacted(value))
})

const nothing: Revealed = { headers: {}, protocols: [], secrets: [] }

/**
 * A URL or a credential that is asked for anew for each connection. What it fails with, unless it is an error of the algebra,
 * counts as a server that cannot be reached; one that hangs, even if it cannot be interrupted, ends with the deadline of the
 * attempt.
 *
 * **Example** (A ticket as the first frame)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import type * as Redacted from "effect/Redacted"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * declare const ticket: Effect.Effect<Redacted.Redacted, Error>
 *
 * export const messages = WebSocket.stream({
 *   url: "wss://feed.example/live",
 *   credential: WebSocket.perDial(() => Effect.map(ticket, (first) => ({ first })))
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const perDial = <A, R = never, Cursor = unknown>(
  effect: (dial: Reconnect.Dial<Cursor>) => Effect.Effect<A, unknown, R>
): PerDial<Cursor, A, R> => ({
  ask: Effect.fnUntraced(function*(dial, at, name) {
    // Its end is not waited for when we are interrupted: it may never come.
    const fiber = yield* Effect.forkDetach(effect(dial), { startImmediately: true })
    const exit = yield* Effect.onInterrupt(Fiber.await(fiber), () => Effect.sync(() => fiber.interruptUnsafe()))
    return Exit.isSuccess(exit)
      ? exit.value
      : yield* Effect.fail(toFailure(exit.cause, at, `${name} could not be had`))
  }),
  "~effect-lifeline/WebSocket": reveal
})

/**
 * How a dead connection is told from a silent one.
 *
 * @category models
 * @since 0.1.0
 */
export interface LivenessOptions {
  /** A connection on which nothing came for so long is dead. @default 45 seconds */
  readonly deadline?: Duration.Input | undefined
  /** Sent after half of the deadline without a frame. @default a ping frame, where the platform can send one */
  readonly ping?: Message | undefined
  /** Whether a message is but the answer to a ping: the consumer does not see it. */
  readonly isPong?: ((message: Message) => boolean) | undefined
}

/**
 * A watch over a connection. Made by {@link liveness}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Liveness {
  readonly isPong?: LivenessOptions["isPong"]
  /** Ends when the other side is not there any more, with the deadline that passed. */
  readonly watch: (peer: {
    /** When something last came, in nanoseconds of the monotonic clock. */
    readonly heard: () => bigint
    readonly send: (message: Message) => void
    /** Sends a ping frame. */
    readonly ping: (() => void) | undefined
  }) => Effect.Effect<Duration.Duration>
}

/**
 * Watches a connection. Without a `deadline` and without anything to ask with it watches nothing: silence is no sign then.
 *
 * **Example** (A server that answers pings of the application)
 *
 * ```ts
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const messages = WebSocket.stream({
 *   url: "wss://feed.example/live",
 *   liveness: WebSocket.liveness({ ping: "ping", isPong: (message) => message === "pong" })
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const liveness = (options: LivenessOptions = {}): Liveness => {
  const deadline = Duration.fromInputUnsafe(options.deadline ?? "45 seconds")
  const { isPong, ping: message } = options
  return {
    isPong,
    watch: ({ heard, ping, send }) => {
      const ask = message === undefined ? ping : () => send(message)
      return options.deadline === undefined && ask === undefined
        ? Effect.never
        : Effect.as(Watch.watch({ deadline, heard, ask }), deadline)
    }
  }
}

/**
 * How much may wait to be sent, what the platform buffers included, and what becomes of more.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutboxOptions {
  /** @default 1000 */
  readonly maxMessages?: number | undefined
  /** In bytes; also the most that one message may have. @default 1 MiB */
  readonly maxBytes?: number | undefined
  /**
   * What becomes of a message for which there is no room:
   * - `"fail"`: its `send` fails with `Overflow`.
   * - `"dropOldest"`: the sends of the oldest messages fail with `Overflow`, until there is room.
   * - `"suspend"`: its `send` waits.
   *
   * @default "fail"
   */
  readonly overflow?: "fail" | "dropOldest" | "suspend" | undefined
}

/**
 * What a close code of the server means; see `Classify.webSocket`.
 *
 * @category models
 * @since 0.1.0
 */
export type CloseCodes = {
  readonly [code: string]: Classify.Verdict<Exclude<Classify.Failure, LeaseLost>>
}

/**
 * How to connect. Everything but `url` has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<in Cursor = never, out K extends keyof Kinds = "text", out R = never> {
  /** Where to: `ws:`, `wss:`, or `http:` and `https:` for the same. */
  readonly url: string | Redacted.Redacted | PerDial<Cursor, string | Redacted.Redacted, R>
  /** @default none */
  readonly credential?: PerDial<Cursor, Credential, R> | undefined
  /** Subprotocols to offer. @default none */
  readonly protocols?: ReadonlyArray<string> | undefined
  /** Which frames are due; a frame of the other kind is `Refused` (`MalformedResponse`). @default "text" */
  readonly frames?: K | undefined
  /** The deadline of URL, credential and handshake together. @default 10 seconds */
  readonly connectWithin?: Duration.Input | undefined
  /** How long closing may take: what waits is sent, and the other side answers. Then it is cut off. @default 3 seconds */
  readonly closeWithin?: Duration.Input | undefined
  /**
   * `"none"`: a half-open connection is never noticed by us.
   *
   * @default that of the dialer: {@link liveness} where the platform can send ping frames, else `"none"`
   */
  readonly liveness?: Liveness | "none" | undefined
  /** The longest message accepted, in bytes, for text in UTF-16 code units. @default 1 MiB */
  readonly maxMessage?: number | undefined
  /**
   * How far the consumer may be behind, in the same units. Then reading pauses; where the platform cannot pause, the
   * connection ends as `Transient`. @default 8 MiB
   */
  readonly maxBacklog?: number | undefined
  /** What may wait to be sent. */
  readonly outbox?: OutboxOptions | undefined
  /**
   * What close codes mean. A server that closes with 1008 over a credential needs
   * `{ ...Classify.webSocketSubscribed, "1008": Classify.unauthorized }`.
   *
   * @default `Classify.webSocketSubscribed`
   */
  readonly closeCodes?: CloseCodes | undefined
}

/**
 * {@link Options} of a transport.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectOptions<in out Cursor = never, in out K extends keyof Kinds = "text", out R = never>
  extends Options<Cursor, K, R>
{
  /** Where to resume after this message. @default nowhere */
  readonly cursorOf?: ((message: Kinds[K]) => Cursor | undefined) | undefined
  /** Whether a message shows that the stream works. @default each does */
  readonly isProgress?: ((message: Kinds[K]) => boolean) | undefined
  /**
   * Runs once for each connection, before its messages are read; to subscribe, or to start a fiber that sends. Its scope is
   * that of the connection, its deadline `connectWithin` once more.
   */
  readonly onOpen?:
    | ((
      connection: Connection<Kinds[K]>,
      dial: Reconnect.Dial<Cursor>
    ) => Effect.Effect<void, Reconnect.Failure | Outbox.Overflow | Closed, R | Scope.Scope>)
    | undefined
}

/**
 * An open connection. It is closed with the scope it was made in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection<out A = string> {
  /** To be read once. Ends with an error always, as connections do: how is for the close code to say. */
  readonly messages: Stream.Stream<A, Reconnect.Failure>
  /**
   * Succeeds when the platform took the message. Fails with `Overflow` where the outbox is full, with `Closed` when our
   * side closes, else with what ended the connection. A caller that is interrupted takes its message back.
   */
  readonly send: (message: Message) => Effect.Effect<void, Reconnect.Failure | Outbox.Overflow | Closed>
  /** What waits to be sent, what the platform buffers included. */
  readonly waiting: Effect.Effect<{ readonly messages: number; readonly bytes: number }>
  /** The subprotocol that the server chose; empty where it chose none. */
  readonly protocol: string
}

export {
  /**
   * There is no room for a message in the outbox: the other side reads more slowly than the program writes. The message was
   * not sent.
   *
   * @category errors
   * @since 0.1.0
   */
  Overflow
} from "./internal/outbox.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The port
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a platform is asked to connect to. The URL is one of `ws:` or `wss:`.
 *
 * @category port
 * @since 0.1.0
 */
export interface Handshake {
  readonly url: string
  readonly protocols: ReadonlyArray<string>
  readonly headers: { readonly [name: string]: string }
  /** The longest message accepted, for platforms that can hold others to it. */
  readonly maxMessage: number
  /** What errors call it, and what must not be in them. */
  readonly at: Classify.At
}

/**
 * What a platform reports of a connection.
 *
 * @category port
 * @since 0.1.0
 */
export interface Events {
  /** The handshake succeeded; with the subprotocol that the server chose. */
  readonly opened: (protocol: string) => void
  /** A message: text, an `ArrayBuffer` or a view of one. */
  readonly received: (data: unknown) => void
  /** Something else came, e.g. a pong. */
  readonly heard: () => void
  /** It ended, or did not come about. Only the first one counts. */
  readonly closed: (how: Classify.Close) => void
  /** The handshake was refused, where the platform knows more than that: `Classify` makes the error from the answer. */
  readonly refused: (error: Reconnect.Failure) => void
}

/**
 * A connection as a platform has it. Nothing of it throws, except `send`.
 *
 * @category port
 * @since 0.1.0
 */
export interface Wire {
  /** `false`: it is not open any more, and nothing was sent. */
  readonly send: (message: Message) => boolean
  readonly close: (code: number, reason: string) => void
  /** Bytes that were taken and not sent yet. */
  readonly buffered: () => number
  /** Ends it without the other side. */
  readonly terminate?: (() => void) | undefined
  /** Sends a ping frame; the pong comes as `heard`. */
  readonly ping?: (() => void) | undefined
  /** How it is watched where the program does not say. */
  readonly liveness?: Liveness | undefined
  /** Stops and restarts reading. */
  readonly flow?: { readonly pause: () => void; readonly resume: () => void } | undefined
}

/**
 * Opens a connection: attaches to it at once and reports, among others when it is open. What it added to the platform's
 * objects is removed with the scope; the connection itself is closed before that.
 *
 * @category port
 * @since 0.1.0
 */
export type Dialer = (handshake: Handshake, events: Events) => Effect.Effect<Wire, Reconnect.Failure, Scope.Scope>

/**
 * The part of the platforms' WebSockets that is used.
 *
 * @category port
 * @since 0.1.0
 */
export interface WebSocketLike {
  readonly readyState: number
  readonly bufferedAmount?: number | undefined
  readonly protocol?: string | null | undefined
  binaryType?: string
  addEventListener(type: string, listener: (event: WebSocketEvent) => void): void
  removeEventListener(type: string, listener: (event: WebSocketEvent) => void): void
  send(data: string | Uint8Array<ArrayBuffer>): void
  close(code?: number, reason?: string): void
}

/**
 * The part of the platforms' events that is used.
 *
 * @category port
 * @since 0.1.0
 */
export interface WebSocketEvent {
  readonly data?: unknown
  readonly code?: number
  readonly reason?: string
  readonly error?: unknown
}

/**
 * The platforms' constructor. Browsers take a list of subprotocols; Node, Deno and Bun also an object with headers.
 *
 * @category port
 * @since 0.1.0
 */
export type WebSocketConstructor = new(
  url: string,
  options?: Array<string> | {
    readonly protocols: Array<string>
    readonly headers: { readonly [name: string]: string }
  }
) => WebSocketLike

/** A `WebSocketLike` as a wire. Its listeners are removed with the scope. */
const attach = (socket: WebSocketLike, events: Events): Effect.Effect<Wire, never, Scope.Scope> =>
  Effect.suspend(() => {
    if ("binaryType" in socket) socket.binaryType = "arraybuffer"
    const listeners: ReadonlyArray<readonly [string, (event: WebSocketEvent) => void]> = [
      ["open", () => events.opened(socket.protocol ?? "")],
      ["message", (event) => events.received(event.data)],
      // Where both come, this is the first, and what comes after it has no code of the server's.
      ["error", (event) => events.closed({ code: 1006, cause: event.error })],
      ["close", (event) => events.closed({ code: event.code ?? 1006, reason: event.reason })]
    ]
    for (const [type, listener] of listeners) socket.addEventListener(type, listener)
    const wire: Wire = {
      send: (message) => {
        // Where it is closing a platform takes messages and drops them.
        if (socket.readyState !== 1) return false
        socket.send(message as string | Uint8Array<ArrayBuffer>)
        return true
      },
      close: (code, reason) => {
        try {
          socket.close(code, reason)
        } catch {
          // It is closed already.
        }
      },
      buffered: () => socket.bufferedAmount ?? 0
    }
    return Effect.as(
      Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const [type, listener] of listeners) socket.removeEventListener(type, listener)
        })
      ),
      wire
    )
  })

const nameOf = (cause: unknown): string => cause instanceof Error ? cause.name : "an error"

/**
 * A dialer by a constructor, e.g. the platform's own. What the constructor throws is `Refused`.
 *
 * @category port
 * @since 0.1.0
 */
export const fromConstructor = (construct: WebSocketConstructor): Dialer => (handshake, events) =>
  Effect.flatMap(
    Effect.try({
      try: () => {
        const { headers, url } = handshake
        const protocols = [...handshake.protocols]
        return new construct(url, Object.keys(headers).length > 0 ? { protocols, headers } : protocols)
      },
      catch: (cause) => unacceptable(handshake, nameOf(cause))
    }),
    (socket) => attach(socket, events)
  )

const unacceptable = ({ at, headers, protocols }: Handshake, name: string): Refused =>
  Object.keys(headers).length > 0
    ? Classify.unsupported({
      ...at,
      detail: `no headers with this WebSocket (${name}); use the URL or a subprotocol`
    })
    : Classify.invalidRequest({
      ...at,
      issues: [{
        path: protocols.length > 0 ? "protocols" : "url",
        message: `not taken by this WebSocket (${name})`
      }]
    })

const global: Dialer = (handshake, events) =>
  Effect.suspend(() => {
    const { WebSocket } = globalThis as { readonly WebSocket?: WebSocketConstructor }
    return WebSocket === undefined
      ? Effect.fail(Classify.unsupported({ ...handshake.at, detail: "this runtime has no WebSocket" }))
      : fromConstructor(WebSocket)(handshake, events)
  })

/**
 * Who opens connections. By default the platform's own `WebSocket`.
 *
 * @category port
 * @since 0.1.0
 */
export const Dialer: Context.Reference<Dialer> = Context.Reference<Dialer>("effect-lifeline/WebSocket/Dialer", {
  defaultValue: () => global
})

/** What Workers hand out for an upgrade. */
interface Upgraded {
  readonly status: number
  readonly headers: Headers
  readonly body: ReadableStream | null
  readonly webSocket?: (WebSocketLike & { readonly accept: () => void }) | null | undefined
}

const fetched = (fetch: (url: string, init: RequestInit) => Promise<Upgraded>): Dialer => (handshake, events) =>
  Effect.gen(function*() {
    const { at, headers, protocols } = handshake
    const response = yield* Effect.tryPromise({
      try: (signal) =>
        fetch(handshake.url.replace(/^ws/, "http"), {
          headers: {
            ...headers,
            upgrade: "websocket",
            ...(protocols.length > 0 ? { "sec-websocket-protocol": protocols.join(", ") } : {})
          },
          redirect: "manual",
          signal
        }),
      catch: (cause) => Classify.unreachable({ ...at, detail: Classify.codeOf(cause), cause })
    })
    const socket = response.webSocket
    if (socket === null || socket === undefined) {
      yield* Effect.ignore(Effect.tryPromise(() => response.body?.cancel() ?? Promise.resolve()))
      return yield* Effect.fail(
        Classify.fromStatus(Classify.http, {
          status: response.status,
          headers: Object.fromEntries(response.headers)
        }, { ...at, location: response.headers.get("location") ?? undefined })
      )
    }
    const wire = yield* attach(socket, events)
    yield* Effect.sync(() => {
      socket.accept()
      events.opened(response.headers.get("sec-websocket-protocol") ?? "")
    })
    return wire
  })

/**
 * Connections by `fetch` with an upgrade, as on Cloudflare Workers: with headers, and with the status of a handshake that
 * was refused.
 *
 * **Example** (With a header, on Workers)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Redacted from "effect/Redacted"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const connection = WebSocket.open({
 *   url: "wss://feed.example/live",
 *   credential: WebSocket.perDial(() => Effect.succeed({ headers: { authorization: Redacted.make("Bearer ...") } }))
 * })({ cursor: undefined, attempt: 1, generation: 1 }).pipe(Effect.provide(WebSocket.layerFetch))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFetch: Layer.Layer<never> = Layer.succeed(
  Dialer,
  fetched((url, init) => globalThis.fetch(url, init))
)

const endingOf = ({ reason }: Socket.SocketError): Classify.Close =>
  reason._tag === "SocketCloseError"
    ? { code: reason.code, reason: reason.closeReason }
    : { code: 1006, cause: reason.cause }

/**
 * Connections over any socket of `effect/socket`, e.g. TCP: with outbox, liveness and deadlines as any other. What it fails
 * with while it opens, unless it is an error of the algebra, counts as a server that cannot be reached. It asks for `ws:` and
 * `wss:` URLs all the same: what is not a WebSocket takes host and port from there. TCP has no messages: what comes is bytes
 * as they were cut (`frames: "binary"`), and an end is code 1000.
 *
 * **Example** (TCP on Node)
 *
 * ```ts
 * import * as NodeSocket from "@effect/platform-node/NodeSocket"
 * import * as Effect from "effect/Effect"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * const tcp = WebSocket.fromSocket(({ url }) => {
 *   const { hostname, port } = new URL(url)
 *   return NodeSocket.makeNet({ host: hostname, port: Number(port) })
 * })
 *
 * export const control = WebSocket.open({ url: "ws://relay.example:7835", frames: "binary" })({
 *   cursor: undefined,
 *   attempt: 1,
 *   generation: 1
 * }).pipe(Effect.provideService(WebSocket.Dialer, tcp))
 * ```
 *
 * @category port
 * @since 0.1.0
 */
export const fromSocket = (
  make: (handshake: Handshake) => Effect.Effect<Socket.Socket, unknown, Scope.Scope>
): Dialer =>
(handshake, events) =>
  Effect.gen(function*() {
    const socket = yield* make(handshake)
    const { pull } = yield* socket.reader
    const writer = yield* socket.writer
    const outgoing = yield* Queue.unbounded<Message | Socket.CloseEvent>()
    const reading = Latch.makeUnsafe(true)
    let isOpen = true
    let buffered = 0
    const ending = (error: Socket.SocketError) =>
      Effect.sync(() => {
        isOpen = false
        events.closed(endingOf(error))
      })
    const read = Effect.map(reading.whenOpen(pull), (messages) => messages.forEach(events.received))
    const write = Effect.flatMap(Queue.take(outgoing), (message) =>
      Effect.map(writer.write(message), () => {
        if (!Socket.isCloseEvent(message)) buffered -= Outbox.sizeOf(message)
      }))
    for (const flow of [read, write]) yield* Effect.forkScoped(Effect.catch(Effect.forever(flow), ending))
    events.opened("")
    return {
      send: (message) => {
        if (!isOpen) return false
        buffered += Outbox.sizeOf(message)
        return Queue.offerUnsafe(outgoing, message)
      },
      close: (code, reason) => {
        isOpen = false
        Queue.offerUnsafe(outgoing, new Socket.CloseEvent(code, reason))
      },
      buffered: () => buffered,
      flow: { pause: () => reading.closeUnsafe(), resume: () => reading.openUnsafe() }
    } satisfies Wire
  }).pipe(Effect.mapError((error) => {
    if (isFailure(error)) return error
    const cause = Socket.isSocketError(error) && "cause" in error.reason ? error.reason.cause : error
    return Classify.unreachable({ ...handshake.at, detail: Classify.codeOf(cause), cause })
  }))

// ---------------------------------------------------------------------------------------------------------------------
// Connections
// ---------------------------------------------------------------------------------------------------------------------

const defaultWithin = 10_000

const plain = <A>(value: A | Redacted.Redacted<A>): A => Redacted.isRedacted(value) ? Redacted.value(value) : value

const isFailure = (error: unknown): error is Reconnect.Failure =>
  error instanceof Transient || error instanceof Inconclusive || error instanceof AuthFailed ||
  error instanceof Refused || error instanceof Stop

/** Errors of the algebra as they are; whatever else a program fails or dies with is a failure for now. */
const toFailure = (cause: Cause.Cause<unknown>, at: Attempted, detail: string): Reconnect.Failure => {
  const error = Cause.squash(cause)
  return isFailure(error) ? error : Classify.unreachable({ ...at, detail, cause: error })
}

const parse = (url: string): URL | undefined => {
  const parsed = URL.parse(url)
  if (parsed === null || !/^(ws|http)s?:$/.test(parsed.protocol)) return undefined
  parsed.protocol = parsed.protocol.replace("http", "ws")
  parsed.hash = ""
  return parsed
}

const show = (url: URL): string => url.origin + url.pathname

/** What errors call it before the URL is there. */
const atOf = ({ url }: { readonly url: unknown }): Attempted => {
  const parsed = typeof url === "string" ? parse(url) : undefined
  return { operation: "connect", target: parsed === undefined ? "WebSocket" : show(parsed) }
}

/** Close codes of ours: a program may only send 1000 and 3000 to 4999. */
const going = 1000
const unexpectedKind = 4003
const tooMuch = 4009
const silent = 4008

/**
 * Opens one connection, in the scope that it is run in. `dial` says what number it is and where to resume; for a single
 * connection `{ cursor: undefined, attempt: 1, generation: 1 }`.
 *
 * **Example** (One connection: a question and its answer)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const answer = Effect.scoped(Effect.gen(function*() {
 *   const connection = yield* WebSocket.open({ url: "ws://localhost:8080" })({
 *     cursor: undefined,
 *     attempt: 1,
 *     generation: 1
 *   })
 *   yield* connection.send("how are you?")
 *   return yield* Stream.runHead(connection.messages)
 * }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const open = <Cursor = unknown, K extends keyof Kinds = "text", R = never>(
  options: Options<Cursor, K, R>
): (dial: Reconnect.Dial<Cursor>) => Effect.Effect<Connection<Kinds[K]>, Reconnect.Failure, R | Scope.Scope> => {
  const {
    closeCodes = Classify.webSocketSubscribed,
    closeWithin = 3000,
    frames = "text",
    maxBacklog = 8 * 1024 * 1024,
    maxMessage = 1024 * 1024,
    url
  } = options
  return Effect.fnUntraced(function*(dial) {
    const scope = yield* Effect.scope
    const clock = yield* Clock.Clock
    const dialer = yield* Dialer
    const inbox = yield* Queue.unbounded<Message, Reconnect.Failure | Cause.Done>()
    const opened = Deferred.makeUnsafe<string, Reconnect.Failure>()
    const gone = Deferred.makeUnsafe<void>()

    let { target } = atOf(options)
    let secrets: ReadonlyArray<Redacted.Redacted> = []
    const at = (operation: string): Classify.At => ({
      operation,
      target,
      now: clock.currentTimeMillisUnsafe(),
      secrets
    })

    let wire: Wire | undefined
    let phase: "dialling" | "open" | "ended" = "dialling"
    const closing = new Closed({ operation: "send", reason: new Shutdown() })
    let ended: Reconnect.Failure | Closed = closing
    let heard = clock.monotonicTimeNanosUnsafe()
    let backlog = 0
    let isPaused = false

    const handOver = (message: Message): Exit.Exit<void, Reconnect.Failure | Closed> => {
      if (phase === "ended" || wire === undefined) return Exit.fail(ended)
      let detail: string | undefined
      let cause: unknown
      try {
        if (wire.send(message)) return Exit.void
        detail = "the connection is closing"
      } catch (thrown) {
        detail = Classify.codeOf(thrown) ?? nameOf(thrown)
        cause = thrown
      }
      return Exit.fail(Classify.unreachable({ ...at("send"), detail, cause }))
    }
    const outbox = Outbox.make<Reconnect.Failure | Closed>({
      scope,
      at: () => ({ operation: "send", target }),
      limits: options.outbox,
      buffered: () => wire?.buffered() ?? 0,
      handOver
    })

    const end = (error: Reconnect.Failure) => {
      if (phase === "ended") return
      phase = "ended"
      ended = error
      outbox.end(error)
      Deferred.doneUnsafe(opened, Exit.fail(error))
      Queue.failCauseUnsafe(inbox, Cause.fail(error))
    }
    /** We end it, for what the other side did or did not do. */
    const reject = (error: Reconnect.Failure, code: number, reason: string) => {
      end(error)
      wire?.close(code, reason)
    }
    const malformed = (code: number, detail: string) =>
      reject(Classify.malformedResponse({ ...at("read"), detail }), code, detail)

    const events: Events = {
      heard: () => {
        heard = clock.monotonicTimeNanosUnsafe()
      },
      opened: (protocol) => {
        if (phase !== "dialling") return
        phase = "open"
        events.heard()
        Deferred.doneUnsafe(opened, Exit.succeed(protocol))
      },
      received: (data) => {
        events.heard()
        if (phase !== "open") return
        const message = typeof data === "string"
          ? data
          : data instanceof ArrayBuffer
          ? new Uint8Array(data)
          : ArrayBuffer.isView(data)
          ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
          : undefined
        if (message === undefined) return malformed(unexpectedKind, "neither text nor bytes")
        if (message.length > maxMessage) return malformed(tooMuch, `longer than ${maxMessage}`)
        const kind = typeof message === "string" ? "text" : "binary"
        if (frames !== "any" && frames !== kind) return malformed(unexpectedKind, `${kind} where ${frames} is due`)
        backlog += message.length
        Queue.offerUnsafe(inbox, message)
        if (backlog <= maxBacklog || isPaused) return
        if (wire?.flow !== undefined) {
          isPaused = true
          wire.flow.pause()
        } else {
          const detail = `the reader is behind by more than ${maxBacklog}`
          reject(Classify.unreachable({ ...at("read"), detail }), tooMuch, "too slow")
        }
      },
      closed: (how) =>
        events.refused(
          phase !== "dialling"
            ? Classify.fromClose(closeCodes, how, at("read"))
            : Classify.unreachable({
              ...at("connect"),
              detail: Classify.codeOf(how.cause) ?? "unknown",
              cause: how.cause
            })
        ),
      refused: (error) => {
        Deferred.doneUnsafe(gone, Exit.void)
        end(error)
      }
    }

    /** Whoever left sends what waits, says goodbye and waits for the answer; a connection that ended is cut off. */
    const release = Effect.gen(function*() {
      outbox.stop(closing)
      if (isPaused) wire?.flow?.resume()
      if (phase === "open") {
        yield* outbox.drain.pipe(
          Effect.andThen(Effect.sync(() => wire?.close(going, ""))),
          Effect.andThen(Deferred.await(gone)),
          Effect.timeoutOption(closeWithin)
        )
      }
      const { bytes, messages } = outbox.waiting()
      if (phase === "open" && bytes > 0) {
        yield* Effect.logWarning(`${target}: closed with ${messages} messages, ${bytes} bytes not sent`)
      }
      outbox.end(closing)
      phase = "ended"
      if (!Deferred.isDoneUnsafe(gone)) {
        wire?.close(going, "")
        wire?.terminate?.()
      }
    })

    const dialled = Effect.gen(function*() {
      const asked = Predicate.hasProperty(url, "ask") ? yield* url.ask(dial, at("connect"), "the URL") : url
      const parsed = parse(plain(asked))
      if (parsed === undefined) {
        target = typeof asked === "string" ? showText(asked) : "WebSocket"
        return yield* Effect.fail(Classify.invalidRequest({
          ...at("connect"),
          issues: [{ path: "url", message: "must be a ws, wss, http or https URL" }]
        }))
      }
      target = show(parsed)
      const { credential } = options
      const { first, headers, protocols, secrets: own } = credential === undefined
        ? nothing
        : credential["~effect-lifeline/WebSocket"](yield* credential.ask(dial, at("connect"), "the credential"))
      secrets = [...own, ...[...parsed.searchParams.values(), parsed.password].map((value) => Redacted.make(value))]
      const handshake: Handshake = {
        url: parsed.href,
        protocols: [...options.protocols ?? [], ...protocols],
        headers,
        maxMessage,
        at: at("connect")
      }
      yield* Effect.uninterruptibleMask((restore) =>
        Effect.andThen(
          Effect.map(restore(dialer(handshake, events)), (it) => {
            wire = it
          }),
          Effect.addFinalizer(() => release)
        )
      )
      const protocol = yield* Deferred.await(opened)
      if (first !== undefined) {
        // It is `Closed` where we are the ones who leave.
        yield* Effect.catchTag(handOver(first), "Closed", () => Effect.void)
      }
      return protocol
    })

    const protocol = yield* deadline(() => at("connect"), options.connectWithin ?? defaultWithin)(dialled)

    const { liveness = wire?.liveness } = options
    const watched = liveness === "none" ? undefined : liveness
    if (watched !== undefined) {
      yield* watched.watch({ heard: () => heard, ping: wire?.ping, send: handOver }).pipe(
        Effect.map((after) => {
          reject(Classify.timedOut({ ...at("read"), after }), silent, "silent")
          wire?.terminate?.()
        }),
        Effect.forkIn(scope)
      )
    }

    const pull = Effect.map(Queue.takeAll(inbox), (messages) => {
      for (const message of messages) backlog -= message.length
      if (isPaused && backlog <= maxBacklog / 2) {
        isPaused = false
        wire?.flow?.resume()
      }
      return messages
    })
    const messages = Stream.fromPull(Effect.succeed(pull))
    const isPong = watched?.isPong
    return {
      // The kinds of the frames were looked at when they came.
      messages: (isPong === undefined ? messages : Stream.filter(messages, (message) =>
        !isPong(message))) as Stream.Stream<
          Kinds[K],
          Reconnect.Failure
        >,
      send: outbox.send,
      waiting: Effect.sync(outbox.waiting),
      protocol
    }
  })
}

/**
 * A transport for `Reconnect`: each connection is opened anew, with a URL and a credential of its own.
 *
 * **Example** (Subscribes on each connection, and resumes after the last message)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const transport = WebSocket.connect<string>({
 *   url: WebSocket.perDial((dial) => Effect.succeed(`wss://feed.example/live?after=${dial.cursor ?? ""}`)),
 *   cursorOf: (message) => message.split(" ")[0],
 *   onOpen: (connection) => connection.send("subscribe prices")
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = <Cursor = unknown, K extends keyof Kinds = "text", R = never>(
  options: ConnectOptions<Cursor, K, R>
): Reconnect.Connect<Kinds[K], Cursor, R | Scope.Scope> => {
  const { cursorOf, isProgress, onOpen } = options
  const make = open(options)
  const within = Duration.fromInputUnsafe(options.connectWithin ?? defaultWithin)
  const at = atOf(options)
  return Effect.fnUntraced(function*(dial) {
    const connection = yield* make(dial)
    if (onOpen !== undefined) {
      yield* onOpen(connection, dial).pipe(
        Effect.catchCause((cause) => Effect.fail(toFailure(cause, at, "onOpen failed"))),
        Effect.timeoutOrElse({
          duration: within,
          orElse: () => Effect.fail(Classify.timedOut({ ...at, after: within }))
        })
      )
    }
    return Stream.map(connection.messages, (value): Reconnect.Frame<Kinds[K], Cursor> => ({
      value,
      cursor: cursorOf?.(value),
      progress: isProgress?.(value)
    }))
  })
}

/**
 * {@link ConnectOptions} of a stream, and what `Reconnect.stream` has of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamOptions<in out Cursor = never, in out K extends keyof Kinds = "text", out R = never>
  extends ConnectOptions<Cursor, K, R>, Omit<Reconnect.Options<Cursor>, "at" | "openTimeout">
{
  /** The waits between two connections. @default `Backoff.streams` */
  readonly policy?: Backoff.Unbounded | Reconnect.Bounded | undefined
}

/**
 * Messages, over as many connections as it takes: {@link Reconnect.stream} over {@link connect}. To send on them, give an
 * `onOpen`.
 *
 * **Example** (Messages as they come, however often the server goes away)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const program = WebSocket.stream({ url: "wss://feed.example/live" }).pipe(
 *   Stream.runForEach((message) => Effect.log(message))
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function stream<Cursor = string, K extends keyof Kinds = "text", R = never>(
  options: StreamOptions<Cursor, K, R> & { readonly policy?: Backoff.Unbounded | undefined }
): Stream.Stream<
  Kinds[K] | Reconnect.Gap,
  AuthFailed | Refused | NoProgress,
  Exclude<R, Scope.Scope>
>
export function stream<Cursor = string, K extends keyof Kinds = "text", R = never>(
  options: StreamOptions<Cursor, K, R>
): Stream.Stream<
  Kinds[K] | Reconnect.Gap,
  AuthFailed | Refused | NoProgress | Exhausted,
  Exclude<R, Scope.Scope>
>
export function stream<Cursor = string, K extends keyof Kinds = "text", R = never>(
  options: StreamOptions<Cursor, K, R>
): Stream.Stream<
  Kinds[K] | Reconnect.Gap,
  AuthFailed | Refused | NoProgress | Exhausted,
  Exclude<R, Scope.Scope>
> {
  // The deadlines are the transport's: this one comes after them.
  const openTimeout = Duration.sum(
    Duration.times(Duration.fromInputUnsafe(options.connectWithin ?? defaultWithin), 2),
    Duration.seconds(1)
  )
  return Reconnect.stream(connect(options), { ...options, at: atOf(options), openTimeout })
}
