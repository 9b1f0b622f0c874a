// What a control channel can end with, by what `reconnect` is; and what a handshake may fail with.
import * as Backoff from "effect-lifeline/Backoff"
import * as Bore from "effect-lifeline/Bore"
import * as ControlChannel from "effect-lifeline/ControlChannel"
import type { FrameError } from "effect-lifeline/Framing"
import type {
  AuthFailed,
  Closed,
  Exhausted,
  Inconclusive,
  NoProgress,
  Refused,
  Stop,
  Transient
} from "effect-lifeline/LifelineError"
import type { Overflow } from "effect-lifeline/WebSocket"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import type * as SocketServer from "effect/socket/SocketServer"
import type * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"

interface Dependency {
  readonly dependency: "dependency"
}
interface Me {
  readonly name: string
}

declare const options: ControlChannel.Options<string, Uint8Array, Me>
declare const open: Effect.Effect<Socket.Socket, Error, Dependency | Scope.Scope>
declare const policy: Backoff.Policy

type Kept<E> = Effect.Effect<ControlChannel.ControlChannel<string, Uint8Array, Me, E>, never, Scope.Scope>

describe("the end of a channel", () => {
  test("by default: Transient, Exhausted and Disconnected are gone", () => {
    expect(ControlChannel.make(options)).type.toBe<Kept<AuthFailed | Refused | NoProgress>>()
    expect(ControlChannel.make({ ...options, reconnect: Backoff.boreControl })).type.toBe<
      Kept<AuthFailed | Refused | NoProgress>
    >()
  })

  test("with a bound, or one that is not known: Exhausted", () => {
    type Bounded = Kept<AuthFailed | Refused | NoProgress | Exhausted>
    expect(ControlChannel.make({ ...options, reconnect: Backoff.synchronous })).type.toBe<Bounded>()
    expect(ControlChannel.make({ ...options, reconnect: policy })).type.toBe<Bounded>()
  })

  test("reconnect: false is Disconnected, and nothing of trying again", () => {
    expect(ControlChannel.make({ ...options, reconnect: false })).type.toBe<
      Kept<AuthFailed | Refused | ControlChannel.Disconnected>
    >()
  })

  test("is in what waits for it", () => {
    type Channel = ControlChannel.ControlChannel<string, Uint8Array, Me, AuthFailed | Refused>
    type Ended = AuthFailed | Refused | Closed
    expect<Channel["session"]>().type.toBe<Effect.Effect<Me, Ended>>()
    expect<Channel["messages"]>().type.toBe<Stream.Stream<string, Ended>>()
    expect<ReturnType<Channel["send"]>>().type.toBe<Effect.Effect<void, Ended | Overflow | FrameError>>()
    expect<Channel["close"]>().type.toBe<Effect.Effect<void>>()
  })
})

describe("a handshake", () => {
  test("fails with what says what to do, and not with Stop", () => {
    expect<ControlChannel.Failure>().type.toBe<Transient | Inconclusive | AuthFailed | Refused>()
    expect<ReturnType<typeof options.handshake>>().type.toBe<Effect.Effect<Me, ControlChannel.Failure>>()
    expect<Effect.Effect<Me, Stop>>().type.not.toBeAssignableTo<ReturnType<typeof options.handshake>>()
  })

  test("is told the session of before", () => {
    expect<Parameters<typeof options.handshake>[0]["previous"]>().type.toBe<Me | undefined>()
  })
})

describe("what it needs", () => {
  test("the scope of each connection is provided, the rest is asked for", () => {
    expect(ControlChannel.make({ ...options, open })).type.toBe<
      Effect.Effect<
        ControlChannel.ControlChannel<string, Uint8Array, Me, AuthFailed | Refused | NoProgress>,
        never,
        Dependency | Scope.Scope
      >
    >()
  })

  test("as a layer there is no scope to give", () => {
    type Channel = ControlChannel.ControlChannel<string, Uint8Array, Me, AuthFailed | Refused | NoProgress>
    const key = {} as Context.Key<"key", Channel>
    expect(ControlChannel.layer(key, ControlChannel.make({ ...options, open }))).type.toBe<
      Layer.Layer<"key", never, Dependency>
    >()
    expect(ControlChannel.layer).type.not.toBeCallableWith(key, ControlChannel.make({ ...options, reconnect: false }))
  })
})

describe("the other side", () => {
  interface Client {
    readonly identity: string
    readonly name: string
  }
  const served = {} as ControlChannel.ServeOptions<string, Uint8Array, Client, Dependency | Scope.Scope>

  test("asks for what its handshake and handler need, and gives each connection a scope", () => {
    expect(ControlChannel.makeServer(served)).type.toBe<
      Effect.Effect<ControlChannel.Server<Client>, Refused, Dependency | Scope.Scope>
    >()
    expect(ControlChannel.serve(served)).type.toBe<
      Effect.Effect<
        ControlChannel.Server<Client>,
        Refused,
        Dependency | Scope.Scope | SocketServer.SocketServer
      >
    >()
  })

  test("needs somebody to be", () => {
    expect<{ readonly identity: undefined }>().type.toBeAssignableTo<ControlChannel.Identified>()
    expect<{ readonly name: string }>().type.not.toBeAssignableTo<ControlChannel.Identified>()
  })

  test("ends in the algebra", () => {
    type Connection = ControlChannel.Connection<string, Uint8Array, Client>
    expect<ControlChannel.Ending>().type.toBe<Transient | Inconclusive | AuthFailed | Refused | Closed>()
    expect<Connection["messages"]>().type.toBe<Stream.Stream<string, ControlChannel.Ending>>()
    expect<ReturnType<Connection["send"]>>().type.toBe<
      Effect.Effect<void, ControlChannel.Ending | Overflow | FrameError>
    >()
    expect<ReturnType<typeof served.handshake>>().type.toBe<
      Effect.Effect<Client, ControlChannel.Failure, Dependency | Scope.Scope>
    >()
  })
})

describe("bore", () => {
  test("ends as any channel, by what reconnect is", () => {
    type Bored<E> = Effect.Effect<
      ControlChannel.ControlChannel<Bore.ServerMessage, Bore.ClientMessage, Bore.Session, E>,
      never,
      Dependency | Scope.Scope
    >
    expect(Bore.make({ open })).type.toBe<Bored<AuthFailed | Refused | NoProgress>>()
    expect(Bore.make({ open, reconnect: false })).type.toBe<Bored<AuthFailed | Refused | ControlChannel.Disconnected>>()
    expect(Bore.make({ open, reconnect: policy })).type.toBe<Bored<AuthFailed | Refused | NoProgress | Exhausted>>()
  })
})
