import type * as Classify from "effect-lifeline/Classify"
import type { Credential } from "effect-lifeline/Credential"
import type { Refused } from "effect-lifeline/LifelineError"
import * as Recovery from "effect-lifeline/Recovery"
import type { Registry } from "effect-lifeline/Registry"
import * as ClosedLoop from "effect-lifeline/registry/ClosedLoop"
import * as PulseLease from "effect-lifeline/registry/PulseLease"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Layer from "effect/Layer"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Scope from "effect/Scope"
import { describe, expect, test } from "tstyche"

class Processes extends Context.Service<Processes, {
  readonly has: (pid: string) => Effect.Effect<boolean, Error>
}>()("test/Processes") {}

declare const api: Recovery.LeaseApi

const plain: Recovery.Options = { api, isAlive: () => Effect.succeed(true) }

describe("Recovery", () => {
  test("what isAlive needs is needed, and nothing else", () => {
    expect(Recovery.layer(plain)).type.toBe<Layer.Layer<Recovery.Recovery, never, KeyValueStore.KeyValueStore>>()
    expect(Recovery.layer({ api, isAlive: ({ holder = "" }) => Processes.use(({ has }) => has(holder)) })).type.toBe<
      Layer.Layer<Recovery.Recovery, never, KeyValueStore.KeyValueStore | Processes>
    >()
    expect(Recovery.make(plain)).type.toBe<
      Effect.Effect<Recovery.Recovery["Service"], never, KeyValueStore.KeyValueStore | Scope.Scope>
    >()
  })

  test("one pass fails only where the store cannot say which leases there are", () => {
    expect(Recovery.reconcile(plain)).type.toBe<
      Effect.Effect<
        ReadonlyArray<Recovery.Report>,
        KeyValueStore.KeyValueStoreError,
        KeyValueStore.KeyValueStore
      >
    >()
  })

  test("each registry that has leases will do", () => {
    expect(ClosedLoop.makeLeaseApi({ url: "" })).type.toBe<
      Effect.Effect<Recovery.LeaseApi, Refused, HttpClient.HttpClient>
    >()
    expect(PulseLease.makeLeaseApi({ url: "" })).type.toBe<
      Effect.Effect<Recovery.LeaseApi, Refused, HttpClient.HttpClient>
    >()
    expect(ClosedLoop.layer({ url: "" })).type.toBe<
      Layer.Layer<Registry, Refused, HttpClient.HttpClient | Credential>
    >()
  })

  test("a table says one of the verdicts", () => {
    expect<typeof Classify.leaseStatuses>().type.toBeAssignableTo<Classify.LeaseTable>()
    expect<{ readonly "403": "Maybe" }>().type.not.toBeAssignableTo<Classify.LeaseTable>()
  })
})
