/**
 * Who may use the embedded registry.
 */
import type * as Headers from "effect/http/Headers"
import * as Redacted from "effect/Redacted"
import { apiKeyHeader } from "../../internal/pulseRoutes.ts"

const encoder = /*#__PURE__*/ new TextEncoder()

/** Takes as long for a wrong text as for the right one: the time depends on the length of `given` only. */
const sameAs = (expected: string): (given: string) => boolean => {
  const key = encoder.encode(expected)
  return (given) => {
    const bytes = encoder.encode(given)
    let difference = bytes.length ^ key.length
    for (let i = 0; i < bytes.length; i++) {
      difference |= (bytes[i] ?? 0) ^ (key[i % key.length] ?? 0)
    }
    return difference === 0
  }
}

export interface Options {
  readonly apiKey?: Redacted.Redacted | undefined
  readonly trustSameOrigin?: boolean | undefined
  readonly allowedOrigins?: ReadonlyArray<string> | undefined
}

/** Not every browser says `Sec-Fetch-Site` of a WebSocket, but each says `Origin`. A program says neither. */
const isOwn = (site: string | undefined, headers: Headers.Headers): boolean => {
  if (site !== undefined) return site === "none" || site === "same-origin"
  const origin = headers["origin"]
  return origin === undefined || (headers["host"] !== undefined && URL.parse(origin)?.host === headers["host"])
}

/**
 * With a key: who shows it, and pages of the registry's own origin. Without one: everybody except pages of other origins,
 * which would otherwise reach a registry on the loopback interface through any browser that runs beside it. A page whose
 * name was rebound to the registry's address counts as of its own origin: the registry does not know its own names.
 */
export const make = (options: Options | undefined): (headers: Headers.Headers) => boolean => {
  const key = options?.apiKey === undefined ? "" : Redacted.value(options.apiKey)
  const trustSameOrigin = options?.trustSameOrigin ?? true
  const origins = new Set(options?.allowedOrigins)
  const isKey = sameAs(key)
  return (headers) => {
    const site = headers["sec-fetch-site"]
    if (trustSameOrigin && site === "same-origin") return true
    if (key !== "") return isKey(headers[apiKeyHeader] ?? "")
    return isOwn(site, headers) || origins.has(headers["origin"] ?? "")
  }
}
