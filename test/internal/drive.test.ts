import { assert, describe, it } from "@effect/vitest"
import type * as Lease from "effect-lifeline/Lease"
import { Registry } from "effect-lifeline/Registry"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Drive from "../../src/internal/drive.ts"
import * as Scripted from "../support/scripted.ts"

const instance = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }
const lease: Lease.Lease = { id: "lease-1", name: "haul", type: "download-client", registeredAt: 0 }

/** One call of the adapter that `change` makes out of one that always says yes. */
const perform = (
  call: Drive.Call,
  change: (registry: Registry["Service"]) => Partial<Registry["Service"]> = () => ({}),
  options: { readonly lease?: Lease.Lease | undefined; readonly everRegistered?: boolean } = { lease }
) =>
  Effect.gen(function*() {
    const registry = yield* Registry
    const changed = { ...registry, ...change(registry) }
    return yield* Drive.perform(changed, call, options.lease, instance, options.everRegistered ?? true)
  }).pipe(Effect.provide(Scripted.make().layer))

describe("perform", () => {
  it.effect("an interruption inside the adapter is a failure for now: it does not end the driver", () =>
    Effect.gen(function*() {
      const outcome = yield* perform("Heartbeat", () => ({ heartbeat: () => Effect.interrupt }))
      assert.strictEqual(outcome.event._tag, "Failed")
      assert.deepStrictEqual(outcome.lease, lease)
      assert.strictEqual(outcome.error?._tag, "Transient")
    }))

  it.effect("an interruption of the driver passes through the adapter", () =>
    Effect.gen(function*() {
      const entered = yield* Deferred.make<void>()
      let released = false
      const fiber = yield* perform("Heartbeat", () => ({
        heartbeat: () =>
          Deferred.succeed(entered, void 0).pipe(
            Effect.andThen(Effect.never),
            Effect.ensuring(Effect.sync(() => {
              released = true
            }))
          )
      })).pipe(Effect.forkChild)
      yield* Deferred.await(entered)
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(released)
      assert(Exit.isFailure(exit))
      assert.isTrue(Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("a defect of the adapter is a failure for now, with the defect as its cause", () =>
    Effect.gen(function*() {
      const defect = new Error("a bug")
      const outcome = yield* perform("Verify", () => ({ verify: () => Effect.die(defect) }))
      assert.strictEqual(outcome.event._tag, "Failed")
      assert(outcome.error?._tag === "Transient")
      assert.strictEqual(outcome.error.cause, defect)
      assert.deepStrictEqual(outcome.lease, lease)
    }))

  it.effect("a call that throws before it is an effect is a defect, too", () =>
    Effect.gen(function*() {
      const outcome = yield* perform("Heartbeat", () => ({
        heartbeat: () => {
          throw new Error("a bug")
        }
      }))
      assert.strictEqual(outcome.event._tag, "Failed")
    }))

  it.effect("a beat without a lease is a lost lease, and sends nothing", () =>
    Effect.gen(function*() {
      const outcome = yield* perform("Heartbeat", () => ({ heartbeat: () => Effect.die("sent") }), { lease: undefined })
      assert.deepStrictEqual(outcome.event, { _tag: "Lost", taken: false })
    }))

  it.effect("an answer of another protocol is fatal before the first registration, a failure for now after it", () =>
    Effect.gen(function*() {
      const proxy = () => ({ register: () => Effect.fail(Scripted.malformed("register")) })
      const before = yield* perform("Register", proxy, { everRegistered: false })
      assert.deepStrictEqual(before.event, { _tag: "Rejected", auth: false })
      const after = yield* perform("Register", proxy, { everRegistered: true })
      assert.strictEqual(after.event._tag, "Failed")
    }))

  it.effect("a lost lease is given up, whatever else fails keeps it", () =>
    Effect.gen(function*() {
      const lost = yield* perform("Heartbeat", () => ({
        heartbeat: () => Effect.fail(Scripted.unknownLease("heartbeat"))
      }))
      assert.isUndefined(lost.lease)
      const taken = yield* perform("Verify", () => ({ verify: () => Effect.fail(Scripted.leaseTaken("verify", "x")) }))
      assert.deepStrictEqual(taken.event, { _tag: "Lost", taken: true })
      const rejected = yield* perform("Heartbeat", () => ({
        heartbeat: () => Effect.fail(Scripted.unauthorized("heartbeat"))
      }))
      assert.deepStrictEqual(rejected.event, { _tag: "Rejected", auth: true })
      assert.deepStrictEqual(rejected.lease, lease)
    }))
})
