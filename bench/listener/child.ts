// Many subscriptions on one Listener, over a connection within the process: what each holds, what a message costs on its way
// from the connection to its reader, and how long a new connection takes until it has them all.
import * as Listener from "effect-lifeline/Listener"
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Stream from "effect/Stream"

export interface Task {
  readonly count: number
  /** Messages that readers get in all, in each of both ways. */
  readonly messages: number
  readonly replays: number
}

/** Of one subscription, one message or one key: bytes of heap, microseconds of CPU. */
export interface Held {
  readonly heap: number
  readonly read: number
  readonly subscribe: number
  readonly single: Rate
  readonly all: Rate
  /** The median; and how long it took for all of them, in milliseconds. */
  readonly replay: number
  readonly replayed: number
}

export interface Rate {
  readonly perSecond: number
  readonly cpu: number
}

interface Message {
  readonly key: number | ReadonlyArray<number>
}

const cpu = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

const heapNow = Effect.gen(function*() {
  // Again and again, with time between: what was finalized goes only then.
  for (let round = 0; round < 3; round++) {
    yield* Effect.sleep(200)
    globalThis.gc?.()
  }
  return process.memoryUsage().heapUsed
})

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

const chunk = 1000

const measure = Effect.fnUntraced(function*({ count, messages, replays }: Task) {
  const keys = Array.from({ length: count }, (_, key) => key)
  let incoming: Queue.Queue<Message, Cause.Done> | undefined
  let sent = 0
  let dialled = { at: 0, cpu: 0 }
  let complete = Deferred.makeUnsafe<void>()
  const connection: Effect.Effect<Listener.Connection<Message, number>> = Effect.gen(function*() {
    const queue = incoming = yield* Queue.unbounded<Message, Cause.Done>()
    sent = 0
    dialled = { at: performance.now(), cpu: cpu() }
    return {
      messages: Stream.fromQueue(queue),
      send: () =>
        Effect.sync(() => {
          if (++sent === count) Deferred.doneUnsafe(complete, Effect.void)
        })
    }
  })

  const before = yield* heapNow
  const listener = yield* Listener.make({
    connect: () => connection,
    route: ({ key }: Message) => key,
    subscribe: (key: number) => key
  })
  const begun = cpu()
  const subscriptions = yield* Effect.forEach(keys, (key) => listener.subscribe(key))
  const subscribe = (cpu() - begun) / count
  const heap = (yield* heapNow) - before

  const tally = { received: 0, expected: 0 }
  const reading = Effect.sync(() => {
    tally.received++
  })
  yield* Effect.forEach(
    subscriptions,
    ({ messages }) => Effect.forkScoped(Stream.runForEach(messages, () => reading)),
    { discard: true }
  )
  const read = (yield* heapNow) - before

  /** Messages come in pieces of as many as there are; the next one when all have been read. */
  const flow = Effect.fnUntraced(function*(pieces: ReadonlyArray<ReadonlyArray<Message>>, rounds: number) {
    const [at, from, spent] = [performance.now(), tally.received, cpu()]
    for (let round = 0; round < rounds; round++) {
      for (const piece of pieces) {
        if (incoming !== undefined) Queue.offerAllUnsafe(incoming, piece)
        for (const { key } of piece) tally.expected += typeof key === "number" ? 1 : key.length
        while (tally.received < tally.expected) yield* Effect.yieldNow
      }
    }
    const read = tally.received - from
    const rate: Rate = { perSecond: 1000 * read / (performance.now() - at), cpu: (cpu() - spent) / read }
    return rate
  })
  const pieces = Array.from(
    { length: Math.ceil(count / chunk) },
    (_, piece) => keys.slice(piece * chunk, (piece + 1) * chunk).map((key): Message => ({ key }))
  )
  const rounds = Math.ceil(messages / count)
  yield* flow(pieces, 1)
  const single = yield* flow(pieces, rounds)
  const toAll: ReadonlyArray<ReadonlyArray<Message>> = [[{ key: keys }]]
  yield* flow(toAll, 1)
  const all = yield* flow(toAll, rounds)

  const replayed: Array<readonly [number, number]> = []
  for (let round = 0; round < replays; round++) {
    complete = Deferred.makeUnsafe()
    if (incoming !== undefined) Queue.endUnsafe(incoming)
    yield* Deferred.await(complete)
    replayed.push([performance.now() - dialled.at, (cpu() - dialled.cpu) / count])
    // Messages come again: they do when the replay is complete. And it is one that worked.
    yield* flow(pieces, 1)
  }
  const held: Held = {
    heap: heap / count,
    read: read / count,
    subscribe,
    single,
    all,
    replay: median(replayed.map(([, spent]) => spent)),
    replayed: median(replayed.map(([millis]) => millis))
  }
  return held
})

process.once("message", (task: Task) => {
  // First to warm up.
  measure({ count: 1000, messages: 100_000, replays: 1 }).pipe(
    Effect.scoped,
    Effect.andThen(Effect.scoped(measure(task))),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.runPromise
  ).then((held) => process.send?.(held))
})
