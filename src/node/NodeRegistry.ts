/**
 * The embedded registry on Node: HTTP, WebSockets, and a directory that survives a crash.
 *
 * **Example** (A durable registry on a port of its own)
 *
 * ```ts
 * import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * export const run = () =>
 *   NodeRegistry.layer({ port: 9696, directory: "./registry", apiKey: Redacted.make("change me") }).pipe(
 *     Layer.launch,
 *     NodeRuntime.runMain
 *   )
 * ```
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberHandle from "effect/FiberHandle"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import type * as HttpServerError from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Http from "node:http"
import type * as Net from "node:net"
import type * as Catalog from "../server/Catalog.ts"
import * as Events from "../server/Events.ts"
import * as Server from "../server/Server.ts"
import * as Store from "../server/Store.ts"
import * as FileStore from "./FileStore.ts"

/**
 * Where the registry listens and what it keeps, beside the options of the registry itself. All have a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Server.Options {
  /**
   * `0` takes any free port; {@link NodeRegistry} says which.
   *
   * @default 0
   */
  readonly port?: number | undefined
  /**
   * The address to listen on.
   *
   * @default "127.0.0.1"
   */
  readonly host?: string | undefined
  /** Where registrations are kept. Without it they are kept in memory only. */
  readonly directory?: string | undefined
  /**
   * How long stopping may take. Event streams are ended at once, requests may finish; what is still open after this is
   * cut off.
   *
   * @default "3 seconds"
   */
  readonly stopWithin?: Duration.Input | undefined
}

/**
 * A registry that listens. `sockets` counts its open connections.
 *
 * @category services
 * @since 0.1.0
 */
export class NodeRegistry extends Context.Service<NodeRegistry, {
  readonly url: string
  readonly sockets: Effect.Effect<number>
}>()("effect-lifeline/node/NodeRegistry") {}

/** What a client may send in one WebSocket message, in bytes. It is ignored anyway. */
const maxMessage = 64 * 1024

const isLoopback = (host: string): boolean => host === "localhost" || host === "::1" || host.startsWith("127.")

const backlog = Server.Backlog.of((request) => NodeHttpServerRequest.toIncomingMessage(request).socket.writableLength)

/**
 * Starts a registry, and stops it with the scope: event streams end, requests finish or are cut off, then changed statuses
 * are stored.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<
  Context.Context<NodeRegistry | Catalog.Catalog | Events.Events>,
  HttpServerError.ServeError | Store.StoreError | KeyValueStore.KeyValueStoreError,
  Scope.Scope
> = Effect.fnUntraced(function*(options?: Options) {
  const host = options?.host ?? "127.0.0.1"
  if (!isLoopback(host) && (options?.apiKey === undefined || Redacted.value(options.apiKey) === "")) {
    yield* Effect.logWarning(`The registry listens on ${host} without an API key: whoever reaches it may register`)
  }
  const store = options?.directory === undefined
    ? Store.layerMemory
    : Store.layerKeyValueStore.pipe(Layer.provide(FileStore.layer({ directory: options.directory })))
  const app = yield* Layer.build(
    Server.layer(options).pipe(
      Layer.provideMerge(HttpRouter.layer),
      Layer.provide([store, FetchHttpClient.layer, Layer.succeed(Server.Backlog, backlog)])
    )
  )

  const server = Http.createServer({ keepAlive: true, keepAliveInitialDelay: 30_000 })
  const sockets = new Set<Net.Socket>()
  server.on("connection", (socket: Net.Socket) => {
    sockets.add(socket)
    socket.once("close", () => sockets.delete(socket))
  })
  // Finalizers run from the last to the first: streams end, requests finish, what is left is cut off, the server closes.
  // The server has a scope of its own, as it waits for its WebSockets before all else.
  const scope = yield* Effect.scope
  const http = yield* Scope.provide(
    NodeHttpServer.make(() => server, {
      port: options?.port ?? 0,
      host,
      gracefulShutdownTimeout: Duration.fromInputUnsafe(options?.stopWithin ?? "3 seconds"),
      websocket: { maxPayload: maxMessage }
    }),
    yield* Scope.fork(scope)
  )
  const idle = yield* FiberHandle.make()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
  )
  yield* http.serve(Effect.provideContext(Context.get(app, HttpRouter.HttpRouter).asHttpEffect(), app))
  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      Context.get(app, Events.Events).close,
      // A connection whose last request ends while the server stops would be kept for the next one.
      FiberHandle.run(
        idle,
        Effect.repeat(Effect.sync(() => server.closeIdleConnections()), Schedule.spaced("50 millis"))
      )
    )
  )

  return Context.add(
    app,
    NodeRegistry,
    NodeRegistry.of({
      url: HttpServer.formatAddress(http.address),
      sockets: Effect.sync(() => sockets.size)
    })
  )
})

/**
 * {@link make} as a layer. Fails when it cannot listen (the port is taken) or cannot read its directory.
 *
 * **Example** (The URL of a registry in a test)
 *
 * ```ts
 * import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
 * import * as Effect from "effect/Effect"
 *
 * export const url = NodeRegistry.NodeRegistry.useSync((registry) => registry.url).pipe(
 *   Effect.provide(NodeRegistry.layer())
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<
  NodeRegistry | Catalog.Catalog | Events.Events,
  HttpServerError.ServeError | Store.StoreError | KeyValueStore.KeyValueStoreError
> => Layer.effectContext(make(options))
