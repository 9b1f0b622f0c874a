/**
 * A server that follows bore's wire protocol, over TCP on loopback, written from its description; and does as a script says
 * where that is wanted. It keeps what clients said.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Net from "node:net"
import * as Watch from "./runtimes/Watch.ts"

export interface Options {
  /** What it listens on. @default any */
  readonly listen?: number | undefined
  /** @default none */
  readonly secret?: string | undefined
  /** Ports that it gives. @default all */
  readonly allowed?: ((port: number) => boolean) | undefined
  /** What it does instead, at the start of the n-th connection (from 0); `true`: this is dealt with. */
  readonly instead?: ((socket: Net.Socket, n: number) => boolean) | undefined
  /** Milliseconds between heartbeats. @default 100; `undefined`: none */
  readonly heartbeat?: number | undefined
}

export interface Server {
  readonly port: number
  /** What came, e.g. `0: {"Hello":0}` on the first connection; and that it was given a port: `0: has 40000`. */
  readonly said: ReadonlyArray<string>
  readonly until: (
    what: string,
    find: (said: ReadonlyArray<string>) => boolean,
    within?: Duration.Input
  ) => Effect.Effect<void, Watch.RuntimeError>
  readonly say: (message: unknown) => void
  /** Ends every connection, and listens no more. */
  readonly stop: Effect.Effect<void>
  readonly open: () => number
}

/** The answer to a challenge, by node:crypto. */
export const answerOf = (secret: string, uuid: string): string =>
  Crypto.createHmac("sha256", Crypto.createHash("sha256").update(secret).digest())
    .update(Buffer.from(uuid.replaceAll("-", ""), "hex"))
    .digest("hex")

export const frame = (message: unknown): string => `${JSON.stringify(message)}\0`

export const make = (options: Options = {}): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Server>((resume) => {
      const sockets = new Set<Net.Socket>()
      const ready = new Set<Net.Socket>()
      const held = new Map<number, Net.Socket>()
      const lines: Array<string> = []
      const seen = Watch.make<string>((line) => line)
      const note = (line: string) => {
        lines.push(line)
        seen.add(line)
      }
      let connections = 0
      let given = 40_000
      const { allowed = () => true, heartbeat = 100, secret } = options

      const serve = (socket: Net.Socket) => {
        const n = connections++
        sockets.add(socket)
        let timer: NodeJS.Timeout | undefined
        let port: number | undefined
        socket.on("error", () => {})
        socket.on("close", () => {
          clearInterval(timer)
          sockets.delete(socket)
          ready.delete(socket)
          if (port !== undefined && held.get(port) === socket) held.delete(port)
          note(`${n}: closed`)
        })
        note(`${n}: connected`)
        if (options.instead?.(socket, n) === true) return void socket.resume()
        const say = (message: unknown) => void socket.write(frame(message))
        const fail = (text: string) => {
          say({ Error: text })
          socket.end()
        }
        const uuid = Crypto.randomUUID()
        let wants = secret !== undefined
        if (wants) say({ Challenge: uuid })
        let text = ""
        socket.on("data", (chunk) => {
          text += chunk.toString("utf8")
          for (let end = text.indexOf("\0"); end >= 0; end = text.indexOf("\0")) {
            const line = text.slice(0, end)
            text = text.slice(end + 1)
            note(`${n}: ${line}`)
            const message = JSON.parse(line) as { readonly Authenticate?: string; readonly Hello?: number }
            if (wants) {
              if (message.Authenticate === undefined) return fail("server requires secret, but no secret was provided")
              if (message.Authenticate !== answerOf(secret ?? "", uuid)) return fail("invalid secret")
              wants = false
            } else if (message.Hello !== undefined) {
              const wanted = message.Hello === 0 ? given++ : message.Hello
              if (!allowed(wanted)) return fail("client port number not in allowed range")
              if (held.has(wanted)) return fail("port already in use")
              held.set(port = wanted, socket)
              say({ Hello: wanted })
              ready.add(socket)
              note(`${n}: has ${wanted}`)
              timer = setInterval(() => say("Heartbeat"), heartbeat)
            }
          }
        })
        socket.on("end", () => socket.end())
      }

      const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, serve)
      server.listen(options.listen ?? 0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({
          port: typeof address === "object" && address !== null ? address.port : 0,
          said: lines,
          until: (what, find, within) => Effect.asVoid(seen.until(what, () => find(lines) ? true : undefined, within)),
          say: (message) => {
            for (const socket of ready) socket.write(frame(message))
          },
          stop: Effect.callback<void>((resume) => {
            for (const socket of sockets) socket.destroy()
            if (server.listening) server.close(() => resume(Effect.void))
            else resume(Effect.void)
          }),
          open: () => sockets.size
        }))
      })
    }),
    ({ stop }) => stop
  )
