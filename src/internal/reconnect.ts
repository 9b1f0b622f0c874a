/**
 * The engine behind `Reconnect.stream`. It runs in the fiber of whoever reads the stream: a dial, a wait and a read are all
 * part of one pull, so that interrupting the reader ends any of them, and nothing is dialled before the reader has taken
 * everything that came on the connection before.
 *
 * One connection at a time, each in a scope of its own (a generation). It ends in one of four ways: for good (`AuthFailed`,
 * `Refused`, `Stop`, a defect), for now (`Transient`), unclearly (`Inconclusive`), or without an error. All but the first
 * lead to the next dial, after a wait; {@link make}'s `lost` is where that is decided.
 *
 * What not every stream has comes from outside, as a value that brings its code: metrics and spans (`internal/dialObserver`),
 * a cursor that is kept (`internal/cursorStore`), a handle (the {@link Wires}).
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
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import { Connectivity } from "../Connectivity.ts"
import type { Attempted, AuthFailed, Exhausted, Inconclusive, Refused, Stop, Transient } from "../LifelineError.ts"
import { NoProgress, retryAfter, Shutdown } from "../LifelineError.ts"
import type { Bounded, Connect, Failure, Frame, Gap, Notice, Options, Status } from "../Reconnect.ts"
import type { Through } from "./cursorStore.ts"
import { DialObserver } from "./dialObserver.ts"
import * as Outage from "./outage.ts"

/** What comes from outside while a stream runs: dial now if you wait, or in any case. */
export type Command = "now" | "replace"

/** The stream's end of a handle. */
export interface Wires {
  readonly listeners: Set<(command: Command) => void>
  readonly set: (status: Status) => Effect.Effect<void>
  /** The pace of the run before, so that it holds however often a stream is run again. */
  slot?: number
}

/** A policy; that it gives up, and when, is brought by one that is bounded. */
export type Policy = Backoff.Policy & Partial<Pick<Bounded, "~effect-lifeline/Reconnect">>

/** What a stream is made from: `Reconnect.Options`, with a name. */
export interface StreamOptions<in out Cursor> extends Options<Cursor> {
  readonly at: Attempted
  readonly policy?: Policy | undefined
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
/** How often a platform that says offline is asked again, should it not tell. */
const askAgain = 5000
const milestone = 5

/** What the server asked to wait. Where it asked for anything at all, it is not to be less than the base. */
const hintOf = (base: number, error: Failure | undefined): number | undefined => {
  if (error?._tag !== "Transient") return undefined
  const asked = retryAfter(error) ?? (error.reason._tag === "Throttled" ? Duration.zero : undefined)
  return asked && Math.max(base, Duration.toMillis(asked))
}

/** How the lines of one stream begin, and what writes them. */
export const logger = (at: Attempted) => {
  const annotated = Effect.annotateLogs({ package: "effect-lifeline", ...at })
  return {
    name: `${at.operation} (${at.target})`,
    log: (level: "Debug" | "Info" | "Warn" | "Error", ...message: ReadonlyArray<unknown>): Effect.Effect<void> =>
      annotated(Effect.logWithLevel(level)(...message))
  }
}

/** A deadline, as a failure of the algebra. */
export const deadline =
  (at: () => Attempted, input: Duration.Input) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | Transient, R> =>
    Effect.timeoutOrElse(self, {
      duration: input,
      orElse: () => Effect.fail(Classify.timedOut({ ...at(), after: input }))
    })

export const make = <A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options: StreamOptions<Cursor>,
  wires: Wires | undefined = options.handle?.["~effect-lifeline/Reconnect"]
): Stream.Stream<A | Gap, Ends, Exclude<R, Scope.Scope>> =>
  Stream.scoped(Stream.fromPull(Effect.gen(function*() {
    type Out = A | Gap
    type Step<T> = Effect.Effect<T, Ends | Cause.Done, Exclude<R, Scope.Scope>>

    const clock = yield* Clock.Clock
    const connectivity = yield* Connectivity
    const observe = yield* DialObserver
    const { at, healthyAfter = 10_000, noProgressLimit = 10, openTimeout = 30_000 } = options
    const { log, name } = logger(at)
    const set = wires?.set ?? (() => Effect.void)

    /** Milliseconds of a clock that nobody sets: for differences. What is shown to people is wall time. */
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    const wall = () => clock.currentTimeMillisUnsafe()

    let { cursor, policy = Backoff.streams as Policy } = options
    const limit = policy["~effect-lifeline/Reconnect"]?.(at, now())
    /** The present outage. */
    let state: Outage.Outage = Backoff.initial
    /**
     * The attempt that is under way, or comes next, counted from the last progress; 0 once there was some, as the loss of a
     * connection that worked is no attempt.
     */
    let attempt = 1
    /** Whether the log said that something is wrong. */
    let announced = false
    let generation = 0
    /** Connections in a row that ended without progress. */
    let barren = 0
    /** Connections in a row that ended before they were healthy: what the log goes by, so that it is not flooded. */
    let streak = 0
    let lostAt: number | undefined
    /** When the next dial may be, by the backoff and by the pace. */
    let due = 0
    let slot = wires?.slot ?? -Infinity
    let cause: Transient | Inconclusive | undefined
    /** The scope of the present generation, from before it is dialled; how to read it, while it is open. */
    let scope = Scope.makeUnsafe()
    let pull: Pull.Pull<ReadonlyArray<Item<A, Cursor>>, Failure> | undefined
    let progressed = false
    /** Completed when a wait is to be cut short, or the present connection to be given up for a new one. */
    let signal = Deferred.makeUnsafe<ReadonlyArray<never>>()
    /** What the stream is closed with. */
    let ending: (Status & { readonly _tag: "Closed" })["cause"] = new Shutdown()

    /** There is no open connection, and no wait yet. */
    const leave = () => {
      if (pull !== undefined) lostAt = wall()
      pull = cause = undefined
      due = 0
    }

    /** Ends the present generation. Nobody waits longer than `closeWithin` for it. */
    const retire = (exit: Exit.Exit<unknown, unknown>) =>
      Scope.close(scope, exit).pipe(
        Effect.catchCause((cause) => log("Warn", `${name} was not closed`, cause)),
        Effect.forkDetach({ startImmediately: true }),
        Effect.flatMap(Fiber.await),
        Effect.timeoutOption(closeWithin)
      )

    const giveUp = Effect.fnUntraced(function*(error: Ends | Stop): Effect.fn.Return<never, Ends | Cause.Done> {
      const isStop = error._tag === "Stop"
      yield* log(isStop ? "Debug" : "Error", `${error.message}; nothing more is tried`)
      ending = error
      return yield* isStop ? Cause.done() : Effect.fail(error)
    })

    /** Only this starts the backoff and the counter over. */
    const progress = Effect.suspend(() => {
      const { failures } = state
      const level = announced ? "Info" : "Debug"
      progressed = true
      state = Backoff.initial
      announced = false
      attempt = barren = 0
      return failures === 0
        ? Effect.void
        : log(level, `${name} recovered after ${failures} ${failures === 1 ? "failure" : "failures"}`)
    })

    /** Hands over what came. */
    const hand = (items: ReadonlyArray<Item<A, Cursor>>): Step<NonEmptyReadonlyArray<Out>> => {
      const gap: Gap = { _tag: "Gap", since: lostAt }
      const out: Array<Out> = []
      let isProgress = false
      for (const item of items) {
        if (item.notice === "Retry") {
          const base = Math.min(60_000, Math.max(250, Duration.toMillis(item.base)))
          policy = { ...policy, base, cap: Math.max(policy.cap, base) }
          continue
        }
        if (item.notice === undefined) out.push(item.value)
        // Gaps with no event between them are one.
        if (item.notice === "Gap" && out.at(-1) !== gap) out.push(gap)
        cursor = item.cursor ?? cursor
        isProgress ||= item.progress ?? item.notice !== "Gap"
      }
      const handed = isArrayNonEmpty(out) ? Effect.succeed(out) : next
      return isProgress && !progressed ? Effect.andThen(progress, handed) : handed
    }

    /** A dial or a read failed, or the connection ended: gives up, or sets when the next dial is due. */
    const lost = Effect.fnUntraced(function*(
      found: Failure | Cause.Done
    ): Effect.fn.Return<void, Ends | Cause.Done> {
      const seen = now()
      const error = Cause.isDone(found) ? undefined : found
      leave()
      if (error !== undefined && error._tag !== "Transient" && error._tag !== "Inconclusive") {
        return yield* giveUp(error)
      }

      const what = error?.message ?? `${name}: the connection ended`
      cause = error
      if (!(yield* connectivity.online)) return yield* log("Debug", `${what}; offline: not counted`)
      streak++
      if (error?._tag !== "Transient" && !progressed && ++barren >= noProgressLimit) {
        return yield* giveUp(new NoProgress({ ...at, connections: barren, last: error }))
      }
      const draw = yield* Random.next
      state = Outage.lengthen(policy, state, draw, hintOf(policy.base, error))
      const exhausted = limit?.(attempt, seen, state.wait, error)
      if (exhausted !== undefined) return yield* giveUp(exhausted)
      attempt++
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

    /** Waits until a dial is due; less long when told so, but never less than the pace; for ever while offline. */
    const wait = Effect.gen(function*() {
      let paused = false
      for (;;) {
        signal = Deferred.makeUnsafe()
        const online = yield* connectivity.online
        const delay = online ? Math.ceil(Math.max(due, slot) - now()) : askAgain
        if (delay <= 0) return
        if (online) yield* set({ _tag: "Waiting", attempt, until: wall() + delay, cause })
        else if (!paused) yield* set({ _tag: "Paused", why: "offline" })
        paused = !online
        yield* Effect.timeoutOption(Deferred.await(signal), delay)
        due = 0
      }
    })

    const redial = Effect.gen(function*() {
      attempt ||= 1
      yield* retire(Exit.void)
      yield* wait
      scope = Scope.makeUnsafe()
      const dial = { cursor, attempt, generation: ++generation }
      progressed = false
      slot = Math.max(slot, now() - ahead) + spacing
      if (wires !== undefined) wires.slot = slot
      yield* set({ _tag: "Connecting", attempt })
      const opened = yield* Effect.flatMap(connect(dial), Stream.toPull).pipe(
        deadline(() => at, openTimeout),
        observe(at, dial),
        Scope.provide(scope)
      )
      signal = Deferred.makeUnsafe()
      pull = wires === undefined ? opened : Effect.raceFirst(Deferred.await(signal), opened)
      yield* set({ _tag: "Open", since: wall() })
      yield* Effect.forkIn(
        Effect.delay(
          Effect.suspend(() => {
            streak = 0
            return progress
          }),
          Math.max(1000, Duration.toMillis(healthyAfter))
        ),
        scope
      )
      return []
    })

    const next: Step<NonEmptyReadonlyArray<Out>> = Effect.suspend(() =>
      Effect.matchEffect(pull ?? redial, {
        onFailure: (found) => Effect.andThen(lost(found), next),
        onSuccess: hand
      })
    )

    const obey = (command: Command) => {
      if (command === "replace") leave()
      if (pull === undefined) Deferred.doneUnsafe(signal, Exit.succeed([]))
    }

    yield* Effect.addFinalizer((exit) => {
      wires?.listeners.delete(obey)
      return Effect.andThen(retire(exit), set({ _tag: "Closed", cause: Exit.hasDies(exit) ? undefined : ending }))
    })
    wires?.listeners.add(obey)
    yield* connectivity.changes.pipe(
      Stream.runForEach(() => Effect.sync(() => obey("now"))),
      Effect.forkScoped
    )
    return next
  })))

/** {@link make}, with the store around it where there is one. */
export const stream = <A, Cursor, R>(
  connect: Connect<A, Cursor, R>,
  options: StreamOptions<Cursor>
): Stream.Stream<A | Gap, Ends, Exclude<R, Scope.Scope>> => {
  const through: Through<Cursor> = options.cursorStore?.["~effect-lifeline/Reconnect"] ?? make
  return through(connect, options)
}
