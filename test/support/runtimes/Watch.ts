/**
 * Waiting for a condition over things that arrive one by one (lines of a process, calls to a server), without polling:
 * the condition is looked at again each time something arrives.
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/** What a test was waiting for did not come, or could not be started. `seen` is what came instead. */
export class RuntimeError extends Data.TaggedError("RuntimeError")<
  { readonly problem: string; readonly seen?: string | undefined; readonly cause?: unknown }
> {
  override get message() {
    return this.seen === undefined || this.seen === "" ? this.problem : `${this.problem}. What was seen:\n${this.seen}`
  }
}

export interface Watch<A> {
  readonly seen: ReadonlyArray<A>
  readonly add: (item: A) => void
  /** Nothing will arrive any more: whoever waits is answered. */
  readonly end: (why: string) => void
  /** Waits until `find` returns something for all that was seen; fails at the deadline or at the end. */
  readonly until: <B>(
    what: string,
    find: (seen: ReadonlyArray<A>) => B | undefined,
    within?: Duration.Input
  ) => Effect.Effect<B, RuntimeError>
}

export const make = <A>(show: (item: A) => string): Watch<A> => {
  const seen: Array<A> = []
  const listeners = new Set<() => void>()
  let ended: string | undefined
  const notify = (): void => {
    for (const listener of listeners) listener()
  }
  const problem = (text: string): RuntimeError =>
    new RuntimeError({ problem: text, seen: seen.map((item) => `  ${show(item)}`).join("\n") })
  return {
    seen,
    add: (item) => {
      seen.push(item)
      notify()
    },
    end: (why) => {
      ended = why
      notify()
    },
    until: <B>(
      what: string,
      find: (seen: ReadonlyArray<A>) => B | undefined,
      within: Duration.Input = "15 seconds"
    ) =>
      Effect.callback<B, RuntimeError>((resume) => {
        const listener = (): void => {
          const found = find(seen)
          if (found === undefined && ended === undefined) return
          listeners.delete(listener)
          resume(found === undefined ? Effect.fail(problem(`${what}: ${ended}`)) : Effect.succeed(found))
        }
        listeners.add(listener)
        listener()
        return Effect.sync(() => {
          listeners.delete(listener)
        })
      }).pipe(
        Effect.timeoutOrElse({
          duration: within,
          orElse: () => Effect.fail(problem(`${what}: not within ${Duration.format(Duration.fromInputUnsafe(within))}`))
        })
      )
  }
}
