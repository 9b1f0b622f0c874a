/**
 * Tokens of leases: the `jti`, and a signature (HMAC-SHA-256) over it and over the key that the lease is bound to.
 *
 * Nothing of a token is stored but its `jti` and when it runs out, so that one that was revoked is one that is not listed any
 * more; and it can be made again from that, which is how an answer is given a second time.
 */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import { serviceOf } from "../../internal/pulseWireLease.ts"

export interface Tokens {
  /** A new `jti` for a service. */
  readonly newId: (service: string) => Effect.Effect<string>
  /** The token with that `jti`, for that key. The same each time. */
  readonly make: (jti: string, thumbprint: string) => Effect.Effect<Redacted.Redacted>
  /** The `jti` of a token that was made here for that service and key, whether it is still good or not. */
  readonly read: (
    token: Redacted.Redacted,
    service: string,
    thumbprint: string
  ) => Effect.Effect<string | undefined>
}

/** Of the random part of a `jti`, in bytes. */
const idSize = 16

/** Of the secret, in bytes. */
export const secretSize = 32

const encoder = new TextEncoder()

/** `secret` is base64url. */
export const make = Effect.fnUntraced(function*(secret: Redacted.Redacted): Effect.fn.Return<Tokens> {
  const { getRandomValues, subtle } = yield* Effect.map(WebCrypto, (crypto) => ({
    getRandomValues: (bytes: Uint8Array<ArrayBuffer>) => crypto.getRandomValues(bytes),
    subtle: crypto.subtle
  }))
  const bytes = Result.getOrElse(Base64Url.decode(Redacted.value(secret)), () => new Uint8Array())
  const key = yield* Effect.promise(() =>
    subtle.importKey("raw", new Uint8Array(bytes), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"])
  )
  const signed = (jti: string, thumbprint: string) => encoder.encode(`${jti} ${thumbprint}`)
  return {
    newId: (service) => Effect.sync(() => `${service}.${Base64Url.encode(getRandomValues(new Uint8Array(idSize)))}`),
    make: (jti, thumbprint) =>
      Effect.map(
        Effect.promise(() => subtle.sign("HMAC", key, signed(jti, thumbprint))),
        (mac) => Redacted.make(`${jti}.${Base64Url.encode(new Uint8Array(mac))}`)
      ),
    read: Effect.fnUntraced(function*(token, service, thumbprint) {
      const text = Redacted.value(token)
      const end = text.lastIndexOf(".")
      const jti = text.slice(0, Math.max(0, end))
      const mac = Base64Url.decode(text.slice(end + 1))
      if (serviceOf(jti) !== service || Result.isFailure(mac)) return undefined
      // Compared by the platform, in a time that does not depend on where the two differ.
      const isOurs = yield* Effect.promise(() =>
        subtle.verify("HMAC", key, new Uint8Array(mac.success), signed(jti, thumbprint))
      )
      return isOurs ? jti : undefined
    })
  }
})
