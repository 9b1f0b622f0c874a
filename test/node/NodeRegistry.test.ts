import * as NodeWS from "@effect/platform-node/NodeWS"
import { assert, describe, it } from "@effect/vitest"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Catalog from "effect-lifeline/server/Catalog"
import * as Events from "effect-lifeline/server/Events"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Net from "node:net"

const key = "right-key"
const apiKey = Redacted.make(key)

/** A registry in a scope of its own, so that a test can stop it. */
const start = Effect.fnUntraced(function*(options?: NodeRegistry.Options) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(NodeRegistry.layer({ apiKey, ...options }), scope)
  return {
    ...Context.get(context, NodeRegistry.NodeRegistry),
    catalog: Context.get(context, Catalog.Catalog),
    events: Context.get(context, Events.Events),
    stop: Scope.close(scope, Exit.void)
  }
})

/** Asks until it is so; a test that waits for ever is ended by its timeout. */
const eventually = <E>(condition: Effect.Effect<boolean, E>): Effect.Effect<void, E> =>
  Effect.flatMap(
    condition,
    (holds) => holds ? Effect.void : Effect.andThen(Effect.sleep("10 millis"), eventually(condition))
  )

const becomes = (effect: Effect.Effect<number>, expected: number) =>
  eventually(Effect.map(effect, (value) => value === expected))

/** Whether nobody listens there. */
const refuses = (url: string) =>
  Effect.callback<boolean>((resume) => {
    const { hostname, port } = new URL(url)
    const socket = Net.connect(Number(port), hostname)
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.succeed(false))
    })
    socket.once("error", () => resume(Effect.succeed(true)))
    return Effect.sync(() => socket.destroy())
  })

const headers = { "x-api-key": key }

const register = (url: string, name: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/api/v1/services/register`, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json" },
      body: JSON.stringify({ name, type: "app", api_url: "http://app" })
    })
    assert.strictEqual(response.status, 201)
    return String((await response.json()).id)
  })

interface Block {
  readonly id?: string
  readonly event?: string
  readonly data?: string
  readonly comment?: string
}

const toBlock = (text: string): Block =>
  Object.fromEntries(
    text.split("\n").map((line) => {
      const [name = "", value = ""] = line.split(/: (.*)/)
      return [name === "" ? "comment" : name, value]
    })
  )

/** An event stream, block by block. Aborted with the scope of the test, or by `disconnect`. */
const follow = Effect.fnUntraced(function*(url: string, lastEventId?: string) {
  const abort = new AbortController()
  yield* Effect.addFinalizer(() => Effect.sync(() => abort.abort()))
  const response = yield* Effect.promise(() =>
    fetch(`${url}/api/v1/events`, {
      headers: { ...headers, ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }) },
      signal: abort.signal
    })
  )
  assert.strictEqual(response.status, 200)
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/)
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let pending = ""
  const next: Effect.Effect<Block | undefined> = Effect.promise(async () => {
    while (!pending.includes("\n\n")) {
      const chunk = await reader?.read()
      if (chunk === undefined || chunk.done) return undefined
      pending += chunk.value
    }
    const end = pending.indexOf("\n\n")
    const block = toBlock(pending.slice(0, end))
    pending = pending.slice(end + 2)
    return block
  })
  return { next, disconnect: Effect.sync(() => abort.abort()) }
})

interface Closed {
  readonly code: number
}

/** A WebSocket client: its messages in order, and how it was closed. */
const connect = Effect.fnUntraced(function*(url: string, requestHeaders: Record<string, string> = headers) {
  const socket = new NodeWS.WebSocket(`${url.replace("http", "ws")}/api/v1/ws`, { headers: requestHeaders })
  yield* Effect.addFinalizer(() => Effect.sync(() => socket.terminate()))
  const messages: Array<{ readonly type: string; readonly service_id?: string }> = []
  const closed = yield* Deferred.make<Closed>()
  const opened = yield* Deferred.make<void, number>()
  socket.on("message", (data) => messages.push(JSON.parse(String(data))))
  socket.on("open", () => Effect.runSync(Deferred.succeed(opened, undefined)))
  socket.on("unexpected-response", (_request, response) => {
    Effect.runSync(Deferred.fail(opened, response.statusCode ?? 0))
  })
  socket.on("error", () => {})
  socket.on("close", (code) => Effect.runSync(Deferred.succeed(closed, { code })))
  yield* Deferred.await(opened)
  return { socket, messages, closed: Deferred.await(closed) }
})

describe("NodeRegistry", () => {
  it.live("listens on the loopback interface, on any free port, and says where", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      assert.match(registry.url, /^http:\/\/127\.0\.0\.1:\d+$/)
      const id = yield* register(registry.url, "a")
      const response = yield* Effect.promise(() => fetch(`${registry.url}/api/v1/services/${id}`, { headers }))
      assert.strictEqual(response.status, 200)
      assert.strictEqual((yield* Effect.promise(() => response.json())).name, "a")
    }))

  it.live("fails when the port is taken", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const error = yield* Effect.flip(start({ port: Number(new URL(registry.url).port) }))
      assert.strictEqual(error._tag, "ServeError")
    }))

  it.live("refuses a body over 1 MiB while it arrives, and answers all the same", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const status = yield* Effect.callback<number>((resume) => {
        const request = Http.request(`${registry.url}/api/v1/services/register`, {
          method: "POST",
          headers: { ...headers, "content-type": "application/json", "transfer-encoding": "chunked" }
        }, (response) => {
          resume(Effect.succeed(response.statusCode ?? 0))
          request.destroy()
        })
        request.on("error", () => {})
        for (let n = 0; n < 20; n++) request.write(" ".repeat(64 * 1024))
      })
      assert.strictEqual(status, 413)
    }))
})

describe("the event stream", () => {
  it.live("opens with the place where it stands, then carries events with ids", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const stream = yield* follow(registry.url)
      const opened = yield* stream.next
      assert.strictEqual(opened?.id, yield* registry.events.position)
      assert.notProperty(opened, "data")
      const id = yield* register(registry.url, "a")
      const event = yield* stream.next
      assert.strictEqual(event?.event, "service_registered")
      assert.strictEqual(event?.id, yield* registry.events.position)
      assert.deepInclude(JSON.parse(event?.data ?? ""), {
        type: "service_registered",
        service_id: id,
        data: { name: "a", type: "app", action: "created" }
      })
    }))

  it.live("resumes after Last-Event-ID", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const first = yield* follow(registry.url)
      yield* first.next
      const a = yield* register(registry.url, "a")
      const seen = (yield* first.next)?.id
      yield* first.disconnect
      const b = yield* register(registry.url, "b")
      const c = yield* register(registry.url, "c")
      const second = yield* follow(registry.url, seen)
      const blocks = [yield* second.next, yield* second.next, yield* second.next]
      assert.strictEqual(blocks[0]?.id, seen)
      assert.deepStrictEqual(blocks.slice(1).map((block) => JSON.parse(block?.data ?? "").service_id), [b, c])
      assert.notInclude([b, c], a)
    }))

  it.live("misses nothing when it resumes from where it opened, without ever having seen an event", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const first = yield* follow(registry.url)
      const opened = (yield* first.next)?.id
      yield* first.disconnect
      yield* register(registry.url, "a")
      const second = yield* follow(registry.url, opened)
      yield* second.next
      assert.strictEqual((yield* second.next)?.event, "service_registered")
    }))

  it.live("tells a gap when the history no longer reaches back", () =>
    Effect.gen(function*() {
      const registry = yield* start({ events: { history: 2 } })
      const before = yield* registry.events.position
      for (const name of ["a", "b", "c"]) yield* register(registry.url, name)
      const stream = yield* follow(registry.url, before)
      const events = [yield* stream.next, yield* stream.next, yield* stream.next, yield* stream.next]
      assert.deepStrictEqual(
        events.map((block) => block?.event),
        [undefined, "gap", "service_registered", "service_registered"]
      )
      assert.strictEqual(JSON.parse(events[1]?.data ?? "").data.after, before)
    }))

  it.live("tells a gap when the id is of an earlier boot of the registry", () =>
    Effect.gen(function*() {
      const first = yield* start()
      yield* register(first.url, "a")
      const seen = yield* first.events.position
      yield* first.stop
      const second = yield* start()
      const stream = yield* follow(second.url, seen)
      yield* stream.next
      assert.strictEqual((yield* stream.next)?.event, "gap")
    }))

  it.live("carries a comment when nothing happens", () =>
    Effect.gen(function*() {
      const registry = yield* start({ events: { keepAlive: "20 millis" } })
      const stream = yield* follow(registry.url)
      yield* stream.next
      const blocks = [yield* stream.next, yield* stream.next]
      assert.deepStrictEqual(blocks, [{ comment: "idle" }, { comment: "idle" }])
    }))

  it.live("frees everything when the client goes", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const streams = yield* Effect.forEach(Array.from({ length: 5 }), () => follow(registry.url))
      yield* Effect.forEach(streams, (stream) => stream.next)
      assert.strictEqual(yield* registry.events.subscribers, 5)
      yield* Effect.forEach(streams, (stream) => stream.disconnect)
      yield* becomes(registry.events.subscribers, 0)
      yield* becomes(registry.sockets, 0)
    }))
})

describe("the WebSocket", () => {
  it.live("carries events as JSON, from the server only", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const client = yield* connect(registry.url)
      client.socket.send("{\"type\":\"service_deregistered\"}")
      client.socket.send("not json")
      const id = yield* register(registry.url, "a")
      yield* eventually(Effect.sync(() => client.messages.length === 1))
      assert.deepInclude(client.messages[0], { type: "service_registered", service_id: id })
      assert.strictEqual(client.socket.readyState, NodeWS.WebSocket.OPEN)
    }))

  it.live("asks for the key before it upgrades", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      assert.strictEqual(yield* Effect.flip(connect(registry.url, {})), 401)
      assert.strictEqual(yield* Effect.flip(connect(registry.url, { "x-api-key": "wrong" })), 401)
      yield* connect(registry.url, { "sec-fetch-site": "same-origin" })
    }))

  it.live("asks for an upgrade where there is none", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const response = yield* Effect.promise(() => fetch(`${registry.url}/api/v1/ws`, { headers }))
      assert.strictEqual(response.status, 426)
      yield* Effect.promise(() => response.text())
    }))

  it.live("frees everything when the client goes, politely or not", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const clients = yield* Effect.forEach(Array.from({ length: 4 }), () => connect(registry.url))
      yield* becomes(registry.events.subscribers, 4)
      clients.slice(0, 2).forEach((client) => client.socket.close())
      clients.slice(2).forEach((client) => client.socket.terminate())
      yield* becomes(registry.events.subscribers, 0)
      yield* becomes(registry.sockets, 0)
    }))

  it.live("hangs up on a message that is too long", () =>
    Effect.gen(function*() {
      const registry = yield* start()
      const client = yield* connect(registry.url)
      client.socket.send("x".repeat(100_000))
      assert.strictEqual((yield* client.closed).code, 1009)
      yield* becomes(registry.events.subscribers, 0)
    }))

  it.live("gives up a client that does not read, instead of keeping all for it", () =>
    Effect.gen(function*() {
      const registry = yield* start({ events: { history: 10 } })
      const client = yield* connect(registry.url)
      const quick = yield* connect(registry.url)
      yield* becomes(registry.events.subscribers, 2)
      client.socket.pause()
      let published = 0
      yield* Effect.gen(function*() {
        yield* registry.events.publish({ type: "large", data: { text: "x".repeat(500_000) } })
        published = published + 1
        yield* eventually(Effect.sync(() => quick.messages.length === published))
        return (yield* registry.events.subscribers) === 1
      }).pipe(Effect.repeat({ until: (gone) => gone }))
      client.socket.resume()
      assert.strictEqual((yield* client.closed).code, 1013)
      assert.isBelow(client.messages.length, published)
    }))
})

describe("stopping", () => {
  it.live("ends event streams and WebSockets, and does not wait for who does not listen", () =>
    Effect.gen(function*() {
      const registry = yield* start({ stopWithin: "100 millis" })
      const stream = yield* follow(registry.url)
      yield* stream.next
      const client = yield* connect(registry.url)
      const deaf = yield* connect(registry.url)
      deaf.socket.pause()
      yield* becomes(registry.events.subscribers, 3)

      // A request whose body never comes, and a connection that never asks.
      const { hostname, port } = new URL(registry.url)
      const sockets = [Net.connect(Number(port), hostname), Net.connect(Number(port), hostname)]
      yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
      for (const socket of sockets) socket.on("error", () => {})
      sockets[0]?.write(
        `POST /api/v1/services/register HTTP/1.1\r\nhost: x\r\nx-api-key: ${key}\r\n` +
          "content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
      )
      yield* eventually(Effect.map(registry.sockets, (open) => open >= 5))

      yield* registry.stop
      assert.isUndefined(yield* stream.next)
      assert.strictEqual((yield* client.closed).code, 1001)
      yield* becomes(registry.sockets, 0)
      assert.strictEqual(yield* registry.events.subscribers, 0)
      const refused = yield* Effect.flip(Effect.tryPromise(() => fetch(`${registry.url}/health`)))
      assert.isDefined(refused)
    }))

  it.live("lets a request finish that is under way", () =>
    Effect.gen(function*() {
      const registry = yield* start({ stopWithin: "10 seconds" })
      const body = JSON.stringify({ name: "late", type: "app", api_url: "http://late" })
      const begun = yield* Deferred.make<void>()
      const status = yield* Deferred.make<number>()
      const request = Http.request(`${registry.url}/api/v1/services/register`, {
        method: "POST",
        headers: { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(body) }
      }, (response) => Effect.runSync(Deferred.succeed(status, response.statusCode ?? 0)))
      request.write(body.slice(0, 5), () => Effect.runSync(Deferred.succeed(begun, undefined)))
      yield* Deferred.await(begun)
      yield* becomes(registry.sockets, 1)
      const stopping = yield* Effect.forkChild(registry.stop)
      // From here on it takes nothing new: it waits for what it has.
      yield* eventually(refuses(registry.url))
      assert.isUndefined(stopping.pollUnsafe())
      request.end(body.slice(5))
      assert.strictEqual(yield* Deferred.await(status), 201)
      yield* Fiber.join(stopping)
    }))
})
