/**
 * What the demo expects to see. Each expectation is looked at again and again until it is met; one that is not met within
 * its deadline ends the demo as a {@link Deviation}.
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { Timeline } from "./Timeline.ts"

/** Something is not as the demo says. `found` is what was seen last. */
export class Deviation extends Data.TaggedError("Deviation")<{ readonly expected: string; readonly found: string }> {
  override get message() {
    return `expected: ${this.expected}; found: ${this.found}`
  }
}

const lookAgain = Schedule.spaced("50 millis")

/** `look` fails with what it found instead. */
export const expect = Effect.fnUntraced(function*<A, R>(
  expected: string,
  within: Duration.Input,
  look: Effect.Effect<A, string, R>
): Effect.fn.Return<A, Deviation, R | Timeline> {
  const timeline = yield* Timeline
  let found = "no answer"
  const value = yield* look.pipe(
    Effect.tapError((instead) =>
      Effect.sync(() => {
        found = instead
      })
    ),
    Effect.retry(lookAgain),
    Effect.mapError((instead) => new Deviation({ expected, found: instead })),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () =>
        Effect.fail(
          new Deviation({
            expected,
            found: `${found}, still after ${Duration.format(Duration.fromInputUnsafe(within))}`
          })
        )
    })
  )
  yield* timeline.verdict(true, expected)
  return value
})

/** What is true now, or not. */
export const check = (holds: boolean, found: string): Effect.Effect<void, string> =>
  holds ? Effect.void : Effect.fail(found)
