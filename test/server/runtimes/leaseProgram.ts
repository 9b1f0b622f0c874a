/**
 * A program with a lease, as a process of its own: `node leaseProgram.ts <url> <directory> <command>`. Key and token are files in
 * the directory. Waits for a line before it begins, so that several begin together; prints what came of it as JSON.
 */
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { once } from "node:events"
import * as Cipher from "../../../src/Cipher.ts"
import * as KeyStore from "../../../src/KeyStore.ts"
import type * as Lease from "../../../src/Lease.ts"
import * as FileStore from "../../../src/node/FileStore.ts"
import * as Proof from "../../../src/Proof.ts"
import * as PulseLease from "../../../src/registry/PulseLease.ts"

const [, , url = "", directory = "", id = ""] = process.argv

const cipher = Cipher.aesGcm(Redacted.make(new Uint8Array(32)))

const main = Effect.gen(function*() {
  const { credential, registry } = yield* PulseLease.make({ url, name: "haul" })
  yield* Effect.sync(() => process.stdout.write("ready\n"))
  yield* Effect.promise(() => once(process.stdin, "data"))
  const instance = { name: "haul", type: "app", apiUrl: "http://haul:8484" }
  const lease: Lease.Lease = id === ""
    ? yield* registry.register(instance)
    : { id, name: "haul", type: "app", registeredAt: 0 }
  yield* registry.heartbeat(lease, instance)
  yield* registry.heartbeat(lease, instance)
  const token = yield* credential.token
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ id: lease.id, jti: token?.jti })}\n`))
})

const layer = Proof.layerDpopStored({ name: "haul" }).pipe(
  Layer.provide(KeyStore.layerKeyValueStore({ cipher })),
  Layer.provideMerge(FileStore.layer({ directory })),
  Layer.provideMerge(FetchHttpClient.layer)
)

Effect.runPromise(Effect.scoped(Effect.provide(main, layer))).then(() => process.exit(0), (error: unknown) => {
  process.stderr.write(`${String(error)}\n`)
  process.exit(1)
})
