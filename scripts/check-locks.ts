// Checks that an install works where npm runs no install script that nobody decided on (allowScripts):
// every package in a lockfile that has one is allowed or denied by name in the package.json beside it.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { makeReport, root } from "./internal.ts"
import type { Outcome } from "./internal.ts"

interface Lock {
  readonly packages: Readonly<Record<string, { readonly name?: string; readonly hasInstallScript?: boolean }>>
}

interface Manifest {
  readonly allowScripts?: Readonly<Record<string, unknown>>
}

const read = <A>(path: string): A => JSON.parse(readFileSync(`${root}/${path}`, "utf8"))

/** Folders with a lockfile of their own; "" is the repository itself. */
const folders = [
  "",
  ...readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "node_modules")
    .map((entry) => `${entry.name}/`)
].filter((folder) => existsSync(`${root}/${folder}package-lock.json`))

const checkScripts = (folder: string): Outcome => {
  const { packages } = read<Lock>(`${folder}package-lock.json`)
  const { allowScripts = {} } = read<Manifest>(`${folder}package.json`)
  const decided = new Set(Object.keys(allowScripts).filter((name) => typeof allowScripts[name] === "boolean"))
  const scripted = new Set(
    Object.entries(packages)
      .filter(([path, entry]) => path !== "" && entry.hasInstallScript === true)
      .map(([path, entry]) => entry.name ?? path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length))
  )
  // An entry with a version never matches: the lockfiles name no registry, and npm then trusts no version.
  const problems = [
    ...[...scripted].filter((name) => !decided.has(name)).map((name) =>
      `${name} has an install script, and ${folder}package.json does not say whether it may run: look at what it does, then ` +
      `add "${name}": true (the package is of no use without it) or false to "allowScripts", without a version`
    ),
    ...Object.keys(allowScripts).filter((name) => !scripted.has(name)).map((name) =>
      `"${name}" in "allowScripts" of ${folder}package.json is no package with an install script in ` +
      `${folder}package-lock.json: remove it, or the version from its name`
    )
  ]
  return { ok: problems.length === 0, output: problems.join("\n") }
}

const report = makeReport()
for (const folder of folders) report.check(`${folder}package-lock.json: install scripts`, checkScripts(folder))
report.exit()
