import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as CheckIn from "effect-lifeline/CheckIn"
import type * as Lease from "effect-lifeline/Lease"
import { AuthFailed, ProofRejected } from "effect-lifeline/LifelineError"
import * as Registry from "effect-lifeline/Registry"
import * as Memory from "effect-lifeline/registry/Memory"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import * as Clock from "effect/Clock"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Scripted from "./support/scripted.ts"

const instance: ServiceInstance.Input = { name: "resizer", type: "worker", apiUrl: "https://resizer.test" }

interface Line {
  readonly level: string
  readonly message: string
}

/** A scripted registry whose credential can change, and a store that shows all it holds and can fail. */
const harness = Effect.fnUntraced(function*(options: {
  readonly capabilities?: Partial<Registry.Capabilities>
  readonly expiresAfter?: Duration.Input
} = {}) {
  const scripted = Scripted.make({ expiresAfter: "2 minutes", ...options })
  const entered = yield* Queue.unbounded<Scripted.CallName>()
  const entries = new Map<string, string>()
  const lines: Array<Line> = []
  const state = {
    key: "first",
    registry: {} as Partial<Registry.Registry["Service"]>,
    writes: 0,
    /** What happens when the store is read or written next. */
    read: Effect.void as Effect.Effect<void, KeyValueStore.KeyValueStoreError>,
    write: (_key: string) => Effect.void as Effect.Effect<void, KeyValueStore.KeyValueStoreError>,
    written: (_key: string): void => undefined
  }
  const enter = <A, E>(name: Scripted.CallName, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.andThen(Queue.offer(entered, name), self)
  const registry = Layer.effect(
    Registry.Registry,
    Effect.map(Registry.Registry, (made) => ({
      ...made,
      credential: { current: Effect.sync(() => Redacted.make(state.key)), changes: undefined },
      register: (one) => enter("register", made.register(one)),
      heartbeat: (lease) => enter("heartbeat", made.heartbeat(lease)),
      verify: (lease, one) => enter("verify", made.verify(lease, one)),
      ...state.registry
    }))
  ).pipe(Layer.provide(scripted.layer))
  const store = Layer.succeed(
    KeyValueStore.KeyValueStore,
    KeyValueStore.makeStringOnly({
      get: (key) => Effect.map(Effect.suspend(() => state.read), () => entries.get(key)),
      set: (key, value) =>
        Effect.map(Effect.suspend(() => state.write(key)), () => {
          state.writes++
          entries.set(key, value)
          state.written(key)
        }),
      remove: (key) => Effect.sync(() => entries.delete(key)),
      clear: Effect.sync(() => entries.clear()),
      size: Effect.sync(() => entries.size),
      keys: Effect.sync(() => [...entries.keys()])
    })
  )
  const logger = Layer.merge(
    Logger.layer([Logger.make(({ logLevel, message }) => {
      lines.push({ level: logLevel, message: Array.isArray(message) ? message.join(" ") : String(message) })
    })]),
    Layer.succeed(References.MinimumLogLevel, "Debug")
  )
  // Built afresh for each invocation, as a Worker does.
  const provide = <A, E>(
    self: Effect.Effect<A, E, Registry.Registry | KeyValueStore.KeyValueStore>
  ): Effect.Effect<A, E> => Effect.provide(self, [registry, store, logger], { local: true })
  return {
    scripted,
    entered,
    entries,
    lines,
    state,
    // The first verification comes after a random number of beats: only tests that ask for verifications get them.
    run: (more?: Partial<CheckIn.Options>) =>
      provide(CheckIn.run({ instance, heartbeat: { verifyEvery: 0 }, ...more })),
    runAlarm: (more?: Partial<CheckIn.Options>) =>
      provide(CheckIn.runAlarm({ instance, heartbeat: { verifyEvery: 0 }, ...more })),
    deregister: provide(CheckIn.deregister({ instance })),
    reset: provide(CheckIn.reset({ instance })),
    /** The record, not the claim. */
    record: (): string => [...entries].find(([key]) => !key.endsWith(":claim"))?.[1] ?? "",
    recordKey: (): string => [...entries.keys()].find((key) => !key.endsWith(":claim")) ?? "",
    names: () => scripted.calls.map(({ name }) => name),
    warnings: () => lines.filter(({ level }) => level === "Warn").map(({ message }) => message)
  }
})

/** Invokes it after each of these waits. */
const ticks = Effect.fnUntraced(function*<A, E>(self: Effect.Effect<A, E>, waits: ReadonlyArray<Duration.Input>) {
  const out: Array<A> = []
  for (const wait of waits) {
    yield* TestClock.adjust(wait)
    out.push(yield* self)
  }
  return out
})

const times = (n: number, wait: Duration.Input = "1 minute"): ReadonlyArray<Duration.Input> =>
  Array.from({ length: n }, () => wait)

const tags = (reports: ReadonlyArray<CheckIn.Report>): ReadonlyArray<string> => reports.map(({ _tag }) => _tag)

const storeError = new KeyValueStore.KeyValueStoreError({ method: "set", message: "the store is down" })

const bytes = (text: string): number => new TextEncoder().encode(text).length

describe("a cron of one minute", () => {
  it.effect("registers and beats at first, then beats once per invocation", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const first = yield* h.run()
      assert(first._tag === "Registered")
      assert.deepStrictEqual(first.calls, ["Register", "Heartbeat"])
      assert.strictEqual(first.lease.id, "lease-1")
      assert.strictEqual(first.status, "Online")
      const reports = yield* ticks(h.run(), times(8))
      assert.deepStrictEqual(tags(reports), times(8).map(() => "Beat"))
      assert.isTrue(reports.every(({ status }) => status === "Online"))
      assert.strictEqual(h.scripted.calls.length, 10)
    }))

  it.effect("verifies with every tenth beat", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const run = h.run({ heartbeat: {} })
      yield* run
      const reports = yield* ticks(run, times(29))
      const verified = reports.flatMap(({ _tag }, index) => _tag === "Verified" ? [index] : [])
      assert.isAtLeast(verified.length, 2)
      for (const [index, at] of verified.entries()) {
        if (index > 0) assert.strictEqual(at - (verified[index - 1] ?? 0), 10)
      }
      assert.deepStrictEqual(reports[verified[0] ?? -1]?.calls, ["Heartbeat", "Verify"])
    }))

  it.effect("an invocation at 59.9 s does not skip a beat, for a day of unsteady invocations", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      // Early and late by up to 5 s, without drifting away.
      const offset = (n: number): number => [0, 100, -100, 4900, -4900, 50][n % 6] ?? 0
      const waits = Array.from({ length: 1440 }, (_, n) => 60_000 + offset(n + 1) - offset(n))
      const reports = yield* ticks(h.run(), waits)
      assert.isTrue(reports.every(({ status }) => status === "Online"))
      assert.isTrue(reports.every(({ _tag }) => _tag === "Beat" || _tag === "Verified"))
      const beats = h.scripted.times("heartbeat")
      for (const [index, at] of beats.entries()) assert.isAtMost(at - (beats[index - 1] ?? 0), 70)
    }))

  it.effect("one invocation that is missing is not a sleep: it beats, and was online all the time", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      const [late] = yield* ticks(h.run(), ["119 seconds"])
      assert.deepStrictEqual(late?.calls, ["Heartbeat"])
    }))

  it.effect("invoked too often, it sends nothing in between", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), times(1))
      const writes = h.state.writes
      const reports = yield* ticks(h.run(), times(20, "1 second"))
      assert.isTrue(reports.every(({ _tag, calls }) => _tag === "NotDue" && calls.length === 0))
      assert.strictEqual(h.state.writes, writes)
      yield* ticks(h.run(), times(580, "1 second"))
      assert.isAtMost(h.scripted.times("heartbeat").length, 2 + 600 / 30)
      assert.strictEqual(h.scripted.times("register").length, 1)
    }))

  it.effect("with a longer interval the invocation that is nearest to the due time beats", () =>
    Effect.gen(function*() {
      const h = yield* harness({ expiresAfter: "20 minutes" })
      const run = h.run({ heartbeat: { interval: "5 minutes" } })
      yield* run
      // The first beat after the registration falls at a random phase of the interval.
      yield* ticks(run, times(6))
      const first = h.scripted.times("heartbeat").at(-1) ?? 0
      yield* ticks(run, times(14, "59.9 seconds"))
      const beats = h.scripted.times("heartbeat").filter((at) => at > first)
      assert.isAtLeast(beats.length, 2)
      for (const [index, at] of beats.entries()) assert.approximately(at - (beats[index - 1] ?? first), 300, 31)
    }))

  it.effect("an interval that was shortened since holds from now on", () =>
    Effect.gen(function*() {
      const h = yield* harness({ expiresAfter: "2 days" })
      const slow = h.run({ heartbeat: { interval: "1 day" } })
      yield* slow
      yield* ticks(slow, ["1 day"])
      const [report] = yield* ticks(h.run(), ["1 minute"])
      assert.deepStrictEqual(report?.calls, ["Heartbeat"])
    }))

  it.effect("says where it is too slow for the registry", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run({ every: "5 minutes" })
      assert.isTrue(
        h.warnings().some((line) => line.includes("5m") && line.includes("2m") && line.includes("too slow"))
      )
      const leased = yield* harness({ capabilities: { expiresAfter: undefined } })
      leased.state.registry = {
        register: () =>
          Effect.succeed({ id: "1", name: "resizer", type: "worker", registeredAt: 0, expiresAfter: 45_000 })
      }
      yield* leased.run()
      assert.isTrue(leased.warnings().some((line) => line.includes("45s")))
      const fine = yield* harness()
      yield* fine.run()
      assert.deepStrictEqual(fine.warnings(), [])
    }))
})

describe("too late", () => {
  it.effect("after hours, the first action is to verify, then to beat (Beat 11)", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), times(2))
      const [report] = yield* ticks(h.run(), ["3 hours"])
      assert.deepStrictEqual(report?.calls, ["Verify", "Heartbeat"])
      assert.strictEqual(report?._tag, "Verified")
      assert.strictEqual(report?.status, "Online")
    }))

  it.effect("after hours, a registration that is gone is made again", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), times(2))
      h.scripted.script("verify", Scripted.unknownLease("verify"))
      const [again, beat] = yield* ticks(h.run(), ["3 hours", "1 minute"])
      assert.deepStrictEqual(again?.calls, ["Verify", "Register"])
      assert.strictEqual(again?._tag, "Registered")
      assert.strictEqual(again?.status, "Offline")
      assert.deepStrictEqual(beat?.calls, ["Heartbeat"])
      assert.strictEqual(beat?.status, "Online")
    }))

  it.effect("what failed when the invocations stopped is tried again at once, whatever its backoff", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", Scripted.unavailable("register", "1 day"))
      yield* h.run()
      const [report] = yield* ticks(h.run(), ["6 hours"])
      assert.deepStrictEqual(report?.calls, ["Register", "Heartbeat"])
    }))

  it.effect("a clock that was set back an hour does not keep it from beating", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* TestClock.setTime(10_000_000)
      yield* h.run()
      yield* ticks(h.run(), times(2))
      yield* TestClock.setTime(10_000_000 - 3_600_000)
      const report = yield* h.run()
      assert.deepStrictEqual(report.calls, ["Verify", "Heartbeat"])
      const reports = yield* ticks(h.run(), times(5))
      assert.isTrue(reports.every(({ _tag, status }) => _tag === "Beat" && status === "Online"))
    }))
})

describe("a lost lease", () => {
  it.effect("is registered again by the same invocation, and beaten by the next (Beat 3, 9)", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("heartbeat", Scripted.unknownLease("heartbeat"))
      const [again, beat] = yield* ticks(h.run(), times(2))
      assert(again?._tag === "Registered")
      assert.deepStrictEqual(again.calls, ["Heartbeat", "Register"])
      assert.strictEqual(again.lease.id, "lease-2")
      assert.deepStrictEqual(beat?.calls, ["Heartbeat"])
      assert.strictEqual(beat?.status, "Online")
      assert.lengthOf(h.warnings(), 1)
    }))

  it.effect("found by the verification is registered again by the next invocation, which is due at once", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const run = h.run({ heartbeat: { verifyEvery: 1 } })
      yield* run
      yield* ticks(run, times(8))
      h.scripted.script("verify", Scripted.unknownLease("verify"))
      const [lost, again] = yield* ticks(run, times(2))
      assert(lost?._tag === "Retrying")
      assert.deepStrictEqual(lost.calls, ["Heartbeat", "Verify"])
      assert.deepInclude(lost.cause, { error: "LeaseLost", reason: "UnknownLease" })
      assert.strictEqual(lost.dueAt, 540_000)
      assert.deepStrictEqual(again?.calls, ["Register", "Heartbeat"])
      assert.strictEqual(again?.status, "Online")
    }))

  it.effect("a registry that accepts and forgets gets no hot loop", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("heartbeat", Scripted.unknownLease("heartbeat"))
      yield* h.run()
      yield* ticks(h.run(), times(3600, "1 second"))
      assert.isAtMost(h.scripted.calls.length, 2 * (2 + 1 + 3600 / 30))
    }))

  it.effect("taken by another instance, with onTaken yield: halted as Replaced, and silent (Beat 8)", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const run = h.run({ heartbeat: { onTaken: "yield" } })
      yield* run
      h.scripted.script("heartbeat", Scripted.leaseTaken("heartbeat", "https://other.test"))
      const [taken] = yield* ticks(run, times(1))
      assert(taken?._tag === "Halted")
      assert.strictEqual(taken.reason, "Replaced")
      assert.include(taken.cause?.message, "https://other.test")
      assert.strictEqual(taken.status, "Closed")
      const sent = h.scripted.calls.length
      const later = yield* ticks(run, times(10))
      assert.isTrue(later.every(({ _tag, dueAt }) => _tag === "Halted" && dueAt === Infinity))
      assert.strictEqual(h.scripted.calls.length, sent)
    }))
})

describe("failures", () => {
  it.effect("the backoff is kept from one invocation to the next, and recovery is verified (Beat 5)", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), times(2))
      h.scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
      const failing = yield* ticks(h.run({ heartbeat: {} }), times(4))
      assert(failing[0]?._tag === "Retrying")
      assert.strictEqual(failing[0].failures, 1)
      assert.strictEqual(failing[0].status, "Unconfirmed")
      assert.strictEqual(failing.at(-1)?.status, "Offline")
      const failures = failing.flatMap((report) => report._tag === "Retrying" ? [report.failures] : [])
      assert.deepStrictEqual(failures, failures.map((_, index) => index + 1))
      h.scripted.otherwise("heartbeat", "ok")
      const recovering = yield* ticks(h.run({ heartbeat: {} }), times(2))
      const recovered = recovering.find(({ calls }) => calls.length > 0)
      assert.deepStrictEqual(recovered?.calls, ["Heartbeat", "Verify"])
      assert.strictEqual(recovered?.status, "Online")
      assert.isTrue(h.lines.some(({ message }) => /^recovered after \d failures$/.test(message)))
    }))

  it.effect("an outage of an hour: at most one attempt per minute, and back within two minutes of its end", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), times(2))
      for (const name of ["register", "heartbeat", "verify"] as const) {
        h.scripted.otherwise(name, Scripted.unavailable(name))
      }
      const before = h.scripted.calls.length
      yield* ticks(h.run(), times(60, "59.9 seconds"))
      const attempts = h.scripted.calls.length - before
      assert.isAtMost(attempts, 60)
      // The cap is one interval: a wait of 60 s is not stretched to two invocations by a tick that is 0.1 s early.
      assert.isAtLeast(attempts, 55)
      for (const name of ["register", "heartbeat", "verify"] as const) h.scripted.otherwise(name, "ok")
      const reports = yield* ticks(h.run(), times(2))
      assert.strictEqual(reports.at(-1)?.status, "Online")
    }))

  it.effect("a backoff is not cut short by invocations that come too often", () =>
    Effect.gen(function*() {
      const h = yield* harness({ expiresAfter: "1 hour" })
      const failing = Backoff.make({ base: "40 seconds", cap: "40 seconds", jitter: "none" })
      const run = h.run({ heartbeat: { failing, verifyEvery: 0, reregisterAfter: 0 } })
      yield* run
      yield* ticks(run, times(2))
      h.scripted.otherwise("heartbeat", Scripted.unavailable("heartbeat"))
      yield* ticks(run, times(1))
      const before = h.scripted.calls.length
      yield* ticks(run, times(100, "1 second"))
      // Two waits of 40 s, each at most a tenth shorter for the unsteadiness of crons.
      const at = h.scripted.times("heartbeat").slice(before - h.scripted.calls.length)
      assert.deepStrictEqual(at, [216, 252])
    }))

  it.effect("a Retry-After is heeded by all invocations that follow, also with a new description", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unavailable("register", "150 seconds"))
      const registering = Backoff.make({ jitter: "none" })
      const run = h.run({ heartbeat: { registering } })
      yield* run
      yield* ticks(run, times(140, "1 second"))
      yield* ticks(h.run({ heartbeat: { registering }, instance: { ...instance, version: "2" } }), times(9, "1 second"))
      assert.deepStrictEqual(h.scripted.times("register"), [0])
      yield* ticks(run, times(1, "1 second"))
      assert.deepStrictEqual(h.scripted.times("register"), [0, 150])
    }))

  it.effect("while it waits for a Retry-After it says why", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", Scripted.unavailable("register", "150 seconds"))
      const first = yield* h.run()
      assert(first._tag === "Retrying")
      assert.isAtLeast(first.dueAt, 150_000)
      const reports = yield* ticks(h.run(), times(149, "1 second"))
      assert.isTrue(reports.every(({ _tag, calls }) => _tag === "NotDue" && calls.length === 0))
      assert.isTrue(reports.every(({ status }) => status === "Registering"))
      assert(reports[0]?._tag === "NotDue")
      assert.deepInclude(reports[0].cause, { error: "Transient", reason: "Unavailable" })
      yield* ticks(h.run(), times(4))
      assert.strictEqual(h.scripted.times("register").length, 2)
      yield* ticks(h.run(), times(2))
      const over = yield* h.run()
      assert(over._tag === "NotDue")
      assert.isUndefined(over.cause)
    }))

  it.effect("with keepTrying false it gives up as the bounded backoff does, until it is reset", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unavailable("register"))
      const run = h.run({ heartbeat: { keepTrying: false } })
      yield* run
      const reports = yield* ticks(run, times(30))
      const last = reports.at(-1)
      assert(last?._tag === "Halted")
      assert.strictEqual(last.reason, "GivenUp")
      assert.strictEqual(last.status, "Standalone")
      assert.strictEqual(h.scripted.calls.length, 7)
      h.scripted.otherwise("register", "ok")
      yield* h.reset
      assert.strictEqual((yield* run)._tag, "Registered")
    }))

  it.effect("logs when it will really try again: by which invocation", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", Scripted.unavailable("register", "90 seconds"))
      yield* h.run()
      const [line] = h.warnings()
      assert.match(line ?? "", /next attempt in [23]m$/)
    }))

  it.effect("a defect of the adapter is a failure for now", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", { defect: new Error("a bug") })
      assert.strictEqual((yield* h.run())._tag, "Retrying")
    }))
})

describe("a definitive no", () => {
  it.effect("fatal auth: fails in each invocation, with one request in all, until the credential changes", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unauthorized("register"))
      const first = yield* Effect.flip(h.run())
      assert.strictEqual(first._tag, "AuthFailed")
      const later = yield* ticks(Effect.flip(h.run()), times(60))
      for (const error of later) {
        assert(error._tag === "AuthFailed")
        assert.strictEqual(error.reason._tag, "Unauthorized")
        assert.strictEqual(error.message, first.message)
      }
      assert.strictEqual(h.scripted.calls.length, 1)

      h.state.key = "second, wrong as well"
      yield* Effect.flip(h.run())
      yield* ticks(Effect.flip(h.run()), times(60))
      assert.strictEqual(h.scripted.calls.length, 2)

      h.state.key = "third"
      h.scripted.otherwise("register", "ok")
      const report = yield* h.run()
      assert.deepStrictEqual(report.calls, ["Register", "Heartbeat"])
      assert.strictEqual(report.status, "Online")
    }))

  it.effect("fatal auth of a beat: with a new credential it verifies first", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("heartbeat", Scripted.unauthorized("heartbeat"))
      yield* ticks(Effect.flip(h.run()), times(3))
      assert.strictEqual(h.scripted.calls.length, 3)
      h.state.key = "second"
      const [report] = yield* ticks(h.run(), times(1))
      assert.deepStrictEqual(report?.calls, ["Verify", "Heartbeat"])
      assert.strictEqual(report?.status, "Online")
    }))

  it.effect("a credential that changed while the request with the old one was in flight is tried, too", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.state.registry = {
        register: () =>
          Effect.suspend(() => {
            h.state.key = "changed meanwhile"
            return Effect.fail(Scripted.unauthorized("register"))
          })
      }
      yield* Effect.flip(h.run())
      h.state.registry = {}
      const [report] = yield* ticks(h.run(), ["35 seconds"])
      assert.strictEqual(report?._tag, "Registered")
    }))

  it.effect("a credential that changes back to one that was refused before the last is asked about once more", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unauthorized("register"))
      yield* Effect.flip(h.run())
      h.state.key = "second"
      yield* ticks(Effect.flip(h.run()), times(3))
      h.state.key = "first"
      yield* ticks(Effect.flip(h.run()), times(3))
      assert.strictEqual(h.scripted.calls.length, 3)
    }))

  it.effect("a refusal fails in each invocation with one request, until the description changes", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.invalid("register"))
      const first = yield* Effect.flip(h.run())
      const later = yield* ticks(Effect.flip(h.run()), times(10))
      for (const error of [first, ...later]) {
        assert(error._tag === "Refused")
        assert.include(error.message, "body.name: too long")
      }
      assert.strictEqual(h.scripted.calls.length, 1)
      h.scripted.otherwise("register", "ok")
      const report = yield* h.run({ instance: { ...instance, version: "2" } })
      assert.strictEqual(report._tag, "Registered")
    }))

  it.effect("a refusal is tried again after reset", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", Scripted.invalid("register"))
      yield* Effect.flip(h.run())
      yield* h.reset
      assert.strictEqual(h.entries.size, 0)
      assert.strictEqual((yield* h.run())._tag, "Registered")
    }))

  it.effect("each reason of a definitive no comes back as it was", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      for (const error of Scripted.definitive("register")) {
        h.entries.clear()
        h.scripted.script("register", error)
        const now = yield* Effect.flip(h.run())
        const later = yield* Effect.flip(h.run())
        assert.strictEqual(now, error)
        assert(later._tag === "AuthFailed" || later._tag === "Refused")
        assert.strictEqual(later._tag, error._tag)
        assert.strictEqual(later.reason._tag, error.reason._tag)
        assert.strictEqual(later.message, error.message)
      }
    }))

  it.effect("a page of a proxy in the middle of things is a failure for now", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("heartbeat", Scripted.malformed("heartbeat"))
      const [report] = yield* ticks(h.run(), times(1))
      assert.strictEqual(report?._tag, "Retrying")
    }))
})

describe("the description", () => {
  it.effect("that changed is registered at once, also between two beats", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      for (
        const changed of [
          { ...instance, version: "2" },
          { ...instance, version: "2", apiUrl: "https://other.test" },
          { ...instance, version: "2", apiUrl: "https://other.test", apiKey: Redacted.make("one") },
          { ...instance, version: "2", apiUrl: "https://other.test", apiKey: Redacted.make("two") }
        ]
      ) {
        const [report, same] = yield* ticks(h.run({ instance: changed }), ["1 second", "1 second"])
        assert.deepStrictEqual(report?.calls, ["Register", "Heartbeat"])
        assert.notInclude(same?.calls ?? [], "Register")
      }
    }))

  it.effect("that changed does not have a rejected credential tried again", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unauthorized("register"))
      yield* Effect.flip(h.run())
      yield* ticks(Effect.flip(h.run({ instance: { ...instance, version: "2" } })), times(3))
      assert.strictEqual(h.scripted.calls.length, 1)
      h.state.key = "second"
      h.scripted.otherwise("register", "ok")
      yield* h.run({ instance: { ...instance, version: "2" } })
      assert.strictEqual(h.scripted.instances.at(-1)?.version, "2")
    }))

  it.effect("that changed while the credential was rejected is registered with the next credential", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("heartbeat", Scripted.unauthorized("heartbeat"))
      yield* ticks(Effect.flip(h.run()), times(1))
      const changed = h.run({ instance: { ...instance, version: "2" } })
      yield* ticks(Effect.flip(changed), times(2))
      h.state.key = "second"
      const [report] = yield* ticks(changed, times(1))
      assert.deepStrictEqual(report?.calls, ["Register", "Heartbeat"])
      assert.strictEqual(h.scripted.instances.at(-1)?.version, "2")
    }))

  it.effect("that is wrong in itself fails with the path of the field, before any request", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const error = yield* Effect.flip(h.run({ instance: { ...instance, name: " " } }))
      assert(error._tag === "Refused" && error.reason._tag === "InvalidRequest")
      assert.deepStrictEqual(error.reason.issues.map(({ path }) => path), ["instance.name"])
      assert.strictEqual(h.scripted.calls.length, 0)
      assert.strictEqual(h.entries.size, 0)
    }))
})

describe("the record", () => {
  const Unknown = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json)))

  /** A record as it would be with one of its fields changed. */
  const withField = (text: string, change: (record: { [key: string]: Schema.Json }) => void): string => {
    const record = { ...Unknown(text) }
    change(record)
    return JSON.stringify(record)
  }

  const nested = (value: Schema.Json | undefined): { [key: string]: Schema.Json } =>
    value === undefined ? {} : { ...Unknown(JSON.stringify(value)) }

  it.effect.each<[string, (text: string) => string]>([
    ["empty", () => ""],
    ["not JSON", () => "<html>"],
    ["cut off", (text) => text.slice(0, 100)],
    ["null", () => "null"],
    ["another thing", () => "{\"hello\":1}"],
    ["of an older version", (text) => withField(text, (record) => (record["version"] = 0))],
    ["of a newer version", (text) => withField(text, (record) => (record["version"] = 2))],
    ["without a state", (text) => withField(text, (record) => delete record["state"])],
    [
      "with a time that is text",
      (text) => withField(text, (record) => (record["state"] = { ...nested(record["state"]), dueAt: "soon" }))
    ],
    [
      "with negative failures",
      (text) => withField(text, (record) => (record["state"] = { ...nested(record["state"]), failures: -1 }))
    ],
    [
      "with nothing due for ever",
      (text) =>
        withField(text, (record) => (record["state"] = { ...nested(record["state"]), next: "Idle", dueAt: null }))
    ],
    ["rejected without a cause", (text) =>
      withField(text, (record) => (record["state"] = {
        ...nested(record["state"]),
        mode: "Unauthorized",
        next: "Idle",
        dueAt: null
      }))],
    ["with a lease that cannot be read", (text) => withField(text, (record) => (record["lease"] = { id: 7 }))],
    ["of another service", (text) => withField(text, (record) => (record["of"] = "other"))]
  ])("that is %s is a fresh start with one warning, never a crash", ([, change]) =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* ticks(h.run(), ["31 seconds"])
      const text = h.record()
      const changed = change(text)
      assert.notStrictEqual(changed, text)
      h.entries.set(h.recordKey(), changed)
      h.lines.length = 0
      const [report] = yield* ticks(h.run(), ["31 seconds"])
      assert.strictEqual(report?._tag, "Registered")
      assert.lengthOf(h.warnings(), 1)
      assert.include(h.warnings()[0], h.recordKey())
      const [next] = yield* ticks(h.run(), times(1))
      assert.strictEqual(next?._tag, "Beat")
    }))

  it.effect("that belongs to another registry, or to a registry at another place, is a fresh start", () =>
    Effect.gen(function*() {
      const h = yield* harness({ capabilities: { target: "http://pulse:9696" } })
      yield* h.run()
      const same = yield* harness({ capabilities: { target: "http://pulse:9696" } })
      for (const [key, value] of h.entries) same.entries.set(key, value)
      const [beat] = yield* ticks(same.run(), times(1))
      assert.strictEqual(beat?._tag, "Beat")
      for (const capabilities of [{ target: "http://other:9696" }, { target: "http://pulse:9696", adapter: "other" }]) {
        const other = yield* harness({ capabilities })
        for (const [key, value] of h.entries) other.entries.set(key, value)
        const [report] = yield* ticks(other.run(), ["35 seconds"])
        assert.strictEqual(report?._tag, "Registered")
        assert.lengthOf(other.warnings(), 1)
      }
    }))

  it.effect("of each service has a key of its own, unless one is given", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      for (
        const one of [
          instance,
          { ...instance, name: "resizer2" },
          { ...instance, type: "worker2" },
          { ...instance, name: "ä/ö", type: "ü" },
          { ...instance, name: "ß/ö", type: "ü" },
          { ...instance, name: "\ud800".repeat(200), type: "\u{1f600}".repeat(25) }
        ]
      ) yield* h.run({ instance: one })
      const keys = [...h.entries.keys()]
      assert.lengthOf(keys.filter((key) => !key.endsWith(":claim")), 6)
      for (const key of keys) assert.match(key, /^[\w.:-]{1,140}$/)
      yield* h.run({ key: "mine" })
      assert.isTrue(h.entries.has("mine"))
    }))

  it.effect("two services under one key register in turn, and say so", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run({ key: "mine" })
      yield* ticks(h.run({ key: "mine", instance: { ...instance, name: "other" } }), times(1))
      assert.include(h.warnings()[0], "another service")
      assert.deepStrictEqual(h.scripted.instances.map(({ name }) => name), ["resizer", "other"])
    }))

  it.effect("its salt and the ids of claims are 48 random bits of the platform's", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      let drawn = 0
      const crypto: Pick<Crypto, "subtle" | "getRandomValues" | "randomUUID"> = {
        subtle: globalThis.crypto.subtle,
        randomUUID: () => globalThis.crypto.randomUUID(),
        getRandomValues: (array) => {
          assert.instanceOf(array, Uint8Array)
          return array.fill(0xa0 + drawn++)
        }
      }
      yield* Effect.provide(h.run({ key: "mine" }), WebCrypto.layer(crypto))
      assert.include(h.entries.get("mine"), "a0".repeat(6))
      assert.include(h.entries.get("mine:claim"), "a1".repeat(6))
      assert.strictEqual(drawn, 2)
    }))

  it.effect("is at most 1 kB, and without a secret", () =>
    Effect.gen(function*() {
      const secret = "s3cr3t-of-the-service"
      const h = yield* harness()
      h.state.key = "k3y-of-the-registry"
      const long: ServiceInstance.Input = {
        name: "\u{1f600}".repeat(100),
        type: "t".repeat(50),
        apiUrl: `https://long.test/${"x".repeat(500)}`,
        apiKey: Redacted.make(secret)
      }
      const errors = [
        ...Scripted.definitive("register", "\u{1f600}\"\\\n".repeat(200)),
        Scripted.unavailable("register", "1 day")
      ]
      for (const error of errors) {
        h.entries.clear()
        h.scripted.script("register", error)
        yield* Effect.exit(h.run({ instance: long }))
        assert.isAtMost(bytes(h.record()), 1000)
        assert.notInclude(h.record(), secret)
        assert.notInclude(h.record(), h.state.key)
        // And what was written can be read again.
        h.lines.length = 0
        yield* Effect.exit(h.run({ instance: long }))
        assert.deepStrictEqual(h.warnings(), [])
      }
      // The longest there is: rejected with a lease in hand, late in the life of a program.
      yield* TestClock.setTime(1_800_000_000_000)
      h.entries.clear()
      h.state.registry = {
        register: () =>
          Effect.succeed({
            id: "01234567-89ab-cdef-0123-456789abcdef",
            name: long.name,
            type: long.type,
            registeredAt: 1_800_000_000_000,
            expiresAfter: 120_000
          })
      }
      yield* h.run({ instance: long })
      yield* ticks(h.run({ instance: long }), times(3))
      h.scripted.script(
        "heartbeat",
        new AuthFailed({
          operation: "heartbeat",
          target: `PUT https://pulse.test/${"\u{1f600}\"\\".repeat(200)}`,
          reason: new ProofRejected({ detail: "\u{1f600}\"\\\n".repeat(200) })
        })
      )
      yield* ticks(Effect.flip(h.run({ instance: long })), times(1))
      assert.isAtMost(bytes(h.record()), 1000)
      assert.isAtLeast(bytes(h.record()), 800)
      h.entries.clear()
      yield* h.run({ instance: long })
      yield* ticks(h.run({ instance: long }), times(3))
      assert.isAtMost(bytes(h.record()), 1000)
      assert.notInclude(h.record(), secret)
      assert.isFalse(h.lines.some(({ message }) => message.includes(secret) || message.includes(h.state.key)))
    }))

  it.effect("keeps all of a lease", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const lease: Lease.Lease = {
        id: "7",
        name: "resizer",
        type: "worker",
        registeredAt: 0,
        expiresAfter: 90_000,
        data: "session-1"
      }
      const shown: Array<Lease.Lease> = []
      h.state.registry = {
        register: () => Effect.succeed(lease),
        heartbeat: (one) => Effect.sync(() => void shown.push(one))
      }
      yield* h.run()
      yield* ticks(h.run(), times(1))
      assert.deepStrictEqual(shown, [lease, lease])
    }))
})

describe("twice at once", () => {
  it.effect("the first time: one registers, the other is superseded and sends nothing", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const release = yield* Deferred.make<void>()
      h.scripted.script("register", { when: release, then: "ok" })
      const one = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      const other = yield* h.run()
      assert.strictEqual(other._tag, "Superseded")
      assert.deepStrictEqual(other.calls, [])
      assert.isAtMost(other.dueAt, 30_000)
      // It wrote nothing: a KV namespace takes one write per second and key.
      assert.strictEqual(h.state.writes, 1)
      yield* Deferred.succeed(release, void 0)
      assert.strictEqual((yield* Fiber.join(one))._tag, "Registered")
      assert.deepStrictEqual(h.names(), ["register", "heartbeat"])
      const [next] = yield* ticks(h.run(), times(1))
      assert.strictEqual(next?._tag, "Beat")
    }))

  it.effect("in a store that sees writes late both register under one identity: one record, and it goes on", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const releases = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      for (const when of releases) h.scripted.script("register", { when, then: "ok" })
      const one = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      // The claim has not arrived where the other one reads.
      h.entries.clear()
      const other = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      for (const release of releases) yield* Deferred.succeed(release, void 0)
      const reports = tags([yield* Fiber.join(one), yield* Fiber.join(other)])
      assert.deepStrictEqual([...reports].sort(), ["Registered", "Superseded"])
      assert.strictEqual(new Set(h.scripted.instances.map(({ name, type }) => `${type}/${name}`)).size, 1)
      const [next] = yield* ticks(h.run(), times(1))
      assert.strictEqual(next?._tag, "Beat")
    }))

  it.effect("with a new credential: only one tries it", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("heartbeat", Scripted.unauthorized("heartbeat"))
      yield* ticks(Effect.flip(h.run()), times(1))
      yield* Queue.takeAll(h.entered)
      h.state.key = "second, wrong as well"
      const release = yield* Deferred.make<void>()
      h.scripted.script("verify", { when: release, then: Scripted.unauthorized("verify") })
      const one = yield* Effect.forkChild(Effect.flip(h.run()))
      yield* Queue.take(h.entered)
      assert.strictEqual((yield* h.run())._tag, "Superseded")
      yield* Deferred.succeed(release, void 0)
      assert.strictEqual((yield* Fiber.join(one))._tag, "AuthFailed")
      assert.strictEqual(h.scripted.times("verify").length, 1)
    }))

  it.effect("the claim of another that arrives at any moment before the request is respected", () =>
    Effect.gen(function*() {
      const claim = JSON.stringify({ id: "other", until: 20_000 })
      // As the claim is read for the first time, for the second time, and after it was written.
      for (const moment of [2, 3, "written"] as const) {
        const h = yield* harness()
        const key = "mine:claim"
        let reads = 0
        h.state.read = Effect.sync(() => {
          if (++reads === moment) h.entries.set(key, claim)
        })
        h.state.written = (written) => {
          if (moment === "written" && written === key) h.entries.set(key, claim)
        }
        const report = yield* h.run({ key: "mine" })
        assert.strictEqual(report._tag, "Superseded", String(moment))
        assert.strictEqual(report.dueAt, 20_000)
        assert.strictEqual(h.entries.get(key), claim)
        assert.strictEqual(h.scripted.calls.length, 0)
      }
    }))

  it.effect("a claim that says nothing, or that a clock in the future wrote, holds nobody up", () =>
    Effect.gen(function*() {
      for (
        const claim of ["", "null", "{}", "{\"id\":\"x\",\"until\":\"soon\"}", "{\"id\":\"x\",\"until\":99999999}"]
      ) {
        const h = yield* harness()
        h.entries.set("mine:claim", claim)
        assert.strictEqual((yield* h.run({ key: "mine" }))._tag, "Registered", claim)
      }
    }))

  it.effect("a slow invocation does not overwrite what a later one found out", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* Queue.takeAll(h.entered)
      yield* TestClock.adjust("1 minute")
      const release = yield* Deferred.make<void>()
      h.scripted.script("heartbeat", { when: release, then: "ok" }, Scripted.unknownLease("heartbeat"))
      const slow = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      const faster = yield* h.run()
      assert(faster._tag === "Registered")
      const record = h.record()
      yield* Deferred.succeed(release, void 0)
      assert.strictEqual((yield* Fiber.join(slow))._tag, "Superseded")
      assert.strictEqual(h.record(), record)
    }))

  it.effect("many at once, against a registry that counts: one registration", () =>
    Effect.gen(function*() {
      const memory = yield* Memory.Memory
      const store = yield* KeyValueStore.KeyValueStore
      const reports = yield* Effect.all(
        Array.from({ length: 20 }, () =>
          CheckIn.run({ instance }).pipe(
            Effect.provideService(Registry.Registry, memory.registry),
            Effect.provideService(KeyValueStore.KeyValueStore, store)
          )),
        { concurrency: "unbounded" }
      )
      assert.lengthOf(yield* memory.services, 1)
      assert.strictEqual(reports.filter(({ _tag }) => _tag === "Registered").length, 1)
    }).pipe(Effect.provide([Memory.layer(), KeyValueStore.layerMemory])))
})

describe("a crash", () => {
  it.effect("between the request and the record: the request is made again, with the same identity", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.state.write = (key) => key.endsWith(":claim") ? Effect.void : Effect.die(new Error("killed"))
      yield* Effect.exit(h.run())
      assert.strictEqual(h.record(), "")
      assert.deepStrictEqual(h.names(), ["register", "heartbeat"])
      h.state.write = () => Effect.void
      // Its claim still stands, for as long as it could have been at it.
      const [early, again] = yield* ticks(h.run(), ["1 second", "1 minute"])
      assert.strictEqual(early?._tag, "Superseded")
      assert.strictEqual(again?._tag, "Registered")
      assert.deepStrictEqual(h.scripted.instances.map(({ name }) => name), ["resizer", "resizer"])
    }))

  it.effect("between a beat and the record: the beat is sent again", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.state.write = () => Effect.die(new Error("killed"))
      yield* ticks(Effect.exit(h.run()), times(1))
      h.state.write = () => Effect.void
      const [again] = yield* ticks(h.run(), ["1 second"])
      assert.deepStrictEqual(again?.calls, ["Heartbeat"])
    }))

  it.effect("while a request is in flight: interrupted, and nothing is saved", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("register", "hang")
      const fiber = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(h.scripted.inFlight(), 0)
      assert.strictEqual(h.record(), "")
    }))
})

describe("the store", () => {
  it.effect("that cannot be read: a typed error, and no request", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.state.read = Effect.fail(storeError)
      assert.strictEqual((yield* Effect.flip(h.run()))._tag, "KeyValueStoreError")
      assert.strictEqual((yield* Effect.flip(h.runAlarm()))._tag, "KeyValueStoreError")
      assert.strictEqual(h.scripted.calls.length, 0)
    }))

  it.effect("that cannot be written: a typed error; it is done again", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.state.write = (key) => key.endsWith(":claim") ? Effect.void : Effect.fail(storeError)
      assert.strictEqual((yield* Effect.flip(h.run()))._tag, "KeyValueStoreError")
      h.state.write = () => Effect.void
      const [again] = yield* ticks(h.run(), times(1))
      assert.strictEqual(again?._tag, "Registered")
    }))
})

describe("without a registry", () => {
  it.effect("reports Disabled, sends nothing and stores nothing", () =>
    Effect.gen(function*() {
      const store = yield* KeyValueStore.KeyValueStore
      for (const report of [yield* CheckIn.run({ instance }), yield* CheckIn.runAlarm({ instance })]) {
        assert.deepStrictEqual(report, { _tag: "Disabled", status: "Disabled", dueAt: Infinity, calls: [] })
        assert.isFalse(Duration.isFinite(yield* CheckIn.nextDelay(report)))
      }
      yield* CheckIn.deregister({ instance })
      assert.strictEqual(yield* store.size, 0)
    }).pipe(Effect.provide([Registry.layerDisabled, KeyValueStore.layerMemory])))
})

describe("deregister", () => {
  it.effect("removes the registration, and stops until it is reset", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* h.deregister
      assert.deepStrictEqual(h.names(), ["register", "heartbeat", "deregister"])
      const reports = yield* ticks(h.run({ instance: { ...instance, version: "2" } }), times(10))
      for (const report of reports) {
        assert(report._tag === "Halted")
        assert.strictEqual(report.reason, "Deregistered")
        assert.strictEqual(report.status, "Closed")
        assert.strictEqual(report.dueAt, Infinity)
      }
      assert.strictEqual(h.scripted.calls.length, 3)
      yield* h.reset
      assert.strictEqual((yield* h.run())._tag, "Registered")
    }))

  it.effect("that failed may be made again; meanwhile nothing registers", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      h.scripted.script("deregister", Scripted.unavailable("deregister"))
      assert.strictEqual((yield* Effect.flip(h.deregister))._tag, "Transient")
      const [report] = yield* ticks(h.run(), times(1))
      assert.strictEqual(report?._tag, "Halted")
      yield* h.deregister
      assert.deepStrictEqual(h.scripted.times("deregister"), [0, 60])
    }))

  it.effect("before any registration only stops", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.deregister
      assert.strictEqual((yield* h.run())._tag, "Halted")
      assert.strictEqual(h.scripted.calls.length, 0)
    }))

  it.effect("while an invocation is under way: its record does not undo the stop", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* h.run()
      yield* Queue.takeAll(h.entered)
      yield* TestClock.adjust("1 minute")
      const release = yield* Deferred.make<void>()
      h.scripted.script("heartbeat", { when: release, then: "ok" })
      const fiber = yield* Effect.forkChild(h.run())
      yield* Queue.take(h.entered)
      yield* h.deregister
      yield* Deferred.succeed(release, void 0)
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "Superseded")
      const [report] = yield* ticks(h.run(), times(1))
      assert.strictEqual(report?._tag, "Halted")
    }))
})

describe("an alarm", () => {
  /** Fires when the report said so, for as long as this takes. */
  const alarms = Effect.fnUntraced(function*(run: Effect.Effect<CheckIn.Report, unknown>, until: number) {
    const reports: Array<CheckIn.Report> = []
    while (true) {
      const report = yield* Effect.orDie(run)
      reports.push(report)
      const delay = yield* CheckIn.nextDelay(report)
      if (!((yield* Clock.currentTimeMillis) + Duration.toMillis(delay) <= until)) return reports
      yield* TestClock.adjust(delay)
    }
  })

  it.effect("comes exactly when something is due: every 30 s, after a first beat at a phase of that", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      const reports = yield* alarms(h.runAlarm(), 3_600_000)
      assert.isTrue(reports.every(({ status }) => status === "Online"))
      const beats = h.scripted.times("heartbeat")
      assert.approximately(beats.length, 121, 1)
      for (const [index, at] of beats.entries()) {
        if (index > 1) assert.strictEqual(Math.round(at - (beats[index - 1] ?? 0)), 30)
      }
      // Each alarm had something to do.
      assert.isTrue(reports.every(({ calls }) => calls.length > 0))
    }))

  it.effect("of a fatal auth goes on looking, and sends nothing, until the credential changes", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.otherwise("register", Scripted.unauthorized("register"))
      const reports = yield* alarms(h.runAlarm(), 600_000)
      for (const report of reports) {
        assert(report._tag === "Halted")
        assert.strictEqual(report.reason, "AuthFailed")
        assert.deepInclude(report.cause, { error: "AuthFailed", reason: "Unauthorized" })
        assert.strictEqual(report.status, "Halted")
      }
      assert.isAbove(reports.length, 15)
      assert.strictEqual(h.scripted.calls.length, 1)
      h.state.key = "second"
      h.scripted.otherwise("register", "ok")
      const after = yield* alarms(h.runAlarm(), (yield* Clock.currentTimeMillis) + 2000)
      assert.strictEqual(after.at(-1)?.status, "Online")
    }))

  it.effect("that comes hours late verifies first, spread over seconds", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* alarms(h.runAlarm(), 100_000)
      const [report] = yield* ticks(h.runAlarm(), ["3 hours"])
      assert(report?._tag === "NotDue")
      const delay = yield* CheckIn.nextDelay(report)
      assert.isAtMost(Duration.toMillis(delay), 5000)
      const [verified] = yield* ticks(h.runAlarm(), [delay])
      assert.deepStrictEqual(verified?.calls, ["Verify", "Heartbeat"])
    }))

  it.effect("of a lease that was found lost by a verification follows at once", () =>
    Effect.gen(function*() {
      const h = yield* harness()
      h.scripted.script("verify", Scripted.unknownLease("verify"))
      const reports = yield* alarms(h.runAlarm({ heartbeat: { verifyEvery: 1 } }), 600_000)
      const lost = reports.findIndex(({ _tag }) => _tag === "Retrying")
      assert.deepStrictEqual(reports[lost]?.calls, ["Heartbeat", "Verify"])
      assert.deepStrictEqual(reports[lost + 1]?.calls, ["Register", "Heartbeat"])
      const registered = h.scripted.times("register")
      const verified = h.scripted.times("verify")
      assert.strictEqual(registered[1], verified[0])
    }))
})

describe("any registry, clock and invoker", () => {
  const Answer = Schema.Literals([
    "ok",
    "ok",
    "ok",
    "failed",
    "throttled",
    "lost",
    "taken",
    "unauthorized",
    "invalid",
    "defect"
  ])
  const Turns = Schema.NonEmptyArray(Schema.Struct({
    answers: Schema.Tuple([Answer, Answer]),
    wait: Schema.Literals([0, 1, 59_900, 60_000, 60_000, 60_100, 3_600_000]),
    clock: Schema.Literals([0, 0, 0, -3_600_000, 86_400_000]),
    rotate: Schema.Literals([false, false, true]),
    corrupt: Schema.Literals([false, false, false, false, true])
  })).check(Schema.isMaxLength(25))

  const answerTo = (name: "register" | "heartbeat" | "verify", answer: typeof Answer.Type): Scripted.Answer => {
    switch (answer) {
      case "ok":
        return "ok"
      case "failed":
        return Scripted.unavailable(name)
      case "throttled":
        return Scripted.unavailable(name, "5 minutes")
      case "lost":
        return name === "register" ? "ok" : Scripted.unknownLease(name)
      case "taken":
        return name === "register" ? "ok" : Scripted.leaseTaken(name, "https://other.test")
      case "unauthorized":
        return Scripted.unauthorized(name)
      case "invalid":
        return Scripted.invalid(name)
      case "defect":
        return { defect: new Error("a bug") }
    }
  }

  it.effect.prop("at most 2 requests and 1 kB each, typed failures only, and no rejected credential twice", {
    turns: Turns
  }, ({ turns }) =>
    Effect.gen(function*() {
      const h = yield* harness()
      yield* TestClock.setTime(1_700_000_000_000)
      let rejected: string | undefined
      for (const [index, turn] of turns.entries()) {
        yield* TestClock.adjust(turn.wait)
        yield* TestClock.setTime((yield* Clock.currentTimeMillis) + turn.clock)
        if (turn.rotate) h.state.key = `${"x".repeat(index + 1)}`
        if (turn.corrupt && h.recordKey() !== "") {
          h.entries.set(h.recordKey(), h.record().slice(1))
          rejected = undefined
        }
        const before = h.scripted.calls.length
        let nth = 0
        const next = () => turn.answers[nth++] ?? "ok"
        for (const name of ["register", "heartbeat", "verify"] as const) {
          h.scripted.otherwise(name, { pick: () => answerTo(name, next()) })
        }
        const result = yield* Effect.result(h.run({ heartbeat: { verifyEvery: 2 } }))
        const sent = h.scripted.calls.length - before
        assert.isAtMost(sent, 2)
        if (rejected === h.state.key) assert.strictEqual(sent, 0)
        if (sent > 0) rejected = undefined
        if (result._tag === "Failure") {
          assert.include(["AuthFailed", "Refused"], result.failure._tag)
          if (result.failure._tag === "AuthFailed") rejected = h.state.key
        } else {
          assert.strictEqual(result.success.calls.length, sent)
          assert.isTrue(result.success.dueAt > 0)
        }
        assert.isAtMost(bytes(h.record()), 1000)
        assert.isAtMost(h.entries.size, 2)
      }
    }), { arbitrary: { runs: 400 } })
})
