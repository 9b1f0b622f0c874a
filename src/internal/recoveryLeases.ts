/**
 * The leases that a program holds, as records in a store: versioned, and read afresh before each write, so that a copy
 * that somebody still has in hand never brings a finalised one back.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Lease from "../Lease.ts"
import type { LeaseEnd } from "./leaseStatus.ts"

/**
 * Why a lease is finalised: the server's word, `Dead` (who held it is, and the server did not object), or `GaveUp` (who
 * held it is dead, and in three boots the server could not be asked).
 *
 * @category models
 * @since 0.1.0
 */
export type FinalisedReason = LeaseEnd | "Dead" | "GaveUp"

/**
 * A lease that is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly lease: Lease.Lease
  /** As in `Credential.Provenance`: only what is `Managed` can be revived. */
  readonly provenance: "Managed" | "Supplied"
  /** Who holds it, for `isAlive`: what `node/ProcessAlive` or `browser/TabAlive` gave, or text of your own. */
  readonly holder?: string | undefined
  /** In how many boots it was found dead. */
  readonly attempts: number
  /** It is over. `at`: milliseconds since 1970. */
  readonly finalised?: { readonly reason: FinalisedReason; readonly at: number } | undefined
}

/**
 * The store of leases. Each call fails where the store does, or does not answer within 5 s.
 *
 * @category models
 * @since 0.1.0
 */
export interface Leases {
  /** The ids of all, finalised ones included. */
  readonly ids: Effect.Effect<ReadonlyArray<string>, KeyValueStore.KeyValueStoreError>
  /** Fails also where what is kept is damaged, or of another version. */
  readonly get: (id: string) => Effect.Effect<Entry | undefined, KeyValueStore.KeyValueStoreError>
  /**
   * Keeps a lease, before its token is accepted: a token without a lease is swept. One that was finalised stays so,
   * unless this one was registered later. Gives what is kept now.
   */
  readonly put: (
    entry: Pick<Entry, "lease" | "provenance" | "holder">
  ) => Effect.Effect<Entry, KeyValueStore.KeyValueStoreError>
  /** Changes what is there now, unless it is finalised. Gives what is kept then. */
  readonly update: (
    id: string,
    f: (entry: Entry) => Entry
  ) => Effect.Effect<Entry | undefined, KeyValueStore.KeyValueStoreError>
  readonly remove: (id: string) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
}

const Stored = Schema.fromJsonString(Schema.Struct({
  version: Schema.Literal(1),
  lease: Lease.Lease,
  provenance: Schema.Literals(["Managed", "Supplied"]),
  holder: Schema.optional(Schema.String),
  attempts: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
  finalised: Schema.optional(Schema.Struct({
    reason: Schema.Literals(["TimedOut", "Unauthorized", "NotFound", "Gone", "Forbidden", "Dead", "GaveUp"]),
    at: Schema.Finite
  }))
}))

const read = Schema.decodeEffect(Stored)
const write = Schema.encodeSync(Stored)

/** No store may hold up a recovery for longer. */
const deadline = /*#__PURE__*/ Duration.seconds(5)

/** Ends a call of the store that does not come back. */
export const within = <A>(
  method: string,
  key: string | undefined,
  self: Effect.Effect<A, KeyValueStore.KeyValueStoreError>
): Effect.Effect<A, KeyValueStore.KeyValueStoreError> =>
  Effect.timeoutOrElse(self, {
    duration: deadline,
    orElse: () => {
      const what = `${method}${key === undefined ? "" : ` of ${key}`}`
      const message = `${what} failed: no answer within ${Duration.format(deadline)}`
      return Effect.fail(
        new KeyValueStore.KeyValueStoreError({ method, message, ...(key === undefined ? {} : { key }) })
      )
    }
  })

/** What comes after a prefix. */
export const namesAfter = (prefix: string, keys: ReadonlyArray<string>): ReadonlyArray<string> =>
  keys.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length))

export const prefixOf = (prefix: string): string => `${prefix}lease/`

export const make = (
  options: { readonly prefix?: string | undefined } = {}
): Effect.Effect<Leases, never, KeyValueStore.KeyValueStore> =>
  Effect.gen(function*() {
    const store = yield* KeyValueStore.KeyValueStore
    const prefix = prefixOf(options.prefix ?? "recovery/")
    const locks = new Map<string, { readonly semaphore: Semaphore.Semaphore; users: number }>()
    /** One after the other for each lease; one that hangs holds up no other. */
    const exclusively = <A, E>(id: string, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        const lock = locks.get(id) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
        locks.set(id, lock)
        lock.users++
        return Effect.ensuring(
          lock.semaphore.withPermits(1)(self),
          Effect.sync(() => --lock.users === 0 && locks.delete(id))
        )
      })

    const get = (id: string) => {
      const key = prefix + id
      return Effect.flatMap(
        within("get", key, Effect.suspend(() => store.get(key))),
        (text) =>
          text === undefined ? Effect.undefined : Effect.mapBoth(read(text), {
            // Without the cause, whose message may quote what the record holds.
            onFailure: () =>
              new KeyValueStore.KeyValueStoreError({
                method: "get",
                key,
                message: `get of ${key} failed: what is kept is damaged, or of another version`
              }),
            onSuccess: (stored): Entry => {
              const { version: _, ...entry } = stored
              return entry
            }
          })
      )
    }
    const set = (entry: Entry) => {
      const key = prefix + entry.lease.id
      return Effect.as(
        within("set", key, Effect.suspend(() => store.set(key, write({ version: 1, ...entry })))),
        entry
      )
    }
    return {
      ids: Effect.map(
        within("keys", undefined, Effect.suspend(() => store.keys)),
        (keys) => namesAfter(prefix, keys)
      ),
      get,
      put: ({ holder, lease, provenance }) =>
        exclusively(
          lease.id,
          Effect.flatMap(get(lease.id), (there) => {
            const isSame = there !== undefined && there.lease.registeredAt >= lease.registeredAt
            return isSame && there.finalised !== undefined
              ? Effect.succeed(there)
              : set({ lease, provenance, holder, attempts: isSame ? there.attempts : 0 })
          })
        ),
      update: (id, f) =>
        exclusively(
          id,
          Effect.flatMap(get(id), (there) =>
            there === undefined || there.finalised !== undefined
              ? Effect.succeed(there)
              : set(f(there)))
        ),
      remove: (id) => within("remove", prefix + id, Effect.suspend(() => store.remove(prefix + id)))
    }
  })
