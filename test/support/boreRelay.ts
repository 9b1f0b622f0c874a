/**
 * A whole server of bore on loopback, in plain `node:net`: the control connection, a port for visitors, and data connections,
 * which it joins with the visitors that they were opened for. Written from the description of the protocol; also what the bench
 * puts in the place of a real one, so that it needs nothing else.
 */
import * as Crypto from "node:crypto"
import * as Net from "node:net"

export interface Options {
  /** What it listens on for clients. @default any */
  readonly listen?: number | undefined
  /** @default none */
  readonly secret?: string | undefined
  /** What it does instead of looking at a connection, from the n-th on (from 0); `true`: this is dealt with. */
  readonly instead?: ((socket: Net.Socket, n: number) => boolean) | undefined
  /** What it does instead of joining a data connection with its visitor; `true`: this is dealt with. */
  readonly onAccept?: ((data: Net.Socket, visitor: Net.Socket) => boolean) | undefined
}

export interface Relay {
  /** For clients. */
  readonly port: number
  /** For visitors: the last one that was given. */
  readonly given: () => number | undefined
  /** What clients said, e.g. `0: {"Hello":0}` on the first connection. */
  readonly said: ReadonlyArray<string>
  /** Connections that are open now: of clients, of visitors. */
  readonly open: () => { readonly clients: number; readonly visitors: number }
  /** Tells the client whose port it . */
  readonly tell: (message: unknown) => void
  /** Ends the control connections by a reset; visitors and data connections stay. */
  readonly dropControl: () => void
  /** Ends everything. */
  readonly stop: () => Promise<void>
}

export const frame = (message: unknown): string => `${JSON.stringify(message)}\0`

const answerOf = (secret: string, uuid: string): string =>
  Crypto.createHmac("sha256", Crypto.createHash("sha256").update(secret).digest())
    .update(Buffer.from(uuid.replaceAll("-", ""), "hex"))
    .digest("hex")

/** Copies both ways, passes ends on one by one, and a reset of one side to the other. */
export const join = (one: Net.Socket, other: Net.Socket): void => {
  one.pipe(other)
  other.pipe(one)
  one.on("close", (hadError) => hadError ? other.resetAndDestroy() : undefined)
  other.on("close", (hadError) => hadError ? one.resetAndDestroy() : undefined)
}

/** A server whose connections are known, so that they can be closed with it. */
export interface Served {
  readonly port: number
  readonly sockets: ReadonlySet<Net.Socket>
  /** Accepts no more; who is there stays. */
  readonly shut: () => void
  readonly stop: () => Promise<void>
}

export const serve = async (
  port: number,
  onConnection: (socket: Net.Socket) => void
): Promise<Served> => {
  const sockets = new Set<Net.Socket>()
  const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    socket.on("close", () => sockets.delete(socket))
    onConnection(socket)
  })
  const closed = new Promise<void>((resolve) => server.once("close", resolve))
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen({ port, host: "127.0.0.1", backlog: 4096 }, resolve)
  })
  const address = server.address()
  return {
    port: typeof address === "object" && address !== null ? address.port : 0,
    sockets,
    shut: () => void server.close(),
    stop: () => {
      if (server.listening) server.close()
      for (const socket of sockets) socket.destroy()
      return closed
    }
  }
}

export const start = async (options: Options = {}): Promise<Relay> => {
  const { secret } = options
  const said: Array<string> = []
  const waiting = new Map<string, Net.Socket>()
  const controls = new Set<Net.Socket>()
  const served: Array<Served> = []
  let connections = 0

  const hello = async (control: Net.Socket, wanted: number): Promise<void> => {
    let visitors: Served
    try {
      visitors = await serve(wanted, (visitor) => {
        const uuid = Crypto.randomUUID()
        waiting.set(uuid, visitor)
        visitor.on("close", () => waiting.delete(uuid))
        visitor.pause()
        control.write(frame({ Connection: uuid }))
      })
    } catch {
      return void control.end(frame({ Error: "port already in use" }))
    }
    served.push(visitors)
    const timer = setInterval(() => control.write(frame("Heartbeat")), 200)
    controls.add(control)
    const over = (): void => {
      clearInterval(timer)
      controls.delete(control)
      visitors.shut()
    }
    if (control.destroyed) return over()
    control.on("close", over)
    control.write(frame({ Hello: visitors.port }))
  }

  const clients = await serve(options.listen ?? 0, (socket) => {
    const n = connections++
    if (options.instead?.(socket, n) === true) return
    const uuid = Crypto.randomUUID()
    let wants = secret !== undefined
    if (wants) socket.write(frame({ Challenge: uuid }))
    let seen = Buffer.alloc(0)
    const onData = (bytes: Buffer): void => {
      seen = Buffer.concat([seen, bytes])
      for (let end = seen.indexOf(0); end >= 0; end = seen.indexOf(0)) {
        const line = seen.subarray(0, end).toString()
        seen = seen.subarray(end + 1)
        said.push(`${n}: ${line}`)
        const message = JSON.parse(line) as {
          readonly Authenticate?: string
          readonly Hello?: number
          readonly Accept?: string
        }
        if (wants) {
          if (message.Authenticate !== answerOf(secret ?? "", uuid)) {
            return void socket.end(frame({ Error: "invalid secret" }))
          }
          wants = false
        } else if (message.Hello !== undefined) {
          void hello(socket, message.Hello)
        } else if (message.Accept !== undefined) {
          const visitor = waiting.get(message.Accept)
          waiting.delete(message.Accept)
          socket.off("data", onData)
          socket.pause()
          if (visitor === undefined) return void socket.destroy()
          if (seen.length > 0) socket.unshift(seen)
          if (options.onAccept?.(socket, visitor) !== true) join(visitor, socket)
          return
        }
      }
    }
    socket.on("data", onData)
    socket.on("end", () => controls.has(socket) ? socket.end() : undefined)
  })

  return {
    port: clients.port,
    given: () => served.at(-1)?.port,
    said,
    open: () => ({
      clients: clients.sockets.size,
      visitors: served.reduce((sum, { sockets }) => sum + sockets.size, 0)
    }),
    tell: (message) => {
      for (const control of controls) control.write(frame(message))
    },
    dropControl: () => {
      for (const control of controls) control.resetAndDestroy()
    },
    stop: async () => {
      await Promise.all([...served, clients].map(({ stop }) => stop()))
    }
  }
}
