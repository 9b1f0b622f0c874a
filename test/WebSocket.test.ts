import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Classify from "effect-lifeline/Classify"
import * as Connectivity from "effect-lifeline/Connectivity"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "./support/fakeWebSocket.ts"

const dial: Reconnect.Dial<never> = { cursor: undefined, attempt: 1, generation: 1 }

const url = "ws://feed.test/live"

/** An open connection over a fake platform; `wire` is the platform's side of it. */
const opened = <K extends keyof WebSocket.Kinds = "text">(
  options?: Partial<WebSocket.Options<never, K>>,
  platform?: Fake.Options
) =>
  Effect.gen(function*() {
    const fake = Fake.make(platform)
    const connection = yield* fake.provide(WebSocket.open<never, K>({ url, ...options })(dial))
    return { connection, fake, wire: fake.last() }
  })

/** Why opening failed. */
const refusal = (options: Partial<WebSocket.Options>, fake = Fake.make()) =>
  Effect.scoped(fake.provide(Effect.flip(WebSocket.open({ url, ...options })(dial))))

const tags = (error: { readonly _tag: string; readonly reason?: { readonly _tag: string } }) =>
  error.reason === undefined ? error._tag : `${error._tag}.${error.reason._tag}`

describe("WebSocket: dialling", () => {
  it.effect("asks for URL and credential anew each time, and tells what number it is", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      let tickets = 0
      const open = WebSocket.open<string>({
        url: WebSocket.perDial(({ cursor, generation }) =>
          Effect.sync(() => Redacted.make(`wss://feed.test/live?after=${cursor}&n=${generation}&ticket=${++tickets}`))
        ),
        credential: WebSocket.perDial(() =>
          Effect.succeed({
            headers: { authorization: Redacted.make("Bearer t"), "x-plain": "p" },
            protocols: [Redacted.make("key.1")],
            first: Redacted.make("hello")
          })
        ),
        protocols: ["v2", "v1"]
      })
      for (const generation of [1, 2]) {
        yield* Effect.scoped(fake.provide(open({ cursor: "e7", attempt: 1, generation })))
      }
      assert.deepStrictEqual(fake.wires.map(({ handshake }) => handshake.url), [
        "wss://feed.test/live?after=e7&n=1&ticket=1",
        "wss://feed.test/live?after=e7&n=2&ticket=2"
      ])
      const { handshake, sent } = fake.last()
      assert.deepStrictEqual(handshake.headers, { authorization: "Bearer t", "x-plain": "p" })
      assert.deepStrictEqual(handshake.protocols, ["v2", "v1", "key.1"])
      assert.deepStrictEqual(sent, ["hello"])
    }))

  it.effect("http and https are ws and wss, and a fragment is not sent", () =>
    Effect.gen(function*() {
      for (
        const [from, to] of [["http://a.test/x#f", "ws://a.test/x"], ["https://a.test/x", "wss://a.test/x"]] as const
      ) {
        const { wire } = yield* opened({ url: from })
        assert.strictEqual(wire.handshake.url, to)
      }
    }))

  it.effect.each(["", "live", "/live", "ftp://feed.test", "ws://", "wss://feed.test:99999"])(
    "the URL %j is refused before anything is dialled",
    (bad) =>
      Effect.gen(function*() {
        const fake = Fake.make()
        const error = yield* refusal({ url: bad }, fake)
        assert.strictEqual(tags(error), "Refused.InvalidRequest")
        assert.include(error.message, "url: must be a ws, wss, http or https URL")
        assert.strictEqual(fake.wires.length, 0)
      })
  )

  it.effect("what a provider fails with: errors of the algebra pass, all else is for now", () =>
    Effect.gen(function*() {
      const own = Classify.make("CredentialExpired", { operation: "token", target: "issuer" })
      assert.strictEqual(yield* refusal({ credential: WebSocket.perDial(() => Effect.fail(own)) }), own)
      for (
        const bad of [
          Effect.fail("no"),
          Effect.die(new Error("bug")),
          Effect.interrupt,
          Effect.promise(() => Promise.reject(new Error("rejected")))
        ]
      ) {
        assert.strictEqual(tags(yield* refusal({ credential: WebSocket.perDial(() => bad) })), "Transient.Unreachable")
        assert.strictEqual(tags(yield* refusal({ url: WebSocket.perDial(() => bad) })), "Transient.Unreachable")
      }
    }))

  it.effect.each(
    [
      ["a provider that hangs", { credential: WebSocket.perDial(() => Effect.never) }, undefined],
      [
        "a provider that cannot be interrupted",
        { url: WebSocket.perDial(() => Effect.uninterruptible(Effect.never)) },
        undefined
      ],
      ["a handshake that hangs", {}, { opens: false, answersClose: false }]
    ] as ReadonlyArray<readonly [string, Partial<WebSocket.Options>, Fake.Options | undefined]>
  )("%s is given up at the deadline", ([, options, platform]) =>
    Effect.gen(function*() {
      const fake = Fake.make(platform)
      const fiber = yield* Effect.forkChild(refusal({ ...options, connectWithin: "7 seconds" }, fake))
      yield* TestClock.adjust("6999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(tags(error), "Transient.TimedOut")
      assert.strictEqual(fake.counts.open, 0)
    }))

  it.effect.each(
    [
      [401, "AuthFailed.Unauthorized"],
      [403, "AuthFailed.Forbidden"],
      [404, "Refused.NotFound"],
      [429, "Transient.Throttled"],
      [503, "Transient.Unavailable"],
      [200, "Refused.MalformedResponse"],
      [undefined, "Transient.Unreachable"]
    ] as const
  )("a handshake that is answered with %s", ([status, expected]) =>
    Effect.gen(function*() {
      const fake = Fake.make({ opens: false })
      const fiber = yield* Effect.forkChild(refusal({}, fake), { startImmediately: true })
      yield* TestClock.adjust(0)
      // Some platforms give a close code of their own to a handshake that failed: it is not the server's.
      const { events, handshake } = fake.last()
      if (status === undefined) events.closed({ code: 1002 })
      else events.refused(Classify.fromStatus(Classify.http, { status, headers: {} }, handshake.at))
      assert.strictEqual(tags(yield* Fiber.join(fiber)), expected)
      assert.strictEqual(fake.counts.open, 0)
    }))

  it.effect.each<readonly [string, () => boolean]>([
    ["does not take it", () => false],
    ["throws", () => {
      throw new TypeError("too late")
    }]
  ])(
    "a first frame that is not sent is the failure of the connection: the platform %s",
    ([, send]) =>
      Effect.gen(function*() {
        const error = yield* WebSocket.open({
          url,
          credential: WebSocket.perDial(() => Effect.succeed({ first: "canary" }))
        })(dial).pipe(
          Effect.provideService(WebSocket.Dialer, (_, events) =>
            Effect.sync(() => {
              events.opened("")
              return { send, close: () => events.closed({ code: 1000 }), buffered: () => 0 }
            })),
          Effect.scoped,
          Effect.flip
        )
        assert.strictEqual(tags(error), "Transient.Unreachable")
        assert.notInclude(error.message, "canary")
      })
  )

  it.effect("a constructor that throws is a typed error", () =>
    Effect.gen(function*() {
      const throwing = WebSocket.fromConstructor(
        class {
          constructor() {
            throw new SyntaxError("wss://feed.test/?ticket=canary")
          }
        } as unknown as WebSocket.WebSocketConstructor
      )
      const attempt = (options: Partial<WebSocket.Options>) =>
        Effect.scoped(Effect.flip(WebSocket.open({ url, ...options })(dial))).pipe(
          Effect.provideService(WebSocket.Dialer, throwing)
        )
      const plain = yield* attempt({})
      assert.strictEqual(tags(plain), "Refused.InvalidRequest")
      assert.include(plain.message, "url: ")
      assert.include((yield* attempt({ protocols: ["a b"] })).message, "protocols: ")
      const headers = yield* attempt({
        credential: WebSocket.perDial(() => Effect.succeed({ headers: { "x-a": "canary" } }))
      })
      assert.strictEqual(tags(headers), "Refused.Unsupported")
      assert.notInclude(JSON.stringify([plain, headers]) + plain.message + headers.message, "canary")
    }))

  it.effect("no secret is in an error, also where the server repeats it", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({
        url: WebSocket.perDial(() =>
          Effect.succeed(Redacted.make("wss://user:canary-1@feed.test/live?ticket=canary-2#canary-3"))
        ),
        credential: WebSocket.perDial(() =>
          Effect.succeed({ headers: { a: Redacted.make("canary-4") }, first: Redacted.make("canary-5") })
        )
      })
      wire.events.closed({ code: 4401, reason: "not canary-1 canary-2 canary-4 canary-5" })
      const error = yield* Effect.flip(Stream.runDrain(connection.messages))
      assert.strictEqual(tags(error), "AuthFailed.Unauthorized")
      const shown = error.message + JSON.stringify(error)
      assert.notInclude(shown, "canary")
      assert.include(shown, "wss://feed.test/live")
    }))
})

describe("WebSocket: a platform's constructor", () => {
  const platform = () => {
    const listeners = new Map<string, Set<(event: WebSocket.WebSocketEvent) => void>>()
    const sent: Array<unknown> = []
    let added = 0
    let state = 0
    class Socket implements WebSocket.WebSocketLike {
      binaryType = "blob"
      readonly protocol = "v1"
      get readyState() {
        return state
      }
      addEventListener(type: string, listener: (event: WebSocket.WebSocketEvent) => void) {
        added++
        listeners.set(type, (listeners.get(type) ?? new Set()).add(listener))
      }
      removeEventListener(type: string, listener: (event: WebSocket.WebSocketEvent) => void) {
        listeners.get(type)?.delete(listener)
      }
      send(data: unknown) {
        sent.push(data)
      }
      close() {
        throw new TypeError("closed already")
      }
    }
    return {
      provide: Effect.provideService(WebSocket.Dialer, WebSocket.fromConstructor(Socket)),
      emit: (type: string, event: WebSocket.WebSocketEvent, readyState: number) => {
        state = readyState
        for (const listener of listeners.get(type) ?? []) listener(event)
      },
      sent,
      added: () => added,
      left: () => [...listeners.values()].reduce((sum, { size }) => sum + size, 0)
    }
  }

  it.effect("leaves no listener, and is not sent to while it closes", () =>
    Effect.gen(function*() {
      const { added, emit, left, provide, sent } = platform()
      const fiber = yield* Effect.forkChild(
        Effect.scoped(provide(Effect.gen(function*() {
          const connection = yield* WebSocket.open({ url })(dial)
          yield* connection.send("sent")
          emit("message", { data: "m" }, 2)
          const tooLate = yield* Effect.flip(connection.send("dropped by the platform"))
          emit("error", { error: { code: "ECONNRESET" } }, 3)
          emit("close", { code: 1000 }, 3)
          return {
            protocol: connection.protocol,
            tooLate,
            error: yield* Effect.flip(Stream.runDrain(connection.messages))
          }
        }))),
        { startImmediately: true }
      )
      yield* TestClock.adjust(0)
      emit("open", {}, 1)
      const { error, protocol, tooLate } = yield* Fiber.join(fiber)
      assert.strictEqual(protocol, "v1")
      assert.deepStrictEqual(sent, ["sent"])
      assert.strictEqual(tags(tooLate), "Transient.Unreachable")
      // The first of the two counts: 1006.
      assert.strictEqual(tags(error), "Transient.Unavailable")
      assert.isAbove(added(), 0)
      assert.strictEqual(left(), 0)
    }))
})

describe("WebSocket: how a connection ends", () => {
  const rows: ReadonlyArray<readonly [number, string]> = [
    [1000, "Transient.Unavailable"],
    [1001, "Transient.Unavailable"],
    [1002, "Refused.MalformedResponse"],
    [1003, "Refused.Unsupported"],
    [1005, "Transient.Unavailable"],
    [1006, "Transient.Unavailable"],
    [1007, "Refused.MalformedResponse"],
    [1008, "Refused.InvalidRequest"],
    [1009, "Refused.InvalidRequest"],
    [1010, "Refused.Unsupported"],
    [1011, "Transient.Unavailable"],
    [1012, "Transient.Throttled"],
    [1013, "Transient.Throttled"],
    [4000, "Transient.Unavailable"],
    [4400, "Refused.InvalidRequest"],
    [4401, "AuthFailed.Unauthorized"],
    [4403, "AuthFailed.Forbidden"],
    [4499, "Refused.InvalidRequest"],
    [4500, "Transient.Unavailable"],
    [2999, "Inconclusive"]
  ]

  it.effect.each(rows)("%i is %s, after what came before it", ([code, expected]) =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened()
      wire.events.received("before")
      wire.events.closed({ code, reason: "because" })
      wire.events.received("after")
      const seen: Array<string> = []
      const error = yield* Effect.flip(
        Stream.runForEach(connection.messages, (message) => Effect.sync(() => void seen.push(message)))
      )
      assert.strictEqual(tags(error), expected)
      assert.include(error.message, "because")
      assert.deepStrictEqual(seen, ["before"])
      assert.strictEqual(tags(yield* Effect.flip(connection.send("x"))), expected)
    }))

  it.effect("the table is the caller's to change: 1008 over a credential, 1000 as the end", () =>
    Effect.gen(function*() {
      for (
        const [code, expected, closeCodes] of [
          [1008, "AuthFailed.Unauthorized", { ...Classify.webSocketSubscribed, "1008": Classify.unauthorized }],
          [1000, "Stop", Classify.webSocket]
        ] as const
      ) {
        const { connection, wire } = yield* opened({ closeCodes })
        wire.events.closed({ code })
        assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(connection.messages))), expected)
      }
    }))

  it.effect.each(
    [
      ["bytes where text is due", "text", new Uint8Array(1), 4003],
      ["text where bytes are due", "binary", "x", 4003],
      ["text that is too long", "text", "x".repeat(11), 4009],
      ["bytes that are too long", "binary", new Uint8Array(11), 4009],
      ["neither text nor bytes", "any", { blob: true }, 4003]
    ] as const
  )("%s", ([, frames, data, code]) =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({ frames, maxMessage: 10 })
      wire.events.received(data)
      assert.strictEqual(
        tags(yield* Effect.flip(Stream.runDrain(connection.messages))),
        "Refused.MalformedResponse"
      )
      assert.deepStrictEqual(wire.closes, [code])
    }))

  it.effect("what just fits passes, and bytes are bytes however the platform hands them out", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({ frames: "any", maxMessage: 3 })
      const bytes = Uint8Array.of(0, 1, 2, 3)
      wire.events.received("abc")
      wire.events.received(bytes.buffer.slice(1))
      wire.events.received(new DataView(bytes.buffer, 1))
      wire.events.received(bytes.subarray(1))
      const messages = yield* Stream.runCollect(Stream.take(connection.messages, 4))
      assert.deepStrictEqual(messages, ["abc", ...Array.from({ length: 3 }, () => Uint8Array.of(1, 2, 3))])
    }))

  it.effect("by default a message may have 1 MiB, and a consumer be behind by 8", () =>
    Effect.gen(function*() {
      const mebi = "x".repeat(1024 * 1024)
      for (const [messages, more, expected] of [[8, "", "open"], [8, "x", "Transient.Unreachable"]] as const) {
        const { connection, wire } = yield* opened()
        for (let n = 0; n < messages; n++) wire.events.received(mebi)
        if (more !== "") wire.events.received(more)
        const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
        yield* TestClock.adjust(0)
        assert.strictEqual(fiber.pollUnsafe() === undefined ? "open" : tags(yield* Fiber.join(fiber)), expected)
      }
      const { connection, wire } = yield* opened()
      wire.events.received(`${mebi}x`)
      assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(connection.messages))), "Refused.MalformedResponse")
    }))

  it.effect("a consumer that is behind pauses the platform", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({ maxBacklog: 10 }, { canPause: true })
      for (let n = 0; n < 3; n++) wire.events.received("12345")
      assert.isTrue(wire.paused)
      const messages = yield* Stream.runCollect(Stream.take(connection.messages, 3))
      assert.strictEqual(messages.length, 3)
      assert.isFalse(wire.paused)
    }))

  it.effect("a consumer that is behind, and a platform that cannot pause: for now", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({ maxBacklog: 10 })
      for (let n = 0; n < 3; n++) wire.events.received("12345")
      const error = yield* Effect.flip(Stream.runDrain(connection.messages))
      assert.strictEqual(tags(error), "Transient.Unreachable")
      assert.strictEqual(wire.closes.length, 1)
    }))
})

describe("WebSocket: liveness", () => {
  const pings = (wire: Fake.FakeWire) => wire.sent.filter((message) => message === "ping").length

  it.effect("asks after half of the deadline, and is dead after all of it", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({
        liveness: WebSocket.liveness({ deadline: "30 seconds", ping: "ping" })
      })
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
      yield* TestClock.adjust("14999 millis")
      assert.strictEqual(pings(wire), 0)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(pings(wire), 1)
      yield* TestClock.adjust("14999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(tags(error), "Transient.TimedOut")
      assert.deepStrictEqual(wire.closes, [4008])
      assert.strictEqual(wire.terminated, 1)
      assert.strictEqual(tags(yield* Effect.flip(connection.send("x"))), "Transient.TimedOut")
    }))

  it.effect("any frame counts, and pongs are not handed on", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({
        liveness: WebSocket.liveness({ deadline: "30 seconds", ping: "ping", isPong: (message) => message === "pong" })
      })
      const seen: Array<string> = []
      const fiber = yield* Effect.forkChild(
        Effect.flip(Stream.runForEach(connection.messages, (message) => Effect.sync(() => void seen.push(message))))
      )
      for (let n = 0; n < 20; n++) {
        yield* TestClock.adjust("20 seconds")
        if (n % 2 === 0) wire.events.received("pong")
        else wire.events.heard()
      }
      assert.isUndefined(fiber.pollUnsafe())
      wire.events.received("news")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(seen, ["news"])
      assert.strictEqual(pings(wire), 20)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(tags(yield* Fiber.join(fiber)), "Transient.TimedOut")
    }))

  it.effect("ping frames where the platform can send them: by default", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened({}, { canPing: true })
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
      yield* TestClock.adjust("23 seconds")
      assert.strictEqual(wire.pings, 1)
      wire.events.heard()
      yield* TestClock.adjust("44 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tags(yield* Fiber.join(fiber)), "Transient.TimedOut")
      assert.strictEqual(wire.pings, 2)
    }))

  it.effect("without any way to ask nothing is judged, unless there is a deadline", () =>
    Effect.gen(function*() {
      const quiet = yield* opened()
      const none = yield* opened({ liveness: "none" }, { canPing: true })
      const strict = yield* opened({ liveness: WebSocket.liveness({ deadline: "1 minute" }) })
      const fibers = yield* Effect.forEach(
        [quiet, none, strict],
        ({ connection }) => Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
      )
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(fibers.map((fiber) => fiber.pollUnsafe() !== undefined), [false, false, true])
      assert.strictEqual(none.wire.pings, 0)
    }))

  it.effect("a machine that slept: asks once more before it judges", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let slept = 0n
      const waking: Clock.Clock = {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + Number(slept / 1_000_000n),
        currentTimeMillis: Effect.suspend(() => Effect.succeed(waking.currentTimeMillisUnsafe())),
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + slept,
        currentTimeNanos: Effect.suspend(() => Effect.succeed(waking.currentTimeNanosUnsafe())),
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + slept,
        monotonicTimeNanos: Effect.suspend(() => Effect.succeed(waking.monotonicTimeNanosUnsafe())),
        sleep: (duration) => clock.sleep(duration)
      }
      const { connection, wire } = yield* opened({
        liveness: WebSocket.liveness({ deadline: "30 seconds", ping: "ping" })
      }).pipe(
        Effect.provideService(Clock.Clock, waking)
      )
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(pings(wire), 1)
      slept = 3_600_000_000_000n
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      assert.strictEqual(pings(wire), 2)
      wire.events.received("still here")
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tags(yield* Fiber.join(fiber)), "Transient.TimedOut")
    }))

  /** A connection on a platform that says what happens to it, and how it ended. */
  const onPlatform = (liveness: WebSocket.Liveness) =>
    Effect.gen(function*() {
      const changes = yield* Queue.unbounded<Connectivity.Change>()
      const { connection, wire } = yield* opened({ liveness }).pipe(
        Effect.provideService(Connectivity.Connectivity, {
          online: Effect.succeed(true),
          changes: Stream.fromQueue(changes)
        })
      )
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(connection.messages)))
      yield* TestClock.adjust(0)
      return {
        wire,
        ended: () => fiber.pollUnsafe() !== undefined,
        error: Fiber.join(fiber),
        change: (change: Connectivity.Change) => Effect.andThen(Queue.offer(changes, change), TestClock.adjust(0))
      }
    })

  it.effect.each(["wake", "online"] as const)(
    "%s: asks at once, and judges once there was time to answer",
    (change) =>
      Effect.gen(function*() {
        const platform = yield* onPlatform(WebSocket.liveness({ deadline: "30 seconds", ping: "ping" }))
        yield* TestClock.adjust("2 seconds")
        platform.wire.events.received("news")
        yield* platform.change("offline")
        assert.strictEqual(pings(platform.wire), 0)
        yield* platform.change(change)
        assert.strictEqual(pings(platform.wire), 1)
        yield* TestClock.adjust("14999 millis")
        assert.isFalse(platform.ended())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(tags(yield* platform.error), "Transient.TimedOut")
        assert.strictEqual(pings(platform.wire), 1)
      })
  )

  it.effect("wake: a connection that answers stays, and is asked as before", () =>
    Effect.gen(function*() {
      const platform = yield* onPlatform(WebSocket.liveness({ deadline: "30 seconds", ping: "ping" }))
      yield* platform.change("wake")
      yield* TestClock.adjust("1 second")
      platform.wire.events.received("pong")
      yield* TestClock.adjust("15 seconds")
      assert.isFalse(platform.ended())
      assert.strictEqual(pings(platform.wire), 2)
      platform.wire.events.received("pong")
      yield* TestClock.adjust("14 seconds")
      assert.strictEqual(pings(platform.wire), 2)
      yield* TestClock.adjust("16 seconds")
      assert.strictEqual(tags(yield* platform.error), "Transient.TimedOut")
    }))

  it.effect("wake while it waits for an answer: asks once more, and gives time anew", () =>
    Effect.gen(function*() {
      const platform = yield* onPlatform(WebSocket.liveness({ deadline: "30 seconds", ping: "ping" }))
      yield* TestClock.adjust("29 seconds")
      assert.strictEqual(pings(platform.wire), 1)
      yield* platform.change("wake")
      assert.strictEqual(pings(platform.wire), 2)
      yield* TestClock.adjust("14 seconds")
      assert.isFalse(platform.ended())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tags(yield* platform.error), "Transient.TimedOut")
    }))

  it.effect("wake where nothing can be asked: no sooner than the deadline", () =>
    Effect.gen(function*() {
      const platform = yield* onPlatform(WebSocket.liveness({ deadline: "30 seconds" }))
      yield* TestClock.adjust("1 second")
      yield* platform.change("wake")
      yield* TestClock.adjust("28 seconds")
      assert.isFalse(platform.ended())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tags(yield* platform.error), "Transient.TimedOut")
    }))
})

describe("WebSocket: sending", () => {
  const full = { maxMessages: 2, maxBytes: 100_000 }
  const big = "x".repeat(70_000)

  /** A connection whose platform has more than enough to send. */
  const congested = (outbox: WebSocket.OutboxOptions, more: Partial<WebSocket.Options> = {}) =>
    Effect.gen(function*() {
      const made = yield* opened({ outbox, ...more }, { buffers: true })
      yield* made.connection.send(big)
      assert.strictEqual(made.wire.buffered, 70_000)
      return made
    })

  const send = (connection: WebSocket.Connection, message: WebSocket.Message) =>
    Effect.forkChild(Effect.exit(connection.send(message)), { startImmediately: true })

  const outcome = (fiber: Fiber.Fiber<Exit.Exit<void, { readonly _tag: string }>>) => {
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return "waits"
    if (!Exit.isSuccess(exit)) return "interrupted"
    return Exit.match(exit.value, {
      onSuccess: () => "sent",
      onFailure: (cause) =>
        cause.reasons.map((reason) => reason._tag === "Fail" ? reason.error._tag : reason._tag).join()
    })
  }

  it.effect("is handed over in order as the platform takes it, and answered then", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* congested({})
      const fibers = [
        yield* send(connection, "1"),
        yield* send(connection, "2"),
        yield* send(connection, Uint8Array.of(3))
      ]
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(fibers.map(outcome), ["waits", "waits", "waits"])
      assert.deepStrictEqual(yield* connection.waiting, { messages: 3, bytes: 70_003 })
      wire.buffered = 0
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(fibers.map(outcome), ["sent", "sent", "sent"])
      assert.deepStrictEqual(wire.sent.slice(1), ["1", "2", Uint8Array.of(3)])
      const later = yield* send(connection, "4")
      yield* TestClock.adjust(0)
      assert.strictEqual(outcome(later), "sent")
    }))

  it.effect("fail: what does not fit, by count and by bytes", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* congested({ ...full, overflow: "fail" })
      const fibers = [yield* send(connection, "1"), yield* send(connection, big), yield* send(connection, "2")]
      const third = yield* send(connection, "3")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([...fibers, third].map(outcome), ["waits", "Overflow", "waits", "Overflow"])
      wire.buffered = 0
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(wire.sent.slice(1), ["1", "2"])
    }))

  it.effect("by default 1000 messages and 1 MiB may wait, and what does not fit fails", () =>
    Effect.gen(function*() {
      const many = yield* congested({})
      for (let n = 0; n < 1000; n++) yield* send(many.connection, "x")
      const last = yield* send(many.connection, "x")
      assert.deepStrictEqual(yield* many.connection.waiting, { messages: 1000, bytes: 71_000 })
      const large = yield* congested({})
      const fits = yield* send(large.connection, new Uint8Array(1024 * 1024 - 70_000))
      const next = yield* send(large.connection, "x")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([last, fits, next].map(outcome), ["Overflow", "waits", "Overflow"])
      for (let n = 0; n < 2; n++) {
        for (const { wire } of [many, large]) wire.buffered = 0
        yield* TestClock.adjust("10 millis")
      }
      assert.strictEqual(outcome(fits), "sent")
    }))

  it.effect("dropOldest: the oldest senders are told", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* congested({ ...full, overflow: "dropOldest" })
      const fibers = []
      for (const message of ["1", "2", "3", "y".repeat(29_999), big]) fibers.push(yield* send(connection, message))
      yield* TestClock.adjust(0)
      // The last one does not fit even without any other.
      assert.deepStrictEqual(fibers.map(outcome), ["Overflow", "Overflow", "Overflow", "Overflow", "Overflow"])
      const fitting = [yield* send(connection, "4"), yield* send(connection, "5"), yield* send(connection, "6")]
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(fitting.map(outcome), ["Overflow", "waits", "waits"])
      wire.buffered = 0
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(wire.sent.slice(1), ["5", "6"])
    }))

  it.effect("suspend: senders wait, and one that leaves takes its message back", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* congested({ ...full, overflow: "suspend" })
      const fibers = []
      for (const message of ["1", "2", "3", "4"]) fibers.push(yield* send(connection, message))
      const [, second] = fibers
      if (second !== undefined) yield* Fiber.interrupt(second)
      wire.buffered = 0
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(fibers.map(outcome), ["sent", "interrupted", "sent", "sent"])
      assert.deepStrictEqual(wire.sent.slice(1), ["1", "3", "4"])
      assert.deepStrictEqual(yield* connection.waiting, { messages: 0, bytes: 3 })
    }))

  it.effect.each(["fail", "dropOldest", "suspend"] as const)(
    "%s: a message over the limit never fits",
    (overflow) =>
      Effect.gen(function*() {
        const { connection, wire } = yield* opened({ outbox: { maxBytes: 10, overflow } })
        const error = yield* Effect.flip(connection.send("ä".repeat(6)))
        assert.strictEqual(error._tag, "Overflow")
        yield* connection.send("ä".repeat(5))
        assert.deepStrictEqual(wire.sent, ["äääää"])
      })
  )

  it.effect("a connection that breaks answers all that wait with why", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* congested({ overflow: "suspend" })
      const fibers = [yield* send(connection, "1"), yield* send(connection, "2")]
      wire.events.closed({ code: 1012 })
      fibers.push(yield* send(connection, "3"))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(fibers.map(outcome), ["Transient", "Transient", "Transient"])
    }))

  it.effect("a platform that is closing takes nothing: the sender is told", () =>
    Effect.gen(function*() {
      const { connection, wire } = yield* opened()
      wire.isOpen = false
      assert.strictEqual(tags(yield* Effect.flip(connection.send("x"))), "Transient.Unreachable")
    }))

  const closing = Effect.fnUntraced(function*(answersClose: boolean) {
    const fake = Fake.make({ buffers: true, answersClose })
    const scope = yield* Scope.make()
    const connection = yield* fake.provide(Scope.provide(WebSocket.open({ url })(dial), scope))
    yield* connection.send(big)
    const waiting = yield* send(connection, "last words")
    const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
    yield* TestClock.adjust("1 second")
    return { closed, connection, waiting, wire: fake.last(), fake }
  })

  it.effect("closing sends what waits, takes no more, and says goodbye", () =>
    Effect.gen(function*() {
      const { closed, connection, fake, waiting, wire } = yield* closing(true)
      const tooLate = yield* send(connection, "too late")
      yield* TestClock.adjust(0)
      assert.strictEqual(outcome(tooLate), "Closed")
      assert.deepStrictEqual(wire.closes, [])
      wire.buffered = 0
      yield* TestClock.adjust("10 millis")
      assert.strictEqual(outcome(waiting), "sent")
      assert.deepStrictEqual(wire.sent.slice(1), ["last words"])
      assert.deepStrictEqual(wire.closes, [1000])
      yield* Fiber.join(closed)
      assert.strictEqual(fake.counts.open, 0)
    }))

  it.effect("closing is bounded: who was not sent is told", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      const { closed, fake, waiting, wire } = yield* Effect.provide(closing(false), Logger.layer([logger]))
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(outcome(waiting), "waits")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(outcome(waiting), "Closed")
      yield* Fiber.join(closed)
      // Also of what the platform took and did not send.
      assert.deepStrictEqual(lines, [`Warn ${url}: closed with 1 messages, 70010 bytes not sent`])
      assert.strictEqual(wire.terminated, 1)
      assert.strictEqual(fake.counts.open, 0)
    }))
})

describe("WebSocket: connect", () => {
  it.effect("yields frames with cursor and progress, after onOpen", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      const connect = WebSocket.connect<string>({
        url,
        cursorOf: (message) => message.split(":")[0],
        isProgress: (message) => message !== "9:hello",
        onOpen: (connection, { cursor }) => connection.send(`from ${cursor}`)
      })
      const frames = yield* fake.provide(connect({ cursor: "7", attempt: 1, generation: 2 }))
      const { events, sent } = fake.last()
      assert.deepStrictEqual(sent, ["from 7"])
      events.received("9:hello")
      events.received("10:news")
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(frames, 2)), [
        { value: "9:hello", cursor: "9", progress: false },
        { value: "10:news", cursor: "10", progress: true }
      ])
    }))

  it.effect("onOpen that fails or dies is a failure of this connection", () =>
    Effect.gen(function*() {
      const own = Classify.make("Forbidden", { operation: "subscribe", target: "prices" })
      for (
        const [onOpen, expected] of [
          [Effect.fail(own), "AuthFailed.Forbidden"],
          [Effect.die("bug"), "Transient.Unreachable"]
        ] as const
      ) {
        const fake = Fake.make()
        const error = yield* Effect.scoped(
          fake.provide(Effect.flip(WebSocket.connect({ url, onOpen: () => onOpen })(dial)))
        )
        assert.strictEqual(tags(error), expected)
        assert.strictEqual(fake.counts.open, 0)
      }
    }))

  it.effect("onOpen that hangs is given up at the deadline", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      const fiber = yield* Effect.forkChild(
        Effect.scoped(fake.provide(Effect.flip(WebSocket.connect({ url, onOpen: () => Effect.never })(dial))))
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(tags(yield* Fiber.join(fiber)), "Transient.TimedOut")
      assert.strictEqual(fake.counts.open, 0)
    }))
})

describe("WebSocket: stream", () => {
  it.effect("survives its connections: a new credential for each, and resumes after the last message", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      let credentials = 0
      const seen: Array<unknown> = []
      const fiber = yield* Effect.forkChild(fake.provide(Stream.runForEach(
        WebSocket.stream<string>({
          url: WebSocket.perDial(({ cursor = "0" }) => Effect.succeed(`${url}?after=${cursor}`)),
          credential: WebSocket.perDial(() => Effect.sync(() => ({ first: `key ${++credentials}` }))),
          cursorOf: (message) => message
        }),
        (message) => Effect.sync(() => void seen.push(message))
      )))
      for (let n = 1; n <= 5; n++) {
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(fake.wires.length, n)
        fake.last().events.received(String(n))
        yield* TestClock.adjust(0)
        fake.last().events.closed({ code: n % 2 === 0 ? 1006 : 1000 })
      }
      assert.deepStrictEqual(seen, ["1", "2", "3", "4", "5"])
      assert.deepStrictEqual(
        fake.wires.map(({ handshake }) => handshake.url),
        [0, 1, 2, 3, 4].map((n) => `${url}?after=${n}`)
      )
      assert.deepStrictEqual(fake.wires.map(({ sent }) => sent[0]), [1, 2, 3, 4, 5].map((n) => `key ${n}`))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(fake.counts.open, 0)
    }))

  it.effect("a provider that hangs, then rejects, then works: never wedged", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      let asked = 0
      const fiber = yield* Effect.forkChild(fake.provide(Stream.runHead(WebSocket.stream({
        url,
        credential: WebSocket.perDial(() =>
          Effect.suspend((): Effect.Effect<WebSocket.Credential, string> =>
            ++asked === 1
              ? Effect.uninterruptible(Effect.never)
              : asked === 2
              ? Effect.fail("down")
              : Effect.succeed({})
          )
        )
      }))))
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(asked, 3)
      fake.last().events.received("at last")
      assert.strictEqual(Option.getOrUndefined(yield* Fiber.join(fiber)), "at last")
    }))

  it.effect.each(
    [
      ["accepts and closes with 1000", (events: WebSocket.Events) => events.closed({ code: 1000 })],
      ["says hello and closes with 1006", (events: WebSocket.Events) => {
        events.received("hello")
        events.closed({ code: 1006 })
      }],
      ["closes with 1013", (events: WebSocket.Events) => events.closed({ code: 1013 })]
    ] as const
  )("a server that %s: at most 8 dials in any 10 s", ([, answer]) =>
    Effect.gen(function*() {
      const fake = Fake.make()
      const fiber = yield* Effect.forkChild(fake.provide(Stream.runDrain(WebSocket.stream({ url }))))
      const dials: Array<number> = []
      for (let at = 0; at < 120_000; at += 100) {
        yield* TestClock.adjust("100 millis")
        for (const { events } of fake.wires.slice(dials.length)) {
          dials.push(at)
          answer(events)
        }
      }
      yield* Fiber.interrupt(fiber)
      assert.isAbove(dials.length, 3)
      for (const from of dials) assert.isAtMost(dials.filter((at) => at >= from && at <= from + 10_000).length, 8)
    }))

  it.effect.each([[1012, true], [1013, true], [1006, false]] as const)(
    "after %i it waits the base at least: %s",
    ([code, isSpared]) =>
      Effect.gen(function*() {
        const fake = Fake.make()
        const policy = Backoff.make({ base: "4 seconds", jitter: "full", floor: 0 })
        const fiber = yield* Effect.forkChild(fake.provide(Stream.runDrain(WebSocket.stream({ url, policy }))))
        yield* TestClock.adjust(0)
        fake.last().events.received("hello")
        yield* TestClock.adjust(0)
        fake.last().events.closed({ code })
        yield* TestClock.adjust("3999 millis")
        assert.strictEqual(fake.wires.length, isSpared ? 1 : 2)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(fake.wires.length, 2)
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.provideService(Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => 0.01 }))
  )

  it.effect("a refused credential: one dial", () =>
    Effect.gen(function*() {
      const fake = Fake.make()
      const fiber = yield* Effect.forkChild(fake.provide(Effect.flip(Stream.runDrain(WebSocket.stream({ url })))))
      yield* TestClock.adjust(0)
      fake.last().events.closed({ code: 4401 })
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "AuthFailed")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(fake.wires.length, 1)
    }))
})
