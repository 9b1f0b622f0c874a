/**
 * Workers in workerd, through Miniflare: of a script, or of an example as its `wrangler.jsonc` describes it.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Miniflare } from "miniflare"
import type { WorkerOptions } from "miniflare"
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import type { Readable } from "node:stream"
import { bundle } from "./Bundle.ts"
import { root } from "./Process.ts"
import { RuntimeError } from "./Watch.ts"

/** A script, bundled, as a module. Ended with the scope. */
export const run = (entry: string, options: Partial<WorkerOptions> & Record<string, unknown> = {}) =>
  Effect.flatMap(bundle(entry), (contents) =>
    Effect.acquireRelease(
      Effect.sync(() =>
        new Miniflare({
          modules: [{ type: "ESModule", path: "worker.js", contents }],
          compatibilityDate: "2026-07-01",
          cf: false,
          host: "127.0.0.1",
          port: 0,
          ...options
        })
      ),
      (started) => Effect.promise(() => started.dispose())
    ))

/** What is read of a `wrangler.jsonc`; a field that is not here is a mistake, so that no test passes by ignoring it. */
const Config = Schema.fromJsonString(Schema.Struct({
  name: Schema.String,
  main: Schema.String,
  compatibility_date: Schema.String,
  triggers: Schema.optionalKey(Schema.Struct({ crons: Schema.Array(Schema.String) })),
  kv_namespaces: Schema.optionalKey(Schema.Array(Schema.Struct({ binding: Schema.String, id: Schema.String }))),
  durable_objects: Schema.optionalKey(Schema.Struct({
    bindings: Schema.Array(Schema.Struct({ name: Schema.String, class_name: Schema.String }))
  })),
  migrations: Schema.optionalKey(Schema.Array(Schema.Struct({
    tag: Schema.String,
    new_sqlite_classes: Schema.Array(Schema.String)
  }))),
  vars: Schema.Record(Schema.String, Schema.String)
}))

export type Config = typeof Config.Type

/** Comments are whole lines in these files. */
const readConfig = (directory: string): Effect.Effect<Config> =>
  Effect.suspend(() => {
    const text = readFileSync(`${root}/${directory}/wrangler.jsonc`, "utf8").replace(/^\s*\/\/.*$/gm, "")
    return Schema.decodeEffect(Config)(text, { onExcessProperty: "error" })
  }).pipe(Effect.orDie)

export interface Worker {
  readonly config: Config
  readonly miniflare: Miniflare
  /** What it logged. */
  readonly lines: ReadonlyArray<string>
}

export const start = (
  directory: string,
  options: {
    /** Replaces and adds to the `vars` of the configuration. */
    readonly vars: Readonly<Record<string, string>>
    /** Where its storage is kept, for whoever starts it again. */
    readonly storage: string
  }
): Effect.Effect<Worker, RuntimeError, Scope.Scope> =>
  Effect.gen(function*() {
    const config = yield* readConfig(directory)
    const sqlite = (config.migrations ?? []).flatMap((migration) => migration.new_sqlite_classes)
    const lines: Array<string> = []
    const miniflare = yield* run(`${directory}/${config.main}`, {
      name: config.name,
      compatibilityDate: config.compatibility_date,
      bindings: { ...config.vars, ...options.vars },
      kvNamespaces: (config.kv_namespaces ?? []).map(({ binding }) => binding),
      kvPersist: `${options.storage}/kv`,
      durableObjects: Object.fromEntries(
        (config.durable_objects?.bindings ?? []).map(({ class_name: className, name }) => [
          name,
          { className, useSQLite: sqlite.includes(className) }
        ])
      ),
      durableObjectsPersist: `${options.storage}/do`,
      handleRuntimeStdio: (stdout: Readable, stderr: Readable) => {
        for (const input of [stdout, stderr]) createInterface({ input }).on("line", (line) => lines.push(line))
      }
    })
    yield* Effect.tryPromise({
      try: () => miniflare.ready,
      catch: (cause) =>
        new RuntimeError({ problem: `${directory} did not start in workerd`, seen: String(cause), cause })
    })
    return { config, miniflare, lines }
  })
