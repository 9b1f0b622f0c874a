/** The program in a page, with keys in IndexedDB, tokens in localStorage, and what the page finds when it looks there itself. */
import * as Effect from "effect/Effect"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as BrowserKeyStore from "../../src/browser/KeyStore.ts"
import { program } from "./program.ts"

const request = <A>(asked: IDBRequest<A>): Promise<A> =>
  new Promise((resolve, reject) => {
    asked.addEventListener("success", () => resolve(asked.result))
    asked.addEventListener("error", () => reject(asked.error))
  })

/** What an intruder in the page gets out of the database. */
const looted = Effect.promise(async () => {
  const database = await request(indexedDB.open("effect-lifeline"))
  const store = database.transaction("proof-keys").objectStore("proof-keys")
  const entries: ReadonlyArray<{ readonly privateKey: CryptoKey }> = await request(store.getAll())
  database.close()
  return Promise.all(
    entries.map(({ privateKey }) =>
      crypto.subtle.exportKey("pkcs8", privateKey).then(() => "readable", (error) => error.name)
    )
  )
})

Effect.runFork(
  Effect.all({ report: program, looted }).pipe(
    Effect.provide([BrowserKeyStore.layer(), KeyValueStore.layerStorage(() => localStorage)]),
    Effect.map((found) => Object.assign(globalThis, { found: JSON.stringify(found) })),
    Effect.catchCause((cause) => Effect.sync(() => Object.assign(globalThis, { found: String(cause) })))
  )
)
