import { assert, describe, it } from "@effect/vitest"
import * as Connectivity from "effect-lifeline/Connectivity"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

type Listener = Parameters<Connectivity.Target["addEventListener"]>[1]

class FakeTarget implements Connectivity.Target {
  readonly listeners = new Map<string, Set<Listener>>()
  added = 0
  removed = 0
  addEventListener(type: string, listener: Listener) {
    const set = this.listeners.get(type) ?? new Set()
    this.added++
    this.listeners.set(type, set.add(listener))
  }
  removeEventListener(type: string, listener: Listener) {
    if (this.listeners.get(type)?.delete(listener) === true) this.removed++
  }
  emit(type: string, event: { readonly persisted?: boolean } = {}) {
    for (const listener of this.listeners.get(type) ?? []) listener(event)
  }
}

class FakeDocument extends FakeTarget {
  visibilityState = "visible"
}

class FakeWindow extends FakeTarget {
  readonly document = new FakeDocument()
  readonly navigator: { onLine?: boolean } = { onLine: true }
}

/** Everything that a reader of `changes` is told while `effect` runs. */
const told = (page: FakeWindow, act: Effect.Effect<unknown>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const connectivity = yield* Scope.provide(Connectivity.make(page), scope)
    const reader = yield* Effect.forkChild(Stream.runCollect(connectivity.changes), { startImmediately: true })
    yield* TestClock.adjust(0)
    yield* act
    yield* Scope.close(scope, Exit.void)
    return yield* Fiber.join(reader)
  })

describe("Connectivity", () => {
  it.effect("does nothing by default", () =>
    Effect.gen(function*() {
      const connectivity = yield* Connectivity.Connectivity
      assert.strictEqual(yield* connectivity.online, true)
      assert.deepStrictEqual(yield* Stream.runCollect(connectivity.changes), [])
    }))

  it.effect("is online unless the platform is sure that it is not", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      const { online } = yield* Connectivity.make(page)
      assert.strictEqual(yield* online, true)
      page.navigator.onLine = false
      assert.strictEqual(yield* online, false)
      delete page.navigator.onLine
      assert.strictEqual(yield* online, true)
      assert.strictEqual(yield* (yield* Connectivity.make({})).online, true)
    }))

  it.effect("tells of the network", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      const changes = yield* told(
        page,
        Effect.sync(() => {
          page.emit("offline")
          page.emit("online")
        })
      )
      assert.deepStrictEqual(changes, ["offline", "online"])
    }))

  it.effect.each(
    [
      ["a page that is shown again", "document", "visibilitychange", {}, "visible", ["wake"]],
      ["a page that is hidden", "document", "visibilitychange", {}, "hidden", []],
      ["a page that was frozen", "document", "resume", {}, "hidden", ["wake"]],
      ["a page that freezes", "document", "freeze", {}, "hidden", []],
      ["a page from the back/forward cache", "window", "pageshow", { persisted: true }, "visible", ["wake"]],
      ["a page that was just loaded", "window", "pageshow", { persisted: false }, "visible", []],
      ["a page that is left", "window", "pagehide", { persisted: true }, "hidden", []]
    ] as const
  )("%s", ([, target, type, event, visibility, expected]) =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      page.document.visibilityState = visibility
      const changes = yield* told(
        page,
        Effect.sync(() => (target === "window" ? page : page.document).emit(type, event))
      )
      assert.deepStrictEqual(changes, [...expected])
    }))

  it.effect("the events of one return are one wake, and the next return is another", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      const comeBack = Effect.sync(() => {
        page.document.emit("resume")
        page.emit("pageshow", { persisted: true })
        page.document.emit("visibilitychange")
      })
      const changes = yield* told(
        page,
        comeBack.pipe(Effect.andThen(TestClock.adjust("1 second")), Effect.andThen(comeBack))
      )
      assert.deepStrictEqual(changes, ["wake", "wake"])
    }))

  it.effect("each reader is told; one that left is forgotten, one that comes too late gets an end", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      const scope = yield* Scope.make()
      const { changes } = yield* Scope.provide(Connectivity.make(page), scope)
      const first = yield* Effect.forkChild(Stream.runCollect(Stream.take(changes, 1)), { startImmediately: true })
      const second = yield* Effect.forkChild(Stream.runCollect(changes), { startImmediately: true })
      yield* TestClock.adjust(0)
      page.emit("offline")
      assert.deepStrictEqual(yield* Fiber.join(first), ["offline"])
      page.emit("online")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Fiber.join(second), ["offline", "online"])
      assert.deepStrictEqual(yield* Stream.runCollect(changes), [])
    }))

  it.effect("a reader that is behind keeps the last 16", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      const changes = yield* told(
        page,
        Effect.sync(() => {
          page.emit("offline")
          for (let n = 0; n < 16; n++) page.emit("online")
        })
      )
      assert.deepStrictEqual(changes, Array.from({ length: 16 }, () => "online" as const))
    }))

  it.effect("leaves no listener, however often it is built", () =>
    Effect.gen(function*() {
      const page = new FakeWindow()
      for (let n = 0; n < 100; n++) {
        yield* Effect.scoped(
          Effect.gen(function*() {
            const { changes } = yield* Connectivity.make(page)
            const reader = yield* Effect.forkChild(Stream.runDrain(changes), { startImmediately: true })
            yield* TestClock.adjust(0)
            page.emit("online")
            yield* Fiber.interrupt(reader)
          })
        )
      }
      for (const target of [page, page.document]) {
        assert.isAbove(target.added, 0)
        assert.strictEqual(target.added, target.removed)
        assert.deepStrictEqual([...target.listeners.values()].map((set) => set.size).filter((size) => size > 0), [])
      }
    }))

  it.effect("the layer loads where there is no page", () =>
    Effect.gen(function*() {
      const connectivity = yield* Connectivity.Connectivity
      assert.strictEqual(yield* connectivity.online, true)
    }).pipe(Effect.provide(Layer.fresh(Connectivity.layerBrowser))))
})
