/** What RFC 7638, 8037 and 9449 publish, and a way to make proofs that are wrong in one thing. */
import * as Effect from "effect/Effect"
import { SignJWT } from "jose"
import type { JWK, JWTPayload } from "jose"
import type { KeyPair } from "../../src/Proof.ts"

/** The key of all examples of RFC 9449. Its private half is not published. */
export const rfc9449Key = {
  kty: "EC",
  x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
  y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
  crv: "P-256"
}

export const rfc9449Thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"

/** Section 7.1, and its hash in `ath`. */
export const rfc9449Token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"

const header = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik" +
  "VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR" +
  "nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE" +
  "QSIsImNydiI6IlAtMjU2In19"

export interface Example {
  readonly section: string
  readonly method: string
  readonly url: string
  readonly token: string | undefined
  /** Seconds since 1970. */
  readonly iat: number
  readonly jti: string
  readonly proof: string
}

export const rfc9449: ReadonlyArray<Example> = [
  {
    section: "5, a token request",
    method: "POST",
    url: "https://server.example.com/token",
    token: undefined,
    iat: 1562262616,
    jti: "-BwC3ESc6acc2lTc",
    proof: `${header}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj` +
      "oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia" +
      "WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg" +
      "4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
  },
  {
    section: "5, a refresh",
    method: "POST",
    url: "https://server.example.com/token",
    token: undefined,
    iat: 1562265296,
    jti: "-BwC3ESc6acc2lTc",
    proof: `${header}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj` +
      "oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia" +
      "WF0IjoxNTYyMjY1Mjk2fQ.pAqut2IRDm_De6PR93SYmGBPXpwrAk90e8cP2hjiaG5Qs" +
      "GSuKDYW7_X620BxqhvYC8ynrrvZLTk41mSRroapUA"
  },
  {
    section: "7.1, with a token",
    method: "GET",
    url: "https://resource.example.org/protectedresource",
    token: rfc9449Token,
    iat: 1562262618,
    jti: "e1j3V_bKic8-LAEB",
    proof: `${header}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj` +
      "oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z" +
      "WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF" +
      "c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E" +
      "OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
  }
]

/** RFC 7638, 3.1. */
export const rfc7638 = {
  jwk: {
    kty: "RSA",
    n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o" +
      "knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu" +
      "6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8aw" +
      "apJzKnqDKgw",
    e: "AQAB",
    alg: "RS256",
    kid: "2011-04-29"
  },
  thumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
}

/** RFC 8037, appendices A.1 to A.3. */
export const rfc8037 = {
  jwk: { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
  d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
  thumbprint: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
}

/** A proof by `jose`, of whatever parts. */
export const byJose = (
  key: KeyPair,
  claims: JWTPayload,
  header: Readonly<Record<string, unknown>> = {}
): Effect.Effect<string> =>
  Effect.promise(() =>
    new SignJWT(claims)
      .setProtectedHeader({ typ: "dpop+jwt", alg: key.algorithm, jwk: { ...key.publicKey } as JWK, ...header })
      .sign(key.privateKey)
  )
