// The engine of streams that survive, in virtual time, over transports that are scripted.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Connectivity from "effect-lifeline/Connectivity"
import * as Errors from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { fiberCounter } from "./support/leaks.ts"

const at: Errors.Attempted = { operation: "listen", target: "http://server.test/events" }

const transient = (retryAfter?: Duration.Input) =>
  new Errors.Transient({
    ...at,
    reason: new Errors.Unavailable({
      status: 503,
      retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter)
    })
  })
const throttled = new Errors.Transient({ ...at, reason: new Errors.Throttled({}) })
const inconclusive = new Errors.Inconclusive({ ...at, detail: "UNKNOWN" })
const unauthorized = new Errors.AuthFailed({ ...at, reason: new Errors.Unauthorized({}) })
const malformed = new Errors.Refused({ ...at, reason: new Errors.MalformedResponse({ detail: "text/html" }) })
const stop = new Reconnect.Stop(at)

type Item = Reconnect.Frame<string, string> | Reconnect.Notice<string>

/** How one connection goes: fails to open, or opens, yields, and ends somehow, after a time. */
interface Script {
  readonly refuse?: Reconnect.Failure
  readonly items?: ReadonlyArray<Item>
  /** Each item by itself instead of all in one chunk. */
  readonly apart?: boolean
  readonly lives?: Duration.Input
  /** `undefined`: without an error. */
  readonly ending?: Reconnect.Failure | "never"
}

const frames = (...ids: ReadonlyArray<string>): ReadonlyArray<Item> =>
  ids.map((id) => ({ value: `value ${id}`, cursor: id }))
const hello: Script = { items: [{ value: "hello" }] }
const quiet: Script = { ending: "never" }

interface Server {
  readonly connect: Reconnect.Connect<string, string, Scope.Scope>
  readonly dials: Array<Reconnect.Dial<string> & { readonly at: number }>
  readonly open: () => number
  readonly mostOpen: () => number
  readonly closed: () => number
}

const toStream = ({ apart, ending, items = [], lives = 0 }: Script): Stream.Stream<Item, Reconnect.Failure> => {
  const some = Stream.fromIterable(items)
  const end = ending === undefined
    ? Stream.empty
    : ending === "never"
    ? Stream.never
    : Stream.fail(ending)
  const after = Duration.toMillis(lives) === 0
    ? end
    : Stream.unwrap(Effect.as(Effect.sleep(lives), end))
  return Stream.concat(apart === true ? Stream.rechunk(some, 1) : some, after)
}

/** A server that goes by a script, and by its last line for ever. */
const server = (...scripts: ReadonlyArray<Script>): Server => {
  const dials: Server["dials"] = []
  let open = 0
  let mostOpen = 0
  let closed = 0
  return {
    dials,
    open: () => open,
    mostOpen: () => mostOpen,
    closed: () => closed,
    connect: (dial) =>
      Effect.gen(function*() {
        dials.push({ ...dial, at: yield* Clock.currentTimeMillis })
        const script = scripts[Math.min(dials.length, scripts.length) - 1] ?? quiet
        if (script.refuse !== undefined) return yield* Effect.fail(script.refuse)
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            mostOpen = Math.max(mostOpen, ++open)
          }),
          () =>
            Effect.sync(() => {
              open--
              closed++
            })
        )
        return toStream(script)
      })
  }
}

type StreamError = Errors.AuthFailed | Errors.Refused | Errors.NoProgress | Errors.Exhausted

/** Runs a stream in the background, and keeps what it yields and how it ends. */
const watch = Effect.fnUntraced(function*<A, E>(stream: Stream.Stream<A, E>) {
  const values: Array<A> = []
  const fiber = yield* Effect.forkChild(Stream.runForEach(stream, (value) => Effect.sync(() => values.push(value))))
  yield* TestClock.adjust(0)
  return { values, fiber, done: () => fiber.pollUnsafe() !== undefined }
})

const gap = (since?: number): Reconnect.Gap => ({ _tag: "Gap", since })

/** The same draw each time: u = 0.5 unless told. */
const drawing = (u: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => u })

const steady = Backoff.make({ base: "1 second", cap: "30 seconds", jitter: "none" })

const errorOf = (exit: Exit.Exit<unknown, StreamError>): StreamError | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const found = Cause.findErrorOption(exit.cause)
  return found._tag === "Some" ? found.value : undefined
}

describe("how a connection ends, and what follows", () => {
  const frame = frames("1")
  const rows: ReadonlyArray<
    readonly [name: string, script: Script, follows: "again at once" | "again, counted" | "again" | "ends" | "fails"]
  > = [
    ["without an error, after a frame", { items: frame }, "again at once"],
    ["without an error, without a frame", {}, "again, counted"],
    ["unclearly, without a frame", { ending: inconclusive }, "again, counted"],
    ["unclearly, before it opened", { refuse: inconclusive }, "again, counted"],
    ["unclearly, after a frame", { items: frame, ending: inconclusive }, "again at once"],
    ["for now, before it opened", { refuse: transient() }, "again"],
    ["for now, without a frame", { ending: transient() }, "again"],
    ["for now, after a frame", { items: frame, ending: transient() }, "again at once"],
    ["refused credential, before it opened", { refuse: unauthorized }, "fails"],
    ["refused credential, after a frame", { items: frame, ending: unauthorized }, "fails"],
    ["refused, before it opened", { refuse: malformed }, "fails"],
    ["refused, after a frame", { items: frame, ending: malformed }, "fails"],
    ["told to stop, before it opened", { refuse: stop }, "ends"],
    ["told to stop, after a frame", { items: frame, ending: stop }, "ends"]
  ]

  const fatal = ({ ending, refuse }: Script) => refuse ?? ending

  it.effect.each(rows)("%s", ([, script, follows]) =>
    Effect.gen(function*() {
      const one = server(script)
      const { done, fiber } = yield* watch(Reconnect.stream(one.connect, { policy: steady, at }))
      yield* TestClock.adjust("10 minutes")
      const attempts = one.dials.map((dial) => dial.attempt)
      switch (follows) {
        case "ends":
        case "fails": {
          assert.deepStrictEqual(attempts, [1])
          const exit = yield* Fiber.await(fiber)
          assert.strictEqual<unknown>(errorOf(exit), follows === "ends" ? undefined : fatal(script))
          assert.strictEqual(Exit.isSuccess(exit), follows === "ends")
          break
        }
        case "again, counted": {
          assert.deepStrictEqual(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
          const error = errorOf(yield* Fiber.await(fiber))
          assert.strictEqual(error?._tag, "NoProgress")
          if (error?._tag !== "NoProgress") break
          assert.strictEqual(error.connections, 10)
          assert.strictEqual(error.last, script.refuse ?? script.ending)
          assert.strictEqual(error.message.includes("listen (http://server.test/events): 10 connections"), true)
          break
        }
        case "again": {
          assert.strictEqual(done(), false)
          assert.deepStrictEqual(
            one.dials.slice(0, 8).map((dial) => dial.at / 1000),
            [0, 1, 3, 7, 15, 31, 61, 91]
          )
          assert.deepStrictEqual(attempts, one.dials.map((_, n) => n + 1))
          yield* Fiber.interrupt(fiber)
          break
        }
        case "again at once": {
          assert.strictEqual(done(), false)
          assert.isAbove(attempts.length, 100)
          assert.deepStrictEqual([...new Set(attempts.slice(1))], [1])
          assert.strictEqual(one.dials[1]?.at, 1000)
          yield* Fiber.interrupt(fiber)
        }
      }
      assert.strictEqual(one.open(), 0)
      assert.isAtMost(one.mostOpen(), 1)
    }).pipe(drawing(0.5)))

  it.effect("a defect of the transport surfaces", () =>
    Effect.gen(function*() {
      for (
        const connect of [
          () => Effect.die("defect"),
          () => Effect.succeed(Stream.die("defect")),
          (): never => {
            throw "defect"
          }
        ]
      ) {
        const exit = yield* Effect.exit(Stream.runDrain(Reconnect.stream(connect)))
        assert.strictEqual(Exit.isFailure(exit) && Cause.hasDies(exit.cause), true)
      }
    }))
})

describe("progress", () => {
  it.effect("an open is none: the backoff grows, and the count goes on over failures in between", () =>
    Effect.gen(function*() {
      const one = server({ lives: "1 second" }, { refuse: transient() }, {}, { ending: transient() }, {}, quiet)
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy: steady, noProgressLimit: 3 }))
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(one.dials.map((dial) => dial.attempt), [1, 2, 3, 4, 5])
      const error = errorOf(yield* Fiber.await(fiber))
      assert.strictEqual(error?._tag === "NoProgress" ? error.connections : 0, 3)
    }))

  it.effect("a frame is: backoff and count start over", () =>
    Effect.gen(function*() {
      const script = [{}, {}, { items: frames("1"), ending: transient() }, {}, {}]
      const one = server(...script, ...script, ...script, quiet)
      const { done, fiber } = yield* watch(Reconnect.stream(one.connect, { policy: steady, noProgressLimit: 5 }))
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(
        one.dials.map((dial) => dial.attempt),
        [1, 2, 3, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3]
      )
      assert.strictEqual(done(), false)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("after weeks of health the first drop waits the base, however long the outage before was", () =>
    Effect.gen(function*() {
      const refuse = { refuse: transient() }
      const weeks: Script = { lives: "21 days", ending: transient() }
      const one = server(...Array.from({ length: 20 }, () => refuse), weeks, quiet)
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy: steady }))
      yield* TestClock.adjust("22 days")
      const [atCap = 0, opened = 0, after = 0] = one.dials.slice(19).map((dial) => dial.at)
      assert.strictEqual(opened - atCap, 30_000)
      assert.strictEqual(after - opened, Duration.toMillis("21 days") + 1000)
      assert.strictEqual(one.dials.at(-1)?.attempt, 1)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("a frame that says it is none is none", () =>
    Effect.gen(function*() {
      const one = server({
        items: [{ value: "hello", progress: false }, { notice: "Cursor", cursor: "0", progress: false }]
      })
      const { fiber } = yield* watch(Reconnect.stream(one.connect))
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(errorOf(yield* Fiber.await(fiber))?._tag, "NoProgress")
    }))

  it.effect("staying open for a healthy period is, a moment less is not", () =>
    Effect.gen(function*() {
      for (const [lives, ends] of [[9_999, true], [10_001, false]] as const) {
        const one = server({ lives, ending: inconclusive })
        const { done, fiber } = yield* watch(Reconnect.stream(one.connect))
        yield* TestClock.adjust("30 minutes")
        assert.strictEqual(done(), ends, `${lives}`)
        assert.strictEqual(one.dials.every((dial) => dial.attempt === 1), !ends)
        yield* Fiber.interrupt(fiber)
      }
    }))

  it.effect("a healthy period of nothing counts as one second: an open is never progress", () =>
    Effect.gen(function*() {
      const one = server({})
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { healthyAfter: 0 }))
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(errorOf(yield* Fiber.await(fiber))?._tag, "NoProgress")
    }))
})

describe("a bounded policy", () => {
  it.effect("gives up with the last failure", () =>
    Effect.gen(function*() {
      const one = server({ refuse: transient() })
      const policy = Reconnect.bounded(Backoff.make({ attempts: 4, jitter: "none" }))
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy }))
      yield* TestClock.adjust("1 minute")
      const error = errorOf(yield* Fiber.await(fiber))
      assert.strictEqual(error?._tag, "Exhausted")
      if (error?._tag !== "Exhausted") return
      assert.strictEqual(error.attempts, 4)
      assert.deepStrictEqual(error.elapsed, Duration.seconds(7))
      assert.strictEqual(error.last._tag, "Transient")
      assert.strictEqual(one.dials.length, 4)
    }))

  it.effect("also where connections merely end; each outage has all attempts", () =>
    Effect.gen(function*() {
      const one = server({ refuse: transient() }, { items: frames("1") }, { refuse: transient() }, {})
      const policy = Reconnect.bounded(Backoff.make({ attempts: 3, jitter: "none" }))
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy }))
      yield* TestClock.adjust("1 minute")
      const error = errorOf(yield* Fiber.await(fiber))
      assert.strictEqual(error?._tag === "Exhausted" ? error.attempts : 0, 3)
      assert.deepStrictEqual(one.dials.map((dial) => dial.attempt), [1, 2, 1, 2, 3])
      assert.deepStrictEqual(one.dials.map((dial) => dial.at / 1000), [0, 1, 2, 4, 8])
    }))

  it.effect("ends with the last attempt also where there is only one, and an outage lasts for so long", () =>
    Effect.gen(function*() {
      for (const limit of [{ attempts: 1 }, { elapsed: 500 }]) {
        const one = server({ items: frames("1") }, { refuse: transient() })
        const { fiber } = yield* watch(
          Reconnect.stream(one.connect, { policy: Reconnect.bounded(Backoff.make(limit)) })
        )
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(errorOf(yield* Fiber.await(fiber))?._tag, "Exhausted")
        assert.strictEqual(one.dials.length, 2)
      }
    }).pipe(drawing(0.2)))
})

describe("hints of the server", () => {
  const waits = Effect.fnUntraced(function*(policy: Backoff.Unbounded, ...scripts: ReadonlyArray<Script>) {
    const one = server(...scripts, quiet)
    const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy }))
    yield* TestClock.adjust("1 hour")
    yield* Fiber.interrupt(fiber)
    return one.dials.map((dial) => dial.at).map((at, n, all) => at - (all[n - 1] ?? 0)).slice(1)
  })

  it.effect("Retry-After lengthens a wait, inside the policy's limits", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* waits(steady, { refuse: transient("7 seconds") }), [7000])
      assert.deepStrictEqual(yield* waits(steady, { refuse: transient("1 day") }), [300_000])
    }))

  it.effect("a server that asks to be spared gets the base at least, whatever the jitter", () =>
    Effect.gen(function*() {
      const policy = Backoff.make({ base: "4 seconds", jitter: "full", floor: 0 })
      for (const refuse of [transient(0), throttled]) {
        const [wait = 0] = yield* waits(policy, { refuse })
        assert.isAtLeast(wait, 4000)
      }
      const [without = 0] = yield* waits(policy, { refuse: transient() })
      assert.isBelow(without, 1000)
    }).pipe(drawing(0.01)))

  it.effect("retry: replaces the base inside 250 ms to 60 s, until it is set anew", () =>
    Effect.gen(function*() {
      const retry = (base: Duration.Input): Script => ({ items: [{ notice: "Retry", base }], ending: transient() })
      assert.deepStrictEqual(yield* waits(steady, retry("5 seconds"), { refuse: transient() }), [5000, 10_000])
      assert.deepStrictEqual(yield* waits(steady, retry(0)), [250])
      assert.deepStrictEqual(yield* waits(steady, retry(-5)), [250])
      assert.deepStrictEqual(yield* waits(steady, retry("Infinity"), retry(300)), [60_000, 600])
    }))
})

describe("the cursor", () => {
  it.effect("is the last that was handed over, and survives generations", () =>
    Effect.gen(function*() {
      const one = server(
        { items: frames("1", "2", "3") },
        { items: [{ value: "no id" }] },
        { refuse: transient() },
        { items: [...frames("4"), { notice: "Cursor", cursor: "5" }] },
        quiet
      )
      const { fiber, values } = yield* watch(Reconnect.stream(one.connect, { policy: steady, cursor: "0" }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(one.dials.map((dial) => dial.cursor), ["0", "3", "3", "3", "5"])
      assert.deepStrictEqual(one.dials.map((dial) => dial.generation), [1, 2, 3, 4, 5])
      assert.deepStrictEqual(values, ["value 1", "value 2", "value 3", "no id", "value 4"])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("a reader that is busy is not overtaken: nothing is dialled before it comes back", () =>
    Effect.gen(function*() {
      const one = server({ items: frames("1", "2"), apart: true }, quiet)
      const busy = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        Stream.runForEach(Reconnect.stream(one.connect), () => Deferred.await(busy))
      )
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(one.dials.length, 1)
      yield* Deferred.succeed(busy, undefined)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(one.dials[1]?.cursor, "2")
      yield* Fiber.interrupt(fiber)
    }))

  const stored = Effect.gen(function*() {
    const store = yield* KeyValueStore.KeyValueStore
    return { store, cursorStore: Reconnect.cursorStore(store, "events"), kept: store.get("events") }
  })

  it.effect("in a store it survives the stream: each run goes on after the last event handed over", () =>
    Effect.gen(function*() {
      const { cursorStore, kept } = yield* stored
      const one = server({ items: frames("1", "2", "3", "4", "5"), ending: "never" }, quiet)
      const taken = yield* Stream.runCollect(Stream.take(Reconnect.stream(one.connect, { cursorStore }), 3))
      assert.deepStrictEqual(taken, ["value 1", "value 2", "value 3"])
      assert.strictEqual(yield* kept, "3")
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { cursorStore, cursor: "0" }))
      assert.strictEqual(one.dials[1]?.cursor, "3")
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.effect("an event whose handling failed or was cut off comes again", () =>
    Effect.gen(function*() {
      const { cursorStore, kept } = yield* stored
      const run = (ending: Effect.Effect<never, string>) =>
        Effect.gen(function*() {
          const one = server({ items: frames("1"), ending: "never" })
          let handled = 0
          const fiber = yield* Effect.forkChild(
            Stream.runForEach(
              Stream.map(Reconnect.stream(one.connect, { cursorStore }), () => ++handled),
              () => ending
            )
          )
          yield* TestClock.adjust("1 second")
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(handled, 1)
          assert.strictEqual(one.open(), 0)
          assert.strictEqual(yield* kept, undefined)
        })
      yield* run(Effect.fail("handler"))
      yield* run(Effect.never)
    }).pipe(Effect.provide(KeyValueStore.layerMemory)))

  it.effect("one that cannot be loaded is a gap and a line of the log; one that cannot be saved is a line", () =>
    Effect.gen(function*() {
      const { lines, logged } = capture()
      const one = server({ items: frames("1", "2", "3"), apart: true, ending: "never" })
      const cursorStore = Reconnect.makeCursorStore<string>({
        load: Effect.fail("no disk"),
        save: () => Effect.fail("no disk")
      })
      const values = yield* logged(
        Stream.runCollect(Stream.take(Reconnect.stream(one.connect, { cursorStore, cursor: "0" }), 4))
      )
      assert.deepStrictEqual(values, [gap(), "value 1", "value 2", "value 3"])
      assert.strictEqual(one.dials[0]?.cursor, "0")
      assert.deepStrictEqual(lines.map((line) => line.level), ["Warn", "Warn"])
      assert.strictEqual(lines.every((line) => line.message.includes("no disk")), true)
    }))

  it.effect("a store that hangs holds up nothing for longer than its deadline", () =>
    Effect.gen(function*() {
      const one = server({ items: frames("1", "2"), apart: true, ending: "never" })
      const { fiber, values } = yield* watch(
        Reconnect.stream(one.connect, {
          cursorStore: Reconnect.makeCursorStore<string>({ load: Effect.never, save: () => Effect.never })
        })
      )
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(values, [gap(), "value 1", "value 2"])
      yield* Fiber.interrupt(fiber)
    }))
})

describe("a gap", () => {
  it.effect("each loss that the server tells of, in order, with the time of the connection before", () =>
    Effect.gen(function*() {
      const gaps: ReadonlyArray<Item> = [{ notice: "Gap" }, ...frames("2"), { notice: "Gap" }]
      const one = server({ items: frames("1"), lives: "5 seconds" }, { items: gaps }, {
        items: [{ notice: "Gap" }],
        ...quiet
      })
      const { fiber, values } = yield* watch(Reconnect.stream(one.connect, { policy: steady }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(values, ["value 1", gap(5000), "value 2", gap(5000), gap(6000)])
      yield* Fiber.interrupt(fiber)
    }))

  const noEventBetween: ReadonlyArray<Item> = [
    { notice: "Gap" },
    { notice: "Cursor", cursor: "7" },
    { notice: "Gap" },
    { notice: "Retry", base: 1000 },
    { notice: "Gap" },
    ...frames("8"),
    { notice: "Gap" }
  ]

  it.effect.each([
    undefined,
    Reconnect.makeCursorStore<string>({ load: Effect.succeed(undefined), save: () => Effect.void })
  ])(
    "is one where several come together with no event between them",
    (cursorStore) =>
      Effect.gen(function*() {
        const one = server({ items: noEventBetween, ending: "never" })
        const { fiber, values } = yield* watch(Reconnect.stream(one.connect, { cursorStore }))
        assert.deepStrictEqual(values, [gap(), "value 8", gap()])
        yield* Fiber.interrupt(fiber)
      })
  )

  it.effect("that comes later is another loss: the reader may have read everything since the one before", () =>
    Effect.gen(function*() {
      const one = server({ items: [{ notice: "Gap" }, { notice: "Gap" }], apart: true, ending: "never" })
      const { fiber, values } = yield* watch(Reconnect.stream(one.connect))
      assert.deepStrictEqual(values, [gap(), gap()])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("is no progress by itself", () =>
    Effect.gen(function*() {
      const one = server({ items: [{ notice: "Gap" }, { notice: "Retry", base: 1000 }] })
      const { fiber } = yield* watch(Reconnect.stream(one.connect))
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(errorOf(yield* Fiber.await(fiber))?._tag, "NoProgress")
    }))
})

/** A network that comes and goes as told. */
const network = Effect.gen(function*() {
  const changes = yield* Queue.unbounded<Connectivity.Change>()
  let online = true
  return {
    provide: <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.provideService(effect, Connectivity.Connectivity, {
        online: Effect.sync(() => online),
        changes: Stream.fromQueue(changes)
      }),
    silently: (is: boolean) => {
      online = is
    },
    change: (change: Connectivity.Change) =>
      Effect.suspend(() => {
        if (change !== "wake") online = change === "online"
        return Effect.andThen(Queue.offer(changes, change), TestClock.adjust(0))
      })
  }
})

describe("connectivity", () => {
  const slow = Backoff.make({ base: "1 minute", cap: "1 minute", jitter: "none" })

  it.effect.each(["online", "wake"] as const)("%s skips the rest of a wait", (change) =>
    Effect.gen(function*() {
      const net = yield* network
      const one = server({ refuse: transient() }, quiet)
      const { fiber } = yield* net.provide(watch(Reconnect.stream(one.connect, { policy: slow })))
      yield* TestClock.adjust("5 seconds")
      yield* net.change(change)
      assert.deepStrictEqual(one.dials.map((dial) => dial.at), [0, 5000])
      yield* net.change(change)
      assert.strictEqual(one.dials.length, 2)
      assert.strictEqual(one.closed(), 0)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("offline pauses, also in the middle of a wait, and what fails meanwhile is not counted", () =>
    Effect.gen(function*() {
      const net = yield* network
      const handle = yield* Reconnect.makeHandle
      const status = () => SubscriptionRef.getUnsafe(handle.status)._tag
      const one = server({ refuse: transient() }, { lives: "3 seconds", ending: inconclusive }, quiet)
      const options = { policy: slow, handle, noProgressLimit: 1 }
      const { fiber } = yield* net.provide(watch(Reconnect.stream(one.connect, options)))
      assert.strictEqual(status(), "Waiting")
      yield* net.change("offline")
      assert.strictEqual(status(), "Paused")
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(one.dials.length, 1)
      yield* net.change("online")
      assert.strictEqual(status(), "Open")
      net.silently(false)
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(status(), "Paused")
      yield* TestClock.adjust("1 hour")
      yield* net.change("online")
      assert.deepStrictEqual(one.dials.map((dial) => dial.attempt), [1, 2, 2])
      assert.strictEqual(status(), "Open")
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("offline from the start; a platform that does not tell is asked again", () =>
    Effect.gen(function*() {
      const net = yield* network
      net.silently(false)
      const one = server(quiet)
      const { fiber } = yield* net.provide(watch(Reconnect.stream(one.connect)))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(one.dials.length, 0)
      net.silently(true)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(one.dials.length, 1)
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("a network that flaps does not make it hammer", () =>
    Effect.gen(function*() {
      const net = yield* network
      const one = server({ refuse: transient() })
      const { fiber } = yield* net.provide(watch(Reconnect.stream(one.connect)))
      for (let n = 0; n < 1000; n++) {
        yield* net.change(n % 2 === 0 ? "offline" : "online")
        yield* TestClock.adjust(n % 7 * 10)
      }
      yield* Fiber.interrupt(fiber)
      assert.isAtMost(most(one.dials.map((dial) => dial.at), 10_000), 8)
    }))
})

describe("a handle", () => {
  const slow = Backoff.make({ base: "1 minute", cap: "1 minute", jitter: "none" })

  it.effect("the status, from the first dial to the end", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      const seen: Array<Reconnect.Status> = []
      yield* Effect.forkChild(
        Stream.runForEach(SubscriptionRef.changes(handle.status), (status) => Effect.sync(() => seen.push(status)))
      )
      const failure = transient()
      const one = server({ refuse: failure }, { items: frames("1"), lives: "2 seconds" }, { refuse: unauthorized })
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy: steady, handle }))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual(seen, [
        { _tag: "Connecting", attempt: 1 },
        { _tag: "Connecting", attempt: 1 },
        { _tag: "Waiting", attempt: 2, until: 1000, cause: failure },
        { _tag: "Connecting", attempt: 2 },
        { _tag: "Open", since: 1000 },
        { _tag: "Waiting", attempt: 1, until: 4000, cause: undefined },
        { _tag: "Connecting", attempt: 1 },
        { _tag: "Closed", cause: unauthorized }
      ])
    }))

  it.effect("what it is closed with", () =>
    Effect.gen(function*() {
      const closedWith = Effect.fnUntraced(function*(
        script: Script,
        use: (
          stream: Stream.Stream<string | Reconnect.Gap, Errors.AuthFailed | Errors.Refused | Errors.NoProgress>
        ) => Effect.Effect<unknown, unknown>
      ) {
        const handle = yield* Reconnect.makeHandle
        const one = server(script)
        const fiber = yield* Effect.forkChild(Effect.exit(use(Reconnect.stream(one.connect, { handle }))))
        yield* TestClock.adjust("10 minutes")
        yield* Fiber.interrupt(fiber)
        const status = SubscriptionRef.getUnsafe(handle.status)
        return status._tag === "Closed" ? status.cause?._tag ?? "defect" : status._tag
      })
      assert.strictEqual(yield* closedWith({ refuse: malformed }, Stream.runDrain), "Refused")
      assert.strictEqual(yield* closedWith({ refuse: stop }, Stream.runDrain), "Stop")
      assert.strictEqual(yield* closedWith({}, Stream.runDrain), "NoProgress")
      assert.strictEqual(yield* closedWith(hello, (stream) => Stream.runDrain(Stream.take(stream, 1))), "Shutdown")
      assert.strictEqual(yield* closedWith(quiet, Stream.runDrain), "Shutdown")
      assert.strictEqual(yield* closedWith(hello, Stream.runForEach(() => Effect.fail("handler"))), "Shutdown")
      assert.strictEqual(yield* closedWith(hello, Stream.runForEach(() => Effect.die("handler"))), "defect")
    }))

  it.effect("reconnectNow skips a wait, and leaves alone what is open", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      const one = server({ refuse: transient() }, quiet)
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy: slow, handle }))
      yield* TestClock.adjust("3 seconds")
      yield* handle.reconnectNow
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(one.dials.map((dial) => dial.at), [0, 3000])
      yield* handle.reconnectNow
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(one.dials.length, 2)
      yield* Fiber.interrupt(fiber)
      yield* handle.reconnectNow
      yield* handle.replace
      assert.strictEqual(one.dials.length, 2)
    }))

  it.effect("replace closes the old connection first, even where its read stalls, and does not count", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      const one = server({ items: frames("1"), ending: "never" })
      const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy: slow, handle, noProgressLimit: 1 }))
      for (let n = 1; n < 20; n++) {
        yield* TestClock.adjust("1 minute")
        yield* handle.replace
        yield* TestClock.adjust(0)
        assert.strictEqual(one.dials.length, n + 1)
        assert.strictEqual(one.closed(), n)
      }
      assert.strictEqual(one.mostOpen(), 1)
      assert.strictEqual(one.dials.every((dial) => dial.attempt === 1), true)
      assert.strictEqual(one.dials[1]?.cursor, "1")
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("replace is a loss for whoever reads a gap after it, and the end of a wait", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      const one = server(hello, { items: [{ notice: "Gap" }], ending: "never" })
      const { fiber, values } = yield* watch(Reconnect.stream(one.connect, { policy: slow, handle }))
      yield* TestClock.adjust("3 seconds")
      yield* handle.replace
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(one.dials.map((dial) => dial.at), [0, 3000])
      yield* TestClock.adjust("4 seconds")
      yield* handle.replace
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(values, ["hello", gap(0), gap(7000)])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("also over the runs of one stream, the pace holds", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      const one = server({ refuse: unauthorized })
      const again = Effect.ignore(Stream.runDrain(Reconnect.stream(one.connect, { handle })))
      const fiber = yield* Effect.forkChild(Effect.forever(again))
      for (let n = 0; n < 600; n++) yield* TestClock.adjust(100)
      yield* Fiber.interrupt(fiber)
      assert.isAbove(one.dials.length, 25)
      assert.isAtMost(most(one.dials.map((dial) => dial.at), 10_000), 8)
    }))

  it.effect("however often it is told, the pace holds", () =>
    Effect.gen(function*() {
      const handle = yield* Reconnect.makeHandle
      for (const script of [quiet, hello, { refuse: transient() }]) {
        const one = server(script)
        const { fiber } = yield* watch(Reconnect.stream(one.connect, { handle }))
        for (let n = 0; n < 1000; n++) {
          yield* n % 2 === 0 ? handle.replace : handle.reconnectNow
          yield* TestClock.adjust(50)
        }
        yield* Fiber.interrupt(fiber)
        assert.isAbove(one.dials.length, 5)
        assert.isAtMost(most(one.dials.map((dial) => dial.at), 10_000), 8)
      }
    }))
})

/** The lines that are logged while an effect runs. */
const capture = () => {
  const lines: Array<{ readonly level: string; readonly message: string }> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (logLevel !== "Debug") lines.push({ level: logLevel, message: String(message) })
  })
  return { lines, logged: Effect.provide(Logger.layer([logger])) }
}

describe("the log", () => {
  it.effect("first loss, every fifth failure, recovered, given up: one line each", () =>
    Effect.gen(function*() {
      const { lines, logged } = capture()
      const refuse = { refuse: transient() }
      const one = server(...Array.from({ length: 11 }, () => refuse), { items: frames("1", "2"), lives: "1 minute" }, {
        refuse: malformed
      })
      const { fiber } = yield* logged(watch(Reconnect.stream(one.connect, { policy: steady, at })))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.await(fiber)
      const levels = lines.map((line) => line.level)
      assert.deepStrictEqual(levels, ["Warn", "Warn", "Warn", "Info", "Info", "Error"])
      const [first = "", fifth = "", , recovered = "", lost = "", gaveUp = ""] = lines.map((line) => line.message)
      assert.strictEqual(
        first.includes("answered 503") && first.includes("failure 1 in a row, next attempt in 1s"),
        true
      )
      assert.strictEqual(fifth.includes("failure 5 in a row, next attempt in 16s"), true, fifth)
      assert.strictEqual(recovered, "listen (http://server.test/events) recovered after 11 failures")
      assert.strictEqual(lost.includes("the connection ended; failure 1 in a row"), true, lost)
      assert.strictEqual(gaveUp.includes("nothing more is tried"), true, gaveUp)
    }))

  it.effect("a connection that opens and stays quiet is reported as recovered after the healthy period", () =>
    Effect.gen(function*() {
      const { lines, logged } = capture()
      const one = server({ refuse: transient() }, quiet)
      const { fiber } = yield* logged(watch(Reconnect.stream(one.connect, { policy: steady })))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(lines.length, 1)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(lines[1]?.message.includes("recovered after 1 failure"), true)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(lines.length, 2)
    }))

  it.effect("a server that says hello and hangs up does not flood it", () =>
    Effect.gen(function*() {
      const { lines, logged } = capture()
      const one = server(hello)
      const { fiber } = yield* logged(watch(Reconnect.stream(one.connect)))
      yield* TestClock.adjust("10 minutes")
      yield* Fiber.interrupt(fiber)
      assert.isAbove(one.dials.length, 100)
      assert.isAtMost(lines.length, one.dials.length / 2)
    }))
})

/** The most of these moments that lie in any period so long, both ends included. */
const most = (moments: ReadonlyArray<number>, period: number): number => {
  let first = 0
  let found = 0
  moments.forEach((moment, n) => {
    while (moment - (moments[first] ?? moment) > period) first++
    found = Math.max(found, n - first + 1)
  })
  return found
}

describe("hostile servers", () => {
  const close = (code: number) =>
    new Errors.Transient({ ...at, reason: new Errors.Unavailable({ status: code, detail: `closed with ${code}` }) })
  const hostile: ReadonlyArray<readonly [string, Script]> = [
    ["refuses", { refuse: transient() }],
    ["resets", { ending: transient() }],
    ["answers 200 and ends", {}],
    ["says hello and ends", hello],
    ["says hello with an id and ends", { items: frames("1") }],
    ["says hello and closes with 1000", { ...hello, ending: close(1000) }],
    ["acknowledges and closes with 1000", { ending: close(1000) }],
    ["closes with 1006", { ending: close(1006) }],
    ["closes with 1013", { ending: throttled }],
    ["says hello and closes with 1013", { ...hello, ending: throttled }],
    ["sends retry: 0 and ends", { items: [{ notice: "Retry", base: 0 }] }],
    ["sends retry: 0 and an event and ends", { items: [{ notice: "Retry", base: 0 }, { value: "hello" }] }],
    ["answers 503 with Retry-After: 0", { refuse: transient(0) }],
    ["says hello, ends with 503 and Retry-After: 0", { ...hello, ending: transient(0) }],
    ["ends unclearly", { ending: inconclusive }],
    ["says hello and ends unclearly", { ...hello, ending: inconclusive }],
    ["sends an id and nothing else", { items: [{ notice: "Cursor", cursor: "1" }] }],
    ["lives for just the healthy period", { lives: "10 seconds" }],
    ["lives for half a second", { ...hello, lives: 500 }],
    ["redirects for ever", { refuse: new Errors.Refused({ ...at, reason: new Errors.Unsupported({}) }) }],
    ["has the wrong content type", { refuse: malformed }]
  ]
  const policies: ReadonlyArray<Backoff.Unbounded> = [
    Backoff.streams,
    Backoff.hatchetStreams,
    Backoff.make({ base: 1, cap: 1, floor: 0, hintFloor: 0 }),
    Backoff.make({ base: 1, factor: 1, floor: 0, jitter: "none", resetAfter: 0 })
  ]

  /** A generator that is the same for the same seed. */
  const seeded = (seed: number) => Random.withSeed(seed)

  it.effect.each(hostile)("that %s: at most 8 dials in any 10 s", ([, script]) =>
    Effect.gen(function*() {
      for (const [n, policy] of policies.entries()) {
        const one = server(script)
        const { fiber } = yield* watch(Reconnect.stream(one.connect, { policy })).pipe(seeded(n))
        yield* TestClock.adjust("5 minutes")
        yield* Fiber.interrupt(fiber)
        assert.isAtMost(most(one.dials.map((dial) => dial.at), 10_000), 8)
        assert.strictEqual(one.open(), 0)
      }
    }))

  it.effect("any mixture of them, 300 seeds: at most 8 dials in any 10 s, and it never stops trying for no reason", () =>
    Effect.gen(function*() {
      const lasting = hostile.map(([, script]) => script).filter(({ refuse }) => refuse?._tag !== "Refused")
      for (let seed = 0; seed < 300; seed++) {
        const draw = Random.nextIntBetween(0, lasting.length)
        const scripts = yield* Effect.all(
          Array.from({ length: 40 }, () => Effect.map(draw, (n) => lasting[n] ?? {}))
        ).pipe(seeded(seed))
        const one = server(...scripts)
        const policy = policies[seed % policies.length] ?? Backoff.streams
        const { done, fiber } = yield* watch(
          Reconnect.stream(one.connect, { policy, noProgressLimit: Infinity })
        ).pipe(seeded(seed))
        yield* TestClock.adjust("2 minutes")
        assert.isAtMost(most(one.dials.map((dial) => dial.at), 10_000), 8, `seed ${seed}`)
        assert.isAtLeast(one.dials.length, 4, `seed ${seed}`)
        assert.strictEqual(done(), false, `seed ${seed}`)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(one.open(), 0, `seed ${seed}`)
      }
    }))

  it.effect("clients that were dropped together do not come back in step", () =>
    Effect.gen(function*() {
      const all = yield* Effect.forEach(Array.from({ length: 200 }), () => Effect.sync(() => server(hello)))
      const running = yield* Effect.forEach(all, (one) => watch(Reconnect.stream(one.connect)))
      yield* TestClock.adjust("2 minutes")
      yield* Effect.forEach(running, ({ fiber }) => Fiber.interrupt(fiber))
      const late = all.flatMap((one) => one.dials.map((dial) => dial.at)).filter((moment) => moment > 60_000)
      assert.isAbove(late.length, 2000)
      assert.isAtMost(most(late.toSorted((a, b) => a - b), 100), late.length / 60)
    }))
})

describe("whoever waits is answered, and nothing is left", () => {
  /** Each state in which a reader can be, and how it gets there. */
  const states: ReadonlyArray<
    readonly [string, (one: { readonly closes: () => void }) => Reconnect.Connect<string, string, Scope.Scope>]
  > = [
    ["connecting", () => () => Effect.never],
    [
      "connecting, something acquired",
      ({ closes }) => () => Effect.andThen(Effect.acquireRelease(Effect.void, () => Effect.sync(closes)), Effect.never)
    ],
    [
      "reading",
      ({ closes }) => () => Effect.as(Effect.acquireRelease(Effect.void, () => Effect.sync(closes)), Stream.never)
    ],
    ["waiting", () => () => Effect.fail(transient("5 minutes"))],
    [
      "closing a connection that does not want to be closed",
      () => () => Effect.as(Effect.acquireRelease(Effect.void, () => Effect.never), Stream.empty)
    ]
  ]

  it.effect.each(states)("interrupted while %s: at once", ([name, connect]) =>
    Effect.gen(function*() {
      const { left, watch: counted } = fiberCounter()
      const handle = yield* Reconnect.makeHandle
      let closed = 0
      const closes = () => {
        closed++
      }
      const fiber = yield* counted(
        Effect.forkChild(Stream.runDrain(Reconnect.stream(connect({ closes }), { handle })))
      )
      yield* TestClock.adjust("1 second")
      const before = yield* Clock.currentTimeMillis
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
      assert.strictEqual(SubscriptionRef.getUnsafe(handle.status)._tag, "Closed")
      if (name.startsWith("closing")) return
      assert.strictEqual(closed, name === "reading" || name.endsWith("acquired") ? 1 : 0)
      assert.strictEqual(yield* left, 0)
    }))

  it.effect("paused, or at the store: interrupted at once, too", () =>
    Effect.gen(function*() {
      const net = yield* network
      net.silently(false)
      const one = server(quiet)
      const never = Reconnect.makeCursorStore<string>({ load: Effect.never, save: () => Effect.never })
      for (const cursorStore of [undefined, never]) {
        const { fiber } = yield* net.provide(watch(Reconnect.stream(one.connect, { cursorStore })))
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(one.dials.length, 0)
    }))

  it.effect("a connection that hangs while it is made is given up at its deadline", () =>
    Effect.gen(function*() {
      let dials = 0
      const connect = () =>
        Effect.suspend(() => {
          dials++
          return Effect.never
        })
      const policy = Reconnect.bounded(Backoff.make({ attempts: 2, jitter: "none" }))
      const { fiber } = yield* watch(Reconnect.stream(connect, { policy, openTimeout: "4 seconds" }))
      yield* TestClock.adjust("9 seconds")
      const error = errorOf(yield* Fiber.await(fiber))
      assert.strictEqual(error?._tag === "Exhausted" ? error.last.reason._tag : "", "TimedOut")
      assert.strictEqual(dials, 2)
    }))

  it.effect("that deadline is 30 s unless told", () =>
    Effect.gen(function*() {
      const { done } = yield* watch(
        Reconnect.stream(() => Effect.never, { policy: Reconnect.bounded(Backoff.make({ attempts: 1 })) })
      )
      yield* TestClock.adjust("29999 millis")
      assert.strictEqual(done(), false)
      yield* TestClock.adjust(1)
      assert.strictEqual(done(), true)
    }))

  it.effect("a connection that cannot be closed holds up the next one for 2 s at most", () =>
    Effect.gen(function*() {
      let dials = 0
      const connect = () =>
        Effect.suspend(() => {
          dials++
          return Effect.as(Effect.acquireRelease(Effect.void, () => Effect.never), Stream.empty)
        })
      const { fiber } = yield* watch(Reconnect.stream(connect, { policy: steady }))
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(dials, 2)
      const ending = yield* Effect.forkChild(Fiber.interrupt(fiber))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(ending)
    }))

  it.effect("10,000 reconnects leave no fiber, no scope and no finalizer", () =>
    Effect.gen(function*() {
      const { left, watch: counted } = fiberCounter()
      const handle = yield* Reconnect.makeHandle
      let running = 0
      const counter: Metric.FiberRuntimeMetricsService = {
        recordFiberStart: () => {
          running++
        },
        recordFiberEnd: () => {
          running--
        }
      }
      const scripts: ReadonlyArray<Script> = [
        hello,
        { ending: transient() },
        { refuse: transient() },
        { items: frames("1"), lives: "1 second", ending: inconclusive },
        quiet
      ]
      let n = 0
      const connect: Reconnect.Connect<string, string, Scope.Scope> = (dial) =>
        Effect.suspend(() => server(scripts[n++ % scripts.length] ?? {}).connect(dial))
      const finalizers = { added: 0, run: 0 }
      const tracked: Reconnect.Connect<string, string, Scope.Scope> = (dial) =>
        Effect.andThen(
          Effect.acquireRelease(
            Effect.sync(() => finalizers.added++),
            () => Effect.sync(() => finalizers.run++)
          ),
          connect(dial)
        )
      const stream = Reconnect.stream(tracked, { handle, policy: Backoff.make({ cap: 1000 }) })
      const fiber = yield* counted(Effect.forkChild(
        Effect.provideService(Stream.runDrain(stream), Metric.FiberRuntimeMetrics, counter)
      ))
      let mostRunning = 0
      for (let round = 0; finalizers.added < 10_000 && round < 20_000; round++) {
        yield* TestClock.adjust("3 seconds")
        yield* handle.replace
        assert.isAtMost(finalizers.added - finalizers.run, 1)
        mostRunning = Math.max(mostRunning, running)
      }
      // Two for a read that can be cut off, one for the healthy period.
      assert.isAtMost(mostRunning, 4)
      assert.isAtLeast(finalizers.added, 10_000)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(finalizers.run, finalizers.added)
      assert.strictEqual(handle["~effect-lifeline/Reconnect"].listeners.size, 0)
      assert.strictEqual(running, 0)
      assert.strictEqual(yield* left, 0)
    }), 60_000)
})
