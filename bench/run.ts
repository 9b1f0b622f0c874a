// Runs the benches: every file `bench/NAME.ts` beside this one. Builds dist first, which is what they measure.
//
//   npm run bench                  all, as tables
//   npm run bench -- NAME ...      some
//   npm run bench -- --json        one line per figure: {"bench","figure","value","unit","bound","holds"}
//   npm run bench -- --write       also writes the files that the repository keeps (docs/herd.svg)
//
// Ends with 1 when a bound does not hold or a bench fails, with 2 when there is no such bench.
import * as Effect from "effect/Effect"
import { readdirSync } from "node:fs"
import { root, run as runCommand } from "../scripts/internal.ts"
import { holds, toJson } from "./lib/figure.ts"
import type { Bench, Context } from "./lib/figure.ts"
import { formatReport } from "./lib/print.ts"
import "./lib/resolve.ts"

const args = process.argv.slice(2)
const flags = new Set(args.filter((arg) => arg.startsWith("--")))
const wanted = args.filter((arg) => !arg.startsWith("--"))

const available = readdirSync(`${root}/bench`)
  .filter((file) => file.endsWith(".ts") && file !== "run.ts")
  .map((file) => file.slice(0, -3))
  .toSorted()

const unknown = [
  ...wanted.filter((name) => !available.includes(name)).map((name) => `bench ${name}`),
  ...[...flags].filter((flag) => !["--json", "--write"].includes(flag)).map((flag) => `flag ${flag}`)
]
if (unknown.length > 0) {
  console.error(`There is no ${unknown.join(", no ")}. Benches: ${available.join(", ")}; flags: --json, --write`)
  process.exit(2)
}

const isBench = (module: unknown): module is Bench =>
  typeof module === "object" && module !== null && "name" in module && "run" in module &&
  typeof module.run === "function"

const json = flags.has("--json")
const context: Context = { progress: (text) => console.error(text), write: flags.has("--write") }

const built = runCommand(process.execPath, [`${root}/scripts/build.ts`])
if (!built.ok) {
  console.error(`The benches measure dist, which does not build:\n${built.output}`)
  process.exit(1)
}

let failed = false
for (const name of wanted.length === 0 ? available : wanted) {
  try {
    const bench: unknown = await import(new URL(`${name}.ts`, import.meta.url).href)
    if (!isBench(bench)) throw new Error(`bench/${name}.ts must export name and run: see bench/lib/figure.ts`)
    const started = performance.now()
    const running = bench.run(context)
    const report = await (Effect.isEffect(running) ? Effect.runPromise(running) : running)
    context.progress(`${name}: ${((performance.now() - started) / 1000).toFixed(1)} s`)
    if (json) { for (const figure of report.figures) console.log(toJson(bench.name, figure)) }
    else console.log(`\n${formatReport(bench.name, report)}`)
    if (report.figures.some((figure) => holds(figure) === false)) failed = true
  } catch (error) {
    failed = true
    console.error(`${name} failed:`, error)
  }
}
process.exit(failed ? 1 : 0)
