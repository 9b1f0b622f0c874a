// The WebSocket on the runtimes that have one of their own: Deno, Bun, Chromium, workerd.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Browser from "./support/runtimes/Browser.ts"
import { bundle } from "./support/runtimes/Bundle.ts"
import * as Process from "./support/runtimes/Process.ts"
import * as Workers from "./support/runtimes/Workers.ts"
import type { Report } from "./support/webSocket/program.ts"
import * as Server from "./support/webSocketServer.ts"

const query = (url: string | undefined, name: string) => new URL(url ?? "/", "http://a").searchParams.get(name)

const server = Server.make({
  upgrade: (request, socket) => {
    if (query(request.url, "refuse") === null) return false
    socket.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
    return true
  },
  open: (socket, raw, request) => {
    const after = query(request.url, "after")
    if (after !== null) {
      const messages = ["1 a", "2 b", "3 c"].slice(Number(after))
      if (messages.length < 3) return messages.forEach((message) => socket.send(message))
      messages.slice(0, 2).forEach((message) => socket.send(message))
      return void socket.on("message", () => raw.resetAndDestroy())
    }
    const code = query(request.url, "close")
    if (code !== null) socket.close(Number(code))
    else socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
  }
})

const bundled = Effect.gen(function*() {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-websocket-"))),
    (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
  )
  const file = Path.join(directory, "main.mjs")
  yield* Effect.flatMap(
    bundle("test/support/webSocket/main.ts"),
    (code) => Effect.promise(() => Fs.writeFile(file, code))
  )
  return file
})

const everywhere = {
  echoed: ["first", "größe", "0,255,1"],
  protocol: "v1",
  survived: ["1 a", "2 b", "3 c"],
  closed: "AuthFailed.Forbidden",
  away: "Transient.Unreachable"
}

/** Which tickets arrived, and after what was resumed. */
const asked = ({ requests }: Server.Server, name: string) =>
  requests.map(({ url }) => query(url, name)).filter((value) => value !== null)

const arrived = (server: Server.Server) => {
  assert.deepStrictEqual(asked(server, "ticket"), ["t1"])
  assert.deepStrictEqual(asked(server, "after"), ["0", "2"])
}

const withKey = ({ requests }: Server.Server) => requests.filter(({ headers }) => headers["x-api-key"] === "k1").length

describe("WebSocket elsewhere", () => {
  for (
    const [runtime, args] of [["deno", ["run", "--no-config", "--allow-net=127.0.0.1"]], ["bun", ["run"]]] as const
  ) {
    it.live(`${runtime}: with headers`, () =>
      Effect.gen(function*() {
        const running = yield* server
        const process = yield* Process.startRuntime(runtime, [...args, yield* bundled, running.url])
        const [, report = ""] = yield* process.line(/^report (.*)$/)
        assert.deepStrictEqual(JSON.parse(report), {
          ...everywhere,
          withHeaders: "Transient.Unavailable",
          refused: "Transient.Unreachable"
        })
        assert.strictEqual(withKey(running), 1)
        arrived(running)
      }).pipe(Effect.scoped), 60_000)
  }

  it.live("Chromium: a ticket, a subprotocol, a first frame; headers are refused", () =>
    Effect.gen(function*() {
      const running = yield* server
      const { page } = yield* Browser.open({ width: 400, height: 300 })
      const code = yield* bundle("test/support/webSocket/main.ts")
      const report = yield* Effect.promise(async () => {
        // A page of that origin: a browser may ask its user before another one may reach loopback.
        await page.goto(running.url.replace("ws:", "http:"))
        await page.evaluate((url) => Object.assign(globalThis, { url }), running.url)
        await page.addScriptTag({ type: "module", content: code })
        const handle = await page.waitForFunction(() => (globalThis as { readonly report?: string }).report)
        return String(await handle.jsonValue())
      })
      assert.deepStrictEqual(JSON.parse(report), {
        ...everywhere,
        withHeaders: "Refused.Unsupported",
        refused: "Transient.Unreachable"
      })
      assert.strictEqual(withKey(running), 0)
      arrived(running)
    }).pipe(Effect.scoped), 60_000)

  it.live("workerd: with headers, and it knows why it was refused", () =>
    Effect.gen(function*() {
      const running = yield* server
      const miniflare = yield* Workers.run("test/support/webSocket/worker.ts")
      const report = yield* Effect.promise(async (): Promise<Report> => {
        const { origin } = await miniflare.ready
        const response = await fetch(`${origin}/?url=${encodeURIComponent(running.url)}`)
        return JSON.parse(await response.text())
      })
      assert.deepStrictEqual(report, {
        ...everywhere,
        withHeaders: "Transient.Unavailable",
        refused: "AuthFailed.Unauthorized"
      })
      assert.strictEqual(withKey(running), 1)
      arrived(running)
    }).pipe(Effect.scoped), 60_000)
})
