import { assert, describe, it } from "@effect/vitest"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import * as Registry from "effect-lifeline/Registry"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as PulseApi from "effect-lifeline/registry/PulseApi"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as FaultyHttpClient from "effect-lifeline/testing/FaultyHttpClient"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import { inspect } from "node:util"
import * as FakePulse from "../support/fakePulse.ts"
import * as Calls from "../support/pulse.ts"

const url = "http://pulse.test:9696"
const secret = "canary-api-key"
const ownSecret = "canary-own-key"
const apiKey = Redacted.make(secret)
const haul = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }
const lease = { id: "7f", name: "haul", type: "download-client", registeredAt: 0 }

const service = {
  id: "7f",
  name: "haul",
  type: "download-client",
  api_url: "http://haul:8484",
  health_url: "",
  version: "",
  status: "online",
  last_seen: "2026-01-01T00:00:00Z",
  registered: "2026-01-01T00:00:00Z",
  capabilities: ["supports_torrent"],
  metadata: "{}"
}

const { drop, endless, hang, json, respond, sequence, stall } = FaultyHttpClient

/** A registry over scripted answers, and what was sent to it. */
const scripted = <A, E>(
  outcomes: ReadonlyArray<FaultyHttpClient.Outcome>,
  use: (
    registry: Calls.Calls,
    http: FaultyHttpClient.FaultyHttpClient["Service"]
  ) => Effect.Effect<A, E>,
  options: Pulse.Options = { url, apiKey }
) =>
  Effect.gen(function*() {
    const http = yield* FaultyHttpClient.make(sequence(outcomes, drop("TOO_MANY_REQUESTS_SENT")))
    const registry = yield* Effect.provideService(Calls.make(options), HttpClient.HttpClient, http.client)
    const result = yield* use(registry, http)
    assert.strictEqual(yield* http.openBodies, 0)
    return result
  })

type PortError = Transient | LeaseLost | AuthFailed | Refused

const assertClean = (error: unknown, ...secrets: ReadonlyArray<string>) => {
  for (const text of [String(error), JSON.stringify(error), inspect(error, { depth: 12, showHidden: true })]) {
    for (const secret of secrets) assert.strictEqual(text.includes(secret), false, text)
  }
}

const pulse = (key: string) =>
  Effect.provideService(Calls.ports({ url, apiKey: Redacted.make(key) }), HttpClient.HttpClient, FakePulse.make())

describe("Pulse conforms", () => {
  const harness: RegistryConformance.Harness = {
    elapse: TestClock.adjust,
    unauthorized: Effect.orDie(pulse("wrong")),
    unreachable: Effect.orDie(
      Effect.flatMap(
        FaultyHttpClient.make(() => drop()),
        (http) => Effect.provideService(Calls.ports({ url, apiKey }), HttpClient.HttpClient, http.client)
      )
    )
  }
  const options = { url, apiKey: Redacted.make(FakePulse.apiKey) }
  const registry = Pulse.layer(options)
  const both = Layer.merge(registry, PulseDirectory.layer(options)).pipe(Layer.provide(FakePulse.layer))
  for (const { name, run } of RegistryConformance.cases(harness)) {
    it.effect(name, () => Effect.provide(run, both))
  }

  it.effect("without a directory too", () =>
    Effect.forEach(
      RegistryConformance.casesOfRegistry(harness),
      ({ run }) => Effect.provide(run, registry.pipe(Layer.provide(FakePulse.layer)))
    ))
})

describe("Pulse, what it sends", () => {
  it.effect("registers with the wire's own names and the key in its header", () =>
    scripted([json(201, service)], (registry, http) =>
      Effect.gen(function*() {
        yield* TestClock.setTime(5000)
        const lease = yield* registry.register({
          ...haul,
          apiKey: Redacted.make(ownSecret),
          healthUrl: "http://haul:8484/health",
          version: "1.2.3",
          capabilities: ["supports_torrent"],
          metadata: { region: "eu" }
        })
        assert.deepStrictEqual(lease, {
          id: "7f",
          name: "haul",
          type: "download-client",
          registeredAt: 5000,
          expiresAfter: 120_000
        })
        const [request] = yield* http.requests
        assert.strictEqual(`${request?.method} ${request?.url}`, `POST ${url}/api/v1/services/register`)
        assert.strictEqual(request?.headers["x-api-key"], secret)
        assert.strictEqual(request?.headers["content-type"], "application/json")
        assert.deepStrictEqual(JSON.parse(request?.body ?? ""), {
          name: "haul",
          type: "download-client",
          api_url: "http://haul:8484",
          api_key: ownSecret,
          health_url: "http://haul:8484/health",
          version: "1.2.3",
          capabilities: ["supports_torrent"],
          metadata: "{\"region\":\"eu\"}"
        })
      })))

  it.effect("sends only what was given", () =>
    scripted([json(201, service)], (registry, http) =>
      Effect.gen(function*() {
        yield* registry.register(haul)
        const [request] = yield* http.requests
        assert.deepStrictEqual(JSON.parse(request?.body ?? ""), {
          name: "haul",
          type: "download-client",
          api_url: "http://haul:8484"
        })
      })))

  it.effect("calls each route, below a base path too, with the id as one segment", () =>
    scripted(
      [respond(204), json(200, service), respond(204), json(200, []), json(200, []), json(200, []), json(200, [])],
      (registry, http) =>
        Effect.gen(function*() {
          const odd = { ...lease, id: "a/b ?#" }
          yield* registry.heartbeat(odd)
          yield* registry.verify(odd, haul)
          yield* registry.deregister(odd)
          yield* registry.discover({})
          yield* registry.discover({ name: "x" })
          yield* registry.discover({ type: "a b&c" })
          yield* registry.discover({ type: "t", capability: "c" })
          const base = `${url}/base/api/v1/services`
          assert.deepStrictEqual((yield* http.requests).map((request) => `${request.method} ${request.url}`), [
            `PUT ${base}/a%2Fb%20%3F%23/heartbeat`,
            `GET ${base}/a%2Fb%20%3F%23`,
            `DELETE ${base}/a%2Fb%20%3F%23`,
            `GET ${base}`,
            `GET ${base}`,
            `GET ${base}/discover?type=a+b%26c`,
            `GET ${base}/discover?capability=c`
          ])
        }),
      { url: ` ${url}/base// `, apiKey }
    ))

  it.effect("sends no key where there is none, and no trace headers, traced or not", () =>
    scripted(
      [respond(204), respond(204)],
      (registry, http) =>
        Effect.gen(function*() {
          const spans: Array<string> = []
          const tracer = Tracer.make({
            span: (options) => {
              spans.push(options.name)
              return Tracer.nativeTracer.span(options)
            }
          })
          yield* Effect.withSpan(registry.heartbeat(lease), "caller")
          yield* registry.heartbeat(lease).pipe(Effect.withSpan("caller"), Effect.withTracer(tracer))
          for (const request of yield* http.requests) assert.deepStrictEqual(Object.keys(request.headers), ["accept"])
          assert.deepStrictEqual(spans, ["caller", "PUT"])
        }),
      { url }
    ))

  it.effect("sends trace headers where asked to", () =>
    scripted(
      [respond(204)],
      (registry, http) =>
        Effect.gen(function*() {
          yield* Effect.withSpan(registry.heartbeat(lease), "caller")
          const [request] = yield* http.requests
          assert.deepStrictEqual(Object.keys(request?.headers ?? {}).sort(), ["accept", "b3", "traceparent"])
        }),
      { url, tracePropagation: true }
    ))

  it.effect("a bad instance is refused before any request", () =>
    scripted([], (registry, http) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(registry.register({ ...haul, name: "", apiUrl: "haul" }))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
        assert.strictEqual((yield* http.requests).length, 0)
      })))

  it.effect("keeps what the client's layer was given for fetch, and follows no redirect", () =>
    Effect.gen(function*() {
      const seen: Array<RequestInit | undefined> = []
      const fetch = Layer.succeed(FetchHttpClient.Fetch, (_input: unknown, init?: RequestInit) => {
        seen.push(init)
        return Promise.resolve(new Response(null, { status: 204 }))
      })
      const init = Layer.succeed(FetchHttpClient.RequestInit, { credentials: "include", redirect: "follow" })
      const http = FetchHttpClient.layer.pipe(Layer.provide([fetch, init]))
      yield* Effect.gen(function*() {
        const registry = yield* Registry.Registry
        yield* registry.heartbeat(lease)
        const options = yield* Effect.serviceOption(FetchHttpClient.RequestInit)
        assert.strictEqual(Option.isNone(options), true)
      }).pipe(Effect.provide(Pulse.layer({ url }).pipe(Layer.provide(http))))
      assert.strictEqual(seen[0]?.credentials, "include")
      assert.strictEqual(seen[0]?.redirect, "manual")
    }))

  it.effect("each request has the services of its own caller, whoever called before", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const as = (name: string) =>
        Effect.provideService(FetchHttpClient.Fetch, () => {
          seen.push(name)
          return Promise.resolve(new Response(null, { status: 204 }))
        })
      const registry = yield* Calls.make({ url, apiKey })
      for (const name of ["a", "b", "b", "a"]) yield* as(name)(registry.heartbeat(lease))
      const [first, second] = [as("a"), as("b")]
      for (const run of [first, first, second, first]) yield* run(registry.heartbeat(lease))
      assert.deepStrictEqual(seen, ["a", "b", "b", "a", "a", "a", "b", "a"])
    }).pipe(Effect.provide(FetchHttpClient.layer)))
})

describe("Pulse, what it understands", () => {
  it.effect("reads services as a Go server writes them", () =>
    scripted([
      json(200, [
        { ...service, api_key: ownSecret, metadata: "{\"a\":1}", version: "1", health_url: "http://h/", extra: 1 },
        { ...service, id: "2", status: "paused", capabilities: null, metadata: "not json", last_seen: "yesterday 1" },
        { ...service, id: "3", last_seen: "0001-01-01T00:00:00Z", registered: "2026-01-01T01:00:00.123456789+01:00" },
        { id: "4", name: "bare", type: "t", api_url: "u" }
      ])
    ], (registry) =>
      Effect.gen(function*() {
        const [first, second, third, fourth] = yield* registry.discover({})
        const at = Date.UTC(2026, 0, 1)
        assert.strictEqual(first?.apiKey === undefined ? "" : Redacted.value(first.apiKey), ownSecret)
        const { apiKey: _, ...rest } = first ?? { apiKey: undefined }
        assert.deepStrictEqual(rest, {
          id: "7f",
          name: "haul",
          type: "download-client",
          apiUrl: "http://haul:8484",
          status: "online",
          capabilities: ["supports_torrent"],
          healthUrl: "http://h/",
          version: "1",
          lastSeen: at,
          registeredAt: at,
          metadata: { a: 1 }
        })
        assert.deepStrictEqual(second, {
          id: "2",
          name: "haul",
          type: "download-client",
          apiUrl: "http://haul:8484",
          status: "unknown",
          capabilities: [],
          registeredAt: at
        })
        assert.strictEqual(third?.lastSeen, undefined)
        assert.strictEqual(third?.registeredAt, at + 123)
        assert.deepStrictEqual(fourth, {
          id: "4",
          name: "bare",
          type: "t",
          apiUrl: "u",
          status: "unknown",
          capabilities: []
        })
      })))

  it.effect("filters what the server did not", () =>
    scripted([
      json(200, [service, { ...service, id: "2", name: "other" }, { ...service, id: "3", type: "x" }])
    ], (registry) =>
      Effect.gen(function*() {
        const found = yield* registry.discover({
          capability: "supports_torrent",
          type: "download-client",
          name: "haul"
        })
        assert.deepStrictEqual(found.map((service) => service.id), ["7f"])
      })))

  const verdicts: ReadonlyArray<readonly [string, FaultyHttpClient.Outcome, Record<string, string>]> = [
    ["404", respond(404), {
      register: "Refused.NotFound",
      heartbeat: "LeaseLost.UnknownLease",
      verify: "LeaseLost.UnknownLease",
      deregister: "ok",
      discover: "Refused.NotFound"
    }],
    ["410", respond(410), {
      register: "Refused.NotFound",
      heartbeat: "LeaseLost.LeaseExpired",
      verify: "LeaseLost.LeaseExpired",
      deregister: "ok",
      discover: "Refused.NotFound"
    }],
    ["401", respond(401), {
      register: "AuthFailed.Unauthorized",
      heartbeat: "AuthFailed.Unauthorized",
      verify: "AuthFailed.Unauthorized",
      deregister: "AuthFailed.Unauthorized",
      discover: "AuthFailed.Unauthorized"
    }],
    ["503", respond(503), {
      register: "Transient.Unavailable",
      heartbeat: "Transient.Unavailable",
      verify: "Transient.Unavailable",
      deregister: "Transient.Unavailable",
      discover: "Transient.Unavailable"
    }],
    ["a 204", respond(204), {
      register: "Refused.MalformedResponse",
      heartbeat: "ok",
      verify: "Refused.MalformedResponse",
      deregister: "ok",
      discover: "Refused.MalformedResponse"
    }],
    ["a page of a proxy", respond(200, { headers: { "content-type": "text/html; charset=utf-8" }, body: "<p>hello" }), {
      register: "Refused.MalformedResponse",
      heartbeat: "Refused.MalformedResponse",
      verify: "Refused.MalformedResponse",
      deregister: "Refused.MalformedResponse",
      discover: "Refused.MalformedResponse"
    }],
    ["a redirect that a browser hides", respond(0), {
      register: "Refused.Unsupported",
      heartbeat: "Refused.Unsupported",
      verify: "Refused.Unsupported",
      deregister: "Refused.Unsupported",
      discover: "Refused.Unsupported"
    }]
  ]

  for (const [name, outcome, expected] of verdicts) {
    it.effect(`${name} means what it means for each operation`, () =>
      scripted(Array.from({ length: 5 }, () => outcome), (registry) =>
        Effect.gen(function*() {
          const calls: Record<string, Effect.Effect<unknown, PortError>> = {
            register: registry.register(haul),
            heartbeat: registry.heartbeat(lease),
            verify: registry.verify(lease, haul),
            deregister: registry.deregister(lease),
            discover: registry.discover({})
          }
          const actual: Record<string, string> = {}
          for (const [operation, call] of Object.entries(calls)) {
            const result = yield* Effect.result(call)
            actual[operation] = result._tag === "Success"
              ? "ok"
              : `${result.failure._tag}.${result.failure.reason._tag}`
            if (result._tag === "Failure") {
              assert.strictEqual(result.failure.operation, operation)
              assert.strictEqual(result.failure.target.includes(`${url}/api/v1/services`), true)
            }
          }
          assert.deepStrictEqual(actual, expected)
        })))
  }

  it.effect("verify compares addresses, not spellings, and shows no secret of who took the identity", () =>
    scripted([
      json(200, { ...service, api_url: "HTTP://Haul:8484/" }),
      json(200, { ...service, api_url: "http://user:canary-in-url@thief:1/?canary-in-url" }),
      json(200, { ...service, api_url: "not a url" })
    ], (registry) =>
      Effect.gen(function*() {
        yield* registry.verify(lease, haul)
        const taken = yield* Effect.flip(registry.verify(lease, haul))
        assert.strictEqual(taken.reason._tag === "LeaseTaken" ? taken.reason.by : undefined, "http://thief:1/")
        assertClean(taken, "canary")
        const odd = yield* Effect.flip(registry.verify(lease, haul))
        assert.strictEqual(odd.reason._tag, "LeaseTaken")
      })))

  it.effect("a wrong answer is named by its field, never by its value", () =>
    scripted([
      json(200, [service, { ...service, api_url: { canary: secret } }]),
      json(201, { ...service, id: "" }),
      respond(200, { body: `{"${secret}` }),
      respond(200, { body: "" }),
      json(200, { [secret]: secret })
    ], (registry) =>
      Effect.gen(function*() {
        const details: Array<string> = []
        for (
          const call of [
            registry.discover({}),
            registry.register(haul),
            registry.verify(lease, haul),
            registry.discover({}),
            registry.discover({})
          ]
        ) {
          const error = yield* Effect.flip<unknown, PortError, never>(call)
          details.push(error.reason._tag === "MalformedResponse" ? error.reason.detail : error.reason._tag)
          assertClean(error, secret)
        }
        assert.deepStrictEqual(details, [
          "body[1].api_url: Expected string",
          "body.id: Expected a value with a length of at least 1",
          "a body that is not JSON",
          "no body",
          "body: Expected array"
        ])
      })))
})

describe("Pulse, deadlines", () => {
  it.effect("10 seconds over connecting and waiting", () =>
    scripted([hang], (registry) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Effect.flip(registry.heartbeat(lease)), { startImmediately: true })
        yield* TestClock.adjust("9999 millis")
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 millis")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error.reason._tag, "TimedOut")
        assert.strictEqual(error.message.startsWith(`heartbeat (PUT ${url}/api/v1/services/7f/heartbeat)`), true)
        assert.strictEqual(error.message.includes("within 10s"), true)
      })))

  it.effect("over the whole body of an answer that is needed", () =>
    scripted(
      [stall({ headers: { "content-type": "application/json" } })],
      (registry) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.forkChild(Effect.flip(registry.discover({})), { startImmediately: true })
          yield* TestClock.adjust("3 seconds")
          assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "TimedOut")
        }),
      { url, requestTimeout: "3 seconds" }
    ))

  it.effect("a status decides, whatever becomes of the body after it", () =>
    scripted([
      stall({ status: 401 }),
      endless({ status: 401, body: "x".repeat(65536) }),
      FaultyHttpClient.cutOff({ status: 401 }),
      stall({ status: 200 }),
      FaultyHttpClient.cutOff({ status: 200 })
    ], (registry) =>
      Effect.gen(function*() {
        const stalled = yield* Effect.forkChild(Effect.flip(registry.discover({})), { startImmediately: true })
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(stalled)).reason._tag, "Unauthorized")
        assert.strictEqual((yield* Effect.flip(registry.discover({}))).reason._tag, "Unauthorized")
        assert.strictEqual((yield* Effect.flip(registry.discover({}))).reason._tag, "Unauthorized")
        // A heartbeat needs no body: that of a strange server may be anything.
        const beat = yield* Effect.forkChild(registry.heartbeat(lease), { startImmediately: true })
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(beat)
        yield* registry.heartbeat(lease)
      })))

  it.effect("a body without an end is refused at 4 MiB", () =>
    scripted([endless({ body: "x".repeat(65536) })], (registry) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(registry.discover({}))
        assert.strictEqual(error.reason._tag, "MalformedResponse")
        assert.strictEqual(error.message.includes("more than 4 MiB"), true)
      })))

  it.effect("an interruption ends the request", () =>
    scripted([hang, stall()], (registry, http) =>
      Effect.gen(function*() {
        for (const call of [registry.heartbeat(lease), registry.discover({})]) {
          const fiber = yield* Effect.forkChild(call, { startImmediately: true })
          yield* TestClock.adjust("1 seconds")
          yield* Fiber.interrupt(fiber)
          assert.strictEqual((yield* http.inFlight).now, 0)
        }
      })))
})

describe("Pulse, credentials", () => {
  it.effect("a rotated key is sent from the next request on, and announced when it is another", () =>
    Effect.gen(function*() {
      const key = yield* SubscriptionRef.make(Redacted.make("one"))
      yield* scripted(
        [respond(204), respond(204)],
        (registry, http) =>
          Effect.gen(function*() {
            const { changes, current } = registry.credential
            assert.notStrictEqual(changes, undefined)
            let announced = 0
            yield* Effect.forkChild(Stream.runForEach(changes ?? Stream.empty, () => Effect.sync(() => announced++)), {
              startImmediately: true
            })
            yield* registry.heartbeat(lease)
            yield* SubscriptionRef.set(key, Redacted.make("one"))
            yield* TestClock.adjust(1)
            assert.strictEqual(announced, 0)
            yield* SubscriptionRef.set(key, Redacted.make("two"))
            yield* TestClock.adjust(1)
            assert.strictEqual(announced, 1)
            yield* registry.heartbeat(lease)
            assert.deepStrictEqual(Redacted.value((yield* current) ?? Redacted.make("")), "two")
            assert.deepStrictEqual((yield* http.requests).map((request) => request.headers["x-api-key"]), [
              "one",
              "two"
            ])
          }),
        { url, apiKey: key }
      )
    }))

  it.effect("a key around which somebody left white space is sent without", () =>
    scripted(
      [respond(204)],
      (registry, http) =>
        Effect.gen(function*() {
          yield* registry.heartbeat(lease)
          assert.strictEqual((yield* http.requests)[0]?.headers["x-api-key"], secret)
        }),
      { url, apiKey: Redacted.make(` ${secret}\n`) }
    ))

  for (
    const [name, key, reason] of [
      ["blank", " \n", "CredentialMissing"],
      ["one that a header cannot carry", "canary\nkey", "Unauthorized"],
      ["one outside of Latin-1", "canary→key", "Unauthorized"]
    ] as const
  ) {
    it.effect(`a key that is ${name} fails as AuthFailed, and nothing is sent`, () =>
      scripted(
        [],
        (registry, http) =>
          Effect.gen(function*() {
            const error = yield* Effect.flip(registry.register(haul))
            assert.strictEqual(`${error._tag}.${error.reason._tag}`, `AuthFailed.${reason}`)
            assertClean(error, "canary")
            assert.strictEqual((yield* http.requests).length, 0)
          }),
        { url, apiKey: Redacted.make(key) }
      ))
  }

  it.effect("no error repeats a key, not even where the server does", () =>
    scripted([
      respond(401, {
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ detail: `bad ${secret}` })
      }),
      json(422, {
        title: "x",
        errors: [{ message: `expected not ${ownSecret}`, location: `body.${ownSecret}`, value: ownSecret }]
      }),
      respond(302, { headers: { location: `http://user:${secret}@elsewhere/${secret}?${secret}#${secret}` } }),
      respond(500, { body: secret }),
      drop(),
      json(201, { ...service, api_url: 1, api_key: ownSecret })
    ], (registry) =>
      Effect.gen(function*() {
        const reasons: Array<unknown> = []
        for (let n = 0; n < 6; n++) {
          const error = yield* Effect.flip(registry.register({ ...haul, apiKey: Redacted.make(ownSecret) }))
          assertClean(error, secret, ownSecret)
          const { reason } = error
          reasons.push("issues" in reason ? reason.issues : "detail" in reason ? reason.detail : reason._tag)
        }
        assert.deepStrictEqual(reasons, [
          "bad <redacted>",
          [{ path: "body.<redacted>", message: "expected not <redacted>" }],
          "answered 302: a redirect to http://elsewhere/<redacted>, not followed as credentials would go " +
          "along; set the final URL",
          undefined,
          "ECONNREFUSED",
          "body.api_url: Expected string"
        ])
      })))

  it.effect("a fixed key announces no changes", () =>
    scripted([], (registry) => Effect.sync(() => assert.strictEqual(registry.credential.changes, undefined))))
})

describe("Pulse, where it is", () => {
  for (const blank of [undefined, "", " \t"]) {
    it.effect(`${JSON.stringify(blank)}: disabled, and no request is ever sent`, () =>
      scripted(
        [],
        (registry, http) =>
          Effect.gen(function*() {
            assert.strictEqual(registry.capabilities.enabled, false)
            const error = yield* Effect.flip(registry.discover({}))
            assert.strictEqual(error.reason._tag, "Unsupported")
            assert.strictEqual((yield* http.requests).length, 0)
          }),
        { url: blank, apiKey }
      ))
  }

  for (
    const [bad, shown] of [
      ["pulse:9696", "pulse:9696"],
      ["/api", "/api"],
      ["ftp://pulse/", "ftp://pulse/"],
      ["http://", "http://"],
      ["http://user:canary@pulse:9696", "http://pulse:9696/"],
      ["http://pulse:9696/?token=canary", "http://pulse:9696/"],
      ["http://pulse:9696/#canary", "http://pulse:9696/"],
      ["user:canary@pulse:9696", "pulse:9696"],
      ["pulse:port?canary", "pulse:port"]
    ] as const
  ) {
    it.effect(`${bad} is refused when the layer is built`, () =>
      Effect.gen(function*() {
        const http = yield* FaultyHttpClient.make(() => drop())
        const layer = Pulse.layer({ url: bad }).pipe(Layer.provide(Layer.succeed(HttpClient.HttpClient, http.client)))
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
        assert.deepStrictEqual(
          error.reason._tag === "InvalidRequest" ? error.reason.issues[0]?.path : "",
          "options.url"
        )
        assert.strictEqual(error.target, shown)
        assertClean(error, "canary")
      }))
  }

  it.effect("can be read from the configuration", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(() => respond(204))
      const registry = Pulse.layerConfig({
        url: Config.String("PULSE_URL").pipe(Config.withDefault("")),
        apiKey: Config.Redacted("PULSE_API_KEY"),
        requestTimeout: Config.Duration("PULSE_TIMEOUT").pipe(Config.withDefault(Duration.seconds(1)))
      }).pipe(
        Layer.provide(Layer.succeed(HttpClient.HttpClient, http.client)),
        Layer.provide(
          ConfigProvider.layer(ConfigProvider.fromUnknown({ PULSE_URL: "http://from.env:1", PULSE_API_KEY: "key" }))
        )
      )
      yield* Effect.provide(Registry.Registry.use((registry) => registry.heartbeat(lease)), registry)
      const [request] = yield* http.requests
      assert.strictEqual(request?.url, "http://from.env:1/api/v1/services/7f/heartbeat")
      assert.strictEqual(request?.headers["x-api-key"], "key")
    }))

  it.effect("says what it can", () =>
    scripted([], (registry) =>
      Effect.sync(() => {
        const { adapter, browser, enabled, expiresAfter, heartbeatDetectsLoss, onClose } = registry.capabilities
        assert.deepStrictEqual(
          { adapter, browser, enabled, heartbeatDetectsLoss, onClose },
          {
            adapter: "pulse",
            browser: "same-origin",
            enabled: true,
            heartbeatDetectsLoss: false,
            onClose: "leave"
          }
        )
        assert.strictEqual(expiresAfter === undefined ? 0 : Duration.toMinutes(expiresAfter), 2)
      })))
})

describe("PulseApi", () => {
  const indexer = {
    id: "1",
    name: "n",
    kind: "torznab",
    enabled: true,
    priority: 3,
    url: "http://indexer",
    settings: "{}",
    created_at: "2026-01-01T00:00:00Z",
    updated_at: "2026-01-02T00:00:00Z"
  }
  const downloadClient = {
    id: "1",
    name: "haul",
    kind: "haul",
    protocol: "torrent",
    enabled: true,
    priority: 1,
    host: "haul",
    port: 8484,
    use_ssl: false,
    username: "",
    category: "",
    directory: "",
    settings: "{\"pulse\":true}",
    created_at: "x"
  }
  const profile = {
    id: "1",
    name: "hd",
    cutoff_json: "{}",
    qualities_json: "[]",
    upgrade_allowed: true,
    min_custom_format_score: 0,
    upgrade_until_cf_score: 5,
    created_at: "2026-01-01T00:00:00Z",
    updated_at: "2026-01-02T00:00:00Z"
  }
  const settings = {
    colon_replacement: "dash",
    import_extra_files: false,
    extra_file_extensions: "srt",
    rename_files: true,
    updated_at: "2026-01-02T00:00:00Z"
  }

  it.effect("reads everything that the Go SDK reads", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(
        sequence([json(200, [indexer]), json(200, [downloadClient]), json(200, [profile]), json(200, settings)])
      )
      const api = yield* Effect.provideService(PulseApi.make({ url, apiKey }), HttpClient.HttpClient, http.client)
      assert.deepStrictEqual(yield* api.indexers("7/f"), [{
        id: "1",
        name: "n",
        kind: "torznab",
        enabled: true,
        priority: 3,
        url: "http://indexer",
        settings: "{}",
        createdAt: "2026-01-01T00:00:00Z",
        updatedAt: "2026-01-02T00:00:00Z"
      }])
      assert.deepStrictEqual(yield* api.downloadClients, [{
        id: "1",
        name: "haul",
        kind: "haul",
        protocol: "torrent",
        enabled: true,
        priority: 1,
        host: "haul",
        port: 8484,
        useSsl: false,
        username: "",
        category: "",
        directory: "",
        settings: "{\"pulse\":true}"
      }])
      assert.deepStrictEqual(yield* api.qualityProfiles, [{
        id: "1",
        name: "hd",
        cutoffJson: "{}",
        qualitiesJson: "[]",
        upgradeAllowed: true,
        minCustomFormatScore: 0,
        upgradeUntilCfScore: 5,
        createdAt: "2026-01-01T00:00:00Z",
        updatedAt: "2026-01-02T00:00:00Z"
      }])
      assert.deepStrictEqual(yield* api.sharedSettings, {
        colonReplacement: "dash",
        importExtraFiles: false,
        extraFileExtensions: "srt",
        renameFiles: true,
        updatedAt: "2026-01-02T00:00:00Z"
      })
      assert.deepStrictEqual((yield* http.requests).map((request) => `${request.method} ${request.url}`), [
        `GET ${url}/api/v1/services/7%2Ff/indexers`,
        `GET ${url}/api/v1/download-clients`,
        `GET ${url}/api/v1/quality-profiles`,
        `GET ${url}/api/v1/shared-settings`
      ])
      assert.strictEqual((yield* http.requests).every((request) => request.headers["x-api-key"] === secret), true)
    }))

  it.effect("fails in the algebra", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(
        sequence([json(200, [{ ...indexer, created_at: 1 }]), respond(404), drop(), respond(401)])
      )
      const api = yield* Effect.provideService(PulseApi.make({ url, apiKey }), HttpClient.HttpClient, http.client)
      const malformed = yield* Effect.flip(api.indexers("1"))
      assert.strictEqual(malformed.reason.message.includes("body[0].created_at"), true)
      assert.strictEqual((yield* Effect.flip(api.downloadClients)).reason._tag, "NotFound")
      assert.strictEqual((yield* Effect.flip(api.qualityProfiles)).reason._tag, "Unreachable")
      assert.strictEqual((yield* Effect.flip(api.sharedSettings)).reason._tag, "Unauthorized")
    }))

  it.effect("without a URL every read is unsupported, and nothing is sent", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(() => drop())
      const api = yield* Effect.provideService(PulseApi.make({ url: "" }), HttpClient.HttpClient, http.client)
      for (const read of [api.indexers("1"), api.downloadClients, api.qualityProfiles, api.sharedSettings]) {
        const error = yield* Effect.flip<unknown, PortError, never>(read)
        assert.strictEqual(error.reason._tag, "Unsupported")
      }
      assert.strictEqual((yield* http.requests).length, 0)
    }))
})
