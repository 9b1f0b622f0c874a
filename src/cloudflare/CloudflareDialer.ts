/**
 * CloudflareDialer: a `Dialer` for `Tunnel` in Workers, by `connect()` of `cloudflare:sockets`, or by a binding that connects to a
 * private network.
 *
 * - **Half-close** is asked for with each connection.
 * - **A reset** is not there to be had: the platform closes the connection, and the other side may take that for an orderly end.
 * - **TCP keepalive** is not there to be set.
 *
 * A Worker may only use a connection in the invocation that opened it: a tunnel lives in a Durable Object, or no longer than the
 * request.
 *
 * **Example** (A service in a private network)
 *
 * ```ts
 * import * as CloudflareDialer from "effect-lifeline/cloudflare/CloudflareDialer"
 * import * as Tunnel from "effect-lifeline/Tunnel"
 * import * as Effect from "effect/Effect"
 *
 * // In a Worker: import { connect } from "cloudflare:sockets"
 * declare const connect: CloudflareDialer.Connect
 *
 * export const program = Effect.gen(function*() {
 *   const tunnel = yield* Tunnel.make({ server: { host: "relay.example" }, local: { host: "10.0.0.7", port: 3000 } })
 *   return yield* tunnel.ended
 * }).pipe(Effect.scoped, Effect.provide(CloudflareDialer.layer(connect)))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Dialer from "../Dialer.ts"
import type { Connection } from "./CloudflareSocket.ts"

/**
 * What is needed of `connect()`.
 *
 * @category models
 * @since 0.1.0
 */
export type Connect = (
  address: { readonly hostname: string; readonly port: number },
  options: { readonly allowHalfOpen: boolean; readonly secureTransport: "off" }
) => Connection

const attempt = <A>(evaluate: () => Promise<A>): Effect.Effect<A, unknown> =>
  Effect.callback((resume) => {
    evaluate().then((value) => resume(Effect.succeed(value)), (cause) => resume(Effect.fail(cause)))
  })

/**
 * Connections by this `connect`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (connect: Connect): Layer.Layer<Dialer.Dialer> =>
  Layer.succeed(Dialer.Dialer, {
    dial: Effect.fnUntraced(function*({ host, port }: Dialer.Address) {
      // It throws at an address that it does not take.
      const open = attempt(async () => {
        const connection = connect({ hostname: host, port }, { allowHalfOpen: true, secureTransport: "off" })
        const reader = connection.readable.getReader()
        const writer = connection.writable.getWriter()
        /** None of it is waited for, since any of it may hang; that it fails is known elsewhere. */
        const drop = Effect.sync(() => {
          for (const ended of [reader.cancel(), writer.abort(), connection.close()]) ended.catch(constVoid)
        })
        return { connection, drop, reader, writer }
      })
      const { connection, drop, reader, writer } = yield* Effect.acquireRelease(open, ({ drop }) => drop)
      yield* attempt(() => connection.opened)
      const unread: Array<Uint8Array> = []
      /** Outlives a read that is interrupted. */
      let reading: ReturnType<typeof reader.read> | undefined
      const dialed: Dialer.Connection = {
        read: Effect.suspend(() => {
          const bytes = unread.shift()
          if (bytes !== undefined) return Effect.succeed(bytes)
          return Effect.map(attempt(() => reading ??= reader.read()), ({ value }) => {
            reading = undefined
            return value
          })
        }),
        unread: (bytes) => {
          if (bytes.length > 0) unread.unshift(bytes)
        },
        write: (bytes) => attempt(() => writer.write(bytes)),
        end: attempt(() => writer.close()),
        reset: drop
      }
      return dialed
    })
  })
