/**
 * A server of bytes on loopback: what it answers need not be HTTP. It reads whole requests and hands each to a script with
 * its socket, and knows which connections are open. For what a well-behaved HTTP server cannot be made to do.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"

export interface Request {
  /** E.g. `PUT /api/v1/services/7/heartbeat`. */
  readonly line: string
  readonly head: string
  readonly body: string
  /** From 0, over all connections. */
  readonly n: number
}

export type Script = (socket: Net.Socket, request: Request) => void

export interface RawServer {
  readonly port: number
  readonly url: string
  readonly requests: ReadonlyArray<Request>
  /** Connections that are open now. */
  readonly open: () => number
  /** Completes when no connection is open. */
  readonly quiet: Effect.Effect<void>
}

const length = (head: string): number => Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)

/** Lives as long as the scope; closing it ends what is still open. `onConnection` may speak before there is a request. */
export const make = (
  script: Script,
  onConnection?: (socket: Net.Socket) => void
): Effect.Effect<RawServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<RawServer & { readonly close: Effect.Effect<void> }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const requests: Array<Request> = []
      const waiting = new Set<() => void>()
      const server = Net.createServer((socket) => {
        sockets.add(socket)
        let received = ""
        socket.setNoDelay(true)
        socket.on("error", () => {})
        socket.on("close", () => {
          sockets.delete(socket)
          if (sockets.size > 0) return
          for (const resume of waiting) resume()
          waiting.clear()
        })
        onConnection?.(socket)
        socket.on("data", (chunk) => {
          received += chunk.toString("latin1")
          for (;;) {
            const end = received.indexOf("\r\n\r\n")
            if (end < 0) return
            const head = received.slice(0, end)
            const size = end + 4 + length(head)
            if (received.length < size) return
            const request: Request = {
              line: head.split(" ").slice(0, 2).join(" "),
              head,
              body: received.slice(end + 4, size),
              n: requests.length
            }
            received = received.slice(size)
            requests.push(request)
            script(socket, request)
          }
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({
          port,
          url: `http://127.0.0.1:${port}`,
          requests,
          open: () => sockets.size,
          quiet: Effect.callback<void>((resume) => {
            if (sockets.size === 0) return resume(Effect.void)
            const done = () => resume(Effect.void)
            waiting.add(done)
            return Effect.sync(() => waiting.delete(done))
          }),
          close: Effect.callback<void>((resume) => {
            for (const socket of sockets) socket.destroy()
            server.close(() => resume(Effect.void))
          })
        }))
      })
    }),
    (server) => server.close
  )

/** An answer as bytes; the connection ends with it unless told otherwise. */
export const answer = (
  status: number,
  body = "",
  headers: { readonly [name: string]: string } = {}
): string =>
  [
    `HTTP/1.1 ${status} X`,
    ...Object.entries({
      ...(status === 204 || status === 304 || status < 200 ? {} : { "Content-Length": `${Buffer.byteLength(body)}` }),
      "Connection": "close",
      ...headers
    }).map(([name, value]) => `${name}: ${value}`),
    "",
    body
  ].join("\r\n")

/** The same answer to every request. */
export const always =
  (status: number, body?: string, headers?: { readonly [name: string]: string }): Script => (socket) => {
    socket.end(answer(status, body, headers))
  }
