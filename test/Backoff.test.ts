import { assert, describe, it, vi } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as LifelineError from "effect-lifeline/LifelineError"
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

// ---------------------------------------------------------------------------------------------------------------------
// Generators and drivers
// ---------------------------------------------------------------------------------------------------------------------

const between = (minimum: number, maximum: number) => Schema.Finite.check(Schema.isBetween({ minimum, maximum }))
const whole = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** A draw in [0, 1), its edges included. */
const Draw = Schema.Union([Schema.Literals([0, 0.5, 1 - 2 ** -53]), between(0, 1 - 2 ** -53)])

const JitterSchema = Schema.Union([
  Schema.Literals(["phase", "none", "full", "equal", "decorrelated"]),
  Schema.Struct({ proportional: between(0, 1) })
])

const optionsOf = (jitter: Schema.Schema<Backoff.Jitter>, minimumFactor = 1) =>
  Schema.Struct({
    base: whole(1, 120_000),
    factor: between(minimumFactor, 10),
    widening: between(1, 1000),
    floor: whole(0, 200_000),
    jitter
  })

const policiesOf = (jitter: Schema.Schema<Backoff.Jitter>, minimumFactor = 1): Arbitrary.Arbitrary<Backoff.Unbounded> =>
  Arbitrary.map(
    Arbitrary.schema(optionsOf(jitter, minimumFactor)),
    ({ base, widening, ...options }) => Backoff.make({ ...options, base, cap: base * widening })
  )

const Policies = policiesOf(JitterSchema)
const PhasePolicies = policiesOf(Schema.Literal("phase"), 2)

const Draws = Schema.NonEmptyArray(Draw).check(Schema.isMaxLength(60))

/** What a server may say of when to come back, whatever it means by that. */
const Hint = Schema.UndefinedOr(
  Schema.Union([Schema.Literals([0, 1, 250, 86_400_000, -5000]), Schema.Number, between(-1e4, 1e6)])
)

/** How long an attempt took, and what the server then asked for. */
const Script = Schema.NonEmptyArray(Schema.Struct({ took: whole(0, 40_000), hint: Hint, random: Draw }))
  .check(Schema.isMaxLength(60))

const equalWithin = (tolerance: number) => (actual: number, expected: number, message?: string) =>
  assert.isAtMost(Math.abs(actual - expected), tolerance, `${message ?? ""} ${actual} against ${expected}`)

/** The states of one outage whose failures bring these draws; attempts take no time. */
const outage = (policy: Backoff.Policy, draws: ReadonlyArray<number>, now = 0): ReadonlyArray<Backoff.State> => {
  const states: Array<Backoff.State> = []
  let state: Backoff.State | undefined = Backoff.initial
  for (const random of draws) {
    state = Backoff.step(policy, state, { now, random })
    if (state === undefined) break
    now += state.wait
    states.push(state)
  }
  return states
}

const sum = (values: ReadonlyArray<number>): number => values.reduce((total, value) => total + value, 0)

/** When the n-th attempt of an outage starts, from n = 1, in milliseconds after its first failure. */
const attemptsAt = (waits: ReadonlyArray<number>): ReadonlyArray<number> =>
  waits.map((_, index) => sum(waits.slice(0, index + 1)))

const constantRandom = (value: number): typeof Random.Random.Service => ({
  nextIntUnsafe: () => Math.floor(value * Number.MAX_SAFE_INTEGER),
  nextDoubleUnsafe: () => value
})

const transient = (hint?: Duration.Input): LifelineError.Transient =>
  new LifelineError.Transient({
    operation: "heartbeat",
    target: "PUT http://registry:9696/api/v1/services/7f/heartbeat",
    reason: hint === undefined
      ? new LifelineError.Unreachable({ detail: "ECONNREFUSED" })
      : new LifelineError.Throttled({ retryAfter: Duration.fromInputUnsafe(hint) })
  })

const authFailed = new LifelineError.AuthFailed({
  operation: "heartbeat",
  target: "PUT http://registry:9696/api/v1/services/7f/heartbeat",
  reason: new LifelineError.Unauthorized({})
})

const next = (policy: Backoff.Policy, failure: Partial<Backoff.Failure> = {}, state = Backoff.initial) =>
  Backoff.step(policy, state, { now: 0, random: 0.5, ...failure })

// ---------------------------------------------------------------------------------------------------------------------
// Policies
// ---------------------------------------------------------------------------------------------------------------------

describe("make", () => {
  it("has the documented defaults", () => {
    assert.deepStrictEqual(Backoff.make(), {
      base: 1000,
      factor: 2,
      cap: 30_000,
      floor: 100,
      jitter: Backoff.jitter("phase"),
      resetAfter: 10_000,
      hint: { floor: 100, ceiling: 300_000 },
      bound: "unbounded"
    })
    const bounded = Backoff.make({ attempts: 3 })
    assert.deepStrictEqual([bounded.bound, bounded.attempts, bounded.elapsed], ["bounded", 3, Infinity])
    const limited = Backoff.make({ elapsed: "1 minute" })
    assert.deepStrictEqual([limited.bound, limited.attempts, limited.elapsed], ["bounded", Infinity, 60_000])
  })

  it.each<[string, Backoff.Options, Partial<Backoff.Bounded>]>([
    ["a factor below 1", { factor: 0.5 }, { factor: 1 }],
    ["a factor that is not a number", { factor: NaN }, { factor: 2 }],
    ["a negative base", { base: -5 }, { base: 1 }],
    ["a base that is not a number", { base: NaN }, { base: 1000 }],
    ["a cap below the base", { base: "1 minute", cap: "1 second" }, { base: 60_000, cap: 60_000 }],
    ["an endless cap", { cap: Infinity }, { cap: 2 ** 31 - 1 }],
    ["a base above the default cap", { base: "1 minute" }, { base: 60_000, cap: 60_000 }],
    ["an endless base", { base: "Infinity" }, { base: 2 ** 31 - 1, cap: 2 ** 31 - 1 }],
    ["a floor above the cap", { floor: "1 hour" }, { floor: 30_000 }],
    ["a negative floor", { floor: -1 }, { floor: 0 }],
    ["a negative proportion", { jitter: { proportional: -1 } }, { jitter: Backoff.jitter({ proportional: 0 }) }],
    ["a proportion above 1", { jitter: { proportional: 3 } }, { jitter: Backoff.jitter({ proportional: 1 }) }],
    ["a proportion that is not a number", { jitter: { proportional: NaN } }, {
      jitter: Backoff.jitter({ proportional: 0 })
    }],
    ["no attempts", { attempts: 0 }, { bound: "bounded", attempts: 1 }],
    ["attempts that are not a number", { attempts: NaN }, { bound: "bounded", attempts: 1 }],
    ["a negative elapsed", { elapsed: -1 }, { bound: "bounded", elapsed: 0 }],
    ["an elapsed that is not a number", { elapsed: NaN }, { bound: "bounded", elapsed: 0 }],
    ["a negative reset", { resetAfter: -1 }, { resetAfter: 0 }],
    ["a ceiling below the floor", { hintFloor: 500, hintCeiling: 100 }, { hint: { floor: 500, ceiling: 500 } }]
  ])("moves %s to what makes sense", (_, options, expected) => {
    assert.deepInclude(Backoff.make(options), expected)
  })

  it("is data: numbers, and a jitter that its name brings back", () => {
    const policy: Backoff.Policy = Backoff.make({ attempts: 4, elapsed: "1 minute", jitter: { proportional: 0.25 } })
    const read: Backoff.Policy = JSON.parse(JSON.stringify(policy))
    assert.deepStrictEqual({ ...read, jitter: Backoff.jitter(read.jitter.name) }, policy)
  })
})

describe("presets", () => {
  const windows = (policy: Backoff.Policy, count: number): ReadonlyArray<number> =>
    Array.from({ length: count }, (_, index) => Backoff.window(policy, index + 1) / 1000)

  it.each<[string, Backoff.Policy, ReadonlyArray<number>, Backoff.Jitter, number]>([
    ["streams", Backoff.streams, [1, 2, 4, 8, 16, 30, 30], "phase", Infinity],
    ["synchronous", Backoff.synchronous, [1, 2, 4, 8], "phase", 5],
    ["registration", Backoff.registration, [2, 4, 8, 16, 32, 32], "phase", 7],
    ["heartbeat(30 s)", Backoff.heartbeat("30 seconds"), [30, 60, 60, 60], "phase", Infinity],
    ["pulseRegistration", Backoff.pulseRegistration, [2, 4, 8, 16, 32, 32], "none", 7],
    ["pulseHeartbeat", Backoff.pulseHeartbeat, [30, 45, 67.5, 101.25, 151.875, 227.8125, 300, 300], "none", Infinity],
    ["hatchetStreams", Backoff.hatchetStreams, [1, 2, 4, 8, 16, 30, 30], "full", Infinity],
    ["hatchetSynchronous", Backoff.hatchetSynchronous, [1, 2, 4, 8], "full", 5],
    ["hatchetUnary", Backoff.hatchetUnary, [5, 10, 20, 40], "full", 5],
    ["hatchetRest", Backoff.hatchetRest, [0.25, 0.5, 1, 2], "full", 5],
    ["boreControl", Backoff.boreControl, [1, 2, 4, 8, 16, 32, 51.2, 51.2], { proportional: 0.25 }, Infinity]
  ])("%s", (_, policy, expected, jitter, attempts) => {
    assert.deepStrictEqual(windows(policy, expected.length), expected)
    assert.deepStrictEqual(policy.jitter, Backoff.jitter(jitter))
    assert.strictEqual(policy.bound === "bounded" ? policy.attempts : Infinity, attempts)
  })

  // Windows alone would not tell caps that are not reached, nor what a server's word counts for.
  it.each<[string, Backoff.Policy, Partial<Backoff.Policy>]>([
    ["hatchetStreams", Backoff.hatchetStreams, { cap: 30_000, floor: 0, resetAfter: 10_000 }],
    ["hatchetSynchronous", Backoff.hatchetSynchronous, { cap: 30_000, floor: 0 }],
    ["hatchetUnary", Backoff.hatchetUnary, { cap: 80_000, floor: 0 }],
    ["hatchetRest", Backoff.hatchetRest, { cap: 5000, floor: 0, hint: { floor: 0, ceiling: 5000 } }],
    ["pulseHeartbeat", Backoff.pulseHeartbeat, { cap: 300_000, resetAfter: 0 }],
    ["boreControl", Backoff.boreControl, { cap: 64_000 }]
  ])("%s, and what its windows do not show", (_, policy, expected) => {
    assert.deepInclude(policy, expected)
  })

  it("a Retry-After counts for at most 5 s with REST calls, as in Hatchet's SDKs", () => {
    for (const [hint, wait] of [[0, 0], [3000, 3000], [5000, 5000], [60_000, 5000]] as const) {
      const state = Backoff.step(Backoff.hatchetRest, Backoff.initial, { now: 0, random: 0, hint })
      assert.strictEqual(state?.wait, wait)
    }
  })

  it("waits to the second like Pulse: 6 waits, 94 s", () => {
    assert.deepStrictEqual(Backoff.waits(Backoff.pulseRegistration, 0.3), [2000, 4000, 8000, 16_000, 32_000, 32_000])
    assert.deepStrictEqual(
      Backoff.waits(Backoff.pulseHeartbeat, 0.3, 7),
      [30_000, 45_000, 67_500, 101_250, 151_875, 227_812.5, 300_000]
    )
  })

  it("has a caller wait for at most 15 s", () => {
    for (const random of [0, 0.5, 1 - 2 ** -53]) {
      assert.isAtMost(sum(Backoff.waits(Backoff.synchronous, random)), 15_000)
      assert.lengthOf(Backoff.waits(Backoff.synchronous, random), 4)
    }
  })

  it("bore's control connection never waits longer than its cap", () => {
    const waits = outage(Backoff.boreControl, Array.from({ length: 20 }, () => 1 - 2 ** -53)).map(({ wait }) => wait)
    assert.isAtMost(Math.max(...waits), 64_000)
    assert.isAtLeast(Math.max(...waits), 63_999)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Windows, waits, jitter
// ---------------------------------------------------------------------------------------------------------------------

describe("window", () => {
  it.prop(
    "is capped before any jitter, and never shrinks",
    { policy: Policies, n: whole(1, 2000) },
    ({ n, policy }) => {
      const { name } = policy.jitter
      const ratio = typeof name === "object" ? name.proportional : 0
      const width = Backoff.window(policy, n)
      assert.strictEqual(width, Math.min(policy.cap / (1 + ratio), policy.base * policy.factor ** (n - 1)))
      assert.isAtMost(width, policy.cap)
      assert.isAtLeast(Backoff.window(policy, n + 1), width)
      assert.strictEqual(Backoff.window(policy, 0), 0)
    }
  )
})

describe("step", () => {
  it.prop("waits at least the floor and at most the cap", { policy: Policies, draws: Draws }, ({ draws, policy }) => {
    for (const { wait } of outage(policy, draws)) {
      assert.isAtLeast(wait, policy.floor)
      assert.isAtMost(wait, policy.cap * (1 + 1e-12))
    }
  })

  it.prop("draws from the range of its jitter", { policy: Policies, draws: Draws }, ({ draws, policy }) => {
    let before = 0
    for (const { failures, phase, wait } of outage(policy, draws)) {
      const width = Backoff.window(policy, failures)
      const range = ((): readonly [number, number] => {
        const { name } = policy.jitter
        switch (name) {
          case "none":
            return [width, width]
          case "phase":
            return [(1 - phase) * Backoff.window(policy, failures - 1), width]
          case "full":
            return [0, width]
          case "equal":
            return [width / 2, width]
          case "decorrelated":
            return [policy.base, Math.min(policy.cap, Math.max(policy.base, 3 * before))]
          default:
            return [width * (1 - name.proportional), width * (1 + name.proportional)]
        }
      })()
      assert.isAtLeast(wait, Math.max(policy.floor, range[0]) * (1 - 1e-12))
      assert.isAtMost(wait, Math.max(policy.floor, range[1]) * (1 + 1e-12))
      before = wait
    }
  })

  it.prop(
    "is a function: the same failures give the same waits, and a state out of a store goes on as it was",
    { policy: Policies, draws: Draws },
    ({ draws, policy }) => {
      const states = outage(policy, draws)
      assert.deepStrictEqual(outage(policy, draws), states)
      const middle = states[Math.floor(states.length / 2)]
      const after = states[Math.floor(states.length / 2) + 1]
      if (middle === undefined || after === undefined) return
      const stored = (state: Backoff.State | undefined): Backoff.State => JSON.parse(JSON.stringify(state))
      const now = sum(states.slice(0, middle.failures).map(({ wait }) => wait))
      const random = draws[middle.failures] ?? 0
      assert.deepStrictEqual(stored(Backoff.step(policy, stored(middle), { now, random })), stored(after))
    }
  )

  it.prop("phase: attempt k comes at the windows before k and u of window k", {
    policy: PhasePolicies,
    u: Draw,
    later: Draws
  }, ({ later, policy, u }) => {
    const waits = outage(policy, [u, ...later]).map(({ wait }) => wait)
    // A phase below floor / base is moved up to the floor once; where the floor is wider than windows, each is.
    if (policy.floor > policy.base * Math.max(u, 1 - u)) return
    const moved = Math.max(0, policy.floor - u * policy.base)
    attemptsAt(waits).forEach((at, index) => {
      const before = sum(Array.from({ length: index }, (_, n) => Backoff.window(policy, n + 1)))
      equalWithin(1e-9 * at)(at, before + u * Backoff.window(policy, index + 1) + moved, `attempt ${index + 1}:`)
    })
  })

  it.prop("phase: at the cap it comes exactly once per window", { u: Draw }, ({ u }) => {
    const at = attemptsAt(Backoff.waits(Backoff.streams, u, 60))
    const firstCapped = 31_000 + Math.max(0, 100 - u * 1000)
    for (let n = 0; n < 50; n++) {
      const from = firstCapped + n * 30_000
      assert.lengthOf(at.filter((time) => time >= from - 1e-6 && time < from + 30_000 - 1e-6), 1, `window ${n}`)
    }
  })

  describe("jitter survives at the cap", () => {
    const seed = "the cap"
    const clients = 1000
    // Fails for 20 times, by then all windows are capped; what counts is the spread of the 21st attempts or waits.
    const drawn = (jitter: Backoff.Jitter): Effect.Effect<ReadonlyArray<{ wait: number; at: number }>> =>
      Effect.forEach(
        Array.from({ length: clients }),
        () =>
          Effect.map(Effect.forEach(Array.from({ length: 21 }), () => Random.next), (draws) => {
            const states = outage(Backoff.make({ jitter, floor: 0 }), draws)
            return { wait: states.at(-1)?.wait ?? NaN, at: sum(states.map(({ wait }) => wait)) }
          })
      ).pipe(Random.withSeed(seed))
    const spread = (values: ReadonlyArray<number>): number => Math.max(...values) - Math.min(...values)

    it.effect("phase: the attempts of a fleet fill the window", () =>
      Effect.gen(function*() {
        const at = (yield* drawn("phase")).map(({ at }) => at % 30_000)
        assert.isAtLeast(spread(at), 0.8 * 30_000, `seed ${seed}`)
        for (let slice = 0; slice < 30; slice++) {
          const inside = at.filter((time) => Math.floor(time / 1000) === slice)
          assert.isAtMost(inside.length, 2 * clients / 30, `second ${slice}, seed ${seed}`)
        }
      }))

    it.effect.each<[Backoff.Jitter, number]>([
      ["full", 30_000],
      ["equal", 15_000],
      [{ proportional: 0.25 }, 12_000],
      ["decorrelated", 29_000]
    ])("%j", ([jitter, range]) =>
      Effect.gen(function*() {
        const waits = (yield* drawn(jitter)).map(({ wait }) => wait)
        assert.isAtLeast(spread(waits), 0.8 * range, `seed ${seed}`)
        assert.isAtMost(spread(waits), range)
        assert.isAtMost(Math.max(...waits), 30_000)
      }))

    it.effect("none: a fleet stays in phase", () =>
      Effect.gen(function*() {
        assert.strictEqual(spread((yield* drawn("none")).map(({ wait }) => wait)), 0)
      }))
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Giving up
// ---------------------------------------------------------------------------------------------------------------------

describe("a bounded policy", () => {
  it.prop("makes exactly as many attempts as it says", {
    policy: Policies,
    attempts: whole(1, 60),
    random: Draw
  }, ({ attempts, policy, random }) => {
    const waits = Backoff.waits({ ...policy, bound: "bounded", attempts, elapsed: Infinity }, random)
    assert.lengthOf(waits, attempts - 1)
  })

  it.prop("starts its last attempt in time, and no wait would have been left", {
    policy: Policies,
    elapsed: whole(0, 3_600_000),
    random: Draw
  }, ({ elapsed, policy, random }) => {
    const bounded: Backoff.Bounded = { ...policy, bound: "bounded", attempts: Infinity, elapsed }
    const waits = Backoff.waits(bounded, random, 2000)
    const unbounded = Backoff.waits(policy, random, waits.length + 1)
    assert.isAtMost(sum(waits), elapsed)
    if (waits.length < 2000) assert.isAbove(sum(unbounded), elapsed)
    assert.deepStrictEqual(unbounded.slice(0, waits.length), waits)
  })

  it("gives up at whichever limit comes first", () => {
    const policy = (attempts: number, elapsed: Duration.Input) =>
      Backoff.waits(Backoff.make({ jitter: "none", attempts, elapsed }), 0)
    assert.deepStrictEqual(policy(3, "1 hour"), [1000, 2000])
    assert.deepStrictEqual(policy(10, "7 seconds"), [1000, 2000, 4000])
    assert.deepStrictEqual(policy(10, 6999), [1000, 2000])
    assert.deepStrictEqual(policy(10, 0), [])
    assert.deepStrictEqual(policy(1, "1 hour"), [])
  })

  it("gives up when the server asks for more time than is left", () => {
    const policy = Backoff.make({ elapsed: "10 seconds" })
    assert.isUndefined(next(policy, { hint: 11_000 }))
    assert.isDefined(next(policy, { hint: 5000 }))
  })

  it("counts from the start of the first attempt, where that is known", () => {
    const policy = Backoff.make({ elapsed: "10 seconds", jitter: "none" })
    assert.deepInclude(next(policy, { now: 9000, startedAt: 0 }), { since: 0, wait: 1000 })
    assert.isUndefined(next(policy, { now: 9001, startedAt: 0 }))
    assert.deepInclude(next(policy, { now: 9001, startedAt: 10_000 }), { since: 9001 })
    const second = next(policy, { now: 8000, startedAt: 7000 }, next(policy, { now: 2000, startedAt: 0 }))
    assert.deepInclude(second, { since: 0, wait: 2000 })
  })

  it("counts from the new time when the clock was set back, and still gives up", () => {
    const policy = Backoff.make({ elapsed: "10 seconds", jitter: "none" })
    const first = next(policy, { now: 3_600_000 })
    assert.isDefined(first)
    const second = next(policy, { now: 0 }, first)
    assert.deepInclude(second, { since: 0, wait: 2000 })
    assert.isUndefined(next(policy, { now: 9000 }, second))
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Hints
// ---------------------------------------------------------------------------------------------------------------------

describe("a server's hint", () => {
  const exact = Backoff.make({ jitter: "none", hintFloor: "2 seconds", hintCeiling: "1 minute" })

  it.each<[string, number | undefined, number]>([
    ["none", undefined, 1000],
    ["zero", 0, 2000],
    ["negative", -5000, 2000],
    ["below the floor", 1500, 2000],
    ["inside", 10_000, 10_000],
    ["a day", 86_400_000, 60_000],
    ["for ever", Infinity, 60_000],
    ["not a number", NaN, 1000]
  ])("%s", (_, hint, wait) => {
    assert.strictEqual(next(exact, { hint })?.wait, wait)
  })

  it("never shortens a wait", () => {
    const late = outage(exact, Array.from({ length: 8 }, () => 0)).at(-1)
    assert.strictEqual(next(exact, { hint: 5000 }, late)?.wait, 30_000)
  })

  it.prop("only lengthens, and by no more than ceiling and cap", {
    policy: Policies,
    hint: Hint,
    random: Draw,
    draws: Draws
  }, ({ draws, hint, policy, random }) => {
    const state = outage(policy, draws).at(-1) ?? Backoff.initial
    const without = next(policy, { random }, state)?.wait ?? NaN
    const wait = next(policy, { random, hint }, state)?.wait ?? NaN
    assert.isAtLeast(wait, without)
    assert.isAtMost(wait, Math.max(without, policy.hint.ceiling + policy.cap))
    if (hint !== undefined && hint >= policy.hint.floor) assert.isAtLeast(wait, Math.min(hint, policy.hint.ceiling))
  })

  it.each<Backoff.Jitter>(["phase", "full", "equal", { proportional: 0.1 }, "decorrelated"])(
    "given to a whole fleet at once does not bring it back at once: %j",
    (jitter) => {
      const policy = Backoff.make({ jitter })
      const waits = Array.from(
        { length: 1000 },
        (_, n) => next(policy, { random: n / 1000, hint: 30_000 })?.wait ?? NaN
      )
      assert.isAtLeast(Math.min(...waits), 30_000)
      for (let from = 30_000; from < 60_000; from += 1000) {
        assert.isAtMost(waits.filter((wait) => wait >= from && wait < from + 1000).length, 36)
      }
    }
  )
})

describe("recovered", () => {
  const state = next(Backoff.streams) ?? Backoff.initial

  it("starts over after a healthy period only", () => {
    assert.strictEqual(Backoff.recovered(Backoff.streams, state, 5000, 14_999), state)
    assert.strictEqual(Backoff.recovered(Backoff.streams, state, 5000, 15_000), Backoff.initial)
  })

  it("does not start over because the clock was set back", () => {
    assert.strictEqual(Backoff.recovered(Backoff.streams, state, 5000, 0), state)
  })

  it("keeps the growing waits of a server that accepts and drops", () => {
    let flapping = Backoff.initial
    const waits: Array<number> = []
    for (let now = 0; waits.length < 6;) {
      flapping = Backoff.recovered(Backoff.streams, flapping, now - 200, now)
      flapping = Backoff.step(Backoff.streams, flapping, { now, random: 0.5 }) ?? Backoff.initial
      waits.push(flapping.wait)
      now += flapping.wait + 200
    }
    assert.deepStrictEqual(waits, [500, 1500, 3000, 6000, 12_000, 23_000])
  })

  it("draws a new phase for a new outage, and none within one", () => {
    const first = next(Backoff.streams, { random: 0.1 })
    const second = next(Backoff.streams, { random: 0.9 }, first)
    assert.strictEqual(second?.phase, 0.1)
    assert.strictEqual(next(Backoff.streams, { random: 0.9 }, Backoff.initial)?.phase, 0.9)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Never a hot loop
// ---------------------------------------------------------------------------------------------------------------------

describe("never a hot loop", () => {
  /**
   * How often one may try within `t` after the failure that began an outage. The attempt that failed then is counted too
   * (`began`), which the first window has to be wide enough for: cap at least twice the base.
   */
  const allowed = (policy: Backoff.Policy, t: number): number =>
    1 + Math.log2(policy.cap / policy.base) + t / (policy.cap / 2)

  const assertBound = (policy: Backoff.Policy, times: ReadonlyArray<number>, began: number) =>
    times.forEach((t, index) => {
      assert.isAtMost(index + 1 + began, allowed(policy, t) + 1e-9, `${index + 1} attempts by ${t} ms`)
    })

  const timesOf = (policy: Backoff.Policy, script: typeof Script.Type): ReadonlyArray<number> => {
    const times: Array<number> = []
    let state: Backoff.State | undefined = Backoff.initial
    let now = 0
    for (const { hint, random, took } of script) {
      state = Backoff.step(policy, state, { now, random, hint })
      if (state === undefined) break
      now += state.wait
      times.push(now)
      now += took
    }
    return times
  }

  const defaults = [
    Backoff.streams,
    Backoff.registration,
    Backoff.synchronous,
    Backoff.heartbeat("30 seconds"),
    Backoff.heartbeat("100 millis")
  ]

  it.prop("by any script of failures and hints, the one that began the outage included: the default policies", {
    script: Script
  }, ({ script }) => {
    for (const policy of defaults) assertBound(policy, timesOf(policy, script), 1)
  })

  it.prop(
    "by any script, the attempts after the failure that began it: every phase policy with a factor of 2 or more",
    {
      policy: PhasePolicies,
      script: Script
    },
    ({ policy, script }) => assertBound(policy, timesOf(policy, script), 0)
  )

  it("by the worst script: attempts that fail at once, no hints, the lowest and the highest phase", () => {
    for (const policy of defaults) {
      for (const random of [0, 1e-9, 0.05, 0.1, 0.5, 1 - 2 ** -53]) {
        assertBound(policy, attemptsAt(Backoff.waits(policy, random, 1000)), 1)
      }
    }
  })

  it.effect.prop("in a real loop, whatever the server answers", {
    script: Script,
    seed: whole(0, 1_000_000)
  }, ({ script, seed }) =>
    Effect.gen(function*() {
      const times: Array<number> = []
      let calls = 0
      const call = Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        times.push(now)
        const { hint, took } = script[calls++ % script.length] ?? { hint: undefined, took: 0 }
        yield* Effect.sleep(calls === 1 ? 0 : took)
        return yield* transient(hint === undefined ? undefined : Duration.millis(hint))
      })
      const began = yield* Clock.currentTimeMillis
      const fiber = yield* Effect.forkChild(Random.withSeed(Backoff.retry(call, Backoff.streams), seed))
      yield* TestClock.adjust("10 minutes")
      yield* Fiber.interrupt(fiber)
      assert.isAtLeast(times.length, 2)
      assertBound(Backoff.streams, times.map((time) => time - began), 0)
    }), { arbitrary: { runs: 40 } })
})

// ---------------------------------------------------------------------------------------------------------------------
// Drivers
// ---------------------------------------------------------------------------------------------------------------------

/** Runs a call that always fails, in virtual time; says when it was tried and how it ended. */
const observe = Effect.fnUntraced(function*<A, E>(
  run: (call: Effect.Effect<never, LifelineError.Transient>) => Effect.Effect<A, E>,
  random: number,
  duration: Duration.Input,
  hint?: Duration.Input
) {
  const times: Array<number> = []
  const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
    times.push(now)
    return Effect.fail(transient(hint))
  })
  const began = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(
    Effect.provideService(Effect.exit(run(call)), Random.Random, constantRandom(random))
  )
  yield* TestClock.adjust(duration)
  const exit = fiber.pollUnsafe()
  yield* Fiber.interrupt(fiber)
  return { times: times.map((time) => time - began), ended: exit }
})

describe("retry", () => {
  it.effect("gives up after its attempts, and says how many, how long and why", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Effect.flip(Backoff.retry(transient(), Backoff.pulseRegistration)))
      yield* TestClock.adjust("94 seconds")
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, LifelineError.Exhausted)
      assert.strictEqual(error.attempts, 7)
      assert.strictEqual(Duration.toSeconds(error.elapsed), 94)
      assert.strictEqual(error.last.reason._tag, "Unreachable")
    }))

  it.effect("does not give up a millisecond early", () =>
    Effect.gen(function*() {
      const { ended, times } = yield* observe(Backoff.retry(Backoff.pulseRegistration), 0.5, 93_999)
      assert.isUndefined(ended)
      assert.deepStrictEqual(times, [0, 2000, 6000, 14_000, 30_000, 62_000])
    }))

  it.effect("counts the time of the attempts in what it reports, not in its waits", () =>
    Effect.gen(function*() {
      const slow = Effect.andThen(Effect.sleep("10 seconds"), Effect.fail(transient()))
      const policy = Backoff.make({ jitter: "none", attempts: 3 })
      const fiber = yield* Effect.forkChild(Effect.flip(Backoff.retry(slow, policy)))
      yield* TestClock.adjust("33 seconds")
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, LifelineError.Exhausted)
      assert.strictEqual(Duration.toSeconds(error.elapsed), 33)
    }))

  it.effect("passes every other failure on at once", () =>
    Effect.gen(function*() {
      let calls = 0
      const call: Effect.Effect<never, LifelineError.Transient | LifelineError.AuthFailed> = Effect.suspend(() => {
        calls++
        return Effect.fail(authFailed)
      })
      assert.strictEqual(yield* Effect.flip(Backoff.retry(call, Backoff.streams)), authFailed)
      assert.strictEqual(calls, 1)
    }))

  it.effect("passes a later failure, a defect and a value on", () =>
    Effect.gen(function*() {
      const scripted = (last: Effect.Effect<string, LifelineError.AuthFailed>) => {
        let calls = 0
        return Effect.suspend((): Effect.Effect<string, LifelineError.Transient | LifelineError.AuthFailed> =>
          ++calls < 3 ? Effect.fail(transient()) : last
        )
      }
      const run = Effect.fnUntraced(function*(last: Effect.Effect<string, LifelineError.AuthFailed>) {
        const fiber = yield* Effect.forkChild(Effect.exit(Backoff.retry(scripted(last), Backoff.streams)))
        yield* TestClock.adjust("10 seconds")
        return yield* Fiber.join(fiber)
      })
      assert.deepStrictEqual(yield* run(Effect.succeed("value")), Exit.succeed("value"))
      assert.deepStrictEqual(yield* run(Effect.fail(authFailed)), Exit.fail(authFailed))
      const defect = yield* run(Effect.die("bug"))
      assert.isTrue(Exit.isFailure(defect) && Cause.hasDies(defect.cause))
    }))

  it.effect("an unbounded policy outlasts a day, at one attempt per cap", () =>
    Effect.gen(function*() {
      const { ended, times } = yield* observe(Backoff.retry(Backoff.streams), 0.5, "1 day")
      assert.isUndefined(ended)
      // 6 attempts before the windows are capped at 31 s, then one in each 30 s.
      assert.strictEqual(times.length, 6 + Math.ceil((86_400 - 31 - 15) / 30))
    }))

  it.effect("waits as long as the server asks, within the ceiling", () =>
    Effect.gen(function*() {
      const policy = Backoff.make({ jitter: "none", attempts: 3 })
      const hinted = yield* observe(Backoff.retry(policy), 0, "1 day", "1 minute")
      assert.deepStrictEqual(hinted.times, [0, 60_000, 120_000])
      const absurd = yield* observe(Backoff.retry(policy), 0, "1 day", "1 day")
      assert.deepStrictEqual(absurd.times, [0, 300_000, 600_000])
    }))

  it.effect("starts afresh each time it is run", () =>
    Effect.gen(function*() {
      const policy = Backoff.make({ jitter: "none", attempts: 3 })
      const shared: { run?: Effect.Effect<never, LifelineError.Exhausted> } = {}
      const run = (call: Effect.Effect<never, LifelineError.Transient>) => shared.run ??= Backoff.retry(call, policy)
      const twice = (call: Effect.Effect<never, LifelineError.Transient>) =>
        Effect.andThen(Effect.exit(run(call)), Effect.exit(run(call)))
      assert.deepStrictEqual((yield* observe(twice, 0, "1 minute")).times, [0, 1000, 3000, 3000, 4000, 6000])
    }))

  it.effect.each([3_600_000, -3_600_000])(
    "keeps its limit when the clock is set by %i ms again and again",
    (jump) =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        let jumps = 0
        const jumpy: Clock.Clock = {
          ...clock,
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + jump * jumps++,
          currentTimeMillis: Effect.suspend(() => Effect.map(clock.currentTimeMillis, (now) => now + jump * jumps++))
        }
        const policy = Backoff.make({ jitter: "none", factor: 1, elapsed: "10 seconds" })
        const fiber = yield* Effect.forkChild(
          Effect.provideService(Effect.flip(Backoff.retry(transient(), policy)), Clock.Clock, jumpy)
        )
        yield* TestClock.adjust("10 seconds")
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, LifelineError.Exhausted)
        assert.strictEqual(error.attempts, 11)
        assert.strictEqual(Duration.toSeconds(error.elapsed), 10)
      })
  )

  it.effect("ten thousand failures need no more stack or memory than one", () =>
    Effect.gen(function*() {
      const policy = Backoff.make({ base: 1, cap: 1, floor: 0, jitter: "none", attempts: 10_000 })
      let calls = 0
      const call = Effect.suspend(() => {
        calls++
        return Effect.fail(transient())
      })
      // A clock that does not wait: only the depth of the loop is of interest.
      const clock = yield* Clock.Clock
      const error = yield* Effect.flip(Backoff.retry(call, policy)).pipe(
        Effect.provideService(Clock.Clock, { ...clock, sleep: () => Effect.void })
      )
      assert.instanceOf(error, LifelineError.Exhausted)
      assert.strictEqual(calls, 10_000)
    }))

  it.live("interrupting it ends a wait at once and leaves no timer", () =>
    Effect.gen(function*() {
      const set = vi.spyOn(globalThis, "setTimeout")
      const clear = vi.spyOn(globalThis, "clearTimeout")
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          set.mockRestore()
          clear.mockRestore()
        })
      )
      const hour = Backoff.make({ base: "1 hour", cap: "1 hour", jitter: "none" })
      const fiber = yield* Effect.forkChild(Backoff.retry(Effect.fail(transient()), hour), { startImmediately: true })
      const index = set.mock.calls.findIndex(([, delay]) => delay === 3_600_000)
      assert.notStrictEqual(index, -1, "it should be waiting")
      yield* Fiber.interrupt(fiber)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
      const timer = set.mock.results[index]?.value
      assert.isTrue(clear.mock.calls.some(([handle]) => handle === timer), "its timer should be cleared")
    }))

  it.effect("interrupting it interrupts an attempt under way", () =>
    Effect.gen(function*() {
      let interrupted = false
      const call = Effect.onInterrupt(Effect.never, () =>
        Effect.sync(() => {
          interrupted = true
        }))
      const fiber = yield* Effect.forkChild(Backoff.retry(call, Backoff.streams), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      assert.isTrue(interrupted)
    }))
})

describe("waits, retry and toSchedule are one sequence", () => {
  it.effect.prop("for every policy and draw", {
    policy: Policies,
    attempts: whole(1, 12),
    random: Draw
  }, ({ attempts, policy, random }) =>
    Effect.gen(function*() {
      const bounded: Backoff.Bounded = { ...policy, bound: "bounded", attempts, elapsed: Infinity }
      const waits = Backoff.waits(bounded, random)
      const expected = [0, ...attemptsAt(waits)]
      const total = Duration.millis(sum(waits) + 1)
      const retried = yield* observe(Backoff.retry(bounded), random, total)
      const scheduled = yield* observe(Effect.retry(Backoff.toSchedule(bounded)), random, total)
      assert.isDefined(retried.ended)
      assert.isDefined(scheduled.ended)
      assert.lengthOf(retried.times, attempts)
      assert.lengthOf(scheduled.times, attempts)
      // A Duration counts whole nanoseconds.
      expected.forEach((at, index) => {
        equalWithin(1e-3)(retried.times[index] ?? NaN, at, `retry ${index}:`)
        equalWithin(1e-3)(scheduled.times[index] ?? NaN, at, `schedule ${index}:`)
      })
    }), { arbitrary: { runs: 50 } })

  it.effect("the schedule honours hints, and ends with the last failure", () =>
    Effect.gen(function*() {
      const schedule = Backoff.toSchedule(Backoff.make({ jitter: "none", attempts: 3 }))
      const { ended, times } = yield* observe(Effect.retry(schedule), 0, "1 minute", "20 seconds")
      assert.deepStrictEqual(times, [0, 20_000, 40_000])
      assert.deepStrictEqual(ended, Exit.succeed(Exit.fail(transient("20 seconds"))))
    }))

  it.effect.each(["retry", "toSchedule"])(
    "%s: the limit of time holds for the first attempt, too",
    (driver) =>
      Effect.gen(function*() {
        let calls = 0
        const slow: Effect.Effect<never, LifelineError.Transient> = Effect.suspend(() => {
          calls++
          return Effect.delay(Effect.fail(transient()), "10 seconds")
        })
        const policy = Backoff.make({ jitter: "none", elapsed: "22 seconds" })
        const ended = driver === "retry"
          ? Effect.ignore(Backoff.retry(slow, policy))
          : Effect.ignore(Effect.retry(slow, Backoff.toSchedule(policy)))
        const fiber = yield* Effect.forkChild(ended)
        // Attempts at 0 and 11; the third would begin at 23.
        yield* TestClock.adjust("21 seconds")
        assert.isDefined(fiber.pollUnsafe())
        assert.strictEqual(calls, 2)
      })
  )

  it("waits stops at its limit", () => {
    assert.lengthOf(Backoff.waits(Backoff.streams, 0.5), 100)
    assert.deepStrictEqual(Backoff.waits(Backoff.streams, 0.5, 3), [500, 1500, 3000])
    assert.deepStrictEqual(Backoff.waits(Backoff.streams, 0.5, 0), [])
  })
})
