/**
 * Pulse's events as `Registry.changes`, over its WebSocket. Apart from `registry/Pulse`, so that programs that only register
 * do not carry it.
 *
 * `changes` is one connection: it fails as `Transient` when that is lost, and Pulse remembers nothing of what happened until
 * the next one. Whoever keeps a picture of the registry reads it in full (`discover`) after connecting, each time.
 *
 * | event | change |
 * |---|---|
 * | `service_registered` | `Registered`, with the service as Pulse has it by then |
 * | `service_deregistered` | `Deregistered` |
 * | `service_online`, `service_offline`, `service_degraded` | `StatusChanged` |
 * | every other one; a registration that could not be looked up | `Other` |
 *
 * Browsers send no headers with a WebSocket: there it works without an API key, from Pulse's own origin.
 *
 * **Example** (On Node)
 *
 * ```ts
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 * import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * export const registry = PulseEvents.layer({ url: "http://pulse:9696" }).pipe(
 *   Layer.provide([FetchHttpClient.layer, NodeWebSocket.layer])
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Classify from "../Classify.ts"
import { readJson } from "../internal/httpExchange.ts"
import { currentKey } from "../internal/pulseClient.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Wire from "../internal/pulseWire.ts"
import type { AuthFailed, Refused, Transient } from "../LifelineError.ts"
import type * as Reconnect from "../Reconnect.ts"
import * as Registry from "../Registry.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import * as WebSocket from "../WebSocket.ts"
import * as Pulse from "./Pulse.ts"

/**
 * Where Pulse is, and how its WebSocket is held. `requestTimeout` is also the deadline of connecting.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Pulse.Options {
  /** How a dead connection is told from a silent one; Pulse answers pings, and sends nothing while nothing happens. */
  readonly liveness?: WebSocket.Liveness | "none" | undefined
}

const readEvent = readJson(Wire.Event)

const statuses: { readonly [type: string]: ServiceInstance.ServiceStatus } = {
  service_online: "online",
  service_offline: "offline",
  service_degraded: "degraded"
}

const text = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

const toChange = (
  discover: Registry.Registry["Service"]["discover"],
  { data, service_id: id, type }: Wire.Event
): Effect.Effect<Registry.Change, AuthFailed> => {
  const other: Registry.Change = { _tag: "Other", type, id, data: data ?? undefined }
  if (id === undefined) return Effect.succeed(other)
  const status = Object.hasOwn(statuses, type) ? statuses[type] : undefined
  if (status !== undefined) return Effect.succeed({ _tag: "StatusChanged", id, status })
  if (type === "service_deregistered") return Effect.succeed({ _tag: "Deregistered", id })
  if (type !== "service_registered") return Effect.succeed(other)
  // The event has the name only.
  return discover({ name: text(data?.["name"]), type: text(data?.["type"]) }).pipe(
    Effect.catchTag(["Transient", "Refused"], () => Effect.succeed([])),
    Effect.map((services) => services.find((service) => service.id === id)),
    Effect.map((service) => service === undefined ? other : { _tag: "Registered", service })
  )
}

/** In the words of the port: what is unclear is tried again, and a stop is no failure. */
const ofPort = <A, R>(
  stream: Stream.Stream<A, Reconnect.Failure, R>
): Stream.Stream<A, Transient | AuthFailed | Refused, R> =>
  stream.pipe(
    Stream.catchTag("Inconclusive", ({ cause, detail, operation, target }) =>
      Stream.fail(Classify.unreachable({ operation, target, detail, cause }))),
    Stream.catchTag("Stop", () =>
      Stream.empty)
  )

/**
 * A registry over Pulse with `changes`. One that is disabled stays so.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (registry: Registry.Registry["Service"], options: Options): Registry.Registry["Service"] => {
  if (!registry.capabilities.enabled) return registry
  const url = `${(options.url ?? "").trim().replace(/\/+$/, "")}${routes.webSocket.path}`
  const at = { operation: "changes", target: `GET ${url}` }
  const open = WebSocket.open<never, "text", never>({
    url,
    credential: Effect.fnUntraced(function*() {
      const key = yield* currentKey(options.apiKey)
      if (key === undefined) return {}
      const value = Redacted.value(key).trim()
      if (value === "") return yield* Classify.credentialMissing(at)
      return { headers: { [routes.apiKeyHeader]: Redacted.make(value) } }
    }),
    connectWithin: options.requestTimeout,
    liveness: options.liveness
  })
  const changes = Stream.unwrap(
    Effect.map(open({ cursor: undefined, attempt: 1, generation: 1 }), (connection) => connection.messages)
  ).pipe(
    Stream.mapEffect((message) => readEvent(message, at)),
    Stream.mapEffect((event) => toChange(registry.discover, event))
  )
  return Registry.Registry.of({
    ...registry,
    capabilities: { ...registry.capabilities, watch: "push" },
    changes: ofPort(changes)
  })
}

/**
 * `Pulse.layer` with `changes`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Registry.Registry, Refused, HttpClient.HttpClient> =>
  Layer.effect(Registry.Registry, Effect.map(Pulse.make(options), (registry) => make(registry, options)))
