/** What the programs of one directory have in common. */
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Cipher from "../../../src/Cipher.ts"
import * as KeyStore from "../../../src/KeyStore.ts"
import * as FileStore from "../../../src/node/FileStore.ts"
import * as Proof from "../../../src/Proof.ts"

export const name = "haul"

/** The key pair, and what else is kept, in one directory. */
export const layer = (directory: string) =>
  Proof.layerDpopStored({ name }).pipe(
    Layer.provide(
      KeyStore.layerKeyValueStore({ cipher: Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(7))) })
    ),
    Layer.provideMerge(FileStore.layer({ directory }))
  )
