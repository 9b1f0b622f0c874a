/**
 * The embedded registry as a process: `node dist/node/registryMain.js --port 9696 --dir ./registry`.
 *
 * Prints one line of JSON when it listens, `{"url":"http://127.0.0.1:9696","pid":4711}`; logs go to the standard error
 * output. `SIGTERM` and `SIGINT` stop it gracefully. The API key comes from the environment, `LIFELINE_REGISTRY_API_KEY`, as
 * everybody on a machine can read the arguments of a process.
 *
 * | argument | default | |
 * |---|---|---|
 * | `--port` | `0` | any free port |
 * | `--host` | `127.0.0.1` | |
 * | `--dir` | none | where registrations are kept; without it in memory only |
 * | `--heartbeat-unknown` | `404` | `204` imitates the reference server |
 * | `--health-interval` | `30 seconds` | |
 * | `--stale-after` | `2 minutes` | |
 * | `--leases` | | gives leases to who registers with a proof |
 * | `--origin` | none | where clients reach it, for their proofs: see `leases.origin` of `server/Server` |
 * | `--until-stdin-ends` | | stop when the standard input ends, as it does when the parent process dies |
 *
 * @since 0.1.0
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Config from "effect/Config"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { once } from "node:events"
import { parseArgs } from "node:util"
import * as NodeRegistry from "./NodeRegistry.ts"

const Arguments = Schema.Struct({
  port: Schema.optional(
    Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 65535 }))
  ),
  host: Schema.optional(Schema.String),
  dir: Schema.optional(Schema.String),
  "heartbeat-unknown": Schema.optional(Schema.Literals(["404", "204"])),
  "health-interval": Schema.optional(Schema.DurationFromString),
  "stale-after": Schema.optional(Schema.DurationFromString),
  leases: Schema.optional(Schema.Boolean),
  origin: Schema.optional(Schema.String),
  "until-stdin-ends": Schema.optional(Schema.Boolean)
})

class ArgumentsError extends Data.TaggedError("ArgumentsError")<{ readonly cause: unknown }> {
  override get message() {
    return `the arguments are not understood: ${String(this.cause)}`
  }
}

const readArguments = Effect.flatMap(
  Effect.try({
    try: () =>
      parseArgs({
        options: {
          port: { type: "string" },
          host: { type: "string" },
          dir: { type: "string" },
          "heartbeat-unknown": { type: "string" },
          "health-interval": { type: "string" },
          "stale-after": { type: "string" },
          leases: { type: "boolean" },
          origin: { type: "string" },
          "until-stdin-ends": { type: "boolean" }
        }
      }).values,
    catch: (cause) => new ArgumentsError({ cause })
  }),
  Schema.decodeUnknownEffect(Arguments)
)

const stdinEnds = Effect.suspend(() => {
  process.stdin.resume()
  return Effect.promise((signal) => once(process.stdin, "close", { signal }))
})

const main = Effect.gen(function*() {
  const values = yield* readArguments
  const apiKey = yield* Config.option(Config.Redacted("LIFELINE_REGISTRY_API_KEY"))
  const context = yield* Layer.build(NodeRegistry.layer({
    port: values.port,
    host: values.host,
    directory: values.dir,
    apiKey: Option.getOrUndefined(apiKey),
    leases: values.leases === true ? { origin: values.origin } : undefined,
    heartbeatUnknown: values["heartbeat-unknown"] === "204" ? 204 : 404,
    health: { interval: values["health-interval"], staleAfter: values["stale-after"] }
  }))
  const registry = yield* Effect.provideContext(NodeRegistry.NodeRegistry, context)
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify({ url: registry.url, pid: process.pid })}\n`))
  yield* values["until-stdin-ends"] === true ? stdinEnds : Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]))
)

NodeRuntime.runMain(main)
