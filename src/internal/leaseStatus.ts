/**
 * What the answer to a status or a heartbeat says of a lease: one table, first match wins. Everything that recovery
 * does after an answer follows from this.
 */
import type * as Duration from "effect/Duration"
import type { AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"

/**
 * What came back, as far as it is classified.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeaseAnswer {
  /** Of HTTP. `undefined`: there was none (network, deadline, nothing was sent). */
  readonly status?: number | undefined
  /** What the answer says of the lease, where it says so in words that mean one of these. */
  readonly says?: "active" | "timed_out" | undefined
  /** What the server asked us to wait. Not clamped. */
  readonly retryAfter?: Duration.Duration | undefined
}

/**
 * Why a lease is over, by the server's word.
 *
 * @category models
 * @since 0.1.0
 */
export type LeaseEnd = "TimedOut" | "Unauthorized" | "NotFound" | "Gone" | "Forbidden"

/**
 * What a row of the table says: a reason for which the lease is over, `Live`, `Unexpected` (live, with a warning) or
 * `Transient`.
 *
 * @category models
 * @since 0.1.0
 */
export type LeaseVerdict = LeaseEnd | "Live" | "Unexpected" | "Transient"

/**
 * A table: keys are what the answer says (`"timed_out"`, `"active"`), `"none"` for no answer, statuses (`"404"`),
 * classes of them (`"5xx"`), and `"*"` for all others. They are looked up in this order.
 *
 * @category models
 * @since 0.1.0
 */
export type LeaseTable = { readonly [key: string]: LeaseVerdict }

/**
 * Whose credential an answer is for. Consulted for 401 only.
 *
 * @category models
 * @since 0.1.0
 */
export interface Possession {
  readonly provenance: "Managed" | "Supplied"
  /** Whether there is something that signs. */
  readonly signer: boolean
}

/**
 * What is to be done about a lease.
 *
 * @category models
 * @since 0.1.0
 */
export type LeaseStanding =
  | { readonly _tag: "Live"; readonly expected: boolean }
  | { readonly _tag: "Revivable" }
  | { readonly _tag: "Transient" }
  | { readonly _tag: "Terminal"; readonly reason: LeaseEnd }

/**
 * Lease statuses. A registry whose 403 means something else: `{ ...leaseStatuses, "403": "Unexpected" }`.
 *
 * @category tables
 * @since 0.1.0
 */
export const leaseStatuses = {
  timed_out: "TimedOut",
  active: "Live",
  none: "Transient",
  "401": "Unauthorized",
  "403": "Forbidden",
  "404": "NotFound",
  "408": "Transient",
  "410": "Gone",
  "425": "Transient",
  "429": "Transient",
  "5xx": "Transient",
  "*": "Unexpected"
} as const satisfies LeaseTable

const verdictOf = (table: LeaseTable, { says, status }: LeaseAnswer): LeaseVerdict => {
  const said = says === undefined ? undefined : table[says]
  if (said !== undefined) return said
  if (status === undefined) return table["none"] ?? "Transient"
  return table[status] ?? table[`${Math.floor(status / 100)}xx`] ?? table["*"] ?? "Unexpected"
}

/**
 * What an answer to a status or a heartbeat says of the lease. Without `possession` a 401 is never `Revivable`.
 *
 * **Example** (Who may revive)
 *
 * ```ts
 * import * as Classify from "effect-lifeline/Classify"
 *
 * const answer = { status: 401 }
 *
 * export const verdicts = [
 *   Classify.fromLeaseAnswer(Classify.leaseStatuses, answer)._tag, // => "Terminal"
 *   Classify.fromLeaseAnswer(Classify.leaseStatuses, answer, { provenance: "Managed", signer: true })._tag // => "Revivable"
 * ]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromLeaseAnswer = (
  table: LeaseTable,
  answer: LeaseAnswer,
  possession?: Possession
): LeaseStanding => {
  const verdict = verdictOf(table, answer)
  switch (verdict) {
    case "Live":
    case "Unexpected":
      return { _tag: "Live", expected: verdict === "Live" }
    case "Transient":
      return { _tag: "Transient" }
    case "Unauthorized":
      return answer.status === 401 && possession?.provenance === "Managed" && possession.signer
        ? { _tag: "Revivable" }
        : { _tag: "Terminal", reason: verdict }
    default:
      return { _tag: "Terminal", reason: verdict }
  }
}

/** An error of the algebra as the answer that it stands for. */
export const answerOf = (error: Transient | AuthFailed | Refused | LeaseLost): LeaseAnswer => {
  switch (error._tag) {
    case "Transient":
      return "retryAfter" in error.reason ? { retryAfter: error.reason.retryAfter } : {}
    case "LeaseLost":
      return { status: error.reason._tag === "UnknownLease" ? 404 : 410 }
    case "AuthFailed":
      return error.reason._tag === "CredentialMissing" ? {} : { status: error.reason._tag === "Forbidden" ? 403 : 401 }
    case "Refused":
      // Of all others the status is not known, only that there was something.
      return { status: error.reason._tag === "NotFound" ? 404 : 0 }
  }
}
