/** Where a registry is, as its adapters are told. */
import * as Effect from "effect/Effect"
import * as Classify from "../Classify.ts"
import type { Refused } from "../LifelineError.ts"
import { showText, showUrl } from "./url.ts"

/** Without a slash at its end. Refused where it holds more than an origin and a path: what else there is could be a secret. */
export const readUrl = (text: string): Effect.Effect<string, Refused> => {
  const plain = showUrl(text)
  return plain !== undefined && URL.parse(text)?.href === plain
    ? Effect.succeed(plain.replace(/\/+$/, ""))
    : Effect.failSync(() =>
      Classify.invalidRequest({
        operation: "configure",
        target: showText(text),
        issues: [{
          path: "options.url",
          message: "must be an absolute http or https URL, no credentials, no query"
        }]
      })
    )
}
