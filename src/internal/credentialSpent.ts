/** What was tried before an `AuthFailed` became final. */
import * as Data from "effect/Data"
import type { AuthFailed, LeaseLost, Refused } from "../LifelineError.ts"

/**
 * One thing that was tried, and how it failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step {
  readonly tried: "request" | "refresh" | "revival"
  readonly error: AuthFailed | Refused | LeaseLost
}

/**
 * The cause of an `AuthFailed` that is final: everything that was tried against it, in order.
 *
 * @category errors
 * @since 0.1.0
 */
export class Spent extends Data.TaggedError("Spent")<{
  readonly steps: ReadonlyArray<Step>
  /** The last of them: each has its own cause in turn. */
  readonly cause?: Error | undefined
}> {
  override get message() {
    return this.steps.map(({ error, tried }) => `${tried}: ${error.message}`).join("; then ")
  }
  /** All but the causes, which are the platform's. */
  override toJSON() {
    return { _tag: this._tag, steps: this.steps, message: this.message }
  }
}
