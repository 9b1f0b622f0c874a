/**
 * The cache over real HTTP, against the embedded registry: over server-sent events and over WebSocket, with connections that
 * are cut, a registry that is stopped and started again empty, and nothing left behind.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
import * as Events from "effect-lifeline/server/Events"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Leaks from "./support/leaks.ts"

const apiKey = Redacted.make("canary-key")

/** Quick, so that the test is. */
const policy = Backoff.make({ base: 50, cap: 200, floor: 10 })

const worker = (name: string) => ({ name, type: "worker", apiUrl: `http://${name}:1` })

const startAt = (port: number, scope: Scope.Scope) =>
  NodeRegistry.make({ apiKey, port, stopWithin: "100 millis" }).pipe(
    Effect.map((context) => ({
      url: Context.get(context, NodeRegistry.NodeRegistry).url,
      events: Context.get(context, Events.Events),
      sockets: Context.get(context, NodeRegistry.NodeRegistry).sockets
    })),
    Scope.provide(scope)
  )

const registerAt = (url: string, name: string) =>
  Effect.provide(
    Effect.flatMap(Pulse.make({ url, apiKey }), (registry) => registry.register(worker(name))),
    FetchHttpClient.layer
  )

/** Waits for the cache to say so; at most 10 seconds. */
const until = (
  cache: DiscoveryCache.Service,
  what: string,
  is: (snapshot: DiscoveryCache.Snapshot) => boolean
) =>
  cache.watch().pipe(
    Stream.filter(is),
    Stream.runHead,
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () =>
        Effect.flatMap(SubscriptionRef.get(cache.status), (status) =>
          Effect.die(new Error(`${what}: not within 10 seconds; ${JSON.stringify(status)}`)))
    })
  )

const names = ({ services }: DiscoveryCache.Snapshot) => services.map(({ name }) => name).join()

const isFresh = (snapshot: DiscoveryCache.Snapshot) => snapshot.freshness._tag === "Fresh"

/** Counts reads, and what `Last-Event-ID` the requests for events had. */
const counting = () => {
  const seen = { reads: 0, resumed: [] as Array<string | undefined> }
  const layer = Layer.effect(
    HttpClient.HttpClient,
    Effect.map(HttpClient.HttpClient, (client) =>
      HttpClient.mapRequest(client, (request) => {
        if (request.url.endsWith("/api/v1/events")) seen.resumed.push(request.headers["last-event-id"])
        else seen.reads++
        return request
      }))
  ).pipe(Layer.provide(FetchHttpClient.layer))
  return { seen, layer }
}

const make = (url: string, events: PulseDirectory.Events, http: Layer.Layer<HttpClient.HttpClient>, key = apiKey) =>
  Effect.provide(
    DiscoveryCache.make({ policy }),
    PulseDirectory.layer({ url, apiKey: key, events }).pipe(Layer.provide(http))
  )

const ways = [
  ["server-sent events", PulseEvents.sse(), Layer.empty],
  ["Node's WebSocket", PulseEvents.webSocket(), Layer.empty],
  ["ws", PulseEvents.webSocket(), NodeWebSocket.layer]
] as const

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

describe("DiscoveryCache, over HTTP", () => {
  for (const [name, events, layer] of ways) {
    it.live(`by ${name}: a registry that is restarted, empty, on the same port`, () =>
      Effect.gen(function*() {
        const beyond = yield* Leaks.resources
        const fibers = Leaks.fiberCounter()
        yield* Effect.gen(function*() {
          const first = yield* Scope.make()
          const registry = yield* startAt(0, first)
          const port = Number(new URL(registry.url).port)
          const http = counting()
          yield* registerAt(registry.url, "one")
          const cache = yield* make(registry.url, events, http.layer)
          yield* until(cache, "the present state", (it) => names(it) === "one" && isFresh(it))
          yield* registerAt(registry.url, "two")
          yield* until(cache, "a service that came", (it) => names(it) === "one,two" && isFresh(it))
          const before = http.seen.reads
          for (let n = 0; n < 50; n++) assert.strictEqual((yield* cache.all).length, 2)
          assert.strictEqual(http.seen.reads, before)

          yield* Scope.close(first, Exit.void)
          yield* until(cache, "the loss", (it) => !isFresh(it))
          // It answers on, and says so.
          assert.deepStrictEqual((yield* cache.all).map((service) => service.name), ["one", "two"])
          assert.strictEqual((yield* cache.pick({ name: "two" })).apiUrl, "http://two:1")
          const { updates } = yield* SubscriptionRef.get(cache.status)
          assert.include(["Waiting", "Connecting"], updates._tag)

          const second = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
          yield* startAt(port, second)
          yield* registerAt(registry.url, "three")
          yield* until(cache, "what the new one has", (it) => names(it) === "three" && isFresh(it))
          yield* registerAt(registry.url, "four")
          yield* until(cache, "what comes to the new one", (it) => names(it) === "four,three" && isFresh(it))
        }).pipe(Effect.scoped, Effect.provide(layer), fibers.watch, quietly)
        assert.strictEqual(yield* fibers.left, 0)
        assert.deepStrictEqual(yield* beyond, [])
      }))
  }

  it.live("by server-sent events: a connection that was cut resumes after the last event; one that is too old is a gap", () =>
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      const registry = yield* startAt(0, scope)
      const http = counting()
      const seen: Array<string> = []
      const cuts: Array<() => void> = []
      // A fetch whose event streams can be cut off.
      const fetch = Layer.succeed(FetchHttpClient.Fetch, async (input: RequestInfo | URL, init?: RequestInit) => {
        const response = await globalThis.fetch(input, init)
        if (!String(input).endsWith("/api/v1/events")) return response
        const reader = response.body?.getReader()
        const body = new ReadableStream<Uint8Array>({
          start: (controller) =>
            void cuts.push(() => {
              controller.error(new TypeError("cut"))
              void reader?.cancel()
            }),
          pull: async (controller) => {
            const { value } = await reader?.read().catch(() => ({ value: undefined })) ?? {}
            try {
              if (value === undefined) controller.close()
              else controller.enqueue(value)
            } catch {
              // It was cut meanwhile.
            }
          }
        })
        return new Response(body, { status: response.status, headers: response.headers })
      })
      const cache = yield* make(registry.url, PulseEvents.sse(), http.layer.pipe(Layer.provide(fetch)))
      yield* Effect.forkScoped(Stream.runForEach(cache.watch(), (it) => Effect.sync(() => void seen.push(names(it)))))
      yield* until(cache, "the present state", isFresh)
      yield* registerAt(registry.url, "one")
      yield* until(cache, "a service that came", (it) => names(it) === "one" && isFresh(it))
      const reads = http.seen.reads
      const position = yield* registry.events.position
      cuts[0]?.()
      yield* until(cache, "the cut", (it) => !isFresh(it))
      yield* registerAt(registry.url, "two")
      yield* until(cache, "the resume", (it) => names(it) === "one,two" && isFresh(it))
      assert.deepStrictEqual(http.seen.resumed, [undefined, position])
      assert.isAbove(http.seen.reads, reads)
    }).pipe(Effect.scoped, quietly))

  it.live("a wrong key ends it for every caller; the right one starts it again", () =>
    Effect.gen(function*() {
      const registry = yield* startAt(0, yield* Effect.scope)
      yield* registerAt(registry.url, "one")
      const key = yield* SubscriptionRef.make(Redacted.make("wrong"))
      const cache = yield* Effect.provide(
        DiscoveryCache.make({ policy }),
        PulseDirectory.layer({ url: registry.url, apiKey: key, events: PulseEvents.sse() }).pipe(
          Layer.provide(FetchHttpClient.layer)
        )
      )
      const error = yield* Effect.flip(cache.all)
      assert.strictEqual(error._tag, "AuthFailed")
      assert.strictEqual(error.message.includes("wrong"), false)
      yield* SubscriptionRef.set(key, apiKey)
      yield* SubscriptionRef.changes(cache.status).pipe(
        Stream.filter(({ freshness }) => freshness._tag === "Fresh"),
        Stream.runHead,
        Effect.timeout("10 seconds")
      )
      assert.strictEqual((yield* cache.peers)["one"], "http://one:1")
    }).pipe(Effect.scoped, quietly))

  it.live("a registry without server-sent events is asked again and again", () =>
    Effect.gen(function*() {
      const registry = yield* startAt(0, yield* Effect.scope)
      yield* registerAt(registry.url, "one")
      // The same registry below a path where it has services but no events.
      const http = Layer.effect(
        HttpClient.HttpClient,
        Effect.map(
          HttpClient.HttpClient,
          HttpClient.mapRequest((request) =>
            request.url.endsWith("/events") ? { ...request, url: `${request.url}-nowhere` } as typeof request : request
          )
        )
      ).pipe(Layer.provide(FetchHttpClient.layer))
      const cache = yield* make(registry.url, PulseEvents.sse(), http)
      yield* until(cache, "the present state", (it) => names(it) === "one" && isFresh(it))
      yield* SubscriptionRef.changes(cache.status).pipe(
        Stream.filter(({ updates }) => updates._tag === "Polling" && updates.cause?._tag === "Refused"),
        Stream.runHead,
        Effect.timeout("10 seconds")
      )
      assert.strictEqual((yield* cache.all).length, 1)
    }).pipe(Effect.scoped, quietly))
})
