// What the scripts share: where things are, which modules are public, how to run a tool of node_modules.
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

export const root: string = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "")

/** Every file below `directory` (relative paths, sorted), without node_modules. */
export const filesBelow = (directory: string): ReadonlyArray<string> =>
  existsSync(directory)
    ? readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`.slice(directory.length + 1))
      .filter((path) => !path.includes("node_modules/"))
      .toSorted()
    : []

const modules = filesBelow(`${root}/src`).filter((path) => path.endsWith(".ts")).map((path) => path.slice(0, -3))

/** What cannot be imported: `internal` folders, and programs (`node/registryMain`), which run when they are loaded. */
export const hiddenModules: ReadonlyArray<string> = modules.filter((module) =>
  module.split("/").includes("internal") || module.endsWith("Main")
)

/** The public modules as a user imports them, without the package's name: `Backoff`, `registry/Pulse`; not the index. */
export const publicModules: ReadonlyArray<string> = modules.filter((module) =>
  module !== "index" && !hiddenModules.includes(module)
)

/** Whether a module is one of those under `src/node` and `src/cli`, which alone may need Node's types. */
export const isNodeModule = (module: string): boolean => module.startsWith("node/") || module.startsWith("cli/")

const bins = new Map<string, string>()

/** The JavaScript file behind a package's command. */
const binOf = (name: string, command: string): string => {
  const known = bins.get(`${name} ${command}`)
  if (known !== undefined) return known
  const manifest: { bin: string | Record<string, string> } = JSON.parse(
    readFileSync(`${root}/node_modules/${name}/package.json`, "utf8")
  )
  const file = typeof manifest.bin === "string" ? manifest.bin : manifest.bin[command]
  if (file === undefined) throw new Error(`${name} has no command ${command}: look at its package.json`)
  const path = `${root}/node_modules/${name}/${file}`
  bins.set(`${name} ${command}`, path)
  return path
}

export interface Outcome {
  readonly ok: boolean
  readonly output: string
}

export const run = (
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd?: string } = {}
): Outcome => {
  const result = spawnSync(command, args, {
    cwd: options.cwd ?? root,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
    timeout: 300_000
  })
  const failure = result.error === undefined ? "" : `${command}: ${result.error.message}\n`
  return { ok: result.status === 0, output: `${result.stdout ?? ""}${result.stderr ?? ""}${failure}`.trim() }
}

/** Runs a package's command under the Node that runs this script. */
export const runBin = (
  name: string,
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd?: string } = {}
): Outcome => run(process.execPath, [binOf(name, command), ...args], options)

/** Prints each check as it ends; `exit` ends the process with 1 when one has failed. */
export const makeReport = () => {
  let failures = 0
  return {
    check: (name: string, outcome: Outcome): void => {
      console.log(`${outcome.ok ? "ok  " : "FAIL"} ${name}`)
      if (!outcome.ok) {
        failures++
        console.log(outcome.output.replace(/^/gm, "     "))
      }
    },
    exit: (): void => {
      if (failures > 0) {
        console.error(`${failures} of the checks above failed`)
        process.exit(1)
      }
    }
  }
}
