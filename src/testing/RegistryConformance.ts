/**
 * What every registry adapter must do, as a list of named effects: for adapters by others as for those of this package.
 * Each case is an effect that needs a `Registry` and a `Directory` of it, and fails with {@link Nonconformance}; it runs under
 * any test runner. An adapter that cannot find services runs {@link casesOfRegistry}: the same, without what only a
 * directory shows.
 *
 * The cases use only the ports, and read their `capabilities` to know what to expect. They work on names of their own, so
 * they can share one registry, and run in any order or at once. What they cannot do through the ports alone is for the
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Classify from "../Classify.ts"
import * as Directory from "../Directory.ts"
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
 * A registry by its two ports; without `directory` it cannot be asked for services.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ports {
  readonly registry: Registry.Registry["Service"]
  readonly directory?: Directory.Directory["Service"] | undefined
}

/**
 * What a suite can use beside the ports.
 *
 * @category models
 * @since 0.1.0
 */
export interface Harness {
  /** Lets time pass for the registry, e.g. `TestClock.adjust`. Needed for what depends on expiry. */
  readonly elapse?: ((duration: Duration.Duration) => Effect.Effect<void>) | undefined
  /** The same registry, asked with a wrong credential. */
  readonly unauthorized?: Effect.Effect<Ports> | undefined
  /** An adapter whose registry cannot be reached. */
  readonly unreachable?: Effect.Effect<Ports> | undefined
}

/**
 * A named case.
 *
 * @category models
 * @since 0.1.0
 */
export interface Case<out R = Registry.Registry | Directory.Directory> {
  readonly name: string
  readonly run: Effect.Effect<void, Nonconformance, R>
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

const failsAs = <R>(
  what: string,
  expected: `${PortError["_tag"]}${"" | `.${string}`}`,
  effect: Effect.Effect<unknown, PortError, R>
): Effect.Effect<PortError, Mismatch, R> =>
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

type Find = Directory.Directory["Service"]

const discover = (directory: Find, query: Directory.Query) =>
  succeeds(`discover of ${show(query)}`, directory.discover(query))

const namesOf = (services: ReadonlyArray<ServiceInstance.RegisteredService>): ReadonlyArray<string> =>
  services.map((service) => service.name).sort()

/** A case's own instances: `type` is used by no other case. */
type Make = (more?: Partial<ServiceInstance.Input>) => ServiceInstance.ServiceInstance

type Body = (
  port: Port,
  make: Make,
  type: string,
  directory: Find | undefined
) => Effect.Effect<void, Mismatch, Scope.Scope>

/** What only a directory shows. */
type Looking = (port: Port, make: Make, type: string, directory: Find) => Effect.Effect<void, Mismatch, Scope.Scope>

type Bodies = ReadonlyArray<readonly [name: string, body: Body]>

type Lookings = ReadonlyArray<readonly [name: string, body: Looking]>

/** One connection. What is unclear about it counts as a failure for now. */
const connecting = (directory: Find, generation: number) =>
  Effect.mapError(
    directory.changes({ cursor: undefined, attempt: 1, generation }),
    (error) =>
      error._tag === "Inconclusive" || error._tag === "Stop"
        ? Classify.unreachable({ operation: error.operation, target: error.target, detail: error.message })
        : error
  )

/** A registration of a case: by its id, or by its type where ids are not what is looked at. */
const isRegistered = (change: Directory.Change, id: string, type: string): boolean =>
  change._tag === "Registered" && (change.id === id || change.service?.type === type || change.query?.type === type)

/** How long the registry may take to tell of a change; in the clock of the test. */
const within = Duration.seconds(5)

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
    Effect.fnUntraced(function*(port, make, type, directory) {
      const first = yield* register(port, make({ version: "1", capabilities: ["old", "kept"] }))
      const second = yield* register(port, make({ version: "2", capabilities: ["kept", "new"] }))
      yield* equals("the id", second.id, first.id)
      if (directory === undefined) return
      const services = yield* discover(directory, { type })
      yield* equals("how many there are", services.length, 1)
      yield* equals("the version", services[0]?.version, "2")
      yield* equals("the capabilities", [...services[0]?.capabilities ?? []].sort(), ["kept", "new"])
    })
  ],
  [
    "registering at once from many fibers makes one registration",
    Effect.fnUntraced(function*(port, make, type, directory) {
      const leases = yield* Effect.all(Array.from({ length: 8 }, () => register(port, make())), {
        concurrency: "unbounded"
      })
      yield* equals("how many ids there are", new Set(leases.map((lease) => lease.id)).size, 1)
      if (directory === undefined) return
      yield* equals("how many services there are", (yield* discover(directory, { type })).length, 1)
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
    Effect.fnUntraced(function*(port, make, type, directory) {
      const lease = yield* register(port, make())
      yield* succeeds("heartbeat", port.heartbeat(lease))
      if (directory === undefined) return
      yield* equals("the status", (yield* discover(directory, { type }))[0]?.status, "online")
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
    Effect.fnUntraced(function*(port, make, type, directory) {
      const lease = yield* register(port, make())
      yield* succeeds("deregister", port.deregister(lease))
      if (directory !== undefined) yield* equals("what is left", yield* discover(directory, { type }), [])
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
    "the credential is redacted",
    Effect.fnUntraced(function*(port) {
      const current = yield* port.credential.current
      yield* holds("redacted, or none", current === undefined || Redacted.isRedacted(current), typeof current)
    })
  ]
]

const looking: Lookings = [
  [
    "discovery finds by name, type and capability, and by all of them together",
    Effect.fnUntraced(function*(port, make, type, directory) {
      const capability = `${type}-capability`
      yield* register(port, make({ capabilities: [capability] }))
      yield* register(port, make({ name: "second", capabilities: [capability, "other"] }))
      yield* register(port, make({ name: "third", type: `${type}-x`, capabilities: [capability] }))
      const find = (query: Directory.Query) => Effect.map(discover(directory, query), namesOf)
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
    Effect.fnUntraced(function*(port, make, type, directory) {
      const instance = make({
        name: "naïve 服务 & <co>?#/",
        apiUrl: "https://first.test:8443/base",
        healthUrl: "https://first.test:8443/health",
        version: "1.2.3",
        capabilities: ["supports_torrent"],
        metadata: { region: "eu", weights: [1, 2.5], nested: { on: true, none: null } }
      })
      const lease = yield* register(port, instance)
      const service = (yield* discover(directory, { type }))[0]
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
    Effect.fnUntraced(function*(port, make, type, directory) {
      const secret = "conformance-canary-0123456789"
      yield* register(port, make({ apiKey: Redacted.make(secret) }))
      yield* register(port, make({ name: "second" }))
      const services = yield* discover(directory, { type })
      const keyOf = (name: string) => services.find((service) => service.name === name)?.apiKey
      const first = keyOf("first")
      yield* equals("the key", first === undefined ? undefined : Redacted.value(first) === secret, true)
      yield* equals("the key of who shares none", keyOf("second"), undefined)
      yield* holds("no secret in the service as JSON", !show(services).includes(secret), "the secret")
    })
  ],
  [
    "changes are pushed, or refused as unsupported",
    Effect.fnUntraced(function*(port, make, type, directory) {
      const connect = connecting(directory, 1)
      if (directory.capabilities.watch === "none") {
        yield* failsAs("changes", "Refused.Unsupported", connect)
        return
      }
      if (directory.capabilities.watch === "poll") return
      const items = yield* succeeds("changes", connect)
      // Whatever happens after it has connected is told.
      const lease = yield* register(port, make())
      const found = yield* items.pipe(
        Stream.filter((item) => item.notice === undefined && isRegistered(item.value, lease.id, type)),
        Stream.runHead,
        Effect.timeoutOption(within),
        Effect.mapError((error) => new Mismatch({ expected: "changes that go on", actual: error.message }))
      )
      yield* holds("a Registered of the service among the changes", Option.isSome(Option.flatten(found)), "none")
    })
  ],
  [
    "a later connection that has nothing to resume after begins with a gap",
    Effect.fnUntraced(function*(_port, _make, _type, directory) {
      if (directory.capabilities.watch === "none" || directory.capabilities.watch === "poll") return
      const connect = connecting(directory, 2)
      const first = yield* Effect.flatMap(succeeds("changes", connect), (items) =>
        items.pipe(
          Stream.filter((item) => item.notice !== "Cursor" && item.notice !== "Retry"),
          Stream.runHead,
          Effect.timeoutOption(within),
          Effect.mapError((error) => new Mismatch({ expected: "changes that go on", actual: error.message }))
        ))
      const item = Option.getOrUndefined(Option.flatten(first))
      yield* holds("the notice Gap, first", item?.notice === "Gap", item)
    })
  ]
]

const called = (ports: Ports, lease: Lease.Lease, instance: ServiceInstance.ServiceInstance) =>
  [
    ["register", ports.registry.register(instance)],
    ["heartbeat", ports.registry.heartbeat(lease)],
    ["verify", ports.registry.verify(lease, instance)],
    ["deregister", ports.registry.deregister(lease)],
    ...(ports.directory === undefined ? [] : [["discover", ports.directory.discover({})]])
  ] as ReadonlyArray<readonly [operation: string, effect: Effect.Effect<unknown, PortError>]>

const withTime = (elapse: (duration: Duration.Duration) => Effect.Effect<void>): Lookings => [
  [
    "a service that does not beat is no longer online once its lease is over",
    Effect.fnUntraced(function*(port, make, type, directory) {
      const lease = yield* register(port, make())
      yield* succeeds("heartbeat", port.heartbeat(lease))
      const expiresAfter = lease.expiresAfter ?? Duration.toMillis(port.capabilities.expiresAfter ?? Duration.infinity)
      if (expiresAfter === Infinity) return
      yield* elapse(Duration.millis(1.5 * expiresAfter))
      const services = yield* discover(directory, { type })
      yield* holds("no service that is online", services.every((service) => service.status !== "online"), services)
    })
  ],
  [
    "a service that beats stays",
    Effect.fnUntraced(function*(port, make, type, directory) {
      const lease = yield* register(port, make())
      const expiresAfter = lease.expiresAfter ?? Duration.toMillis(port.capabilities.expiresAfter ?? Duration.infinity)
      for (let n = 0; n < 4; n++) {
        yield* succeeds("heartbeat", port.heartbeat(lease))
        yield* elapse(expiresAfter === Infinity ? Duration.hours(1) : Duration.millis(expiresAfter / 2))
      }
      yield* succeeds("heartbeat", port.heartbeat(lease))
      yield* equals("the status", (yield* discover(directory, { type }))[0]?.status, "online")
    })
  ]
]

const whenUnauthorized = (wrong: Effect.Effect<Ports>): Bodies => [
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

const whenUnreachable = (absent: Effect.Effect<Ports>): Bodies => [
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

const caseOf = (name: string, index: number, run: (make: Make, type: string) => ReturnType<Body>) => {
  const type = `conformance-${index}`
  return Effect.scoped(run((more) => ({ name: "first", type, apiUrl: "http://first.test:8080", ...more }), type)).pipe(
    Effect.mapError(({ actual, expected }) => new Nonconformance({ case: name, expected, actual }))
  )
}

const bodies = (harness: Harness): Bodies => [
  ...always,
  ...(harness.unauthorized === undefined ? [] : whenUnauthorized(harness.unauthorized)),
  ...(harness.unreachable === undefined ? [] : whenUnreachable(harness.unreachable))
]

/**
 * The cases that apply to a harness.
 *
 * @category constructors
 * @since 0.1.0
 */
export const cases = (harness: Harness = {}): ReadonlyArray<Case> => {
  const all: Lookings = [
    ...bodies(harness),
    ...looking,
    ...(harness.elapse === undefined ? [] : withTime(harness.elapse))
  ]
  return all.map(([name, body], index) => ({
    name,
    run: Effect.flatMap(
      Registry.Registry,
      (registry) =>
        Effect.flatMap(
          Directory.Directory,
          (directory) => caseOf(name, index, (make, type) => body(registry, make, type, directory))
        )
    )
  }))
}

/**
 * The cases that apply to a harness and to a registry without a directory.
 *
 * **Example** (An adapter that only registers)
 *
 * ```ts
 * import type * as Registry from "effect-lifeline/Registry"
 * import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
 * import * as Effect from "effect/Effect"
 * import type * as Layer from "effect/Layer"
 *
 * declare const layer: Layer.Layer<Registry.Registry>
 *
 * export const conforms = Effect.forEach(RegistryConformance.casesOfRegistry(), ({ run }) => Effect.provide(run, layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const casesOfRegistry = (harness: Harness = {}): ReadonlyArray<Case<Registry.Registry>> =>
  bodies(harness).map(([name, body], index) => ({
    name,
    run: Effect.flatMap(
      Registry.Registry,
      (registry) => caseOf(name, index, (make, type) => body(registry, make, type, undefined))
    )
  }))
