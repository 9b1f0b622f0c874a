import * as CheckIn from "effect-lifeline/CheckIn"
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import { answer, Haul, layer, options } from "../program.ts"

/** The variables and secrets of the Worker, and the namespace of its object. */
type Env = {
  readonly HAUL: {
    readonly idFromName: (name: string) => unknown
    readonly get: (id: unknown) => { readonly fetch: (request: Request) => Promise<Response> }
  }
  readonly PULSE_URL: string
  readonly PULSE_API_KEY: string
  readonly HAUL_URL: string
}

interface Storage extends Cloudflare.Storage {
  readonly getAlarm: () => Promise<number | null>
  readonly setAlarm: (at: number) => Promise<void>
}

/** The program asks for `HAUL_URL` as `URL` in `HAUL`. */
const settings = (env: Env) => ConfigProvider.mapInput(ConfigProvider.fromUnknown(env), (path) => [path.join("_")])

const runtime = (storage: Storage, env: Env) =>
  ManagedRuntime.make(
    layer("alarm").pipe(
      Layer.provideMerge(Cloudflare.layerDurableObject(storage)),
      Layer.provide(ConfigProvider.layer(settings(env)))
    )
  )

const checkIn = Effect.gen(function*() {
  const report = yield* CheckIn.runAlarm(options(yield* Haul))
  yield* Effect.log(`${report._tag}: ${report.status}`)
  return report
})

/** One object, woken by its alarm exactly when something is due, and by whoever calls it. */
export class HaulObject {
  readonly storage: Storage
  readonly runtime: ReturnType<typeof runtime>

  constructor(state: { readonly storage: Storage }, env: Env) {
    this.storage = state.storage
    this.runtime = runtime(state.storage, env)
  }

  async alarm(): Promise<void> {
    const { dueAt } = await this.runtime.runPromise(checkIn)
    if (dueAt < Infinity) await this.storage.setAlarm(dueAt)
  }

  async fetch(request: Request): Promise<Response> {
    if (await this.storage.getAlarm() === null) await this.storage.setAlarm(Date.now())
    return this.runtime.runPromise(answer(request))
  }
}

export default {
  /** The first request starts it; from then on the alarm does. */
  fetch: (request: Request, { HAUL }: Env): Promise<Response> => HAUL.get(HAUL.idFromName("haul")).fetch(request)
}
