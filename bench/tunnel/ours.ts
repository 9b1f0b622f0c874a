// Ours: SERVER_PORT LOCAL_PORT SECRET. Says when it is ready, and then, whenever it is asked, how much CPU it took.
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"

const [server, local, secret] = process.argv.slice(2)

await Effect.runPromise(
  Effect.gen(function*() {
    const tunnel = yield* Tunnel.make({
      server: { host: "127.0.0.1", port: Number(server) },
      local: { host: "127.0.0.1", port: Number(local) },
      secret: secret === undefined ? undefined : Redacted.make(secret)
    })
    yield* tunnel.channel.session
    process.on("message", () => process.send?.(process.cpuUsage()))
    process.send?.("ready")
    return yield* tunnel.ended
  }).pipe(Effect.scoped, Effect.provide(NodeDialer.layer))
)
