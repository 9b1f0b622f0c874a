// Connections by node:net: what is set on their sockets, and what becomes of a platform that cannot. How they carry bytes is
// tested with the tunnel.
import { assert, describe, it } from "@effect/vitest"
import { Dialer } from "effect-lifeline/Dialer"
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Net from "node:net"
import { vi } from "vitest"

/** A server on loopback that sends back what comes. */
const echo = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly server: Net.Server }>((resume) => {
    const server = Net.createServer((socket) => {
      socket.on("error", () => {})
      socket.pipe(socket)
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      resume(Effect.succeed({ server, port: typeof address === "object" && address !== null ? address.port : 0 }))
    })
  }),
  ({ server }) => Effect.sync(() => void server.close())
)

const keepalive = (implementation?: () => never) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const spy = vi.spyOn(Net.Socket.prototype, "setKeepAlive")
      if (implementation !== undefined) spy.mockImplementation(implementation)
      return spy
    }),
    (spy) => Effect.sync(() => spy.mockRestore())
  )

describe("NodeDialer", () => {
  it.live("asks an idle connection after 30 seconds, then each 10", () =>
    Effect.gen(function*() {
      const { port } = yield* echo
      const spy = yield* keepalive()
      const { dial } = yield* Dialer
      yield* dial({ host: "127.0.0.1", port })
      assert.deepStrictEqual(spy.mock.calls, [[true, 30_000, 10_000]])
    }).pipe(Effect.provide(NodeDialer.layer)))

  it.live("where that cannot be set it is said, once, and the connection is there all the same", () => {
    const lines: Array<string> = []
    return Effect.gen(function*() {
      const { port } = yield* echo
      yield* keepalive(() => {
        throw new Error("setsockopt ENOPROTOOPT")
      })
      const { dial } = yield* Dialer
      for (const text of ["first", "second"]) {
        const connection = yield* dial({ host: "127.0.0.1", port })
        yield* connection.write(new TextEncoder().encode(text))
        assert.strictEqual(new TextDecoder().decode(yield* connection.read), text)
      }
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0] ?? "", /^Warn 127\.0\.0\.1:\d+ goes without keepalive.*ENOPROTOOPT/)
    }).pipe(
      Effect.provide([
        NodeDialer.layer,
        Logger.layer([Logger.make(({ logLevel, message }) => lines.push(`${logLevel} ${String(message)}`))])
      ])
    )
  })
})
