// The control connection of bore over TCP: against a server on loopback that follows the protocol, through a proxy that loses
// what passes.
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Bore from "effect-lifeline/Bore"
import type * as ControlChannel from "effect-lifeline/ControlChannel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as BoreServer from "./support/boreServer.ts"
import * as FaultProxy from "./support/faultProxy.ts"
import * as Leaks from "./support/leaks.ts"

const open = (port: number) => NodeSocket.makeNet({ host: "127.0.0.1", port })

/** Comes back soon. */
const reconnect = Backoff.make({ base: 20, cap: 100, floor: 10 })

const secret = Redacted.make("open sesame")

const tags = (error: { readonly _tag: string; readonly reason?: unknown }) => {
  const { reason } = error as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error._tag : `${error._tag}.${reason._tag}`
}

const hellos = (said: ReadonlyArray<string>) =>
  said.filter((line) => line.includes("Hello")).map((line) => line.slice(3))

/** The events from now on, as they come. */
const recorded = <S, E extends { readonly _tag: string }>(
  channel: ControlChannel.ControlChannel<Bore.ServerMessage, Bore.ClientMessage, S, E>
) =>
  Effect.gen(function*() {
    const events: Array<ControlChannel.Event<S, E>> = []
    yield* Effect.forkScoped(
      Stream.runForEach(channel.events, (event) => Effect.sync(() => events.push(event))),
      { startImmediately: true }
    )
    return events
  })

describe("Bore over TCP", () => {
  it.live("says hello, with and without a secret; messages come; closing ends the connection", () =>
    Effect.gen(function*() {
      for (const options of [{}, { secret }]) {
        const server = yield* BoreServer.make("secret" in options ? { secret: "open sesame" } : {})
        const scope = yield* Scope.make()
        const channel = yield* Scope.provide(Bore.make({ open: open(server.port), ...options }), scope)
        assert.isAbove((yield* channel.session).port, 0)
        server.say({ Connection: "c0ffee00-0000-4000-8000-000000000000" })
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(channel.messages, 1)), [{
          Connection: "c0ffee00-0000-4000-8000-000000000000"
        }])
        yield* Scope.close(scope, Exit.void)
        yield* server.until("the connection is closed", (said) => said.includes("0: closed"))
        assert.strictEqual(server.open(), 0)
      }
    }))

  it.live("a server that is restarted: asks for the port that it had", () =>
    Effect.gen(function*() {
      const first = yield* BoreServer.make({ secret: "open sesame" })
      const channel = yield* Bore.make({ open: open(first.port), secret, reconnect })
      const { port } = yield* channel.session
      const events = yield* recorded(channel)
      yield* first.stop
      const second = yield* BoreServer.make({ listen: first.port, secret: "open sesame" })
      yield* second.until("it said hello again", (said) => hellos(said).length > 0)
      assert.deepStrictEqual(yield* channel.session, { port })
      assert.deepStrictEqual(hellos(second.said), [`{"Hello":${port}}`])
      assert.strictEqual(events[0]?._tag, "Lost")
    }))

  it.live.each<readonly [string, string | undefined, string | undefined, string]>([
    ["the wrong secret", "another", "open sesame", "AuthFailed.Unauthorized"],
    ["no secret where one is wanted", "another", undefined, "AuthFailed.CredentialMissing"],
    ["a secret where none is wanted", undefined, "open sesame", "AuthFailed.NotChallenged"]
  ])(
    "%s: the end, after one attempt, and the secret is in no error",
    ([, theirs, ours, expected]) =>
      Effect.gen(function*() {
        const server = yield* BoreServer.make({ secret: theirs })
        const channel = yield* Bore.make({
          open: open(server.port),
          reconnect,
          ...(ours === undefined ? {} : { secret: Redacted.make(ours) })
        })
        const error = yield* Effect.flip(channel.session)
        assert.strictEqual(tags(error), expected)
        assert.notInclude(`${error.message}${JSON.stringify(error)}`, "sesame")
        yield* server.until("the connection is closed", (said) => said.includes("0: closed"))
        assert.strictEqual(server.said.filter((line) => line.endsWith("connected")).length, 1)
      })
  )

  it.live("a port that it does not give: Refused, after one attempt, with the server's words", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({ allowed: (port) => port > 1023 })
      const channel = yield* Bore.make({ open: open(server.port), port: 80, reconnect })
      const error = yield* Effect.flip(channel.session)
      assert.strictEqual(tags(error), "Refused.Conflict")
      assert.include(error.message, "allowed range")
      yield* server.until("the connection is closed", (said) => said.includes("0: closed"))
      assert.deepStrictEqual(hellos(server.said), ["{\"Hello\":80}"])
    }))

  it.live("end of stream, and a reset, in the handshake are transient", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({
        secret: "open sesame",
        instead: (socket, n) => {
          if (n === 0) socket.end()
          if (n === 1) socket.resetAndDestroy()
          return n < 2
        }
      })
      const channel = yield* Bore.make({ open: open(server.port), secret, reconnect })
      yield* channel.session
      assert.strictEqual(server.said.filter((line) => line.endsWith("connected")).length, 3)
    }))

  it.live("garbage, and a challenge that is not a UUID, are tried again", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({
        secret: "open sesame",
        instead: (socket, n) => {
          if (n === 0) socket.write("HTTP/1.1 503 Service Unavailable\r\n\r\n\0")
          if (n === 1) socket.write(BoreServer.frame({ Challenge: "x".repeat(36) }))
          return n < 2
        }
      })
      const channel = yield* Bore.make({ open: open(server.port), secret, reconnect })
      yield* channel.session
      assert.strictEqual(server.said.filter((line) => line.endsWith("connected")).length, 3)
    }))

  it.live("reconnect: false: the end of the connection is the end, typed", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make()
      const channel = yield* Bore.make({ open: open(server.port), reconnect: false })
      yield* channel.session
      yield* server.stop
      const error = yield* Effect.flip(Stream.runDrain(channel.messages))
      assert(error._tag === "Disconnected")
      assert.isTrue(error.session)
      const nobody = yield* Bore.make({ open: open(server.port), reconnect: false })
      const refused = yield* Effect.flip(nobody.session)
      assert(refused._tag === "Disconnected")
      assert.isFalse(refused.session)
      assert.include(refused.message, "ECONNREFUSED")
    }))

  it.live(
    "a silent partition: found by the silence of 8 seconds; then the same port, once the server let go of it",
    () =>
      Effect.gen(function*() {
        const server = yield* BoreServer.make()
        const proxy = yield* FaultProxy.make(server.port)
        const channel = yield* Bore.make({ open: open(proxy.port), reconnect })
        const { port } = yield* channel.session
        const events = yield* recorded(channel)
        // Nothing passes any more, and neither side learns of it: the server still holds the port.
        proxy.links[0]?.fault("both", "drop")
        yield* proxy.until("a second connection", (links) => links[1])
        yield* server.until("it was refused while the old one is held", (said) => hellos(said).length > 1)
        proxy.links[0]?.reset()
        yield* server.until("the old one is gone", (said) => said.includes("0: closed"))
        assert.deepStrictEqual(yield* channel.session, { port })
        const told = events.map((event) => event._tag === "Lost" ? tags(event.cause) : event._tag)
        assert.strictEqual(told[0], "Transient.TimedOut")
        assert.isTrue(hellos(server.said).slice(1).every((line) => line === `{"Hello":${port}}`))
      }),
    60_000
  )

  it.live("leaves no fiber, no socket, no timer", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const beyond = yield* Leaks.resources
      yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const server = yield* BoreServer.make({
          secret: "open sesame",
          instead: (socket, n) => {
            if (n % 2 === 0) socket.end()
            return n % 2 === 0
          }
        })
        const channel = yield* Bore.make({ open: open(server.port), secret, reconnect })
        const waiting = yield* Effect.forkChild(Effect.exit(Stream.runDrain(channel.messages)))
        yield* channel.session
        yield* channel.close
        yield* Fiber.join(waiting)
        yield* server.until("the connection is closed", (said) => said.includes("1: closed"))
        assert.strictEqual(server.open(), 0)
      })))
      assert.strictEqual(yield* fibers.left, 0)
      assert.deepStrictEqual(yield* beyond, [])
    }))
})
