// Both sides of the control channel over TCP and WebSockets on loopback: ControlChannel.make against ControlChannel.serve, with
// real ports that identities hold, through a proxy that loses what passes, and against clients that do not keep to the protocol.
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Classify from "effect-lifeline/Classify"
import * as ControlChannel from "effect-lifeline/ControlChannel"
import * as Framing from "effect-lifeline/Framing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { build } from "esbuild"
import { once } from "node:events"
import * as Net from "node:net"
import { fileURLToPath } from "node:url"
import * as FaultProxy from "./support/faultProxy.ts"
import * as Leaks from "./support/leaks.ts"
import * as Watch from "./support/runtimes/Watch.ts"

interface Session {
  readonly identity: string
}
type Options = ControlChannel.ServeOptions<string, string, Session, Scope.Scope>
type Connection = ControlChannel.Connection<string, string, Session>

const framing = Framing.newline({ maxBytes: 64 * 1024 })

/** The client says "<name> <token>"; the token of everybody is their name, backwards. */
const handshake = Effect.fnUntraced(function*(link: ControlChannel.Accepted<string, string>) {
  const [name = "", token] = (yield* link.receive).split(" ")
  return token === [...name].reverse().join("")
    ? { identity: name }
    : yield* Effect.fail(Classify.unauthorized(link.at))
})

const greeting = (name: string) => `${name} ${[...name].reverse().join("")}`

const echo = ({ messages, send }: Connection) =>
  Effect.andThen(send("welcome"), Stream.runForEach(messages, (line) => send(`re: ${line}`)))

const show = (event: ControlChannel.ServerEvent<Session>) =>
  event._tag === "Closed"
    ? "Closed"
    : `${event.id} ${event._tag}${event._tag === "Refused" || event._tag === "Lost" ? ` ${event.cause._tag}` : ""}`

/** A server on an ephemeral port, and what it tells. */
const start = Effect.fnUntraced(function*(options: Partial<Options> = {}) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const listening = yield* NodeSocketServer.make({ port: 0, host: "127.0.0.1" })
  const address = listening.address
  assert(address._tag !== "UnixPathAddress")
  const server = yield* ControlChannel.serve<string, string, Session, Scope.Scope>({
    framing,
    codec: ControlChannel.text,
    handshake,
    handler: echo,
    liveness: { heartbeat: "beat" },
    farewell: (ending) => ({ message: `end ${ending._tag}` }),
    ...options
  }).pipe(
    Scope.provide(scope),
    Effect.provideService(SocketServer.SocketServer, listening),
    Effect.provide(Logger.layer([]))
  )
  const seen = Watch.make<string>((line) => line)
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (event) => Effect.sync(() => seen.add(show(event)))),
    { startImmediately: true }
  )
  return {
    server,
    port: address.port,
    close: Scope.close(scope, Exit.void),
    seen: seen.seen,
    until: (event: string) => seen.until(event, (events) => events.includes(event) ? true : undefined)
  }
})

const tcp = (port: number) => NodeSocket.makeNet({ host: "127.0.0.1", port })

/** Comes back soon. */
const reconnect = Backoff.make({ base: 20, cap: 100, floor: 10 })

/** A client: its session is the first thing that the handler says. */
const optionsOf = (name: string, open: Effect.Effect<Socket.Socket, unknown>, text = greeting(name)) => ({
  open,
  framing,
  codec: ControlChannel.text,
  isHeartbeat: (line: string) => line === "beat",
  handshake: (link: ControlChannel.Link<string, string, string>) => Effect.andThen(link.send(text), link.receive),
  at: { operation: "connect", target: "server" }
})

/** A client that does as it is told. */
const rawClient = Effect.fnUntraced(function*(port: number) {
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() => Net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true })),
    (socket) => Effect.sync(() => socket.destroy())
  )
  const seen = Watch.make<string>((chunk) => chunk)
  const state = { text: "", isClosed: false }
  socket.on("error", () => {})
  socket.on("end", () => socket.end())
  socket.on("close", () => {
    state.isClosed = true
    seen.add("")
  })
  socket.on("data", (chunk) => {
    state.text += chunk.toString("utf8")
    seen.add("")
  })
  yield* Effect.promise(() => once(socket, "connect"))
  return {
    socket,
    state,
    until: (text: string) =>
      seen.until(`${JSON.stringify(text)} from the server`, () => state.text.includes(text) ? true : undefined),
    closed: seen.until("the end of the connection", () => state.isClosed ? true : undefined)
  }
})

/** Something that is listened on, for as long as the scope is open; whoever connects is told who listens. */
const listen = (port: number, who: string) =>
  Effect.acquireRelease(
    Effect.callback<Net.Server, Error>((resume) => {
      const server = Net.createServer((socket) => socket.on("error", () => {}).end(who))
      server.on("error", (error) => resume(Effect.fail(error)))
      server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )

const portOf = (server: Net.Server) => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

const freePort = Effect.scoped(Effect.map(listen(0, ""), portOf))

/** Gives its identity a port of its own, always the same. */
const portHolder = (port: number): Partial<Options> => ({
  handler: Effect.fnUntraced(function*({ id, messages, send }: Connection) {
    yield* listen(port, `connection ${id}`)
    yield* send(`port ${port}`)
    yield* Stream.runDrain(messages)
  })
})

const visit = (port: number) =>
  Effect.scoped(Effect.gen(function*() {
    const visitor = yield* rawClient(port)
    yield* visitor.closed
    return visitor.state.text
  }))

describe("ControlChannel.make with ControlChannel.serve over TCP", () => {
  it.live("talk: a session, messages both ways, heartbeats that keep it alive; closing ends it", () =>
    Effect.gen(function*() {
      const peers: Array<string | undefined> = []
      const { port, server, until } = yield* start({
        liveness: { heartbeat: "beat", every: "100 millis", deadline: "2 seconds" },
        handler: Effect.fnUntraced(function*(connection: Connection) {
          // What the socket server provides with each connection is there.
          const socket = yield* Effect.serviceOption(NodeSocket.NetSocket)
          peers.push(Option.getOrUndefined(socket)?.remoteAddress)
          yield* echo(connection)
        })
      })
      const channel = yield* ControlChannel.make({
        ...optionsOf("ann", tcp(port)),
        reconnect: false,
        liveness: { deadline: "2 seconds", ping: "ping", every: "500 millis" }
      })
      assert.strictEqual(yield* channel.session, "welcome")
      const sent = Array.from({ length: 1000 }, (_, n) => `${n} ${"x".repeat(n)}`)
      yield* Effect.forkChild(Effect.forEach(sent, channel.send, { discard: true }))
      const heard = yield* channel.messages.pipe(
        Stream.filter((line) => line !== "re: ping"),
        Stream.take(1000),
        Stream.runCollect
      )
      assert.deepStrictEqual(heard, sent.map((line) => `re: ${line}`))
      yield* Effect.sleep("2500 millis")
      assert.deepStrictEqual((yield* server.connections).map(({ id, session }) => [id, session.identity]), [[1, "ann"]])
      assert.deepStrictEqual(peers, ["127.0.0.1"])
      yield* channel.close
      yield* until("1 Lost Transient")
      assert.deepStrictEqual(yield* server.connections, [])
    }))

  it.live("a client that comes back by itself after a silent partition has its port back at once", () =>
    Effect.gen(function*() {
      const held = yield* freePort
      const { port, seen, until } = yield* start({
        ...portHolder(held),
        liveness: { heartbeat: "beat", every: "100 millis" }
      })
      const proxy = yield* FaultProxy.make(port)
      const channel = yield* ControlChannel.make({
        ...optionsOf("ann", tcp(proxy.port)),
        liveness: { deadline: "2 seconds" },
        reconnect
      })
      assert.strictEqual(yield* channel.session, `port ${held}`)
      assert.strictEqual(yield* visit(held), "connection 1")
      // Nothing passes any more, and neither side learns of it: for the server the first connection is well.
      proxy.links[0]?.fault("both", "drop")
      yield* until("2 Connected")
      assert.strictEqual(yield* channel.session, `port ${held}`)
      assert.strictEqual(yield* visit(held), "connection 2")
      assert.deepStrictEqual(seen, ["1 Connected", "1 Evicted", "2 Connected"])
      assert.strictEqual(proxy.links.length, 2)
    }))

  it.live("another program with the identity takes the port of a half-open link over with its first dial", () =>
    Effect.gen(function*() {
      const held = yield* freePort
      const { port, seen } = yield* start(portHolder(held))
      const proxy = yield* FaultProxy.make(port)
      const older = yield* ControlChannel.make({ ...optionsOf("ann", tcp(proxy.port)), reconnect: false })
      yield* older.session
      proxy.links[0]?.fault("both", "drop")
      const newer = yield* ControlChannel.make({ ...optionsOf("ann", tcp(port)), reconnect: false })
      assert.strictEqual(yield* newer.session, `port ${held}`)
      assert.strictEqual(yield* visit(held), "connection 2")
      assert.deepStrictEqual(seen, ["1 Connected", "1 Evicted", "2 Connected"])
    }))

  it.live("who guesses at a credential takes nothing; it ends, by its verdict and by the message", () =>
    Effect.gen(function*() {
      const held = yield* freePort
      const { port, seen } = yield* start(portHolder(held))
      const ann = yield* ControlChannel.make({ ...optionsOf("ann", tcp(port)), reconnect: false })
      yield* ann.session
      for (let n = 0; n < 5; n++) {
        const thief = yield* rawClient(port)
        thief.socket.write("ann guess\n")
        yield* thief.until("end AuthFailed\n")
        yield* thief.closed
      }
      assert.strictEqual(yield* visit(held), "connection 1")
      yield* ann.send("still here")
      assert.deepStrictEqual(seen, ["1 Connected", ...[2, 3, 4, 5, 6].map((n) => `${n} Refused AuthFailed`)])
    }))

  it.live("a server that closes tells its clients, and lets nobody in while it does", () =>
    Effect.gen(function*() {
      const { close, port, seen } = yield* start()
      const channel = yield* ControlChannel.make({ ...optionsOf("ann", tcp(port)), reconnect: false })
      yield* channel.session
      const pending = yield* rawClient(port)
      yield* Effect.forkChild(close)
      const heard: Array<string> = []
      const ended = yield* Effect.flip(
        Stream.runForEach(channel.messages, (line) => Effect.sync(() => heard.push(line)))
      )
      assert.strictEqual(ended._tag, "Disconnected")
      assert.deepStrictEqual(heard, ["end Closed"])
      yield* pending.until("end Closed\n")
      yield* pending.closed
      assert.include(seen, "1 Connected")
    }))
})

describe("ControlChannel.serve over TCP: clients that do not keep to the protocol", () => {
  it.live("silence, garbage, frames that are too long, ends and resets are their own", () =>
    Effect.gen(function*() {
      const { port, server, until } = yield* start({ stepTimeout: "1 second" })
      const ann = yield* ControlChannel.make({ ...optionsOf("ann", tcp(port)), reconnect: false })
      yield* ann.session
      const silent = yield* rawClient(port)
      yield* until("2 Refused Transient")
      yield* silent.until("end Transient\n")
      yield* silent.closed
      const garbage = yield* rawClient(port)
      garbage.socket.write(Buffer.from([0xff, 0xfe, 0x0a]))
      yield* garbage.until("end Inconclusive\n")
      yield* garbage.closed
      const long = yield* rawClient(port)
      long.socket.write("x".repeat(200_000))
      yield* long.until("end Inconclusive\n")
      yield* long.closed
      const late = yield* rawClient(port)
      late.socket.write(`${greeting("bob")}\n`)
      yield* late.until("welcome\n")
      late.socket.write("x".repeat(200_000))
      yield* late.until("end Inconclusive\n")
      yield* late.closed
      const reset = yield* rawClient(port)
      reset.socket.write(`${greeting("bob")}\n`)
      yield* reset.until("welcome\n")
      reset.socket.resetAndDestroy()
      yield* until("6 Lost Transient")
      const ended = yield* rawClient(port)
      ended.socket.end()
      yield* until("7 Refused Transient")
      yield* ended.closed
      assert.deepStrictEqual((yield* server.connections).map(({ id }) => id), [1])
      yield* ann.send("hello")
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(ann.messages, 1)), ["re: hello"])
    }))

  it.live("at most so many are in their handshake", () =>
    Effect.gen(function*() {
      const { port, until } = yield* start({ maxHandshakes: 4 })
      const waiting = []
      for (let n = 0; n < 4; n++) waiting.push(yield* rawClient(port))
      for (let n = 4; n < 12; n++) {
        const more = yield* rawClient(port)
        yield* more.until("end Transient\n")
        yield* more.closed
      }
      for (const client of waiting) assert.isFalse(client.state.isClosed)
      waiting[0]?.socket.write(`${greeting("ann")}\n`)
      yield* waiting[0]?.until("welcome\n") ?? Effect.void
      waiting[1]?.socket.destroy()
      yield* until("2 Refused Transient")
      const next = yield* rawClient(port)
      next.socket.write(`${greeting("bob")}\n`)
      yield* next.until("welcome\n")
    }))

  it.live(
    "one that does not read holds up nobody but its own handler, and gets everything once it reads",
    () =>
      Effect.gen(function*() {
        const total = 400
        const progress = { sent: 0 }
        const { port } = yield* start({
          handler: Effect.fnUntraced(function*(connection: Connection) {
            if (connection.session.identity === "ann") return yield* echo(connection)
            // More than the buffers of the system take.
            for (; progress.sent < total; progress.sent++) {
              yield* connection.send(`${progress.sent} ${"x".repeat(60_000)}`)
            }
            yield* connection.send("last")
            yield* Stream.runDrain(connection.messages)
          })
        })
        const slow = yield* ControlChannel.make({ ...optionsOf("slow", tcp(port)), reconnect: false, inbox: 1 })
        assert.include(yield* slow.session, "0 ")
        for (let n = 0, last = -1; n < 100 && (progress.sent === 0 || progress.sent > last); n++) {
          last = progress.sent
          yield* Effect.sleep("100 millis")
        }
        assert.isBelow(progress.sent, total)
        const ann = yield* ControlChannel.make({ ...optionsOf("ann", tcp(port)), reconnect: false })
        assert.strictEqual(yield* ann.session, "welcome")
        const lines = yield* Stream.runCollect(Stream.take(slow.messages, total))
        assert.deepStrictEqual(
          lines.map((line) => line === "last" ? total : Number(line.split(" ")[0])),
          Array.from({ length: total }, (_, n) => n + 1)
        )
        assert.isTrue(lines.every((line) => line === "last" || line.length > 60_000))
      }),
    30_000
  )

  it.live(
    "one that never reads keeps no socket once its connection is over, also if it says that it is",
    () =>
      Effect.gen(function*() {
        const sockets: Array<Net.Socket> = []
        const { port, until } = yield* start({
          handler: Effect.fnUntraced(function*(connection: Connection) {
            const socket = yield* Effect.serviceOption(NodeSocket.NetSocket)
            if (Option.isSome(socket)) sockets.push(socket.value)
            return yield* Effect.forever(connection.send("x".repeat(60_000)))
          })
        })
        for (const n of [1, 2]) {
          const client = yield* rawClient(port)
          client.socket.pause()
          client.socket.write(`${greeting("ann")}\n`)
          yield* until(`${n} Connected`)
          for (let m = 0; m < 100 && sockets[n - 1]?.writableNeedDrain !== true; m++) yield* Effect.sleep("50 millis")
          if (n === 2) client.socket.end()
        }
        yield* until("1 Evicted")
        yield* until("2 Lost Transient")
        for (let n = 0; n < 300 && sockets.some(({ destroyed }) => !destroyed); n++) yield* Effect.sleep("10 millis")
        assert.deepStrictEqual(sockets.map(({ destroyed }) => destroyed), [true, true])
      }),
    30_000
  )

  it.live("what a handler does not read is not taken from the network", () =>
    Effect.gen(function*() {
      let decoded = 0
      const gate = yield* Deferred.make<void>()
      const count = yield* Deferred.make<number>()
      const { port, until } = yield* start({
        inbox: 16,
        codec: {
          ...ControlChannel.text,
          decode: (frame) => {
            decoded++
            return ControlChannel.text.decode(frame)
          }
        },
        handler: Effect.fnUntraced(function*({ messages }: Connection) {
          yield* Deferred.await(gate)
          yield* Deferred.succeed(count, yield* Stream.runCount(Stream.take(messages, 2000)))
        })
      })
      const client = yield* rawClient(port)
      client.socket.write(`${greeting("ann")}\n`)
      yield* until("1 Connected")
      const all = Effect.callback<void>((resume) =>
        void client.socket.write(`${"x".repeat(50_000)}\n`.repeat(2000), () => resume(Effect.void))
      )
      const written = yield* Effect.forkChild(all, { startImmediately: true })
      yield* Effect.sleep("300 millis")
      // The greeting, those that wait, and the one that waits for room.
      assert.isAtMost(decoded, 1 + 16 + 1)
      assert.isUndefined(written.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Deferred.await(count), 2000)
    }), 30_000)

  it.live("a thousand connections of all kinds leave no fiber, no socket, no timer", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const beyond = yield* Leaks.resources
      yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const { port, server } = yield* start({
          liveness: { heartbeat: "beat", every: "20 millis", deadline: "5 seconds" }
        })
        yield* Effect.forEach(Array.from({ length: 1000 }, (_, n) => n), (n) =>
          Effect.scoped(Effect.gen(function*() {
            const client = yield* rawClient(port)
            const kind = n % 5
            if (kind === 0) client.socket.end()
            else if (kind === 1) client.socket.resetAndDestroy()
            else client.socket.write(kind === 2 ? "x y\n" : `${greeting(`n${n % 10}`)}\n`)
            // Those of the last kind leave whenever it may be; the others once they are in, or are evicted by their like.
            if (kind === 3) yield* Effect.raceFirst(client.until("welcome\n"), client.closed)
            else if (kind < 3) yield* client.closed
          })), { concurrency: 20, discard: true })
        for (let n = 0; n < 500 && (yield* server.connections).length > 0; n++) yield* Effect.sleep("10 millis")
        assert.deepStrictEqual(yield* server.connections, [])
        const status = SubscriptionRef.getUnsafe(server.status)
        assert.strictEqual(status._tag === "Serving" && status.connections + status.handshakes, 0)
      })))
      assert.strictEqual(yield* fibers.left, 0)
      assert.deepStrictEqual(yield* beyond, [])
    }), 60_000)
})

describe("ControlChannel.serve over WebSockets", () => {
  it.live("talks; an evicted client is told by the close code to stay away", () =>
    Effect.gen(function*() {
      const listening = yield* NodeSocketServer.makeWebSocket({ port: 0, host: "127.0.0.1" })
      const { address } = listening
      assert(address._tag !== "UnixPathAddress")
      yield* ControlChannel.serve<string, string, Session>({
        framing,
        codec: ControlChannel.text,
        handshake,
        handler: echo,
        farewell: (ending) =>
          ending._tag === "Closed" ? { close: { code: 4401, reason: ending.reason._tag } } : undefined
      }).pipe(Effect.provideService(SocketServer.SocketServer, listening), Effect.provide(Logger.layer([])))
      const open = Effect.provide(
        Socket.makeWebSocket(`ws://127.0.0.1:${address.port}`),
        Socket.layerWebSocketConstructorGlobal
      )
      const older = yield* ControlChannel.make({ ...optionsOf("ann", open), reconnect })
      assert.strictEqual(yield* older.session, "welcome")
      yield* older.send("hello")
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(older.messages, 1)), ["re: hello"])
      const newer = yield* ControlChannel.make({ ...optionsOf("ann", open), reconnect })
      assert.strictEqual(yield* newer.session, "welcome")
      const ended = yield* Effect.flip(Stream.runDrain(older.messages))
      assert.strictEqual(ended._tag, "AuthFailed")
      assert.include(ended.message, "Replaced")
    }))

  it.live(
    "one that does not read fills the outbox, although a WebSocket takes everything at once",
    () =>
      Effect.gen(function*() {
        const progress = { sent: 0 }
        const listening = yield* NodeSocketServer.makeWebSocket({ port: 0, host: "127.0.0.1" })
        const { address } = listening
        assert(address._tag !== "UnixPathAddress")
        yield* ControlChannel.serve<string, string, Session>({
          framing,
          codec: ControlChannel.text,
          handshake,
          handler: ({ send }) =>
            Effect.gen(function*() {
              for (; progress.sent < 400; progress.sent++) yield* send("x".repeat(60_000))
            })
        }).pipe(Effect.provideService(SocketServer.SocketServer, listening), Effect.provide(Logger.layer([])))
        const client = yield* Effect.acquireRelease(
          Effect.sync(() => new NodeWS.WebSocket(`ws://127.0.0.1:${address.port}`)),
          (client) => Effect.sync(() => client.terminate())
        )
        yield* Effect.promise(() => once(client, "open"))
        client.send(`${greeting("slow")}\n`)
        client.pause()
        for (let n = 0, last = -1; n < 100 && (progress.sent === 0 || progress.sent > last); n++) {
          last = progress.sent
          yield* Effect.sleep("200 millis")
        }
        assert.isBelow(progress.sent, 400)
        const done = Effect.promise(() => once(client, "close"))
        client.resume()
        yield* done
        assert.strictEqual(progress.sent, 400)
      }),
    30_000
  )
})

describe("ControlChannel: what a client carries", () => {
  it.live("is not the server", () =>
    Effect.gen(function*() {
      const { metafile } = yield* Effect.promise(() =>
        build({
          stdin: {
            contents: "export { make } from \"./src/ControlChannel.ts\"",
            resolveDir: fileURLToPath(new URL("..", import.meta.url)),
            loader: "ts"
          },
          bundle: true,
          format: "esm",
          metafile: true,
          write: false
        })
      )
      const modules = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs))
      assert.isTrue(modules.includes("src/internal/controlChannel.ts"))
      assert.deepStrictEqual(modules.filter((module) => /controlServer|SocketServer/.test(module)), [])
    }))
})
