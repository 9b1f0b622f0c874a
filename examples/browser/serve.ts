/**
 * Serves the page and a registry from one origin, as a deployment does: `node examples/browser/serve.ts`.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Server from "effect-lifeline/server/Server"
import * as Store from "effect-lifeline/server/Store"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { build } from "esbuild"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

const path = (file: string): string => fileURLToPath(new URL(file, import.meta.url))

const page = readFileSync(path("./index.html"), "utf8")

const bundle = Effect.promise(async () => {
  const bundled = await build({
    entryPoints: [path("./main.ts")],
    bundle: true,
    format: "esm",
    minify: true,
    write: false
  })
  return bundled.outputFiles.map((file) => file.text).join("")
})

const program = Effect.gen(function*() {
  const port = yield* Config.Int("PORT").pipe(Config.withDefault(9697))
  const apiKey = yield* Config.option(Config.Redacted("PULSE_API_KEY"))
  const script = yield* bundle
  const app = yield* Layer.build(
    Layer.mergeAll(
      Server.layer({ apiKey: Option.getOrUndefined(apiKey) }),
      HttpRouter.add("GET", "/", HttpServerResponse.text(page, { contentType: "text/html" })),
      HttpRouter.add("GET", "/main.js", HttpServerResponse.text(script, { contentType: "text/javascript" }))
    ).pipe(
      Layer.provideMerge(HttpRouter.layer),
      Layer.provide([Store.layerMemory, FetchHttpClient.layer])
    )
  )
  // Listens last: whoever called before there is a handler would wait in vain.
  const http = yield* NodeHttpServer.make(createServer, { host: "127.0.0.1", port })
  yield* http.serve(Effect.provideContext(Context.get(app, HttpRouter.HttpRouter).asHttpEffect(), app))
  yield* Effect.log(`open ${HttpServer.formatAddress(http.address)}`)
  return yield* Effect.never
})

NodeRuntime.runMain(Effect.scoped(program))
