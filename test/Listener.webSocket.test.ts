// A listener over real WebSockets on loopback, by Node's own and by ws: subscribes, survives a drain and a cut, unsubscribes.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Listener from "effect-lifeline/Listener"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { fiberCounter } from "./support/leaks.ts"
import * as Server from "./support/webSocketServer.ts"

const platforms = [["Node's WebSocket", Layer.empty], ["ws", NodeWebSocket.layer]] as const

for (const [platform, layer] of platforms) {
  describe(`Listener over ${platform}`, () => {
    it.live("each key on each connection: after 1012, 1000, a cut; and no longer than its scope", () => {
      const { left, watch } = fiberCounter()
      return Effect.andThen(
        watch(Effect.scoped(Effect.gen(function*() {
          /** What the server received, with the number of the connection. */
          const received = yield* Queue.unbounded<string>()
          const ends: Array<(how: number | "cut") => void> = []
          const server = yield* Server.make({
            open: (socket, raw, _, n) => {
              ends.push((how) => how === "cut" ? raw.destroy() : socket.close(how))
              socket.on("message", (data) => {
                const message = String(data)
                Queue.offerUnsafe(received, `${n} ${message}`)
                if (message.startsWith("subscribe ")) socket.send(`${message.slice(10)} on ${n}`)
              })
            }
          })
          const listener = yield* Listener.make({
            connect: WebSocket.open({ url: server.url, closeWithin: 200 }),
            route: (message: string) => message.split(" ")[0],
            subscribe: (key: string) => `subscribe ${key}`,
            unsubscribe: (key: string) => `unsubscribe ${key}`,
            policy: Backoff.make({ base: 20, cap: 20, floor: 1 })
          })
          const scope = yield* Scope.make()
          const a = yield* listener.subscribe("a").pipe(Scope.provide(scope))
          const read = yield* Effect.forkChild(Stream.runCollect(Stream.take(a.messages, 4)))
          assert.strictEqual(yield* Queue.take(received), "1 subscribe a")
          for (const [n, how] of ([1012, 1000, "cut"] as const).entries()) {
            ends[n]?.(how)
            assert.strictEqual(yield* Queue.take(received), `${n + 2} subscribe a`)
          }
          assert.deepStrictEqual(yield* Fiber.join(read), ["a on 1", "a on 2", "a on 3", "a on 4"])
          assert.strictEqual(yield* listener.await("b"), "b on 4")
          assert.strictEqual(yield* Queue.take(received), "4 subscribe b")
          assert.strictEqual(yield* Queue.take(received), "4 unsubscribe b")
          yield* listener.send("something else")
          assert.strictEqual(yield* Queue.take(received), "4 something else")
          const error = yield* Effect.flip(listener.send("x".repeat(2 * 1024 * 1024)))
          assert.strictEqual(error._tag, "Refused")
          yield* Scope.close(scope, Exit.void)
          assert.strictEqual(yield* Queue.take(received), "4 unsubscribe a")
          assert.strictEqual(server.requests.length, 4)
          yield* listener.close
        }))).pipe(Effect.provide(layer)),
        Effect.map(left, (fibers) => assert.strictEqual(fibers, 0))
      )
    })
  })
}
