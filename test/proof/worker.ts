/** The program on Workers, with keys and tokens in a KV namespace. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Cloudflare from "../../src/cloudflare/KeyValueStore.ts"
import * as KeyStore from "../../src/KeyStore.ts"
import { cipher } from "./cipher.ts"
import { program } from "./program.ts"

export default {
  fetch: (_request: Request, env: { readonly KV: Cloudflare.Namespace }): Promise<Response> =>
    Effect.runPromise(
      Effect.map(program, (report) => new Response(JSON.stringify(report))).pipe(
        Effect.provide(KeyStore.layerKeyValueStore({ cipher }).pipe(Layer.provideMerge(Cloudflare.layerKV(env.KV))))
      )
    )
}
