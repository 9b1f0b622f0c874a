import { assert, describe, it } from "@effect/vitest"
import * as Catalog from "effect-lifeline/server/Catalog"
import type * as Events from "effect-lifeline/server/Events"
import * as Health from "effect-lifeline/server/Health"
import type * as Store from "effect-lifeline/server/Store"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Http from "node:http"
import type * as Net from "node:net"
import { field, idOf, minimal, serve } from "./support.ts"

type Answer = number | "refuse" | "hang"

/** Services that answer their health checks as told, by host. */
const scripted = (answers: Record<string, Answer>) => {
  const requests: Array<HttpClientRequest.HttpClientRequest> = []
  let running = 0
  let most = 0
  const layer = Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request, url) => {
      requests.push(request)
      const answer = answers[url.hostname] ?? "refuse"
      if (answer === "refuse") {
        return Effect.fail(
          new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request }) })
        )
      }
      running = running + 1
      most = Math.max(most, running)
      const reply = answer === "hang"
        ? Effect.never
        : Effect.sync(() => HttpClientResponse.fromWeb(request, new Response(null, { status: answer })))
      return Effect.ensuring(Effect.andThen(Effect.yieldNow, reply), Effect.sync(() => void (running = running - 1)))
    })
  )
  return { layer, requests, answers, running: () => running, most: () => most }
}

const service = (host: string, rest?: object) => ({
  ...minimal,
  name: host,
  health_url: `http://${host}/health`,
  ...rest
})

const eventsSince = (events: Events.Events["Service"], after: string, count: number) =>
  events.subscribe({ after }).pipe(
    Stream.drop(1),
    Stream.take(count),
    Stream.map((message) => message._tag === "Event" ? message.event : undefined),
    Stream.runCollect
  )

describe("health checks", () => {
  it.effect.each<[Answer, string]>([
    [200, "online"],
    [204, "online"],
    [299, "online"],
    [301, "offline"],
    [302, "offline"],
    [304, "offline"],
    [401, "offline"],
    [404, "offline"],
    [429, "offline"],
    [500, "degraded"],
    [503, "degraded"],
    [599, "degraded"],
    ["refuse", "offline"],
    ["hang", "offline"]
  ])("an answer of %s means %s", ([answer, expected]) =>
    Effect.gen(function*() {
      const script = scripted({ host: answer })
      const { call, register } = yield* serve({ httpClient: script.layer })
      const id = idOf(yield* register(service("host")))
      yield* TestClock.adjust("30 seconds")
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(field((yield* call("GET", `/api/v1/services/${id}`)).json, "status"), expected)
      assert.strictEqual(script.requests.length, 1)
      assert.strictEqual(script.running(), 0)
    }))

  it.effect("are made every 30 seconds, with the service's own key", () =>
    Effect.gen(function*() {
      const script = scripted({ a: 200, b: 200 })
      const { register } = yield* serve({ httpClient: script.layer })
      yield* register(service("a", { api_key: "key-of-a" }))
      yield* register(service("b"))
      yield* TestClock.adjust("29 seconds")
      assert.strictEqual(script.requests.length, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(script.requests.length, 2)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(script.requests.length, 6)
      assert.deepStrictEqual(
        script.requests.slice(0, 2).map((request) => [request.method, request.url, request.headers["x-api-key"]]),
        [["GET", "http://a/health", "key-of-a"], ["GET", "http://b/health", undefined]]
      )
      assert.notProperty(script.requests[0]?.headers, "traceparent")
    }))

  it.effect("wait 5 seconds for an answer", () =>
    Effect.gen(function*() {
      const script = scripted({ slow: "hang" })
      const { call, register } = yield* serve({ httpClient: script.layer })
      const id = idOf(yield* register(service("slow")))
      const status = Effect.map(call("GET", `/api/v1/services/${id}`), (reply) => field(reply.json, "status"))
      yield* TestClock.adjust("34999 millis")
      assert.deepStrictEqual([yield* status, script.running()], ["online", 1])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual([yield* status, script.running()], ["offline", 0])
    }))

  it.effect("tell each change of a status, and nothing else", () =>
    Effect.gen(function*() {
      const script = scripted({ host: 200 })
      const { events, register } = yield* serve({ httpClient: script.layer })
      const id = idOf(yield* register(service("host")))
      const after = yield* events.position
      for (const answer of [200, 503, 503, 404, 200] as const) {
        script.answers["host"] = answer
        yield* TestClock.adjust("30 seconds")
      }
      assert.deepStrictEqual(
        yield* eventsSince(events, after, 3),
        ([
          ["service_degraded", "00:01:00", "online", "degraded"],
          ["service_offline", "00:02:00", "degraded", "offline"],
          ["service_online", "00:02:30", "offline", "online"]
        ] as const).map(([type, time, before, now]) => ({
          type,
          timestamp: `1970-01-01T${time}.000Z`,
          service_id: id,
          data: { name: "host", old_status: before, new_status: now }
        }))
      )
      assert.strictEqual(yield* events.position, `${after.slice(0, -1)}4`)
    }))

  it.effect("leave a service with a health URL alone that has not beaten, and one without that has", () =>
    Effect.gen(function*() {
      const script = scripted({ checked: 200 })
      const { call, register } = yield* serve({ httpClient: script.layer })
      const checked = idOf(yield* register(service("checked")))
      const silent = idOf(yield* register({ ...minimal, name: "silent" }))
      const beating = idOf(yield* register({ ...minimal, name: "beating" }))
      yield* TestClock.adjust("2 minutes")
      yield* call("PUT", `/api/v1/services/${beating}/heartbeat`)
      const statuses = Effect.forEach(
        [checked, silent, beating],
        (id) => Effect.map(call("GET", `/api/v1/services/${id}`), (reply) => field(reply.json, "status"))
      )
      assert.deepStrictEqual(yield* statuses, ["online", "online", "online"])
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* statuses, ["online", "offline", "online"])
      assert.strictEqual(script.requests.every((request) => request.url === "http://checked/health"), true)
    }))

  it.effect.each([
    "file:///etc/passwd",
    "ftp://host/health",
    "javascript:alert(1)",
    "data:text/plain,ok",
    "gopher://host",
    "host:8080/health",
    "/health",
    "http://",
    "   "
  ])("never ask for %s", (url) =>
    Effect.gen(function*() {
      const script = scripted({ host: 200 })
      const { call, register } = yield* serve({ httpClient: script.layer })
      const id = idOf(yield* register({ ...minimal, health_url: String(url) }))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(script.requests.length, 0)
      assert.strictEqual(field((yield* call("GET", `/api/v1/services/${id}`)).json, "status"), "offline")
    }))

  it.effect("ask so many services at the same time and no more, and all of them", () =>
    Effect.gen(function*() {
      const hosts = Array.from({ length: 40 }, (_, n) => `host${n}`)
      const script = scripted(Object.fromEntries(hosts.map((host) => [host, "hang" as const])))
      const { catalog, register } = yield* serve({ httpClient: script.layer, health: { concurrency: 10 } })
      yield* Effect.forEach(hosts, (host) => register(service(host)))
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual([script.requests.length, script.most()], [10, 10])
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual([script.requests.length, script.most()], [40, 10])
      const all = yield* catalog.list()
      assert.strictEqual(all.every((one) => one.status === "offline"), true)
    }))

  it.effect("take a client that fails unexpectedly for no answer", () =>
    Effect.gen(function*() {
      const defective = Layer.succeed(HttpClient.HttpClient, HttpClient.make(() => Effect.die(new Error("a bug"))))
      const { call, register } = yield* serve({ httpClient: defective })
      const id = idOf(yield* register(service("host")))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(field((yield* call("GET", `/api/v1/services/${id}`)).json, "status"), "offline")
    }))

  it.effect("go on after a round that failed unexpectedly", () =>
    Effect.gen(function*() {
      let rounds = 0
      const defective = Layer.mock(Catalog.Catalog, {
        expire: () =>
          Effect.suspend(() => {
            rounds = rounds + 1
            return rounds === 1 ? Effect.die(new Error("a bug")) : Effect.void
          }),
        list: () => Effect.succeed([]),
        flush: Effect.void
      })
      yield* Layer.build(Health.layer().pipe(Layer.provide([defective, scripted({}).layer])))
      yield* TestClock.adjust("90 seconds")
      assert.strictEqual(rounds, 3)
    }))

  it.effect("have intervals that can be set", () =>
    Effect.gen(function*() {
      const script = scripted({ host: "hang" })
      const { call, register } = yield* serve({
        httpClient: script.layer,
        health: { interval: "1 second", timeout: "200 millis", staleAfter: "3 seconds" }
      })
      const checked = idOf(yield* register(service("host")))
      const silent = idOf(yield* register(minimal))
      const statuses = Effect.forEach([checked, silent], (id) =>
        Effect.map(call("GET", `/api/v1/services/${id}`), (reply) => field(reply.json, "status")))
      yield* TestClock.adjust("1200 millis")
      assert.deepStrictEqual(yield* statuses, ["offline", "online"])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* statuses, ["offline", "offline"])
    }))
})

describe("one check over real HTTP", () => {
  const listen = (handler: Http.RequestListener) =>
    Effect.acquireRelease(
      Effect.callback<Http.Server>((resume) => {
        const server = Http.createServer(handler)
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )

  const urlOf = (server: Http.Server): string => `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`

  const target = (healthUrl: string): Store.Service & { readonly healthUrl: string } => ({
    _tag: "Service",
    id: "s",
    name: "n",
    type: "t",
    apiUrl: "http://n",
    apiKey: Redacted.make("service-key"),
    healthUrl,
    capabilities: [],
    metadata: "{}",
    status: "online",
    lastSeen: 0,
    registeredAt: 0
  })

  const check = (url: string) =>
    Effect.flatMap(HttpClient.HttpClient, (client) => Health.check(client, target(url), "5 seconds")).pipe(
      Effect.provide(FetchHttpClient.layer)
    )

  it.live("does not follow a redirect, so that the key goes nowhere else", () =>
    Effect.gen(function*() {
      let reached = 0
      const inside = yield* listen((_, response) => {
        reached = reached + 1
        response.end("ok")
      })
      const seen: Array<unknown> = []
      const outside = yield* listen((request, response) => {
        seen.push(request.headers["x-api-key"])
        response.writeHead(302, { location: urlOf(inside) }).end()
      })
      assert.strictEqual(yield* check(urlOf(outside)), "offline")
      assert.deepStrictEqual(seen, ["service-key"])
      assert.strictEqual(reached, 0)
    }))

  it.live("does not read the body, and hangs up on one that never ends", () =>
    Effect.gen(function*() {
      const closed = yield* Latch.make(false)
      const server = yield* listen((_, response) => {
        response.writeHead(200)
        const write = () => {
          while (response.write("x".repeat(65_536))) { /* as much as the socket takes */ }
        }
        response.on("drain", write)
        response.on("close", () => closed.openUnsafe())
        write()
      })
      assert.strictEqual(yield* check(urlOf(server)), "online")
      yield* closed.await
    }))

  it.live("takes a connection that is refused, or broken, for offline", () =>
    Effect.gen(function*() {
      const server = yield* listen((request) => {
        request.socket.destroy()
      })
      assert.strictEqual(yield* check(urlOf(server)), "offline")
      assert.strictEqual(yield* check("http://127.0.0.1:1"), "offline")
      assert.strictEqual(yield* check("http://user:pass@127.0.0.1:1"), "offline")
    }))
})
