/** Events for whoever listens, from then on. A slow one misses the oldest. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/** So many events a slow reader may be behind. */
const bufferSize = 256

export interface EventFeed<in out Event> {
  readonly publish: (event: Event) => void
  /** Ends each stream, and those that are read later. */
  readonly end: () => void
  readonly stream: Stream.Stream<Event>
}

export const make = <Event>(): EventFeed<Event> => {
  const listeners = new Set<Queue.Enqueue<Event, Cause.Done>>()
  let isOver = false
  return {
    publish: (event) => {
      for (const listener of listeners) Queue.offerUnsafe(listener, event)
    },
    end: () => {
      isOver = true
      for (const listener of listeners) Queue.endUnsafe(listener)
    },
    stream: Stream.callback<Event>((listener) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          if (isOver) Queue.endUnsafe(listener)
          listeners.add(listener)
        }),
        () => Effect.sync(() => listeners.delete(listener))
      ), { bufferSize, strategy: "sliding" })
  }
}
