#!/usr/bin/env node
/**
 * The command line tool `lifeline`. All that it does by itself is to look whether the packages that it needs are installed, as
 * one of them is an optional peer: whoever uses the library only does without. The rest is in `internal/main.ts`.
 *
 * @since 0.1.0
 */

/** Loading one module of each tells whether the package is there. */
const needed: { readonly [name: string]: () => Promise<unknown> } = {
  effect: () => import("effect/Effect"),
  "@effect/platform-node": () => import("@effect/platform-node/NodeServices")
}

const isMissing = async (load: () => Promise<unknown>): Promise<boolean> => {
  try {
    await load()
    return false
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ERR_MODULE_NOT_FOUND") return true
    throw cause
  }
}

const missing: Array<string> = []
for (const [name, load] of Object.entries(needed)) if (await isMissing(load)) missing.push(name)

if (missing.length === 0) {
  const { run } = await import("./internal/main.ts")
  run(process.argv.slice(2))
} else {
  process.stderr.write(
    `lifeline: ${missing.join(" and ")} cannot be found, which this tool runs on.\n` +
      `Install beside effect-lifeline: npm install effect-lifeline effect @effect/platform-node\n`
  )
  process.exitCode = 1
}
