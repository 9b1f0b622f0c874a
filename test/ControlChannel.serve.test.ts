// The server side of the control channel in virtual time, over sockets in memory: who is let in, eviction, liveness, limits,
// handlers, closing. The protocol: lines; the client says "i am <name>", the handler welcomes it.
import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import * as ControlChannel from "effect-lifeline/ControlChannel"
import * as Framing from "effect-lifeline/Framing"
import * as Telemetry from "effect-lifeline/Telemetry"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Leaks from "./support/leaks.ts"
import * as Sockets from "./support/memorySockets.ts"
import * as Seen from "./support/seen.ts"
import * as SocketPair from "./support/socketPair.ts"

interface Session {
  readonly identity: string | undefined
}
type Options = ControlChannel.ServeOptions<string, string, Session, Scope.Scope>
type Connection = ControlChannel.Connection<string, string, Session>

const at = { operation: "accept", target: "relay" }

const handshake = Effect.fnUntraced(function*(link: ControlChannel.Accepted<string, string>) {
  const line = yield* link.receive
  if (line === "i am nobody") return { identity: undefined }
  if (!line.startsWith("i am ")) return yield* Effect.fail(Classify.unauthorized(link.at))
  return { identity: line.slice(5) }
})

/** Welcomes, and says back what it hears. */
const echo = ({ id, messages, send }: Connection) =>
  Effect.andThen(send(`welcome ${id}`), Stream.runForEach(messages, (line) => send(`re: ${line}`)))

/** Lets everything happen that needs no time. */
const settled = Effect.repeat(TestClock.adjust(0), { times: 50 })

const tags = (error: { readonly _tag: string; readonly reason?: unknown }) => {
  const { reason } = error as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error._tag : `${error._tag}.${reason._tag}`
}

const farewell = (ending: ControlChannel.Ending) => ({ message: `end ${tags(ending)}` })

const show = (event: ControlChannel.ServerEvent<Session>) => {
  switch (event._tag) {
    case "Closed":
      return "Closed"
    case "Connected":
      return `${event.id} Connected ${event.session.identity}`
    case "Evicted":
      return `${event.id} Evicted by ${event.by}`
    case "Ended":
      return `${event.id} Ended ${event.cause === undefined ? "well" : "badly"}`
    default:
      return `${event.id} ${event._tag} ${tags(event.cause)}`
  }
}

/** A server, and a way to connect to it; what it tells of itself. */
const start = Effect.fnUntraced(function*(options: Partial<Options> = {}) {
  const sockets = Sockets.make()
  sockets.state.answersEnd = true
  const scope = yield* Scope.make()
  const close = Effect.gen(function*() {
    const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
    yield* settled
    yield* TestClock.adjust("5 seconds")
    yield* Fiber.join(closing)
  })
  yield* Effect.addFinalizer(() => close)
  const server = yield* ControlChannel.makeServer<string, string, Session, Scope.Scope>({
    framing: Framing.newline({ maxBytes: 32 }),
    codec: ControlChannel.text,
    handshake,
    handler: echo,
    isHeartbeat: (line) => line === "ping",
    farewell,
    at,
    ...options
  }).pipe(Scope.provide(scope))
  const events: Array<string> = []
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (event) => Effect.sync(() => events.push(show(event)))),
    { startImmediately: true }
  )
  const arrive = Effect.fnUntraced(function*(...lines: ReadonlyArray<string>) {
    const socket = yield* sockets.open
    const connection = sockets.connections.at(-1)
    assert(connection !== undefined)
    const fiber = yield* Effect.forkDetach(server.accept(socket), { startImmediately: true })
    yield* connection.send(...lines.map((line) => `${line}\n`))
    yield* settled
    return Object.assign(connection, { fiber })
  })
  return {
    server,
    sockets,
    events,
    arrive,
    close,
    status: () => SubscriptionRef.getUnsafe(server.status)
  }
})

/** A handler that holds something as long as it has the connection, and keeps a log of that. */
const holding = (log: Array<string>, release: (id: number) => Effect.Effect<unknown> = () => Effect.void) => ({
  handler: Effect.fnUntraced(function*(connection: Connection) {
    yield* Effect.acquireRelease(
      Effect.sync(() => log.push(`${connection.id} has it`)),
      () =>
        Effect.andThen(
          release(connection.id),
          Effect.map(connection.evicted, (evicted) => log.push(`${connection.id} lets go${evicted ? ", evicted" : ""}`))
        )
    )
    return yield* Effect.never
  })
})

/** What was logged, debug included. */
const logged = () => {
  const lines: Array<string> = []
  return {
    lines,
    layer: Logger.layer([Logger.make(({ logLevel, message }) => lines.push(`${logLevel} ${String(message)}`))])
  }
}

describe("ControlChannel.serve: who is let in", () => {
  it.effect("the handshake yields the session; then the handler has the connection", () =>
    Effect.gen(function*() {
      const { arrive, events, server, status } = yield* start()
      const client = yield* arrive("i am ann", "hello", "ping", "more")
      assert.deepStrictEqual(client.written, ["welcome 1\n", "re: hello\n", "re: more\n"])
      assert.deepStrictEqual(events, ["1 Connected ann"])
      assert.deepStrictEqual(yield* server.connections, [{ id: 1, session: { identity: "ann" }, since: 0 }])
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 1, handshakes: 0 })
      yield* client.end()
      yield* settled
      assert.deepStrictEqual(events.slice(1), ["1 Lost Transient.Unreachable"])
      assert.isFalse(client.isOpen)
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 0, handshakes: 0 })
      assert.deepStrictEqual(yield* server.connections, [])
      yield* Fiber.join(client.fiber)
    }))

  it.effect("a verdict of the handshake is told to the client; then the connection ends", () =>
    Effect.gen(function*() {
      const { arrive, events } = yield* start()
      const client = yield* arrive("let me in")
      assert.deepStrictEqual(client.written, ["end AuthFailed.Unauthorized\n"])
      assert.deepStrictEqual(events, ["1 Refused AuthFailed.Unauthorized"])
      assert.isFalse(client.isOpen)
      yield* Fiber.join(client.fiber)
    }))

  it.effect("a client that does not read its end is closed after half a second", () =>
    Effect.gen(function*() {
      const { arrive, sockets } = yield* start()
      sockets.state.answersEnd = false
      const client = yield* arrive("let me in")
      yield* TestClock.adjust("499 millis")
      assert.isTrue(client.isOpen)
      yield* TestClock.adjust("1 millis")
      assert.isFalse(client.isOpen)
    }))

  it.effect("a silent client is dropped after 3 seconds, also one that sends bytes and no message", () =>
    Effect.gen(function*() {
      const { arrive, events, status } = yield* start()
      const silent = yield* arrive()
      const slow = yield* arrive()
      for (let n = 0; n < 3; n++) {
        yield* slow.send("i ")
        if (n < 2) yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 0, handshakes: 2 })
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.sameMembers(events, ["1 Refused Transient.TimedOut", "2 Refused Transient.TimedOut"])
      assert.deepStrictEqual(silent.written, ["end Transient.TimedOut\n"])
      assert.isFalse(silent.isOpen || slow.isOpen)
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 0, handshakes: 0 })
    }))

  it.effect("a handshake of many steps has 10 seconds", () =>
    Effect.gen(function*() {
      const { arrive, events } = yield* start({ handshake: (link) => Effect.forever(link.receive) })
      const client = yield* arrive()
      for (let n = 0; n < 10; n++) {
        assert.deepStrictEqual(events, [])
        yield* client.send("more\n")
        yield* TestClock.adjust("1 second")
      }
      yield* settled
      assert.deepStrictEqual(events, ["1 Refused Transient.TimedOut"])
    }))

  it.effect.each(
    [
      ["a frame that is too long", "x".repeat(33) + "\n"],
      ["what the codec does not know", Uint8Array.of(255, 10)]
    ] as const
  )("%s, in the handshake and afterwards: the connection ends, and no other", ([, chunk]) =>
    Effect.gen(function*() {
      const { arrive, events } = yield* start()
      const other = yield* arrive("i am bob")
      const early = yield* arrive()
      yield* early.send(chunk)
      const late = yield* arrive("i am ann")
      yield* late.send(chunk)
      yield* settled
      assert.deepStrictEqual(events, [
        "1 Connected bob",
        "2 Refused Inconclusive",
        "3 Connected ann",
        "3 Lost Inconclusive"
      ])
      assert.deepStrictEqual(late.written, ["welcome 3\n", "end Inconclusive\n"])
      assert.isFalse(early.isOpen || late.isOpen)
      yield* other.send("still?\n")
      yield* settled
      assert.deepStrictEqual(other.written, ["welcome 1\n", "re: still?\n"])
    }))

  it.effect("the end of the stream, and a defect, in the handshake are its own", () =>
    Effect.gen(function*() {
      const { layer, lines } = logged()
      const { arrive, events } = yield* start({
        handshake: (link) =>
          Effect.flatMap(handshake(link), (session) =>
            session.identity === "die" ? Effect.die("oops") : Effect.succeed(session))
      }).pipe(Effect.provide(layer))
      const ended = yield* arrive()
      yield* ended.end()
      yield* settled
      const dead = yield* arrive("i am die")
      yield* arrive("i am ann")
      assert.deepStrictEqual(events, [
        "1 Refused Transient.Unreachable",
        "2 Refused Inconclusive",
        "3 Connected ann"
      ])
      assert.deepStrictEqual(dead.written, ["end Inconclusive\n"])
      assert.deepStrictEqual(ended.written, [])
      assert.isTrue(lines.some((line) =>
        line.startsWith("Error") && line.includes("handshake died") && line.includes("oops")
      ))
    }))

  it.effect("at most so many are in their handshake; more are turned away at once, and there is room again after them", () =>
    Effect.gen(function*() {
      const { arrive, events, status } = yield* start({ maxHandshakes: 2 })
      const first = yield* arrive()
      yield* arrive()
      const third = yield* arrive("i am ann")
      assert.deepStrictEqual(third.written, ["end Transient.Throttled\n"])
      assert.isFalse(third.isOpen)
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 0, handshakes: 2 })
      yield* first.send("i am bob\n")
      yield* settled
      yield* arrive("i am ann")
      assert.deepStrictEqual(events, ["3 Refused Transient.Throttled", "1 Connected bob", "4 Connected ann"])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(status(), { _tag: "Serving", connections: 2, handshakes: 0 })
    }))

  it.effect("at most so many have a session; who evicts another needs no place of its own", () =>
    Effect.gen(function*() {
      const { arrive, events } = yield* start({ maxConnections: 2 })
      yield* arrive("i am ann")
      yield* arrive("i am nobody")
      const third = yield* arrive("i am bob")
      yield* arrive("i am ann")
      assert.deepStrictEqual(events, [
        "1 Connected ann",
        "2 Connected undefined",
        "3 Refused Transient.Throttled",
        "1 Evicted by 4",
        "4 Connected ann"
      ])
      assert.deepStrictEqual(third.written, ["end Transient.Throttled\n"])
    }))

  it.effect.each<readonly [string, Partial<Options>, string]>([
    ["a heartbeat that does not fit", { liveness: { heartbeat: "x".repeat(33) } }, "liveness.heartbeat"],
    ["no connection", { maxConnections: 0 }, "maxConnections"],
    ["no handshake", { maxHandshakes: 0 }, "maxHandshakes"]
  ])("%s: refused at once, by the name of the option", ([, options, path]) =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(start(options))
      assert.strictEqual(tags(error), "Refused.InvalidRequest")
      assert.include(error.message, path)
    }))
})

describe("ControlChannel.serve: eviction", () => {
  it.effect("the newer holder of an identity evicts the older one, whose scope is closed before its handler runs", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events, server } = yield* start(holding(log))
      const older = yield* arrive("i am ann")
      const newer = yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it", "1 lets go, evicted", "2 has it"])
      assert.deepStrictEqual(events, ["1 Connected ann", "1 Evicted by 2", "2 Connected ann"])
      assert.deepStrictEqual(older.written, ["end Closed.Replaced\n"])
      assert.isFalse(older.isOpen)
      assert.isTrue(newer.isOpen)
      assert.deepStrictEqual((yield* server.connections).map(({ id }) => id), [2])
    }))

  it.effect("a half-open link that takes no write and no end holds nobody up", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, sockets } = yield* start(holding(log))
      sockets.state.answersEnd = false
      const older = yield* arrive("i am ann")
      sockets.state.writes = Effect.never
      yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it", "1 lets go, evicted", "2 has it"])
      yield* TestClock.adjust("500 millis")
      assert.isFalse(older.isOpen)
    }))

  it.effect("who is not authenticated takes nothing from anybody, however long it tries", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start({
        ...holding(log),
        handshake: (link) =>
          Effect.tap(handshake(link), () =>
            link.receiveWithin("1 second").pipe(
              Effect.flatMap((proof) => proof === "proof" ? Effect.void : Effect.fail(Classify.unauthorized(link.at)))
            ))
      })
      yield* arrive("i am ann", "proof")
      yield* arrive("i am ann", "guess")
      yield* arrive("i am ann")
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(log, ["1 has it"])
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.deepStrictEqual(log, ["1 has it"])
      assert.deepStrictEqual(events, [
        "1 Connected ann",
        "2 Refused AuthFailed.Unauthorized",
        "3 Refused AuthFailed.Unauthorized"
      ])
    }))

  it.effect("who is gone by the time that it is authenticated takes nothing either", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start({
        ...holding(log),
        handshake: (link) => Effect.delay(handshake(link), link.id === 2 ? "1 second" : 0)
      })
      yield* arrive("i am ann")
      yield* TestClock.adjust(0)
      const gone = yield* arrive("i am ann")
      yield* gone.end()
      yield* TestClock.adjust("1 second")
      yield* settled
      assert.deepStrictEqual(log, ["1 has it"])
      assert.deepStrictEqual(events, ["1 Connected ann", "2 Refused Transient.Unreachable"])
    }))

  it.effect("while the older one does not let go nobody else has it: the newer one waits 2 seconds, and is turned away", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start(holding(log, (id) => id === 1 ? Effect.sleep("5 seconds") : Effect.void))
      const first = yield* arrive("i am ann")
      const second = yield* arrive("i am ann")
      // It still has it, but is connected no more.
      yield* TestClock.adjust("1 second")
      assert.isFalse(first.isOpen)
      yield* TestClock.adjust("999 millis")
      assert.deepStrictEqual(log, ["1 has it"])
      assert.isTrue(second.isOpen)
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.deepStrictEqual(second.written, ["end Transient.Unavailable\n"])
      yield* TestClock.adjust("2 seconds")
      yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it"])
      yield* TestClock.adjust("1 second")
      yield* settled
      assert.deepStrictEqual(log, ["1 has it", "1 lets go, evicted", "3 has it"])
      assert.deepStrictEqual(events, [
        "1 Connected ann",
        "1 Evicted by 2",
        "2 Refused Transient.Unavailable",
        "3 Connected ann"
      ])
    }))

  it.effect("of several that wait only the newest gets it, after the oldest let go", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start(holding(log, (id) => id === 1 ? Effect.sleep("1 second") : Effect.void))
      yield* arrive("i am ann")
      const second = yield* arrive("i am ann")
      const third = yield* arrive("i am ann")
      const fourth = yield* arrive("i am ann")
      yield* third.end()
      yield* settled
      assert.deepStrictEqual(second.written, ["end Closed.Replaced\n"])
      assert.isFalse(second.isOpen || third.isOpen)
      yield* TestClock.adjust("1 second")
      yield* settled
      assert.deepStrictEqual(log, ["1 has it", "1 lets go, evicted", "4 has it"])
      assert.isTrue(fourth.isOpen)
      assert.deepStrictEqual(events.filter((event) => event.includes("Connected")), [
        "1 Connected ann",
        "4 Connected ann"
      ])
    }))

  it.effect("one that leaves while it waits leaves everything as it was", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive } = yield* start(holding(log, (id) => id === 1 ? Effect.sleep("1 second") : Effect.void))
      yield* arrive("i am ann")
      const second = yield* arrive("i am ann")
      yield* second.end()
      yield* settled
      yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it"])
      yield* TestClock.adjust("1 second")
      yield* settled
      assert.deepStrictEqual(log, ["1 has it", "1 lets go, evicted", "3 has it"])
    }))

  it.effect("onTaken: refuse: the older one stays; once it is gone there is room", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start({ ...holding(log), onTaken: "refuse" })
      const older = yield* arrive("i am ann")
      const newer = yield* arrive("i am ann")
      assert.deepStrictEqual(newer.written, ["end Refused.Conflict\n"])
      assert.deepStrictEqual(log, ["1 has it"])
      yield* older.end()
      yield* settled
      // It is gone, and its handler still has some time to end: it is not given that any more.
      yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it", "1 lets go", "3 has it"])
      assert.deepStrictEqual(events, [
        "1 Connected ann",
        "2 Refused Refused.Conflict",
        "1 Lost Transient.Unreachable",
        "3 Connected ann"
      ])
    }))

  it.effect("nobody in particular evicts nobody", () =>
    Effect.gen(function*() {
      const { arrive, server } = yield* start()
      yield* arrive("i am nobody")
      yield* arrive("i am nobody")
      yield* arrive("i am ann")
      assert.strictEqual((yield* server.connections).length, 3)
    }))

  it.effect("a fight for an identity is told, once in five", () =>
    Effect.gen(function*() {
      const { layer, lines } = logged()
      const { arrive } = yield* start().pipe(Effect.provide(layer))
      for (let n = 0; n < 11; n++) {
        yield* arrive("i am ann")
        yield* TestClock.adjust("2 seconds")
      }
      assert.strictEqual(lines.filter((line) => line.startsWith("Info") && line.includes("takes over")).length, 8)
      const fights = lines.filter((line) => line.startsWith("Warn"))
      assert.strictEqual(fights.length, 2)
      assert.include(fights[0], "connection 6 takes over \"ann\" from connection 5")
      assert.include(fights[0], "two programs")
      yield* TestClock.adjust("10 seconds")
      for (let n = 0; n < 5; n++) yield* arrive("i am ann")
      assert.strictEqual(lines.filter((line) => line.startsWith("Warn")).length, 3)
    }))
})

/** Numbers in [0, 1) by mulberry32: the same for the same seed. */
const chance = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

describe("ControlChannel.serve: eviction, whatever happens", () => {
  it.effect("never two handlers of one identity; whoever came last has it in the end", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 60; seed++) {
        const draw = chance(seed)
        const active = new Map<string, number>()
        const violations: Array<string> = []
        const { arrive, close, server, sockets } = yield* start({
          handler: Effect.fnUntraced(function*({ id, session }: Connection) {
            const name = session.identity ?? ""
            const slow = draw() < 0.3 ? Math.floor(draw() * 4000) : 0
            yield* Effect.acquireRelease(
              Effect.sync(() => {
                if (active.has(name)) violations.push(`${id} while ${active.get(name)} has ${name}`)
                active.set(name, id)
              }),
              () => Effect.andThen(Effect.sleep(slow), Effect.sync(() => active.delete(name)))
            )
            return yield* Effect.never
          })
        })
        const clients: Array<{ readonly name: string; readonly connection: Sockets.Connection }> = []
        for (let n = 0; n < 25; n++) {
          const what = draw()
          if (what < 0.6) {
            const name = draw() < 0.5 ? "ann" : "bob"
            clients.push({ name, connection: yield* arrive(`i am ${name}`) })
          } else if (what < 0.7) yield* arrive("let me in")
          else if (what < 0.8) yield* clients[Math.floor(draw() * clients.length)]?.connection.end() ?? Effect.void
          else yield* TestClock.adjust(Math.floor(draw() * 3000))
        }
        yield* TestClock.adjust("30 seconds")
        assert.deepStrictEqual(violations, [], `seed ${seed}`)
        const open = clients.filter(({ connection }) => connection.isOpen)
        assert.strictEqual(open.length, active.size, `seed ${seed}`)
        assert.strictEqual((yield* server.connections).length, active.size, `seed ${seed}`)
        for (const { connection, name } of open) {
          assert.strictEqual(active.get(name), sockets.connections.indexOf(connection) + 1, `seed ${seed}`)
        }
        yield* close
        assert.strictEqual(active.size, 0, `seed ${seed}`)
      }
    }), 60_000)

  it.effect("two programs that fight for an identity do so less and less often", () =>
    Effect.gen(function*() {
      const { server } = yield* start()
      const dials: Array<number> = []
      const program = ControlChannel.make({
        open: Effect.gen(function*() {
          dials.push(yield* Clock.currentTimeMillis)
          const { client, server: accepted } = yield* SocketPair.make
          yield* Effect.forkDetach(server.accept(accepted))
          return client
        }),
        framing: Framing.newline({ maxBytes: 32 }),
        codec: ControlChannel.text,
        liveness: { deadline: "2 days" },
        handshake: (link: ControlChannel.Link<string, string, string>) =>
          Effect.andThen(link.send("i am ann"), link.receive)
      })
      const channels = [yield* program, yield* program]
      for (const channel of channels) yield* Effect.forkScoped(Effect.exit(Stream.runDrain(channel.messages)))
      for (let second = 0; second < 3600; second++) yield* TestClock.adjust("1 second")
      /** The most dials within so much time. */
      const most = (within: number, times: ReadonlyArray<number>) =>
        Math.max(...times.map((start) => times.filter((at) => at >= start && at < start + within).length))
      assert.isAtMost(most(10_000, dials), 10)
      assert.isAtMost(most(60_000, dials), 16)
      assert.isAtMost(most(60_000, dials.filter((at) => at > 300_000)), 6)
      assert.isAtMost(dials.length, 300)
      // And it is a fight: both have it, again and again.
      assert.isAtLeast(dials.length, 100)
    }), 60_000)
})

describe("ControlChannel.serve: liveness", () => {
  it.effect("heartbeats are sent each 500 milliseconds, and none while something else waits to be written", () =>
    Effect.gen(function*() {
      const { arrive, sockets } = yield* start({ liveness: { heartbeat: "beat" } })
      const client = yield* arrive("i am ann")
      yield* TestClock.adjust("499 millis")
      assert.deepStrictEqual(client.written, ["welcome 1\n"])
      yield* TestClock.adjust("1001 millis")
      assert.deepStrictEqual(client.written, ["welcome 1\n", "beat\n", "beat\n", "beat\n"])
      const gate = yield* Deferred.make<void>()
      sockets.state.writes = Deferred.await(gate)
      yield* TestClock.adjust("1 minute")
      yield* Deferred.succeed(gate, undefined)
      yield* settled
      assert.strictEqual(client.written.length, 5)
    }))

  it.effect("a client may be silent for ever, unless there is a deadline", () =>
    Effect.gen(function*() {
      const patient = yield* start()
      const strict = yield* start({ liveness: { deadline: "8 seconds" } })
      const first = yield* patient.arrive("i am ann")
      const second = yield* strict.arrive("i am ann")
      const third = yield* strict.arrive("i am bob")
      for (let n = 0; n < 8; n++) {
        yield* third.send("ping\n")
        yield* second.send("x")
        yield* TestClock.adjust("1 second")
      }
      yield* settled
      assert.deepStrictEqual(strict.events.slice(2), ["1 Lost Transient.TimedOut"])
      assert.deepStrictEqual(second.written, ["welcome 1\n", "end Transient.TimedOut\n"])
      assert.isFalse(second.isOpen)
      yield* third.send("ping\n")
      yield* TestClock.adjust("7 seconds")
      assert.isTrue(third.isOpen)
      yield* TestClock.adjust("1 hour")
      assert.isTrue(first.isOpen)
    }))

  it.effect("a handler that does not read holds up its own connection, which is not taken for a silent one", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const seen: Array<string> = []
      const { arrive } = yield* start({
        inbox: 4,
        liveness: { deadline: "8 seconds" },
        handler: ({ messages, session }) =>
          Effect.andThen(
            session.identity === "slow" ? Deferred.await(gate) : Effect.void,
            Stream.runForEach(messages, (line) => Effect.sync(() => seen.push(`${session.identity} ${line}`)))
          )
      })
      const slow = yield* arrive("i am slow")
      const quick = yield* arrive("i am quick")
      for (let n = 0; n < 100; n++) yield* slow.send(`${n}\n`)
      yield* quick.send("hello\n")
      yield* TestClock.adjust("7 seconds")
      assert.deepStrictEqual(seen, ["quick hello"])
      yield* quick.send("hello\n")
      yield* TestClock.adjust("7 seconds")
      assert.isTrue(slow.isOpen)
      yield* Deferred.succeed(gate, undefined)
      yield* settled
      assert.deepStrictEqual(seen.slice(2), Array.from({ length: 100 }, (_, n) => `slow ${n}`))
      yield* TestClock.adjust("8 seconds")
      assert.isFalse(slow.isOpen)
    }))
})

describe("ControlChannel.serve: sending", () => {
  it.effect.each(
    [["fail", "too much"], ["dropOldest", "too much"], ["suspend", "waits"]] as const
  )("to a client that does not read: %s, in its outbox alone", ([overflow, expected]) =>
    Effect.gen(function*() {
      const ends: Array<string> = []
      const { arrive, sockets } = yield* start({
        framing: Framing.newline({ maxBytes: 70_000 }),
        outbox: { maxMessages: 2, overflow },
        handler: ({ send, session }) =>
          session.identity !== "slow"
            ? send("welcome")
            : Effect.gen(function*() {
              // What the platform has already is not in the outbox.
              yield* send("x".repeat(70_000))
              const fibers = []
              for (const line of ["a", "b", "c"]) {
                fibers.push(yield* Effect.forkChild(Effect.result(send(line)), { startImmediately: true }))
              }
              const results = yield* Effect.forEach(fibers, (fiber) =>
                Effect.timeoutOption(Fiber.join(fiber), "1 second"))
              for (const result of results) {
                ends.push(
                  result._tag === "None" ? "waits" : Result.isFailure(result.value) ? result.value.failure._tag : "sent"
                )
              }
            })
      })
      const gate = yield* Deferred.make<void>()
      sockets.state.writes = Deferred.await(gate)
      const slow = yield* arrive("i am slow")
      yield* TestClock.adjust("1 second")
      sockets.state.writes = Effect.void
      const quick = yield* arrive("i am quick")
      assert.deepStrictEqual(quick.written, ["welcome\n"])
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(
        ends.filter((end) =>
          end === "Overflow"
        ).length,
        expected === "waits" ? 0 : 1
      )
      assert.strictEqual(ends.filter((end) => end === "waits").length, expected === "waits" ? 3 : 2)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("1 second")
      assert.isFalse(slow.isOpen)
    }))

  it.effect.each(
    [["evicted", "Closed.Replaced"], ["lost", "Transient.Unreachable"], ["closed", "Closed.Shutdown"]] as const
  )("who waits as a connection is %s is told so, and who comes later", ([how, expected]) =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<Connection>()
      const { arrive, close, sockets } = yield* start({
        framing: Framing.newline({ maxBytes: 70_000 }),
        handler: (connection) => Effect.andThen(Deferred.succeed(gate, connection), Effect.never)
      })
      sockets.state.writes = Effect.never
      const client = yield* arrive("i am ann")
      const { evicted, messages, send } = yield* Deferred.await(gate)
      yield* send("x".repeat(70_000))
      const waiting = [
        yield* Effect.forkChild(Effect.flip(send("waits"))),
        yield* Effect.forkChild(Effect.flip(Stream.runDrain(messages)))
      ]
      yield* settled
      if (how === "evicted") yield* arrive("i am ann")
      else if (how === "lost") yield* client.end()
      else yield* Effect.forkChild(close)
      yield* TestClock.adjust("1 second")
      const errors = yield* Fiber.joinAll(waiting)
      errors.push(yield* Effect.flip(send("late")), yield* Effect.flip(Stream.runDrain(messages)))
      assert.deepStrictEqual(errors.map(tags), Array.from(errors, () => expected))
      if (how === "evicted") assert.include(String(errors[0]?.message), "connection 2")
      assert.strictEqual(yield* evicted, how === "evicted")
    }))

  it.effect("a message that does not fit into a frame is not sent", () =>
    Effect.gen(function*() {
      const errors: Array<string> = []
      const { arrive } = yield* start({
        handler: ({ send }) =>
          Effect.andThen(
            Effect.flip(send("x".repeat(33))),
            (error) => Effect.sync(() => errors.push(error._tag))
          )
      })
      const client = yield* arrive("i am ann")
      assert.deepStrictEqual(errors, ["FrameError"])
      assert.deepStrictEqual(client.written, [])
    }))
})

describe("ControlChannel.serve: handlers", () => {
  it.effect("one that ends, fails or dies ends its own connection, and no other", () =>
    Effect.gen(function*() {
      const { layer, lines } = logged()
      const { arrive, events } = yield* start({
        handler: Effect.fnUntraced(function*(connection: Connection) {
          yield* connection.send("welcome")
          switch (connection.session.identity) {
            case "done":
              return
            case "fail":
              return yield* Effect.fail("not well")
            case "die":
              return yield* Effect.die("oops")
            case "refuse":
              return yield* Effect.fail(Classify.conflict({ ...at, detail: "the port is taken" }))
            case "throw":
              throw new Error("thrown")
            case "interrupt":
              return yield* Effect.interrupt
            default:
              return yield* echo(connection)
          }
        })
      }).pipe(Effect.provide(layer))
      const ann = yield* arrive("i am ann")
      const written: Array<ReadonlyArray<string>> = []
      for (const name of ["done", "fail", "die", "refuse", "throw", "interrupt"]) {
        const client = yield* arrive(`i am ${name}`)
        assert.isFalse(client.isOpen)
        written.push(client.written)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(written, [
        ["welcome\n"],
        ["welcome\n"],
        ["welcome\n"],
        ["welcome\n", "end Refused.Conflict\n"],
        ["welcome\n"],
        ["welcome\n"]
      ])
      assert.deepStrictEqual(events.filter((event) => event.includes("Ended")), [
        "2 Ended well",
        "3 Ended badly",
        "4 Ended badly",
        "5 Ended badly",
        "6 Ended badly",
        "7 Ended well"
      ])
      const errors = lines.filter((line) => line.startsWith("Error"))
      assert.strictEqual(errors.length, 3)
      for (const [n, text] of ["not well", "oops", "thrown"].entries()) assert.include(errors[n], text)
      assert.strictEqual(lines.filter((line) => line.startsWith("Warn")).length, 1)
      yield* ann.send("still?\n")
      yield* settled
      assert.include(ann.written, "re: still?\n")
    }))

  it.effect("what came before the client left is handled: the handler has half a second", () =>
    Effect.gen(function*() {
      const handled: Array<string> = []
      const { arrive } = yield* start({
        handler: ({ messages }) =>
          Stream.runForEach(messages, (line) => Effect.delay(Effect.sync(() => handled.push(line)), "200 millis"))
      })
      const client = yield* arrive("i am ann", "a", "b", "c", "d")
      yield* client.end()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(handled, ["a", "b"])
      assert.isFalse(client.isOpen)
    }))

  it.effect("one that reads nothing is interrupted half a second after the connection ended", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive } = yield* start(holding(log))
      const client = yield* arrive("i am ann")
      yield* client.end()
      yield* TestClock.adjust("499 millis")
      assert.deepStrictEqual(log, ["1 has it"])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(log, ["1 has it", "1 lets go"])
    }))
})

describe("ControlChannel.serve: closing", () => {
  it.effect("tells everybody, sends what waits, and lets nobody in any more", () =>
    Effect.gen(function*() {
      const { arrive, close, events, server, status } = yield* start({
        handler: ({ messages, send }) =>
          Effect.andThen(
            Effect.forEach(["a", "b", "c"], send),
            Effect.catchTag(
              Stream.runDrain(messages),
              "Closed",
              (closed) => Effect.flip(Effect.exit(send(closed._tag)))
            )
          )
      })
      const ann = yield* arrive("i am ann")
      const pending = yield* arrive()
      const closing = yield* Effect.forkChild(close)
      yield* settled
      assert.deepStrictEqual(ann.written, ["a\n", "b\n", "c\n", "end Closed.Shutdown\n"])
      assert.deepStrictEqual(pending.written, ["end Closed.Shutdown\n"])
      assert.isFalse(ann.isOpen || pending.isOpen)
      yield* Fiber.join(closing)
      assert.deepStrictEqual(status(), { _tag: "Closed" })
      assert.deepStrictEqual(events, ["1 Connected ann", "2 Refused Closed.Shutdown", "Closed"])
      const late = yield* arrive("i am bob")
      assert.deepStrictEqual(late.written, ["end Closed.Shutdown\n"])
      assert.isFalse(late.isOpen)
      assert.deepStrictEqual(yield* Stream.runCollect(server.events), [])
      yield* server.close
    }))

  it.effect("what waits goes out before the farewell, should the client read again in time", () =>
    Effect.gen(function*() {
      const { arrive, server, sockets } = yield* start({
        framing: Framing.newline({ maxBytes: 70_000 }),
        handler: ({ messages, send }) =>
          Effect.andThen(
            Effect.forEach(["x".repeat(70_000), "a", "b"], send, { concurrency: "unbounded" }),
            Stream.runDrain(messages)
          )
      })
      const gate = yield* Deferred.make<void>()
      sockets.state.writes = Deferred.await(gate)
      const client = yield* arrive("i am ann")
      const closing = yield* Effect.forkChild(server.close)
      yield* TestClock.adjust("300 millis")
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(closing)
      assert.deepStrictEqual(client.written.slice(1), ["a\n", "b\n", "end Closed.Shutdown\n"])
    }))

  it.effect("waits half a second for a client that does not read, and for a handler", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, server, sockets } = yield* start(holding(log))
      sockets.state.answersEnd = false
      sockets.state.writes = Effect.never
      const client = yield* arrive("i am ann")
      const closing = yield* Effect.forkChild(server.close)
      yield* TestClock.adjust("499 millis")
      assert.isTrue(client.isOpen)
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(closing)
      assert.isFalse(client.isOpen)
      assert.deepStrictEqual(log, ["1 has it", "1 lets go"])
    }))

  it.effect("a handler may close the server; who is interrupted in accept closes its connection", () =>
    Effect.gen(function*() {
      const own = yield* Deferred.make<ControlChannel.Server<Session>>()
      const { arrive, events, server, status } = yield* start({
        handler: () => Effect.flatMap(Deferred.await(own), ({ close }) => close)
      })
      yield* Deferred.succeed(own, server)
      const client = yield* arrive("i am first")
      yield* TestClock.adjust("500 millis")
      yield* Fiber.join(client.fiber)
      assert.deepStrictEqual(status(), { _tag: "Closed" })
      assert.deepStrictEqual(events, ["1 Connected first", "Closed"])
      const other = yield* start()
      const second = yield* other.arrive("i am ann")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(second.fiber))
      yield* settled
      assert.deepStrictEqual(second.written, ["welcome 1\n", "end Closed.Shutdown\n"])
      yield* Fiber.join(interrupting)
      assert.isFalse(second.isOpen)
      assert.strictEqual(other.status()._tag, "Serving")
    }))
})

describe("ControlChannel.serve: life", () => {
  it.effect("a socket server that fails is told, and those who are connected too", () =>
    Effect.gen(function*() {
      const { layer, lines } = logged()
      const failing = yield* Deferred.make<never, SocketServer.SocketServerError>()
      const sockets = Sockets.make()
      sockets.state.answersEnd = true
      const server = yield* ControlChannel.serve<string, string, Session>({
        framing: Framing.newline({ maxBytes: 32 }),
        codec: ControlChannel.text,
        handshake,
        handler: echo,
        farewell,
        at
      }).pipe(
        Effect.provideService(SocketServer.SocketServer, {
          address: NetAddress.unixPathAddress("/run/relay"),
          run: (handler) =>
            Effect.flatMap(sockets.open, (socket) =>
              Effect.andThen(Effect.forkDetach(handler(socket)), Deferred.await(failing))).pipe(
                Effect.catchIf((error): error is never =>
                  !(error instanceof SocketServer.SocketServerError), Effect.die)
              )
        }),
        Effect.provide(layer)
      )
      yield* settled
      const [client] = sockets.connections
      yield* client?.send("i am ann\n") ?? Effect.void
      yield* settled
      yield* Deferred.fail(
        failing,
        new SocketServer.SocketServerError({
          reason: new SocketServer.SocketServerUnknownError({ cause: new Error("EMFILE") })
        })
      )
      yield* settled
      assert.deepStrictEqual(client?.written, ["welcome 1\n", "end Closed.Shutdown\n"])
      assert.strictEqual(SubscriptionRef.getUnsafe(server.status)._tag, "Closed")
      assert.isTrue(lines.some((line) =>
        line.startsWith("Error") && line.includes("nobody is let in") && line.includes("EMFILE")
      ))
    }))

  it.effect("the log is not the clients' to fill; no line has what they sent", () =>
    Effect.gen(function*() {
      const { layer, lines } = logged()
      const { arrive } = yield* start().pipe(Effect.provide(layer))
      for (let n = 0; n < 20; n++) yield* arrive("password hunter2")
      yield* TestClock.adjust("1 second")
      yield* arrive("password hunter2")
      const warnings = lines.filter((line) => line.startsWith("Warn"))
      assert.strictEqual(warnings.length, 2)
      assert.include(warnings[0], "accept (relay, connection 1) got no session: the credential was not accepted")
      assert.include(warnings[1], "19 more like this")
      assert.notInclude(lines.join("\n"), "hunter2")
    }))

  it.effect("a connection is no part of the span in which the server was made", () =>
    Effect.gen(function*() {
      const { spans, tracer } = Seen.make()
      const { arrive } = yield* start({ handler: () => Effect.withSpan(Effect.void, "inside") }).pipe(
        Effect.withSpan("made"),
        Effect.withTracer(tracer)
      )
      yield* arrive("i am ann")
      const inside = spans.find(({ name }) => name === "inside")
      assert.isTrue(spans.some(({ name }) => name === "made"))
      assert.strictEqual(inside && Option.getOrUndefined(inside.parent), undefined)
      assert.isDefined(inside)
    }))

  it.effect("nothing that clients send is in what it tells, but identities", () =>
    Effect.gen(function*() {
      const { log, out, show } = Seen.make()
      const causes: Array<unknown> = []
      const { arrive, server } = yield* start({
        farewell: (ending) => {
          causes.push(ending)
          return undefined
        }
      }).pipe(Effect.provide(Logger.layer([log])), Effect.provideService(References.MinimumLogLevel, "All"))
      const events: Array<unknown> = []
      yield* Effect.forkScoped(
        Stream.runForEach(server.events, (event) => Effect.sync(() => events.push(event))),
        { startImmediately: true }
      )
      yield* arrive("hunter2")
      yield* arrive(`hunter2 ${"x".repeat(30)}`)
      const garbage = yield* arrive("i am ann", "hunter2")
      yield* garbage.send(new Uint8Array([...new TextEncoder().encode("hunter2"), 255, 10]))
      yield* settled
      yield* arrive("i am bob", "hunter2", `hunter2 ${"x".repeat(30)}`)
      yield* arrive("i am bob", "hunter2")
      show("events", events)
      show("causes", causes)
      show("connections", yield* server.connections)
      assert.isAtLeast(events.length, 6)
      assert.isAtLeast(out.length, 10)
      assert.include(out.join("\n"), "ann")
      assert.notInclude(out.join("\n"), "hunter2")
    }))

  it.effect("counts who came, who was lost, and who is there", () =>
    Effect.gen(function*() {
      const operation = "accept metrics"
      const value = (
        metric: Metric.Metric<number, { readonly count: number } | { readonly value: number }>,
        outcome?: string
      ) =>
        Effect.map(
          Metric.value(Metric.withAttributes(metric, outcome === undefined ? { operation } : { operation, outcome })),
          (state) => "count" in state ? state.count : state.value
        )
      const { arrive } = yield* start({ at: { ...at, operation } })
      const ann = yield* arrive("i am ann")
      yield* arrive("i am bob")
      yield* arrive("i am bob")
      yield* arrive("let me in")
      yield* ann.end()
      yield* settled
      assert.strictEqual(yield* value(Telemetry.dials, "ok"), 3)
      assert.strictEqual(yield* value(Telemetry.dials, "AuthFailed"), 1)
      assert.strictEqual(yield* value(Telemetry.losses), 1)
      assert.strictEqual(yield* value(Telemetry.openStreams), 1)
    }))

  it.effect("a thousand connections, and its end, leave nothing", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const all = yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const { arrive, events, sockets, status } = yield* start({
          liveness: { heartbeat: "beat", deadline: "8 seconds" }
        })
        for (let n = 0; n < 1000; n++) {
          const client = yield* arrive(n % 5 === 0 ? "let me in" : `i am ${n % 7}`)
          if (n % 3 === 0) yield* client.end()
        }
        assert.isAtMost(sockets.connections.filter(({ isOpen }) => isOpen).length, 7)
        yield* TestClock.adjust("1 second")
        const now = status()
        assert.strictEqual(now._tag === "Serving" && now.handshakes, 0)
        assert.isAbove(events.filter((event) => event.includes("Evicted")).length, 100)
        return sockets
      })))
      assert.strictEqual(yield* TestClock.withLive(fibers.left), 0)
      assert.isFalse(all.connections.some(({ isOpen }) => isOpen))
    }), 60_000)
})
