/** A tunnel in a Worker, until two connections are over; the ports come as a query. */
import { connect } from "cloudflare:sockets"
import * as CloudflareDialer from "effect-lifeline/cloudflare/CloudflareDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"

export default {
  fetch: (request: Request): Promise<Response> => {
    const query = new URL(request.url).searchParams
    return Effect.runPromise(
      Effect.gen(function*() {
        const tunnel = yield* Tunnel.make({
          server: { host: "127.0.0.1", port: Number(query.get("server")) },
          local: { host: "127.0.0.1", port: Number(query.get("local")) },
          secret: Redacted.make(query.get("secret") ?? "")
        })
        yield* tunnel.events.pipe(
          Stream.filter(({ _tag }) => _tag !== "Opened"),
          Stream.take(3),
          Stream.runDrain
        )
        return Response.json(yield* tunnel.stats)
      }).pipe(Effect.scoped, Effect.provide(CloudflareDialer.layer(connect)))
    )
  }
}
