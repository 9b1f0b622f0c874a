// Builds dist from src: the compiler writes modules, declarations and maps; babel then marks top-level calls as pure, so
// that a bundler can drop a layer or a schema that nobody uses. A failed build leaves the last good dist in place.
import { renameSync, rmSync } from "node:fs"
import { root, runBin } from "./internal.ts"
import type { Outcome } from "./internal.ts"

// A sibling of dist, so that the relative paths inside the maps stay right when it is renamed.
const fresh = `.dist-${process.pid}`
const remove = (directory: string): void => rmSync(`${root}/${directory}`, { recursive: true, force: true })

const compile = (): Outcome => runBin("typescript", "tsc", ["-p", "tsconfig.build.json", "--outDir", fresh])

const annotate = (): Outcome =>
  runBin("@babel/cli", "babel", [
    fresh,
    `--out-dir=${fresh}`,
    "--plugins=annotate-pure-calls",
    "--source-maps=true",
    "--compact=false",
    "--quiet"
  ])

for (const step of [compile, annotate]) {
  const outcome = step()
  if (!outcome.ok) {
    remove(fresh)
    console.error(outcome.output)
    process.exit(1)
  }
}
remove("dist")
renameSync(`${root}/${fresh}`, `${root}/dist`)
