/**
 * Following events on every runtime: processes of Node, Deno and Bun that run the built package, workerd, and Chromium. Each
 * against a server that resets, falls silent, refuses, redirects and compresses, and that looks at what it is asked.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import * as Zlib from "node:zlib"
import type { Report } from "../support/eventSource/program.ts"
import * as Browser from "../support/runtimes/Browser.ts"
import { bundle } from "../support/runtimes/Bundle.ts"
import * as Dist from "../support/runtimes/Dist.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Workers from "../support/runtimes/Workers.ts"

interface Asked {
  readonly path: string
  /** From 0, of those for this path. */
  readonly n: number
  readonly headers: Http.IncomingHttpHeaders
  /** Whether the client was gone before the answer was whole. */
  left: boolean
}

const feed = ["1 a", "2 ü€𝄞", "3 c", "4 d"]

const event = (entry: string): string => `id: ${entry.split(" ")[0]}\ndata: ${entry.split(" ")[1]}\n\n`

const type = { "content-type": "text/event-stream" }

const server = Effect.gen(function*() {
  const asked: Array<Asked> = []
  let breakOff = () => {}
  let left = () => {}

  const answer = (path: string, n: number, headers: Http.IncomingHttpHeaders, response: Http.ServerResponse) => {
    switch (path) {
      case "":
        return response.writeHead(200, { "content-type": "text/html" }).end("<title>a page of this origin</title>")
      case "break":
        breakOff()
        return response.writeHead(200, { "content-type": "text/plain" }).end()
      case "left": {
        // Answered once the client is gone from all of these, or not soon.
        const open = () =>
          [["silent", 0], ["unanswered", 0], ["resumed", 1], ["there", 0], ["endless", 0]].filter(([path, n]) =>
            asked.some((one) => one.path === path && one.n === n && !one.left)
          )
        const say = () => {
          clearTimeout(timer)
          left = () => {}
          response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(open()))
        }
        const timer = setTimeout(say, 5000)
        left = () => {
          if (open().length === 0) say()
        }
        return left()
      }
      case "resumed": {
        const after = Number(headers["last-event-id"] ?? 0)
        response.writeHead(200, type)
        if (n > 0) return response.write(feed.slice(after).map(event).join(""))
        breakOff = () => {
          response.write(": the next is not whole\nid: 3\ndata: c\n", () => response.socket?.resetAndDestroy())
        }
        return response.write(feed.slice(0, 2).map(event).join(""))
      }
      case "silent":
        return response.writeHead(200, type).write(event(n === 0 ? "1 a" : "2 b"))
      case "unanswered":
        return n === 0 ? undefined : response.writeHead(200, type).write(event("1 a"))
      case "stopped":
        return n === 0 ? response.writeHead(200, type).end(event("1 a")) : response.writeHead(204).end()
      case "unauthorized":
        return response.writeHead(401).end()
      case "gzip":
        return response.writeHead(200, { ...type, "content-encoding": "gzip" }).end(Zlib.gzipSync(event("1 z")))
      case "moved":
        return response.writeHead(307, { location: "/there" }).end()
      case "there":
        return response.writeHead(200, type).write(event("1 there"))
      case "endless":
        return response.writeHead(200, type).write(event("1 a"))
      default:
        return response.writeHead(200, { "content-type": "text/html" }).end("<p>Sign in</p>")
    }
  }

  const { port } = yield* Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly server: Http.Server }>((resume) => {
      const server = Http.createServer(({ headers, url = "/" }, response) => {
        const path = url.slice(1)
        const one: Asked = { path, n: asked.filter((other) => other.path === path).length, headers, left: false }
        asked.push(one)
        response.on("close", () => {
          if (response.writableFinished) return
          one.left = true
          left()
        })
        answer(path, one.n, headers, response)
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        resume(Effect.succeed({ port, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  return {
    url: `http://127.0.0.1:${port}`,
    of: (path: string) => asked.filter((one) => one.path === path)
  }
})

const expected: Report = {
  followed: {
    resumed: { events: feed, ended: "end" },
    silent: { events: ["1 a", "2 b"], ended: "end" },
    unanswered: { events: ["1 a"], ended: "end" },
    stopped: { events: ["1 a"], ended: "end" },
    unauthorized: { events: [], ended: "AuthFailed.Unauthorized" },
    page: { events: [], ended: "Refused.MalformedResponse" },
    gzip: { events: ["1 z"], ended: "end" },
    moved: { events: ["1 there"], ended: "end" },
    endless: { events: ["1 a"], ended: "end" }
  },
  stillOpen: []
}

/** Runs the program somewhere, and looks at what it says and at what the server saw. */
const follows = <E, R>(run: (url: string) => Effect.Effect<string, E, R>) =>
  Effect.scoped(Effect.gen(function*() {
    const { of, url } = yield* server
    const report = yield* run(url)
    assert.deepStrictEqual(JSON.parse(report), expected)

    const ids = (path: string) => of(path).map(({ headers }) => headers["last-event-id"])
    assert.deepStrictEqual(ids("resumed"), [undefined, "2"])
    assert.deepStrictEqual(ids("silent"), [undefined, "1"])
    assert.deepStrictEqual(ids("unanswered"), [undefined, undefined])
    assert.deepStrictEqual(ids("stopped"), [undefined, "1"])
    // Final: asked once.
    assert.deepStrictEqual(ids("unauthorized"), [undefined])
    assert.deepStrictEqual(ids("page"), [undefined])
    for (const path of ["resumed", "stopped", "unauthorized", "there"]) {
      for (const { headers } of of(path)) {
        assert.strictEqual(headers.accept, "text/event-stream")
        assert.strictEqual(headers["x-api-key"], "k1")
        assert.notProperty(headers, "traceparent")
      }
    }
  }))

beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

describe.concurrent("EventSource on every runtime", () => {
  it.live.each<readonly [Process.Runtime, ReadonlyArray<string>]>([
    ["node", []],
    ["deno", ["run", "--allow-net=127.0.0.1", "--allow-env"]],
    ["bun", ["run"]]
  ])("%s", ([runtime, args]) =>
    follows((url) =>
      Effect.gen(function*() {
        const process = yield* Process.startRuntime(runtime, [...args, "test/support/eventSource/main.ts", url])
        const [, report = ""] = yield* process.line(/^report (.*)$/, "30 seconds")
        return report
      })
    ), 60_000)

  it.live("workerd", () =>
    follows((url) =>
      Effect.gen(function*() {
        const miniflare = yield* Workers.run("test/support/eventSource/worker.ts")
        return yield* Effect.promise(async () => {
          const { origin } = await miniflare.ready
          return await (await fetch(`${origin}/?url=${encodeURIComponent(url)}`)).text()
        })
      })
    ), 60_000)

  it.live("Chromium", () =>
    follows((url) =>
      Effect.gen(function*() {
        const { page, problems } = yield* Browser.open({ width: 400, height: 300 })
        const code = yield* bundle("test/support/eventSource/main.ts")
        return yield* Effect.promise(async () => {
          // A page of that origin: a browser may ask its user before another one may reach loopback.
          await page.goto(url)
          await page.evaluate((url) => Object.assign(globalThis, { url }), url)
          await page.addScriptTag({ type: "module", content: code })
          const handle = await page.waitForFunction(() => (globalThis as { readonly report?: string }).report)
          assert.deepStrictEqual(problems, [])
          return String(await handle.jsonValue())
        })
      })
    ), 60_000)
})
