// Bore's wire protocol against sockets in memory, in virtual time: the answer to a challenge, and each case of the handshake.
import { assert, describe, it } from "@effect/vitest"
import * as Bore from "effect-lifeline/Bore"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as BoreServer from "./support/boreServer.ts"
import * as Sockets from "./support/memorySockets.ts"

const secret = Redacted.make("open sesame")
const uuid = "6f1a2b3c-4d5e-4f60-8172-93a4b5c6d7e8"

const settled = Effect.repeat(TestClock.adjust(0), { times: 50 })

/** WebCrypto answers in its own time: looks again and again, at most 15 seconds. */
const until = (isSo: () => boolean) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1500 && !isSo(); n++) yield* TestClock.withLive(Effect.sleep("10 millis"))
    yield* settled
  })

const tags = (error: { readonly _tag: string; readonly reason?: unknown }) => {
  const { reason } = error as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error._tag : `${error._tag}.${reason._tag}`
}

/** A server in memory that says these things at once, and what becomes of one connection to it. */
const once = Effect.fnUntraced(function*(
  says: ReadonlyArray<unknown>,
  options: { readonly secret?: Redacted.Redacted; readonly port?: number } = {}
) {
  const sockets = Sockets.make((connection) =>
    connection.send(...says.map((it) => typeof it === "string" ? it : BoreServer.frame(it)))
  )
  const channel = yield* Bore.make({ open: sockets.open, ...options, reconnect: false })
  yield* settled
  const [connection] = sockets.connections
  const [first] = says
  const isAsked = options.secret !== undefined && typeof first === "object" && first !== null && "Challenge" in first
  if (isAsked && first.Challenge === uuid) yield* until(() => connection?.written.length === 1)
  return { channel, sockets, written: () => connection?.written ?? [], send: connection?.send ?? (() => Effect.void) }
})

describe("Bore.answer", () => {
  it.effect("a vector", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* Bore.answer(Redacted.make("secret"), "00000000-0000-0000-0000-000000000000"),
        BoreServer.answerOf("secret", "00000000-0000-0000-0000-000000000000")
      )
      assert.strictEqual(
        yield* Bore.answer(secret, uuid),
        "e55771cbeb725ba3bda34ba7609db5360a3e06c56bfd86dc242e4e04ef210990"
      )
    }))

  it.effect("as node:crypto has it, for any secret and any UUID, in either case", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 50; n++) {
        const text = "é☃x".repeat(n)
        const id = globalThis.crypto.randomUUID()
        const expected = BoreServer.answerOf(text, id)
        assert.strictEqual(yield* Bore.answer(Redacted.make(text), id), expected)
        assert.strictEqual(yield* Bore.answer(Redacted.make(text), id.toUpperCase()), expected)
      }
    }))

  it.effect.each(["", "x", "6f1a2b3c4d5e4f60817293a4b5c6d7e8", `${uuid}0`, uuid.replace("6", "g"), ` ${uuid}`])(
    "not a UUID: %j",
    (text) => Effect.map(Bore.answer(secret, text), (answer) => assert.isUndefined(answer))
  )
})

describe("Bore.protocol", () => {
  const decode = (text: string) => {
    const decoded = Bore.protocol.codec.decode(new TextEncoder().encode(text))
    return Result.isSuccess(decoded) ? decoded.success : undefined
  }

  it.each<Bore.ServerMessage>(["Heartbeat", { Challenge: uuid }, { Hello: 7 }, { Connection: uuid }, { Error: "no" }])(
    "%j",
    (message) => assert.deepStrictEqual(decode(JSON.stringify(message)), message)
  )

  it.each([
    "",
    "null",
    "{}",
    "\"Other\"",
    "{\"Hello\":-1}",
    "{\"Hello\":65536}",
    "{\"Hello\":1.5}",
    "{\"Hello\":\"1\"}",
    "{\"Challenge\":1}",
    "[]",
    "HTTP/1.1 400 Bad Request",
    "\ufffd{"
  ])("is none: %j", (text) => assert.isUndefined(decode(text)))
})

describe("Bore.make", () => {
  it.effect("without a secret: says hello and gets a port; heartbeats are not messages", () =>
    Effect.gen(function*() {
      const { channel, written } = yield* once([{ Hello: 4000 }, "\"Heartbeat\"\0", { Connection: uuid }])
      assert.deepStrictEqual(yield* channel.session, { port: 4000 })
      assert.deepStrictEqual(written(), ["{\"Hello\":0}\0"])
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(channel.messages, 1)), [{ Connection: uuid }])
    }))

  it.effect("with a secret: answers the challenge, gives the server time to refuse it, then says hello", () =>
    Effect.gen(function*() {
      const { channel, send, written } = yield* once([{ Challenge: uuid }], { secret, port: 4001 })
      const answer = `{"Authenticate":"${BoreServer.answerOf("open sesame", uuid)}"}\0`
      assert.deepStrictEqual(written(), [answer])
      yield* TestClock.adjust("200 millis")
      yield* settled
      assert.deepStrictEqual(written(), [answer, "{\"Hello\":4001}\0"])
      yield* send(BoreServer.frame({ Hello: 4001 }))
      assert.deepStrictEqual(yield* channel.session, { port: 4001 })
    }))

  it.effect.each([[50, 200], [300, 600], [2000, 1000]] as const)(
    "a server that took %d ms to connect to has %d to refuse the secret",
    ([opens, patience]) =>
      Effect.gen(function*() {
        const sockets = Sockets.make((connection) => connection.send(BoreServer.frame({ Challenge: uuid })))
        sockets.state.opens = Effect.sleep(opens)
        yield* Bore.make({ open: sockets.open, secret })
        yield* settled
        yield* TestClock.adjust(opens)
        const written = () => sockets.connections[0]?.written.length
        yield* until(() => written() === 1)
        for (let waited = 0; waited < patience; waited += 50) {
          assert.strictEqual(written(), 1, `after ${waited} ms`)
          yield* TestClock.adjust(50)
          yield* settled
        }
        assert.strictEqual(written(), 2)
      })
  )

  it.effect.each<readonly [string, ReadonlyArray<unknown>, Redacted.Redacted | undefined, string]>([
    ["it wants a secret, and there is none", [{ Challenge: uuid }], undefined, "AuthFailed.CredentialMissing"],
    ["it rejects the secret", [{ Challenge: uuid }, { Error: "invalid secret" }], secret, "AuthFailed.Unauthorized"],
    // Its words are shown, and not looked at: they are another server's to choose.
    ["… in words of a port", [{ Challenge: uuid }, { Error: "port in use" }], secret, "AuthFailed.Unauthorized"],
    ["… by asking again", [{ Challenge: uuid }, { Challenge: uuid }], secret, "AuthFailed.Unauthorized"],
    ["it says hello without asking", [{ Hello: 1 }], secret, "AuthFailed.NotChallenged"],
    ["it beats without asking", ["{\"Connection\":\"x\"}\0"], secret, "AuthFailed.NotChallenged"],
    [
      "it does not give the port",
      [{ Error: "client port number not in allowed range" }],
      undefined,
      "Refused.Conflict"
    ],
    ["… in words of a secret", [{ Error: "invalid secret" }], undefined, "Refused.Conflict"],
    ["… in no words", [{ Error: "" }], undefined, "Refused.Conflict"],
    ["a challenge that is not a UUID", [{ Challenge: "me" }], secret, "Disconnected Inconclusive"],
    ["garbage", ["HTTP/1.1 502 Bad Gateway\r\n\r\n\0"], undefined, "Disconnected Inconclusive"],
    ["no JSON, no end", ["x".repeat(300)], undefined, "Disconnected Inconclusive"],
    ["something else than hello", [{ Connection: uuid }], undefined, "Disconnected Inconclusive"]
  ])("%s", ([, says, withSecret, expected]) =>
    Effect.gen(function*() {
      const { channel } = yield* once(says, withSecret === undefined ? {} : { secret: withSecret })
      const error = yield* Effect.flip(channel.session)
      assert.strictEqual(error._tag === "Disconnected" ? `Disconnected ${tags(error.last)}` : tags(error), expected)
      assert.notInclude(JSON.stringify(error), "sesame")
      assert.notInclude(error.message, "sesame")
    }))

  it.effect("a server that waits for us, while there is a secret, is asked, and found not to want it", () =>
    Effect.gen(function*() {
      const { channel, send, written } = yield* once([], { secret })
      yield* TestClock.adjust("1999 millis")
      yield* settled
      assert.deepStrictEqual(written(), [])
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.deepStrictEqual(written(), ["{\"Hello\":0}\0"])
      yield* send(BoreServer.frame({ Hello: 4000 }))
      assert.strictEqual(tags(yield* Effect.flip(channel.session)), "AuthFailed.NotChallenged")
    }))

  it.effect.each([["silent", undefined], ["late", { Challenge: uuid }]] as const)(
    "one that is %s is tried again: that says nothing of its secret",
    ([, late]) =>
      Effect.gen(function*() {
        const { channel, send } = yield* once([], { secret })
        const ended = yield* Effect.forkChild(Effect.flip(channel.session))
        yield* settled
        yield* TestClock.adjust("2 seconds")
        yield* settled
        if (late !== undefined) yield* send(BoreServer.frame(late))
        yield* TestClock.adjust("3 seconds")
        const error = yield* Fiber.join(ended)
        assert.strictEqual(error._tag === "Disconnected" && tags(error.last), "Transient.TimedOut")
      })
  )

  it.effect("a message of 256 bytes is one; of 257 it ends the connection, and is not sent either", () =>
    Effect.gen(function*() {
      const fits = { Error: "x".repeat(256 - JSON.stringify({ Error: "" }).length) }
      assert.strictEqual(JSON.stringify(fits).length, 256)
      const { channel } = yield* once([{ Hello: 4000 }, fits, { Error: `${fits.Error}x` }])
      const seen: Array<Bore.ServerMessage> = []
      const error = yield* Effect.flip(
        Stream.runForEach(channel.messages, (message) => Effect.sync(() => seen.push(message)))
      )
      assert.deepStrictEqual(seen, [fits])
      assert.strictEqual(error._tag === "Disconnected" && error.last._tag, "Inconclusive")
      assert.include(error.message, "257")
      const other = yield* once([{ Hello: 4000 }])
      const refused = yield* Effect.flip(other.channel.send({ Accept: "x".repeat(244) }))
      assert.strictEqual(refused._tag, "FrameError")
      yield* other.channel.send({ Accept: "x".repeat(243) })
    }))

  it.effect("the port that it had is asked for again; when it is still held that is not the end", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) =>
        connection.send(BoreServer.frame(n === 1 ? { Error: "port already in use" } : { Hello: 4000 }))
      )
      const channel = yield* Bore.make({ open: sockets.open })
      yield* channel.session
      yield* sockets.connections[0]?.end() ?? Effect.void
      yield* settled
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual(yield* channel.session, { port: 4000 })
      assert.deepStrictEqual(
        sockets.connections.map(({ written }) => written),
        [["{\"Hello\":0}\0"], ["{\"Hello\":4000}\0"], ["{\"Hello\":4000}\0"]]
      )
    }))

  it.effect("and when it is held for ever: NoProgress after ten", () =>
    Effect.gen(function*() {
      const sockets = Sockets.make((connection, n) =>
        connection.send(BoreServer.frame(n === 0 ? { Hello: 4000 } : { Error: "no" }))
      )
      const channel = yield* Bore.make({ open: sockets.open })
      yield* channel.session
      yield* sockets.connections[0]?.end() ?? Effect.void
      yield* settled
      for (let n = 0; n < 60; n++) yield* TestClock.adjust("10 seconds")
      assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(channel.messages))), "NoProgress")
      assert.strictEqual(sockets.connections.length, 11)
    }))
})
