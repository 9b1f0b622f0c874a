import { assert, describe, it } from "@effect/vitest"
import * as table from "effect-lifeline/internal/pulseRoutes"
import * as Store from "effect-lifeline/server/Store"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { field, idOf, list, makeRequest, minimal, names, origin, serve } from "./support.ts"

const downloadClient = {
  name: "haul",
  type: "download-client",
  api_url: "http://haul:8484/base",
  api_key: "haul-secret",
  capabilities: ["supports_torrent"]
}

describe("registering", () => {
  it.effect("answers 201 with every field the protocol has", () =>
    Effect.gen(function*() {
      const { register } = yield* serve()
      yield* TestClock.adjust("1500 millis")
      const reply = yield* register({
        ...minimal,
        api_key: "own",
        health_url: "http://haul:8484/health",
        version: "1.2.3",
        capabilities: ["a", "b", "a"],
        metadata: "{\"region\":\"eu\"}"
      })
      assert.strictEqual(reply.status, 201)
      assert.match(idOf(reply), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.deepStrictEqual(reply.json, {
        id: idOf(reply),
        name: "haul",
        type: "app",
        api_url: "http://haul:8484",
        api_key: "own",
        health_url: "http://haul:8484/health",
        version: "1.2.3",
        status: "online",
        last_seen: "1970-01-01T00:00:01.500Z",
        registered: "1970-01-01T00:00:01.500Z",
        capabilities: ["a", "b"],
        metadata: "{\"region\":\"eu\"}"
      })
    }))

  it.effect("takes what the Go SDK sends: null and empty text mean not given", () =>
    Effect.gen(function*() {
      const { register } = yield* serve()
      const reply = yield* register({
        ...minimal,
        health_url: "",
        version: "",
        capabilities: null,
        api_key: "",
        metadata: "",
        unknown_field: 1
      })
      assert.strictEqual(reply.status, 201)
      assert.deepStrictEqual(field(reply.json, "capabilities"), [])
      assert.strictEqual(field(reply.json, "metadata"), "{}")
      assert.strictEqual(field(reply.json, "health_url"), "")
      assert.notProperty(reply.json, "api_key")
    }))

  it.effect("is an upsert by name and type: same id, capabilities replaced, first registration's time kept", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      const first = yield* register({ ...minimal, capabilities: ["a", "b"], version: "1" })
      yield* TestClock.adjust("1 minute")
      const second = yield* register({ ...minimal, api_url: "http://haul:9999", capabilities: ["c"] })
      assert.strictEqual(second.status, 201)
      assert.strictEqual(idOf(second), idOf(first))
      assert.strictEqual(field(second.json, "api_url"), "http://haul:9999")
      assert.deepStrictEqual(field(second.json, "capabilities"), ["c"])
      assert.strictEqual(field(second.json, "version"), "")
      assert.strictEqual(field(second.json, "registered"), field(first.json, "registered"))
      assert.notStrictEqual(field(second.json, "last_seen"), field(first.json, "last_seen"))
      assert.strictEqual(list((yield* call("GET", "/api/v1/services")).json).length, 1)
    }))

  it.effect("takes another type, or another name, as another service", () =>
    Effect.gen(function*() {
      const { register } = yield* serve()
      const ids = yield* Effect.forEach(
        [minimal, { ...minimal, type: "other" }, { ...minimal, name: "other" }],
        (body) => Effect.map(register(body), idOf)
      )
      assert.strictEqual(new Set(ids).size, 3)
    }))

  it.effect("tells with service_registered whether it was created or updated", () =>
    Effect.gen(function*() {
      const { events, register } = yield* serve()
      const after = yield* events.position
      const id = idOf(yield* register(minimal))
      yield* register(minimal)
      const messages = yield* events.subscribe({ after }).pipe(Stream.drop(1), Stream.take(2), Stream.runCollect)
      assert.deepStrictEqual(
        messages.map((message) => message._tag === "Event" ? message.event : undefined),
        ["created", "updated"].map((action) => ({
          type: "service_registered",
          timestamp: "1970-01-01T00:00:00.000Z",
          service_id: id,
          data: { name: "haul", type: "app", action }
        }))
      )
    }))

  it.effect("registers one identity once, however many ask at the same time", () =>
    Effect.gen(function*() {
      const { call, events, register } = yield* serve()
      const after = yield* events.position
      const replies = yield* Effect.forEach(
        Array.from({ length: 50 }, (_, n) => n),
        (n) => register({ ...minimal, version: String(n) }),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(replies.map(idOf)).size, 1)
      assert.strictEqual(list((yield* call("GET", "/api/v1/services")).json).length, 1)
      const messages = yield* events.subscribe({ after }).pipe(Stream.drop(1), Stream.take(50), Stream.runCollect)
      const actions = messages.map((message) => message._tag === "Event" ? message.event.data?.["action"] : undefined)
      assert.deepStrictEqual(actions, ["created", ...Array.from({ length: 49 }, () => "updated")])
    }))

  it.effect("brings a service that was offline back online", () =>
    Effect.gen(function*() {
      const { catalog, events, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      const service = yield* catalog.get(id)
      assert.isDefined(service)
      if (service !== undefined) yield* catalog.report(service, "offline")
      const after = yield* events.position
      assert.strictEqual(field((yield* register(minimal)).json, "status"), "online")
      const messages = yield* events.subscribe({ after }).pipe(Stream.drop(1), Stream.take(2), Stream.runCollect)
      assert.deepStrictEqual(
        messages.map((message) => message._tag === "Event" ? message.event.type : message._tag),
        ["service_registered", "service_online"]
      )
    }))
})

describe("download-client sync", () => {
  it.effect("makes a download client of the same name", () =>
    Effect.gen(function*() {
      const { call, catalog, register } = yield* serve()
      yield* register(downloadClient)
      const listed = yield* call("GET", "/api/v1/download-clients")
      assert.strictEqual(listed.status, 200)
      assert.deepStrictEqual(list(listed.json), [{
        id: field(list(listed.json)[0] ?? null, "id"),
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
        settings: "{\"pulse\":true}"
      }])
      const [own] = yield* catalog.downloadClients
      assert.strictEqual(own?.password === undefined ? undefined : Redacted.value(own.password), "haul-secret")
    }))

  it.effect("is usenet with the capability supports_usenet", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      yield* register({ ...downloadClient, capabilities: ["supports_torrent", "supports_usenet"] })
      const listed = yield* call("GET", "/api/v1/download-clients")
      assert.strictEqual(field(list(listed.json)[0] ?? null, "protocol"), "usenet")
    }))

  it.effect("never lists the password", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      yield* register(downloadClient)
      const listed = yield* call("GET", "/api/v1/download-clients")
      assert.notInclude(listed.text, "haul-secret")
      assert.notInclude(listed.text, "password")
    }))

  it.effect("updates host, port and password, and keeps what an operator set", () =>
    Effect.gen(function*() {
      const { call, catalog, register } = yield* serve()
      yield* register(downloadClient)
      const before = (yield* catalog.downloadClients)[0]
      assert.isDefined(before)
      yield* catalog.updateDownloadClient(before?.id ?? "", { enabled: false, priority: 7 })
      yield* register({ ...downloadClient, api_url: "https://moved.test", api_key: "new-secret" })
      const listed = list((yield* call("GET", "/api/v1/download-clients")).json)
      assert.strictEqual(listed.length, 1)
      const now = listed[0] ?? null
      assert.deepStrictEqual(
        ["id", "host", "port", "use_ssl", "enabled", "priority"].map((key) => field(now, key)),
        [before?.id ?? null, "moved.test", 443, true, false, 7]
      )
      const password = (yield* catalog.downloadClients)[0]?.password
      assert.strictEqual(password === undefined ? undefined : Redacted.value(password), "new-secret")
    }))

  it.effect("keeps an operator's settings even when the service was deregistered in between", () =>
    Effect.gen(function*() {
      const { call, catalog, register } = yield* serve()
      const id = idOf(yield* register(downloadClient))
      const known = (yield* catalog.downloadClients)[0]?.id ?? ""
      yield* catalog.updateDownloadClient(known, { priority: 3 })
      yield* call("DELETE", `/api/v1/services/${id}`)
      yield* register(downloadClient)
      const all = yield* catalog.downloadClients
      assert.deepStrictEqual(all.map((client) => [client.id, client.priority]), [[known, 3]])
    }))

  it.effect.each<[string, string, number, boolean]>([
    ["http://host:81", "host", 81, false],
    ["http://host", "host", 80, false],
    ["https://host", "host", 443, true],
    ["host:8080", "host", 8080, false],
    ["http://[::1]:9", "::1", 9, false]
  ])("reads host and port of %s", ([apiUrl, host, port, useSsl]) =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      yield* register({ ...downloadClient, api_url: apiUrl })
      const client = list((yield* call("GET", "/api/v1/download-clients")).json)[0] ?? null
      assert.deepStrictEqual(["host", "port", "use_ssl"].map((key) => field(client, key)), [host, port, useSsl])
    }))

  it.effect("registers a service whose api_url has no host, and lists no download client for it", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      assert.strictEqual((yield* register({ ...downloadClient, api_url: "///" })).status, 201)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/download-clients")).json, [])
    }))

  it.effect("makes none of services of other types", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      yield* register(minimal)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/download-clients")).json, [])
    }))
})

describe("heartbeat", () => {
  it.effect("answers 204, sets last_seen and the status online", () =>
    Effect.gen(function*() {
      const { call, catalog, events, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      const service = yield* catalog.get(id)
      if (service !== undefined) yield* catalog.report(service, "offline")
      const after = yield* events.position
      yield* TestClock.adjust("42 seconds")
      const reply = yield* call("PUT", `/api/v1/services/${id}/heartbeat`)
      assert.deepStrictEqual([reply.status, reply.text], [204, ""])
      const now = yield* call("GET", `/api/v1/services/${id}`)
      assert.deepStrictEqual(
        [field(now.json, "status"), field(now.json, "last_seen")],
        ["online", "1970-01-01T00:00:42.000Z"]
      )
      const messages = yield* events.subscribe({ after }).pipe(Stream.drop(1), Stream.take(1), Stream.runCollect)
      assert.deepStrictEqual(messages.map((message) => message._tag === "Event" ? message.event : undefined), [{
        type: "service_online",
        timestamp: "1970-01-01T00:00:42.000Z",
        service_id: id,
        data: { name: "haul", old_status: "offline", new_status: "online" }
      }])
    }))

  it.effect("of a service that is online tells nobody", () =>
    Effect.gen(function*() {
      const { call, events, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      const after = yield* events.position
      yield* call("PUT", `/api/v1/services/${id}/heartbeat`)
      assert.strictEqual(yield* events.position, after)
    }))

  it.effect("of an unknown id is 404", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      const reply = yield* call("PUT", "/api/v1/services/nobody/heartbeat")
      assert.strictEqual(reply.status, 404)
      assert.strictEqual(reply.headers.get("content-type"), "application/problem+json")
      assert.strictEqual(field(reply.json, "status"), 404)
    }))

  it.effect("of an unknown id is 204 where the reference server is imitated", () =>
    Effect.gen(function*() {
      const { call } = yield* serve({ heartbeatUnknown: 204 })
      assert.strictEqual((yield* call("PUT", "/api/v1/services/nobody/heartbeat")).status, 204)
      assert.strictEqual((yield* call("GET", "/api/v1/services/nobody")).status, 404)
    }))
})

describe("deregistering", () => {
  it.effect("answers 204, tells so, and the service is gone", () =>
    Effect.gen(function*() {
      const { call, events, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      const after = yield* events.position
      assert.strictEqual((yield* call("DELETE", `/api/v1/services/${id}`)).status, 204)
      assert.strictEqual((yield* call("GET", `/api/v1/services/${id}`)).status, 404)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/services")).json, [])
      assert.strictEqual((yield* call("DELETE", `/api/v1/services/${id}`)).status, 404)
      const messages = yield* events.subscribe({ after }).pipe(Stream.drop(1), Stream.take(1), Stream.runCollect)
      assert.deepStrictEqual(messages.map((message) => message._tag === "Event" ? message.event : undefined), [{
        type: "service_deregistered",
        timestamp: "1970-01-01T00:00:00.000Z",
        service_id: id,
        data: { name: "haul", type: "app" }
      }])
    }))

  it.effect("of an unknown id is 404", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      assert.strictEqual((yield* call("DELETE", "/api/v1/services/nobody")).status, 404)
    }))

  it.effect("forgets the identity: registering again gives a new id", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      yield* call("DELETE", `/api/v1/services/${id}`)
      assert.notStrictEqual(idOf(yield* register(minimal)), id)
    }))
})

describe("reading", () => {
  const seeded = Effect.fnUntraced(function*() {
    const registry = yield* serve()
    yield* registry.register({ name: "zoo", type: "app", api_url: "http://z", capabilities: ["one"] })
    yield* registry.register({ name: "ant", type: "web", api_url: "http://a", capabilities: ["one", "two"] })
    yield* registry.register({ name: "bee", type: "app", api_url: "http://b" })
    return registry
  })

  it.effect("lists services by type, then name", () =>
    Effect.gen(function*() {
      const { call } = yield* seeded()
      assert.deepStrictEqual(names(yield* call("GET", "/api/v1/services")), ["bee", "zoo", "ant"])
    }))

  it.effect("reads one service as it was registered", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      const registered = yield* register({ ...minimal, api_key: "shared" })
      const reply = yield* call("GET", `/api/v1/services/${idOf(registered)}`)
      assert.strictEqual(reply.status, 200)
      assert.deepStrictEqual(reply.json, registered.json)
      assert.strictEqual((yield* call("GET", "/api/v1/services/nobody")).status, 404)
    }))

  it.effect.each<[string, ReadonlyArray<string>]>([
    ["", ["bee", "zoo", "ant"]],
    ["?type=app", ["bee", "zoo"]],
    ["?type=nothing", []],
    ["?capability=one", ["zoo", "ant"]],
    ["?capability=two&type=app", ["ant"]],
    ["?capability=&type=web", ["ant"]],
    ["?type=&capability=", ["bee", "zoo", "ant"]]
  ])("discovers %s", ([query, expected]) =>
    Effect.gen(function*() {
      const { call } = yield* seeded()
      const reply = yield* call("GET", `/api/v1/services/discover${query}`)
      assert.strictEqual(reply.status, 200)
      assert.deepStrictEqual(names(reply), expected)
    }))

  it.effect("says which part of a query does not fit", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      const reply = yield* call("GET", "/api/v1/services/discover?type=a&type=b")
      assert.strictEqual(reply.status, 422)
      assert.deepStrictEqual(list(field(reply.json, "errors")).map((error) => field(error, "location")), ["query.type"])
    }))

  it.effect("has no indexers and profiles, and the reference's shared settings, when the store has none", () =>
    Effect.gen(function*() {
      const { call, register } = yield* serve()
      const id = idOf(yield* register(minimal))
      assert.deepStrictEqual((yield* call("GET", `/api/v1/services/${id}/indexers`)).json, [])
      assert.strictEqual((yield* call("GET", "/api/v1/services/nobody/indexers")).status, 404)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/quality-profiles")).json, [])
      assert.deepStrictEqual((yield* call("GET", "/api/v1/shared-settings")).json, {
        colon_replacement: "space-dash",
        import_extra_files: false,
        extra_file_extensions: "srt,nfo",
        rename_files: true,
        updated_at: "1970-01-01T00:00:00.000Z"
      })
    }))

  it.effect("serves indexers, profiles and settings of the store", () =>
    Effect.gen(function*() {
      const at = "2026-01-01T00:00:00Z"
      const service: Store.Service = {
        _tag: "Service",
        id: "s1",
        name: "a",
        type: "b",
        apiUrl: "http://a",
        capabilities: [],
        metadata: "{}",
        status: "online",
        lastSeen: 0,
        registeredAt: 0
      }
      const indexer: Store.Indexer = {
        _tag: "Indexer",
        id: "i1",
        name: "tracker",
        kind: "torznab",
        enabled: true,
        priority: 25,
        url: "http://tracker",
        settings: "{}",
        createdAt: at,
        updatedAt: at,
        assignedTo: ["s1"]
      }
      const documents: ReadonlyArray<Store.Document> = [
        service,
        indexer,
        { ...indexer, id: "i2", assignedTo: ["s2"] },
        {
          _tag: "QualityProfile",
          id: "q1",
          name: "HD",
          cutoffJson: "{}",
          qualitiesJson: "[]",
          upgradeAllowed: true,
          minCustomFormatScore: 0,
          upgradeUntilCfScore: 10,
          createdAt: at,
          updatedAt: at
        },
        {
          _tag: "SharedSettings",
          id: "shared",
          colonReplacement: "dash",
          importExtraFiles: true,
          extraFileExtensions: "srt",
          renameFiles: false,
          updatedAt: at
        }
      ]
      const store = Layer.effectDiscard(
        Store.Store.use((store) => Effect.forEach(documents, store.save, { discard: true }))
      ).pipe(Layer.provideMerge(Store.layerMemory))
      const { call } = yield* serve({ store })
      assert.deepStrictEqual((yield* call("GET", "/api/v1/services/s1/indexers")).json, [{
        id: "i1",
        name: "tracker",
        kind: "torznab",
        enabled: true,
        priority: 25,
        url: "http://tracker",
        settings: "{}",
        created_at: at,
        updated_at: at
      }])
      assert.deepStrictEqual((yield* call("GET", "/api/v1/quality-profiles")).json, [{
        id: "q1",
        name: "HD",
        cutoff_json: "{}",
        qualities_json: "[]",
        upgrade_allowed: true,
        min_custom_format_score: 0,
        upgrade_until_cf_score: 10,
        created_at: at,
        updated_at: at
      }])
      assert.deepStrictEqual((yield* call("GET", "/api/v1/shared-settings")).json, {
        colon_replacement: "dash",
        import_extra_files: true,
        extra_file_extensions: "srt",
        rename_files: false,
        updated_at: at
      })
    }))

  it.effect("says that it is up, and keeps answers out of caches", () =>
    Effect.gen(function*() {
      const { call } = yield* serve({ apiKey: Redacted.make("k") })
      const reply = yield* call("GET", "/health")
      assert.deepStrictEqual([reply.status, reply.text], [200, "{\"status\":\"ok\"}"])
      assert.strictEqual(reply.headers.get("cache-control"), "no-store")
      assert.strictEqual((yield* call("HEAD", "/health")).status, 200)
    }))

  it.effect("answers 404 where there is no route", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      for (const path of ["/", "/api/v1", "/api/v2/services", `/api/v1/services/${"x".repeat(500)}`]) {
        const reply = yield* call("GET", path)
        assert.strictEqual(reply.status, 404, path)
        assert.strictEqual(field(reply.json, "title"), "Not Found", path)
      }
    }))
})

describe("authorization", () => {
  const apiKey = Redacted.make("right-key")
  const unauthorized =
    "{\"status\":401,\"title\":\"Unauthorized\",\"detail\":\"A valid X-Api-Key header is required.\"}"

  it.effect.each(
    [
      ["no key", {}, 401],
      ["the key", { "x-api-key": "right-key" }, 200],
      ["an empty key", { "x-api-key": "" }, 401],
      ["a wrong key of the same length", { "x-api-key": "right-keX" }, 401],
      ["the beginning of the key", { "x-api-key": "right" }, 401],
      ["the key and more", { "x-api-key": "right-keyright-key" }, 401],
      ["the key elsewhere", { authorization: "Bearer right-key" }, 401],
      ["a page of the same origin", { "sec-fetch-site": "same-origin" }, 200],
      ["a page of the same site", { "sec-fetch-site": "same-site" }, 401],
      ["a page of another site", { "sec-fetch-site": "cross-site" }, 401],
      ["a typed address", { "sec-fetch-site": "none" }, 401],
      ["a page of another site with the key", { "sec-fetch-site": "cross-site", "x-api-key": "right-key" }, 200]
    ] as const
  )("%s", ([, headers, status]) =>
    Effect.gen(function*() {
      const { call } = yield* serve({ apiKey })
      const reply = yield* call("GET", "/api/v1/services", { headers })
      assert.strictEqual(reply.status, status)
      if (status === 401) {
        assert.strictEqual(reply.text, unauthorized)
        assert.strictEqual(reply.headers.get("content-type"), "application/problem+json")
      }
    }))

  it.effect("guards every route but the probe, the description and its page", () =>
    Effect.gen(function*() {
      const { call } = yield* serve({ apiKey })
      const { apiKeyHeader: _, ...routes } = table
      for (const route of Object.values(routes)) {
        const reply = yield* call(
          route.method,
          route.path.replace(":id", "x"),
          route.method === "POST" ? { body: minimal } : {}
        )
        assert.strictEqual(reply.status, route.path === "/health" ? 200 : 401, route.path)
      }
      assert.strictEqual((yield* call("GET", "/api/openapi.json")).status, 200)
      assert.strictEqual((yield* call("GET", "/api/docs")).status, 200)
      assert.deepStrictEqual(
        (yield* call("GET", "/api/v1/services", { headers: { "x-api-key": "right-key" } })).json,
        []
      )
    }))

  it.effect("does not trust browsers where it is told not to", () =>
    Effect.gen(function*() {
      const { call } = yield* serve({ apiKey, trustSameOrigin: false })
      const reply = yield* call("GET", "/api/v1/services", { headers: { "sec-fetch-site": "same-origin" } })
      assert.strictEqual(reply.status, 401)
    }))

  it.effect.each(
    [
      ["a program", {}, 200],
      ["a program with some key", { "x-api-key": "whatever" }, 200],
      ["a page of the same origin", { "sec-fetch-site": "same-origin" }, 200],
      ["a typed address", { "sec-fetch-site": "none" }, 200],
      ["a page of another origin", { "sec-fetch-site": "same-site", origin: "http://evil.test" }, 401],
      ["a page of its own, by Origin alone", { host: "registry.test", origin: "http://registry.test" }, 200],
      ["a page of another origin, by Origin alone", { host: "registry.test", origin: "http://evil.test" }, 401],
      ["a page of no origin", { host: "registry.test", origin: "null" }, 401],
      ["a page of an allowed origin, by Origin alone", { host: "registry.test", origin: "http://app.test" }, 200],
      ["a page of an allowed origin", { "sec-fetch-site": "cross-site", origin: "http://app.test" }, 200]
    ] as const
  )("without a key configured, lets in or not: %s", ([, headers, status]) =>
    Effect.gen(function*() {
      for (const options of [{}, { apiKey: Redacted.make("") }]) {
        const { call } = yield* serve({ ...options, allowedOrigins: ["http://app.test"] })
        assert.strictEqual((yield* call("GET", "/api/v1/services", { headers })).status, status)
      }
    }))

  it.effect("answers the preflight of allowed origins only", () =>
    Effect.gen(function*() {
      const preflight = {
        headers: {
          origin: "http://app.test",
          "access-control-request-method": "PUT",
          "access-control-request-headers": "x-api-key"
        }
      }
      const open = yield* serve({ apiKey, allowedOrigins: ["http://app.test"] })
      const allowed = yield* open.call("OPTIONS", "/api/v1/services", preflight)
      assert.strictEqual(allowed.status, 204)
      assert.strictEqual(allowed.headers.get("access-control-allow-origin"), "http://app.test")
      assert.include(allowed.headers.get("access-control-allow-headers"), "x-api-key")
      const closed = yield* serve({ apiKey })
      const refused = yield* closed.call("OPTIONS", "/api/v1/services", preflight)
      assert.isNull(refused.headers.get("access-control-allow-origin"))
    }))
})

describe("a body that is not right", () => {
  const post = (headers: Record<string, string>, body: string | ReadableStream<Uint8Array>): Request => {
    // Fetch wants `duplex` for a body that is a stream; its type does not know it yet.
    const init: RequestInit & { readonly duplex: "half" } = { method: "POST", headers, body, duplex: "half" }
    return new Request(`${origin}/api/v1/services/register`, init)
  }
  const json = { "content-type": "application/json" }
  const limit = 1024 * 1024

  const padded = (size: number): string => {
    const text = JSON.stringify(minimal)
    return text + " ".repeat(size - text.length)
  }

  it.effect("of exactly 1 MiB is taken, one byte more is 413", () =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      assert.strictEqual((yield* send(post(json, padded(limit)))).status, 201)
      const refused = yield* send(post(json, padded(limit + 1)))
      assert.strictEqual(refused.status, 413)
      assert.strictEqual(refused.headers.get("content-type"), "application/problem+json")
    }))

  it.effect("is refused by its announced length before it is read, on every route", () =>
    Effect.gen(function*() {
      const { call, send } = yield* serve()
      const announced = { ...json, "content-length": String(limit + 1) }
      assert.strictEqual((yield* send(post(announced, "{}"))).status, 413)
      assert.strictEqual((yield* call("PUT", "/api/v1/services/x/heartbeat", { headers: announced })).status, 413)
    }))

  it.effect("without an announced length is refused while it streams, and not read to its end", () =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      let sent = 0
      let cancelled = false
      const endless = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          sent = sent + 64 * 1024
          controller.enqueue(new Uint8Array(64 * 1024).fill(32))
        },
        cancel: () => {
          cancelled = true
        }
      })
      assert.strictEqual((yield* send(post(json, endless))).status, 413)
      assert.isTrue(cancelled)
      assert.isBelow(sent, 2 * limit)
    }))

  it.effect("that never ends is given up after 15 seconds", () =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      const reading = yield* Deferred.make<void>()
      const stuck = new ReadableStream<Uint8Array>({
        pull: () => {
          Effect.runSync(Deferred.succeed(reading, undefined))
          return new Promise(() => {})
        }
      }, { highWaterMark: 0 })
      const fiber = yield* Effect.forkChild(send(post(json, stuck)))
      yield* Deferred.await(reading)
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual((yield* Fiber.join(fiber)).status, 408)
    }))

  it.effect.each([
    ["not JSON", "nonsense haul-secret"],
    ["cut off", "{\"name\":\"haul\",\"api_key\":\"haul-secret\""],
    ["empty", ""],
    ["HTML", "<html>haul-secret</html>"]
  ])("%s is 400 and is not quoted", ([, body]) =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      const reply = yield* send(post(json, String(body)))
      const text = yield* Effect.promise(() => reply.text())
      assert.strictEqual(reply.status, 400)
      assert.include(text, "\"location\":\"body\"")
      assert.notInclude(text, "haul-secret")
    }))

  it.effect.each(
    [
      ["text/plain", 415],
      ["application/x-www-form-urlencoded", 415],
      ["application/jsonp", 415],
      ["application/json", 201],
      ["application/json; charset=utf-8", 201],
      ["Application/JSON", 201],
      ["application/vnd.api+json", 201]
    ] as const
  )("of type %s is %i", ([type, status]) =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      assert.strictEqual((yield* send(post({ "content-type": type }, JSON.stringify(minimal)))).status, status)
    }))

  const withoutName = { type: minimal.type, api_url: minimal.api_url }

  it.effect.each<[string, unknown, ReadonlyArray<unknown>]>([
    ["a missing field", withoutName, [["body.name", undefined]]],
    ["an empty name", { ...minimal, name: "" }, [["body.name", ""]]],
    ["a name of 201 characters", { ...minimal, name: "x".repeat(201) }, [["body.name", undefined]]],
    ["an empty type", { ...minimal, type: "" }, [["body.type", ""]]],
    ["a type of 51 characters", { ...minimal, type: "x".repeat(51) }, [["body.type", "x".repeat(51)]]],
    ["an empty api_url", { ...minimal, api_url: "" }, [["body.api_url", ""]]],
    ["a number for a text", { ...minimal, version: 5 }, [["body.version", 5]]],
    ["a capability that is no text", { ...minimal, capabilities: ["a", 7] }, [["body.capabilities[1]", 7]]],
    ["an api_key that is no text", { ...minimal, api_key: 12345 }, [["body.api_key", undefined]]],
    ["metadata that is not JSON", { ...minimal, metadata: "{" }, [["body.metadata", undefined]]],
    ["several", { ...minimal, name: 1, type: true }, [["body.name", 1], ["body.type", true]]],
    ["a list", [minimal], [["body", undefined]]],
    ["null", null, [["body", undefined]]]
  ])("%s is 422 with the path of the field", ([, body, expected]) =>
    Effect.gen(function*() {
      const { call, send } = yield* serve()
      const reply = yield* send(post(json, JSON.stringify(body)))
      assert.strictEqual(reply.status, 422)
      assert.strictEqual(reply.headers.get("content-type"), "application/problem+json")
      const problem = yield* Effect.promise(() => reply.json())
      assert.strictEqual(problem.title, "Unprocessable Entity")
      assert.deepStrictEqual(
        problem.errors.map((error: { location: string; value?: unknown }) => [error.location, error.value]),
        expected
      )
      for (const error of problem.errors) assert.isNotEmpty(error.message)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/services")).json, [])
    }))

  it.effect("takes a name of 200 and a type of 50 characters", () =>
    Effect.gen(function*() {
      const { register } = yield* serve()
      const reply = yield* register({ ...minimal, name: "n".repeat(200), type: "t".repeat(50) })
      assert.strictEqual(reply.status, 201)
    }))
})

describe("storing", () => {
  /** A store whose writes say that they have begun, and wait for a permission. */
  const held = Effect.fnUntraced(function*() {
    const gate = yield* Deferred.make<void>()
    const begun = yield* Deferred.make<void>()
    const saved = yield* Ref.make<ReadonlyArray<string>>([])
    const store = Layer.succeed(Store.Store, {
      load: Effect.succeed([]),
      save: (document) =>
        Deferred.succeed(begun, undefined).pipe(
          Effect.andThen(Deferred.await(gate)),
          Effect.andThen(Ref.update(saved, (all) => [...all, `${document._tag} ${document.id}`]))
        ),
      remove: () => Effect.void
    })
    return { begun, gate, saved, store }
  })

  it.effect("comes before the answer", () =>
    Effect.gen(function*() {
      const { begun, gate, saved, store } = yield* held()
      const { call, register } = yield* serve({ store })
      const answer = yield* Effect.forkChild(register(downloadClient))
      yield* Deferred.await(begun)
      assert.deepStrictEqual((yield* call("GET", "/api/v1/services")).json, [])
      assert.isUndefined(answer.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      const id = idOf(yield* Fiber.join(answer))
      const all = yield* Ref.get(saved)
      assert.deepStrictEqual(all.map((entry) => entry.split(" ")[0]), ["DownloadClient", "Service"])
      assert.strictEqual(all[1], `Service ${id}`)
    }))

  it.effect("is finished even when the client goes away meanwhile", () =>
    Effect.gen(function*() {
      const { begun, gate, store } = yield* held()
      const { call, send } = yield* serve({ store })
      const abort = new AbortController()
      const request = new Request(makeRequest("POST", "/api/v1/services/register", { body: minimal }), {
        signal: abort.signal
      })
      const answer = yield* Effect.forkChild(send(request))
      yield* Deferred.await(begun)
      abort.abort()
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.await(answer)
      assert.deepStrictEqual(names(yield* call("GET", "/api/v1/services")), ["haul"])
    }))

  it.effect("that fails is 500, changes nothing, and may be tried again", () =>
    Effect.gen(function*() {
      const broken = yield* Ref.make(true)
      const failWhenBroken = (operation: "save" | "remove") => (document: Store.Key) =>
        Effect.flatMap(Ref.get(broken), (isBroken) =>
          isBroken
            ? Effect.fail(new Store.StoreError({ operation, key: document.id, cause: "disk full at /secret/path" }))
            : Effect.void)
      const { call, events, register } = yield* serve({
        store: Layer.succeed(Store.Store, {
          load: Effect.succeed([]),
          save: failWhenBroken("save"),
          remove: failWhenBroken("remove")
        })
      })
      const before = yield* events.position
      const failed = yield* register(minimal)
      assert.strictEqual(failed.status, 500)
      assert.notInclude(failed.text, "secret")
      assert.deepStrictEqual((yield* call("GET", "/api/v1/services")).json, [])
      assert.strictEqual(yield* events.position, before)

      yield* Ref.set(broken, false)
      const id = idOf(yield* register(minimal))
      yield* Ref.set(broken, true)
      assert.strictEqual((yield* call("DELETE", `/api/v1/services/${id}`)).status, 500)
      assert.strictEqual((yield* call("GET", `/api/v1/services/${id}`)).status, 200)
      assert.strictEqual((yield* register({ ...minimal, version: "2" })).status, 500)
      assert.strictEqual(field((yield* call("GET", `/api/v1/services/${id}`)).json, "version"), "")
    }))

  it.effect("is not asked for a heartbeat", () =>
    Effect.gen(function*() {
      const { gate, saved, store } = yield* held()
      yield* Deferred.succeed(gate, undefined)
      const { call, register } = yield* serve({ store })
      const id = idOf(yield* register(minimal))
      for (let n = 0; n < 10; n++) yield* call("PUT", `/api/v1/services/${id}/heartbeat`)
      assert.strictEqual((yield* Ref.get(saved)).length, 1)
    }))
})

describe("description", () => {
  it.effect("is OpenAPI with every route and the key", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      const { json, status } = yield* call("GET", "/api/openapi.json")
      assert.strictEqual(status, 200)
      assert.match(String(field(json, "openapi")), /^3\.1/)
      const { apiKeyHeader: _, ...routes } = table
      for (const route of Object.values(routes)) {
        const path = field(field(json, "paths"), route.path.replace(":id", "{id}"))
        assert.isNotNull(field(path, route.method.toLowerCase()), route.path)
      }
      assert.deepStrictEqual(field(field(field(json, "components"), "securitySchemes"), "apiKey"), {
        type: "apiKey",
        name: "X-Api-Key",
        in: "header"
      })
    }))

  it.effect("has a page that needs nothing from anywhere else", () =>
    Effect.gen(function*() {
      const { call } = yield* serve()
      const page = yield* call("GET", "/api/docs")
      assert.strictEqual(page.status, 200)
      assert.match(page.headers.get("content-type") ?? "", /^text\/html/)
      assert.include(page.text, "Pulse API")
      // Tags that would load something; the script itself mentions addresses without ever asking them.
      assert.notMatch(page.text, /<(script|link|img|iframe)[^>]*(src|href)="?https?:/)
      assert.strictEqual((yield* call("GET", "/api/docs")).text, page.text)
    }))
})
