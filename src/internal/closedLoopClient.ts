/** What is sent to a ClosedLoop server, and how its answers are read. */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Classify from "../Classify.ts"
import * as Credential from "../Credential.ts"
import type { AuthFailed, Refused, Transient } from "../LifelineError.ts"
import { isOk, readBody, readJson } from "./httpExchange.ts"
import { Issued, toToken } from "./issuedToken.ts"

/** An answer as it came. */
export interface Got {
  readonly status: number
  readonly headers: { readonly [name: string]: string | undefined }
  readonly body: string
  readonly at: Classify.At
}

export interface Options {
  readonly url: string
  readonly timeout: Duration.Duration
  readonly tracePropagation: boolean
}

export interface Call {
  readonly operation: string
  readonly method: "GET" | "POST"
  readonly id: string
  /** After the loop, e.g. `"/heartbeat"`. */
  readonly path: string
  readonly authorizer: Credential.Authorizer
  readonly idempotencyKey?: string | undefined
}

export type Send = (call: Call) => Effect.Effect<Got, Transient | AuthFailed | Refused>

/**
 * The path of a loop: what is signed, and what is sent. A dot segment would be resolved by whatever parses the URL, and
 * a lone surrogate cannot be encoded.
 */
const pathOf = (id: string): string | undefined =>
  id === "" || id === "." || id === ".." || !id.isWellFormed() ? undefined : `/loops/${encodeURIComponent(id)}`

export const make = (client: HttpClient.HttpClient, { timeout, tracePropagation, url }: Options): Send =>
  Effect.fnUntraced(function*({ authorizer, id, idempotencyKey, method, operation, path }) {
    const loop = pathOf(id)
    if (loop === undefined) {
      const issues = [{ path: "id", message: "must be text other than \"\", \".\" and \"..\"" }]
      return yield* Classify.invalidRequest({ operation, target: url, issues })
    }
    const target = url + loop + path
    const presented = yield* authorizer.select
    const secrets = [presented._tag === "Token" ? presented.token.value : undefined]
    const at: Classify.At = {
      operation,
      target: `${method} ${target}`,
      now: yield* Clock.currentTimeMillis,
      secrets
    }
    const request = HttpClientRequest.make(method)(target, {
      headers: {
        ...(method === "POST" ? { "content-type": "application/json" } : {}),
        ...(idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey })
      }
    })
    // The proof may bring a credential of its own, which must not come back in an error either.
    const noting = HttpClient.transform(client, (response, { headers }) =>
      Effect.suspend(() => {
        const { authorization } = headers
        if (authorization !== undefined) secrets.push(Redacted.make(authorization.replace(/^\S+ /, "")))
        return response
      }))
    const signed: HttpClient.HttpClient.With<HttpClientError.HttpClientError | AuthFailed | Refused> = Credential
      .httpClient(noting, authorizer)
    let head: HttpClientResponse.HttpClientResponse | undefined
    // What a failure says beside its status does not matter.
    const decided = <E>(error: () => E): Effect.Effect<string, E> =>
      head !== undefined && !isOk(head.status) ? Effect.succeed("") : Effect.failSync(error)
    const body = yield* Effect.flatMap(signed.execute(request), (response) => {
      head = response
      return readBody(response, at)
    }).pipe(
      Effect.catch((error) =>
        decided(() => error._tag === "HttpClientError" ? Classify.fromClientError(Classify.http, error, at) : error)
      ),
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () => decided(() => Classify.timedOut({ ...at, after: timeout }))
      }),
      Effect.provideService(HttpClient.TracerPropagationEnabled, tracePropagation)
    )
    const { headers = {}, status = 0 } = head ?? {}
    return { status, headers, body, at }
  })

// ---------------------------------------------------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------------------------------------------------

const Loop = Schema.Struct({ status: Schema.String })

const Beat = Schema.Union([
  Schema.Struct({ bumped: Schema.Boolean, revived: Schema.Literal(true), ...Issued.fields }),
  Schema.Struct({
    bumped: Schema.Boolean,
    revived: Schema.optional(Schema.Literal(false)),
    token: Schema.optional(Schema.Never),
    expiresAt: Schema.optional(Schema.Never),
    jti: Schema.optional(Schema.Never)
  })
])

const Failed = Schema.fromJsonString(Schema.Struct({ error: Schema.String, code: Schema.optional(Schema.String) }))

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null

/** What is in the envelope `{ success, data }`, or the body itself where there is none. */
const unwrapped = (body: string): string => {
  try {
    const json: unknown = JSON.parse(body)
    return isObject(json) && "data" in json && isObject(json.data) ? JSON.stringify(json.data) : body
  } catch {
    return body
  }
}

const reader = <A>(schema: Schema.Codec<A, unknown>) => {
  const read = readJson(schema)
  return ({ at, body, headers }: Got): Effect.Effect<A, Refused> =>
    Classify.isHtml(headers)
      ? Effect.fail(Classify.malformedResponse({ ...at, detail: "an HTML page" }))
      : read(unwrapped(body), at)
}

export const readLoop = reader(Loop)

const readIssued = reader(Issued)

export const readToken = (got: Got): Effect.Effect<Credential.Token, Refused> =>
  Effect.flatMap(readIssued(got), (issued) => toToken(issued, got.at))

const readBumped = reader(Beat)

/** With a token exactly where it was revived. */
export const readBeat = (got: Got): Effect.Effect<Credential.Token | undefined, Refused> =>
  Effect.flatMap(
    readBumped(got),
    (beat): Effect.Effect<Credential.Token | undefined, Refused> =>
      beat.revived === true ? toToken(beat, got.at) : Effect.succeed(undefined)
  )

const readFailed = Schema.decodeOption(Failed)

/** The `code` of a failure. */
export const codeOf = ({ body }: Got): string | undefined => {
  const failed = readFailed(body)
  return failed._tag === "Some" ? failed.value.code : undefined
}

/** A failure as an error, with the server's words: `{ error, code }` in place of a problem document. */
export const errorOf = <const T extends Classify.Table>(table: T, got: Got): Classify.ErrorsOf<T> => {
  const failed = readFailed(got.body)
  if (failed._tag === "None") return Classify.fromResponse(table, got, got.at)
  const { code, error } = failed.value
  const body = JSON.stringify({ detail: code === undefined || code === error ? error : `${error} (${code})` })
  return Classify.fromResponse(table, { ...got, body }, got.at)
}
