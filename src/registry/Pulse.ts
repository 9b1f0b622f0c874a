/**
 * The adapter for Pulse, over JSON and HTTP, from any runtime: Node, Deno, Bun, Workers, and browsers of Pulse's own origin.
 * It gives the port `Registry`; for finding other services see `registry/PulseDirectory`.
 *
 * What is particular to Pulse:
 * - Registering upserts by (name, type): doing it again is safe, and gives the same id. Two instances with one name and type
 *   overwrite each other; `verify` reports that as `LeaseTaken`.
 * - Heartbeats of unknown services are acknowledged by the reference server (204), so a registry that lost its database looks
 *   healthy. `heartbeatDetectsLoss` is `false`: drivers call `verify` now and then.
 * - A registration stays when its scope is closed, as deleting a service also deletes what Pulse assigned to it.
 * - A service without a health URL counts as offline 2 minutes after its last heartbeat.
 *
 * What is particular to this client:
 * - The deadline of a request covers its whole answer. At most 4 MiB of an answer are read.
 * - Redirects are not followed but reported (`Refused`, `Unsupported`), as the API key would go along to wherever they lead.
 * - Nothing is retried: the drivers do that.
 * - Requests carry no trace headers unless `tracePropagation` is set: in a browser they force a CORS preflight.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import * as Classify from "../Classify.ts"
import { readJson } from "../internal/httpExchange.ts"
import * as Client from "../internal/pulseClient.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Wire from "../internal/pulseWire.ts"
import { showUrl } from "../internal/url.ts"
import type { Refused } from "../LifelineError.ts"
import * as Registry from "../Registry.ts"
import * as ServiceInstance from "../ServiceInstance.ts"

/**
 * Where Pulse is, and how to talk to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Where Pulse is, e.g. `"http://pulse:9696"`; a path before `/api/v1` is fine. Absent or blank: no registry, no request ever. */
  readonly url?: string | undefined
  /**
   * Sent as `X-Api-Key` with every request. A `SubscriptionRef` can be set to a new key at any time: the next request sends
   * it, and drivers that stopped at a refused key start again. Absent: no header, which Pulse accepts from browsers of its
   * own origin only. Blank: every call fails as `CredentialMissing`, and nothing is sent.
   */
  readonly apiKey?: Redacted.Redacted | SubscriptionRef.SubscriptionRef<Redacted.Redacted> | undefined
  /** How long a request may take, its whole answer included. @default 10 seconds, as in Pulse's SDK */
  readonly requestTimeout?: Duration.Input | undefined
  /** Whether requests carry trace headers (`traceparent`, `b3`). @default false */
  readonly tracePropagation?: boolean | undefined
}

/** Pulse's stale limit, in milliseconds. */
const expiresAfter = 120_000

const capabilities: Registry.Capabilities = {
  adapter: "pulse",
  enabled: true,
  heartbeatDetectsLoss: false,
  expiresAfter: Duration.millis(expiresAfter),
  onClose: "leave",
  browser: "same-origin"
}

const readRegistration = readJson(Wire.Registration)

/** The same address, whatever its spelling. */
const isSameUrl = (a: string, b: string): boolean => (URL.parse(a)?.href ?? a) === (URL.parse(b)?.href ?? b)

/**
 * Makes the adapter. Fails with `Refused` (`InvalidRequest`) where `url` is not an absolute http or https URL, or holds a user
 * name, a password, a query or a fragment. Sends nothing yet.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: Options
) => Effect.Effect<Registry.Registry["Service"], Refused, HttpClient.HttpClient> = Effect.fnUntraced(
  function*(options: Options) {
    if (!Client.isConfigured(options)) return Registry.disabled
    const { deadline, send, target } = yield* Client.make(options)
    return Registry.Registry.of({
      capabilities: { ...capabilities, target, deadline },
      credential: Client.credential(options.apiKey),
      register: Effect.fnUntraced(function*(input) {
        const instance = yield* ServiceInstance.make(input)
        const service = yield* send("register", routes.register, Classify.http, {
          payload: Wire.toRegister(instance),
          secret: instance.apiKey,
          read: readRegistration
        })
        return {
          id: service.id,
          name: instance.name,
          type: instance.type,
          registeredAt: yield* Clock.currentTimeMillis,
          expiresAfter
        }
      }),
      heartbeat: ({ id }, instance) =>
        send("heartbeat", routes.heartbeat, Classify.httpLease, { id, secret: instance?.apiKey }),
      verify: ({ id }, instance) =>
        send("verify", routes.service, Classify.httpLease, {
          id,
          secret: instance.apiKey,
          read: (body, at) =>
            Effect.flatMap(readRegistration(body, at), ({ api_url }) =>
              isSameUrl(api_url, instance.apiUrl)
                ? Effect.void
                : Effect.fail(Classify.leaseTaken({ ...at, by: showUrl(api_url) })))
        }),
      deregister: ({ id }, instance) =>
        Effect.catchTag(
          send("deregister", routes.deregister, Classify.httpLease, { id, secret: instance?.apiKey }),
          "LeaseLost",
          () => Effect.void
        )
    })
  }
)

/**
 * {@link make} as a layer.
 *
 * **Example** (With a key from the environment of the program)
 *
 * ```ts
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * export const registry = Pulse.layer({ url: "http://pulse:9696", apiKey: Redacted.make("...") }).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Registry.Registry, Refused, HttpClient.HttpClient> =>
  Layer.effect(Registry.Registry, make(options))

/**
 * {@link make} as a layer, with options that are read from the configuration.
 *
 * **Example** (Disabled where `PULSE_URL` is not set)
 *
 * ```ts
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 * import * as Config from "effect/Config"
 *
 * export const registry = Pulse.layerConfig({
 *   url: Config.String("PULSE_URL").pipe(Config.withDefault("")),
 *   apiKey: Config.Redacted("PULSE_API_KEY").pipe(Config.withDefault(undefined))
 * })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options>
): Layer.Layer<Registry.Registry, Refused | Config.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(Registry.Registry, Effect.flatMap(Config.unwrap(options), make))
