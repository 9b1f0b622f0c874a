import { assert, describe, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import * as Registry from "effect-lifeline/Registry"
import * as Memory from "effect-lifeline/registry/Memory"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

const haul = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }

const failing = (verdict: "Unauthorized" | "Unreachable") =>
  Effect.scoped(Effect.gen(function*() {
    const memory = yield* Memory.make()
    yield* memory.failAs(verdict)
    return memory
  }))

const harness: RegistryConformance.Harness = {
  elapse: TestClock.adjust,
  unauthorized: failing("Unauthorized"),
  unreachable: failing("Unreachable")
}

describe("Memory conforms", () => {
  for (const { name, run } of RegistryConformance.cases(harness)) {
    it.effect(name, () => Effect.provide(run, Memory.layer()))
  }
})

const dial = { cursor: undefined, attempt: 1, generation: 1 }

/** What one connection tells. */
const told = Stream.unwrap(Effect.flatMap(Memory.Memory, ({ directory }) => directory.changes(dial))).pipe(
  Stream.filter((item) => item.notice === undefined),
  Stream.map((frame) => frame.value)
)

describe("Memory", () => {
  it.effect("lets a lease run out by the clock, and says so", () =>
    Effect.gen(function*() {
      const { registry, services } = yield* Memory.Memory
      const lease = yield* registry.register(haul)
      assert.strictEqual(lease.expiresAfter, 90_000)
      yield* TestClock.adjust("89999 millis")
      assert.strictEqual((yield* services).length, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* services).length, 0)
      const error = yield* Effect.flip(registry.heartbeat(lease))
      assert.strictEqual(error.reason._tag, "LeaseExpired")
      assert.strictEqual(error.message.includes("heartbeat (memory download-client/haul)"), true)
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("counts the expiry from the last heartbeat", () =>
    Effect.gen(function*() {
      const { registry, services } = yield* Memory.Memory
      const lease = yield* registry.register(haul)
      yield* TestClock.adjust("60 seconds")
      yield* registry.heartbeat(lease)
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* services).length, 1)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* services).length, 0)
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("tells watchers of an expiry that nobody asked about, without a call", () =>
    Effect.gen(function*() {
      const { registry } = yield* Memory.Memory
      const watcher = yield* Effect.forkChild(
        Stream.runCollect(Stream.take(told, 3)),
        { startImmediately: true }
      )
      const lease = yield* registry.register(haul)
      yield* TestClock.adjust("5 minutes")
      const again = yield* registry.register(haul)
      const changes = yield* Fiber.join(watcher)
      assert.deepStrictEqual(changes.map((change) => change._tag), ["Registered", "Deregistered", "Registered"])
      assert.notStrictEqual(again.id, lease.id)
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("never lets a lease run out where told so", () =>
    Effect.gen(function*() {
      const { registry } = yield* Memory.Memory
      const lease = yield* registry.register(haul)
      assert.strictEqual("expiresAfter" in lease, false)
      assert.strictEqual(registry.capabilities.expiresAfter, undefined)
      yield* TestClock.adjust("1000 days")
      yield* registry.heartbeat(lease)
    }).pipe(Effect.provide(Memory.layer({ expiresAfter: "Infinity" }))))

  it.effect("a clock that jumps back keeps leases, one that jumps ahead ends them", () =>
    Effect.gen(function*() {
      const { registry, services } = yield* Memory.Memory
      yield* TestClock.setTime(1_000_000)
      const lease = yield* registry.register(haul)
      yield* TestClock.setTime(0)
      yield* registry.heartbeat(lease)
      assert.strictEqual((yield* services).length, 1)
      yield* TestClock.setTime(10_000_000)
      assert.strictEqual((yield* Effect.flip(registry.heartbeat(lease))).reason._tag, "LeaseExpired")
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("can be told to forget, to expire, to take over, to judge and to fail", () =>
    Effect.gen(function*() {
      const memory = yield* Memory.Memory
      const { registry } = memory
      const reasonOf = (lease: { readonly id: string; readonly name: string; readonly type: string }) =>
        Effect.map(
          Effect.result(registry.heartbeat({ registeredAt: 0, data: haul.apiUrl, ...lease })),
          (result) => result._tag === "Failure" ? result.failure.reason._tag : "ok"
        )

      const first = yield* registry.register(haul)
      yield* memory.forgetAll
      assert.strictEqual(yield* reasonOf(first), "UnknownLease")

      const second = yield* registry.register(haul)
      assert.strictEqual(yield* memory.expire(haul), true)
      assert.strictEqual(yield* reasonOf(second), "LeaseExpired")
      assert.strictEqual(yield* memory.expire(haul), false)

      const third = yield* registry.register(haul)
      assert.strictEqual(yield* memory.takeOver(haul, "http://other:1"), true)
      assert.strictEqual(yield* reasonOf(third), "LeaseTaken")
      const byOther = yield* Effect.flip(registry.verify(third, haul))
      assert.strictEqual(byOther.message.includes("http://other:1"), true)
      // Who lost the identity must not remove who has it now.
      yield* registry.deregister(third)
      assert.strictEqual((yield* memory.services).length, 1)

      const fourth = yield* registry.register(haul)
      assert.strictEqual(yield* memory.setStatus(haul, "degraded"), true)
      assert.strictEqual((yield* memory.services)[0]?.status, "degraded")
      yield* registry.heartbeat(fourth)
      assert.strictEqual((yield* memory.services)[0]?.status, "online")

      yield* memory.failAs("Throttled", { retryAfter: Duration.seconds(7) })
      const throttled = yield* Effect.flip(registry.register(haul))
      assert.strictEqual(throttled.message.startsWith("register (memory download-client/haul)"), true)
      assert.strictEqual((yield* Effect.flip(memory.directory.discover({}))).reason._tag, "Throttled")
      const dropped = yield* Effect.flip(Effect.scoped(memory.directory.changes(dial)))
      assert.strictEqual(dropped._tag === "Transient" ? dropped.reason._tag : dropped._tag, "Throttled")
      yield* memory.failAs(undefined)
      yield* registry.heartbeat(fourth)
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("pushes every kind of change", () =>
    Effect.gen(function*() {
      const memory = yield* Memory.Memory
      const watcher = yield* Effect.forkChild(
        Stream.runCollect(Stream.take(told, 5)),
        { startImmediately: true }
      )
      const lease = yield* memory.registry.register(haul)
      yield* memory.setStatus(haul, "offline")
      yield* memory.registry.heartbeat(lease)
      yield* memory.registry.heartbeat(lease)
      yield* memory.takeOver(haul, "http://other:1")
      yield* memory.expire(haul)
      const changes = yield* Fiber.join(watcher)
      assert.deepStrictEqual(
        changes.map((change) => change._tag === "StatusChanged" ? change.status : change._tag),
        ["Registered", "offline", "online", "Registered", "Deregistered"]
      )
    }).pipe(Effect.provide(Memory.layer())))

  it.effect("remembers only so many leases that ran out", () =>
    Effect.gen(function*() {
      const { registry } = yield* Memory.Memory
      const first = yield* registry.register(haul)
      yield* TestClock.adjust("2 minutes")
      yield* Effect.forEach(
        Array.from({ length: 1000 }, (_, n) => n),
        (n) => registry.register({ ...haul, name: `n${n}` })
      )
      assert.strictEqual((yield* Effect.flip(registry.heartbeat(first))).reason._tag, "LeaseExpired")
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* Effect.flip(registry.heartbeat(first))).reason._tag, "UnknownLease")
    }).pipe(Effect.provide(Memory.layer())))

  it.live("keeps one timer while leases may run out, and none after its scope", () =>
    Effect.gen(function*() {
      const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length
      const before = timers()
      yield* Effect.gen(function*() {
        const { registry } = yield* Memory.Memory
        yield* registry.register(haul)
        yield* Effect.yieldNow
        assert.strictEqual(timers(), before + 1)
      }).pipe(Effect.provide(Memory.layer()))
      assert.strictEqual(timers(), before)
    }))

  it.effect("is the registry that its layer provides", () =>
    Effect.gen(function*() {
      const memory = yield* Memory.Memory
      assert.strictEqual(yield* Registry.Registry, memory.registry)
      assert.strictEqual(yield* Directory.Directory, memory.directory)
    }).pipe(Effect.provide(Memory.layer())))
})
