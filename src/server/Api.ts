/**
 * The embedded registry's HTTP interface as an `HttpApi`: what is served, described and checked. Methods, paths and bodies
 * are those that the Pulse client uses, taken from the same table and the same schemas, so that the two cannot drift.
 *
 * Everything under `/api/v1` asks for the API key; `/health`, `/api/openapi.json` and `/api/docs` do not.
 *
 * @since 0.1.0
 */
import * as HttpApi from "effect/http-api/HttpApi"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as HttpApiSecurity from "effect/http-api/HttpApiSecurity"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"
import * as leaseRoutes from "../internal/pulseLeaseRoutes.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as Wire from "../internal/pulseWire.ts"
import * as WireLease from "../internal/pulseWireLease.ts"
import * as Resources from "../internal/pulseWireResources.ts"
import * as Problems from "./internal/problems.ts"

/**
 * Asks for the header `X-Api-Key`.
 *
 * @category middleware
 * @since 0.1.0
 */
export class Authorization extends HttpApiMiddleware.Service<Authorization>()(
  "effect-lifeline/server/Api/Authorization",
  {
    error: Problems.Unauthorized,
    security: { apiKey: HttpApiSecurity.apiKey({ in: "header", key: "X-Api-Key" }) }
  }
) {}

/**
 * Answers a query or path that does not fit with 422 and its fields.
 *
 * @category middleware
 * @since 0.1.0
 */
export class Validation extends HttpApiMiddleware.Service<Validation>()(
  "effect-lifeline/server/Api/Validation",
  { error: Problems.Unprocessable }
) {}

const id = { id: Schema.String }

const title = (summary: string, description?: string) =>
  OpenApi.annotations({ summary, ...(description === undefined ? {} : { description }) })

const Services = HttpApiGroup.make("services").add(
  HttpApiEndpoint.make(routes.register.method)("register", routes.register.path, {
    payload: Wire.Register,
    success: Wire.Service.pipe(HttpApiSchema.status(201)),
    error: [
      Problems.BadRequest,
      Problems.RequestTimeout,
      Problems.PayloadTooLarge,
      Problems.UnsupportedMediaType,
      Problems.Unprocessable,
      Problems.ServerError
    ]
  }).annotateMerge(title(
    "Register a service, or update it",
    "A service with the same name and type keeps its id; everything else is replaced. Answered once it is stored."
  )),
  HttpApiEndpoint.make(routes.heartbeat.method)("heartbeat", routes.heartbeat.path, {
    params: id,
    error: Problems.NotFound
  }).annotateMerge(title("Say that a service is alive", "404: the registry does not know it, register again.")),
  HttpApiEndpoint.make(routes.deregister.method)("deregister", routes.deregister.path, {
    params: id,
    error: [Problems.NotFound, Problems.ServerError]
  }).annotateMerge(title("Remove a service")),
  HttpApiEndpoint.make(routes.discover.method)("discover", routes.discover.path, {
    query: { type: Schema.optionalKey(Schema.String), capability: Schema.optionalKey(Schema.String) },
    success: Schema.Array(Wire.Service)
  }).annotateMerge(title("Find services", "By capability or by type; the capability wins when both are given.")),
  HttpApiEndpoint.make(routes.services.method)("services", routes.services.path, {
    success: Schema.Array(Wire.Service)
  }).annotateMerge(title("List all services", "Sorted by type, then name.")),
  HttpApiEndpoint.make(routes.service.method)("service", routes.service.path, {
    params: id,
    success: Wire.Service,
    error: Problems.NotFound
  }).annotateMerge(title("Read one service"))
).middleware(Validation).middleware(Authorization)

const Managed = HttpApiGroup.make("resources").add(
  HttpApiEndpoint.make(routes.indexers.method)("indexers", routes.indexers.path, {
    params: id,
    success: Schema.Array(Resources.Indexer),
    error: Problems.NotFound
  }).annotateMerge(title("List the indexers assigned to a service")),
  HttpApiEndpoint.make(routes.downloadClients.method)("downloadClients", routes.downloadClients.path, {
    success: Schema.Array(Resources.DownloadClient)
  }).annotateMerge(title(
    "List the download clients",
    "Services of type download-client are among them. Passwords are never listed."
  )),
  HttpApiEndpoint.make(routes.qualityProfiles.method)("qualityProfiles", routes.qualityProfiles.path, {
    success: Schema.Array(Resources.QualityProfile)
  }).annotateMerge(title("List the quality profiles")),
  HttpApiEndpoint.make(routes.sharedSettings.method)("sharedSettings", routes.sharedSettings.path, {
    success: Resources.SharedSettings
  }).annotateMerge(title("Read the settings that all media services share"))
).middleware(Validation).middleware(Authorization)

const EventStreams = HttpApiGroup.make("events").add(
  HttpApiEndpoint.make(routes.events.method)("events", routes.events.path, {
    success: HttpApiSchema.StreamSse({
      events: Schema.Struct({
        id: Schema.String,
        event: Schema.String,
        data: Schema.fromJsonString(Wire.Event)
      })
    })
  }).annotateMerge(title(
    "Follow what happens (server-sent events)",
    "The header Last-Event-ID resumes after that event. An event named gap says that events in between are gone."
  )),
  HttpApiEndpoint.make(routes.webSocket.method)("webSocket", routes.webSocket.path, {
    success: HttpApiSchema.Empty(101),
    error: [Problems.UpgradeRequired, Problems.NotImplemented]
  }).annotateMerge(title("Follow what happens (WebSocket)", "One JSON event per message, from the server only."))
).middleware(Authorization)

const Probes = HttpApiGroup.make("probes").add(
  HttpApiEndpoint.make(routes.health.method)("health", routes.health.path, { success: Wire.Health })
    .annotateMerge(title("Whether the registry is up"))
)

/**
 * The whole interface.
 *
 * **Example** (A typed client from the definition)
 *
 * ```ts
 * import * as Api from "effect-lifeline/server/Api"
 * import * as Effect from "effect/Effect"
 * import * as HttpApiClient from "effect/http-api/HttpApiClient"
 *
 * export const health = Effect.flatMap(
 *   HttpApiClient.make(Api.Api, { baseUrl: "http://127.0.0.1:9696" }),
 *   (client) => client.probes.health()
 * )
 * ```
 *
 * @category api
 * @since 0.1.0
 */
export class Api extends HttpApi.make("pulse").add(Services).add(Managed).add(EventStreams).add(Probes).annotateMerge(
  OpenApi.annotations({
    title: "Pulse API",
    version: "0.1.0",
    description:
      "Service registration, heartbeats and discovery, as the embedded registry of effect-lifeline serves it."
  })
) {}

const Leases = HttpApiGroup.make("leases").add(
  HttpApiEndpoint.make(leaseRoutes.leaseStatus.method)("leaseStatus", leaseRoutes.leaseStatus.path, {
    params: id,
    success: WireLease.Status,
    error: [Problems.leaseProblems[401], Problems.leaseProblems[404], Problems.leaseProblems[410]]
  }).annotateMerge(title(
    "Read how a lease is",
    "For who holds its key. timed_out: for good. 401 with the code lease_timed_out: a heartbeat with a proof may revive it."
  )),
  HttpApiEndpoint.make(leaseRoutes.leaseRefresh.method)("leaseRefresh", leaseRoutes.leaseRefresh.path, {
    params: id,
    headers: { [leaseRoutes.idempotencyHeader]: Schema.optionalKey(Schema.String) },
    success: WireLease.Token,
    error: [
      Problems.leaseProblems[400],
      Problems.leaseProblems[401],
      Problems.leaseProblems[404],
      Problems.leaseProblems[410],
      Problems.leaseProblems[503]
    ]
  }).annotateMerge(title(
    "Get a new token for a lease",
    "With a proof of its key; a token that has expired may go along. Needs an Idempotency-Key: the same again has the same answer."
  ))
).middleware(Validation).middleware(Authorization)

/**
 * The interface of a registry that gives leases: {@link Api}, and what leases need beside it. Where a registration or a
 * heartbeat carries a proof (the header `DPoP`), its answer is other than described there: 201 with `lease`, 200 with
 * `bumped`.
 *
 * @category api
 * @since 0.1.0
 */
export class LeasedApi extends Api.add(Leases) {}
