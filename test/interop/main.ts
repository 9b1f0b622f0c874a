/**
 * `npm run test:interop`: the tool against a real server of bore, where there is one. Without one it says how to get it, that
 * nothing was tested, and ends with 0: nobody needs Rust to work on this package. `LIFELINE_BORE_REQUIRED=1` makes that a
 * failure. Arguments go to vitest.
 */
import { spawnSync } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const { LIFELINE_BORE: given, LIFELINE_BORE_REQUIRED: required, PATH = "" } = process.env

const isProgram = (path: string): boolean => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const found = (given === undefined || given === "" ? PATH.split(delimiter).map((path) => join(path, "bore")) : [given])
  .find(isProgram)

if (found !== undefined) {
  const version = spawnSync(found, ["--version"], { encoding: "utf8" }).stdout.trim()
  console.log(`against ${version} (${found})`)
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--config",
      "test/interop/vitest.config.ts",
      ...process.argv.slice(2)
    ],
    { cwd: root, stdio: "inherit", env: { ...process.env, LIFELINE_BORE: found } }
  )
  process.exitCode = status ?? 1
} else if (given !== undefined && given !== "") {
  console.error(`LIFELINE_BORE is ${given}, which is not a program that can be run`)
  process.exitCode = 1
} else {
  console.error([
    "NOTHING WAS TESTED: there is no bore in PATH, and LIFELINE_BORE does not name one.",
    "Get it with Rust's package manager, and run this again:",
    "  cargo install bore-cli                 # puts it where LIFELINE_BORE=~/.cargo/bin/bore finds it",
    "  LIFELINE_BORE=~/.cargo/bin/bore npm run test:interop"
  ].join("\n"))
  process.exitCode = required === "1" ? 1 : 0
}
