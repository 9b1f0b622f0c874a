// The server side of the control channel in virtual time, over sockets in memory: who is let in, eviction, liveness, limits,
// handlers, closing. The protocol: lines; the client says "i am <name>", the handler welcomes it.
import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import * as ControlChannel from "effect-lifeline/ControlChannel"
import * as Framing from "effect-lifeline/Framing"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Sockets from "./support/memorySockets.ts"

interface Session {
  readonly identity: string | undefined
}
type Options = ControlChannel.ServeOptions<string, string, Session>
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
    yield* TestClock.adjust("1 second")
    yield* Fiber.join(closing)
  })
  yield* Effect.addFinalizer(() => close)
  const server = yield* ControlChannel.makeServer<string, string, Session>({
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
})

describe("ControlChannel.serve: eviction", () => {
  it.effect("the newer holder of an identity evicts the older one, whose scope is closed before its handler runs", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { arrive, events } = yield* start({
        handler: Effect.fnUntraced(function*(connection: Connection) {
          yield* Effect.acquireRelease(
            Effect.sync(() => log.push(`${connection.id} has it`)),
            () => Effect.map(connection.evicted, (evicted) => log.push(`${connection.id} lets go ${evicted}`))
          )
          return yield* Effect.never
        }, Effect.scoped)
      })
      const older = yield* arrive("i am ann")
      const newer = yield* arrive("i am ann")
      assert.deepStrictEqual(log, ["1 has it", "1 lets go true", "2 has it"])
      assert.deepStrictEqual(events, ["1 Connected ann", "1 Evicted by 2", "2 Connected ann"])
      assert.deepStrictEqual(older.written, ["end Closed.Replaced\n"])
      assert.isFalse(older.isOpen)
      assert.isTrue(newer.isOpen)
    }))
})
