/**
 * What every registry adapter must do, as a list of named effects: for adapters by others as for those of this package.
 * Each case is an effect that needs a `Registry` and fails with {@link Nonconformance}; it runs under any test runner.
 *
 * The cases use only the port, and read its `capabilities` to know what to expect. They work on names of their own, so
 * they can share one registry, and run in any order or at once. What they cannot do through the port alone is for the
 * {@link Harness} to bring; where it does not, those cases are left out.
 *
 * **Example** (Under vitest)
 *
 * ```ts
 * import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
 * import * as Memory from "effect-lifeline/registry/Memory"
 * import * as Effect from "effect/Effect"
 *
 * declare const test: (name: string, run: () => Promise<void>) => void
 *
 * for (const { name, run } of RegistryConformance.cases()) {
 *   test(name, () => Effect.runPromise(run.pipe(Effect.provide(Memory.layer()))))
 * }
 * ```
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Lease from "../Lease.ts"
import type { AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"
import * as Registry from "../Registry.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"

/**
 * A registry does not do what the port asks.
 *
 * @category errors
 * @since 0.1.0
 */
export class Nonconformance extends Data.TaggedError("Nonconformance")<{
  readonly case: string
  readonly expected: string
  readonly actual: string
}> {
  override get message() {
    return `${this.case}: expected ${this.expected}, got ${this.actual}`
  }
}

/**
 * What a suite can use beside the port.
 *
 * @category models
 * @since 0.1.0
 */
export interface Harness {
  /** Lets time pass for the registry, e.g. `TestClock.adjust`. Needed for what depends on expiry. */
  readonly elapse?: ((duration: Duration.Duration) => Effect.Effect<void>) | undefined
  /** The same registry, asked with a wrong credential. */
  readonly unauthorized?: Effect.Effect<Registry.Registry["Service"]> | undefined
  /** An adapter whose registry cannot be reached. */
  readonly unreachable?: Effect.Effect<Registry.Registry["Service"]> | undefined
}

/**
 * A named case.
 *
 * @category models
 * @since 0.1.0
 */
export interface Case {
  readonly name: string
  readonly run: Effect.Effect<void, Nonconformance, Registry.Registry>
}

type PortError = Transient | LeaseLost | AuthFailed | Refused

type Port = Registry.Registry["Service"]

/** What a check found; {@link Nonconformance} adds the case. */
class Mismatch extends Data.TaggedError("Mismatch")<{ readonly expected: string; readonly actual: string }> {}

const show = (value: unknown): string => JSON.stringify(value) ?? String(value)

const describe = (error: PortError): string => `${error._tag} (${error.reason._tag}): ${error.message}`

const holds = (expected: string, condition: boolean, actual: unknown): Effect.Effect<void, Mismatch> =>
  condition ? Effect.void : Effect.suspend(() => Effect.fail(new Mismatch({ expected, actual: show(actual) })))

const equals = (what: string, actual: unknown, expected: unknown): Effect.Effect<void, Mismatch> =>
  holds(`${what} to be ${show(expected)}`, show(actual) === show(expected), actual)

const succeeds = <A, R>(what: string, effect: Effect.Effect<A, PortError, R>): Effect.Effect<A, Mismatch, R> =>
  Effect.mapError(effect, (error) => new Mismatch({ expected: `${what} to succeed`, actual: describe(error) }))

const failsAs = (
  what: string,
  expected: `${PortError["_tag"]}${"" | `.${string}`}`,
  effect: Effect.Effect<unknown, PortError>
): Effect.Effect<PortError, Mismatch> =>
  Effect.matchEffect(effect, {
    onSuccess: (value) =>
      Effect.fail(new Mismatch({ expected: `${what} to fail as ${expected}`, actual: `success: ${show(value)}` })),
    onFailure: (error) =>
      expected === error._tag || expected === `${error._tag}.${error.reason._tag}`
        ? Effect.succeed(error)
        : Effect.fail(new Mismatch({ expected: `${what} to fail as ${expected}`, actual: describe(error) }))
  })

/** Registers for the length of a case. */
const register = (
  port: Port,
  instance: ServiceInstance.ServiceInstance
): Effect.Effect<Lease.Lease, Mismatch, Scope.Scope> =>
  Effect.acquireRelease(
    succeeds("register", port.register(instance)),
    (lease) => Effect.ignore(port.deregister(lease))
  )

const discover = (port: Port, query: Registry.Query) => succeeds(`discover of ${show(query)}`, port.discover(query))

const namesOf = (services: ReadonlyArray<ServiceInstance.RegisteredService>): ReadonlyArray<string> =>
  services.map((service) => service.name).sort()

/** A case's own instances: `type` is used by no other case. */
type Make = (more?: Partial<ServiceInstance.Input>) => ServiceInstance.ServiceInstance

type Body = (port: Port, make: Make, type: string) => Effect.Effect<void, Mismatch, Scope.Scope>

type Bodies = ReadonlyArray<readonly [name: string, body: Body]>

const always: Bodies = [
  [
    "registering gives a lease that names the instance",
    Effect.fnUntraced(function*(port, make, type) {
      const lease = yield* register(port, make())
      yield* equals("the lease's name and type", [lease.name, lease.type], ["first", type])
      yield* holds("an id", lease.id !== "", lease)
    })
  ],
  [
    "registering the same identity again updates it",
    Effect.fnUntraced(function*(port, make, type) {
      const first = yield* register(port, make({ version: "1", capabilities: ["old", "kept"] }))
      const second = yield* register(port, make({ version: "2", capabilities: ["kept", "new"] }))
      yield* equals("the id", second.id, first.id)
      const services = yield* discover(port, { type })
      yield* equals("how many there are", services.length, 1)
      yield* equals("the version", services[0]?.version, "2")
      yield* equals("the capabilities", [...services[0]?.capabilities ?? []].sort(), ["kept", "new"])
    })
  ],
  [
    "registering at once from many fibers makes one registration",
    Effect.fnUntraced(function*(port, make, type) {
      const leases = yield* Effect.all(Array.from({ length: 8 }, () => register(port, make())), {
        concurrency: "unbounded"
      })
      yield* equals("how many ids there are", new Set(leases.map((lease) => lease.id)).size, 1)
      yield* equals("how many services there are", (yield* discover(port, { type })).length, 1)
    })
  ],
  [
    "the same name with another type is another service",
    Effect.fnUntraced(function*(port, make, type) {
      const first = yield* register(port, make())
      const other = yield* register(port, make({ type: `${type}-other` }))
      yield* holds("different ids", first.id !== other.id, [first.id, other.id])
    })
  ],
  [
    "a bad instance is refused with the path of its field",
    Effect.fnUntraced(function*(port, make) {
      const wrong = [
        ["instance.name", make({ name: " " })],
        ["instance.name", make({ name: "x".repeat(201) })],
        ["instance.type", make({ type: "x".repeat(51) })],
        ["instance.apiUrl", make({ apiUrl: "haul:8484" })]
      ] as const
      for (const [path, instance] of wrong) {
        const error = yield* failsAs(`register with a bad ${path}`, "Refused.InvalidRequest", port.register(instance))
        const issues = error.reason._tag === "InvalidRequest" ? error.reason.issues : []
        yield* holds(`an issue at ${path}`, issues.some((issue) => issue.path === path), issues)
      }
    })
  ],
  [
    "a heartbeat makes a service online",
    Effect.fnUntraced(function*(port, make, type) {
      const lease = yield* register(port, make())
      yield* succeeds("heartbeat", port.heartbeat(lease))
      yield* equals("the status", (yield* discover(port, { type }))[0]?.status, "online")
    })
  ],
  [
    "what is registered is verified",
    Effect.fnUntraced(function*(port, make) {
      const lease = yield* register(port, make())
      yield* succeeds("verify", port.verify(lease, make()))
    })
  ],
  [
    "a lease that is gone is lost to verify, and to a heartbeat where the adapter says so",
    Effect.fnUntraced(function*(port, make) {
      const lease = yield* register(port, make())
      yield* succeeds("deregister", port.deregister(lease))
      yield* failsAs("verify", "LeaseLost", port.verify(lease, make()))
      if (port.capabilities.heartbeatDetectsLoss) {
        yield* failsAs("heartbeat", "LeaseLost", port.heartbeat(lease))
      }
    })
  ],
  [
    "after a loss registering helps",
    Effect.fnUntraced(function*(port, make) {
      const lost = yield* register(port, make())
      yield* succeeds("deregister", port.deregister(lost))
      const lease = yield* register(port, make())
      yield* succeeds("verify", port.verify(lease, make()))
      yield* succeeds("heartbeat", port.heartbeat(lease))
    })
  ],
  [
    "deregistering removes, and may be done again",
    Effect.fnUntraced(function*(port, make, type) {
      const lease = yield* register(port, make())
      yield* succeeds("deregister", port.deregister(lease))
      yield* equals("what is left", yield* discover(port, { type }), [])
      yield* succeeds("deregister, again", port.deregister(lease))
    })
  ],
  [
    "an identity that another address took is reported to the first",
    Effect.fnUntraced(function*(port, make) {
      const first = yield* register(port, make())
      const other = make({ apiUrl: "http://second.test:8080" })
      const second = yield* register(port, other)
      const error = yield* failsAs("verify of the first", "LeaseLost.LeaseTaken", port.verify(first, make()))
      const by = error.reason._tag === "LeaseTaken" ? error.reason.by : undefined
      yield* holds("who took it", by?.startsWith("http://second.test:8080") === true, by)
      yield* succeeds("verify of the second", port.verify(second, other))
    })
  ],
  [
    "discovery finds by name, type and capability, and by all of them together",
    Effect.fnUntraced(function*(port, make, type) {
      const capability = `${type}-capability`
      yield* register(port, make({ capabilities: [capability] }))
      yield* register(port, make({ name: "second", capabilities: [capability, "other"] }))
      yield* register(port, make({ name: "third", type: `${type}-x`, capabilities: [capability] }))
      const find = (query: Registry.Query) => Effect.map(discover(port, query), namesOf)
      yield* equals("by type", yield* find({ type }), ["first", "second"])
      yield* equals("by capability", yield* find({ capability }), ["first", "second", "third"])
      yield* equals("by name and type", yield* find({ name: "second", type }), ["second"])
      yield* equals("by type and capability", yield* find({ type, capability }), ["first", "second"])
      yield* equals("by name and capability", yield* find({ name: "third", capability }), ["third"])
      yield* equals("by what nobody has", yield* find({ type, capability: `${type}-none` }), [])
      const all = yield* find({})
      yield* holds("all three among all", ["first", "second", "third"].every((name) => all.includes(name)), all)
    })
  ],
  [
    "everything that is registered is found again",
    Effect.fnUntraced(function*(port, make, type) {
      const instance = make({
        name: "naïve 服务 & <co>?#/",
        apiUrl: "https://first.test:8443/base",
        healthUrl: "https://first.test:8443/health",
        version: "1.2.3",
        capabilities: ["supports_torrent"],
        metadata: { region: "eu", weights: [1, 2.5], nested: { on: true, none: null } }
      })
      const lease = yield* register(port, instance)
      const service = (yield* discover(port, { type }))[0]
      yield* equals("id", service?.id, lease.id)
      yield* equals("name", service?.name, instance.name)
      yield* equals("apiUrl", service?.apiUrl, instance.apiUrl)
      yield* equals("healthUrl", service?.healthUrl, instance.healthUrl)
      yield* equals("version", service?.version, instance.version)
      yield* equals("capabilities", service?.capabilities, instance.capabilities)
      yield* equals("metadata", service?.metadata, instance.metadata)
      yield* succeeds("verify", port.verify(lease, instance))
    })
  ],
  [
    "a shared API key reaches peers, and no text",
    Effect.fnUntraced(function*(port, make, type) {
      const secret = "conformance-canary-0123456789"
      yield* register(port, make({ apiKey: Redacted.make(secret) }))
      yield* register(port, make({ name: "second" }))
      const services = yield* discover(port, { type })
      const keyOf = (name: string) => services.find((service) => service.name === name)?.apiKey
      const first = keyOf("first")
      yield* equals("the key", first === undefined ? undefined : Redacted.value(first) === secret, true)
      yield* equals("the key of who shares none", keyOf("second"), undefined)
      yield* holds("no secret in the service as JSON", !show(services).includes(secret), "the secret")
    })
  ],
  [
    "the credential is redacted",
    Effect.fnUntraced(function*(port) {
      const current = yield* port.credential.current
      yield* holds("redacted, or none", current === undefined || Redacted.isRedacted(current), typeof current)
    })
  ],
  [
    "changes are pushed, or refused as unsupported",
    Effect.fnUntraced(function*(port, make) {
      if (port.capabilities.watch === "none") {
        yield* failsAs("changes", "Refused.Unsupported", Stream.runDrain(port.changes))
        return
      }
      if (port.capabilities.watch === "poll") return
      const found = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkScoped(
        Stream.runForEach(port.changes, (change) =>
          change._tag === "Registered" && change.service.name === "first"
            ? Deferred.succeed(found, undefined)
            : Effect.void),
        { startImmediately: true }
      )
      // A push has no memory of what was before the subscription, so it takes a few.
      yield* register(port, make())
      for (let n = 0; n < 200 && !(yield* Deferred.isDone(found)); n++) {
        yield* succeeds("register", port.register(make()))
        yield* Effect.yieldNow
      }
      yield* holds("a Registered of the service among the changes", yield* Deferred.isDone(found), "none")
      yield* Fiber.interrupt(fiber)
    })
  ]
]

const called = (port: Port, lease: Lease.Lease, instance: ServiceInstance.ServiceInstance) =>
  [
    ["register", port.register(instance)],
    ["heartbeat", port.heartbeat(lease)],
    ["verify", port.verify(lease, instance)],
    ["deregister", port.deregister(lease)],
    ["discover", port.discover({})]
  ] as ReadonlyArray<readonly [operation: string, effect: Effect.Effect<unknown, PortError>]>

const withTime = (elapse: (duration: Duration.Duration) => Effect.Effect<void>): Bodies => [
  [
    "a service that does not beat is no longer online once its lease is over",
    Effect.fnUntraced(function*(port, make, type) {
      const lease = yield* register(port, make())
      yield* succeeds("heartbeat", port.heartbeat(lease))
      const expiresAfter = lease.expiresAfter ?? Duration.toMillis(port.capabilities.expiresAfter ?? Duration.infinity)
      if (expiresAfter === Infinity) return
      yield* elapse(Duration.millis(1.5 * expiresAfter))
      const services = yield* discover(port, { type })
      yield* holds("no service that is online", services.every((service) => service.status !== "online"), services)
    })
  ],
  [
    "a service that beats stays",
    Effect.fnUntraced(function*(port, make, type) {
      const lease = yield* register(port, make())
      const expiresAfter = lease.expiresAfter ?? Duration.toMillis(port.capabilities.expiresAfter ?? Duration.infinity)
      for (let n = 0; n < 4; n++) {
        yield* succeeds("heartbeat", port.heartbeat(lease))
        yield* elapse(expiresAfter === Infinity ? Duration.hours(1) : Duration.millis(expiresAfter / 2))
      }
      yield* succeeds("heartbeat", port.heartbeat(lease))
      yield* equals("the status", (yield* discover(port, { type }))[0]?.status, "online")
    })
  ]
]

const whenUnauthorized = (wrong: Effect.Effect<Port>): Bodies => [
  [
    "a wrong credential fails every call as AuthFailed",
    Effect.fnUntraced(function*(port, make) {
      const lease = yield* register(port, make())
      for (const [operation, effect] of called(yield* wrong, lease, make())) {
        const error = yield* failsAs(operation, "AuthFailed", effect)
        yield* holds(`the operation ${operation} in the error`, error.message.includes(operation), error.message)
      }
      yield* succeeds("verify, with the right credential", port.verify(lease, make()))
    })
  ]
]

const whenUnreachable = (absent: Effect.Effect<Port>): Bodies => [
  [
    "a registry that cannot be reached fails every call as Transient",
    Effect.fnUntraced(function*(port, make) {
      const lease = yield* register(port, make())
      for (const [operation, effect] of called(yield* absent, lease, make())) {
        const error = yield* failsAs(operation, "Transient", effect)
        yield* holds(`the operation ${operation} in the error`, error.message.includes(operation), error.message)
      }
    })
  ]
]

/**
 * The cases that apply to a harness.
 *
 * @category constructors
 * @since 0.1.0
 */
export const cases = (harness: Harness = {}): ReadonlyArray<Case> =>
  [
    ...always,
    ...(harness.elapse === undefined ? [] : withTime(harness.elapse)),
    ...(harness.unauthorized === undefined ? [] : whenUnauthorized(harness.unauthorized)),
    ...(harness.unreachable === undefined ? [] : whenUnreachable(harness.unreachable))
  ].map(([name, body], index) => ({
    name,
    run: Effect.flatMap(Registry.Registry, (port) => {
      const type = `conformance-${index}`
      return Effect.scoped(
        body(port, (more) => ({ name: "first", type, apiUrl: "http://first.test:8080", ...more }), type)
      )
    }).pipe(
      Effect.mapError(({ actual, expected }) => new Nonconformance({ case: name, expected, actual }))
    )
  }))
