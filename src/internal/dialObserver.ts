/**
 * Where metrics and spans of streams attach: around each dial. By itself, so that a stream carries neither unless the
 * program provides them, which `Telemetry.layerStreams` does.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import type { Attempted } from "../LifelineError.ts"
import type { Dial } from "../Reconnect.ts"

/** Goes around a dial, in the scope of its connection, and around each pull of what comes on it. */
export type DialObserver = (
  at: Attempted,
  dial: Pick<Dial<never>, "attempt" | "generation">
) => <A, E extends { readonly _tag: string }, R>(
  dialling: Effect.Effect<Pull.Pull<A, E>, E, R>
) => Effect.Effect<Pull.Pull<A, E>, E, R | Scope.Scope>

export const DialObserver: Context.Reference<DialObserver> = Context.Reference<DialObserver>(
  "effect-lifeline/DialObserver",
  { defaultValue: () => () => identity }
)
