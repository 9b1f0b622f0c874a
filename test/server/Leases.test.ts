import { assert, describe, it } from "@effect/vitest"
import * as table from "effect-lifeline/internal/pulseLeaseRoutes"
import * as Proof from "effect-lifeline/Proof"
import * as Api from "effect-lifeline/server/Api"
import * as Catalog from "effect-lifeline/server/Catalog"
import * as Events from "effect-lifeline/server/Events"
import * as Leases from "effect-lifeline/server/Leases"
import * as Store from "effect-lifeline/server/Store"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { codeOf, makeHolder, tokenOf } from "./leases.ts"
import { field, idOf, minimal, serve } from "./support.ts"

const leases = {}

/** For days of virtual time. */
const seldom = { leases: { reapEvery: "10 minutes" }, health: { interval: "1 day" } } as const

const start = Effect.fnUntraced(function*(options: Parameters<typeof serve>[0] = {}) {
  const registry = yield* serve({ leases, ...options })
  const holder = yield* makeHolder(registry)
  return { registry, holder }
})

const registered = Effect.fnUntraced(function*(options: Parameters<typeof serve>[0] = {}) {
  const { holder, registry } = yield* start(options)
  const reply = yield* holder.register(minimal)
  assert.strictEqual(reply.status, 201, reply.text)
  return { registry, holder, id: idOf(reply), token: tokenOf(reply) }
})

/** What is kept, and a layer over it, to start a registry a second time. */
const keep = () => {
  const kept = new Map<string, string>()
  const layer = Layer.sync(Store.Store, () =>
    Store.fromKeyValueStore(KeyValueStore.makeStringOnly({
      get: (key) => Effect.sync(() => kept.get(key)),
      set: (key, value) => Effect.sync(() => void kept.set(key, value)),
      remove: (key) => Effect.sync(() => void kept.delete(key)),
      clear: Effect.sync(() => kept.clear()),
      size: Effect.sync(() => kept.size),
      keys: Effect.sync(() => [...kept.keys()])
    })))
  return { kept, layer }
}

describe("leases that are off", () => {
  it.effect("a proof is ignored: nothing of the answers is new, and there are no routes for leases", () =>
    Effect.gen(function*() {
      const registry = yield* serve()
      const holder = yield* makeHolder(registry)
      const reply = yield* holder.register(minimal)
      assert.strictEqual(reply.status, 201)
      assert.notProperty(reply.json, "lease")
      assert.isNull(reply.headers.get("dpop-nonce"))
      const beat = yield* holder.heartbeat(idOf(reply))
      assert.deepStrictEqual([beat.status, beat.text], [204, ""])
      assert.strictEqual((yield* holder.status(idOf(reply))).status, 404)
      assert.strictEqual((yield* holder.refresh(idOf(reply), "k")).status, 404)
      const openapi = (yield* registry.call("GET", "/api/openapi.json")).text
      assert.notInclude(openapi, "lease/refresh")
    }))
})

describe("leases that are on", () => {
  it.effect("a plain client sees nothing new", () =>
    Effect.gen(function*() {
      const { registry } = yield* start()
      const plain = yield* serve()
      const [one, other] = [yield* registry.register(minimal), yield* plain.register(minimal)]
      const fields = (json: unknown) => Object.keys(json as object).sort()
      assert.deepStrictEqual(fields(one.json), fields(other.json))
      assert.deepStrictEqual([...one.headers.keys()], [...other.headers.keys()])
      const beat = yield* registry.call("PUT", `/api/v1/services/${idOf(one)}/heartbeat`)
      assert.deepStrictEqual([beat.status, beat.text], [204, ""])
      assert.strictEqual((yield* registry.call("PUT", "/api/v1/services/nobody/heartbeat")).status, 404)
    }))

  it.effect("describes the routes of leases", () =>
    Effect.gen(function*() {
      const { registry } = yield* start()
      const { json } = yield* registry.call("GET", "/api/openapi.json")
      const paths = field(json, "paths")
      assert.isNotNull(field(field(paths, "/api/v1/services/{id}/lease"), "get"))
      assert.isNotNull(field(field(paths, "/api/v1/services/{id}/lease/refresh"), "post"))
    }))

  it("are served by exactly the routes that the client uses", () => {
    const { idempotencyHeader: _header, idempotencyShape: _shape, ...routes } = table
    const served = Object.values(Api.LeasedApi.groups.leases.endpoints).map((endpoint) => [
      endpoint.identifier,
      { method: endpoint.method, path: endpoint.path }
    ])
    assert.deepStrictEqual(Object.fromEntries(served), routes)
    const endpoints = Object.values(Api.LeasedApi.groups.leases.endpoints)
    assert.isTrue(endpoints.every((endpoint) => endpoint.middlewares.has(Api.Authorization)))
  })

  it.effect("a registration with a proof gets a token that is bound to its key", () =>
    Effect.gen(function*() {
      const { holder, registry } = yield* start()
      const reply = yield* holder.register(minimal)
      assert.strictEqual(reply.status, 201)
      const lease = field(reply.json, "lease")
      assert.strictEqual(field(lease, "expires_at"), "1970-01-01T01:00:00.000Z")
      assert.strictEqual(field(lease, "stale_after"), 7200)
      assert.strictEqual(field(lease, "interval"), 1800)
      assert.isTrue(String(field(lease, "jti")).startsWith(`${idOf(reply)}.`))
      assert.isNotNull(reply.headers.get("dpop-nonce"))
      const listed = yield* registry.call("GET", "/api/v1/services")
      assert.notInclude(listed.text, "lease")
    }))

  it.effect("a heartbeat is answered with bumped, with the token, and with the proof alone", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered()
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual((yield* registry.catalog.get(id))?.status, "offline")
      const beat = yield* holder.heartbeat(id, { token })
      assert.deepStrictEqual([beat.status, beat.json], [200, { bumped: true }])
      assert.isNotNull(beat.headers.get("dpop-nonce"))
      assert.strictEqual((yield* registry.catalog.get(id))?.status, "online")
      assert.deepStrictEqual((yield* holder.heartbeat(id)).json, { bumped: true })
    }))

  it.effect("a refresh gives a new token; the same key the same answer", () =>
    Effect.gen(function*() {
      const { holder, id, token } = yield* registered()
      yield* TestClock.adjust("50 minutes")
      const [one, same] = yield* Effect.all([holder.refresh(id, "one", { token }), holder.refresh(id, "one")], {
        concurrency: 2
      })
      assert.strictEqual(one.status, 200, one.text)
      assert.strictEqual(one.text, same.text)
      assert.notStrictEqual(tokenOf(one), token)
      assert.strictEqual(field(one.json, "expiresAt"), "1970-01-01T01:50:00.000Z")
      yield* TestClock.adjust("11 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id, { token })), [401, "token_rejected"])
      assert.strictEqual((yield* holder.heartbeat(id, { token: tokenOf(one) })).status, 200)
      // A token that ran out may go along; the proof is what counts.
      const other = yield* holder.refresh(id, "other", { token })
      assert.strictEqual(other.status, 200)
      assert.notStrictEqual(tokenOf(other), tokenOf(one))
    }))

  it.effect.each(
    [["none", undefined], ["an empty one", ""], ["a long one", "k".repeat(129)], ["one with spaces", "a b"]] as const
  )("a refresh needs an idempotency key: %s", ([, key]) =>
    Effect.gen(function*() {
      const { holder, id } = yield* registered()
      const headers: Record<string, string> = key === undefined ? {} : { "idempotency-key": key }
      const reply = yield* holder.send("POST", `/api/v1/services/${id}/lease/refresh`, { headers })
      assert.deepStrictEqual(codeOf(reply), [400, "invalid_idempotency_key"])
    }))

  it.effect("the newest four tokens are good, each until it runs out", () =>
    Effect.gen(function*() {
      const { holder, id, token } = yield* registered()
      for (const key of ["1", "2", "3"]) yield* holder.refresh(id, key)
      assert.strictEqual((yield* holder.heartbeat(id, { token })).status, 200)
      yield* holder.refresh(id, "4")
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id, { token })), [401, "token_rejected"])
    }))

  it.effect("registering again with the same key leaves tokens and answers good that it gave before, with another name too", () =>
    Effect.gen(function*() {
      const { holder, id, token } = yield* registered()
      const refreshed = yield* holder.refresh(id, "k")
      const again = yield* holder.register(minimal)
      assert.strictEqual(idOf(again), id)
      assert.strictEqual((yield* holder.refresh(id, "k")).text, refreshed.text)
      const other = yield* holder.register({ ...minimal, name: "other" })
      assert.strictEqual((yield* holder.heartbeat(id, { token })).status, 200)
      assert.strictEqual((yield* holder.heartbeat(id, { token: tokenOf(again) })).status, 200)
      assert.strictEqual((yield* holder.heartbeat(idOf(other), { token: tokenOf(other) })).status, 200)
    }))

  it.effect("says how a lease is: active, to be revived, timed out for good, ended", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered(seldom)
      assert.deepStrictEqual((yield* holder.status(id, { token })).json, {
        status: "active",
        revivals: 0,
        lastHeartbeat: "1970-01-01T00:00:00.000Z"
      })
      yield* TestClock.adjust("140 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(id)), [401, "lease_timed_out"])
      yield* TestClock.adjust("8 days")
      assert.deepStrictEqual((yield* holder.status(id)).json, {
        status: "timed_out",
        revivals: 0,
        lastHeartbeat: "1970-01-01T00:00:00.000Z",
        since: "1970-01-01T02:10:00.000Z"
      })
      yield* registry.call("DELETE", `/api/v1/services/${id}`)
      assert.deepStrictEqual(codeOf(yield* holder.status(id)), [410, "lease_gone"])
    }))
})

describe("who has not got the key", () => {
  it.effect("a heartbeat without a proof, by the API key alone, is refused, and so is a bound token as a bearer token", () =>
    Effect.gen(function*() {
      const { id, registry, token } = yield* registered()
      const path = `/api/v1/services/${id}/heartbeat`
      const bare = yield* registry.call("PUT", path)
      assert.deepStrictEqual(codeOf(bare), [401, "proof_rejected"])
      assert.include(bare.headers.get("www-authenticate") ?? "", "DPoP error=\"invalid_dpop_proof\"")
      assert.isNotNull(bare.headers.get("dpop-nonce"))
      const bearer = yield* registry.call("PUT", path, { headers: { authorization: `Bearer ${token}` } })
      assert.deepStrictEqual(codeOf(bearer), [401, "proof_rejected"])
      assert.include(bearer.text, "bearer")
      const alone = yield* registry.call("PUT", path, { headers: { authorization: `DPoP ${token}` } })
      assert.deepStrictEqual(codeOf(alone), [401, "proof_rejected"])
    }))

  it.effect("a proof needs the nonce, and a nonce is sent along", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered()
      const other = yield* Proof.dpop({ key: yield* Proof.generateKey() })
      const path = `/api/v1/services/${id}/heartbeat`
      const headers = yield* other.headers({ method: "PUT", url: `http://registry.test${path}` })
      const reply = yield* registry.call("PUT", path, {
        headers: { dpop: Redacted.value(headers["dpop"] ?? Redacted.make("")) }
      })
      assert.deepStrictEqual(codeOf(reply), [401, "use_dpop_nonce"])
      assert.include(reply.headers.get("www-authenticate") ?? "", "use_dpop_nonce")
      assert.isNotNull(reply.headers.get("dpop-nonce"))
      assert.strictEqual((yield* holder.heartbeat(id, { token })).status, 200)
    }))

  it.effect("a proof that was used, that is for something else, or that is another key's is refused with its reason", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered()
      const path = `/api/v1/services/${id}/heartbeat`
      const headers = yield* holder.prove("PUT", path, { token })
      assert.strictEqual((yield* registry.call("PUT", path, { headers })).status, 200)
      const again = yield* registry.call("PUT", path, { headers })
      assert.deepStrictEqual(codeOf(again), [401, "proof_rejected"])
      assert.include(again.text, "used before")

      const cases: ReadonlyArray<readonly [Parameters<typeof holder.heartbeat>[1], string]> = [
        [{ token, proofFor: { url: `http://registry.test/api/v1/services/other/heartbeat` } }, "is not for http"],
        [{ token, proofFor: { url: `http://evil.test${path}` } }, "is not for http://registry.test"],
        [{ token, proofFor: { method: "POST" } }, "not for the method PUT"],
        [{ token, proofFor: { token: "another" } }, "another token"],
        [{ token, headers: { dpop: "a.b.c, a.b.c" } }, "more than one"],
        [{ token, headers: { dpop: "nonsense" } }, "malformed"]
      ]
      for (const [options, words] of cases) {
        const reply = yield* holder.heartbeat(id, options)
        assert.deepStrictEqual(codeOf(reply), [401, "proof_rejected"], words)
        assert.include(reply.text, words)
      }
      const thief = yield* makeHolder(registry)
      const stolen = yield* thief.heartbeat(id, { token })
      assert.deepStrictEqual(codeOf(stolen), [401, "proof_rejected"])
      assert.include(stolen.text, "bound to another key")
      for (const call of [thief.status(id, { token }), thief.refresh(id, "k", { token }), thief.heartbeat(id)]) {
        assert.deepStrictEqual(codeOf(yield* call), [401, "proof_rejected"])
      }
    }))

  it.effect("a token of another lease, of another registry, or a made-up one is rejected", () =>
    Effect.gen(function*() {
      const { holder, id, token } = yield* registered()
      const other = yield* holder.register({ ...minimal, name: "other" })
      const elsewhere = yield* registered()
      const [jti] = token.split(/\.(?=[^.]*$)/)
      const tokens = [
        tokenOf(other),
        elsewhere.token,
        "made-up",
        ".",
        `${jti}.`,
        `${jti}.${"A".repeat(43)}`,
        `${token}A`,
        `${jti}x.${token.split(".").at(-1)}`
      ]
      for (const token of tokens) {
        for (
          const call of [
            holder.heartbeat(id, { token }),
            holder.status(id, { token }),
            holder.refresh(id, "k", { token })
          ]
        ) {
          const reply = yield* call
          assert.deepStrictEqual(codeOf(reply), [401, "token_rejected"], token)
          assert.include(reply.headers.get("www-authenticate") ?? "", "DPoP error=\"invalid_token\"")
        }
      }
    }))

  it.effect("cannot register over a lease that is alive, with another key or with none; can once it has timed out", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered({ leases: { tokenLifetime: "1 day" } })
      const other = yield* makeHolder(registry)
      assert.deepStrictEqual(codeOf(yield* other.register(minimal)), [409, "lease_held"])
      assert.deepStrictEqual(codeOf(yield* registry.register(minimal)), [409, "lease_held"])
      assert.strictEqual((yield* registry.catalog.get(id))?.apiUrl, minimal.api_url)
      assert.strictEqual((yield* holder.register({ ...minimal, version: "2" })).status, 201)
      yield* TestClock.adjust("3 hours")
      assert.strictEqual(idOf(yield* other.register(minimal)), id)
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id)), [401, "proof_rejected"])
      // Nor is the other one's token of any use to who holds the lease now.
      assert.deepStrictEqual(codeOf(yield* other.refresh(id, "k", { token })), [401, "token_rejected"])
      yield* TestClock.adjust("3 hours")
      assert.strictEqual(idOf(yield* registry.register(minimal)), id)
      assert.deepStrictEqual(codeOf(yield* other.heartbeat(id)), [410, "lease_gone"])
      assert.strictEqual((yield* registry.call("PUT", `/api/v1/services/${id}/heartbeat`)).status, 204)
    }))

  it.effect("needs the API key all the same, and the API key needs the proof", () =>
    Effect.gen(function*() {
      const { holder, registry } = yield* start({ apiKey: Redacted.make("right-key") })
      const headers = { "x-api-key": "right-key" }
      const without = yield* holder.register(minimal)
      assert.strictEqual(without.status, 401)
      assert.isNull(without.headers.get("www-authenticate"))
      const reply = yield* holder.send("POST", "/api/v1/services/register", { body: minimal, headers })
      const token = tokenOf(reply)
      const id = idOf(reply)
      assert.strictEqual((yield* holder.heartbeat(id, { token })).status, 401)
      assert.strictEqual((yield* holder.heartbeat(id, { token, headers })).status, 200)
      const path = `/api/v1/services/${id}/heartbeat`
      assert.deepStrictEqual(codeOf(yield* registry.call("PUT", path, { headers })), [401, "proof_rejected"])
    }))

  it.effect("is told from where by the configured origin, never by Host", () =>
    Effect.gen(function*() {
      const { holder } = yield* start({ leases: { origin: "https://pulse.example/base/" } })
      const path = "/api/v1/services/register"
      const by = (url: string, host: string) =>
        holder.send("POST", path, { body: minimal, headers: { host }, proofFor: { url } })
      assert.deepStrictEqual(codeOf(yield* by(`https://evil.test${path}`, "evil.test")), [401, "proof_rejected"])
      assert.deepStrictEqual(codeOf(yield* by(`http://registry.test${path}`, "registry.test")), [401, "proof_rejected"])
      assert.deepStrictEqual(codeOf(yield* by(`https://pulse.example${path}`, "x")), [401, "proof_rejected"])
      assert.strictEqual((yield* by(`https://pulse.example/base${path}`, "evil.test")).status, 201)
    }))

  it.effect("an origin that is none is found out at the start", () =>
    Effect.gen(function*() {
      for (const origin of ["pulse.example", "ftp://pulse.example", "https://pulse.example/?a=1"]) {
        const exit = yield* Effect.exit(serve({ leases: { origin } }))
        assert.strictEqual(exit._tag, "Failure")
      }
    }))

  it.effect("pages of other origins can read nonce and challenge, and send what is needed", () =>
    Effect.gen(function*() {
      const app = "https://app.example"
      const { registry } = yield* start({ allowedOrigins: [app] })
      const preflight = yield* registry.call("OPTIONS", "/api/v1/services/register", {
        headers: {
          origin: app,
          "access-control-request-method": "POST",
          "access-control-request-headers": "dpop,authorization,idempotency-key"
        }
      })
      for (const name of ["dpop", "authorization", "idempotency-key"]) {
        assert.include(preflight.headers.get("access-control-allow-headers") ?? "", name)
      }
      const reply = yield* registry.call("GET", "/api/v1/services", { headers: { origin: app } })
      const exposed = reply.headers.get("access-control-expose-headers") ?? ""
      assert.include(exposed, "DPoP-Nonce")
      assert.include(exposed, "WWW-Authenticate")
    }))

  it.effect("cannot fill what is remembered of proofs: more than fit are asked to come later", () =>
    Effect.gen(function*() {
      const { holder, id } = yield* registered({ leases: { replays: 3 } })
      yield* holder.heartbeat(id)
      yield* holder.heartbeat(id)
      const reply = yield* holder.heartbeat(id)
      assert.deepStrictEqual(codeOf(reply), [503, "try_later"])
      assert.isNotNull(reply.headers.get("retry-after"))
      // Once none of them could be used again there is room.
      yield* TestClock.adjust("11 minutes")
      assert.strictEqual((yield* holder.heartbeat(id)).status, 200)
    }))
})

describe("the reaper", () => {
  it.effect("times out what was not beaten for two hours, and nothing else; tells it once", () =>
    Effect.gen(function*() {
      const { holder, id, registry, token } = yield* registered()
      const after = yield* registry.events.position
      const other = yield* holder.register({ ...minimal, name: "other" })
      yield* TestClock.adjust("1 hour")
      yield* holder.heartbeat(idOf(other))
      yield* TestClock.adjust("60 minutes")
      assert.strictEqual((yield* holder.status(id)).status, 200)
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(id)), [401, "lease_timed_out"])
      assert.strictEqual((yield* holder.status(idOf(other))).status, 200)
      assert.deepStrictEqual(codeOf(yield* holder.refresh(id, "k", { token })), [401, "lease_timed_out"])
      const messages = yield* registry.events.subscribe({ after }).pipe(
        Stream.filter((message) => message._tag === "Event"),
        Stream.map(({ event }) => event),
        Stream.filter(({ type }) => type.startsWith("lease_")),
        Stream.take(1),
        Stream.runCollect
      )
      assert.deepStrictEqual(messages[0], {
        type: "lease_timed_out",
        timestamp: "1970-01-01T02:01:00.000Z",
        service_id: id,
        data: { name: "haul", type: "app", thumbprint: holder.thumbprint, reason: "stale" }
      })
    }))

  it.effect("forgets what ended when nothing could bring it back any more", () =>
    Effect.gen(function*() {
      const store = keep()
      const { holder, id, registry } = yield* registered({ ...seldom, store: store.layer })
      yield* registry.call("DELETE", `/api/v1/services/${id}`)
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id)), [410, "lease_gone"])
      yield* TestClock.adjust("8 days")
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id)), [404, "lease_unknown"])
      assert.deepStrictEqual([...store.kept.keys()], ["registry/LeaseSecret/shared"])
    }))
})

describe("revival", () => {
  const asleep = Effect.fnUntraced(function*(options: Parameters<typeof serve>[0] = {}) {
    const started = yield* registered(options)
    yield* TestClock.adjust(options === seldom ? "140 minutes" : "123 minutes")
    return started
  })

  it.effect.each(
    [["a token that has run out", true], ["the proof alone", false]] as const
  )(
    "by the heartbeat, with %s: a token that is good, an event, a line in the log",
    ([, withToken]) =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const { holder, id, registry, token } = yield* asleep()
        const after = yield* registry.events.position
        const reply = yield* holder.heartbeat(id, withToken ? { token } : {}).pipe(
          Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))]))
        )
        assert.strictEqual(reply.status, 200, reply.text)
        const fresh = tokenOf(reply)
        const jti = field(reply.json, "jti")
        assert.deepStrictEqual(reply.json, {
          bumped: true,
          revived: true,
          token: fresh,
          expiresAt: "1970-01-01T03:03:00.000Z",
          jti
        })
        assert.deepStrictEqual((yield* holder.heartbeat(id, { token: fresh })).json, { bumped: true })
        assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id, { token })), [401, "token_rejected"])
        assert.strictEqual((yield* registry.catalog.get(id))?.status, "online")
        const events = yield* registry.events.subscribe({ after }).pipe(
          Stream.filter((message) => message._tag === "Event"),
          Stream.map(({ event }) => event),
          Stream.take(2),
          Stream.runCollect
        )
        assert.deepStrictEqual(events.map(({ type }) => type), ["service_online", "lease_revived"])
        assert.deepStrictEqual(events[1]?.data, {
          name: "haul",
          type: "app",
          thumbprint: holder.thumbprint,
          jti,
          revivals: 1
        })
      })
  )

  it.effect("a token that had not run out when it was revoked does it too", () =>
    Effect.gen(function*() {
      const { holder, id, token } = yield* registered({ leases: { tokenLifetime: "1 day" } })
      yield* TestClock.adjust("123 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(id, { token })), [401, "lease_timed_out"])
      assert.strictEqual(field((yield* holder.heartbeat(id, { token })).json, "revived"), true)
      // It stays revoked.
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(id, { token })), [401, "token_rejected"])
    }))

  it.effect("counts as a heartbeat: the lease is alive for as long as after any other", () =>
    Effect.gen(function*() {
      const { holder, id } = yield* asleep()
      assert.strictEqual(field((yield* holder.heartbeat(id)).json, "revived"), true)
      yield* TestClock.adjust("119 minutes")
      assert.strictEqual(field((yield* holder.status(id)).json, "status"), "active")
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(id)), [401, "lease_timed_out"])
    }))

  it.effect("the same idempotency key has the same answer, and revives once", () =>
    Effect.gen(function*() {
      const { holder, id } = yield* asleep()
      const headers = { "idempotency-key": "one" }
      const one = yield* holder.heartbeat(id, { headers })
      const same = yield* holder.heartbeat(id, { headers })
      assert.strictEqual(field(one.json, "revived"), true)
      assert.strictEqual(one.text, same.text)
      assert.strictEqual(field((yield* holder.status(id)).json, "revivals"), 1)
    }))

  it.effect("of many at once, one revives; the others see a lease that is alive", () =>
    Effect.gen(function*() {
      const { holder, id } = yield* asleep()
      yield* holder.status(id)
      const replies = yield* Effect.all(Array.from({ length: 20 }, () => holder.heartbeat(id)), {
        concurrency: "unbounded"
      })
      const revived = replies.filter(({ json }) => field(json, "revived") === true)
      assert.lengthOf(revived, 1)
      for (const reply of replies) {
        if (reply !== revived[0]) assert.deepStrictEqual([reply.status, reply.json], [200, { bumped: true }])
      }
      assert.strictEqual(field((yield* holder.status(id)).json, "revivals"), 1)
    }))

  it.effect("one that loses the race while its token is made changes nothing", () =>
    Effect.gen(function*() {
      // The store holds the first write of a revival until both requests are on their way.
      const memory = keep()
      const both = yield* Deferred.make<void>()
      let held = false
      const store = Layer.effect(
        Store.Store,
        Effect.map(Store.Store, (inner) =>
          Store.Store.of({
            ...inner,
            save: (document) =>
              held && document._tag === "Lease"
                ? Effect.andThen(Deferred.await(both), inner.save(document))
                : inner.save(document)
          }))
      ).pipe(Layer.provide(memory.layer))
      const { holder, id } = yield* asleep({ store })
      yield* holder.status(id)
      held = true
      const replies = yield* Effect.all([
        holder.heartbeat(id),
        holder.heartbeat(id),
        Effect.andThen(Effect.yieldNow, Deferred.succeed(both, undefined))
      ], { concurrency: "unbounded" })
      const beats = [replies[0], replies[1]].map(({ json }) => field(json, "revived"))
      assert.deepStrictEqual(beats.filter((revived) => revived === true).length, 1)
      const lease = JSON.parse(memory.kept.get(`registry/Lease/${id}`) ?? "{}").document
      assert.strictEqual(lease.revivals, 1)
      assert.lengthOf(lease.tokens, 1)
    }))

  it.effect("guards, in order", () =>
    Effect.gen(function*() {
      // It exists.
      const { holder, registry } = yield* start(seldom)
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat("nobody")), [404, "lease_unknown"])
      const plain = yield* registry.register({ ...minimal, name: "plain" })
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(idOf(plain))), [404, "lease_unknown"])

      // It timed out, and did not end otherwise.
      const ended = yield* asleep(seldom)
      yield* ended.registry.call("DELETE", `/api/v1/services/${ended.id}`)
      assert.deepStrictEqual(codeOf(yield* ended.holder.heartbeat(ended.id)), [410, "lease_gone"])

      // Within the grace.
      const late = yield* asleep(seldom)
      yield* TestClock.adjust("7 days")
      const over = yield* late.holder.heartbeat(late.id)
      assert.deepStrictEqual(codeOf(over), [410, "revival_refused"])
      assert.strictEqual(field(over.json, "reason"), "grace_over")

      // Not too often.
      const often = yield* asleep(seldom)
      for (const revivals of [1, 2, 3]) {
        assert.strictEqual(field((yield* often.holder.heartbeat(often.id)).json, "revived"), true)
        assert.strictEqual(field((yield* often.holder.status(often.id)).json, "revivals"), revivals)
        yield* TestClock.adjust("140 minutes")
      }
      const tooMany = yield* often.holder.heartbeat(often.id)
      assert.deepStrictEqual(codeOf(tooMany), [410, "revival_refused"])
      assert.strictEqual(field(tooMany.json, "reason"), "too_many_revivals")
      assert.strictEqual(field((yield* often.holder.status(often.id)).json, "status"), "timed_out")
      // The grace comes before the number.
      yield* TestClock.adjust("7 days")
      assert.strictEqual(field((yield* often.holder.heartbeat(often.id)).json, "reason"), "grace_over")
    }))

  it.effect("a lease that an operator timed out stays so, whatever else is right", () =>
    Effect.gen(function*() {
      const store = yield* Layer.build(Store.layerMemory)
      const { holder, id, registry } = yield* registered({ store: Layer.succeedContext(store) })
      assert.isDefined(registry)
      const lease = yield* Store.Store.use(({ load }) => load).pipe(
        Effect.provideContext(store),
        Effect.map((documents) => documents.find((document) => document._tag === "Lease"))
      )
      assert.strictEqual(lease?.id, id)
      if (lease === undefined) return
      // As another start of the registry finds it.
      yield* Store.Store.use(({ save }) => save({ ...lease, state: "timed_out", reason: "operator", tokens: [] })).pipe(
        Effect.provideContext(store)
      )
      const again = yield* serve({ leases, store: Layer.succeedContext(store) })
      const same = yield* makeHolder({ call: again.call }, holder.key)
      const reply = yield* same.heartbeat(id)
      assert.deepStrictEqual(codeOf(reply), [410, "revival_refused"])
      assert.strictEqual(field(reply.json, "reason"), "not_stale")
    }))

  it.effect("a store that fails: try later, and nothing was changed", () =>
    Effect.gen(function*() {
      const memory = keep()
      let broken = false
      const store = Layer.effect(
        Store.Store,
        Effect.map(Store.Store, (inner) =>
          Store.Store.of({
            ...inner,
            save: (document) =>
              broken
                ? Effect.fail(new Store.StoreError({ operation: "save", key: document._tag }))
                : inner.save(document)
          }))
      ).pipe(Layer.provide(memory.layer))
      const { holder, id } = yield* asleep({ store })
      broken = true
      const reply = yield* holder.heartbeat(id).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
      assert.deepStrictEqual(codeOf(reply), [503, "try_later"])
      assert.isNotNull(reply.headers.get("retry-after"))
      broken = false
      assert.strictEqual(field((yield* holder.heartbeat(id)).json, "revived"), true)
      assert.strictEqual(field((yield* holder.status(id)).json, "revivals"), 1)
    }))
})

describe("a restart", () => {
  it.effect("keeps leases, tokens and answers; staleness counts from it", () =>
    Effect.gen(function*() {
      const store = keep()
      const before = yield* registered({ store: store.layer })
      const refreshed = yield* before.holder.refresh(before.id, "k")
      yield* TestClock.adjust("50 minutes")
      const registry = yield* serve({ leases, store: store.layer })
      const holder = yield* makeHolder(registry, before.holder.key)
      assert.strictEqual((yield* holder.heartbeat(before.id, { token: before.token })).status, 200)
      assert.strictEqual((yield* holder.refresh(before.id, "k")).text, refreshed.text)
      yield* TestClock.adjust("119 minutes")
      assert.strictEqual((yield* holder.status(before.id)).status, 200)
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(before.id)), [401, "lease_timed_out"])
    }))

  it.effect("times out nobody for not having beaten a registry that was away", () =>
    Effect.gen(function*() {
      const store = keep()
      const before = yield* Effect.scoped(registered({ store: store.layer }))
      yield* TestClock.adjust("5 hours")
      const registry = yield* serve({ leases, store: store.layer })
      const holder = yield* makeHolder(registry, before.holder.key)
      yield* TestClock.adjust("119 minutes")
      assert.strictEqual((yield* holder.status(before.id)).status, 200)
      yield* TestClock.adjust("3 minutes")
      assert.deepStrictEqual(codeOf(yield* holder.status(before.id)), [401, "lease_timed_out"])
    }))

  it.effect("a store without leases, as an older registry wrote it, is a registry of plain services", () =>
    Effect.gen(function*() {
      const store = keep()
      const old = yield* serve({ store: store.layer })
      const id = idOf(yield* old.register(minimal))
      const { registry } = yield* start({ store: store.layer })
      assert.strictEqual((yield* registry.call("PUT", `/api/v1/services/${id}/heartbeat`)).status, 204)
      // And the other way round.
      const { holder } = yield* start({ store: store.layer })
      yield* holder.register({ ...minimal, name: "leased" })
      const off = yield* serve({ store: store.layer })
      assert.strictEqual((yield* off.call("GET", "/api/v1/services")).status, 200)
    }))

  it.effect("the store has no token, and nothing of the signing secret but itself", () =>
    Effect.gen(function*() {
      const store = keep()
      const { holder, id, token } = yield* registered({ store: store.layer })
      const refreshed = yield* holder.refresh(id, "k")
      const kept = [...store.kept.values()].join("\n")
      assert.notInclude(kept, token)
      assert.notInclude(kept, tokenOf(refreshed))
    }))

  it.effect("a secret that was lost rejects the tokens, and not the keys", () =>
    Effect.gen(function*() {
      const store = keep()
      const before = yield* registered({ store: store.layer })
      store.kept.delete("registry/LeaseSecret/shared")
      const registry = yield* serve({ leases, store: store.layer })
      const holder = yield* makeHolder(registry, before.holder.key)
      assert.deepStrictEqual(codeOf(yield* holder.heartbeat(before.id, { token: before.token })), [
        401,
        "token_rejected"
      ])
      const refreshed = yield* holder.refresh(before.id, "k")
      assert.strictEqual((yield* holder.heartbeat(before.id, { token: tokenOf(refreshed) })).status, 200)
    }))
})

describe("Leases", () => {
  const layer = Layer.provideMerge(
    Leases.layer(),
    Layer.provideMerge(Catalog.layer, Layer.mergeAll(Store.layerMemory, Events.layer()))
  ).pipe(Layer.provide(SecureRandom.layerWebCrypto))
  const registration = { name: "haul", type: "app", apiUrl: "http://haul:8484" }
  const presented = { thumbprint: "of some key" }

  it.effect("an operator may time a lease out for good", () =>
    Effect.gen(function*() {
      const leases = yield* Leases.Leases
      const { service } = yield* leases.register(registration, presented.thumbprint)
      assert.isTrue(yield* leases.timeOut(service.id))
      assert.isFalse(yield* leases.timeOut(service.id))
      assert.isFalse(yield* leases.timeOut("nobody"))
      const error = yield* Effect.flip(leases.heartbeat(service.id, presented))
      assert.deepInclude(error, { _tag: "LeaseRefused", code: "revival_refused", reason: "not_stale" })
      assert.strictEqual((yield* leases.status(service.id, presented)).state, "timed_out")
      assert.isDefined((yield* leases.register(registration, presented.thumbprint)).token)
      assert.isUndefined(yield* leases.heartbeat(service.id, presented))
    }).pipe(Effect.provide(layer)))

  it.effect("a service that the program itself removed takes its lease along", () =>
    Effect.gen(function*() {
      const leases = yield* Leases.Leases
      const catalog = yield* Catalog.Catalog
      const { service } = yield* leases.register(registration, presented.thumbprint)
      yield* catalog.deregister(service.id)
      const error = yield* Effect.flip(leases.heartbeat(service.id, presented))
      assert.deepInclude(error, { _tag: "LeaseRefused", code: "lease_gone" })
      assert.strictEqual((yield* leases.get(service.id))?.state, "ended")
      // Its name is free, for another key too.
      const other = yield* leases.register(registration, "of another key")
      assert.notStrictEqual(other.service.id, service.id)
    }).pipe(Effect.provide(layer)))

  it("says of each code what to do, without anything of a request", () => {
    const codes: ReadonlyArray<Leases.LeaseRefused["code"]> = [
      "lease_unknown",
      "lease_gone",
      "lease_held",
      "lease_timed_out",
      "token_rejected",
      "revival_refused"
    ]
    for (const code of codes) assert.isAbove(new Leases.LeaseRefused({ code }).message.length, 20)
  })
})
