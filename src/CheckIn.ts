/**
 * The one-shot driver: the same machine as `Lifeline`, one step for each invocation, its state kept in a `KeyValueStore`.
 * For whatever is started again and again and forgets everything in between: a Cloudflare Worker's cron or a Durable
 * Object's alarm, any other serverless cron, a script.
 *
 * Each invocation reads its record, sends what is due (at most 2 requests), and writes the record back (at most 1 kB,
 * no secret in it).
 *
 * | report | means | sent |
 * |---|---|---|
 * | `NotDue` | nothing to do yet | nothing |
 * | `Registered` | registered, or registered again; mostly also beaten | 1 or 2 requests |
 * | `Beat` | a heartbeat was acknowledged | 1 |
 * | `Verified` | the registration was verified, mostly with a heartbeat | 1 or 2 |
 * | `Retrying` | it failed for now; `dueAt` says when it may be tried again | 1 or 2 |
 * | `Halted` | a definitive no, or the end: nothing is sent; see {@link Halt} | 1 or nothing |
 * | `Superseded` | another invocation is at it, or was faster: nothing of this one is kept | nothing, or what was due |
 * | `Disabled` | no registry is configured: nothing is sent or stored | nothing |
 *
 * Invoked too often it does nothing; too late, it verifies or registers first; twice at once, one of the two registers,
 * and both may beat, which does no harm; after a crash between a request and its record, the request is made again, which
 * does no harm either, since registering the same name and type updates the registration. A record that cannot be read,
 * is of another version, or belongs to another service or registry, is a fresh start with a warning.
 *
 * {@link run} is for crons. It fails as long as the registry says a definitive no, in each invocation, so that the
 * dashboard of the platform shows it, but sends nothing more: a rejected credential is not sent a second time, and a new
 * one is tried by the next invocation. What was refused as `Refused` is tried again when the description of the service
 * changes (a new `version` is enough) or after {@link reset}. {@link runAlarm} is for drivers with a timer of their own.
 *
 * With a cron of one minute, the finest there is on Cloudflare, the interval is 60 s. Pulse takes a service for offline
 * 120 s after its last heartbeat, so one lost cron is survived, and one lost beat.
 *
 * **Example** (A Cloudflare cron)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 * import * as KeyValueStore from "effect-lifeline/cloudflare/KeyValueStore"
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * interface Env {
 *   readonly KV: KeyValueStore.Namespace
 *   readonly PULSE_API_KEY: string
 * }
 *
 * export default {
 *   scheduled: (_event: unknown, env: Env) =>
 *     CheckIn.run({ instance: { name: "resizer", type: "worker", apiUrl: "https://resizer.example" } }).pipe(
 *       Effect.provide([
 *         KeyValueStore.layerKV(env.KV),
 *         Pulse.layer({ url: "https://pulse.example", apiKey: Redacted.make(env.PULSE_API_KEY) }).pipe(
 *           Layer.provide(FetchHttpClient.layer)
 *         )
 *       ]),
 *       Effect.runPromise
 *     )
 * }
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Metric from "effect/Metric"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Heartbeat from "./Heartbeat.ts"
import * as Record from "./internal/checkInRecord.ts"
import * as Drive from "./internal/drive.ts"
import { fingerprint } from "./internal/fingerprint.ts"
import * as Reporting from "./internal/report.ts"
import { traced } from "./internal/traced.ts"
import type * as Lease from "./Lease.ts"
import type * as Lifeline from "./Lifeline.ts"
import type { AuthFailed, Refused, Transient } from "./LifelineError.ts"
import { Registry } from "./Registry.ts"
import * as ServiceInstance from "./ServiceInstance.ts"
import * as Telemetry from "./Telemetry.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a check-in is made from: only `instance` is needed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What this program says of itself. Checked before any request. A changed description is registered at once. */
  readonly instance: ServiceInstance.Input
  /**
   * How it registers and beats. The interval is `every` unless given; `expiresAfter` is taken from the registry;
   * `lateAfter` is an interval and `every` together unless given, so that one invocation that is missing is no sleep.
   */
  readonly heartbeat?: Heartbeat.Options | undefined
  /**
   * How often the platform invokes this. A beat is sent by the invocation that is nearest to its time, not by the first
   * one after it, so that a cron that fires at 59.9 s does not skip one.
   *
   * @default 1 minute for `run`; zero for `runAlarm`: the alarm fires when it was set to
   */
  readonly every?: Duration.Input | undefined
  /** Where in the store the record is; a claim is kept beside it. @default made of the service's type and name */
  readonly key?: string | undefined
}

/**
 * What went wrong, as far as it is kept from one invocation to the next.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cause {
  readonly error: "Transient" | "LeaseLost" | "AuthFailed" | "Refused"
  /** The tag of the error's reason, e.g. `"Unauthorized"`. */
  readonly reason: string
  readonly message: string
}

/**
 * Why nothing more is sent.
 *
 * - `AuthFailed`: until the credential changes. `Refused`: until the description changes, or {@link reset}.
 * - `GivenUp`: the bounded backoff of the first registration ended, and `keepTrying` is off. As `Refused`.
 * - `Replaced`: another instance holds our identity, and `onTaken` is `"yield"`. `Deregistered`: by {@link deregister}.
 *   Both until {@link reset}.
 *
 * @category models
 * @since 0.1.0
 */
export type Halt = "AuthFailed" | "Refused" | "GivenUp" | "Replaced" | "Deregistered"

/**
 * What may be believed, in the words of `Lifeline`.
 *
 * @category models
 * @since 0.1.0
 */
export type Status = Lifeline.Status["_tag"]

interface Common {
  readonly status: Status
  /**
   * When the next invocation has something to do, in milliseconds since 1970: what a Durable Object's `setAlarm` takes.
   * `Infinity`: never. While it is halted, when to look again whether it still is, which sends nothing.
   */
  readonly dueAt: number
  /** What this invocation sent, in order. */
  readonly calls: ReadonlyArray<"Register" | "Heartbeat" | "Verify">
}

/**
 * What came of one invocation; see the table above.
 *
 * @category models
 * @since 0.1.0
 */
export type Report =
  & Common
  & (
    | { readonly _tag: "Disabled" | "Superseded" }
    | { readonly _tag: "NotDue"; readonly lease: Lease.Lease | undefined; readonly cause: Cause | undefined }
    | { readonly _tag: "Registered" | "Beat" | "Verified"; readonly lease: Lease.Lease }
    | { readonly _tag: "Retrying"; readonly cause: Cause; readonly failures: number }
    | { readonly _tag: "Halted"; readonly reason: Halt; readonly cause: Cause | undefined }
  )

// ---------------------------------------------------------------------------------------------------------------------
// One invocation
// ---------------------------------------------------------------------------------------------------------------------

/** A check-in sends no more than this. */
const mostCalls = 2

const describe = ({ apiKey, ...instance }: ServiceInstance.ServiceInstance): string =>
  JSON.stringify([instance, apiKey && Redacted.value(apiKey)])

const newId = Effect.map(WebCrypto, (crypto) => Hex.encode(crypto.getRandomValues(new Uint8Array(6))))

const policyOf = (
  { heartbeat = {} }: Options,
  every: number,
  expiresAfter: Duration.Input | undefined
): Heartbeat.Policy => {
  const policy = Heartbeat.make({
    ...heartbeat,
    interval: heartbeat.interval ?? (every > 0 ? every : undefined),
    expiresAfter: heartbeat.expiresAfter ?? expiresAfter
  })
  return heartbeat.lateAfter === undefined ? { ...policy, lateAfter: policy.lateAfter + every } : policy
}

/** How much earlier than it is due something may be sent, because the next invocation would be further away from it. */
const toleranceOf = (state: Heartbeat.State, every: number): number => {
  const wait = Math.max(0, state.dueAt - state.setAt)
  // A backoff is not cut short, but for the unsteadiness of a cron.
  return Math.min(every / 2, state.failures === 0 ? wait / 2 : wait / 10)
}

/**
 * When something is due, and never before the server asked to come back; a beat never later than one interval after the
 * last one, where the interval was shortened meanwhile.
 */
const dueAtOf = (policy: Heartbeat.Policy, { notBefore, state }: Record.Record, tolerance = 0): number => {
  const planned = state.next === "Heartbeat" && state.failures === 0 && state.confirmedAt !== undefined
    ? Math.min(state.dueAt, state.confirmedAt + policy.interval)
    : state.dueAt
  // In whole milliseconds, as alarms count: one that fires in the millisecond before finds nothing to do.
  return Math.ceil(Math.max(planned - tolerance, notBefore ?? -Infinity))
}

/** Far too late, or so much too early that only a clock that was set back explains it. */
const isOutOfTime = (policy: Heartbeat.Policy, state: Heartbeat.State, now: number): boolean =>
  Heartbeat.isLate(policy, state, now) ||
  (Drive.isCall(state.next) && state.setAt - now >= policy.lateAfter)

const notBeforeOf = (
  policy: Heartbeat.Policy,
  event: Heartbeat.Event,
  before: Heartbeat.State,
  now: number
): number | undefined => {
  if (event._tag !== "Failed" || event.hint === undefined) return undefined
  const { ceiling, floor } = (before.everRegistered ? policy.failing : policy.registering).hint
  return now + Math.min(ceiling, Math.max(floor, event.hint))
}

const tooSlow = ({ expiresAfter = Infinity, interval }: Heartbeat.Policy): string =>
  `a heartbeat each ${inTime(interval)} is too slow for this registry, which drops a service after ` +
  `${inTime(expiresAfter)}: it will be offline in between. Invoke this more often, or use a registry that waits longer`

const inTime = (millis: number): string => Duration.format(Duration.millis(millis))

const haltOf = ({ cause, state }: Record.Record): Halt | undefined => {
  switch (state.mode) {
    case "Running":
      return undefined
    case "Unauthorized":
      return "AuthFailed"
    case "Refused":
    case "GivenUp":
      return state.mode
    case "Stopped":
      return cause?.reason === "LeaseTaken" ? "Replaced" : "Deregistered"
  }
}

const statusOf = (policy: Heartbeat.Policy, { state }: Record.Record, now: number): Status => {
  if (state.mode === "Stopped") return "Closed"
  if (state.mode === "Refused" || state.mode === "Unauthorized") return "Halted"
  if (Heartbeat.isOnline(policy, state, now)) return "Online"
  if (state.exhausted) return "Standalone"
  if (!state.everRegistered) return "Registering"
  return state.registered && now < Heartbeat.expiresAt(policy, state) ? "Unconfirmed" : "Offline"
}

const summary = (cause: Record.Cause): Cause => ({
  error: cause.tag,
  reason: cause.reason,
  message: Record.isDefinitive(cause) ? Record.errorOf(cause).message : cause.message
})

/** What a log line calls the next attempt: the invocation that will make it. */
const asLogged = (state: Heartbeat.State, every: number, now: number): Heartbeat.State => {
  const delay = state.dueAt - now - toleranceOf(state, every)
  return every > 0 && delay > 0 && delay < Infinity
    ? { ...state, dueAt: now + Math.ceil(delay / every) * every }
    : state
}

/**
 * One of several invocations at once: `undefined`, or the claim of another that may still be at it. Where the store is
 * not atomic two may claim at once, which is found out when the record is saved.
 */
const claim = Effect.fnUntraced(function*(
  store: KeyValueStore.KeyValueStore,
  key: string,
  finished: string | undefined,
  mine: Record.Claim,
  now: number
): Effect.fn.Return<Record.Claim | undefined, KeyValueStore.KeyValueStoreError> {
  const claimKey = Record.claimKeyOf(key)
  const other = (text: string | undefined): Record.Claim | undefined => {
    const live = Record.liveClaim(text, finished, now)
    return live?.id === mine.id ? undefined : live
  }
  const before = other(yield* store.get(claimKey))
  if (before !== undefined) return before
  const text = Record.encodeClaim(mine)
  const held = yield* store.modify(claimKey, (found) => other(found) === undefined ? text : found)
  if (held === undefined) yield* store.set(claimKey, text)
  return other(yield* store.get(claimKey))
})

const credentialOf = ({ credential }: Registry["Service"], salt: string): Effect.Effect<string> =>
  Effect.flatMap(credential.current, (current) => fingerprint(salt, current && Redacted.value(current)))

interface Invocation {
  readonly report: Report
  /** With what `run` fails. */
  readonly error: AuthFailed | Refused | undefined
}

/** One invocation while it runs. */
interface Run {
  readonly registry: Registry["Service"]
  readonly options: Options
  readonly every: number
  readonly instance: ServiceInstance.ServiceInstance
  /** The record as it is so far, and the policy that goes with its lease. */
  record: Record.Record
  policy: Heartbeat.Policy
  /** What was sent, and what the last of it came to. */
  readonly calls: Array<Drive.Call>
  failure: Drive.CallError | undefined
}

/** One event into the machine, and what is logged and counted of it. */
const tell = Effect.fnUntraced(function*(run: Run, event: Heartbeat.Event, error?: Drive.CallError) {
  const { every, policy, record, registry } = run
  const now = yield* Clock.currentTimeMillis
  // A cron has no finer steps than its own: what is spread over seconds is due now.
  const random = every > 0 && (event._tag === "Woken" || event._tag === "CredentialChanged") ? 0 : yield* Random.next
  const before = record.state
  const { state } = Heartbeat.step(policy, before, event, { now, random })
  const isOver = state.mode === "Running" && state.failures === 0
  run.record = {
    ...record,
    state,
    notBefore: event._tag === "Asked" ? record.notBefore : notBeforeOf(policy, event, before, now),
    cause: error !== undefined ? Record.causeOf(error) : isOver ? undefined : record.cause
  }
  const after = asLogged(state, every, now)
  const report: Reporting.Report = { event, before, after, cause: error, lease: record.lease, now }
  for (const { level, message } of Reporting.noticesOf(report)) yield* Effect.logWithLevel(level)(message())
  if (Reporting.beganOutage(report)) {
    const { adapter } = registry.capabilities
    yield* Metric.update(Metric.withAttributes(Telemetry.outages, { adapter }), 1)
  }
})

/** Tells the machine what happened since the last invocation; says whether the credential is another one. */
const catchUp = Effect.fnUntraced(function*(run: Run, isNew: boolean, description: string, now: number) {
  const { mode } = run.record.state
  if (isNew) yield* tell(run, { _tag: "Start" })
  const isNewCredential = mode === "Unauthorized" &&
    run.record.rejected !== (yield* credentialOf(run.registry, run.record.salt))
  if (isNewCredential) yield* tell(run, { _tag: "CredentialChanged" })
  if (isOutOfTime(run.policy, run.record.state, now)) yield* tell(run, { _tag: "Woken" })
  if (run.record.description !== description && run.record.state.mode !== "Unauthorized") {
    yield* tell(run, { _tag: "Asked", action: "Register", within: 0 })
    run.record = { ...run.record, description }
  }
  return isNewCredential
})

/** What is due now, by a clock that went on: what the machine was told is due at once at some moment after. */
const dueCall = ({ every, policy, record }: Run, now: number): Drive.Call | undefined => {
  const { next } = record.state
  return Drive.isCall(next) && dueAtOf(policy, record, toleranceOf(record.state, every)) <= now ? next : undefined
}

/** Makes the call that is due, and what follows it at once. */
const carryOut = Effect.fnUntraced(function*(run: Run, due: Drive.Call) {
  const { calls, every, instance, options, registry } = run
  // Taken before the request: a credential that changes meanwhile is then not mistaken for the one that was refused.
  const credential = yield* credentialOf(registry, run.record.salt)
  let call: Drive.Call | undefined = due
  while (call !== undefined) {
    const { lease: held, state: { everRegistered } } = run.record
    calls.push(call)
    const { error, event, lease } = yield* Drive.perform(registry, call, held, instance, everRegistered)
    run.record = { ...run.record, lease }
    run.policy = policyOf(options, every, lease?.expiresAfter ?? registry.capabilities.expiresAfter)
    run.failure = error
    yield* tell(run, event, error)
    const { dueAt, next, setAt } = run.record.state
    call = calls.length < mostCalls && Drive.isCall(next) && dueAt <= setAt ? next : undefined
  }
  const { policy, record } = run
  run.record = { ...record, rejected: record.state.mode === "Unauthorized" ? credential : undefined }
  const { expiresAfter = Infinity, interval } = policy
  if (calls.includes("Register") && record.lease !== undefined && interval >= expiresAfter) {
    yield* Effect.logWarning(tooSlow(policy))
  }
})

const common = ({ calls, policy, record }: Run, now: number, dueAt = dueAtOf(policy, record)): Common => ({
  status: statusOf(policy, record, now),
  dueAt,
  calls
})

const superseded = (run: Run, now: number, dueAt: number): Invocation => ({
  report: { ...common(run, now, dueAt), _tag: "Superseded" },
  error: undefined
})

/** What came of it, once that is saved. */
const conclude = (run: Run, now: number): Invocation => {
  const { calls, failure, policy, record } = run
  const { cause, lease, state } = record
  const halt = haltOf(record)
  if (halt !== undefined) {
    // Whether a credential or a description has changed is looked at once per interval; that sends nothing.
    const again = state.mode === "Stopped" ? Infinity : now + policy.interval
    return {
      report: { ...common(run, now, again), _tag: "Halted", reason: halt, cause: cause && summary(cause) },
      error: halt !== "AuthFailed" && halt !== "Refused"
        ? undefined
        : Drive.isDefinitive(failure)
        ? failure
        : Record.isDefinitive(cause)
        ? Record.errorOf(cause)
        : undefined
    }
  }
  const done = common(run, now)
  if (failure !== undefined && cause !== undefined) {
    return { report: { ...done, _tag: "Retrying", cause: summary(cause), failures: state.failures }, error: undefined }
  }
  if (calls.length === 0 || lease === undefined) {
    return { report: { ...done, _tag: "NotDue", lease, cause: cause && summary(cause) }, error: undefined }
  }
  const _tag = calls.includes("Register") ? "Registered" : calls.includes("Verify") ? "Verified" : "Beat"
  return { report: { ...done, _tag, lease }, error: undefined }
}

const invoke = Effect.fnUntraced(function*(
  registry: Registry["Service"],
  options: Options,
  every: number
): Effect.fn.Return<Invocation, Refused | KeyValueStore.KeyValueStoreError, KeyValueStore.KeyValueStore> {
  const { adapter, expiresAfter, target } = registry.capabilities
  const store = yield* KeyValueStore.KeyValueStore
  const instance = yield* ServiceInstance.make(options.instance)
  const of = { name: instance.name, type: instance.type, adapter, target }
  const key = options.key ?? Record.keyOf(instance)

  const text = yield* store.get(key)
  const found = text === undefined ? undefined : yield* Effect.catch(
    Record.decode(of, text),
    (why) => Effect.as(Effect.logWarning(`the record ${key} is of no use, starting afresh: ${why}`), undefined)
  )
  const salt = found?.salt ?? (yield* newId)
  const description = yield* fingerprint(salt, describe(instance))
  const run: Run = {
    registry,
    options,
    every,
    instance,
    record: found ?? { ...Record.initial(salt), description },
    policy: policyOf(options, every, found?.lease?.expiresAfter ?? expiresAfter),
    calls: [],
    failure: undefined
  }

  const now = yield* Clock.currentTimeMillis
  const isNewCredential = yield* catchUp(run, found === undefined, description, now)
  const due = dueCall(run, yield* Clock.currentTimeMillis)
  if (due === "Register" || (due !== undefined && isNewCredential)) {
    const mine = { id: yield* newId, until: now + Record.claimFor }
    const other = yield* claim(store, key, run.record.claim, mine, now)
    if (other !== undefined) return superseded(run, now, other.until)
    run.record = { ...run.record, claim: mine.id }
  }
  if (due !== undefined) yield* carryOut(run, due)

  const ended = yield* Clock.currentTimeMillis
  const written = Record.encode(of, run.record)
  if (written !== text) {
    // Whoever saved meanwhile goes first: the machine goes on from either, and a request that is made twice does no harm.
    if ((yield* store.get(key)) !== text) return superseded(run, ended, ended + Record.claimFor)
    yield* store.set(key, written)
  }
  return conclude(run, ended)
})

const disabled: Report = { _tag: "Disabled", status: "Disabled", dueAt: Infinity, calls: [] }

const annotated = (registry: Registry["Service"], { instance: { name, type } }: Options) => {
  const { adapter } = registry.capabilities
  return <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    self.pipe(
      Effect.annotateLogs({ package: "effect-lifeline", adapter, service: name, type }),
      Effect.withSpan(Telemetry.spans.CheckIn, { attributes: { adapter } })
    )
}

const invocation = (
  options: Options,
  every: Duration.Input
): Effect.Effect<
  Invocation,
  Refused | KeyValueStore.KeyValueStoreError,
  Registry | KeyValueStore.KeyValueStore
> =>
  Effect.flatMap(Registry, (registry) =>
    registry.capabilities.enabled
      ? annotated(registry, options)(invoke(registry, options, Math.max(0, Duration.toMillis(options.every ?? every))))
      : Effect.succeed({ report: disabled, error: undefined }))

// ---------------------------------------------------------------------------------------------------------------------
// Drivers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * One check-in, for a cron.
 *
 * Fails with `AuthFailed` or `Refused` as long as the registry's no is definitive, with `Refused` (`InvalidRequest`) for a
 * description that is wrong in itself, and with `KeyValueStoreError` where the store cannot be read or written: what was
 * done then is done again. What passes by itself is no failure: it is in the report as `Retrying`.
 *
 * **Example** (A script that says what it did)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 * import * as Effect from "effect/Effect"
 *
 * export const program = CheckIn.run({
 *   instance: { name: "backup", type: "job", apiUrl: "http://backup:8080" },
 *   every: "5 minutes"
 * }).pipe(
 *   Effect.tap((report) => Effect.log(`${report._tag}, ${report.status}`))
 * )
 * ```
 *
 * @category drivers
 * @since 0.1.0
 */
export const run = (
  options: Options
): Effect.Effect<
  Report,
  AuthFailed | Refused | KeyValueStore.KeyValueStoreError,
  Registry | KeyValueStore.KeyValueStore
> =>
  Effect.flatMap(
    invocation(options, "1 minute"),
    ({ error, report }): Effect.Effect<Report, AuthFailed | Refused> =>
      error === undefined ? Effect.succeed(report) : Effect.fail(error)
  )

/**
 * One check-in, for a driver with a timer of its own: beats come exactly when they are due, and `dueAt` of the report is
 * when to invoke it next. A definitive no is in the report as `Halted` instead of failing, so that the timer is set again:
 * each look at whether the credential or the description has changed sends nothing.
 *
 * **Example** (The alarm of a Durable Object)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 * import * as KeyValueStore from "effect-lifeline/cloudflare/KeyValueStore"
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * declare const storage: KeyValueStore.Storage & { readonly setAlarm: (at: number) => Promise<void> }
 *
 * export const alarm = async () => {
 *   const report = await CheckIn.runAlarm({ instance: { name: "room", type: "worker", apiUrl: "https://room.example" } }).pipe(
 *     Effect.provide([
 *       KeyValueStore.layerDurableObject(storage),
 *       Pulse.layer({ url: "https://pulse.example" }).pipe(Layer.provide(FetchHttpClient.layer))
 *     ]),
 *     Effect.runPromise
 *   )
 *   if (report.dueAt < Infinity) await storage.setAlarm(report.dueAt)
 * }
 * ```
 *
 * @category drivers
 * @since 0.1.0
 */
export const runAlarm = (
  options: Options
): Effect.Effect<Report, Refused | KeyValueStore.KeyValueStoreError, Registry | KeyValueStore.KeyValueStore> =>
  Effect.map(invocation(options, Duration.zero), ({ report }) => report)

/**
 * How long until the next invocation has something to do; infinite where there never will be.
 *
 * **Example** (A loop in a process that may be ended at any time)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 * import * as Effect from "effect/Effect"
 *
 * export const loop = CheckIn.runAlarm({ instance: { name: "kiosk", type: "screen", apiUrl: "http://kiosk:8080" } }).pipe(
 *   Effect.flatMap(CheckIn.nextDelay),
 *   Effect.flatMap(Effect.sleep),
 *   Effect.forever
 * )
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const nextDelay = (report: Report): Effect.Effect<Duration.Duration> =>
  Effect.map(Clock.currentTimeMillis, (now) => Duration.millis(Math.max(0, report.dueAt - now)))

/**
 * Removes the registration, and stops: invocations from now on report `Halted` (`Deregistered`) until {@link reset}. A
 * registration that is gone already is success. An invocation that is under way at this moment may still register.
 *
 * The stop is kept before the request is made: a deregistration that failed may be made again.
 *
 * **Example** (Out of service)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 *
 * export const leave = CheckIn.deregister({
 *   instance: { name: "resizer", type: "worker", apiUrl: "https://resizer.example" }
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const deregister = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<
  void,
  Transient | AuthFailed | Refused | KeyValueStore.KeyValueStoreError,
  Registry | KeyValueStore.KeyValueStore
> {
  const registry = yield* Registry
  const { adapter, enabled, target } = registry.capabilities
  if (!enabled) return
  const store = yield* KeyValueStore.KeyValueStore
  const instance = yield* ServiceInstance.make(options.instance)
  const of = { name: instance.name, type: instance.type, adapter, target }
  const key = options.key ?? Record.keyOf(instance)
  const text = yield* store.get(key)
  const found = text === undefined ? undefined : yield* Effect.orElseSucceed(Record.decode(of, text), () => undefined)
  const record = found ?? Record.initial(yield* newId)
  const at = { now: yield* Clock.currentTimeMillis, random: 0 }
  const { state } = Heartbeat.step(Heartbeat.make(), record.state, { _tag: "Stop" }, at)
  yield* store.set(key, Record.encode(of, { ...record, state, cause: undefined }))
  if (record.lease === undefined) return
  yield* traced(Telemetry.spans.Deregister, { adapter })(registry.deregister(record.lease, instance))
})

/**
 * Forgets the record: the next invocation starts afresh and registers. Sends nothing.
 *
 * **Example** (Back in service)
 *
 * ```ts
 * import * as CheckIn from "effect-lifeline/CheckIn"
 *
 * export const back = CheckIn.reset({
 *   instance: { name: "resizer", type: "worker", apiUrl: "https://resizer.example" }
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const reset = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<void, Refused | KeyValueStore.KeyValueStoreError, KeyValueStore.KeyValueStore> {
  const store = yield* KeyValueStore.KeyValueStore
  const key = options.key ?? Record.keyOf(yield* ServiceInstance.make(options.instance))
  yield* store.remove(key)
  yield* store.remove(Record.claimKeyOf(key))
})
