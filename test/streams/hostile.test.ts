/**
 * Hostile servers, for real: over loopback, in real time, all of them at once, each with the default policy and with one that
 * would never wait. What is asserted is what the servers saw: at most 8 dials in any 10 seconds. (`Reconnect.test.ts` has the
 * same, and more, in virtual time.)
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import * as Listener from "effect-lifeline/Listener"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Net from "node:net"
import * as RawServer from "../support/rawServer.ts"
import * as WebSocketServer from "../support/webSocketServer.ts"

const window = 10_000
const bound = 8

/** The most moments that are within one window, both ends included. */
const most = (moments: ReadonlyArray<number>): number =>
  Math.max(0, ...moments.map((from) => moments.filter((at) => at >= from && at <= from + window).length))

const policies = {
  "the default policy": Backoff.streams,
  "a policy without waits": Backoff.make({ base: 1, factor: 1, cap: 1, floor: 0, hintFloor: 0, jitter: "none" })
}

/** Where a server is, and when it was dialled: by its own account, or for one that is not there by that of the dialler. */
interface Place {
  readonly url: string
  readonly dials: Array<number>
}

type Client = (place: Place, policy: Backoff.Unbounded) => Effect.Effect<unknown, unknown, HttpClient.HttpClient>

interface Row {
  readonly name: string
  readonly server: Effect.Effect<Place, never, Scope.Scope>
  readonly client: Client
  /** The server says no for good: it is not dialled again. */
  readonly isFinal?: boolean
}

const noting = (dials: Array<number>) => Effect.sync(() => dials.push(performance.now()))

const overFetch: Client = ({ url }, policy) =>
  Stream.runDrain(EventSource.stream(url, { policy, noProgressLimit: Infinity }))

const overWebSocket = (layer: Layer.Layer<never>): Client => ({ url }, policy) =>
  WebSocket.stream({ url, policy, noProgressLimit: Infinity, closeWithin: "100 millis" }).pipe(
    Stream.runDrain,
    Effect.provide(layer)
  )

/** Three that share a listener, and subscribe again at once whenever a subscription ends, whatever the reason. */
const overListener = (layer: Layer.Layer<never>): Client => ({ url }, policy) =>
  Effect.gen(function*() {
    const listener = yield* Listener.make({
      connect: WebSocket.open({ url, closeWithin: "100 millis" }),
      route: () => "all",
      subscribe: (key: string) => `subscribe ${key}`,
      policy
    })
    const follow = listener.subscribe("all").pipe(
      Effect.flatMap(({ messages }) => Stream.runDrain(messages)),
      Effect.scoped,
      Effect.exit
    )
    yield* Effect.all([follow, follow, follow].map((one) => Effect.forever(one)), { concurrency: "unbounded" })
  }).pipe(Effect.scoped, Effect.provide(layer))

const http = (script: RawServer.Script, onConnection?: (socket: Net.Socket, dials: Array<number>) => void) =>
  Effect.suspend(() => {
    const dials: Array<number> = []
    return Effect.map(
      RawServer.make(
        (socket, request) => {
          if (request.line.endsWith("/events")) dials.push(performance.now())
          script(socket, request)
        },
        (socket) => onConnection?.(socket, dials)
      ),
      ({ url }): Place => ({ url: `${url}/events`, dials })
    )
  })

const events = { "Content-Type": "text/event-stream" }
const stream = (text: string): RawServer.Script => RawServer.always(200, text, events)

const sse: ReadonlyArray<Row> = [
  {
    name: "reset as soon as they are connected to",
    server: http(() => {}, (socket, dials) => {
      dials.push(performance.now())
      socket.resetAndDestroy()
    })
  },
  { name: "reset when they are asked", server: http((socket) => socket.resetAndDestroy()) },
  { name: "answer 200 and end", server: http(stream("")) },
  {
    name: "answer 200 and break off",
    server: http((socket) => socket.end(RawServer.answer(200, "", { ...events, "Content-Length": "9" })))
  },
  { name: "say hello and end", server: http(stream("data: hello\n\n")) },
  { name: "say hello with an id and end", server: http(stream("id: 7\ndata: hello\n\n")) },
  {
    name: "say an id and nothing else",
    server: http((socket, { n }) => socket.end(RawServer.answer(200, `id: ${n}\n\n`, events)))
  },
  { name: "say retry: 0 and end", server: http(stream("retry: 0\n\n")) },
  { name: "say retry: 0 and hello, and end", server: http(stream("retry: 0\ndata: hello\n\n")) },
  {
    name: "say hello, and then are too much",
    server: http((socket, { n }) =>
      n % 2 === 0 ? socket.end(RawServer.answer(200, "data: hello\n\n", events)) : socket.resetAndDestroy()
    )
  },
  { name: "answer 503 with Retry-After: 0", server: http(RawServer.always(503, "", { "Retry-After": "0" })) },
  { name: "answer 429 with Retry-After: 0", server: http(RawServer.always(429, "", { "Retry-After": "0" })) },
  {
    name: "redirect to a stream that ends",
    server: http((socket, { line }) =>
      socket.end(
        line.endsWith("/events")
          ? RawServer.answer(302, "", { Location: "/there" })
          : RawServer.answer(200, "data: hello\n\n", events)
      )
    )
  },
  { name: "redirect in a circle", server: http(RawServer.always(302, "", { Location: "/again" })), isFinal: true },
  {
    name: "answer with another content type",
    server: http(RawServer.always(200, "{}", { "Content-Type": "application/json" })),
    isFinal: true
  }
].map((row) => ({ ...row, name: `EventSource, of servers that ${row.name}`, client: overFetch }))

const webSocket = (script: (noted: Array<number>) => WebSocketServer.Script) =>
  Effect.suspend(() => {
    const dials: Array<number> = []
    const { open, upgrade } = script(dials)
    return Effect.map(
      WebSocketServer.make({
        ...(open && { open }),
        upgrade: (request, socket) => {
          dials.push(performance.now())
          return upgrade?.(request, socket) ?? false
        }
      }),
      ({ url }): Place => ({ url, dials })
    )
  })

const closes = (code: number | undefined, hello?: string) =>
  webSocket(() => ({
    open: (socket) => {
      if (hello !== undefined) socket.send(hello)
      if (code === undefined) socket.terminate()
      else socket.close(code)
    }
  }))

const answers = (head: string) =>
  webSocket(() => ({
    upgrade: (_, socket) => {
      if (head === "") socket.resetAndDestroy()
      else socket.end(head)
      return true
    }
  }))

const onWebSockets = [
  { name: "reset the handshake", server: answers("") },
  {
    name: "answer 503 with Retry-After: 0",
    server: answers("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
  },
  ...[1000, 1001, 1011, 1012, 1013, undefined].flatMap((code) => [
    { name: `close with ${code ?? 1006}`, server: closes(code) },
    { name: `say hello and close with ${code ?? 1006}`, server: closes(code, "hello") }
  ])
]

const platforms = { "Node's": Layer.empty, "ws": NodeWebSocket.layer }

const webSockets: ReadonlyArray<Row> = Object.entries(platforms).flatMap(([platform, layer]) => [
  ...onWebSockets.map((row) => ({
    ...row,
    name: `WebSocket (${platform}), of servers that ${row.name}`,
    client: overWebSocket(layer)
  })),
  // What is final for a connection is not for those who subscribe again.
  ...[
    ...onWebSockets,
    { name: "refuse a message", server: closes(1007) },
    { name: "refuse a credential", server: closes(4401, "hello") }
  ].map((row) => ({
    ...row,
    name: `Listener (${platform}), of servers that ${row.name}`,
    client: overListener(layer)
  }))
])

/**
 * A port where nobody listens, nor ever will: one that the system gave out and took back would be the next server's. There
 * the diallers count: a URL, or headers, are asked for once for each dial.
 */
const nobody = Effect.sync((): Place => ({ url: "http://127.0.0.1:2/events", dials: [] }))

const refused: ReadonlyArray<Row> = [
  {
    name: "EventSource, of servers that are not there",
    server: nobody,
    client: ({ dials, url }, policy) =>
      Stream.runDrain(
        EventSource.stream(url, { policy, headers: Effect.as(noting(dials), {}), noProgressLimit: Infinity })
      )
  },
  {
    name: "WebSocket, of servers that are not there",
    server: nobody,
    client: ({ dials, url }, policy) =>
      Stream.runDrain(
        WebSocket.stream({
          url: WebSocket.perDial(() => Effect.as(noting(dials), url)),
          policy,
          noProgressLimit: Infinity
        })
      )
  }
]

const rows = [...refused, ...sse, ...webSockets].flatMap((row) =>
  Object.entries(policies).map(([policy, value]) => ({ ...row, name: `${row.name}: ${policy}`, policy: value }))
)

describe("at most 8 dials in any 10 s", () => {
  const seen = new Map<string, ReadonlyArray<number>>()
  const scope = Scope.makeUnsafe()

  beforeAll(() =>
    Effect.gen(function*() {
      for (const { client, name, policy, server } of rows) {
        const place = yield* server
        seen.set(name, place.dials)
        yield* Effect.forkScoped(client(place, policy))
      }
      // More than one window, which is what real time is needed for here.
      yield* Effect.sleep(window + 1000)
    }).pipe(
      Effect.provide(FetchHttpClient.layer),
      Effect.provideService(References.MinimumLogLevel, "None"),
      Scope.provide(scope),
      Effect.runPromise
    ), 30_000)

  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)), 30_000)

  it.each(rows)("$name", ({ isFinal, name }) => {
    const dials = seen.get(name) ?? []
    if (isFinal === true) return assert.strictEqual(dials.length, 1)
    assert.isAtMost(most(dials), bound, dials.map((at) => Math.round(at)).join(" "))
    // It goes on trying, or the above says nothing.
    assert.isAtLeast(dials.length, 3)
  })
})
