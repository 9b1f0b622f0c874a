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
import * as FaultProxy from "../support/faultProxy.ts"
import * as Process from "../support/runtimes/Process.ts"
import { RuntimeError } from "../support/runtimes/Watch.ts"

const host = "127.0.0.1"
const range = ["--min-port", "20000", "--max-port", "20999"]

const program = Effect.orDie(Config.String("LIFELINE_BORE"))

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
    yield* program,
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
    [
      "tunnel",
      String(local),
      ...(args.includes("--to") ? [] : ["--to", host]),
      "--local-host",
      host,
      "--max-reconnect-delay",
      "1",
      ...args
    ],
    secret === undefined ? {} : { env: { LIFELINE_SECRET: secret } }
  )

const service = (onConnection: (socket: Net.Socket) => void) =>
  Effect.acquireRelease(Effect.promise(() => Relay.serve(0, onConnection)), ({ stop }) => Effect.promise(stop))

/** Sends back what comes, and ends when the other side does. */
const echo = service((socket) => socket.pipe(socket))

const connect = async (port: number, signal: AbortSignal) => {
  const socket = Net.connect({ port, host, allowHalfOpen: true, signal })
  await once(socket, "connect")
  return socket
}

/** What a visitor of the tunnel gets who sends this, and leaves when as much has come back. */
const visit = (port: number, sent: Uint8Array) =>
  Effect.promise(async (signal) => {
    const socket = await connect(port, signal)
    socket.write(sent)
    const chunks: Array<Buffer> = []
    let length = 0
    for await (const chunk of socket) {
      chunks.push(chunk)
      length += chunk.length
      if (length >= sent.length) break
    }
    socket.destroy()
    return Buffer.concat(chunks)
  })

/** What a visitor gets who sends this, says that it is all, and waits for the end. */
const ask = (port: number, sent: Uint8Array) =>
  Effect.promise(async (signal) => {
    const socket = await connect(port, signal)
    socket.end(sent)
    const chunks: Array<Buffer> = []
    try {
      for await (const chunk of socket) chunks.push(chunk)
    } catch {
      return "reset"
    }
    return Buffer.concat(chunks).toString()
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

  it.live("the end of one direction passes, and the other goes on, as with bore's own client", () =>
    Effect.gen(function*() {
      yield* server()
      // Has nothing to say until the question has ended.
      const { port: local } = yield* service((socket) => {
        const digest = createHash("sha256")
        socket.on("data", (bytes) => digest.update(bytes))
        socket.on("end", () => socket.end(digest.digest("hex")))
      })
      const bytes = randomBytes(3_000_000)
      const own = yield* Process.start(yield* program, ["local", String(local), "--to", host, "--port", "20456"])
      yield* own.line(/listening at/)
      const expected = yield* ask(20_456, bytes)
      const { port } = yield* Tool.listening(yield* start(local))
      const answer = yield* ask(port, bytes)
      // Servers before 0.6 end both directions with the first.
      if (expected !== hash(bytes)) return console.log("this server of bore does not pass the end of one direction on")
      assert.strictEqual(answer, expected)
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

  it.live("a network that swallows all: noticed; the server still holds the port, and is asked until it does not", () =>
    Effect.gen(function*() {
      const first = yield* server()
      const proxy = yield* FaultProxy.make(Bore.port)
      const { port: local } = yield* echo
      const tool = yield* start(local, ["--to", `${host}:${proxy.port}`])
      const { port } = yield* Tool.listening(tool)
      for (const link of proxy.links) link.fault("both", "drop")
      yield* tool.line(/no complete answer within 8s/, "10 seconds")
      yield* proxy.until("it is asked again", (links) => links.length >= 3 ? true : undefined)
      yield* kill(first)
      yield* server()
      yield* tool.line(new RegExp(`connected again: ${host}:${port} leads to`))
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

  it.live("ended by Ctrl-C: the port is free for the next one, as soon as the server has noticed", () =>
    Effect.gen(function*() {
      const bore = yield* server()
      const { port: local } = yield* echo
      const first = yield* start(local, ["--port", "20321"])
      yield* Tool.listening(first)
      yield* first.kill("SIGINT")
      assert.strictEqual((yield* first.exited("1 second")).signal, "SIGINT")
      // It finds out with a heartbeat or two.
      yield* bore.line(/connection exited/)
      const { port } = yield* Tool.listening(yield* start(local, ["--port", "20321"]))
      yield* passes(port)
    }))
})
