// The tunnel on Deno and Bun, by their `node:net`: bytes, half-close, backpressure and resets are as on Node, where
// Tunnel.server.test.ts has all of it.
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import type * as Net from "node:net"
import * as Dist from "./support/runtimes/Dist.ts"
import * as Process from "./support/runtimes/Process.ts"
import { all, echo, fate, makeRelay, send, serve, sha, until, visit } from "./support/tunnel/sockets.ts"

const secret = "open sesame"

beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

describe("Tunnel on other runtimes", () => {
  it.live.each<readonly [Process.Runtime, ReadonlyArray<string>]>([
    ["deno", ["run", "--allow-net=127.0.0.1", "--allow-env"]],
    ["bun", ["run"]]
  ])("%s", ([runtime, args]) =>
    Effect.gen(function*() {
      const relay = yield* makeRelay({ secret })
      const served: Array<Net.Socket> = []
      let behave = echo
      const service = yield* serve((socket) => {
        served.push(socket)
        behave(socket)
      })
      const program = yield* Process.startRuntime(runtime, [
        ...args,
        "test/support/tunnel/main.ts",
        String(relay.port),
        String(service.port),
        secret
      ])
      const [, given] = yield* program.line(/^listening at (\d+)$/, "50 seconds")
      const port = Number(given)

      // Bytes, and the visitor ends first.
      const bytes = randomBytes(8_000_001)
      const first = visit(port)
      send(first, bytes)
      assert.strictEqual(sha(yield* Effect.promise(() => all(first))), sha(bytes))
      yield* program.line(/^1 Closed ok$/)

      // The service ends first.
      const rest = Promise.withResolvers<Buffer>()
      behave = (socket) => {
        socket.end("that is all")
        void all(socket).then(rest.resolve)
      }
      const second = visit(port)
      assert.strictEqual(String(yield* Effect.promise(() => all(second))), "that is all")
      second.end("and this")
      assert.strictEqual(String(yield* Effect.promise(() => rest.promise)), "and this")
      yield* program.line(/^2 Closed ok$/)

      // Who does not read holds up who sends.
      behave = (socket) => void socket.pause()
      const many = randomBytes(96 << 20)
      const third = visit(port)
      let sent = 0
      const push = (): void => {
        while (sent < many.length) {
          const chunk = many.subarray(sent, sent + (1 << 20))
          sent += chunk.length
          if (!third.write(chunk)) return void third.once("drain", push)
        }
        third.end()
      }
      push()
      yield* program.line(/^3 Opened ok$/)
      for (let n = 0, last = -1; n < 100 && last !== sent; n++) {
        last = sent
        yield* Effect.sleep("500 millis")
      }
      assert.isBelow(sent, many.length / 2)
      const slow = served[2]
      assert(slow !== undefined)
      assert.strictEqual(sha(yield* Effect.promise(() => all(slow))), sha(many))
      slow.end()
      yield* program.line(/^3 Closed ok$/)

      // Resets.
      behave = echo
      for (const who of ["visitor", "service"]) {
        const visitor = visit(port)
        visitor.write("x")
        yield* Effect.promise(() => once(visitor, "data"))
        const socket = served.at(-1)
        assert(socket !== undefined)
        const [one, other] = who === "visitor" ? [visitor, socket] : [socket, visitor]
        one.resetAndDestroy()
        assert.strictEqual(yield* Effect.promise(() => fate(other)), "ECONNRESET")
      }
      yield* program.line(/^5 Closed Transient$/)
      assert.strictEqual(relay.open().clients, 1)
      yield* program.kill("SIGKILL")
      yield* until(() => relay.open().clients === 0)
    }), 120_000)
})
