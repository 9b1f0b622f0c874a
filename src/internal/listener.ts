/**
 * The engine behind `Listener`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Key, Listener, Options } from "../Listener.ts"

export const make = <K extends Key, In, Out, R, Version>(
  _options: Options<K, In, Out, R, Version>
): Effect.Effect<Listener<K, In, Out>, never, Exclude<R, Scope.Scope> | Scope.Scope> => Effect.die("not there yet")
