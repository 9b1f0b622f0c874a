// What idle lifelines hold, and how what they cost grows with their number. Against a registry in this process that
// answers everything, or against Pulse where the parent names a URL.
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Registry from "effect-lifeline/Registry"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import { heapNow } from "../lib/heap.ts"
import { cpu, instances } from "./work.ts"

export interface Task {
  readonly count: number
  /** Where Pulse is; without it the registry is in the process. */
  readonly url?: string | undefined
  /** Beats that are measured, and how many a second; 0: none. */
  readonly beats: number
  readonly beatsPerSecond: number
}

/** For each lifeline: bytes of heap, microseconds of CPU. */
export interface Held {
  readonly heap: number
  readonly fiber: number
  readonly start: number
  readonly beat: number
}

let beats = 0

// Answers a turn of the event loop later, as a registry elsewhere would.
const soon = Effect.callback<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(handle))
})

const double: Registry.Registry["Service"] = {
  ...Registry.disabled,
  capabilities: { ...Registry.disabled.capabilities, adapter: "double", enabled: true, deadline: Duration.seconds(10) },
  register: ({ name, type }) => Effect.as(soon, { id: name, name, type, registeredAt: 0, expiresAfter: 120_000 }),
  heartbeat: () =>
    Effect.map(soon, () => {
      beats++
    }),
  verify: () => soon,
  deregister: () => soon
}

// Longer than the lease, over which a lifeline watches too: asleep it is one timer all the same.
const idle: Duration.Input = "1 hour"

const start = (count: number, interval: Duration.Input) =>
  Effect.forEach(
    instances(count),
    (instance) => Lifeline.make({ instance, startup: "await", heartbeat: { interval, verifyEvery: 0 } }),
    { concurrency: 64 }
  )

const measure = Effect.fnUntraced(function*({ beats: wanted, beatsPerSecond, count }: Task) {
  // Warm, and gone again: what is left of it is what the modules hold.
  for (let round = 0; round < 4; round++) yield* Effect.scoped(start(500, idle))
  const before = yield* heapNow
  const fibers = yield* Effect.forEach(instances(count), () => Effect.forkDetach(Effect.sleep("1 hour")))
  const withFibers = yield* heapNow
  yield* Fiber.interruptAll(fibers)
  const begun = cpu()
  const held = yield* Effect.scoped(Effect.gen(function*() {
    const lifelines = yield* start(count, idle)
    const spent = cpu() - begun
    const heap = yield* heapNow
    return { spent, heap, alive: lifelines.length }
  }))
  const beat = wanted === 0 ? 0 : yield* Effect.scoped(Effect.gen(function*() {
    const interval = 1000 * count / beatsPerSecond
    yield* start(count, interval)
    yield* Effect.sleep(interval + 2000)
    yield* heapNow
    const [from, began] = [beats, cpu()]
    yield* Effect.sleep(1000 * wanted / beatsPerSecond)
    return (cpu() - began) / (beats - from)
  }))
  return {
    heap: (held.heap - before) / count,
    fiber: (withFibers - before) / count,
    start: held.spent / count,
    beat
  }
})

process.once("message", (task: Task) => {
  const registry = task.url === undefined
    ? Layer.succeed(Registry.Registry, double)
    : Pulse.layer({ url: task.url }).pipe(Layer.provide(FetchHttpClient.layer))
  measure(task).pipe(
    Effect.scoped,
    Effect.provide(registry),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.runPromise
  ).then((held: Held) => process.send?.(held))
})
