import * as Proof from "effect-lifeline/Proof"
import type * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { describe, expect, test } from "tstyche"
import type { KeyStore } from "../../src/KeyStore.ts"
import type { AuthFailed, Refused } from "../../src/LifelineError.ts"

declare const client: HttpClient.HttpClient
declare const proof: Proof.Proof["Service"]
declare const key: Proof.KeyPair

class NoToken {
  readonly _tag = "NoToken"
}

describe("Proof", () => {
  test("a client that signs can fail as the client does, and for the proof", () => {
    expect(Proof.httpClient(client, { proof })).type.toBe<
      HttpClient.HttpClient.With<HttpClientError.HttpClientError | AuthFailed | Refused>
    >()
  })

  test("and as its token does", () => {
    const token: Effect.Effect<Redacted.Redacted, NoToken> = {} as Effect.Effect<Redacted.Redacted, NoToken>
    expect(Proof.httpClient(client, { proof, token })).type.toBe<
      HttpClient.HttpClient.With<HttpClientError.HttpClientError | NoToken | AuthFailed | Refused>
    >()
  })

  test("either style is the one port", () => {
    expect(Proof.layerDpop({ key })).type.toBe<Layer.Layer<Proof.Proof>>()
    expect(Proof.layerClosedLoop({ key, gatewayId: "g" })).type.toBe<Layer.Layer<Proof.Proof, Refused>>()
    expect(Proof.layerDpopStored({ name: "device" })).type.toBe<Layer.Layer<Proof.Proof, Proof.KeyError, KeyStore>>()
  })

  test("what remembers proofs cannot be left out", () => {
    expect(Proof.verify).type.not.toBeCallableWith({ method: "GET", url: "", headers: {} }, {})
    expect(Proof.verify).type.toBeCallableWith({ method: "GET", url: "", headers: {} }, {
      replays: {} as Proof.Replays
    })
  })
})
