/**
 * Backoff policies that come from outside: from environment variables ({@link config}), or as data such as JSON
 * ({@link Policy}, {@link decode}). A module of its own, because `Config` and `Schema` are heavy beside a `Backoff`.
 *
 * Where `Backoff.make` moves values that make no sense to the nearest that do, these say what is wrong with them: each
 * error names the variable, or the path of the field, and what is allowed there. No error shows the value.
 *
 * | variable | field | what it is | allowed |
 * |---|---|---|---|
 * | `BASE` | `base` | the first window | a duration from 1 ms to 24 days |
 * | `FACTOR` | `factor` | by what a window grows with each failure | a number, at least 1 |
 * | `CAP` | `cap` | the longest window | a duration, at least the base |
 * | `FLOOR` | `floor` | no wait is shorter | a duration, at most the cap |
 * | `JITTER` | `jitter` | how a window becomes a wait | `phase`, `none`, `full`, `equal`, `decorrelated`, `proportional:0.25`; as data `{"proportional":0.25}` |
 * | `ATTEMPTS` | `attempts` | how many attempts in all | a whole number, at least 1, or `unlimited` |
 * | `ELAPSED` | `elapsed` | no attempt starts later after the first one did | a duration, or `unlimited` |
 * | `RESET_AFTER` | `resetAfter` | how long things must go well for a fresh start | a duration |
 * | `HINT_FLOOR` | `hintFloor` | a shorter hint of the server counts as this | a duration |
 * | `HINT_CEILING` | `hintCeiling` | a longer hint of the server counts as this | a duration, at least `hintFloor` |
 *
 * Durations have a unit: `30 seconds`, `500 millis`, `2 minutes`. As data, a bare number counts milliseconds.
 *
 * **Example** (`WORKER_BACKOFF_CAP="2 minutes"` in the environment)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import * as BackoffConfig from "effect-lifeline/BackoffConfig"
 * import type { Transient } from "effect-lifeline/LifelineError"
 * import * as Config from "effect/Config"
 * import * as Effect from "effect/Effect"
 *
 * declare const call: Effect.Effect<string, Transient>
 *
 * export const tuned: Effect.Effect<string, Config.ConfigError> = BackoffConfig.config(Backoff.streams).pipe(
 *   Config.nested("WORKER_BACKOFF"),
 *   Effect.flatMap((policy) => Backoff.retry(call, policy))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Backoff from "./Backoff.ts"
import { issuesOf } from "./internal/issues.ts"
import { InvalidRequest, Refused } from "./LifelineError.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Fields
// ---------------------------------------------------------------------------------------------------------------------

/** One setting: how it is read, how it is written, and what is allowed, in words. `A` is what a policy holds. */
interface Field<A> {
  readonly allowed: string
  /** `undefined`: not allowed. */
  readonly read: (input: string | number) => A | undefined
  readonly write: (value: A) => string
}

const longest = Duration.toMillis("24 days")

const readNumber = (input: string | number): number =>
  typeof input === "number" ? input : input.trim() === "" ? NaN : Number(input)

const readMillis = (input: string | number): number =>
  typeof input === "number"
    ? input
    : Option.match(Duration.fromInput(input.trim() as Duration.Input), {
      onNone: () => NaN,
      onSome: Duration.toMillis
    })

const duration = (least: number): Field<number> => ({
  allowed: `must be a duration with its unit, such as "30 seconds" or "500 millis", ${
    least > 0 ? `from ${least} ms to` : "not negative and at most"
  } 24 days`,
  read: (input) => {
    const millis = readMillis(input)
    return millis >= least && millis <= longest ? millis : undefined
  },
  write: (millis) => `${millis} millis`
})

const unlimited = "unlimited"

const orUnlimited = (field: Field<number>): Field<number> => ({
  allowed: `${field.allowed}, or "${unlimited}"`,
  read: (input) => input === unlimited ? Infinity : field.read(input),
  write: (value) => value === Infinity ? unlimited : field.write(value)
})

const number = (allowed: string, is: (value: number) => boolean): Field<number> => ({
  allowed,
  read: (input) => {
    const value = readNumber(input)
    return is(value) ? value : undefined
  },
  write: String
})

const jitterNames = ["phase", "none", "full", "equal", "decorrelated"] as const

const isRatio = (ratio: number): boolean => ratio >= 0 && ratio <= 1

const jitter: Field<Backoff.Jitter> = {
  allowed: `must be one of ${jitterNames.join(", ")}, or proportional with a number from 0 to 1`,
  read: (input) => {
    const name = jitterNames.find((name) => name === input)
    if (name !== undefined) return name
    const [kind, ratio] = String(input).split(":")
    const proportional = kind === "proportional" ? readNumber(ratio ?? "") : NaN
    return isRatio(proportional) ? { proportional } : undefined
  },
  write: (value) => typeof value === "string" ? value : `proportional:${value.proportional}`
}

const fields = {
  base: duration(1),
  factor: number("must be a number, at least 1", (value) => value >= 1 && value < Infinity),
  cap: duration(1),
  floor: duration(0),
  attempts: orUnlimited(number("must be a whole number, at least 1", (value) => value >= 1 && Number.isInteger(value))),
  elapsed: orUnlimited(duration(0)),
  resetAfter: duration(0),
  hintFloor: duration(0),
  hintCeiling: duration(0)
}

/** What was given, checked field by field: `Backoff.Options` in milliseconds. */
interface Given {
  readonly base?: number | undefined
  readonly factor?: number | undefined
  readonly cap?: number | undefined
  readonly floor?: number | undefined
  readonly jitter?: Backoff.Jitter | undefined
  readonly attempts?: number | undefined
  readonly elapsed?: number | undefined
  readonly resetAfter?: number | undefined
  readonly hintFloor?: number | undefined
  readonly hintCeiling?: number | undefined
}

interface Problem {
  readonly key: keyof Given
  readonly message: string
}

const span = (millis: number): string => Duration.format(Duration.millis(millis))

/** What is wrong between fields. It is said of one that was given, never of a default. */
const problemsOf = (given: Given, defaults: Backoff.Policy): ReadonlyArray<Problem> => {
  const base = given.base ?? defaults.base
  const cap = given.cap ?? defaults.cap
  const hintFloor = given.hintFloor ?? defaults.hint.floor
  const hintCeiling = given.hintCeiling ?? defaults.hint.ceiling
  const problems: Array<Problem> = []
  if (cap < base) {
    problems.push(
      given.cap === undefined
        ? { key: "base", message: `must be at most the cap, which is ${span(cap)}` }
        : { key: "cap", message: `must be at least the base, which is ${span(base)}` }
    )
  }
  if (given.floor !== undefined && given.floor > cap) {
    problems.push({ key: "floor", message: `must be at most the cap, which is ${span(cap)}` })
  }
  if (hintCeiling < hintFloor) {
    problems.push(
      given.hintCeiling === undefined
        ? { key: "hintFloor", message: `must be at most the ceiling of hints, which is ${span(hintCeiling)}` }
        : { key: "hintCeiling", message: `must be at least the floor of hints, which is ${span(hintFloor)}` }
    )
  }
  return problems
}

const optionsOf = (given: Given, defaults: Backoff.Policy): Backoff.Options => ({
  base: given.base ?? defaults.base,
  factor: given.factor ?? defaults.factor,
  cap: given.cap ?? defaults.cap,
  floor: given.floor ?? defaults.floor,
  jitter: given.jitter ?? defaults.jitter.name,
  resetAfter: given.resetAfter ?? defaults.resetAfter,
  hintFloor: given.hintFloor ?? defaults.hint.floor,
  hintCeiling: given.hintCeiling ?? defaults.hint.ceiling
})

// ---------------------------------------------------------------------------------------------------------------------
// Config
// ---------------------------------------------------------------------------------------------------------------------

const variableOf = (key: keyof Given): string => key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()

/** Says the name of the variable as the environment spells it. */
const named = (error: Config.ConfigError): Config.Config<never> => {
  const { cause } = error
  return Config.fail(
    Schema.isSchemaError(cause) && cause.issue._tag === "Pointer"
      ? new Schema.SchemaError(new SchemaIssue.Pointer([cause.issue.path.map(String).join("_")], cause.issue.issue))
      : cause
  )
}

const variable = <A>(key: keyof Given, field: Field<A>, type: Schema.Codec<A>): Config.Config<A | undefined> =>
  Config.schema(
    Schema.String.check(Schema.makeFilter((text) => field.read(text) !== undefined || field.allowed)).pipe(
      Schema.decodeTo(Schema.UndefinedOr(type), SchemaTransformation.transform({ decode: field.read, encode: String }))
    ),
    variableOf(key)
  ).pipe(Config.withDefault(undefined), Config.orElse(named))

/** Fails, naming the variable in which the mistake is. */
const mistaken = ({ key, message }: Problem): Config.Config<never> =>
  Config.schema(
    Schema.String.check(Schema.makeFilter(() => message)).pipe(Schema.decodeTo(Schema.Never)),
    variableOf(key)
  ).pipe(Config.orElse(named))

const JitterType: Schema.Codec<Backoff.Jitter> = Schema.Union([
  Schema.Literals(jitterNames),
  Schema.Struct({ proportional: Schema.Number })
])

const variables: Config.Config<Given> = Config.all({
  base: variable("base", fields.base, Schema.Number),
  factor: variable("factor", fields.factor, Schema.Number),
  cap: variable("cap", fields.cap, Schema.Number),
  floor: variable("floor", fields.floor, Schema.Number),
  jitter: variable("jitter", jitter, JitterType),
  attempts: variable("attempts", fields.attempts, Schema.Number),
  elapsed: variable("elapsed", fields.elapsed, Schema.Number),
  resetAfter: variable("resetAfter", fields.resetAfter, Schema.Number),
  hintFloor: variable("hintFloor", fields.hintFloor, Schema.Number),
  hintCeiling: variable("hintCeiling", fields.hintCeiling, Schema.Number)
})

/**
 * Reads a policy from the variables of the table above; what is not set stays as it is in `defaults`
 * (`Backoff.streams`). Nest it to give the variables a prefix: below `Config.nested("WORKER_BACKOFF")` they are
 * `WORKER_BACKOFF_BASE` and so on.
 *
 * The policy is bounded when `defaults` is, so that the type of the program stays true: of an unbounded one, `ATTEMPTS`
 * and `ELAPSED` must not be set; of a bounded one, either may be `unlimited`.
 *
 * Fails with a `ConfigError` that names the variable and what is allowed there.
 *
 * **Example** (Operators tune the registration with `HAUL_REGISTRATION_ATTEMPTS=12`)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import * as BackoffConfig from "effect-lifeline/BackoffConfig"
 * import * as Config from "effect/Config"
 *
 * export const registration: Config.Config<Backoff.Bounded> = BackoffConfig.config(Backoff.registration).pipe(
 *   Config.nested("HAUL_REGISTRATION")
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function config(defaults?: Backoff.Unbounded): Config.Config<Backoff.Unbounded>
export function config(defaults: Backoff.Bounded): Config.Config<Backoff.Bounded>
export function config(defaults: Backoff.Policy): Config.Config<Backoff.Policy>
export function config(defaults: Backoff.Policy = Backoff.streams): Config.Config<Backoff.Policy> {
  return Config.flatMap(variables, (given) => {
    const limit = (["attempts", "elapsed"] as const).find((key) => given[key] !== undefined)
    const problem: Problem | undefined = defaults.bound === "unbounded" && limit !== undefined
      ? { key: limit, message: "must not be set: what reads it never gives up" }
      : problemsOf(given, defaults)[0]
    if (problem !== undefined) return mistaken(problem)
    const options = optionsOf(given, defaults)
    return Config.succeed(
      defaults.bound === "unbounded" ? Backoff.make(options) : Backoff.make({
        ...options,
        attempts: given.attempts ?? defaults.attempts,
        elapsed: given.elapsed ?? defaults.elapsed
      })
    )
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// Data
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A policy as data: what {@link Policy} decodes from. Durations are text with a unit, or a number of milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Encoded {
  readonly base?: string | number | undefined
  readonly factor?: number | undefined
  readonly cap?: string | number | undefined
  readonly floor?: string | number | undefined
  readonly jitter?: string | { readonly proportional: number } | undefined
  readonly attempts?: string | number | undefined
  readonly elapsed?: string | number | undefined
  readonly resetAfter?: string | number | undefined
  readonly hintFloor?: string | number | undefined
  readonly hintCeiling?: string | number | undefined
}

/** Says what is allowed also of a value of the wrong type. */
const optional = <A extends string | number>(field: Field<number>, type: Schema.Codec<A>) =>
  Schema.optional(type.check(Schema.makeFilter((input) => field.read(input) !== undefined || field.allowed)))
    .annotate({ message: field.allowed })

const Text = Schema.Union([Schema.String, Schema.Number])

const defaults: Backoff.Unbounded = Backoff.make()

const EncodedJitter = Schema.optional(
  Schema.Union([
    Schema.String.check(Schema.makeFilter((text) => jitter.read(text) !== undefined || jitter.allowed)),
    Schema.Struct({
      proportional: Schema.Number.check(Schema.makeFilter((ratio) => isRatio(ratio) || "must be a number from 0 to 1"))
    })
  ])
).annotate({ message: jitter.allowed })

const readGiven = (encoded: Encoded): Given => {
  const read = (key: keyof typeof fields): number | undefined => {
    const input = encoded[key]
    return input === undefined ? undefined : fields[key].read(input)
  }
  return {
    base: read("base"),
    factor: read("factor"),
    cap: read("cap"),
    floor: read("floor"),
    jitter: typeof encoded.jitter === "string" ? jitter.read(encoded.jitter) : encoded.jitter,
    attempts: read("attempts"),
    elapsed: read("elapsed"),
    resetAfter: read("resetAfter"),
    hintFloor: read("hintFloor"),
    hintCeiling: read("hintCeiling")
  }
}

const fromEncoded = (encoded: Encoded): Backoff.Policy => {
  const given = readGiven(encoded)
  return Backoff.make({ ...optionsOf(given, defaults), attempts: given.attempts, elapsed: given.elapsed })
}

const toEncoded = (policy: Backoff.Policy): Encoded => ({
  base: fields.base.write(policy.base),
  factor: policy.factor,
  cap: fields.cap.write(policy.cap),
  floor: fields.floor.write(policy.floor),
  jitter: policy.jitter.name,
  resetAfter: fields.resetAfter.write(policy.resetAfter),
  hintFloor: fields.hintFloor.write(policy.hint.floor),
  hintCeiling: fields.hintCeiling.write(policy.hint.ceiling),
  ...(policy.bound === "unbounded" ? {} : {
    attempts: policy.attempts === Infinity ? unlimited : policy.attempts,
    elapsed: fields.elapsed.write(policy.elapsed)
  })
})

const common = {
  base: Schema.Number,
  factor: Schema.Number,
  cap: Schema.Number,
  floor: Schema.Number,
  jitter: Schema.declare((input): input is Backoff.JitterRule => Predicate.hasProperty(input, "range")),
  resetAfter: Schema.Number,
  hint: Schema.Struct({ floor: Schema.Number, ceiling: Schema.Number })
}

/**
 * Schema of a policy as data. A field that is left out has the default of `Backoff.make`; the policy is bounded when
 * `attempts` or `elapsed` is given.
 *
 * **Example** (A policy in a document of one's own)
 *
 * ```ts
 * import * as BackoffConfig from "effect-lifeline/BackoffConfig"
 * import * as Schema from "effect/Schema"
 *
 * export const Settings = Schema.Struct({ url: Schema.String, backoff: BackoffConfig.Policy })
 * export const read = Schema.decodeUnknownEffect(Schema.fromJsonString(Settings))
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Policy: Schema.Codec<Backoff.Policy, Encoded> = Schema.Struct({
  base: optional(fields.base, Text),
  factor: optional(fields.factor, Schema.Number),
  cap: optional(fields.cap, Text),
  floor: optional(fields.floor, Text),
  jitter: EncodedJitter,
  attempts: optional(fields.attempts, Text),
  elapsed: optional(fields.elapsed, Text),
  resetAfter: optional(fields.resetAfter, Text),
  hintFloor: optional(fields.hintFloor, Text),
  hintCeiling: optional(fields.hintCeiling, Text)
}).check(
  Schema.makeFilter((encoded) =>
    problemsOf(readGiven(encoded), defaults).map(({ key, message }) => ({ path: [key], issue: message }))
  )
).pipe(
  Schema.decodeTo(
    Schema.Union([
      Schema.Struct({ ...common, bound: Schema.Literal("unbounded") }),
      Schema.Struct({ ...common, bound: Schema.Literal("bounded"), attempts: Schema.Number, elapsed: Schema.Number })
    ]),
    SchemaTransformation.transform({ decode: fromEncoded, encode: toEncoded })
  )
)

const decodePolicy = Schema.decodeUnknownEffect(Policy, { errors: "all", onExcessProperty: "error" })

/**
 * Reads a policy as data, e.g. parsed JSON. Fails with `Refused` (`InvalidRequest`), one issue per field, each with its
 * path below `name`; a field that is not in the table above is an issue too.
 *
 * **Example** (From JSON)
 *
 * ```ts
 * import * as BackoffConfig from "effect-lifeline/BackoffConfig"
 *
 * export const policy = BackoffConfig.decode({ base: "1 second", cap: "30 seconds", jitter: { proportional: 0.25 } })
 * export const wrong = BackoffConfig.decode({ base: "1 minute", cap: "1 second" }, "worker.backoff")
 * // => fails: worker.backoff.cap: must be at least the base, which is 1m
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const decode = (input: unknown, name = "backoff"): Effect.Effect<Backoff.Policy, Refused> =>
  Effect.mapError(decodePolicy(input), (error) =>
    new Refused({
      operation: "read settings",
      target: name,
      reason: new InvalidRequest({ issues: issuesOf(error, name) })
    }))
