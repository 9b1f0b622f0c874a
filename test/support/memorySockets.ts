/** Sockets in memory, one for each time that one is opened, under the control of a test: what comes, what was written. */
import { isArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Socket from "effect/socket/Socket"

export interface Connection {
  /** What was written, as text. */
  readonly written: Array<string>
  /** What the other side sends. */
  readonly send: (...chunks: ReadonlyArray<string | Uint8Array>) => Effect.Effect<void>
  readonly end: (error?: Socket.SocketError) => Effect.Effect<void>
  isOpen: boolean
}

export const closed = (code: number, closeReason?: string) =>
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code, closeReason }) })

export const broken = (code: string) =>
  new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: Object.assign(new Error(code), { code }) }) })

/** `started` runs for each connection, once it is open. */
export const make = (started: (connection: Connection, n: number) => Effect.Effect<void> = () => Effect.void) => {
  const connections: Array<Connection> = []
  const state = {
    writes: Effect.void as Effect.Effect<void>,
    opens: Effect.void as Effect.Effect<void, unknown>,
    /** Whether the other side ends once we sent our end, as TCP clients do. */
    answersEnd: false
  }
  const open = Effect.gen(function*() {
    yield* Effect.suspend(() => state.opens)
    const inbox = yield* Queue.unbounded<string | Uint8Array, Socket.SocketError>()
    const connection: Connection = {
      written: [],
      send: (...chunks) => Effect.asVoid(Queue.offerAll(inbox, chunks)),
      end: (error = closed(1000)) => Effect.asVoid(Queue.fail(inbox, error)),
      isOpen: false
    }
    const n = connections.push(connection) - 1
    const write = (chunk: string | Uint8Array | Socket.CloseEvent) =>
      Socket.isCloseEvent(chunk) ? Effect.void : Effect.andThen(
        state.writes,
        Effect.sync(() => {
          connection.written.push(typeof chunk === "string" ? chunk : new TextDecoder().decode(chunk))
        })
      )
    return Socket.make({
      reader: Effect.acquireRelease(
        Effect.suspend(() => {
          connection.isOpen = true
          return started(connection, n)
        }),
        () =>
          Effect.sync(() => {
            connection.isOpen = false
          })
      ).pipe(Effect.as({
        pull: Effect.flatMap(
          Queue.takeAll(inbox),
          (chunks) => isArrayNonEmpty(chunks) ? Effect.succeed(chunks) : Effect.never
        ),
        upgrade: Socket.SocketUpgradeError.unsupported
      })),
      writer: Effect.acquireRelease(
        Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) }),
        () => Effect.suspend(() => state.answersEnd ? connection.end() : Effect.void)
      )
    })
  })
  return { connections, open, state }
}
