/** The commands and flags of the tool, and what its help says of them. What a command then does is in a module of its own. */
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Bore from "../../Bore.ts"
import * as Address from "./address.ts"
import * as Exits from "./exits.ts"
import * as Tunnel from "./tunnel.ts"

/** Under which name the tool is installed. */
export const name = "lifeline"

const wrong = (message: string) => Effect.fail(new CliError.ValidationError({ message }))

/** Numbers are read here and not by the flags, whose words for what is none are those of a schema. */
const integer = (what: string, least: number, most: number) => (text: string) => {
  const value = /^\d+$/.test(text) ? Number(text) : NaN
  return value >= least && value <= most
    ? Effect.succeed(value)
    : wrong(`${what}: ${JSON.stringify(text)} is not a whole number from ${least} to ${most}`)
}

const localPort = Argument.String("local-port").pipe(
  Argument.withMetavar("N"),
  Argument.withDescription("The port of the local service (required) [env: BORE_LOCAL_PORT]"),
  Argument.withFallbackConfig(Config.String("BORE_LOCAL_PORT")),
  Argument.mapEffect(integer("<local-port>", 1, 65535))
)

const to = Flag.String("to").pipe(
  Flag.withAlias("t"),
  Flag.withMetavar("HOST[:PORT]"),
  Flag.withDescription(
    `The server of bore (required), on port ${Bore.port} unless given [env: BORE_SERVER]`
  ),
  Flag.withFallbackConfig(Config.String("BORE_SERVER")),
  Flag.mapEffect((text) => {
    const address = Address.parse(text)
    return Result.isSuccess(address)
      ? Effect.succeed({ host: address.success.host, port: address.success.port ?? Bore.port })
      : wrong(`--to ${address.failure}`)
  })
)

const port = Flag.String("port").pipe(
  Flag.withAlias("p"),
  Flag.withMetavar("N"),
  Flag.withDescription("The port of the server to ask for [default: any that is free]"),
  Flag.withDefault("0"),
  Flag.mapEffect(integer("--port", 0, 65535))
)

const localHost = Flag.String("local-host").pipe(
  Flag.withAlias("l"),
  Flag.withMetavar("HOST"),
  Flag.withDescription("Where the local service is [default: localhost]"),
  Flag.withDefault("localhost"),
  Flag.mapEffect((text) => {
    const address = Address.parse(text)
    return Result.isSuccess(address) && address.success.port === undefined
      ? Effect.succeed(address.success.host)
      : wrong(
        `--local-host ${Result.isFailure(address) ? address.failure : "has a port, which is the <local-port> instead"}`
      )
  })
)

const secret = Flag.Redacted("secret").pipe(
  Flag.withAlias("s"),
  Flag.withMetavar("SECRET"),
  Flag.withDescription(
    "Its secret; others see this in the list of processes (ps): better set LIFELINE_SECRET"
  ),
  Flag.optional
)

/** An empty variable is one that is not set. */
const secretOfEnvironment = Config.option(
  Config.Redacted("LIFELINE_SECRET").pipe(Config.orElse(() => Config.Redacted("BORE_SECRET")))
)

const noReconnect = Flag.Boolean("no-reconnect").pipe(
  Flag.withoutNegation,
  Flag.withDescription("Ends when the connection is lost, so that a supervisor can start it anew"),
  Flag.withDefault(false)
)

const maxReconnectDelay = Flag.String("max-reconnect-delay").pipe(
  Flag.withMetavar("SECONDS"),
  Flag.withDescription("The longest wait before the next attempt, at least 1 [default: 64]"),
  Flag.mapEffect((text) => {
    const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN
    return seconds >= 1 && seconds <= 86_400
      ? Effect.succeed(seconds)
      : wrong(
        `--max-reconnect-delay: ${JSON.stringify(text)} is not a number from 1 to 86400 (seconds). ` +
          "It is the longest wait before the next attempt; to make no further attempt there is --no-reconnect"
      )
  }),
  Flag.optional
)

const exitCodeOnDisconnect = Flag.String("exit-code-on-disconnect").pipe(
  Flag.withMetavar("N"),
  Flag.withDescription("With --no-reconnect: the exit code when the connection is lost [default: 0]"),
  Flag.mapEffect(integer("--exit-code-on-disconnect", 0, 255)),
  Flag.optional
)

const logFormat = Flag.Literals("log-format", ["pretty", "json"]).pipe(
  Flag.withMetavar("FORMAT"),
  Flag.withDescription("How to log [default: pretty]"),
  Flag.withDefault("pretty")
)

const tunnel = Command.make("tunnel", {
  localPort,
  to,
  port,
  secret,
  localHost,
  noReconnect,
  maxReconnectDelay,
  exitCodeOnDisconnect,
  logFormat
}, (input) =>
  Effect.gen(function*() {
    const secret = Option.isSome(input.secret) ? input.secret : yield* Effect.orDie(secretOfEnvironment)
    return yield* Tunnel.run({
      to: input.to,
      local: { host: input.localHost, port: input.localPort },
      port: input.port,
      secret: Option.getOrUndefined(secret),
      reconnect: !input.noReconnect,
      maxReconnectDelay: Option.getOrUndefined(input.maxReconnectDelay),
      exitCodeOnDisconnect: Option.getOrElse(input.exitCodeOnDisconnect, () => Exits.codes.clean),
      logFormat: input.logFormat
    })
  })).pipe(
    Command.validate((input) => {
      if (Option.isSome(input.secret) && Redacted.value(input.secret.value) === "") return wrong("--secret is empty")
      if (Option.isSome(input.exitCodeOnDisconnect) && !input.noReconnect) {
        return wrong("--exit-code-on-disconnect goes with --no-reconnect: without it a lost connection is made anew")
      }
      return Option.isSome(input.maxReconnectDelay) && input.noReconnect
        ? wrong("--max-reconnect-delay and --no-reconnect exclude each other")
        : Effect.void
    }),
    Command.withDescription(
      [
        "Makes a local port reachable through a server of bore (https://github.com/ekzhang/bore), and",
        "keeps it so: a connection that is lost is made anew, and the same port asked for.",
        "",
        "Prints \"listening at HOST:PORT\" on the standard output, again whenever the port changes.",
        "All else goes to the standard error output."
      ].join("\n  ")
    ),
    Command.withShortDescription("Makes a local port reachable through a server of bore"),
    Command.withExamples([
      { command: `${name} tunnel 3000 --to bore.example`, description: "localhost:3000, on any port of bore.example" },
      {
        command: `LIFELINE_SECRET=... ${name} tunnel 22 --to bore.example --port 2222 --local-host 192.168.0.7`,
        description: "Another machine's, on a given port of a server that wants a secret"
      },
      {
        command: `${name} tunnel 3000 --to bore.example --no-reconnect --exit-code-on-disconnect 75`,
        description: "Under a supervisor that restarts what ends with a failure"
      }
    ])
  )

export const command = Command.make(name).pipe(
  Command.withDescription("Tools for programs that stay registered, alive and connected."),
  Command.withSubcommands([tunnel])
)

/** What the help of `tunnel` has beside that of its flags. */
export const footer: string = [
  "ENVIRONMENT",
  "  LIFELINE_SECRET, BORE_SECRET    The secret, in this order; --secret comes first",
  "  BORE_SERVER, BORE_LOCAL_PORT    As --to and <local-port>, where those are not given",
  "  NO_COLOR                        No colors",
  "",
  "EXIT CODES",
  ...Exits.table.map(([code, meaning]) => `  ${code.padEnd(12)}${meaning}`)
].join("\n")
