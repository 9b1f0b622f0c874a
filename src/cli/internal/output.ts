/**
 * How help and mistakes in the command line are shown: help that was asked for on the standard output, mistakes in a few lines
 * on the standard error output. Nothing that may be a secret is repeated.
 */
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import type { HelpDoc } from "effect/cli/HelpDoc"
import * as Console from "effect/Console"
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Logging from "./logging.ts"

/**
 * Finds what follows `--secret`, up to the next flag: a secret with a space in it that was not quoted goes on. `masked` are the
 * arguments without it. `isFlag`: what follows looks like a flag itself.
 */
const secretsOf = (args: ReadonlyArray<string>) => {
  const words = new Set<string>()
  let isSecret = false
  let isFlag = false
  const masked = args.map((argument) => {
    const [flag, name = "", inline] = /^(--secret|-s)(?:=(.*))?$/s.exec(argument) ?? []
    if (flag !== undefined) {
      isSecret = true
      if (inline === undefined) return flag
      words.add(inline)
      return `${name}=***`
    }
    if (argument.startsWith("-")) {
      isFlag ||= isSecret && words.size === 0
      isSecret = false
    } else if (isSecret) {
      words.add(argument)
      return "***"
    }
    return argument
  })
  return { words, isFlag, masked }
}

/** What others may see in the list of processes instead of the arguments; `undefined`: there is no secret among these. */
export const titleOf = (args: ReadonlyArray<string>): string | undefined => {
  const { masked, words } = secretsOf(args)
  return words.size === 0 ? undefined : ["lifeline", ...masked].join(" ")
}

/** Says a mistake without what may be part of a secret. */
const say = (args: ReadonlyArray<string>) => {
  const { isFlag, words } = secretsOf(args)
  return (errors: ReadonlyArray<CliError.NonShowHelpErrors>): ReadonlyArray<string> => {
    if (isFlag) {
      return [
        "--secret has no value, or one that begins with \"-\": then write --secret=VALUE, or better set LIFELINE_SECRET"
      ]
    }
    return errors.map((error) => {
      if (error._tag === "InvalidValue" && error.option === "secret") {
        return error.value === "" ? "--secret has no value" : "--secret is there more than once"
      }
      let text = error.message
      for (const word of words) text = text.replaceAll(JSON.stringify(word), "(not shown, as it may be of the secret)")
      return text
    })
  }
}

/** The library describes its own flags by all their choices, twice. */
const shorter: { readonly [flag: string]: { readonly type: string; readonly description: string } } = {
  "log-level": {
    type: "LEVEL",
    description: "The least level to log: all, trace, debug, info, warn, error, fatal or none [default: info]"
  },
  completions: { type: "SHELL", description: "Print a completion script for bash, zsh, fish or powershell" }
}

const shortened = (doc: HelpDoc): HelpDoc => ({
  ...doc,
  globalFlags: doc.globalFlags?.map((flag) => {
    const known = shorter[flag.name]
    return known === undefined ? flag : { ...flag, type: known.type, description: Option.some(known.description) }
  }) ?? []
})

export const layer = (options: {
  readonly args: ReadonlyArray<string>
  readonly footer: (doc: HelpDoc) => string | undefined
}) => {
  const formatter = (output: typeof process.stdout | typeof process.stderr) =>
    CliOutput.defaultFormatter({ colors: Logging.canColor(output) })
  const help = (doc: HelpDoc, output: typeof process.stdout | typeof process.stderr) => {
    const footer = options.footer(doc)
    return formatter(output).formatHelpDoc(shortened(doc)) + (footer === undefined ? "" : `\n\n${footer}`)
  }
  const present = (event: CliOutput.Presenter.Event): Effect.Effect<void> => {
    switch (event._tag) {
      case "Version":
        return Console.log(`${event.name} ${event.version}`)
      case "Help":
        return event.reason === "Requested"
          ? Console.log(help(event.helpDoc, process.stdout))
          : Console.error(help(event.helpDoc, process.stderr))
      case "InvalidInvocation":
        return Console.error([
          ...say(options.args)(event.errors).map((line) =>
            `lifeline: ${line.split("\n").map(Logging.escaped).join("\n")}`
          ),
          "",
          `Usage: ${event.helpDoc.usage}`,
          `More: ${event.commandPath.join(" ")} --help`
        ].join("\n"))
    }
  }
  return CliOutput.layerPresenter({ present })
}
