/** TCP in a Worker as a `Socket`: against connections that misbehave, then in workerd against servers on loopback. */
import { assert, describe, it } from "@effect/vitest"
import * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Net from "node:net"
import * as Workers from "../support/runtimes/Workers.ts"
import type { Report } from "./socketWorker.ts"

/** A connection whose every step is settled by the test, and what was done to it. */
const scripted = () => {
  const log: Array<string> = []
  const opened = Promise.withResolvers<void>()
  const writes: Array<PromiseWithResolvers<void>> = []
  const reads: Array<PromiseWithResolvers<{ readonly done: boolean; readonly value?: Uint8Array }>> = []
  const hangs = (what: string) => () => {
    log.push(what)
    return new Promise<void>((resolve) => setTimeout(resolve, 1000))
  }
  const fails = (what: string) => () => {
    log.push(what)
    return Promise.reject(new Error(what))
  }
  const connection: CloudflareSocket.Connection = {
    opened: opened.promise,
    readable: {
      getReader: () => ({
        read: () => {
          log.push("read")
          const read = Promise.withResolvers<{ readonly done: boolean; readonly value?: Uint8Array }>()
          reads.push(read)
          return read.promise
        },
        cancel: fails("cancel")
      })
    },
    writable: {
      getWriter: () => ({
        write: (bytes) => {
          log.push(`write ${new TextDecoder().decode(bytes)}`)
          const write = Promise.withResolvers<void>()
          writes.push(write)
          return write.promise
        },
        // As with a peer that reads nothing; not for ever, so that a test that waits for it fails.
        close: hangs("close the writer"),
        abort: fails("abort")
      })
    },
    close: fails("close")
  }
  return { connection, log, opened, reads, writes }
}

/** What is in flight comes to its end. */
const settled = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

const tagOf = (error: Socket.SocketError) =>
  error.reason._tag === "SocketCloseError" ? `${error.reason._tag} ${error.reason.code}` : error.reason._tag

const bytes = (text: string) => new TextEncoder().encode(text)

/** Opened, in a scope that the test closes. */
const open = Effect.gen(function*() {
  const script = scripted()
  script.opened.resolve()
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const socket = yield* CloudflareSocket.make(() => script.connection)
  const { pull } = yield* Scope.provide(socket.reader, scope)
  const writer = yield* Scope.provide(socket.writer, scope)
  return { ...script, close: Scope.close(scope, Exit.void), pull, socket, writer }
})

describe("CloudflareSocket", () => {
  it.effect("an address that the platform does not take, and a connection that does not open, are typed", () =>
    Effect.gen(function*() {
      const thrown = yield* CloudflareSocket.make(() => {
        throw new TypeError("Specified address could not be parsed")
      })
      const error = yield* Effect.flip(Effect.scoped(thrown.reader))
      assert(error.reason._tag === "SocketOpenError")
      assert.include(String(error.reason.cause), "could not be parsed")
      const script = scripted()
      script.opened.reject(new Error("cannot connect"))
      const refused = yield* CloudflareSocket.make(() => script.connection)
      const other = yield* Effect.flip(Effect.scoped(refused.reader))
      assert(other.reason._tag === "SocketOpenError")
      assert.include(String(other.reason.cause), "cannot connect")
      assert.deepStrictEqual(script.log, ["cancel", "abort", "close"])
    }))

  it.effect("connects when its reader is acquired, each time; giving up while it opens closes it", () =>
    Effect.gen(function*() {
      const scripts: Array<ReturnType<typeof scripted>> = []
      const socket = yield* CloudflareSocket.make(() => {
        const script = scripted()
        scripts.push(script)
        return script.connection
      })
      assert.strictEqual(scripts.length, 0)
      const opening = yield* Effect.forkChild(Effect.scoped(socket.reader), { startImmediately: true })
      yield* Fiber.interrupt(opening)
      assert.deepStrictEqual(scripts[0]?.log, ["cancel", "abort", "close"])
      const again = yield* Effect.forkChild(Effect.scoped(socket.reader), { startImmediately: true })
      scripts[1]?.opened.resolve()
      yield* Fiber.join(again)
      assert.strictEqual(scripts.length, 2)
    }))

  it.effect("reads when it is asked to, and loses nothing when the one who asked is interrupted", () =>
    Effect.gen(function*() {
      const { log, pull, reads } = yield* open
      yield* settled
      assert.deepStrictEqual(log, [])
      const pulling = yield* Effect.forkChild(pull, { startImmediately: true })
      yield* Fiber.interrupt(pulling)
      const again = yield* Effect.forkChild(pull, { startImmediately: true })
      assert.deepStrictEqual(log, ["read"])
      reads[0]?.resolve({ done: false, value: bytes("a") })
      assert.deepStrictEqual(yield* Fiber.join(again), [bytes("a")])
      const third = yield* Effect.forkChild(pull, { startImmediately: true })
      yield* Fiber.interrupt(third)
      reads[1]?.resolve({ done: false, value: bytes("b") })
      yield* settled
      assert.deepStrictEqual(yield* pull, [bytes("b")])
      assert.strictEqual(reads.length, 2)
    }))

  it.effect("the end, and an error, are told to every pull from then on", () =>
    Effect.gen(function*() {
      const ended = yield* open
      const first = yield* Effect.forkChild(Effect.flip(ended.pull), { startImmediately: true })
      ended.reads[0]?.resolve({ done: true })
      assert.strictEqual(tagOf(yield* Fiber.join(first)), "SocketCloseError 1000")
      assert.strictEqual(tagOf(yield* Effect.flip(ended.pull)), "SocketCloseError 1000")
      const lost = yield* open
      const second = yield* Effect.forkChild(Effect.flip(lost.pull), { startImmediately: true })
      lost.reads[0]?.reject(new Error("Network connection lost."))
      assert.strictEqual(tagOf(yield* Fiber.join(second)), "SocketReadError")
      assert.strictEqual(tagOf(yield* Effect.flip(lost.pull)), "SocketReadError")
    }))

  it.effect("a write ends when the platform took it; one that fails is typed", () =>
    Effect.gen(function*() {
      const { log, writer, writes } = yield* open
      const writing = yield* Effect.forkChild(writer.writeAll(["a", bytes("b")]), { startImmediately: true })
      yield* settled
      assert.deepStrictEqual(log, ["write a"])
      writes[0]?.resolve()
      yield* settled
      assert.deepStrictEqual(log, ["write a", "write b"])
      assert.isUndefined(writing.pollUnsafe())
      writes[1]?.reject(new Error("Network connection lost."))
      assert.strictEqual(tagOf(yield* Effect.flip(Fiber.join(writing))), "SocketWriteError")
    }))

  it.effect("writes wait for a connection", () =>
    Effect.gen(function*() {
      const script = scripted()
      const socket = yield* CloudflareSocket.make(() => script.connection)
      const writer = yield* socket.writer
      yield* Effect.forkChild(writer.write("early"), { startImmediately: true })
      yield* Effect.forkScoped(Effect.andThen(socket.reader, Effect.never), { startImmediately: true })
      yield* settled
      assert.deepStrictEqual(script.log, [])
      script.opened.resolve()
      yield* settled
      assert.deepStrictEqual(script.log, ["write early"])
    }))

  it.effect("the end of its scope ends it at once, although a write hangs, and answers who pulls", () =>
    Effect.gen(function*() {
      const { close, log, pull, writer } = yield* open
      const pulling = yield* Effect.forkChild(Effect.flip(pull), { startImmediately: true })
      yield* Effect.forkChild(writer.write("never taken"), { startImmediately: true })
      const closing = yield* Effect.forkChild(close, { startImmediately: true })
      yield* settled
      assert.isDefined(closing.pollUnsafe())
      assert.strictEqual(tagOf(yield* Fiber.join(pulling)), "SocketCloseError 1006")
      assert.deepStrictEqual(log, ["read", "write never taken", "close the writer", "cancel", "abort", "close"])
    }))

  it.effect("the end of the writer's scope half-closes it; a close event closes it", () =>
    Effect.gen(function*() {
      const { log, pull, reads, socket, writer } = yield* open
      yield* Effect.scoped(socket.writer)
      assert.deepStrictEqual(log, ["close the writer"])
      const pulling = yield* Effect.forkChild(pull, { startImmediately: true })
      reads[0]?.resolve({ done: false, value: bytes("rest") })
      assert.deepStrictEqual(yield* Fiber.join(pulling), [bytes("rest")])
      yield* writer.write(new Socket.CloseEvent(1001))
      assert.strictEqual(tagOf(yield* Effect.flip(pull)), "SocketCloseError 1001")
      assert.deepStrictEqual(log, ["close the writer", "read", "cancel", "abort", "close"])
    }))
})

/** A TCP server on loopback. */
const server = (serve: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly stop: () => void }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const created = Net.createServer({ allowHalfOpen: true }, (socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.on("close", () => sockets.delete(socket))
        serve(socket)
      })
      created.listen(0, "127.0.0.1", () => {
        const address = created.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          stop: () => {
            for (const socket of sockets) socket.destroy()
            created.close()
          }
        }))
      })
    }),
    ({ stop }) => Effect.sync(stop)
  )

describe("CloudflareSocket in workerd", () => {
  it.live(
    "moves what it is given, is held up by who does not read, ends as the other side does",
    () =>
      Effect.gen(function*() {
        const echoes = yield* server((socket) => void socket.pipe(socket))
        const resets = yield* server((socket) => void socket.once("data", () => socket.resetAndDestroy()))
        const deaf = Promise.withResolvers<Net.Socket>()
        const { port } = yield* server((socket) => {
          socket.pause()
          deaf.resolve(socket)
        })
        const miniflare = yield* Workers.run("test/cloudflare/socketWorker.ts")
        const report = yield* Effect.promise(async (): Promise<Report> => {
          const { origin } = await miniflare.ready
          const query = `echoes=${echoes.port}&resets=${resets.port}&deaf=${port}`
          return JSON.parse(await (await fetch(`${origin}/?${query}`)).text())
        })
        assert.deepStrictEqual(report, {
          echoed: 2 ** 20,
          isSame: true,
          ended: "SocketCloseError 1000",
          heldUp: true,
          closedWhileHeldUp: true,
          // workerd tells a reset as the end of the stream.
          reset: "SocketCloseError 1000",
          refused: "SocketOpenError",
          invalid: "SocketOpenError"
        })
        // The connection that was held up is over for its server too.
        const socket = yield* Effect.promise(() => deaf.promise)
        yield* Effect.callback<void>((resume) => {
          socket.on("end", () => socket.end())
          socket.on("close", () => resume(Effect.void))
          socket.resume()
        })
      }).pipe(Effect.scoped),
    60_000
  )
})
