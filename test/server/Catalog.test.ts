import { assert, describe, it } from "@effect/vitest"
import * as Catalog from "effect-lifeline/server/Catalog"
import * as Events from "effect-lifeline/server/Events"
import * as Store from "effect-lifeline/server/Store"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

const twoMinutes = Duration.minutes(2)

const haul: Catalog.Registration = { name: "haul", type: "app", apiUrl: "http://haul" }

const service: Store.Service = {
  _tag: "Service",
  id: "s1",
  name: "haul",
  type: "app",
  apiUrl: "http://haul",
  capabilities: [],
  metadata: "{}",
  status: "online",
  lastSeen: 0,
  registeredAt: 0
}

/** A store that can be handed from one catalog to the next. */
const makeStore = Effect.map(Layer.build(Store.layerMemory), (context) => Context.get(context, Store.Store))

/** A catalog in a scope of its own, as if a process ran. */
const start = Effect.fnUntraced(function*(store: Store.Store["Service"]) {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(
    Catalog.layer.pipe(
      Layer.provideMerge(Events.layer()),
      Layer.provide([Layer.succeed(Store.Store, store), SecureRandom.layerWebCrypto])
    ),
    scope
  )
  return {
    catalog: Context.get(context, Catalog.Catalog),
    events: Context.get(context, Events.Events),
    stop: Scope.close(scope, Exit.void)
  }
})

const typesSince = (events: Events.Events["Service"], after: string, count: number) =>
  events.subscribe({ after }).pipe(
    Stream.drop(1),
    Stream.take(count),
    Stream.map((message) => message._tag === "Event" ? message.event.type : message._tag),
    Stream.runCollect
  )

describe("Catalog", () => {
  it.effect("knows after a restart what it was told before: services, their ids and keys, download clients", () =>
    Effect.gen(function*() {
      const store = yield* makeStore
      const first = yield* start(store)
      const registered = yield* first.catalog.register({
        name: "haul",
        type: "download-client",
        apiUrl: "http://haul:1",
        apiKey: Redacted.make("own"),
        healthUrl: "http://haul:1/health",
        version: "1",
        capabilities: ["a"],
        metadata: "[1]"
      })
      const gone = yield* first.catalog.register(haul)
      yield* first.catalog.deregister(gone.id)
      const [client] = yield* first.catalog.downloadClients
      assert.deepStrictEqual(
        (yield* store.load).map((document) => document.id).toSorted(),
        [registered.id, client?.id ?? ""].toSorted()
      )
      yield* first.catalog.updateDownloadClient(client?.id ?? "", { enabled: false })
      // Not stopped: this is what a crash leaves.
      const second = yield* start(store)
      assert.deepStrictEqual(yield* second.catalog.list(), [registered])
      assert.deepStrictEqual(yield* second.catalog.downloadClients, [
        { ...client, enabled: false } as Store.DownloadClient
      ])
      const again = yield* second.catalog.register({ name: "haul", type: "download-client", apiUrl: "http://haul:2" })
      assert.strictEqual(again.id, registered.id)
      assert.strictEqual((yield* second.catalog.downloadClients)[0]?.enabled, false)
    }))

  it.effect("sets a service without health URL offline once it was not seen for over 2 minutes, once", () =>
    Effect.gen(function*() {
      const { catalog, events } = yield* start(yield* makeStore)
      yield* TestClock.adjust("1 minute")
      const silent = yield* catalog.register(haul)
      const beating = yield* catalog.register({ ...haul, name: "beats" })
      const checked = yield* catalog.register({ ...haul, name: "checked", healthUrl: "http://checked/health" })
      const after = yield* events.position
      yield* TestClock.adjust("2 minutes")
      yield* catalog.heartbeat(beating.id)
      yield* catalog.expire(twoMinutes)
      assert.strictEqual((yield* catalog.get(silent.id))?.status, "online")
      yield* TestClock.adjust("1 millis")
      yield* catalog.expire(twoMinutes)
      yield* catalog.expire(twoMinutes)
      const statuses = yield* Effect.forEach([silent, beating, checked], ({ id }) => catalog.get(id))
      assert.deepStrictEqual(statuses.map((service) => service?.status), ["offline", "online", "online"])
      assert.deepStrictEqual(yield* typesSince(events, after, 1), ["service_offline"])
      assert.strictEqual(yield* events.position, `${after.slice(0, -1)}4`)
      assert.strictEqual((yield* catalog.get(silent.id))?.lastSeen, 60_000)
    }))

  it.effect("counts staleness from its own start, when it does not know who beat before", () =>
    Effect.gen(function*() {
      const store = yield* makeStore
      yield* store.save(service)
      yield* TestClock.adjust("1 hour")
      const { catalog } = yield* start(store)
      yield* catalog.expire(twoMinutes)
      assert.strictEqual((yield* catalog.get("s1"))?.status, "online")
      yield* TestClock.adjust("2 minutes")
      yield* TestClock.adjust("1 millis")
      yield* catalog.expire(twoMinutes)
      assert.strictEqual((yield* catalog.get("s1"))?.status, "offline")
    }))

  it.effect("stores a changed status when it is flushed or stopped, and a heartbeat never", () =>
    Effect.gen(function*() {
      const saves = yield* Ref.make(0)
      const inner = yield* makeStore
      const store = Store.Store.of({
        ...inner,
        save: (document) => Effect.andThen(Ref.update(saves, (n) => n + 1), inner.save(document))
      })
      const { catalog, stop } = yield* start(store)
      const registered = yield* catalog.register(haul)
      yield* catalog.heartbeat(registered.id)
      yield* catalog.flush
      assert.strictEqual(yield* Ref.get(saves), 1)
      yield* catalog.report(registered, "degraded")
      yield* catalog.flush
      yield* catalog.flush
      assert.strictEqual(yield* Ref.get(saves), 2)
      yield* catalog.report(registered, "offline")
      yield* stop
      assert.strictEqual(yield* Ref.get(saves), 3)
      const { catalog: next } = yield* start(store)
      assert.strictEqual((yield* next.get(registered.id))?.status, "offline")
    }))

  it.effect("stops within 3 seconds, also when its store does not answer any more", () =>
    Effect.gen(function*() {
      const inner = yield* makeStore
      const { catalog, stop } = yield* start({
        ...inner,
        save: (document) =>
          document._tag === "Service" && document.status === "online" ? inner.save(document) : Effect.never
      })
      yield* catalog.report(yield* catalog.register(haul), "offline")
      const stopping = yield* Effect.forkChild(stop)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
    }))

  it.effect("gives up a write after 10 seconds, and nobody else is held up", () =>
    Effect.gen(function*() {
      const { catalog, events } = yield* start({
        load: Effect.succeed([]),
        save: (document) => document._tag === "Service" && document.name === "slow" ? Effect.never : Effect.void,
        remove: () => Effect.never
      })
      const before = yield* events.position
      const slow = yield* Effect.forkChild(Effect.flip(catalog.register({ ...haul, name: "slow" })))
      const other = yield* catalog.register(haul)
      const removing = yield* Effect.forkChild(Effect.flip(catalog.deregister(other.id)))
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(slow.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* Fiber.join(slow), { _tag: "StoreError", operation: "save" })
      assert.deepInclude(yield* Fiber.join(removing), { _tag: "StoreError", operation: "remove" })
      assert.deepStrictEqual((yield* catalog.list()).map((service) => service.name), ["haul"])
      assert.strictEqual(yield* events.position, `${before.slice(0, -1)}1`)
    }))

  it.effect("tries again to store a status that could not be stored", () =>
    Effect.gen(function*() {
      const broken = yield* Ref.make(false)
      const inner = yield* makeStore
      const { catalog, stop } = yield* start(Store.Store.of({
        ...inner,
        save: (document) =>
          Effect.flatMap(Ref.get(broken), (isBroken) =>
            isBroken ? Effect.fail(new Store.StoreError({ operation: "save", key: "x" })) : inner.save(document))
      }))
      const registered = yield* catalog.register(haul)
      yield* Ref.set(broken, true)
      yield* catalog.report(registered, "offline")
      yield* catalog.flush
      yield* Ref.set(broken, false)
      yield* stop
      const [stored] = yield* inner.load
      assert.strictEqual(stored?._tag === "Service" ? stored.status : undefined, "offline")
    }))

  it.effect("ignores the result of a check when the service has registered otherwise meanwhile, or is gone", () =>
    Effect.gen(function*() {
      const { catalog } = yield* start(yield* makeStore)
      const old = yield* catalog.register({ ...haul, healthUrl: "http://old" })
      yield* catalog.register({ ...haul, healthUrl: "http://new" })
      yield* catalog.report(old, "offline")
      assert.strictEqual((yield* catalog.get(old.id))?.status, "online")
      const withKey = yield* catalog.register({ ...haul, healthUrl: "http://new", apiKey: Redacted.make("k") })
      yield* catalog.register({ ...haul, healthUrl: "http://new" })
      yield* catalog.report(withKey, "offline")
      assert.strictEqual((yield* catalog.get(old.id))?.status, "online")
      yield* catalog.deregister(old.id)
      yield* catalog.report(old, "offline")
      assert.isUndefined(yield* catalog.get(old.id))
    }))

  it.effect("keeps what a heartbeat brought while a check was under way", () =>
    Effect.gen(function*() {
      const { catalog } = yield* start(yield* makeStore)
      const before = yield* catalog.register({ ...haul, healthUrl: "http://haul/health" })
      yield* TestClock.adjust("10 seconds")
      yield* catalog.heartbeat(before.id)
      yield* catalog.report(before, "degraded")
      const now = yield* catalog.get(before.id)
      assert.deepStrictEqual([now?.status, now?.lastSeen], ["degraded", 10_000])
    }))

  it.effect.each<[number, number, string]>([[7, 5, "a"], [5, 7, "b"]])(
    "keeps the newer of two records of one identity, and removes the other: seen at %i and %i, kept %s",
    ([seenA, seenB, kept]) =>
      Effect.gen(function*() {
        const store = yield* makeStore
        yield* store.save({ ...service, id: "a", lastSeen: seenA })
        yield* store.save({ ...service, id: "b", lastSeen: seenB })
        const { catalog } = yield* start(store)
        assert.deepStrictEqual((yield* catalog.list()).map((one) => one.id), [kept])
        assert.deepStrictEqual((yield* store.load).map((one) => one.id), [kept])
      })
  )

  it.effect("does not start empty when its store cannot be read", () =>
    Effect.gen(function*() {
      const store = yield* makeStore
      const error = yield* Effect.flip(start({
        ...store,
        load: Effect.fail(new Store.StoreError({ operation: "load", key: "all" }))
      }))
      assert.strictEqual(error._tag, "StoreError")
    }))

  it.effect("writes one service at a time, and different services side by side", () =>
    Effect.gen(function*() {
      const running = new Map<string, number>()
      let most = 0
      let mostOfOne = 0
      const gate = yield* Deferred.make<void>()
      const { catalog } = yield* start(Store.Store.of({
        load: Effect.succeed([]),
        remove: () => Effect.void,
        save: (document) => {
          const name = document._tag === "Service" ? document.name : ""
          return Effect.acquireUseRelease(
            Effect.sync(() => {
              running.set(name, (running.get(name) ?? 0) + 1)
              mostOfOne = Math.max(mostOfOne, running.get(name) ?? 0)
              most = Math.max(most, Array.from(running.values()).reduce((a, b) => a + b, 0))
            }),
            () => Deferred.await(gate),
            () => Effect.sync(() => void running.set(name, (running.get(name) ?? 0) - 1))
          )
        }
      }))
      const fiber = yield* Effect.forkChild(Effect.forEach(
        ["a", "a", "a", "b", "b", "c"],
        (name) => catalog.register({ ...haul, name }),
        { concurrency: "unbounded" }
      ))
      yield* TestClock.adjust(0)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
      assert.deepStrictEqual([mostOfOne, most], [1, 3])
    }))

  it.effect("gives nothing to change where there is no such download client", () =>
    Effect.gen(function*() {
      const { catalog } = yield* start(yield* makeStore)
      assert.isUndefined(yield* catalog.updateDownloadClient("nobody", { enabled: false }))
    }))
})
