/**
 * What a call comes to where no registry is configured, from the ports, their adapters and the lifeline alike.
 */
import * as Effect from "effect/Effect"
import * as Classify from "../Classify.ts"
import type { Refused } from "../LifelineError.ts"

export const notConfigured = (operation: string): Effect.Effect<never, Refused> =>
  Effect.failSync(() =>
    Classify.unsupported({
      operation,
      target: "no registry",
      detail: "no registry URL is configured"
    })
  )
