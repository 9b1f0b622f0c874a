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

/** Effects over a socket. While nobody reads it is paused, with what the platform read ahead: some 64 kB. */
const connectionOf = (socket: Net.Socket): Dialer.Connection => {
  const unread: Array<Uint8Array> = []
  let ended = false
  let failure: Effect.Effect<never, unknown> | undefined
  let reader: Resume<Uint8Array | undefined> | undefined
  /** Waits for room, or for the end to be sent. */
  let writer: Resume<void> | undefined

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
  socket.on("data", (bytes: Uint8Array) => {
    if (read(Effect.succeed(bytes))) return
    unread.push(bytes)
    socket.pause()
  })
  socket.on("end", () => {
    ended = true
    read(Effect.succeed(undefined))
  })
  socket.on("drain", () => written(Effect.void))
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
  return {
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
    write: (bytes) => Effect.suspend(() => failure ?? (socket.write(bytes) ? Effect.void : wait)),
    end: Effect.suspend(() => {
      if (failure !== undefined) return failure
      socket.end()
      return socket.writableFinished ? Effect.void : wait
    }),
    reset: Effect.sync(() => {
      if (!socket.destroyed) socket.resetAndDestroy()
    })
  }
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
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => Net.connect({ host: to.host, port: to.port, allowHalfOpen: true })),
      (socket) => Effect.sync(() => socket.destroy())
    )
    const connection = connectionOf(socket)
    socket.pause()
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
