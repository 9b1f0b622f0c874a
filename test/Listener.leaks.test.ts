// A listener leaves nothing behind: no fiber, no scope, no queue, nobody who waits.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Listener from "effect-lifeline/Listener"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { fiberCounter, resources } from "./support/leaks.ts"
import * as Server from "./support/listenerServer.ts"

/** Counts the fibers that run at the moment, of those that run under it. */
const counting = () => {
  const counted = { running: 0 }
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      counted.running++
    },
    recordFiberEnd: () => {
      counted.running--
    }
  }
  return {
    counted,
    under: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.provideService(effect, Metric.FiberRuntimeMetrics, service)
  }
}

/** How many finalizers a scope holds. */
const held = ({ state }: Scope.Scope): number =>
  state._tag === "Open" ? (state.finalizer === undefined ? 0 : 1) + (state.finalizers?.size ?? 0) : 0

const listen = (server: Server.Server) =>
  Listener.make({
    ...Server.protocol,
    connect: server.connect,
    at: Server.at,
    policy: Backoff.make({ base: 1, cap: 1, floor: 1 }),
    buffer: { overflow: "dropOldest" },
    noProgressLimit: Infinity
  })

describe("nothing is left", () => {
  it.effect("of 10,000 reconnects", () =>
    Effect.gen(function*() {
      const { counted, under } = counting()
      const server = Server.make()
      const listener = yield* under(listen(server))
      const scope = yield* Scope.make()
      for (const key of ["a", "b", "c"]) yield* listener.subscribe(key).pipe(Scope.provide(scope))
      const read = yield* Effect.flatMap(
        listener.subscribe("a").pipe(Scope.provide(scope)),
        ({ messages }) => Effect.forkChild(Stream.runDrain(messages))
      )
      // Until it is healthy a fiber waits for that.
      yield* TestClock.adjust("1 minute")
      const before = { running: counted.running, finalizers: held(scope) }
      let reconnects = 0
      while (reconnects < 10_000) {
        const connection = server.last()
        if (connection.isOpen) {
          reconnects++
          connection.push({ key: "a", text: "progress" })
          switch (reconnects % 4) {
            case 0:
              connection.end()
              break
            case 1:
              connection.end(Server.reset)
              break
            case 2:
              server.send = () => Effect.fail(Server.reset)
              yield* Effect.forkIn(Effect.ignore(listener.send("message")), scope)
              break
            default:
              yield* Effect.forEach(["inactive", "inactive", "inactive"] as const, Listener.heartbeat(listener))
          }
          yield* TestClock.adjust(0)
          server.send = () => Effect.void
        }
        server.connections.splice(0, server.connections.length - 1)
        yield* TestClock.adjust("2 seconds")
      }
      yield* TestClock.adjust("1 minute")
      assert.isTrue(server.last().isOpen)
      assert.strictEqual(server.open(), 1)
      assert.strictEqual(server.mostOpen(), 1)
      assert.strictEqual(yield* listener.size, 4)
      assert.strictEqual(counted.running, before.running, "fibers")
      assert.strictEqual(held(scope), before.finalizers, "finalizers")
      yield* Fiber.interrupt(read)
      yield* Scope.close(scope, Exit.void)
      yield* listener.close
      assert.strictEqual(counted.running, 0, "fibers after the end")
      assert.strictEqual(server.open(), 0)
    }), 60_000)

  it.effect(
    "of 1,000 subscriptions that come and go, are cut off, are refused or fall behind",
    () =>
      Effect.gen(function*() {
        const { counted, under } = counting()
        const { left, watch } = fiberCounter()
        const server = Server.make()
        const own = yield* Scope.make()
        const listener = yield* under(listen(server)).pipe(Scope.provide(own))
        const kept = yield* Scope.make()
        yield* listener.subscribe("kept").pipe(Scope.provide(kept))
        yield* TestClock.adjust("1 minute")
        const before = counted.running
        const finalizers = held(own)
        yield* watch(Effect.gen(function*() {
          for (let n = 0; n < 1000; n++) {
            const scope = yield* Scope.make()
            const subscribing = listener.subscribe(`k${n % 7}`, { capacity: 1, overflow: "fail" }).pipe(
              Scope.provide(scope)
            )
            switch (n % 4) {
              case 0: {
                const { messages } = yield* subscribing
                const reader = yield* Effect.forkChild(Stream.runDrain(messages))
                yield* Fiber.interrupt(reader)
                break
              }
              case 1:
                yield* subscribing
                server.last().push({ key: `k${n % 7}`, text: "1" }, { key: `k${n % 7}`, text: "2" })
                yield* TestClock.adjust(0)
                break
              case 2: {
                server.send = () => Effect.sleep("1 second")
                const cutOff = yield* Effect.forkChild(subscribing)
                yield* TestClock.adjust(0)
                yield* Fiber.interrupt(cutOff)
                server.send = () => Effect.void
                yield* TestClock.adjust("1 second")
                break
              }
              default:
                yield* Effect.timeoutOption(
                  Effect.scoped(listener.await(`k${n % 7}`, { fallback: Listener.poll(Effect.undefined) })),
                  1
                )
                  .pipe(
                    Effect.forkChild,
                    Effect.tap(TestClock.adjust(1)),
                    Effect.flatMap(Fiber.join)
                  )
            }
            yield* Scope.close(scope, Exit.void)
          }
        }))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* listener.size, 1)
        assert.deepStrictEqual([...server.last().keys], ["kept"])
        assert.strictEqual(server.connections.length, 1)
        assert.strictEqual(counted.running, before, "fibers")
        assert.strictEqual(held(own), finalizers, "finalizers")
        assert.strictEqual(yield* left, 0, "fibers of those who subscribed")
        yield* Scope.close(own, Exit.void)
        assert.strictEqual(counted.running, 0, "fibers after the end")
      }),
    60_000
  )

  it.live("of timers: a listener that closes while it waits", () =>
    Effect.gen(function*() {
      const beyond = yield* resources
      const server = Server.make()
      server.accept = () => Effect.fail(Server.transient)
      yield* Effect.scoped(Effect.gen(function*() {
        const listener = yield* Listener.make({ ...Server.protocol, connect: server.connect, at: Server.at })
        yield* Effect.forkChild(listener.subscribe("a"))
        yield* Effect.sleep(20)
        yield* listener.close
      }))
      assert.deepStrictEqual(yield* beyond, [])
    }))
})
