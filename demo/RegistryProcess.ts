/**
 * The embedded registry as a child process: the same program that `effect-lifeline` brings for Node. It ends with its
 * scope, and by itself should this process die first (`--until-stdin-ends`).
 */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { Deviation } from "./Expectation.ts"

export interface Options {
  readonly port: number
  /** What clients must show. */
  readonly apiKey: Redacted.Redacted
  /** Silent for so many seconds: offline. */
  readonly staleAfter: string
  /** Another program than the registry, to see what happens when it does not start. */
  readonly program?: string | undefined
}

export interface RegistryProcess {
  readonly url: string
  readonly pid: number
  /** `kill -9`: it gets no chance to say goodbye. Returns when the process is gone. */
  readonly killHard: Effect.Effect<void, Deviation>
}

const registryMain = fileURLToPath(new URL("../dist/node/registryMain.js", import.meta.url))

const readFirstLine = Schema.decodeEffect(
  Schema.fromJsonString(Schema.Struct({ url: Schema.String, pid: Schema.Number }))
)

/** Starts a registry that knows nobody. It has its first line to say where it listens. */
export const start = Effect.fnUntraced(
  function*(options: Options): Effect.fn.Return<RegistryProcess, Deviation, ChildProcessSpawner | Scope.Scope> {
    const deviation = (found: string) => new Deviation({ expected: "the registry starts", found })
    const args = [
      "--port",
      String(options.port),
      "--stale-after",
      options.staleAfter,
      "--health-interval",
      "500 millis"
    ]
    const child = yield* ChildProcess.make(
      process.execPath,
      [options.program ?? registryMain, ...args, "--until-stdin-ends"],
      {
        env: { LIFELINE_REGISTRY_API_KEY: options.apiKey, FORCE_COLOR: undefined, NO_COLOR: "1" },
        extendEnv: true,
        forceKillAfter: "2 seconds"
      }
    ).pipe(Effect.mapError((error) => deviation(error.message)))

    let log = ""
    const logged = () => `Its log: ${log.replaceAll(/\s+/g, " ").trim().slice(0, 300)}`
    yield* child.stderr.pipe(
      Stream.decodeText(),
      Stream.runForEach((text) =>
        Effect.sync(() => {
          log = (log + text).slice(0, 2000)
        })
      ),
      Effect.ignore,
      Effect.forkScoped
    )
    const line = yield* child.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runHead,
      Effect.flatMap(Effect.fromOption),
      Effect.flatMap(readFirstLine),
      Effect.mapError(() => deviation(`it ended, or said something else. ${logged()}`)),
      Effect.timeoutOrElse({
        duration: "8 seconds",
        orElse: () => Effect.fail(deviation(`nothing for 8 seconds. ${logged()}`))
      })
    )
    return {
      ...line,
      killHard: child.kill({ killSignal: "SIGKILL" }).pipe(
        Effect.mapError((error) => new Deviation({ expected: "the registry can be killed", found: error.message }))
      )
    }
  }
)
