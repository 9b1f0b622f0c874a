/** A token as servers hand it out, in the answers of a refresh and of a revival. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Classify from "../Classify.ts"
import type * as Credential from "../Credential.ts"
import type { Attempted, Refused } from "../LifelineError.ts"
import { parseTime } from "./time.ts"

export const Issued = Schema.Struct({
  token: Schema.NonEmptyString,
  /** RFC 3339. */
  expiresAt: Schema.String,
  jti: Schema.NonEmptyString
})

/** Refused where the expiry is no time: a token that never seems to expire would not be refreshed. */
export const toToken = (issued: typeof Issued.Type, at: Attempted): Effect.Effect<Credential.Token, Refused> => {
  const expiresAt = parseTime(issued.expiresAt)
  return expiresAt === undefined
    ? Effect.fail(Classify.malformedResponse({ ...at, detail: "body.expiresAt: expected a time" }))
    : Effect.succeed({ value: Redacted.make(issued.token), expiresAt, jti: issued.jti })
}
