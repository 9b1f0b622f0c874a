/** The program on Node, Deno and Bun, with keys and tokens in files; its argument is the directory. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyStore from "../../src/KeyStore.ts"
import * as FileStore from "../../src/node/FileStore.ts"
import { cipher } from "./cipher.ts"
import { program } from "./program.ts"

const keys = KeyStore.layerKeyValueStore({ cipher }).pipe(
  Layer.provideMerge(FileStore.layer({ directory: process.argv[2] ?? "" }))
)

Effect.runFork(
  Effect.map(program, (report) => console.log(`report ${JSON.stringify(report)}`)).pipe(Effect.provide(keys))
)
