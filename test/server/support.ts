/**
 * The registry in the test's own clock, and a plain client for it.
 */
import * as Catalog from "effect-lifeline/server/Catalog"
import * as Events from "effect-lifeline/server/Events"
import * as Server from "effect-lifeline/server/Server"
import * as Store from "effect-lifeline/server/Store"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

export const origin = "http://registry.test"

/** A health check gets a 404 from everybody. */
const nobody = Layer.succeed(
  HttpClient.HttpClient,
  HttpClient.make((request) => Effect.succeed(HttpClientResponse.fromWeb(request, new Response(null, { status: 404 }))))
)

export interface ServeOptions extends Server.Options {
  readonly store?: Layer.Layer<Store.Store, Store.StoreError>
  readonly httpClient?: Layer.Layer<HttpClient.HttpClient>
}

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly json: Schema.Json
}

export interface Call {
  /** Text is sent as it is, anything else as JSON. */
  readonly body?: unknown
  readonly headers?: Record<string, string>
}

const parse = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Json))

export const toReply = async (response: Response): Promise<Reply> => {
  const text = await response.text()
  const isJson = /json/.test(response.headers.get("content-type") ?? "") && text !== ""
  return { status: response.status, headers: response.headers, text, json: isJson ? parse(text) : null }
}

export const makeRequest = (method: string, path: string, call?: Call): Request =>
  new Request(`${origin}${path}`, {
    method,
    headers: { ...(call?.body === undefined ? {} : { "content-type": "application/json" }), ...call?.headers },
    ...(call?.body === undefined
      ? {}
      : { body: typeof call.body === "string" ? call.body : JSON.stringify(call.body) })
  })

/** Starts a registry in the scope of the test, under the test's clock. */
export const serve = Effect.fnUntraced(function*(options?: ServeOptions) {
  const app = yield* Layer.build(
    Server.layer(options).pipe(
      Layer.provideMerge(HttpRouter.layer),
      Layer.provide([options?.store ?? Store.layerMemory, options?.httpClient ?? nobody])
    )
  )
  const context = Context.merge(yield* Effect.context<never>(), app)
  const handler = HttpEffect.toWebHandlerWith<never, HttpServerRequest.HttpServerRequest | Scope.Scope>(context)(
    Context.get(app, HttpRouter.HttpRouter).asHttpEffect()
  )
  const send = (request: Request): Effect.Effect<Response> => Effect.promise(() => handler(request))
  const call = (method: string, path: string, call?: Call): Effect.Effect<Reply> =>
    Effect.promise(async () => toReply(await handler(makeRequest(method, path, call))))
  return {
    send,
    call,
    register: (body: unknown) => call("POST", "/api/v1/services/register", { body }),
    catalog: Context.get(app, Catalog.Catalog),
    events: Context.get(app, Events.Events)
  }
})

export const minimal = { name: "haul", type: "app", api_url: "http://haul:8484" }

const isObject = (json: Schema.Json): json is Schema.JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** A field of a JSON object, or `null`. */
export const field = (json: Schema.Json, key: string): Schema.Json => isObject(json) ? json[key] ?? null : null

export const idOf = (reply: Reply): string => String(field(reply.json, "id"))

export const list = (json: Schema.Json): ReadonlyArray<Schema.Json> => Array.isArray(json) ? json : []

export const names = (reply: Reply): ReadonlyArray<Schema.Json> => list(reply.json).map((item) => field(item, "name"))
