import { assert, describe, it } from "@effect/vitest"
import * as CheckIn from "effect-lifeline/CheckIn"
import * as Lifeline from "effect-lifeline/Lifeline"
import type * as Registry from "effect-lifeline/Registry"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import { inspect } from "node:util"
import * as Seen from "./support/seen.ts"

const registryKey = "canary-registry-key"
const ownKey = "canary-own-key"
const secrets = [registryKey, ownKey]

const service = (apiUrl: string) => ({
  id: "5b7c2a0e-8f6d-4a9e-9f5e-0a3c0f7d1b11",
  name: "haul",
  type: "download-client",
  api_url: apiUrl,
  status: "online",
  last_seen: "2026-01-01T00:00:00Z",
  registered: "2026-01-01T00:00:00Z",
  capabilities: [],
  metadata: "{}",
  api_key: ownKey
})

/** What a careless server would answer: it repeats what it was sent. */
const echo = {
  detail: `no: ${registryKey} and ${ownKey}`,
  title: ownKey,
  errors: [{ message: ownKey, location: ownKey }]
}

type Answer = (url: string) => Response

const ok: Answer = () => new Response(JSON.stringify(service("http://haul:8484")), { status: 200 })
const status = (code: number): Answer => () =>
  new Response(JSON.stringify(echo), { status: code, headers: { "content-type": "application/problem+json" } })
const scenarios: ReadonlyArray<readonly [string, Answer]> = [
  ["all is well", ok],
  ["400", status(400)],
  ["401", status(401)],
  ["403", status(403)],
  ["404", status(404)],
  ["409", status(409)],
  ["422", status(422)],
  ["429", status(429)],
  ["500", status(500)],
  [
    "a redirect with the key in it",
    () => new Response(null, { status: 302, headers: { location: `http://u:${registryKey}@other/?key=${ownKey}` } })
  ],
  [
    "a page that repeats the key",
    () => new Response(`<p>${registryKey} ${ownKey}</p>`, { status: 200, headers: { "content-type": "text/html" } })
  ],
  ["text that repeats the key", () => new Response(`${registryKey} ${ownKey}`, { status: 200 })],
  ["wrong types", () => new Response(JSON.stringify({ id: [ownKey], api_url: registryKey }), { status: 200 })],
  [
    "taken by another, with a key in its address",
    () => new Response(JSON.stringify(service(`http://user:${ownKey}@other/?k=${registryKey}`)), { status: 200 })
  ]
]

const instance = {
  name: "haul",
  type: "download-client",
  apiUrl: "http://haul:8484",
  apiKey: Redacted.make(ownKey)
}

type Show = (what: string, value: unknown) => void

const drivers: Record<
  "Lifeline" | "CheckIn",
  (show: Show) => Effect.Effect<void, unknown, Registry.Registry | Scope.Scope>
> = {
  Lifeline: Effect.fnUntraced(function*(show: Show) {
    const lifeline = yield* Lifeline.make({ instance, startup: "background", heartbeat: { verifyEvery: 1 } })
    yield* Effect.forkScoped(Stream.runForEach(lifeline.events, (event) => Effect.sync(() => show("event", event))))
    yield* Effect.forkScoped(
      Stream.runForEach(SubscriptionRef.changes(lifeline.status), (now) => Effect.sync(() => show("status", now)))
    )
    yield* TestClock.adjust("10 minutes")
    show("beatNow", yield* Effect.exit(lifeline.beatNow))
    show("deregister", yield* Effect.exit(lifeline.deregister))
    show("lifeline", lifeline)
  }),
  CheckIn: Effect.fnUntraced(function*(show: Show) {
    const store = yield* KeyValueStore.KeyValueStore
    const showRecord = Effect.gen(function*() {
      for (const key of yield* store.keys) show("stored", [key, yield* store.get(key)])
    })
    for (let n = 0; n < 10; n++) {
      show("run", yield* Effect.exit(CheckIn.run({ instance, heartbeat: { verifyEvery: 1 } })))
      yield* showRecord
      yield* TestClock.adjust("1 minute")
    }
    show("runAlarm", yield* Effect.exit(CheckIn.runAlarm({ instance })))
    show("deregister", yield* Effect.exit(CheckIn.deregister({ instance })))
    yield* showRecord
  }, Effect.provide(KeyValueStore.layerMemory))
}

/** Everything that can be seen from outside: log lines, spans, metrics, status, events, reports, records, errors. */
const seen = Effect.fnUntraced(function*(driver: keyof typeof drivers, name: string, answer: Answer) {
  const { log, out, show, spans, tracer } = Seen.make()
  let requests = 0
  const client = HttpClient.make((request) => {
    // The first registration succeeds, so that each answer is seen by beats and verifications too.
    const first = requests++ === 0 && name !== "401"
    return Effect.succeed(HttpClientResponse.fromWeb(request, first ? ok(request.url) : answer(request.url)))
  })
  yield* drivers[driver](show).pipe(
    Effect.provide(Pulse.layer({ url: "http://pulse:9696", apiKey: Redacted.make(registryKey) })),
    Effect.scoped,
    Effect.provideService(HttpClient.HttpClient, client),
    Effect.provideService(Tracer.Tracer, tracer),
    Effect.provide(Layer.merge(Logger.layer([log]), Layer.succeed(References.MinimumLogLevel, "All")))
  )
  // What an exporter sends: the value a span ended with stays in the process, a failure is written out.
  for (const { attributes, name, status } of spans) {
    const exit = status._tag === "Ended" ? status.exit : Exit.void
    show("span", [name, [...attributes], Exit.isFailure(exit) ? Cause.pretty(exit.cause) : status._tag])
  }
  show("metrics", yield* Metric.snapshot)
  return { out, requests, spans: spans.length, at: yield* Clock.currentTimeMillis }
})

describe("no secret in anything that can be seen", () => {
  it.effect.each(
    scenarios.flatMap(([name, answer]) =>
      (["Lifeline", "CheckIn"] as const).map((driver) => [name, driver, answer] as const)
    )
  )("%s, %s", ([name, driver, answer]) =>
    Effect.gen(function*() {
      const { out, requests, spans } = yield* seen(driver, name, answer)
      assert.isAbove(requests, 0)
      assert.isAbove(spans, 0)
      assert.isTrue(out.some((line) => line.startsWith("log:")))
      for (const line of out) {
        for (const secret of secrets) assert.notInclude(line, secret)
      }
    }))

  it("the search finds a secret that is there", () => {
    assert.include(inspect({ a: { b: registryKey } }, { depth: 20 }), registryKey)
  })
})
