// The server's side: what RFC 9449 publishes, what jose makes, and everything that is wrong with a proof.
import { assert, describe, it } from "@effect/vitest"
import * as Proof from "effect-lifeline/Proof"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import { exportJWK, generateKeyPair } from "jose"
import { createHash } from "node:crypto"
import { byJose, rfc7638, rfc8037, rfc9449, rfc9449Key, rfc9449Thumbprint } from "./support/proofs.ts"

const url = "https://registry.example/api/v1/services/7/heartbeat"
const now = 1_800_000_000
const token = "token-of-the-lease"
const athOf = (text: string) => createHash("sha256").update(text).digest("base64url")

const claims = { jti: "b6Zc7Fw2hO0", htm: "PUT", htu: url, iat: now, ath: athOf(token) }

const part = (value: unknown) => Base64Url.encode(JSON.stringify(value))

const request = (
  proof: string | ReadonlyArray<string> | undefined,
  authorization: string | undefined = `DPoP ${token}`
) => ({
  method: "PUT",
  url,
  headers: { authorization, dpop: proof }
})

const make = Effect.gen(function*() {
  yield* TestClock.setTime(now * 1000)
  return {
    key: yield* Proof.generateKey({ algorithm: "ES256", extractable: true }),
    replays: yield* Proof.makeReplays()
  }
})

const reasonOf = <A>(effect: Effect.Effect<A, Proof.ProofRefused>) =>
  Effect.match(effect, { onFailure: ({ reason }) => reason._tag, onSuccess: () => "accepted" })

describe("Proof.verify", () => {
  for (const example of rfc9449) {
    it.effect(`RFC 9449, section ${example.section}`, () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(example.iat * 1000)
        const replays = yield* Proof.makeReplays()
        const { method, proof, url } = example
        const authorization = example.token === undefined ? undefined : `DPoP ${example.token}`
        const received = { method, url, headers: { dpop: proof, authorization } }
        const verified = yield* Proof.verify(received, { replays, thumbprint: rfc9449Thumbprint })
        assert.deepStrictEqual({ ...verified, token: verified.token && Redacted.value(verified.token) }, {
          algorithm: "ES256",
          publicKey: rfc9449Key,
          thumbprint: rfc9449Thumbprint,
          jti: example.jti,
          issuedAt: example.iat * 1000,
          nonce: undefined,
          token: example.token
        })
        assert.strictEqual(yield* reasonOf(Proof.verify(received, { replays })), "Replayed")
      }))
  }

  it.effect("the thumbprints that RFC 7638, 8037 and 9449 publish", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Proof.thumbprint(rfc7638.jwk), rfc7638.thumbprint)
      assert.strictEqual(yield* Proof.thumbprint(rfc8037.jwk), rfc8037.thumbprint)
      assert.strictEqual(yield* Proof.thumbprint({ ...rfc8037.jwk, d: rfc8037.d }), rfc8037.thumbprint)
      assert.strictEqual(yield* Proof.thumbprint(rfc9449Key), rfc9449Thumbprint)
      const error = yield* Effect.flip(Proof.thumbprint({ kty: "EC", crv: "P-256", x: "a" }))
      assert.strictEqual(error.reason._tag, "InvalidKey")
    }))

  for (const alg of ["ES256", "EdDSA", "Ed25519"] as const) {
    it.effect(`a proof that jose made is accepted (${alg})`, () =>
      Effect.gen(function*() {
        const { replays } = yield* make
        const algorithm = alg === "ES256" ? "ES256" : "EdDSA"
        const pair = yield* Effect.promise(() => generateKeyPair(alg, { extractable: true }))
        const jwk = yield* Effect.promise(() => exportJWK(pair.publicKey))
        const key = yield* Proof.fromCryptoKeys(pair)
        const verified = yield* Proof.verify(request(yield* byJose(key, claims, { alg, jwk })), {
          replays,
          thumbprint: key.thumbprint
        })
        assert.strictEqual(verified.algorithm, algorithm)
        assert.strictEqual(verified.thumbprint, key.thumbprint)
        assert.strictEqual(verified.token && Redacted.value(verified.token), token)
      }))
  }

  it.effect.each<readonly [what: string, reason: string, change: Readonly<Record<string, unknown>>]>([
    ["no jti", "MissingClaim", { jti: undefined }],
    ["a jti that is no text", "MissingClaim", { jti: 7 }],
    ["a jti that is too long to remember", "MissingClaim", { jti: "j".repeat(257) }],
    ["no htm", "MissingClaim", { htm: undefined }],
    ["no htu", "MissingClaim", { htu: undefined }],
    ["no iat", "MissingClaim", { iat: undefined }],
    ["no ath beside a token", "MissingClaim", { ath: undefined }],
    ["another method", "WrongMethod", { htm: "POST" }],
    ["a method in lower case", "WrongMethod", { htm: "put" }],
    ["another host", "WrongUrl", { htu: "https://other.example/api/v1/services/7/heartbeat" }],
    ["another path", "WrongUrl", { htu: "https://registry.example/api/v1/services/8/heartbeat" }],
    ["another scheme", "WrongUrl", { htu: url.replace("https", "http") }],
    ["another port", "WrongUrl", { htu: url.replace(".example", ".example:8443") }],
    ["a slash more", "WrongUrl", { htu: `${url}/` }],
    ["a path in another case", "WrongUrl", { htu: url.replace("services", "Services") }],
    ["an escaped slash", "WrongUrl", { htu: url.replace("services/7", "services%2F7") }],
    ["no URL at all", "WrongUrl", { htu: "registry" }],
    ["a query, which does not count", "accepted", { htu: `${url}?a=1#b` }],
    ["another spelling of the URL", "accepted", {
      htu: "HTTPS://REGISTRY.example:443/api/v1/%73ervices/x/../7/heartbeat"
    }],
    ["60 s old", "accepted", { iat: now - 60 }],
    ["61 s old", "WrongTime", { iat: now - 61 }],
    ["60 s in the future", "accepted", { iat: now + 60 }],
    ["61 s in the future", "WrongTime", { iat: now + 61 }],
    ["in milliseconds", "WrongTime", { iat: now * 1000 }],
    ["another token", "WrongToken", { ath: athOf("another") }],
    ["the hash of a token in hexadecimal", "WrongToken", { ath: createHash("sha256").update(token).digest("hex") }],
    ["a nonce that nobody asked for", "accepted", { nonce: "n" }]
  ])("%s: %s", ([, reason, change]) =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, { ...claims, ...change })
      const outcome = yield* reasonOf(Proof.verify(request(proof), { replays, thumbprint: key.thumbprint }))
      assert.strictEqual(outcome, reason)
      assert.strictEqual(yield* replays.size, reason === "accepted" ? 1 : 0)
    }))

  it.effect.each<readonly [what: string, reason: string, change: Readonly<Record<string, unknown>>]>([
    ["typ JWT", "MalformedProof", { typ: "JWT" }],
    ["typ in capitals", "accepted", { typ: "DPoP+JWT" }],
    ["no typ", "MalformedProof", { typ: undefined }],
    ["no jwk", "MalformedProof", { jwk: undefined }],
    ["a jwk that is text", "MalformedProof", { jwk: "key" }],
    ["a jwk of another kind", "MalformedProof", { jwk: rfc8037.jwk }],
    ["a jwk without y", "MalformedProof", { jwk: { kty: "EC", crv: "P-256", x: rfc9449Key.x } }],
    ["a point that is not on the curve", "MalformedProof", { jwk: { ...rfc9449Key, y: rfc9449Key.x } }],
    ["the key of somebody else", "BadSignature", { jwk: rfc9449Key }]
  ])("header, %s: %s", ([, reason, change]) =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, claims, change)
      const outcome = yield* reasonOf(Proof.verify(request(proof), { replays, thumbprint: key.thumbprint }))
      assert.strictEqual(outcome, reason)
    }))

  it.effect("critical extensions, which nobody understands", () =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, claims)
      const [, payload, signature] = proof.split(".")
      const header = part({ typ: "dpop+jwt", alg: "ES256", jwk: key.publicKey, crit: ["x"], x: 1 })
      const outcome = yield* reasonOf(Proof.verify(request(`${header}.${payload}.${signature}`), { replays }))
      assert.strictEqual(outcome, "MalformedProof")
    }))

  it.effect.each(["none", "HS256", "RS256", "ES384", "", 7])("alg %s", (alg) =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const header = part({ typ: "dpop+jwt", alg, jwk: key.publicKey })
      const outcome = yield* reasonOf(Proof.verify(request(`${header}.${part(claims)}.`), { replays }))
      assert.strictEqual(outcome, typeof alg === "string" && alg !== "" ? "UnsupportedAlgorithm" : "MalformedProof")
    }))

  it.effect("an algorithm that this server does not list", () =>
    Effect.gen(function*() {
      const { replays } = yield* make
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const proof = yield* byJose(key, claims)
      const outcome = yield* reasonOf(Proof.verify(request(proof), { replays, algorithms: ["ES256"] }))
      assert.strictEqual(outcome, "UnsupportedAlgorithm")
    }))

  it.effect.each(["d", "p", "k"])("a jwk that shows a private key (%s)", (member) =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const jwk = yield* Effect.promise(() => exportJWK(key.privateKey))
      const proof = yield* byJose(key, claims, { jwk: { ...key.publicKey, [member]: jwk.d } })
      const refused = yield* Effect.flip(Proof.verify(request(proof), { replays }))
      assert.strictEqual(refused.reason._tag, "PrivateKeyInProof")
      assert.notInclude(JSON.stringify(refused), String(jwk.d))
    }))

  it.effect.each<
    readonly [what: string, reason: string, change: (proof: string) => string | ReadonlyArray<string> | undefined]
  >([
    ["no header", "MissingProof", () => undefined],
    ["no value", "MissingProof", () => []],
    ["an empty one", "MalformedProof", () => ""],
    ["two headers", "RepeatedProof", (proof) => [proof, proof]],
    ["two headers, joined", "RepeatedProof", (proof) => `${proof}, ${proof}`],
    ["two headers, joined, in an array", "RepeatedProof", (proof) => [`${proof}, ${proof}`]],
    ["one, as Node's distinct headers have it", "accepted", (proof) => [proof]],
    ["spaces around it", "accepted", (proof) => ` ${proof} `],
    ["two parts", "MalformedProof", (proof) => proof.split(".").slice(0, 2).join(".")],
    ["four parts", "MalformedProof", (proof) => `${proof}.a`],
    ["padding", "MalformedProof", (proof) => `${proof}=`],
    ["no JSON", "MalformedProof", (proof) => proof.replace(/^\w+/, Base64Url.encode("{"))],
    ["an array", "MalformedProof", (proof) => proof.replace(/\.\w+\./, `.${part([])}.`)],
    [
      "bytes that are no UTF-8",
      "MalformedProof",
      (proof) => proof.replace(/^\w+/, Base64Url.encode(Uint8Array.of(255)))
    ],
    ["too long", "MalformedProof", (proof) => proof + "a".repeat(8192)],
    [
      "an altered payload",
      "BadSignature",
      (proof) => proof.replace(/\.[\w-]+\./, `.${part({ ...claims, jti: "x" })}.`)
    ],
    ["a signature cut short", "BadSignature", (proof) => proof.slice(0, -4)],
    ["no signature", "BadSignature", (proof) => proof.replace(/[\w-]+$/, "")]
  ])("%s: %s", ([, reason, change]) =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, claims)
      const outcome = yield* reasonOf(Proof.verify(request(change(proof)), { replays }))
      assert.strictEqual(outcome, reason)
    }))

  it.effect("a proof of another key than the token is bound to", () =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const thief = yield* Proof.generateKey()
      const refused = yield* Effect.flip(
        Proof.verify(request(yield* byJose(thief, claims)), { replays, thumbprint: key.thumbprint })
      )
      assert.deepStrictEqual(refused.reason, new Proof.WrongKey({ thumbprint: thief.thumbprint }))
      assert.strictEqual(yield* replays.size, 0)
    }))

  it.effect("a bound token as a bearer token, with and without a proof", () =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, claims)
      const bearer = `Bearer ${token}`
      const bound = { replays, thumbprint: key.thumbprint }
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof, bearer), bound)), "BearerDowngrade")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(undefined, bearer), bound)), "BearerDowngrade")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(undefined, `bearer ${token}`), bound)), "BearerDowngrade")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof, bearer), { replays })), "BearerDowngrade")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(undefined, bearer), { replays })), "MissingProof")
    }))

  it.effect("one proof is accepted once per URL; of many at the same time, one", () =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, claims)
      const outcomes = yield* Effect.all(
        Array.from({ length: 5 }, () => reasonOf(Proof.verify(request(proof), { replays }))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(outcomes.toSorted(), ["Replayed", "Replayed", "Replayed", "Replayed", "accepted"])
      const elsewhere = yield* byJose(key, { ...claims, htu: "https://registry.example/other" })
      const other = { ...request(elsewhere), url: "https://registry.example/other" }
      assert.strictEqual(yield* reasonOf(Proof.verify(other, { replays })), "accepted")
      // Until it is too old.
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays })), "Replayed")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays })), "WrongTime")
    }))

  it.effect("where another process accepts it meanwhile, what remembers proofs decides", () =>
    Effect.gen(function*() {
      const { key } = yield* make
      const proof = yield* byJose(key, claims)
      const asked: Array<readonly [string, number]> = []
      const replays: Proof.Replays = {
        seen: () => Effect.succeed(false),
        add: (id, until) =>
          Effect.sync(() => {
            asked.push([id, until])
            return "seen"
          })
      }
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays })), "Replayed")
      assert.deepStrictEqual(asked, [[`${url} ${claims.jti}`, (now + 61) * 1000]])
    }))

  it.effect("a proof from the future is remembered for as long as it would be accepted", () =>
    Effect.gen(function*() {
      const { key, replays } = yield* make
      const proof = yield* byJose(key, { ...claims, iat: now + 60 })
      yield* Proof.verify(request(proof), { replays })
      for (let seconds = 0; seconds < 120; seconds += 10) {
        yield* Proof.verify(request(yield* byJose(key, { ...claims, jti: `${seconds}`, iat: now + seconds })), {
          replays
        })
        assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays })), "Replayed")
        yield* TestClock.adjust("10 seconds")
      }
      assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays })), "Replayed")
    }))

  it.effect("when there is no room, proofs are refused until there is", () =>
    Effect.gen(function*() {
      const { key } = yield* make
      const replays = yield* Proof.makeReplays({ capacity: 3 })
      const send = (jti: string, iat = now) =>
        Effect.flatMap(byJose(key, { ...claims, jti, iat }), (proof) =>
          reasonOf(Proof.verify(request(proof), { replays })))
      assert.deepStrictEqual(
        yield* Effect.forEach(["1", "2", "3", "4"], (jti) =>
          send(jti)),
        [
          "accepted",
          "accepted",
          "accepted",
          "ReplaysFull"
        ]
      )
      assert.strictEqual(yield* send("2"), "Replayed")
      yield* TestClock.adjust("3 minutes")
      assert.strictEqual(yield* send("5", now + 180), "accepted")
    }))

  describe("nonces", () => {
    it.effect("one is wanted, one of ours, and not too old", () =>
      Effect.gen(function*() {
        const { key, replays } = yield* make
        const nonces = yield* Proof.makeNonces()
        const send = (jti: string, nonce: string | undefined) =>
          Effect.flatMap(
            byJose(key, { ...claims, jti, nonce }),
            (proof) => Effect.result(Proof.verify(request(proof), { replays, nonces }))
          )
        const none = yield* send("1", undefined)
        assert.deepInclude(none, {
          failure: new Proof.ProofRefused({ reason: new Proof.NonceRequired({ had: "none" }) })
        })
        const another = { failure: new Proof.ProofRefused({ reason: new Proof.NonceRequired({ had: "another" }) }) }
        assert.deepInclude(yield* send("2", "made-up"), another)
        const theirs = yield* (yield* Proof.makeNonces()).issue
        assert.deepInclude(yield* send("3", theirs), another)
        const nonce = yield* nonces.issue
        assert.strictEqual((yield* send("4", nonce))._tag, "Success")
        assert.strictEqual(yield* nonces.issue, nonce)
        yield* TestClock.adjust("1 minute")
        assert.notStrictEqual(yield* nonces.issue, nonce)
        yield* TestClock.adjust("4 minutes")
        assert.strictEqual((yield* send("5", nonce))._tag, "Success")
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* send("6", nonce), another)
      }))

    it.effect("a device whose clock is ten minutes wrong gets in, once per proof", () =>
      Effect.gen(function*() {
        const { key, replays } = yield* make
        const nonces = yield* Proof.makeNonces()
        for (const [jti, iat] of [["slow", now - 600], ["fast", now + 600]] as const) {
          const proof = yield* byJose(key, { ...claims, jti, iat, nonce: yield* nonces.issue })
          assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays, nonces })), "accepted")
          yield* TestClock.adjust("4 minutes")
          assert.strictEqual(yield* reasonOf(Proof.verify(request(proof), { replays, nonces })), "Replayed")
        }
      }))

    it.effect("are understood by every process that has the secret", () =>
      Effect.gen(function*() {
        const secret = Redacted.make(new Uint8Array(32).fill(7))
        const one = yield* Proof.makeNonces({ secret })
        const other = yield* Proof.makeNonces({ secret })
        const nonce = yield* one.issue
        assert.isTrue(yield* other.check(nonce))
        assert.isFalse(yield* other.check(nonce.replace(/^./, (first) => first === "A" ? "B" : "A")))
        assert.isFalse(yield* other.check(`${nonce.slice(0, -2)}AA`))
        assert.isFalse(yield* other.check(""))
      }))
  })

  it.effect("what to answer", () =>
    Effect.gen(function*() {
      const nonce = "n-1"
      const algs = "algs=\"ES256 EdDSA\""
      const header = (reason: Proof.Refusal) =>
        Proof.challenge(new Proof.ProofRefused({ reason }), nonce).headers["www-authenticate"]
      assert.strictEqual(
        header(new Proof.NonceRequired({ had: "none" })),
        `DPoP error="use_dpop_nonce", error_description="the proof has no nonce", ${algs}`
      )
      assert.match(String(header(new Proof.WrongKey({ thumbprint: "t" }))), /^DPoP error="invalid_dpop_proof"/)
      assert.match(String(header(new Proof.BearerDowngrade())), /^DPoP error="invalid_dpop_proof"/)
      assert.match(String(header(new Proof.Replayed())), /^DPoP error="invalid_dpop_proof"/)
      assert.strictEqual(
        header(new Proof.UnsupportedAlgorithm({ algorithm: "\", x=\"\r\n", allowed: ["ES256"] })),
        `DPoP error="invalid_dpop_proof", error_description="the proof is signed with ?, x????; allowed are ES256", ${algs}`
      )
      assert.deepStrictEqual(Proof.challenge(new Proof.ProofRefused({ reason: new Proof.ReplaysFull() }), nonce), {
        status: 503,
        headers: { "dpop-nonce": nonce, "retry-after": "60" }
      })
      assert.strictEqual(Proof.challenge(new Proof.ProofRefused({ reason: new Proof.MissingProof() })).status, 401)
    }))
})
