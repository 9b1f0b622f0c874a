/**
 * The registry in a Durable Object, with its storage, and a Worker in front of it.
 */
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as Server from "effect-lifeline/server/Server"
import * as Store from "effect-lifeline/server/Store"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

export class Registry {
  readonly #registry: ReturnType<typeof Server.toWebHandler>
  constructor(state: { readonly storage: Cloudflare.Storage }) {
    this.#registry = Server.toWebHandler({
      apiKey: Redacted.make("right-key"),
      health: { interval: "100 millis" },
      store: Store.layerKeyValueStore.pipe(Layer.provide(Cloudflare.layerDurableObject(state.storage)))
    })
  }
  fetch(request: Request): Promise<Response> {
    return this.#registry.handler(request)
  }
}

interface Env {
  readonly REGISTRY: {
    readonly idFromName: (name: string) => unknown
    readonly get: (id: unknown) => { readonly fetch: (request: Request) => Promise<Response> }
  }
}

export default {
  fetch: (request: Request, env: Env): Promise<Response> =>
    env.REGISTRY.get(env.REGISTRY.idFromName("the one")).fetch(request)
}
