/** A tunnel on any runtime: `main.ts SERVER_PORT LOCAL_PORT SECRET`, until it is killed. Says what becomes of connections. */
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import process from "node:process"

const [server, local, secret = ""] = process.argv.slice(2)

await Effect.runPromise(
  Effect.gen(function*() {
    const tunnel = yield* Tunnel.make({
      server: { host: "127.0.0.1", port: Number(server) },
      local: { host: "127.0.0.1", port: Number(local) },
      secret: Redacted.make(secret)
    })
    yield* Effect.forkScoped(
      Stream.runForEach(tunnel.events, (event) =>
        Effect.sync(() => {
          const how = "cause" in event && event.cause !== undefined ? event.cause._tag : "ok"
          console.log(`${event.connection} ${event._tag} ${how}`)
        })),
      { startImmediately: true }
    )
    console.log(`listening at ${(yield* tunnel.channel.session).port}`)
    return yield* tunnel.ended
  }).pipe(Effect.scoped, Effect.provide(NodeDialer.layer))
)
