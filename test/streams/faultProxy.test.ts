/** The proxy that other tests break connections with: each fault does what it says, and closing leaves nothing. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as FaultProxy from "../support/faultProxy.ts"
import * as Leaks from "../support/leaks.ts"
import * as Watch from "../support/runtimes/Watch.ts"

/** A server that keeps what came and sends it back in capitals. A client that says "bye" is hung up on. */
const echo = Effect.acquireRelease(
  Effect.callback<{ readonly server: Net.Server; readonly port: number; readonly seen: Watch.Watch<string> }>(
    (resume) => {
      const seen = Watch.make<string>((line) => line)
      const server = Net.createServer((socket) => {
        socket.on("error", (error) => seen.add(`error ${"code" in error ? String(error.code) : ""}`))
        socket.on("close", () => seen.add("closed"))
        socket.on("end", () => seen.add("end"))
        socket.on("data", (bytes) => {
          seen.add(String(bytes))
          if (String(bytes) === "bye") socket.end("BYE")
          else socket.write(String(bytes).toUpperCase())
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({ server, port, seen }))
      })
    }
  ),
  ({ server }) =>
    Effect.callback<void>((resume) => {
      server.close(() => resume(Effect.void))
    })
)

const connect = (port: number) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => Net.connect(port, "127.0.0.1")),
      (socket) =>
        Effect.callback<void>((resume) => {
          if (socket.closed) return resume(Effect.void)
          socket.on("close", () => resume(Effect.void))
          socket.destroy()
        })
    ),
    (socket) => {
      const seen = Watch.make<string>((line) => line)
      let text = ""
      socket.on("data", (bytes) => seen.add(text += String(bytes)))
      socket.on("error", (error) => seen.add(`error ${"code" in error ? String(error.code) : ""}`))
      socket.on("end", () => seen.add("end"))
      return {
        seen: seen.seen,
        write: (bytes: string) => Effect.sync(() => void socket.write(bytes)),
        end: Effect.sync(() => void socket.end()),
        until: (line: string) => seen.until(line, (lines) => lines.includes(line) ? line : undefined),
        ended: seen.until("an end", (lines) => lines.find((line) => line === "end" || line.startsWith("error")))
      }
    }
  )

/** Long enough for what passes at once to have passed. Only for what must not come. */
const moment = Effect.sleep("60 millis")

/** A client, the proxy, and the server behind it. */
const setting = (plan?: (link: FaultProxy.Link) => void) =>
  Effect.gen(function*() {
    const server = yield* echo
    const proxy = yield* FaultProxy.make(server.port, plan)
    const client = yield* connect(proxy.port)
    const link = yield* proxy.until("a link", ([link]) => link)
    const arrives = (line: string) => server.seen.until(line, (lines) => lines.includes(line) ? line : undefined)
    return { server: { seen: server.seen.seen, until: arrives }, proxy, client, link }
  })

const clean = <E>(test: Effect.Effect<void, E, Effect.Services<ReturnType<typeof setting>>>) =>
  Effect.gen(function*() {
    const left = yield* Leaks.resources
    yield* Effect.scoped(test)
    assert.deepStrictEqual(yield* left, [], "resources")
  })

describe("the fault proxy", () => {
  it.live("passes everything, in both directions, and an orderly end", () =>
    clean(Effect.gen(function*() {
      const { client, link, proxy, server } = yield* setting()
      yield* client.write("hello")
      yield* client.until("HELLO")
      yield* client.write("bye")
      yield* client.until("end")
      yield* client.end
      yield* server.until("closed")
      yield* proxy.until("no connection", () => proxy.open() === 0 || undefined)
      assert.strictEqual(link.sent(), "hellobye")
      assert.strictEqual(link.passed("up"), 8)
      assert.strictEqual(link.passed("down"), 8)
      assert.deepStrictEqual(link.isOpen(), { client: false, server: false })
      assert.notInclude(server.seen.join(), "error")
    })))

  it.live("a megabyte, and more than the buffers take while it is held back", () =>
    clean(Effect.gen(function*() {
      const { client, link } = yield* setting()
      const text = "x".repeat(1_000_000)
      link.fault("down", "hold")
      yield* client.write(text)
      yield* moment
      assert.deepStrictEqual(client.seen, [])
      link.fault("down", "pass")
      yield* client.until(text.toUpperCase())
    })))

  it.live("delays, the end too, and keeps the order", () =>
    clean(Effect.gen(function*() {
      const { client, link } = yield* setting(({ fault }) => fault("down", { delay: 120 }))
      yield* client.write("a")
      yield* moment
      assert.deepStrictEqual(client.seen, [])
      yield* client.write("bye")
      yield* client.until("end")
      assert.deepStrictEqual(client.seen.slice(-2), ["ABYE", "end"])
      assert.strictEqual(link.passed("down"), 4)
    })))

  it.live.each(["up", "down"] as const)("drops what goes %s, and no more", (direction) =>
    clean(Effect.gen(function*() {
      const { client, link, server } = yield* setting()
      link.fault(direction, "drop")
      yield* client.write("a")
      if (direction === "down") yield* server.until("a")
      yield* moment
      assert.deepStrictEqual(client.seen, [])
      if (direction === "up") assert.deepStrictEqual(server.seen, [])
      link.fault(direction, "pass")
      yield* client.write("b")
      yield* client.until("B")
    })))

  it.live("half-open: neither side learns that the other went", () =>
    clean(Effect.gen(function*() {
      const { client, link, proxy, server } = yield* setting()
      yield* client.write("a")
      yield* client.until("A")
      link.fault("both", "drop")
      yield* client.write("bye")
      yield* client.end
      yield* moment
      assert.deepStrictEqual(server.seen, ["a"])
      assert.deepStrictEqual(client.seen, ["A"])
      assert.strictEqual(proxy.open(), 2)
    })))

  it.live.each(["client", "server"] as const)("resets: the %s sees it", (side) =>
    clean(Effect.gen(function*() {
      const { client, link, proxy, server } = yield* setting()
      yield* client.write("a")
      yield* client.until("A")
      link.reset()
      yield* (side === "client" ? client : server).until("error ECONNRESET")
      assert.strictEqual(proxy.open(), 0)
    })))

  it.live("closes: both sides see an orderly end", () =>
    clean(Effect.gen(function*() {
      const { client, link, server } = yield* setting()
      yield* client.write("a")
      yield* client.until("A")
      link.close()
      yield* client.until("end")
      yield* server.until("end")
      assert.notInclude([...client.seen, ...server.seen].join(), "error")
    })))

  it.live.each([["reset", "error ECONNRESET"], ["close", "end"]] as const)(
    "after so many bytes: %s",
    ([then, ending]) =>
      clean(Effect.gen(function*() {
        const { client } = yield* setting(({ fault }) => fault("down", { after: 5, then }))
        yield* client.write("abc")
        yield* client.until("ABC")
        yield* client.write("defg")
        yield* client.until(ending)
        assert.include(client.seen, "ABCDE")
        assert.notInclude(client.seen.join(), "F")
      }))
  )

  it.live("after so many bytes: drops the rest; or holds it, and lets it go later", () =>
    clean(Effect.gen(function*() {
      const { client, link } = yield* setting(({ fault }) => fault("down", { after: 2, then: "hold" }))
      yield* client.write("abc")
      yield* client.until("AB")
      yield* moment
      assert.deepStrictEqual(client.seen, ["AB"])
      link.fault("down", { after: 4, then: "drop" })
      yield* client.until("ABC")
      yield* client.write("def")
      yield* client.until("ABCD")
      yield* moment
      assert.strictEqual(link.passed("down"), 4)
      link.fault("down", "pass")
      yield* client.write("g")
      yield* client.until("ABCDG")
    })))

  it.live("a reset by the server is a reset for the client; so is a server that is not there", () =>
    clean(Effect.gen(function*() {
      const rude = yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const server = Net.createServer((socket) => {
            socket.on("error", () => {})
            socket.once("data", () => socket.resetAndDestroy())
          })
          server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) =>
          Effect.callback<void>((resume) => {
            server.close(() => resume(Effect.void))
          })
      )
      const address = rude.address()
      for (const target of [typeof address === "object" && address !== null ? address.port : 0, 1]) {
        const proxy = yield* FaultProxy.make(target)
        const client = yield* connect(proxy.port)
        yield* client.write("a")
        yield* client.until("error ECONNRESET")
      }
    })))

  it.live.each<readonly [string, FaultProxy.Fault]>([
    ["passes", "pass"],
    ["drops", "drop"],
    ["holds", "hold"],
    ["delays", { delay: 60_000 }]
  ])("closing ends what is open, also a link that %s", ([, fault]) =>
    clean(Effect.gen(function*() {
      const server = yield* echo
      const outer = yield* Effect.scope
      const client = yield* Effect.scoped(Effect.gen(function*() {
        const proxy = yield* FaultProxy.make(server.port, (link) => link.fault("both", fault))
        const client = yield* Scope.provide(connect(proxy.port), outer)
        yield* client.write("a")
        yield* proxy.until("a byte", ([link]) => link?.sent() === "a" || fault === "hold" || undefined)
        return client
      }))
      yield* client.ended
    })))
})
