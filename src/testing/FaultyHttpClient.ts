/**
 * An `HttpClient` that misbehaves as told: for tests of registry adapters and of programs that use one.
 *
 * A script says what becomes of each request: it is dropped, answered late or never, answered with any status, headers and
 * body, its body breaks off or never ends, or it passes to a real client. Waits go by `Clock`, so they cost nothing under
 * `TestClock`. What was sent, and what is still open, can be asked for afterwards.
 *
 * **Example** (A registry that is down, then throttles, then works)
 *
 * ```ts
 * import * as FaultyHttpClient from "effect-lifeline/testing/FaultyHttpClient"
 * import * as Pulse from "effect-lifeline/registry/Pulse"
 * import * as Layer from "effect/Layer"
 *
 * const http = FaultyHttpClient.layer(FaultyHttpClient.sequence([
 *   FaultyHttpClient.drop("ECONNREFUSED"),
 *   FaultyHttpClient.respond(429, { headers: { "retry-after": "7" } })
 * ], FaultyHttpClient.json(200, [])))
 *
 * export const registry = Pulse.layer({ url: "http://pulse.test" }).pipe(Layer.provideMerge(http))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

/**
 * What becomes of a request. Made by {@link pass}, {@link drop}, {@link hang}, {@link respond}, {@link json},
 * {@link cutOff}, {@link endless}, {@link stall} and {@link delay}.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome =
  | { readonly _tag: "Pass" }
  | { readonly _tag: "Drop"; readonly code: string }
  | { readonly _tag: "Hang" }
  | { readonly _tag: "Delay"; readonly by: Duration.Input; readonly then: Outcome }
  | {
    readonly _tag: "Respond"
    readonly status: number
    readonly headers: { readonly [name: string]: string }
    readonly body: string
    readonly end: "end" | "cut off" | "stall" | "endless"
  }

/**
 * What an answer looks like; its status is 200 where nothing else is given.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResponseOptions {
  readonly status?: number | undefined
  readonly headers?: { readonly [name: string]: string } | undefined
  readonly body?: string | undefined
}

/**
 * A request as it was sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded {
  readonly method: string
  /** With the query. */
  readonly url: string
  /** Names in lower case. */
  readonly headers: { readonly [name: string]: string }
  readonly body: string
}

/**
 * What becomes of the n-th request, n from 0.
 *
 * @category models
 * @since 0.1.0
 */
export type Script = (request: Recorded, n: number) => Outcome

/**
 * The outcomes in their order, then `otherwise` for ever.
 *
 * @category constructors
 * @since 0.1.0
 */
export const sequence = (outcomes: ReadonlyArray<Outcome>, otherwise: Outcome = pass): Script => (_, n) =>
  outcomes[n] ?? otherwise

/**
 * Goes to the client behind; where there is none, as {@link drop}.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const pass: Outcome = { _tag: "Pass" }

/**
 * There is no answer, as when nobody listens or the name does not resolve. `code` is the platform's, as Node has it.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const drop = (code = "ECONNREFUSED"): Outcome => ({ _tag: "Drop", code })

/**
 * There never is an answer.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const hang: Outcome = { _tag: "Hang" }

/**
 * An answer, whole. Any status, also those that a `Response` cannot have.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const respond = (status: number, options: Omit<ResponseOptions, "status"> = {}): Outcome => ({
  _tag: "Respond",
  status,
  headers: options.headers ?? {},
  body: options.body ?? "",
  end: "end"
})

/**
 * A JSON answer, whole.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const json = (status: number, value: unknown): Outcome =>
  respond(status, { headers: { "content-type": "application/json" }, body: JSON.stringify(value) })

const ending = (end: "cut off" | "stall" | "endless") => (options: ResponseOptions = {}): Outcome => ({
  _tag: "Respond",
  status: options.status ?? 200,
  headers: options.headers ?? {},
  body: options.body ?? "[",
  end
})

/**
 * The body breaks off after `body`, as when a connection is reset.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const cutOff: (options?: ResponseOptions) => Outcome = ending("cut off")

/**
 * After `body` nothing more comes, and no end either.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const stall: (options?: ResponseOptions) => Outcome = ending("stall")

/**
 * `body` comes again and again, as fast as it is read.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const endless: (options?: ResponseOptions) => Outcome = ending("endless")

/**
 * An outcome, later.
 *
 * @category outcomes
 * @since 0.1.0
 */
export const delay = (by: Duration.Input, then: Outcome): Outcome => ({ _tag: "Delay", by, then })

/**
 * The client and what it saw.
 *
 * @category services
 * @since 0.1.0
 */
export class FaultyHttpClient extends Context.Service<FaultyHttpClient, {
  readonly client: HttpClient.HttpClient
  /** Goes on with another script; its requests are counted from 0 again. */
  readonly use: (script: Script) => Effect.Effect<void>
  /** All requests so far. */
  readonly requests: Effect.Effect<ReadonlyArray<Recorded>>
  /** Requests without an answer now, and the most there were at a time. */
  readonly inFlight: Effect.Effect<{ readonly now: number; readonly most: number }>
  /** Bodies of scripted answers that were neither read to their end nor cancelled: a leak, once things are quiet. */
  readonly openBodies: Effect.Effect<number>
}>()("effect-lifeline/testing/FaultyHttpClient") {}

const encoder = new TextEncoder()

const cutOffError = (): Error =>
  new TypeError("terminated", { cause: Object.assign(new Error("other side closed"), { code: "ECONNRESET" }) })

const bodyOf = (outcome: Outcome & { readonly _tag: "Respond" }): Stream.Stream<Uint8Array, Error> => {
  const text = Stream.succeed(encoder.encode(outcome.body))
  switch (outcome.end) {
    case "end":
      return outcome.body === "" ? Stream.empty : text
    case "cut off":
      return Stream.concat(text, Stream.suspend(() => Stream.fail(cutOffError())))
    case "stall":
      return Stream.concat(text, Stream.never)
    case "endless":
      return Stream.forever(text)
  }
}

const isNullBody = (status: number): boolean => status === 204 || status === 205 || status === 304

/**
 * Makes a client that follows a script. `client` is what {@link pass} goes to.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (
  script: Script,
  client?: HttpClient.HttpClient
) => Effect.Effect<FaultyHttpClient["Service"]> = (first, behind) =>
  Effect.sync(() => {
    const requests: Array<Recorded> = []
    let script = first
    let n = 0
    let now = 0
    let most = 0
    let openBodies = 0

    const answer = Effect.fnUntraced(function*(
      request: HttpClientRequest.HttpClientRequest,
      outcome: Outcome & { readonly _tag: "Respond" }
    ) {
      const { headers, status } = outcome
      const possible = status >= 200 && status <= 599
      if (isNullBody(status)) return HttpClientResponse.fromWeb(request, new Response(null, { status, headers }))
      // Open at once, as a connection is, until it was read to its end or cancelled.
      const body = Stream.suspend(() => {
        openBodies++
        return Stream.ensuring(bodyOf(outcome), Effect.sync(() => openBodies--))
      })
      const readable = yield* Stream.toReadableStreamEffect(body)
      const response = HttpClientResponse.fromWeb(
        request,
        new Response(readable, { status: possible ? status : 200, headers })
      )
      return possible ? response : Object.create(response, { status: { value: status } }) as typeof response
    })

    const play = (
      request: HttpClientRequest.HttpClientRequest,
      outcome: Outcome
    ): Effect.Effect<HttpClientResponse.HttpClientResponse, HttpClientError.HttpClientError> => {
      switch (outcome._tag) {
        case "Pass":
          return behind === undefined ? play(request, drop()) : behind.execute(request)
        case "Drop":
          return Effect.suspend(() => {
            const cause = new TypeError("fetch failed", {
              cause: Object.assign(new Error(outcome.code), { code: outcome.code })
            })
            const reason = new HttpClientError.TransportError({ request, cause })
            return Effect.fail(new HttpClientError.HttpClientError({ reason }))
          })
        case "Hang":
          return Effect.never
        case "Delay":
          return Effect.delay(Effect.suspend(() => play(request, outcome.then)), outcome.by)
        case "Respond":
          return answer(request, outcome)
      }
    }

    const client = HttpClient.make((request, url) =>
      Effect.suspend(() => {
        const recorded: Recorded = {
          method: request.method,
          url: url.href,
          headers: { ...request.headers },
          body: request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
        }
        requests.push(recorded)
        most = Math.max(most, ++now)
        return Effect.ensuring(play(request, script(recorded, n++)), Effect.sync(() => now--))
      })
    )

    return FaultyHttpClient.of({
      client,
      use: (next) =>
        Effect.sync(() => {
          script = next
          n = 0
        }),
      requests: Effect.sync(() => [...requests]),
      inFlight: Effect.sync(() => ({ now, most })),
      openBodies: Effect.sync(() => openBodies)
    })
  })

const contextOf = (faulty: FaultyHttpClient["Service"]): Context.Context<FaultyHttpClient | HttpClient.HttpClient> =>
  Context.make(FaultyHttpClient, faulty).pipe(Context.add(HttpClient.HttpClient, faulty.client))

/**
 * A scripted client with nothing behind it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (script: Script): Layer.Layer<FaultyHttpClient | HttpClient.HttpClient> =>
  Layer.effectContext(Effect.map(make(script), contextOf))

/**
 * A scripted client before a real one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerOver = (
  script: Script
): Layer.Layer<FaultyHttpClient | HttpClient.HttpClient, never, HttpClient.HttpClient> =>
  Layer.effectContext(
    Effect.flatMap(HttpClient.HttpClient, (client) => Effect.map(make(script, client), contextOf))
  )
