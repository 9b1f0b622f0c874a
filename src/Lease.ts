/**
 * A lease: what a registry gives for a registration, and what is shown to it with every heartbeat.
 *
 * A lease is plain data, so that a one-shot check-in can keep it in a store. `id` is the registry's own; `data` is
 * whatever else an adapter needs to find its registration again (a key, a session), as text.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * Schema of a {@link Lease}, for stores.
 *
 * **Example** (Reading a stored lease)
 *
 * ```ts
 * import * as Lease from "effect-lifeline/Lease"
 * import * as Schema from "effect/Schema"
 *
 * export const decode = Schema.decodeUnknownEffect(Lease.Lease)
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Lease = Schema.Struct({
  /** The registry's own id of the registration. */
  id: Schema.String,
  name: Schema.String,
  type: Schema.String,
  /** When the registration was answered, by this machine's clock: milliseconds since 1970. */
  registeredAt: Schema.Number,
  /** How long after the last acknowledged heartbeat the registry drops us, in milliseconds; absent: never. */
  expiresAfter: Schema.optionalKey(Schema.Number),
  /** What an adapter needs beside the id, as text. */
  data: Schema.optionalKey(Schema.String)
})

/**
 * What a registry gives for a registration.
 *
 * @category models
 * @since 0.1.0
 */
export type Lease = typeof Lease.Type
