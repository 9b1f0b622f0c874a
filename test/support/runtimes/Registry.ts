/**
 * The embedded registry on loopback, behind a {@link Front} that shows what was called.
 */
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Front from "./Front.ts"
import { RuntimeError } from "./Watch.ts"

const Services = Schema.Array(Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  api_url: Schema.String,
  status: Schema.String,
  metadata: Schema.String,
  api_key: Schema.optionalKey(Schema.String)
}))

export type Service = typeof Services.Type[number]

/** The key that the registry wants. */
export const key = "key-of-the-registry"

/** Fetches JSON on loopback, and fails with what came instead. */
export const getJson = (url: string, apiKey?: string): Effect.Effect<unknown, RuntimeError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, headers: apiKey === undefined ? {} : { "x-api-key": apiKey } })
      return await response.json()
    },
    catch: (cause) => new RuntimeError({ problem: `GET ${url} failed: ${String(cause)}`, cause })
  })

export const make = Effect.gen(function*() {
  const context = yield* NodeRegistry.make({ apiKey: Redacted.make(key) })
  const { url } = Context.get(context, NodeRegistry.NodeRegistry)
  const front = yield* Front.make(url)
  const services = getJson(`${url}/api/v1/services`, key).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(Services)),
    Effect.orDie
  )
  return {
    /** Goes through the front. */
    url: front.url,
    front,
    services,
    /** Removes a service behind its back. */
    forget: (id: string): Effect.Effect<void> =>
      Effect.promise(async () => {
        await fetch(`${url}/api/v1/services/${id}`, { method: "DELETE", headers: { "x-api-key": key } })
      }),
    /** The service of that name; the test fails where there is none. */
    service: (name: string): Effect.Effect<Service> =>
      Effect.flatMap(services, (found) => {
        const service = found.find((candidate) => candidate.name === name)
        return service === undefined
          ? Effect.die(new RuntimeError({ problem: `${name} is not registered`, seen: JSON.stringify(found) }))
          : Effect.succeed(service)
      })
  }
})
