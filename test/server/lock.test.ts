import { assert, describe, it } from "@effect/vitest"
import * as KeyedLock from "effect-lifeline/server/internal/lock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"

describe("the lock per key", () => {
  it.effect("lets one in at a time, also one that comes while another waits", () =>
    Effect.gen(function*() {
      const lock = KeyedLock.make()
      const inside: Array<string> = []
      const enter = Effect.fnUntraced(function*(name: string, key: string) {
        const gate = yield* Deferred.make<void>()
        const fiber = yield* Effect.acquireUseRelease(
          Effect.sync(() => inside.push(name)),
          () => Deferred.await(gate),
          () => Effect.sync(() => void inside.splice(inside.indexOf(name), 1))
        ).pipe(lock(key), Effect.forkChild)
        yield* TestClock.adjust(0)
        const leave = Effect.all([Deferred.succeed(gate, undefined), Fiber.join(fiber), TestClock.adjust(0)])
        return { leave, fiber }
      })
      const a = yield* enter("a", "k")
      const b = yield* enter("b", "k")
      const other = yield* enter("other", "l")
      assert.deepStrictEqual(inside, ["a", "other"])
      yield* a.leave
      const c = yield* enter("c", "k")
      assert.deepStrictEqual(inside.toSorted(), ["b", "other"])
      const impatient = yield* enter("impatient", "k")
      yield* Fiber.interrupt(impatient.fiber)
      yield* b.leave
      assert.deepStrictEqual(inside.toSorted(), ["c", "other"])
      yield* c.leave
      yield* other.leave
      assert.deepStrictEqual(inside, [])
    }))
})
