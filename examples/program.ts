/**
 * The program of all examples, the same file on every runtime: Haul, a download client that lives among peers.
 *
 * It registers with Pulse and stays registered, tells who its peers are, and greets a peer with the API key that the peer
 * shares through the registry. A registry that cannot be reached does not keep it from starting: it waits for at most the
 * retry window, then goes on standalone while attempts continue.
 *
 * | route | answers |
 * |---|---|
 * | `GET /health` | that it runs, to everyone |
 * | `GET /api/peers` | name and URL of every registered service; empty when standalone |
 * | `GET /api/hello` | who it is, and on what runtime |
 * | `GET /api/hello?of={peer}` | what that peer answers to `GET /api/hello` |
 *
 * Routes under `/api` want this program's own API key in `X-Api-Key`.
 */
import * as Backoff from "effect-lifeline/Backoff"
import * as Discovery from "effect-lifeline/Discovery"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Exit from "effect/Exit"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SubscriptionRef from "effect/SubscriptionRef"

// ---------------------------------------------------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------------------------------------------------

/** Read from the environment: `PULSE_URL`, `PULSE_API_KEY`, `HAUL_NAME`, `HAUL_PORT` and so on. */
const settings = Config.all({
  pulse: Config.all({
    /** Absent: no registry; the program runs standalone. */
    url: Config.option(Config.String("URL")),
    apiKey: Config.option(Config.Redacted("API_KEY"))
  }).pipe(Config.nested("PULSE")),
  haul: Config.all({
    name: Config.option(Config.String("NAME")),
    /** 0: any free port. */
    port: Config.Int("PORT").pipe(Config.withDefault(8484)),
    /** Where peers reach this program, if not at `http://127.0.0.1:{port}`. */
    url: Config.option(Config.String("URL")),
    /** Absent: made up at the first start. */
    apiKey: Config.option(Config.Redacted("API_KEY")),
    heartbeat: Config.Duration("HEARTBEAT").pipe(Config.withDefault(Duration.seconds(30))),
    /** How long the start waits for the registry. */
    retryWindow: Config.Duration("RETRY_WINDOW").pipe(Config.withDefault(Duration.minutes(2)))
  }).pipe(Config.nested("HAUL"))
})

/** What the program knows of itself: its settings, and the key that it shares with its peers. */
export class Haul extends Context.Service<Haul, {
  readonly name: string
  readonly runtime: string
  readonly port: number
  readonly url: string | undefined
  readonly apiKey: Redacted.Redacted
  readonly heartbeat: Duration.Duration
  readonly retryWindow: Duration.Duration
}>()("examples/Haul") {}

/** The key from the settings, else from the store, else a new one, kept in the store. */
const ownKey = Effect.fnUntraced(function*(given: Option.Option<Redacted.Redacted>) {
  if (Option.isSome(given)) return given.value
  const store = yield* KeyValueStore.KeyValueStore
  const kept = yield* store.get("api-key")
  if (kept !== undefined) return Redacted.make(kept)
  const random = yield* SecureRandom.SecureRandom
  const made = Hex.encode(yield* random.randomBytes(32))
  yield* store.set("api-key", made)
  return Redacted.make(made)
})

/**
 * All that the program needs, on the runtime of that name. The store keeps the program's own key: in memory where the
 * program runs on, in the runtime's own storage where it is started for each event.
 */
export const layer = (runtime: string) =>
  Layer.unwrap(Effect.gen(function*() {
    const { haul, pulse } = yield* settings
    const registry = { url: Option.getOrUndefined(pulse.url), apiKey: Option.getOrUndefined(pulse.apiKey) }
    return Layer.mergeAll(
      Layer.effect(
        Haul,
        Effect.map(ownKey(haul.apiKey), (apiKey) => ({
          name: Option.getOrElse(haul.name, () => `haul-${runtime}`),
          runtime,
          port: haul.port,
          url: Option.getOrUndefined(haul.url),
          apiKey,
          heartbeat: haul.heartbeat,
          retryWindow: haul.retryWindow
        }))
      ),
      Pulse.layer(registry),
      Layer.provide(Discovery.layer, PulseDirectory.layer(registry))
    )
  })).pipe(
    Layer.provideMerge(FetchHttpClient.layer),
    Layer.provide(SecureRandom.layerWebCrypto)
  )

/**
 * What the program says of itself, and how often: the options of `Lifeline.make` and of `CheckIn.run`. Without any URL it
 * is refused before anything is sent.
 */
export const options = (haul: Haul["Service"], listensAt = "") => ({
  instance: {
    name: haul.name,
    type: "download-client",
    apiUrl: haul.url ?? listensAt,
    apiKey: haul.apiKey,
    capabilities: ["supports_torrent"],
    metadata: { runtime: haul.runtime }
  },
  heartbeat: {
    interval: haul.heartbeat,
    // Pulse's waits, 2, 4, 8, 16, 32 and 32 seconds, as long as they fall into the window.
    registering: Backoff.make({ base: "2 seconds", cap: "32 seconds", attempts: 7, elapsed: haul.retryWindow })
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// Peers
// ---------------------------------------------------------------------------------------------------------------------

/** The peer could not be called, or answered something else. */
export class PeerFailed extends Data.TaggedError("PeerFailed")<{ readonly peer: string; readonly detail: string }> {
  override get message() {
    return `${this.peer} did not answer as it should: ${this.detail}`
  }
}

const Hello = Schema.Struct({ name: Schema.String, runtime: Schema.String })

/** Name and URL of every registered service; empty when standalone. */
export const peers = Effect.flatMap(Discovery.Discovery, (discovery) => discovery.peers)

/** Finds a peer by its name, and calls it with the key that it shares. */
export const callPeer = Effect.fn("Haul.callPeer")(function*(name: string) {
  const discovery = yield* Discovery.Discovery
  const peer = yield* discovery.peer(name)
  const failed = (detail: string) => new PeerFailed({ peer: name, detail })
  return yield* HttpClient.get(`${peer.url}/api/hello`, { headers: { "x-api-key": Redacted.value(peer.apiKey) } }).pipe(
    Effect.flatMap(HttpClientResponse.filterStatusOk),
    Effect.flatMap(HttpClientResponse.schemaBodyJson(Hello)),
    Effect.timeout("5 seconds"),
    Effect.catchTags({
      HttpClientError: (error) => Effect.fail(failed(error.reason._tag)),
      SchemaError: () => Effect.fail(failed("not a greeting")),
      TimeoutError: () => Effect.fail(failed("no answer within 5 seconds"))
    })
  )
})

// ---------------------------------------------------------------------------------------------------------------------
// HTTP
// ---------------------------------------------------------------------------------------------------------------------

export type Handler = (request: Request) => Promise<Response>

/** Compares all of both, so that the time it takes does not tell how much of a guess was right. */
const isKey = (key: Redacted.Redacted, given: string): boolean => {
  const expected = Redacted.value(key)
  let difference = expected.length ^ given.length
  for (let i = 0; i < expected.length; i++) difference |= expected.charCodeAt(i) ^ given.charCodeAt(i)
  return difference === 0
}

const json = (body: unknown, status = 200): Response => Response.json(body, { status })

const problem = (status: number, error: Error): Response => json({ status, detail: error.message }, status)

/** What a caller is told of a peer that could not be called. */
const peerStatus = { NotConfigured: 503, RegistryUnreachable: 503, UnknownPeer: 404, PeerSharesNoKey: 502 } as const

/** Answers one request. Every failure is an answer. */
export const answer = Effect.fnUntraced(
  function*(request: Request) {
    const haul = yield* Haul
    const { pathname, searchParams } = new URL(request.url)
    if (request.method !== "GET") return json({ status: 405, detail: "only GET" }, 405)
    if (pathname === "/health") return json({ status: "ok" })
    if (!isKey(haul.apiKey, request.headers.get("x-api-key") ?? "")) {
      return json({ status: 401, detail: "A valid X-Api-Key header is required." }, 401)
    }
    if (pathname === "/api/peers") return json(yield* peers)
    if (pathname !== "/api/hello") return json({ status: 404, detail: `nothing at ${pathname}` }, 404)
    const peer = searchParams.get("of")
    return json(peer === null ? { name: haul.name, runtime: haul.runtime } : yield* callPeer(peer))
  },
  Effect.catchTags({
    PeerUnavailable: (error) => Effect.succeed(problem(peerStatus[error.reason._tag], error)),
    PeerFailed: (error) => Effect.succeed(problem(502, error)),
    // The registry refused this program's own key, or is none: nothing that the caller could change.
    AuthFailed: (error) => Effect.succeed(problem(500, error)),
    Refused: (error) => Effect.succeed(problem(500, error))
  })
)

// ---------------------------------------------------------------------------------------------------------------------
// Running on
// ---------------------------------------------------------------------------------------------------------------------

/** What a runtime brings: its HTTP server, on 127.0.0.1. */
export interface Runtime {
  readonly name: string
  readonly serve: (port: number, handler: Handler) => Promise<{
    readonly port: number
    readonly stop: () => Promise<void>
  }>
}

class CannotListen extends Data.TaggedError("CannotListen")<{ readonly port: number; readonly cause: unknown }> {
  override get message() {
    return `cannot listen on 127.0.0.1:${this.port}: ${String(this.cause)}`
  }
}

const main = Effect.fnUntraced(function*(runtime: Runtime) {
  const haul = yield* Haul
  const run = Effect.runPromiseWith(yield* Effect.context<Haul | Discovery.Discovery | HttpClient.HttpClient>())
  const server = yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: () => runtime.serve(haul.port, (request) => run(answer(request))),
      catch: (cause) => new CannotListen({ port: haul.port, cause })
    }),
    (server) => Effect.promise(server.stop)
  )
  const listensAt = `http://127.0.0.1:${server.port}`
  yield* Effect.log(`${haul.name} listens at ${listensAt}`)
  const lifeline = yield* Lifeline.make(options(haul, listensAt))
  const status = yield* SubscriptionRef.get(lifeline.status)
  switch (status._tag) {
    case "Disabled":
      yield* Effect.log("started standalone: no registry is configured (PULSE_URL)")
      break
    case "Standalone":
      yield* Effect.logWarning("started standalone: the registry could not be reached, attempts continue")
      break
    default:
      yield* Effect.log("started, registered with the registry")
  }
  return yield* Effect.never
})

/**
 * Runs until `signal` says to stop. Resolves with the exit code: 0 when it was told to stop, 1 when it could not go on, for
 * instance because the registry refused its key; the log says why.
 */
export const run = (runtime: Runtime, signal: AbortSignal): Promise<number> =>
  main(runtime).pipe(
    Effect.scoped,
    Effect.provide(Layer.provide(layer(runtime.name), KeyValueStore.layerMemory)),
    Effect.tapError((error) => Effect.logError(error.message)),
    Effect.onInterrupt(() => Effect.log("stopped")),
    (program) => Effect.runPromiseExit(program, { signal })
  ).then((exit) => Exit.isSuccess(exit) || signal.aborted ? 0 : 1)
