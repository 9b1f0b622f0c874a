/**
 * What the answer to a status or a heartbeat says of a lease: one table, first match wins. Everything that recovery does after an
 * answer follows from this.
 */
import type * as Duration from "effect/Duration"
import type { AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"

/**
 * What came back, as far as it is classified.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
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
export type TerminalReason = "TimedOut" | "Unauthorized" | "NotFound" | "Gone" | "Forbidden"

/**
 * What a row of the table says: a reason for which the lease is over, `Live`, `Unexpected` (live, with a warning) or `Transient`.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = TerminalReason | "Live" | "Unexpected" | "Transient"

/**
 * A table: keys are what the answer says (`"timed_out"`, `"active"`), `"none"` for no answer, statuses (`"404"`), classes of them
 * (`"5xx"`), and `"*"` for all others. They are looked up in this order.
 *
 * @category models
 * @since 0.1.0
 */
export type Table = { readonly [key: string]: Verdict }

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
export type Classified =
  | { readonly _tag: "Live"; readonly expected: boolean }
  | { readonly _tag: "Revivable" }
  | { readonly _tag: "Transient" }
  | { readonly _tag: "Terminal"; readonly reason: TerminalReason }

/**
 * The table of lease statuses. A registry whose 403 means something else: `{ ...statuses, "403": "Unexpected" }`.
 *
 * @category tables
 * @since 0.1.0
 */
export const statuses = {
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
} as const satisfies Table

const verdictOf = (table: Table, { says, status }: Answer): Verdict => {
  const said = says === undefined ? undefined : table[says]
  if (said !== undefined) return said
  if (status === undefined) return table["none"] ?? "Transient"
  return table[status] ?? table[`${Math.floor(status / 100)}xx`] ?? table["*"] ?? "Unexpected"
}

/**
 * Classifies an answer. Without `possession` a 401 is never `Revivable`.
 *
 * **Example** (Who may revive)
 *
 * ```ts
 * import * as Recovery from "effect-lifeline/Recovery"
 *
 * const answer = { status: 401 }
 *
 * export const verdicts = [
 *   Recovery.classify(Recovery.statuses, answer)._tag, // => "Terminal"
 *   Recovery.classify(Recovery.statuses, answer, { provenance: "Managed", signer: true })._tag // => "Revivable"
 * ]
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const classify = (table: Table, answer: Answer, possession?: Possession): Classified => {
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
export const answerOf = (error: Transient | AuthFailed | Refused | LeaseLost): Answer => {
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
