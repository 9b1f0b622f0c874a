/** What a server says of a proof, in `WWW-Authenticate` (RFC 9110, 11.6.1; RFC 9449, 7.1 and 9). */

/** A token, and its value where it is a parameter; without one it is a scheme. */
const item = /([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/g

export interface Challenge {
  readonly error: string | undefined
  readonly description: string | undefined
}

/** The challenge of the scheme DPoP, among those that there are. */
export const read = (header: string | undefined): Challenge | undefined => {
  let parameters: Map<string, string> | undefined
  let inside = false
  for (const [, name = "", quoted, bare] of (header ?? "").matchAll(item)) {
    const value = quoted?.replace(/\\(.)/g, "$1") ?? bare
    if (value === undefined) {
      inside = name.toLowerCase() === "dpop"
      if (inside) parameters = new Map()
    } else if (inside) {
      parameters?.set(name.toLowerCase(), value)
    }
  }
  return parameters && { error: parameters.get("error"), description: parameters.get("error_description") }
}
