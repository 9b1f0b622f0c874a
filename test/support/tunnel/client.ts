/**
 * A tunnel as a program: `client.ts SERVER_PORT LOCAL_PORT`. On SIGUSR2 it says what it holds and what it carried; it ends on
 * SIGINT, as programs do.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Timers from "node:timers/promises"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

const [server = 0, local = 0] = process.argv.slice(2).map(Number)

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

/** Bytes, after a collection, and one of what the first one made free. */
const held = async (): Promise<number> => {
  gc()
  await Timers.setTimeout(100)
  gc()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

NodeRuntime.runMain(
  Effect.gen(function*() {
    const tunnel = yield* Tunnel.make({
      server: { host: "127.0.0.1", port: server },
      local: { host: "127.0.0.1", port: local }
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => console.log("the end")))
    process.on("SIGUSR2", () => {
      void held().then((held) => console.log(`holds ${JSON.stringify({ held, ...Effect.runSync(tunnel.stats) })}`))
    })
    console.log(`listening at ${(yield* tunnel.channel.session).port}`)
    return yield* tunnel.ended
  }).pipe(Effect.scoped, Effect.provide(NodeDialer.layer))
)
