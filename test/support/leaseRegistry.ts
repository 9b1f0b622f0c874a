/**
 * The embedded registry with leases on a port of the loopback interface, a program with a key, and clocks that can be set: time
 * passes at once, and everything else is real.
 */
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Proof from "effect-lifeline/Proof"
import * as PulseLease from "effect-lifeline/registry/PulseLease"
import * as Catalog from "effect-lifeline/server/Catalog"
import * as Events from "effect-lifeline/server/Events"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as References from "effect/References"

export const instance = { name: "haul", type: "app", apiUrl: "http://haul:8484" }

/** How far the clocks of a test are ahead of the machine's, in milliseconds. */
export interface Time {
  ahead: number
}

/** Sleeps are real. */
export const clockOf = (time: Time, skew = 0): Clock.Clock => {
  const live = Clock.Clock.defaultValue()
  const millis = () => live.currentTimeMillisUnsafe() + time.ahead + skew
  const nanos = () => BigInt(millis()) * 1_000_000n
  return {
    ...live,
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    sleep: (duration) => live.sleep(duration)
  }
}

/** A test in the machine's time, and in the clocks that it is given. */
export const timed = <A, E, R>(body: (time: Time) => Effect.Effect<A, E, R>) => (): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    const time = { ahead: 0 }
    return body(time).pipe(
      Effect.provideService(Clock.Clock, clockOf(time)),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  })

export const pass = (time: Time, duration: Duration.Input): Effect.Effect<void> =>
  Effect.sync(() => {
    time.ahead += Duration.toMillis(Duration.fromInputUnsafe(duration))
  })

export const startRegistry = Effect.fnUntraced(function*(time: Time, options: NodeRegistry.Options = {}) {
  const context = yield* NodeRegistry.make({ leases: { reapEvery: "20 millis" }, ...options }).pipe(
    Effect.provideService(Clock.Clock, clockOf(time))
  )
  return {
    url: Context.get(context, NodeRegistry.NodeRegistry).url,
    events: Context.get(context, Events.Events),
    catalog: Context.get(context, Catalog.Catalog)
  }
})

/** What a request presented: `"PUT heartbeat DPoP"`, `"POST refresh proof"`. */
const shown = ({ headers, method, url }: HttpClientRequest.HttpClientRequest): string => {
  const [scheme = ""] = (headers["authorization"] ?? "").split(" ")
  return `${method} ${url.split("/").at(-1)} ${scheme || (headers["dpop"] === undefined ? "nothing" : "proof")}`
}

/** Instead of sending: an answer, or the request that is sent. */
export type Meddle = (
  request: HttpClientRequest.HttpClientRequest,
  send: (request: HttpClientRequest.HttpClientRequest) => ReturnType<HttpClient.HttpClient["execute"]>
) => ReturnType<HttpClient.HttpClient["execute"]>

/** An answer of a proxy on the way. */
export const answered = (request: HttpClientRequest.HttpClientRequest, status: number, headers: HeadersInit = {}) =>
  Effect.succeed(HttpClientResponse.fromWeb(request, new Response(null, { status, headers })))

export interface Program {
  readonly key: Proof.KeyPair
  readonly store: KeyValueStore.KeyValueStore
  readonly proof: Proof.Proof["Service"]
  readonly client: HttpClient.HttpClient
  /** What was sent, once each: a request that was asked for a nonce is sent again. */
  readonly sent: Array<string>
  /** All that was sent and is a secret. */
  readonly secrets: Set<string>
  meddle: Meddle
}

export const makeStore = (kept = new Map<string, string>()): KeyValueStore.KeyValueStore =>
  KeyValueStore.makeStringOnly({
    get: (key) => Effect.sync(() => kept.get(key)),
    set: (key, value) => Effect.sync(() => void kept.set(key, value)),
    remove: (key) => Effect.sync(() => void kept.delete(key)),
    clear: Effect.sync(() => kept.clear()),
    size: Effect.sync(() => kept.size),
    keys: Effect.sync(() => [...kept.keys()])
  })

/** What stays when a program is started again: its key, its store. And what is on the wire. */
export const makeProgram = Effect.fnUntraced(function*(
  options: { readonly key?: Proof.KeyPair; readonly store?: KeyValueStore.KeyValueStore } = {}
) {
  const fetch = yield* Effect.provide(HttpClient.HttpClient, FetchHttpClient.layer)
  const key = options.key ?? (yield* Effect.orDie(Proof.generateKey()))
  const program: Program = {
    key,
    store: options.store ?? makeStore(),
    proof: yield* Proof.dpop({ key }),
    sent: [],
    secrets: new Set(),
    meddle: (request, send) => send(request),
    client: HttpClient.transform(fetch, (_, request) =>
      Effect.suspend(() => {
        for (const name of ["authorization", "dpop"]) {
          const secret = request.headers[name]?.split(" ").at(-1)
          if (secret !== undefined) program.secrets.add(secret)
        }
        return Effect.tap(program.meddle(request, (request) => fetch.execute(request)), (response) =>
          Effect.sync(() => {
            const isNonce = response.headers["www-authenticate"]?.includes("use_dpop_nonce") === true
            if (!isNonce) program.sent.push(`${shown(request)} ${response.status}`)
          }))
      }))
  }
  return program
})

/** Starts it: once more with the same key and store. */
export const start = (
  program: Program,
  url: string,
  options: Partial<PulseLease.Options> = {}
) =>
  PulseLease.make({ url, name: "haul", ...options }).pipe(
    Effect.provideService(HttpClient.HttpClient, program.client),
    Effect.provideService(Proof.Proof, program.proof),
    Effect.provideService(KeyValueStore.KeyValueStore, program.store)
  )
