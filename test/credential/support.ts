/** Processes over one directory. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"

export const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-credential-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** A process that is ready, and answers a line with a line of JSON. It ends with the scope, by its own id. */
export const spawn = Effect.fnUntraced(function*(program: string, args: ReadonlyArray<string>) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => ChildProcess.spawn(process.execPath, [program, ...args], { stdio: ["pipe", "pipe", "inherit"] })),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const exited = once(child, "exit")
        child.kill("SIGKILL")
        await exited
      })
  )
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const next = Effect.map(Effect.promise(() => lines.next()), ({ value }): unknown => value)
  assert.strictEqual(yield* next, "ready")
  return {
    ask: Effect.map(
      Effect.andThen(Effect.sync(() => child.stdin.write("\n")), next),
      (line): unknown => JSON.parse(String(line))
    )
  }
})
