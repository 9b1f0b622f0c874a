/** The tool as people run it: a process of its own, from the sources. */
import * as Effect from "effect/Effect"
import * as Process from "../support/runtimes/Process.ts"

export const source = "src/cli/lifelineMain.ts"

export interface Options {
  readonly env?: Readonly<Record<string, string>>
}

export const start = (args: ReadonlyArray<string>, options: Options = {}) =>
  Process.startRuntime("node", [source, ...args], options)

/** `lifeline tunnel 9 --to 127.0.0.1:<port>`, and more. Nobody listens on port 9. */
export const tunnel = (server: number, args: ReadonlyArray<string> = [], options: Options = {}) =>
  start(["tunnel", "9", "--to", `127.0.0.1:${server}`, ...args], options)

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** How it ends by itself, and what it said. */
export const ran = Effect.fnUntraced(function*(process: Process.Process) {
  const { code } = yield* process.exited()
  return { code, stdout: process.stdout.join("\n"), stderr: process.stderr.join("\n") } satisfies Ran
})

export const run = (args: ReadonlyArray<string>, options?: Options) => Effect.flatMap(start(args, options), ran)

/** Where the tool says that the tunnel is. */
export const listening = (process: Process.Process) =>
  Effect.map(process.line(/^listening at (.+):(\d+)$/), ([, host, port]) => ({ host, port: Number(port) }))
