// What recovery leaves behind once it is done, or was ended: nothing.
import { assert, describe, it } from "@effect/vitest"
import * as Recovery from "effect-lifeline/Recovery"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import { fakeProof, hour, makeStore, token, unauthorized } from "./support/credentials.ts"
import type { TestStore } from "./support/credentials.ts"
import * as Leaks from "./support/leaks.ts"
import type { Script } from "./support/leaseApi.ts"
import { lease, makeApi, revived } from "./support/leaseApi.ts"

const keep = Effect.fnUntraced(function*(_store: TestStore, options: Recovery.Options, count: number) {
  const leases = yield* Recovery.makeLeases()
  for (let n = 0; n < count; n++) {
    const entry = { lease: lease(String(n)), provenance: "Managed" as const }
    yield* leases.put(entry)
    const credential = yield* Recovery.credential(options, entry)
    yield* credential.accept(token(`t${n}`, Date.now() + hour))
  }
}, (effect, store) => Effect.provideService(Effect.scoped(effect), KeyValueStore.KeyValueStore, store.store))

const cases: ReadonlyArray<readonly [string, Script, Partial<Recovery.Options>]> = [
  ["live", { status: [{ status: 200, says: "active" }] }, {}],
  ["revived", { status: [{ status: 401 }], refresh: [unauthorized("refresh")], heartbeat: [revived()] }, {}],
  ["a status that hangs", { status: ["hang"] }, { timeout: 50 }],
  ["a holder that cannot be asked", {}, { timeout: 50, isAlive: () => Effect.never }],
  ["dead", { status: [{ status: 503 }] }, { isAlive: () => Effect.succeed(false) }]
]

describe("fibers and timers", () => {
  for (const [name, script, more] of cases) {
    for (const ended of [false, true]) {
      it.live(`${name}${ended ? ", ended on the way" : ""}`, () =>
        Effect.gen(function*() {
          const store = makeStore()
          const api = makeApi(script)
          const options: Recovery.Options = { api, isAlive: () => Effect.succeed(true), proof: fakeProof, ...more }
          yield* keep(store, options, 20)
          const counter = Leaks.fiberCounter()
          const left = yield* Leaks.resources
          const over = Effect.provideService(KeyValueStore.KeyValueStore, store.store)
          yield* counter.watch(Effect.gen(function*() {
            const reconciling = yield* Effect.forkChild(over(Recovery.reconcile(options)), { startImmediately: true })
            const recovering = yield* Effect.forkChild(
              Effect.scoped(over(Effect.flatMap(
                Recovery.make(options),
                ({ first }) => Effect.andThen(first, ended ? Effect.never : Effect.void)
              ))),
              { startImmediately: true }
            )
            if (ended) {
              yield* Effect.sleep(10)
              yield* Fiber.interruptAll([reconciling, recovering])
            } else {
              yield* Effect.all([Fiber.join(reconciling), Fiber.join(recovering)])
            }
          }))
          assert.strictEqual(yield* counter.left, 0)
          assert.deepStrictEqual(yield* left, [])
        }), 30_000)
    }
  }
})
