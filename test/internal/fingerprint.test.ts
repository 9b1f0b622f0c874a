import { assert, describe, it } from "@effect/vitest"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import { fingerprint } from "../../src/internal/fingerprint.ts"

const secret = "canary-secret"

describe("fingerprint", () => {
  it.effect("is 64 bits of a salted digest", () =>
    Effect.gen(function*() {
      const one = yield* fingerprint("salt", secret)
      assert.match(one, /^[0-9a-f]{16}$/)
      assert.strictEqual(yield* fingerprint("salt", secret), one)
      assert.notStrictEqual(yield* fingerprint("pepper", secret), one)
      assert.notStrictEqual(yield* fingerprint("salt", "another"), one)
    }))

  it.effect("without WebCrypto it is salted as well, and does not give the secret away", () =>
    Effect.gen(function*() {
      const weak = yield* fingerprint("salt", secret)
      assert.notInclude(weak, secret)
      assert.strictEqual(yield* fingerprint("salt", secret), weak)
      assert.notStrictEqual(yield* fingerprint("pepper", secret), weak)
    }).pipe(Effect.provide(WebCrypto.layer({} as Crypto))))
})
