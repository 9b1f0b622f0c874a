/** `HOST[:PORT]` as people write it, with IPv6 addresses in brackets or, without a port, bare. */
import * as Result from "effect/Result"
import { isIPv6 } from "node:net"

export interface Address {
  readonly host: string
  readonly port: number | undefined
}

const form = "write HOST or HOST:PORT, e.g. bore.example, bore.example:7835 or [::1]:7835"

/** A failure says what is wrong, and shows nothing of what was given: it may hold a password. */
export const parse = (text: string): Result.Result<Address, string> => {
  if (text.includes("://")) return Result.fail(`is a URL: ${form}`)
  if (text.includes("@")) return Result.fail(`has a user name, which bore does not know: ${form}`)
  if (isIPv6(text)) return Result.succeed({ host: text, port: undefined })
  const [, bracketed, name, port] = /^(?:\[(.+)\]|([^\s:[\]/?#]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? name
  if (host === undefined || (bracketed !== undefined && !isIPv6(bracketed))) {
    return Result.fail(`is not an address: ${form}`)
  }
  if (port === undefined) return Result.succeed({ host, port: undefined })
  const number = Number(port)
  return number >= 1 && number <= 65535
    ? Result.succeed({ host, port: number })
    : Result.fail("has a port that is none: ports are 1 to 65535")
}

/** The reverse, for people. */
export const show = (host: string, port: number): string => `${host.includes(":") ? `[${host}]` : host}:${port}`
