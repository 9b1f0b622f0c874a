/**
 * Finding other services: all of them, by type, by capability, by name; `pick`, which chooses one; and `peer`, which finds one by
 * name and gives what is needed to call it: its URL and the API key that it shares.
 *
 * With {@link layer} every call asks the registry: nothing is cached. `DiscoveryCache.layer` gives the same service, answered
 * from memory and kept right by the registry's events.
 *
 * **Example** (Calling a sibling)
 *
 * ```ts
 * import * as Discovery from "effect-lifeline/Discovery"
 * import * as Effect from "effect/Effect"
 * import * as HttpClient from "effect/http/HttpClient"
 * import * as Redacted from "effect/Redacted"
 *
 * export const queue = Effect.gen(function*() {
 *   const discovery = yield* Discovery.Discovery
 *   const haul = yield* discovery.peer("haul")
 *   return yield* HttpClient.get(`${haul.url}/api/v1/queue`, { headers: { "x-api-key": Redacted.value(haul.apiKey) } })
 * }).pipe(
 *   Effect.catchReason("PeerUnavailable", "NotConfigured", () => Effect.succeed(undefined))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import type * as Redacted from "effect/Redacted"
import * as Directory from "./Directory.ts"
import type { AuthFailed, Refused, Transient } from "./LifelineError.ts"
import type * as ServiceInstance from "./ServiceInstance.ts"

/**
 * No registry is configured: this program runs without peers.
 *
 * @category reasons
 * @since 0.1.0
 */
export class NotConfigured extends Data.TaggedError("NotConfigured") {
  override get message() {
    return "no registry is configured; set its URL"
  }
}

/**
 * The registry did not answer, so who the peer is is not known. It may be tried again.
 *
 * @category reasons
 * @since 0.1.0
 */
export class RegistryUnreachable extends Data.TaggedError("RegistryUnreachable")<{ readonly error: Transient }> {
  override get message() {
    return `the registry gave no answer: ${this.error.message}`
  }
}

/**
 * The registry knows no service of that name. `known` are the names that it does know.
 *
 * @category reasons
 * @since 0.1.0
 */
export class UnknownPeer extends Data.TaggedError("UnknownPeer")<{ readonly known: ReadonlyArray<string> }> {
  override get message() {
    return `the registry knows no service of that name; it knows ${
      this.known.length === 0
        ? "none"
        : `${this.known.slice(0, 20).join(", ")}${this.known.length > 20 ? ` and ${this.known.length - 20} more` : ""}`
    }`
  }
}

/**
 * The service is registered and shares no API key, so a call to it could not authenticate. `url` is where it is.
 *
 * @category reasons
 * @since 0.1.0
 */
export class PeerSharesNoKey extends Data.TaggedError("PeerSharesNoKey")<{ readonly url: string }> {
  override get message() {
    return `it is at ${this.url} and shares no API key; let it register with one`
  }
}

/**
 * Why a peer cannot be called.
 *
 * @category reasons
 * @since 0.1.0
 */
export type PeerUnavailableReason = NotConfigured | RegistryUnreachable | UnknownPeer | PeerSharesNoKey

/**
 * A peer cannot be called, and why.
 *
 * @category errors
 * @since 0.1.0
 */
export class PeerUnavailable
  extends Data.TaggedError("PeerUnavailable")<{ readonly peer: string; readonly reason: PeerUnavailableReason }>
{
  override get message() {
    return `cannot call ${this.peer}: ${this.reason.message}`
  }
}

/**
 * No registered service is what `pick` was asked for.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoneRegistered extends Data.TaggedError("NoneRegistered")<{ readonly query: Directory.Query }> {
  override get message() {
    const { capability, name, type } = this.query
    const wanted = Object.entries({ name, type, capability }).flatMap(([field, value]) =>
      value === undefined ? [] : [`${field} ${value}`]
    )
    return `no service is registered${wanted.length === 0 ? "" : ` with ${wanted.join(", ")}`}`
  }
}

/**
 * Where a peer is, and the key with which to call it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Peer {
  readonly url: string
  readonly apiKey: Redacted.Redacted
  /** All that the registry says of it. */
  readonly service: ServiceInstance.RegisteredService
}

type Services = Effect.Effect<ReadonlyArray<ServiceInstance.RegisteredService>, Transient | AuthFailed | Refused>

/**
 * The service.
 *
 * @category services
 * @since 0.1.0
 */
export class Discovery extends Context.Service<Discovery, {
  /** Every registered service. Where no registry is configured these, and `pick`, fail as `Refused` (`Unsupported`). */
  readonly all: Services
  readonly byType: (type: string) => Services
  readonly byCapability: (capability: string) => Services
  /** Several where services of different types share a name. */
  readonly byName: (name: string) => Services
  /**
   * One of the services that match, by chance: one that is online, where there is none one that is degraded, then one
   * of unknown status, and one that is offline only where there is nothing else.
   */
  readonly pick: (
    query: Directory.Query
  ) => Effect.Effect<ServiceInstance.RegisteredService, NoneRegistered | Transient | AuthFailed | Refused>
  /** One service by name, with its key. Of several the first that is online, else the first. */
  readonly peer: (name: string) => Effect.Effect<Peer, PeerUnavailable | AuthFailed | Refused>
  /**
   * Name to URL of every registered service. Empty where no registry is configured or none answers: a program that runs
   * standalone has no peers.
   */
  readonly peers: Effect.Effect<Readonly<Record<string, string>>, AuthFailed | Refused>
}>()("effect-lifeline/Discovery") {}

type Service = ServiceInstance.RegisteredService

const isOnline = (service: Service): boolean => service.status === "online"

/** Whom to prefer. */
const order: ReadonlyArray<ServiceInstance.ServiceStatus> = ["online", "degraded", "unknown", "offline"]

/**
 * Makes the service over any way to find services: given a query, those that match. `false`: no registry is configured.
 *
 * **Example** (A list of one's own)
 *
 * ```ts
 * import * as Directory from "effect-lifeline/Directory"
 * import * as Discovery from "effect-lifeline/Discovery"
 * import type { RegisteredService } from "effect-lifeline/ServiceInstance"
 * import * as Effect from "effect/Effect"
 *
 * export const over = (services: ReadonlyArray<RegisteredService>) =>
 *   Discovery.fromFind((query) => Effect.succeed(services.filter((service) => Directory.matches(query, service))))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromFind = (find: (query: Directory.Query) => Services, isEnabled = true): Discovery["Service"] => {
  const all = find({})
  return Discovery.of({
    all,
    byType: (type) => find({ type }),
    byCapability: (capability) => find({ capability }),
    byName: (name) => find({ name }),
    pick: Effect.fnUntraced(function*(query) {
      const services = yield* find(query)
      const best = order.map((status) =>
        services.filter((service) => service.status === status)
      ).find((them) => them.length > 0) ?? services
      const picked = best[Math.floor((yield* Random.next) * best.length)]
      return picked ?? (yield* new NoneRegistered({ query }))
    }),
    peer: Effect.fnUntraced(function*(peer) {
      const unavailable = (reason: PeerUnavailableReason) => new PeerUnavailable({ peer, reason })
      if (!isEnabled) return yield* unavailable(new NotConfigured())
      // All of them and not only those of that name: who does not find a peer wants to know which there are.
      const services = yield* Effect.catchTag(
        all,
        "Transient",
        (error) => Effect.fail(unavailable(new RegistryUnreachable({ error })))
      )
      const named = services.filter((service) => service.name === peer)
      const service = named.find(isOnline) ?? named[0]
      if (service === undefined) {
        const known = [...new Set(services.map((service) => service.name))].sort()
        return yield* unavailable(new UnknownPeer({ known }))
      }
      if (service.apiKey === undefined) return yield* unavailable(new PeerSharesNoKey({ url: service.apiUrl }))
      return { url: service.apiUrl, apiKey: service.apiKey, service }
    }),
    peers: isEnabled
      ? all.pipe(
        Effect.map((services) => {
          // The last entry of a name counts: the first that is online, else the first.
          const ordered = [...services].reverse().concat(services.filter(isOnline).reverse())
          return Object.fromEntries(ordered.map((service) => [service.name, service.apiUrl]))
        }),
        Effect.catchTag("Transient", () => Effect.succeed({}))
      )
      : Effect.succeed({})
  })
}

/**
 * Makes the service over a directory.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Discovery["Service"], never, Directory.Directory> = Effect.map(
  Directory.Directory,
  ({ capabilities, discover }) => fromFind(discover, capabilities.enabled)
)

/**
 * {@link make} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Discovery, never, Directory.Directory> = Layer.effect(Discovery, make)
