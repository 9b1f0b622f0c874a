/**
 * The error algebra: the small closed set of ways in which a call to a registry or a stream can fail.
 *
 * The tag of an error says what may be done about it, and so which operator discharges it from the error channel:
 *
 * | error | what may be done | discharged by |
 * |---|---|---|
 * | `Transient` | try again later | a `Backoff` |
 * | `LeaseLost` | register again | re-registration (`Lifeline`, `CheckIn`) |
 * | `AuthFailed` | never retried as it stands | a new credential, else fatal |
 * | `Refused` | permanent: the caller's or the peer's bug | nothing: it surfaces |
 * | `Exhausted` | a bounded backoff gave up | `Lifeline.standalone` |
 * | `NoProgress` | connections open but carry nothing | nothing: it surfaces |
 * | `Closed` | the lifecycle ended while someone waited | nothing: it surfaces |
 * | `Inconclusive` | a connection ended with what says neither "later" nor "never" | `Reconnect`: tried again, and counted |
 * | `Stop` | the server said that there is nothing more | `Reconnect`: the stream ends |
 *
 * Each of the first four carries a `reason`, itself a tagged error, so that `Effect.catchReason` and
 * `Effect.unwrapReason` work. Raw failures become errors of this algebra in one module only, `Classify`.
 *
 * A message says what was tried, where, what came back and what to do about it. What `JSON.stringify`, `console.log` and
 * the loggers show of an error is its tag, operation, target, reason and message. Its `cause` belongs to the platform or to
 * an adapter and may hold a whole request: it is an `Error`, of which `Cause.pretty` shows the message and the stack only.
 *
 * **Example** (Handling one reason)
 *
 * ```ts
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import type { AuthFailed, Transient } from "effect-lifeline/LifelineError"
 *
 * declare const beat: Effect.Effect<void, Transient | AuthFailed>
 *
 * export const handled = beat.pipe(
 *   Effect.catchReason("Transient", "Throttled", (reason) =>
 *     Effect.log(`told to wait ${reason.retryAfter === undefined ? "a while" : Duration.format(reason.retryAfter)}`))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import { showIssues } from "./internal/showIssues.ts"

/**
 * What was being tried, and where. `target` never holds a user name, a password, a query or a fragment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attempted {
  /** The operation in the words of the port, e.g. `"register"` or `"heartbeat"`. */
  readonly operation: string
  /** Where it went, e.g. `"PUT http://pulse:9696/api/v1/services/7f/heartbeat"`. */
  readonly target: string
}

/** "heartbeat (PUT http://pulse:9696/...) failed for now: answered 503". */
const told = (
  { operation, reason, target }: Attempted & { readonly reason: { readonly message: string } },
  outcome: string
): string => `${operation} (${target}) ${outcome}: ${reason.message}`

/** What may be shown of an error: all but its cause. */
const shown = (error: { readonly message: string; readonly cause?: unknown }) => ({
  ...error,
  message: error.message,
  cause: undefined
})

// The servers' sentences end here, ours goes on: without their full stop.
const optional = (detail: string | undefined): string => detail === undefined ? "" : `: ${detail.replace(/\.$/, "")}`

const reachable = "check that it runs and can be reached"

const elsewhere = "check that the URL does not lead to a proxy"

const apart = (by: string | undefined): string => `${by === undefined ? "" : ` (${by})`}; give each a name of its own`

const wait = (retryAfter: Duration.Duration | undefined): string =>
  retryAfter === undefined ? "" : `; the server asked to wait ${Duration.format(retryAfter)}`

// ---------------------------------------------------------------------------------------------------------------------
// Transient
// ---------------------------------------------------------------------------------------------------------------------

/**
 * No answer: DNS, connect, TLS, reset, or a body that broke off. `detail` is the platform's own word, e.g. `ECONNREFUSED`.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unreachable extends Data.TaggedError("Unreachable")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `no usable answer${optional(this.detail)}; ${reachable}`
  }
}

/**
 * No complete answer within the deadline.
 *
 * @category reasons
 * @since 0.1.0
 */
export class TimedOut extends Data.TaggedError("TimedOut")<{ readonly after: Duration.Duration }> {
  override get message() {
    return `no complete answer within ${Duration.format(this.after)}; ${reachable}`
  }
}

/**
 * The server is asking for fewer requests, or to come back later (HTTP 429, WebSocket 1012 and 1013). `retryAfter` is what
 * it said, before any clamping.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Throttled extends Data.TaggedError("Throttled")<{
  readonly retryAfter?: Duration.Duration | undefined
  readonly detail?: string | undefined
}> {
  override get message() {
    return `it asks for fewer requests${optional(this.detail)}${wait(this.retryAfter)}`
  }
}

/**
 * The server answered that it cannot serve now (HTTP 408, 425, 5xx except 501).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unavailable extends Data.TaggedError("Unavailable")<{
  readonly status: number
  readonly retryAfter?: Duration.Duration | undefined
  readonly detail?: string | undefined
}> {
  override get message() {
    return `answered ${this.status}${optional(this.detail)}${wait(this.retryAfter)}`
  }
}

/**
 * Why a call failed for now.
 *
 * @category reasons
 * @since 0.1.0
 */
export type TransientReason = Unreachable | TimedOut | Throttled | Unavailable

/**
 * Try again later. Discharged by a `Backoff`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Transient extends Data.TaggedError("Transient")<
  Attempted & { readonly reason: TransientReason; readonly cause?: Error | undefined }
> {
  override get message() {
    return told(this, "failed for now")
  }
  override toJSON() {
    return shown(this)
  }
}

/**
 * What the server asked us to wait, where it did. Not clamped: `Backoff` does that.
 *
 * @category getters
 * @since 0.1.0
 */
export const retryAfter = (error: Transient): Duration.Duration | undefined =>
  "retryAfter" in error.reason ? error.reason.retryAfter : undefined

// ---------------------------------------------------------------------------------------------------------------------
// LeaseLost
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The registry has no such lease: it was deleted, or the registry lost its data.
 *
 * @category reasons
 * @since 0.1.0
 */
export class UnknownLease extends Data.TaggedError("UnknownLease") {
  override get message() {
    return "the registry does not know it; register again"
  }
}

/**
 * The lease ran out before it was renewed.
 *
 * @category reasons
 * @since 0.1.0
 */
export class LeaseExpired extends Data.TaggedError("LeaseExpired") {
  override get message() {
    return "it ran out before it was renewed; register again"
  }
}

/**
 * Another instance registered under our identity. `by` is its address, where the registry says so.
 *
 * @category reasons
 * @since 0.1.0
 */
export class LeaseTaken extends Data.TaggedError("LeaseTaken")<{ readonly by?: string | undefined }> {
  override get message() {
    return `another instance has the same identity${apart(this.by)}`
  }
}

/**
 * How a lease was lost.
 *
 * @category reasons
 * @since 0.1.0
 */
export type LeaseLostReason = UnknownLease | LeaseExpired | LeaseTaken

/**
 * The registry forgot us. Discharged by registering again.
 *
 * @category errors
 * @since 0.1.0
 */
export class LeaseLost extends Data.TaggedError("LeaseLost")<
  Attempted & { readonly reason: LeaseLostReason; readonly cause?: Error | undefined }
> {
  override get message() {
    return told(this, "lost the lease")
  }
  override toJSON() {
    return shown(this)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// AuthFailed
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The credential was not accepted (HTTP 401).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unauthorized extends Data.TaggedError("Unauthorized")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `the credential was not accepted${optional(this.detail)}; check it`
  }
}

/**
 * The credential is known, and not allowed to do this (HTTP 403).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Forbidden extends Data.TaggedError("Forbidden")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `the credential may not do this${optional(this.detail)}; check its rights`
  }
}

/**
 * The proof of possession that went with the request was not accepted.
 *
 * @category reasons
 * @since 0.1.0
 */
export class ProofRejected extends Data.TaggedError("ProofRejected")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `the proof of possession was not accepted${
      optional(this.detail)
    }; check that the credential belongs to this key`
  }
}

/**
 * The credential has expired, and could not be renewed.
 *
 * @category reasons
 * @since 0.1.0
 */
export class CredentialExpired extends Data.TaggedError("CredentialExpired") {
  override get message() {
    return "the credential has expired; provide a new one"
  }
}

/**
 * There is no credential to send. No request was made.
 *
 * @category reasons
 * @since 0.1.0
 */
export class CredentialMissing extends Data.TaggedError("CredentialMissing") {
  override get message() {
    return "there is no credential, so nothing was sent; provide one"
  }
}

/**
 * There is a credential, and the server does not ask for one: it may be the wrong server. The credential was not sent.
 *
 * @category reasons
 * @since 0.1.0
 */
export class NotChallenged extends Data.TaggedError("NotChallenged") {
  override get message() {
    return "the server does not ask for the credential, so it may be the wrong one; nothing was sent. " +
      "Check the address, or leave the credential away"
  }
}

/**
 * What is wrong with the credential.
 *
 * @category reasons
 * @since 0.1.0
 */
export type AuthFailedReason =
  | Unauthorized
  | Forbidden
  | ProofRejected
  | CredentialExpired
  | CredentialMissing
  | NotChallenged

/**
 * Never retried as it stands: the same credential is not sent a second time.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuthFailed extends Data.TaggedError("AuthFailed")<
  Attempted & { readonly reason: AuthFailedReason; readonly cause?: Error | undefined }
> {
  override get message() {
    return told(this, "was not authorized")
  }
  override toJSON() {
    return shown(this)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Refused
// ---------------------------------------------------------------------------------------------------------------------

/**
 * One thing that is wrong with a request. `path` names the field, e.g. `"instance.name"`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Issue {
  readonly path: string
  readonly message: string
}

/**
 * The request itself is wrong. `issues` name the fields; found here before sending where possible, else by the server.
 *
 * @category reasons
 * @since 0.1.0
 */
export class InvalidRequest extends Data.TaggedError("InvalidRequest")<{ readonly issues: ReadonlyArray<Issue> }> {
  override get message() {
    return `invalid request: ${showIssues(this.issues)}`
  }
}

/**
 * There is no such thing or endpoint (HTTP 404 where it does not mean a lost lease).
 *
 * @category reasons
 * @since 0.1.0
 */
export class NotFound extends Data.TaggedError("NotFound")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `not found${optional(this.detail)}; check the URL`
  }
}

/**
 * The request contradicts the state of the server (HTTP 409, 412).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Conflict extends Data.TaggedError("Conflict")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `it contradicts what is there${optional(this.detail)}; look at that`
  }
}

/**
 * The peer, or this adapter, cannot do that (HTTP 405, 501, a redirect that leads nowhere).
 *
 * @category reasons
 * @since 0.1.0
 */
export class Unsupported extends Data.TaggedError("Unsupported")<{ readonly detail?: string | undefined }> {
  override get message() {
    return `not supported here${optional(this.detail)}`
  }
}

/**
 * The answer is not what the protocol says, e.g. an HTML page of a proxy. `detail` names the field, never the value.
 *
 * @category reasons
 * @since 0.1.0
 */
export class MalformedResponse extends Data.TaggedError("MalformedResponse")<{ readonly detail: string }> {
  override get message() {
    return `not an answer of this protocol: ${this.detail}; ${elsewhere}`
  }
}

/**
 * What is wrong for good.
 *
 * @category reasons
 * @since 0.1.0
 */
export type RefusedReason = InvalidRequest | NotFound | Conflict | Unsupported | MalformedResponse

/**
 * Permanent: the caller's or the peer's bug. Nothing discharges it: it surfaces.
 *
 * @category errors
 * @since 0.1.0
 */
export class Refused extends Data.TaggedError("Refused")<
  Attempted & { readonly reason: RefusedReason; readonly cause?: Error | undefined }
> {
  override get message() {
    return told(this, "was refused")
  }
  override toJSON() {
    return shown(this)
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Inconclusive, Stop
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A connection ended with something that says neither "later" nor "never", e.g. gRPC's `UNKNOWN`. It is tried again, as
 * one that carried nothing: so many of these in a row and it is `NoProgress`. `detail` is the protocol's own word.
 *
 * @category errors
 * @since 0.1.0
 */
export class Inconclusive extends Data.TaggedError("Inconclusive")<
  Attempted & { readonly detail?: string | undefined; readonly cause?: Error | undefined }
> {
  override get message() {
    return `${this.operation} (${this.target}) ended for an unclear reason${optional(this.detail)}`
  }
  override toJSON() {
    return shown(this)
  }
}

/**
 * The server said that there is nothing more and that nobody should come back, e.g. HTTP 204 on an event stream: a clean
 * end.
 *
 * @category errors
 * @since 0.1.0
 */
export class Stop extends Data.TaggedError("Stop")<Attempted & { readonly detail?: string | undefined }> {
  override get message() {
    return `${this.operation} (${this.target}): the server said to stop${optional(this.detail)}`
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Exhausted, NoProgress, Closed
// ---------------------------------------------------------------------------------------------------------------------

/**
 * A bounded backoff gave up. `last` is the failure of the last attempt.
 *
 * @category errors
 * @since 0.1.0
 */
export class Exhausted extends Data.TaggedError("Exhausted")<{
  readonly attempts: number
  readonly elapsed: Duration.Duration
  readonly last: Transient
}> {
  override get message() {
    return `gave up after attempt ${this.attempts}, in ${Duration.format(this.elapsed)}${optional(this.last.message)}`
  }
}

/**
 * So many connections in a row were opened and carried nothing. `last` is the last failure, where there was one: a
 * connection may also have ended cleanly.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoProgress extends Data.TaggedError("NoProgress")<
  Attempted & { readonly connections: number; readonly last?: Transient | Inconclusive | undefined }
> {
  override get message() {
    return `${this.operation} (${this.target}): ${this.connections} connections in a row carried nothing${
      optional(this.last?.message)
    }; ${elsewhere}`
  }
}

/**
 * The scope was closed, or the program asked to stop.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Shutdown extends Data.TaggedError("Shutdown") {
  override get message() {
    return "it was shut down"
  }
}

/**
 * A newer holder of the same identity took over.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Replaced extends Data.TaggedError("Replaced")<{ readonly by?: string | undefined }> {
  override get message() {
    return `a newer instance took over${apart(this.by)}`
  }
}

/**
 * The program deregistered, and asked to stay so.
 *
 * @category reasons
 * @since 0.1.0
 */
export class Detached extends Data.TaggedError("Detached") {
  override get message() {
    return "the program deregistered it; register again"
  }
}

/**
 * Why the lifecycle ended.
 *
 * @category reasons
 * @since 0.1.0
 */
export type ClosedReason = Shutdown | Replaced | Detached

/**
 * The lifecycle ended while someone waited.
 *
 * @category errors
 * @since 0.1.0
 */
export class Closed extends Data.TaggedError("Closed")<{
  readonly operation: string
  readonly reason: ClosedReason
}> {
  override get message() {
    return `${this.operation} has no answer: ${this.reason.message}`
  }
}
