/**
 * The engine behind `Reconnect.stream`. It runs in the fiber of whoever reads the stream: a dial, a wait and a read are all
 * part of one pull, so that interrupting the reader ends any of them, and nothing is dialled before the reader has taken
 * everything that came on the connection before.
 *
 * One connection at a time, each in a scope of its own (a generation). It ends in one of four ways: for good (`AuthFailed`,
 * `Refused`, `Stop`, a defect), for now (`Transient`), unclearly (`Inconclusive`), or without an error. All but the first
 * lead to the next dial, after a wait; {@link make}'s `lost` is where that is decided.
 *
 * Two things hold the rate of dials down. The backoff, which starts over with progress; and the pace, which does not: at
 * most 8 dials in any 10 s, whatever the server sends, the backoff says, and the platform reports.
 */
import { isArrayNonEmpty } from "effect/Array"
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import { Connectivity } from "../Connectivity.ts"
import type { Attempted, AuthFailed, Inconclusive, Refused, Transient } from "../LifelineError.ts"
import { Exhausted, NoProgress, retryAfter, Shutdown } from "../LifelineError.ts"
import type { Connect, Failure, Frame, Gap, Notice, Options, Status } from "../Reconnect.ts"
import * as Telemetry from "../Telemetry.ts"
import { traced } from "./traced.ts"

/** What comes from outside while a stream runs: dial now if you wait, or in any case. */
export type Command = "now" | "replace"

/** The stream's end of a handle. */
export interface Wires {
  readonly listeners: Set<(command: Command) => void>
  readonly set: (status: Status) => Effect.Effect<void>
  /** The pace of the run before, so that it holds however often a stream is run again. */
  slot?: number
}

export type Ends = AuthFailed | Refused | NoProgress | Exhausted

type Item<A, Cursor> = Frame<A, Cursor> | Notice<Cursor>

/**
 * The pace, as a leaky bucket: 3 dials at once, which is 2 ahead of it, then one every 2 s. So in any 10 s, both ends
 * included, at most 3 + 10 / 2 = 8.
 */
const spacing = 2000
const ahead = 2 * spacing

/** How long the closing of a connection may hold up the next one; it goes on in the background. */
const closeWithin = 2000
/** The deadline of one access to the store of the cursor. */
const storeWithin = 5000
/** How often a platform that says offline is asked again, should it not tell. */
const askAgain = 5000
const milestone = 5

const within = (input: Duration.Input, least: number, most: number): number =>
  Math.min(most, Math.max(least, Duration.toMillis(input)))

/** What the server asked to wait. Where it asked for anything at all, it is not to be less than the base. */
const hintOf = (base: number, error: Transient | Inconclusive | undefined): number | undefined => {
  if (error?._tag !== "Transient") return undefined
  const asked = retryAfter(error)
  if (asked !== undefined) return Math.max(base, Duration.toMillis(asked))
  return error.reason._tag === "Throttled" ? base : undefined
}

/** `Exhausted` has a `Transient` always: what else ended the last attempt, if anything did, is its detail. */
export const exhausted = (
  at: Attempted,
  attempts: number,
  elapsed: number,
  last: Failure | undefined
): Exhausted =>
  new Exhausted({
    attempts,
    elapsed: Duration.millis(Math.round(elapsed)),
    last: last?._tag === "Transient"
      ? last
      : Classify.unreachable({ ...at, detail: last?.message ?? "the connection ended before anything came" })
  })

export const make = <A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options: Options<Cursor> & { readonly policy: Backoff.Policy },
  wires: Wires | undefined
): Stream.Stream<A | Gap, Ends, Exclude<R, Scope.Scope>> =>
  Stream.unwrap(Effect.gen(function*() {
    type Out = A | Gap
    type Step<T> = Effect.Effect<T, Ends | Cause.Done, Exclude<R, Scope.Scope>>

    const clock = yield* Clock.Clock
    const random = yield* Random.Random
    const connectivity = yield* Connectivity
    const context = yield* Effect.context<never>()
    const { at = { operation: "connect", target: "stream" }, cursorStore: store, noProgressLimit = 10 } = options
    const healthyAfter = within(options.healthyAfter ?? 10_000, 1000, Infinity)
    const openWithin = Duration.fromInputUnsafe(options.openTimeout ?? 30_000)

    /** Milliseconds of a clock that nobody sets: for differences. What is shown to people is wall time. */
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    const wall = () => clock.currentTimeMillisUnsafe()

    let policy = options.policy
    let state = Backoff.initial
    /** Whether the present outage began with the loss of a connection that had made progress: that was no attempt. */
    let fromLoss = false
    let cursor = options.cursor
    let generation = 0
    /** Connections in a row that ended without progress. */
    let barren = 0
    /** Connections in a row that ended before they were healthy: what the log goes by, so that it is not flooded. */
    let streak = 0
    /** Failures since the log last said that all is well; whether it said that it is not. */
    let failures = 0
    let announced = false
    /** When the present trouble began; `undefined` after progress. */
    let troubleAt: number | undefined = now()
    let lostAt: number | undefined
    /** When the next dial may be, by the backoff and by the pace. */
    let due = 0
    let slot = wires?.slot ?? -Infinity
    let cause: Transient | Inconclusive | undefined

    /** The scope of the present generation, from before it is dialled. */
    let scope: Scope.Closeable | undefined
    /** The present connection, once there is one: how to read it, since when it is open, whether it made progress. */
    let pull: Pull.Pull<ReadonlyArray<Item<A, Cursor>> | undefined, Failure> | undefined
    let openedAt = 0
    let progressed = false
    /** Completed when the present connection is to be given up for a new one. */
    let dropped = Deferred.makeUnsafe<undefined>()

    /** What came and was not handed to the reader yet; whether a gap is among what came with it and was handed over. */
    let pending: ReadonlyArray<Item<A, Cursor>> = []
    let position = 0
    let gapped = false
    /** Whether the cursor moved since it was last saved. */
    let unsaved = false
    let saveFailed = false
    const atOnce = store === undefined ? Infinity : 1
    /** A loss that the reader has to be told of before anything else. */
    let unknownPast = false
    let ended = false
    let waker: Deferred.Deferred<boolean> | undefined

    const log = (level: "Debug" | "Info" | "Warn" | "Error", message: string): Effect.Effect<void> =>
      Effect.annotateLogs(Effect.logWithLevel(level)(message), { package: "effect-lifeline", ...at })

    const name = `${at.operation} (${at.target})`
    const warn = (what: string, cause: Cause.Cause<unknown>) => log("Warn", `${name}: ${what}: ${Cause.pretty(cause)}`)

    const measure = (metric: Metric.Metric<number, unknown>, by: number, outcome?: { readonly outcome: string }) =>
      Metric.withAttributes(metric, { operation: at.operation, ...outcome }).modifyUnsafe(by, context)

    /** The attempt that is under way, or comes next, counted from the last progress. */
    const attempt = () => state.failures + (fromLoss ? 0 : 1)

    const setStatus = (status: Status): Effect.Effect<void> => wires?.set(status) ?? Effect.void

    // -- closing ----------------------------------------------------------------------------------------------------

    /** Ends the present generation. Nobody waits longer than `closeWithin` for it. */
    const retire = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<unknown> => {
      const closing = scope && Scope.closeUnsafe(scope, exit)
      if (pull !== undefined) measure(Telemetry.openStreams, -1)
      scope = pull = undefined
      return closing === undefined ? Effect.void : closing.pipe(
        Effect.catchCause((cause) => warn("closing a connection went wrong", cause)),
        Effect.forkDetach({ startImmediately: true }),
        Effect.flatMap(Fiber.await),
        Effect.timeoutOption(closeWithin)
      )
    }

    const finish = (last: (Status & { readonly _tag: "Closed" })["cause"]): Effect.Effect<void> => {
      if (ended) return Effect.void
      ended = true
      return setStatus({ _tag: "Closed", cause: last })
    }

    const giveUp = Effect.fnUntraced(function*(error: Ends): Effect.fn.Return<never, Ends> {
      yield* log("Error", `${error.message}; nothing more is tried`)
      yield* finish(error)
      return yield* Effect.fail(error)
    })

    // -- the cursor's store -----------------------------------------------------------------------------------------

    const save: Effect.Effect<void> = Effect.suspend(() => {
      if (store === undefined || cursor === undefined || !unsaved) return Effect.void
      unsaved = false
      const hadFailed = saveFailed
      saveFailed = false
      return Effect.catchCause(Effect.timeout(store.save(cursor), storeWithin), (cause) => {
        saveFailed = true
        return hadFailed ? Effect.void : warn("the cursor could not be saved", cause)
      })
    })

    if (store !== undefined) {
      const stored = yield* Effect.catchCause(Effect.timeout(store.load, storeWithin), (cause) => {
        unknownPast = true
        return Effect.as(warn("where to resume could not be read, so events may be missed", cause), undefined)
      })
      cursor = stored ?? cursor
    }

    // -- progress ---------------------------------------------------------------------------------------------------

    /** Only this starts the backoff and the counter over. */
    const progress = (): Effect.Effect<void> => {
      const count = failures
      const level = announced ? "Info" : "Debug"
      progressed = true
      state = Backoff.initial
      fromLoss = announced = false
      barren = failures = 0
      troubleAt = undefined
      return count === 0
        ? Effect.void
        : log(level, `${name} recovered after ${count} ${count === 1 ? "failure" : "failures"}`)
    }

    const healthy = Effect.suspend(() => {
      streak = 0
      return progress()
    })

    // -- what came --------------------------------------------------------------------------------------------------

    /** Hands over what is pending: all of it, or, where the cursor is saved, one by one, so that it is never ahead. */
    const hand = (): Step<NonEmptyReadonlyArray<Out>> => {
      const out: Array<Out> = []
      let recovered: Effect.Effect<void> | undefined
      if (unknownPast) {
        unknownPast = false
        out.push({ _tag: "Gap", since: undefined })
      }
      while (position < pending.length && out.length < atOnce) {
        const item = pending[position++]
        if (item === undefined) continue
        if (item.notice === "Retry") {
          const base = within(item.base, 250, 60_000)
          policy = { ...policy, base, cap: Math.max(policy.cap, base) }
        } else if (item.notice === "Gap") {
          if (!gapped) out.push({ _tag: "Gap", since: lostAt })
          gapped = true
        } else {
          if (item.notice === undefined) {
            gapped = false
            out.push(item.value)
          }
          if (item.cursor !== undefined) {
            cursor = item.cursor
            unsaved = true
          }
          if (item.progress !== false && !progressed) recovered = progress()
        }
      }
      if (!isArrayNonEmpty(out)) return next
      return recovered === undefined ? Effect.succeed(out) : Effect.as(recovered, out)
    }

    // -- what ended -------------------------------------------------------------------------------------------------

    /** A dial or a read failed, or the connection ended: gives up, or sets when the next dial is due. */
    const lost = Effect.fnUntraced(function*(
      ending: Cause.Cause<Failure | Cause.Done>
    ): Effect.fn.Return<void, Ends | Cause.Done> {
      const found = Cause.findError(ending)
      const isDefect = Cause.hasDies(ending) || Result.isFailure(found)
      const error = isDefect || Cause.isDone(found.success) ? undefined : found.success
      const seen = now()
      if (pull === undefined) measure(Telemetry.dials, 1, { outcome: error?._tag ?? "Defect" })
      else if (error?._tag !== "Stop") measure(Telemetry.losses, 1)
      // A defect, or an interruption that is not ours: nothing that another connection helps against.
      if (isDefect) return yield* Effect.failCause(ending as Cause.Cause<never>)
      if (pull !== undefined) {
        lostAt = wall()
        if (seen - openedAt >= healthyAfter) yield* healthy
      }
      yield* retire(error === undefined ? Exit.void : Exit.fail(error))
      if (error?._tag === "AuthFailed" || error?._tag === "Refused") return yield* giveUp(error)
      if (error?._tag === "Stop") {
        yield* log("Debug", error.message)
        yield* finish(error)
        return yield* Cause.done()
      }

      const what = error?.message ?? `${name}: the connection ended`
      cause = error
      due = 0
      if (!(yield* connectivity.online)) return yield* log("Debug", `${what}; offline: not counted`)
      troubleAt ??= seen
      failures++
      streak++
      if (error?._tag !== "Transient" && !progressed && ++barren >= noProgressLimit) {
        return yield* giveUp(new NoProgress({ ...at, connections: barren, last: error }))
      }
      if (state.failures === 0) fromLoss = progressed
      const draw = random.nextDoubleUnsafe()
      const stepped = Backoff.step(
        policy.bound === "bounded" && fromLoss ? { ...policy, attempts: policy.attempts + 1 } : policy,
        state,
        { now: seen, random: draw, hint: hintOf(policy.base, error) }
      )
      if (stepped === undefined) {
        return yield* giveUp(exhausted(at, attempt(), seen - troubleAt, error))
      }
      state = stepped
      due = seen + state.wait
      // Those that the pace holds back together do not come back in step.
      if (slot > due) due = slot + draw * spacing
      const told = streak === 1 || streak % milestone === 0
      announced ||= told
      yield* log(
        !told ? "Debug" : error === undefined && progressed ? "Info" : "Warn",
        `${what}; failure ${streak} in a row, next attempt in ${
          Duration.format(Duration.millis(Math.round(due - seen)))
        }`
      )
    })

    // -- dialling ---------------------------------------------------------------------------------------------------

    /** Waits until a dial is due; less long when told so, but never less than the pace; for ever while offline. */
    const wait = Effect.gen(function*() {
      let paused = false
      for (;;) {
        const woken = waker = Deferred.makeUnsafe<boolean>()
        const online = yield* connectivity.online
        const delay = online ? Math.ceil(Math.max(due, slot) - now()) : askAgain
        if (delay <= 0) break
        if (online) yield* setStatus({ _tag: "Waiting", attempt: attempt(), until: wall() + delay, cause })
        else if (!paused) yield* setStatus({ _tag: "Paused", why: "offline" })
        paused = !online
        const hurried = yield* Effect.raceFirst(Effect.sleep(delay), Deferred.await(woken))
        if (paused || hurried === true) due = 0
      }
      waker = undefined
    })

    const redial: Step<void> = Effect.gen(function*() {
      yield* retire(Exit.void)
      yield* wait
      yield* setStatus({ _tag: "Connecting", attempt: attempt() })
      const own = scope = Scope.makeUnsafe()
      generation++
      progressed = false
      slot = Math.max(slot, now() - ahead) + spacing
      if (wires !== undefined) wires.slot = slot
      const dial = { cursor, attempt: attempt(), generation }
      yield* connect(dial).pipe(
        Effect.flatMap(Stream.toPull),
        Scope.provide(own),
        Effect.timeoutOrElse({
          duration: openWithin,
          orElse: () => Effect.fail(Classify.timedOut({ ...at, after: openWithin }))
        }),
        traced(Telemetry.dialSpan, { ...at, attempt: dial.attempt, generation }),
        Effect.matchCauseEffect({
          onFailure: lost,
          onSuccess: Effect.fnUntraced(function*(opened) {
            const drop = dropped = Deferred.makeUnsafe()
            pull = wires === undefined ? opened : Effect.raceFirst(Deferred.await(drop), opened)
            openedAt = now()
            measure(Telemetry.dials, 1, { outcome: "ok" })
            measure(Telemetry.openStreams, 1)
            yield* setStatus({ _tag: "Open", since: wall() })
            if (failures > 0) yield* Effect.forkIn(Effect.delay(healthy, healthyAfter), own)
          })
        })
      )
    })

    // -- reading ----------------------------------------------------------------------------------------------------

    const next: Step<NonEmptyReadonlyArray<Out>> = Effect.suspend(() => {
      if (position < pending.length || unknownPast) return hand()
      if (ended) return Cause.done()
      if (unsaved && store !== undefined) return Effect.andThen(save, next)
      if (pull === undefined) return Effect.andThen(redial, next)
      return Effect.matchCauseEffect(pull, {
        onFailure: (ending) => Effect.andThen(lost(ending), next),
        onSuccess: (items) => {
          if (items !== undefined) {
            pending = items
            position = 0
            gapped = false
            return hand()
          }
          lostAt = wall()
          cause = undefined
          due = 0
          return Effect.andThen(retire(Exit.void), next)
        }
      })
    })

    // -- from outside -----------------------------------------------------------------------------------------------

    const wake = (hurry: boolean) => waker !== undefined && Deferred.doneUnsafe(waker, Effect.succeed(hurry))
    const obey = (command: Command) => {
      if (!wake(true) && command === "replace") Deferred.doneUnsafe(dropped, Exit.succeed(undefined))
    }

    const own = yield* Effect.scope
    yield* Scope.addFinalizerExit(own, (exit) =>
      Effect.gen(function*() {
        wires?.listeners.delete(obey)
        yield* retire(exit)
        if (Exit.isSuccess(exit)) yield* save
        yield* finish(Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? undefined : new Shutdown())
      }))
    wires?.listeners.add(obey)
    yield* connectivity.changes.pipe(
      Stream.runForEach((change) => Effect.sync(() => wake(change !== "offline"))),
      Effect.forkIn(own)
    )
    return Stream.fromPull(Effect.succeed(next))
  }))
