/**
 * One exchange with a registry over HTTP: a request, a whole answer, a deadline over both, and failures in the algebra.
 *
 * - The deadline covers connecting, waiting and reading the body to its end.
 * - A status that is not a success is definitive as soon as it is there: a body that breaks off, never ends or is too
 *   large after it only costs its detail. So a 401 is a 401, whatever comes after.
 * - Redirects are not followed: fetch would send the API key along to another origin, and would turn a POST into a GET. It
 *   also reports a redirect loop as the same `TypeError` as a lost connection; not followed, a redirect is a status.
 * - Trace headers are off unless asked for: in a browser they force a CORS preflight.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Classify from "../Classify.ts"
import type { Attempted, AuthFailed, Refused, Transient } from "../LifelineError.ts"
import { within } from "./deadline.ts"
import { setFetchOptions } from "./fetchOptions.ts"
import { issuesOf } from "./issues.ts"
import { showIssues } from "./showIssues.ts"

/** The most that is read of one answer, in bytes: some ten thousand services. */
export const maxBodySize = 4 * 1024 * 1024

export interface Options<T extends Classify.Table> {
  readonly at: Attempted
  readonly table: T
  readonly timeout: Duration.Duration
  /** `false`: a success needs no body, so what is wrong with one does not matter. */
  readonly body: boolean
  readonly tracePropagation: boolean
  /** What was sent and must not come back in an error. */
  readonly secrets: ReadonlyArray<Redacted.Redacted | undefined>
}

export const isOk = (status: number): boolean => status >= 200 && status < 300

/** A client that signs what it sends may also fail with what it found out itself. */
export type ExchangeClient =
  | HttpClient.HttpClient
  | HttpClient.HttpClient.With<HttpClientError.HttpClientError | AuthFailed | Refused>

/**
 * Makes a client fit for {@link exchange}; once per adapter. It runs within the context that the client's own layer was built
 * in, so it sees the options that were given to that layer (a dispatcher, credentials) and keeps them.
 */
export const prepare = /*#__PURE__*/ HttpClient.tapRequest(() => setFetchOptions({ redirect: "manual" }))

/** Sends a request with a {@link prepare}d client and gives the body of a success. */
export const exchange = <const T extends Classify.Table>(
  client: ExchangeClient,
  request: HttpClientRequest.HttpClientRequest,
  { at, body, secrets, table, timeout, tracePropagation }: Options<T>
): Effect.Effect<string, Classify.ErrorsOf<T> | Transient | AuthFailed> =>
  Effect.withFiber((fiber) => {
    const clock = fiber.getRef(Clock.Clock)
    const here = (): Classify.At => ({ ...at, now: clock.currentTimeMillisUnsafe(), secrets })
    let response: HttpClientResponse.HttpClientResponse | undefined
    // Where the status alone decides, nothing that happens to the body after it is a failure.
    const unlessDecided = <E>(error: () => E): Effect.Effect<string, E> =>
      response !== undefined && !(body && isOk(response.status)) ? Effect.succeed("") : Effect.failSync(error)
    const answered = Effect.flatMap(client.execute(request), (received) => {
      response = received
      if (received.status !== 204) return readBody(received, at)
      // Taken over: else the client watches over a body that nobody will read, for a third of what a heartbeat costs.
      HttpClientResponse.toWeb(received)
      return Effect.succeed("")
    }).pipe(
      Effect.catch((error) =>
        unlessDecided(() => error._tag === "HttpClientError" ? Classify.fromClientError(table, error, here()) : error)
      )
    )
    // Where nobody traces and no header is wanted, the client need not make a span.
    const context = !tracePropagation && fiber.getRef(Tracer.Tracer) === Tracer.nativeTracer
      ? Context.add(fiber.context, Tracer.DisablePropagation, true)
      : Context.add(fiber.context, HttpClient.TracerPropagationEnabled, tracePropagation)
    return Effect.flatMap(
      within(context, answered, timeout, () => unlessDecided(() => Classify.timedOut({ ...at, after: timeout }))),
      (body) => {
        const { headers = {}, status = 0 } = response ?? {}
        return isOk(status) && !Classify.isHtml(headers)
          ? Effect.succeed(body)
          : Effect.failSync(() => Classify.fromResponse(table, { status, headers, body }, here()))
      }
    )
  })

/** The body as text, up to {@link maxBodySize}. */
export const readBody = (
  response: HttpClientResponse.HttpClientResponse,
  at: Attempted
): Effect.Effect<string, HttpClientError.HttpClientError | Refused> => {
  const decoder = new TextDecoder()
  let size = 0
  let text = ""
  return Stream.runForEach(response.stream, (chunk) => {
    size += chunk.length
    text += decoder.decode(chunk, { stream: true })
    return size > maxBodySize
      ? Effect.fail(Classify.malformedResponse({ ...at, detail: "more than 4 MiB" }))
      : Effect.void
  }).pipe(
    Effect.map(() => text + decoder.decode()),
    Effect.catchReason("HttpClientError", "EmptyBodyError", () => Effect.succeed(""))
  )
}

/** Reads a body. What is wrong with it is said by the path of the field, never by its value. */
export const readJson = <S extends Schema.Decoder<unknown>>(
  schema: S
): (body: string, at: Attempted) => Effect.Effect<S["Type"], Refused> => {
  const decode = Schema.decodeUnknownEffect(schema)
  return (body, at) =>
    Effect.try({
      try: (): unknown => JSON.parse(body),
      catch: () => body === "" ? "no body" : "a body that is not JSON"
    }).pipe(
      Effect.flatMap((json) => Effect.mapError(decode(json), (error) => showIssues(issuesOf(error, "body")))),
      Effect.mapError((detail) => Classify.malformedResponse({ ...at, detail }))
    )
}
