import { assert, describe, it } from "@effect/vitest"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Effect from "effect/Effect"
import { flow } from "effect/Function"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Scripted from "./support/scripted.ts"

const timers = (): number => process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length

/** Counts the fibers that run. */
const fiberCounter = () => {
  let active = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      active++
    },
    recordFiberEnd: () => {
      active--
    }
  }
  const quiet = Effect.provideService(References.MinimumLogLevel, "None")
  return { active: () => active, provide: flow(Effect.provideService(Metric.FiberRuntimeMetrics, service), quiet) }
}

describe("what is left when a lifeline's scope has closed", () => {
  it.live("no fiber and no timer, whatever it was doing", () =>
    Effect.gen(function*() {
      const fibers = fiberCounter()
      const before = timers()
      const doing: ReadonlyArray<readonly [string, (scripted: Scripted.Scripted) => void]> = [
        ["idle between two beats", () => {}],
        ["a registration in flight", (scripted) => scripted.otherwise("register", "hang")],
        ["a beat in flight", (scripted) => scripted.otherwise("heartbeat", "hang")],
        ["a verification in flight", (scripted) => scripted.otherwise("verify", "hang")],
        ["backing off", (scripted) => scripted.otherwise("register", Scripted.unavailable("register"))],
        ["halted", (scripted) => scripted.otherwise("register", Scripted.unauthorized("register"))],
        ["deregistering", (scripted) => scripted.otherwise("deregister", Scripted.unavailable("deregister"))]
      ]
      for (const [what, script] of doing) {
        const scripted = Scripted.make({ expiresAfter: "30 seconds", capabilities: { onClose: "deregister" } })
        script(scripted)
        yield* Effect.gen(function*() {
          const lifeline = yield* Lifeline.make({ instance: Scripted.haul, startup: "background" })
          yield* Effect.forkScoped(Stream.runDrain(lifeline.events))
          yield* Effect.forkScoped(Stream.runDrain(SubscriptionRef.changes(lifeline.status)))
          yield* Effect.forkScoped(Effect.ignore(lifeline.beatNow), { startImmediately: true })
          yield* lifeline.beatSoon("1 hour")
          assert.isAbove(fibers.active(), 0, what)
        }).pipe(Effect.scoped, Effect.provide(scripted.layer), fibers.provide)
        assert.strictEqual(scripted.inFlight(), 0, what)
        assert.strictEqual(fibers.active(), 0, `fibers after ${what}`)
        assert.isAtMost(timers(), before, `timers after ${what}`)
      }
    }))

  it.live("1,000 lifelines opened and closed leave what was there before", () =>
    Effect.gen(function*() {
      const fibers = fiberCounter()
      const before = timers()
      const scripted = Scripted.make({ expiresAfter: "2 minutes" })
      yield* Effect.gen(function*() {
        yield* Effect.forEach(
          Array.from({ length: 1000 }),
          () => Lifeline.make({ instance: Scripted.haul, startup: "await" }),
          { concurrency: "unbounded", discard: true }
        )
        assert.isAtLeast(timers(), before + 1000)
      }).pipe(Effect.scoped, Effect.provide(scripted.layer), fibers.provide)
      assert.strictEqual(fibers.active(), 0)
      assert.isAtMost(timers(), before)
    }))
})
