// How a tunnel may end goes by `reconnect`, and needs a dialer.
import type * as Backoff from "effect-lifeline/Backoff"
import type * as ControlChannel from "effect-lifeline/ControlChannel"
import type { Dialer } from "effect-lifeline/Dialer"
import type { AuthFailed, Closed, Exhausted, NoProgress, Refused } from "effect-lifeline/LifelineError"
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { describe, expect, test } from "tstyche"

declare const policy: Backoff.Policy
declare const maybe: Backoff.Policy | false

const options = { server: { host: "relay.example" }, local: { port: 3000 } }

type Made<E> = Effect.Effect<Tunnel.Tunnel<E>, never, Dialer | Scope.Scope>

describe("the end of a tunnel", () => {
  test("goes by reconnect", () => {
    expect(Tunnel.make(options)).type.toBe<Made<AuthFailed | Refused | NoProgress>>()
    expect(Tunnel.make({ ...options, reconnect: false })).type.toBe<
      Made<AuthFailed | Refused | ControlChannel.Disconnected>
    >()
    expect(Tunnel.make({ ...options, reconnect: policy })).type.toBe<
      Made<AuthFailed | Refused | NoProgress | Exhausted>
    >()
    expect(Tunnel.make({ ...options, reconnect: maybe })).type.toBe<
      Made<AuthFailed | Refused | NoProgress | Exhausted | ControlChannel.Disconnected>
    >()
  })

  test("is what waiting for it fails with", () => {
    expect<Tunnel.Tunnel<AuthFailed>["ended"]>().type.toBe<Effect.Effect<never, AuthFailed | Closed>>()
  })

  test("its messages are the tunnel's", () => {
    expect<"messages">().type.not.toBeAssignableTo<keyof Tunnel.Tunnel<AuthFailed>["channel"]>()
  })
})

describe("a dialer", () => {
  test("is all that it needs", () => {
    expect(Effect.provide(Tunnel.make(options), NodeDialer.layer)).type.toBe<
      Effect.Effect<Tunnel.Tunnel<AuthFailed | Refused | NoProgress>, never, Scope.Scope>
    >()
  })
})
