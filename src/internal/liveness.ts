/**
 * Whether the other side of a connection is still there: it is when anything was heard from it within the deadline. After
 * half of the deadline it is asked, where it can be. It is also asked when the platform wakes or comes online, as the
 * connection may have died unseen. A timer that fires much too late (the machine slept, the page was frozen) is no evidence
 * of silence: then it is asked once more, and given time to answer.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Stream from "effect/Stream"
import { Connectivity } from "../Connectivity.ts"

/** A timer is late when it is later than this, in nanoseconds. */
const tolerance = 1_000_000_000n

/** Ends when the other side is not there any more. `heard` says when something last came, in nanoseconds of the monotonic clock. */
export const watch: (options: {
  readonly deadline: Duration.Duration
  readonly heard: () => bigint
  /** `undefined`: it cannot be asked; then it is given no less than the deadline, whatever the platform says. */
  readonly ask: (() => void) | undefined
}) => Effect.Effect<void> = Effect.fnUntraced(function*({ ask, deadline, heard }) {
  const clock = yield* Clock.Clock
  const { changes } = yield* Connectivity
  const whole = Duration.toNanosUnsafe(deadline)
  const quiet = whole / 2n
  const patience = whole - quiet

  const woken = Latch.makeUnsafe(false)
  if (ask !== undefined) {
    const wakes = Stream.filter(changes, (change) => change !== "offline")
    yield* Effect.forkChild(Stream.runForEach(wakes, () => woken.open))
  }
  /** Whether it was cut short: the platform woke. */
  const sleep = (nanos: bigint): Effect.Effect<boolean> =>
    Effect.map(
      Effect.raceFirst(Effect.as(Effect.sleep(Duration.nanos(nanos)), false), Effect.as(woken.await, true)),
      (isWoken) => {
        woken.closeUnsafe()
        return isWoken
      }
    )

  for (;;) {
    const rest = heard() + quiet - clock.monotonicTimeNanosUnsafe()
    if (rest > 0n && !(yield* sleep(rest))) continue
    const last = heard()
    let isLate = true
    while (isLate && heard() === last) {
      const asked = clock.monotonicTimeNanosUnsafe()
      ask?.()
      isLate = (yield* sleep(patience)) || clock.monotonicTimeNanosUnsafe() - asked > patience + tolerance
    }
    if (heard() === last) return
  }
})
