/**
 * A TCP proxy on loopback that does to connections what networks do: delays, loses, holds back, cuts off, resets. Each
 * connection is a link whose two directions are at fault by themselves, from the start or from any moment on. What comes
 * before a fault passes, in order; a fault that is taken back lets pass what comes then, and what was held back.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as Watch from "./runtimes/Watch.ts"

/** `up`: from the client to the server. */
export type Direction = "up" | "down"

/**
 * - `"pass"`
 * - `"drop"`: swallows what comes, the end too. In both directions it is a half-open connection: neither side learns that the
 *   other is gone.
 * - `"hold"`: reads nothing; what comes waits, the end too. The sender is held up once the buffers of the system are full.
 * - `delay`: everything arrives so many milliseconds later, the end too.
 * - `after`: lets so many bytes pass, counted from the start of the connection, and then does something else.
 */
export type Fault =
  | "pass"
  | "drop"
  | "hold"
  | { readonly delay: number }
  | { readonly after: number; readonly then: "drop" | "hold" | "reset" | "close" }

export interface Link {
  /** From 0, in the order of connecting. */
  readonly n: number
  /** From now on. */
  readonly fault: (direction: Direction | "both", fault: Fault) => void
  /** Ends both connections at once by RST: what was not read is lost. */
  readonly reset: () => void
  /** Ends both connections with what was written to them. */
  readonly close: () => void
  /** What the client sent, as it came here, byte for byte in Latin-1. */
  readonly sent: () => string
  /** How many bytes came out at the other end. */
  readonly passed: (direction: Direction) => number
  /** Whether the client is still there, and the server: neither ended its side of the connection. */
  readonly isOpen: () => { readonly client: boolean; readonly server: boolean }
}

export interface FaultProxy {
  readonly port: number
  readonly url: string
  readonly links: ReadonlyArray<Link>
  /** Waits for something that is so once a connection opened, closed, or had something to say. */
  readonly until: <A>(
    what: string,
    find: (links: ReadonlyArray<Link>) => A | undefined
  ) => Effect.Effect<A, Watch.RuntimeError>
  /** Connections that are open now, on either side. */
  readonly open: () => number
}

/** One direction. `act` ends the link. */
const makePipe = (from: Net.Socket, to: Net.Socket, act: (how: "reset" | "close") => void) => {
  const queue: Array<{ readonly bytes: Buffer | undefined; readonly at: number }> = []
  let fault: Fault = "pass"
  let timer: NodeJS.Timeout | undefined
  let passed = 0

  const write = (bytes: Buffer, then?: () => void) => {
    passed += bytes.length
    if (to.writable) to.write(bytes, then)
    else then?.()
  }

  const deliver = (bytes: Buffer | undefined) => {
    if (fault === "drop") return
    if (typeof fault === "string" || "delay" in fault) {
      if (bytes === undefined) to.end()
      else write(bytes)
      return
    }
    const { after, then } = fault
    const room = Math.max(0, after - passed)
    if (bytes === undefined) return void to.end()
    if (bytes.length < room) return write(bytes)
    if (then === "reset" || then === "close") {
      write(bytes.subarray(0, room), () => act(then))
      fault = "drop"
    } else {
      write(bytes.subarray(0, room))
      fault = then
      if (then === "hold") queue.unshift({ bytes: bytes.subarray(room), at: 0 })
    }
  }

  const flow = (): void => {
    const [item] = queue
    if (item !== undefined && timer === undefined && fault !== "hold") {
      const left = typeof fault === "object" && "delay" in fault ? item.at + fault.delay - performance.now() : 0
      if (left <= 0) {
        queue.shift()
        deliver(item.bytes)
        return flow()
      }
      timer = setTimeout(() => {
        timer = undefined
        flow()
      }, left)
    }
    if (fault === "hold" || to.writableNeedDrain) from.pause()
    else from.resume()
  }

  const take = (bytes: Buffer | undefined) => {
    queue.push({ bytes, at: performance.now() })
    flow()
  }
  from.on("data", take)
  from.on("end", () => take(undefined))
  to.on("drain", flow)

  return {
    set: (next: Fault) => {
      fault = next
      clearTimeout(timer)
      timer = undefined
      flow()
    },
    /** Whether the other side is to learn of the end. */
    tells: () => fault !== "drop" && fault !== "hold",
    passed: () => passed,
    stop: () => clearTimeout(timer)
  }
}

/**
 * Lives as long as the scope; closing it ends every connection, and waits for that. `plan` is called with each link before a
 * byte passes.
 */
export const make = (
  target: number,
  plan: (link: Link) => void = () => {}
): Effect.Effect<FaultProxy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<FaultProxy & { readonly stop: Effect.Effect<void> }>((resume) => {
      const sockets = new Set<Net.Socket>()
      const links: Array<Link> = []
      const seen = Watch.make<string>((line) => line)

      const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
        const far = Net.connect({ port: target, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
        const received: Array<Buffer> = []
        let isOver = false
        const act = (how: "reset" | "close") => {
          isOver = true
          for (const socket of [near, far]) {
            if (how === "reset") socket.resetAndDestroy()
            else socket.destroySoon()
          }
        }
        const up = makePipe(near, far, act)
        const down = makePipe(far, near, act)
        const n = links.length
        for (
          const [name, socket, other, pipe] of [["client", near, far, up], ["server", far, near, down]] as const
        ) {
          sockets.add(socket)
          socket.on("error", () => {})
          socket.on("end", () => seen.add(`${n}: the ${name} ended`))
          // An orderly end went through the pipe; of any other the other side learns here.
          socket.on("close", (hadError) => {
            sockets.delete(socket)
            pipe.stop()
            if (hadError && !isOver && pipe.tells()) other.resetAndDestroy()
            seen.add(`${n}: the connection of the ${name} ended`)
          })
        }
        near.on("data", (bytes) => {
          received.push(bytes)
          seen.add(`${n}: ${bytes.length} bytes of the client`)
        })
        const link: Link = {
          n,
          fault: (direction, fault) => {
            if (direction !== "down") up.set(fault)
            if (direction !== "up") down.set(fault)
          },
          reset: () => act("reset"),
          close: () => act("close"),
          sent: () => Buffer.concat(received).toString("latin1"),
          passed: (direction) => (direction === "up" ? up : down).passed(),
          isOpen: () => ({
            client: !near.destroyed && !near.readableEnded,
            server: !far.destroyed && !far.readableEnded
          })
        }
        links.push(link)
        plan(link)
        seen.add(`${n}: connected`)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({
          port,
          url: `http://127.0.0.1:${port}`,
          links,
          until: (what, find) => seen.until(what, () => find(links)),
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
