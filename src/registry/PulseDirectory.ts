/**
 * Pulse as a `Directory`: which services there are, and what changes. Apart from `registry/Pulse`, so that programs that only
 * register do not carry it.
 *
 * `events` says how changes come: a way of `registry/PulseEvents`. Without it there are none, and who wants to know asks again.
 *
 * | event | change |
 * |---|---|
 * | `service_registered` | `Registered`, without the service: the event has only its name and type |
 * | `service_deregistered` | `Deregistered` |
 * | `service_online`, `service_offline`, `service_degraded` | `StatusChanged` |
 * | every other one | `Other` |
 *
 * **Example** (Finding services, and following them)
 *
 * ```ts
 * import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * export const directory = PulseDirectory.layer({ url: "http://pulse:9696", events: PulseEvents.sse() }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Classify from "../Classify.ts"
import * as Directory from "../Directory.ts"
import { readJson } from "../internal/httpExchange.ts"
import * as Client from "../internal/pulseClient.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Wire from "../internal/pulseWire.ts"
import type { Attempted, AuthFailed, Refused } from "../LifelineError.ts"
import type * as Reconnect from "../Reconnect.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import type * as Pulse from "./Pulse.ts"

/**
 * Where Pulse is, and how changes come from it. `requestTimeout` is also the deadline of connecting for them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Pulse.Options {
  /** How changes come: `PulseEvents.sse()` or `PulseEvents.webSocket()`. @default they do not */
  readonly events?: Events | undefined
}

/**
 * A way in which events come, for {@link Options}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Events {
  readonly watch: "push" | "resumable"
  /** The transport of the events as JSON. */
  readonly connect: (origin: Origin) => Reconnect.Connect<string, string, Scope.Scope | HttpClient.HttpClient>
}

/**
 * What a way of events is told.
 *
 * @category models
 * @since 0.1.0
 */
export interface Origin {
  /** Without a slash at its end. */
  readonly url: string
  /** The key's header, as it is now. */
  readonly headers: Effect.Effect<{ readonly [name: string]: Redacted.Redacted }, AuthFailed>
  readonly options: Pulse.Options
}

const readServices = readJson(Wire.Services)
const readEvent = readJson(Wire.Event)

const statuses: { readonly [type: string]: ServiceInstance.ServiceStatus } = {
  service_online: "online",
  service_offline: "offline",
  service_degraded: "degraded"
}

const text = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

const toChange = ({ data, service_id: id, type }: Wire.Event): Directory.Change => {
  if (id === undefined) return { _tag: "Other", type, data: data ?? undefined }
  const status = Object.hasOwn(statuses, type) ? statuses[type] : undefined
  if (status !== undefined) return { _tag: "StatusChanged", id, status }
  if (type === "service_deregistered") return { _tag: "Deregistered", id }
  return type === "service_registered"
    ? { _tag: "Registered", id, query: { name: text(data?.["name"]), type: text(data?.["type"]) } }
    : { _tag: "Other", type, id, data: data ?? undefined }
}

type Changes = Directory.Directory["Service"]["changes"]

const changesOf = (events: Events | undefined, origin: Origin, client: HttpClient.HttpClient): Changes => {
  const at: Attempted = { operation: "changes", target: origin.url }
  if (events === undefined) {
    return () =>
      Effect.failSync(() =>
        Classify.unsupported({ ...at, detail: "no way of events was chosen; ask discover again instead" })
      )
  }
  const connect = events.connect(origin)
  return (dial) =>
    connect(dial).pipe(
      Effect.provideService(HttpClient.HttpClient, client),
      Effect.map((items) => {
        const changes = Stream.mapEffect(
          items,
          (item): Effect.Effect<Reconnect.Frame<Directory.Change, string> | Reconnect.Notice<string>, Refused> =>
            item.notice === undefined
              ? Effect.map(readEvent(item.value, at), (event) => ({ ...item, value: toChange(event) }))
              : Effect.succeed(item)
        )
        // Nothing says where the last connection was: what came since then is not told.
        return dial.generation > 1 && dial.cursor === undefined
          ? Stream.concat(Stream.succeed<Reconnect.Notice<string>>({ notice: "Gap" }), changes)
          : changes
      }),
      Effect.map(Stream.provideService(HttpClient.HttpClient, client))
    )
}

/**
 * Makes the adapter. Fails with `Refused` (`InvalidRequest`) where `url` is not an absolute http or https URL, or holds a user
 * name, a password, a query or a fragment. Sends nothing yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: Options
) => Effect.Effect<Directory.Directory["Service"], Refused, HttpClient.HttpClient> = Effect.fnUntraced(
  function*(options: Options) {
    if (!Client.isConfigured(options)) return Directory.disabled
    const client = yield* HttpClient.HttpClient
    const { send, target } = yield* Client.make(options)
    const { apiKey, events } = options
    const headers = Effect.map(
      Client.sendableKey(apiKey, { operation: "changes", target }),
      (key): { readonly [name: string]: Redacted.Redacted } => key === undefined ? {} : { [routes.apiKeyHeader]: key }
    )
    return Directory.Directory.of({
      capabilities: {
        adapter: "pulse",
        target,
        enabled: true,
        watch: events?.watch ?? "none",
        browser: "same-origin"
      },
      discover: (query) => {
        const { capability, type } = query
        const isFiltered = capability !== undefined || type !== undefined
        return Effect.map(
          send("discover", isFiltered ? routes.discover : routes.services, Classify.http, {
            // Where both are given the server looks at the capability only: the rest is done here.
            query: capability === undefined ? { type } : { capability },
            read: readServices
          }),
          (services) => services.map(Wire.toService).filter((service) => Directory.matches(query, service))
        )
      },
      changes: changesOf(events, { url: target, headers, options }, client),
      credentialChanges: Client.credential(apiKey).changes
    })
  }
)

/**
 * {@link make} as a layer.
 *
 * **Example** (Peers, without events)
 *
 * ```ts
 * import * as Discovery from "effect-lifeline/Discovery"
 * import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * export const discovery = Discovery.layer.pipe(
 *   Layer.provide(PulseDirectory.layer({ url: "http://pulse:9696" })),
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Directory.Directory, Refused, HttpClient.HttpClient> =>
  Layer.effect(Directory.Directory, make(options))

/**
 * {@link make} as a layer, with options that are read from the configuration, but for the events.
 *
 * **Example** (Disabled where `PULSE_URL` is not set)
 *
 * ```ts
 * import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 * import * as Config from "effect/Config"
 *
 * export const directory = PulseDirectory.layerConfig({
 *   url: Config.String("PULSE_URL").pipe(Config.withDefault("")),
 *   apiKey: Config.Redacted("PULSE_API_KEY").pipe(Config.withDefault(undefined))
 * }, PulseEvents.sse())
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Pulse.Options>,
  events?: Events
): Layer.Layer<Directory.Directory, Refused | Config.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(Directory.Directory, Effect.flatMap(Config.unwrap(options), (options) => make({ ...options, events })))
