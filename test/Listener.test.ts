// One connection, many subscriptions, in virtual time, over a server within the test.
import { assert, describe, it } from "@effect/vitest"
import * as Listener from "effect-lifeline/Listener"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Server from "./support/listenerServer.ts"

/** Lets everything happen that needs no time. */
const settle = TestClock.adjust(0)

const listen = (
  server: Server.Server,
  options?: Partial<Listener.Options<string, Server.Message, string, Scope.Scope, string | undefined>>
) => Listener.make({ ...Server.protocol, connect: server.connect, at: Server.at, ...options })

/** Reads a subscription in the background, and keeps what it yields and how it ends. */
const collect = Effect.fnUntraced(function*<A, E>(messages: Stream.Stream<A, E>) {
  const values: Array<A> = []
  const fiber = yield* Effect.forkChild(Stream.runForEach(messages, (value) => Effect.sync(() => values.push(value))))
  yield* settle
  return { values, fiber, exit: () => fiber.pollUnsafe() }
})

describe("subscribe", () => {
  it.effect("gives the messages of its key, and no others, until its scope is closed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const scope = yield* Scope.make()
      const a = yield* listener.subscribe("a").pipe(Scope.provide(scope))
      const b = yield* listener.subscribe("b")
      const readA = yield* collect(a.messages)
      const readB = yield* collect(b.messages)
      server.last().push({ key: "a", text: "1" }, { key: "b", text: "2" }, { key: "c", text: "3" })
      yield* settle
      assert.deepStrictEqual(readA.values, [{ key: "a", text: "1" }])
      assert.deepStrictEqual(readB.values, [{ key: "b", text: "2" }])
      assert.strictEqual(yield* listener.size, 2)
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.strictEqual(yield* listener.size, 1)
      assert.deepStrictEqual(server.last().sent, ["+a", "+b", "-a"])
      const ended = yield* Effect.flip(Fiber.join(readA.fiber))
      assert.strictEqual(ended._tag, "Closed")
      server.last().push({ key: "a", text: "4" }, { key: "b", text: "5" })
      yield* settle
      assert.strictEqual(readA.values.length, 1)
      assert.strictEqual(readB.values.length, 2)
      assert.strictEqual(server.connections.length, 1)
    }))
})
