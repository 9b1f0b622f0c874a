/**
 * What reconnecting leaves behind: nothing. Ten thousand times in virtual time, over a platform that counts what is added to
 * it; and some hundreds of times over real sockets.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { getEventListeners } from "node:events"
import * as FakeFetch from "../support/fakeFetch.ts"
import * as Leaks from "../support/leaks.ts"
import * as RawServer from "../support/rawServer.ts"
import * as WebSocketServer from "../support/webSocketServer.ts"

const times = 10_000

/** Waits of nothing: only the pace is left of them. */
const policy = Backoff.make({ base: 1, factor: 1, cap: 1, floor: 0, jitter: "none" })

/** Runs a stream through so many dials, and looks at what there is meanwhile and afterwards. */
const through = Effect.fnUntraced(function*(options: {
  readonly stream: (handle: Reconnect.Handle) => Effect.Effect<unknown, unknown>
  readonly dials: () => number
  /** How much of the platform is in use. */
  readonly inUse: () => number
}) {
  let running = 0
  const counter: Metric.FiberRuntimeMetricsService = {
    recordFiberStart: () => {
      running++
    },
    recordFiberEnd: () => {
      running--
    }
  }
  const handle = yield* Reconnect.makeHandle
  const fiber = yield* options.stream(handle).pipe(
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(Metric.FiberRuntimeMetrics, counter),
    Effect.forkChild
  )
  let early = 0
  let late = 0
  let used = 0
  for (let round = 0; options.dials() < times && round < 2 * times; round++) {
    yield* TestClock.adjust("20 seconds")
    // Also what is open and silent, before that is noticed.
    yield* handle.replace
    used = Math.max(used, options.inUse())
    if (options.dials() < times / 10) early = Math.max(early, running)
    else late = Math.max(late, running)
  }
  assert.isAtLeast(options.dials(), times)
  assert.isAtMost(used, 1, "connections at the same time")
  assert.isAtMost(late, early, "fibers")
  yield* Fiber.interrupt(fiber)
  yield* TestClock.adjust("5 seconds")
  assert.strictEqual(running, 0, "fibers")
  assert.strictEqual(options.inUse(), 0, "connections")
  assert.strictEqual(handle["~effect-lifeline/Reconnect"].listeners.size, 0)
})

describe("10,000 reconnects", () => {
  it.effect("EventSource: no fiber, no body, no listener of a signal", () =>
    Effect.gen(function*() {
      let open = 0
      /** A body that counts as open until it ended, broke, or was cancelled. */
      const body = (text: string, then: "end" | "break" | "silence") => {
        let isDone = false
        const done = () => {
          if (!isDone) open--
          isDone = true
        }
        open++
        let isSaid = text === ""
        return new ReadableStream<Uint8Array>({
          pull: (controller) => {
            if (!isSaid) {
              isSaid = true
              return controller.enqueue(new TextEncoder().encode(text))
            }
            if (then === "silence") return new Promise<void>(() => {})
            done()
            if (then === "end") controller.close()
            else controller.error(new TypeError("terminated"))
          },
          cancel: done
        }, { highWaterMark: 0 })
      }
      const answers: ReadonlyArray<FakeFetch.Answer> = [
        () => FakeFetch.sse(body("id: 1\ndata: a\n\n", "end")),
        () => FakeFetch.sse(body("data: a\n\ndata: b\n", "break")),
        () => new Response("", { status: 503, headers: { "retry-after": "0" } }),
        () => Promise.reject(new TypeError("fetch failed")),
        () => FakeFetch.sse(body(":\n", "silence")),
        () => new Promise(() => {}),
        () => new Response(null, { status: 307, headers: { location: "/elsewhere" } }),
        () => FakeFetch.sse(body("", "end"))
      ]
      const fetch = FakeFetch.make((asked, n) => answers[n % answers.length]?.(asked, n) ?? Response.error())
      yield* through({
        stream: (handle) =>
          EventSource.stream("http://feed.test/events", {
            policy,
            handle,
            connectTimeout: "1 second",
            idleTimeout: "1 second",
            noProgressLimit: Infinity
          }).pipe(Stream.runDrain, Effect.provide(fetch.layer)),
        dials: () => fetch.asked.length,
        inUse: () => open
      })
      const listeners = fetch.asked.flatMap(({ init }) => init.signal ? getEventListeners(init.signal, "abort") : [])
      assert.strictEqual(listeners.length, 0, "listeners of signals")
    }), 60_000)

  it.effect("WebSocket: no fiber, no connection, no listener of a socket", () =>
    Effect.gen(function*() {
      let dials = 0
      let open = 0
      let listeners = 0
      type Listener = (event: WebSocket.WebSocketEvent) => void
      class Fake implements WebSocket.WebSocketLike {
        readyState = 0
        readonly #listeners: Array<readonly [string, Listener]> = []
        constructor() {
          const n = dials++
          open++
          queueMicrotask(() => {
            if (n % 5 === 3) return this.#end(1006, true)
            if (n % 5 === 4 || this.readyState !== 0) return
            this.readyState = 1
            this.#emit("open", {})
            if (n % 5 < 2) this.#emit("message", { data: "hello" })
            if (n % 5 < 1) this.#end(1012)
          })
        }
        addEventListener(type: string, listener: Listener) {
          listeners++
          this.#listeners.push([type, listener])
        }
        removeEventListener(type: string, listener: Listener) {
          const at = this.#listeners.findIndex((one) => one[0] === type && one[1] === listener)
          if (at < 0) return
          listeners--
          this.#listeners.splice(at, 1)
        }
        send() {}
        close(code = 1005) {
          if (this.readyState < 2) this.readyState = 2
          queueMicrotask(() => this.#end(code))
        }
        #emit(type: string, event: WebSocket.WebSocketEvent) {
          for (const [name, listener] of this.#listeners.slice()) if (name === type) listener(event)
        }
        #end(code: number, hasFailed = false) {
          if (this.readyState === 3) return
          this.readyState = 3
          open--
          if (hasFailed) this.#emit("error", {})
          this.#emit("close", { code })
        }
      }
      yield* through({
        stream: (handle) =>
          WebSocket.stream({
            url: "ws://feed.test/live",
            policy,
            handle,
            connectWithin: "1 second",
            liveness: WebSocket.liveness({ deadline: "1 second", ping: "ping" }),
            noProgressLimit: Infinity
          }).pipe(
            Stream.runDrain,
            Effect.provideService(WebSocket.Dialer, WebSocket.fromConstructor(Fake))
          ),
        dials: () => dials,
        inUse: () => open
      })
      assert.strictEqual(listeners, 0, "listeners of sockets")
    }), 60_000)
})

// ---------------------------------------------------------------------------------------------------------------------

const streams = 50
/** How many dials of a stream the pace lets through at once. */
const burst = 3

const warnings = Effect.acquireRelease(
  Effect.sync(() => {
    const seen: Array<string> = []
    const note = (warning: Error) => {
      seen.push(warning.message)
    }
    process.on("warning", note)
    return { seen, stop: () => process.off("warning", note) }
  }),
  ({ stop }) => Effect.sync(stop)
)

/** Runs so many streams, all at once, until each has dialled as often as it may at once; then leaves. */
const together = <E>(stream: Effect.Effect<unknown, E>, dials: () => number) =>
  Effect.gen(function*() {
    const { seen } = yield* warnings
    const fibers = Leaks.fiberCounter()
    yield* Effect.gen(function*() {
      const running = yield* Effect.forEach(Array.from({ length: streams }), () => Effect.forkChild(stream))
      for (let n = 0; n < 1000 && dials() < streams * burst; n++) yield* Effect.sleep("10 millis")
      yield* Fiber.interruptAll(running)
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"), fibers.watch)
    assert.isAtLeast(dials(), streams * burst)
    assert.strictEqual(yield* fibers.left, 0, "fibers")
    assert.deepStrictEqual(seen, [], "warnings of the platform")
  })

describe(`${streams * burst} reconnects over real sockets`, () => {
  it.live.each(
    [
      ["fetch", FetchHttpClient.layer],
      ["undici", NodeHttpClient.layerUndici],
      ["node:http", NodeHttpClient.layerNodeHttp]
    ] as const
  )("EventSource over %s: nothing is left", ([client, layer]) =>
    Effect.gen(function*() {
      const left = yield* Leaks.resources
      yield* Effect.scoped(Effect.gen(function*() {
        const stream = { "Content-Type": "text/event-stream" }
        const server = yield* RawServer.make((socket, { n }) => {
          switch (n % 6) {
            case 0:
              return void socket.end(RawServer.answer(200, "id: 1\ndata: a\n\n", stream))
            case 1:
              return socket.resetAndDestroy()
            case 2:
              return void socket.end(RawServer.answer(503))
            case 3:
              return void socket.end(RawServer.answer(200, "data: a\n\ndata: b", { ...stream, "Content-Length": "99" }))
            case 4:
              return void socket.write(RawServer.answer(200, "data: a\n\n", { ...stream, "Content-Length": "99" }))
            default:
              return void socket.end()
          }
        })
        yield* together(
          EventSource.stream(`${server.url}/events`, {
            policy,
            idleTimeout: "200 millis",
            noProgressLimit: Infinity
          }).pipe(Stream.runDrain, Effect.provide(layer)),
          () => server.requests.length
        )
        // Fetch keeps a connection or two for later, until the server ends them.
        if (client !== "fetch") yield* server.quiet
      }))
      assert.deepStrictEqual(yield* left, [], "resources")
    }).pipe(Effect.scoped), 60_000)

  it.live.each(
    [["Node's own", Layer.empty], ["ws", NodeWebSocket.layer]] as const
  )("WebSocket by %s: nothing is left", ([, layer]) =>
    Effect.gen(function*() {
      const left = yield* Leaks.resources
      yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* WebSocketServer.make({
          upgrade: (_, socket) => {
            if (server.requests.length % 5 > 0) return false
            socket.end("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return true
          },
          open: (socket, raw, _, n) => {
            socket.send("hello")
            if (n % 5 === 1) socket.close(1012)
            if (n % 5 === 2) raw.resetAndDestroy()
            if (n % 5 === 3) raw.destroy()
            // And the others stay, and say nothing.
          }
        })
        yield* together(
          WebSocket.stream({
            url: server.url,
            policy,
            closeWithin: "200 millis",
            liveness: WebSocket.liveness({ deadline: "200 millis", ping: "ping" }),
            noProgressLimit: Infinity
          }).pipe(Stream.runDrain, Effect.provide(layer)),
          () => server.requests.length
        )
        for (let n = 0; n < 1000 && server.sockets() > 0; n++) yield* Effect.sleep("10 millis")
        assert.strictEqual(server.sockets(), 0)
      }))
      assert.deepStrictEqual(yield* left, [], "resources")
    }).pipe(Effect.scoped), 60_000)
})
