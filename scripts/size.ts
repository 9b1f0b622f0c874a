// Measures what the package adds to a bundle and fails over budget: esbuild, minified, gzip -9, 1 kB = 1000 bytes.
//
//   npm run size            a table, with the peers beside it once `npm ci --prefix bench` has installed them
//   npm run size -- --json  one line per figure: {"bench","figure","value","unit","bound","holds"}
//
// Builds dist first (the pure annotations in it decide what a bundler can drop). Each program is bundled twice: whole, and
// with `effect` external, which leaves our own code. The cost over effect is the difference to a program that references
// exactly the same members of the same effect modules and nothing else.
import { build } from "esbuild"
import { existsSync, readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { root, run } from "./internal.ts"

const json = process.argv.includes("--json")

interface Figure {
  readonly figure: string
  readonly value: number | null
  readonly bound: number | null
  readonly note?: string
}

const programs: Readonly<Record<string, string>> = {
  lifeline: `
    import * as Effect from "effect/Effect"
    import * as Layer from "effect/Layer"
    import * as FetchHttpClient from "effect/http/FetchHttpClient"
    import * as Lifeline from "effect-lifeline/Lifeline"
    import * as Pulse from "effect-lifeline/registry/Pulse"

    const main = Lifeline.layer({
      instance: { name: "worker", type: "worker", apiUrl: "http://worker:8080" },
      startup: "standalone"
    }).pipe(
      Layer.provide(Pulse.layer({ url: "http://pulse:9696" })),
      Layer.provide(FetchHttpClient.layer)
    )
    Effect.runFork(Layer.launch(main))
  `,
  backoff: `
    import * as Backoff from "effect-lifeline/Backoff"

    globalThis.kept = Backoff
  `
}

/** Bundles a program; `external` leaves effect out. */
const bundle = async (
  contents: string,
  options: {
    readonly external?: boolean
    readonly minify?: boolean
    readonly platform?: "browser" | "node"
    readonly from?: string
  } = {}
): Promise<string> => {
  const platform = options.platform ?? "browser"
  const result = await build({
    stdin: { contents, resolveDir: options.from ?? root, loader: "js" },
    bundle: true,
    format: "esm",
    target: "es2022",
    platform,
    minify: options.minify ?? true,
    legalComments: "none",
    treeShaking: true,
    write: false,
    logLevel: "silent",
    alias: { "effect-lifeline": `${root}/dist` },
    external: options.external === true ? ["effect", "effect/*"] : []
  })
  const text = result.outputFiles[0]?.text
  if (text === undefined) throw new Error("esbuild returned no bundle")
  return text
}

const gzip = (text: string): number => gzipSync(text, { level: 9 }).length

/** A program that keeps exactly the members of effect that `code` (our own code, effect external) refers to. */
const baselineOf = (code: string): string => {
  const imports = [...code.matchAll(/^import \* as (\w+) from "(effect\/[^"]+)";$/gm)]
  const used = imports.flatMap((
    [, local = ""]
  ) => [
    ...new Set(
      [...code.matchAll(new RegExp(`(?<![\\w$.])${local}\\.(\\w+)`, "g"))].map((match) => `${local}.${match[1]}`)
    )
  ])
  const named = [...code.matchAll(/^import \{ ([^}]+) \} from "(effect\/[^"]+)";$/gm)]
  const names = named.flatMap(([, list = ""]) => list.split(",").map((part) => part.trim().split(" as ").at(-1) ?? ""))
  return `${[...imports, ...named].map(([line]) => line).join("\n")}\nglobalThis.kept = [${
    [...used, ...names].join(", ")
  }]\n`
}

const kilobytes = (bytes: number): number => Math.round(bytes / 10) / 100

const measure = async (
  name: string
): Promise<{ readonly total: number; readonly own: number; readonly over: number }> => {
  const contents = programs[name]
  if (contents === undefined) throw new Error(`there is no program ${name}`)
  const total = gzip(await bundle(contents))
  const own = gzip(await bundle(contents, { external: true }))
  const over = total - gzip(await bundle(baselineOf(await bundle(contents, { external: true, minify: false }))))
  return { total, own, over }
}

/** The peers' smallest useful program; for a browser where they can, else for Node, else not at all. */
const peers: Readonly<Record<string, string>> = {
  "eureka-js-client": `import { Eureka } from "eureka-js-client"; new Eureka({}).start()`,
  consul: `import Consul from "consul"; new Consul().agent.service.register({ name: "worker" })`,
  nacos: `import { NacosNamingClient } from "nacos"; new NacosNamingClient({}).ready()`,
  etcd3: `import { Etcd3 } from "etcd3"; new Etcd3().lease(10).grant()`
}

const measurePeer = async (name: string, contents: string): Promise<Figure> => {
  for (const platform of ["browser", "node"] as const) {
    try {
      const total = gzip(await bundle(contents, { platform, from: `${root}/bench` }))
      return { figure: `peer ${name}, in all`, value: kilobytes(total), bound: null, note: `for ${platform}` }
    } catch {
      continue
    }
  }
  return { figure: `peer ${name}, in all`, value: null, bound: null, note: "does not bundle" }
}

const built = run(process.execPath, [`${root}/scripts/build.ts`])
if (!built.ok) {
  console.error(built.output)
  process.exit(1)
}

const lifeline = await measure("lifeline")
const backoff = await measure("backoff")
const figures: Array<Figure> = [
  { figure: "lifeline, in all", value: kilobytes(lifeline.total), bound: 70, note: "Lifeline, Pulse, fetch" },
  { figure: "lifeline, our own code", value: kilobytes(lifeline.own), bound: 10, note: "effect external" },
  {
    figure: "lifeline, over effect",
    value: kilobytes(lifeline.over),
    bound: null,
    note: "the same members of effect alone"
  },
  { figure: "backoff, in all", value: kilobytes(backoff.total), bound: null, note: "the whole module" },
  {
    figure: "backoff, over effect",
    value: kilobytes(backoff.over),
    bound: 2,
    note: "the same members of effect alone"
  },
  { figure: "backoff, our own code", value: kilobytes(backoff.own), bound: 2, note: "effect external" }
]

const peersInstalled = existsSync(`${root}/bench/node_modules`)
if (peersInstalled) {
  for (const [name, contents] of Object.entries(peers)) figures.push(await measurePeer(name, contents))
}

const holds = (figure: Figure): boolean | null =>
  figure.bound === null ? null : figure.value !== null && figure.value <= figure.bound

if (json) {
  for (const figure of figures) {
    console.log(JSON.stringify({
      bench: "size",
      figure: figure.figure,
      value: figure.value,
      unit: "kB gzip",
      bound: figure.bound,
      holds: holds(figure)
    }))
  }
} else {
  const row = (...cells: ReadonlyArray<string>): string => {
    const [name = "", value = "", bound = "", state = "", note = ""] = cells
    return `${name.padEnd(34)}${value.padStart(9)}${bound.padStart(9)}  ${state.padEnd(6)}${note}`.trimEnd()
  }
  const version: string = JSON.parse(readFileSync(`${root}/node_modules/effect/package.json`, "utf8")).version
  console.log(`minified, gzip -9, kB (1000 bytes); effect ${version}`)
  console.log(row("", "kB", "at most"))
  for (const figure of figures) {
    console.log(row(
      figure.figure,
      figure.value === null ? "-" : figure.value.toFixed(2),
      figure.bound === null ? "" : String(figure.bound),
      { true: "ok", false: "OVER", null: "" }[String(holds(figure))] ?? "",
      figure.note ?? ""
    ))
  }
  if (!peersInstalled) console.log("The peers are not installed; to see them beside it: npm ci --prefix bench")
}

const over = figures.filter((figure) => holds(figure) === false)
if (over.length > 0) {
  console.error(`over budget: ${over.map((figure) => figure.figure).join("; ")}`)
  process.exit(1)
}
