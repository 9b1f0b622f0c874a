/**
 * Public keys as JSON Web Keys: what of one counts, and its thumbprint (RFC 7638), which is what a token or a lease is bound
 * to.
 */
import * as Base64Url from "effect/encoding/Base64Url"

/** JOSE's names: ECDSA on P-256 with SHA-256, and Ed25519. */
export type Algorithm = "ES256" | "EdDSA"

/** A public key, and nothing but: P-256 has a `y`, Ed25519 does not. */
export interface PublicJwk {
  readonly kty: string
  readonly crv: string
  readonly x: string
  readonly y?: string | undefined
}

interface Kind {
  readonly kty: string
  readonly crv: string
  /** For `generateKey` and `importKey`. */
  readonly key: EcKeyAlgorithm | { readonly name: "Ed25519" }
  /** For `sign` and `verify`. */
  readonly signature: EcdsaParams | { readonly name: "Ed25519" }
}

export const kinds: Readonly<Record<Algorithm, Kind>> = {
  ES256: {
    kty: "EC",
    crv: "P-256",
    key: { name: "ECDSA", namedCurve: "P-256" },
    signature: { name: "ECDSA", hash: "SHA-256" }
  },
  EdDSA: { kty: "OKP", crv: "Ed25519", key: { name: "Ed25519" }, signature: { name: "Ed25519" } }
}

/** The members that make a key, in the order in which RFC 7638 hashes them. */
const required: Readonly<Record<string, ReadonlyArray<string>>> = {
  EC: ["crv", "kty", "x", "y"],
  OKP: ["crv", "kty", "x"],
  RSA: ["e", "kty", "n"]
}

/** Members of private and of symmetric keys. */
const secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"]

export const isPrivate = (jwk: object): boolean => secret.some((member) => member in jwk)

/** The members that make a key, all of them text; `undefined` where one is missing. */
const membersOf = (jwk: Readonly<Record<string, unknown>>): Readonly<Record<string, string>> | undefined => {
  const names = typeof jwk["kty"] === "string" ? required[jwk["kty"]] : undefined
  const members = (names ?? []).flatMap((name) => {
    const value = jwk[name]
    return typeof value === "string" ? [[name, value] as const] : []
  })
  return names === undefined || members.length < names.length ? undefined : Object.fromEntries(members)
}

/** What of a key counts; `undefined` where it is none for this algorithm. */
export const publicJwk = (algorithm: Algorithm, jwk: Readonly<Record<string, unknown>>): PublicJwk | undefined => {
  const { crv, kty } = kinds[algorithm]
  const members = membersOf(jwk)
  return members?.["kty"] === kty && members["crv"] === crv
    ? { kty, crv, x: members["x"] ?? "", ...(members["y"] === undefined ? {} : { y: members["y"] }) }
    : undefined
}

const encoder = new TextEncoder()

export const sha256 = async (subtle: SubtleCrypto, text: string): Promise<string> =>
  Base64Url.encode(new Uint8Array(await subtle.digest("SHA-256", encoder.encode(text))))

/** RFC 7638, with SHA-256. `undefined` where it is no public key of a known kind. */
export const thumbprint = async (
  subtle: SubtleCrypto,
  jwk: Readonly<Record<string, unknown>>
): Promise<string | undefined> => {
  const members = membersOf(jwk)
  return members === undefined ? undefined : sha256(subtle, JSON.stringify(members))
}

/** Imports what {@link publicJwk} gave, to verify with. */
export const importPublic = (subtle: SubtleCrypto, algorithm: Algorithm, jwk: PublicJwk): Promise<CryptoKey> =>
  subtle.importKey("jwk", { ...jwk } as JsonWebKey, kinds[algorithm].key, false, ["verify"])
