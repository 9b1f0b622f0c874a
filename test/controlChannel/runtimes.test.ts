/**
 * The control connection of bore on every runtime: the same program as processes of Node, Deno and Bun and in workerd, over TCP,
 * and in Chromium, over a WebSocket. Each meets a network that swallows what passes, a server that is restarted, one that does
 * not know its secret, and nobody.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Net from "node:net"
import * as BoreServer from "../support/boreServer.ts"
import * as FaultProxy from "../support/faultProxy.ts"
import * as Browser from "../support/runtimes/Browser.ts"
import { bundle } from "../support/runtimes/Bundle.ts"
import * as Dist from "../support/runtimes/Dist.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Workers from "../support/runtimes/Workers.ts"
import * as WebSocketServer from "../support/webSocketServer.ts"
import type { Ports, Report } from "./program.ts"

const secret = "open sesame"

const connection = (n: number) => ({ Connection: `0000000${n}-0000-4000-8000-000000000000` })

/** That a line came, on whatever connection. */
const includes = (line: string) => (said: ReadonlyArray<string>) => said.some((one) => one.endsWith(` ${line}`))

/** What was said without the number of the connection, of lines that begin so. */
const only = ({ said }: BoreServer.Server, start: string) =>
  said.map((line) => line.replace(/^\d+: /, "")).filter((line) => line.startsWith(start))

/** A port on which nobody listens. */
const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

/** Runs the program somewhere, does to it what it is there to survive, and looks at what either side has to say of it. */
const survives = <E, R>(run: (ports: Ports) => Effect.Effect<string, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const server = yield* BoreServer.make({ secret })
    const proxy = yield* FaultProxy.make(server.port)
    const running = yield* Effect.forkScoped(run({ server: proxy.port, nobody: yield* freePort }))
    const happens = Effect.gen(function*() {
      const answers = Effect.fnUntraced(function*(server: BoreServer.Server, n: number) {
        server.say(connection(n))
        yield* server.until("it is accepted", includes(`{"Accept":"${connection(n).Connection}"}`))
      })
      yield* server.until("it has a port", includes("has 40000"))
      yield* answers(server, 1)

      // Nothing passes any more, and neither side learns of it: the server still holds the port.
      proxy.links[0]?.fault("both", "drop")
      yield* server.until("it was refused while the old one is held", includes("{\"Hello\":40000}"), "40 seconds")
      proxy.links[0]?.reset()
      yield* server.until(
        "it has the port again",
        (said) => said.filter((line) => line.endsWith("has 40000")).length > 1
      )
      yield* answers(server, 2)

      yield* server.stop
      const next = yield* BoreServer.make({ listen: server.port, secret })
      yield* next.until("it has the port from the next server", includes("has 40000"))
      yield* answers(next, 3)
      return next
    })
    // Should the program end before, there is no use in waiting.
    const next = yield* Effect.raceFirst(happens, Effect.andThen(Fiber.join(running), Effect.never))
    const report: Report = JSON.parse(yield* Fiber.join(running))
    assert.deepStrictEqual(report, {
      port: [40_000, 40_000],
      messages: [1, 2, 3].map((n) => JSON.stringify(connection(n))),
      lost: ["Transient.TimedOut", "Transient.Unreachable"],
      wrongSecret: "AuthFailed.Unauthorized",
      nobody: "Disconnected Transient.Unreachable"
    })
    assert.deepStrictEqual([...new Set(only(server, "{\"Hello\""))], ["{\"Hello\":0}", "{\"Hello\":40000}"])
    assert.deepStrictEqual(only(next, "{\"Hello\""), ["{\"Hello\":40000}"])
    // One connection for the port, one for the wrong secret, and no more.
    yield* next.until("every connection is closed", () => only(next, "closed").length === 2)
    assert.strictEqual(only(next, "connected").length, 2)
    assert.strictEqual(only(next, "{\"Authenticate\"").length, 2)
  }))

/** Each connection as a WebSocket, whose end is as sudden as that of the connection. */
const bridge = (target: number) =>
  WebSocketServer.make({
    open: (webSocket, raw) => {
      const socket = Net.connect({ port: target, host: "127.0.0.1", noDelay: true })
      socket.on("error", () => {})
      socket.on("data", (bytes) => webSocket.send(bytes))
      socket.on("close", () => raw.destroy())
      webSocket.on("message", (data) => {
        if (data instanceof Buffer) socket.write(data)
      })
      webSocket.on("close", () => socket.destroy())
    }
  })

beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

describe.concurrent("ControlChannel on every runtime", () => {
  it.live.each<readonly [Process.Runtime, ReadonlyArray<string>]>([
    ["node", []],
    ["deno", ["run", "--allow-net=127.0.0.1", "--allow-env"]],
    ["bun", ["run"]]
  ])(
    "%s: over TCP; nothing is left that keeps the process",
    ([runtime, args]) =>
      survives(({ nobody, server }) =>
        Effect.gen(function*() {
          const process = yield* Process.startRuntime(runtime, [
            ...args,
            "test/controlChannel/main.ts",
            String(server),
            String(nobody)
          ])
          const [, report = ""] = yield* process.line(/^report (.*)$/, "50 seconds")
          assert.deepStrictEqual(yield* process.exited(), { code: 0, signal: null })
          return report
        })
      ),
    90_000
  )

  it.live(
    "workerd: over TCP, by connect() of cloudflare:sockets",
    () =>
      survives(({ nobody, server }) =>
        Effect.gen(function*() {
          const miniflare = yield* Workers.run("test/controlChannel/worker.ts")
          return yield* Effect.promise(async () => {
            const { origin } = await miniflare.ready
            return await (await fetch(`${origin}/?server=${server}&nobody=${nobody}`)).text()
          })
        })
      ),
    90_000
  )

  it.live("Chromium: over a WebSocket", () =>
    survives(({ nobody, server }) =>
      Effect.gen(function*() {
        const { url } = yield* bridge(server)
        const { page, problems } = yield* Browser.open({ width: 400, height: 300 })
        const code = yield* bundle("test/controlChannel/page.ts")
        return yield* Effect.promise(async () => {
          // A page of that origin: a browser may ask its user before another one may reach loopback.
          await page.goto(url.replace("ws:", "http:"))
          await page.evaluate((ports) => Object.assign(globalThis, { ports }), {
            server: Number(new URL(url).port),
            nobody
          })
          await page.addScriptTag({ type: "module", content: code })
          const handle = await page.waitForFunction(
            () => (globalThis as { readonly report?: string }).report,
            undefined,
            { timeout: 60_000 }
          )
          assert.deepStrictEqual(problems, [])
          return String(await handle.jsonValue())
        })
      })
    ), 90_000)
})
