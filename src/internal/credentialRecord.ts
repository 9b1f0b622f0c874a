/**
 * What a credential keeps in a store: the token, what is known of rejected ones, and who is at a refresh or a revival. Three
 * records, so that who writes one never overwrites another with a stale copy. Each is JSON, encrypted as a whole.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Schema from "effect/Schema"
import type { Cipher } from "../Cipher.ts"

const Sealed = Schema.fromJsonString(Schema.Struct({ version: Schema.Literal(1), data: Schema.String }))

const Token = Schema.fromJsonString(Schema.Struct({
  value: Schema.NonEmptyString,
  expiresAt: Schema.optional(Schema.Finite),
  jti: Schema.optional(Schema.String),
  /** Grows with each token that is kept under the name. */
  revision: Schema.Finite,
  /** When it came, in milliseconds since 1970: with `expiresAt` how long it lives. */
  acceptedAt: Schema.Finite,
  /** Which token the program was supplied with when this one was kept. */
  seed: Schema.optional(Schema.String)
}))

const State = Schema.fromJsonString(Schema.Struct({
  /** Which tokens were rejected, the newest last. */
  rejected: Schema.Array(Schema.String),
  /** What was tried since the token `of` was rejected, in vain. */
  spent: Schema.optional(Schema.Struct({ of: Schema.String, refresh: Schema.Boolean, revival: Schema.Boolean }))
}))

const Claim = Schema.fromJsonString(Schema.Struct({
  operation: Schema.Literals(["refresh", "revival"]),
  /** Which token it is about. */
  of: Schema.String,
  idempotencyKey: Schema.String,
  by: Schema.String,
  until: Schema.Finite
}))

export type Token = typeof Token.Type
export type State = typeof State.Type
export type Claim = typeof Claim.Type

export type Failed = KeyValueStore.KeyValueStoreError

/** One record. */
export interface Slot<A> {
  /** `undefined`: there is none. `"unreadable"`: there is one of another version, of another cipher, or a damaged one. */
  readonly get: Effect.Effect<A | "unreadable" | undefined, Failed>
  readonly set: (value: A) => Effect.Effect<void, Failed>
  readonly remove: Effect.Effect<void, Failed>
}

export interface Slots {
  readonly token: Slot<Token>
  readonly state: Slot<State>
  readonly claim: Slot<Claim>
}

/** No store may hold up a request for longer. */
const deadline = /*#__PURE__*/ Duration.seconds(5)

const readSealed = Schema.decodeEffect(Sealed)

const encoder = new TextEncoder()
const decoder = new TextDecoder()

export const make = (
  store: KeyValueStore.KeyValueStore,
  cipher: Cipher,
  prefix: string,
  name: string
): Slots => {
  const slot = <A>(kind: string, schema: Schema.Codec<A, string>): Slot<A> => {
    const key = `${prefix}${kind}/${name}`
    // What the record is, and whose: neither can be exchanged for another one.
    const context = `effect-lifeline credential ${kind} ${name}`
    const read = Schema.decodeEffect(schema)
    const write = Schema.encodeSync(schema)
    const failed = (method: string, message: string) =>
      new KeyValueStore.KeyValueStoreError({ method, key, message: `${method} of ${key} failed: ${message}` })
    const within = <B>(method: string, self: Effect.Effect<B, Failed>): Effect.Effect<B, Failed> =>
      Effect.timeoutOrElse(self, {
        duration: deadline,
        orElse: () => Effect.fail(failed(method, `no answer within ${Duration.format(deadline)}`))
      })
    return {
      get: Effect.flatMap(
        within("get", Effect.suspend(() => store.get(key))),
        (text) =>
          text === undefined ? Effect.undefined : readSealed(text).pipe(
            Effect.flatMap(({ data }) => Effect.fromResult(Base64.decode(data))),
            Effect.flatMap((sealed) => cipher.decrypt(sealed, context)),
            Effect.flatMap((plain) => read(decoder.decode(plain))),
            // Without the cause, whose message may quote what the record holds.
            Effect.orElseSucceed(() => "unreadable" as const)
          )
      ),
      set: (value) =>
        Effect.suspend(() => cipher.encrypt(encoder.encode(write(value)), context)).pipe(
          Effect.mapError((error) => failed("set", error.message)),
          Effect.flatMap((sealed) =>
            within("set", store.set(key, JSON.stringify({ version: 1, data: Base64.encode(sealed) })))
          )
        ),
      remove: within("remove", Effect.suspend(() => store.remove(key)))
    }
  }
  return { token: slot("token", Token), state: slot("state", State), claim: slot("claim", Claim) }
}
