import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as BackoffConfig from "effect-lifeline/BackoffConfig"
import * as LifelineError from "effect-lifeline/LifelineError"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

type Environment = Readonly<Record<string, string>>

const read = <A>(config: Config.Config<A>, env: Environment) =>
  Config.nested(config, "LIFELINE_BACKOFF").parse(ConfigProvider.fromEnv({ env }))

const bounded = Backoff.make({ attempts: 7, elapsed: "2 minutes" })

describe("config", () => {
  it.effect("is the defaults where nothing is set", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* read(BackoffConfig.config(), {}), Backoff.streams)
      assert.deepStrictEqual(yield* read(BackoffConfig.config(bounded), {}), bounded)
      const unusual = Backoff.make({ base: 7, cap: 11, floor: 3, jitter: "equal", factor: 1.5, attempts: 2 })
      assert.deepStrictEqual(yield* read(BackoffConfig.config(unusual), { OTHER: "1" }), unusual)
    }))

  it.effect.each<[Environment, Partial<Backoff.Bounded>]>([
    [{ LIFELINE_BACKOFF_BASE: "" }, {}],
    [{ LIFELINE_BACKOFF_BASE: "2 seconds" }, { base: 2000 }],
    [{ LIFELINE_BACKOFF_BASE: " 500 millis " }, { base: 500 }],
    [{ LIFELINE_BACKOFF_BASE: "1.5 seconds" }, { base: 1500 }],
    [{ LIFELINE_BACKOFF_FACTOR: "1.5" }, { factor: 1.5 }],
    [{ LIFELINE_BACKOFF_FACTOR: "1" }, { factor: 1 }],
    [{ LIFELINE_BACKOFF_CAP: "5 minutes" }, { cap: 300_000 }],
    [{ LIFELINE_BACKOFF_BASE: "1 minute", LIFELINE_BACKOFF_CAP: "1 minute" }, { base: 60_000, cap: 60_000 }],
    [{ LIFELINE_BACKOFF_FLOOR: "0 seconds" }, { floor: 0 }],
    [{ LIFELINE_BACKOFF_JITTER: "phase" }, { jitter: Backoff.jitter("phase") }],
    [{ LIFELINE_BACKOFF_JITTER: "none" }, { jitter: Backoff.jitter("none") }],
    [{ LIFELINE_BACKOFF_JITTER: "full" }, { jitter: Backoff.jitter("full") }],
    [{ LIFELINE_BACKOFF_JITTER: "equal" }, { jitter: Backoff.jitter("equal") }],
    [{ LIFELINE_BACKOFF_JITTER: "decorrelated" }, { jitter: Backoff.jitter("decorrelated") }],
    [{ LIFELINE_BACKOFF_JITTER: "proportional:0.25" }, { jitter: Backoff.jitter({ proportional: 0.25 }) }],
    [{ LIFELINE_BACKOFF_ATTEMPTS: "12" }, { attempts: 12, elapsed: 120_000 }],
    [{ LIFELINE_BACKOFF_ATTEMPTS: "unlimited" }, { bound: "bounded", attempts: Infinity, elapsed: 120_000 }],
    [{ LIFELINE_BACKOFF_ELAPSED: "10 minutes" }, { attempts: 7, elapsed: 600_000 }],
    [{ LIFELINE_BACKOFF_ELAPSED: "unlimited" }, { attempts: 7, elapsed: Infinity }],
    [{ LIFELINE_BACKOFF_RESET_AFTER: "1 minute" }, { resetAfter: 60_000 }],
    [{ LIFELINE_BACKOFF_HINT_FLOOR: "1 second" }, { hint: { floor: 1000, ceiling: 300_000 } }],
    [{ LIFELINE_BACKOFF_HINT_CEILING: "1 hour" }, { hint: { floor: 100, ceiling: 3_600_000 } }]
  ])("%j", ([env, expected]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* read(BackoffConfig.config(bounded), env), { ...bounded, ...expected })
    }))

  it.effect("lowers a default floor below a cap that was set", () =>
    Effect.gen(function*() {
      const env = { LIFELINE_BACKOFF_BASE: "10 millis", LIFELINE_BACKOFF_CAP: "50 millis" }
      assert.deepInclude(yield* read(BackoffConfig.config(), env), { base: 10, cap: 50, floor: 50 })
    }))

  it.effect.each<[Environment, string, string]>([
    [{ LIFELINE_BACKOFF_BASE: "soon" }, "LIFELINE_BACKOFF_BASE", "must be a duration with its unit"],
    [{ LIFELINE_BACKOFF_BASE: "5000" }, "LIFELINE_BACKOFF_BASE", "such as \"30 seconds\""],
    [{ LIFELINE_BACKOFF_BASE: "0 seconds" }, "LIFELINE_BACKOFF_BASE", "from 1 ms to 24 days"],
    [{ LIFELINE_BACKOFF_BASE: "-1 seconds" }, "LIFELINE_BACKOFF_BASE", "from 1 ms to 24 days"],
    [{ LIFELINE_BACKOFF_CAP: "Infinity" }, "LIFELINE_BACKOFF_CAP", "24 days"],
    [{ LIFELINE_BACKOFF_CAP: "25 days" }, "LIFELINE_BACKOFF_CAP", "24 days"],
    [{ LIFELINE_BACKOFF_CAP: "500 millis" }, "LIFELINE_BACKOFF_CAP", "must be at least the base, which is 1s"],
    [{ LIFELINE_BACKOFF_BASE: "1 minute" }, "LIFELINE_BACKOFF_BASE", "must be at most the cap, which is 30s"],
    [
      { LIFELINE_BACKOFF_BASE: "1 minute", LIFELINE_BACKOFF_CAP: "59 seconds" },
      "LIFELINE_BACKOFF_CAP",
      "must be at least the base, which is 1m"
    ],
    [{ LIFELINE_BACKOFF_FACTOR: "0.5" }, "LIFELINE_BACKOFF_FACTOR", "must be a number, at least 1"],
    [{ LIFELINE_BACKOFF_FACTOR: "NaN" }, "LIFELINE_BACKOFF_FACTOR", "must be a number, at least 1"],
    [{ LIFELINE_BACKOFF_FACTOR: "Infinity" }, "LIFELINE_BACKOFF_FACTOR", "must be a number, at least 1"],
    [{ LIFELINE_BACKOFF_FACTOR: "two" }, "LIFELINE_BACKOFF_FACTOR", "must be a number, at least 1"],
    [{ LIFELINE_BACKOFF_FLOOR: "-1 millis" }, "LIFELINE_BACKOFF_FLOOR", "not negative"],
    [{ LIFELINE_BACKOFF_FLOOR: "31 seconds" }, "LIFELINE_BACKOFF_FLOOR", "must be at most the cap, which is 30s"],
    [{ LIFELINE_BACKOFF_JITTER: "random" }, "LIFELINE_BACKOFF_JITTER", "must be one of phase, none, full, equal"],
    [{ LIFELINE_BACKOFF_JITTER: "proportional" }, "LIFELINE_BACKOFF_JITTER", "a number from 0 to 1"],
    [{ LIFELINE_BACKOFF_JITTER: "proportional:2" }, "LIFELINE_BACKOFF_JITTER", "a number from 0 to 1"],
    [{ LIFELINE_BACKOFF_JITTER: "proportional:" }, "LIFELINE_BACKOFF_JITTER", "a number from 0 to 1"],
    [{ LIFELINE_BACKOFF_ATTEMPTS: "0" }, "LIFELINE_BACKOFF_ATTEMPTS", "must be a whole number, at least 1"],
    [{ LIFELINE_BACKOFF_ATTEMPTS: "1.5" }, "LIFELINE_BACKOFF_ATTEMPTS", "or \"unlimited\""],
    [{ LIFELINE_BACKOFF_ATTEMPTS: "Infinity" }, "LIFELINE_BACKOFF_ATTEMPTS", "or \"unlimited\""],
    [{ LIFELINE_BACKOFF_ELAPSED: "-1 minutes" }, "LIFELINE_BACKOFF_ELAPSED", "not negative"],
    [{ LIFELINE_BACKOFF_RESET_AFTER: "often" }, "LIFELINE_BACKOFF_RESET_AFTER", "must be a duration"],
    [{ LIFELINE_BACKOFF_HINT_FLOOR: "6 minutes" }, "LIFELINE_BACKOFF_HINT_FLOOR", "which is 5m"],
    [{ LIFELINE_BACKOFF_HINT_CEILING: "1 millis" }, "LIFELINE_BACKOFF_HINT_CEILING", "which is 100ms"]
  ])("%j is refused, by its name", ([env, variable, allowed]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read(BackoffConfig.config(bounded), env))
      assert.strictEqual(error._tag, "ConfigError")
      assert.include(error.message, `"${variable}"`)
      assert.include(error.message, allowed)
    }))

  it.effect("does not give a limit to what never gives up", () =>
    Effect.gen(function*() {
      for (const env of [{ LIFELINE_BACKOFF_ATTEMPTS: "3" }, { LIFELINE_BACKOFF_ELAPSED: "1 minute" }]) {
        const error = yield* Effect.flip(read(BackoffConfig.config(Backoff.streams), env))
        assert.include(error.message, `"${Object.keys(env)[0]}"`)
        assert.include(error.message, "must not be set: what reads it never gives up")
      }
    }))

  it.effect("does not show what was set", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read(BackoffConfig.config(), { LIFELINE_BACKOFF_CAP: "s3cr3t" }))
      assert.notInclude(String(error), "s3cr3t")
    }))

  it.effect("a mistake is not taken for absence", () =>
    Effect.gen(function*() {
      const config = BackoffConfig.config().pipe(Config.option)
      assert.strictEqual((yield* Effect.flip(read(config, { LIFELINE_BACKOFF_CAP: "1 millis" })))._tag, "ConfigError")
      assert.strictEqual((yield* Effect.flip(read(config, { LIFELINE_BACKOFF_CAP: "x" })))._tag, "ConfigError")
      assert.deepStrictEqual(yield* read(config, {}), Option.some(Backoff.streams))
    }))

  it.effect("reads from the provider of the program, below any prefix", () =>
    Effect.gen(function*() {
      const policy = yield* BackoffConfig.config().pipe(Config.nested("BACKOFF"), Config.nested("WORKER"))
      assert.strictEqual(policy.cap, 120_000)
    }).pipe(
      Effect.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: { WORKER_BACKOFF_CAP: "2 minutes" } })))
    ))
})

describe("decode", () => {
  it.effect.each<[unknown, Partial<Backoff.Bounded>]>([
    [{}, {}],
    [{ base: "1 second", cap: "30 seconds", jitter: { proportional: 0.25 } }, {
      jitter: Backoff.jitter({ proportional: 0.25 })
    }],
    [{ base: 250, cap: 5000 }, { base: 250, cap: 5000 }],
    [{ jitter: "proportional:0.1" }, { jitter: Backoff.jitter({ proportional: 0.1 }) }],
    [{ jitter: "full", floor: 0 }, { jitter: Backoff.jitter("full"), floor: 0 }],
    [{ factor: 1.5, resetAfter: "1 minute" }, { factor: 1.5, resetAfter: 60_000 }],
    [{ attempts: 5 }, { bound: "bounded", attempts: 5, elapsed: Infinity }],
    [{ attempts: "unlimited" }, { bound: "bounded", attempts: Infinity, elapsed: Infinity }],
    [{ elapsed: "1 minute" }, { bound: "bounded", attempts: Infinity, elapsed: 60_000 }],
    [{ hintFloor: "1 second", hintCeiling: "5 seconds" }, { hint: { floor: 1000, ceiling: 5000 } }]
  ])("%j", ([input, expected]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual<unknown>(yield* BackoffConfig.decode(input), { ...Backoff.make(), ...expected })
    }))

  it.effect.each<[unknown, ReadonlyArray<readonly [path: string, message: string]>]>([
    [{ base: "soon" }, [["worker.backoff.base", "must be a duration with its unit"]]],
    [{ base: -1 }, [["worker.backoff.base", "from 1 ms to 24 days"]]],
    [{ base: NaN }, [["worker.backoff.base", "must be a duration"]]],
    [{ base: true }, [["worker.backoff.base", "must be a duration"]]],
    [{ base: { seconds: 1 } }, [["worker.backoff.base", "must be a duration"]]],
    [{ cap: Infinity }, [["worker.backoff.cap", "24 days"]]],
    [{ cap: "500 millis" }, [["worker.backoff.cap", "must be at least the base, which is 1s"]]],
    [{ base: "1 minute" }, [["worker.backoff.base", "must be at most the cap, which is 30s"]]],
    [{ factor: 0.9 }, [["worker.backoff.factor", "must be a number, at least 1"]]],
    [{ factor: "2" }, [["worker.backoff.factor", "must be a number, at least 1"]]],
    [{ floor: "1 hour" }, [["worker.backoff.floor", "must be at most the cap, which is 30s"]]],
    [{ jitter: "random" }, [["worker.backoff.jitter", "must be one of phase, none, full, equal, decorrelated"]]],
    [{ jitter: { proportional: 1.5 } }, [["worker.backoff.jitter.proportional", "must be a number from 0 to 1"]]],
    [{ jitter: { proportional: NaN } }, [["worker.backoff.jitter.proportional", "must be a number from 0 to 1"]]],
    [{ jitter: 0.5 }, [["worker.backoff.jitter", "must be one of phase, none, full, equal, decorrelated"]]],
    [{ jitter: {} }, [["worker.backoff.jitter.proportional", ""]]],
    [{ attempts: 0 }, [["worker.backoff.attempts", "must be a whole number, at least 1"]]],
    [{ attempts: 2.5 }, [["worker.backoff.attempts", "or \"unlimited\""]]],
    [{ elapsed: -1 }, [["worker.backoff.elapsed", "or \"unlimited\""]]],
    [{ hintCeiling: 0 }, [["worker.backoff.hintCeiling", "must be at least the floor of hints, which is 100ms"]]],
    [{ attemps: 3 }, [["worker.backoff.attemps", ""]]],
    ["30 seconds", [["worker.backoff", ""]]],
    [null, [["worker.backoff", ""]]],
    [[], [["worker.backoff", ""]]],
    [
      { base: "x", factor: 0, jitter: "y", attempts: -1 },
      [
        ["worker.backoff.base", "must be a duration"],
        ["worker.backoff.factor", "at least 1"],
        ["worker.backoff.jitter", "must be one of"],
        ["worker.backoff.attempts", "whole number"]
      ]
    ]
  ])("%j is refused, with the path", ([input, expected]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(BackoffConfig.decode(input, "worker.backoff"))
      assert.instanceOf(error, LifelineError.Refused)
      assert.instanceOf(error.reason, LifelineError.InvalidRequest)
      const { issues } = error.reason
      assert.deepStrictEqual(issues.map(({ path }) => path), expected.map(([path]) => path))
      issues.forEach(({ message }, index) => assert.include(message, expected[index]?.[1] ?? "?"))
      assert.include(error.message, "worker.backoff")
    }))

  it.effect("does not show what was given", () =>
    Effect.gen(function*() {
      const secret = "s3cr3t"
      for (const input of [secret, { base: secret }, { jitter: secret }, { [secret]: 1 }, { jitter: { x: secret } }]) {
        const error = yield* Effect.flip(BackoffConfig.decode(input))
        assert.strictEqual(error.message.includes(secret), typeof input === "object" && secret in input)
      }
    }))
})

describe("Policy", () => {
  const between = (minimum: number, maximum: number) => Schema.Finite.check(Schema.isBetween({ minimum, maximum }))
  const Options = Schema.Struct({
    base: between(1, 3_600_000),
    widening: between(1, 100),
    factor: between(1, 100),
    floor: between(0, 1000),
    jitter: Schema.Union([
      Schema.Literals(["phase", "none", "full", "equal", "decorrelated"]),
      Schema.Struct({ proportional: between(0, 1) })
    ]),
    attempts: Schema.UndefinedOr(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))),
    elapsed: Schema.UndefinedOr(between(0, 1e9)),
    resetAfter: between(0, 1e6),
    hintFloor: between(0, 1000)
  })

  it.effect.prop(
    "what is written reads back the same, through JSON",
    { options: Options },
    ({ options }) =>
      Effect.gen(function*() {
        const round = (value: number) => Math.round(value * 1000) / 1000
        const base = round(options.base)
        const policy = Backoff.make({
          ...options,
          base,
          cap: round(base * options.widening),
          floor: round(options.floor),
          elapsed: options.elapsed === undefined ? undefined : round(options.elapsed),
          resetAfter: round(options.resetAfter),
          hintFloor: round(options.hintFloor)
        })
        const json = yield* Schema.encodeEffect(Schema.fromJsonString(BackoffConfig.Policy))(policy)
        const again = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(BackoffConfig.Policy))(json)
        assert.deepStrictEqual(again, policy)
        assert.deepStrictEqual(yield* BackoffConfig.decode(JSON.parse(json)), policy)
      })
  )

  it.effect("writes durations with their unit", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Schema.encodeEffect(BackoffConfig.Policy)(Backoff.registration), {
        base: "2000 millis",
        factor: 2,
        cap: "32000 millis",
        floor: "100 millis",
        jitter: "phase",
        resetAfter: "10000 millis",
        hintFloor: "100 millis",
        hintCeiling: "300000 millis",
        attempts: 7,
        elapsed: "unlimited"
      })
    }))
})
