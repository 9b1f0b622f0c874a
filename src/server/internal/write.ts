/**
 * Writes of the embedded registry, with their deadline.
 */
import * as Effect from "effect/Effect"
import * as Store from "../Store.ts"

/** How long a write may take. What could not be stored in this time is refused. */
const writeTimeout = "10 seconds"

/**
 * The deadline of a write. Nothing else interrupts it: a client that goes away must not leave half a change. After the
 * deadline it is not known whether the write happened; registering again is safe.
 */
export const write = (
  operation: "save" | "remove",
  key: Store.Key,
  effect: Effect.Effect<void, Store.StoreError>
): Effect.Effect<void, Store.StoreError> =>
  Effect.timeoutOrElse(Effect.interruptible(effect), {
    duration: writeTimeout,
    orElse: () =>
      Effect.fail(
        new Store.StoreError({
          operation,
          key: `${key._tag}/${key.id}`,
          cause: new Error(`no answer within ${writeTimeout}`)
        })
      )
  })
