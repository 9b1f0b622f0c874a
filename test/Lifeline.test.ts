import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Lifeline from "effect-lifeline/Lifeline"
import type * as LifelineError from "effect-lifeline/LifelineError"
import * as Registry from "effect-lifeline/Registry"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Scripted from "./support/scripted.ts"

const instance = Scripted.haul

/** The reference's exact numbers, so that times can be written down. */
const exact = { registering: Backoff.pulseRegistration, failing: Backoff.pulseHeartbeat } as const

/** Every draw is the middle of its range: the first beat falls at half of the interval. */
const half: Random.Random = {
  nextIntUnsafe: () => 0,
  nextDoubleUnsafe: () => 0.5
}

const withHalf = Effect.provideService(Random.Random, half)

interface Line {
  readonly level: string
  readonly message: string
}

/** A logger that keeps its lines. */
const capture = (lines: Array<Line>) =>
  Layer.merge(
    Logger.layer([Logger.make(({ logLevel, message }) => {
      lines.push({ level: logLevel, message: Array.isArray(message) ? message.join(" ") : String(message) })
    })]),
    Layer.succeed(References.MinimumLogLevel, "Debug")
  )

/** A clock of which the wall time can go on, or back, while no timer runs: a machine that sleeps, or that is set. */
const sleeper = Effect.map(Clock.Clock, (test) => {
  let offset = 0
  const clock: Clock.Clock = {
    ...test,
    sleep: (duration) => test.sleep(duration),
    currentTimeMillisUnsafe: () => test.currentTimeMillisUnsafe() + offset,
    currentTimeMillis: Effect.map(test.currentTimeMillis, (now) => now + offset)
  }
  return {
    clock,
    sleepFor: (millis: number) => {
      offset += millis
    }
  }
})

const make = (scripted: Scripted.Scripted, options?: Partial<Lifeline.Options>) =>
  Lifeline.make({ instance, startup: "background", ...options } as Lifeline.Options & { startup: "background" }).pipe(
    Effect.provide(scripted.layer),
    withHalf
  )

const tag = (lifeline: Lifeline.Lifeline["Service"]) =>
  Effect.map(SubscriptionRef.get(lifeline.status), (status) => status._tag)

describe("Lifeline", () => {
  describe("registers and beats", () => {
    it.effect("registers, beats at once, then at a phase of the interval, then every interval", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        const lifeline = yield* make(scripted)
        assert.deepStrictEqual(scripted.times("register"), [0])
        assert.deepStrictEqual(scripted.times("heartbeat"), [0])
        assert.strictEqual(yield* tag(lifeline), "Online")
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 45, 75, 105])
        assert.deepStrictEqual(scripted.times("register"), [0])
      }))

    it.effect("one request in flight, and a late answer does not move the beat: what was missed is skipped", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "10 minutes", capabilities: { deadline: Duration.minutes(2) } })
        scripted.script("heartbeat", "ok", { after: "70 seconds", then: "ok" })
        yield* make(scripted, { heartbeat: { interval: "30 seconds" } })
        yield* TestClock.adjust("4 minutes")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 105, 135, 165, 195, 225])
        assert.strictEqual(scripted.mostInFlight(), 1)
      }))

    it.effect("sends the same identity with every registration", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("heartbeat", "ok", Scripted.unknownLease("heartbeat"))
        yield* make(scripted)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(scripted.instances.map(({ name, type }) => [name, type]), [
          ["haul", "download-client"],
          ["haul", "download-client"]
        ])
      }))
  })

  describe("startup", () => {
    it.effect("standalone: makes six waits, 2 4 8 16 32 32 s, then goes on standalone with one warning and keeps trying (Beat 1, 6)", () => {
      const lines: Array<Line> = []
      return Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unavailable("register"))
        const building = yield* Lifeline.make({ instance, startup: "standalone", heartbeat: exact }).pipe(
          Effect.provide(scripted.layer),
          withHalf,
          Effect.forkScoped({ startImmediately: true })
        )
        yield* TestClock.adjust("94 seconds")
        const lifeline = yield* Fiber.join(building)
        assert.deepStrictEqual(scripted.times("register"), [0, 2, 6, 14, 30, 62, 94])
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Standalone")
        assert.strictEqual(status.cause.attempts, 7)
        assert.strictEqual(Duration.toSeconds(status.cause.elapsed), 94)
        assert.include(status.cause.message, "http://registry.test/register")
        assert.strictEqual(status.nextAttemptAt, 126_000)
        assert.strictEqual(lines.filter((line) => line.message.startsWith("going on standalone")).length, 1)
        scripted.otherwise("register", "ok")
        yield* TestClock.adjust("32 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }).pipe(Effect.provide(capture(lines)))
    })

    it.effect("by default as standalone: ready when the backoff gave up, and keeps trying; not before, and no error", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unavailable("register"))
        const building = yield* Lifeline.make({ instance, heartbeat: exact }).pipe(
          Effect.provide(scripted.layer),
          withHalf,
          Effect.forkScoped({ startImmediately: true })
        )
        yield* TestClock.adjust("93999 millis")
        assert.isUndefined(building.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const lifeline = yield* Fiber.join(building)
        assert.strictEqual(yield* tag(lifeline), "Standalone")
        yield* TestClock.adjust("32 seconds")
        assert.deepStrictEqual(scripted.times("register"), [0, 2, 6, 14, 30, 62, 94, 126])
      }))

    it.effect("by default as standalone: ready once registered; a wrong key fails at once", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script(
          "register",
          { after: "1 second", then: "ok" },
          { after: "1 second", then: Scripted.unauthorized("register") }
        )
        const start = Lifeline.make({ instance }).pipe(Effect.provide(scripted.layer))
        const first = yield* Effect.forkScoped(start, { startImmediately: true })
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(first.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue(Option.isSome(yield* (yield* Fiber.join(first)).lease))
        const second = yield* Effect.forkScoped(Effect.flip(start), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(second))._tag, "AuthFailed")
      }))

    it.effect("standalone with keepTrying false: stops there, until asked", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unavailable("register"))
        const lifeline = yield* make(scripted, { heartbeat: { ...exact, keepTrying: false } })
        yield* TestClock.adjust("1 day")
        assert.strictEqual(scripted.calls.length, 7)
        assert.strictEqual(yield* tag(lifeline), "Standalone")
        scripted.otherwise("register", "ok")
        yield* lifeline.beatNow
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("await: fails with Exhausted, and leaves nothing behind", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unavailable("register"))
        const fiber = yield* Lifeline.make({ instance, startup: "await", heartbeat: exact }).pipe(
          Effect.provide(scripted.layer),
          Effect.scoped,
          Effect.flip,
          Effect.forkChild
        )
        yield* TestClock.adjust("94 seconds")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error._tag, "Exhausted")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(scripted.calls.length, 7)
      }))

    it.effect("await: ready once registered", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("register", Scripted.unavailable("register"))
        const fiber = yield* Lifeline.make({ instance, startup: "await", heartbeat: exact }).pipe(
          Effect.provide(scripted.layer),
          Effect.forkChild
        )
        yield* TestClock.adjust("2 seconds")
        const lifeline = yield* Fiber.join(fiber)
        assert.isTrue(Option.isSome(yield* lifeline.lease))
      }))

    it.effect("await: a wrong key fails at once, with one request (Beat 2)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unauthorized("register"))
        for (const startup of ["await", "standalone"] as const) {
          const error = yield* Lifeline.make({ instance, startup }).pipe(
            Effect.provide(scripted.layer),
            Effect.scoped,
            Effect.flip
          )
          assert.strictEqual(error._tag, "AuthFailed")
        }
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(scripted.calls.length, 2)
      }))

    it.effect("background: ready at once; a wrong key shows in the status", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("register", { after: "1 second", then: Scripted.unauthorized("register") })
        const lifeline = yield* make(scripted)
        assert.strictEqual(yield* tag(lifeline), "Registering")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* tag(lifeline), "Halted")
      }))

    it.effect("a description that is wrong in itself fails before any request, with the field's path", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const error = yield* Lifeline.make({
          instance: { name: "x".repeat(201), type: " ", apiUrl: "haul:8484" },
          startup: "background"
        }).pipe(Effect.provide(scripted.layer), Effect.scoped, Effect.flip)
        assert(error.reason._tag === "InvalidRequest")
        assert.deepStrictEqual(error.reason.issues.map((issue) => issue.path), [
          "instance.name",
          "instance.type",
          "instance.apiUrl"
        ])
        assert.deepStrictEqual(scripted.calls, [])
      }))

    it.effect("without a registry: Disabled, not an error, and nothing is ever sent", () =>
      Effect.gen(function*() {
        const lifeline = yield* Lifeline.make({ instance, startup: "await" }).pipe(
          Effect.provide(Registry.layerDisabled)
        )
        assert.strictEqual(yield* tag(lifeline), "Disabled")
        const error = yield* Effect.flip(lifeline.beatNow)
        assert.include(error.message, "no registry URL is configured")
        assert.strictEqual((yield* Effect.flip(Lifeline.awaitOnline(lifeline)))._tag, "Refused")
        yield* lifeline.deregister
        yield* TestClock.adjust("1 day")
        assert.strictEqual(yield* tag(lifeline), "Disabled")
      }))
  })

  describe("failures", () => {
    it.effect("waits 30, 45, 67.5, ... to 300 s with the reference's numbers, and logs the real next attempt (Beat 7)", () => {
      const lines: Array<Line> = []
      return Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: { ...exact, reregisterAfter: 0 } })
        scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
        yield* TestClock.adjust("30 minutes")
        const beats = scripted.times("heartbeat").slice(1)
        const waits = beats.slice(1).map((time, index) => time - (beats[index] ?? 0))
        assert.deepStrictEqual(waits.slice(0, 8).map((wait) => Math.round(wait * 10) / 10), [
          30,
          45,
          67.5,
          101.3,
          151.9,
          227.8,
          300,
          300
        ])
        const warning = lines.find((line) => line.level === "Warn")
        assert.include(warning?.message, "503")
        assert.include(warning?.message, "next attempt in 30s")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Unconfirmed")
        assert.strictEqual(status.cause?._tag, "Transient")
      }).pipe(Effect.provide(capture(lines)))
    })

    it.effect("registers again at the 5th, 10th, 15th failure in a row (Beat 3)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        yield* make(scripted)
        scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
        scripted.otherwise("register", Scripted.unavailable("register"))
        yield* TestClock.adjust("30 minutes")
        const attempts = scripted.calls.slice(2).map(({ name }, index) => ({ name, attempt: index + 1 })).slice(0, 20)
        assert.lengthOf(attempts, 20)
        // What follows the failures 5, 10 and 15.
        assert.deepStrictEqual(
          attempts.filter(({ name }) => name === "register").map(({ attempt }) => attempt),
          [6, 11, 16]
        )
      }))

    it.effect("a lost lease is registered again within one interval plus one request, and beats once right after (Beat 3, 9)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        const lifeline = yield* make(scripted)
        yield* TestClock.adjust("16 seconds")
        scripted.script("heartbeat", { after: "1 second", then: Scripted.unknownLease("heartbeat") })
        const events = yield* Stream.runCollect(Stream.take(lifeline.events, 4)).pipe(
          Effect.forkChild({ startImmediately: true })
        )
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(scripted.calls.slice(-3), [
          { name: "heartbeat", at: 45_000 },
          { name: "register", at: 46_000 },
          { name: "heartbeat", at: 46_000 }
        ])
        assert.strictEqual(yield* tag(lifeline), "Online")
        const lease = yield* lifeline.lease
        assert.strictEqual(Option.getOrThrow(lease).id, "lease-2")
        assert.deepStrictEqual((yield* Fiber.join(events)).map((event) => event._tag), [
          "LeaseLost",
          "Registered",
          "Beat",
          "Recovered"
        ])
      }))

    it.effect("a registry that accepts and forgets gets no hot loop", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("heartbeat", Scripted.unknownLease("heartbeat"))
        yield* make(scripted)
        yield* TestClock.adjust("10 minutes")
        assert.isAtMost(scripted.times("register").length, 2 + 2 + 600 / 30)
      }))

    it.effect("verifies every 10th beat: a registry that lost its data and still answers 204 is found out (Beat 5)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        // The draws are 0.5: the first verification comes after the fifth beat, then one after each tenth.
        yield* TestClock.adjust("400 seconds")
        assert.deepStrictEqual(scripted.times("verify"), [105])
        scripted.script("verify", Scripted.unknownLease("verify"))
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(scripted.times("verify"), [105, 405])
        assert.deepStrictEqual(scripted.times("register"), [0, 405])
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("verifies after a recovery, before it says so; counters are reset and there is one line (Beat 5)", () => {
      const lines: Array<Line> = []
      return Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: exact })
        const down = Scripted.unavailable("heartbeat")
        scripted.script("heartbeat", down, down)
        scripted.script("verify", { after: "1 second", then: "ok" })
        yield* TestClock.adjust("90 seconds")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 45, 90])
        assert.deepStrictEqual(scripted.times("verify"), [90])
        assert.strictEqual(yield* tag(lifeline), "Unconfirmed")
        assert.deepStrictEqual(lines.filter((line) => line.message.startsWith("recovered")), [])
        yield* TestClock.adjust("31 seconds")
        assert.deepStrictEqual(lines.filter((line) => line.message.startsWith("recovered")), [
          { level: "Info", message: "recovered after 2 failures" }
        ])
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 45, 90, 120])
        assert.strictEqual(yield* tag(lifeline), "Online")
      }).pipe(Effect.provide(capture(lines)))
    })

    it.effect("the default never waits longer than half of what the registry grants (Beat 10)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "20 seconds" })
        yield* make(scripted, { heartbeat: { interval: "15 seconds" } })
        scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
        scripted.otherwise("register", Scripted.unavailable("register"))
        yield* TestClock.adjust("10 minutes")
        const times = scripted.calls.slice(2).map((call) => call.at / 1000)
        const longest = Math.max(...times.slice(1).map((time, index) => time - (times[index] ?? 0)))
        assert.isAtMost(longest, 10)
      }))

    it.effect("with the machine asleep, the first action is to verify, with jitter, never a blind beat (Beat 11)", () =>
      Effect.gen(function*() {
        const { clock, sleepFor } = yield* sleeper
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        const lifeline = yield* Effect.provideService(make(scripted), Clock.Clock, clock)
        yield* TestClock.adjust("16 seconds")
        scripted.script("verify", Scripted.unknownLease("verify"))
        sleepFor(8 * 3_600_000)
        yield* TestClock.adjust("29 seconds")
        assert.notStrictEqual(yield* tag(lifeline), "Online")
        yield* TestClock.adjust("2499 millis")
        assert.strictEqual(scripted.calls.length, 3)
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(scripted.calls.slice(3).map((call) => call.name), ["verify", "register", "heartbeat"])
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("a clock that jumps back an hour neither stops the beats nor makes a storm", () =>
      Effect.gen(function*() {
        const { clock, sleepFor } = yield* sleeper
        sleepFor(10 * 3_600_000)
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        yield* Effect.provideService(make(scripted), Clock.Clock, clock)
        yield* TestClock.adjust("16 seconds")
        sleepFor(-3_600_000)
        const before = scripted.calls.length
        yield* TestClock.adjust("5 minutes")
        assert.isAtLeast(scripted.calls.length - before, 9)
        assert.isAtMost(scripted.calls.length - before, 12)
      }))

    it.effect("the status leaves Online when the lease runs out, even while a call hangs, and says since when (Beat 12)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "40 seconds" })
        const lifeline = yield* make(scripted, { heartbeat: { interval: "30 seconds" } })
        yield* TestClock.adjust("16 seconds")
        scripted.script("heartbeat", "hang")
        yield* TestClock.adjust("38 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
        yield* TestClock.adjust("1 second")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Offline")
        assert.strictEqual(status.since, 55_000)
      }))

    it.effect("the status leaves Online between two beats when the interval is longer than the lease", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "10 seconds" })
        const lifeline = yield* make(scripted, { heartbeat: { interval: "30 seconds" } })
        yield* TestClock.adjust("9999 millis")
        assert.strictEqual(yield* tag(lifeline), "Online")
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* tag(lifeline), "Offline")
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("Unconfirmed becomes Offline when the lease runs out, not only at the next attempt (Beat 12)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "40 seconds" })
        const lifeline = yield* make(scripted, { heartbeat: { interval: "30 seconds", ...exact } })
        yield* TestClock.adjust("16 seconds")
        scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
        yield* TestClock.adjust("38999 millis")
        assert.strictEqual(yield* tag(lifeline), "Unconfirmed")
        yield* TestClock.adjust("1 millis")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Offline")
        assert.strictEqual(status.since, 55_000)
        assert.strictEqual(status.failures, 1)
        assert.strictEqual(status.nextAttemptAt, 75_000)
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 45])
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 15, 45, 75])
      }))

    it.effect("another instance under our identity: reported as LeaseTaken, taken back with a wait (Beat 8)", () => {
      const lines: Array<Line> = []
      return Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: { verifyEvery: 1 } })
        scripted.script("verify", Scripted.leaseTaken("verify", "http://other:1"))
        yield* TestClock.adjust("15 seconds")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Offline")
        assert(status.cause?._tag === "LeaseLost")
        assert.strictEqual(status.cause.reason._tag, "LeaseTaken")
        assert.isTrue(lines.some((line) => line.level === "Warn" && line.message.includes("http://other:1")))
        yield* TestClock.adjust("15 seconds")
        assert.deepStrictEqual(scripted.times("register"), [0, 30])
        assert.strictEqual(yield* tag(lifeline), "Online")
      }).pipe(Effect.provide(capture(lines)))
    })

    it.effect("another instance under our identity with onTaken yield: closed as Replaced, and silent", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: { verifyEvery: 1, onTaken: "yield" } })
        scripted.script("verify", Scripted.leaseTaken("verify", "http://other:1"))
        yield* TestClock.adjust("1 day")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Closed")
        assert.strictEqual(status.reason._tag, "Replaced")
        assert.strictEqual(scripted.calls.length, 4)
      }))

    it.effect("a page of a proxy in the middle of things is a failure for now; a refusal is not tried again", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", Scripted.malformed("heartbeat"))
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* tag(lifeline), "Unconfirmed")
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
        scripted.script("heartbeat", Scripted.invalid("heartbeat"))
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(yield* tag(lifeline), "Halted")
        const calls = scripted.calls.length
        yield* TestClock.adjust("1 day")
        assert.strictEqual(scripted.calls.length, calls)
      }))

    it.effect("what stands in between for a while is a failure for now: a redirect, an unknown route, both twice over", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", Scripted.redirected("heartbeat"), Scripted.unknownLease("heartbeat"))
        scripted.script("register", Scripted.noSuchRoute("register"), Scripted.redirected("register"))
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(scripted.times("register").length, 4)
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("limits of attempts or time do not end what was registered once", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const failing = Backoff.make({ base: "10 seconds", cap: "20 seconds", attempts: 3, elapsed: "1 minute" })
        const lifeline = yield* make(scripted, { startup: "await", heartbeat: { failing } })
        const down = Scripted.unavailable("heartbeat")
        scripted.script("heartbeat", down, down, down, down)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(yield* tag(lifeline), "Online")
        scripted.otherwise("heartbeat", down)
        yield* TestClock.adjust("31 seconds")
        assert.strictEqual(yield* tag(lifeline), "Unconfirmed")
      }))

    it.effect("a server that asks to wait a day is heeded for no longer than it grants (Beat 10)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        yield* make(scripted)
        yield* TestClock.adjust("16 seconds")
        scripted.script("heartbeat", Scripted.unavailable("heartbeat", "1 day"))
        yield* TestClock.adjust("5 minutes")
        const [, , failed = 0, next = Infinity] = scripted.times("heartbeat")
        assert.isAtLeast(next - failed, 60)
        assert.isAtMost(next - failed, 120)
      }))

    it.effect("an adapter that promises no deadline and never answers is not waited for longer than a minute", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", "hang")
        yield* TestClock.adjust("75 seconds")
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Unconfirmed" && status.cause?._tag === "Transient")
        assert.strictEqual(status.cause.reason._tag, "TimedOut")
        assert.strictEqual(scripted.inFlight(), 0)
      }))

    it.effect("a timer that fires after the lease ran out: not Online during the call that follows (Beat 12)", () =>
      Effect.gen(function*() {
        const { clock, sleepFor } = yield* sleeper
        const scripted = Scripted.make({ expiresAfter: "50 seconds" })
        const lifeline = yield* Effect.provideService(
          make(scripted, { heartbeat: { interval: "30 seconds" } }),
          Clock.Clock,
          clock
        )
        yield* TestClock.adjust("16 seconds")
        scripted.script("heartbeat", "hang")
        sleepFor(28_000)
        yield* TestClock.adjust("29 seconds")
        assert.strictEqual(scripted.calls.at(-1)?.at, 73_000)
        assert.strictEqual(yield* tag(lifeline), "Offline")
      }))

    it.effect("a call that takes longer than the lease lasts does not keep the status Online (Beat 12)", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "2 minutes", capabilities: { deadline: Duration.minutes(3) } })
        const lifeline = yield* make(scripted)
        yield* TestClock.adjust("16 seconds")
        scripted.script("heartbeat", "hang")
        yield* TestClock.adjust("118 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* tag(lifeline), "Offline")
      }))

    it.effect("a defect of an adapter does not end the beats", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", { defect: new Error("boom") })
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* tag(lifeline), "Unconfirmed")
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))
  })

  describe("credentials", () => {
    const rotating = Effect.gen(function*() {
      const changes = yield* Queue.unbounded<void>()
      return {
        change: Queue.offer(changes, void 0),
        scripted: Scripted.make({ credentialChanges: Stream.fromQueue(changes) })
      }
    })

    it.effect("fatal auth: no request until the credential changes, then the first within 1 s", () =>
      Effect.gen(function*() {
        const { change, scripted } = yield* rotating
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", Scripted.unauthorized("heartbeat"))
        yield* TestClock.adjust("15 seconds")
        const before = scripted.calls.length
        yield* TestClock.adjust("1 week")
        assert.strictEqual(scripted.calls.length, before)
        assert.strictEqual((yield* Effect.flip(lifeline.beatNow))._tag, "AuthFailed")
        assert.strictEqual((yield* Effect.flip(lifeline.reregister))._tag, "AuthFailed")
        assert.strictEqual(scripted.calls.length, before)
        yield* change
        yield* TestClock.adjust("1 second")
        assert.isAbove(scripted.calls.length, before)
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("a credential that changes right after the start is not missed", () =>
      Effect.gen(function*() {
        const key = yield* SubscriptionRef.make(1)
        const credentialChanges = SubscriptionRef.changes(key).pipe(Stream.drop(1), Stream.map(() => undefined))
        const scripted = Scripted.make({ credentialChanges })
        scripted.script("register", { after: "1 second", then: Scripted.unauthorized("register") })
        const lifeline = yield* make(scripted)
        yield* SubscriptionRef.set(key, 2)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("a credential that changes while the rejected request is in flight is not missed", () =>
      Effect.gen(function*() {
        const { change, scripted } = yield* rotating
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", { after: "2 seconds", then: Scripted.unauthorized("heartbeat") })
        yield* TestClock.adjust("16 seconds")
        yield* change
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))
  })

  describe("asked for", () => {
    it.effect("beatNow beats now, and answers with what came of it", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        yield* TestClock.adjust("5 seconds")
        yield* lifeline.beatNow
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 5])
        scripted.script("heartbeat", Scripted.unavailable("heartbeat"))
        const error = yield* Effect.flip(lifeline.beatNow)
        assert.strictEqual(error._tag, "Transient")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("beatNow during a beat joins it: two callers, one request; interrupting one caller leaves the other", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        const gate = yield* Deferred.make<void>()
        scripted.script("heartbeat", { when: gate, then: "ok" })
        const first = yield* Effect.forkChild(lifeline.beatNow, { startImmediately: true })
        const second = yield* Effect.forkChild(lifeline.beatNow, { startImmediately: true })
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(gate, void 0)
        yield* Fiber.join(second)
        assert.strictEqual(scripted.times("heartbeat").length, 2)
        assert.strictEqual(scripted.mostInFlight(), 1)
      }))

    it.effect("beatNow on a lost lease answers once registered and confirmed again", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        scripted.script("heartbeat", Scripted.unknownLease("heartbeat"))
        yield* lifeline.beatNow
        assert.strictEqual(yield* tag(lifeline), "Online")
        assert.strictEqual(scripted.times("register").length, 2)
      }))

    it.effect("beatSoon beats once at a phase within the given time", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: { interval: "10 minutes" } })
        yield* TestClock.adjust("10 seconds")
        yield* lifeline.beatSoon("8 seconds")
        yield* TestClock.adjust("8 seconds")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 14])
      }))

    it.effect("beatSoon during a beat that fails is not lost", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted, { heartbeat: { interval: "10 minutes" } })
        scripted.script("heartbeat", { after: "10 seconds", then: Scripted.unavailable("heartbeat") })
        yield* Effect.forkChild(Effect.ignore(lifeline.beatNow), { startImmediately: true })
        yield* lifeline.beatSoon("8 seconds")
        yield* TestClock.adjust("18 seconds")
        assert.deepStrictEqual(scripted.times("heartbeat"), [0, 0, 14])
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("awaitOnline is answered when nothing more is tried", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.otherwise("register", Scripted.unavailable("register"))
        const lifeline = yield* make(scripted, { heartbeat: { ...exact, keepTrying: false } })
        const waiter = yield* Effect.forkChild(Effect.flip(Lifeline.awaitOnline(lifeline)))
        yield* TestClock.adjust("94 seconds")
        assert.strictEqual((yield* Fiber.join(waiter))._tag, "Exhausted")
      }))

    it.effect("deregister during a registration removes what came of it", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("register", { after: "2 seconds", then: "ok" })
        const lifeline = yield* make(scripted)
        const fiber = yield* Effect.forkChild(lifeline.deregister, { startImmediately: true })
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(scripted.calls.map((call) => call.name), ["register", "deregister"])
        scripted.script("register", "hang")
        const again = yield* Effect.forkChild(Effect.exit(lifeline.reregister), { startImmediately: true })
        const bounded = yield* Effect.forkChild(lifeline.deregister, { startImmediately: true })
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(bounded)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(again)))
        assert.strictEqual(scripted.inFlight(), 0)
      }))

    it.effect("reregister registers now and gives the new lease, also while a beat is in flight", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        assert.strictEqual((yield* lifeline.reregister).id, "lease-2")
        const gate = yield* Deferred.make<void>()
        scripted.script("heartbeat", { when: gate, then: "ok" })
        yield* Effect.forkChild(lifeline.beatNow, { startImmediately: true })
        const fiber = yield* Effect.forkChild(lifeline.reregister, { startImmediately: true })
        yield* Deferred.succeed(gate, void 0)
        assert.strictEqual((yield* Fiber.join(fiber)).id, "lease-3")
      }))

    it.effect("deregister stops the beats, removes the registration, and reregister brings it back", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        yield* lifeline.deregister
        assert.strictEqual(scripted.times("deregister").length, 1)
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Closed")
        assert.strictEqual(status.reason._tag, "Detached")
        const calls = scripted.calls.length
        yield* TestClock.adjust("1 day")
        assert.strictEqual(scripted.calls.length, calls)
        assert.strictEqual((yield* Effect.flip(lifeline.beatNow))._tag, "Closed")
        yield* lifeline.reregister
        assert.strictEqual(yield* tag(lifeline), "Online")
      }))

    it.effect("deregister during a beat: that beat never registers again", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const lifeline = yield* make(scripted)
        const gate = yield* Deferred.make<void>()
        scripted.script("heartbeat", { when: gate, then: Scripted.unknownLease("heartbeat") })
        const beat = yield* Effect.forkChild(Effect.flip(lifeline.beatNow), { startImmediately: true })
        yield* lifeline.deregister
        yield* Deferred.succeed(gate, void 0)
        assert.strictEqual((yield* Fiber.join(beat))._tag, "Closed")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(scripted.times("register"), [0])
        assert.strictEqual(scripted.inFlight(), 0)
      }))

    it.effect("awaitOnline waits for the first confirmed beat; fails when halted", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("register", Scripted.unavailable("register"))
        const lifeline = yield* make(scripted, { heartbeat: exact })
        const fiber = yield* Effect.forkChild(Lifeline.awaitOnline(lifeline))
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual((yield* Fiber.join(fiber)).id, "lease-1")
        scripted.script("heartbeat", Scripted.unauthorized("heartbeat"))
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual((yield* Effect.flip(Lifeline.awaitOnline(lifeline)))._tag, "AuthFailed")
      }))
  })

  describe("closing", () => {
    const closing = (scripted: Scripted.Scripted, options?: Partial<Lifeline.Options>) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const lifeline = yield* Scope.provide(make(scripted, options), scope)
        return { lifeline, close: Scope.close(scope, Exit.void) }
      })

    it.effect("leaves the registration where the adapter says so, and stops every request", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const { close, lifeline } = yield* closing(scripted)
        yield* close
        yield* TestClock.adjust("1 day")
        assert.deepStrictEqual(scripted.calls.map((call) => call.name), ["register", "heartbeat"])
        const status = yield* SubscriptionRef.get(lifeline.status)
        assert(status._tag === "Closed")
        assert.strictEqual(status.reason._tag, "Shutdown")
      }))

    it.effect("deregisters where the adapter says so; the option overrides it", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ capabilities: { onClose: "deregister" } })
        yield* (yield* closing(scripted)).close
        assert.strictEqual(scripted.times("deregister").length, 1)
        yield* (yield* closing(scripted, { onClose: "leave" })).close
        assert.strictEqual(scripted.times("deregister").length, 1)
      }))

    it.effect("deregistering is bounded to 3 s and best effort", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ capabilities: { onClose: "deregister" } })
        scripted.script("deregister", "hang", Scripted.unavailable("deregister"))
        const hanging = yield* closing(scripted)
        const fiber = yield* Effect.forkChild(hanging.close)
        yield* TestClock.adjust("3 seconds")
        assert.isTrue(Exit.isSuccess(yield* Fiber.await(fiber)))
        const failing = yield* closing(scripted)
        yield* failing.close
        assert.strictEqual(scripted.inFlight(), 0)
      }))

    it.effect("events end; deregistering that failed is tried again; what was detached stays so", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ capabilities: { onClose: "deregister" } })
        const { close, lifeline } = yield* closing(scripted)
        const events = yield* Effect.forkChild(Stream.runCollect(lifeline.events), { startImmediately: true })
        scripted.script("deregister", Scripted.unavailable("deregister"))
        assert.strictEqual((yield* Effect.flip(lifeline.deregister))._tag, "Transient")
        yield* close
        assert.strictEqual(scripted.times("deregister").length, 2)
        assert.deepStrictEqual((yield* Fiber.join(events)).map((event) => event._tag), ["Closed", "Closed"])
        assert.deepStrictEqual(yield* Stream.runCollect(lifeline.events), [])
        assert.strictEqual((yield* Effect.flip(lifeline.reregister))._tag, "Closed")
        const calls = scripted.calls.length
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(scripted.calls.length, calls)
      }))

    it.effect("a start that failed leaves nothing running in a scope that stays open", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        scripted.script("register", Scripted.unauthorized("register"))
        const error = yield* Effect.flip(Lifeline.make({ instance }).pipe(Effect.provide(scripted.layer)))
        assert.strictEqual(error._tag, "AuthFailed")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(scripted.calls.length, 1)
      }))

    it.effect("a beat in flight is cut off, its waiter is answered, and nothing registers again", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make()
        const { close, lifeline } = yield* closing(scripted)
        scripted.script("heartbeat", "hang")
        const waiter = yield* Effect.forkChild(Effect.flip(lifeline.beatNow), { startImmediately: true })
        yield* close
        assert.strictEqual((yield* Fiber.join(waiter))._tag, "Closed")
        assert.strictEqual(scripted.inFlight(), 0)
        assert.strictEqual((yield* Effect.flip(lifeline.beatNow))._tag, "Closed")
      }))

    it.effect("whoever waits to be online is told that it is closed: while registering, and while unconfirmed", () =>
      Effect.gen(function*() {
        const scripted = Scripted.make({ expiresAfter: "2 minutes" })
        for (const status of ["Registering", "Unconfirmed"]) {
          if (status === "Registering") scripted.script("register", "hang")
          else scripted.script("heartbeat", "ok", Scripted.unavailable("heartbeat"))
          const { close, lifeline } = yield* closing(scripted)
          yield* TestClock.adjust("15 seconds")
          assert.strictEqual(yield* tag(lifeline), status)
          const waiter = yield* Effect.forkChild(Effect.flip(Lifeline.awaitOnline(lifeline)), {
            startImmediately: true
          })
          yield* TestClock.adjust("1 second")
          assert.isUndefined(waiter.pollUnsafe(), `waits while ${status}`)
          yield* close
          const error = yield* Fiber.join(waiter)
          assert(error._tag === "Closed")
          assert.strictEqual(error.reason._tag, "Shutdown")
        }
      }))
  })

  describe("events", () => {
    /** What a reader gets that stops at its first event while so many more happen. */
    const slowly = Effect.fnUntraced(function*(more: number) {
      const scripted = Scripted.make()
      const lifeline = yield* make(scripted, { heartbeat: { interval: "1 second", verifyEvery: 0 } })
      const gate = yield* Deferred.make<void>()
      const reader = yield* lifeline.events.pipe(
        Stream.tap(() => Deferred.await(gate)),
        Stream.takeUntil((event) => event.at >= 500 + more * 1000),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust(Duration.seconds(more + 1))
      assert.lengthOf(scripted.times("heartbeat"), more + 2)
      yield* Deferred.succeed(gate, void 0)
      return (yield* Fiber.join(reader)).map(({ at }) => (at - 500) / 1000)
    })
    const count = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, index) => from + index)

    it.effect("a slow reader misses none of 256 that it has not read", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* slowly(256), count(0, 256))
      }))

    it.effect("of more it misses the oldest: the last 256 are there", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* slowly(1000), [0, ...count(745, 1000)])
      }))

    it.effect("a slow reader costs another one nothing", () =>
      Effect.gen(function*() {
        const lifeline = yield* make(Scripted.make(), { heartbeat: { interval: "1 second", verifyEvery: 0 } })
        const stuck = yield* lifeline.events.pipe(
          Stream.runForEach(() => Effect.never),
          Effect.forkChild({ startImmediately: true })
        )
        let seen = 0
        yield* lifeline.events.pipe(
          Stream.runForEach(() =>
            Effect.sync(() => {
              seen++
            })
          ),
          Effect.forkChild({ startImmediately: true })
        )
        for (let beat = 0; beat < 1000; beat++) yield* TestClock.adjust("1 second")
        assert.strictEqual(seen, 1000)
        yield* Fiber.interrupt(stuck)
      }))
  })

  it.effect("as a layer: the service is there, and beats until the layer's scope closes", () =>
    Effect.gen(function*() {
      const scripted = Scripted.make()
      yield* Effect.gen(function*() {
        const context = yield* Layer.build(Lifeline.layer({ instance }).pipe(Layer.provide(scripted.layer)))
        assert.strictEqual(yield* tag(Context.get(context, Lifeline.Lifeline)), "Online")
        yield* TestClock.adjust("2 minutes")
      }).pipe(Effect.scoped)
      const calls = scripted.calls.length
      assert.isAtLeast(calls, 5)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(scripted.calls.length, calls)
    }))

  it.effect("standalone discharges Exhausted, and only that", () =>
    Effect.gen(function*() {
      const failing = Effect.fail<LifelineError.Transient | LifelineError.AuthFailed>(Scripted.unavailable("register"))
      const bounded = failing.pipe(Backoff.retry(Backoff.make({ attempts: 1 })), Lifeline.standalone)
      assert.isTrue(Option.isNone(yield* bounded))
      const rejected = Effect.fail<LifelineError.Transient | LifelineError.AuthFailed>(
        Scripted.unauthorized("register")
      )
      const error = yield* rejected.pipe(
        Backoff.retry(Backoff.make({ attempts: 1 })),
        Lifeline.standalone,
        Effect.flip
      )
      assert.strictEqual(error._tag, "AuthFailed")
    }))
})
