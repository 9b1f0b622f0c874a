// The control channel in virtual time, over sockets in memory: handshake and its deadlines, liveness, reconnecting, identity,
// sending, closing. The protocol: lines; the client says "hello" or "again <session>", the server answers with the session.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as ControlChannel from "effect-lifeline/ControlChannel"
import * as Framing from "effect-lifeline/Framing"
import { AuthFailed, Refused, Unauthorized, Unsupported } from "effect-lifeline/LifelineError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Leaks from "./support/leaks.ts"
import * as Sockets from "./support/memorySockets.ts"

type Link = ControlChannel.Link<string, string, string>

const at = { operation: "connect", target: "relay" }

const handshake = Effect.fnUntraced(function*(link: Link) {
  yield* link.send(link.previous === undefined ? "hello" : `again ${link.previous}`)
  const answer = yield* link.receive
  if (answer === "who?") return yield* Effect.fail(new AuthFailed({ ...at, reason: new Unauthorized({}) }))
  if (answer === "no") return yield* Effect.fail(new Refused({ ...at, reason: new Unsupported({}) }))
  return answer
})

const optionsOf = (sockets: ReturnType<typeof Sockets.make>) => ({
  open: sockets.open,
  framing: Framing.newline({ maxBytes: 32 }),
  codec: ControlChannel.text,
  handshake,
  isHeartbeat: (line: string) => line === "beat",
  at
})

/** A server that gives everyone the session `s<n>`. */
const welcoming = () => Sockets.make((connection, n) => connection.send(`s${n}\n`))

const beats = Schedule.spaced("500 millis")

/** Lets everything happen that needs no time. */
const settled = Effect.repeat(TestClock.adjust(0), { times: 50 })

const tags = (error: { readonly _tag: string; readonly reason?: unknown }) => {
  const { reason } = error as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error._tag : `${error._tag}.${reason._tag}`
}

const tagOf = <A extends { readonly _tag: string }>(channel: {
  readonly status: SubscriptionRef.SubscriptionRef<A>
}) => SubscriptionRef.getUnsafe(channel.status)._tag

describe("ControlChannel: the handshake", () => {
  it.effect("connects at once; the session is what the handshake yields, what follows it is messages", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection) => connection.send("me\none\ntw", "o\nbeat\nthree\n"))
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      assert.strictEqual(yield* channel.session, "me")
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n"])
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(channel.messages, 3)), ["one", "two", "three"])
      const status = SubscriptionRef.getUnsafe(channel.status)
      assert.strictEqual(status._tag === "Ready" && status.session, "me")
    }))

  it.effect.each([["who?", "AuthFailed.Unauthorized"], ["no", "Refused.Unsupported"]] as const)(
    "%s: the end at once, for everyone who waits, after one attempt",
    ([line, expected]) =>
      Effect.gen(function*() {
        const sockets = Sockets.make((connection) => connection.send(`${line}\n`))
        const channel = yield* ControlChannel.make(optionsOf(sockets))
        const waiting = yield* Effect.forkChild(Effect.flip(channel.send("early")))
        assert.strictEqual(tags(yield* Effect.flip(channel.session)), expected)
        assert.strictEqual(tags(yield* Fiber.join(waiting)), expected)
        assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(channel.messages))), expected)
        assert.strictEqual(tags(yield* Effect.flip(channel.send("late"))), expected)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(sockets.connections.length, 1)
        assert.isFalse(sockets.connections[0]?.isOpen)
        const status = SubscriptionRef.getUnsafe(channel.status)
        assert.strictEqual(status._tag === "Closed" && status.cause && tags(status.cause), expected)
      })
  )

  it.effect("end of stream in it is transient: the next connection succeeds", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) => n === 0 ? connection.end() : connection.send("me\n"))
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* settled
      const status = SubscriptionRef.getUnsafe(channel.status)
      assert.strictEqual(status._tag === "Waiting" && status.cause && tags(status.cause), "Transient.Unreachable")
      yield* TestClock.adjust("1250 millis")
      assert.strictEqual(yield* channel.session, "me")
    }))

  it.effect("opening, and each step of it, has 3 seconds; all of it 30", () =>
    Effect.gen(function*() {
      const hung = Sockets.make()
      hung.state.opens = Effect.never
      const opening = yield* ControlChannel.make({ ...optionsOf(hung), reconnect: false })
      const step = yield* ControlChannel.make({ ...optionsOf(Sockets.make()), reconnect: false })
      const full = Sockets.make()
      full.state.writes = Effect.never
      const writing = yield* ControlChannel.make({ ...optionsOf(full), reconnect: false })
      const all = yield* ControlChannel.make({
        ...optionsOf(Sockets.make()),
        reconnect: false,
        handshake: () => Effect.never
      })
      const ends: Array<string> = []
      for (const [name, channel] of [["open", opening], ["step", step], ["write", writing], ["all", all]] as const) {
        yield* Effect.forkChild(Effect.flatMap(Effect.flip(channel.session), (error) =>
          Effect.sync(() =>
            ends.push(`${name} ${error._tag === "Disconnected" ? tags(error.last) : error._tag}`)
          )))
      }
      yield* settled
      yield* TestClock.adjust("2999 millis")
      assert.deepStrictEqual(ends, [])
      yield* TestClock.adjust("1 millis")
      assert.sameMembers(ends, ["open Transient.TimedOut", "step Transient.TimedOut", "write Transient.TimedOut"])
      yield* TestClock.adjust("27 seconds")
      assert.include(ends, "all Transient.TimedOut")
    }))

  it.effect("a server that says nothing but heartbeats does not hold it up", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection) =>
        Effect.asVoid(Effect.forkDetach(Effect.repeat(connection.send("beat\n"), { times: 20, schedule: beats })))
      )
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: false })
      const ended = yield* Effect.forkChild(Effect.flip(channel.session))
      yield* settled
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(ended))._tag, "Disconnected")
    }))

  it.effect("a message to it that is too long is refused, as is one that the program sends", () =>
    Effect.gen(function*() {
      const channel = yield* ControlChannel.make({
        ...optionsOf(welcoming()),
        handshake: (link: Link) => Effect.as(link.send("x".repeat(33)), "never")
      })
      assert.strictEqual(tags(yield* Effect.flip(channel.session)), "Refused.InvalidRequest")
      const other = yield* ControlChannel.make(optionsOf(welcoming()))
      const error = yield* Effect.flip(other.send("x".repeat(33)))
      assert.strictEqual(error._tag === "FrameError" && error.reason, "TooLong")
      yield* other.send("x".repeat(32))
    }))

  it.effect.each(
    [
      ["a frame that is too long", "x".repeat(33) + "\n"],
      ["what the codec does not know", Uint8Array.of(255, 10)]
    ] as const
  )("%s, ten times in a row: NoProgress", ([, chunk]) =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection) => connection.send(chunk))
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      const ended = yield* Effect.forkChild(Effect.flip(channel.session))
      yield* settled
      assert.strictEqual(tagOf(channel), "Waiting")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* Fiber.join(ended))._tag, "NoProgress")
      assert.strictEqual(sockets.connections.length, 10)
    }))
})

describe("ControlChannel: liveness", () => {
  it.effect("8 seconds after the last message, heartbeats included, it is dead, and made anew", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* channel.session
      const [first] = sockets.connections
      for (let n = 0; n < 20; n++) {
        yield* TestClock.adjust("500 millis")
        yield* first?.send("beat\n") ?? Effect.void
      }
      yield* TestClock.adjust("7999 millis")
      assert.isTrue(first?.isOpen)
      yield* TestClock.adjust("1 millis")
      assert.isFalse(first?.isOpen)
      const status = SubscriptionRef.getUnsafe(channel.status)
      assert.strictEqual(status._tag === "Waiting" && status.cause && tags(status.cause), "Transient.TimedOut")
      yield* TestClock.adjust("1250 millis")
      assert.strictEqual(yield* channel.session, "s1")
    }))

  it.effect("bytes that are no message do not count", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* channel.session
      for (let n = 0; n < 16; n++) {
        yield* sockets.connections[0]?.send("x") ?? Effect.void
        yield* TestClock.adjust("500 millis")
      }
      assert.isFalse(sockets.connections[0]?.isOpen)
    }))

  it.effect("the ping is sent after half of the deadline, or as often as asked", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const quiet = yield* ControlChannel.make({ ...optionsOf(sockets), liveness: { ping: "ping" } })
      const often = yield* ControlChannel.make({ ...optionsOf(sockets), liveness: { ping: "ping", every: "1 second" } })
      yield* quiet.session
      yield* often.session
      yield* TestClock.adjust("3500 millis")
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n"])
      assert.deepStrictEqual(sockets.connections[1]?.written, ["hello\n", "ping\n", "ping\n", "ping\n"])
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n", "ping\n"])
    }))

  it.effect("a reader that is behind holds the connection up, and is not taken for a dead server", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), inbox: 4 })
      yield* channel.session
      const sent = Array.from({ length: 200 }, (_, n) => `m${n}`)
      yield* sockets.connections[0]?.send(...sent.map((line) => `${line}\n`)) ?? Effect.void
      yield* TestClock.adjust("1 minute")
      assert.isTrue(sockets.connections[0]?.isOpen)
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(channel.messages, 200)), sent)
      yield* TestClock.adjust("8 seconds")
      assert.isFalse(sockets.connections[0]?.isOpen)
    }))
})

describe("ControlChannel: reconnecting", () => {
  it.effect("the next handshake is told the session of the last connection", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) => n === 1 ? connection.end() : connection.send(`s${n}\n`))
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* channel.session
      yield* sockets.connections[0]?.end(Sockets.broken("ECONNRESET")) ?? Effect.void
      yield* settled
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* channel.session, "s2")
      assert.deepStrictEqual(sockets.connections.map(({ written }) => written[0]), [
        "hello\n",
        "again s0\n",
        "again s0\n"
      ])
    }))

  it.effect("neither a handshake nor a message starts the backoff over; a healthy period does", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) =>
        Effect.andThen(connection.send(`s${n}\nmore\n`), n < 5 ? connection.end() : Effect.void)
      )
      const channel = yield* ControlChannel.make({
        ...optionsOf(sockets),
        reconnect: Backoff.make({ cap: 64_000, jitter: "none" })
      })
      const waits: Array<number> = []
      let since = 0
      for (let n = 0; n < 5; n++) {
        yield* settled
        const status = SubscriptionRef.getUnsafe(channel.status)
        if (status._tag !== "Waiting") break
        waits.push((status.until - since) / 1000)
        yield* TestClock.adjust(status.until - since)
        since = status.until
      }
      assert.deepStrictEqual(waits, [1, 2, 4, 8, 16])
      assert.strictEqual(tagOf(channel), "Ready")
      for (let n = 0; n < 10; n++) {
        yield* sockets.connections[5]?.send("beat\n") ?? Effect.void
        yield* TestClock.adjust("1 second")
      }
      yield* sockets.connections[5]?.end() ?? Effect.void
      yield* TestClock.adjust("1 second")
      assert.strictEqual(sockets.connections.length, 7)
    }))

  it.effect("less than 10 seconds are no healthy period", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: Backoff.make({ jitter: "none" }) })
      for (const [n, wait] of [1000, 2000, 4000].entries()) {
        yield* channel.session
        yield* TestClock.adjust("5 seconds")
        yield* sockets.connections[n]?.send("beat\n") ?? Effect.void
        yield* TestClock.adjust("4999 millis")
        yield* sockets.connections[n]?.end() ?? Effect.void
        yield* settled
        const status = SubscriptionRef.getUnsafe(channel.status)
        const now = yield* Clock.currentTimeMillis
        assert.strictEqual(status._tag === "Waiting" && status.until - now, wait)
        yield* TestClock.adjust(wait)
      }
    }))

  it.effect("by default: 1 second doubling to 64, times 0.75 to 1.25, for ever", () =>
    Effect.gen(function*() {
      const channel = yield* ControlChannel.make(optionsOf(Sockets.make((connection) => connection.end())))
      const waits: Array<number> = []
      for (let n = 0; n < 60; n++) {
        yield* settled
        const status = SubscriptionRef.getUnsafe(channel.status)
        assert(status._tag === "Waiting")
        const wait = status.until - (yield* Clock.currentTimeMillis)
        const width = Math.min(1000 * 2 ** n, 64_000 / 1.25)
        assert.isAtLeast(wait, Math.floor(0.75 * width), `wait ${n}`)
        assert.isAtMost(wait, Math.ceil(1.25 * width), `wait ${n}`)
        waits.push(wait / width)
        yield* TestClock.adjust(wait)
      }
      // All of the range is used.
      assert.isBelow(Math.min(...waits), 0.8)
      assert.isAbove(Math.max(...waits), 1.2)
    }).pipe(Random.withSeed("the range")))

  it.effect("reconnect: false is one connection, and its end typed", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: false })
      yield* channel.session
      yield* sockets.connections[0]?.send("last\n") ?? Effect.void
      yield* sockets.connections[0]?.end() ?? Effect.void
      const seen: Array<string> = []
      const ended = yield* Effect.flip(
        Stream.runForEach(channel.messages, (line) => Effect.sync(() => seen.push(line)))
      )
      assert.deepStrictEqual(seen, ["last"])
      assert(ended._tag === "Disconnected")
      assert.isTrue(ended.session)
      assert.strictEqual(tags(ended.last), "Transient.Unreachable")
      assert.strictEqual((yield* Effect.flip(channel.session))._tag, "Disconnected")
      const status = SubscriptionRef.getUnsafe(channel.status)
      assert.strictEqual(status._tag === "Closed" && status.cause, ended)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(sockets.connections.length, 1)
    }))

  it.effect("reconnect: false, and nobody there: it says that there was no session", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make()
      sockets.state.opens = Effect.fail(Sockets.broken("ECONNREFUSED"))
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: false })
      const ended = yield* Effect.flip(channel.session)
      assert(ended._tag === "Disconnected")
      assert.isFalse(ended.session)
      assert.include(ended.message, "ECONNREFUSED")
    }))

  it.effect("a bounded policy ends in Exhausted", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection) => connection.end())
      const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: Backoff.make({ attempts: 3 }) })
      const ended = yield* Effect.forkChild(Effect.flip(channel.session))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(ended))._tag, "Exhausted")
      assert.strictEqual(sockets.connections.length, 3)
    }))

  it.effect("a close code of a WebSocket that says who are you ends it", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* channel.session
      yield* sockets.connections[0]?.end(Sockets.closed(4401)) ?? Effect.void
      assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(channel.messages))), "AuthFailed.Unauthorized")
    }))

  it.effect("events tell of it", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) => n === 1 ? connection.end() : connection.send(`s${n}\n`))
      const scope = yield* Scope.make()
      const channel = yield* Scope.provide(ControlChannel.make(optionsOf(sockets)), scope)
      const events: Array<string> = []
      const reader = yield* Effect.forkChild(
        Stream.runForEach(channel.events, (event) =>
          Effect.sync(() => {
            const cause = event._tag === "Ready" ? `${event.session} ${event.again}` : event.cause?._tag
            events.push(`${event._tag} ${cause}`)
          })),
        { startImmediately: true }
      )
      yield* channel.session
      yield* settled
      yield* sockets.connections[0]?.end() ?? Effect.void
      yield* settled
      yield* channel.reconnectNow
      yield* TestClock.adjust("3 seconds")
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(reader)
      assert.deepStrictEqual(events, [
        "Ready s0 false",
        "Lost Transient",
        "Failed Transient",
        "Ready s2 true",
        "Closed Shutdown"
      ])
    }))
})

describe("ControlChannel: sending", () => {
  it.effect("what is sent while there is no session waits for it, in order", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make()
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* settled
      const sent = yield* Effect.forkChild(
        Effect.forEach(["a", "b", "c"], (line) => channel.send(line), { concurrency: "unbounded" })
      )
      const taken = yield* Effect.forkChild(channel.send("taken back"))
      yield* settled
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n"])
      yield* Fiber.interrupt(taken)
      yield* sockets.connections[0]?.send("me\n") ?? Effect.void
      yield* Fiber.join(sent)
      yield* settled
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n", "a\n", "b\n", "c\n"])
    }))

  it.effect.each([["fail", ["a", "b"]], ["dropOldest", ["b", "c"]], ["suspend", ["a", "b", "c"]]] as const)(
    "where there is no room: %s",
    ([overflow, expected]) =>
      Effect.gen(function*() {
        const sockets = Sockets.make()
        const channel = yield* ControlChannel.make({ ...optionsOf(sockets), outbox: { maxMessages: 2, overflow } })
        const fibers = []
        for (const line of ["a", "b", "c"]) {
          fibers.push(yield* Effect.forkChild(Effect.result(channel.send(line)), { startImmediately: true }))
        }
        yield* settled
        yield* sockets.connections[0]?.send("me\n") ?? Effect.void
        yield* settled
        const results = yield* Fiber.joinAll(fibers)
        const failed = results.filter(Result.isFailure)
        assert.strictEqual(failed.length, 3 - expected.length)
        for (const { failure } of failed) assert.strictEqual(failure._tag, "Overflow")
        assert.deepStrictEqual(sockets.connections[0]?.written.slice(1), expected.map((line) => `${line}\n`))
      })
  )

  it.effect("closing sends what waits, within half a second, and answers everyone", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const channel = yield* ControlChannel.make(optionsOf(sockets))
      yield* channel.session
      yield* channel.send("bye")
      yield* channel.close
      yield* channel.close
      assert.deepStrictEqual(sockets.connections[0]?.written, ["hello\n", "bye\n"])
      assert.isFalse(sockets.connections[0]?.isOpen)
      for (
        const error of [
          yield* Effect.flip(channel.session),
          yield* Effect.flip(channel.send("x")),
          yield* Effect.flip(Stream.runDrain(channel.messages))
        ]
      ) assert.strictEqual(tags(error), "Closed.Shutdown")
      const stuck = welcoming()
      const other = yield* ControlChannel.make(optionsOf(stuck))
      yield* other.session
      stuck.state.writes = Effect.never
      yield* other.send("never")
      const closing = yield* Effect.forkChild(other.close)
      yield* TestClock.adjust("500 millis")
      yield* Fiber.join(closing)
      assert.isFalse(stuck.connections[0]?.isOpen)
    }))
})

class Control
  extends Context.Service<Control, { readonly session: Effect.Effect<string, unknown> }>()("test/Control")
{}

describe("ControlChannel: life", () => {
  it.effect("a defect of the handshake is told to who waits", () =>
    Effect.gen(function*() {
      const channel = yield* ControlChannel.make({ ...optionsOf(welcoming()), handshake: () => Effect.die("oops") })
      for (const waiting of [channel.session, Stream.runDrain(channel.messages)]) {
        const exit = yield* Effect.exit(waiting)
        assert.strictEqual(Exit.isFailure(exit) && Cause.squash(exit.cause), "oops")
      }
      assert.strictEqual(tags(yield* Effect.flip(channel.send("x"))), "Closed.Shutdown")
    }))

  it.effect("a ping that does not fit into a frame is refused", () =>
    Effect.gen(function*() {
      const channel = yield* ControlChannel.make({ ...optionsOf(welcoming()), liveness: { ping: "x".repeat(33) } })
      const error = yield* Effect.flip(channel.session)
      assert.strictEqual(tags(error), "Refused.InvalidRequest")
      assert.include(error.message, "liveness.ping")
    }))

  it.effect("as a layer", () =>
    Effect.gen(function*() {
      const sockets = welcoming()
      const session = yield* Control.use((channel) => channel.session).pipe(
        Effect.provide(Layer.effect(Control, ControlChannel.make(optionsOf(sockets))))
      )
      assert.strictEqual(session, "s0")
      assert.isFalse(sockets.connections[0]?.isOpen)
    }))

  it.effect("a thousand connections, and its end, leave nothing", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const sockets = Sockets.make((connection, n) =>
        Effect.andThen(connection.send(`s${n}\n`), n % 3 === 0 ? connection.end() : Effect.void)
      )
      yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const channel = yield* ControlChannel.make({ ...optionsOf(sockets), reconnect: Backoff.make({ cap: 2000 }) })
        const reader = yield* Effect.forkChild(Effect.exit(Stream.runDrain(channel.messages)))
        while (sockets.connections.length < 1000) yield* TestClock.adjust("30 seconds")
        assert.isAtMost(sockets.connections.filter(({ isOpen }) => isOpen).length, 1)
        yield* channel.close
        yield* Fiber.join(reader)
      })))
      assert.strictEqual(yield* TestClock.withLive(fibers.left), 0)
      assert.isFalse(sockets.connections.some(({ isOpen }) => isOpen))
    }), 30_000)
})
