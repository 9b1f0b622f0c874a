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

export interface Exchange<T extends Classify.Table, A, E> {
  readonly request: HttpClientRequest.HttpClientRequest
  readonly at: Attempted
  readonly table: T
  /** Reads the body of a success. Absent: a success needs no body, so what is wrong with one does not matter. */
  readonly read?: ((body: string, at: Attempted) => Effect.Effect<A, E>) | undefined
  /** What was sent and must not come back in an error. */
  readonly secrets: ReadonlyArray<Redacted.Redacted | undefined>
  /** Instead of the adapter's own: one that signs what it sends. */
  readonly client?: ExchangeClient | undefined
}

export const isOk = (status: number): boolean => status >= 200 && status < 300

/** A client that signs what it sends may also fail with what it found out itself. */
export type ExchangeClient =
  | HttpClient.HttpClient
  | HttpClient.HttpClient.With<HttpClientError.HttpClientError | AuthFailed | Refused>

/**
 * Makes what carries out the exchanges of one adapter. `timeout` is that of a whole answer. Its client runs within the context
 * that the client's own layer was built in, so it sees the options that were given to that layer (a dispatcher, credentials)
 * and keeps them.
 */
export const make = (own: HttpClient.HttpClient, timeout: Duration.Duration, tracePropagation: boolean) => {
  const manual = HttpClient.tapRequest(own, () => setFetchOptions({ redirect: "manual" }))

  const withTracing = (context: Context.Context<never>): Context.Context<never> =>
    // Where nobody traces and no header is wanted, the client need not make a span.
    !tracePropagation && Context.get(context, Tracer.Tracer) === Tracer.nativeTracer
      ? Context.add(context, Tracer.DisablePropagation, true)
      : Context.add(context, HttpClient.TracerPropagationEnabled, tracePropagation)
  // Kept from one request to the next: the services are the same ones, and the client copies those that are not settled yet.
  let settled: { readonly of: Context.Context<never>; readonly context: Context.Context<never> } | undefined

  return <const T extends Classify.Table, A = void, E = never>(
    { at, client = manual, read, request, secrets, table }: Exchange<T, A, E>
  ): Effect.Effect<A, Classify.ErrorsOf<T> | Transient | AuthFailed | E> =>
    Effect.withFiber((fiber) => {
      const here = (): Classify.At => ({
        ...at,
        now: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(),
        secrets
      })
      let response: HttpClientResponse.HttpClientResponse | undefined
      const decide = (body: string): Effect.Effect<A, Classify.ErrorsOf<T> | Transient | AuthFailed | E> => {
        const { headers = {}, status = 0 } = response ?? {}
        if (!isOk(status) || Classify.isHtml(headers)) {
          return Effect.fail(Classify.fromResponse(table, { status, headers, body }, here()))
        }
        return read === undefined ? Effect.void as Effect.Effect<never> : read(body, at)
      }
      // Where the status alone decides, nothing that happens to the body after it is a failure.
      const unlessDecided = <E2>(error: () => E2) =>
        response !== undefined && !(read !== undefined && isOk(response.status)) ? decide("") : Effect.fail(error())
      const answered = Effect.matchEffect(
        Effect.flatMap(client.execute(request), (received) => {
          response = received
          if (received.status !== 204) return readBody(received, at)
          // Taken over: else the client watches over a body that nobody will read, for a third of what a heartbeat costs.
          HttpClientResponse.toWeb(received)
          return Effect.succeed("")
        }),
        {
          onSuccess: decide,
          onFailure: (error) =>
            unlessDecided(() =>
              error._tag === "HttpClientError" ? Classify.fromClientError(table, error, here()) : error
            )
        }
      )
      if (settled?.of !== fiber.context) settled = { of: fiber.context, context: withTracing(fiber.context) }
      return within(
        settled.context,
        answered,
        timeout,
        () => unlessDecided(() => Classify.timedOut({ ...at, after: timeout }))
      )
    })
}

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
