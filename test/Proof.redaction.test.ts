// No token, key or proof in anything that can be seen: errors, spans, logs, JSON.
import { assert, describe, it } from "@effect/vitest"
import * as Cipher from "effect-lifeline/Cipher"
import * as KeyStore from "effect-lifeline/KeyStore"
import * as Proof from "effect-lifeline/Proof"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Headers from "effect/http/Headers"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import * as Seen from "./support/seen.ts"

const token = "canary-token-of-the-lease"
const cipherKey = "canary-cipher-key-of-32-bytes-xx"

const dpop = (error: string) => ({
  "www-authenticate": `DPoP error="${error}", error_description="got ${token}"`,
  "dpop-nonce": "n-1"
})

/** What a careless server would answer: it repeats what it was sent. */
const scenarios: ReadonlyArray<
  readonly [name: string, answer: (request: HttpClientRequest.HttpClientRequest) => Response]
> = [
  ["200", () => new Response("ok")],
  ["401, a nonce", () => new Response(token, { status: 401, headers: dpop("use_dpop_nonce") })],
  ["401, the proof", () => new Response(token, { status: 401, headers: dpop("invalid_dpop_proof") })],
  ["401, the token", () => new Response(token, { status: 401, headers: dpop("invalid_token") })],
  [
    "a redirect",
    () => new Response(null, { status: 307, headers: { location: `https://other.example/?token=${token}` } })
  ],
  ["no connection", () => {
    throw new Error("ECONNREFUSED")
  }]
]

const seen = Effect.fnUntraced(function*(style: "dpop" | "closedLoop", answer: (typeof scenarios)[number][1]) {
  const { log, out, show, spans, tracer } = Seen.make()
  const entries = new Map<string, string>()
  const store = KeyValueStore.makeStringOnly({
    get: (key) => Effect.sync(() => entries.get(key)),
    set: (key, value) => Effect.sync(() => void entries.set(key, value)),
    remove: () => Effect.void,
    clear: Effect.void,
    clearPrefix: () => Effect.void,
    size: Effect.succeed(0),
    keys: Effect.succeed([])
  })
  const secrets = [token, cipherKey]
  const client = HttpClient.make((request) =>
    Effect.try({
      try: () => {
        for (const name of Proof.redactedHeaders) {
          const value = request.headers[name]
          if (value !== undefined) secrets.push(value)
        }
        return HttpClientResponse.fromWeb(request, answer(request))
      },
      catch: (cause) =>
        new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request, cause }) })
    })
  )
  yield* Effect.gen(function*() {
    const made = yield* Proof.generateKey({ algorithm: "EdDSA", extractable: true })
    const { d = "" } = yield* Effect.promise(() => crypto.subtle.exportKey("jwk", made.privateKey))
    const pkcs8 = yield* Effect.promise(() => crypto.subtle.exportKey("pkcs8", made.privateKey))
    secrets.push(d, Buffer.from(pkcs8).toString("base64"))
    const keys = yield* KeyStore.KeyStore
    const key = yield* keys.put("device", made)
    show("made", made)
    show("key", key)
    show("in a log", { key, nested: [made] })
    show("stored", [...entries])
    const proof = style === "dpop"
      ? yield* Proof.dpop({ key })
      : yield* Proof.closedLoop({ key, gatewayId: "gateway" })
    const headers = yield* proof.headers({
      method: "GET",
      url: "https://registry.example/",
      token: Redacted.make(token)
    })
    for (const name of Proof.redactedHeaders) {
      const value = headers[name]
      if (value !== undefined) secrets.push(Redacted.value(value))
    }
    show("headers", headers)
    show("proof", proof)
    const signed = Proof.httpClient(client, { proof, token: Effect.succeed(Redacted.make(token)) })
    const request = HttpClientRequest.put("https://registry.example/lease")
    const exit = yield* Effect.exit(signed.execute(request))
    // Of an answer that is given as it is, what the server repeats is the server's.
    show("exit", Exit.map(exit, ({ status }) => status))
    yield* Effect.logError("the request", Exit.isFailure(exit) ? exit.cause : "was answered")
    if (Exit.isFailure(exit)) out.push(Cause.pretty(exit.cause))
    show("client", signed)
    entries.set("proof-key/device", (entries.get("proof-key/device") ?? "").replace("EdDSA", "ES256"))
    show("unreadable", yield* Effect.exit(keys.get("device")))
  }).pipe(
    Effect.provide(
      KeyStore.layerKeyValueStore({
        cipher: Cipher.aesGcm(Redacted.make(new TextEncoder().encode(cipherKey)))
      })
    ),
    Effect.provideService(KeyValueStore.KeyValueStore, store),
    Effect.provideService(Tracer.Tracer, tracer),
    // As the documentation says to whoever prints whole requests.
    Effect.provideService(Headers.CurrentRedactedNames, ["authorization", ...Proof.redactedHeaders]),
    Effect.provide(Layer.merge(Logger.layer([log]), Layer.succeed(References.MinimumLogLevel, "All")))
  )
  for (const { attributes, name, status } of spans) {
    const exit = status._tag === "Ended" ? status.exit : Exit.void
    show("span", [name, [...attributes], Exit.isFailure(exit) ? Cause.pretty(exit.cause) : status._tag])
  }
  return { out, secrets, spans: spans.length }
})

describe("no secret in anything that can be seen of a proof", () => {
  it.effect.each(
    scenarios.flatMap(([name, answer]) =>
      (["dpop", "closedLoop"] as const).map((style) => [name, style, answer] as const)
    )
  )("%s, %s", ([, style, answer]) =>
    Effect.gen(function*() {
      const { out, secrets, spans } = yield* seen(style, answer)
      assert.isAtLeast(secrets.length, 6)
      assert.isAbove(spans, 0)
      assert.isTrue(out.some((line) => line.startsWith("log:")))
      for (const line of out) for (const secret of secrets) assert.notInclude(line, secret)
    }))

  it.effect("spans hide proofs by themselves", () =>
    Effect.gen(function*() {
      const { spans, tracer } = Seen.keepSpans()
      const client = HttpClient.make((request) => Effect.succeed(HttpClientResponse.fromWeb(request, new Response(""))))
      const proof = yield* Proof.dpop({ key: yield* Proof.generateKey() })
      yield* Proof.httpClient(client, { proof }).get("https://a.example").pipe(
        Effect.provideService(Tracer.Tracer, tracer),
        Effect.provideService(HttpClient.TracerHeaderFilter, () => true)
      )
      assert.strictEqual(spans.length, 1)
      assert.strictEqual(String(spans[0]?.attributes.get("http.request.header.dpop")), "<redacted>")
    }))
})
