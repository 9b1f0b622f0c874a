/**
 * Examples run as their users run them, against the built package. So it must be built from the sources as they are:
 * this builds it where it is missing or older than they.
 */
import * as Effect from "effect/Effect"
import { existsSync, readdirSync, statSync } from "node:fs"
import * as Process from "./Process.ts"
import { RuntimeError } from "./Watch.ts"

const isStale = (): boolean => {
  const sources = readdirSync(`${Process.root}/src`, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => `${entry.parentPath}/${entry.name}`)
  return sources.some((source) => {
    const built = source.replace(`${Process.root}/src`, `${Process.root}/dist`).replace(/\.ts$/, ".js")
    return !existsSync(built) || statSync(built).mtimeMs < statSync(source).mtimeMs
  })
}

export const ensure: Effect.Effect<void, RuntimeError> = Effect.scoped(Effect.gen(function*() {
  if (!isStale()) return
  const build = yield* Process.startRuntime("node", ["scripts/build.ts"])
  const { code } = yield* build.exited("2 minutes")
  // Another test file may have built it at the same moment, and won.
  if (code !== 0 && isStale()) {
    return yield* new RuntimeError({
      problem: "the package could not be built (npm run build)",
      seen: build.lines.join("\n")
    })
  }
}))
