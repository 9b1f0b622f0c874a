/** Bundles an example as its users do: one file, ready for a browser or a Worker. */
import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { root } from "./Process.ts"
import { RuntimeError } from "./Watch.ts"

/** `entry` is relative to the repository. */
export const bundle = (entry: string): Effect.Effect<string, RuntimeError> =>
  Effect.tryPromise({
    try: async () => {
      const result = await build({
        absWorkingDir: root,
        entryPoints: [entry],
        bundle: true,
        format: "esm",
        target: "es2024",
        write: false,
        logLevel: "silent",
        external: ["cloudflare:*", "node:*"]
      })
      return result.outputFiles.map((file) => file.text).join("")
    },
    catch: (cause) => new RuntimeError({ problem: `${entry} could not be bundled`, seen: String(cause), cause })
  })
