/**
 * What the tool logs, on the standard error output: one line for each, as text for people or as JSON for programs. Of errors
 * it shows messages, never where in the code they come from.
 */
import * as Cause from "effect/Cause"
import * as Formatter from "effect/Formatter"
import * as Logger from "effect/Logger"
import * as References from "effect/References"

export type Format = "json" | "pretty"

interface Line {
  readonly timestamp: Date
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
}

const textOf = (part: unknown): string => {
  if (typeof part === "string") return part
  if (part instanceof Error) return part.message
  if (Cause.isCause(part)) return Cause.prettyErrors(part).map((error) => error.message).join("; ")
  return Formatter.formatJson(part)
}

const lineOf = ({ cause, date, fiber, logLevel, message }: Logger.Options<unknown>): Line => ({
  timestamp: date,
  level: logLevel.toUpperCase(),
  message: [...Array.isArray(message) ? message : [message], ...cause.reasons.length > 0 ? [cause] : []].map(textOf)
    .join(" "),
  annotations: fiber.getRef(References.CurrentLogAnnotations)
})

const two = (n: number) => String(n).padStart(2, "0")

const colors: { readonly [level: string]: string } = {
  FATAL: "\u001b[31;1m",
  ERROR: "\u001b[31m",
  WARN: "\u001b[33m",
  INFO: "\u001b[32m"
}

/** Whether an output is a terminal that shows colors; `NO_COLOR` and the like are heeded. */
export const canColor = (output: typeof process.stderr | typeof process.stdout): boolean =>
  output.isTTY && output.hasColors()

/** These are in the messages. */
const known = new Set(["package", "operation", "target", "server", "port"])

/** What a server says is shown: it must not be able to steer the terminal. */
export const escaped = (text: string): string =>
  text.replace(
    // oxlint-disable-next-line no-control-regex
    /[\u0000-\u001f\u007f-\u009f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`
  )

const pretty = (hasColors: boolean) => ({ annotations, level, message, timestamp: at }: Line): string => {
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`
  const rest = Object.entries(annotations)
    .filter(([name]) => !known.has(name))
    .map(([name, value]) => ` ${name}=${escaped(textOf(value))}`)
    .join("")
  const [begin, dim, end] = hasColors ? [colors[level] ?? "\u001b[2m", "\u001b[2m", "\u001b[0m"] : ["", "", ""]
  return `${dim}${time}${end} ${begin}${level.padEnd(5)}${end} ${escaped(message)}${rest && `${dim}${rest}${end}`}`
}

const json = (line: Line): string => Formatter.formatJson(line)

/**
 * The end of a channel is logged by the channel, at error level, and told by the tool, with what to do about it: once is
 * enough.
 */
const isTwice = ({ annotations, level }: Line): boolean =>
  level === "ERROR" && annotations["package"] === "effect-lifeline" && "operation" in annotations

export const layer = (options: { readonly format: Format }) => {
  const render = options.format === "json" ? json : pretty(canColor(process.stderr))
  return Logger.layer([
    Logger.make<unknown, void>((all) => {
      const line = lineOf(all)
      if (!isTwice(line)) console.error(render(line))
    })
  ])
}
