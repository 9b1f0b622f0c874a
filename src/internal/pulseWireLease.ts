/**
 * What goes over the wire of leases: shared by the client (`registry/PulseLease`) and the embedded registry.
 *
 * What is added to Pulse's own documents is spelled as they are (`expires_at`); the answers of the lease's own protocol are
 * spelled as in that one (`expiresAt`). Times are RFC 3339 text.
 *
 * The `jti` of a token begins with the id of the service, so that who holds a token knows which lease it is of.
 */
import * as Schema from "effect/Schema"
import { Issued } from "./issuedToken.ts"
import * as Wire from "./pulseWire.ts"

/** What a registration with a proof gets beside the service. */
export const Granted = Schema.Struct({
  token: Schema.NonEmptyString,
  expires_at: Schema.String,
  jti: Schema.NonEmptyString,
  /** How long after the last heartbeat the lease times out, in seconds. */
  stale_after: Schema.Number,
  /** How often a heartbeat is enough for the lease, in seconds. */
  interval: Schema.Number
})

/** The answer to a registration. Without `lease`: the registry gives none. */
export const Registered = Schema.Struct({ ...Wire.Service.fields, lease: Schema.optionalKey(Granted) })

/** A token, from a refresh. */
export const Token = Issued

export type Token = typeof Token.Type

/** The answer to a heartbeat that brought a lease back: with all three. */
export const Revived = Schema.Struct({
  bumped: Schema.Literal(true),
  revived: Schema.Literal(true),
  ...Token.fields
})

/** The answer to any other heartbeat of a lease. */
export const Bumped = Schema.Struct({ bumped: Schema.Boolean, revived: Schema.optionalKey(Schema.Literal(false)) })

export const Beat = Schema.Union([Revived, Bumped])

export type Beat = typeof Beat.Type

/** How a lease is. */
export const states = ["active", "timed_out", "ended"] as const

export const Status = Schema.Struct({
  status: Schema.Literals(states),
  /** How often it was revived. */
  revivals: Schema.Number,
  lastHeartbeat: Schema.String,
  /** When it timed out or ended. */
  since: Schema.optionalKey(Schema.String)
})

export type Status = typeof Status.Type

/**
 * What a problem document says in `code`. `lease_unknown`, `lease_gone` and `revival_refused` (why: `reason`) are final,
 * `token_rejected` and `lease_timed_out` are about the credential, `try_later` is neither.
 */
export const codes = [
  "lease_unknown",
  "lease_gone",
  "lease_held",
  "lease_timed_out",
  "token_rejected",
  "revival_refused",
  "proof_rejected",
  "use_dpop_nonce",
  "invalid_idempotency_key",
  "try_later"
] as const

export type Code = typeof codes[number]

/** Why a lease that timed out is not revived. */
export const refusals = ["not_stale", "grace_over", "too_many_revivals"] as const

export type RefusalReason = typeof refusals[number]

/** The service that a token is for, by its `jti`. */
export const serviceOf = (jti: string | undefined): string | undefined => {
  const end = jti?.lastIndexOf(".") ?? -1
  return end > 0 ? jti?.slice(0, end) : undefined
}
