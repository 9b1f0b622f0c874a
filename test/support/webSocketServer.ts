/** A WebSocket server on loopback that does as a script says, also before and instead of the handshake. */
import { WebSocketServer } from "@effect/platform-node/NodeWS"
import type { WebSocket } from "@effect/platform-node/NodeWS"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import type * as Net from "node:net"

export interface Script {
  /** Before the handshake; `true`: it was dealt with here. */
  readonly upgrade?: (request: Http.IncomingMessage, socket: Net.Socket) => boolean
  /** A connection that is open. */
  readonly open?: (socket: WebSocket, raw: Net.Socket, request: Http.IncomingMessage, n: number) => void
}

export interface Server {
  readonly url: string
  /** What asked for an upgrade. */
  readonly requests: ReadonlyArray<Http.IncomingMessage>
  /** TCP connections that are open now. Reads from each: whoever does not read does not see an end. */
  readonly sockets: () => number
}

export const make = (script: Script): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Server & { readonly stop: () => void }>((resume) => {
        const requests: Array<Http.IncomingMessage> = []
        const sockets = new Set<Net.Socket>()
        const server = Http.createServer((_, response) => response.writeHead(426).end())
        const webSockets = new WebSocketServer({
          noServer: true,
          handleProtocols: (protocols) => [...protocols].at(-1) ?? false
        })
        server.on("connection", (socket: Net.Socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          // Node leaves a socket that was upgraded half open.
          socket.on("end", () => socket.destroy())
          socket.on("close", () => sockets.delete(socket))
        })
        server.on("upgrade", (request, socket: Net.Socket, head) => {
          requests.push(request)
          if (script.upgrade?.(request, socket) === true) return
          webSockets.handleUpgrade(request, socket, head, (webSocket) => {
            webSocket.on("error", () => {})
            script.open?.(webSocket, socket, request, requests.length)
          })
        })
        server.listen(0, "127.0.0.1", () => {
          const { port } = server.address() as AddressInfo
          resume(Effect.succeed({
            url: `ws://127.0.0.1:${port}/live`,
            requests,
            sockets: () => {
              for (const socket of sockets) socket.resume()
              return sockets.size
            },
            stop: () => {
              for (const socket of sockets) socket.destroy()
              server.close()
            }
          }))
        })
      }),
      ({ stop }) => Effect.sync(stop)
    ),
    (server): Server => server
  )
