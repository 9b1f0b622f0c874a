// Connections over sockets of effect/socket: one in memory under the control of the test, and TCP over loopback.
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { assert, describe, it } from "@effect/vitest"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import { isArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Net from "node:net"

const dial: Reconnect.Dial<never> = { cursor: undefined, attempt: 1, generation: 1 }

const url = "ws://relay.test:7835/control"

const closed = (code: number, closeReason?: string) =>
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code, closeReason }) })

/** A socket in memory: what was written, what is to be read, and how often it was opened and released. */
const memory = Effect.fnUntraced(function*(options: { readonly writes?: Effect.Effect<void> } = {}) {
  const inbox = yield* Queue.unbounded<string | Uint8Array, Socket.SocketError>()
  const written: Array<string> = []
  const counts = { open: 0, pulls: 0 }
  const write = (chunk: string | Uint8Array | Socket.CloseEvent) =>
    Effect.andThen(
      options.writes ?? Effect.void,
      Effect.suspend(() => {
        written.push(Socket.isCloseEvent(chunk) ? `close ${chunk.code}` : String(chunk))
        return Socket.isCloseEvent(chunk) ? Effect.asVoid(Queue.fail(inbox, closed(chunk.code))) : Effect.void
      })
    )
  const socket = Socket.make({
    reader: Effect.as(
      Effect.acquireRelease(Effect.sync(() => counts.open++), () => Effect.sync(() => counts.open--)),
      {
        pull: Effect.flatMap(Queue.takeAll(inbox), (messages) => {
          counts.pulls++
          return isArrayNonEmpty(messages) ? Effect.succeed(messages) : Effect.never
        }),
        upgrade: Socket.SocketUpgradeError.unsupported
      }
    ),
    writer: Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) })
  })
  return { inbox, written, counts, dialer: WebSocket.fromSocket(() => Effect.succeed(socket)) }
})

const tags = (error: { readonly _tag: string; readonly reason?: { readonly _tag: string } }) =>
  error.reason === undefined ? error._tag : `${error._tag}.${error.reason._tag}`

describe("WebSocket.fromSocket", () => {
  it.effect("carries messages both ways, and says goodbye", () =>
    Effect.gen(function*() {
      const { counts, dialer, inbox, written } = yield* memory()
      const scope = yield* Scope.make()
      const connection = yield* WebSocket.open({ url, frames: "any" })(dial).pipe(
        Effect.provideService(WebSocket.Dialer, dialer),
        Scope.provide(scope)
      )
      assert.strictEqual(counts.open, 1)
      const fiber = yield* Effect.forkChild(Stream.runCollect(Stream.take(connection.messages, 2)))
      yield* Queue.offerAll(inbox, ["hello", new Uint8Array([1, 2])])
      assert.deepStrictEqual(yield* Fiber.join(fiber), ["hello", new Uint8Array([1, 2])])
      yield* connection.send("one")
      yield* connection.send("two")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(written, ["one", "two", "close 1000"])
      assert.strictEqual(counts.open, 0)
    }))

  it.effect.each<readonly [Socket.SocketError, string]>([
    [closed(1006), "Transient.Unavailable"],
    [closed(1000), "Transient.Unavailable"],
    [closed(4401, "who are you"), "AuthFailed.Unauthorized"],
    [
      new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: { code: "ECONNRESET" } }) }),
      "Transient.Unavailable"
    ]
  ])("its end is by the table of close codes: %s", ([error, expected]) =>
    Effect.gen(function*() {
      const { dialer, inbox } = yield* memory()
      const connection = yield* Effect.provideService(WebSocket.open({ url })(dial), WebSocket.Dialer, dialer)
      yield* Queue.offer(inbox, "last words")
      yield* Queue.fail(inbox, error)
      const seen: Array<string> = []
      const ended = yield* Effect.flip(
        Stream.runForEach(connection.messages, (message) => Effect.sync(() => seen.push(message)))
      )
      assert.deepStrictEqual(seen, ["last words"])
      assert.strictEqual(tags(ended), expected)
      assert.strictEqual(tags(yield* Effect.flip(connection.send("x"))), expected)
    }))

  it.effect("a socket that does not open is a server that cannot be reached; errors of the algebra pass", () =>
    Effect.gen(function*() {
      const refused = new Socket.SocketError({
        reason: new Socket.SocketOpenError({ kind: "Unknown", cause: { code: "ECONNREFUSED" } })
      })
      const outcome = (socket: Effect.Effect<Socket.Socket, unknown>) =>
        Effect.provideService(
          Effect.flip(WebSocket.open({ url })(dial)),
          WebSocket.Dialer,
          WebSocket.fromSocket(() => socket)
        )
      const error = yield* outcome(Effect.fail(refused))
      assert.strictEqual(tags(error), "Transient.Unreachable")
      assert.include(error.message, "ECONNREFUSED")
      assert.include(error.message, url)
      assert.strictEqual(
        (yield* outcome(Effect.fail(new Reconnect.Stop({ operation: "a", target: "b" }))))._tag,
        "Stop"
      )
    }))

  it.effect("one that hangs while it opens is given up at the deadline", () =>
    Effect.gen(function*() {
      const fiber = yield* WebSocket.open({ url })(dial).pipe(
        Effect.provideService(WebSocket.Dialer, WebSocket.fromSocket(() => Effect.never)),
        Effect.flip,
        Effect.forkChild
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(tags(yield* Fiber.join(fiber)), "Transient.TimedOut")
    }))

  it.effect("a socket that writes slowly fills the outbox; one that reads slowly is not read", () =>
    Effect.gen(function*() {
      const { counts, dialer, inbox } = yield* memory({ writes: Effect.never })
      const scope = yield* Scope.make()
      const connection = yield* WebSocket.open({ url, maxBacklog: 4, outbox: { maxBytes: 100_000 } })(dial).pipe(
        Effect.provideService(WebSocket.Dialer, dialer),
        Scope.provide(scope)
      )
      yield* connection.send("x".repeat(70_000))
      assert.strictEqual((yield* connection.waiting).bytes, 70_000)
      assert.strictEqual(tags(yield* Effect.flip(connection.send("x".repeat(40_000)))), "Overflow")
      for (let n = 0; n < 5; n++) {
        yield* Queue.offer(inbox, "xxx")
        yield* TestClock.adjust(0)
      }
      const pulls = counts.pulls
      assert.isBelow(pulls, 5)
      yield* Stream.runDrain(Stream.take(connection.messages, 5))
      assert.isAbove(counts.pulls, pulls)
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(closing)
      assert.strictEqual(counts.open, 0)
    }))

  it.live("TCP: an echo, and a server that goes away is dialled again", () =>
    Effect.gen(function*() {
      let connections = 0
      const server = yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const server = Net.createServer((socket) => {
            connections++
            socket.on("error", () => {})
            socket.on("data", (data) => {
              socket.write(`echo ${data}`)
              if (connections === 1) socket.end()
            })
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
      )
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const tcp = WebSocket.fromSocket(({ url }) => {
        const { hostname, port } = new URL(url)
        return NodeSocket.makeNet({ host: hostname, port: Number(port) })
      })
      const heard = yield* WebSocket.stream({
        url: `ws://127.0.0.1:${port}`,
        frames: "binary",
        closeWithin: "100 millis",
        onOpen: (connection, { generation }) => connection.send(`hello ${generation}`)
      }).pipe(
        Stream.map((bytes) => bytes instanceof Uint8Array ? new TextDecoder().decode(bytes) : bytes._tag),
        Stream.take(2),
        Stream.runCollect,
        Effect.provideService(WebSocket.Dialer, tcp)
      )
      assert.deepStrictEqual(heard, ["echo hello 1", "echo hello 2"])
      const left = yield* Effect.callback<number>((resume) =>
        void setTimeout(() => server.getConnections((_, count) => resume(Effect.succeed(count))), 200)
      )
      assert.strictEqual(left, 0)
    }), 20_000)
})
