/**
 * Chaos in virtual time: services come, go and change, events are late or lost with their connection, reads are late, fail, or
 * answer as it was when they began. Once it is quiet the picture is the registry's, it says that it is fresh, and every watcher
 * can say how it came to be. `DISCOVERY_SEED` replays one seed.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import type { RegisteredService } from "effect-lifeline/ServiceInstance"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Directories from "./support/scriptedDirectory.ts"

const ids = ["a", "b", "c", "d"]

const byId = (services: ReadonlyArray<RegisteredService>) =>
  [...services].sort((one, other) => one.id < other.id ? -1 : 1)

const chaos = Effect.gen(function*() {
  const random = yield* Random.Random
  const chance = (share: number) => random.nextDoubleUnsafe() < share
  const any = <A>(all: ReadonlyArray<A>): A => all[Math.floor(random.nextDoubleUnsafe() * all.length)] as A
  const script = Directories.make({ watch: any(["push", "resumable"] as const) })
  const { state } = script
  const eventsTake = Math.floor(random.nextDoubleUnsafe() * 400)
  let version = 0
  let connection = 0

  state.respond = (query) =>
    Effect.gen(function*() {
      const late = chance(0.5)
      const fails = chance(0.2)
      const ask = () => state.services.filter((it) => Directory.matches(query, it))
      // As it was when the read began, or when it ended.
      const before = ask()
      const asBefore = chance(0.5)
      if (late) yield* Effect.sleep(random.nextDoubleUnsafe() * 2000)
      if (fails) return yield* Directories.unavailable()
      return asBefore ? before : ask()
    })

  /** Tells of it later, unless the connection is gone by then. */
  const tell = (change: Directory.Change) => {
    const on = connection
    return Effect.forkScoped(
      Effect.delay(Effect.suspend(() => on === connection ? script.tell(change) : Effect.void), eventsTake),
      { startImmediately: true }
    )
  }

  const happen = Effect.suspend((): Effect.Effect<unknown, never, Scope.Scope> => {
    const id = any(ids)
    const known = state.services.find((it) => it.id === id)
    const others = state.services.filter((it) => it.id !== id)
    const what = random.nextDoubleUnsafe()
    if (what < 0.1) {
      connection++
      return script.drop(chance(0.5) ? Directories.unavailable("changes") : undefined)
    }
    if (what < 0.5) {
      const service = Directories.service(id, { version: `${++version}` })
      state.services = [...others, service]
      return tell(
        chance(0.5)
          ? { _tag: "Registered", id, service }
          : { _tag: "Registered", id, query: chance(0.5) ? { name: id } : undefined }
      )
    }
    if (known === undefined) return tell({ _tag: "Other", type: "unknown", id })
    if (what < 0.75) {
      state.services = others
      return tell({ _tag: "Deregistered", id })
    }
    if (what < 0.9) {
      const status = any(["online", "offline", "degraded"] as const)
      state.services = [...others, { ...known, status }]
      return tell({ _tag: "StatusChanged", id, status })
    }
    // Something that only a read shows.
    state.services = [...others, { ...known, version: `${++version}` }]
    return tell({ _tag: "Other", type: "updated", id })
  })

  const cache = yield* Effect.provide(DiscoveryCache.make(), script.layer)
  const kept = new Map<string, RegisteredService>()
  yield* Effect.forkScoped(
    Stream.runForEach(cache.watch(), ({ changes }) =>
      Effect.sync(() => {
        for (const { _tag, service } of changes) {
          assert.strictEqual(kept.has(service.id), _tag !== "Came", `${_tag} ${service.id}`)
          if (_tag === "Went") kept.delete(service.id)
          else kept.set(service.id, service)
        }
      })),
    { startImmediately: true }
  )
  for (let n = 0; n < 60; n++) {
    yield* happen
    yield* TestClock.adjust(Math.floor(random.nextDoubleUnsafe() * 700))
  }
  state.respond = undefined
  // What was told of and is still under way arrives, failed reads and connections are tried again.
  for (let n = 0; n < 80; n++) yield* TestClock.adjust("1 second")
  const status = yield* SubscriptionRef.get(cache.status)
  assert.strictEqual(status.freshness._tag, "Fresh", JSON.stringify(status))
  assert.deepStrictEqual(byId(yield* cache.all), byId(state.services))
  assert.deepStrictEqual(byId([...kept.values()]), byId(state.services))
  const reads = state.reads.length
  yield* TestClock.adjust("1 hour")
  assert.strictEqual(state.reads.length, reads)
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))

const replayed = process.env["DISCOVERY_SEED"]

const seeds = replayed === undefined ? Array.from({ length: 300 }, (_, n) => `seed ${n}`) : [replayed]

describe("DiscoveryCache, chaos", () => {
  it.effect(
    `${seeds.length} seeds end with the registry's own picture`,
    () =>
      Effect.forEach(seeds, (seed) =>
        Random.withSeed(chaos, seed).pipe(
          Effect.catchDefect((defect) =>
            Effect.die(new Error(`DISCOVERY_SEED="${seed}" replays this: ${String(defect)}`, { cause: defect }))
          )
        ), { discard: true }),
    120_000
  )
})
