/** How the tool ends: the exit codes, and which end has which. */
import * as Data from "effect/Data"
import * as Runtime from "effect/Runtime"
import type { Disconnected } from "../../ControlChannel.ts"
import type { AuthFailed, NoProgress, Refused } from "../../LifelineError.ts"

export const codes = {
  clean: 0,
  unexpected: 1,
  usage: 2,
  auth: 3,
  refused: 4,
  noProgress: 5,
  unreachable: 6
} as const

/** For the help and the pages: what each code means. */
export const table: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["0", "ended as it should: --help, --version, a lost connection with --no-reconnect"],
  ["1", "something unexpected, e.g. a package is missing"],
  ["2", "the command line is not understood"],
  ["3", "the secret: not accepted, missing, or not asked for (is it the right server?)"],
  ["4", "the server does not give the port"],
  ["5", "connections are made and carry nothing: it may not be a server of bore"],
  ["6", "with --no-reconnect: there was no connection at all"],
  ["N", "with --exit-code-on-disconnect N: the connection was lost"],
  ["130, 143", "ended by Ctrl-C (SIGINT), by SIGTERM: the process ends by the signal, a shell shows these"]
]

/** How a tunnel ends, unless a signal ends it. */
export type Ended = AuthFailed | Refused | NoProgress | Disconnected

/** Why the tool ends, for its last line, and with which code. */
export interface End {
  readonly code: number
  readonly message: string
}

/** A command has ended, and has said why: what is left is the exit code. */
export class Exit extends Data.TaggedError("Exit")<{ readonly code: number }> {
  override readonly [Runtime.errorExitCode] = this.code
}

const giveSecret = "Set LIFELINE_SECRET (or BORE_SECRET) to the secret of the server"

const says = (detail: string | undefined) => detail === undefined ? "" : ` (it says: ${detail})`

const auth = (error: AuthFailed, at: string): string => {
  const { reason } = error
  switch (reason._tag) {
    case "CredentialMissing":
      return `${at} asks for a secret, and there is none. ${giveSecret}`
    case "NotChallenged":
      return `${at} does not ask for a secret, so it may be the wrong server; the secret was not used. ` +
        "Check --to, or leave the secret away: unset LIFELINE_SECRET and BORE_SECRET"
    case "Unauthorized":
      return `${at} does not accept the secret${says(reason.detail)}. ${giveSecret}`
    default:
      return `${error.message}. ${giveSecret}`
  }
}

const refused = (error: Refused, at: string, port: number): string =>
  error.reason._tag === "Conflict"
    ? `${at} does not give ${port === 0 ? "a port" : `port ${port}`}${says(error.reason.detail)}. ` +
      (port === 0 ? "Ask who runs it" : "Ask for another with --port, or leave it away for any that is free")
    : error.message

const why = (last: Disconnected["last"]): string =>
  last._tag === "Transient" ? last.reason.message : last.detail ?? "for an unclear reason"

/** What ended, in words of the command line. */
export const endOf = (error: Ended, options: {
  readonly at: string
  readonly port: number
  readonly onDisconnect: number
}): End => {
  const { at } = options
  switch (error._tag) {
    case "AuthFailed":
      return { code: codes.auth, message: auth(error, at) }
    case "Refused":
      return { code: codes.refused, message: refused(error, at, options.port) }
    case "NoProgress":
      return {
        code: codes.noProgress,
        message: `${error.connections} connections in a row to ${at} carried nothing${
          error.last === undefined ? "" : `; the last one: ${why(error.last)}`
        }. Check that --to is a server of bore, and look into its log`
      }
    case "Disconnected":
      return error.session
        ? { code: options.onDisconnect, message: `the connection to ${at} was lost: ${why(error.last)}` }
        : { code: codes.unreachable, message: `no connection to ${at}: ${why(error.last)}` }
  }
}
