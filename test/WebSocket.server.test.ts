// The transport against real servers on loopback, by Node's own WebSocket and by ws.
import { assert, describe, it } from "@effect/vitest"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Leaks from "./support/leaks.ts"
import * as Server from "./support/webSocketServer.ts"

const dial: Reconnect.Dial<never> = { cursor: undefined, attempt: 1, generation: 1 }

const platforms = [
  ["Node's WebSocket", Layer.empty, false],
  ["ws", NodeWebSocket.layer, true]
] as const

const tags = (error: { readonly _tag: string; readonly reason?: { readonly _tag: string } }) =>
  error.reason === undefined ? error._tag : `${error._tag}.${error.reason._tag}`

const failure = <A, R>(stream: Stream.Stream<A, Reconnect.Failure, R>) => Effect.flip(Stream.runDrain(stream))

/** Asks again and again, at most 10 seconds, until there are no TCP connections. */
const noSockets = (server: Server.Server) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1000 && server.sockets() > 0; n++) {
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
    }
    return server.sockets()
  })

for (const [platform, layer, tells] of platforms) {
  describe(`WebSocket by ${platform}`, () => {
    it.live("sends and receives text and bytes; header, ticket, subprotocol and first frame arrive", () =>
      Effect.gen(function*() {
        const server = yield* Server.make({
          open: (socket) => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }))
        })
        const connection = yield* WebSocket.open<never, "any">({
          url: WebSocket.perDial(() => Effect.succeed(Redacted.make(`${server.url}?ticket=t1`))),
          credential: WebSocket.perDial(() =>
            Effect.succeed({ headers: { authorization: Redacted.make("Bearer b1") }, first: Redacted.make("hello") })
          ),
          protocols: ["v2", "v1"],
          frames: "any"
        })(dial)
        yield* connection.send("größe")
        yield* connection.send(Uint8Array.of(0, 255, 1))
        const messages = yield* Stream.runCollect(Stream.take(connection.messages, 3))
        assert.deepStrictEqual(messages, ["hello", "größe", Uint8Array.of(0, 255, 1)])
        assert.strictEqual(connection.protocol, "v1")
        const [request] = server.requests
        assert.strictEqual(request?.url, "/live?ticket=t1")
        assert.strictEqual(request?.headers.authorization, "Bearer b1")
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("close codes of the server", () =>
      Effect.gen(function*() {
        const codes: ReadonlyArray<readonly [number | undefined, string]> = [
          [1000, "Transient.Unavailable"],
          [1001, "Transient.Unavailable"],
          [undefined, "Transient.Unavailable"],
          [1002, "Refused.MalformedResponse"],
          [1003, "Refused.Unsupported"],
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
          [4403, "AuthFailed.Forbidden"]
        ]
        const server = yield* Server.make({
          open: (socket, _, __, n) => {
            socket.send("last")
            socket.close(codes[n - 1]?.[0])
          }
        })
        const seen: Array<string> = []
        for (const [, expected] of codes) {
          const error = yield* Effect.scoped(
            Effect.flatMap(WebSocket.open({ url: server.url })(dial), ({ messages }) =>
              Effect.flip(Stream.runForEach(messages, (message) =>
                Effect.sync(() => void seen.push(message)))))
          )
          assert.strictEqual(tags(error), expected)
        }
        assert.strictEqual(seen.length, codes.length)
        assert.strictEqual(yield* noSockets(server), 0)
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("nobody listens; the handshake is refused, reset, or not one", () =>
      Effect.gen(function*() {
        const attempt = (url: string) => Effect.scoped(Effect.flip(WebSocket.open({ url })(dial)))
        const answers = [
          ["HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "AuthFailed.Unauthorized"],
          ["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "Refused.NotFound"],
          ["HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", "Transient.Unavailable"],
          ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "Refused.MalformedResponse"]
        ] as const
        let answer = ""
        const server = yield* Server.make({
          upgrade: (_, socket) => {
            if (answer === "reset") socket.resetAndDestroy()
            else socket.end(answer)
            return true
          }
        })
        for (const [head, expected] of answers) {
          answer = head
          const before = server.requests.length
          assert.strictEqual(tags(yield* attempt(server.url)), tells ? expected : "Transient.Unreachable")
          if (tells) assert.strictEqual(server.requests.length, before + 1)
        }
        answer = "reset"
        assert.strictEqual(tags(yield* attempt(server.url)), "Transient.Unreachable")
        assert.strictEqual(yield* noSockets(server), 0)
        const gone = yield* Effect.scoped(Effect.map(Server.make({}), ({ url }) => url))
        assert.strictEqual(tags(yield* attempt(gone)), "Transient.Unreachable")
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("a handshake that is never answered: the deadline, and nothing stays open", () =>
      Effect.gen(function*() {
        const server = yield* Server.make({ upgrade: () => true })
        const error = yield* Effect.scoped(
          Effect.flip(WebSocket.open({ url: server.url, connectWithin: "200 millis" })(dial))
        )
        assert.strictEqual(tags(error), "Transient.TimedOut")
        assert.strictEqual(yield* noSockets(server), 0)
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("reset while open", () =>
      Effect.gen(function*() {
        const server = yield* Server.make({ open: (_, raw) => raw.resetAndDestroy() })
        const connection = yield* WebSocket.open({ url: server.url })(dial)
        const error = yield* failure(connection.messages)
        assert.strictEqual(error._tag, "Transient")
        assert.strictEqual((yield* Effect.flip(connection.send("x")))._tag, "Transient")
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("bad frames: wrong kind, too long, invalid UTF-8", () =>
      Effect.gen(function*() {
        const bad: ReadonlyArray<(socket: Parameters<NonNullable<Server.Script["open"]>>[0]) => void> = [
          (socket) => socket.send(Uint8Array.of(1)),
          (socket) => socket.send("x".repeat(5000)),
          (socket) => socket.send("x".repeat(100_000)),
          (socket) => socket.send(Uint8Array.of(0xff, 0xfe), { binary: false })
        ]
        const server = yield* Server.make({ open: (socket, _, __, n) => bad[n - 1]?.(socket) })
        const found: Array<string> = []
        for (let n = 0; n < bad.length; n++) {
          found.push(tags(
            yield* Effect.scoped(
              Effect.flatMap(
                WebSocket.open({ url: server.url, maxMessage: 1000 })(dial),
                ({ messages }) => failure(messages)
              )
            )
          ))
        }
        assert.deepStrictEqual(found, [
          "Refused.MalformedResponse",
          tells ? "Refused.InvalidRequest" : "Refused.MalformedResponse",
          tells ? "Refused.InvalidRequest" : "Refused.MalformedResponse",
          tells ? "Refused.MalformedResponse" : "Transient.Unavailable"
        ])
        assert.strictEqual(yield* noSockets(server), 0)
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("half-open: the server goes silent", () =>
      Effect.gen(function*() {
        const server = yield* Server.make({
          open: (socket, raw) => {
            socket.send("hello")
            // Nothing is read any more: neither pings nor closing are answered.
            raw.pause()
          }
        })
        yield* Effect.scoped(Effect.gen(function*() {
          const connection = yield* WebSocket.open({
            url: server.url,
            liveness: WebSocket.liveness(tells ? { deadline: "300 millis" } : { deadline: "300 millis", ping: "ping" })
          })(dial)
          assert.strictEqual(tags(yield* failure(connection.messages)), "Transient.TimedOut")
        }))
        if (tells) assert.strictEqual(yield* noSockets(server), 0)
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("a server that only answers pings stays connected", () =>
      Effect.gen(function*() {
        let asked = 0
        const server = yield* Server.make({
          open: (socket) => {
            const answer = () => {
              if (++asked === 3) socket.send("done")
              else if (!tells) socket.send("pong")
            }
            socket.on("ping", answer)
            socket.on("message", answer)
          }
        })
        const connection = yield* WebSocket.open({
          url: server.url,
          liveness: WebSocket.liveness({
            deadline: "1 second",
            ping: tells ? undefined : "ping",
            isPong: (message) => message === "pong"
          })
        })(dial)
        const [first] = yield* Stream.runCollect(Stream.take(connection.messages, 1))
        assert.strictEqual(first, "done")
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("200 connections leave nothing: fibers, sockets, timers", () =>
      Effect.gen(function*() {
        const server = yield* Server.make({
          open: (socket, raw, _, n) => {
            socket.send("hello")
            if (n % 4 === 1) socket.close(1012)
            if (n % 4 === 2) raw.resetAndDestroy()
            if (n % 4 === 3) raw.destroy()
          }
        })
        const fibers = Leaks.fiberCounter()
        const left = yield* Leaks.resources
        for (let n = 0; n < 200; n++) {
          yield* fibers.watch(
            Effect.scoped(
              Effect.flatMap(
                WebSocket.open({
                  url: server.url,
                  liveness: WebSocket.liveness({ deadline: "1 minute", ping: "ping" })
                })(dial),
                ({ messages }) => Effect.exit(Stream.runDrain(n % 4 === 3 ? Stream.take(messages, 1) : messages))
              )
            ).pipe(Effect.exit)
          )
        }
        assert.strictEqual(server.requests.length, 200)
        assert.strictEqual(yield* fibers.left, 0)
        assert.strictEqual(yield* noSockets(server), 0)
        assert.deepStrictEqual(yield* left, [])
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live("the embedded registry: its events, its refusal, its end", () =>
      Effect.gen(function*() {
        const apiKey = Redacted.make("canary-key")
        const scope = yield* Scope.make()
        const registry = yield* Scope.provide(NodeRegistry.make({ apiKey }), scope)
        const { url } = Context.get(registry, NodeRegistry.NodeRegistry)
        const open = (headers: WebSocket.Credential["headers"]) =>
          WebSocket.open({ url: `${url}/api/v1/ws`, credential: WebSocket.perDial(() => Effect.succeed({ headers })) })(
            dial
          )
        const refused = yield* Effect.scoped(Effect.flip(open({})))
        assert.strictEqual(tags(refused), tells ? "AuthFailed.Unauthorized" : "Transient.Unreachable")

        const { messages } = yield* open({ "x-api-key": apiKey })
        yield* Effect.promise(() =>
          fetch(`${url}/api/v1/services/register`, {
            method: "POST",
            headers: { "content-type": "application/json", "x-api-key": Redacted.value(apiKey) },
            body: JSON.stringify({ name: "a", type: "b", api_url: "http://a" })
          })
        )
        const seen: Array<string> = []
        const reader = yield* Effect.forkChild(
          Effect.flip(Stream.runForEach(messages, (message) => Effect.sync(() => void seen.push(message))))
        )
        for (let n = 0; n < 500 && seen.length === 0; n++) {
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
        }
        yield* Scope.close(scope, Exit.void)
        assert.include(seen[0], "service_registered")
        assert.strictEqual(tags(yield* Fiber.join(reader)), "Transient.Unavailable")
      }).pipe(Effect.provide(layer), Effect.scoped))
  })
}
