// Keeps the documentation true: every fenced `ts` block in the doc comments of src, in README.md and in docs/*.md
// is type-checked against the sources, with the compiler options of the project; and docs/ARCHITECTURE.md names every
// public module; and each export of a public module has a doc comment with a summary, @category and @since. A block stands
// for itself: it has its own imports, from "effect-lifeline/X".
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { missing, withoutStar } from "./docComments.ts"
import { filesBelow, makeReport, publicModules, root, runBin } from "./internal.ts"
import type { Outcome } from "./internal.ts"

interface Block {
  readonly file: string
  /** The line in `file` (from 1) of the block's first line of code. */
  readonly line: number
  readonly code: string
}

/** The fenced blocks of `text`; `prefix` is what a doc comment puts before each line. */
const blocksOf = (file: string, text: string, prefix: RegExp): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  let open: { readonly line: number; readonly code: Array<string> } | undefined
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.replace(prefix, "")
    if (open === undefined) {
      if (/^\s*```(ts|typescript)\s*$/.test(line)) open = { line: index + 2, code: [] }
    } else if (/^\s*```\s*$/.test(line)) {
      blocks.push({ file, line: open.line, code: open.code.join("\n") })
      open = undefined
    } else {
      open.code.push(line)
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line}: the code block is never closed`)
  return blocks
}

const read = (file: string): string => readFileSync(join(root, file), "utf8")

const sources = filesBelow(join(root, "src")).filter((path) => path.endsWith(".ts")).map((path) => `src/${path}`)
const pages = [
  ...["README.md"].filter((file) => existsSync(join(root, file))),
  ...filesBelow(join(root, "docs")).filter((path) => path.endsWith(".md")).map((path) => `docs/${path}`)
]

const blocks = [
  ...sources.flatMap((file) => blocksOf(file, read(file), /^\s*\*? ?/)),
  ...pages.flatMap((file) => blocksOf(file, read(file), /(?!)/))
]

const typeCheck = (): Outcome => {
  const directory = mkdtempSync(join(tmpdir(), "effect-lifeline-docs-"))
  try {
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
    mkdirSync(join(directory, "blocks"))
    for (const [index, block] of blocks.entries()) writeFileSync(join(directory, "blocks", `${index}.ts`), block.code)
    writeFileSync(join(directory, "package.json"), JSON.stringify({ type: "module" }))
    writeFileSync(
      join(directory, "tsconfig.json"),
      JSON.stringify({
        extends: join(root, "tsconfig.json"),
        compilerOptions: {
          noUnusedLocals: false,
          noUnusedParameters: false,
          paths: {
            "effect-lifeline": [join(root, "src/index.ts")],
            "effect-lifeline/*": [join(root, "src/*.ts")]
          }
        },
        include: ["blocks"]
      })
    )
    const outcome = runBin("typescript", "tsc", ["-p", "tsconfig.json", "--pretty", "false"], { cwd: directory })
    const output = outcome.output.replace(/^blocks\/(\d+)\.ts\((\d+),(\d+)\)/gm, (_, index, line, column) => {
      const block = blocks[Number(index)]
      return block === undefined ? String(_) : `${block.file}:${block.line + Number(line) - 1}:${column}`
    })
    // What is wrong in the sources themselves is shown as seen from the root.
    return { ok: outcome.ok, output: output.replaceAll(`${relative(directory, root)}/`, "") }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

const checkArchitecture = (): Outcome => {
  const page = "docs/ARCHITECTURE.md"
  if (!existsSync(join(root, page))) return { ok: false, output: `${page} is missing` }
  const text = read(page)
  const escaped = (module: string): string => module.replaceAll("/", "\\/")
  const missing = publicModules.filter((module) => !new RegExp(`(?<![\\w/])${escaped(module)}(?![\\w/])`).test(text))
  const gone = [...text.matchAll(/(?<![\w./])src\/[\w./-]+\.ts/g)]
    .map(([path]) => path)
    .filter((path) => !existsSync(join(root, path)))
  const problems = [
    ...missing.map((module) => `${page} does not mention the public module ${module}`),
    ...gone.map((path) => `${page} mentions ${path}, which does not exist`)
  ]
  return { ok: problems.length === 0, output: problems.join("\n") }
}

const checkExamples = (): Outcome => {
  const without = publicModules.filter((module) => !blocks.some((block) => block.file === `src/${module}.ts`))
  return {
    ok: without.length === 0,
    output: without.map((module) => `src/${module}.ts has no example in its doc comments`).join("\n")
  }
}

const checkComments = (): Outcome => {
  const problems = [
    ...sources.flatMap((file) =>
      withoutStar(read(file)).map((line) => `${file}:${line}: a line of a doc comment begins with " * "`)
    ),
    ...publicModules.flatMap((module) =>
      missing(read(`src/${module}.ts`)).map(({ line, what }) => `src/${module}.ts:${line}: ${what}`)
    )
  ]
  return { ok: problems.length === 0, output: problems.join("\n") }
}

/** Relative links of the pages lead to files that exist. */
const checkLinks = (): Outcome => {
  const problems = pages.flatMap((page) =>
    [...read(page).matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)/g)]
      .map(([, target = ""]) => target)
      .filter((target) => !existsSync(join(root, page, "..", target)))
      .map((target) => `${page} links to ${target}, which does not exist`)
  )
  return { ok: problems.length === 0, output: problems.join("\n") }
}

const report = makeReport()
report.check(`${blocks.length} examples type-check`, typeCheck())
report.check("every public module has an example", checkExamples())
report.check("every export of a public module has a summary, @category and @since", checkComments())
report.check("docs/ARCHITECTURE.md names every public module", checkArchitecture())
report.check("relative links lead somewhere", checkLinks())
report.exit()
