/** A deadline for less than `Effect.timeoutOrElse` takes: each beat of each lifeline has one. */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** Runs it with these services. What is not done in time is interrupted, and once it has ended `orElse` takes over. */
export const within = <A, E, A2, E2>(
  context: Context.Context<never>,
  self: Effect.Effect<A, E>,
  duration: Duration.Duration,
  orElse: () => Effect.Effect<A2, E2>
): Effect.Effect<A | A2, E | E2> =>
  Effect.callback((resume) => {
    const run = Effect.runForkWith(context)
    const child = run(self)
    const timer = run(Effect.map(Effect.sleep(duration), () => resume(Effect.flatMap(Fiber.interrupt(child), orElse))))
    child.addObserver((exit) => {
      timer.interruptUnsafe()
      resume(exit)
    })
    return Fiber.interruptAll([timer, child])
  })
