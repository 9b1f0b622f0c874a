// `lifeline tunnel` against a real server of bore, on its standard port: see main.ts.
import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import * as Net from "node:net"
import * as Bore from "../../src/Bore.ts"
import * as Tool from "../cli/tool.ts"
import * as Relay from "../support/boreRelay.ts"
import * as Process from "../support/runtimes/Process.ts"
import { RuntimeError } from "../support/runtimes/Watch.ts"

const host = "127.0.0.1"
const range = ["--min-port", "20000", "--max-port", "20999"]

/** Refuses to run where somebody else has the port: what answers must be the server that was started. */
const portIsFree = Effect.callback<void, RuntimeError>((resume) => {
  const server = Net.createServer()
  server.once(
    "error",
    (cause) =>
      resume(Effect.fail(
        new RuntimeError({ problem: `port ${Bore.port} is not free, and bore's server has no other: ${cause.message}` })
      ))
  )
  server.listen(Bore.port, () => server.close(() => resume(Effect.void)))
})

const server = Effect.fnUntraced(function*(secret?: string) {
  yield* portIsFree
  const bore = yield* Process.start(
    yield* Effect.orDie(Config.String("LIFELINE_BORE")),
    ["server", ...range],
    secret === undefined ? {} : { env: { BORE_SECRET: secret } }
  )
  yield* bore.line(/server listening/)
  return bore
})

/** As `kill -9`; it is gone when this ends. */
const kill = (bore: Process.Process) => Effect.andThen(bore.kill("SIGKILL"), bore.exited())

const start = (local: number, args: ReadonlyArray<string> = [], secret?: string) =>
  Tool.start(
    ["tunnel", String(local), "--to", host, "--local-host", host, "--max-reconnect-delay", "1", ...args],
    secret === undefined ? {} : { env: { LIFELINE_SECRET: secret } }
  )

const service = (onConnection: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(Effect.promise(() => Relay.serve(0, onConnection)), ({ stop }) => Effect.promise(stop))

/** Sends back what comes, and ends when the other side does. */
const echo = service((socket) => socket.pipe(socket))

const all = async (socket: Net.Socket) => {
  const chunks: Array<Buffer> = []
  for await (const chunk of socket) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** What a visitor of the tunnel gets who sends this. */
const visit = (port: number, sent: Uint8Array) =>
  Effect.promise(async () => {
    const socket = Net.connect({ port, host, allowHalfOpen: true })
    await once(socket, "connect")
    socket.end(sent)
    return await all(socket)
  })

const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

const passes = Effect.fnUntraced(function*(port: number, size = 1_000_000) {
  const bytes = randomBytes(size)
  assert.strictEqual(hash(yield* visit(port, bytes)), hash(bytes))
})

describe("a real server of bore", () => {
  it.live.each([undefined, "open sesame"])(
    "bytes come back as they were sent; secret: %s",
    (secret) =>
      Effect.gen(function*() {
        yield* server(secret)
        const { port: local } = yield* echo
        const { port } = yield* Tool.listening(yield* start(local, [], secret))
        assert.isTrue(port >= 20_000 && port <= 20_999, `${port} is one of the server's`)
        yield* passes(port, 20_000_000)
        yield* Effect.all(Array.from({ length: 50 }, () => passes(port, 50_000)), { concurrency: "unbounded" })
      })
  )

  it.live("the end of one direction passes, and the other goes on", () =>
    Effect.gen(function*() {
      yield* server()
      // Has nothing to say until the question has ended.
      const { port: local } = yield* service((socket) => {
        const digest = createHash("sha256")
        socket.on("data", (bytes) => digest.update(bytes))
        socket.on("end", () => socket.end(digest.digest("hex")))
      })
      const { port } = yield* Tool.listening(yield* start(local))
      const bytes = randomBytes(3_000_000)
      assert.strictEqual((yield* visit(port, bytes)).toString(), hash(bytes))
    }))

  it.live.each<readonly [string, string | undefined, string | undefined, RegExp]>([
    ["the wrong secret", "open sesame", "another", /does not accept the secret \(it says: invalid secret\)/],
    ["no secret", "open sesame", undefined, /asks for a secret, and there is none/],
    ["a secret that nobody asks for", undefined, "open sesame", /does not ask for a secret/]
  ])("%s: exit code 3, after one attempt", ([, wanted, given, says]) =>
    Effect.gen(function*() {
      const bore = yield* server(wanted)
      const { code, stderr, stdout } = yield* Effect.flatMap(start(9, [], given), Tool.ran)
      assert.deepStrictEqual({ code, stdout }, { code: 3, stdout: "" })
      assert.match(stderr, says)
      yield* kill(bore)
      assert.strictEqual(bore.lines.filter((line) => line.includes("incoming connection")).length, 1)
    }))

  it.live("a given port; one that is in use, and one that it does not give: exit code 4", () =>
    Effect.gen(function*() {
      yield* server()
      const { port: local } = yield* echo
      const { port } = yield* Tool.listening(yield* start(local, ["--port", "20123"]))
      assert.strictEqual(port, 20_123)
      yield* passes(port)
      for (const [wanted, says] of [["20123", /does not give port 20123/], ["80", /does not give port 80/]] as const) {
        const { code, stderr, stdout } = yield* Effect.flatMap(start(local, ["--port", wanted]), Tool.ran)
        assert.deepStrictEqual({ code, stdout }, { code: 4, stdout: "" })
        assert.match(stderr, says)
      }
      yield* passes(port)
    }))

  it.live("killed and started again: the same port, at which bytes pass as before", () =>
    Effect.gen(function*() {
      const first = yield* server("open sesame")
      const { port: local } = yield* echo
      const tool = yield* start(local, [], "open sesame")
      const { port } = yield* Tool.listening(tool)
      yield* kill(first)
      yield* tool.line(/WARN .*next attempt in/)
      yield* server("open sesame")
      yield* tool.line(new RegExp(`connected again: ${host}:${port} leads to`))
      assert.deepStrictEqual(tool.stdout, [`listening at ${host}:${port}`])
      yield* passes(port)
    }))

  it.live("killed, with --no-reconnect: the exit code of a disconnect", () =>
    Effect.gen(function*() {
      const bore = yield* server()
      const tool = yield* Tool.start(["tunnel", "9", "--to", host, "--no-reconnect", "--exit-code-on-disconnect", "75"])
      yield* Tool.listening(tool)
      yield* kill(bore)
      assert.strictEqual((yield* tool.exited()).code, 75)
    }))

  it.live("ended by Ctrl-C: the port is free for the next one", () =>
    Effect.gen(function*() {
      yield* server()
      const { port: local } = yield* echo
      const first = yield* start(local, ["--port", "20321"])
      yield* Tool.listening(first)
      yield* first.kill("SIGINT")
      assert.strictEqual((yield* first.exited("1 second")).signal, "SIGINT")
      const { port } = yield* Tool.listening(yield* start(local, ["--port", "20321"]))
      yield* passes(port)
    }))
})
