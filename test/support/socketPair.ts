/** Two sockets in memory that are connected with each other: what one writes the other reads, and its end. */
import { isArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Socket from "effect/socket/Socket"

type Chunks = Queue.Queue<string | Uint8Array, Socket.SocketError>

const ended = () => new Socket.SocketError({ reason: new Socket.SocketCloseError({ code: 1000 }) })

const end = (chunks: Chunks) => Effect.asVoid(Queue.fail(chunks, ended()))

const half = (here: Chunks, there: Chunks): Socket.Socket => {
  const write = (chunk: string | Uint8Array | Socket.CloseEvent) =>
    Socket.isCloseEvent(chunk) ? end(there) : Effect.asVoid(Queue.offer(there, chunk))
  return Socket.make({
    reader: Effect.acquireRelease(
      Effect.succeed({
        pull: Effect.flatMap(
          Queue.takeAll(here),
          (chunks) => isArrayNonEmpty(chunks) ? Effect.succeed(chunks) : Effect.never
        ),
        upgrade: Socket.SocketUpgradeError.unsupported
      }),
      () => Effect.andThen(end(here), end(there))
    ),
    writer: Effect.acquireRelease(
      Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) }),
      () => end(there)
    )
  })
}

export const make: Effect.Effect<{ readonly client: Socket.Socket; readonly server: Socket.Socket }> = Effect.gen(
  function*() {
    const up = yield* Queue.unbounded<string | Uint8Array, Socket.SocketError>()
    const down = yield* Queue.unbounded<string | Uint8Array, Socket.SocketError>()
    return { client: half(down, up), server: half(up, down) }
  }
)
