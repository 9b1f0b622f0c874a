/**
 * The engine behind `Reconnect.stream`. It runs in the fiber of whoever reads the stream: a dial, a wait and a read are all
 * part of one pull, so that interrupting the reader ends any of them, and nothing is dialled before the reader has taken
 * everything that came on the connection before.
 *
 * One connection at a time, each in a scope of its own (a generation). It ends in one of four ways: for good (`AuthFailed`,
 * `Refused`, `Stop`, a defect), for now (`Transient`), unclearly (`Inconclusive`), or without an error. All but the first
 * lead to the next dial, after a wait; {@link make}'s `decide` is where that is decided.
 *
 * Two things hold the rate of dials down. The backoff, which starts over with progress; and the pace, which does not: at
 * most 8 dials in any 10 s, whatever the server sends, the backoff says, and the platform reports.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backoff from "../Backoff.ts"
import { Connectivity } from "../Connectivity.ts"
import type { AuthFailed, Inconclusive, Refused } from "../LifelineError.ts"
import { Exhausted, NoProgress, retryAfter, Shutdown, TimedOut, Transient, Unreachable } from "../LifelineError.ts"
import type { Connect, Failure, Frame, Gap, Notice, Options, Status } from "../Reconnect.ts"

/** What comes from outside while a stream runs: dial now if you wait, or in any case. */
export type Command = "now" | "replace"

/** The stream's end of a handle. */
export interface Wires {
  readonly listeners: Set<(command: Command) => void>
  readonly set: (status: Status) => Effect.Effect<void>
  /** The pace of the run before, so that it holds however often a stream is run again. */
  nextSlot?: number
}

export type Ends = AuthFailed | Refused | NoProgress | Exhausted

type Item<A, Cursor> = Frame<A, Cursor> | Notice<Cursor>

interface Connection<A, Cursor> {
  readonly pull: Pull.Pull<ReadonlyArray<Item<A, Cursor>>, Failure>
  readonly openedAt: number
  /** Completed when this connection is to be given up for a new one. */
  readonly dropped: Deferred.Deferred<undefined>
  progressed: boolean
  gapped: boolean
}

/**
 * The pace, as a leaky bucket: 3 dials at once, then one every 2 s. So in any 10 s, both ends included, at most
 * 3 + 10 / 2 = 8.
 */
const burst = 3
const spacing = 2000

/** How long the closing of a connection may hold up the next one; it goes on in the background. */
const closeWithin = 2000
/** The deadline of one access to the store of the cursor. */
const storeWithin = 5000
/** How often a platform that says offline is asked again, should it not tell. */
const askAgain = 5000
const milestone = 5

const within = (input: Duration.Input, least: number, most: number): number =>
  Math.min(most, Math.max(least, Duration.toMillis(input)))

const seconds = (millis: number): string => Duration.format(Duration.millis(Math.round(millis)))

/** What the server asked to wait. Where it asked for anything at all, it is not to be less than the base. */
const hintOf = (policy: Backoff.Policy, error: Transient | Inconclusive | undefined): number | undefined => {
  if (error?._tag !== "Transient") return undefined
  const asked = retryAfter(error)
  if (asked === undefined && error.reason._tag !== "Throttled") return undefined
  return Math.max(policy.base, asked === undefined ? 0 : Duration.toMillis(asked))
}

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
    const { at = { operation: "connect", target: "stream" }, cursorStore: store, noProgressLimit = 10 } = options
    const healthyAfter = within(options.healthyAfter ?? 10_000, 1000, Infinity)
    const openWithin = options.openTimeout ?? "30 seconds"

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
    /** When the next dial may be, by the backoff; and by the pace, counted from `nextSlot`. */
    let due = 0
    let nextSlot = wires?.nextSlot ?? -Infinity
    let cause: Transient | Inconclusive | undefined

    /** The scope of the present generation, from before it is dialled; and the connection, once there is one. */
    let scope: Scope.Closeable | undefined
    let connection: Connection<A, Cursor> | undefined
    /** What came and was not handed to the reader yet. */
    let pending: ReadonlyArray<Item<A, Cursor>> = []
    let position = 0
    /** Whether the cursor moved since it was last saved. */
    let unsaved = false
    let saveFailed = false
    const atOnce = store === undefined ? Infinity : 1
    /** A loss that the reader has to be told of before anything else. */
    let unknownPast = false
    let ended = false
    let waker: Deferred.Deferred<"now" | "look"> | undefined

    const log = (level: "Debug" | "Info" | "Warn" | "Error", message: string): Effect.Effect<void> =>
      Effect.annotateLogs(Effect.logWithLevel(level)(message), { package: "effect-lifeline", ...at })

    const name = `${at.operation} (${at.target})`

    /** The attempt that is under way, or comes next, counted from the last progress. */
    const attempt = () => state.failures + (fromLoss ? 0 : 1)

    const setStatus = (status: Status): Effect.Effect<void> => wires === undefined ? Effect.void : wires.set(status)

    // -- closing ----------------------------------------------------------------------------------------------------

    /** Ends the present generation. Nobody waits longer than `closeWithin` for it. */
    const retire = (exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const closing = scope === undefined ? undefined : Scope.closeUnsafe(scope, exit)
        scope = undefined
        connection = undefined
        return closing === undefined ? Effect.void : closing.pipe(
          Effect.catchCause((cause) => log("Warn", `${name}: closing a connection went wrong: ${Cause.pretty(cause)}`)),
          Effect.forkDetach({ startImmediately: true }),
          Effect.flatMap(Fiber.await),
          Effect.timeoutOption(closeWithin),
          Effect.asVoid
        )
      })

    const finish = (last: (Status & { readonly _tag: "Closed" })["cause"]): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (ended) return Effect.void
        ended = true
        return setStatus({ _tag: "Closed", cause: last })
      })

    const giveUp = (error: Ends): Effect.Effect<never, Ends> =>
      log("Error", `${error.message}; nothing more is tried`).pipe(
        Effect.andThen(finish(error)),
        Effect.andThen(Effect.fail(error))
      )

    // -- the cursor's store -----------------------------------------------------------------------------------------

    const save: Effect.Effect<void> = Effect.suspend(() => {
      if (store === undefined || cursor === undefined || !unsaved) return Effect.void
      unsaved = false
      return store.save(cursor).pipe(
        Effect.timeout(storeWithin),
        Effect.andThen(Effect.sync(() => {
          saveFailed = false
        })),
        Effect.catchCause((cause) => {
          if (saveFailed) return Effect.void
          saveFailed = true
          return log("Warn", `${name}: the cursor could not be saved: ${Cause.pretty(cause)}`)
        })
      )
    })

    if (store !== undefined) {
      cursor = yield* store.load.pipe(
        Effect.timeout(storeWithin),
        Effect.map((stored) => stored ?? cursor),
        Effect.catchCause((cause) => {
          unknownPast = true
          return Effect.as(
            log("Warn", `${name}: where to resume could not be read, so events may be missed: ${Cause.pretty(cause)}`),
            options.cursor
          )
        })
      )
    }

    // -- progress ---------------------------------------------------------------------------------------------------

    /** Only this starts the backoff and the counter over. */
    const progress = (): Effect.Effect<void> => {
      if (connection !== undefined) connection.progressed = true
      const count = failures
      const level = announced ? "Info" : "Debug"
      state = Backoff.initial
      fromLoss = false
      barren = 0
      failures = 0
      announced = false
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
    const hand = (): Step<readonly [Out, ...Array<Out>]> => {
      const out: Array<Out> = []
      let recovered: Effect.Effect<void> | undefined
      if (unknownPast) {
        unknownPast = false
        out.push({ _tag: "Gap", since: undefined })
      }
      while (position < pending.length && out.length < atOnce) {
        const item = pending[position++]
        if (item === undefined) continue
        if (item.notice === undefined) {
          out.push(item.value)
        } else if (item.notice === "Retry") {
          const base = within(item.base, 250, 60_000)
          policy = { ...policy, base, cap: Math.max(policy.cap, base) }
          continue
        } else if (item.notice === "Gap") {
          if (connection !== undefined && !connection.gapped) {
            connection.gapped = true
            out.push({ _tag: "Gap", since: lostAt })
          }
          continue
        }
        if (item.cursor !== undefined) {
          cursor = item.cursor
          unsaved = true
        }
        if (item.progress !== false && connection?.progressed === false) recovered = progress()
      }
      if (position >= pending.length) pending = []
      const [first, ...others] = out
      if (first === undefined) return next
      const handed = [first, ...others] as const
      return recovered === undefined ? Effect.succeed(handed) : Effect.as(recovered, handed)
    }

    // -- what ended -------------------------------------------------------------------------------------------------

    /** After a connection ended: gives up, or sets when the next dial is due. */
    const decide = Effect.fnUntraced(function*(
      error: Transient | Inconclusive | undefined,
      progressed: boolean
    ): Effect.fn.Return<void, Ends> {
      cause = error
      due = 0
      if (!(yield* connectivity.online)) {
        return yield* log("Debug", `${error?.message ?? `${name}: the connection ended`}; offline: not counted`)
      }
      const seen = now()
      troubleAt ??= seen
      failures++
      streak++
      if (error?._tag !== "Transient" && !progressed) {
        barren++
        if (barren >= noProgressLimit) {
          return yield* giveUp(new NoProgress({ ...at, connections: barren, last: error }))
        }
      }
      if (state.failures === 0) fromLoss = progressed
      const bounded = policy.bound === "bounded" && fromLoss ? { ...policy, attempts: policy.attempts + 1 } : policy
      const draw = random.nextDoubleUnsafe()
      const stepped = Backoff.step(bounded, state, { now: seen, random: draw, hint: hintOf(policy, error) })
      if (stepped === undefined) {
        const last = error?._tag === "Transient" ? error : new Transient({
          ...at,
          reason: new Unreachable({ detail: error?.detail ?? "the connection ended before anything came" })
        })
        const elapsed = Duration.millis(Math.round(seen - troubleAt))
        return yield* giveUp(new Exhausted({ attempts: attempt(), elapsed, last }))
      }
      state = stepped
      const slot = nextSlot - (burst - 1) * spacing
      due = Math.max(seen + state.wait, slot <= seen + state.wait ? 0 : slot + draw * spacing)
      const told = streak === 1 || streak % milestone === 0
      const level = !told ? "Debug" : error === undefined && progressed ? "Info" : "Warn"
      announced ||= told
      yield* log(
        level,
        `${error?.message ?? `${name}: the connection ended`}; failure ${streak} in a row, ` +
          `next attempt in ${seconds(due - seen)}`
      )
    })

    /** A dial or a read failed, or the connection ended. */
    const lost = Effect.fnUntraced(function*(ending: Cause.Cause<Failure | Cause.Done>): Effect.fn.Return<
      void,
      Ends | Cause.Done
    > {
      const found = Cause.findError(ending)
      // A defect, or an interruption that is not ours: nothing that another connection helps against.
      if (Cause.hasDies(ending) || Result.isFailure(found)) return yield* Effect.failCause(ending as Cause.Cause<never>)
      const error = Cause.isDone(found.success) ? undefined : found.success
      const was = connection
      if (was !== undefined) {
        lostAt = wall()
        if (now() - was.openedAt >= healthyAfter) yield* healthy
      }
      yield* retire(error === undefined ? Exit.void : Exit.fail(error))
      switch (error?._tag) {
        case "AuthFailed":
        case "Refused":
          return yield* giveUp(error)
        case "Stop":
          yield* log("Debug", error.message)
          yield* finish(error)
          return yield* Cause.done()
        default:
          return yield* decide(error, was?.progressed === true)
      }
    })

    // -- dialling ---------------------------------------------------------------------------------------------------

    /** Waits until a dial is due; less long when told so, but never less than the pace; for ever while offline. */
    const wait = Effect.fnUntraced(function*() {
      let paused = false
      for (;;) {
        const woken = waker = Deferred.makeUnsafe<"now" | "look">()
        if (!(yield* connectivity.online)) {
          if (!paused) yield* setStatus({ _tag: "Paused", why: "offline" })
          paused = true
          due = 0
          yield* Effect.raceFirst(Effect.sleep(askAgain), Deferred.await(woken))
          continue
        }
        const delay = Math.max(due, nextSlot - (burst - 1) * spacing) - now()
        if (delay <= 0) break
        yield* setStatus({ _tag: "Waiting", attempt: attempt(), until: wall() + Math.ceil(delay), cause })
        const command = yield* Effect.raceFirst(Effect.sleep(Math.ceil(delay)), Deferred.await(woken))
        if (command === "now") due = 0
      }
      waker = undefined
    })

    const dial: Step<void> = Effect.suspend(() => {
      const own = scope = Scope.makeUnsafe()
      generation++
      nextSlot = Math.max(nextSlot, now()) + spacing
      if (wires !== undefined) wires.nextSlot = nextSlot
      return connect({ cursor, attempt: attempt(), generation }).pipe(
        Effect.flatMap(Stream.toPull),
        Scope.provide(own),
        Effect.timeoutOrElse({
          duration: openWithin,
          orElse: () =>
            Effect.fail(new Transient({ ...at, reason: new TimedOut({ after: Duration.fromInputUnsafe(openWithin) }) }))
        }),
        Effect.matchCauseEffect({
          onFailure: lost,
          onSuccess: (pull) => {
            connection = { pull, openedAt: now(), dropped: Deferred.makeUnsafe(), progressed: false, gapped: false }
            const opened = setStatus({ _tag: "Open", since: wall() })
            return failures === 0
              ? opened
              : Effect.andThen(opened, Effect.forkIn(Effect.delay(healthy, healthyAfter), own))
          }
        })
      )
    })

    const redial: Step<void> = Effect.suspend(() => retire(Exit.void)).pipe(
      Effect.andThen(Effect.suspend(wait)),
      Effect.andThen(Effect.suspend(() => setStatus({ _tag: "Connecting", attempt: attempt() }))),
      Effect.andThen(dial)
    )

    // -- reading ----------------------------------------------------------------------------------------------------

    const replaced: Effect.Effect<void> = Effect.suspend(() => {
      lostAt = wall()
      cause = undefined
      due = 0
      return retire(Exit.void)
    })

    const read = ({ dropped, pull }: Connection<A, Cursor>): Step<readonly [Out, ...Array<Out>]> =>
      Effect.matchCauseEffect(
        wires === undefined
          ? pull
          : Effect.raceFirst(Deferred.isDoneUnsafe(dropped) ? Effect.never : pull, Deferred.await(dropped)),
        {
          onFailure: (ending) => Effect.andThen(lost(ending), next),
          onSuccess: (items) => {
            if (items === undefined) return Effect.andThen(replaced, next)
            pending = items
            position = 0
            return hand()
          }
        }
      )

    const next: Step<readonly [Out, ...Array<Out>]> = Effect.suspend(() => {
      if (position < pending.length || unknownPast) return hand()
      if (ended) return Cause.done()
      if (store !== undefined && unsaved) return Effect.andThen(save, next)
      return connection === undefined ? Effect.andThen(redial, next) : read(connection)
    })

    // -- from outside -----------------------------------------------------------------------------------------------

    const obey = (command: Command) => {
      if (waker !== undefined) Deferred.doneUnsafe(waker, Effect.succeed("now"))
      else if (command === "replace" && connection !== undefined) {
        Deferred.doneUnsafe(connection.dropped, Effect.succeed(undefined))
      }
    }

    const own = yield* Effect.scope
    yield* Scope.addFinalizerExit(own, (exit) =>
      Effect.gen(function*() {
        wires?.listeners.delete(obey)
        yield* retire(exit)
        if (Exit.isSuccess(exit)) yield* save
        const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause)
        yield* finish(defect ? undefined : new Shutdown())
      }))
    wires?.listeners.add(obey)
    yield* connectivity.changes.pipe(
      Stream.runForEach((change) =>
        Effect.sync(() => {
          if (waker !== undefined) Deferred.doneUnsafe(waker, Effect.succeed(change === "offline" ? "look" : "now"))
        })
      ),
      Effect.forkIn(own)
    )
    return Stream.fromPull(Effect.succeed(next))
  }))
