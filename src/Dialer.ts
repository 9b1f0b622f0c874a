/**
 * Dialer: the port to whatever opens TCP connections as plain streams of bytes: `node/NodeDialer` on Node, Deno and Bun,
 * `cloudflare/CloudflareDialer` in Workers. `Tunnel` needs one.
 *
 * It is not the `Socket` of `effect/socket`, which tells the end of the other side's stream from a closed connection by
 * nothing, cannot end a connection by a reset, and cannot take back bytes that were read too far: what passes on a connection
 * that others speak over needs all three.
 *
 * **Example** (Asks, and reads one answer)
 *
 * ```ts
 * import * as Dialer from "effect-lifeline/Dialer"
 * import * as Effect from "effect/Effect"
 *
 * export const first = Effect.scoped(Effect.gen(function*() {
 *   const dialer = yield* Dialer.Dialer
 *   const connection = yield* dialer.dial({ host: "localhost", port: 7 })
 *   yield* connection.write(new TextEncoder().encode("hello"))
 *   yield* connection.end
 *   return yield* connection.read
 * }))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * Where to connect to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address {
  /** A name or an IP address, without brackets. */
  readonly host: string
  readonly port: number
}

/**
 * A connection whose two directions end apart. Errors are the platform's. Each of `read` and `write` has one caller at a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /**
   * What came next, at least a byte; `undefined`: the other side sends no more. The bytes are valid until the next read: copy
   * what is to be kept. While nobody reads only a bounded amount is taken from the network. An interrupted read loses nothing.
   */
  readonly read: Effect.Effect<Uint8Array | undefined, unknown>
  /** Puts bytes back: the next read yields them first. */
  readonly unread: (bytes: Uint8Array) => void
  /** Ends when the bytes are handed to the system. Until then they must not be changed; one that is interrupted sends them yet. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void, unknown>
  /** Tells the other side that no more is sent, after what was written. What it sends is read on. */
  readonly end: Effect.Effect<void, unknown>
  /** Ends both directions at once, so that the other side learns that it is not the orderly end. Never fails. */
  readonly reset: Effect.Effect<void>
}

/**
 * Opens connections: without Nagle's delay, and with keepalive after 30 s idle, where the platform has them. A connection lives
 * as long as the scope; closing that closes it at once, also where it is still being opened.
 *
 * @category services
 * @since 0.1.0
 */
export class Dialer extends Context.Service<Dialer, {
  readonly dial: (to: Address) => Effect.Effect<Connection, unknown, Scope.Scope>
}>()("effect-lifeline/Dialer") {}
