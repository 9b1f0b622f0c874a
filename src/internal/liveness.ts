/**
 * Whether the other side of a connection is still there: it is when anything was heard from it within the deadline. After
 * half of the deadline it is asked, where it can be. A timer that fires much too late (the machine slept, the page was
 * frozen) is no evidence of silence: then it is asked once more, and given time to answer.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** A timer is late when it is later than this, in nanoseconds. */
const tolerance = 1_000_000_000n

/** Ends when the other side is not there any more. `heard` says when something last came, in nanoseconds of the monotonic clock. */
export const watch: (options: {
  readonly deadline: Duration.Duration
  readonly heard: () => bigint
  readonly ask: () => void
}) => Effect.Effect<void> = Effect.fnUntraced(function*({ ask, deadline, heard }) {
  const clock = yield* Clock.Clock
  const whole = Duration.toNanosUnsafe(deadline)
  const quiet = whole / 2n
  const patience = whole - quiet
  for (;;) {
    const last = heard()
    const rest = last + quiet - clock.monotonicTimeNanosUnsafe()
    if (rest > 0n) {
      yield* Effect.sleep(Duration.nanos(rest))
      continue
    }
    let isLate = true
    while (isLate && heard() === last) {
      const asked = clock.monotonicTimeNanosUnsafe()
      ask()
      yield* Effect.sleep(Duration.nanos(patience))
      isLate = clock.monotonicTimeNanosUnsafe() - asked > patience + tolerance
    }
    if (heard() === last) return
  }
})
