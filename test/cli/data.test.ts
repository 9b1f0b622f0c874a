// What passes through the tool: bytes both ways, ends of one direction, a local service that is not there, a signal in between.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import * as Net from "node:net"
import * as BoreRelay from "../support/boreRelay.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Tool from "./tool.ts"

const relay = (options?: BoreRelay.Options) =>
  Effect.acquireRelease(Effect.promise(() => BoreRelay.start(options)), ({ stop }) => Effect.promise(stop))

const service = (onConnection: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(Effect.promise(() => BoreRelay.serve(0, onConnection)), ({ stop }) => Effect.promise(stop))

/** A visitor of the tunnel. */
const visit = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
      await once(socket, "connect")
      return socket
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** All that comes, until the other side ends. */
const all = (socket: Net.Socket) =>
  Effect.promise(async () => {
    const chunks: Array<Buffer> = []
    for await (const chunk of socket) chunks.push(chunk)
    return Buffer.concat(chunks)
  })

const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const start = Effect.fnUntraced(
  function*(server: { readonly port: number }, local: number, args: ReadonlyArray<string> = []) {
    const tool = yield* Tool.start(
      ["tunnel", String(local), "--to", `127.0.0.1:${server.port}`, "--local-host", "127.0.0.1", ...args]
    )
    const { port } = yield* Tool.listening(tool)
    return { tool, port }
  }
)

describe("what passes", () => {
  it.live("bytes both ways, and the end of each direction by itself; with a secret", () =>
    Effect.gen(function*() {
      const server = yield* relay({ secret: "open sesame" })
      // Answers when all of the question is there: only an end of one direction tells it.
      const { port: local } = yield* service((socket) => {
        const digest = createHash("sha256")
        socket.on("data", (bytes) => digest.update(bytes))
        socket.on("end", () => socket.end(`${digest.digest("hex")}\n`))
      })
      const { port } = yield* start(server, local, ["--secret", "open sesame"])
      const bytes = randomBytes(4_000_000)
      const visitor = yield* visit(port)
      visitor.end(bytes)
      assert.strictEqual((yield* all(visitor)).toString(), `${hash(bytes)}\n`)
    }))

  it.live("a server that is killed and started again: the same port, at which bytes pass as before", () =>
    Effect.gen(function*() {
      const server = Effect.fnUntraced(function*(listen: number) {
        const process = yield* Process.startRuntime("node", ["test/cli/server.ts", String(listen)])
        const [, port] = yield* process.line(/^ready (\d+)$/)
        return { process, port: Number(port) }
      })
      const first = yield* server(0)
      const { port: local } = yield* service((socket) => socket.pipe(socket))
      const args = ["--max-reconnect-delay", "1", "--secret", "open sesame"]
      const { port, tool } = yield* start(first, local, args)
      yield* first.process.kill("SIGKILL")
      yield* first.process.exited()
      yield* server(first.port)
      yield* tool.line(new RegExp(`connected again: 127\\.0\\.0\\.1:${port} leads to`))
      assert.deepStrictEqual(tool.stdout, [`listening at 127.0.0.1:${port}`])
      const bytes = randomBytes(100_000)
      const visitor = yield* visit(port)
      visitor.end(bytes)
      assert.strictEqual(hash(yield* all(visitor)), hash(bytes))
    }))

  it.live("many at once, from the local service", () =>
    Effect.gen(function*() {
      const server = yield* relay()
      const bytes = randomBytes(500_000)
      const { port: local } = yield* service((socket) => socket.end(bytes))
      const { port } = yield* start(server, local)
      const received = yield* Effect.all(
        Array.from({ length: 20 }, () => Effect.flatMap(visit(port), all)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(received.map(hash)), new Set([hash(bytes)]))
    }))

  it.live("a local service that is not there: the visitor is hung up on, and a line says where to look", () =>
    Effect.gen(function*() {
      const server = yield* relay()
      const gone = yield* service(() => {})
      yield* Effect.promise(gone.stop)
      const { port, tool } = yield* start(server, gone.port)
      const visitor = yield* visit(port)
      visitor.on("error", () => {})
      yield* Effect.promise(() => new Promise((resolve) => visitor.once("close", resolve)))
      yield* tool.line(new RegExp(`WARN  .*127\\.0\\.0\\.1:${gone.port}.*ECONNREFUSED.* connection=1$`))
    }))

  it.live.each(["SIGINT", "SIGTERM"] as const)(
    "%s while bytes pass: ends within a second",
    (signal) =>
      Effect.gen(function*() {
        const server = yield* relay()
        const chunk = Buffer.alloc(64 * 1024)
        const { port: local } = yield* service((socket) => {
          const pour = () => {
            while (socket.writable && socket.write(chunk));
          }
          socket.on("drain", pour)
          pour()
        })
        const { port, tool } = yield* start(server, local)
        const [reads, doesNot] = [yield* visit(port), yield* visit(port)]
        doesNot.on("error", () => {})
        doesNot.pause()
        reads.on("error", () => {})
        let received = 0
        yield* Effect.promise(() =>
          new Promise<void>((resolve) =>
            reads.on("data", (bytes) => {
              received += bytes.length
              if (received > 10_000_000) resolve()
            })
          )
        )
        yield* tool.kill(signal)
        assert.deepStrictEqual(yield* tool.exited("1 second"), { code: null, signal })
        // All is closed: it was not cut off at the end of the second.
        assert.match(tool.stderr.at(-1) ?? "", /INFO  stopped$/)
        assert.notMatch(tool.lines.join("\n"), /FATAL|ERROR|^\s+at /m)
      })
  )
})
