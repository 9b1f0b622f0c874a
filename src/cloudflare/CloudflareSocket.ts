/**
 * CloudflareSocket: a TCP connection of a Worker as a `Socket` of `effect/socket`, e.g. for `ControlChannel` and `Bore`. What
 * `connect()` of `cloudflare:sockets` gives is described by its shape, so that this depends on no package of Cloudflare's; a
 * binding that connects, e.g. to a private network, does as well.
 *
 * - **Opening** waits until the platform says that the connection is there. What it says instead is a `SocketOpenError`, as is
 *   an address that it does not take. It has no deadline of its own: `ControlChannel` gives it 3 s.
 * - **Reading** is on demand: what is not pulled holds the sender up.
 * - **Writing** ends when the platform took the bytes: who sends too fast waits.
 * - **The end of the scope** ends the connection at once, also where a write hangs because the other side reads nothing. What
 *   was written before is sent.
 * - **A reset** by the other side reads like the end of its stream, as workerd tells it so.
 * - **TCP keepalive** is not there to be set, and TLS is an option of `connect()`: `{ secureTransport: "on" }`.
 *
 * A Worker may only use a connection in the invocation that opened it: to keep one, open it in a Durable Object.
 *
 * **Example** (Bore in a Worker)
 *
 * ```ts
 * import * as Bore from "effect-lifeline/Bore"
 * import * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
 * import * as Effect from "effect/Effect"
 *
 * // In a Worker: import { connect } from "cloudflare:sockets"
 * declare const connect: (address: { hostname: string; port: number }) => CloudflareSocket.Connection
 *
 * export const program = Effect.gen(function*() {
 *   const channel = yield* Bore.make({
 *     open: CloudflareSocket.make(() => connect({ hostname: "relay.example", port: Bore.port }))
 *   })
 *   yield* Effect.log(`listening at relay.example:${(yield* channel.session).port}`)
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { constVoid } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Socket from "effect/socket/Socket"

/**
 * What is needed of a connection: what `connect()` returns is one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  /** Settled once it is known whether the connection is there. */
  readonly opened: Promise<unknown>
  readonly readable: { getReader(): Reader }
  readonly writable: { getWriter(): Writer }
  close(): Promise<void>
}

/**
 * What is needed of the reader of a connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>
  cancel(): Promise<void>
}

/**
 * What is needed of the writer of a connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Writer {
  write(bytes: Uint8Array): Promise<void>
  close(): Promise<void>
  abort(): Promise<void>
}

type Chunk = Uint8Array | string | Socket.CloseEvent
type Pulled = Exit.Exit<NonEmptyReadonlyArray<Uint8Array>, Socket.SocketError>

/** A connection that is open. */
interface Open {
  readonly writer: Writer
  readonly end: (code: number, reason?: string) => void
}

const failed = (reason: Socket.SocketErrorReason) => new Socket.SocketError({ reason })

/** That it fails is known elsewhere, or of no interest any more. */
const ignored = (promise: Promise<unknown>): void => void promise.catch(constVoid)

/** Ends whatever is left of a connection; none of it is waited for, since any of it may hang. */
const drop = (connection: Connection, reader: Reader, writer: Writer): void => {
  ignored(reader.cancel())
  ignored(writer.abort())
  ignored(connection.close())
}

/**
 * A socket that connects anew each time its reader is acquired. `connect` is run then; what it throws is a `SocketOpenError`.
 *
 * **Example** (With TLS)
 *
 * ```ts
 * import * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
 *
 * // In a Worker: import { connect } from "cloudflare:sockets"
 * declare const connect: (address: string, options: { secureTransport: "on" }) => CloudflareSocket.Connection
 *
 * export const open = CloudflareSocket.make(() => connect("relay.example:7000", { secureTransport: "on" }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (connect: () => Connection): Effect.Effect<Socket.Socket> =>
  Effect.sync(() => {
    const isOpen = Latch.makeUnsafe(false)
    let current: Open | undefined

    const dial = Effect.try({
      try: () => {
        const connection = connect()
        return { connection, reader: connection.readable.getReader(), writer: connection.writable.getWriter() }
      },
      catch: (cause) => failed(new Socket.SocketOpenError({ kind: "Unknown", cause }))
    })

    const reader: Socket.Socket["reader"] = Effect.gen(function*() {
      const { connection, reader, writer } = yield* Effect.acquireRelease(
        dial,
        (dialed) => Effect.sync(() => drop(dialed.connection, dialed.reader, dialed.writer))
      )
      yield* Effect.tryPromise({
        try: () => connection.opened,
        catch: (cause) => failed(new Socket.SocketOpenError({ kind: "Unknown", cause }))
      })

      let waiting: ((pulled: Pulled) => void) | undefined
      /** What came for a pull that was interrupted. */
      let kept: Pulled | undefined
      let ended: Pulled | undefined
      let isReading = false
      const came = (pulled: Pulled) => {
        isReading = false
        if (Exit.isFailure(pulled)) ended ??= pulled
        const resume = waiting
        waiting = undefined
        if (resume === undefined) kept = pulled
        else resume(ended ?? pulled)
      }
      const end = (code: number, closeReason?: string) =>
        came(Exit.fail(failed(new Socket.SocketCloseError({ code, closeReason }))))
      const pull = Effect.callback<NonEmptyReadonlyArray<Uint8Array>, Socket.SocketError>((resume) => {
        const ready = ended ?? kept
        kept = undefined
        if (ready !== undefined) return resume(ready)
        waiting = resume
        if (!isReading) {
          isReading = true
          reader.read().then(
            ({ value }) => value === undefined ? end(1000) : came(Exit.succeed([value])),
            (cause) => came(Exit.fail(failed(new Socket.SocketReadError({ cause }))))
          )
        }
        return Effect.sync(() => {
          waiting = undefined
        })
      })

      const open: Open = {
        writer,
        end: (code, reason) => {
          end(code, reason)
          drop(connection, reader, writer)
        }
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          current = open
          isOpen.openUnsafe()
        }),
        () =>
          Effect.sync(() => {
            end(1006)
            if (current !== open) return
            current = undefined
            isOpen.closeUnsafe()
          })
      )
      return { pull, upgrade: Socket.SocketUpgradeError.unsupported }
    })

    const encoder = new TextEncoder()
    const write = (chunk: Chunk): Effect.Effect<void, Socket.SocketError> =>
      Effect.suspend(() => {
        const open = current
        if (open === undefined) return isOpen.whenOpen(write(chunk))
        if (Socket.isCloseEvent(chunk)) return Effect.sync(() => open.end(chunk.code, chunk.reason))
        return Effect.tryPromise({
          try: () => open.writer.write(typeof chunk === "string" ? encoder.encode(chunk) : chunk),
          catch: (cause) => failed(new Socket.SocketWriteError({ cause }))
        })
      })
    const writer: Socket.Socket["writer"] = Effect.acquireRelease(
      Effect.succeed({
        write,
        writeAll: (chunks: ReadonlyArray<Uint8Array | string>) => Effect.forEach(chunks, write, { discard: true })
      }),
      // Half-closes once what was written is sent, which may be never.
      () =>
        Effect.sync(() => {
          if (current !== undefined) ignored(current.writer.close())
        })
    )
    return Socket.make({ reader, writer })
  })
