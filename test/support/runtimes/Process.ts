/**
 * A child process in a scope: its lines can be waited for, and closing the scope ends it by its pid.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync } from "node:fs"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as Watch from "./Watch.ts"
import { RuntimeError } from "./Watch.ts"

/** The repository. */
export const root: string = fileURLToPath(new URL("../../..", import.meta.url)).replace(/\/$/, "")

/** The runtimes that `npm ci` brings. */
export type Runtime = "node" | "deno" | "bun"

export interface Exited {
  /** `null`: ended by `signal`. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Process {
  readonly pid: number
  /** Waits for a line of stdout or stderr, also one that came already, and gives what the expression matched. */
  readonly line: (pattern: RegExp, within?: Duration.Input) => Effect.Effect<RegExpExecArray, RuntimeError>
  /** Of both outputs, as they came. */
  readonly lines: ReadonlyArray<string>
  /** Lines of one output. */
  readonly stdout: ReadonlyArray<string>
  readonly stderr: ReadonlyArray<string>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly exited: (within?: Duration.Input) => Effect.Effect<Exited, RuntimeError>
}

/** The path of a runtime's command, or what to do where it is missing. */
export const binary = (runtime: Runtime): Effect.Effect<string, RuntimeError> =>
  Effect.suspend(() => {
    const path = `${root}/node_modules/.bin/${runtime}`
    return existsSync(path)
      ? Effect.succeed(path)
      : Effect.fail(
        new RuntimeError({
          problem: `${runtime} is missing: run "npm ci", which installs it (its install script must be allowed)`
        })
      )
  })

/** What a child gets of this process's environment: enough to start, nothing that would steer it. */
const inherited = (): NodeJS.ProcessEnv => {
  const { HOME, PATH, TMPDIR } = process.env
  return { ...(HOME && { HOME }), ...(PATH && { PATH }), ...(TMPDIR && { TMPDIR }), NO_COLOR: "1" }
}

export const start = (
  command: string,
  args: ReadonlyArray<string>,
  options: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string } = {}
): Effect.Effect<Process, RuntimeError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly process: Process; readonly end: () => Promise<void> }, RuntimeError>((resume) => {
      const child = spawn(command, args, {
        cwd: options.cwd ?? root,
        env: { ...inherited(), ...options.env },
        stdio: ["ignore", "pipe", "pipe"]
      })
      const lines = Watch.make<string>((line) => line)
      const exits = Watch.make<Exited>((exited) => JSON.stringify(exited))
      const outputs = { stdout: new Array<string>(), stderr: new Array<string>() }
      for (const name of ["stdout", "stderr"] as const) {
        createInterface({ input: child[name] }).on("line", (line) => {
          outputs[name].push(line)
          lines.add(line)
        })
      }
      const killed = (): void => {
        child.kill("SIGKILL")
      }
      // Should the test runner end without closing scopes, its children end with it.
      process.once("exit", killed)
      // "close" comes after the last line was read.
      child.once("close", (code, signal) => {
        process.removeListener("exit", killed)
        // First: who waits for a line may close the scope at once, which waits for nothing where the end is known.
        exits.add({ code, signal })
        lines.end(`the process ended with ${signal ?? `exit code ${code}`}`)
      })
      child.once("error", (cause) => {
        process.removeListener("exit", killed)
        resume(Effect.fail(new RuntimeError({ problem: `${command} did not start: ${cause.message}`, cause })))
      })
      child.once("spawn", () => {
        resume(Effect.succeed({
          process: {
            pid: child.pid ?? 0,
            line: (pattern, within) =>
              lines.until(
                `a line like ${pattern} of ${command} ${args.join(" ")}`,
                (seen) => {
                  for (const line of seen) {
                    const match = pattern.exec(line)
                    if (match !== null) return match
                  }
                  return undefined
                },
                within
              ),
            lines: lines.seen,
            ...outputs,
            kill: (signal) =>
              Effect.sync(() => {
                child.kill(signal)
              }),
            exited: (within) =>
              Effect.mapError(
                exits.until(`the end of ${command} ${args.join(" ")}`, (seen) => seen[0], within),
                (error) => new RuntimeError({ problem: error.problem, seen: lines.seen.join("\n") })
              )
          },
          end: async () => {
            if (exits.seen.length > 0) return
            const closed = once(child, "close")
            child.kill("SIGKILL")
            await closed
          }
        }))
      })
    }),
    ({ end }) => Effect.promise(end)
  ).pipe(Effect.map(({ process }) => process))

/** Starts a program of this repository in a runtime, as its README says. */
export const startRuntime = (
  runtime: Runtime,
  args: ReadonlyArray<string>,
  options?: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string }
): Effect.Effect<Process, RuntimeError, Scope.Scope> =>
  Effect.flatMap(binary(runtime), (path) => start(path, args, options))
