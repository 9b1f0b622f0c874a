/** Cloudflare's storage as a `KeyValueStore`, and check-ins on it, in workerd, against the embedded registry on loopback. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Miniflare } from "miniflare"
import { Response } from "miniflare"
import type { Request } from "miniflare"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isBeat, isRegistration } from "../support/runtimes/Front.ts"
import * as Registry from "../support/runtimes/Registry.ts"
import * as Workers from "../support/runtimes/Workers.ts"
import { checks } from "./contract.ts"

const Answer = Schema.Union([
  Schema.Struct({ ok: Schema.Literal(true), value: Schema.Json }),
  Schema.Struct({ ok: Schema.Literal(false), error: Schema.Record(Schema.String, Schema.Json) })
])

const Report = Schema.Struct({
  _tag: Schema.String,
  status: Schema.String,
  calls: Schema.Array(Schema.String)
})

type Place = "kv" | "do"
const places: ReadonlyArray<Place> = ["kv", "do"]

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-lifeline-workerd-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** A Worker with a KV namespace and a Durable Object; what it fetches reaches loopback only. */
const start = (storage: string, pulse: string) =>
  Effect.gen(function*() {
    const miniflare = yield* Workers.run("test/workerd/worker.ts", {
      bindings: { PULSE_URL: pulse },
      kvNamespaces: ["KV"],
      kvPersist: `${storage}/kv`,
      durableObjects: { OBJECT: { className: "Place", useSQLite: true } },
      durableObjectsPersist: `${storage}/do`,
      outboundService: async (request: Request) => {
        const { hostname } = new URL(request.url)
        if (hostname !== "127.0.0.1") return new Response(`${hostname} is not loopback`, { status: 502 })
        const body = request.method === "GET" ? undefined : await request.text()
        const answer = await fetch(request.url, {
          method: request.method,
          headers: [...request.headers],
          ...(body === undefined || body === "" ? {} : { body })
        })
        const text = await answer.text()
        return new Response(text === "" ? null : text, { status: answer.status, headers: [...answer.headers] })
      }
    })
    yield* Effect.promise(() => miniflare.ready)
    return miniflare
  })

const ask = (miniflare: Miniflare, path: string) =>
  Effect.promise(async () => (await miniflare.dispatchFetch(`http://worker.test${path}`)).json()).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Answer)),
    Effect.orDie
  )

const value = (miniflare: Miniflare, path: string) =>
  Effect.map(ask(miniflare, path), (answer) => {
    assert(answer.ok, JSON.stringify(answer))
    return answer.value
  })

const checkIn = (miniflare: Miniflare, place: Place, more = "") =>
  value(miniflare, `/${place}/check-in?key=${Registry.key}${more}`).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Report)),
    Effect.orDie
  )

/** As a cron of a short interval that fires all the time: until there is something to do. */
const checkInWhenDue = (miniflare: Miniflare, place: Place) =>
  Effect.repeat(checkIn(miniflare, place, "&interval=short"), {
    until: ({ _tag }) => _tag !== "NotDue",
    times: 10_000
  })

const beats = ({ front }: Effect.Success<typeof Registry.make>): number => front.calls.filter(isBeat).length
const registrations = ({ front }: Effect.Success<typeof Registry.make>): number =>
  front.calls.filter(isRegistration).length

describe("in workerd", { timeout: 60_000 }, () => {
  const scope = Scope.makeUnsafe()
  let miniflare: Miniflare
  let registry: Effect.Success<typeof Registry.make>
  let storage: string

  beforeAll(() =>
    Effect.gen(function*() {
      storage = yield* temporary
      registry = yield* Registry.make
      miniflare = yield* start(storage, registry.url)
    }).pipe(Scope.provide(scope), Effect.runPromise)
  )
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  describe.each(places)("the store of %s", (place) => {
    it.live.each(Object.keys(checks))(
      "%s",
      (name) => Effect.asVoid(value(miniflare, `/${place}/contract?name=${encodeURIComponent(name)}`))
    )

    it.live("what the platform refuses is a KeyValueStoreError with method and key", () =>
      Effect.gen(function*() {
        const key = place === "kv" ? "k".repeat(600) : "k"
        const answer = yield* ask(miniflare, `/${place}/set?name=${key}&length=${place === "kv" ? 1 : 3_000_000}`)
        assert(!answer.ok)
        assert.deepInclude(answer.error, { _tag: "KeyValueStoreError", method: "set", key })
        assert.include(String(answer.error["message"]), place === "kv" ? "Cloudflare KV" : "Durable Object storage")
      }))
  })

  it.live("modify of a Durable Object is atomic", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* value(miniflare, "/do/increment"), "20")
    }))

  it.live("clear of a Durable Object leaves its alarm", () =>
    Effect.gen(function*() {
      yield* value(miniflare, "/do/alarm?in=100000000")
      yield* value(miniflare, "/do/clear")
      assert.isNumber(yield* value(miniflare, "/do/when"))
    }))

  describe.each(places)("check-ins on %s", (place) => {
    it.live("register, beat, and register again when the registry forgot", () =>
      Effect.gen(function*() {
        yield* value(miniflare, `/${place}/clear`)
        const registered = yield* checkIn(miniflare, place)
        assert.deepStrictEqual(registered, { _tag: "Registered", status: "Online", calls: ["Register", "Heartbeat"] })
        const service = yield* registry.service("resizer")
        assert.deepInclude(service, { status: "online", api_url: "https://resizer.test" })
        yield* value(miniflare, `/${place}/clear`)
        yield* registry.forget(service.id)
        yield* checkIn(miniflare, place, "&interval=short")
        yield* registry.forget((yield* registry.service("resizer")).id)
        const again = yield* checkInWhenDue(miniflare, place)
        assert.strictEqual(again._tag, "Registered")
        assert.include(again.calls, "Register")
        const beat = yield* checkInWhenDue(miniflare, place)
        assert.strictEqual(beat.status, "Online")
        assert.deepStrictEqual(beat.calls, ["Heartbeat"])
      }))

    it.live("two at once make one registration", () =>
      Effect.gen(function*() {
        yield* value(miniflare, `/${place}/clear`)
        const before = registrations(registry)
        const reports = yield* Effect.all([1, 2, 3].map(() => checkIn(miniflare, place)), { concurrency: "unbounded" })
        const found = yield* registry.services
        assert.lengthOf(found.filter(({ name }) => name === "resizer"), 1)
        const tags = reports.map(({ _tag }) => _tag)
        assert.lengthOf(tags.filter((tag) => tag === "Registered"), 1, tags.join())
        assert.lengthOf(tags.filter((tag) => tag === "Superseded" || tag === "NotDue"), 2, tags.join())
        assert.isAtMost(registrations(registry) - before, 3)
        const after = yield* checkIn(miniflare, place)
        assert.notStrictEqual(after._tag, "Registered")
      }))

    it.live("a rejected key is sent once", () =>
      Effect.gen(function*() {
        yield* value(miniflare, `/${place}/clear`)
        const before = registry.front.calls.length
        for (let n = 0; n < 3; n++) {
          const answer = yield* ask(miniflare, `/${place}/check-in?key=wrong-key`)
          assert(!answer.ok)
          assert.strictEqual(answer.error["_tag"], "AuthFailed")
          assert.notInclude(JSON.stringify(answer), "wrong-key")
        }
        assert.strictEqual(registry.front.calls.length - before, 1)
        assert.strictEqual((yield* checkIn(miniflare, place))._tag, "Registered")
      }))
  })

  it.live("the alarm of a Durable Object beats by itself", () =>
    Effect.gen(function*() {
      yield* value(miniflare, "/do/clear")
      const before = beats(registry)
      yield* value(miniflare, "/do/alarm?in=0")
      yield* registry.front.until(
        "five beats by the alarm",
        (calls) => calls.filter(isBeat).length >= before + 5 ? true : undefined,
        "30 seconds"
      )
      yield* value(miniflare, "/do/alarm?in=100000000")
    }))

  it.live.each(places)(
    "a crash between the request and the record: %s goes on with the same registration",
    (place) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const own = yield* Registry.make
        yield* Effect.scoped(Effect.gen(function*() {
          const doomed = yield* start(directory, own.url)
          // It never answers: the Worker is killed after its requests were answered, before it saved anything.
          yield* Effect.forkScoped(Effect.ignoreCause(ask(doomed, `/${place}/check-in?key=${Registry.key}&stuck`)))
          yield* own.front.until("the beat after the registration", (calls) => calls.find(isBeat))
        }))
        const { id } = yield* own.service("resizer")
        const reborn = yield* start(directory, own.url)
        // The claim of the one that crashed stands as long as it could have been at it.
        assert.strictEqual((yield* checkIn(reborn, place))._tag, "Superseded")
        const keys = yield* value(reborn, `/${place}/keys`)
        assert(Array.isArray(keys) && keys.length === 1)
        yield* value(
          reborn,
          `/${place}/set?name=${encodeURIComponent(String(keys[0]))}&value=${
            encodeURIComponent("{\"id\":\"x\",\"until\":1}")
          }`
        )
        assert.strictEqual((yield* checkIn(reborn, place))._tag, "Registered")
        assert.strictEqual((yield* own.service("resizer")).id, id)
        assert.lengthOf(yield* own.services, 1)
      })
  )
})
