import type { DurableObjectStorage, KVNamespace, Socket } from "@cloudflare/workers-types"
import * as CheckIn from "effect-lifeline/CheckIn"
import type * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
import type * as Cloudflare from "effect-lifeline/cloudflare/KeyValueStore"
import type { AuthFailed, Refused, Transient } from "effect-lifeline/LifelineError"
import type { Registry } from "effect-lifeline/Registry"
import type * as Effect from "effect/Effect"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import { describe, expect, test } from "tstyche"

const options = { instance: { name: "haul", type: "download-client", apiUrl: "http://haul:8484" } }

type Stores = Registry | KeyValueStore.KeyValueStore

describe("what a check-in can fail with", () => {
  test("for a cron a definitive no is a failure, what passes by itself is not", () => {
    expect(CheckIn.run(options)).type.toBe<
      Effect.Effect<CheckIn.Report, AuthFailed | Refused | KeyValueStore.KeyValueStoreError, Stores>
    >()
  })

  test("for an alarm a definitive no is in the report", () => {
    expect(CheckIn.runAlarm(options)).type.toBe<
      Effect.Effect<CheckIn.Report, Refused | KeyValueStore.KeyValueStoreError, Stores>
    >()
  })

  test("deregistering is not tried again by itself", () => {
    expect(CheckIn.deregister(options)).type.toBe<
      Effect.Effect<void, Transient | AuthFailed | Refused | KeyValueStore.KeyValueStoreError, Stores>
    >()
  })
})

describe("Cloudflare's own types fit", () => {
  test("a KV namespace", () => {
    expect<KVNamespace>().type.toBeAssignableTo<Cloudflare.Namespace>()
  })

  test("the storage of a Durable Object", () => {
    expect<DurableObjectStorage>().type.toBeAssignableTo<Cloudflare.Storage>()
  })

  test("a TCP connection", () => {
    expect<Socket>().type.toBeAssignableTo<CloudflareSocket.Connection>()
  })
})
