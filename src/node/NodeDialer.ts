/**
 * Connections by `node:net`: on Node, and on Deno and Bun, which have it too.
 *
 * **Example** (As a layer)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as NodeDialer from "effect-lifeline/node/NodeDialer"
 * import * as Tunnel from "effect-lifeline/Tunnel"
 *
 * export const program = Effect.scoped(Effect.gen(function*() {
 *   const tunnel = yield* Tunnel.make({ server: { host: "relay.example" }, local: { port: 3000 } })
 *   return yield* tunnel.ended
 * })).pipe(Effect.provide(NodeDialer.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Net from "node:net"
import * as Dialer from "../Dialer.ts"

type Resume<A> = (effect: Effect.Effect<A, unknown>) => void

/** Bytes of the buffer of a connection on which little comes, and of one that filled the former. */
const small = 4096
const large = 65_536

/**
 * Effects over a socket. What comes is read into one buffer, again and again, as long as somebody reads; a new one for each chunk,
 * as streams have them, would keep the garbage collector busier than all else together. Where the platform has no `onread` it
 * comes as data events.
 */
const connect = (to: Dialer.Address) => {
  const unread: Array<Uint8Array> = []
  let ended = false
  let failure: Effect.Effect<never, unknown> | undefined
  let reader: Resume<Uint8Array | undefined> | undefined
  /** Waits for what was written, or the end, to be sent. */
  let writer: Resume<void> | undefined
  let unsent = 0

  const read = (effect: Effect.Effect<Uint8Array | undefined, unknown>): boolean => {
    const resume = reader
    reader = undefined
    resume?.(effect)
    return resume !== undefined
  }
  const written = (effect: Effect.Effect<void, unknown>) => {
    const resume = writer
    writer = undefined
    resume?.(effect)
  }
  const fail = (error: unknown) => {
    failure ??= Effect.fail(error)
    read(failure)
    written(failure)
  }
  /** Whether more is wanted at once: who read may have come back for more. */
  const came = (bytes: Uint8Array): boolean => {
    if (!read(Effect.succeed(bytes))) unread.push(bytes.slice())
    return reader !== undefined
  }

  let buffer = Buffer.allocUnsafeSlow(small)
  let isFull = false
  const socket = Net.connect({
    host: to.host,
    port: to.port,
    allowHalfOpen: true,
    onread: {
      buffer: () => {
        const size = isFull ? large : small
        // What is still being sent of the former is kept by who sends it.
        if (buffer.length !== size) buffer = Buffer.allocUnsafeSlow(size)
        return buffer
      },
      callback: (length, bytes) => {
        isFull = length === bytes.length || (isFull && length > small)
        return came(bytes.subarray(0, length))
      }
    }
  })
  socket.pause()
  socket.on("data", (bytes: Uint8Array) => {
    if (!came(bytes)) socket.pause()
  })
  socket.on("end", () => {
    ended = true
    read(Effect.succeed(undefined))
  })
  socket.on("finish", () => written(Effect.void))
  // Stays for ever: an error without a listener ends the process.
  socket.on("error", fail)
  socket.on("close", () => {
    if (!ended || !socket.writableFinished) fail(new Error("the connection was closed"))
  })

  const wait = Effect.callback<void, unknown>((resume) => {
    writer = resume
    return Effect.sync(() => {
      if (writer === resume) writer = undefined
    })
  })
  const sent = () => {
    unsent--
    // An end waits for "finish".
    if (unsent === 0 && !socket.writableEnded) written(Effect.void)
  }
  const connection: Dialer.Connection = {
    read: Effect.suspend(() => {
      const bytes = unread.shift()
      if (bytes !== undefined) return Effect.succeed(bytes)
      if (failure !== undefined) return failure
      if (ended) return Effect.succeed(undefined)
      return Effect.callback<Uint8Array | undefined, unknown>((resume) => {
        reader = resume
        socket.resume()
        return Effect.sync(() => {
          if (reader === resume) reader = undefined
        })
      })
    }),
    unread: (bytes) => {
      if (bytes.length > 0) unread.unshift(bytes)
    },
    write: (bytes) =>
      Effect.suspend(() => {
        if (failure !== undefined) return failure
        unsent++
        socket.write(bytes, sent)
        // Mostly the system takes it at once.
        return socket.writableLength === 0 ? Effect.void : wait
      }),
    end: Effect.suspend(() => {
      if (failure !== undefined) return failure
      socket.end()
      return socket.writableFinished ? Effect.void : wait
    }),
    reset: Effect.sync(() => {
      if (!socket.destroyed) socket.resetAndDestroy()
    })
  }
  return { connection, socket }
}

const make = (): Dialer.Dialer["Service"] => {
  /** Who comes to a tunnel does not decide how much is logged: it is said once. */
  let isTold = false
  const tune = (socket: Net.Socket, to: Dialer.Address): Effect.Effect<void> =>
    Effect.try(() => {
      socket.setNoDelay(true)
      socket.setKeepAlive(true, 30_000, 10_000)
    }).pipe(
      Effect.catch(({ cause }) => {
        if (isTold) return Effect.void
        isTold = true
        return Effect.logWarning(`${to.host}:${to.port} goes without keepalive, as do others: ${String(cause)}`)
      }),
      Effect.annotateLogs({ package: "effect-lifeline" })
    )

  const dial = Effect.fnUntraced(function*(to: Dialer.Address) {
    const { connection, socket } = yield* Effect.acquireRelease(
      Effect.sync(() => connect(to)),
      ({ socket }) => Effect.sync(() => socket.destroy())
    )
    yield* Effect.callback<void, unknown>((resume) => {
      socket.once("connect", () => resume(Effect.void))
      socket.once("error", (error) => resume(Effect.fail(error)))
    })
    yield* tune(socket, to)
    return connection
  })
  return { dial }
}

/**
 * Connections by `node:net`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Dialer.Dialer> = Layer.sync(Dialer.Dialer, make)
