import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Credential from "effect-lifeline/Credential"
import * as Proof from "effect-lifeline/Proof"
import * as Recovery from "effect-lifeline/Recovery"
import * as Registry from "effect-lifeline/Registry"
import * as ClosedLoop from "effect-lifeline/registry/ClosedLoop"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { makeClosedLoop } from "../support/closedLoop.ts"
import type { ClosedLoopServer, Override } from "../support/closedLoop.ts"
import { makeStore } from "../support/credentials.ts"
import type { TestStore } from "../support/credentials.ts"
import { lease } from "../support/leaseApi.ts"

const hour = 60 * 60_000
const secret = "s3cr3t"
const apiKey = `sk_live_${secret}`
const gatewayId = "gateway 1"
const stolen = `runner-${secret}-stolen`

/** All that was logged, traced, and failed with. */
const output: Array<string> = []

const tracer = Tracer.make({
  span: (options) => {
    const span = new Tracer.NativeSpan(options)
    const end = span.end.bind(span)
    span.end = (time, exit) => {
      output.push(JSON.stringify([span.name, [...span.attributes], span.events, String(exit)]))
      end(time, exit)
    }
    return span
  }
})

const watched = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  self.pipe(
    Effect.tapCause((cause) => Effect.sync(() => output.push(Cause.pretty(cause), JSON.stringify(cause)))),
    Effect.tap((value) => Effect.sync(() => output.push(JSON.stringify(value ?? null)))),
    Effect.provide(Logger.layer([
      Logger.make(({ cause, fiber, message }) => {
        output.push(JSON.stringify([message, cause, fiber.getRef(References.CurrentLogAnnotations)]))
      })
    ])),
    Effect.provideService(References.MinimumLogLevel, "All"),
    Effect.withTracer(tracer)
  )

interface Bench {
  readonly server: ClosedLoopServer
  readonly store: TestStore
  readonly options: Recovery.Options
  /** For answers that never come. */
  readonly impatient: Recovery.LeaseApi
}

const setUp = (base = "") => Effect.provide(made(base), FetchHttpClient.layer)

const made = Effect.fnUntraced(function*(base: string) {
  const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
  const { x } = key.publicKey
  const server = yield* makeClosedLoop({ id: gatewayId, apiKey, publicKey: { x } }, { base })
  const store = makeStore()
  const api = yield* ClosedLoop.makeLeaseApi({ url: server.url })
  const impatient = yield* ClosedLoop.makeLeaseApi({ url: server.url, requestTimeout: "200 millis" })
  const proof = yield* ClosedLoop.proof({ key, gatewayId, apiKey: Redacted.make(apiKey) })
  const options: Recovery.Options = { api, proof, isAlive: () => Effect.succeed(true) }
  return { server, store, options, impatient }
})

const over = <A, E, R>({ store }: Bench, effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, KeyValueStore.KeyValueStore, store.store)

/** A lease that is kept, with a token that the server does or does not take. */
const keep = Effect.fnUntraced(function*(
  bench: Bench,
  id: string,
  loop: { readonly status: string; readonly rejected?: boolean },
  { expiresAt = 8 * hour, provenance = "Managed" as "Managed" | "Supplied" } = {}
) {
  const value = `runner-${secret}-${encodeURIComponent(id)}`
  const entry = { lease: lease(id), provenance, holder: id }
  bench.server.loops.set(id, { status: loop.status, token: loop.rejected === true ? undefined : value, revivals: 0 })
  yield* over(bench, Effect.flatMap(Recovery.makeLeases(), (leases) => leases.put(entry)))
  const now = Date.now()
  yield* over(
    bench,
    Effect.flatMap(
      Recovery.credential({ ...bench.options, proof: undefined }, entry),
      (credential) => credential.accept({ value: Redacted.make(value), expiresAt: now + expiresAt, jti: "first" })
    )
  ).pipe(Effect.scoped)
  return value
})

const recover = (bench: Bench, options: Partial<Recovery.Options> = {}) =>
  watched(over(bench, Recovery.reconcile({ ...bench.options, ...options })))

const tokenOf = ({ store }: Bench, id: string) => {
  const text = store.entries.get(`recovery/credential/token/${id}`)
  return text === undefined
    ? undefined
    : JSON.parse(atob((JSON.parse(text) as { readonly data: string }).data)) as Record<string, unknown>
}

const brief = (report: Recovery.Report | undefined): string =>
  report?._tag === "Attached"
    ? `Attached${report.revived ? " revived" : ""}${report.retryAt === undefined ? "" : " open"}`
    : report?._tag === "Finalised"
    ? `Finalised ${report.reason}`
    : report?._tag ?? "nothing"

/** Ids as they are on the wire. */
const ids: ReadonlyArray<readonly [string, string]> = [
  ["3f2504e0-4f89-11d3-9a0c-0305e82c3301", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"],
  ["a b", "a%20b"],
  ["größe/7?x=1#y", "gr%C3%B6%C3%9Fe%2F7%3Fx%3D1%23y"],
  ["日本 🚀", "%E6%97%A5%E6%9C%AC%20%F0%9F%9A%80"],
  ["100%25", "100%2525"],
  ["it's(*)~!;:@&=+$,", "it's(*)~!%3B%3A%40%26%3D%2B%24%2C"],
  ["...", "..."]
]

describe("on the wire", () => {
  for (const [id, encoded] of ids) {
    it.live(`${id}: the path that is signed is the path that is sent, byte for byte`, () =>
      Effect.gen(function*() {
        const bench = yield* setUp("/apiv1")
        const token = yield* keep(bench, id, { status: "TIMED_OUT", rejected: true })
        assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Attached revived"])
        const { received } = bench.server
        assert.deepStrictEqual(received.map(({ method, path }) => `${method} ${path}`), [
          `GET /apiv1/loops/${encoded}`,
          `POST /apiv1/loops/${encoded}/refresh-token`,
          `POST /apiv1/loops/${encoded}/heartbeat`
        ])
        // The server verified the last one over that path: it would not have revived it otherwise.
        assert.strictEqual(bench.server.loops.get(id)?.revivals, 1)
        assert.deepStrictEqual(bench.server.brief(), [`status ${token}`, "refresh key", "heartbeat key"])
      }).pipe(Effect.scoped))
  }

  it.live("headers and bodies are those of the reference", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true })
      yield* recover(bench)
      const [status, refresh, heartbeat] = bench.server.received
      const own = ["x-desktop-gateway-id", "x-desktop-signature", "x-desktop-timestamp"]
      const names = (received: typeof status) =>
        Object.keys(received?.headers ?? {}).filter((name) =>
          name.startsWith("x-") ||
          ["authorization", "content-type", "idempotency-key", "traceparent", "b3"].includes(name)
        ).toSorted()
      assert.deepStrictEqual(names(status), ["authorization", ...own])
      assert.deepStrictEqual(names(refresh), ["authorization", "content-type", "idempotency-key", ...own])
      assert.deepStrictEqual(names(heartbeat), ["authorization", "content-type", ...own])
      assert.isDefined(heartbeat)
      assert.strictEqual(heartbeat.headers["authorization"], `Bearer ${apiKey}`)
      assert.strictEqual(heartbeat.headers["content-type"], "application/json")
      assert.strictEqual(heartbeat.headers["x-desktop-gateway-id"], gatewayId)
      assert.match(heartbeat.headers["x-desktop-timestamp"] ?? "", /^\d{10}$/)
      assert.match(heartbeat.headers["x-desktop-signature"] ?? "", /^[A-Za-z0-9_-]{86}$/)
      assert.deepStrictEqual(bench.server.received.map(({ body }) => body), ["", "", ""])
    }).pipe(Effect.scoped))

  it.live("ids that no path can carry are refused before anything is sent", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      const proof = bench.options.proof
      assert.isDefined(proof)
      for (const id of ["", ".", "..", "\ud800"]) {
        const error = yield* Effect.flip(watched(bench.options.api.status(lease(id), {
          select: Effect.succeed({ _tag: "Proof" }),
          authorize: ({ method, url }) =>
            Effect.map(proof.headers({ method, url }), (headers) => ({ headers, presented: { _tag: "Proof" } })),
          received: proof.received
        })))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
      }
      assert.deepStrictEqual(bench.server.received, [])
    }).pipe(Effect.scoped))

  it.effect("a URL that is none, or holds a secret, is refused, and not repeated", () =>
    Effect.gen(function*() {
      for (const url of ["", "nonsense", "ftp://host", `http://user:${secret}@host`, `http://host/?key=${secret}`]) {
        const error = yield* Effect.flip(watched(
          Effect.provide(ClosedLoop.makeLeaseApi({ url }), FetchHttpClient.layer)
        ))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
      }
    }))
})

describe("recovery over HTTP", () => {
  it.live("live: attached with its token, nothing else is sent", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      const token = yield* keep(bench, "7", { status: "RUNNING" })
      assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Attached"])
      assert.deepStrictEqual(bench.server.brief(), [`status ${token}`])
    }).pipe(Effect.scoped))

  it.live("what a loop says of itself", () =>
    Effect.gen(function*() {
      for (
        const [status, expected] of [
          ["PENDING", "Attached"],
          ["CLAIMED", "Attached"],
          ["BLOCKED", "Attached"],
          ["COMPLETED", "Attached"],
          ["TIMED_OUT", "Finalised TimedOut"]
        ] as const
      ) {
        const bench = yield* setUp()
        yield* keep(bench, "7", { status })
        assert.deepStrictEqual((yield* recover(bench)).map(brief), [expected], status)
      }
    }).pipe(Effect.scoped))

  it.live("R1: revived: token stored with jti and expiry, attached, one heartbeat", () =>
    Effect.gen(function*() {
      for (const expiresAt of [8 * hour, -hour]) {
        const bench = yield* setUp()
        yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true }, { expiresAt })
        assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Attached revived"])
        assert.strictEqual(bench.server.brief().filter((line) => line.startsWith("heartbeat")).length, 1)
        assert.strictEqual(bench.server.brief().filter((line) => line.startsWith("refresh")).length, 1)
        const token = tokenOf(bench, "7")
        assert.strictEqual(token?.["value"], bench.server.loops.get("7")?.token)
        assert.strictEqual(token?.["jti"], "jti-1")
        assert.approximately(Number(token?.["expiresAt"]), Date.now() + 8 * hour, 60_000)
        // It goes on with that token.
        assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Attached"])
        assert.strictEqual(bench.server.loops.get("7")?.revivals, 1)
      }
    }).pipe(Effect.scoped))

  it.live("R2: the revival is refused: finalised, token deleted", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "COMPLETED", rejected: true })
      assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Finalised Gone"])
      assert.isUndefined(tokenOf(bench, "7"))
    }).pipe(Effect.scoped))

  it.live("R3: supplied: no heartbeat", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      const token = yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true }, { provenance: "Supplied" })
      assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Finalised Unauthorized"])
      assert.deepStrictEqual(bench.server.brief(), [`status ${token}`])
    }).pipe(Effect.scoped))

  it.live(
    "R4: 503, a connection that breaks, a hang, anything else: attached, token kept, open; then revived",
    () =>
      Effect.gen(function*() {
        const overrides: ReadonlyArray<Override> = [
          503,
          429,
          403,
          "break",
          "hang",
          { status: 302, headers: { location: "http://127.0.0.1:9/" }, body: "" },
          { status: 200, headers: { "content-type": "text/html" }, body: "<p>log in" },
          { status: 200, body: "{}" },
          // Not all three of what a revival brings, and one without it.
          {
            status: 200,
            body: JSON.stringify({ success: true, data: { bumped: true, revived: true, token: stolen } })
          },
          {
            status: 200,
            body: JSON.stringify({ success: true, data: { bumped: true, token: stolen, expiresAt: "", jti: "" } })
          }
        ]
        for (const override of overrides) {
          const bench = yield* setUp()
          const token = yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true })
          bench.server.overrides.heartbeat = [override]
          const { impatient, options: { api } } = bench
          const more = override === "hang" ? { api: { ...api, heartbeat: impatient.heartbeat } } : {}
          assert.deepStrictEqual((yield* recover(bench, more)).map(brief), ["Attached open"], JSON.stringify(override))
          assert.strictEqual(tokenOf(bench, "7")?.["value"], token)
          assert.strictEqual(bench.server.brief().filter((line) => line.startsWith("heartbeat")).length, 1)
          delete bench.server.overrides.heartbeat
          assert.deepStrictEqual((yield* recover(bench)).map(brief), ["Attached revived"], JSON.stringify(override))
        }
      }).pipe(Effect.scoped),
    30_000
  )

  it.live("R4: the layer tries again by itself", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true })
      bench.server.overrides.heartbeat = [503, "break", 503]
      const recovery = yield* watched(over(
        bench,
        Recovery.make({ ...bench.options, backoff: Backoff.make({ base: "50 millis", cap: "100 millis" }) })
      ))
      assert.deepStrictEqual((yield* recovery.first).map(brief), ["Attached open"])
      const beats = () => bench.server.brief().filter((line) => line.startsWith("heartbeat")).length
      for (let n = 0; n < 200 && beats() < 3; n++) yield* Effect.sleep(50)
      delete bench.server.overrides.heartbeat
      for (let n = 0; n < 200 && (yield* recovery.reports).map(brief)[0] !== "Attached revived"; n++) {
        yield* Effect.sleep(50)
      }
      assert.deepStrictEqual((yield* recovery.reports).map(brief), ["Attached revived"])
      assert.strictEqual(bench.server.loops.get("7")?.revivals, 1)
    }).pipe(Effect.scoped), 30_000)

  it.live("R5: dead: no heartbeat, finalised, token deleted, one attempt", () =>
    Effect.gen(function*() {
      for (const status of ["TIMED_OUT", "RUNNING"]) {
        const bench = yield* setUp()
        yield* keep(bench, "7", { status, rejected: status === "TIMED_OUT" })
        const [report] = yield* recover(bench, { isAlive: () => Effect.succeed(false) })
        assert.strictEqual(brief(report), status === "RUNNING" ? "Finalised Dead" : "Finalised Unauthorized")
        assert.deepStrictEqual(bench.server.received.map(({ method }) => method), ["GET"])
        assert.deepStrictEqual([...bench.store.entries.keys()], ["recovery/lease/7"])
        const kept = yield* over(bench, Effect.flatMap(Recovery.makeLeases(), (leases) => leases.get("7")))
        assert.strictEqual(kept?.attempts, 1)
      }
    }).pipe(Effect.scoped))

  it.live("R7: two boots at once over one store: one refresh, one revival", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "TIMED_OUT", rejected: true })
      const both = yield* Effect.all([recover(bench), recover(bench)], { concurrency: 2 })
      // One of them may find the new token before it has asked for one.
      for (const reports of both) assert.match(reports.map(brief).join(), /^Attached( revived)?$/)
      assert.strictEqual(bench.server.brief().filter((line) => line.startsWith("refresh")).length, 1)
      assert.strictEqual(bench.server.brief().filter((line) => line.startsWith("heartbeat")).length, 1)
      assert.strictEqual(bench.server.loops.get("7")?.revivals, 1)
    }).pipe(Effect.scoped))

  it.live("a refresh: read with and without the envelope; a lost race is for now", () =>
    Effect.gen(function*() {
      const issued = { token: "fresh", expiresAt: "2040-01-01T00:00:00.000Z", jti: "j" }
      const rows: ReadonlyArray<readonly [Override, string]> = [
        [{ status: 200, body: JSON.stringify({ success: true, data: issued }) }, "fresh"],
        [{ status: 200, body: JSON.stringify(issued) }, "fresh"],
        [{ status: 409, body: JSON.stringify({ success: false, error: "raced", code: "RACE_LOST" }) }, "Transient"],
        [{ status: 409, body: JSON.stringify({ success: false, error: "no", code: "NOT_RUNNING" }) }, "Refused"],
        [{ status: 429, body: JSON.stringify({ success: false, error: "no", code: "RATE_LIMITED" }) }, "Transient"],
        [401, "AuthFailed"],
        [404, "Refused"],
        [500, "Transient"],
        ["break", "Transient"],
        [{ status: 200, body: JSON.stringify({ ...issued, expiresAt: "tomorrow" }) }, "Refused"],
        [{ status: 200, body: "{" }, "Refused"]
      ]
      for (const [override, expected] of rows) {
        const bench = yield* setUp()
        bench.server.overrides.refresh = [override]
        yield* keep(bench, "7", { status: "RUNNING" })
        const result = yield* watched(over(
          bench,
          Effect.flatMap(
            Recovery.credential(bench.options, { lease: lease("7"), provenance: "Managed" }),
            (credential) => credential.refresh
          )
        )).pipe(
          Effect.scoped,
          Effect.match({ onFailure: (error) => error._tag, onSuccess: ({ value }) => Redacted.value(value) })
        )
        assert.strictEqual(result, expected, JSON.stringify(override))
      }
    }).pipe(Effect.scoped))
})

describe("the port Registry", () => {
  const withRegistry = <A, E>(
    bench: Bench,
    use: (
      registry: Registry.Registry["Service"],
      credential: Credential.Credential["Service"]
    ) => Effect.Effect<A, E>,
    options: Partial<ClosedLoop.Options> = {}
  ) =>
    over(
      bench,
      Effect.gen(function*() {
        const credential = yield* Recovery.credential(bench.options, { lease: lease("7"), provenance: "Managed" })
        const registry = yield* ClosedLoop.make({ url: bench.server.url, ...options }).pipe(
          Effect.provideService(Credential.Credential, credential),
          Effect.provide(FetchHttpClient.layer)
        )
        return yield* watched(use(registry, credential))
      })
    ).pipe(Effect.scoped)

  it.live("heartbeats; one that revives keeps the new token", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      const token = yield* keep(bench, "7", { status: "RUNNING" })
      yield* withRegistry(bench, (registry, credential) =>
        Effect.gen(function*() {
          yield* registry.heartbeat(lease("7"))
          yield* registry.verify(lease("7"), { name: "7", type: "job", apiUrl: "http://job" })
          yield* credential.reject({ value: Redacted.make(token) })
          Object.assign(bench.server.loops.get("7") ?? {}, { status: "TIMED_OUT", token: undefined })
          yield* registry.heartbeat(lease("7"))
          yield* registry.heartbeat(lease("7"))
        }))
      assert.deepStrictEqual(bench.server.brief(), [
        `heartbeat ${token}`,
        `status ${token}`,
        "heartbeat key",
        `heartbeat runner-${secret}-1`
      ])
      assert.strictEqual(tokenOf(bench, "7")?.["jti"], "jti-1")
    }).pipe(Effect.scoped))

  it.live("what comes back, in the algebra; no secret that the server repeats", () =>
    Effect.gen(function*() {
      const rows: ReadonlyArray<readonly [Override, string]> = [
        [401, "AuthFailed Unauthorized"],
        [403, "AuthFailed Forbidden"],
        [404, "LeaseLost UnknownLease"],
        [410, "LeaseLost LeaseExpired"],
        [409, "Refused Conflict"],
        [429, "Transient Throttled"],
        [503, "Transient Unavailable"],
        ["break", "Transient Unreachable"],
        ["hang", "Transient TimedOut"],
        [
          { status: 400, body: JSON.stringify({ success: false, error: `bad: runner-${secret}-7` }) },
          "Refused InvalidRequest"
        ]
      ]
      for (const [override, expected] of rows) {
        const bench = yield* setUp()
        yield* keep(bench, "7", { status: "RUNNING" })
        const { overrides } = bench.server
        overrides.heartbeat = [override]
        const error = yield* Effect.flip(
          withRegistry(
            bench,
            (registry) => registry.heartbeat(lease("7")),
            override === "hang" ? { requestTimeout: "200 millis" } : {}
          )
        )
        assert.strictEqual("reason" in error ? `${error._tag} ${error.reason._tag}` : error._tag, expected)
      }
    }).pipe(Effect.scoped), 30_000)

  it.live("a managed key that the server repeats stays out of errors", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "RUNNING" }, { expiresAt: -hour })
      bench.server.overrides.heartbeat = [{ status: 400, body: JSON.stringify({ error: `no such key: ${apiKey}` }) }]
      const error = yield* Effect.flip(withRegistry(bench, (registry) => registry.heartbeat(lease("7"))))
      assert.include(error.message, "no such key: <redacted>")
    }).pipe(Effect.scoped))

  it.live("a loop that ended is a lost lease; there is nothing to register", () =>
    Effect.gen(function*() {
      const bench = yield* setUp()
      yield* keep(bench, "7", { status: "COMPLETED" })
      yield* withRegistry(bench, (registry) =>
        Effect.gen(function*() {
          const instance = { name: "7", type: "job", apiUrl: "http://job" }
          assert.strictEqual((yield* Effect.flip(registry.verify(lease("7"), instance)))._tag, "LeaseLost")
          assert.strictEqual((yield* Effect.flip(registry.register(instance))).reason._tag, "Unsupported")
          assert.strictEqual((yield* Effect.flip(registry.deregister(lease("7")))).reason._tag, "Unsupported")
        }))
    }).pipe(Effect.scoped))

  it.effect("layers", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const proofs = ClosedLoop.layerProof({ key, gatewayId, apiKey: Redacted.make(apiKey) })
      const registry = ClosedLoop.layer({ url: "http://127.0.0.1:9/ " }).pipe(
        Layer.provide(Credential.layerManaged({ name: "loop" })),
        Layer.provide([proofs, KeyValueStore.layerMemory, FetchHttpClient.layer])
      )
      const capabilities = yield* Registry.Registry.useSync(({ capabilities }) => capabilities).pipe(
        Effect.provide(registry)
      )
      assert.strictEqual(capabilities.target, "http://127.0.0.1:9")
    }))
})

it("no secret is in logs, spans, errors and reports", () => {
  assert.isAbove(output.length, 50)
  assert.deepStrictEqual(output.filter((line) => line.includes(secret)), [])
})
