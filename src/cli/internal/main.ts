/**
 * Runs the tool: reads the command line, obeys signals, ends with the exit code.
 *
 * A signal ends what runs in an orderly way, within a second; after that, or at the second signal, the process ends as it
 * stands. It ends by the signal itself, so that a shell, `systemd` and `docker` see what happened and need no list of codes.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as CliConfig from "effect/cli/CliConfig"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Runtime from "effect/Runtime"
import { readFileSync } from "node:fs"
import { constants } from "node:os"
import { command, footer } from "./command.ts"
import * as Exits from "./exits.ts"
import * as Logging from "./logging.ts"
import * as Output from "./output.ts"

/** What is left of the second at the end is for the process itself. */
const patience = 600

const versionOf = (text: string): string => {
  const manifest: unknown = JSON.parse(text)
  return typeof manifest === "object" && manifest !== null && "version" in manifest
    ? String(manifest.version)
    : "unknown"
}

/** Calls back when what was written is with the reader. */
const flush = (then: () => void) => process.stdout.write("", () => process.stderr.write("", then))

/** Runs a program, and ends the process with it. */
export const runMain = Runtime.makeRunMain(({ fiber, teardown }) => {
  let received: NodeJS.Signals | undefined
  const signals = ["SIGINT", "SIGTERM"] as const
  const endBySignal = (signal: NodeJS.Signals) => {
    for (const each of signals) process.removeListener(each, onSignal)
    process.kill(process.pid, signal)
    // Deno does that a moment later; and the first process of a container is not ended by its own signal.
    setTimeout(() => process.exit(128 + constants.signals[signal]), 200)
  }
  const onSignal = (signal: NodeJS.Signals) => {
    if (received !== undefined) return endBySignal(signal)
    received = signal
    setTimeout(() => endBySignal(signal), patience)
    fiber.interruptUnsafe(fiber.id)
  }
  for (const signal of signals) process.on(signal, onSignal)
  // Who does not read on any more does not end the tunnel.
  for (const output of [process.stdout, process.stderr]) output.on("error", () => {})
  fiber.addObserver((exit) =>
    teardown(exit, (code) => {
      const end = () => received === undefined ? process.exit(code) : endBySignal(received)
      setTimeout(end, patience)
      flush(end)
    })
  )
})

export const run = (args: ReadonlyArray<string>): void => {
  const version = versionOf(readFileSync(new URL("../../../package.json", import.meta.url), "utf8"))
  const layer = Layer.mergeAll(
    NodeServices.layer,
    Logging.layer({ format: "pretty" }),
    CliConfig.layer({
      builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions, GlobalFlag.LogLevel]
    }),
    Output.layer({ args, footer: ({ commandPath }) => commandPath?.at(-1) === "tunnel" ? footer : undefined })
  )
  // Where the system allows it, others see this in the list of processes from now on.
  const title = Output.titleOf(args)
  if (title !== undefined) process.title = title
  const program = Command.runWith(command, { version })(args).pipe(
    Effect.tapDefect((defect) =>
      Effect.logFatal(
        `unexpected: ${defect instanceof Error ? defect.message : String(defect)} (a mistake in this tool)`
      )
    ),
    Effect.mapError((error) => error._tag === "Exit" ? error : new Exits.Exit({ code: Exits.codes.usage })),
    Effect.provide(layer)
  )
  runMain(program, { disableErrorReporting: true })
}
