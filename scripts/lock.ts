// Rewrites package-lock.json after a change of the dependencies, for every platform.
//
// A mirror that holds only the packages of its own platform makes npm leave the others' binaries out of the lockfile,
// and `npm ci` then refuses that lockfile everywhere. They are added here by name: npm checks the platform before it
// fetches, so an entry costs nothing where it does not fit. (An entry added this way has no checksum; running this
// script against the full registry adds those.)
import { execFileSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

interface Entry {
  readonly version?: string
  readonly cpu?: ReadonlyArray<string>
  readonly dev?: boolean
  readonly libc?: ReadonlyArray<string>
  readonly optional?: boolean
  readonly os?: ReadonlyArray<string>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

interface Lock {
  packages: Record<string, Entry>
}

const lockPath = fileURLToPath(new URL("../package-lock.json", import.meta.url))

const systems: Readonly<Record<string, string>> = { windows: "win32", openharmony: "openharmony" }
const machines: Readonly<Record<string, string>> = { aarch64: "arm64", x86_64: "x64", "arm-eabi": "arm" }
const platform =
  /(android|darwin|freebsd|linux|openharmony|win32|windows)-([a-z0-9_]+)(?:-(glibc|musl|gnu|msvc|eabi|gnueabihf|musleabihf))?$/

/** What npm would have written for the binary `name`, or nothing where the name does not say its platform. */
const entryOf = (name: string, version: string, dev: boolean): Entry | undefined => {
  const match = platform.exec(name)
  if (match === null) return undefined
  const [, system = "", machine = "", abi = ""] = match
  const libc = system !== "linux" || abi === "" ? undefined : abi.startsWith("musl") ? "musl" : "glibc"
  return {
    version,
    cpu: [machines[machine] ?? machine],
    ...(dev ? { dev } : {}),
    ...(libc === undefined ? {} : { libc: [libc] }),
    optional: true,
    os: [systems[system] ?? system]
  }
}

execFileSync("npm", ["install", "--package-lock-only", "--ignore-scripts"], { stdio: "inherit" })

const lock: Lock = JSON.parse(readFileSync(lockPath, "utf8"))
const added: Array<string> = []
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const key = `node_modules/${name}`
    if (lock.packages[key] !== undefined || !/^\d/.test(version)) continue
    const made = entryOf(name, version, entry.dev === true)
    if (made === undefined) continue
    lock.packages[key] = made
    added.push(`${name}@${version}`)
  }
}
lock.packages = Object.fromEntries(Object.entries(lock.packages).toSorted(([a], [b]) => (a < b ? -1 : 1)))
writeFileSync(lockPath, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`${added.length} entries of other platforms added${added.length === 0 ? "" : `: ${added.join(" ")}`}`)
