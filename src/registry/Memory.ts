/**
 * A registry within the process: for tests, for programs whose services share one process, and as the model of a registry
 * with leases.
 *
 * - A lease runs out `expiresAfter` (90 s unless told otherwise) after its last heartbeat, by `Clock`; its service then
 *   disappears from `discover`, and its heartbeat is answered with `LeaseLost`.
 * - Registering a (name, type) again updates its registration and keeps its id. The lease of an instance at another
 *   address is then `LeaseTaken`.
 * - Closing a lifeline deregisters, heartbeats detect loss, `changes` pushes every change as it happens.
 *
 * It forgets everything with its scope. {@link Memory} is a handle for tests, to break what real registries break.
 *
 * **Example** (A registry that loses its data)
 *
 * ```ts
 * import * as Memory from "effect-lifeline/registry/Memory"
 * import * as Registry from "effect-lifeline/Registry"
 * import * as Effect from "effect/Effect"
 *
 * export const program = Effect.gen(function*() {
 *   const registry = yield* Registry.Registry
 *   const memory = yield* Memory.Memory
 *   const lease = yield* registry.register({ name: "haul", type: "download-client", apiUrl: "http://haul:8484" })
 *   yield* memory.forgetAll
 *   return yield* Effect.flip(registry.heartbeat(lease))
 *   // => LeaseLost (UnknownLease)
 * }).pipe(Effect.provide(Memory.layer()))
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Classify from "../Classify.ts"
import * as Directory from "../Directory.ts"
import type * as Lease from "../Lease.ts"
import type * as LifelineError from "../LifelineError.ts"
import type * as Reconnect from "../Reconnect.ts"
import * as Registry from "../Registry.ts"
import * as ServiceInstance from "../ServiceInstance.ts"

/**
 * How long leases last, and how much watchers may be behind.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * How long after its last heartbeat a lease runs out. `"Infinity"`: never.
   *
   * @default 90 seconds, three of the default heartbeat intervals
   */
  readonly expiresAfter?: Duration.Input | undefined
  /** How many changes a slow reader of `changes` may be behind; the oldest are dropped for it. @default 1024 */
  readonly changesCapacity?: number | undefined
}

/**
 * The identity of a service.
 *
 * @category models
 * @since 0.1.0
 */
export interface Identity {
  readonly name: string
  readonly type: string
}

/**
 * A handle on the registry, beside its port, for tests.
 *
 * @category services
 * @since 0.1.0
 */
export class Memory extends Context.Service<Memory, {
  /** The registry itself. */
  readonly registry: Registry.Registry["Service"]
  /** The same registry, as who looks for services sees it. */
  readonly directory: Directory.Directory["Service"]
  /** What is registered now, lapsed leases excluded. */
  readonly services: Effect.Effect<ReadonlyArray<ServiceInstance.RegisteredService>>
  /** The registry loses all data, and says nothing: every lease is unknown. */
  readonly forgetAll: Effect.Effect<void>
  /** The lease of this identity runs out now. Whether there was one. */
  readonly expire: (identity: Identity) => Effect.Effect<boolean>
  /** An instance at another address registers under this identity. Whether there was one to take over from. */
  readonly takeOver: (identity: Identity, apiUrl: string) => Effect.Effect<boolean>
  /** The registry thinks so of this service, until its next heartbeat. Whether there is such a service. */
  readonly setStatus: (identity: Identity, status: ServiceInstance.ServiceStatus) => Effect.Effect<boolean>
  /**
   * Every call fails so from now on, e.g. as `"Unreachable"` or `"Unauthorized"`, with what else is to be known of it;
   * `undefined`: no longer.
   */
  readonly failAs: (
    verdict: LifelineError.TransientReason["_tag"] | LifelineError.AuthFailedReason["_tag"] | undefined,
    evidence?: Omit<Classify.Evidence, keyof LifelineError.Attempted>
  ) => Effect.Effect<void>
}>()("effect-lifeline/registry/Memory") {}

interface Entry {
  readonly service: ServiceInstance.RegisteredService
  readonly expiresAt: number
}

type Item = Reconnect.Frame<Directory.Change, string> | Reconnect.Notice<string>

const keyOf = (identity: Identity): string => JSON.stringify([identity.type, identity.name])

// How many lapsed leases are remembered, to tell "ran out" from "unknown".
const remembered = 1000

/**
 * Makes a registry. Leases run out as long as its scope is open.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Memory["Service"], never, Scope.Scope> = Effect.fnUntraced(
  function*(options: Options = {}) {
    const scope = yield* Effect.scope
    const expiresAfter = Duration.fromInputUnsafe(options.expiresAfter ?? "90 seconds")
    const ttl = Duration.toMillis(expiresAfter)
    const changes = yield* PubSub.sliding<Directory.Change>(options.changesCapacity ?? 1024)
    const entries = new Map<string, Entry>()
    const keys = new Map<string, string>()
    const lapsed = new Set<string>()
    let count = 0
    let failure: ((at: LifelineError.Attempted) => LifelineError.Transient | LifelineError.AuthFailed) | undefined
    let sweeping = false
    // No lease runs out before this: what spares most calls a look at every lease.
    let soonest = Infinity

    const publish = (change: Directory.Change) => Effect.asVoid(PubSub.publish(changes, change))

    const put = (entry: Entry): void => {
      entries.set(entry.service.id, entry)
      soonest = Math.min(soonest, entry.expiresAt)
      keys.set(keyOf(entry.service), entry.service.id)
    }

    const remove = (service: ServiceInstance.RegisteredService): Effect.Effect<void> => {
      entries.delete(service.id)
      keys.delete(keyOf(service))
      return publish({ _tag: "Deregistered", id: service.id })
    }

    const lapse = (service: ServiceInstance.RegisteredService): Effect.Effect<void> => {
      lapsed.add(service.id)
      for (const oldest of lapsed) {
        if (lapsed.size <= remembered) break
        lapsed.delete(oldest)
      }
      return remove(service)
    }

    const purge = (now: number): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (now < soonest) return Effect.void
        const over: Array<ServiceInstance.RegisteredService> = []
        soonest = Infinity
        for (const { expiresAt, service } of entries.values()) {
          if (expiresAt <= now) over.push(service)
          else soonest = Math.min(soonest, expiresAt)
        }
        return Effect.forEach(over, lapse, { discard: true })
      })

    // One timer for all leases; it ends when it finds nothing left to run out.
    const sweep: Effect.Effect<void> = Effect.gen(function*() {
      while (entries.size > 0) {
        yield* Effect.sleep(Math.max(1, soonest - (yield* Clock.currentTimeMillis)))
        yield* purge(yield* Clock.currentTimeMillis)
      }
      sweeping = false
    })

    const startSweeping = Effect.suspend(() => {
      if (sweeping || ttl === Infinity) return Effect.void
      sweeping = true
      return Effect.asVoid(Effect.forkIn(sweep, scope))
    })

    const find = (identity: Identity): Entry | undefined => entries.get(keys.get(keyOf(identity)) ?? "")

    const change = (identity: Identity, f: (entry: Entry) => Effect.Effect<void>): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        const entry = find(identity)
        return entry === undefined ? Effect.succeed(false) : Effect.as(f(entry), true)
      })

    const setStatus = (entry: Entry, status: ServiceInstance.ServiceStatus): Effect.Effect<void> => {
      put({ ...entry, service: { ...entry.service, status } })
      return status === entry.service.status
        ? Effect.void
        : publish({ _tag: "StatusChanged", id: entry.service.id, status })
    }

    const targetOf = (identity: Identity): string => `memory ${identity.type}/${identity.name}`

    type CallError = LifelineError.Transient | LifelineError.AuthFailed

    /** What holds for every call: the injected failure, and that leases that ran out are gone. */
    const call = <A, E>(
      at: LifelineError.Attempted,
      run: (now: number) => Effect.Effect<A, E>
    ): Effect.Effect<A, E | CallError> =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const result: Effect.Effect<A, E | CallError> = failure === undefined
          ? Effect.andThen(purge(now), run(now))
          : Effect.fail(failure(at))
        return result
      })

    const holding = (
      operation: string,
      lease: Lease.Lease,
      run: (entry: Entry, now: number) => Effect.Effect<void>
    ): Effect.Effect<void, LifelineError.LeaseLost | CallError> => {
      const at = { operation, target: targetOf(lease) }
      return call(at, (now) => {
        const entry = entries.get(lease.id)
        if (entry === undefined) {
          return Effect.fail((lapsed.has(lease.id) ? Classify.leaseExpired : Classify.unknownLease)(at))
        }
        return entry.service.apiUrl === lease.data
          ? run(entry, now)
          : Effect.fail(Classify.leaseTaken({ ...at, by: entry.service.apiUrl }))
      })
    }

    const registry = Registry.Registry.of({
      capabilities: {
        adapter: "memory",
        enabled: true,
        heartbeatDetectsLoss: true,
        expiresAfter: ttl === Infinity ? undefined : expiresAfter,
        deadline: Duration.seconds(1),
        onClose: "deregister",
        browser: "any"
      },
      credential: Registry.fixedCredential(),
      register: (
        input
      ): Effect.Effect<Lease.Lease, LifelineError.Transient | LifelineError.AuthFailed | LifelineError.Refused> =>
        Effect.flatMap(
          ServiceInstance.make(input),
          (instance) =>
            call({ operation: "register", target: targetOf(instance) }, (now) => {
              const id = find(instance)?.service.id ?? `memory-${++count}`
              const { capabilities = [], ...described } = instance
              const service = {
                ...described,
                id,
                status: "online",
                capabilities,
                lastSeen: now,
                registeredAt: now
              } as const
              put({ service, expiresAt: now + ttl })
              const lease: Lease.Lease = {
                id,
                name: instance.name,
                type: instance.type,
                registeredAt: now,
                data: instance.apiUrl,
                ...(ttl === Infinity ? {} : { expiresAfter: ttl })
              }
              return startSweeping.pipe(
                Effect.andThen(publish({ _tag: "Registered", id: service.id, service })),
                Effect.as(lease)
              )
            })
        ),
      heartbeat: (lease) =>
        holding(
          "heartbeat",
          lease,
          (entry, now) => setStatus({ service: { ...entry.service, lastSeen: now }, expiresAt: now + ttl }, "online")
        ),
      verify: (lease) => holding("verify", lease, () => Effect.void),
      deregister: (lease) =>
        Effect.catchTag(
          holding("deregister", lease, (entry) => remove(entry.service)),
          "LeaseLost",
          () => Effect.void
        )
    })

    const directory = Directory.Directory.of({
      capabilities: { adapter: "memory", enabled: true, watch: "push", browser: "any" },
      discover: (query) =>
        call(
          { operation: "discover", target: "memory" },
          () =>
            Effect.sync(() =>
              [...entries.values()].map((entry) => entry.service).filter((it) => Directory.matches(query, it))
            )
        ),
      changes: ({ generation }) =>
        Effect.suspend(() =>
          failure === undefined
            ? Effect.map(PubSub.subscribe(changes), (subscription) =>
              Stream.concat(
                Stream.fromIterable<Item>(generation > 1 ? [{ notice: "Gap" }] : []),
                Stream.map(Stream.fromSubscription(subscription), (value): Item => ({ value }))
              ))
            : Effect.fail(failure({ operation: "changes", target: "memory" }))
        )
    })

    return Memory.of({
      registry,
      directory,
      services: Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => Effect.map(purge(now), () => [...entries.values()].map((entry) => entry.service))
      ),
      forgetAll: Effect.sync(() => {
        entries.clear()
        keys.clear()
        lapsed.clear()
      }),
      expire: (identity) => change(identity, (entry) => lapse(entry.service)),
      takeOver: (identity, apiUrl) =>
        change(identity, (entry) => {
          const service = { ...entry.service, apiUrl }
          put({ ...entry, service })
          return publish({ _tag: "Registered", id: service.id, service })
        }),
      setStatus: (identity, status) => change(identity, (entry) => setStatus(entry, status)),
      failAs: (verdict, evidence) =>
        Effect.sync(() => {
          failure = verdict === undefined ? undefined : (at) => Classify.make(verdict, { ...evidence, ...at })
        })
    })
  }
)

/**
 * {@link make} as a layer: the registry, the directory of it, and the handle on both.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Registry.Registry | Directory.Directory | Memory> =>
  Layer.effectContext(
    Effect.map(make(options), (memory) =>
      Context.make(Memory, memory).pipe(
        Context.add(Registry.Registry, memory.registry),
        Context.add(Directory.Directory, memory.directory)
      ))
  )
