// The tunnel in workerd, over connect(): bytes, half-close both ways, backpressure.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { randomBytes } from "node:crypto"
import type * as Net from "node:net"
import * as Workers from "../support/runtimes/Workers.ts"
import { all, echo, makeRelay, send, serve, sha, until, visit } from "../support/tunnel/sockets.ts"

const secret = "open sesame"

describe("CloudflareDialer", () => {
  it.live("carries a tunnel in workerd", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay({ secret })
      let behave = echo
      const service = yield* serve((socket) => behave(socket))
      const miniflare = yield* Workers.run("test/cloudflare/tunnelWorker.ts")
      const { origin } = yield* Effect.promise(() => miniflare.ready)
      const answer = yield* Effect.forkChild(
        Effect.promise(async () => {
          const query = new URLSearchParams({ server: String(relay.port), local: String(service.port), secret })
          return (await fetch(`${origin}/?${query}`)).json()
        }),
        { startImmediately: true }
      )
      yield* until(() => relay.given() !== undefined)
      const port = relay.given() ?? 0

      const bytes = randomBytes(2_000_001)
      const first = visit(port)
      send(first, bytes)
      assert.strictEqual(sha(yield* Effect.promise(() => all(first))), sha(bytes))

      const rest = Promise.withResolvers<Buffer>()
      behave = (socket) => {
        socket.end("that is all")
        void all(socket).then(rest.resolve)
      }
      const second = visit(port)
      assert.strictEqual(String(yield* Effect.promise(() => all(second))), "that is all")
      second.end("and this")
      assert.strictEqual(String(yield* Effect.promise(() => rest.promise)), "and this")

      const slow = Promise.withResolvers<Net.Socket>()
      behave = (socket) => slow.resolve(socket.pause())
      const many = randomBytes(64 << 20)
      const third = visit(port)
      send(third, many)
      const served = yield* Effect.promise(() => slow.promise)
      yield* Effect.sleep("1 second")
      assert.isAbove(third.writableLength, 0)
      assert.strictEqual(sha(yield* Effect.promise(() => all(served))), sha(many))
      served.end()

      assert.deepStrictEqual(yield* Fiber.join(answer), {
        open: 0,
        opened: 3,
        closed: 3,
        failed: 0,
        bytesIn: bytes.length + 8 + many.length,
        bytesOut: bytes.length + 11
      })
    }), 90_000)
})
