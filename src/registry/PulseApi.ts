/**
 * What a service reads from Pulse beside other services: the indexers that are assigned to it, and the download clients,
 * quality profiles and shared settings that all services use. A module of its own, so that a program that only registers
 * does not carry it.
 *
 * Fields that hold JSON as text (`settings`, `cutoffJson`, ...) are handed over as they are: Pulse does not look into them, and
 * what they mean is between the services.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Classify from "../Classify.ts"
import { readJson } from "../internal/httpExchange.ts"
import { notConfigured } from "../internal/notConfigured.ts"
import * as Client from "../internal/pulseClient.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Resources from "../internal/pulseWireResources.ts"
import type { AuthFailed, Refused, Transient } from "../LifelineError.ts"
import type * as Pulse from "./Pulse.ts"

/**
 * A download client that Pulse manages. Its password is not listed.
 *
 * @category models
 * @since 0.1.0
 */
export type DownloadClient = typeof Resources.DownloadClient.Type

/**
 * An indexer that is assigned to a service.
 *
 * @category models
 * @since 0.1.0
 */
export type Indexer = typeof Resources.Indexer.Type

/**
 * A quality profile.
 *
 * @category models
 * @since 0.1.0
 */
export type QualityProfile = typeof Resources.QualityProfile.Type

/**
 * The settings that all services share.
 *
 * @category models
 * @since 0.1.0
 */
export type SharedSettings = typeof Resources.SharedSettings.Type

type Read<A> = Effect.Effect<A, Transient | AuthFailed | Refused>

/**
 * The reads. An unknown service has no indexers, or is `Refused` (`NotFound`), as the server has it.
 *
 * @category services
 * @since 0.1.0
 */
export class PulseApi extends Context.Service<PulseApi, {
  /** By the id of the service, which is that of its lease. */
  readonly indexers: (serviceId: string) => Read<ReadonlyArray<Indexer>>
  readonly downloadClients: Read<ReadonlyArray<DownloadClient>>
  readonly qualityProfiles: Read<ReadonlyArray<QualityProfile>>
  readonly sharedSettings: Read<SharedSettings>
}>()("effect-lifeline/registry/PulseApi") {}

const readIndexers = readJson(Schema.Array(Resources.Indexer))
const readDownloadClients = readJson(Schema.Array(Resources.DownloadClient))
const readQualityProfiles = readJson(Schema.Array(Resources.QualityProfile))
const readSharedSettings = readJson(Resources.SharedSettings)

/**
 * Makes the client, with the options of the registry adapter `Pulse`. Where no URL is given, every call fails as `Refused`
 * (`Unsupported`).
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  options: Pulse.Options
) => Effect.Effect<PulseApi["Service"], Refused, HttpClient.HttpClient> = Effect.fnUntraced(
  function*(options: Pulse.Options) {
    if (!Client.isConfigured(options)) {
      return PulseApi.of({
        indexers: () => notConfigured("indexers"),
        downloadClients: notConfigured("downloadClients"),
        qualityProfiles: notConfigured("qualityProfiles"),
        sharedSettings: notConfigured("sharedSettings")
      })
    }
    const { send } = yield* Client.make(options)
    return PulseApi.of({
      indexers: (id) => send("indexers", routes.indexers, Classify.http, { id, read: readIndexers }),
      downloadClients: send("downloadClients", routes.downloadClients, Classify.http, { read: readDownloadClients }),
      qualityProfiles: send("qualityProfiles", routes.qualityProfiles, Classify.http, { read: readQualityProfiles }),
      sharedSettings: send("sharedSettings", routes.sharedSettings, Classify.http, { read: readSharedSettings })
    })
  }
)

/**
 * {@link make} as a layer.
 *
 * **Example** (The indexers of a registered service)
 *
 * ```ts
 * import * as PulseApi from "effect-lifeline/registry/PulseApi"
 * import type * as Lease from "effect-lifeline/Lease"
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * const api = PulseApi.layer({ url: "http://pulse:9696" }).pipe(Layer.provide(FetchHttpClient.layer))
 *
 * export const indexers = (lease: Lease.Lease) =>
 *   PulseApi.PulseApi.use((pulse) => pulse.indexers(lease.id)).pipe(Effect.provide(api))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Pulse.Options): Layer.Layer<PulseApi, Refused, HttpClient.HttpClient> =>
  Layer.effect(PulseApi, make(options))

/**
 * {@link make} as a layer, with options that are read from the configuration.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Pulse.Options>
): Layer.Layer<PulseApi, Refused | Config.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(PulseApi, Effect.flatMap(Config.unwrap(options), make))
