/**
 * The ways in which Pulse's events come, for `registry/PulseDirectory`. Apart from it, so that programs that only look services
 * up do not carry streams.
 *
 * | way | over | what happened while not connected |
 * |---|---|---|
 * | {@link sse} | server-sent events, with ids: the embedded registry (`server`) has them | is told after connecting again, or a `Gap` says that it is gone |
 * | {@link webSocket} | Pulse's WebSocket: both have it, the embedded registry on Node | is not told: a `Gap` says so on each connection but the first |
 *
 * Browsers send no headers with a WebSocket: there it works without an API key, from Pulse's own origin.
 * Only the WebSocket of `node/NodeWebSocket` can ping: with any other one a connection that broke unseen is taken for a silent one,
 * and what follows it for fresh. With server-sent events it is found everywhere, after 45 s.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as EventSource from "../EventSource.ts"
import * as routes from "../internal/pulseRoutes.ts"
import * as WebSocket from "../WebSocket.ts"
import type { Events } from "./PulseDirectory.ts"

/**
 * Events over Pulse's WebSocket.
 *
 * **Example** (On Node, with ping frames)
 *
 * ```ts
 * import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
 * import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 *
 * export const directory = PulseDirectory.layer({ url: "http://pulse:9696", events: PulseEvents.webSocket() }).pipe(
 *   Layer.provide([FetchHttpClient.layer, NodeWebSocket.layer])
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const webSocket = (options: {
  /** How a dead connection is told from a silent one; Pulse answers pings, and sends nothing while nothing happens. */
  readonly liveness?: WebSocket.Liveness | "none" | undefined
} = {}): Events => ({
  watch: "push",
  connect: ({ headers, options: { requestTimeout }, url }) =>
    WebSocket.connect<string>({
      url: url + routes.webSocket.path,
      credential: () => Effect.map(headers, (headers) => ({ headers })),
      connectWithin: requestTimeout,
      liveness: options.liveness
    })
})

/**
 * Events as server-sent events, which the embedded registry of `server` has: each has an id, after which a later connection
 * resumes. Where the registry is a Pulse without them it answers 404, which is `Refused`.
 *
 * **Example** (A connection that may be silent for a minute)
 *
 * ```ts
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 *
 * export const events = PulseEvents.sse({ idleTimeout: "1 minute" })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const sse = (
  options: Pick<EventSource.ConnectOptions, "idleTimeout" | "maxEventSize"> = {}
): Events => ({
  watch: "resumable",
  connect: ({ headers, options: { requestTimeout, tracePropagation }, url }) => {
    const connect = EventSource.connect(url + routes.events.path, {
      ...options,
      headers,
      connectTimeout: requestTimeout,
      tracePropagation,
      operation: "changes",
      isGap: (event) => event.event === "gap"
    })
    return (dial) =>
      Effect.map(
        connect(dial),
        Stream.map((item) => item.notice === undefined ? { ...item, value: item.value.data } : item)
      )
  }
})
