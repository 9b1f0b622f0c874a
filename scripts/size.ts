// Measures what the package adds to a bundle and fails over budget: esbuild, minified, gzip -9, 1 kB = 1000 bytes.
//
//   npm run size               a table, with the peers beside it once `npm ci --prefix bench` has installed them
//   npm run size -- --json     one line per figure: {"bench","figure","value","unit","bound","holds"}
//   npm run size -- "--known=FIGURE=KB"  does not fail for a figure that is over its budget, while it is at most so many kB
//   npm run size -- --modules  and what each of our modules weighs in the programs (minified, before gzip)
//
// Builds dist first (the pure annotations in it decide what a bundler can drop). Our share of a bundle is the whole less a
// bundle that holds exactly the same members of the same effect modules and nothing else. Our code bundled by itself, with
// effect external, is printed too; it is larger, because the names of effect's members cannot be shortened in it.
import { build } from "esbuild"
import { existsSync, readFileSync } from "node:fs"
import { gzipSync } from "node:zlib"
import { root, run } from "./internal.ts"

const json = process.argv.includes("--json")

/** Budgets that are known not to be kept yet, and what they may not pass meanwhile. */
const ceilings = new Map(
  process.argv.filter((argument) => argument.startsWith("--known=")).map((argument) => {
    const [figure = "", ceiling = ""] = argument.slice("--known=".length).split("=")
    return [figure, Number(ceiling)] as const
  })
)

interface Figure {
  readonly figure: string
  readonly value: number | null
  readonly bound: number | null
  readonly note?: string
}

/** The program `lifeline`, with a client that signs each request with a key that survives a restart. */
const signing = (imports: string, keys: string): string => `
    import * as Effect from "effect/Effect"
    import * as FetchHttpClient from "effect/http/FetchHttpClient"
    import * as HttpClient from "effect/http/HttpClient"
    import * as Layer from "effect/Layer"
    import * as Lifeline from "effect-lifeline/Lifeline"
    import * as Proof from "effect-lifeline/Proof"
    import * as Pulse from "effect-lifeline/registry/Pulse"
    ${imports}

    const client = Layer.effect(
      HttpClient.HttpClient,
      Effect.gen(function*() {
        return Proof.httpClient(yield* HttpClient.HttpClient, { proof: yield* Proof.Proof })
      })
    ).pipe(Layer.provide(Proof.layerDpopStored({ name: "device" })), Layer.provide(${keys}))
    const main = Lifeline.layer({
      instance: { name: "worker", type: "worker", apiUrl: "http://worker:8080" },
      startup: "standalone"
    }).pipe(
      Layer.provide(Pulse.layer({ url: "http://pulse:9696" })),
      Layer.provide(client),
      Layer.provide(FetchHttpClient.layer)
    )
    Effect.runFork(Layer.launch(main))
  `

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
  proof: signing(`import * as KeyStore from "effect-lifeline/browser/KeyStore"`, "KeyStore.layer()"),
  encrypted: signing(
    `import * as Cipher from "effect-lifeline/Cipher"
    import * as KeyValueStore from "effect/persistence/KeyValueStore"
    import * as KeyStore from "effect-lifeline/KeyStore"`,
    `KeyStore.layerKeyValueStore({ cipher: Cipher.aesGcm(globalThis.key) }).pipe(
      Layer.provide(KeyValueStore.layerStorage(() => localStorage))
    )`
  ),
  backoff: `
    import * as Backoff from "effect-lifeline/Backoff"

    globalThis.kept = Backoff
  `,
  events: `
    import * as Effect from "effect/Effect"
    import * as FetchHttpClient from "effect/http/FetchHttpClient"
    import * as Stream from "effect/Stream"
    import * as EventSource from "effect-lifeline/EventSource"

    const main = EventSource.stream("http://pulse:9696/api/v1/events").pipe(
      Stream.runForEach((event) => Effect.log(event)),
      Effect.provide(FetchHttpClient.layer)
    )
    Effect.runFork(main)
  `,
  listener: `
    import * as Effect from "effect/Effect"
    import * as FetchHttpClient from "effect/http/FetchHttpClient"
    import * as Stream from "effect/Stream"
    import * as EventSource from "effect-lifeline/EventSource"
    import * as Listener from "effect-lifeline/Listener"
    import * as WebSocket from "effect-lifeline/WebSocket"

    const events = EventSource.stream("http://pulse:9696/api/v1/events").pipe(
      Stream.runForEach((event) => Effect.log(event)),
      Effect.provide(FetchHttpClient.layer)
    )
    const listens = Effect.gen(function*() {
      const listener = yield* Listener.make({
        connect: WebSocket.open({ url: "wss://feed.example/live" }),
        route: (message) => message.split(" ")[0],
        subscribe: (key) => "subscribe " + key
      })
      const { messages } = yield* listener.subscribe("gold")
      yield* Stream.runForEach(messages, (message) => Effect.log(message))
    })
    Effect.runFork(Effect.all([events, Effect.scoped(listens)]))
  `
}

interface Bundle {
  readonly text: string
  /** Bytes in the bundle, by module of ours. */
  readonly modules: Readonly<Record<string, number>>
  /** Bytes in the bundle that are of effect's Schema. */
  readonly schema: number
}

const isSchema = (path: string): boolean => /\/effect\/dist\/(internal\/schema\/|Schema\w*\.js$)/.test(path)

/** Bundles a program; `external` leaves effect out. */
const bundle = async (
  contents: string,
  options: {
    readonly external?: boolean
    readonly minify?: boolean
    readonly platform?: "browser" | "node"
    readonly from?: string
  } = {}
): Promise<Bundle> => {
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
    metafile: true,
    outfile: "bundle.js",
    absWorkingDir: root,
    logLevel: "silent",
    alias: { "effect-lifeline": `${root}/dist` },
    external: options.external === true ? ["effect", "effect/*"] : []
  })
  const text = result.outputFiles[0]?.text
  const inputs = Object.values(result.metafile.outputs)[0]?.inputs
  if (text === undefined || inputs === undefined) throw new Error("esbuild returned no bundle")
  const modules = Object.entries(inputs).flatMap(([path, { bytesInOutput }]) =>
    path.startsWith("dist/") ? [[path.slice("dist/".length), bytesInOutput] as const] : []
  )
  const schema = Object.entries(inputs).filter(([path]) => isSchema(path))
    .reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0)
  return { text, modules: Object.fromEntries(modules), schema }
}

const gzip = (text: string): number => gzipSync(text, { level: 9 }).length

const keep = "globalThis.kept="

/** A program that keeps exactly the members of effect that `code` (our own code, effect external) refers to. */
const baselineOf = (code: string): string => {
  const namespaces = [...code.matchAll(/^import \* as (\w+) from "effect\/[^"]+";$/gm)]
  const members = namespaces.flatMap(([, name = ""]) =>
    [...code.matchAll(new RegExp(`(?<![\\w$.])${name}\\.\\w+`, "g"))].map(([member]) => member)
  )
  const lists = [...code.matchAll(/^import \{ ([^}]+) \} from "effect\/[^"]+";$/gm)]
  const names = lists.flatMap(([, list = ""]) => list.split(",").map((part) => part.trim().split(" as ").at(-1) ?? ""))
  const imports = [...namespaces, ...lists].map(([line]) => line)
  return `${imports.join("\n")}\n${keep}[${[...new Set([...members, ...names])].join(", ")}]\n`
}

/** The size of what the baseline keeps, without the list that keeps it: that would count in our favour. */
const baselineSize = (text: string): number => {
  const list = text.lastIndexOf(keep)
  if (list < 0) throw new Error("the baseline keeps nothing")
  return gzip(text.slice(0, list))
}

/** Rounded up: a budget that is passed by a few bytes is passed. */
const kilobytes = (bytes: number): number => Math.ceil(bytes / 10) / 100

interface Measured {
  readonly total: number
  readonly share: number
  readonly alone: number
  readonly modules: Readonly<Record<string, number>>
  readonly schema: number
}

const measure = async (name: string): Promise<Measured> => {
  const contents = programs[name]
  if (contents === undefined) throw new Error(`there is no program ${name}`)
  const whole = await bundle(contents)
  const total = gzip(whole.text)
  const alone = await bundle(contents, { external: true })
  const readable = await bundle(contents, { external: true, minify: false })
  const baseline = await bundle(baselineOf(readable.text))
  const { modules, schema } = whole
  return { total, share: total - baselineSize(baseline.text), alone: gzip(alone.text), modules, schema }
}

/** The peers' smallest useful program; for a browser where they can, else for Node, else not at all. */
const peers: Readonly<Record<string, string>> = {
  "eureka-js-client": `import { Eureka } from "eureka-js-client"; new Eureka({}).start()`,
  consul: `import Consul from "consul"; new Consul().agent.service.register({ name: "worker" })`,
  nacos: `import { NacosNamingClient } from "nacos"; new NacosNamingClient({}).ready()`,
  etcd3: `import { Etcd3 } from "etcd3"; new Etcd3().lease(10).grant()`,
  eventsource: `import { EventSource } from "eventsource"; new EventSource("/events").onmessage = console.log`,
  "@microsoft/fetch-event-source":
    `import { fetchEventSource } from "@microsoft/fetch-event-source"; fetchEventSource("/events", { onmessage: console.log })`,
  "reconnecting-websocket": `import Socket from "reconnecting-websocket"; new Socket("/live").onmessage = console.log`,
  partysocket: `import Socket from "partysocket/ws"; new Socket("/live").onmessage = console.log`,
  "graphql-ws":
    `import { createClient } from "graphql-ws"; createClient({ url: "/live" }).subscribe({ query: "" }, console)`,
  "socket.io-client": `import { io } from "socket.io-client"; io("/live").on("message", console.log)`
}

const measurePeer = async (name: string, contents: string): Promise<Figure> => {
  for (const platform of ["browser", "node"] as const) {
    try {
      const { text } = await bundle(contents, { platform, from: `${root}/bench` })
      return { figure: `peer ${name}, in all`, value: kilobytes(gzip(text)), bound: null, note: `for ${platform}` }
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
const proof = await measure("proof")
const encrypted = await measure("encrypted")
const backoff = await measure("backoff")
const events = await measure("events")
const listener = await measure("listener")
const figures: Array<Figure> = [
  { figure: "lifeline, in all", value: kilobytes(lifeline.total), bound: 70, note: "Lifeline, Pulse, fetch" },
  {
    figure: "lifeline, our share",
    value: kilobytes(lifeline.share),
    bound: 10,
    note: "over the same members of effect"
  },
  { figure: "lifeline, ours by itself", value: kilobytes(lifeline.alone), bound: null, note: "effect external" },
  {
    figure: "proof, over lifeline",
    value: kilobytes(proof.total - lifeline.total),
    bound: 6,
    note: "DPoP, a key in IndexedDB; effect's part included"
  },
  {
    figure: "proof, over lifeline, encrypted keys",
    value: kilobytes(encrypted.total - lifeline.total),
    bound: 6,
    note: "a key in a KeyValueStore, AES-GCM"
  },
  { figure: "backoff, in all", value: kilobytes(backoff.total), bound: null, note: "the whole module" },
  { figure: "backoff, our share", value: kilobytes(backoff.share), bound: 2, note: "over the same members of effect" },
  { figure: "backoff, ours by itself", value: kilobytes(backoff.alone), bound: null, note: "effect external" },
  { figure: "events, in all", value: kilobytes(events.total), bound: null, note: "EventSource, Reconnect, fetch" },
  { figure: "events, our share", value: kilobytes(events.share), bound: 5, note: "over the same members of effect" },
  { figure: "events, ours by itself", value: kilobytes(events.alone), bound: null, note: "effect external" },
  { figure: "events, Schema in it", value: events.schema / 1000, bound: 0, note: "before gzip" },
  { figure: "listener, in all", value: kilobytes(listener.total), bound: null, note: "events, Listener, WebSocket" },
  {
    figure: "listener, our share over events",
    value: kilobytes(listener.share - events.share),
    bound: 6,
    note: "over the same members of effect"
  },
  { figure: "listener, Schema in it", value: listener.schema / 1000, bound: null, note: "before gzip" }
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
    return `${name.padEnd(42)}${value.padStart(9)}${bound.padStart(9)}  ${state.padEnd(6)}${note}`.trimEnd()
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
  if (process.argv.includes("--modules")) {
    for (const [program, { modules }] of Object.entries({ lifeline, events, listener })) {
      console.log(`\nour modules in the program ${program}, bytes, minified, before gzip`)
      for (const [path, bytes] of Object.entries(modules).toSorted(([, a], [, b]) => b - a)) {
        console.log(row(path, String(bytes)))
      }
    }
  }
  if (!peersInstalled) console.log("The peers are not installed; to see them beside it: npm ci --prefix bench")
}

const exceeded = figures.filter((figure) => holds(figure) === false)
for (const { bound, figure, value } of exceeded) {
  const ceiling = ceilings.get(figure)
  if (ceiling !== undefined) {
    console.error(`known to be over: ${figure}, ${value} kB of ${bound}; may not pass ${ceiling}`)
  }
}
const over = exceeded.filter(({ figure, value }) => value === null || value > (ceilings.get(figure) ?? -Infinity))
if (over.length > 0) {
  console.error(`over budget: ${over.map((figure) => figure.figure).join("; ")}`)
  process.exit(1)
}
