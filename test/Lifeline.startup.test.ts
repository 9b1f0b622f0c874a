/**
 * How long a start may block where the registry takes connections and never answers: each attempt lasts as long as its
 * deadline, so the window is longer than the waits of the backoff say. In virtual time, with the real client.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import type * as Heartbeat from "effect-lifeline/Heartbeat"
import * as Lifeline from "effect-lifeline/Lifeline"
import type * as LifelineError from "effect-lifeline/LifelineError"
import type * as Registry from "effect-lifeline/Registry"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Random from "effect/Random"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Scripted from "./support/scripted.ts"

/** A registry that takes every request and never answers: not at all, or with a body that never ends. */
const silent = (how: "no answer" | "half an answer", options: Omit<Pulse.Options, "url"> = {}) => {
  const times: Array<number> = []
  let inFlight = 0
  const client = HttpClient.make((request) =>
    Effect.gen(function*() {
      times.push((yield* Clock.currentTimeMillis) / 1000)
      if (how === "half an answer") {
        const body = new ReadableStream({ start: (stream) => stream.enqueue(new TextEncoder().encode("{\"id\":")) })
        return HttpClientResponse.fromWeb(request, new Response(body, { status: 201 }))
      }
      inFlight++
      return yield* Effect.ensuring(Effect.never, Effect.sync(() => inFlight--))
    })
  )
  return {
    layer: Layer.orDie(Pulse.layer({ url: "http://pulse.test", ...options })).pipe(
      Layer.provide(Layer.succeed(HttpClient.HttpClient, client))
    ),
    times,
    inFlight: () => inFlight
  }
}

const build = (layer: Layer.Layer<Registry.Registry>, heartbeat: Heartbeat.Options, draw: number) =>
  Lifeline.make({ instance: Scripted.haul, startup: "standalone", heartbeat }).pipe(
    Effect.provide(layer),
    Effect.provideService(Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => draw })
  )

/** When, in seconds, the start no longer blocks, and what it then is: looked at just before, and then. */
const blocksFor = Effect.fnUntraced(function*(
  seconds: number,
  layer: Layer.Layer<Registry.Registry>,
  heartbeat: Heartbeat.Options,
  draw = 0.5
) {
  const building = yield* Effect.forkScoped(build(layer, heartbeat, draw), { startImmediately: true })
  yield* TestClock.adjust(Duration.millis(seconds * 1000 - 1))
  assert.isUndefined(building.pollUnsafe(), "still blocks just before")
  yield* TestClock.adjust("1 millis")
  assert.isDefined(building.pollUnsafe(), "blocks no longer")
  const lifeline = yield* Fiber.join(building)
  const status = yield* SubscriptionRef.get(lifeline.status)
  assert(status._tag === "Standalone")
  return { lifeline, status }
})

const reasonOf = ({ last }: LifelineError.Exhausted): string => last.reason._tag

const sum = (waits: ReadonlyArray<number>): number => waits.reduce((total, wait) => total + wait, 0)

describe("a start against a registry that takes connections and never answers", () => {
  for (const how of ["no answer", "half an answer"] as const) {
    it.effect(`${how}: blocks for 164 s, seven attempts of 10 s and waits of 2 4 8 16 32 32 s, then goes on standalone`, () => {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        lines.push(`${logLevel} ${String(message)}`)
      })
      return Effect.gen(function*() {
        const { inFlight, layer, times } = silent(how)
        const { status } = yield* blocksFor(164, layer, { registering: Backoff.pulseRegistration })
        assert.deepStrictEqual(times, [0, 12, 26, 44, 70, 112, 154])
        assert.strictEqual(status.cause.attempts, 7)
        assert.strictEqual(reasonOf(status.cause), "TimedOut")
        assert.strictEqual(status.nextAttemptAt, 196_000)
        assert.strictEqual(inFlight(), 0)
        assert.lengthOf(lines.filter((line) => line.startsWith("Warn going on standalone")), 1)
        yield* TestClock.adjust("32 seconds")
        assert.deepStrictEqual(times.slice(7), [196])
      }).pipe(Effect.provide(Logger.layer([logger])))
    })
  }

  for (const draw of [0, 0.25, 0.5, 0.75, 1 - Number.EPSILON]) {
    it.effect(`by default for seven attempts of 10 s and the drawn waits, at most 164 s: with draws of ${draw.toFixed(2)}`, () =>
      Effect.gen(function*() {
        const { layer, times } = silent("no answer")
        const waits = Backoff.waits(Backoff.registration, draw)
        assert.lengthOf(waits, 6)
        const window = Math.round(70_000 + sum(waits)) / 1000
        assert.isAtMost(window, 164)
        yield* blocksFor(window, layer, {}, draw)
        assert.lengthOf(times, 7)
      }))
  }

  it.effect("with a deadline of 1 s: for 101 s", () =>
    Effect.gen(function*() {
      const { layer, times } = silent("no answer", { requestTimeout: "1 second" })
      yield* blocksFor(101, layer, { registering: Backoff.pulseRegistration })
      assert.deepStrictEqual(times, [0, 3, 8, 17, 34, 67, 100])
    }))

  it.effect("with an adapter that promises no deadline: for 514 s, as an attempt is given up after a minute", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      scripted.otherwise("register", "hang")
      const { status } = yield* blocksFor(514, scripted.layer, { registering: Backoff.pulseRegistration })
      assert.strictEqual(reasonOf(status.cause), "TimedOut")
      assert.strictEqual(scripted.inFlight(), 0)
    }))

  describe("with a bound of time on the backoff: from the start of the first attempt to that of the last", () => {
    const bounded = (elapsed: Duration.Input) => Backoff.make({ base: 2000, cap: 32_000, elapsed, jitter: "none" })

    it.effect("70 s and 10 s for each request: blocks for 80 s, the 70 and the last attempt", () =>
      Effect.gen(function*() {
        const { layer, times } = silent("no answer")
        const { status } = yield* blocksFor(80, layer, { registering: bounded("70 seconds") })
        assert.deepStrictEqual(times, [0, 12, 26, 44, 70])
        assert.strictEqual(Duration.toSeconds(status.cause.elapsed), 80)
      }))

    it.effect("69 s: the attempt that would begin after that is not made, so it blocks for 54 s", () =>
      Effect.gen(function*() {
        const { layer, times } = silent("no answer")
        yield* blocksFor(54, layer, { registering: bounded("69 seconds") })
        assert.deepStrictEqual(times, [0, 12, 26, 44])
      }))

    it.effect("5 s, less than one request takes: blocks for that request only, 10 s", () =>
      Effect.gen(function*() {
        const { layer, times } = silent("no answer")
        const { status } = yield* blocksFor(10, layer, { registering: bounded("5 seconds") })
        assert.deepStrictEqual(times, [0])
        assert.strictEqual(Duration.toSeconds(status.cause.elapsed), 10)
      }))
  })

  it.effect("await fails after the same 164 s; background does not block at all", () =>
    Effect.gen(function*() {
      const { inFlight, layer } = silent("no answer")
      const options = { instance: Scripted.haul, heartbeat: { registering: Backoff.pulseRegistration } }
      const failing = yield* Lifeline.make({ ...options, startup: "await" }).pipe(
        Effect.provide(layer),
        Effect.scoped,
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("163999 millis")
      assert.isUndefined(failing.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* Fiber.join(failing))._tag, "Exhausted")
      assert.strictEqual(inFlight(), 0)
      const lifeline = yield* Effect.provide(Lifeline.make({ ...options, startup: "background" }), layer)
      assert.strictEqual((yield* SubscriptionRef.get(lifeline.status))._tag, "Registering")
    }))

  it.effect("whoever stops the program meanwhile does not wait for it, and nothing is left in flight", () =>
    Effect.gen(function*() {
      const { inFlight, layer, times } = silent("no answer")
      const building = yield* build(layer, {}, 0.5).pipe(
        Effect.scoped,
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(inFlight(), 1)
      yield* Fiber.interrupt(building)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(building)))
      assert.strictEqual(inFlight(), 0)
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(times, 1)
    }))
})
