/**
 * A short text that changes when a credential changes, and does not give it away: 64 bits of a salted SHA-256. Where the
 * platform has no WebCrypto (a browser page that came over plain HTTP) it is a salted 32-bit hash, which serves as well to
 * see a change and holds too little of a key to find it.
 */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Hash from "effect/Hash"

export const fingerprint = (salt: string, secret: string | undefined): Effect.Effect<string> =>
  Effect.flatMap(WebCrypto, (crypto) => {
    // As JSON, so that no two pairs of salt and secret are the same text.
    const text = JSON.stringify([salt, secret])
    const subtle: SubtleCrypto | undefined = crypto?.subtle
    return subtle === undefined
      ? Effect.sync(() => Hash.string(text).toString(16))
      : Effect.map(
        Effect.promise(() => subtle.digest("SHA-256", new TextEncoder().encode(text))),
        (digest) => Hex.encode(new Uint8Array(digest, 0, 8))
      )
  })
