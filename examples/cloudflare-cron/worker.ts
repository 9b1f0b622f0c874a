import * as CheckIn from "effect-lifeline/CheckIn"
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { answer, Haul, layer, options } from "../program.ts"

/** The bindings, variables and secrets of the Worker. */
interface Env {
  readonly KV: KVNamespace
  readonly PULSE_URL: string
  readonly PULSE_API_KEY: string
  readonly HAUL_URL: string
}

/** The program asks for `HAUL_URL` as `URL` in `HAUL`. */
const settings = (env: Env) => ConfigProvider.mapInput(ConfigProvider.fromUnknown(env), (path) => [path.join("_")])

const runtime = (env: Env) =>
  layer("cron").pipe(
    Layer.provideMerge(Cloudflare.layerKV(env.KV)),
    Layer.provide(ConfigProvider.layer(settings(env)))
  )

const checkIn = Effect.gen(function*() {
  const report = yield* CheckIn.run(options(yield* Haul))
  yield* Effect.log(`${report._tag}: ${report.status}`)
})

export default {
  /** Once a minute: one step of the same machine that a process runs. */
  scheduled: (_event, env) => Effect.runPromise(Effect.provide(checkIn, runtime(env))),
  /** Whenever a peer calls. */
  fetch: (request, env) => Effect.runPromise(Effect.provide(answer(request), runtime(env)))
} satisfies ExportedHandler<Env>
