/**
 * Classification: how a raw failure becomes an error of the algebra. This is the only module that decides it, from one
 * table per protocol (HTTP, gRPC and Connect, WebSocket), by structured fields alone (a status, a code, a tag), never by
 * the text of a message.
 *
 * A table is plain data: from what came back to a {@link Verdict}, the name of a reason. The tag of the error follows from
 * the verdict, in values and in types: `Classify.http` has no verdict that means a lost lease, so what it yields is
 * `Transient | AuthFailed | Refused`; `Classify.httpLease` adds `LeaseLost`. An adapter whose registry speaks otherwise
 * extends a table by spreading it.
 *
 * | HTTP | verdict | error |
 * |---|---|---|
 * | 401, 403 | `Unauthorized`, `Forbidden` | `AuthFailed` |
 * | 404, 410 | `NotFound`; for calls that show a lease `UnknownLease`, `LeaseExpired` | `Refused`; `LeaseLost` |
 * | 429 | `Throttled` | `Transient` |
 * | 408, 425, 5xx except 501 | `Unavailable` | `Transient` |
 * | network, DNS, TLS, a body that breaks off | `Unreachable` | `Transient` |
 * | 409, 412 | `Conflict` | `Refused` |
 * | 400, 422, every other 4xx | `InvalidRequest` | `Refused` |
 * | 405, 501, every redirect | `Unsupported` | `Refused` |
 * | 1xx, a 2xx that is not what was asked for, anything else | `MalformedResponse` | `Refused` |
 * | 204 on an event stream | `Stop` | `Stop` |
 *
 * | gRPC, Connect | verdict | error |
 * |---|---|---|
 * | `UNAUTHENTICATED`, `PERMISSION_DENIED` | `Unauthorized`, `Forbidden` | `AuthFailed` |
 * | `UNAVAILABLE`, `INTERNAL`, `DEADLINE_EXCEEDED` | `Unavailable` | `Transient` |
 * | `RESOURCE_EXHAUSTED` | `Throttled` | `Transient` |
 * | `INVALID_ARGUMENT`, `FAILED_PRECONDITION` | `InvalidRequest`, `Conflict` | `Refused` |
 * | `NOT_FOUND`, `UNIMPLEMENTED` | `NotFound`, `Unsupported` | `Refused` |
 * | `CANCELED` | `Stop`; with subscriptions `Inconclusive` | `Stop`; `Inconclusive` |
 * | `UNKNOWN`, `ABORTED`, every other one | `Inconclusive` | `Inconclusive` |
 *
 * | WebSocket close | verdict | error |
 * |---|---|---|
 * | 3000, 4401; 3003, 4403 | `Unauthorized`; `Forbidden` | `AuthFailed` |
 * | 1001, 1005, 1006, 1011, 1014, 1015, 3008, other 4xxx | `Unavailable` | `Transient` |
 * | 1012, 1013 | `Throttled`: no sooner than the base of the backoff | `Transient` |
 * | 1000 | `Stop`; with subscriptions `Unavailable` | `Stop`; `Transient` |
 * | 1002, 1003, 1007 to 1010, other 44xx | `Unsupported`, `MalformedResponse`, `InvalidRequest` | `Refused` |
 * | every other one | `Inconclusive` | `Inconclusive` |
 *
 * **Example** (A registry that answers 409 when another instance holds the lease)
 *
 * ```ts
 * import * as Classify from "effect-lifeline/Classify"
 *
 * const table = { ...Classify.httpLease, 409: "LeaseTaken" } as const
 *
 * export const error = Classify.fromResponse(table, { status: 409, headers: {} }, {
 *   operation: "heartbeat",
 *   target: "PUT http://registry/lease/7",
 *   now: 0
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { Problem } from "./internal/problem.ts"
import { parseTime } from "./internal/time.ts"
import { showUrl } from "./internal/url.ts"
import * as LifelineError from "./LifelineError.ts"

/**
 * What is known of a failure, reduced to what the algebra keeps.
 *
 * @category models
 * @since 0.1.0
 */
export interface Evidence extends LifelineError.Attempted {
  /** The status of the answer, where there was one. */
  readonly status?: number | undefined
  /** What the server said, or the platform's word for what went wrong, e.g. `"ECONNREFUSED"`. */
  readonly detail?: string | undefined
  /** What is wrong with which field of the request. */
  readonly issues?: ReadonlyArray<LifelineError.Issue> | undefined
  /** What the server asked us to wait. Not clamped. */
  readonly retryAfter?: Duration.Duration | undefined
  /** The deadline that passed. */
  readonly after?: Duration.Duration | undefined
  /** The address of whoever took the lease. */
  readonly by?: string | undefined
  /** The platform's own error. Kept only when it is an `Error`: loggers print all of anything else. */
  readonly cause?: unknown
}

/** "answered 413", "answered 413: too large", "too large". */
const answered = ({ detail, status }: Evidence): string | undefined =>
  status === undefined ? detail : `answered ${status}${detail === undefined ? "" : `: ${detail}`}`

/**
 * The error that each verdict leads to: what may be done about it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Errors {
  readonly Unreachable: LifelineError.Transient
  readonly TimedOut: LifelineError.Transient
  readonly Throttled: LifelineError.Transient
  readonly Unavailable: LifelineError.Transient
  readonly UnknownLease: LifelineError.LeaseLost
  readonly LeaseExpired: LifelineError.LeaseLost
  readonly LeaseTaken: LifelineError.LeaseLost
  readonly Unauthorized: LifelineError.AuthFailed
  readonly Forbidden: LifelineError.AuthFailed
  readonly ProofRejected: LifelineError.AuthFailed
  readonly CredentialExpired: LifelineError.AuthFailed
  readonly CredentialMissing: LifelineError.AuthFailed
  readonly InvalidRequest: LifelineError.Refused
  readonly NotFound: LifelineError.Refused
  readonly Conflict: LifelineError.Refused
  readonly Unsupported: LifelineError.Refused
  readonly MalformedResponse: LifelineError.Refused
  readonly Inconclusive: LifelineError.Inconclusive
  readonly Stop: LifelineError.Stop
}

/**
 * What a failure means: the tag of a reason of the algebra, or `Inconclusive` or `Stop`, which have none.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = keyof Errors

/**
 * A table: from what came back to what it means. Keys of an HTTP table are statuses (`404`), classes of statuses
 * (`"4xx"`), which count where the status itself is not listed, and the tags of the HTTP client's own failures
 * (`TransportError`). Keys of a gRPC table are names of codes, those of a WebSocket table close codes (`1006`), hundreds
 * (`"44xx"`) and thousands (`"4xxx"`) of them. What is not listed at all is what `"*"` says, else a `MalformedResponse`.
 *
 * @category models
 * @since 0.1.0
 */
export type Table = { readonly [key: string]: Verdict }

/**
 * The errors that a table can lead to.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorsOf<T extends Table> = Errors[T[keyof T]] | LifelineError.Refused

// The reasons by their tag, one group for each error.

const transient = {
  Unreachable: ({ detail }: Evidence) => new LifelineError.Unreachable({ detail }),
  TimedOut: ({ after = Duration.zero }: Evidence) => new LifelineError.TimedOut({ after }),
  Throttled: (e: Evidence) => new LifelineError.Throttled({ retryAfter: e.retryAfter, detail: e.detail }),
  Unavailable: ({ detail, retryAfter, status = 0 }: Evidence) =>
    new LifelineError.Unavailable({ status, retryAfter, detail })
}

const leaseLost = {
  UnknownLease: () => new LifelineError.UnknownLease(),
  LeaseExpired: () => new LifelineError.LeaseExpired(),
  LeaseTaken: ({ by }: Evidence) => new LifelineError.LeaseTaken({ by })
}

const authFailed = {
  Unauthorized: ({ detail }: Evidence) => new LifelineError.Unauthorized({ detail }),
  Forbidden: ({ detail }: Evidence) => new LifelineError.Forbidden({ detail }),
  ProofRejected: ({ detail }: Evidence) => new LifelineError.ProofRejected({ detail }),
  CredentialExpired: () => new LifelineError.CredentialExpired(),
  CredentialMissing: () => new LifelineError.CredentialMissing()
}

const refused = {
  InvalidRequest: (e: Evidence) =>
    new LifelineError.InvalidRequest({
      issues: e.issues?.length ? e.issues : [{ path: "", message: answered(e) ?? "refused" }]
    }),
  NotFound: ({ detail }: Evidence) => new LifelineError.NotFound({ detail }),
  Conflict: (e: Evidence) => new LifelineError.Conflict({ detail: answered(e) }),
  Unsupported: (e: Evidence) => new LifelineError.Unsupported({ detail: answered(e) }),
  MalformedResponse: (e: Evidence) => new LifelineError.MalformedResponse({ detail: answered(e) ?? "no answer" })
}

const has = <G extends object>(group: G, verdict: PropertyKey): verdict is keyof G => verdict in group

const build = (verdict: Verdict, evidence: Evidence): Errors[Verdict] => {
  const { cause, operation, target } = evidence
  const at = cause instanceof Error ? { operation, target, cause } : { operation, target }
  if (verdict === "Stop") return new LifelineError.Stop({ operation, target, detail: answered(evidence) })
  if (verdict === "Inconclusive") return new LifelineError.Inconclusive({ ...at, detail: answered(evidence) })
  return has(transient, verdict)
    ? new LifelineError.Transient({ ...at, reason: transient[verdict](evidence) })
    : has(leaseLost, verdict)
    ? new LifelineError.LeaseLost({ ...at, reason: leaseLost[verdict](evidence) })
    : has(authFailed, verdict)
    ? new LifelineError.AuthFailed({ ...at, reason: authFailed[verdict](evidence) })
    : new LifelineError.Refused({ ...at, reason: refused[verdict](evidence) })
}

/**
 * HTTP. Status 0 is how a browser hands out a redirect that was not followed.
 *
 * @category tables
 * @since 0.1.0
 */
export const http = {
  "0": "Unsupported",
  "1xx": "MalformedResponse",
  "2xx": "MalformedResponse",
  "3xx": "Unsupported",
  "401": "Unauthorized",
  "403": "Forbidden",
  "404": "NotFound",
  "405": "Unsupported",
  "408": "Unavailable",
  "409": "Conflict",
  "410": "NotFound",
  "412": "Conflict",
  "425": "Unavailable",
  "429": "Throttled",
  "4xx": "InvalidRequest",
  "501": "Unsupported",
  "5xx": "Unavailable",
  TransportError: "Unreachable",
  DecodeError: "Unreachable",
  EmptyBodyError: "Unreachable",
  EncodeError: "InvalidRequest",
  InvalidUrlError: "InvalidRequest"
} as const satisfies Table

/**
 * HTTP, for calls that show a lease: 404 means that the registry does not know it, 410 that it ran out.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpLease = { ...http, "404": "UnknownLease", "410": "LeaseExpired" } as const satisfies Table

/**
 * HTTP, for event streams: 204 means that the server has nothing more, now or later.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpEventStream = { ...http, "204": "Stop" } as const satisfies Table

/**
 * HTTP, for event streams as the WHATWG has them: every status but 200 and 204 is final, even 503. Only a network that
 * fails, and a stream that ends, are tried again.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpEventStreamStrict = {
  ...httpEventStream,
  "408": "Unsupported",
  "425": "Unsupported",
  "429": "Unsupported",
  "5xx": "Unsupported"
} as const satisfies Table

/**
 * gRPC and Connect, for streams that nobody depends on: when the server cancels one it is over.
 *
 * @category tables
 * @since 0.1.0
 */
export const grpc = {
  CANCELED: "Stop",
  INVALID_ARGUMENT: "InvalidRequest",
  DEADLINE_EXCEEDED: "Unavailable",
  NOT_FOUND: "NotFound",
  PERMISSION_DENIED: "Forbidden",
  RESOURCE_EXHAUSTED: "Throttled",
  FAILED_PRECONDITION: "Conflict",
  UNIMPLEMENTED: "Unsupported",
  INTERNAL: "Unavailable",
  UNAVAILABLE: "Unavailable",
  UNAUTHENTICATED: "Unauthorized",
  "*": "Inconclusive"
} as const satisfies Table

/**
 * gRPC and Connect, for streams with subscriptions: when the server cancels one it is made again, and counted.
 *
 * @category tables
 * @since 0.1.0
 */
export const grpcSubscribed = { ...grpc, CANCELED: "Inconclusive" } as const satisfies Table

/**
 * WebSocket close codes, for connections that nobody depends on: a normal closure is the end. A server that closes with
 * 1008 over a credential needs `{ ...webSocket, "1008": "Unauthorized" }`; other codes of its own are added likewise.
 *
 * @category tables
 * @since 0.1.0
 */
export const webSocket = {
  "1000": "Stop",
  "1001": "Unavailable",
  "1002": "MalformedResponse",
  "1003": "Unsupported",
  "1005": "Unavailable",
  "1006": "Unavailable",
  "1007": "MalformedResponse",
  "1008": "InvalidRequest",
  "1009": "InvalidRequest",
  "1010": "Unsupported",
  "1011": "Unavailable",
  "1012": "Throttled",
  "1013": "Throttled",
  "1014": "Unavailable",
  "1015": "Unavailable",
  "3000": "Unauthorized",
  "3003": "Forbidden",
  "3008": "Unavailable",
  "4401": "Unauthorized",
  "4403": "Forbidden",
  "44xx": "InvalidRequest",
  "4xxx": "Unavailable",
  "*": "Inconclusive"
} as const satisfies Table

/**
 * WebSocket close codes, for connections with subscriptions: also a normal closure is followed by a new connection.
 *
 * @category tables
 * @since 0.1.0
 */
export const webSocketSubscribed = { ...webSocket, "1000": "Unavailable" } as const satisfies Table

/**
 * Where a failure happened, and what is needed to report it.
 *
 * @category models
 * @since 0.1.0
 */
export interface At extends LifelineError.Attempted {
  /** Milliseconds since 1970, for a `Retry-After` that is a date. */
  readonly now: number
  /** What was sent and must not come back in an error, should the server repeat it. */
  readonly secrets?: ReadonlyArray<Redacted.Redacted | undefined> | undefined
}

/**
 * An answer. Header names are in lower case.
 *
 * @category models
 * @since 0.1.0
 */
export interface Response {
  readonly status: number
  readonly headers: { readonly [name: string]: string | undefined }
  /** The body, where it could be read. A problem document (RFC 9457) adds its detail and its `errors`. */
  readonly body?: string | undefined
}

/**
 * The error that a verdict stands for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <V extends Verdict>(verdict: V, evidence: Evidence): Errors[V] =>
  build(verdict, evidence) as Errors[V]

/**
 * An answer that is not a success, as an error. A 2xx handed in here is one that is not what was asked for.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromResponse = <const T extends Table>(
  table: T,
  response: Response,
  at: At
): ErrorsOf<T> => fromAnswer(table, response, at, Option.getOrUndefined(decodeProblem(response.body)))

/**
 * {@link fromResponse} where the body is not read, as on a stream. It needs no `Schema`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromStatus = <const T extends Table>(
  table: T,
  response: Omit<Response, "body">,
  at: At
): ErrorsOf<T> => fromAnswer(table, response, at, undefined)

const fromAnswer = <const T extends Table>(
  table: T,
  { headers, status }: Omit<Response, "body">,
  at: At,
  problem: typeof Problem.Type | undefined
): ErrorsOf<T> => {
  const clean = (text: string): string => cleanText(text, at.secrets)
  const said = problem?.detail ?? problem?.title
  return build(verdictOf(table, status, `${Math.floor(status / 100)}xx`), {
    ...at,
    status: status === 0 ? undefined : status,
    detail: isHtml(headers)
      ? "an HTML page"
      : said !== undefined
      ? clean(said)
      : status === 0 || (status >= 300 && status < 400)
      ? clean(redirect(headers["location"]))
      : undefined,
    issues: problem?.errors?.map((error) => ({ path: clean(error.location ?? ""), message: clean(error.message) })),
    retryAfter: retryAfter(headers["retry-after"], at.now)
  }) as ErrorsOf<T>
}

/**
 * How a gRPC or Connect call ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface GrpcStatus {
  /** The number (`14`), or the name as gRPC (`"UNAVAILABLE"`) or Connect (`"unavailable"`) write it. */
  readonly code: number | string
  readonly message?: string | undefined
  /** What the server asked us to wait, e.g. in a `RetryInfo`. */
  readonly retryAfter?: Duration.Duration | undefined
  /** The library's own error. */
  readonly cause?: unknown
}

/** By number, from 0. */
const grpcNames =
  "OK CANCELED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"

/**
 * A gRPC or Connect status that is not OK, as an error.
 *
 * **Example** (A server whose ABORTED means "later")
 *
 * ```ts
 * import * as Classify from "effect-lifeline/Classify"
 *
 * const table = { ...Classify.grpcSubscribed, ABORTED: "Unavailable" } as const
 *
 * export const error = Classify.fromGrpc(table, { code: "aborted", message: "moved" }, {
 *   operation: "subscribe",
 *   target: "http://dispatcher:7070/Dispatcher/Listen",
 *   now: 0
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromGrpc = <const T extends Table>(table: T, status: GrpcStatus, at: At): ErrorsOf<T> => {
  const names = grpcNames.split(" ")
  const { cause, code, message = "", retryAfter } = status
  const name = typeof code === "number" ? names[code] ?? `${code}` : code.toUpperCase().replace("LLED", "LED")
  const number = names.indexOf(name)
  return build(verdictOf(table, name), {
    operation: at.operation,
    target: at.target,
    status: number < 0 ? undefined : number,
    detail: cleanText(message === "" ? name : `${name}: ${message}`, at.secrets),
    retryAfter,
    cause
  }) as ErrorsOf<T>
}

/**
 * How a WebSocket was closed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Close {
  /** 1006 where there was no close frame, 1005 where it had no code. */
  readonly code: number
  readonly reason?: string | undefined
  readonly cause?: unknown
}

/**
 * The closing of a WebSocket by the other side, as an error.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromClose = <const T extends Table>(table: T, close: Close, at: At): ErrorsOf<T> => {
  const { cause, code, reason = "" } = close
  const keys = [code, `${Math.floor(code / 100)}xx`, `${Math.floor(code / 1000)}xxx`] as const
  return build(verdictOf(table, ...keys), {
    operation: at.operation,
    target: at.target,
    status: code,
    detail: cleanText(`the WebSocket was closed with ${code}${reason === "" ? "" : `: ${reason}`}`, at.secrets),
    cause
  }) as ErrorsOf<T>
}

/**
 * A failure of the HTTP client itself, as an error: no answer, or one whose body broke off.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromClientError = <const T extends Table>(
  table: T,
  error: HttpClientError.HttpClientError,
  at: At
): ErrorsOf<T> => {
  const reason = error.reason
  if (reason._tag === "StatusCodeError") return fromStatus(table, reason.response, at)
  return build(table[reason._tag] ?? "MalformedResponse", {
    ...at,
    detail: codeOf(reason.cause),
    cause: reason.cause
  }) as ErrorsOf<T>
}

/** What the first key that is listed says. */
const verdictOf = (table: Table, ...keys: ReadonlyArray<string | number>): Verdict => {
  for (const key of keys) {
    const verdict = table[key]
    if (verdict !== undefined) return verdict
  }
  return table["*"] ?? "MalformedResponse"
}

/**
 * A `Retry-After` as a duration: seconds, or an HTTP date seen from `now` (milliseconds since 1970; a date that has passed
 * is zero). Anything else is `undefined`. Not clamped: `Backoff` does that.
 *
 * @category getters
 * @since 0.1.0
 */
export const retryAfter = (value: string | undefined, now: number): Duration.Duration | undefined => {
  if (value === undefined) return undefined
  if (/^\d+$/.test(value)) return Duration.seconds(Number(value))
  const until = parseTime(value)
  return until === undefined ? undefined : Duration.millis(Math.max(0, until - now))
}

/**
 * The platform's own word for a failure, e.g. `"ECONNREFUSED"`: the first `code` in the chain of causes. `undefined`
 * where the platform has none, as in browsers.
 *
 * @category getters
 * @since 0.1.0
 */
export const codeOf = (cause: unknown): string | undefined => {
  let link = cause as Link | null | undefined
  for (let depth = 0; depth < 8 && typeof link === "object" && link !== null; depth++) {
    if (typeof link.code === "string") return link.code
    link = link.errors?.[0] ?? link.cause
  }
  return undefined
}

/** What platforms' errors have in common; each field may be anything. */
interface Link {
  readonly code?: unknown
  readonly cause?: Link | null | undefined
  readonly errors?: ReadonlyArray<Link> | undefined
}

/**
 * Whether an answer calls itself an HTML page: that of a proxy or a login, never a registry's.
 *
 * @category getters
 * @since 0.1.0
 */
export const isHtml = (headers: Response["headers"]): boolean => headers["content-type"]?.includes("html") === true

const decodeProblem = Schema.decodeUnknownOption(Schema.fromJsonString(Problem))

const redirect = (location = ""): string => {
  const to = showUrl(location)
  return `a redirect${to === undefined ? "" : ` to ${to}`}, which is not followed as the API key would go with it; ` +
    "set the URL to where the registry is"
}

const longest = 300

/** What a server said, fit for a message: without our secrets and control characters, and not too long. */
const cleanText = (text: string, secrets: At["secrets"] = []): string => {
  let clean = text
  for (const secret of secrets) {
    const value = secret === undefined ? "" : Redacted.value(secret).trim()
    if (value !== "") clean = clean.replaceAll(value, "<redacted>")
  }
  clean = clean.replace(/[\p{Cc}\s]+/gu, " ")
  return clean.length > longest ? `${clean.slice(0, longest)}...` : clean
}
