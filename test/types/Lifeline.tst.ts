import * as Backoff from "effect-lifeline/Backoff"
import type * as Lease from "effect-lifeline/Lease"
import * as Lifeline from "effect-lifeline/Lifeline"
import type { AuthFailed, Closed, Exhausted, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import type { Registry } from "effect-lifeline/Registry"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { describe, expect, test } from "tstyche"

const instance = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }

type Service = Lifeline.Lifeline["Service"]

describe("what each startup can fail with", () => {
  test("standalone (the default): Exhausted, Transient and LeaseLost are gone", () => {
    expect(Lifeline.layer({ instance })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused, Registry>
    >()
    expect(Lifeline.layer({ instance, startup: "standalone" })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused, Registry>
    >()
  })

  test("await: also Exhausted, unless the backoff of the first registration is unbounded", () => {
    expect(Lifeline.layer({ instance, startup: "await" })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused | Exhausted, Registry>
    >()
    expect(Lifeline.layer({ instance, startup: "await", heartbeat: { registering: Backoff.registration } })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused | Exhausted, Registry>
    >()
    expect(Lifeline.layer({ instance, startup: "await", heartbeat: { registering: Backoff.streams } })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused, Registry>
    >()
  })

  test("background: only what is wrong with the description itself", () => {
    expect(Lifeline.layer({ instance, startup: "background" })).type.toBe<
      Layer.Layer<Lifeline.Lifeline, Refused, Registry>
    >()
  })

  test("a startup that is only known when it runs: all of them", () => {
    const options = { instance } as Lifeline.Options
    expect(Lifeline.layer(options)).type.toBe<
      Layer.Layer<Lifeline.Lifeline, AuthFailed | Refused | Exhausted, Registry>
    >()
    expect(Lifeline.make(options)).type.toBe<
      Effect.Effect<Service, AuthFailed | Refused | Exhausted, Registry | Scope.Scope>
    >()
  })

  test("make says the same as layer", () => {
    expect(Lifeline.make({ instance })).type.toBe<
      Effect.Effect<Service, AuthFailed | Refused, Registry | Scope.Scope>
    >()
    expect(Lifeline.make({ instance, startup: "background" })).type.toBe<
      Effect.Effect<Service, Refused, Registry | Scope.Scope>
    >()
  })
})

describe("what the calls of a lifeline can fail with", () => {
  test("beatNow, reregister, awaitOnline, deregister", () => {
    expect<Service["beatNow"]>().type.toBe<
      Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused | Closed>
    >()
    expect<Service["reregister"]>().type.toBe<
      Effect.Effect<Lease.Lease, Transient | LeaseLost | AuthFailed | Refused | Closed>
    >()
    expect(Lifeline.awaitOnline(null as unknown as Service)).type.toBe<
      Effect.Effect<Lease.Lease, AuthFailed | Refused | Exhausted | Closed>
    >()
    expect<Service["deregister"]>().type.toBe<Effect.Effect<void, Transient | AuthFailed | Refused>>()
  })
})

describe("standalone", () => {
  test("discharges Exhausted, and only that", () => {
    const register = null as unknown as Effect.Effect<Lease.Lease, Transient | AuthFailed | Refused>
    expect(register.pipe(Backoff.retry(Backoff.registration), Lifeline.standalone)).type.toBe<
      Effect.Effect<Option.Option<Lease.Lease>, AuthFailed | Refused>
    >()
    expect(Lifeline.standalone(null as unknown as Effect.Effect<Lease.Lease, Exhausted>)).type.toBe<
      Effect.Effect<Option.Option<Lease.Lease>>
    >()
  })
})
