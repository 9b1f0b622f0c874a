// Checks the package as others get it: the tarball is packed, linted, installed into a throw-away consumer and used there:
// every public module is type-checked under both supported compilers (declarations of dependencies included), then loaded.
// Builds dist first. Works offline: the consumer borrows its dependencies from this node_modules.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { filesBelow, hiddenModules, isNodeModule, makeReport, publicModules, root, run, runBin } from "./internal.ts"
import type { Outcome } from "./internal.ts"

const name = "effect-lifeline"
const temporary = mkdtempSync(join(tmpdir(), `${name}-package-`))
const report = makeReport()

const write = (path: string, content: string): void => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
}

const specifierOf = (module: string): string => `${name}/${module}`

const pack = (): string => {
  const outcome = run("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", temporary])
  const file = filesBelow(temporary).find((path) => path.endsWith(".tgz"))
  if (file === undefined) throw new Error(`npm pack wrote no tarball: ${outcome.output}`)
  return join(temporary, file)
}

/** Only what a user needs, and every map leads to a source that is in the package. */
const checkContents = (installed: string): Outcome => {
  const files = filesBelow(installed)
  const wrong = files.filter((path) => !/^(dist|src)\/|^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/.test(path))
  const dangling = files.filter((path) => path.endsWith(".map")).flatMap((path) => {
    const map: { readonly sources: ReadonlyArray<string> } = JSON.parse(readFileSync(join(installed, path), "utf8"))
    return map.sources
      .filter((source) => !existsSync(join(installed, dirname(path), source)))
      .map((source) => `${path}: ${source} is not in the package`)
  })
  const missing = publicModules
    .flatMap((module) => [`dist/${module}.js`, `dist/${module}.d.ts`, `dist/${module}.d.ts.map`])
    .filter((path) => !files.includes(path))
  const problems = [
    ...wrong.map((path) => `${path}: does not belong into the package`),
    ...dangling,
    ...missing.map((path) => `${path}: missing`)
  ]
  return { ok: problems.length === 0, output: problems.join("\n") }
}

/** A program that uses every one of `modules`, so that each declaration file is read and checked. */
const program = (modules: ReadonlyArray<string>): string =>
  [
    `import * as Index from "${name}"`,
    ...modules.map((module, index) => `import * as M${index} from "${specifierOf(module)}"`),
    `export const index: object = Index`,
    ...modules.map((_, index) => `export const m${index}: object = M${index}`),
    ""
  ].join("\n")

const tsconfig = (include: string, types: ReadonlyArray<string>, module: "NodeNext" | "Bundler"): string =>
  JSON.stringify({
    compilerOptions: {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
      noEmit: true,
      target: "ES2022",
      lib: ["ES2022", "DOM", "DOM.Iterable"],
      module: module === "NodeNext" ? "NodeNext" : "ESNext",
      moduleResolution: module,
      types
    },
    files: [include]
  })

try {
  report.check("build", run(process.execPath, [`${root}/scripts/build.ts`]))
  const tarball = pack()

  const consumer = join(temporary, "consumer")
  write(join(consumer, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }))
  report.check(
    "install the tarball into a consumer",
    run("npm", ["install", "--offline", "--legacy-peer-deps", "--ignore-scripts", "--no-audit", "--no-fund", tarball], {
      cwd: consumer
    })
  )
  for (const dependency of ["effect", "@effect/platform-node", "@types/node"]) {
    const link = join(consumer, "node_modules", dependency)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, "node_modules", dependency), link)
  }

  report.check("contents", checkContents(join(consumer, "node_modules", name)))
  report.check("publint", runBin("publint", "publint", ["run", tarball, "--strict"]))
  report.check(
    "attw",
    runBin("@arethetypeswrong/cli", "attw", [
      tarball,
      "--profile",
      "esm-only",
      "--no-emoji",
      "--entrypoints",
      ".",
      ...publicModules
    ])
  )

  const core = publicModules.filter((module) => !isNodeModule(module))
  write(join(consumer, "core.ts"), program(core))
  write(join(consumer, "all.ts"), program(publicModules))
  // The core must not need Node's types: it is used in browsers and Workers.
  write(join(consumer, "core.json"), tsconfig("core.ts", [], "NodeNext"))
  write(join(consumer, "bundler.json"), tsconfig("core.ts", [], "Bundler"))
  write(join(consumer, "all.json"), tsconfig("all.ts", ["node"], "NodeNext"))
  for (const [label, compiler] of [["5.9", "typescript-5.9"], ["7", "typescript"]] as const) {
    for (const project of ["core", "bundler", "all"]) {
      report.check(
        `TypeScript ${label}, ${project}`,
        runBin(compiler, "tsc", ["-p", `${project}.json`], { cwd: consumer })
      )
    }
  }

  write(
    join(consumer, "load.mjs"),
    [
      `for (const module of ${JSON.stringify(["", ...publicModules])}) {`,
      `  const loaded = await import(module === "" ? "${name}" : "${name}/" + module)`,
      `  if (Object.keys(loaded).length === 0) console.log(module + " exports no value (types only)")`,
      "}",
      `for (const module of ${JSON.stringify(hiddenModules)}) {`,
      `  const found = await import("${name}/" + module).then(() => true, () => false)`,
      `  if (found) throw new Error("${name}/" + module + " can be imported, though it is hidden")`,
      "}",
      ""
    ].join("\n")
  )
  report.check(
    `load ${publicModules.length + 1} modules, refuse ${hiddenModules.length} hidden ones`,
    run(process.execPath, ["load.mjs"], { cwd: consumer })
  )

  const tool = run(join(consumer, "node_modules/.bin/lifeline"), ["tunnel", "--help"], { cwd: consumer })
  report.check("run the command line tool", { ...tool, ok: tool.ok && tool.output.includes("EXIT CODES") })
} finally {
  rmSync(temporary, { recursive: true, force: true })
}
report.exit()
