/**
 * Classification: how a raw failure becomes an error of the algebra. This is the only module that decides it, from one
 * table per protocol (HTTP, gRPC and Connect, WebSocket), by structured fields alone (a status, a code, a tag), never by
 * the text of a message.
 *
 * A table is plain data: from what came back to a {@link Verdict}, which is one of this module's values, named after the
 * reason that it leads to. The tag of the error follows from the verdict, in values and in types: `Classify.http` has no
 * verdict that means a lost lease, so what it yields is `Transient | AuthFailed | Refused`; `Classify.httpLease` adds
 * `LeaseLost`. An adapter whose registry speaks otherwise extends a table by spreading it. A bundle holds the verdicts of
 * the tables it uses, and no others.
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
 * What an answer to the question for a lease says of it is a table of its own ({@link leaseStatuses}); first match wins:
 *
 * | lease | verdict |
 * |---|---|
 * | says `timed_out`, whatever the status | `TimedOut` |
 * | says `active` | `Live` |
 * | no answer; 408, 425, 429, 5xx | `Transient` |
 * | 401 | `Unauthorized`; revivable where the credential is `Managed` and something signs |
 * | 403; 404; 410 | `Forbidden`; `NotFound`; `Gone` |
 * | every other one | `Unexpected`: live, with a warning |
 *
 * **Example** (A registry that answers 409 when another instance holds the lease)
 *
 * ```ts
 * import * as Classify from "effect-lifeline/Classify"
 *
 * const table = { ...Classify.httpLease, 409: Classify.leaseTaken }
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
import * as Headers from "effect/http/Headers"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Problem } from "./internal/problem.ts"
import { showUrl } from "./internal/url.ts"
import * as LifelineError from "./LifelineError.ts"

export { fromLeaseAnswer, leaseStatuses } from "./internal/leaseStatus.ts"
export type {
  LeaseAnswer,
  LeaseEnd,
  LeaseStanding,
  LeaseTable,
  LeaseVerdict,
  Possession
} from "./internal/leaseStatus.ts"

/**
 * What is known of a failure, reduced to what the algebra keeps.
 *
 * @category models
 * @since 0.1.0
 */
export interface Evidence extends LifelineError.Attempted {
  /** The status of the answer, where there was one. 0 is none. */
  readonly status?: number | undefined
  /** What the server said, or the platform's word for what went wrong, e.g. `"ECONNREFUSED"`. */
  readonly detail?: string | undefined
  /** What is wrong with which field of the request. */
  readonly issues?: ReadonlyArray<LifelineError.Issue> | undefined
  /** What the server asked us to wait. Not clamped. */
  readonly retryAfter?: Duration.Duration | undefined
  /** The deadline that passed. */
  readonly after?: Duration.Input | undefined
  /** The address of whoever took the lease. */
  readonly by?: string | undefined
  /** Where the server redirects to. */
  readonly location?: string | undefined
  /** As in {@link At}. */
  readonly secrets?: At["secrets"]
  /** The platform's own error. Kept only when it is an `Error`: loggers print all of anything else. */
  readonly cause?: unknown
}

/**
 * The errors that a verdict can lead to.
 *
 * @category models
 * @since 0.1.0
 */
export type Failure =
  | LifelineError.Transient
  | LifelineError.LeaseLost
  | LifelineError.AuthFailed
  | LifelineError.Refused
  | LifelineError.Inconclusive
  | LifelineError.Stop

/**
 * What a failure means: makes the error from what is known.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict<E extends Failure = Failure> = (evidence: Evidence) => E

/**
 * A table: from what came back to what it means. Keys of an HTTP table are statuses (`404`), classes of statuses
 * (`"4xx"`), which count where the status itself is not listed, and the tags of the HTTP client's own failures
 * (`TransportError`). Keys of a gRPC table are names of codes, those of a WebSocket table close codes (`1006`), hundreds
 * (`"44xx"`) and thousands (`"4xxx"`) of them. What is not listed at all is what `"*"` says, else {@link malformedResponse}.
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
export type ErrorsOf<T extends Table> = ReturnType<T[keyof T]> | LifelineError.Refused

// ---------------------------------------------------------------------------------------------------------------------
// Verdicts
// ---------------------------------------------------------------------------------------------------------------------

/** "answered 413", "answered 413: too large", "too large". */
const answered = ({ detail, status }: Evidence): string | undefined =>
  status ? `answered ${status}${detail === undefined ? "" : `: ${detail}`}` : detail

const attempted = (
  { cause, operation, target }: Evidence
): LifelineError.Attempted & { readonly cause: Error | undefined } => ({
  operation,
  target,
  cause: cause instanceof Error ? cause : undefined
})

const transient =
  (reason: (evidence: Evidence) => LifelineError.TransientReason): Verdict<LifelineError.Transient> => (evidence) =>
    new LifelineError.Transient({ ...attempted(evidence), reason: reason(evidence) })

const leaseLost =
  (reason: (evidence: Evidence) => LifelineError.LeaseLostReason): Verdict<LifelineError.LeaseLost> => (evidence) =>
    new LifelineError.LeaseLost({ ...attempted(evidence), reason: reason(evidence) })

const authFailed =
  (reason: (evidence: Evidence) => LifelineError.AuthFailedReason): Verdict<LifelineError.AuthFailed> => (evidence) =>
    new LifelineError.AuthFailed({ ...attempted(evidence), reason: reason(evidence) })

const refused =
  (reason: (evidence: Evidence) => LifelineError.RefusedReason): Verdict<LifelineError.Refused> => (evidence) =>
    new LifelineError.Refused({ ...attempted(evidence), reason: reason(evidence) })

/**
 * No answer, or one that broke off.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const unreachable: Verdict<LifelineError.Transient> = transient(({ detail }) =>
  new LifelineError.Unreachable({ detail })
)

/**
 * No complete answer within `after`.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const timedOut: Verdict<LifelineError.Transient> = transient(({ after = 0 }) =>
  new LifelineError.TimedOut({ after: Duration.fromInputUnsafe(after) })
)

/**
 * The server asks for fewer requests.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const throttled: Verdict<LifelineError.Transient> = transient(({ detail, retryAfter }) =>
  new LifelineError.Throttled({ retryAfter, detail })
)

/**
 * The server cannot serve now.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const unavailable: Verdict<LifelineError.Transient> = transient(({ detail, retryAfter, status = 0 }) =>
  new LifelineError.Unavailable({ status, retryAfter, detail })
)

/**
 * The registry has no such lease.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const unknownLease: Verdict<LifelineError.LeaseLost> = leaseLost(() => new LifelineError.UnknownLease())

/**
 * The lease ran out.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const leaseExpired: Verdict<LifelineError.LeaseLost> = leaseLost(() => new LifelineError.LeaseExpired())

/**
 * Another instance has our identity.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const leaseTaken: Verdict<LifelineError.LeaseLost> = leaseLost(({ by }) => new LifelineError.LeaseTaken({ by }))

/**
 * The credential was not accepted.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const unauthorized: Verdict<LifelineError.AuthFailed> = authFailed(({ detail }) =>
  new LifelineError.Unauthorized({ detail })
)

/**
 * The credential is not allowed to do this.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const forbidden: Verdict<LifelineError.AuthFailed> = authFailed(({ detail }) =>
  new LifelineError.Forbidden({ detail })
)

/**
 * The proof of possession was not accepted.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const proofRejected: Verdict<LifelineError.AuthFailed> = authFailed(({ detail }) =>
  new LifelineError.ProofRejected({ detail })
)

/**
 * The credential has expired.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const credentialExpired: Verdict<LifelineError.AuthFailed> = authFailed(() =>
  new LifelineError.CredentialExpired()
)

/**
 * There is no credential to send.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const credentialMissing: Verdict<LifelineError.AuthFailed> = authFailed(() =>
  new LifelineError.CredentialMissing()
)

/**
 * `AuthFailed`, and the server does not ask for the credential.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const notChallenged: Verdict<LifelineError.AuthFailed> = authFailed(() => new LifelineError.NotChallenged())

/**
 * The request is wrong: `issues`, or what the answer was.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const invalidRequest: Verdict<LifelineError.Refused> = refused((evidence) =>
  new LifelineError.InvalidRequest({
    issues: evidence.issues?.length ? evidence.issues : [{ path: "", message: answered(evidence) ?? "refused" }]
  })
)

/**
 * There is no such thing.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const notFound: Verdict<LifelineError.Refused> = refused(({ detail }) => new LifelineError.NotFound({ detail }))

/**
 * The request contradicts the state of the server.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const conflict: Verdict<LifelineError.Refused> = refused((evidence) =>
  new LifelineError.Conflict({ detail: answered(evidence) })
)

/**
 * The peer cannot do that.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const unsupported: Verdict<LifelineError.Refused> = refused((evidence) =>
  new LifelineError.Unsupported({ detail: answered(evidence) })
)

/** A redirect: {@link unsupported}, with where it leads. */
const redirected: Verdict<LifelineError.Refused> = (evidence) =>
  unsupported({ ...evidence, detail: evidence.detail ?? cleanText(redirect(evidence.location), evidence.secrets) })

/**
 * The answer is not one of the protocol.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const malformedResponse: Verdict<LifelineError.Refused> = refused((evidence) =>
  new LifelineError.MalformedResponse({ detail: answered(evidence) ?? "no answer" })
)

/**
 * Says neither "later" nor "never".
 *
 * @category verdicts
 * @since 0.1.0
 */
export const inconclusive: Verdict<LifelineError.Inconclusive> = (evidence) =>
  new LifelineError.Inconclusive({ ...attempted(evidence), detail: answered(evidence) })

/**
 * The server has nothing more.
 *
 * @category verdicts
 * @since 0.1.0
 */
export const stop: Verdict<LifelineError.Stop> = (evidence) =>
  new LifelineError.Stop({ operation: evidence.operation, target: evidence.target, detail: answered(evidence) })

const verdicts = {
  Unreachable: unreachable,
  TimedOut: timedOut,
  Throttled: throttled,
  Unavailable: unavailable,
  UnknownLease: unknownLease,
  LeaseExpired: leaseExpired,
  LeaseTaken: leaseTaken,
  Unauthorized: unauthorized,
  Forbidden: forbidden,
  ProofRejected: proofRejected,
  CredentialExpired: credentialExpired,
  CredentialMissing: credentialMissing,
  NotChallenged: notChallenged,
  InvalidRequest: invalidRequest,
  NotFound: notFound,
  Conflict: conflict,
  Unsupported: unsupported,
  MalformedResponse: malformedResponse,
  Inconclusive: inconclusive,
  Stop: stop
}

/**
 * What the verdicts are named after: the tag of a reason, or of an error that has none.
 *
 * @category models
 * @since 0.1.0
 */
export type Name = keyof typeof verdicts

/**
 * The error of a verdict that is known by its name only, e.g. from a store. A bundle that calls this holds all verdicts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <N extends Name>(name: N, evidence: Evidence): ReturnType<(typeof verdicts)[N]> =>
  decide(verdicts, [name], evidence) as ReturnType<(typeof verdicts)[N]>

// ---------------------------------------------------------------------------------------------------------------------
// Tables
// ---------------------------------------------------------------------------------------------------------------------

/** A table that spreads another. In a call of its own, since no bundler drops a spread at the top of a module. */
const extending = <T extends Table>(table: () => T): T => table()

/**
 * HTTP. Status 0 is how a browser hands out a redirect that was not followed.
 *
 * @category tables
 * @since 0.1.0
 */
export const http = {
  "0": redirected,
  "3xx": redirected,
  "401": unauthorized,
  "403": forbidden,
  "404": notFound,
  "405": unsupported,
  "408": unavailable,
  "409": conflict,
  "410": notFound,
  "412": conflict,
  "425": unavailable,
  "429": throttled,
  "4xx": invalidRequest,
  "501": unsupported,
  "5xx": unavailable,
  TransportError: unreachable,
  DecodeError: unreachable,
  EmptyBodyError: unreachable,
  EncodeError: invalidRequest,
  InvalidUrlError: invalidRequest
} satisfies Table

/**
 * HTTP, for calls that show a lease: 404 means that the registry does not know it, 410 that it ran out.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpLease = extending(() => ({ ...http, "404": unknownLease, "410": leaseExpired }))

/**
 * HTTP, for event streams: 204 means that the server has nothing more, now or later. It does not tell the statuses that are
 * final apart, as nothing that follows a stream does; `{ ...Classify.http, "204": Classify.stop }` does.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpEventStream = {
  "204": stop,
  "401": unauthorized,
  "403": forbidden,
  "408": unavailable,
  "425": unavailable,
  "429": throttled,
  "4xx": invalidRequest,
  "501": malformedResponse,
  "5xx": unavailable,
  TransportError: unreachable,
  EncodeError: invalidRequest,
  InvalidUrlError: invalidRequest
} satisfies Table

/**
 * HTTP, for event streams as the WHATWG has them: every status but 200 and 204 is final, even 503. Only a network that
 * fails, and a stream that ends, are tried again.
 *
 * @category tables
 * @since 0.1.0
 */
export const httpEventStreamStrict = extending(() => ({
  ...httpEventStream,
  "408": malformedResponse,
  "425": malformedResponse,
  "429": malformedResponse,
  "5xx": malformedResponse
}))

/**
 * gRPC and Connect, for streams that nobody depends on: when the server cancels one it is over.
 *
 * @category tables
 * @since 0.1.0
 */
export const grpc = {
  CANCELED: stop,
  INVALID_ARGUMENT: invalidRequest,
  DEADLINE_EXCEEDED: unavailable,
  NOT_FOUND: notFound,
  PERMISSION_DENIED: forbidden,
  RESOURCE_EXHAUSTED: throttled,
  FAILED_PRECONDITION: conflict,
  UNIMPLEMENTED: unsupported,
  INTERNAL: unavailable,
  UNAVAILABLE: unavailable,
  UNAUTHENTICATED: unauthorized,
  "*": inconclusive
} satisfies Table

/**
 * gRPC and Connect, for streams with subscriptions: when the server cancels one it is made again, and counted.
 *
 * @category tables
 * @since 0.1.0
 */
export const grpcSubscribed = extending(() => ({ ...grpc, CANCELED: inconclusive }))

/**
 * WebSocket close codes, for connections that nobody depends on: a normal closure is the end. A server that closes with
 * 1008 over a credential needs `{ ...webSocket, "1008": unauthorized }`; other codes of its own are added likewise.
 *
 * @category tables
 * @since 0.1.0
 */
export const webSocket = {
  "1000": stop,
  "1001": unavailable,
  "1002": malformedResponse,
  "1003": unsupported,
  "1005": unavailable,
  "1006": unavailable,
  "1007": malformedResponse,
  "1008": invalidRequest,
  "1009": invalidRequest,
  "1010": unsupported,
  "1011": unavailable,
  "1012": throttled,
  "1013": throttled,
  "1014": unavailable,
  "1015": unavailable,
  "3000": unauthorized,
  "3003": forbidden,
  "3008": unavailable,
  "4401": unauthorized,
  "4403": forbidden,
  "44xx": invalidRequest,
  "4xxx": unavailable,
  "*": inconclusive
} satisfies Table

/**
 * WebSocket close codes, for connections with subscriptions: also a normal closure is followed by a new connection.
 *
 * @category tables
 * @since 0.1.0
 */
export const webSocketSubscribed = extending(() => ({ ...webSocket, "1000": unavailable }))

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

// ---------------------------------------------------------------------------------------------------------------------
// Raw failures
// ---------------------------------------------------------------------------------------------------------------------

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
): ErrorsOf<T> => {
  const problem = Option.getOrUndefined(decodeProblem(response.body))
  const clean = (text: string): string => cleanText(text, at.secrets)
  const said = isHtml(response.headers) ? "an HTML page" : problem?.detail ?? problem?.title
  return fromStatus(table, response, {
    ...at,
    location: response.headers["location"],
    detail: said === undefined ? undefined : clean(said),
    issues: problem?.errors?.map((error) => ({ path: clean(error.location ?? ""), message: clean(error.message) }))
  })
}

/**
 * {@link fromResponse} where the body is not read, as on a stream; what else is known of it may be given beside it. It
 * needs no `Schema`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromStatus = <const T extends Table>(
  table: T,
  { headers, status }: Omit<Response, "body">,
  at: At & Pick<Evidence, "detail" | "issues" | "location">
): ErrorsOf<T> =>
  decide(table, [status, `${status}`.replace(/..$/, "xx")], {
    ...at,
    status,
    retryAfter: retryAfter(headers["retry-after"], at.now)
  })

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
 * const table = { ...Classify.grpcSubscribed, ABORTED: Classify.unavailable }
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
  return decide(table, [name], {
    ...at,
    status: number < 0 ? undefined : number,
    detail: cleanText(message === "" ? name : `${name}: ${message}`, at.secrets),
    retryAfter,
    cause
  })
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
  const keys = [code, `${code}`.replace(/..$/, "xx"), `${code}`.replace(/...$/, "xxx")] as const
  return decide(table, keys, {
    ...at,
    status: code,
    detail: cleanText(`the WebSocket was closed with ${code}${reason === "" ? "" : `: ${reason}`}`, at.secrets),
    cause
  })
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
  return decide(table, [reason._tag], {
    ...at,
    detail: codeOf(reason.cause),
    cause: reason.cause
  })
}

/** What the first key that is listed makes of it. */
const decide = <T extends Table>(table: T, keys: ReadonlyArray<string | number>, evidence: Evidence): ErrorsOf<T> => {
  const key = keys.find((key) => table[key] !== undefined) ?? "*"
  const verdict: Verdict = table[key] ?? malformedResponse
  return verdict(evidence) as ErrorsOf<T>
}

/**
 * A `Retry-After` as a duration: seconds, or an HTTP date seen from `now` (milliseconds since 1970; a date that has passed
 * is zero). Anything else is `undefined`. Not clamped: `Backoff` does that.
 *
 * @category getters
 * @since 0.1.0
 */
export const retryAfter = (value: string | undefined, now: number): Duration.Duration | undefined => {
  const asked = Result.getOrUndefined(Headers.parseRetryAfter(value ?? ""))
  return asked && Headers.retryAfterDelay(asked, now)
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
  for (let depth = 0; depth < 8; depth++) {
    const code = link?.code
    if (typeof code === "string") return code
    link = link?.errors?.[0] ?? link?.cause
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
  return `a redirect${
    to === undefined ? "" : ` to ${to}`
  }, not followed as credentials would go along; set the final URL`
}

const longest = 300

/** What a server said, fit for a message: without our secrets and control characters, and not too long. */
const cleanText = (text: string, secrets: At["secrets"] = []): string => {
  let clean = text
  for (const secret of secrets) {
    const value = secret && Redacted.value(secret).trim()
    if (value) clean = clean.replaceAll(value, "<redacted>")
  }
  clean = clean.replace(/[\p{Cc}\s]+/gu, " ")
  return clean.length > longest ? `${clean.slice(0, longest)}...` : clean
}
