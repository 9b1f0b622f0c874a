/**
 * Event streams over real sockets: what servers and networks get wrong, with each of the HTTP clients that programs use on
 * Node; and the embedded registry, to its sudden end and beyond.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Events from "effect-lifeline/server/Events"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as ChildProcess from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as Zlib from "node:zlib"
import * as Leaks from "./support/leaks.ts"
import * as RawServer from "./support/rawServer.ts"

const { answer } = RawServer

const clients = {
  "fetch": FetchHttpClient.layer,
  "undici": NodeHttpClient.layerUndici,
  "node:http": NodeHttpClient.layerNodeHttp
}

type Items = ReadonlyArray<Reconnect.Frame<EventSource.Event, string> | Reconnect.Notice<string>>

/** What came on one connection, and how it ended. */
const readAll = (url: string, options: EventSource.ConnectOptions = {}) => {
  const items: Array<Items[number]> = []
  return EventSource.connect(url, options)({ cursor: undefined, attempt: 1, generation: 1 }).pipe(
    Effect.flatMap(Stream.runForEach((item) => Effect.sync(() => items.push(item)))),
    Effect.scoped,
    Effect.match({
      onSuccess: () => "end",
      onFailure: (error) => {
        assert.include(error.message, url)
        assert.notInclude(error.message, "undefined")
        return "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag
      }
    }),
    Effect.map((ended) => ({ ended, data: items.map((item) => item.notice ?? item.value.data) }))
  )
}

interface Row {
  readonly name: string
  readonly at: RawServer.Script
  readonly ended: string | Readonly<Record<keyof typeof clients, string>>
  readonly data: ReadonlyArray<string> | Readonly<Record<keyof typeof clients, ReadonlyArray<string>>>
  readonly options?: EventSource.ConnectOptions
}

const head = (more = "") => `HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n${more}\r\n`
const chunked = head("Transfer-Encoding: chunked\r\n")
const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
const events = { "Content-Type": "text/event-stream" }

const write = (socket: Net.Socket, bytes: string, then: () => void = () => {}) => {
  socket.write(bytes, then)
}

const compressed = (encoding: string, body: Uint8Array): RawServer.Script => (socket) => {
  socket.write(head(`Content-Encoding: ${encoding}\r\nContent-Length: ${body.length}\r\n`))
  socket.write(body)
}

const text = "data: a\n\ndata: b\n\n"
const byFetchOnly = { "fetch": "end", "undici": "Refused.MalformedResponse", "node:http": "Refused.MalformedResponse" }
const whereDecoded = { "fetch": ["a", "b"], "undici": [], "node:http": [] }

const rows: ReadonlyArray<Row> = [
  {
    name: "a body with a length",
    at: (socket) => socket.end(answer(200, text, events)),
    ended: "end",
    data: ["a", "b"]
  },
  {
    name: "a body until the connection ends",
    at: (socket) => socket.end(head() + text),
    ended: "end",
    data: ["a", "b"]
  },
  {
    name: "a chunked body, cut anywhere",
    at: (socket) => socket.end(chunked + [...text].map(chunk).join("") + chunk("")),
    ended: "end",
    data: ["a", "b"]
  },
  {
    name: "an event that is cut off, cleanly",
    at: (socket) => socket.end(answer(200, `${text}id: 1\ndata: c\n`, events)),
    ended: "end",
    data: ["a", "b"]
  },
  {
    name: "a chunked body without its end",
    at: (socket) => socket.end(chunked + chunk(`${text}id: 1\ndata: c\n`)),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a body shorter than it says",
    at: (socket) => socket.end(`${head("Content-Length: 1000\r\n")}${text}`),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a reset after the head",
    at: (socket) => write(socket, chunked, () => setTimeout(() => socket.resetAndDestroy(), 50)),
    ended: "Transient.Unreachable",
    data: []
  },
  { name: "a reset at once", at: (socket) => socket.resetAndDestroy(), ended: "Transient.Unreachable", data: [] },
  { name: "a close without a word", at: (socket) => socket.end(), ended: "Transient.Unreachable", data: [] },
  {
    name: "what is not HTTP",
    at: (socket) => socket.end("SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ended: "Transient.Unreachable",
    data: []
  },
  {
    name: "no answer",
    at: () => {},
    options: { connectTimeout: "200 millis" },
    ended: "Transient.TimedOut",
    data: []
  },
  {
    name: "a head that never ends",
    at: (socket) => write(socket, "HTTP/1.1 200 OK\r\nX-"),
    options: { connectTimeout: "200 millis" },
    ended: "Transient.TimedOut",
    data: []
  },
  {
    name: "silence after an event",
    at: (socket) => write(socket, chunked + chunk(text)),
    options: { idleTimeout: "200 millis" },
    ended: "Transient.TimedOut",
    data: ["a", "b"]
  },
  {
    name: "half a chunk, and silence",
    at: (socket) => write(socket, `${chunked}${chunk(text)}10\r\ndata`),
    options: { idleTimeout: "200 millis" },
    ended: "Transient.TimedOut",
    data: ["a", "b"]
  },
  {
    name: "an event that is too large",
    at: (socket) => write(socket, chunked + chunk(`${text}data: ${"x".repeat(1000)}\n\n`)),
    options: { maxEventSize: 500 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "a line that never ends",
    at: (socket) => {
      const flood = () => {
        while (socket.writable && socket.write(chunk("x".repeat(65536)))) {}
      }
      socket.on("drain", flood)
      socket.write(chunked + chunk(text))
      flood()
    },
    options: { maxEventSize: 1_000_000 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "bytes that are not UTF-8, nor anything else",
    at: (socket) => {
      const noise = Buffer.from(
        Array.from({ length: 4096 }, (_, n) => (n * 167 + (n >> 3)) % 256).filter((byte) => byte !== 10 && byte !== 13)
      )
      socket.write(head())
      socket.end(
        Buffer.concat([Buffer.from(text), noise, Buffer.from("\n\n"), Buffer.from("data: \xff\n\n", "latin1")])
      )
    },
    ended: "end",
    data: ["a", "b", "\ufffd"]
  },
  {
    name: "a JSON answer",
    at: RawServer.always(200, "{}", { "Content-Type": "application/json" }),
    ended: "Refused.MalformedResponse",
    data: []
  },
  {
    name: "a page",
    at: RawServer.always(200, text, { "Content-Type": "text/html" }),
    ended: "Refused.MalformedResponse",
    data: []
  },
  { name: "204", at: RawServer.always(204), ended: "Stop", data: [] },
  {
    name: "401 whose body never ends",
    at: (socket) => write(socket, "HTTP/1.1 401 X\r\nContent-Length: 9\r\n\r\n{"),
    ended: "AuthFailed.Unauthorized",
    data: []
  },
  { name: "503", at: RawServer.always(503), ended: "Transient.Unavailable", data: [] },
  {
    name: "a redirect in a circle",
    at: RawServer.always(307, "", { Location: "/again" }),
    ended: "Refused.Unsupported",
    data: []
  },
  {
    name: "a redirect to the stream",
    at: (socket, request) =>
      socket.end(request.n === 0 ? answer(301, "moved", { Location: "/there" }) : answer(200, text, events)),
    ended: "end",
    data: ["a", "b"]
  },
  { name: "gzip", at: compressed("gzip", Zlib.gzipSync(text)), ended: byFetchOnly, data: whereDecoded },
  { name: "deflate", at: compressed("deflate", Zlib.deflateSync(text)), ended: byFetchOnly, data: whereDecoded },
  { name: "br", at: compressed("br", Zlib.brotliCompressSync(text)), ended: byFetchOnly, data: whereDecoded },
  {
    name: "gzip that is none",
    // Ended by the server: else Node's fetch keeps the connection for seconds.
    at: (socket) => socket.end(`${head(`Content-Encoding: gzip\r\nContent-Length: ${text.length}\r\n`)}${text}`),
    ended: { ...byFetchOnly, "fetch": "Transient.Unreachable" },
    data: []
  }
]

const perClient = <A>(expected: A | Readonly<Record<keyof typeof clients, A>>, client: keyof typeof clients): A =>
  typeof expected === "object" && expected !== null && "fetch" in expected ? expected[client] : expected as A

const live = <A, E>(
  client: Layer.Layer<HttpClient.HttpClient>,
  effect: Effect.Effect<A, E, HttpClient.HttpClient>
) => Effect.provide(effect, client).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

describe("EventSource over real sockets", () => {
  for (const [name, layer] of Object.entries(clients) as ReadonlyArray<[keyof typeof clients, typeof clients.fetch]>) {
    describe(`with ${name}`, () => {
      it.live.each(rows.map((row) => [row.name, row] as const))("%s", ([, row]) =>
        Effect.gen(function*() {
          const fibers = Leaks.fiberCounter()
          const left = yield* Leaks.resources
          yield* Effect.scoped(Effect.gen(function*() {
            const server = yield* RawServer.make(row.at)
            const { data, ended } = yield* fibers.watch(live(layer, readAll(`${server.url}/events`, row.options)))
            assert.deepStrictEqual({ ended, data }, {
              ended: perClient(row.ended, name),
              data: perClient(row.data, name)
            })
            assert.strictEqual(yield* fibers.left, 0, "fibers")
            // A client may keep a connection whose answer was whole for the next request; nothing else stays open.
            if (name === "fetch" && !ended.startsWith("end")) yield* server.quiet
          }))
          assert.deepStrictEqual(yield* left, [], "resources")
        }))
    })
  }
})

// ---------------------------------------------------------------------------------------------------------------------

const policy = Backoff.make({ base: 250, cap: 500 })

/** A stream that is read in the background: what comes, and where it stands. */
const follow = Effect.fnUntraced(function*(url: string, options: { readonly idleTimeout?: Duration.Input } = {}) {
  const handle = yield* Reconnect.makeHandle
  const received = yield* Queue.unbounded<EventSource.Event | Reconnect.Gap>()
  const fiber = yield* EventSource.stream(url, {
    policy,
    handle,
    isGap: (event) => event.event === "gap",
    ...options
  }).pipe(
    Stream.runForEach((event) => Queue.offer(received, event)),
    Effect.provide(FetchHttpClient.layer),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.forkScoped
  )
  const until = (tag: Reconnect.Status["_tag"]) =>
    SubscriptionRef.changes(handle.status).pipe(
      Stream.filter((status) => status._tag === tag),
      Stream.take(1),
      Stream.runDrain
    )
  return { fiber, next: Queue.take(received), until, handle }
})

const register = (url: string, name: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/api/v1/services/register`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ name, type: "app", api_url: "http://app" })
    })
    assert.strictEqual(response.status, 201)
    return String((await response.json()).id)
  })

const serviceOf = (event: EventSource.Event | Reconnect.Gap): string =>
  event._tag === "Gap" ? "gap" : `${event.event} ${JSON.parse(event.data).service_id}`

/** Between client and server: what goes through can be cut off. */
const proxy = (to: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const sockets = new Set<Net.Socket>()
      const requests: Array<string> = []
      const server = Net.createServer((near) => {
        const far = Net.connect(Number(new URL(to).port), "127.0.0.1")
        for (const [socket, other] of [[near, far], [far, near]] as const) {
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("close", () => {
            sockets.delete(socket)
            other.destroy()
          })
          socket.pipe(other)
        }
        near.on("data", (bytes) => requests.push(String(bytes)))
      }).listen(0, "127.0.0.1")
      await once(server, "listening")
      const address = server.address()
      const cut = () => {
        for (const socket of sockets) socket.destroy()
      }
      return { server, cut, requests, url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}` }
    }),
    ({ cut, server }) =>
      Effect.promise(async () => {
        server.close()
        cut()
        if (server.listening) await once(server, "close")
      })
  )

const main = fileURLToPath(new URL("../src/node/registryMain.ts", import.meta.url))

/** The registry as a process, which can be killed as `kill -9` does it. */
const spawn = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = ChildProcess.spawn(process.execPath, [main, "--until-stdin-ends", "--port", `${port}`], {
        stdio: ["pipe", "pipe", "inherit"]
      })
      const [line] = await once(createInterface(child.stdout), "line")
      const kill = Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill("SIGKILL")
        await once(child, "exit")
      })
      return { kill, url: String(JSON.parse(String(line)).url) }
    }),
    ({ kill }) => kill
  )

describe("EventSource.stream and the embedded registry", () => {
  it.live("events with their ids; after a cut it resumes where it was, and misses nothing", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(NodeRegistry.layer({ events: { keepAlive: "20 millis" } }))
      const registry = Context.get(context, NodeRegistry.NodeRegistry)
      const hub = Context.get(context, Events.Events)
      const between = yield* proxy(registry.url)
      // Only the comments keep it from being idle.
      const stream = yield* follow(`${between.url}/api/v1/events`, { idleTimeout: "2 seconds" })
      yield* stream.until("Open")
      const a = yield* register(registry.url, "a")
      const first = yield* stream.next
      assert.strictEqual(serviceOf(first), `service_registered ${a}`)
      const position = yield* hub.position
      assert.strictEqual(first._tag === "Event" ? first.id : "", position)
      yield* Effect.sleep("50 millis")
      const expected: Array<string> = []
      between.cut()
      for (const name of ["b", "c"]) expected.push(`service_registered ${yield* register(registry.url, name)}`)
      assert.deepStrictEqual([serviceOf(yield* stream.next), serviceOf(yield* stream.next)], expected)
      assert.include(between.requests[1], `last-event-id: ${position}\r\n`)
      assert.notInclude(between.requests[0], "last-event-id")
      // Before any event came: it resumes from where the stream opened.
      yield* Fiber.interrupt(stream.fiber)
      const fresh = yield* follow(`${between.url}/api/v1/events`)
      yield* fresh.until("Open")
      yield* Effect.sleep("100 millis")
      between.cut()
      const d = yield* register(registry.url, "d")
      assert.strictEqual(serviceOf(yield* fresh.next), `service_registered ${d}`)
      yield* Fiber.interrupt(fresh.fiber)
    }).pipe(Effect.scoped))

  it.live("a registry that is killed and started again: one gap, then its events", () =>
    Effect.gen(function*() {
      const first = yield* spawn(0)
      const port = Number(new URL(first.url).port)
      const stream = yield* follow(`${first.url}/api/v1/events`)
      yield* stream.until("Open")
      const a = yield* register(first.url, "a")
      assert.strictEqual(serviceOf(yield* stream.next), `service_registered ${a}`)
      let registry = first
      for (const name of ["b", "c"]) {
        yield* registry.kill
        yield* stream.until("Waiting")
        registry = yield* spawn(port)
        assert.strictEqual(serviceOf(yield* stream.next), "gap")
        const id = yield* register(registry.url, name)
        assert.strictEqual(serviceOf(yield* stream.next), `service_registered ${id}`)
      }
      assert.strictEqual(stream.fiber.pollUnsafe(), undefined)
    }).pipe(Effect.scoped))

  it.live("a server that falls silent is left for a new connection", () =>
    Effect.gen(function*() {
      const server = yield* RawServer.make((socket, { n }) => {
        socket.write(head() + (n === 0 ? "id: 7\ndata: a\n\n: and no more" : "data: b\n\n"))
      })
      const stream = yield* follow(`${server.url}/events`, { idleTimeout: "300 millis" })
      assert.deepInclude(yield* stream.next, { data: "a", id: "7" })
      assert.deepInclude(yield* stream.next, { data: "b", id: "7" })
      assert.match(server.requests[1]?.head ?? "", /last-event-id: 7/i)
    }).pipe(Effect.scoped))
})

describe("what EventSource leaves behind", () => {
  const kinds: ReadonlyArray<readonly [string, RawServer.Script]> = [
    ["an open stream", (socket) => write(socket, chunked + chunk(text))],
    ["an attempt without an answer", () => {}],
    ["waits between attempts", (socket) => socket.resetAndDestroy()],
    ["waits after an answer", RawServer.always(503)],
    ["streams that end", (socket) => socket.end(answer(200, text, events))]
  ]
  it.live.each(kinds)("nothing, of 20 streams with %s that were closed", ([, script]) =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const left = yield* Leaks.resources
      yield* Effect.scoped(Effect.gen(function*() {
        const server = yield* RawServer.make(script)
        const streams = Effect.forEach(
          Array.from({ length: 20 }),
          () => EventSource.stream(`${server.url}/events`, { policy, noProgressLimit: 1000 }).pipe(Stream.runDrain),
          { concurrency: "unbounded" }
        )
        yield* fibers.watch(live(FetchHttpClient.layer, Effect.timeoutOption(streams, "700 millis")))
        assert.isAtLeast(server.requests.length, 20)
        assert.strictEqual(yield* fibers.left, 0, "fibers")
        yield* server.quiet
      }))
      assert.deepStrictEqual(yield* left, [], "resources")
    }))
})
