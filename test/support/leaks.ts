/** What a test may not leave behind: fibers, and what the process waits for (sockets, timers, name look-ups). */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const moment = Effect.promise(() => new Promise<void>((resolve) => setTimeout(resolve, 10).unref()))

/** Asks again and again, at most 15 seconds, until the answer is no. Sockets, and fibers that wait for them, need a moment. */
const settle = (busy: () => boolean) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1500 && busy(); n++) yield* moment
  })

/** How many fibers run, of those that run under `watch`. */
export const fiberCounter = () => {
  let active = 0
  const service: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      active++
    },
    recordFiberEnd: () => {
      active--
    }
  }
  return {
    /** How many are left once they had time to end. */
    left: Effect.map(settle(() => active > 0), () => active),
    watch: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.provideService(effect, Metric.FiberRuntimeMetrics, service)
  }
}

const counts = (): ReadonlyMap<string, number> => {
  const kinds = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo()) kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
  return kinds
}

/** Remembers what the process waits for now; the inner effect gives what it still waits for beyond that. */
export const resources: Effect.Effect<Effect.Effect<ReadonlyArray<string>>> = Effect.sync(() => {
  const before = counts()
  const beyond = () => [...counts()].filter(([kind, count]) => count > (before.get(kind) ?? 0)).map(([kind]) => kind)
  return Effect.map(settle(() => beyond().length > 0), beyond)
})
