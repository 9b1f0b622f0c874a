// What a stream says of itself: metrics, spans and log lines, by the names in Telemetry.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Errors from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Telemetry from "effect-lifeline/Telemetry"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { flow, identity } from "effect/Function"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Seen from "./support/seen.ts"

const at: Errors.Attempted = { operation: "listen", target: "http://server.test/events" }

const unavailable = new Errors.Transient({ ...at, reason: new Errors.Unavailable({ status: 503 }) })
const unauthorized = new Errors.AuthFailed({ ...at, reason: new Errors.Unauthorized({}) })
const unclear = new Errors.Inconclusive({ ...at, detail: "UNKNOWN" })
const stop = new Reconnect.Stop(at)

type Line = "frame" | "end" | "quiet" | "defect" | Reconnect.Failure

/** A transport that goes by a script, and by its last line for ever. A connection of `"frame"` carries one and ends after 1 s. */
const scripted = (...lines: ReadonlyArray<Line>) => {
  let dials = 0
  const connect: Reconnect.Connect<string, string, never> = () =>
    Effect.suspend(() => {
      const line = lines[Math.min(dials++, lines.length - 1)]
      if (line === "frame") {
        return Effect.succeed(
          Stream.concat(Stream.make({ value: "a" }), Stream.drain(Stream.fromEffect(Effect.sleep(1000))))
        )
      }
      if (line === "end") return Effect.succeed(Stream.empty)
      if (line === "quiet" || line === undefined) return Effect.succeed(Stream.never)
      return line === "defect" ? Effect.die(new Error("a bug")) : Effect.fail(line)
    })
  return Reconnect.stream(connect, { at, policy: Backoff.make({ jitter: "none" }) })
}

/** Measured, with a registry of its own for metrics, so that what other tests count does not count here. */
const measured = flow(
  Effect.provide(Telemetry.layerStreams),
  Effect.provideServiceEffect(Metric.MetricRegistry, Effect.sync(() => new Map()))
)

const silent = Effect.provideService(References.MinimumLogLevel, "None")

const dials = (outcome: string) =>
  Effect.map(
    Metric.value(Metric.withAttributes(Telemetry.dials, { operation: "listen", outcome })),
    ({ count }) => count
  )
const losses = Effect.map(
  Metric.value(Metric.withAttributes(Telemetry.losses, { operation: "listen" })),
  ({ count }) => count
)
const open = Effect.map(
  Metric.value(Metric.withAttributes(Telemetry.openStreams, { operation: "listen" })),
  ({ value }) => value
)

describe("metrics of streams", () => {
  it.effect("dials by outcome, losses, and how many are open", () =>
    Effect.gen(function*() {
      const lines: ReadonlyArray<Line> = ["frame", unavailable, unclear, unavailable, "end", "quiet"]
      const fibers = [
        yield* Effect.forkChild(Stream.runDrain(scripted(...lines))),
        yield* Effect.forkChild(Stream.runDrain(scripted("quiet")))
      ]
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* open, 2)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* dials("ok"), 4)
      assert.strictEqual(yield* dials("Transient"), 2)
      assert.strictEqual(yield* dials("Inconclusive"), 1)
      assert.strictEqual(yield* losses, 2)
      assert.strictEqual(yield* open, 2)
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual(yield* open, 0)
      assert.strictEqual(yield* losses, 2)
    }).pipe(silent, measured))

  it.effect.each<readonly [Line, string]>([
    [unauthorized, "AuthFailed"],
    [stop, "Stop"],
    ["defect", "Defect"]
  ])("a dial that is the last one: %#", ([line, outcome]) =>
    Effect.gen(function*() {
      yield* Effect.exit(Stream.runDrain(scripted(line)))
      assert.strictEqual(yield* dials(outcome), 1)
      assert.strictEqual(yield* dials("ok"), 0)
      assert.strictEqual(yield* losses, 0)
      assert.strictEqual(yield* open, 0)
    }).pipe(silent, measured))

  it.effect("a server that said to stop was not lost", () =>
    Effect.gen(function*() {
      const connect: Reconnect.Connect<string, string, never> = () => Effect.succeed(Stream.fail(stop))
      yield* Stream.runDrain(Reconnect.stream(connect, { at }))
      assert.deepStrictEqual([yield* dials("ok"), yield* losses, yield* open], [1, 0, 0])
    }).pipe(silent, measured))
})

describe("spans of streams", () => {
  /** Whether the transport saw a span, and the spans that were kept. */
  const run = (tracing: boolean) =>
    Effect.gen(function*() {
      const { spans, tracer } = Seen.keepSpans()
      const seen: Array<boolean> = []
      const connect: Reconnect.Connect<string, string, never> = ({ generation }) =>
        Effect.flatMap(Effect.serviceOption(Tracer.ParentSpan), (span) => {
          seen.push(Option.isSome(span))
          return generation === 1 ? Effect.fail(unavailable) : Effect.succeed(Stream.never)
        })
      const stream = Stream.runDrain(Reconnect.stream(connect, { at }))
      const fiber = yield* stream.pipe(
        Effect.provide(Telemetry.layerStreams),
        tracing ? Effect.provideService(Tracer.Tracer, tracer) : identity,
        Effect.forkChild
      )
      yield* TestClock.adjust("1 minute")
      yield* Fiber.interrupt(fiber)
      return { spans, seen }
    }).pipe(silent)

  it.effect("one for each dial, of kind client, which ends with the dial", () =>
    Effect.gen(function*() {
      const { seen, spans } = yield* run(true)
      assert.deepStrictEqual(seen, [true, true])
      assert.deepStrictEqual(spans.map(({ kind, name }) => [name, kind]), [
        [Telemetry.dialSpan, "client"],
        [Telemetry.dialSpan, "client"]
      ])
      assert.deepStrictEqual(spans.map(({ attributes }) => Object.fromEntries(attributes)), [
        { ...at, attempt: 1, generation: 1 },
        { ...at, attempt: 2, generation: 2 }
      ])
      assert.deepStrictEqual(
        spans.map(({ status }) => status._tag === "Ended" && Exit.isSuccess(status.exit)),
        [false, true]
      )
    }))

  it.effect("none where nobody traces", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual((yield* run(false)).seen, [false, false])
    }))
})

describe("log lines of streams", () => {
  it.effect("the first loss, each fifth failure, recovered, given up: with what it is about", () =>
    Effect.gen(function*() {
      const lines: Array<readonly [string, string]> = []
      const annotations = new Set<string>()
      const logger = Logger.make(({ fiber, logLevel, message }) => {
        annotations.add(JSON.stringify(fiber.getRef(References.CurrentLogAnnotations)))
        lines.push([logLevel, String(message)])
      })
      const script: ReadonlyArray<Line> = [...Array.from({ length: 6 }, () => unavailable), "frame", unauthorized]
      const fiber = yield* Effect.forkChild(
        Effect.exit(Stream.runDrain(scripted(...script))).pipe(
          Effect.provide(Logger.layer([logger])),
          Effect.provideService(References.MinimumLogLevel, "Info")
        )
      )
      yield* TestClock.adjust("10 minutes")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual([...annotations], [JSON.stringify({ package: "effect-lifeline", ...at })])
      assert.deepStrictEqual(
        lines.map(([level, text]) => [level, text.match(/failure \d|recovered|nothing more/)?.[0]]),
        [
          ["Warn", "failure 1"],
          ["Warn", "failure 5"],
          ["Info", "recovered"],
          ["Error", "nothing more"]
        ]
      )
    }))
})
