/**
 * A Worker under test: the store contract and check-ins, on a KV namespace or inside a Durable Object, as the path says.
 * `/kv/...` uses the namespace, `/do/...` the object.
 */
import * as CheckIn from "effect-lifeline/CheckIn"
import * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import { checks } from "./contract.ts"

interface Env {
  readonly KV: Cloudflare.Namespace
  readonly OBJECT: {
    readonly idFromName: (name: string) => unknown
    readonly get: (id: unknown) => { readonly fetch: (request: Request) => Promise<Response> }
  }
  readonly PULSE_URL: string
}

interface Storage extends Cloudflare.Storage {
  readonly setAlarm: (at: number) => Promise<void>
  readonly getAlarm: () => Promise<number | null>
}

const instance = { name: "resizer", type: "worker", apiUrl: "https://resizer.test" }

const registry = (env: Env, key: string) =>
  Pulse.layer({ url: env.PULSE_URL, apiKey: Redacted.make(key) }).pipe(Layer.provide(FetchHttpClient.layer))

/** The store in which whoever saves the record is stuck for ever: what a crash at this moment leaves behind. */
const stuck = (store: KeyValueStore.KeyValueStore): KeyValueStore.KeyValueStore => ({
  ...store,
  set: (key, value) => key.endsWith(":claim") ? store.set(key, value) : Effect.never
})

const outcome = <A, E>(effect: Effect.Effect<A, E>): Promise<Response> =>
  Effect.runPromise(Effect.exit(effect)).then((exit) => {
    if (exit._tag === "Success") return Response.json({ ok: true, value: exit.value ?? null })
    const error = Cause.squash(exit.cause)
    return Response.json({
      ok: false,
      error: { ...(error instanceof Error ? { message: error.message } : {}), ...(Object(error)) }
    })
  })

const increment = (store: KeyValueStore.KeyValueStore) =>
  store.set("count", "0").pipe(
    Effect.andThen(Effect.all(
      Array.from({ length: 20 }, () => store.modify("count", (count) => String(Number(count) + 1))),
      { concurrency: "unbounded" }
    )),
    Effect.andThen(store.get("count"))
  )

const handle = (url: URL, store: KeyValueStore.KeyValueStore, env: Env): Promise<Response> => {
  const [, , what] = url.pathname.split("/")
  const name = url.searchParams.get("name") ?? ""
  const provided = <A, E>(effect: Effect.Effect<A, E, KeyValueStore.KeyValueStore>) =>
    outcome(Effect.provideService(effect, KeyValueStore.KeyValueStore, store))
  switch (what) {
    case "contract":
      return provided(checks[name] ?? Effect.die(new Error(`there is no check ${name}`)))
    case "increment":
      return outcome(increment(store))
    case "set":
      return outcome(
        store.set(name, url.searchParams.get("value") ?? "x".repeat(Number(url.searchParams.get("length"))))
      )
    case "get":
      return outcome(store.get(name))
    case "keys":
      return outcome(store.keys)
    case "clear":
      return outcome(store.clear)
    case "check-in": {
      const used = url.searchParams.has("stuck") ? stuck(store) : store
      return outcome(
        CheckIn.run({
          instance,
          heartbeat: {
            verifyEvery: 0,
            interval: url.searchParams.get("interval") === null ? "1 minute" : "200 millis"
          },
          every: "100 millis"
        }).pipe(
          Effect.provide(registry(env, url.searchParams.get("key") ?? "")),
          Effect.provideService(KeyValueStore.KeyValueStore, used)
        )
      )
    }
    default:
      return Promise.resolve(new Response("unknown path", { status: 404 }))
  }
}

/** The same inside of a Durable Object, whose alarm keeps beating once `/do/alarm` has set it. */
export class Place {
  readonly storage: Storage
  readonly env: Env

  constructor(state: { readonly storage: Storage }, env: Env) {
    this.storage = state.storage
    this.env = env
  }

  async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url)
    if (url.pathname === "/do/alarm") {
      await this.storage.setAlarm(Date.now() + Number(url.searchParams.get("in") ?? "0"))
      return Response.json({ ok: true, value: null })
    }
    if (url.pathname === "/do/when") return Response.json({ ok: true, value: await this.storage.getAlarm() })
    return handle(url, Cloudflare.makeDurableObject(this.storage), this.env)
  }

  async alarm(): Promise<void> {
    const report = await CheckIn.runAlarm({ instance, heartbeat: { verifyEvery: 0, interval: "200 millis" } }).pipe(
      Effect.provide([registry(this.env, "key-of-the-registry"), Cloudflare.layerDurableObject(this.storage)]),
      Effect.runPromise
    )
    if (report.dueAt < Infinity) await this.storage.setAlarm(report.dueAt)
  }
}

export default {
  fetch: (request: Request, env: Env): Promise<Response> => {
    const url = new URL(request.url)
    return url.pathname.startsWith("/do/")
      ? env.OBJECT.get(env.OBJECT.idFromName("one")).fetch(request)
      : handle(url, Cloudflare.makeKV(env.KV), env)
  }
}
