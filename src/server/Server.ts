/**
 * The embedded registry over HTTP: a Pulse server that runs wherever Effect does. Any Pulse client works against it
 * unchanged.
 *
 * | to run it | use |
 * |---|---|
 * | on Node, with WebSockets and a durable directory | `effect-lifeline/node/NodeRegistry` |
 * | anywhere else, as `(Request) => Promise<Response>` | {@link toWebHandler} |
 * | in a router of your own | {@link layer} |
 *
 * With the option `leases` it gives leases to services that register with a proof of possession (DPoP, RFC 9449; see
 * `effect-lifeline/Proof` and, for the client, `effect-lifeline/registry/PulseLease`):
 *
 * | call, with a proof of the key | answer |
 * |---|---|
 * | register | 201, with `lease`: a token that is bound to the key, and expires soon |
 * | heartbeat | 200 `{"bumped":true}`; with `revived`, `token`, `expiresAt` and `jti` where it brought a lease back that had timed out |
 * | `POST /services/{id}/lease/refresh`, with an `Idempotency-Key` | 200 `{"token","expiresAt","jti"}` |
 * | `GET /services/{id}/lease` | 200 `{"status","revivals","lastHeartbeat"}` |
 *
 * A token goes as `Authorization: DPoP <token>`; the proof alone is enough where there is none. What is refused says why in
 * `code` (RFC 9457): `lease_unknown` (404), `lease_gone` and `revival_refused` (410), `lease_held` (409), `lease_timed_out`,
 * `token_rejected`, `proof_rejected` and `use_dpop_nonce` (401), `try_later` (503). The API key is asked for all the same:
 * it says who may use the registry, a proof says whose lease it is. Who registers without a proof sees no difference, unless
 * a leased service of that name is alive.
 *
 * It keeps its registrations in memory unless it is given a durable `Store`; then a registration is stored before it is
 * answered. One process, or one Durable Object, is one registry: it answers from its own memory, so two of them over one
 * store do not see each other's changes.
 *
 * **Gotchas**
 *
 * - As in the reference server, a request that says `Sec-Fetch-Site: same-origin` needs no key. Only browsers are honest
 *   about that header. Where something else can reach the registry, set `trustSameOrigin` to `false`.
 * - A browser calls a page same-origin by its name, not by who answers to the name: a hostile page whose name is made to
 *   resolve to the registry's address while it is open (DNS rebinding) gets in without the key, also to a registry on the
 *   loopback interface, and its `Host` looks like any name that you could have given the registry. Only a key together with
 *   `trustSameOrigin: false` keeps it out; or a proxy in front that refuses every `Host` but the registry's own. Do
 *   so wherever somebody browses the web on a machine that reaches the registry.
 * - Without `leases.origin` a proof is checked against the `Host` header, which whoever sends the request chooses.
 * - Services hand their own API keys to each other through the registry: whoever has the registry's key can read them all.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpApiBuilder from "effect/http-api/HttpApiBuilder"
import * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpApiSwagger from "effect/http-api/HttpApiSwagger"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import type * as HttpClient from "effect/http/HttpClient"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type { HttpServerError } from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Redacted from "effect/Redacted"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import { idempotencyHeader } from "../internal/pulseLeaseRoutes.ts"
import * as Api from "./Api.ts"
import * as Catalog from "./Catalog.ts"
import * as Events from "./Events.ts"
import * as Health from "./Health.ts"
import * as Auth from "./internal/auth.ts"
import * as LeaseHttp from "./internal/leaseHttp.ts"
import * as Problems from "./internal/problems.ts"
import * as Register from "./internal/register.ts"
import * as Sse from "./internal/sse.ts"
import * as Leases from "./Leases.ts"
import * as Store from "./Store.ts"

/**
 * Leases, and what their proofs are checked against. `{}` turns them on with all defaults.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseOptions extends Leases.Options {
  /**
   * Where clients reach the registry, e.g. `"https://registry.example"`, with the path before `/api/v1` if there is one: what the
   * URL in a proof must begin with. Set it wherever others than this machine reach the registry. Without it the `Host` header
   * counts, which whoever sends the request chooses: a server that a client talks to could pass on a proof that was made for it.
   */
  readonly origin?: string | undefined
  /**
   * How many proofs are remembered, so that none is accepted twice: 11 to 22 bytes each, for some 5 minutes. More than that
   * are refused (503).
   *
   * @default 1000000
   */
  readonly replays?: number | undefined
}

/**
 * Who may call the registry, and how it behaves. All have a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** What clients must show as `X-Api-Key`. Without it, or with an empty one, the registry is open. */
  readonly apiKey?: Redacted.Redacted | undefined
  /**
   * Whether pages of the registry's own origin need no key, as the reference server has it. This includes a page whose
   * name was rebound to the registry's address (see the gotchas above), and whoever is no browser and says so.
   *
   * @default true
   */
  readonly trustSameOrigin?: boolean | undefined
  /**
   * Other origins whose pages may call the registry (CORS), e.g. `"https://app.example"`. They need the key all the same.
   *
   * @default []
   */
  readonly allowedOrigins?: ReadonlyArray<string> | undefined
  /**
   * What the heartbeat of an unknown service gets. `204` imitates the reference server, which does not notice that it has
   * lost a service.
   *
   * @default 404
   */
  readonly heartbeatUnknown?: 404 | 204 | undefined
  /**
   * Gives leases to services that register with a proof of possession (see the module comment). Absent: a proof is ignored.
   *
   * @default none
   */
  readonly leases?: LeaseOptions | undefined
  /** Intervals of the health checks. */
  readonly health?: Health.Options | undefined
  readonly events?: {
    /**
     * Events that a client can still resume from.
     *
     * @default 1000
     */
    readonly history?: number | undefined
    /**
     * How long an event stream is silent before it carries a comment, so that no proxy takes it for dead.
     *
     * @default "15 seconds"
     */
    readonly keepAlive?: Duration.Input | undefined
  } | undefined
}

/**
 * How many bytes wait to be sent to a client, where the platform can tell. A WebSocket client that does not read is
 * disconnected when it has more than 1 MiB waiting. `NodeRegistry` provides it.
 *
 * @category references
 * @since 0.1.0
 */
export const Backlog = Context.Reference<(request: HttpServerRequest.HttpServerRequest) => number>(
  "effect-lifeline/server/Server/Backlog",
  { defaultValue: () => () => 0 }
)

const maxBacklog = 1024 * 1024

// ---------------------------------------------------------------------------------------------------------------------
// Handlers
// ---------------------------------------------------------------------------------------------------------------------

const notFound = Effect.fail(Problems.noSuchService)

const notStored = (error: Store.StoreError) =>
  Effect.andThen(
    Effect.logError("A change of the registry could not be stored, and was not made", error),
    Effect.fail<typeof Problems.ServerError.Type>({
      status: 500,
      title: "Internal Server Error",
      detail: "The change could not be stored, and was not made. The registry's log says why."
    })
  )

const services = (options: Options | undefined, leases: LeaseHttp.LeaseHttp | undefined) =>
  HttpApiBuilder.group(
    Api.Api,
    "services",
    Effect.fnUntraced(function*(handlers) {
      const catalog = yield* Catalog.Catalog
      const unknown = options?.heartbeatUnknown === 204 ? Effect.void : notFound
      const register = (request: HttpServerRequest.HttpServerRequest) =>
        Effect.flatMap(Register.read(request), (registration) =>
          Effect.catch(Effect.map(catalog.register(registration), Register.toWire), notStored))
      const heartbeat = (id: string) =>
        Effect.flatMap(catalog.heartbeat(id), (known) => known ? Effect.void : unknown)
      return handlers.handleRaw("register", ({ request }) => leases?.register(request) ?? register(request))
        .handleAll({
          heartbeat: ({ params, request }) =>
            leases?.heartbeat(request, params.id, heartbeat(params.id)) ?? heartbeat(params.id),
          deregister: ({ params }) =>
            (leases ?? catalog).deregister(params.id).pipe(
              Effect.catch(notStored),
              Effect.flatMap((known) => known ? Effect.void : notFound)
            ),
          discover: ({ query }) => Effect.map(catalog.list(query), (all) => all.map(Register.toWire)),
          services: () => Effect.map(catalog.list(), (all) => all.map(Register.toWire)),
          service: ({ params }) =>
            Effect.flatMap(catalog.get(params.id), (service) =>
              service === undefined ? notFound : Effect.succeed(Register.toWire(service)))
        })
    })
  )

const resources = HttpApiBuilder.group(
  Api.Api,
  "resources",
  Effect.fnUntraced(function*(handlers) {
    const catalog = yield* Catalog.Catalog
    return handlers.handleAll({
      indexers: ({ params }) =>
        Effect.flatMap(
          catalog.indexers(params.id),
          (indexers) => indexers === undefined ? notFound : Effect.succeed(indexers)
        ),
      // What a client's schema does not name is not sent: that is how the password stays here.
      downloadClients: () => catalog.downloadClients,
      qualityProfiles: () => catalog.qualityProfiles,
      sharedSettings: () => catalog.sharedSettings
    })
  })
)

const leased = (leases: LeaseHttp.LeaseHttp) =>
  HttpApiBuilder.group(Api.LeasedApi, "leases", (handlers) =>
    handlers.handleAll({
      leaseStatus: ({ params, request }) => leases.status(request, params.id),
      leaseRefresh: ({ params, request }) => leases.refresh(request, params.id)
    }))

const upgradeRequired: typeof Problems.UpgradeRequired.Type = {
  status: 426,
  title: "Upgrade Required",
  detail: "This is a WebSocket. For the same events over plain HTTP: GET /api/v1/events"
}

const noWebSocket: typeof Problems.NotImplemented.Type = {
  status: 501,
  title: "Not Implemented",
  detail: "This registry runs where it cannot open a WebSocket. For the same events: GET /api/v1/events"
}

/** Close codes: the registry stops; the client is too slow and should come back. */
const goingAway = new Socket.CloseEvent(1001, "the registry stops")
const tryAgainLater = new Socket.CloseEvent(
  1013,
  "too slow, events were lost: connect again and read the services anew"
)

const send = (
  writer: Socket.Writer,
  events: Events.Events["Service"],
  after: string,
  backlog: Effect.Effect<number>
): Effect.Effect<void, Socket.SocketError> =>
  events.subscribe({ after }).pipe(
    Stream.mapEffect(Effect.fnUntraced(function*(message) {
      if (message._tag !== "Event" && message._tag !== "Gap") return undefined
      if (message._tag === "Gap" || (yield* backlog) > maxBacklog) return tryAgainLater
      yield* writer.write(JSON.stringify(message.event))
      return undefined
    })),
    Stream.filter((close) => close !== undefined),
    Stream.runHead,
    Effect.flatMap((close) => writer.write(close._tag === "Some" ? close.value : goingAway))
  )

const eventStreams = (options: Options | undefined) =>
  HttpApiBuilder.group(
    Api.Api,
    "events",
    Effect.fnUntraced(function*(handlers) {
      const events = yield* Events.Events
      const backlogOf = yield* Backlog
      const idleAfter = options?.events?.keepAlive ?? "15 seconds"

      const webSocket = Effect.fnUntraced(function*(request: HttpServerRequest.HttpServerRequest) {
        if (request.headers["upgrade"]?.toLowerCase() !== "websocket") return yield* Effect.fail(upgradeRequired)
        const after = yield* events.position
        const socket = yield* Effect.mapError(request.upgrade, () => noWebSocket)
        const { pull } = yield* socket.reader
        const writer = yield* socket.writer
        // Reading is what notices that the client has gone. What it says is ignored.
        const incoming = Effect.forever(pull)
        const outgoing = send(writer, events, after, Effect.sync(() => backlogOf(request)))
        yield* Effect.raceFirst(outgoing, incoming)
        return HttpServerResponse.empty()
      }, Effect.catchTag("SocketError", () => Effect.succeed(HttpServerResponse.empty())))

      return handlers.handleAll({
        events: ({ request }) =>
          Effect.succeed(HttpServerResponse.stream(
            Sse.encode(events.subscribe({ after: request.headers["last-event-id"], idleAfter })),
            { contentType: "text/event-stream", headers: { "x-accel-buffering": "no" } }
          )),
        webSocket: ({ request }) => webSocket(request)
      })
    })
  )

const probes = HttpApiBuilder.group(
  Api.Api,
  "probes",
  (handlers) => handlers.handle("health", () => Effect.succeed({ status: "ok" }))
)

// ---------------------------------------------------------------------------------------------------------------------
// Middleware
// ---------------------------------------------------------------------------------------------------------------------

const authorization = (options: Options | undefined) =>
  Layer.sync(Api.Authorization, () => {
    const isAllowed = Auth.make(options)
    return Api.Authorization.of({
      apiKey: Effect.fnUntraced(function*(effect) {
        const request = yield* HttpServerRequest.HttpServerRequest
        return yield* isAllowed(request.headers) ? effect : Effect.fail(Problems.unauthorized)
      })
    })
  })

const locations = { Params: "path", Headers: "header", Query: "query", Payload: "body" } as const

const validation = HttpApiMiddleware.layerSchemaErrorTransform(
  Api.Validation,
  (error) =>
    error.kind === "Body" || error.kind === "ResponseHeaders"
      ? Effect.fail(error)
      : Effect.fail({
        status: 422 as const,
        title: "Unprocessable Entity" as const,
        detail: "validation failed",
        errors: Problems.issuesOf(error.cause, locations[error.kind], undefined)
      })
)

const problem = (body: { readonly status: number }): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(body, { status: body.status, contentType: Problems.contentType })

const isRouteNotFound = (error: unknown): boolean =>
  Predicate.isTagged(error, "HttpServerError") && (error as HttpServerError).reason._tag === "RouteNotFound"

/** Answers may hold keys of services, and are out of date at once: nobody may keep them. */
const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff" }

const isTooLarge = (request: HttpServerRequest.HttpServerRequest): boolean =>
  Number(request.headers["content-length"] ?? 0) > Register.maxBodySize

const guard = HttpRouter.use((router) =>
  router.addGlobalMiddleware((effect) =>
    Effect.flatMap(
      HttpServerRequest.HttpServerRequest,
      (request) =>
        isTooLarge(request) ? Effect.succeed(problem(Register.tooLarge)) : effect.pipe(
          Effect.catchIf(isRouteNotFound, () => Effect.succeed(problem(Problems.noSuchRoute))),
          Effect.tapCause((cause) =>
            Cause.hasInterruptsOnly(cause)
              ? Effect.void
              : Effect.logError(`${request.method} ${request.url.split("?")[0]} failed`, cause)
          )
        )
    ).pipe(Effect.map(HttpServerResponse.setHeaders(headers)))
  )
)

const cors = (options: Options | undefined) =>
  options?.allowedOrigins === undefined || options.allowedOrigins.length === 0 ? Layer.empty : HttpRouter.cors({
    allowedOrigins: options.allowedOrigins,
    allowedHeaders: [
      "x-api-key",
      "content-type",
      "last-event-id",
      "cache-control",
      ...(options.leases === undefined ? [] : ["authorization", "dpop", idempotencyHeader])
    ],
    ...(options.leases === undefined ? {} : { exposedHeaders: ["DPoP-Nonce", "WWW-Authenticate"] }),
    allowedMethods: ["GET", "POST", "PUT", "DELETE"],
    maxAge: 600
  })

/** The page carries its own script, 2 MB, so it is only made when somebody looks at it. */
const docs = (swagger: Layer.Layer<never, never, HttpRouter.HttpRouter>) =>
  HttpRouter.use(Effect.fnUntraced(function*(router) {
    const page = yield* Effect.cached(Effect.gen(function*() {
      const pages = yield* HttpRouter.make
      yield* Effect.scoped(Layer.build(swagger)).pipe(
        Effect.provideService(HttpRouter.HttpRouter, pages)
      )
      return pages.asHttpEffect()
    }))
    yield* router.add("GET", "/api/docs", Effect.orDie(Effect.flatten(page)))
  }))

// ---------------------------------------------------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------------------------------------------------

type Served<Out> = Layer.Layer<
  Out,
  Store.StoreError,
  Store.Store | HttpClient.HttpClient | HttpRouter.HttpRouter
>

const core = (options: Options | undefined) =>
  Catalog.layer.pipe(
    Layer.provideMerge(Events.layer(options?.events)),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

const common = (options: Options | undefined) => Layer.mergeAll(guard, cors(options), Health.layer(options?.health))

const groups = (options: Options | undefined, leases: LeaseHttp.LeaseHttp | undefined) =>
  Layer.mergeAll(services(options, leases), resources, eventStreams(options), probes)

const middleware = (options: Options | undefined) => Layer.merge(authorization(options), validation)

const openapiPath = "/api/openapi.json"
const docsPath = "/api/docs"

const plain = (options: Options | undefined) => {
  const routes = HttpApiBuilder.layer(Api.Api, { openapiPath }).pipe(
    Layer.provide(Layer.provide(groups(options, undefined), middleware(options))),
    Layer.provide(HttpServer.layerServices)
  )
  return Layer.mergeAll(routes, docs(HttpApiSwagger.layer(Api.Api, { path: docsPath })), common(options)).pipe(
    Layer.provideMerge(core(options))
  )
}

const withLeases = (options: Options, leases: LeaseOptions) => {
  const handlers = Layer.unwrap(
    Effect.map(LeaseHttp.make(leases), (http) => Layer.merge(groups(options, http), leased(http)))
  )
  const routes = HttpApiBuilder.layer(Api.LeasedApi, { openapiPath }).pipe(
    Layer.provide(Layer.provide(handlers, middleware(options))),
    Layer.provide(HttpServer.layerServices)
  )
  return Layer.mergeAll(routes, docs(HttpApiSwagger.layer(Api.LeasedApi, { path: docsPath })), common(options)).pipe(
    Layer.provideMerge(Layer.provide(Leases.layer(leases), SecureRandom.layerWebCrypto)),
    Layer.provideMerge(core(options))
  )
}

/**
 * The routes of the registry, its health checks and its event hub, for a router of your own. Gives the `Catalog` and the
 * `Events`, for a program that wants to look into its registry.
 *
 * **Example** (Registry and program in one process)
 *
 * ```ts
 * import * as Server from "effect-lifeline/server/Server"
 * import * as Store from "effect-lifeline/server/Store"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as HttpRouter from "effect/http/HttpRouter"
 * import * as Layer from "effect/Layer"
 *
 * export const served = HttpRouter.serve(Server.layer(), { disableLogger: true }).pipe(
 *   Layer.provide([Store.layerMemory, FetchHttpClient.layer])
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: {
  (options: Options & { readonly leases: LeaseOptions }): Served<Catalog.Catalog | Events.Events | Leases.Leases>
  (options?: Options): Served<Catalog.Catalog | Events.Events>
} = (options?: Options): Served<Catalog.Catalog | Events.Events | Leases.Leases> =>
  // Without leases the types do not speak of them: see the signatures.
  options?.leases === undefined
    ? plain(options) as Served<Catalog.Catalog | Events.Events | Leases.Leases>
    : withLeases(options, options.leases)

/**
 * Options of {@link toWebHandler}.
 *
 * @category models
 * @since 0.1.0
 */
export interface WebOptions extends Options {
  /**
   * Where registrations are kept.
   *
   * @default Store.layerMemory
   */
  readonly store?: Layer.Layer<Store.Store, unknown> | undefined
  /**
   * What health checks are made with.
   *
   * @default FetchHttpClient.layer
   */
  readonly httpClient?: Layer.Layer<HttpClient.HttpClient, unknown> | undefined
}

/**
 * The registry as a plain function, for any server that speaks `Request` and `Response`: Deno, Bun, a Durable Object, a
 * test. It starts with its first request; while its store cannot be read, requests are rejected and each tries anew.
 * `dispose` ends its event streams, stores what is not stored and stops it.
 *
 * There are no WebSockets here (501): `GET /api/v1/events` carries the same events.
 *
 * **Example** (In a Durable Object)
 *
 * ```ts
 * import * as Server from "effect-lifeline/server/Server"
 * import * as Store from "effect-lifeline/server/Store"
 * import * as Layer from "effect/Layer"
 * import * as KeyValueStore from "effect/persistence/KeyValueStore"
 *
 * export class Registry {
 *   readonly registry
 *   constructor(storage: Layer.Layer<KeyValueStore.KeyValueStore>) {
 *     this.registry = Server.toWebHandler({ store: Store.layerKeyValueStore.pipe(Layer.provide(storage)) })
 *   }
 *   fetch(request: Request): Promise<Response> {
 *     return this.registry.handler(request)
 *   }
 * }
 * ```
 *
 * @category handlers
 * @since 0.1.0
 */
export const toWebHandler = (options?: WebOptions): {
  readonly handler: (request: Request) => Promise<Response>
  readonly dispose: () => Promise<void>
} => {
  const start = () =>
    HttpRouter.toWebHandler(
      layer(options).pipe(
        Layer.provide([options?.store ?? Store.layerMemory, options?.httpClient ?? FetchHttpClient.layer])
      ),
      { disableLogger: true }
    )
  let started: ReturnType<typeof start> | undefined
  return {
    handler: (request) => {
      const current = started ??= start()
      // A request is always answered; what rejects is the start.
      return current.handler(request).catch((cause: unknown) => {
        if (started === current) started = undefined
        throw cause
      })
    },
    dispose: () => started === undefined ? Promise.resolve() : started.dispose()
  }
}
