// Visitors, and the service that they come for: what a visitor says first is what it wants.
import { once } from "node:events"
import * as Net from "node:net"
import { serve } from "../../test/support/boreRelay.ts"
import type { Served } from "../../test/support/boreRelay.ts"

/** `up`: to the service, which reads it. `down`: from it. */
export type Direction = "up" | "down"

const chunk = Buffer.alloc(1 << 16, "0123456789abcdef")

const write = (socket: Net.Socket, bytes: number): void => {
  let left = bytes
  const more = (): void => {
    while (left > 0) {
      const part = left < chunk.length ? chunk.subarray(0, left) : chunk
      left -= part.length
      if (!socket.write(part)) return void socket.once("drain", more)
    }
    socket.end()
  }
  more()
}

const count = async (socket: Net.Socket): Promise<number> => {
  let bytes = 0
  socket.on("data", (part) => {
    bytes += part.length
  })
  await once(socket, "end")
  return bytes
}

/** `u`: counts what comes, and says how much at the end. `d<bytes>;`: sends so much. `?`: answers at once. */
export const service = (): Promise<Served> =>
  serve(0, (socket) => {
    socket.once("data", (first: Buffer) => {
      const kind = String.fromCharCode(first[0] ?? 0)
      if (kind === "?") return void socket.end("!")
      if (kind === "d") return write(socket, Number(first.subarray(1, first.indexOf(";"))))
      void count(socket).then((rest) => socket.end(String(first.length - 1 + rest)))
    })
  })

const visit = (port: number): Net.Socket => Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })

/** Moves so many bytes over so many connections at once; gives bytes per second. */
export const move = async (port: number, direction: Direction, bytes: number, connections: number): Promise<number> => {
  const each = Math.floor(bytes / connections)
  const started = performance.now()
  await Promise.all(Array.from({ length: connections }, async () => {
    const visitor = visit(port)
    if (direction === "down") {
      visitor.write(`d${each};`)
      const came = await count(visitor)
      visitor.end()
      if (came !== each) throw new Error(`${came} bytes came instead of ${each}`)
    } else {
      visitor.write("u")
      write(visitor, each)
      const [said] = await once(visitor, "data")
      if (String(said) !== String(each)) throw new Error(`${said} bytes arrived instead of ${each}`)
    }
  }))
  return each * connections / ((performance.now() - started) / 1000)
}

/** Milliseconds from connecting to the answer of the service. */
export const ask = async (port: number): Promise<number> => {
  const started = performance.now()
  const visitor = visit(port)
  visitor.write("?")
  await once(visitor, "data")
  const took = performance.now() - started
  visitor.end()
  visitor.resume()
  await once(visitor, "close")
  return took
}
