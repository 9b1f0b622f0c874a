/** What encrypts keys on the runtimes that keep bytes. */
import * as Redacted from "effect/Redacted"
import * as Cipher from "../../src/Cipher.ts"

export const cipher = Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(7)))
