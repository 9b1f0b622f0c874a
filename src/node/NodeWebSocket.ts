/**
 * WebSockets on Node by the `ws` package, which `@effect/platform-node` brings along. Beside Node's own `WebSocket`, which
 * `effect-lifeline/WebSocket` uses by default, it
 * - tells the status of a handshake that was refused: a 401 is `AuthFailed`, and not tried again (Node's own asks a second
 *   time with the same credential, and does not say why it failed);
 * - sends ping frames, so that half-open connections are found without a ping of the application;
 * - pauses reading while the consumer is behind, and can cut off a connection whose other side does not answer;
 * - does not even read messages that are too long.
 *
 * **Example** (A transport on Node)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Redacted from "effect/Redacted"
 * import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
 * import * as WebSocket from "effect-lifeline/WebSocket"
 *
 * export const connection = WebSocket.open({
 *   url: "ws://pulse:9696/api/v1/ws",
 *   credential: WebSocket.perDial(() => Effect.succeed({ headers: { "x-api-key": Redacted.make("...") } }))
 * })({ cursor: undefined, attempt: 1, generation: 1 }).pipe(Effect.provide(NodeWebSocket.layer))
 * ```
 *
 * @since 0.1.0
 */
import { WebSocket as Ws } from "@effect/platform-node/NodeWS"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { IncomingMessage } from "node:http"
import * as Classify from "../Classify.ts"
import * as WebSocket from "../WebSocket.ts"

/** What `ws` ends a connection with where the other side breaks the protocol, as the close code that it then sends. */
const closeCodes: { readonly [code: string]: number } = {
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 1009,
  WS_ERR_INVALID_UTF8: 1007
}

const codeOf = (cause: Error): number => {
  const code = Classify.codeOf(cause) ?? ""
  return closeCodes[code] ?? (code.startsWith("WS_ERR_") ? 1002 : 1006)
}

const headersOf = (response: IncomingMessage): { readonly [name: string]: string | undefined } =>
  Object.fromEntries(
    Object.entries(response.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value])
  )

const dial: WebSocket.Dialer = ({ at, headers, maxMessage, protocols, url }, events) =>
  Effect.gen(function*() {
    const socket = yield* Effect.try({
      try: () =>
        new Ws(url, [...protocols], {
          headers,
          // Text is counted in code units, of which each has at most three bytes.
          maxPayload: maxMessage * 3,
          perMessageDeflate: false
        }),
      catch: (cause) =>
        Classify.invalidRequest({
          ...at,
          issues: [{
            path: "credential",
            message: `not fit for a handshake (${Classify.codeOf(cause) ?? "not allowed in a header or a subprotocol"})`
          }]
        })
    })
    // Stays for ever: an error without a listener ends the process.
    socket.on("error", (cause) => events.closed({ code: codeOf(cause), cause }))
    socket.on("open", () => events.opened(socket.protocol))
    socket.on("message", (data: ArrayBuffer | Uint8Array, isBinary) =>
      events.received(isBinary ? data : new TextDecoder("utf-8", { ignoreBOM: true }).decode(data)))
    socket.on("ping", events.heard)
    socket.on("pong", events.heard)
    socket.on("close", (code, reason) =>
      events.closed({ code, reason: reason.toString() }))
    socket.on("unexpected-response", (request, response) => {
      events.refused(
        Classify.fromStatus(Classify.http, { status: response.statusCode ?? 0, headers: headersOf(response) }, at)
      )
      response.destroy()
      request.destroy()
    })
    const isOpen = () =>
      socket.readyState === Ws.OPEN
    return {
      send: (message) => {
        if (!isOpen()) return false
        socket.send(message)
        return true
      },
      close: (code, reason) => socket.close(code, reason),
      buffered: () => socket.bufferedAmount,
      terminate: () => socket.terminate(),
      ping: () => {
        if (isOpen()) socket.ping()
      },
      liveness: WebSocket.liveness(),
      flow: { pause: () => socket.pause(), resume: () => socket.resume() }
    } satisfies WebSocket.Wire
  })

/**
 * Opens connections by `ws`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = Layer.succeed(WebSocket.Dialer, dial)
