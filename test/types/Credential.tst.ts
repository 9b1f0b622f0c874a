// What the operator leaves in the error type, and what its layers ask for.
import * as Backoff from "effect-lifeline/Backoff"
import * as Credential from "effect-lifeline/Credential"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import type * as Proof from "effect-lifeline/Proof"
import type { Registry } from "effect-lifeline/Registry"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Scope from "effect/Scope"
import { describe, expect, test } from "tstyche"

interface Dependency {
  readonly dependency: "dependency"
}

declare const register: Effect.Effect<string, Transient | AuthFailed | Refused, Dependency>
declare const heartbeat: Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused>
declare const refresh: (
  context: Credential.RefreshContext
) => Effect.Effect<Credential.Token, Transient | AuthFailed | Refused, Dependency>
declare const revive: (
  context: Credential.ReviveContext
) => Effect.Effect<Credential.Token, Transient | AuthFailed | Refused | LeaseLost, Dependency>
declare const service: Credential.Credential["Service"]

describe("revive", () => {
  test("keeps the errors of a call, and asks for the credential", () => {
    expect(Credential.revive(register)).type.toBe<
      Effect.Effect<string, Transient | AuthFailed | Refused, Dependency | Credential.Credential>
    >()
    expect(register.pipe(Credential.revive)).type.toBe<
      Effect.Effect<string, Transient | AuthFailed | Refused, Dependency | Credential.Credential>
    >()
    expect(heartbeat.pipe(Credential.revive)).type.toBe<
      Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused, Credential.Credential>
    >()
  })

  test("adds Transient, for a refresh that fails for now, and AuthFailed, for when all is spent", () => {
    expect(Effect.succeed(1).pipe(Credential.revive)).type.toBe<
      Effect.Effect<number, Transient | AuthFailed, Credential.Credential>
    >()
  })

  test("a Backoff around it takes Transient out again: AuthFailed is left, once revival is spent", () => {
    expect(register.pipe(Credential.revive, Backoff.retry(Backoff.streams))).type.toBe<
      Effect.Effect<string, AuthFailed | Refused, Dependency | Credential.Credential>
    >()
  })

  test("guard adds LeaseLost, for a lease that a revival finds gone", () => {
    expect(service.guard(register)).type.toBe<
      Effect.Effect<string, Transient | AuthFailed | Refused | LeaseLost, Dependency>
    >()
    expect(service.discharge(register)).type.toBe<
      Effect.Effect<string, Transient | AuthFailed | Refused, Dependency>
    >()
  })
})

describe("protect", () => {
  test("gives the same port", () => {
    expect(Credential.protect(null as unknown as Registry["Service"])).type.toBe<
      Effect.Effect<Registry["Service"], never, Credential.Credential>
    >()
    expect(Credential.layerRegistry).type.toBe<Layer.Layer<Registry, never, Registry | Credential.Credential>>()
  })
})

describe("layers", () => {
  test("ask for the store, for what the providers need, and for the proof where it is managed", () => {
    expect(Credential.layerManaged({ name: "lease", refresh, revive })).type.toBe<
      Layer.Layer<
        Credential.Credential,
        KeyValueStore.KeyValueStoreError,
        Proof.Proof | KeyValueStore.KeyValueStore | Dependency
      >
    >()
    expect(Credential.layerSupplied({ name: "lease" })).type.toBe<
      Layer.Layer<Credential.Credential, KeyValueStore.KeyValueStoreError, KeyValueStore.KeyValueStore>
    >()
    expect(Credential.make({ name: "lease", provenance: { _tag: "Supplied" }, refresh })).type.toBe<
      Effect.Effect<
        Credential.Credential["Service"],
        KeyValueStore.KeyValueStoreError,
        KeyValueStore.KeyValueStore | Scope.Scope | Dependency
      >
    >()
  })

  test("a supplied credential has no way to revive", () => {
    expect(Credential.layerSupplied).type.not.toBeCallableWith({ name: "lease", revive })
  })
})

describe("httpClient", () => {
  test("adds what signing can fail with", () => {
    expect(Credential.httpClient(null as unknown as HttpClient.HttpClient.With<"E", "R">, service)).type.toBe<
      HttpClient.HttpClient.With<"E" | AuthFailed | Refused, "R">
    >()
  })
})
