/**
 * Numbered events over server-sent events and over WebSocket, on one port of loopback. Who asks for what came after a number
 * gets that and whatever comes; so a client that resumes rightly sees each number once.
 */
import { WebSocketServer } from "@effect/platform-node/NodeWS"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import type * as Net from "node:net"

export interface Feed {
  readonly port: number
  /** From now on there are events up to this number. */
  readonly publish: (last: number) => void
  /** After which number each connection asked to go on, 0 being the start. */
  readonly asked: ReadonlyArray<number>
  /** TCP connections that are open now. */
  readonly open: () => number
}

/** What an event says: more than ASCII, so that a cut may go through a character. */
export const dataOf = (n: number): string => `№ ${n} ü€𝄞`

export const numbers = (last: number): ReadonlyArray<string> => Array.from({ length: last }, (_, n) => dataOf(n + 1))

/** What `data` is the number of. */
export const numberOf = (message: string): string | undefined => message.split(" ")[1]

export const make = (
  options: {
    /** How many events there are from the start. */
    readonly first: number
    /** How often an event stream gets a comment, in milliseconds. @default never */
    readonly keepAlive?: number
  }
): Effect.Effect<Feed, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Feed & { readonly stop: Effect.Effect<void> }>((resume) => {
      const asked: Array<number> = []
      const sockets = new Set<Net.Socket>()
      const readers = new Set<{ at: number; readonly send: (n: number) => void }>()
      let last = options.first

      const bring = (reader: { at: number; readonly send: (n: number) => void }) => {
        while (reader.at < last) reader.send(++reader.at)
      }
      const enter = (after: number, send: (n: number) => void) => {
        asked.push(after)
        const reader = { at: after, send }
        readers.add(reader)
        bring(reader)
        return () => readers.delete(reader)
      }

      const server = Http.createServer((request, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders()
        const leave = enter(
          Number(request.headers["last-event-id"] ?? 0),
          (n) => response.write(`id: ${n}\ndata: ${dataOf(n)}\n\n`)
        )
        const timer = options.keepAlive === undefined
          ? undefined
          : setInterval(() => response.write(":\n\n"), options.keepAlive)
        response.on("close", () => {
          leave()
          clearInterval(timer)
        })
      })
      server.on("connection", (socket: Net.Socket) => {
        sockets.add(socket)
        socket.on("error", () => {})
        socket.on("end", () => socket.destroy())
        socket.on("close", () => sockets.delete(socket))
      })
      const webSockets = new WebSocketServer({ noServer: true })
      server.on("upgrade", (request, socket: Net.Socket, head) => {
        webSockets.handleUpgrade(request, socket, head, (webSocket) => {
          webSocket.on("error", () => {})
          webSocket.on("message", (message) => {
            if (String(message) === "ping") webSocket.send("pong")
          })
          const after = Number(new URL(request.url ?? "/", "http://feed.test").searchParams.get("after"))
          webSocket.on("close", enter(after, (n) => webSocket.send(dataOf(n))))
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          publish: (next) => {
            last = next
            for (const reader of readers) bring(reader)
          },
          asked,
          open: () => sockets.size,
          stop: Effect.callback<void>((resume) => {
            for (const socket of sockets) socket.destroy()
            server.close(() => resume(Effect.void))
          })
        }))
      })
    }),
    ({ stop }) => stop
  )
