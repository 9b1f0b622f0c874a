/**
 * What bad input and faults get: one table over real sockets, for each of the HTTP clients that programs use on Node, and
 * one in virtual time for what needs no socket. Each row ends in the right tag and reason, names the operation and the
 * URL, shows no secret, and leaves nothing behind.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import { retryAfter } from "effect-lifeline/LifelineError"
import * as FaultyHttpClient from "effect-lifeline/testing/FaultyHttpClient"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { inspect } from "node:util"
import * as HungPort from "./support/hungPort.ts"
import * as Leaks from "./support/leaks.ts"
import * as Calls from "./support/pulse.ts"
import * as RawServer from "./support/rawServer.ts"

const { always, answer } = RawServer

const registryKey = "canary-key-of-the-registry"
const ownKey = "canary-key-of-the-service"

const haul = { name: "haul", type: "download-client", apiUrl: "http://haul:8484", apiKey: Redacted.make(ownKey) }
const lease = { id: "7f", name: "haul", type: "download-client", registeredAt: 0 }

const service = {
  id: "7f",
  name: "haul",
  type: "download-client",
  api_url: "http://haul:8484",
  status: "online",
  last_seen: "2026-01-01T00:00:00Z",
  registered: "2026-01-01T00:00:00Z",
  capabilities: [],
  metadata: "{}"
}

const clients = {
  "fetch": FetchHttpClient.layer,
  "undici": NodeHttpClient.layerUndici,
  "node:http": NodeHttpClient.layerNodeHttp
}

type PortError = Transient | LeaseLost | AuthFailed | Refused
type Operation = "register" | "heartbeat" | "verify" | "deregister" | "discover"

const call = (registry: Calls.Calls, operation: Operation): Effect.Effect<unknown, PortError> => {
  switch (operation) {
    case "register":
      return registry.register(haul)
    case "heartbeat":
      return registry.heartbeat(lease)
    case "verify":
      return registry.verify(lease, haul)
    case "deregister":
      return registry.deregister(lease)
    case "discover":
      return registry.discover({})
  }
}

const assertClean = (error: unknown) => {
  for (
    const text of [
      String(error),
      JSON.stringify(error),
      inspect(error, { depth: 20, showHidden: true }),
      error instanceof Error ? error.stack ?? "" : ""
    ]
  ) {
    assert.strictEqual(text.includes("canary"), false, text)
  }
}

/** `"ok"`, or the tag and the reason. */
const outcomeOf = (url: string, operation: Operation) => (effect: Effect.Effect<unknown, PortError>) =>
  Effect.match(effect, {
    onSuccess: () => "ok",
    onFailure: (error) => {
      assert.strictEqual(error.operation, operation)
      assert.strictEqual(error.message.includes(operation), true, error.message)
      assert.strictEqual(error.message.includes(url), true, error.message)
      assert.strictEqual(error.message.includes("undefined"), false, error.message)
      assertClean(error)
      return `${error._tag}.${error.reason._tag}`
    }
  })

interface Row {
  readonly name: string
  readonly operation: Operation
  readonly expected: string | Readonly<Record<keyof typeof clients, string>>
  /** What is at the URL: a script for a server of bytes, or any place at all. */
  readonly at: RawServer.Script | Effect.Effect<string, never, Scope.Scope>
  /** Short only where the row is about the deadline. */
  readonly timeout?: Duration.Input
}

const json = { "Content-Type": "application/json" }
const html = { "Content-Type": "text/html; charset=utf-8" }
const short = "200 millis"

/** Says nothing on the connection until the test is over. */
const silence: RawServer.Script = () => {}

const begin = (socket: Parameters<RawServer.Script>[0], bytes: string, then: () => void) => {
  socket.write(bytes, "latin1", then)
}

const statuses: ReadonlyArray<readonly [number, string]> = [
  [300, "Refused.Unsupported"],
  [304, "Refused.Unsupported"],
  [400, "Refused.InvalidRequest"],
  [401, "AuthFailed.Unauthorized"],
  [402, "Refused.InvalidRequest"],
  [403, "AuthFailed.Forbidden"],
  [404, "Refused.NotFound"],
  [405, "Refused.Unsupported"],
  [408, "Transient.Unavailable"],
  [409, "Refused.Conflict"],
  [410, "Refused.NotFound"],
  [412, "Refused.Conflict"],
  [413, "Refused.InvalidRequest"],
  [418, "Refused.InvalidRequest"],
  [422, "Refused.InvalidRequest"],
  [425, "Transient.Unavailable"],
  [429, "Transient.Throttled"],
  [451, "Refused.InvalidRequest"],
  [500, "Transient.Unavailable"],
  [501, "Refused.Unsupported"],
  [502, "Transient.Unavailable"],
  [503, "Transient.Unavailable"],
  [504, "Transient.Unavailable"],
  [505, "Transient.Unavailable"],
  [599, "Transient.Unavailable"]
]

const rows: ReadonlyArray<Row> = [
  // The body
  {
    name: "an unknown status of a service",
    operation: "discover",
    expected: "ok",
    at: always(200, JSON.stringify([{ ...service, status: "resting" }]), json)
  },
  {
    name: "a body that is not JSON",
    operation: "discover",
    expected: "Refused.MalformedResponse",
    at: always(200, `not JSON: ${registryKey}`, json)
  },
  {
    name: "truncated JSON",
    operation: "register",
    expected: "Refused.MalformedResponse",
    at: always(201, `{"id":"7f","api_key":"${ownKey}`, json)
  },
  {
    name: "wrong types",
    operation: "register",
    expected: "Refused.MalformedResponse",
    at: always(201, JSON.stringify({ ...service, api_url: [ownKey], api_key: ownKey }), json)
  },
  { name: "no body", operation: "verify", expected: "Refused.MalformedResponse", at: always(200, "", json) },
  {
    name: "JSON of another kind",
    operation: "discover",
    expected: "Refused.MalformedResponse",
    at: always(200, "null", json)
  },
  {
    name: "bytes that are no UTF-8",
    operation: "discover",
    expected: "Refused.MalformedResponse",
    at: (socket) => {
      socket.end(`${answer(200, "", { ...json, "Content-Length": "4" })}\xff\xfe[\x80`, "latin1")
    }
  },
  {
    name: "HTML from a proxy, with 200",
    operation: "heartbeat",
    expected: "Refused.MalformedResponse",
    at: always(200, "<html>Welcome</html>", html)
  },
  {
    name: "HTML from a proxy, with 502",
    operation: "heartbeat",
    expected: "Transient.Unavailable",
    at: always(502, "<html>Bad gateway</html>", html)
  },
  {
    name: "a 401 that repeats the key",
    operation: "register",
    expected: "AuthFailed.Unauthorized",
    at: always(401, JSON.stringify({ detail: `no: ${registryKey} ${ownKey}` }), json)
  },
  {
    name: "validation errors that repeat the values",
    operation: "register",
    expected: "Refused.InvalidRequest",
    at: always(
      422,
      JSON.stringify({ errors: [{ message: `bad ${ownKey}`, location: "body.api_key", value: ownKey }] }),
      json
    )
  },

  // The status
  ...statuses.map(([status, expected]): Row => ({
    name: `status ${status}`,
    operation: "discover",
    expected,
    at: always(status, "{}", json)
  })),
  { name: "404 of a lease", operation: "heartbeat", expected: "LeaseLost.UnknownLease", at: always(404) },
  { name: "410 of a lease", operation: "verify", expected: "LeaseLost.LeaseExpired", at: always(410) },
  { name: "404 of a lease to end", operation: "deregister", expected: "ok", at: always(404) },
  {
    name: "early hints before the answer",
    operation: "heartbeat",
    expected: "ok",
    at: (socket) => {
      socket.write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
      socket.end(answer(204))
    }
  },
  {
    name: "nothing but early hints",
    operation: "heartbeat",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.end("HTTP/1.1 103 Early Hints\r\n\r\n")
    }
  },
  {
    name: "a switch of protocols that nobody asked for",
    operation: "heartbeat",
    // The one client hands it out as an answer, the others take it for a broken connection.
    expected: {
      "fetch": "Transient.Unreachable",
      "undici": "Transient.Unreachable",
      "node:http": "Refused.MalformedResponse"
    },
    at: (socket) => {
      socket.end("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
    }
  },
  {
    name: "an answer that is not HTTP",
    operation: "heartbeat",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.end("SSH-2.0-OpenSSH_9.6\r\n\r\n")
    }
  },

  // Redirects
  {
    name: "a redirect loop",
    operation: "discover",
    expected: "Refused.Unsupported",
    at: (socket) => {
      socket.end(answer(302, "", { Location: "/api/v1/services" }))
    }
  },
  {
    name: "a redirect to a page of login",
    operation: "register",
    expected: "Refused.Unsupported",
    at: always(303, "<html>", { ...html, Location: `http://user:${registryKey}@127.0.0.1:9/login?to=${registryKey}` })
  },

  // The connection
  {
    name: "a connection that is closed without a word",
    operation: "heartbeat",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.end()
    }
  },
  {
    name: "a connection that is reset before the answer",
    operation: "register",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.resetAndDestroy()
    }
  },
  {
    name: "a connection that is reset within the head",
    operation: "discover",
    expected: "Transient.Unreachable",
    at: (socket) => begin(socket, "HTTP/1.1 200 OK\r\nContent-", () => socket.resetAndDestroy())
  },
  {
    name: "a connection that is reset half way through the body",
    operation: "discover",
    expected: "Transient.Unreachable",
    at: (socket) => begin(socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[", () => socket.resetAndDestroy())
  },
  {
    name: "a body that is shorter than it says",
    operation: "discover",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.end("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[]")
    }
  },
  {
    name: "a chunked body without its end",
    operation: "discover",
    expected: "Transient.Unreachable",
    at: (socket) => {
      socket.end("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n")
    }
  },
  {
    name: "a 401 whose body is cut off",
    operation: "discover",
    expected: "AuthFailed.Unauthorized",
    at: (socket) => begin(socket, "HTTP/1.1 401 X\r\nContent-Length: 1000\r\n\r\n{", () => socket.resetAndDestroy())
  },
  {
    name: "a connection that is refused",
    operation: "register",
    expected: "Transient.Unreachable",
    at: Effect.scoped(Effect.map(RawServer.make(silence), (server) => server.url))
  },
  {
    name: "a name that does not resolve",
    operation: "register",
    expected: "Transient.Unreachable",
    // A label of 64 characters fails in the resolver itself: where there is no name server, others take their time.
    at: Effect.succeed(`http://${"x".repeat(64)}.invalid:9696`)
  },
  {
    name: "TLS with who does not speak it",
    operation: "heartbeat",
    expected: "Transient.Unreachable",
    at: Effect.map(
      RawServer.make(silence, (socket) => socket.end(answer(400))),
      (server) => server.url.replace("http:", "https:")
    )
  },

  // Deadlines
  {
    name: "an answer that never comes",
    operation: "heartbeat",
    expected: "Transient.TimedOut",
    timeout: short,
    at: silence
  },
  {
    name: "a head that never ends",
    operation: "heartbeat",
    expected: "Transient.TimedOut",
    timeout: short,
    at: (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nX-")
    }
  },
  {
    name: "a body that never ends, and is silent",
    operation: "discover",
    expected: "Transient.TimedOut",
    timeout: short,
    at: (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[")
    }
  },
  {
    name: "a body that never ends, and drips",
    operation: "discover",
    expected: "Transient.TimedOut",
    timeout: short,
    at: (socket) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      const drip = setInterval(() => socket.write("1\r\n \r\n"), 5)
      socket.on("close", () => clearInterval(drip))
    }
  },
  {
    name: "a body that never ends, and floods",
    operation: "discover",
    expected: "Refused.MalformedResponse",
    at: (socket) => {
      const chunk = `10000\r\n${" ".repeat(65536)}\r\n`
      const flood = () => {
        while (socket.writable && socket.write(chunk)) {}
      }
      socket.on("drain", flood)
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
      flood()
    }
  },
  {
    name: "a 401 whose body never ends",
    operation: "discover",
    expected: "AuthFailed.Unauthorized",
    // Time enough for the status to arrive on a busy machine.
    timeout: "2 seconds",
    at: (socket) => {
      socket.write("HTTP/1.1 401 X\r\nContent-Length: 1000\r\n\r\n{")
    }
  },
  {
    name: "a connection attempt that hangs",
    operation: "register",
    expected: "Transient.TimedOut",
    timeout: short,
    at: Effect.map(HungPort.make, (port) => `http://127.0.0.1:${port}`)
  }
]

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

describe.each(["fetch", "undici", "node:http"] as const)("over real sockets, with %s", (kind) => {
  it.live.each(rows.map((row) => [row.name, row] as const))("%s", ([, row]) =>
    Effect.gen(function*() {
      const { at, expected, operation, timeout = "10 seconds" } = row
      const fibers = Leaks.fiberCounter()
      const left = yield* Leaks.resources
      yield* Effect.scoped(Effect.gen(function*() {
        const server = typeof at === "function" ? yield* RawServer.make(at) : undefined
        const url = server === undefined && Effect.isEffect(at) ? yield* at : server?.url ?? ""
        const options = { url, apiKey: Redacted.make(registryKey), requestTimeout: timeout }
        const outcome = yield* Effect.gen(function*() {
          const registry = yield* Calls.make(options)
          return yield* outcomeOf(url, operation)(call(registry, operation))
        }).pipe(Effect.provide(clients[kind]), fibers.watch, quietly)
        assert.strictEqual(outcome, typeof expected === "string" ? expected : expected[kind])
        assert.strictEqual(yield* fibers.left, 0)
        if (server !== undefined) {
          // One request and no second, and the connection does not stay.
          assert.strictEqual(server.requests.length, 1)
          yield* server.quiet
        }
      }))
      assert.deepStrictEqual(yield* left, [])
    }))
})

describe("over real sockets", () => {
  it.live("a redirect is not followed, and the key goes nowhere else", () =>
    Effect.scoped(Effect.gen(function*() {
      const elsewhere = yield* RawServer.make(always(204))
      for (const status of [301, 302, 303, 307, 308]) {
        const server = yield* RawServer.make(always(status, "", { Location: `${elsewhere.url}/stolen` }))
        const registry = yield* Calls.make({ url: server.url, apiKey: Redacted.make(registryKey) })
        for (const operation of ["register", "heartbeat", "verify", "deregister", "discover"] as const) {
          const outcome = yield* outcomeOf(server.url, operation)(call(registry, operation))
          assert.strictEqual(outcome, "Refused.Unsupported")
        }
      }
      assert.strictEqual(elsewhere.requests.length, 0)
    })).pipe(Effect.provide(FetchHttpClient.layer)))

  it.live.each(
    [
      ["a day", "86400", 86_400_000, 300_000],
      ["zero", "0", 0, 100],
      ["a date that has passed", "Wed, 21 Oct 2015 07:28:00 GMT", 0, 100],
      ["garbage", "soon", undefined, undefined],
      ["a negative number", "-5", undefined, undefined],
      ["nothing", "", undefined, undefined]
    ] as const
  )(
    "a Retry-After of %s is carried as it is, and clamped by the policy",
    ([, header, carried, clamped]) =>
      Effect.scoped(Effect.gen(function*() {
        for (const status of [429, 503]) {
          const server = yield* RawServer.make(always(status, "", { "Retry-After": header }))
          const registry = yield* Calls.make({ url: server.url, apiKey: Redacted.make(registryKey) })
          const error = yield* Effect.flip(registry.heartbeat(lease))
          const hint = error._tag === "Transient" ? retryAfter(error) : undefined
          const millis = hint === undefined ? undefined : Duration.toMillis(hint)
          assert.strictEqual(millis, carried)
          const policy = Backoff.make({ base: 1, cap: 1, floor: 0, hintFloor: 100, jitter: "none" })
          const next = Backoff.step(policy, Backoff.initial, { now: 0, random: 0.5, hint: millis })
          assert.strictEqual(next?.wait, clamped ?? 1)
          yield* server.quiet
        }
      })).pipe(Effect.provide(FetchHttpClient.layer))
  )

  it.live("connections are used again, after errors with a body too", () =>
    Effect.scoped(Effect.gen(function*() {
      const ports = new Set<number | undefined>()
      const server = yield* RawServer.make((socket, { n }) => {
        ports.add(socket.remotePort)
        const keep = { ...json, Connection: "keep-alive" }
        socket.write(n % 2 === 0 ? answer(204, "", keep) : answer(500, JSON.stringify({ detail: "no" }), keep))
      })
      const registry = yield* Calls.make({ url: server.url })
      for (let n = 0; n < 10; n++) yield* Effect.exit(registry.heartbeat(lease))
      assert.strictEqual(server.requests.length, 10)
      // Not one for each error, were its body to be given up; fetch may open a second one on its own.
      assert.isBelow(ports.size, 5)
    })).pipe(Effect.provide(FetchHttpClient.layer)))

  it.live("an interruption closes the connection", () =>
    Effect.scoped(Effect.gen(function*() {
      for (const begun of ["", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n["]) {
        const arrived = yield* Deferred.make<void>()
        const server = yield* RawServer.make((socket) => {
          socket.write(begun)
          Deferred.doneUnsafe(arrived, Effect.void)
        })
        const registry = yield* Calls.make({ url: server.url })
        const fiber = yield* Effect.forkChild(registry.discover({}))
        yield* Deferred.await(arrived)
        yield* Fiber.interrupt(fiber)
        yield* server.quiet
      }
    })).pipe(Effect.provide(FetchHttpClient.layer)))
})

describe("before any request", () => {
  const refused = (input: Partial<typeof haul> & { readonly healthUrl?: string }) =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.drop())
      const registry = yield* Effect.provideService(
        Calls.make({ url: "http://pulse.test" }),
        HttpClient.HttpClient,
        http.client
      )
      const error = yield* Effect.flip(registry.register({ ...haul, ...input }))
      assert.strictEqual((yield* http.requests).length, 0)
      assert.strictEqual(error.operation, "register")
      assertClean(error)
      return error.reason._tag === "InvalidRequest" ? error.reason.issues.map((issue) => issue.path) : []
    })

  it.effect.each(
    [
      ["a blank name", { name: " " }, ["instance.name"]],
      ["a name of 201 characters", { name: "x".repeat(201) }, ["instance.name"]],
      ["a blank type", { type: "" }, ["instance.type"]],
      ["a type of 51 characters", { type: "x".repeat(51) }, ["instance.type"]],
      ["an address that is no URL", { apiUrl: "canary:8484" }, ["instance.apiUrl"]],
      ["an empty address", { apiUrl: "" }, ["instance.apiUrl"]],
      ["a health check that is no URL", { healthUrl: "ftp://canary" }, ["instance.healthUrl"]],
      ["all of it", { name: "", type: "", apiUrl: "" }, ["instance.name", "instance.type", "instance.apiUrl"]]
    ] as const
  )("%s is refused with the path of its field", ([, input, paths]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* refused(input), [...paths])
    }))

  it.effect("a name of 200 characters and a type of 50 are fine", () =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.json(201, service))
      const registry = yield* Effect.provideService(
        Calls.make({ url: "http://pulse.test" }),
        HttpClient.HttpClient,
        http.client
      )
      yield* registry.register({ ...haul, name: "x".repeat(200), type: "y".repeat(50) })
      assert.strictEqual((yield* http.requests).length, 1)
    }))

  it.effect.each(
    ["registry", "http:", "//pulse:9696", "ftp://pulse:9696", "http://u:canary@pulse:9696", "http://pulse:9696?canary"]
  )("the URL %s is refused when the layer is built", (url) =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.drop())
      const error = yield* Effect.flip(
        Effect.provideService(Calls.make({ url }), HttpClient.HttpClient, http.client)
      )
      assert.strictEqual(error.reason._tag, "InvalidRequest")
      assert.strictEqual(error.message.includes("options.url"), true)
      assertClean(error)
    }))

  it.effect.each([undefined, "", "  "])(
    "the URL %j disables the integration: nothing is ever sent",
    (url) =>
      Effect.gen(function*() {
        const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.drop())
        const registry = yield* Effect.provideService(Calls.make({ url }), HttpClient.HttpClient, http.client)
        for (const operation of ["register", "heartbeat", "verify", "deregister", "discover"] as const) {
          const error = yield* Effect.flip(call(registry, operation))
          assert.strictEqual(`${error._tag}.${error.reason._tag}`, "Refused.Unsupported")
          assert.strictEqual(error.operation, operation)
        }
        assert.strictEqual((yield* http.requests).length, 0)
      })
  )
})

describe("clock jumps", () => {
  const scripted = (...outcomes: ReadonlyArray<FaultyHttpClient.Outcome>) =>
    Effect.gen(function*() {
      const http = yield* FaultyHttpClient.make(FaultyHttpClient.sequence(outcomes))
      return yield* Effect.provideService(
        Calls.make({ url: "http://pulse.test" }),
        HttpClient.HttpClient,
        http.client
      )
    })

  it.effect("ahead: a request that was under way has timed out, and the next is as any other", () =>
    Effect.gen(function*() {
      const registry = yield* scripted(FaultyHttpClient.hang, FaultyHttpClient.json(201, service))
      const fiber = yield* Effect.forkChild(Effect.flip(registry.heartbeat(lease)), { startImmediately: true })
      yield* TestClock.setTime(Duration.toMillis("365 days"))
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "TimedOut")
      const next = yield* registry.register(haul)
      assert.strictEqual(next.registeredAt, Duration.toMillis("365 days"))
    }))

  it.effect("back: a date to wait for is then further off, and the policy's ceiling holds", () =>
    Effect.gen(function*() {
      const at = Date.UTC(2026, 0, 1)
      const header = { "retry-after": new Date(at + 60_000).toUTCString() }
      const registry = yield* scripted(
        FaultyHttpClient.respond(503, { headers: header }),
        FaultyHttpClient.respond(503, { headers: header })
      )
      const hint = Effect.map(
        Effect.flip(registry.heartbeat(lease)),
        (error) => error._tag === "Transient" ? Duration.toMillis(retryAfter(error) ?? Duration.zero) : -1
      )
      yield* TestClock.setTime(at)
      assert.strictEqual(yield* hint, 60_000)
      yield* TestClock.setTime(at - Duration.toMillis("30 days"))
      const far = yield* hint
      assert.strictEqual(far, Duration.toMillis("30 days") + 60_000)
      const next = Backoff.step(Backoff.streams, Backoff.initial, { now: 0, random: 0, hint: far })
      assert.isAtMost(next?.wait ?? Infinity, 300_000)
    }))
})
