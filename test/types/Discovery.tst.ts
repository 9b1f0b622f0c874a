// What finding services may fail with, from memory or not, and what each layer needs.
import type { Directory } from "effect-lifeline/Directory"
import * as Discovery from "effect-lifeline/Discovery"
import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import type { AuthFailed, Refused, Transient } from "effect-lifeline/LifelineError"
import type { RegisteredService } from "effect-lifeline/ServiceInstance"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"

declare const discovery: Discovery.Discovery["Service"]
declare const cache: DiscoveryCache.Service

describe("Discovery", () => {
  test("needs a directory and nothing else", () => {
    expect(Discovery.layer).type.toBe<Layer.Layer<Discovery.Discovery, never, Directory>>()
  })

  test("a list may be asked for again; a pick may find none", () => {
    expect(discovery.all).type.toBe<
      Effect.Effect<ReadonlyArray<RegisteredService>, Transient | AuthFailed | Refused>
    >()
    expect(discovery.pick({})).type.toBe<
      Effect.Effect<RegisteredService, Discovery.NoneRegistered | Transient | AuthFailed | Refused>
    >()
    expect(discovery.peer("haul")).type.toBe<
      Effect.Effect<Discovery.Peer, Discovery.PeerUnavailable | AuthFailed | Refused>
    >()
  })
})

describe("DiscoveryCache", () => {
  test("gives Discovery too, over the same directory, and cannot fail to start", () => {
    expect(DiscoveryCache.layer()).type.toBe<
      Layer.Layer<DiscoveryCache.DiscoveryCache | Discovery.Discovery, never, Directory>
    >()
    expect(cache).type.toBeAssignableTo<Discovery.Discovery["Service"]>()
  })

  test("who watches outlives what is transient", () => {
    expect(cache.watch()).type.toBe<Stream.Stream<DiscoveryCache.Snapshot, AuthFailed | Refused>>()
    expect(cache.refresh).type.toBe<Effect.Effect<void>>()
  })

  test("only an unbounded policy keeps a picture", () => {
    expect(DiscoveryCache.layer).type.not.toBeCallableWith({ policy: { bound: "bounded" } })
  })
})
