// What is left in the error type of an event stream and of a stream of WebSocket messages, and what they ask of their caller.
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import type { AuthFailed, Closed, Exhausted, NoProgress, Refused, Transient } from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import type * as HttpClient from "effect/http/HttpClient"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import type * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"

interface Dependency {
  readonly dependency: "dependency"
}

type Final = AuthFailed | Refused | NoProgress

declare const unknownBound: Backoff.Policy

describe("EventSource.stream", () => {
  type Events<E, R = HttpClient.HttpClient> = Stream.Stream<EventSource.Event | Reconnect.Gap, E, R>
  const url = "http://pulse:9696/api/v1/events"

  test("an unbounded policy, which is the default, leaves nothing of Transient", () => {
    expect(EventSource.stream(url)).type.toBe<Events<Final>>()
    expect(EventSource.stream(new URL(url), {})).type.toBe<Events<Final>>()
    expect(EventSource.stream(url, { method: EventSource.post(), idleTimeout: "1 minute" })).type.toBe<Events<Final>>()
    expect(EventSource.stream(url, { policy: Backoff.streams })).type.toBe<Events<Final>>()
    expect(EventSource.stream(url, { policy: Backoff.hatchetStreams })).type.toBe<Events<Final>>()
  })

  test("a bounded one, and one that may be either, add Exhausted", () => {
    expect(EventSource.stream(url, { policy: Reconnect.bounded(Backoff.synchronous) })).type.toBe<
      Events<Final | Exhausted>
    >()
    expect(EventSource.stream(url, { policy: Reconnect.bounded(Backoff.make({ attempts: 3 })) })).type.toBe<
      Events<Final | Exhausted>
    >()
    expect(EventSource.stream(url, { policy: Reconnect.bounded(unknownBound) })).type.toBe<Events<Final | Exhausted>>()
  })

  test("asks for what its headers ask for; the scope of each connection is provided", () => {
    const headers = Effect.gen(function*() {
      yield* Effect.scope
      return { "x-api-key": yield* key }
    })
    expect(EventSource.stream(url, { headers })).type.toBe<Events<Final, HttpClient.HttpClient | Dependency>>()
  })

  test("headers fail in the algebra, not otherwise", () => {
    expect(EventSource.stream<never>).type.not.toBeCallableWith(url, { headers: Effect.fail("text") })
  })

  test("the cursor is a text", () => {
    expect(EventSource.stream(url, { cursor: "7" })).type.toBe<Events<Final>>()
    expect(EventSource.stream).type.not.toBeCallableWith(url, { cursor: 7 })
  })
})

declare const key: Effect.Effect<Redacted.Redacted, Transient, Dependency>

describe("WebSocket.stream", () => {
  type Messages<A, E, R = never> = Stream.Stream<A | Reconnect.Gap, E, R>
  const url = "wss://feed.example/live"

  test("an unbounded policy, which is the default, leaves nothing of Transient", () => {
    expect(WebSocket.stream({ url })).type.toBe<Messages<string, Final>>()
    expect(WebSocket.stream({ url, policy: Backoff.streams })).type.toBe<Messages<string, Final>>()
  })

  test("a bounded one, and one that may be either, add Exhausted", () => {
    expect(WebSocket.stream({ url, policy: Reconnect.bounded(Backoff.synchronous) })).type.toBe<
      Messages<string, Final | Exhausted>
    >()
    expect(WebSocket.stream({ url, policy: Reconnect.bounded(unknownBound) })).type.toBe<
      Messages<string, Final | Exhausted>
    >()
  })

  test("its messages are of the kind that is due", () => {
    expect(WebSocket.stream({ url, frames: "binary" })).type.toBe<Messages<Uint8Array, Final>>()
    expect(WebSocket.stream({ url, frames: "any" })).type.toBe<Messages<string | Uint8Array, Final>>()
  })

  test("URL and credential may fail with anything, and ask for something", () => {
    const stream = WebSocket.stream({
      url: WebSocket.perDial(() => Effect.fail("text")),
      credential: WebSocket.perDial(() => Effect.map(key, (first) => ({ first })))
    })
    expect(stream).type.toBe<Messages<string, Final, Dependency>>()
  })

  test("sending fails when the connection ends, is closing, or is full", () => {
    expect<Effect.Error<ReturnType<WebSocket.Connection["send"]>>>().type.toBe<
      Reconnect.Failure | WebSocket.Overflow | Closed
    >()
  })

  test("any socket of effect's is a dialer", () => {
    expect(WebSocket.fromSocket).type.toBeCallableWith(
      (): Effect.Effect<Socket.Socket, "any", Scope.Scope> => Effect.never
    )
    expect<ReturnType<typeof WebSocket.fromSocket>>().type.toBe<WebSocket.Dialer>()
  })
})
