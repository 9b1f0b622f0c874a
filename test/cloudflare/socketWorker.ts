/** What a connection must do in workerd, against the servers of `CloudflareSocket.test.ts`, whose ports come as a query. */
import { connect } from "cloudflare:sockets"
import * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"

export interface Report {
  /** Bytes that came back. */
  readonly echoed: number
  readonly isSame: boolean
  /** How the connection ended after the writer was half-closed and all had come back. */
  readonly ended: string
  /** Whether writing to a server that reads nothing came to a halt. */
  readonly heldUp: boolean
  readonly closedWhileHeldUp: boolean
  readonly reset: string
  readonly refused: string
  readonly invalid: string
}

const tagOf = ({ reason }: Socket.SocketError) =>
  reason._tag === "SocketCloseError" ? `${reason._tag} ${reason.code}` : reason._tag

const open = (port: number) => CloudflareSocket.make(() => connect({ hostname: "127.0.0.1", port }))

/** How opening, or else reading, ends. */
const outcome = (port: number) =>
  Effect.scoped(Effect.gen(function*() {
    const socket = yield* open(port)
    const { pull } = yield* socket.reader
    const { write } = yield* socket.writer
    yield* write("x")
    return yield* Effect.forever(pull)
  })).pipe(Effect.flip, Effect.map(tagOf))

const echo = (port: number) =>
  Effect.scoped(Effect.gen(function*() {
    const sent = Uint8Array.from({ length: 2 ** 20 }, (_, n) => (n * 31 + (n >> 8)) % 251)
    const socket = yield* open(port)
    const { pull } = yield* socket.reader
    const writing = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
      const { write, writeAll } = yield* socket.writer
      yield* writeAll([sent.subarray(0, 1), sent.subarray(1, 1000)])
      for (let from = 1000; from < sent.length; from += 65_536) yield* write(sent.subarray(from, from + 65_536))
    })))
    let echoed = 0
    let isSame = true
    const reading = Effect.map(pull, (chunks) => {
      for (const chunk of chunks) {
        if (typeof chunk === "string") continue
        isSame &&= chunk.every((byte, n) => byte === sent[echoed + n])
        echoed += chunk.length
      }
    })
    const ended = tagOf(yield* Effect.flip(Effect.forever(reading)))
    yield* Fiber.join(writing)
    return { echoed, isSame, ended }
  }))

const hold = (port: number) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const socket = yield* open(port)
    yield* Scope.provide(socket.reader, scope)
    const { write } = yield* Scope.provide(socket.writer, scope)
    const piece = new Uint8Array(2 ** 20)
    let heldUp = false
    for (let n = 0; n < 64 && !heldUp; n++) {
      const writing = yield* Effect.forkIn(write(piece), scope)
      heldUp = Option.isNone(yield* Effect.timeoutOption(Fiber.await(writing), "1 second"))
    }
    const closed = yield* Effect.timeoutOption(Scope.close(scope, Exit.void), "1 second")
    return { heldUp, closedWhileHeldUp: Option.isSome(closed) }
  })

export default {
  fetch: (request: Request): Promise<Response> => {
    const ports = new URL(request.url).searchParams
    const port = (name: string) => Number(ports.get(name))
    return Effect.runPromise(Effect.gen(function*() {
      const report: Report = {
        ...(yield* echo(port("echoes"))),
        ...(yield* hold(port("deaf"))),
        reset: yield* outcome(port("resets")),
        refused: yield* outcome(1),
        invalid: yield* outcome(-1)
      }
      return Response.json(report)
    }))
  }
}
