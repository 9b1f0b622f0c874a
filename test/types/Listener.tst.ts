// What those who subscribe, wait and send through a listener can fail with, and what a connection may be.
import type { AuthFailed, Closed, Exhausted, NoProgress, Refused } from "effect-lifeline/LifelineError"
import * as Listener from "effect-lifeline/Listener"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import { describe, expect, test } from "tstyche"

interface Message {
  readonly id: number
}
interface Dependency {
  readonly dependency: "dependency"
}
interface Other {
  readonly other: "other"
}

declare const listener: Listener.Listener<string, Message, Uint8Array>
declare const connect: (
  dial: Listener.Dial<"v1" | "v2">
) => Effect.Effect<Listener.Connection<Message, Uint8Array>, Reconnect.Failure, Dependency | Scope.Scope>
declare const subscribe: (key: string) => Uint8Array
declare const poll: Effect.Effect<Message | undefined, "unary", Other>

type Waits = Closed | AuthFailed | Refused | NoProgress | Exhausted
type Lasts = Closed | AuthFailed | Refused | NoProgress

describe("a listener", () => {
  test("subscribing waits within bounds, and says how it can fail", () => {
    expect(listener.subscribe("a")).type.toBe<Effect.Effect<Listener.Subscription<Message>, Waits, Scope.Scope>>()
    expect(listener.subscribe).type.not.toBeCallableWith(1)
    expect(listener.subscribe).type.not.toBeCallableWith("a", { overflow: "other" })
  })

  test("what is subscribed lasts: nothing of Exhausted is left", () => {
    expect<Listener.Subscription<Message>["messages"]>().type.toBe<Stream.Stream<Message, Lasts | Listener.Lagged>>()
    expect<Listener.Ended>().type.toBe<Lasts>()
  })

  test("awaiting one message, with what polling adds", () => {
    expect(listener.await("a")).type.toBe<Effect.Effect<Message, Waits>>()
    expect(listener.await("a", { filter: (message) => message.id > 1 })).type.toBe<
      Effect.Effect<Message, Waits>
    >()
    expect(listener.await("a", { fallback: Listener.poll(poll, "1 second") })).type.toBe<
      Effect.Effect<Message, Waits | "unary", Other>
    >()
    expect(listener.await).type.not.toBeCallableWith("a", { fallback: Listener.poll(Effect.succeed("text")) })
  })

  test("sending, closing, beats and status", () => {
    expect(listener.send(new Uint8Array())).type.toBe<Effect.Effect<void, Waits>>()
    expect(listener.send).type.not.toBeCallableWith("text")
    expect(listener.close).type.toBe<Effect.Effect<void>>()
    expect(Listener.heartbeat(listener)("missed")).type.toBe<Effect.Effect<void>>()
    expect(Listener.heartbeat(listener)).type.not.toBeCallableWith("late")
    expect(listener.status).type.toBe<SubscriptionRef.SubscriptionRef<Reconnect.Status>>()
  })
})

describe("make", () => {
  test("provides the scope of each connection, and asks for everything else", () => {
    const made = Listener.make({
      connect: Listener.versions(["v2", "v1"], connect),
      route: (message: Message) => String(message.id),
      subscribe
    })
    expect(made).type.toBe<
      Effect.Effect<Listener.Listener<string, Message, Uint8Array>, never, Dependency | Scope.Scope>
    >()
  })

  test("a version that the connection does not know is none", () => {
    expect(Listener.versions).type.not.toBeCallableWith(["v3"], connect)
    expect(Listener.make).type.not.toBeCallableWith({
      connect,
      route: (message: Message) => String(message.id),
      subscribe
    })
  })

  test("a WebSocket is a connection as it is", () => {
    const made = Listener.make({
      connect: WebSocket.open({ url: "wss://feed.example" }),
      route: (message: string) => message,
      subscribe: (key: string) => key
    })
    expect(made).type.toBe<Effect.Effect<Listener.Listener<string, string, string>, never, Scope.Scope>>()
  })

  test("keys are what a map tells apart", () => {
    expect(Listener.make).type.not.toBeCallableWith({
      connect: Listener.versions(["v2", "v1"], connect),
      route: (message: Message) => message,
      subscribe: (_key: Message) => new Uint8Array()
    })
  })
})
