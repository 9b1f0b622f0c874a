/**
 * The engine of `Credential`.
 */
import * as Effect from "effect/Effect"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Scope from "effect/Scope"
import type { Credential, Options } from "../Credential.ts"
import type { AuthFailed, Transient } from "../LifelineError.ts"
import type * as Registry from "../Registry.ts"

export const make = <R = never>(
  _options: Options<R>
): Effect.Effect<
  Credential["Service"],
  KeyValueStore.KeyValueStoreError,
  KeyValueStore.KeyValueStore | Scope.Scope | R
> => Effect.die("Credential.make")

export const discharge = <A, E, R>(
  _credential: Credential["Service"],
  _self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | Transient | AuthFailed, R> => Effect.die("Credential.revive")

export const protect = (
  _credential: Credential["Service"],
  _info: Registry.CredentialInfo,
  registry: Registry.Registry["Service"]
): Registry.Registry["Service"] => registry
