import { DurableObject } from "cloudflare:workers"
import * as CheckIn from "effect-lifeline/CheckIn"
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { answer, Haul, layer, options } from "../program.ts"

/** The namespace of the object, and the variables and secrets of the Worker. */
interface Env {
  readonly HAUL: DurableObjectNamespace<HaulObject>
  readonly PULSE_URL: string
  readonly PULSE_API_KEY: string
  readonly HAUL_URL: string
}

/** The program asks for `HAUL_URL` as `URL` in `HAUL`. */
const settings = (env: Env) => ConfigProvider.mapInput(ConfigProvider.fromUnknown(env), (path) => [path.join("_")])

const checkIn = Effect.gen(function*() {
  const report = yield* CheckIn.runAlarm(options(yield* Haul))
  yield* Effect.log(`${report._tag}: ${report.status}`)
  return report
})

/** Woken by its alarm exactly when something is due, and by whoever calls it. */
export class HaulObject extends DurableObject<Env> {
  readonly #runtime = ManagedRuntime.make(
    layer("alarm").pipe(
      Layer.provideMerge(Cloudflare.layerDurableObject(this.ctx.storage)),
      Layer.provide(ConfigProvider.layer(settings(this.env)))
    )
  )

  override async alarm(): Promise<void> {
    const { dueAt } = await this.#runtime.runPromise(checkIn)
    if (dueAt < Infinity) await this.ctx.storage.setAlarm(dueAt)
  }

  override async fetch(request: Request): Promise<Response> {
    if (await this.ctx.storage.getAlarm() === null) await this.ctx.storage.setAlarm(Date.now())
    return this.#runtime.runPromise(answer(request))
  }
}

export default {
  /** The first request starts it; from then on the alarm does. */
  fetch: (request, { HAUL }) => HAUL.get(HAUL.idFromName("haul")).fetch(request)
} satisfies ExportedHandler<Env>
