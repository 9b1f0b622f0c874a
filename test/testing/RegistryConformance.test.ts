import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import * as Directory from "effect-lifeline/Directory"
import * as Registry from "effect-lifeline/Registry"
import * as Memory from "effect-lifeline/registry/Memory"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

type Port = Registry.Registry["Service"]

type Find = Directory.Directory["Service"]

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

/** The names of the cases that a registry does not pass. */
const failures = (
  break_: (port: Port) => Port,
  use = harness,
  options?: Memory.Options,
  breakDirectory: (directory: Find) => Find = (directory) => directory
) =>
  Effect.gen(function*() {
    const names: Array<string> = []
    for (const { name, run } of RegistryConformance.cases(use)) {
      const broken = Layer.effectContext(
        Effect.map(Memory.Memory, (memory) =>
          Context.make(Registry.Registry, break_(memory.registry)).pipe(
            Context.add(Directory.Directory, breakDirectory(memory.directory))
          ))
      ).pipe(Layer.provide(Memory.layer(options)))
      const result = yield* Effect.result(Effect.provide(run, broken))
      if (result._tag === "Failure") {
        assert.strictEqual(result.failure._tag, "Nonconformance")
        assert.strictEqual(result.failure.case, name)
        assert.strictEqual(result.failure.message.includes("expected"), true)
        names.push(name)
      }
    }
    return names
  })

let count = 0

const breakages: Readonly<Record<string, readonly [case_: string, break_: (port: Port) => Port]>> = {
  "a new id for each registration": [
    "registering the same identity again updates it",
    (port) => ({
      ...port,
      register: (it) => Effect.map(port.register(it), (lease) => ({ ...lease, id: `${++count}` }))
    })
  ],
  "one id for everybody": [
    "the same name with another type is another service",
    (port) => ({ ...port, register: (it) => Effect.map(port.register(it), (lease) => ({ ...lease, id: "one" })) })
  ],
  "an update that keeps the old fields": [
    "registering the same identity again updates it",
    (port) => {
      const first = new Map<string, string>()
      return {
        ...port,
        register: (it) => {
          const version = first.get(it.name) ?? it.version ?? ""
          first.set(it.name, version)
          return port.register({ ...it, version })
        }
      }
    }
  ],
  "no check of the instance": [
    "a bad instance is refused with the path of its field",
    (port) => ({ ...port, register: (it) => port.register({ ...it, name: it.name.trim().slice(0, 200) || "x" }) })
  ],
  "heartbeats that do nothing": [
    "a service that beats stays",
    (port) => ({ ...port, heartbeat: () => Effect.void })
  ],
  "heartbeats that notice no loss": [
    "a lease that is gone is lost to verify, and to a heartbeat where the adapter says so",
    (port) => ({
      ...port,
      heartbeat: (lease) => Effect.catchTag(port.heartbeat(lease), "LeaseLost", () => Effect.void)
    })
  ],
  "a verify that believes everything": [
    "an identity that another address took is reported to the first",
    (port) => ({ ...port, verify: () => Effect.void })
  ],
  "a verify that calls everything unknown": [
    "what is registered is verified",
    (port) => ({
      ...port,
      verify: () =>
        Effect.suspend(() => Effect.fail(Classify.make("UnknownLease", { operation: "verify", target: "test" })))
    })
  ],
  "a takeover without a name": [
    "an identity that another address took is reported to the first",
    (port) => ({
      ...port,
      verify: (lease, instance) =>
        Effect.catchTag(
          port.verify(lease, instance),
          "LeaseLost",
          (error) => Effect.fail(Classify.make(error.reason._tag, error))
        )
    })
  ],
  "a deregister that removes nothing": [
    "deregistering removes, and may be done again",
    (port) => ({ ...port, deregister: () => Effect.void })
  ],
  "a deregister that minds what is gone": [
    "deregistering removes, and may be done again",
    (port) => ({
      ...port,
      deregister: (lease) =>
        Effect.catch(
          port.heartbeat(lease),
          () => Effect.fail(Classify.make("NotFound", { operation: "deregister", target: "test" }))
        ).pipe(Effect.andThen(port.deregister(lease)))
    })
  ],
  "metadata that is lost": [
    "everything that is registered is found again",
    (port) => ({ ...port, register: (it) => port.register({ ...it, metadata: {} }) })
  ],
  "a key that is not passed on": [
    "a shared API key reaches peers, and no text",
    (port) => ({ ...port, register: (it) => port.register({ ...it, apiKey: undefined }) })
  ],
  "a key in plain text": [
    "a shared API key reaches peers, and no text",
    (port) => ({
      ...port,
      register: (it) =>
        port.register({ ...it, metadata: { key: it.apiKey === undefined ? "" : Redacted.value(it.apiKey) } })
    })
  ],
  "a credential that shows": [
    "the credential is redacted",
    (port) => ({ ...port, credential: Registry.fixedCredential("plain" as unknown as Redacted.Redacted) })
  ]
}

const directoryBreakages: Readonly<Record<string, readonly [case_: string, break_: (directory: Find) => Find]>> = {
  "a discover without filters": [
    "discovery finds by name, type and capability, and by all of them together",
    (port) => ({ ...port, discover: () => port.discover({}) })
  ],
  "a discover that forgets the type beside a capability": [
    "discovery finds by name, type and capability, and by all of them together",
    (port) => ({
      ...port,
      discover: (query) => port.discover(query.capability === undefined ? query : { capability: query.capability })
    })
  ],
  "changes that never come": [
    "changes are pushed, or refused as unsupported",
    (port) => ({ ...port, changes: () => Effect.succeed(Stream.never) })
  ],
  "changes that end": [
    "changes are pushed, or refused as unsupported",
    (port) => ({ ...port, changes: () => Effect.succeed(Stream.empty) })
  ],
  "changes that begin later than they say": [
    "changes are pushed, or refused as unsupported",
    (port) => ({
      ...port,
      changes: (dial) => Effect.succeed(Stream.unwrap(Effect.andThen(Effect.yieldNow, port.changes(dial))))
    })
  ],
  "a later connection that tells nothing of what was missed": [
    "a later connection that has nothing to resume after begins with a gap",
    (port) => ({ ...port, changes: (dial) => port.changes({ ...dial, generation: 1 }) })
  ],
  "changes where there are said to be none": [
    "changes are pushed, or refused as unsupported",
    (port) => ({
      ...port,
      capabilities: { ...port.capabilities, watch: "none" },
      changes: () => Effect.succeed(Stream.empty)
    })
  ]
}

describe("RegistryConformance", () => {
  for (const [name, [case_, break_]] of Object.entries(breakages)) {
    it.effect(`finds ${name}`, () =>
      Effect.gen(function*() {
        const found = yield* failures(break_)
        assert.strictEqual(found.includes(case_), true, found.join("; "))
      }))
  }

  for (const [name, [case_, break_]] of Object.entries(directoryBreakages)) {
    it.effect(`finds ${name}`, () =>
      Effect.gen(function*() {
        const bare: RegistryConformance.Harness = {}
        const found = yield* failures((port) => port, bare, undefined, break_).pipe(
          Effect.race(Effect.forever(TestClock.adjust("1 minute")))
        )
        assert.include(found, case_)
      }))
  }

  it.effect("finds nothing in a registry that is right", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* failures((port) => port), [])
    }))

  it.effect("finds leases that never run out though they should", () =>
    Effect.gen(function*() {
      const found = yield* failures(
        (port) => ({
          ...port,
          capabilities: { ...port.capabilities, expiresAfter: Duration.seconds(90) },
          register: (it) => Effect.map(port.register(it), (lease) => ({ ...lease, expiresAfter: 90_000 }))
        }),
        harness,
        { expiresAfter: "Infinity" }
      )
      assert.deepStrictEqual(found, ["a service that does not beat is no longer online once its lease is over"])
    }))

  it.effect("finds a wrong credential that counts as an outage, and an outage that counts as final", () =>
    Effect.gen(function*() {
      const found = yield* failures((port) => port, {
        unauthorized: failing("Unreachable"),
        unreachable: failing("Unauthorized")
      })
      assert.deepStrictEqual(found, [
        "a wrong credential fails every call as AuthFailed",
        "a registry that cannot be reached fails every call as Transient"
      ])
    }))

  it("leaves out what the harness cannot do, and names no two cases alike", () => {
    const bare = RegistryConformance.cases()
    const full = RegistryConformance.cases(harness)
    assert.strictEqual(full.length, bare.length + 4)
    assert.strictEqual(new Set(full.map(({ name }) => name)).size, full.length)
  })

  it.effect("its cases share a registry, run at once, and leave nothing behind", () =>
    Effect.gen(function*() {
      const cases = RegistryConformance.cases()
      yield* Effect.forEach(cases, ({ run }) => run, { concurrency: "unbounded", discard: true })
      const memory = yield* Memory.Memory
      assert.deepStrictEqual(yield* memory.services, [])
    }).pipe(Effect.provide(Memory.layer())))
})
