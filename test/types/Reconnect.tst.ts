// What is left in the error type of a stream that survives, and what it asks of its caller.
import * as Backoff from "effect-lifeline/Backoff"
import type {
  AuthFailed,
  Exhausted,
  Inconclusive,
  NoProgress,
  Refused,
  Stop,
  Transient
} from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Effect from "effect/Effect"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import { describe, expect, test } from "tstyche"

interface Dependency {
  readonly dependency: "dependency"
}

declare const connect: Reconnect.Connect<string, number, Dependency | Scope.Scope>
declare const unknownBound: Backoff.Policy
declare const options: Reconnect.Options<number>
declare const kept: KeyValueStore.KeyValueStore

type Unbounded = Stream.Stream<string | Reconnect.Gap, AuthFailed | Refused | NoProgress, Dependency>
type Bounded = Stream.Stream<string | Reconnect.Gap, AuthFailed | Refused | NoProgress | Exhausted, Dependency>

describe("Reconnect.stream", () => {
  test("an unbounded policy, which is the default, leaves nothing of Transient", () => {
    expect(Reconnect.stream(connect)).type.toBe<Unbounded>()
    expect(Reconnect.stream(connect, {})).type.toBe<Unbounded>()
    expect(Reconnect.stream(connect, options)).type.toBe<Unbounded>()
    expect(Reconnect.stream(connect, { policy: Backoff.streams })).type.toBe<Unbounded>()
    expect(Reconnect.stream(connect, { ...options, policy: Backoff.hatchetStreams })).type.toBe<Unbounded>()
  })

  test("a bounded one adds Exhausted", () => {
    expect(Reconnect.stream(connect, { policy: Reconnect.bounded(Backoff.synchronous) })).type.toBe<Bounded>()
    expect(Reconnect.stream(connect, { ...options, policy: Reconnect.bounded(Backoff.make({ elapsed: 1000 })) })).type
      .toBe<Bounded>()
  })

  test("one that may be either counts as bounded, and has to be", () => {
    expect(Reconnect.stream(connect, { policy: Reconnect.bounded(unknownBound) })).type.toBe<Bounded>()
    expect(Reconnect.stream).type.not.toBeCallableWith(connect, { policy: unknownBound })
  })

  test("the scope of each connection is provided, everything else is asked for", () => {
    expect<Stream.Services<ReturnType<typeof Reconnect.stream<string, number, Scope.Scope>>>>().type.toBe<never>()
    expect<Stream.Services<Unbounded>>().type.toBe<Dependency>()
  })

  test("values and cursors are inferred from the transport, notices do not reach the reader", () => {
    const stream = Reconnect.stream((dial: Reconnect.Dial<number>) =>
      Effect.succeed(Stream.make({ value: "a", cursor: dial.attempt }, { notice: "Gap" as const }))
    )
    expect(stream).type.toBe<Stream.Stream<"a" | Reconnect.Gap, AuthFailed | Refused | NoProgress>>()
  })
})

describe("what a transport may do", () => {
  test("fail in five ways, and no other", () => {
    expect<Reconnect.Failure>().type.toBe<Transient | Inconclusive | AuthFailed | Refused | Stop>()
    expect(Reconnect.stream).type.not.toBeCallableWith(() => Effect.fail("text"))
    expect(Reconnect.stream).type.not.toBeCallableWith(() => Effect.succeed(Stream.fail("text")))
  })

  test("yield frames and notices, and no other", () => {
    expect(Reconnect.stream).type.not.toBeCallableWith(() => Effect.succeed(Stream.make("text")))
    expect(Reconnect.stream).type.not.toBeCallableWith(() => Effect.succeed(Stream.make({ notice: "Other" as const })))
  })
})

describe("options", () => {
  test("the cursor is the transport's", () => {
    expect(Reconnect.stream(connect, { cursor: 7 })).type.toBe<Unbounded>()
    expect(Reconnect.stream).type.not.toBeCallableWith(connect, { cursorStore: Reconnect.cursorStore(kept, "key") })
    expect(Reconnect.cursorStore(kept, "key")).type.toBe<Reconnect.CursorStore<string>>()
  })

  test("a handle", () => {
    expect(Reconnect.makeHandle).type.toBe<Effect.Effect<Reconnect.Handle>>()
    expect<Reconnect.Handle["status"]>().type.toBe<SubscriptionRef.SubscriptionRef<Reconnect.Status>>()
    expect<Reconnect.Status["_tag"]>().type.toBe<"Connecting" | "Open" | "Waiting" | "Paused" | "Closed">()
  })
})
