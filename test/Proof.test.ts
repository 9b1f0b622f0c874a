// The client's side: what is in a proof, what is learnt from answers, and the client that signs.
import { assert, describe, it } from "@effect/vitest"
import * as Proof from "effect-lifeline/Proof"
import * as Clock from "effect/Clock"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, jwtVerify } from "jose"
import type { JWK } from "jose"
import { createHash, verify as verifySignature } from "node:crypto"
import type { JsonWebKey as NodeJsonWebKey } from "node:crypto"
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { rfc8037 } from "./support/proofs.ts"

const now = 1_800_000_000
const url = "https://registry.example/api/v1/services/7/heartbeat?verbose=1#here"
const htu = "https://registry.example/api/v1/services/7/heartbeat"
const token = Redacted.make("token-of-the-lease")

const proofOf = (headers: Proof.ProofHeaders): string => {
  const proof = headers["dpop"]
  return proof === undefined ? "" : Redacted.value(proof)
}

const wants = (nonce: string, error = "use_dpop_nonce"): Record<string, string> => ({
  "www-authenticate": `Bearer realm="a, b", DPoP algs="ES256", error="${error}", Basic realm="c"`,
  "dpop-nonce": nonce
})

describe("Proof.generateKey", () => {
  it.effect("Ed25519 where the runtime has it, else P-256; the private key stays inside", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey()
      assert.strictEqual(key.algorithm, "EdDSA")
      assert.isFalse(key.privateKey.extractable)
      assert.deepStrictEqual(Object.keys(key.publicKey).toSorted(), ["crv", "kty", "x"])
      assert.strictEqual(
        key.thumbprint,
        yield* Effect.promise(() => calculateJwkThumbprint({ ...key.publicKey } as JWK))
      )
      const older = {
        subtle: new Proxy(crypto.subtle, {
          get: (subtle, name) =>
            name === "generateKey"
              ? (algorithm: EcKeyGenParams, ...rest: [boolean, ReadonlyArray<KeyUsage>]) =>
                algorithm.name === "Ed25519"
                  ? Promise.reject(new DOMException("no", "NotSupportedError"))
                  : subtle.generateKey(algorithm, ...rest)
              : Reflect.get(subtle, name).bind(subtle)
        })
      } as Crypto
      const fallback = yield* Effect.provide(Proof.generateKey(), WebCrypto.layer(older))
      assert.strictEqual(fallback.algorithm, "ES256")
      const failed = yield* Effect.flip(
        Effect.provide(Proof.generateKey({ algorithm: "EdDSA" }), WebCrypto.layer(older))
      )
      assert.strictEqual(failed.reason._tag, "Unsupported")
    }))

  it.effect("without crypto.subtle, as on pages that are not secure, it says so", () =>
    Effect.gen(function*() {
      const failed = yield* Effect.flip(Effect.provide(Proof.generateKey(), WebCrypto.layer({} as Crypto)))
      assert.strictEqual(failed.reason._tag, "Unsupported")
      assert.include(failed.message, "secure contexts")
    }))

  it.effect("keys that were made elsewhere; others are refused", () =>
    Effect.gen(function*() {
      const made = yield* Proof.generateKey({ algorithm: "ES256", extractable: true })
      const pkcs8 = yield* Effect.promise(() => crypto.subtle.exportKey("pkcs8", made.privateKey))
      const key = yield* Proof.fromPkcs8("ES256", Redacted.make(new Uint8Array(pkcs8)))
      assert.strictEqual(key.thumbprint, made.thumbprint)
      assert.isFalse(key.privateKey.extractable)
      const wrong = yield* Effect.flip(Proof.fromPkcs8("EdDSA", Redacted.make(new Uint8Array(pkcs8))))
      assert.strictEqual(wrong.reason._tag, "InvalidKey")
      const p384 = yield* Effect.promise(() =>
        crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, false, ["sign", "verify"])
      )
      assert.strictEqual((yield* Effect.flip(Proof.fromCryptoKeys(p384))).reason._tag, "InvalidKey")
    }))
})

describe("Proof.dpop", () => {
  for (const algorithm of ["ES256", "EdDSA"] as const) {
    it.effect(`jose accepts a proof made here (${algorithm})`, () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(now * 1000 + 999)
        const key = yield* Proof.generateKey({ algorithm })
        const proof = yield* Proof.dpop({ key })
        const headers = yield* proof.headers({ method: "PUT", url, token, nonce: "n-1" })
        assert.deepStrictEqual(Object.keys(headers).toSorted(), ["authorization", "dpop"])
        assert.strictEqual(
          headers["authorization"] && Redacted.value(headers["authorization"]),
          "DPoP token-of-the-lease"
        )
        const { payload, protectedHeader } = yield* Effect.promise(() =>
          jwtVerify(proofOf(headers), EmbeddedJWK, {
            typ: "dpop+jwt",
            algorithms: [algorithm],
            currentDate: new Date(now * 1000)
          })
        )
        assert.deepStrictEqual(protectedHeader, { typ: "dpop+jwt", alg: algorithm, jwk: { ...key.publicKey } as JWK })
        const { jti, ...rest } = payload
        assert.deepStrictEqual(rest, {
          htm: "PUT",
          htu,
          iat: now,
          ath: createHash("sha256").update(Redacted.value(token)).digest("base64url"),
          nonce: "n-1"
        })
        assert.strictEqual(Buffer.from(String(jti), "base64url").length, 16)
        assert.strictEqual(proof.thumbprint, key.thumbprint)
      }))
  }

  it.effect("each attempt gets another proof; without a token there is no ath and no Authorization", () =>
    Effect.gen(function*() {
      const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
      const headers = yield* Effect.forEach(Array.from({ length: 50 }), () => proof.headers({ method: "GET", url }))
      assert.strictEqual(new Set(headers.map((header) => decodeJwt(proofOf(header)).jti)).size, 50)
      for (const header of headers) {
        assert.deepStrictEqual(Object.keys(header), ["dpop"])
        assert.deepStrictEqual(Object.keys(decodeJwt(proofOf(header))).toSorted(), ["htm", "htu", "iat", "jti"])
      }
    }))

  it.effect("ath follows the token", () =>
    Effect.gen(function*() {
      const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
      for (const text of ["one", "two", "two", "one"]) {
        const headers = yield* proof.headers({ method: "GET", url, token: Redacted.make(text) })
        assert.strictEqual(decodeJwt(proofOf(headers))["ath"], createHash("sha256").update(text).digest("base64url"))
      }
    }))

  it.effect("chance comes from effect/crypto: with another Crypto, proofs of Ed25519 are always the same", () =>
    Effect.gen(function*() {
      let drawn = 0
      const seeded = {
        subtle: crypto.subtle,
        getRandomValues: (bytes: Uint8Array) => bytes.fill(++drawn)
      } as unknown as Crypto
      const key = yield* Effect.promise(() =>
        crypto.subtle.importKey("jwk", { ...rfc8037.jwk, d: rfc8037.d }, "Ed25519", false, ["sign"])
      )
      const publicKey = yield* Effect.promise(() =>
        crypto.subtle.importKey("jwk", rfc8037.jwk, "Ed25519", true, ["verify"])
      )
      const pair = yield* Proof.fromCryptoKeys({ privateKey: key, publicKey })
      assert.strictEqual(pair.thumbprint, rfc8037.thumbprint)
      const made = Effect.gen(function*() {
        drawn = 0
        const proof = yield* Proof.dpop({ key: pair })
        return yield* Effect.forEach([1, 2], () => Effect.map(proof.headers({ method: "GET", url }), proofOf))
      }).pipe(Effect.provide(WebCrypto.layer(seeded)))
      const first = yield* made
      assert.deepStrictEqual(yield* made, first)
      assert.deepStrictEqual(
        first.map((proof) => decodeJwt(proof).jti),
        [1, 2].map((byte) => Base64Url.encode(new Uint8Array(16).fill(byte)))
      )
    }))

  it.effect.each(["", "/relative", "ftp://a/b", "ws://a/b"])(
    "no proof for the URL %s",
    (wrong) =>
      Effect.gen(function*() {
        const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
        for (const proof of [yield* Proof.dpop({ key }), yield* Proof.closedLoop({ key, gatewayId: "g" })]) {
          const error = yield* Effect.flip(proof.headers({ method: "GET", url: wrong }))
          assert.strictEqual(`${error._tag}.${error.reason._tag}`, "Refused.InvalidRequest")
        }
      })
  )

  it.effect("a key that does not sign is a missing credential, and nothing of it is shown", () =>
    Effect.gen(function*() {
      const pair = yield* Effect.promise(() =>
        crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"])
      )
      const key = new Proof.KeyPair("EdDSA", { kty: "OKP", crv: "Ed25519", x: "x" }, "t", pair.privateKey)
      for (const proof of [yield* Proof.dpop({ key }), yield* Proof.closedLoop({ key, gatewayId: "g" })]) {
        const error = yield* Effect.flip(proof.headers({ method: "GET", url }))
        assert.strictEqual(`${error._tag}.${error.reason._tag}`, "AuthFailed.CredentialMissing")
        assert.strictEqual(error.target, `GET ${htu}`)
      }
    }))

  describe("nonces", () => {
    const nonceOf = (proof: Proof.Proof["Service"], at = url) =>
      Effect.map(proof.headers({ method: "GET", url: at }), (headers) => decodeJwt(proofOf(headers))["nonce"])

    it.effect("the newest of each origin is sent, from a 401 and from any other answer", () =>
      Effect.gen(function*() {
        const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
        assert.isUndefined(yield* nonceOf(proof))
        assert.isTrue(yield* proof.received({ url, status: 401, headers: wants("n-1") }))
        assert.strictEqual(yield* nonceOf(proof), "n-1")
        assert.isFalse(yield* proof.received({ url, status: 200, headers: { "dpop-nonce": "n-2" } }))
        assert.strictEqual(yield* nonceOf(proof, "https://registry.example/other"), "n-2")
        assert.isUndefined(yield* nonceOf(proof, "https://registry.example:8443/"))
        assert.isUndefined(yield* nonceOf(proof, "http://registry.example/"))
        assert.isFalse(yield* proof.received({ url, status: 200, headers: {} }))
        assert.strictEqual(yield* nonceOf(proof), "n-2")
        const given = yield* proof.headers({ method: "GET", url, nonce: "n-3" })
        assert.strictEqual(decodeJwt(proofOf(given))["nonce"], "n-3")
      }))

    it.effect.each<readonly [what: string, status: number, headers: Record<string, string>, worthIt: boolean]>([
      ["401 that asks for one", 401, wants("n"), true],
      ["its scheme in lower case", 401, { "www-authenticate": "dpop error=use_dpop_nonce", "dpop-nonce": "n" }, true],
      ["403", 403, wants("n"), false],
      ["401 for another reason", 401, wants("n", "invalid_token"), false],
      [
        "401 of another scheme",
        401,
        { "www-authenticate": "Bearer error=\"use_dpop_nonce\"", "dpop-nonce": "n" },
        false
      ],
      ["no challenge", 401, { "dpop-nonce": "n" }, false],
      ["no nonce", 401, { "www-authenticate": "DPoP error=\"use_dpop_nonce\"" }, false],
      ["a nonce that is none", 401, { ...wants("a b") }, false],
      ["a nonce that is endless", 401, { ...wants("n".repeat(1025)) }, false]
    ])("worth another attempt? %s", ([, status, headers, worthIt]) =>
      Effect.gen(function*() {
        const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
        assert.strictEqual(yield* proof.received({ url, status, headers }), worthIt)
      }))

    it.effect("of many origins, the oldest are forgotten", () =>
      Effect.gen(function*() {
        const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
        for (let index = 0; index <= 100; index++) {
          yield* proof.received({
            url: `https://host-${index}.example`,
            status: 200,
            headers: { "dpop-nonce": `n-${index}` }
          })
        }
        assert.isUndefined(yield* nonceOf(proof, "https://host-0.example"))
        assert.strictEqual(yield* nonceOf(proof, "https://host-1.example"), "n-1")
        assert.strictEqual(yield* nonceOf(proof, "https://host-100.example"), "n-100")
      }))

    it.effect("with a nonce comes the server's time, and iat follows it; with none it does not", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(now * 1000)
        const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
        const iat = Effect.map(proof.headers({ method: "GET", url }), (headers) => decodeJwt(proofOf(headers)).iat)
        const date = new Date((now + 600) * 1000).toUTCString()
        yield* proof.received({ url, status: 200, headers: { date } })
        assert.strictEqual(yield* iat, now)
        yield* proof.received({ url, status: 401, headers: { ...wants("n"), date } })
        assert.strictEqual(yield* iat, now + 600)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* iat, now + 660)
        // A later one without a date leaves what is known.
        yield* proof.received({ url, status: 200, headers: { "dpop-nonce": "n-2" } })
        assert.strictEqual(yield* iat, now + 660)
        const elsewhere = yield* proof.headers({ method: "GET", url: "https://other.example" })
        assert.strictEqual(decodeJwt(proofOf(elsewhere)).iat, now + 60)
      }))
  })
})

describe("Proof.closedLoop", () => {
  it.effect("signs method, path on the wire, timestamp and gateway id", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(now * 1000 + 500)
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const proof = yield* Proof.closedLoop({ key, gatewayId: "gateway 7" })
      const headers = yield* proof.headers({
        method: "post",
        url: "https://api.example/loops/größe 1/heartbeat?a=b#c",
        token
      })
      const plain = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)]))
      const { "x-desktop-signature": signature = "", ...rest } = plain
      assert.deepStrictEqual(rest, {
        "x-desktop-gateway-id": "gateway 7",
        "x-desktop-timestamp": `${now}`,
        authorization: "Bearer token-of-the-lease"
      })
      const signed = `POST\n/loops/gr%C3%B6%C3%9Fe%201/heartbeat\n${now}\ngateway 7`
      const jwk = { key: { ...key.publicKey } as NodeJsonWebKey, format: "jwk" } as const
      assert.isTrue(verifySignature(null, Buffer.from(signed), jwk, Buffer.from(signature, "base64url")))
      assert.isFalse(verifySignature(null, Buffer.from(`${signed}x`), jwk, Buffer.from(signature, "base64url")))
      assert.isFalse(yield* proof.received({ url, status: 401, headers: wants("n") }))
    }))

  it.effect.each<readonly [what: string, algorithm: "ES256" | "EdDSA", gatewayId: string, path: string]>([
    ["a key of another kind", "ES256", "g", "key"],
    ["an empty id", "EdDSA", "", "gatewayId"],
    ["a space at its end", "EdDSA", "g ", "gatewayId"],
    ["a line break", "EdDSA", "g\nx-other: 1", "gatewayId"],
    ["an umlaut", "EdDSA", "gr\u00f6\u00dfe", "gatewayId"]
  ])("refuses %s", ([, algorithm, gatewayId, path]) =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey({ algorithm })
      const { reason } = yield* Effect.flip(Proof.closedLoop({ key, gatewayId }))
      assert.deepStrictEqual(reason._tag === "InvalidRequest" && reason.issues.map((issue) => issue.path), [path])
    }))
})

type Handler = (request: IncomingMessage, response: ServerResponse) => void

const listen = (handler: Handler) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly close: () => void }>((resume) => {
      const server = createServer(handler)
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({
          url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
          close: () => {
            server.close()
            server.closeAllConnections()
          }
        })))
    }),
    ({ close }) => Effect.sync(close)
  )

/** Answers by script, and keeps what was sent. */
const scripted = (...answers: ReadonlyArray<() => Response>) => {
  const sent: Array<HttpClientRequest.HttpClientRequest> = []
  const client = HttpClient.make((request) =>
    Effect.sync(() => {
      sent.push(request)
      const answer = answers[sent.length - 1] ?? (() => new Response("", { status: 500 }))
      return HttpClientResponse.fromWeb(request, answer())
    })
  )
  return { client, sent }
}

const answer = (status: number, headers: Record<string, string> = {}, body = "") => () =>
  new Response(body, { status, headers })

describe("Proof.httpClient", () => {
  const signing = (client: HttpClient.HttpClient, some: Redacted.Redacted | undefined = token) =>
    Effect.map(
      Effect.flatMap(Proof.generateKey(), (key) => Proof.dpop({ key })),
      (proof) => Proof.httpClient(client, { proof, token: Effect.succeed(some) })
    )

  it.effect("signs the URL that is sent, whatever was done to the request on the way", () =>
    Effect.gen(function*() {
      const { client, sent } = scripted(answer(200))
      const inner = client.pipe(HttpClient.mapRequest(HttpClientRequest.prependUrl("https://registry.example/api")))
      const signed = (yield* signing(inner)).pipe(HttpClient.mapRequest(HttpClientRequest.setUrlParam("q", "1")))
      assert.strictEqual((yield* signed.get("/a b/ö")).status, 200)
      const [request] = sent
      assert.strictEqual(request?.headers["authorization"], `DPoP ${Redacted.value(token)}`)
      const claims = decodeJwt(String(request?.headers["dpop"]))
      assert.strictEqual(claims["htu"], "https://registry.example/api/a%20b/%C3%B6")
      assert.strictEqual(claims["htm"], "GET")
    }))

  it.effect("sends once more where a nonce is wanted, with another proof, and no more than once", () =>
    Effect.gen(function*() {
      const cancelled: Array<string> = []
      const body = new ReadableStream({ cancel: () => void cancelled.push("first") })
      const { client, sent } = scripted(() => new Response(body, { status: 401, headers: wants("n-1") }), answer(200))
      const signed = yield* signing(client)
      const request = HttpClientRequest.put(htu).pipe(HttpClientRequest.bodyText("beat"))
      assert.strictEqual((yield* signed.execute(request)).status, 200)
      assert.deepStrictEqual(cancelled, ["first"])
      const [first, second] = sent.map(({ headers }) => decodeJwt(String(headers["dpop"])))
      assert.isUndefined(first?.["nonce"])
      assert.strictEqual(second?.["nonce"], "n-1")
      assert.notStrictEqual(first?.jti, second?.jti)

      const stubborn = scripted(answer(401, wants("n-1")), answer(401, wants("n-2")), answer(200))
      const rejected = yield* Effect.flip((yield* signing(stubborn.client)).execute(request))
      assert.strictEqual(stubborn.sent.length, 2)
      assert.strictEqual("reason" in rejected && rejected.reason._tag, "ProofRejected")
    }))

  it.effect("a body that is a stream is not sent twice", () =>
    Effect.gen(function*() {
      const { client, sent } = scripted(answer(401, wants("n-1")), answer(200))
      const signed = yield* signing(client)
      const request = HttpClientRequest.put(htu).pipe(HttpClientRequest.bodyStream(Stream.make(new Uint8Array(1))))
      const rejected = yield* Effect.flip(signed.execute(request))
      assert.strictEqual(sent.length, 1)
      assert.strictEqual("reason" in rejected && rejected.reason._tag, "ProofRejected")
      // The nonce is known now, so that the next one is right at once.
      yield* signed.get(htu)
      assert.strictEqual(decodeJwt(String(sent[1]?.headers["dpop"]))["nonce"], "n-1")
    }))

  it.effect("a refused proof is ProofRejected, with the server's words and without the token", () =>
    Effect.gen(function*() {
      const challenge = `DPoP error="invalid_dpop_proof", error_description="stale ${
        Redacted.value(token)
      } \\"x\\"\u00e9"`
      const { client, sent } = scripted(answer(401, { "www-authenticate": challenge }))
      const error = yield* Effect.flip((yield* signing(client)).get(`${htu}?secret=1`))
      assert.strictEqual(sent.length, 1)
      assert.strictEqual(error._tag, "AuthFailed")
      assert.strictEqual(
        error.message,
        `request (GET ${htu}) was not authorized: the proof of possession was not accepted: invalid_dpop_proof, stale <redacted> ?x??; ` +
          "check that the credential belongs to this key"
      )
    }))

  it.effect.each<readonly [number, Record<string, string>]>([
    [401, { "www-authenticate": "DPoP error=\"invalid_token\"" }],
    [401, { "www-authenticate": "Bearer error=\"invalid_dpop_proof\"" }],
    [401, {}],
    [403, { "www-authenticate": "DPoP error=\"invalid_dpop_proof\"" }],
    [500, {}]
  ])("%s is given as it is", ([status, headers]) =>
    Effect.gen(function*() {
      const { client, sent } = scripted(answer(status, headers))
      assert.strictEqual((yield* (yield* signing(client)).get(htu)).status, status)
      assert.strictEqual(sent.length, 1)
    }))

  it.effect("no token, no Authorization; a token that cannot be had is the caller's error, and nothing is sent", () =>
    Effect.gen(function*() {
      const { client, sent } = scripted(answer(200), answer(200))
      const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
      yield* client.pipe(Proof.httpClient({ proof })).get(htu)
      assert.isUndefined(sent[0]?.headers["authorization"])
      const failing = Proof.httpClient(client, { proof, token: Effect.fail("no token" as const) })
      assert.strictEqual(yield* Effect.flip(failing.get(htu)), "no token")
      assert.strictEqual(sent.length, 1)
    }))

  it.effect("a URL that is none is the client's own error", () =>
    Effect.gen(function*() {
      const { client } = scripted()
      const error = yield* Effect.flip((yield* signing(client)).get("http://"))
      assert.strictEqual(error._tag === "HttpClientError" && error.reason._tag, "InvalidUrlError")
    }))

  it.live("redirects are not followed", () =>
    Effect.gen(function*() {
      const paths: Array<string | undefined> = []
      const server = yield* listen((request, response) => {
        paths.push(request.url)
        response.writeHead(307, { location: "/elsewhere" }).end()
      })
      const signed = yield* signing(yield* HttpClient.HttpClient)
      assert.strictEqual((yield* signed.get(`${server.url}/here`)).status, 307)
      assert.deepStrictEqual(paths, ["/here"])
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))

  it.live("ClosedLoop over HTTP: what is signed is the path on the wire, byte for byte", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const jwk = { key: { ...key.publicKey } as NodeJsonWebKey, format: "jwk" } as const
      const seen: Array<readonly [path: string, isSigned: boolean]> = []
      const server = yield* listen(({ headers, method, url = "" }, response) => {
        const [path = ""] = url.split("?")
        const signed = [method, path, headers["x-desktop-timestamp"], headers["x-desktop-gateway-id"]].join("\n")
        const signature = Buffer.from(String(headers["x-desktop-signature"]), "base64url")
        seen.push([url, verifySignature(null, Buffer.from(signed), jwk, signature)])
        response.end()
      })
      const proof = yield* Proof.closedLoop({ key, gatewayId: "gateway-1" })
      const signed = Proof.httpClient(yield* HttpClient.HttpClient, { proof })
      const ids = ["plain", "with space", "größe", "日本 %20", "a/b?c#d", "~!'()*", "%2f"]
      for (const id of ids) {
        yield* signed.put(`${server.url}/loops/${encodeURIComponent(id)}/heartbeat?a=${encodeURIComponent(id)}`)
      }
      yield* signed.put(`${server.url}/loops/not escaped ö/heartbeat`)
      assert.deepStrictEqual(seen.filter(([, isSigned]) => !isSigned), [])
      assert.strictEqual(seen.length, ids.length + 1)
      assert.strictEqual(seen.at(-1)?.[0], "/loops/not%20escaped%20%C3%B6/heartbeat")
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))
})

describe("both sides, over HTTP", () => {
  /** A server that wants nonces, and says why it refuses. */
  const guarded = (boundTo: string, options: { readonly algorithms?: ReadonlyArray<Proof.Algorithm> } = {}) =>
    Effect.gen(function*() {
      const replays = yield* Proof.makeReplays()
      const nonces = yield* Proof.makeNonces()
      const outcomes: Array<string> = []
      const dpops: Array<string> = []
      const context = yield* Effect.context()
      const server = yield* listen((request, response) => {
        const { headers, method = "" } = request
        dpops.push(String(headers["dpop"]))
        const received = { method, url: `http://${headers.host}${request.url}`, headers: request.headersDistinct }
        const checked = Effect.gen(function*() {
          const result = yield* Effect.result(
            Proof.verify(received, { replays, nonces, thumbprint: boundTo, ...options })
          )
          const nonce = yield* nonces.issue
          if (Result.isSuccess(result)) {
            outcomes.push("accepted")
            return void response.writeHead(200, { "dpop-nonce": nonce }).end()
          }
          outcomes.push(result.failure.reason._tag)
          const { headers, status } = Proof.challenge(result.failure, nonce)
          response.writeHead(status, headers).end()
        })
        Effect.runForkWith(context)(checked)
      })
      return { url: server.url, outcomes, dpops, replays }
    })

  const client = Effect.fnUntraced(function*(key: Proof.KeyPair) {
    const proof = yield* Proof.dpop({ key })
    return Proof.httpClient(yield* HttpClient.HttpClient, { proof, token: Effect.succeed(token) })
  })

  /** As seen by a device whose clock is wrong. */
  const wrongBy = (millis: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Clock.Clock, (clock) =>
      Effect.provideService(
        effect,
        Clock.Clock,
        Object.assign(Object.create(clock), {
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
          currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis)
        })
      ))

  it.live("R8: a device whose clock is ten minutes wrong gets in with the nonce, and stays in", () =>
    Effect.gen(function*() {
      for (const minutes of [-10, 10]) {
        const key = yield* Proof.generateKey()
        const server = yield* guarded(key.thumbprint)
        const signed = yield* client(key)
        const statuses = yield* Effect.forEach(
          [1, 2, 3],
          () => Effect.map(signed.put(`${server.url}/lease`), ({ status }) => status)
        ).pipe(wrongBy(minutes * 60_000))
        assert.deepStrictEqual(statuses, [200, 200, 200])
        assert.deepStrictEqual(server.outcomes, ["NonceRequired", "accepted", "accepted", "accepted"])
        const [first, second] = server.dpops.map((proof) => decodeJwt(proof).iat ?? 0)
        assert.approximately((second ?? 0) - (first ?? 0), -minutes * 60, 5)
      }
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))

  it.live("R9: a replayed proof, another URL, another key, a bearer token: each is refused for what it is", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey()
      const server = yield* guarded(key.thumbprint)
      const signed = yield* client(key)
      const at = `${server.url}/lease`
      assert.strictEqual((yield* signed.put(at)).status, 200)
      const bare = yield* HttpClient.HttpClient
      const stolen = { authorization: `DPoP ${Redacted.value(token)}`, dpop: server.dpops.at(-1) ?? "" }
      const status = (effect: ReturnType<typeof bare.put>) => Effect.map(effect, ({ status }) => status)
      assert.strictEqual(yield* status(bare.put(at, { headers: stolen })), 401)
      assert.strictEqual(yield* status(bare.put(`${at}/other`, { headers: stolen })), 401)
      assert.strictEqual(yield* status(bare.post(at, { headers: stolen })), 401)
      assert.strictEqual(
        yield* status(bare.put(at, { headers: { authorization: `Bearer ${Redacted.value(token)}` } })),
        401
      )
      const thief = yield* Effect.flip((yield* client(yield* Proof.generateKey())).put(at))
      assert.strictEqual(thief._tag === "AuthFailed" && thief.reason._tag, "ProofRejected")
      assert.deepStrictEqual(server.outcomes, [
        "NonceRequired",
        "accepted",
        "Replayed",
        "WrongUrl",
        "WrongMethod",
        "BearerDowngrade",
        "NonceRequired",
        "WrongKey"
      ])
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))

  it.live("R9, from the client's side: ProofRejected", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const server = yield* guarded(key.thumbprint, { algorithms: ["ES256"] })
      const error = yield* Effect.flip((yield* client(key)).put(`${server.url}/lease`))
      assert.strictEqual(error._tag === "AuthFailed" && error.reason._tag, "ProofRejected")
      assert.include(error.message, "the proof is signed with EdDSA; allowed are ES256")
      assert.deepStrictEqual(server.outcomes, ["UnsupportedAlgorithm"])
    }).pipe(Effect.scoped, Effect.provide(FetchHttpClient.layer)))
})

describe("layers", () => {
  it.effect("the port is satisfied by either style", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey({ algorithm: "EdDSA" })
      const headers = Proof.Proof.use((proof) => proof.headers({ method: "GET", url }))
      const names = (layer: Layer.Layer<Proof.Proof, unknown>) =>
        Effect.map(Effect.provide(headers, layer), (all) => Object.keys(all))
      assert.deepStrictEqual(yield* names(Proof.layerDpop({ key })), ["dpop"])
      assert.deepStrictEqual(yield* names(Proof.layerClosedLoop({ key, gatewayId: "g" })), [
        "x-desktop-gateway-id",
        "x-desktop-timestamp",
        "x-desktop-signature"
      ])
    }))
})
