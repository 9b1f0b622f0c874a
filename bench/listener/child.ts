// Many subscriptions on one Listener, over a connection within the process: what each holds, what a message costs on its way
// from the connection to its reader, and how long a new connection takes until it has them all.
import * as Listener from "effect-lifeline/Listener"
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import { heapNow } from "../lib/heap.ts"

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
  /** Of fibers that wait for nothing but each their own `Deferred`, again and again. */
  readonly bare: Rate
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

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

const chunk = 1000

/** What has been read, and what is to be before the next piece comes. */
const makeTally = () => ({ received: 0, expected: 0 })

const flowing = Effect.fnUntraced(
  function*<A>(
    tally: ReturnType<typeof makeTally>,
    pieces: ReadonlyArray<A>,
    rounds: number,
    send: (piece: A) => number
  ) {
    const [at, from, spent] = [performance.now(), tally.received, cpu()]
    for (let round = 0; round < rounds; round++) {
      for (const piece of pieces) {
        tally.expected += send(piece)
        while (tally.received < tally.expected) yield* Effect.yieldNow
      }
    }
    const read = tally.received - from
    const rate: Rate = { perSecond: 1000 * read / (performance.now() - at), cpu: (cpu() - spent) / read }
    return rate
  }
)

const piecesOf = (count: number): ReadonlyArray<ReadonlyArray<number>> =>
  Array.from(
    { length: Math.ceil(count / chunk) },
    (_, piece) => Array.from({ length: Math.min(chunk, count - piece * chunk) }, (_, n) => piece * chunk + n)
  )

const measureBare = Effect.fnUntraced(function*({ count, messages }: Task) {
  const tally = makeTally()
  const waiting: Array<Deferred.Deferred<void>> = []
  const wait = (key: number): Effect.Effect<never> =>
    Effect.suspend(() => {
      const next = waiting[key] = Deferred.makeUnsafe<void>()
      return Effect.flatMap(Deferred.await(next), () => {
        tally.received++
        return wait(key)
      })
    })
  for (let key = 0; key < count; key++) yield* Effect.forkScoped(wait(key))
  yield* Effect.sleep(100)
  const wake = (keys: ReadonlyArray<number>): number => {
    for (const key of keys) {
      const deferred = waiting[key]
      if (deferred !== undefined) Deferred.doneUnsafe(deferred, Effect.void)
    }
    return keys.length
  }
  yield* flowing(tally, piecesOf(count), 1, wake)
  return yield* flowing(tally, piecesOf(count), Math.ceil(messages / count), wake)
})

const measure = Effect.fnUntraced(function*(task: Task) {
  const { count, messages, replays } = task
  const bare = yield* Effect.scoped(measureBare(task))
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

  const tally = makeTally()
  const reading = Effect.sync(() => {
    tally.received++
  })
  yield* Effect.forEach(
    subscriptions,
    ({ messages }) => Effect.forkScoped(Stream.runForEach(messages, () => reading)),
    { discard: true }
  )
  const read = (yield* heapNow) - before

  const send = (piece: ReadonlyArray<Message>): number => {
    if (incoming !== undefined) Queue.offerAllUnsafe(incoming, piece)
    return piece.reduce((sum, { key }) => sum + (typeof key === "number" ? 1 : key.length), 0)
  }
  const pieces = piecesOf(count).map((keys) => keys.map((key): Message => ({ key })))
  const rounds = Math.ceil(messages / count)
  yield* flowing(tally, pieces, 1, send)
  const single = yield* flowing(tally, pieces, rounds, send)
  const toAll: ReadonlyArray<ReadonlyArray<Message>> = [[{ key: keys }]]
  yield* flowing(tally, toAll, 1, send)
  const all = yield* flowing(tally, toAll, rounds, send)

  const replayed: Array<readonly [number, number]> = []
  for (let round = 0; round < replays; round++) {
    complete = Deferred.makeUnsafe()
    if (incoming !== undefined) Queue.endUnsafe(incoming)
    yield* Deferred.await(complete)
    replayed.push([performance.now() - dialled.at, (cpu() - dialled.cpu) / count])
    // Messages come again: they do when the replay is complete. And it is one that worked.
    yield* flowing(tally, pieces, 1, send)
  }
  const held: Held = {
    heap: heap / count,
    read: read / count,
    subscribe,
    single,
    all,
    bare,
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
