// Connections by node:net: what is set on their sockets, reading ahead within bounds, ends that wait for what was written, interruption, resets, leaks.
import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import { Dialer } from "effect-lifeline/Dialer"
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import * as Net from "node:net"
import { vi } from "vitest"
import * as Leaks from "../support/leaks.ts"
import { all, echo, fate, serve, sha, until } from "../support/tunnel/sockets.ts"

const text = (bytes: Uint8Array | undefined) => bytes === undefined ? undefined : new TextDecoder().decode(bytes)
const bytes = (text: string) => new TextEncoder().encode(text)

const dial = (port: number, host = "127.0.0.1") =>
  Effect.flatMap(Dialer, ({ dial }) => dial({ host, port })).pipe(Effect.provide(NodeDialer.layer))

/** A connection, and the server's end of it. */
const pair = Effect.gen(function*() {
  const arrived = Promise.withResolvers<Net.Socket>()
  const server = yield* serve((socket) => arrived.resolve(socket.pause()))
  const connection = yield* dial(server.port)
  return { connection, other: yield* Effect.promise(() => arrived.promise) }
})

const keepalive = (implementation?: () => never) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const spy = vi.spyOn(Net.Socket.prototype, "setKeepAlive")
      if (implementation !== undefined) spy.mockImplementation(implementation)
      return spy
    }),
    (spy) => Effect.sync(() => spy.mockRestore())
  )

const isPending = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.map(Effect.sleep("200 millis"), () => fiber.pollUnsafe() === undefined)

describe("NodeDialer", () => {
  it.live("writes, reads, ends; an end is no failure, and is there again when one reads again", () =>
    Effect.gen(function*() {
      const server = yield* serve(echo)
      const connection = yield* dial(server.port)
      yield* connection.write(bytes("hello"))
      assert.strictEqual(text(yield* connection.read), "hello")
      yield* connection.end
      assert.isUndefined(yield* connection.read)
      assert.isUndefined(yield* connection.read)
    }))

  it.live("bytes that are put back come first, and before the end", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      other.end("two")
      assert.strictEqual(text(yield* connection.read), "two")
      connection.unread(bytes("two"))
      connection.unread(bytes("one"))
      connection.unread(bytes(""))
      assert.strictEqual(text(yield* connection.read), "one")
      assert.strictEqual(text(yield* connection.read), "two")
      assert.isUndefined(yield* connection.read)
    }))

  it.live("an interrupted read loses nothing", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(connection.read, "50 millis")))
      other.write("kept")
      yield* Effect.sleep("50 millis")
      assert.strictEqual(text(yield* connection.read), "kept")
    }))

  it.live("while nobody reads little is taken, and the sender waits", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      const sent = randomBytes(64 << 20)
      other.end(sent)
      const first = yield* connection.read
      yield* Effect.sleep("500 millis")
      // What the system keeps on its own is some megabytes.
      assert.isAbove(other.writableLength, 32 << 20)
      // Bytes are valid until the next read.
      const received = createHash("sha256")
      for (let part = first; part !== undefined; part = yield* connection.read) received.update(part)
      assert.strictEqual(received.digest("hex"), sha(sent))
    }))

  it.live("a write waits for room, and the end for what was written", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      const chunk = randomBytes(1 << 20)
      let written = 0
      // The last of them is interrupted, and sent all the same.
      for (let isRoom = true; isRoom && written < 100;) {
        written++
        isRoom = Option.isSome(yield* Effect.timeoutOption(connection.write(chunk), "200 millis"))
      }
      assert.isBelow(written, 50)
      const ending = yield* Effect.forkChild(connection.end, { startImmediately: true })
      assert.isTrue(yield* isPending(ending))
      const received = yield* Effect.promise(() => all(other))
      assert.strictEqual(received.length, written << 20)
      yield* Fiber.join(ending)
    }))

  it.live("a reset is one at the other side; whoever waits is told, and so is who comes later", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      const reading = yield* Effect.forkChild(Effect.flip(connection.read), { startImmediately: true })
      yield* connection.reset
      assert.strictEqual(yield* Effect.promise(() => fate(other)), "ECONNRESET")
      yield* Fiber.join(reading)
      yield* Effect.flip(connection.write(bytes("x")))
      yield* Effect.flip(connection.end)
      yield* Effect.flip(connection.read)
      yield* connection.reset
    }))

  it.live("a reset by the other side fails reads, and writes that wait for room", () =>
    Effect.gen(function*() {
      const { connection, other } = yield* pair
      const reading = yield* Effect.forkChild(Effect.flip(connection.read), { startImmediately: true })
      const writing = yield* Effect.forkChild(
        Effect.flip(Effect.forever(connection.write(randomBytes(1 << 20)))),
        { startImmediately: true }
      )
      assert.isTrue(yield* isPending(writing))
      other.resetAndDestroy()
      assert.strictEqual(Classify.codeOf(yield* Fiber.join(reading)), "ECONNRESET")
      assert.strictEqual(Classify.codeOf(yield* Fiber.join(writing)), "ECONNRESET")
    }))

  it.live("nobody listens, and no such host: the platform's word for it", () =>
    Effect.gen(function*() {
      const server = yield* serve(() => {})
      yield* Effect.promise(server.stop)
      assert.strictEqual(Classify.codeOf(yield* Effect.flip(dial(server.port))), "ECONNREFUSED")
      const code = Classify.codeOf(yield* Effect.flip(dial(1, "no-such-host.invalid")))
      assert.include(["ENOTFOUND", "EAI_AGAIN"], code)
    }))

  it.live("asks an idle connection after 30 seconds, then each 10", () =>
    Effect.gen(function*() {
      const { port } = yield* serve(echo)
      const spy = yield* keepalive()
      yield* dial(port)
      assert.deepStrictEqual(spy.mock.calls, [[true, 30_000, 10_000]])
    }))

  it.live("where that cannot be set it is said, once, and the connection is there all the same", () => {
    const lines: Array<string> = []
    return Effect.gen(function*() {
      const { port } = yield* serve(echo)
      yield* keepalive(() => {
        throw new Error("setsockopt ENOPROTOOPT")
      })
      const { dial } = yield* Dialer
      for (const word of ["first", "second"]) {
        const connection = yield* dial({ host: "127.0.0.1", port })
        yield* connection.write(bytes(word))
        assert.strictEqual(text(yield* connection.read), word)
      }
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0] ?? "", /^Warn 127\.0\.0\.1:\d+ goes without keepalive.*ENOPROTOOPT/)
    }).pipe(
      Effect.provide([
        NodeDialer.layer,
        Logger.layer([Logger.make(({ logLevel, message }) => lines.push(`${logLevel} ${String(message)}`))])
      ])
    )
  })

  it.live("the end of the scope closes it, also while it is being opened, and leaves nothing", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const beyond = yield* Leaks.resources
      yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const arrived: Array<Net.Socket> = []
        const server = yield* serve((socket) => void arrived.push(socket))
        const connection = yield* Scope.provide(dial(server.port), scope)
        const reading = yield* Effect.forkChild(Effect.exit(connection.read), { startImmediately: true })
        // Nobody answers there.
        const opening = yield* Effect.forkChild(Effect.scoped(dial(9, "192.0.2.1")), { startImmediately: true })
        yield* until(() => arrived.length === 1)
        yield* Fiber.interrupt(opening)
        const ended = arrived[0] === undefined ? Promise.resolve([]) : once(arrived[0].resume(), "end")
        yield* Scope.close(scope, Exit.void)
        yield* Effect.promise(() => ended)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(reading)))
      })))
      assert.strictEqual(yield* fibers.left, 0)
      assert.deepStrictEqual(yield* beyond, [])
    }))
})
