/**
 * What a check-in keeps from one invocation to the next, as text for a store, and the claim by which one of several
 * invocations at once registers. A record is at most 1 kB, and there is no secret in it: credentials and descriptions
 * are kept as salted fingerprints, errors as what was tried and what came back.
 */
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Classify from "../Classify.ts"
import * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { AuthFailed, Refused } from "../LifelineError.ts"
import type { CallError } from "./drive.ts"
import { issuesOf } from "./issues.ts"
import { showIssues } from "./showIssues.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const Backoff = Schema.Struct({
  failures: Count,
  since: Schema.Finite,
  phase: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })),
  wait: Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
})

/** The machine's state. JSON has no infinity: a state in which nothing is due comes back with `null`. */
const State = Schema.Struct({
  mode: Schema.Literals(["Running", "Refused", "Unauthorized", "GivenUp", "Stopped"]),
  registered: Schema.Boolean,
  everRegistered: Schema.Boolean,
  exhausted: Schema.Boolean,
  next: Schema.Literals(["Register", "Heartbeat", "Verify", "Idle", "Stop"]),
  dueAt: Schema.NullOr(Schema.Finite),
  setAt: Schema.Finite,
  failures: Count,
  beats: Count,
  confirmedAt: Schema.optional(Schema.Finite),
  healthySince: Schema.optional(Schema.Finite),
  losses: Count,
  backoff: Backoff
}).check(Schema.makeFilter(({ dueAt, mode, next }) =>
  mode === "Running"
    ? (dueAt !== null && next !== "Idle" && next !== "Stop") || "something must be due while it runs"
    : dueAt === null || "nothing can be due while it does not run"
))

const Passing = Schema.Struct({
  tag: Schema.Literals(["Transient", "LeaseLost"]),
  reason: Schema.Literals([
    "Unreachable",
    "TimedOut",
    "Throttled",
    "Unavailable",
    "UnknownLease",
    "LeaseExpired",
    "LeaseTaken"
  ]),
  message: Schema.String
})

/** With all that it takes to fail with it again, without a request. */
const Definitive = Schema.Struct({
  tag: Schema.Literals(["AuthFailed", "Refused"]),
  reason: Schema.Literals([
    "Unauthorized",
    "Forbidden",
    "ProofRejected",
    "CredentialExpired",
    "CredentialMissing",
    "NotChallenged",
    "InvalidRequest",
    "NotFound",
    "Conflict",
    "Unsupported",
    "MalformedResponse"
  ]),
  operation: Schema.String,
  target: Schema.String,
  detail: Schema.optional(Schema.String)
})

export const isDefinitive = (cause: typeof Passing.Type | Definitive | undefined): cause is Definitive =>
  cause !== undefined && !("message" in cause)

const Stored = Schema.Struct({
  version: Schema.Literal(1),
  /** Which service at which registry. */
  of: Schema.String,
  salt: Schema.String,
  /** The fingerprint of the description that was registered last, or is to be. */
  description: Schema.String,
  state: State,
  lease: Schema.optional(Schema.Struct({
    id: Schema.String,
    registeredAt: Schema.Finite,
    expiresAfter: Schema.optional(Schema.Finite),
    data: Schema.optional(Schema.String)
  })),
  /** The fingerprint of the credential that was refused. */
  rejected: Schema.optional(Schema.String),
  /** Before this the server asked not to come back. */
  notBefore: Schema.optional(Schema.Finite),
  cause: Schema.optional(Schema.Union([Passing, Definitive])),
  /** The claim under which this was written. */
  claim: Schema.optional(Schema.String)
}).check(
  Schema.makeFilter(({ cause, state }) =>
    (state.mode !== "Unauthorized" && state.mode !== "Refused") || isDefinitive(cause) || "a definitive no has a cause"
  )
)

export type Definitive = typeof Definitive.Type
export type Cause = typeof Passing.Type | Definitive

export interface Record {
  readonly salt: string
  readonly description: string
  readonly state: Heartbeat.State
  readonly lease: Lease.Lease | undefined
  readonly rejected: string | undefined
  readonly notBefore: number | undefined
  readonly cause: Cause | undefined
  readonly claim: string | undefined
}

export const initial = (salt: string): Record => ({
  salt,
  description: "",
  state: Heartbeat.initial,
  lease: undefined,
  rejected: undefined,
  notBefore: undefined,
  cause: undefined,
  claim: undefined
})

/** A service at a registry. */
export interface Of {
  readonly name: string
  readonly type: string
  readonly adapter: string
  readonly target: string | undefined
}

const short = (parts: ReadonlyArray<string | undefined>): string =>
  (Hash.string(JSON.stringify(parts)) >>> 0).toString(36)

const plain = (text: string): string => text.replace(/[^\w.-]/g, "_").slice(0, 48)

/** Readable, and well inside of what stores allow (Cloudflare KV: 512 bytes). */
export const keyOf = ({ name, type }: { readonly name: string; readonly type: string }): string =>
  `lifeline:${plain(type)}:${plain(name)}:${short([type, name])}`

const ofText = ({ adapter, name, target, type }: Of): string => short([adapter, target, type, name])

// ---------------------------------------------------------------------------------------------------------------------
// Causes
// ---------------------------------------------------------------------------------------------------------------------

/** Printable ASCII without what JSON escapes: as many bytes as characters. */
const clip = (text: string, most: number): string =>
  text.replace(/"/g, "'").replace(/[^\x20-\x7e]|\\/g, "?").slice(0, most)

const detailOf = ({ reason }: AuthFailed | Refused): string | undefined => {
  if ("issues" in reason) {
    return showIssues(reason.issues)
  }
  return "detail" in reason ? reason.detail : undefined
}

export const causeOf = (error: CallError): Cause => {
  if (error._tag === "Transient" || error._tag === "LeaseLost") {
    return { tag: error._tag, reason: error.reason._tag, message: clip(error.message, 280) }
  }
  const detail = detailOf(error)
  return {
    tag: error._tag,
    reason: error.reason._tag,
    operation: clip(error.operation, 20),
    target: clip(error.target, 160),
    detail: detail === undefined ? undefined : clip(detail, 140)
  }
}

export const errorOf = (cause: Definitive): AuthFailed | Refused => Classify.make(cause.reason, cause)

// ---------------------------------------------------------------------------------------------------------------------
// Text
// ---------------------------------------------------------------------------------------------------------------------

/** A store keeps name and type in `of` only: a lease of a long name twice would be more than 1 kB. */
export const encode = (of: Of, { lease, ...record }: Record): string =>
  JSON.stringify({
    version: 1,
    of: ofText(of),
    ...record,
    lease: lease && {
      id: lease.id,
      registeredAt: lease.registeredAt,
      expiresAfter: lease.expiresAfter,
      data: lease.data
    }
  })

const read = Schema.decodeEffect(Schema.fromJsonString(Stored))

/** Fails with why a record is of no use: it is unreadable, of another version, or another's. */
export const decode = Effect.fnUntraced(function*(of: Of, text: string): Effect.fn.Return<Record, string> {
  const { lease, of: whose, state, version: _, ...rest } = yield* Effect.mapError(
    read(text),
    (error) => showIssues(issuesOf(error, "record"))
  )
  if (whose !== ofText(of)) return yield* Effect.fail("it belongs to another service or another registry")
  return {
    salt: rest.salt,
    description: rest.description,
    state: {
      ...state,
      dueAt: state.dueAt ?? Infinity,
      confirmedAt: state.confirmedAt,
      healthySince: state.healthySince
    },
    lease: lease && {
      id: lease.id,
      name: of.name,
      type: of.type,
      registeredAt: lease.registeredAt,
      ...(lease.expiresAfter === undefined ? {} : { expiresAfter: lease.expiresAfter }),
      ...(lease.data === undefined ? {} : { data: lease.data })
    },
    rejected: rest.rejected,
    notBefore: rest.notBefore,
    cause: rest.cause,
    claim: rest.claim
  }
})

// ---------------------------------------------------------------------------------------------------------------------
// Claims
// ---------------------------------------------------------------------------------------------------------------------

const ClaimText = Schema.Struct({ id: Schema.String, until: Schema.Finite })

export interface Claim {
  readonly id: string
  readonly until: number
}

/** Longer than two requests with a deadline of 10 s each: whoever claimed longer ago has crashed. */
export const claimFor = 30_000

export const claimKeyOf = (key: string): string => `${key}:claim`

export const encodeClaim = (claim: Claim): string => JSON.stringify(claim)

const readClaim = Schema.decodeOption(Schema.fromJsonString(ClaimText))

/** The claim of somebody else who may still be at it: neither finished nor crashed. */
export const liveClaim = (text: string | undefined, finished: string | undefined, now: number): Claim | undefined => {
  const claim = text === undefined ? undefined : Option.getOrUndefined(readClaim(text))
  return claim !== undefined && claim.id !== finished && claim.until > now && claim.until - now <= claimFor
    ? claim
    : undefined
}
