// The tunnel in virtual time, over connections within the process: deadlines, handshakes, copying, limits, what is told. The
// first connection is the control connection; then come those to the server and to the service as they are dialled.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import { Dialer } from "effect-lifeline/Dialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as BoreServer from "./support/boreServer.ts"
import * as Dialers from "./support/memoryDialer.ts"
import * as Seen from "./support/seen.ts"

const secret = "open sesame"
const uuid = "6f1a2b3c-4d5e-4f60-8172-93a4b5c6d7e8"
const server = "relay.example:7835"
const service = "localhost:3000"
const accept = `{"Accept":"${uuid}"}\0`
const challenge = BoreServer.frame({ Challenge: uuid })
const proof = `{"Authenticate":"${BoreServer.answerOf(secret, uuid)}"}\0`

const settled = Effect.repeat(TestClock.adjust(0), { times: 50 })

/** WebCrypto answers in its own time: looks again and again, at most 15 seconds. */
const until = (isSo: () => boolean) =>
  Effect.gen(function*() {
    yield* settled
    for (let n = 0; n < 1500 && !isSo(); n++) {
      yield* TestClock.withLive(Effect.sleep("10 millis"))
      yield* settled
    }
    assert.isTrue(isSo())
  })

const tags = (error: { readonly _tag: string; readonly reason?: unknown } | undefined) => {
  const { reason } = (error ?? {}) as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error?._tag : `${error?._tag}.${reason._tag}`
}

/** What an event says, without when. */
const told = (event: Tunnel.Event): string => {
  const cause = "cause" in event && event.cause !== undefined ? ` ${tags(event.cause)}` : ""
  const bytes = event._tag === "Closed" ? ` ${event.bytesIn}/${event.bytesOut}` : ""
  return `${event.connection} ${event._tag}${bytes}${cause}`
}

/** A tunnel that has a port; `start` is what data connections do as they open. */
const open = Effect.fnUntraced(function*(
  options: Partial<Tunnel.Options & { readonly reconnect: Backoff.Unbounded }> = {},
  start: (far: Dialers.Far, n: number) => Effect.Effect<void, unknown> = () => Effect.void
) {
  const events: Array<string> = []
  const logged: Array<string> = []
  const asked = options.secret !== undefined
  const dialer = Dialers.make((far, n) =>
    n > 0 ? start(far, n) : asked ? far.send(challenge) : far.send(BoreServer.frame({ Hello: 4000 }))
  )
  const logger = Logger.make(({ logLevel, message }) => {
    logged.push(`${logLevel}: ${String(message)}`)
  })
  const tunnel = yield* Tunnel.make({
    server: { host: "relay.example" },
    local: { port: 3000 },
    // Nobody beats in here.
    liveness: { deadline: "1 hour" },
    ...options
  }).pipe(Effect.provideService(Dialer, dialer.service), Effect.provide(Logger.layer([logger])))
  yield* Effect.forkScoped(
    Stream.runForEach(tunnel.events, (event) => Effect.sync(() => events.push(told(event)))),
    { startImmediately: true }
  )
  if (asked) {
    yield* until(() => dialer.all[0]?.received() === proof)
    yield* TestClock.adjust("200 millis")
    yield* settled
    yield* dialer.all[0]?.send(BoreServer.frame({ Hello: 4000 })) ?? Effect.void
  }
  assert.deepStrictEqual(yield* tunnel.channel.session, { port: 4000 })
  const far = (n: number): Dialers.Far => {
    const found = dialer.all[n]
    if (found === undefined) throw new Error(`there is no connection ${n}`)
    return found
  }
  /** Somebody comes. */
  const visit = (id = uuid) => Effect.andThen(far(0).send(BoreServer.frame({ Connection: id })), settled)
  const warnings = () => logged.filter((line) => line.startsWith("Warn"))
  return { tunnel, events, logged, warnings, all: dialer.all, far, visit }
})

describe("Tunnel: opening a data connection", () => {
  it.effect("accepts, then connects to the service, then copies both ways", () =>
    Effect.gen(function*() {
      const { all, events, far, tunnel, visit } = yield* open()
      yield* visit()
      assert.deepStrictEqual(all.map(({ to }) => to), [server, server, service])
      assert.strictEqual(far(1).received(), accept)
      yield* far(1).send("GET /", " HTTP/1.1")
      yield* far(2).send("200")
      yield* settled
      assert.strictEqual(far(2).received(), "GET / HTTP/1.1")
      assert.strictEqual(far(1).received(), `${accept}200`)
      assert.deepStrictEqual(yield* tunnel.stats, {
        open: 1,
        opened: 1,
        closed: 0,
        failed: 0,
        bytesIn: 14,
        bytesOut: 3
      })
      yield* far(1).end
      yield* settled
      assert.deepStrictEqual(far(2).fate, ["end"])
      yield* far(2).send(" OK")
      yield* far(2).end
      yield* settled
      assert.strictEqual(far(1).received(), `${accept}200 OK`)
      assert.deepStrictEqual([far(1).fate, far(2).fate], [["end", "closed"], ["end", "closed"]])
      assert.deepStrictEqual(events, ["1 Opened", "1 Closed 14/6"])
    }))

  it.effect("with a secret: proves it, and does not wait for what would be an answer", () =>
    Effect.gen(function*() {
      const { events, far, visit } = yield* open({ secret: Redacted.make(secret) }, (far, n) =>
        n === 1 ? far.send(challenge.slice(0, 20), challenge.slice(20)) : Effect.void)
      yield* visit()
      yield* until(() =>
        far(1).received() === proof + accept
      )
      assert.deepStrictEqual(events, ["1 Opened"])
    }))

  it.effect("what comes in one piece with the challenge is the visitor's", () =>
    Effect.gen(function*() {
      const { all, visit } = yield* open({ secret: Redacted.make(secret) }, (far, n) =>
        n === 1 ? far.send(`${challenge}one\0`, "two\0") : Effect.void)
      yield* visit()
      yield* until(() =>
        all[2]?.received() === "one\0two\0"
      )
    }))

  it.effect.each<readonly [string, string, string | undefined]>([
    ["it asks for nothing", "{\"Hello\":1}\0", "AuthFailed.NotChallenged"],
    ["it refuses at once", "{\"Error\":\"no\"}\0", "Inconclusive"],
    ["a challenge that is not a UUID", "{\"Challenge\":\"me\"}\0", "Inconclusive"],
    ["what is none of the protocol", "HTTP/1.1 400 Bad Request\0", "Inconclusive"],
    ["a frame that is too long", "x".repeat(257), "Inconclusive"],
    ["the end", "", "Transient.Unreachable"]
  ])("a server that answers otherwise: %s", ([, says, expected]) =>
    Effect.gen(function*() {
      const { all, events, far, visit } = yield* open({ secret: Redacted.make(secret) }, (far, n) =>
        n !== 1 ? Effect.void : says === "" ? far.end : far.send(says))
      yield* visit()
      yield* until(() =>
        events.length > 0
      )
      assert.deepStrictEqual(events, [`1 Failed ${expected}`])
      assert.deepStrictEqual(far(1).fate, ["reset", "closed"])
      // The service was not bothered.
      assert.strictEqual(all.length, 2)
    }))

  it.effect("what it is called by must be a UUID", () =>
    Effect.gen(function*() {
      const { all, events, visit } = yield* open()
      yield* visit("me")
      assert.deepStrictEqual(events, ["1 Failed Inconclusive"])
      assert.strictEqual(all.length, 1)
    }))

  it.effect.each<
    readonly [
      string,
      (far: Dialers.Far, n: number) => Effect.Effect<void, unknown>,
      (all: ReadonlyArray<Dialers.Far>) => boolean
    ]
  >([
    ["connecting to the server", (_, n) => n === 1 ? Effect.never : Effect.void, (all) => all.length === 2],
    ["its challenge", () => Effect.void, (all) => all.length === 2],
    [
      "writing to it",
      (far, n) => n === 1 ? Effect.andThen(far.room.close, far.send(challenge)) : Effect.void,
      (all) => all[1]?.received() === proof
    ],
    [
      "connecting to the service",
      (far, n) => n === 1 ? far.send(challenge) : Effect.never,
      (all) => all.length === 3
    ]
  ])("3 seconds for each step: %s", ([, start, isThere]) =>
    Effect.gen(function*() {
      const { all, events, far, tunnel, visit } = yield* open({ secret: Redacted.make(secret) }, start)
      yield* visit()
      yield* until(() => isThere(all))
      yield* TestClock.adjust("2999 millis")
      yield* settled
      assert.deepStrictEqual(events, [])
      assert.strictEqual((yield* tunnel.stats).open, 1)
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.deepStrictEqual(events, ["1 Failed Transient.TimedOut"])
      for (const { fate } of all.slice(1)) assert.include(fate, "closed")
      assert.deepStrictEqual(far(0).fate, [])
      assert.strictEqual((yield* tunnel.stats).open, 0)
    }))

  it.effect("a service that is not there: one line, what to do, and who came is hung up on; the next one may have luck", () =>
    Effect.gen(function*() {
      const { events, far, visit, warnings } = yield* open(
        {},
        (_, n) => n === 2 ? Effect.fail(Object.assign(new Error("no"), { code: "ECONNREFUSED" })) : Effect.void
      )
      yield* visit()
      assert.deepStrictEqual(events, ["1 Failed Transient.Unreachable"])
      assert.deepStrictEqual(far(1).fate, ["reset", "closed"])
      assert.deepStrictEqual(warnings(), [
        "Warn: connect to the local service (localhost:3000) failed for now: no usable answer: ECONNREFUSED; " +
        "check that it runs and can be reached"
      ])
      yield* visit()
      assert.deepStrictEqual(events.slice(1), ["2 Opened"])
    }))

  it.effect("however many fail, there is one warning a second, which counts those before it", () =>
    Effect.gen(function*() {
      const { events, visit, warnings } = yield* open(
        {},
        (_, n) => n % 2 === 0 ? Effect.fail("no") : Effect.void
      )
      for (let n = 0; n < 20; n++) yield* visit()
      assert.strictEqual(warnings().length, 1)
      yield* TestClock.adjust("1 second")
      yield* visit()
      assert.strictEqual(warnings().length, 2)
      assert.include(warnings()[1], "19 before it")
      assert.strictEqual(events.length, 21)
    }))
})

describe("Tunnel: a refusal of the proof", () => {
  const refusal = BoreServer.frame({ Error: "invalid secret" })

  const opened = Effect.gen(function*() {
    const it = yield* open({ secret: Redacted.make(secret) }, (far, n) => n === 1 ? far.send(challenge) : Effect.void)
    yield* it.visit()
    yield* until(() => it.events.length === 1)
    return it
  })

  it.effect("is the first and the last of what comes", () =>
    Effect.gen(function*() {
      const { events, far, warnings } = yield* opened
      yield* far(1).send(refusal)
      yield* far(1).end
      yield* settled
      assert.deepStrictEqual(events, ["1 Opened", "1 Closed 0/0 AuthFailed.Unauthorized"])
      assert.strictEqual(far(2).received(), "")
      assert.include(warnings()[0], "invalid secret")
    }))

  it.effect("is none when more comes", () =>
    Effect.gen(function*() {
      const { far } = yield* opened
      yield* far(1).send(refusal)
      yield* settled
      assert.strictEqual(far(2).received(), "")
      yield* far(1).send("more")
      yield* far(1).end
      yield* settled
      assert.strictEqual(far(2).received(), `${refusal}more`)
      assert.deepStrictEqual(far(2).fate, ["end"])
    }))

  it.effect("is none when it does not end within 200 ms", () =>
    Effect.gen(function*() {
      const { far } = yield* opened
      yield* far(1).send(refusal)
      yield* settled
      yield* TestClock.adjust("199 millis")
      assert.strictEqual(far(2).received(), "")
      yield* TestClock.adjust("1 millis")
      yield* settled
      assert.strictEqual(far(2).received(), refusal)
    }))

  it.effect("is none later on", () =>
    Effect.gen(function*() {
      const { events, far } = yield* opened
      yield* far(1).send("x", refusal)
      yield* far(1).end
      yield* far(2).end
      yield* settled
      assert.strictEqual(far(2).received(), `x${refusal}`)
      assert.deepStrictEqual(events.slice(1), [`1 Closed ${refusal.length + 1}/0`])
    }))
})

describe("Tunnel: copying", () => {
  it.effect("reads no further than the other side takes", () =>
    Effect.gen(function*() {
      const { far, tunnel, visit } = yield* open()
      yield* visit()
      yield* far(2).room.close
      yield* far(1).send("one", "two", "three")
      yield* settled
      assert.strictEqual(far(2).received(), "one")
      assert.strictEqual((yield* tunnel.stats).bytesIn, 0)
      // The other direction is not held up.
      yield* far(2).send("answer")
      yield* settled
      assert.strictEqual(far(1).received(), `${accept}answer`)
      yield* far(2).room.open
      yield* settled
      assert.strictEqual(far(2).received(), "onetwothree")
      assert.strictEqual((yield* tunnel.stats).bytesIn, 11)
    }))

  it.effect.each([["the server", 1], ["the service", 2]] as const)(
    "a failure of %s resets both, whether one reads or writes, and costs nobody else",
    ([, n]) =>
      Effect.gen(function*() {
        const { events, far, visit, warnings } = yield* open()
        yield* visit()
        yield* visit()
        yield* far(n).fail(Object.assign(new Error("reset"), { code: "ECONNRESET" }))
        yield* settled
        assert.deepStrictEqual(events, ["1 Opened", "2 Opened", "1 Closed 0/0 Transient.Unreachable"])
        assert.deepStrictEqual([far(1).fate, far(2).fate], [["reset", "closed"], ["reset", "closed"]])
        assert.deepStrictEqual([far(3).fate, far(4).fate], [[], []])
        // Visitors do such things.
        assert.deepStrictEqual(warnings(), [])
        // One that writes, and waits for room.
        yield* far(n + 2).room.close
        yield* far(5 - n).send("x")
        yield* settled
        yield* far(n + 2).fail(new Error("gone"))
        yield* settled
        assert.deepStrictEqual(far(5 - n).fate, ["reset", "closed"])
      })
  )

  it.effect("says on which side it failed, and does not say what passed", () =>
    Effect.gen(function*() {
      const seen = Seen.make()
      const { events, far, logged, tunnel, visit } = yield* open({ secret: Redacted.make(secret) }, (far, n) =>
        n === 1 ? far.send(challenge) : Effect.void)
      const closed = yield* Effect.forkChild(
        Stream.runHead(Stream.filter(tunnel.events, ({ _tag }) =>
          _tag === "Closed")),
        { startImmediately: true }
      )
      yield* visit()
      yield* until(() => events.length === 1)
      yield* far(1).send("a private letter")
      yield* settled
      yield* far(2).fail(new Error("reset"))
      yield* settled
      const exit = closed.pollUnsafe()
      assert(exit !== undefined && Exit.isSuccess(exit))
      seen.showExit("closed", exit)
      assert.include(seen.out.join("\n"), "carry a connection (localhost:3000)")
      const all = seen.out.join("\n") + logged.join("\n")
      for (const text of [secret, proof.slice(17, 40), "private"]) assert.notInclude(all, text)
    }))
})

describe("Tunnel: limits, and the end", () => {
  it.effect("beyond maxConnections none is taken up, until one is over", () =>
    Effect.gen(function*() {
      const { all, events, far, tunnel, visit, warnings } = yield* open({ maxConnections: 2 })
      for (let n = 0; n < 3; n++) yield* visit()
      assert.deepStrictEqual(events, ["1 Opened", "2 Opened", "3 Failed TooMany"])
      assert.strictEqual(all.length, 5)
      assert.include(warnings()[0], "raise maxConnections")
      yield* far(1).end
      yield* far(2).end
      yield* visit()
      assert.deepStrictEqual(events.slice(3), ["1 Closed 0/0", "4 Opened"])
      assert.deepStrictEqual(yield* tunnel.stats, { open: 2, opened: 3, closed: 1, failed: 1, bytesIn: 0, bytesOut: 0 })
    }))

  it.effect("the control connection may be lost, closed and refused: what is open goes on", () =>
    Effect.gen(function*() {
      const { events, far, tunnel, visit } = yield* open({ reconnect: Backoff.boreControl })
      yield* visit()
      yield* far(0).fail(new Error("reset"))
      yield* settled
      yield* far(1).send("one")
      yield* settled
      assert.strictEqual(far(2).received(), "one")
      yield* TestClock.adjust("1250 millis")
      yield* settled
      assert.strictEqual(far(3).received(), "{\"Hello\":4000}\0")
      yield* tunnel.channel.close
      assert.strictEqual(tags(yield* Effect.flip(tunnel.ended)), "Closed.Shutdown")
      yield* far(1).send("two")
      yield* settled
      assert.strictEqual(far(2).received(), "onetwo")
      assert.deepStrictEqual(events, ["1 Opened"])
    }))

  it.effect("ends with the channel's error", () =>
    Effect.gen(function*() {
      const dialer = Dialers.make((far) => far.send(BoreServer.frame({ Error: "not that one" })))
      const tunnel = yield* Tunnel.make({ server: { host: "relay.example", port: 1 }, local: { port: 3000 }, port: 80 })
        .pipe(Effect.provideService(Dialer, dialer.service))
      assert.strictEqual(tags(yield* Effect.flip(tunnel.ended)), "Refused.Conflict")
      assert.strictEqual(dialer.all[0]?.to, "relay.example:1")
      const alone = yield* Tunnel.make({ server: { host: "::1" }, local: { port: 3000 }, reconnect: false })
        .pipe(Effect.provideService(Dialer, Dialers.make(() => Effect.fail("no")).service))
      const error = yield* Effect.flip(alone.ended)
      assert.strictEqual(error._tag, "Disconnected")
      assert.include(error.message, "connect ([::1]:7835)")
    }))

  it.effect("the end of the scope resets all, also those that are being opened, and ends the events", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { all, events, tunnel, visit } = yield* Scope.provide(
        open({}, (_, n) => n === 4 ? Effect.never : Effect.void),
        scope
      )
      const ended = yield* Effect.forkChild(Stream.runCollect(tunnel.events), { startImmediately: true })
      yield* visit()
      yield* visit()
      assert.deepStrictEqual(events, ["1 Opened"])
      yield* Scope.close(scope, Exit.void)
      yield* settled
      assert.deepStrictEqual(all.slice(1).map(({ fate }) => fate), [
        ["reset", "closed"],
        ["reset", "closed"],
        ["reset", "closed"],
        ["closed"]
      ])
      const exit = ended.pollUnsafe()
      assert(exit !== undefined && Exit.isSuccess(exit))
      assert.deepStrictEqual(exit.value.map(told), ["1 Opened", "1 Closed 0/0 Shutdown"])
      assert.strictEqual(tags(yield* Effect.flip(tunnel.ended)), "Closed.Shutdown")
      assert.deepStrictEqual(yield* tunnel.stats, { open: 0, opened: 1, closed: 1, failed: 0, bytesIn: 0, bytesOut: 0 })
    }))

  it.effect("a driver with a bug costs one connection, and is logged as what it is", () =>
    Effect.gen(function*() {
      const { events, logged, visit } = yield* open(
        {},
        (_, n) => n === 2 ? Effect.die(new Error("a bug")) : Effect.void
      )
      yield* visit()
      yield* visit()
      assert.deepStrictEqual(events, ["1 Failed Inconclusive", "2 Opened"])
      assert.include(logged.find((line) => line.startsWith("Error")), "a bug")
    }))

  it.effect("metrics", () =>
    Effect.gen(function*() {
      const { far, visit } = yield* open({}, (_, n) => n === 4 ? Effect.fail("no") : Effect.void)
      yield* visit()
      yield* far(1).send("12345")
      yield* far(2).send("678")
      yield* settled
      const values = Effect.map(Metric.snapshot, (all) =>
        all.filter(({ id }) =>
          id.startsWith("lifeline_tunnel")
        ).map(({ attributes, id, state }) =>
          `${id} ${Object.values(attributes ?? {}).join()} ${
            "count" in state ? state.count : "value" in state ? state.value : ""
          }`
        ).toSorted())
      yield* visit()
      yield* far(1).end
      yield* far(2).end
      yield* settled
      assert.deepStrictEqual(yield* values, [
        "lifeline_tunnel_bytes_total in 5",
        "lifeline_tunnel_bytes_total out 3",
        "lifeline_tunnel_connections_total Transient 1",
        "lifeline_tunnel_connections_total ok 1",
        "lifeline_tunnel_open  0"
      ])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
})
