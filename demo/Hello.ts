/**
 * What each service of the demo serves: one route, which greets whoever shows the service's own API key.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { createServer } from "node:http"

const greet = (name: string, apiKey: Redacted.Redacted) =>
  HttpRouter.add(
    "GET",
    "/api/hello",
    Effect.map(HttpServerRequest.HttpServerRequest, ({ headers }) =>
      headers["x-api-key"] === Redacted.value(apiKey)
        ? HttpServerResponse.text(`Hello from ${name}`)
        : HttpServerResponse.text("Who are you?", { status: 401 }))
  )

/** Serves on any free port of this machine, as long as the scope is open, and says at which URL. */
export const serve = Effect.fnUntraced(function*(name: string, apiKey: Redacted.Redacted) {
  const context = yield* Layer.build(
    HttpRouter.serve(greet(name, apiKey), { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
    )
  )
  const server = yield* Effect.provideContext(HttpServer.HttpServer, context)
  return HttpServer.formatAddress(server.address)
})
