/** What proofs must do on each runtime. It runs twice, over one store: the second time is after a restart. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { EmbeddedJWK, jwtVerify } from "jose"
import * as Classify from "../../src/Classify.ts"
import * as Credential from "../../src/Credential.ts"
import * as KeyStore from "../../src/KeyStore.ts"
import * as Proof from "../../src/Proof.ts"
import { byJose, rfc7638, rfc8037, rfc9449, rfc9449Thumbprint } from "../support/proofs.ts"
import { cipher } from "./cipher.ts"

const url = "https://registry.example/a%20b/gr%C3%B6%C3%9Fe"
const token = Redacted.make("token")

const at = (seconds: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.provideService(
      effect,
      Clock.Clock,
      Object.assign(Object.create(clock), {
        currentTimeMillisUnsafe: () => seconds * 1000,
        currentTimeMillis: Effect.succeed(seconds * 1000)
      })
    ))

const outcome = <A>(effect: Effect.Effect<A, Proof.ProofRefused>) =>
  Effect.match(effect, { onFailure: ({ reason }) => reason._tag, onSuccess: () => "accepted" })

const plain = (headers: Proof.ProofHeaders) =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)]))

/** Every way in which a page or a program could try to read a private key. */
const readable = (key: CryptoKey) =>
  Effect.promise(async () => {
    const formats = ["jwk", "pkcs8", "raw"] as const
    const exported = await Promise.all(
      formats.map((format) => crypto.subtle.exportKey(format as "jwk", key).then(() => format, () => ""))
    )
    const cloned = structuredCloneOf(key)
    const copied = cloned === undefined
      ? ""
      : await crypto.subtle.exportKey("jwk", cloned).then(() => "clone", () => "")
    return [...exported, copied, ...("d" in JSON.parse(JSON.stringify(key)) ? ["json"] : [])].filter((way) =>
      way !== ""
    )
  })

/** Not every runtime clones keys. */
const structuredCloneOf = (key: CryptoKey): CryptoKey | undefined => {
  try {
    return structuredClone(key)
  } catch {
    return undefined
  }
}

const withKey = (algorithm: Proof.Algorithm) =>
  Effect.gen(function*() {
    const key = yield* KeyStore.getOrGenerate(`device-${algorithm}`, { algorithm })
    const replays = yield* Proof.makeReplays()
    const nonces = yield* Proof.makeNonces()
    const proof = yield* Proof.dpop({ key })
    const request = { method: "PUT", url, token }
    const nonce = yield* nonces.issue
    const { authorization = "", dpop = "" } = plain(yield* proof.headers({ ...request, nonce }))
    const verify = (
      headers: Proof.Received["headers"],
      options: Partial<Proof.VerifyOptions> = {},
      method = "PUT",
      at = url
    ) => outcome(Proof.verify({ method, url: at, headers }, { replays, thumbprint: key.thumbprint, ...options }))
    const claims = { jti: "1", htm: "PUT", htu: url, iat: Math.floor((yield* Clock.currentTimeMillis) / 1000) }
    const theirs = yield* byJose(key, claims)
    const thief = yield* Proof.generateKey({ algorithm })
    const { payload } = yield* Effect.promise(() =>
      jwtVerify(dpop, EmbeddedJWK, { typ: "dpop+jwt", algorithms: [algorithm] })
    )
    return {
      algorithm,
      thumbprint: key.thumbprint,
      readable: yield* readable(key.privateKey),
      htuByJose: payload["htu"],
      outcomes: [
        yield* verify({ authorization, dpop }, { nonces }),
        yield* verify({ authorization, dpop }),
        yield* verify({ dpop: theirs }),
        yield* verify({ dpop: yield* byJose(thief, { ...claims, jti: "2" }) }),
        yield* verify({ dpop: yield* byJose(thief, { ...claims, jti: "3" }, { jwk: { ...key.publicKey } }) }),
        yield* verify({ dpop: yield* byJose(key, { ...claims, jti: "4" }) }, {}, "POST"),
        yield* verify({ dpop: yield* byJose(key, { ...claims, jti: "5" }) }, {}, "PUT", `${url}/x`),
        yield* verify({ dpop: yield* byJose(key, { ...claims, jti: "6", iat: claims.iat - 100 }) }),
        yield* verify({ dpop: yield* byJose(key, { ...claims, jti: "7" }) }, { nonces }),
        yield* verify({ dpop: yield* byJose(key, { ...claims, jti: "8", nonce: "n" }) }, { nonces }),
        yield* verify({ dpop: [theirs, theirs] }),
        yield* verify({ authorization: "Bearer token" })
      ]
    }
  })

const closedLoop = Effect.gen(function*() {
  const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
  const proof = yield* Proof.closedLoop({ key, gatewayId: "gateway 1" })
  const headers = plain(yield* proof.headers({ method: "PUT", url: "https://a.example/größe 1?q=1" }))
  const signed = `PUT\n/gr%C3%B6%C3%9Fe%201\n${headers["x-desktop-timestamp"]}\ngateway 1`
  return yield* Effect.promise(async () => {
    const text = atob((headers["x-desktop-signature"] ?? "").replaceAll("-", "+").replaceAll("_", "/"))
    const signature = Uint8Array.from(text, (character) => character.charCodeAt(0))
    const publicKey = await crypto.subtle.importKey("jwk", { ...key.publicKey } as JsonWebKey, "Ed25519", true, [
      "verify"
    ])
    return crypto.subtle.verify("Ed25519", publicKey, signature, new TextEncoder().encode(signed))
  })
})

/** A token that is rejected, refused a refresh and revived; what was sent, and what the server's checks said of it. */
const ladder = Effect.gen(function*() {
  const key = yield* KeyStore.getOrGenerate("device-ES256", { algorithm: "ES256" })
  const proof = yield* Proof.dpop({ key })
  const replays = yield* Proof.makeReplays()
  const sent: Array<string> = []
  const send = (what: string, { authorize }: Credential.Authorizer) =>
    Effect.gen(function*() {
      const headers = plain((yield* authorize({ method: "PUT", url })).headers)
      const said = yield* outcome(
        Proof.verify({ method: "PUT", url, headers }, { replays, thumbprint: key.thumbprint })
      )
      sent.push(`${what} ${headers["authorization"] ?? "proof"} ${said}`)
      return headers["authorization"]
    })
  const refused = Classify.unauthorized({ operation: "beat", target: url })
  const credential = yield* Credential.make({
    provenance: { _tag: "Managed", proof },
    name: "lease",
    token: { value: Redacted.make("t1") },
    cipher,
    refresh: (context) => Effect.andThen(send("refresh", context), Effect.fail(refused)),
    revive: (context) => Effect.as(send("revive", context), { value: Redacted.make("t2"), jti: "2" })
  })
  yield* credential.discharge(
    Effect.flatMap(send("beat", credential), (shown) => shown === "DPoP t2" ? Effect.void : Effect.fail(refused))
  )
  return sent
}).pipe(Effect.scoped)

export const program = Effect.gen(function*() {
  const replays = yield* Proof.makeReplays()
  return {
    byDefault: (yield* Proof.generateKey()).algorithm,
    rfc9449: yield* Effect.forEach(rfc9449, ({ iat, method, proof, token, url }) =>
      outcome(Proof.verify(
        { method, url, headers: { dpop: proof, authorization: token === undefined ? undefined : `DPoP ${token}` } },
        { replays: { ...replays, seen: () => Effect.succeed(false) }, thumbprint: rfc9449Thumbprint }
      )).pipe(at(iat))),
    thumbprints: [yield* Proof.thumbprint(rfc7638.jwk), yield* Proof.thumbprint(rfc8037.jwk)],
    closedLoop: yield* closedLoop,
    keys: yield* Effect.forEach(["ES256", "EdDSA"] as const, withKey),
    ladder: yield* ladder
  }
})

export type Report = Effect.Success<typeof program>
