import { assert, describe, it } from "@effect/vitest"
import type * as Lease from "effect-lifeline/Lease"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Registry from "effect-lifeline/Registry"
import * as Telemetry from "effect-lifeline/Telemetry"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { flow } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Scripted from "./support/scripted.ts"
import * as Seen from "./support/seen.ts"

const instance = Scripted.haul

/** Every draw is the middle of its range: the second beat falls at half of the interval, and never within the first second. */
const half = Effect.provideService(Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => 0.5 })

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

/** After two beats that are acknowledged the registry is down for so many calls. */
const downFor = (scripted: Scripted.Scripted, calls: number) => {
  let left = calls
  const goneWhile = (name: "register" | "heartbeat"): Scripted.Answer => ({
    pick: () => {
      if (left === 0) return "ok"
      left--
      return Scripted.unavailable(name)
    }
  })
  scripted.script("register", "ok")
  scripted.script("heartbeat", "ok", "ok")
  scripted.otherwise("register", goneWhile("register"))
  scripted.otherwise("heartbeat", goneWhile("heartbeat"))
  return { left: () => left }
}

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
        assert.strictEqual(yield* outages, 2)
        assert.strictEqual(yield* online, 2)
      }).pipe(Effect.scoped, Effect.provide(scripted.layer), half)
      assert.strictEqual(yield* online, 0)
    }).pipe(ownMetrics))

  /** How many outages are counted while a lifeline lives for so long. */
  const outagesOf = (scripted: Scripted.Scripted, minutes: number, options?: Partial<Lifeline.Options>) =>
    Effect.gen(function*() {
      yield* Lifeline.make({ instance, ...options, startup: "background" })
      yield* TestClock.adjust(Duration.minutes(minutes))
      return yield* outages
    }).pipe(Effect.scoped, Effect.provide(scripted.layer), ownMetrics)

  it.effect("an outage is counted once, however many calls fail in it", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      const down = downFor(scripted, 12)
      assert.strictEqual(yield* outagesOf(scripted, 60), 1)
      assert.strictEqual(down.left(), 0)
    }))

  it.effect("a second outage is counted as a second one, a lost lease as one, also while registering fails", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      const [no, lost] = [Scripted.unavailable("heartbeat"), Scripted.unknownLease("heartbeat")]
      scripted.script("heartbeat", "ok", "ok", no, no, no, "ok", "ok", lost, no, "ok", "ok", lost)
      const refused = Scripted.unavailable("register")
      scripted.script("register", "ok", "ok", refused, refused)
      assert.strictEqual(yield* outagesOf(scripted, 60), 3)
      assert.strictEqual(scripted.times("register").length, 5)
    }))

  it.effect("what was never registered has no outage; a refused key is one", () =>
    Effect.gen(function*() {
      const never = Scripted.make()
      never.otherwise("register", Scripted.unavailable("register"))
      assert.strictEqual(yield* outagesOf(never, 60), 0)
      const halted = Scripted.make()
      halted.script("heartbeat", "ok", Scripted.unauthorized("heartbeat"))
      assert.strictEqual(yield* outagesOf(halted, 60), 1)
    }))

  it.effect("a defect of an adapter is counted as one", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make({})
      scripted.script("heartbeat", { defect: new Error("a bug") })
      yield* Effect.gen(function*() {
        yield* Lifeline.make({ instance })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* counted("Heartbeat", "Defect"), 1)
      }).pipe(Effect.scoped, Effect.provide(scripted.layer), half)
    }).pipe(ownMetrics))
})

/** A tracer that keeps the spans. */
const keepingTracer = () => {
  const { spans, tracer } = Seen.keepSpans()
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
      }).pipe(Effect.scoped, Effect.provide(looking), half)
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

  /** The lines above debug of a lifeline that lives for so long, as level and message. */
  const linesOf = Effect.fnUntraced(
    function*(scripted: Scripted.Scripted, minutes: number, options?: Partial<Lifeline.Options>) {
      const { lines, provide } = logging("All")
      yield* Effect.gen(function*() {
        yield* Lifeline.make({ instance, ...options, startup: "background" })
        yield* TestClock.adjust(Duration.minutes(minutes))
      }).pipe(Effect.scoped, Effect.provide(scripted.layer), provide)
      return lines.filter(({ level }) => level !== "Debug").map(({ level, message }) => `${level} ${String(message)}`)
    }
  )

  /** Each line begins and goes on as expected; what is between is free. */
  const assertLines = (
    lines: ReadonlyArray<string>,
    ...expected: ReadonlyArray<readonly [start: string, part?: string]>
  ) => {
    assert.deepStrictEqual(
      lines.map((line, index) => {
        const [start, part = ""] = expected[index] ?? []
        return start !== undefined && line.startsWith(start) && line.includes(part) ? expected[index] : line
      }),
      [...expected]
    )
  }

  it.effect("an outage of twelve failures: a warning at the first, fifth and tenth, and one line when it is over", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      const down = downFor(scripted, 12)
      assertLines(
        yield* linesOf(scripted, 60),
        ["Info registered as lease-1"],
        ["Warn", "; failure 1 in a row, next attempt in "],
        ["Warn", "; failure 5 in a row, next attempt in "],
        ["Warn", "; failure 10 in a row, next attempt in "],
        ["Info recovered after 12 failures"]
      )
      assert.strictEqual(down.left(), 0)
    }))

  it.effect("one failure: a warning, and one line when it is over", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      downFor(scripted, 1)
      assertLines(
        yield* linesOf(scripted, 60),
        ["Info registered as lease-1"],
        ["Warn", "; failure 1 in a row, next attempt in "],
        ["Info recovered after 1 failure"]
      )
    }))

  it.effect("a lost lease: a warning, that it is registered again, and that it is over", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      scripted.script("heartbeat", "ok", "ok", Scripted.unknownLease("heartbeat"))
      assertLines(
        yield* linesOf(scripted, 60),
        ["Info registered as lease-1"],
        ["Warn", "; next attempt at once"],
        ["Info registered again as lease-2"],
        ["Info recovered after 1 failure"]
      )
    }))

  it.effect("a first registration that gives up: one line that says what follows, then a warning at each fifth failure", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      const no = Scripted.unavailable("register")
      scripted.script("register", ...Array.from({ length: 12 }, () => no))
      assertLines(
        yield* linesOf(scripted, 60),
        ["Warn", "; failure 1 in a row"],
        ["Warn", "; failure 5 in a row"],
        ["Warn going on standalone: ", "; next attempt in "],
        ["Warn", "; failure 10 in a row"],
        ["Info registered as lease-1"],
        ["Info recovered after 12 failures"]
      )
    }))

  it.effect("where nothing more is tried: one line that says so, and none after it", () =>
    Effect.gen(function*() {
      const exhausted = Scripted.make()
      exhausted.otherwise("register", Scripted.unavailable("register"))
      assertLines(
        yield* linesOf(exhausted, 1440, { heartbeat: { keepTrying: false } }),
        ["Warn", "; failure 1 in a row"],
        ["Warn", "; failure 5 in a row"],
        ["Warn not registered: ", "; nothing more is tried"]
      )
      for (const rejected of Scripted.definitive("register")) {
        const scripted = Scripted.make()
        scripted.otherwise("register", rejected)
        assertLines(yield* linesOf(scripted, 1440), ["Error", "; nothing more is tried"])
      }
    }))

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
