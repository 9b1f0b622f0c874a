/**
 * A look at the registry from outside, with nothing of `effect-lifeline`: what the demo believes is what any HTTP client
 * sees.
 */
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

const Service = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  status: Schema.String,
  last_seen: Schema.String
})

export type Service = typeof Service.Type

const readServices = HttpClientResponse.schemaBodyJson(Schema.Array(Service))

/** Everything that is registered, sorted by name. Fails with what the registry did instead of answering. */
export const services = (
  url: string,
  apiKey: Redacted.Redacted
): Effect.Effect<ReadonlyArray<Service>, string, HttpClient.HttpClient> =>
  HttpClient.get(`${url}/api/v1/services`, { headers: { "x-api-key": Redacted.value(apiKey) } }).pipe(
    Effect.flatMap(HttpClientResponse.filterStatusOk),
    Effect.flatMap(readServices),
    Effect.map((all) => all.toSorted((a, b) => a.name < b.name ? -1 : 1)),
    Effect.mapError((error) => `the registry does not list its services: ${error.message}`)
  )

/** Whether anything answers there. */
export const answers = (url: string): Effect.Effect<boolean, never, HttpClient.HttpClient> =>
  HttpClient.get(`${url}/health`).pipe(
    Effect.match({ onSuccess: () => true, onFailure: () => false })
  )

/** "haul online, pilot online" */
export const show = (all: ReadonlyArray<Service>): string =>
  all.length === 0 ? "nobody" : all.map((service) => `${service.name} ${service.status}`).join(", ")
