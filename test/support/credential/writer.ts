/**
 * Writes to a `FileStore` until it is killed: `node writer.ts <directory> <name> <n>`. Each value of its own key comes after the
 * one before; the last number is printed once it is in the store. What is wrong goes to stderr.
 */
import * as Effect from "effect/Effect"
import * as FileStore from "../../../src/node/FileStore.ts"
import { parse, valueOf } from "./values.ts"

const [, , directory = "", name = "", started = "0"] = process.argv

const problem = (text: string) => Effect.sync(() => process.stderr.write(`${name}: ${text}\n`))

const main = Effect.gen(function*() {
  const store = yield* FileStore.make({ directory })
  const before = parse(yield* store.get(name))
  if (before === undefined ? started !== "0" : before.n < Number(started)) {
    yield* problem(`there is ${before?.n} in place of ${started}`)
  }
  for (let n = (before?.n ?? 0) + 1;; n++) {
    yield* store.set("shared", valueOf(name, n))
    yield* store.set(name, valueOf(name, n))
    yield* Effect.sync(() => process.stdout.write(`${n}\n`))
    const shared = parse(yield* store.get("shared"))
    if (shared === undefined) yield* problem(`after ${n}, what all write is not there as a whole`)
    const own = parse(yield* store.get(name))
    if (own?.n !== n) yield* problem(`after ${n} there is ${own?.n}`)
  }
})

// Ends with its parent.
process.stdin.resume()
process.stdin.once("close", () => process.exit(0))
Effect.runFork(Effect.catch(main, (error) => problem(error.message)))
