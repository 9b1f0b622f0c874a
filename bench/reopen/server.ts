// Servers that make clients come back: one for each contender and each way of being hostile, on a port of its own. Each
// counts what arrives within 10 s from the first: requests, or connections where none is read. WebSockets are spoken just
// enough: what a client sends is never looked into, only that it came.
import { createHash } from "node:crypto"
import { createServer } from "node:http"
import type { IncomingMessage, RequestListener } from "node:http"
import type { AddressInfo, Server, Socket } from "node:net"
import type { Hostility, Places } from "./work.ts"
import { makeCounter } from "./work.ts"

interface Behaviour {
  readonly request?: RequestListener
  readonly upgrade?: (socket: Socket, subprotocol: string | undefined) => void
}

const frame = (opcode: number, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([0x80 | opcode, payload.length]), payload])

const text = (value: string): Buffer => frame(1, Buffer.from(value))

const closing = (code: number): Buffer => frame(8, Buffer.from([code >> 8, code & 0xff]))

/** Says goodbye, and closes once the client has answered. */
const end = (socket: Socket, code: number): void => {
  socket.write(closing(code))
  socket.removeAllListeners("data")
  socket.once("data", () => socket.end())
}

/** As graphql-ws wants it, a connection begins with `connection_init` and its acknowledgement; for others at once. */
const acknowledged = (socket: Socket, subprotocol: string | undefined, then: () => void): void => {
  if (subprotocol === undefined) return then()
  socket.once("data", () => {
    socket.write(text(`{"type":"connection_ack"}`))
    then()
  })
}

const events = (body: string): Behaviour => ({
  request: (_, response) => response.writeHead(200, { "content-type": "text/event-stream" }).end(body)
})

const closed = (code: number): Behaviour => ({
  upgrade: (socket, subprotocol) => acknowledged(socket, subprotocol, () => end(socket, code))
})

const away: Behaviour = {
  request: (_, response) => response.writeHead(503, { "retry-after": "0" }).end()
}

const behaviours: Readonly<Record<Exclude<Hostility, "refuse" | "reset">, Behaviour>> = {
  "200, end": events(""),
  "hello, end": {
    ...events("id: 1\ndata: hello\n\n"),
    upgrade: (socket, subprotocol) =>
      acknowledged(socket, subprotocol, () => {
        const hello = () => {
          socket.write(text(subprotocol === undefined ? "hello" : `{"type":"pong"}`))
          end(socket, 1000)
        }
        if (subprotocol === undefined) hello()
        else socket.once("data", hello)
      })
  },
  "retry: 0": events("retry: 0\n\n"),
  "503, again in 0 s": away,
  "redirect loop": { request: (_, response) => response.writeHead(302, { location: "/" }).end() },
  "text/html": { request: (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>hello") },
  "1000": closed(1000),
  "1006": { upgrade: (socket, subprotocol) => acknowledged(socket, subprotocol, () => socket.destroy()) },
  "1013": closed(1013)
}

const accept = (request: IncomingMessage, socket: Socket): string | undefined => {
  const subprotocol = request.headers["sec-websocket-protocol"]
  const key = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
  socket.write([
    "HTTP/1.1 101 Switching Protocols",
    "upgrade: websocket",
    "connection: upgrade",
    `sec-websocket-accept: ${key.digest("base64")}`,
    ...(subprotocol === undefined ? [] : [`sec-websocket-protocol: ${subprotocol}`]),
    "\r\n"
  ].join("\r\n"))
  return subprotocol
}

const serve = (hostility: Hostility, arrived: () => void): Server => {
  const server = createServer()
  if (hostility === "refuse") return server
  if (hostility === "reset") {
    return server.on("connection", (socket: Socket) => {
      arrived()
      socket.resetAndDestroy()
    })
  }
  const { request, upgrade } = behaviours[hostility]
  server.on("request", (incoming, response) => {
    arrived()
    request?.(incoming, response)
  })
  if (upgrade === undefined) return server
  return server.on("upgrade", (incoming: IncomingMessage, socket: Socket) => {
    arrived()
    socket.on("error", () => socket.destroy())
    upgrade(socket, accept(incoming, socket))
  })
}

const listening = (server: Server): Promise<number> =>
  new Promise((resolve) => server.listen(0, "127.0.0.1", 4096, () => resolve((server.address() as AddressInfo).port)))

process.once("message", async (wanted: Readonly<Record<string, ReadonlyArray<Hostility>>>) => {
  const counters: Record<string, Record<string, () => number>> = {}
  const places: Record<string, Record<string, string>> = {}
  for (const [contender, hostilities] of Object.entries(wanted)) {
    const [counts, urls] = [counters[contender] = {}, places[contender] = {}] as [
      Record<string, () => number>,
      Record<string, string>
    ]
    for (const hostility of hostilities) {
      const counter = makeCounter()
      const server = serve(hostility, counter.arrived)
      urls[hostility] = `127.0.0.1:${await listening(server)}`
      if (hostility === "refuse") server.close()
      else counts[hostility] = counter.count
    }
  }
  const sent: Readonly<Record<string, Places>> = places
  process.send?.(sent)
  process.on("message", () =>
    process.send?.(
      Object.fromEntries(
        Object.entries(counters).map(([contender, counts]) => [
          contender,
          Object.fromEntries(Object.entries(counts).map(([hostility, count]) => [hostility, count()]))
        ])
      )
    ))
})
