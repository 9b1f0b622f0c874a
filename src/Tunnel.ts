/**
 * Tunnel: a whole client of [bore](https://github.com/ekzhang/bore): a port of the server is a local service's. `Bore` keeps the
 * control connection; for each connection that comes to the port this opens one to the server and one to the local service, and
 * copies bytes both ways.
 *
 * - **Half-close.** The end of one direction is passed on, while the other goes on. A connection is over when both have ended.
 * - **Backpressure.** A side that does not read holds up the other; at most a few chunks wait in between.
 * - **Failures.** A reset of one side resets the other. A local service that is not there, or a data connection that cannot be
 *   opened within 3 s for each step, costs that one connection: an event, a line in the log, and the visitor is hung up on.
 * - **The control connection is kept as in `ControlChannel`.** Connections that are open survive its loss, and its end. They end
 *   with the scope of the tunnel, by a reset: nobody takes half an answer for a whole.
 * - **At most 4,096 connections at once**, unless told otherwise. Beyond that they are not taken up: the server hangs up on the
 *   visitor by itself, after 10 s.
 * - **A refused proof.** The protocol has no answer to a proof that was accepted, and the control connection has shown that the
 *   secret is right: so nothing is waited for. An `Error` that is the first and last of what comes is taken for a refusal, and
 *   fails that connection; a visitor who sends exactly that, and then the end, looks the same.
 *
 * | metric | kind | attributes | counts |
 * |---|---|---|---|
 * | `lifeline_tunnel_connections_total` | counter | `outcome` (`ok`, the error's tag or `Shutdown`) | data connections that are over, or did not come about |
 * | `lifeline_tunnel_bytes_total` | counter | `direction` (`in`, `out`) | bytes carried, by the megabyte and at the end of each connection |
 * | `lifeline_tunnel_open` | gauge | | data connections that are open now |
 *
 * Failures to open a connection are warnings in the log, at most one a second, which counts those before it; the rest is debug.
 *
 * TCP comes from a `Dialer`: `node/NodeDialer` on Node, Deno and Bun, `cloudflare/CloudflareDialer` in Workers.
 *
 * **Example** (localhost:3000, on a relay)
 *
 * ```ts
 * import * as NodeDialer from "effect-lifeline/node/NodeDialer"
 * import * as Tunnel from "effect-lifeline/Tunnel"
 * import * as Effect from "effect/Effect"
 * import * as Redacted from "effect/Redacted"
 *
 * export const program = Effect.gen(function*() {
 *   const tunnel = yield* Tunnel.make({
 *     server: { host: "relay.example" },
 *     local: { port: 3000 },
 *     secret: Redacted.make("...")
 *   })
 *   yield* Effect.log(`listening at relay.example:${(yield* tunnel.channel.session).port}`)
 *   return yield* tunnel.ended
 * }).pipe(Effect.scoped, Effect.provide(NodeDialer.layer))
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import type * as Bore from "./Bore.ts"
import type * as ControlChannel from "./ControlChannel.ts"
import type { Dialer } from "./Dialer.ts"
import * as Engine from "./internal/tunnel.ts"
import type { TooMany } from "./internal/tunnel.ts"
import type { AuthFailed, Closed, Exhausted, NoProgress, Refused, Shutdown } from "./LifelineError.ts"

/**
 * What a tunnel is made from: `server` and `local` are needed; the rest is for the control connection, see `Bore.Options`, and
 * `stepTimeout` for data connections too.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Omit<Bore.Options, "open" | "at"> {
  /** The server of bore. @default port 7835 */
  readonly server: { readonly host: string; readonly port?: number | undefined }
  /** The service that is to be reached. @default host localhost */
  readonly local: { readonly host?: string | undefined; readonly port: number }
  /** So many data connections may be open at once, those that are being opened included. @default 4096 */
  readonly maxConnections?: number | undefined
}

export {
  /**
   * There were as many data connections as there may be.
   *
   * @category errors
   * @since 0.1.0
   */
  TooMany
} from "./internal/tunnel.ts"

/**
 * Why a data connection did not come about.
 *
 * @category errors
 * @since 0.1.0
 */
export type Failure = ControlChannel.Failure | TooMany

/**
 * What became of data connections. `connection` counts them, from 1, in the order in which the server told of them; `at` is
 * milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Event =
  /** Bytes are copied from now on. */
  | { readonly _tag: "Opened"; readonly at: number; readonly connection: number }
  /** It is over. `cause`: not in an orderly way; `Shutdown`: because the tunnel ended. */
  | {
    readonly _tag: "Closed"
    readonly at: number
    readonly connection: number
    /** From the server to the local service. */
    readonly bytesIn: number
    /** From the local service to the server. */
    readonly bytesOut: number
    readonly took: Duration.Duration
    readonly cause: ControlChannel.Failure | Shutdown | undefined
  }
  /** It did not come about. */
  | { readonly _tag: "Failed"; readonly at: number; readonly connection: number; readonly cause: Failure }

/**
 * What became of data connections so far. Bytes are those of open connections too.
 *
 * @category models
 * @since 0.1.0
 */
export interface Stats {
  /** Open now, those that are being opened included. */
  readonly open: number
  /** That came about, so far. */
  readonly opened: number
  /** That came about and are over, in whatever way. */
  readonly closed: number
  /** That did not come about. */
  readonly failed: number
  readonly bytesIn: number
  readonly bytesOut: number
}

/**
 * See {@link make}. `E` is how its control connection may end for good, beside being closed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tunnel<in out E> {
  /**
   * The control connection. `session` is the port that the server gave; closing it means that no new connections come, while
   * those that are open go on.
   */
  readonly channel: Omit<
    ControlChannel.ControlChannel<Bore.ServerMessage, Bore.ClientMessage, Bore.Session, E>,
    "messages" | "send"
  >
  /** Of data connections, from now on. A reader that is behind loses the oldest beyond the last 256. */
  readonly events: Stream.Stream<Event>
  readonly stats: Effect.Effect<Stats>
  /** How the control connection ended for good: waits for it, and fails with it. */
  readonly ended: Effect.Effect<never, E | Closed>
}

/**
 * A tunnel that lives as long as the scope. It connects at once, in the background. How it may end goes by `reconnect`, as in
 * `ControlChannel.make`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  (options: Options & { readonly reconnect: false }): Effect.Effect<
    Tunnel<AuthFailed | Refused | ControlChannel.Disconnected>,
    never,
    Dialer | Scope.Scope
  >
  (options: Options & { readonly reconnect?: Backoff.Unbounded | undefined }): Effect.Effect<
    Tunnel<AuthFailed | Refused | NoProgress>,
    never,
    Dialer | Scope.Scope
  >
  (options: Options & { readonly reconnect?: Backoff.Policy | undefined }): Effect.Effect<
    Tunnel<AuthFailed | Refused | NoProgress | Exhausted>,
    never,
    Dialer | Scope.Scope
  >
  /** Where it is not known before the program runs. */
  (options: Options & { readonly reconnect?: Backoff.Policy | false | undefined }): Effect.Effect<
    Tunnel<AuthFailed | Refused | NoProgress | Exhausted | ControlChannel.Disconnected>,
    never,
    Dialer | Scope.Scope
  >
} = Engine.make
