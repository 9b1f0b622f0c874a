/**
 * A port on loopback that neither accepts nor refuses: the process that listens there is stopped, and what its queue of
 * pending connections holds is taken. A further connection attempt gets no answer at all.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import * as Net from "node:net"

const listener = `
  const server = require("node:net").createServer()
  server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => console.log(server.address().port))
`

/** Whether a connection is taken within a moment; it stays open. */
const take = (port: number, taken: Array<Net.Socket>): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = Net.connect(port, "127.0.0.1")
    taken.push(socket)
    const timer = setTimeout(() => resolve(false), 300)
    socket.on("error", () => {})
    socket.once("connect", () => {
      clearTimeout(timer)
      resolve(true)
    })
  })

const fill = async (port: number, taken: Array<Net.Socket>): Promise<void> => {
  for (let n = 0; n < 16; n++) if (!(await take(port, taken))) return
  throw new Error("the queue of pending connections has no end on this platform")
}

/** The port; it hangs as long as the scope is open. */
export const make: Effect.Effect<number, never, Scope.Scope> = Effect.gen(function*() {
  const taken: Array<Net.Socket> = []
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["-e", listener], { stdio: ["ignore", "pipe", "inherit"] })),
    (child) =>
      Effect.callback<void>((resume) => {
        for (const socket of taken) socket.destroy()
        child.once("close", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const port = yield* Effect.callback<number>((resume) => {
    child.stdout.once("data", (chunk: Buffer) => resume(Effect.succeed(Number(chunk.toString()))))
  })
  child.kill("SIGSTOP")
  yield* Effect.promise(() => fill(port, taken))
  return port
})
