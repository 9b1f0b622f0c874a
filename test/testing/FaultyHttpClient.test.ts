import { assert, describe, it } from "@effect/vitest"
import * as FaultyHttpClient from "effect-lifeline/testing/FaultyHttpClient"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

const { cutOff, delay, drop, endless, hang, json, pass, respond, sequence, stall } = FaultyHttpClient

const url = "http://registry.test/x?y=1"

const run = <A, E>(
  outcome: FaultyHttpClient.Outcome,
  use: (client: HttpClient.HttpClient, http: FaultyHttpClient.FaultyHttpClient["Service"]) => Effect.Effect<A, E>
) => Effect.flatMap(FaultyHttpClient.make(() => outcome), (http) => use(http.client, http))

describe("FaultyHttpClient", () => {
  it.effect("answers with any status, headers and body", () =>
    Effect.gen(function*() {
      for (const status of [0, 101, 200, 204, 304, 418, 599, 999]) {
        const response = yield* run(
          respond(status, { headers: { "x-a": "b" }, body: status === 204 ? "" : "hello" }),
          (client) => client.get(url)
        )
        assert.strictEqual(response.status, status)
        assert.strictEqual(response.headers["x-a"], "b")
        assert.strictEqual(yield* response.text, status === 204 || status === 304 ? "" : "hello")
      }
      const value = yield* run(json(201, { a: [1] }), (client) => Effect.flatMap(client.get(url), (it) => it.json))
      assert.deepStrictEqual(value, { a: [1] })
    }))

  it.effect("drops with the platform's code", () =>
    Effect.gen(function*() {
      const error = yield* run(drop("ENOTFOUND"), (client) => Effect.flip(client.get(url)))
      assert.strictEqual(error.reason._tag, "TransportError")
      const cause = error.reason.cause as { readonly cause: { readonly code: string } }
      assert.strictEqual(cause.cause.code, "ENOTFOUND")
    }))

  it.effect("cuts a body off after its beginning", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const error = yield* run(cutOff({ body: "half" }), (client) =>
        Effect.flip(Stream.runForEach(HttpClientResponse.stream(client.get(url)), (chunk) =>
          Effect.sync(() => {
            seen.push(new TextDecoder().decode(chunk))
          }))))
      assert.deepStrictEqual(seen, ["half"])
      assert.strictEqual(error._tag === "HttpClientError" ? error.reason._tag : "", "DecodeError")
    }))

  it.effect("delays by the clock, hangs, and stalls", () =>
    Effect.gen(function*() {
      for (
        const [outcome, done] of [[delay("5 seconds", respond(204)), true], [hang, false], [stall(), false]] as const
      ) {
        const fiber = yield* Effect.forkChild(
          run(outcome, (client) => Effect.flatMap(client.get(url), (response) => response.text)),
          { startImmediately: true }
        )
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 hours")
        assert.strictEqual(fiber.pollUnsafe() !== undefined, done)
        yield* Fiber.interrupt(fiber)
      }
    }))

  it.effect("counts bodies that were left open, and what is in flight", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(
        sequence([endless({ body: "x" }), respond(200, { body: "y" }), hang, hang], respond(204))
      )
      const first = yield* http.client.get(url)
      assert.strictEqual(yield* http.openBodies, 1)
      yield* Stream.runDrain(Stream.take(first.stream, 3))
      assert.strictEqual(yield* http.openBodies, 0)
      const second = yield* http.client.get(url)
      assert.strictEqual(yield* http.openBodies, 1)
      assert.strictEqual(yield* second.text, "y")
      assert.strictEqual(yield* http.openBodies, 0)
      const fibers = [
        yield* Effect.forkChild(http.client.get(url), { startImmediately: true }),
        yield* Effect.forkChild(http.client.get(url), { startImmediately: true })
      ]
      assert.deepStrictEqual(yield* http.inFlight, { now: 2, most: 2 })
      yield* Fiber.interruptAll(fibers)
      yield* http.client.get(url)
      assert.deepStrictEqual(yield* http.inFlight, { now: 0, most: 2 })
    }))

  it.effect("records what was sent, and can be told another script", () =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const http = yield* FaultyHttpClient.make((_, n) => {
        seen.push(n)
        return respond(204)
      })
      yield* http.client.execute(
        HttpClientRequest.post(url, { headers: { "X-Key": "v" } }).pipe(
          HttpClientRequest.bodyText("body", "text/plain")
        )
      )
      yield* http.client.get(url)
      const [first] = yield* http.requests
      assert.deepStrictEqual(first, {
        method: "POST",
        url,
        headers: { "x-key": "v", "content-type": "text/plain", "content-length": "4" },
        body: "body"
      })
      yield* http.use((request, n) => respond(request.method === "PUT" && n === 0 ? 201 : 500))
      assert.strictEqual((yield* http.client.put(url)).status, 201)
      assert.strictEqual((yield* http.client.put(url)).status, 500)
      assert.deepStrictEqual(seen, [0, 1])
      assert.strictEqual((yield* http.requests).length, 4)
    }).pipe(Effect.provideService(HttpClient.TracerPropagationEnabled, false)))

  it.effect("passes to the client behind it, and drops where there is none", () =>
    Effect.gen(function*() {
      const behind = HttpClient.make((request) =>
        Effect.succeed(HttpClientResponse.fromWeb(request, new Response("behind")))
      )
      const over = FaultyHttpClient.layerOver(sequence([respond(503)], pass)).pipe(
        Layer.provide(Layer.succeed(HttpClient.HttpClient, behind))
      )
      const statuses = Effect.gen(function*() {
        const first = yield* HttpClient.get(url)
        const second = yield* HttpClient.get(url)
        const http = yield* FaultyHttpClient.FaultyHttpClient
        return [first.status, second.status, (yield* http.requests).length]
      })
      assert.deepStrictEqual(yield* Effect.provide(statuses, over), [503, 200, 2])
      const error = yield* Effect.flip(
        Effect.provide(HttpClient.get(url), FaultyHttpClient.layer(sequence([])))
      )
      assert.strictEqual(error.reason._tag, "TransportError")
    }))
})
