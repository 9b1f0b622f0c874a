/**
 * Streams over connections that break, through a proxy that breaks them: silence at each stage, half-open connections, ends
 * in the middle of anything. Whatever it is, each event is handed over once, in order, and nothing is left open.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import type { AuthFailed, Exhausted, NoProgress, Refused } from "effect-lifeline/LifelineError"
import * as Listener from "effect-lifeline/Listener"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as FaultProxy from "../support/faultProxy.ts"
import * as Feed from "../support/feed.ts"
import * as HungPort from "../support/hungPort.ts"
import * as Leaks from "../support/leaks.ts"
import * as Watch from "../support/runtimes/Watch.ts"
import * as WebSocketServer from "../support/webSocketServer.ts"

const policy = Backoff.make({ base: 1, factor: 1, cap: 1, floor: 0, jitter: "none" })

/** Silence is noticed after so long; what lives says something four times as often. */
const deadline = "900 millis"
const keepAlive = 100

interface Client {
  readonly name: string
  /** What follows a feed, as the data of its events; everything that could wait for long has a short deadline. */
  readonly follow: (port: number) => Stream.Stream<string, unknown>
  /** Whether it can cut off a connection whose other side does not answer. */
  readonly cutsOff: boolean
  readonly isCutAnywhere: boolean
}

const eventSource = (layer: Layer.Layer<HttpClient.HttpClient>) => (port: number) =>
  EventSource.stream(`http://127.0.0.1:${port}/events`, {
    policy,
    connectTimeout: deadline,
    idleTimeout: deadline,
    noProgressLimit: Infinity
  }).pipe(Stream.map((event) => event._tag === "Gap" ? "gap" : event.data), Stream.provide(layer))

const webSocket = (layer: Layer.Layer<never>, ping: string | undefined) => (port: number) =>
  WebSocket.stream({
    url: WebSocket.perDial((dial: Reconnect.Dial<string>) =>
      Effect.succeed(`ws://127.0.0.1:${port}/?after=${dial.cursor ?? 0}`)
    ),
    cursorOf: Feed.numberOf,
    policy,
    connectWithin: deadline,
    closeWithin: "100 millis",
    liveness: WebSocket.liveness({ deadline, ping, isPong: (message) => message === "pong" }),
    noProgressLimit: Infinity
  }).pipe(Stream.map((message) => typeof message === "string" ? message : "gap"), Stream.provide(layer))

const clients: ReadonlyArray<Client> = [
  { name: "EventSource over fetch", follow: eventSource(FetchHttpClient.layer), cutsOff: true, isCutAnywhere: true },
  {
    name: "EventSource over undici",
    follow: eventSource(NodeHttpClient.layerUndici),
    cutsOff: true,
    isCutAnywhere: false
  },
  {
    name: "EventSource over node:http",
    follow: eventSource(NodeHttpClient.layerNodeHttp),
    cutsOff: true,
    isCutAnywhere: false
  },
  { name: "Node's WebSocket", follow: webSocket(Layer.empty, "ping"), cutsOff: false, isCutAnywhere: false },
  { name: "WebSocket by ws", follow: webSocket(NodeWebSocket.layer, undefined), cutsOff: true, isCutAnywhere: true }
]

/** Follows in the background; gives what came, and waits for more. */
const reading = Effect.fnUntraced(function*(client: Client, port: number) {
  const seen = Watch.make<string>((data) => data)
  yield* client.follow(port).pipe(
    Stream.runForEach((data) => Effect.sync(() => seen.add(data))),
    Effect.matchCause({ onSuccess: () => seen.end("the stream ended"), onFailure: (cause) => seen.end(String(cause)) }),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.forkScoped
  )
  return {
    seen: seen.seen,
    until: (count: number) => seen.until(`${count} events`, ({ length }) => length >= count || undefined)
  }
})

/** Runs each case by itself, all at the same time; they leave nothing behind. */
const each = <A extends { readonly name: string }, E, R>(
  cases: ReadonlyArray<A>,
  test: (one: A) => Effect.Effect<void, E, R>,
  concurrency: number | "unbounded" = "unbounded"
) =>
  Effect.gen(function*() {
    const fibers = Leaks.fiberCounter()
    const left = yield* Leaks.resources
    const problems = yield* fibers.watch(Effect.forEach(
      cases,
      (one) =>
        Effect.matchCause(Effect.scoped(test(one)), {
          onSuccess: () => [],
          onFailure: (cause) => [`${one.name}: ${Cause.pretty(cause)}`]
        }),
      { concurrency }
    ))
    assert.strictEqual(problems.flat().join("\n"), "")
    assert.strictEqual(yield* fibers.left, 0, "fibers")
    assert.deepStrictEqual(yield* left, [], "resources")
  })

const everyone = clients.map((client) => ({ name: client.name, client }))

type Break = (link: FaultProxy.Link) => void

/** Of a connection that is open and works, three events having come. Others come once it is broken. */
const whileOpen: ReadonlyArray<readonly [string, Break]> = [
  ["half-open: nothing arrives, in either direction", (link) => link.fault("both", "drop")],
  ["nothing arrives from the server", (link) => link.fault("down", "drop")],
  ["a reset", (link) => link.reset()],
  ["an end", (link) => link.close()],
  ["silence: everything is held up", (link) => link.fault("both", "hold")],
  ...(["reset", "close", "drop", "hold"] as const).map((then) =>
    [
      `in the middle of an event: ${then}`,
      (link: FaultProxy.Link) => link.fault("down", { after: link.passed("down") + 11, then })
    ] as const
  )
]

/** Of a connection from its first moment on. */
const fromTheStart: ReadonlyArray<readonly [string, Break]> = [
  ["a reset as soon as it is connected", (link) => link.reset()],
  ["an end as soon as it is connected", (link) => link.close()],
  ["connected, and silence: nothing is read", (link) => link.fault("both", "hold")],
  ["connected, and silence: the request is lost", (link) => link.fault("up", "drop")],
  ["connected, and silence: the answer is lost", (link) => link.fault("down", "drop")],
  ["half of the request arrives", (link) => link.fault("up", { after: 30, then: "drop" })],
  ...(["reset", "close", "drop", "hold"] as const).map((then) =>
    [
      `in the middle of the answer's head: ${then}`,
      (link: FaultProxy.Link) => link.fault("down", { after: 30, then })
    ] as const
  )
]

const withEach = (rows: ReadonlyArray<readonly [string, Break]>) =>
  clients.flatMap((client) => rows.map(([row, act]) => ({ name: `${client.name}, ${row}`, client, act })))

/**
 * Where a cut may be: from before the first byte of the answer to behind its last. For clients that differ from another one
 * but in how they connect, every third place will do.
 */
const everywhere = (length: number, client: Client) =>
  Array.from({ length: length + 1 }, (_, at) => at).filter((at) => client.isCutAnywhere || at % 3 === 0)

describe("streams over connections that break", () => {
  it.live(
    "while they are open: resumed after the last event that came, without loss or repetition",
    () =>
      each(withEach(whileOpen), ({ act, client, name }) =>
        Effect.gen(function*() {
          const feed = yield* Feed.make({ first: 3, keepAlive })
          const proxy = yield* FaultProxy.make(feed.port)
          const events = yield* reading(client, proxy.port)
          yield* events.until(3)
          const [first] = proxy.links
          if (first === undefined) return assert.fail("no connection")
          act(first)
          feed.publish(6)
          yield* events.until(6)
          assert.deepStrictEqual(events.seen, Feed.numbers(6))
          assert.deepStrictEqual(feed.asked, [0, 3])
          // The old connection is left, not forgotten. Where everything is held up, the proxy cannot see that.
          if (client.cutsOff && !name.includes("silence")) {
            yield* proxy.until("the old connection is left", () => !first.isOpen().client || undefined)
          }
        })),
    60_000
  )

  it.live(
    "before anything came: the next one brings everything",
    () =>
      each(withEach(fromTheStart), ({ act, client }) =>
        Effect.gen(function*() {
          const feed = yield* Feed.make({ first: 3, keepAlive })
          const proxy = yield* FaultProxy.make(feed.port, (link) => {
            if (link.n === 0) act(link)
          })
          const events = yield* reading(client, proxy.port)
          yield* events.until(3)
          assert.deepStrictEqual(events.seen, Feed.numbers(3))
          // The first may have got as far as the server.
          assert.isAtMost(feed.asked.length, 2)
          assert.deepStrictEqual([...new Set(feed.asked)], [0])
        })),
    60_000
  )

  it.live(
    "slow ones are not silent: a delay is no reason to leave",
    () =>
      each(everyone, ({ client }) =>
        Effect.gen(function*() {
          const feed = yield* Feed.make({ first: 1, keepAlive })
          const proxy = yield* FaultProxy.make(feed.port, (link) => link.fault("both", { delay: 60 }))
          const events = yield* reading(client, proxy.port)
          for (let n = 2; n <= 12; n++) {
            yield* Effect.sleep("20 millis")
            feed.publish(n)
          }
          yield* events.until(12)
          assert.deepStrictEqual(events.seen, Feed.numbers(12))
          assert.deepStrictEqual(feed.asked, [0])
        })),
    60_000
  )

  it.live(
    "nor are those that only say that they are there",
    () =>
      each(everyone, ({ client }) =>
        Effect.gen(function*() {
          const feed = yield* Feed.make({ first: 1, keepAlive })
          const events = yield* reading(client, feed.port)
          yield* events.until(1)
          yield* Effect.sleep("1500 millis")
          feed.publish(2)
          yield* events.until(2)
          assert.deepStrictEqual(feed.asked, [0])
        })),
    60_000
  )

  for (const [n, client] of clients.entries()) {
    it.live(`cut anywhere in the answer: ${client.name}`, () =>
      Effect.gen(function*() {
        const feed = yield* Feed.make({ first: 4 })
        const whole = yield* FaultProxy.make(feed.port)
        yield* Effect.scoped(Effect.flatMap(reading(client, whole.port), (events) => events.until(4)))
        const length = whole.links[0]?.passed("down") ?? 0
        assert.isAbove(length, 100)
        const cuts = everywhere(length, client).map((at) => {
          const then = (at + n) % 2 === 0 ? "reset" : "close"
          return { name: `${then} at ${at} of ${length}`, fault: { after: at, then } } as const
        })
        yield* each(
          cuts,
          ({ fault }) =>
            Effect.gen(function*() {
              const proxy = yield* FaultProxy.make(feed.port, (link) => {
                if (link.n === 0) link.fault("down", fault)
              })
              const events = yield* reading(client, proxy.port)
              yield* events.until(4)
              assert.deepStrictEqual(events.seen, Feed.numbers(4))
            }),
          20
        )
      }).pipe(Effect.scoped), 60_000)
  }

  it.live("a listener: what was subscribed is so on the next connection, and gets what comes there", () => {
    // Cuts in the middle of something are the transport's business.
    const rows = whileOpen.filter(([row]) => !row.startsWith("in the middle"))
    const cases = ([["Node's own", Layer.empty, "ping"], ["ws", NodeWebSocket.layer, undefined]] as const).flatMap(
      ([platform, layer, ping]) => rows.map(([row, act]) => ({ name: `${platform}, ${row}`, act, layer, ping }))
    )
    return each(cases, ({ act, layer, ping }) =>
      Effect.gen(function*() {
        const asked: Array<string> = []
        const server = yield* WebSocketServer.make({
          open: (socket, _, __, n) =>
            socket.on("message", (message) => {
              const key = String(message)
              if (key === "ping") return socket.send("pong")
              asked.push(`${key} ${n}`)
              socket.send(`${key} ${n}`)
            })
        })
        const proxy = yield* FaultProxy.make(Number(new URL(server.url).port))
        const listener = yield* Listener.make({
          connect: WebSocket.open({
            url: `ws://127.0.0.1:${proxy.port}/`,
            connectWithin: deadline,
            closeWithin: "100 millis",
            liveness: WebSocket.liveness({ deadline, ping, isPong: (message) => message === "pong" })
          }),
          route: (message: string) => message.split(" ")[0],
          subscribe: (key: string) => key,
          policy
        })
        const seen = Watch.make<string>((message) => message)
        for (const key of ["a", "b"]) {
          const { messages } = yield* listener.subscribe(key)
          yield* Effect.forkScoped(
            Effect.exit(Stream.runForEach(messages, (message) => Effect.sync(() => seen.add(message))))
          )
        }
        const until = (count: number) => seen.until(`${count} messages`, ({ length }) => length >= count || undefined)
        yield* until(2)
        const [first] = proxy.links
        if (first === undefined) return assert.fail("no connection")
        act(first)
        yield* until(4)
        const twice = ["a 1", "a 2", "b 1", "b 2"]
        assert.deepStrictEqual(seen.seen.toSorted(), twice)
        assert.deepStrictEqual(asked.toSorted(), twice)
      }).pipe(Effect.provide(layer), Effect.provideService(References.MinimumLogLevel, "None")))
  }, 60_000)

  // What fetch began, a connection that does not come about, it keeps for 10 s, whoever left.
  it.live.each([["fetch and its kin", true], ["the others", false]] as const)(
    "whoever cannot even connect is told so, in time, and leaves nothing: %s",
    ([, byFetch]) =>
      Effect.gen(function*() {
        const port = yield* HungPort.make
        const bounded = Reconnect.bounded(Backoff.make({ base: 1, cap: 1, floor: 0, jitter: "none", attempts: 2 }))
        const http = byFetch ? [FetchHttpClient.layer, NodeHttpClient.layerUndici] : [NodeHttpClient.layerNodeHttp]
        const streams: ReadonlyArray<Stream.Stream<unknown, Exhausted | AuthFailed | Refused | NoProgress>> = [
          ...http.map((layer) =>
            EventSource.stream(`http://127.0.0.1:${port}/`, { policy: bounded, connectTimeout: "300 millis" }).pipe(
              Stream.provide(layer)
            )
          ),
          WebSocket.stream({ url: `ws://127.0.0.1:${port}/`, policy: bounded, connectWithin: "300 millis" }).pipe(
            Stream.provide(byFetch ? Layer.empty : NodeWebSocket.layer)
          )
        ]
        const left = yield* Leaks.resources
        const fibers = Leaks.fiberCounter()
        const errors = yield* Effect.forEach(streams, (stream) => Effect.flip(Stream.runDrain(stream)), {
          concurrency: "unbounded"
        }).pipe(Effect.provideService(References.MinimumLogLevel, "None"), fibers.watch)
        for (const error of errors) {
          if (error._tag !== "Exhausted") return assert.fail(error.message)
          assert.strictEqual(error.attempts, 2)
          assert.strictEqual(error.last.reason._tag, "TimedOut")
          assert.include(error.message, `://127.0.0.1:${port}/`)
        }
        assert.strictEqual(yield* fibers.left, 0)
        if (!byFetch) assert.deepStrictEqual(yield* left, [])
      }).pipe(Effect.scoped),
    60_000
  )
})
