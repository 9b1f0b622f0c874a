// Builds dist from src: the compiler writes modules, declarations and maps; babel then marks top-level calls as pure, so
// that a bundler can drop a layer or a schema that nobody uses.
import { execFileSync } from "node:child_process"
import { rmSync } from "node:fs"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const require = createRequire(import.meta.url)
const run = (module: string, ...args: ReadonlyArray<string>): void => {
  execFileSync(process.execPath, [require.resolve(module), ...args], { cwd: root, stdio: "inherit" })
}

rmSync(`${root}/dist`, { recursive: true, force: true })
run(`${root}/node_modules/typescript/bin/tsc`, "-p", "tsconfig.build.json")
run(
  `${root}/node_modules/@babel/cli/bin/babel.js`,
  "dist",
  "--out-dir=dist",
  "--plugins=annotate-pure-calls",
  "--source-maps=true",
  "--compact=false",
  "--quiet"
)
