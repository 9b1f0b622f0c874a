// One connection, many subscriptions, in virtual time, over a server within the test. Each `describe` is a paragraph of what a
// listener promises. What becomes of those who wait is in `Listener.waiters.test.ts`, chaos in `Listener.chaos.test.ts`.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Listener from "effect-lifeline/Listener"
import { Overflow } from "effect-lifeline/WebSocket"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Server from "./support/listenerServer.ts"

/** Lets everything happen that needs no time. */
const settle = TestClock.adjust(0)

/** Waits of 1, 2, 4, ... s, each time. */
const steady = Backoff.make({ jitter: "none" })

const listen = (
  server: Server.Server,
  options?: Partial<Listener.Options<string, Server.Message, string, Scope.Scope>>
) => Listener.make({ ...Server.protocol, connect: server.connect, at: Server.at, policy: steady, ...options })

/** Runs something in the background, and keeps how it ends. */
const watch = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const fiber = yield* Effect.forkChild(effect)
  yield* settle
  return {
    fiber,
    isDone: () => fiber.pollUnsafe() !== undefined,
    isSuccess: () => {
      const exit = fiber.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit)
    },
    error: () => {
      const exit = fiber.pollUnsafe()
      return exit !== undefined && Exit.isFailure(exit)
        ? Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        : undefined
    }
  }
})

/** Reads a subscription in the background, and keeps what it yields and how it ends. */
const collect = Effect.fnUntraced(function*<E>(messages: Stream.Stream<Server.Message, E>) {
  const texts: Array<string> = []
  const watched = yield* watch(Stream.runForEach(messages, ({ text }) => Effect.sync(() => texts.push(text))))
  return { ...watched, texts }
})

const a = (...texts: ReadonlyArray<string>): ReadonlyArray<Server.Message> => texts.map((text) => ({ key: "a", text }))

const statusOf = <K extends Listener.Key, In, Out>({ status }: Listener.Listener<K, In, Out>) =>
  SubscriptionRef.getUnsafe(status)

/** The most of these moments that lie in any period so long, both ends included. */
const most = (moments: ReadonlyArray<number>, period: number): number =>
  Math.max(...moments.map((from) => moments.filter((moment) => moment >= from && moment <= from + period).length))

describe("subscribe", () => {
  it.effect("gives the messages of its key, and no others, until its scope is closed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const scope = yield* Scope.make()
      const readA = yield* collect((yield* listener.subscribe("a").pipe(Scope.provide(scope))).messages)
      const readB = yield* collect((yield* listener.subscribe("b")).messages)
      server.last().push({ key: "a", text: "1" }, { key: "b", text: "2" }, { key: "c", text: "3" })
      yield* settle
      assert.deepStrictEqual([readA.texts, readB.texts], [["1"], ["2"]])
      assert.strictEqual(yield* listener.size, 2)
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.strictEqual(yield* listener.size, 1)
      assert.deepStrictEqual(server.last().sent, ["+a", "+b", "-a"])
      assert.strictEqual(readA.error()?._tag, "Closed")
      server.last().push({ key: "a", text: "4" }, { key: "b", text: "5" })
      yield* settle
      assert.deepStrictEqual([readA.texts, readB.texts], [["1"], ["2", "5"]])
      assert.strictEqual(server.connections.length, 1)
    }))

  it.effect("a message may be of several keys; each subscription of a key gets its own copy", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { route: ({ key }) => key === "none" ? undefined : key.split("+") })
      const scope = yield* Scope.make()
      const readers = yield* Effect.forEach(
        ["a", "a", "b", "none"],
        (key) => Effect.flatMap(listener.subscribe(key).pipe(Scope.provide(scope)), (it) => collect(it.messages))
      )
      assert.deepStrictEqual(server.last().sent, ["+a", "+a", "+b", "+none"])
      server.last().push({ key: "a+b", text: "1" }, { key: "a", text: "2" }, { key: "none", text: "3" })
      yield* settle
      assert.deepStrictEqual(readers.map(({ texts }) => texts), [["1", "2"], ["1", "2"], ["1"], []])
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepStrictEqual(server.last().sent.slice(4).toSorted(), ["-a", "-b", "-none"])
    }))

  it.effect("the handler is there before the message is sent", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("b")
      server.send = (connection, message) => {
        if (message === "+a") connection.push(...a("at once"))
        return settle
      }
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      assert.deepStrictEqual(read.texts, ["at once"])
    }))

  it.effect("a message that is refused rolls back that registration, and no other one of its key", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, {
        connect: (dial) =>
          Effect.map(server.connect(dial), (connection) => ({
            messages: connection.messages,
            send: (message) =>
              message === "+a" && server.last().keys.has("a")
                ? Effect.fail(new Overflow({ ...Server.at, messages: 1, bytes: 1, dropped: false }))
                : connection.send(message)
          }))
      })
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      const error = yield* Effect.flip(listener.subscribe("a"))
      assert.strictEqual(error._tag === "Refused" ? error.reason._tag : error._tag, "InvalidRequest")
      assert.strictEqual(yield* listener.size, 1)
      server.last().push(...a("1"))
      yield* settle
      assert.deepStrictEqual(read.texts, ["1"])
      assert.deepStrictEqual(server.last().sent, ["+a"])
      assert.strictEqual(statusOf(listener)._tag, "Open")
    }))

  it.effect("interrupted after its message was sent, it is unsubscribed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("b")
      const hanging = yield* Deferred.make<void>()
      server.send = () => Deferred.await(hanging)
      const { fiber } = yield* watch(Effect.scoped(listener.subscribe("a")))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* listener.size, 1)
      yield* Deferred.succeed(hanging, undefined)
      yield* settle
      assert.deepStrictEqual(server.last().sent, ["+b", "+a", "-a"])
    }))

  it.effect("what throws when it makes a message is the caller's own defect", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, {
        subscribe: (key) => {
          if (key === "a") throw new Error("no such key")
          return `+${key}`
        }
      })
      yield* listener.subscribe("b")
      const exit = yield* Effect.exit(listener.subscribe("a"))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.deepStrictEqual([yield* listener.size, statusOf(listener)._tag], [1, "Open"])
    }))
})

describe("waiting for a connection", () => {
  it.effect("a caller waits for 5 attempts, at most 15 s, shared by all who wait; the background goes on", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.fail(Server.transient)
      const listener = yield* listen(server)
      const keys = Array.from({ length: 50 }, (_, n) => `k${n}`)
      const all = yield* Effect.forEach(keys, (key) => Effect.forkChild(Effect.flip(listener.subscribe(key))))
      yield* settle
      yield* TestClock.adjust(14_999)
      assert.isTrue(all.every((fiber) => fiber.pollUnsafe() === undefined))
      yield* TestClock.adjust(1)
      for (const exhausted of yield* Fiber.joinAll(all)) {
        assert.strictEqual(exhausted._tag, "Exhausted")
        if (exhausted._tag !== "Exhausted") continue
        assert.strictEqual(exhausted.attempts, 5)
        assert.strictEqual(Duration.toSeconds(exhausted.elapsed), 15)
        assert.strictEqual(exhausted.last.reason._tag, "Unavailable")
      }
      assert.deepStrictEqual(server.dials, [0, 1000, 3000, 7000, 15_000])
      assert.strictEqual(yield* listener.size, 0)
      // Nobody is left, so nothing more is dialled.
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(server.dials.length, 5)
    }))

  it.effect("who comes late waits no longer than 15 s, whatever the background waits", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      server.accept = () => Effect.fail(Server.transient)
      server.last().end(Server.reset)
      // After 1, 2, 4, 8, 16 and 30 s a wait of 30 s has just begun.
      yield* TestClock.adjust("62 seconds")
      const dials = server.dials.length
      const late = yield* watch(listener.subscribe("b"))
      yield* TestClock.adjust("15 seconds")
      assert.isFalse(late.isDone())
      yield* TestClock.adjust(100)
      assert.strictEqual(late.error()?._tag, "Exhausted")
      assert.strictEqual(server.dials.length, dials)
      // The background never gave up on the first one.
      server.accept = () => Effect.void
      yield* TestClock.adjust("30 seconds")
      server.last().push(...a("back"))
      yield* settle
      assert.deepStrictEqual(read.texts, ["back"])
    }))

  it.effect("the time that dials take is none of the 15 s", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.sleep("20 seconds")
      const listener = yield* listen(server)
      const one = yield* watch(listener.subscribe("a"))
      yield* TestClock.adjust("20 seconds")
      assert.isTrue(one.isSuccess())
      server.accept = () => Effect.never
      server.last().end(Server.reset)
      yield* settle
      const two = yield* watch(listener.subscribe("b"))
      // Waits of 1, 2, 4 and 8 s, and 30 s for each attempt.
      yield* TestClock.adjust("135 seconds")
      assert.isFalse(two.isDone())
      yield* TestClock.adjust(100)
      const error = two.error()
      assert.strictEqual(error?._tag === "Exhausted" ? error.attempts : error?._tag, 4)
    }))

  it.effect("in the background it goes on for as long as it takes, and waits longer each time", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      server.accept = () => Effect.fail(Server.transient)
      server.last().end()
      yield* TestClock.adjust("1 day")
      assert.isAtLeast(server.dials.length, 2800)
      assert.isFalse(read.isDone())
      server.accept = () => Effect.void
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(server.last().sent, ["+a"])
    }))

  it.effect("a send on a connection that broke waits for the next one, within the same bounds", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a")
      server.last().push(...a("progress"))
      yield* settle
      server.send = () => Effect.fail(Server.reset)
      const sent = yield* watch(listener.send("message"))
      assert.isTrue(server.last().isClosed, "a send that failed ends its connection")
      server.send = () => Effect.void
      yield* TestClock.adjust("1 second")
      assert.isTrue(sent.isSuccess())
      assert.deepStrictEqual(server.last().sent, ["+a", "message"])
      assert.strictEqual(server.dials.length, 2)
      server.last().push(...a("progress"))
      yield* settle
      server.accept = () => Effect.fail(Server.transient)
      server.send = () => Effect.fail(Server.reset)
      const lost = yield* watch(listener.send("message"))
      yield* TestClock.adjust("20 seconds")
      const error = lost.error()
      assert.strictEqual(error?._tag === "Exhausted" ? error.attempts : error?._tag, 5)
    }))

  it.effect("a send alone connects; afterwards nobody needs the connection", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.send("one")
      yield* listener.send("two")
      assert.deepStrictEqual(server.last().sent, ["one", "two"])
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(server.dials.length, 1)
    }))

  it.effect("who leaves while it is dialled leaves the dial to others", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.sleep("2 seconds")
      const listener = yield* listen(server)
      const one = yield* watch(listener.subscribe("a"))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(one.fiber)
      const two = yield* watch(listener.subscribe("b"))
      yield* TestClock.adjust("1 second")
      assert.isTrue(two.isSuccess())
      assert.strictEqual(server.dials.length, 1)
      assert.deepStrictEqual(server.last().sent, ["+b"])
    }))

  it.effect("when all leave while it waits, nothing more is dialled", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const scope = yield* Scope.make()
      yield* listener.subscribe("a").pipe(Scope.provide(scope))
      server.last().end(Server.reset)
      yield* settle
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(server.dials.length, 1)
      assert.isFalse(Listener.isTerminal(statusOf(listener)))
    }))

  it.effect("a message whose sender left before its turn is not sent", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a")
      server.send = () => Effect.sleep("1 second")
      const one = yield* watch(listener.send("one"))
      const two = yield* watch(listener.send("two"))
      const three = yield* watch(listener.send("three"))
      yield* Fiber.interrupt(two.fiber)
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(one.isSuccess() && three.isSuccess())
      assert.deepStrictEqual(server.last().sent, ["+a", "one", "three"])
    }))

  it.effect("reconnectNow skips the rest of a wait", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a")
      server.last().end()
      yield* settle
      assert.strictEqual(statusOf(listener)._tag, "Waiting")
      yield* listener.reconnectNow
      yield* settle
      assert.deepStrictEqual(server.dials, [0, 0])
    }))
})

describe("each new connection", () => {
  it.effect("gets every key, once, after the one before was closed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      for (const key of ["a", "b", "a", "c"]) yield* listener.subscribe(key)
      for (let n = 2; n < 20; n++) {
        server.last().push(...a("progress"))
        server.last().end(n % 2 === 0 ? undefined : Server.reset)
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual(server.last().number, n)
        assert.deepStrictEqual(server.last().sent, ["+a", "+b", "+c"])
        assert.isTrue(server.connections.at(-2)?.isClosed)
        assert.strictEqual(server.mostOpen(), 1)
      }
    }))

  /** A listener with subscriptions of `a`, `b`, `c`, whose second connection replays as `step` goes on. */
  const replaying = (
    change: (listener: Listener.Listener<string, Server.Message, string>, step: string) => Effect.Effect<void>
  ) =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      for (const key of ["b", "c"]) yield* listener.subscribe(key)
      server.send = (_, message) => Effect.andThen(change(listener, message), Effect.sleep("1 second"))
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 minute")
      return server.last()
    })

  it.effect("a key that is subscribed during the replay is on it, too, and is told after the replay", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const added: Array<string> = []
      const connection = yield* replaying((listener, step) =>
        step !== "+b" ? Effect.void : Effect.asVoid(Effect.forkDetach(
          Effect.andThen(listener.subscribe("d").pipe(Scope.provide(scope)), Effect.sync(() => added.push("d")))
        ))
      )
      assert.deepStrictEqual(added, ["d"])
      assert.deepStrictEqual([...connection.keys].toSorted(), ["b", "c", "d"])
    }))

  it.effect("a key that is given up, and subscribed again, during the replay is on it", () =>
    Effect.gen(function*() {
      const first = yield* Scope.make()
      const again = yield* Scope.make()
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a").pipe(Scope.provide(first))
      yield* listener.subscribe("b")
      server.send = (connection, message) =>
        Effect.andThen(
          message === "+b" && connection.number === 2
            ? Effect.andThen(
              Scope.close(first, Exit.void),
              Effect.forkDetach(listener.subscribe("a").pipe(Scope.provide(again)), { startImmediately: true })
            )
            : Effect.void,
          Effect.sleep("1 second")
        )
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([...server.last().keys].toSorted(), ["a", "b"])
      assert.strictEqual(yield* listener.size, 2)
    }))

  it.effect("one that breaks during the replay is an attempt that failed; nobody was told to be subscribed", () =>
    Effect.gen(function*() {
      for (const ending of ["send", "messages", "hang"] as const) {
        const server = Server.make()
        const listener = yield* listen(server)
        let isBroken = true
        server.send = (connection) =>
          Effect.suspend(() => {
            if (!isBroken) return Effect.void
            if (ending === "send") return Effect.fail(Server.reset)
            if (ending === "messages") connection.end()
            return Effect.never
          })
        const one = yield* watch(listener.subscribe("a"))
        yield* TestClock.adjust("500 millis")
        assert.isFalse(one.isDone(), ending)
        isBroken = false
        yield* TestClock.adjust("20 seconds")
        assert.isTrue(one.isSuccess(), ending)
        assert.deepStrictEqual(server.connections.map(({ sent }) => sent), [[], ["+a"]], ending)
        yield* listener.close
      }
    }))

  it.effect("messages are read while it is replayed: a server that answers first is not held up", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const read = yield* Deferred.make<void>()
      const listener = yield* listen(server, {
        route: ({ key }) => {
          if (key === "answer") Deferred.doneUnsafe(read, Exit.void)
          return key
        }
      })
      server.send = (connection) => {
        connection.push({ key: "answer", text: "" })
        return Deferred.await(read)
      }
      yield* listener.subscribe("a")
      assert.strictEqual(statusOf(listener)._tag, "Open")
    }))

  it.effect("what was on its way when the connection was lost goes out as soon as there is the next, without a dial of its own", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a")
      server.last().push(...a("progress"))
      server.send = (connection) => connection.number === 1 ? Effect.never : Effect.void
      const waiting = yield* Effect.forEach(["one", "two", "three"], (text) => watch(listener.send(text)))
      const subscribing = yield* watch(listener.subscribe("b"))
      yield* TestClock.adjust("2 seconds")
      server.last().end(Server.reset)
      yield* TestClock.adjust(999)
      assert.isFalse(subscribing.isDone() || waiting.some(({ isDone }) => isDone()))
      yield* TestClock.adjust(1)
      assert.isTrue(subscribing.isSuccess() && waiting.every(({ isSuccess }) => isSuccess()))
      assert.deepStrictEqual(server.last().sent, ["+a", "+b", "one", "two", "three"])
      assert.deepStrictEqual(server.dials, [0, 3000])
    }))

  it.effect("a message that takes too long ends its connection", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { sendTimeout: "4 seconds" })
      yield* listener.subscribe("a")
      server.send = (connection) => connection.number === 1 ? Effect.never : Effect.void
      const sent = yield* watch(listener.send("message"))
      yield* TestClock.adjust(3999)
      assert.isTrue(server.last().isOpen)
      yield* TestClock.adjust(1)
      assert.isTrue(server.last().isClosed)
      const status = statusOf(listener)
      assert.strictEqual(
        status._tag === "Waiting" && status.cause?._tag === "Transient" ? status.cause.reason._tag : "",
        "TimedOut"
      )
      yield* TestClock.adjust("1 second")
      assert.isTrue(sent.isSuccess())
    }))

  it.effect("one message after the other is sent, each in its time: many of them are not too long together", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { sendTimeout: "4 seconds" })
      yield* listener.subscribe("a")
      server.send = () => Effect.sleep("3 seconds")
      const all = yield* Effect.forEach(["1", "2", "3", "4", "5"], (text) => watch(listener.send(text)))
      yield* TestClock.adjust("15 seconds")
      assert.isTrue(all.every(({ isSuccess }) => isSuccess()))
      assert.strictEqual(server.connections.length, 1)
    }))
})

describe("an end without an error", () => {
  it.effect("is followed by a new connection where there are subscriptions, else by nothing", () =>
    Effect.gen(function*() {
      for (const ending of [undefined, Server.stop, Server.reset]) {
        const server = Server.make()
        const listener = yield* listen(server)
        const scope = yield* Scope.make()
        yield* listener.subscribe("a").pipe(Scope.provide(scope))
        const before = server.dials.length
        server.last().end(ending)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(server.dials.length, before + 1)
        yield* Scope.close(scope, Exit.void)
        yield* settle
        assert.isTrue(server.last().isOpen, "an open connection stays")
        server.last().end(ending)
        yield* settle
        const status = statusOf(listener)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(server.dials.length, before + 1)
        assert.strictEqual(status._tag === "Closed" ? status.cause?._tag : status._tag, "Stop")
        assert.isFalse(Listener.isTerminal(status))
        yield* listener.subscribe("b")
        assert.deepStrictEqual(server.last().sent, ["+b"])
      }
    }))

  it.effect("a server that says stop while there are subscriptions has made no progress", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { noProgressLimit: 3 })
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      for (let n = 0; n < 3; n++) {
        server.last().end(Server.stop)
        yield* TestClock.adjust("10 seconds")
      }
      assert.strictEqual(server.dials.length, 3)
      assert.strictEqual(read.error()?._tag, "NoProgress")
    }))

  it.effect("whoever subscribes at that moment is served: before, between and after", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.close = Effect.sleep("300 millis")
      const listener = yield* listen(server)
      const scopes: Array<Scope.Closeable> = []
      const subscribe = Effect.suspend(() => {
        const scope = Scope.makeUnsafe()
        scopes.push(scope)
        return watch(listener.subscribe(`k${scopes.length}`).pipe(Scope.provide(scope)))
      })
      const leave = Effect.suspend(() => Effect.forEach(scopes.splice(0), (scope) => Scope.close(scope, Exit.void)))
      const end = Effect.sync(() => server.last().end())
      const orders = [
        [leave, end, subscribe],
        [leave, subscribe, end],
        [end, leave, subscribe],
        [
          leave,
          end,
          settle,
          subscribe
        ],
        [leave, end, TestClock.adjust(100), subscribe],
        [end, TestClock.adjust(500), leave, subscribe]
      ]
      for (const order of orders) {
        yield* subscribe
        yield* TestClock.adjust("1 minute")
        assert.isTrue(server.last().isOpen)
        for (const step of order) yield* step
        yield* TestClock.adjust("1 minute")
        assert.isTrue(server.last().isOpen)
        assert.deepStrictEqual([...server.last().keys], [`k${scopes.length}`])
        assert.strictEqual(server.mostOpen(), 1)
        yield* leave
      }
      server.close = Effect.void
    }))
})

describe("slow and failing readers", () => {
  const numbers = Array.from({ length: 10 }, (_, n) => String(n))

  it.effect("one that does not read is alone with it: by default its subscription fails, after what it holds", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { buffer: { capacity: 4 } })
      const slow = yield* listener.subscribe("a")
      const quick = yield* collect((yield* listener.subscribe("a")).messages)
      const other = yield* collect((yield* listener.subscribe("b")).messages)
      server.last().push(...a(...numbers), { key: "b", text: "b" })
      yield* settle
      assert.deepStrictEqual([quick.texts, other.texts], [numbers, ["b"]])
      const read = yield* collect(slow.messages)
      assert.deepStrictEqual(read.texts, numbers.slice(0, 4))
      assert.strictEqual(read.error()?._tag, "Lagged")
      assert.strictEqual(yield* listener.size, 2)
      assert.isTrue(server.last().keys.has("a"))
    }))

  it.effect("the last one of a key that fails so is unsubscribed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a", { capacity: 1 })
      server.last().push(...a("1", "2"))
      yield* settle
      assert.deepStrictEqual(server.last().sent, ["+a", "-a"])
    }))

  it.effect("it may be behind by 1024 messages unless told", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      for (const count of [1024, 1025]) {
        yield* Effect.scoped(Effect.gen(function*() {
          const { messages } = yield* listener.subscribe("a")
          server.last().push(...a(...Array.from({ length: count }, (_, n) => String(n))))
          yield* settle
          const read = yield* collect(messages)
          assert.strictEqual(read.texts.length, 1024)
          assert.strictEqual(read.error()?._tag, count > 1024 ? "Lagged" : undefined)
        }))
      }
    }))

  it.effect("dropOldest keeps the newest, and counts the others", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const subscription = yield* listener.subscribe("a", { capacity: 3, overflow: "dropOldest" })
      server.last().push(...a(...numbers))
      yield* settle
      assert.strictEqual(yield* subscription.dropped, 7)
      const read = yield* collect(subscription.messages)
      assert.deepStrictEqual(read.texts, ["7", "8", "9"])
    }))

  it.effect("suspend holds everybody up, and loses nothing; also that ends with the connection", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const scope = yield* Scope.make()
      const slow = yield* listener.subscribe("a", { capacity: 3, overflow: "suspend" })
      const other = yield* collect((yield* listener.subscribe("b")).messages)
      server.last().push(...a(...numbers), { key: "b", text: "b" })
      yield* settle
      assert.deepStrictEqual(other.texts, [])
      const read = yield* collect(slow.messages)
      assert.deepStrictEqual([read.texts, other.texts], [numbers, ["b"]])
      yield* Fiber.interrupt(read.fiber)
      // Held up again, by one that leaves.
      yield* listener.subscribe("c", { capacity: 1, overflow: "suspend" }).pipe(Scope.provide(scope))
      server.last().push({ key: "c", text: "1" }, { key: "c", text: "2" }, { key: "b", text: "after" })
      yield* settle
      assert.deepStrictEqual(other.texts, ["b"])
      yield* Scope.close(scope, Exit.void)
      yield* settle
      assert.deepStrictEqual(other.texts, ["b", "after"])
    }))

  it.effect("one that keeps up loses nothing, however much comes at once", () =>
    Effect.gen(function*() {
      for (const overflow of ["fail", "dropOldest", "suspend"] as const) {
        const server = Server.make()
        const listener = yield* listen(server, { buffer: { capacity: 1, overflow } })
        const read = yield* collect((yield* listener.subscribe("a")).messages)
        for (let n = 0; n < 3; n++) server.last().push(...a(...numbers))
        yield* settle
        assert.deepStrictEqual(read.texts, [...numbers, ...numbers, ...numbers])
        yield* listener.close
      }
    }))

  it.effect("one that fails, dies or leaves does not end the others", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const good = yield* collect((yield* listener.subscribe("a")).messages)
      for (const bad of [Effect.fail("failed"), Effect.die("died"), Effect.interrupt]) {
        const { messages } = yield* listener.subscribe("a")
        yield* watch(Stream.runForEach(messages, () => bad))
      }
      const last = yield* collect((yield* listener.subscribe("a")).messages)
      server.last().push(...a("1"))
      yield* settle
      server.last().push(...a("2"))
      yield* settle
      assert.deepStrictEqual([good.texts, last.texts], [["1", "2"], ["1", "2"]])
      assert.strictEqual(server.connections.length, 1)
    }))

  it.effect("one that subscribes anew because of a message does not get that message again", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const seen: Array<string> = []
      yield* listener.subscribe("a")
      yield* watch(Effect.gen(function*() {
        for (let n = 0; n < 10; n++) seen.push((yield* listener.await("a")).text)
      }))
      server.last().push(...a("1"))
      yield* settle
      server.last().push(...a("2"))
      yield* settle
      assert.deepStrictEqual(seen, ["1", "2"])
    }))

  it.effect("a route that throws is a defect for all, instead of silence", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, {
        route: () => {
          throw new Error("unroutable")
        }
      })
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      server.last().push(...a("1"))
      yield* settle
      const exit = yield* Fiber.await(read.fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    }))
})

describe("close", () => {
  it.effect("answers at once, opens nothing more, and may be called again", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.close = Effect.sleep("1 second")
      const listener = yield* listen(server)
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      server.last().push(...a("1"))
      const one = yield* watch(listener.close)
      const two = yield* watch(listener.close)
      assert.strictEqual(read.error()?._tag, "Closed")
      assert.deepStrictEqual(read.texts, ["1"])
      assert.isFalse(one.isDone() || two.isDone())
      for (const late of [listener.subscribe("b"), listener.await("b"), listener.send("message")]) {
        assert.strictEqual((yield* Effect.flip(late))._tag, "Closed")
      }
      yield* TestClock.adjust("1 second")
      assert.isTrue(one.isSuccess() && two.isSuccess() && server.last().isClosed)
      yield* listener.close
      const status = statusOf(listener)
      assert.strictEqual(status._tag === "Closed" ? status.cause?._tag : status._tag, "Shutdown")
      assert.isTrue(Listener.isTerminal(status))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(server.dials.length, 1)
    }))

  it.effect("comes with the end of the scope, also where nothing was ever subscribed", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const scope = yield* Scope.make()
      const listener = yield* listen(server).pipe(Scope.provide(scope))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Effect.flip(listener.subscribe("a")))._tag, "Closed")
      assert.strictEqual(server.dials.length, 0)
    }))
})

describe("an end for good", () => {
  it.effect("is told to all, and the next one starts afresh", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const read = yield* Effect.forEach(["a", "b"], (key) =>
        Effect.flatMap(listener.subscribe(key), (it) => collect(it.messages)))
      server.last().push(...a("last"))
      server.last().end(Server.unauthorized)
      yield* settle
      assert.deepStrictEqual(
        read.map(({ error }) =>
          error()?._tag
        ),
        ["AuthFailed", "AuthFailed"]
      )
      assert.deepStrictEqual(read[0]?.texts, ["last"])
      assert.isTrue(Listener.isTerminal(statusOf(listener)))
      assert.strictEqual(yield* listener.size, 0)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(server.dials.length, 1, "no second dial with that credential")
      const again = yield* collect((yield* listener.subscribe("a")).messages)
      assert.isFalse(Listener.isTerminal(statusOf(listener)))
      assert.deepStrictEqual(server.last().sent, ["+a"])
      server.last().push(...a("again"))
      yield* settle
      assert.deepStrictEqual(again.texts, ["again"])
    }))

  it.effect("ten connections in a row that carry nothing are no progress", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      server.send = (connection) => Effect.sync(() => connection.end())
      server.last().end()
      yield* TestClock.adjust("5 minutes")
      const error = read.error()
      assert.strictEqual(error?._tag === "NoProgress" ? error.connections : error?._tag, 10)
      assert.strictEqual(server.dials.length, 10)
    }))

  it.effect("whoever subscribes again and again, the pace holds: at most 8 dials in any 10 s", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.fail(Server.unauthorized)
      const listener = yield* listen(server)
      yield* watch(Effect.forever(Effect.ignore(Effect.scoped(listener.subscribe("a")))))
      for (let n = 0; n < 120; n++) yield* TestClock.adjust(500)
      assert.isAbove(server.dials.length, 20)
      assert.isAtMost(most(server.dials, 10_000), 8)
    }))
})

describe("await", () => {
  it.effect("all who wait for one key get the message, and leave", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const all = yield* Effect.forEach([1, 2, 3], () => watch(listener.await("a")))
      const last = yield* watch(listener.await("a", { filter: ({ text }) => text === "2" }))
      server.last().push({ key: "b", text: "0" }, ...a("1"))
      yield* settle
      for (const { fiber } of all) assert.deepStrictEqual(yield* Fiber.join(fiber), { key: "a", text: "1" })
      assert.isFalse(last.isDone())
      assert.strictEqual(yield* listener.size, 1)
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 second")
      server.last().push(...a("1", "2"))
      yield* settle
      assert.deepStrictEqual(yield* Fiber.join(last.fiber), { key: "a", text: "2" })
      assert.strictEqual(yield* listener.size, 0)
    }))

  it.effect("fails as soon as subscribing does", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      server.accept = () => Effect.fail(Server.malformed)
      const all = yield* Effect.forEach([1, 2], () =>
        watch(listener.await("a", { fallback: Listener.poll(Effect.never, 1) })))
      assert.deepStrictEqual(
        all.map(({ error }) =>
          error()?._tag
        ),
        ["Refused", "Refused"]
      )
    }))

  it.effect("asks elsewhere while the stream is silent, and only then", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      let polls = 0
      let answer: Server.Message | undefined = undefined
      const poll = Effect.sync(() => {
        polls++
        return answer
      })
      const one = yield* watch(
        listener.await("a", { fallback: Listener.poll(poll, "10 seconds"), filter: ({ text }) => text === "result" })
      )
      yield* TestClock.adjust(9999)
      server.last().push(...a("not it"))
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(polls, 0)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(polls, 1)
      answer = { key: "a", text: "polled" }
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Fiber.join(one.fiber), answer)
      assert.strictEqual(polls, 2)
      const two = yield* watch(
        listener.await("a", { fallback: Listener.poll(Effect.fail("unary call failed"), "10 seconds") })
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(two.error(), "unary call failed")
      const three = yield* watch(listener.await("a", { fallback: Listener.poll(Effect.never, "10 seconds") }))
      yield* TestClock.adjust("1 minute")
      server.last().push(...a("by the stream"))
      yield* settle
      assert.isTrue(three.isSuccess())
    }))

  it.effect("asks after 30 s unless told", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const one = yield* watch(
        listener.await("a", { fallback: Listener.poll(Effect.succeed({ key: "a", text: "polled" })) })
      )
      yield* TestClock.adjust(29_999)
      assert.isFalse(one.isDone())
      yield* TestClock.adjust(1)
      assert.isTrue(one.isSuccess())
    }))
})

describe("versions", () => {
  const refuse = (...versions: ReadonlyArray<string>) => ({ version }: Server.Dial) =>
    versions.includes(version ?? "") ? Effect.fail(Server.unsupported) : Effect.void

  it.effect("unsupported on the newer one falls to the older one, once, as one connection without progress", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = refuse("v2")
      const listener = yield* listen(server, {
        connect: Listener.versions(["v2", "v1"], server.connect),
        noProgressLimit: 2
      })
      const one = yield* watch(listener.subscribe("a"))
      const status = statusOf(listener)
      assert.isTrue(
        status._tag === "Waiting" && status.cause?._tag === "Inconclusive" && status.cause.message.includes("v2")
      )
      yield* TestClock.adjust("1 second")
      assert.isTrue(one.isSuccess())
      assert.strictEqual(server.last().version, "v1")
      // The one before counted: this is the second in a row.
      server.last().end()
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(server.dials.length, 2)
      assert.isTrue(Listener.isTerminal(statusOf(listener)))
    }))

  it.effect("also where the connection opens and says so later; from then on it is the older one", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server, { connect: Listener.versions(["v2", "v1"], server.connect) })
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      assert.strictEqual(server.last().version, "v2")
      server.last().end(Server.unsupported)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(server.last().version, "v1")
      server.last().push(...a("1"))
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([server.last().version, ...read.texts], ["v1", "1"])
    }))

  it.effect("unsupported on the oldest one is the end; afresh is with the newest", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = refuse("v3", "v2", "v1")
      const listener = yield* listen(server, { connect: Listener.versions(["v3", "v2", "v1"], server.connect) })
      const one = yield* watch(listener.subscribe("a"))
      yield* TestClock.adjust("1 minute")
      const error = one.error()
      assert.strictEqual(error?._tag === "Refused" ? error.reason._tag : error?._tag, "Unsupported")
      assert.strictEqual(server.dials.length, 3)
      server.accept = () => Effect.void
      yield* listener.subscribe("a")
      assert.strictEqual(server.last().version, "v3")
    }))

  it.effect("without versions unsupported is the end", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.fail(Server.unsupported)
      const listener = yield* listen(server)
      assert.strictEqual((yield* Effect.flip(listener.subscribe("a")))._tag, "Refused")
      assert.strictEqual(server.dials.length, 1)
    }))
})

describe("the heartbeat beside it", () => {
  type Reply = "active" | "inactive" | "missed"
  const beats = (beat: (reply: Reply) => Effect.Effect<void>, ...replies: ReadonlyArray<Reply>) =>
    Effect.andThen(Effect.forEach(replies, beat), settle)

  it.effect("three in a row that say inactive force a new connection, for a reason of its own", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const beat = Listener.heartbeat(listener)
      const read = yield* collect((yield* listener.subscribe("a")).messages)
      yield* beats(beat, "inactive", "inactive", "active", "inactive", "missed", "inactive")
      assert.isTrue(server.last().isOpen)
      yield* beats(beat, "inactive")
      assert.isTrue(server.last().isClosed)
      const status = statusOf(listener)
      assert.strictEqual(status._tag, "Waiting")
      if (status._tag === "Waiting") {
        assert.isTrue(status.cause?.message.includes("3 heartbeats in a row"), status.cause?.message)
      }
      yield* TestClock.adjust("1 second")
      server.last().push(...a("on the new one"))
      yield* settle
      assert.deepStrictEqual(read.texts, ["on the new one"])
      yield* beats(beat, "inactive", "inactive")
      assert.isTrue(server.last().isOpen, "each connection is counted anew")
    }))

  it.effect("a missed beat says nothing of the connection, nor does any beat while there is none", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      const beat = Listener.heartbeat(listener)
      yield* beats(beat, "inactive", "inactive", "inactive")
      yield* listener.subscribe("a")
      yield* beats(beat, ...Array.from({ length: 100 }, () => "missed" as const))
      assert.isTrue(server.last().isOpen)
      server.last().end(Server.reset)
      yield* settle
      yield* beats(beat, "inactive", "inactive", "inactive")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([server.connections.length, server.last().isOpen], [2, true])
    }))

  it.effect("beats stop when the stream is at its end", () =>
    Effect.gen(function*() {
      const server = Server.make()
      const listener = yield* listen(server)
      yield* listener.subscribe("a")
      let beaten = 0
      const ended = SubscriptionRef.changes(listener.status).pipe(Stream.filter(Listener.isTerminal), Stream.runHead)
      const beating = yield* watch(
        Effect.sync(() => beaten++).pipe(
          Effect.andThen(Effect.sleep("4 seconds")),
          Effect.forever,
          Effect.raceFirst(ended)
        )
      )
      server.last().end(Server.reset)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(beaten, 16)
      server.last().end(Server.unauthorized)
      yield* TestClock.adjust("1 minute")
      assert.isTrue(beating.isSuccess())
      assert.strictEqual(beaten, 16)
    }))
})

describe("status", () => {
  it.effect("tells where the connection stands", () =>
    Effect.gen(function*() {
      const server = Server.make()
      server.accept = () => Effect.sleep("1 second")
      const listener = yield* listen(server)
      const seen: Array<string> = []
      yield* Effect.forkChild(
        Stream.runForEach(SubscriptionRef.changes(listener.status), ({ _tag }) => Effect.sync(() => seen.push(_tag)))
      )
      yield* settle
      const one = yield* watch(listener.subscribe("a"))
      yield* TestClock.adjust("1 second")
      assert.isTrue(one.isSuccess())
      server.last().end(Server.reset)
      yield* TestClock.adjust("2 seconds")
      yield* listener.close
      yield* settle
      assert.deepStrictEqual(seen, [
        "Closed",
        "Connecting",
        "Open",
        "Waiting",
        "Connecting",
        "Open",
        "Closed",
        "Closed"
      ])
    }))
})
