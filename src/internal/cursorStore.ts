/**
 * Keeps a stream's cursor beyond its life. It goes around a stream from both sides: around its transport, to see where each
 * item leads, and around what is handed over, to save the cursor of an item when the reader comes back for the next one. So
 * items are handed over one by one, and what is saved is never ahead of the reader.
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Connect, Frame, Gap, Notice } from "../Reconnect.ts"
import type { Ends, StreamOptions } from "./reconnect.ts"
import { logger, make } from "./reconnect.ts"

/** The deadline of one access to the store. */
const within: Duration.Input = "5 seconds"

export interface Access<in out Cursor> {
  /** `undefined`: none is kept. */
  readonly load: Effect.Effect<Cursor | undefined, unknown>
  readonly save: (cursor: Cursor) => Effect.Effect<void, unknown>
}

/** An item on its way through the stream. */
interface Marked<A, Cursor> {
  readonly _tag: "Marked"
  /** None: it was a cursor and nothing else. */
  readonly values: readonly [] | readonly [A]
  readonly cursor: Cursor | undefined
}

const mark = <A, Cursor>(
  item: Frame<A, Cursor> | Notice<Cursor>
): Frame<Marked<A, Cursor>, Cursor> | Notice<Cursor> => {
  if (item.notice === "Retry" || item.notice === "Gap") return item
  const values: Marked<A, Cursor>["values"] = item.notice === undefined ? [item.value] : []
  return { value: { _tag: "Marked", values, cursor: item.cursor }, cursor: item.cursor, progress: item.progress }
}

/** Gaps with no event between them are one, also where there are cursors between them. */
const withoutRepeats = <A, Cursor>(
  items: ReadonlyArray<Gap | Marked<A, Cursor>>
): Array<Gap | Marked<A, Cursor>> => {
  let inGap = false
  return items.filter((item) => {
    const isGap = item._tag === "Gap"
    const repeats = isGap && inGap
    if (isGap || item.values.length > 0) inGap = isGap
    return !repeats
  })
}

/** A stream over a transport: `make`, with the store around it. */
export type Through<in out Cursor> = <A, R>(
  connect: Connect<A, Cursor, R>,
  options: StreamOptions<Cursor>
) => Stream.Stream<A | Gap, Ends, Exclude<R, Scope.Scope>>

export const through =
  <Cursor>({ load, save }: Access<Cursor>): Through<Cursor> =>
  <A, R>(connect: Connect<A, Cursor, R>, options: StreamOptions<Cursor>) =>
    Stream.unwrap(Effect.gen(function*() {
      const { log, name } = logger(options.at)
      const warn = (what: string, cause: Cause.Cause<unknown>) =>
        log("Warn", `${name}: ${what}: ${Cause.pretty(cause)}`)

      /** A loss that the reader has to be told of before anything else. */
      let ready: Array<Gap | Marked<A, Cursor>> = []
      const loaded = yield* Effect.catchCause(Effect.timeout(load, within), (cause) => {
        ready = [{ _tag: "Gap", since: undefined }]
        return Effect.as(warn("where to resume could not be read, so events may be missed", cause), undefined)
      })

      let unsaved: Cursor | undefined
      let hasFailed = false
      const saved = Effect.suspend(() => {
        const cursor = unsaved
        if (cursor === undefined) return Effect.void
        unsaved = undefined
        const hadFailed = hasFailed
        hasFailed = false
        return Effect.catchCause(Effect.timeout(save(cursor), within), (cause) => {
          hasFailed = true
          return hadFailed ? Effect.void : warn("the cursor could not be saved", cause)
        })
      })
      yield* Scope.addFinalizerExit(yield* Effect.scope, (exit) => Exit.isSuccess(exit) ? saved : Effect.void)

      const pull = yield* Stream.toPull(make(
        (dial) => Effect.map(connect(dial), Stream.map(mark<A, Cursor>)),
        { ...options, cursor: loaded ?? options.cursor }
      ))
      const next: Pull.Pull<readonly [A | Gap], Ends, void, Exclude<R, Scope.Scope>> = Effect.suspend(() => {
        if (unsaved !== undefined) return Effect.andThen(saved, next)
        const item = ready.shift()
        if (item === undefined) {
          return Effect.flatMap(pull, (items) => {
            ready = withoutRepeats(items)
            return next
          })
        }
        if (item._tag === "Gap") return Effect.succeed<readonly [Gap]>([item])
        unsaved = item.cursor
        return item.values.length === 0 ? next : Effect.succeed<readonly [A]>(item.values)
      })
      return Stream.fromPull(Effect.succeed(next))
    }))
