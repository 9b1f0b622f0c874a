import { assert, describe, it } from "@effect/vitest"
import type * as Lease from "effect-lifeline/Lease"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Registry from "effect-lifeline/Registry"
import * as Telemetry from "effect-lifeline/Telemetry"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { flow } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Scripted from "./support/scripted.ts"

const instance = Scripted.haul

/** A registry of its own for metrics, so that what other tests count does not count here. */
const ownMetrics = Effect.provideServiceEffect(Metric.MetricRegistry, Effect.sync(() => new Map()))

const counted = (call: string, outcome: string) =>
  Effect.map(
    Metric.value(Metric.withAttributes(Telemetry.calls, { adapter: "scripted", call, outcome })),
    ({ count }) => count
  )

const online = Effect.map(
  Metric.value(Metric.withAttributes(Telemetry.online, { adapter: "scripted" })),
  ({ value }) => value
)

const outages = Effect.map(
  Metric.value(Metric.withAttributes(Telemetry.outages, { adapter: "scripted" })),
  ({ count }) => count
)

describe("metrics", () => {
  it.effect("calls are counted by call and outcome, outages once each, and who is online now", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make({ expiresAfter: "2 minutes" })
      scripted.script("heartbeat", "ok", "ok", Scripted.unavailable("heartbeat"), Scripted.unavailable("heartbeat"))
      yield* Effect.gen(function*() {
        for (let count = 0; count < 2; count++) yield* Lifeline.make({ instance, heartbeat: { verifyEvery: 0 } })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* counted("Register", "ok"), 2)
        assert.strictEqual(yield* counted("Heartbeat", "ok"), 2)
        assert.strictEqual(yield* online, 2)
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(yield* counted("Heartbeat", "Transient"), 2)
        assert.isAbove(yield* counted("Heartbeat", "ok"), 20)
        assert.isAtLeast(yield* outages, 1)
        assert.strictEqual(yield* online, 2)
      }).pipe(Effect.scoped, Effect.provide(scripted.layer))
      assert.strictEqual(yield* online, 0)
    }).pipe(ownMetrics))

  it.effect("a defect of an adapter is counted as one", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make({})
      scripted.script("heartbeat", { defect: new Error("a bug") })
      yield* Effect.gen(function*() {
        yield* Lifeline.make({ instance })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* counted("Heartbeat", "Defect"), 1)
      }).pipe(Effect.scoped, Effect.provide(scripted.layer))
    }).pipe(ownMetrics))
})

/** A tracer that keeps the spans. */
const keepingTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, provide: Effect.provideService(Tracer.Tracer, tracer) }
}

describe("spans", () => {
  it.effect("one for each call, with the adapter and how it ended, and none of the program above", () =>
    Effect.gen(function*() {
      const { provide, spans } = keepingTracer()
      const scripted = Scripted.make({})
      scripted.otherwise("verify", Scripted.unavailable("verify"))
      yield* Effect.gen(function*() {
        const lifeline = yield* Lifeline.make({ instance, heartbeat: { verifyEvery: 1 } })
        yield* TestClock.adjust("35 seconds")
        yield* lifeline.deregister
      }).pipe(Effect.scoped, Effect.provide(scripted.layer), Effect.withSpan("program"), provide)
      const ours = spans.filter(({ name }) => name !== "program")
      assert.deepStrictEqual([...new Set(ours.map(({ name }) => name))], [
        Telemetry.spans.Register,
        Telemetry.spans.Heartbeat,
        Telemetry.spans.Verify,
        Telemetry.spans.Deregister
      ])
      for (const { attributes, kind, name, parent, status } of ours) {
        assert.strictEqual(kind, "client")
        assert.strictEqual(attributes.get("adapter"), "scripted")
        assert.strictEqual(parent._tag === "None", name !== Telemetry.spans.Deregister, name)
        assert.strictEqual(
          status._tag === "Ended" && Exit.isSuccess(status.exit),
          name !== Telemetry.spans.Verify,
          name
        )
      }
    }))

  it.effect("none where nobody traces", () =>
    Effect.gen(function*() {
      const traced: Array<boolean> = []
      const look = Effect.map(Effect.serviceOption(Tracer.ParentSpan), (span) => traced.push(Option.isSome(span)))
      const looking = Layer.effect(
        Registry.Registry,
        Effect.map(Registry.Registry, (registry) => ({
          ...registry,
          heartbeat: (lease: Lease.Lease) => Effect.andThen(look, registry.heartbeat(lease))
        }))
      ).pipe(Layer.provide(Scripted.make({}).layer))
      const beat = Effect.gen(function*() {
        yield* Lifeline.make({ instance })
        yield* TestClock.adjust("1 second")
      }).pipe(Effect.scoped, Effect.provide(looking))
      yield* beat
      yield* keepingTracer().provide(beat)
      assert.deepStrictEqual(traced, [false, true])
    }))
})

describe("log lines", () => {
  const logging = (level: "All" | "Warn") => {
    const lines: Array<{ readonly level: string; readonly message: unknown; readonly annotations: unknown }> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      lines.push({ level: logLevel, message, annotations: fiber.getRef(References.CurrentLogAnnotations) })
    })
    return {
      lines,
      provide: flow(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, level)
      )
    }
  }

  const run = Effect.fnUntraced(function*(level: "All" | "Warn") {
    const { lines, provide } = logging(level)
    const scripted = Scripted.make({ expiresAfter: "2 minutes" })
    scripted.script("heartbeat", "ok", "ok", Scripted.unavailable("heartbeat"))
    yield* Effect.gen(function*() {
      yield* Lifeline.make({ instance })
      yield* TestClock.adjust("5 minutes")
    }).pipe(Effect.scoped, Effect.provide(scripted.layer), provide)
    return lines
  })

  it.effect("each beat at debug, the rest above, each with who it is about", () =>
    Effect.gen(function*() {
      const lines = yield* run("All")
      assert.deepStrictEqual([...new Set(lines.map(({ level }) => level))], ["Info", "Debug", "Warn"])
      const verified = lines.filter(({ message }) => String(message).startsWith("registration verified, next attempt"))
      assert.deepStrictEqual([...new Set(verified.map(({ level }) => level))], ["Debug"])
      for (const { annotations } of lines) {
        assert.deepStrictEqual(annotations, {
          package: "effect-lifeline",
          adapter: "scripted",
          service: instance.name,
          type: instance.type
        })
      }
    }))

  it.effect("nothing below the level that is logged", () =>
    Effect.gen(function*() {
      const lines = yield* run("Warn")
      assert.deepStrictEqual(lines.map(({ level }) => level), ["Warn"])
    }))
})
