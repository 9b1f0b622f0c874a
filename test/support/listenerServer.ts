/**
 * A server that a `Listener` subscribes at, within the test: each connection knows what is subscribed on it, and goes as the
 * test tells it to. `+key` subscribes, `-key` unsubscribes, everything else is kept.
 */
import * as Errors from "effect-lifeline/LifelineError"
import type * as Listener from "effect-lifeline/Listener"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

export const at: Errors.Attempted = { operation: "listen", target: "http://server.test" }
export const transient = new Errors.Transient({ ...at, reason: new Errors.Unavailable({ status: 503 }) })
export const reset = new Errors.Transient({ ...at, reason: new Errors.Unreachable({ detail: "ECONNRESET" }) })
export const inconclusive = new Errors.Inconclusive({ ...at, detail: "UNKNOWN" })
export const unauthorized = new Errors.AuthFailed({ ...at, reason: new Errors.Unauthorized({}) })
export const malformed = new Errors.Refused({ ...at, reason: new Errors.MalformedResponse({ detail: "text/html" }) })
export const unsupported = new Errors.Refused({ ...at, reason: new Errors.Unsupported({}) })
export const stop = new Errors.Stop(at)

export interface Message {
  readonly key: string
  readonly text: string
}

export interface Connection {
  readonly number: number
  readonly version: string | undefined
  /** What is subscribed on it, as far as the server knows. */
  readonly keys: Set<string>
  readonly sent: Array<string>
  isOpen: boolean
  /** Whether our side closed it. */
  isClosed: boolean
  readonly push: (...messages: ReadonlyArray<Message>) => void
  /** Ends it: `undefined` without an error. */
  readonly end: (error?: Reconnect.Failure) => void
}

export type Send = (connection: Connection, message: string) => Effect.Effect<
  void,
  Reconnect.Failure | Errors.Closed
>

export interface Dial extends Reconnect.Dial<never> {
  readonly version?: string | undefined
}

export interface Server {
  readonly connect: (
    dial: Dial
  ) => Effect.Effect<Listener.Connection<Message, string>, Reconnect.Failure, Scope.Scope>
  readonly connections: Array<Connection>
  readonly dials: Array<number>
  /** The last connection. */
  readonly last: () => Connection
  /** What happens before a connection is there; changed as the test goes on. */
  accept: (dial: Dial) => Effect.Effect<void, Reconnect.Failure, Scope.Scope>
  /** What happens before a message counts as received. */
  send: Send
  /** What closing it takes. */
  close: Effect.Effect<void>
  /** How many connections are open at the moment, and were at most. */
  readonly open: () => number
  readonly mostOpen: () => number
}

export const make = (): Server => {
  let open = 0
  let mostOpen = 0
  const server: Server = {
    connections: [],
    dials: [],
    open: () => open,
    mostOpen: () => mostOpen,
    accept: () => Effect.void,
    send: () => Effect.void,
    close: Effect.void,
    last: () => {
      const last = server.connections.at(-1)
      if (last === undefined) throw new Error("there is no connection")
      return last
    },
    connect: Effect.fnUntraced(function*(dial) {
      server.dials.push(yield* Clock.currentTimeMillis)
      yield* server.accept(dial)
      const incoming = yield* Queue.unbounded<Message, Reconnect.Failure | Cause.Done>()
      const connection: Connection = {
        number: server.connections.length + 1,
        version: dial.version,
        keys: new Set(),
        sent: [],
        isOpen: true,
        isClosed: false,
        push: (...messages) => {
          Queue.offerAllUnsafe(incoming, messages)
        },
        end: (error) => {
          connection.isOpen = false
          if (error === undefined) Queue.endUnsafe(incoming)
          else Queue.failCauseUnsafe(incoming, Cause.fail(error))
        }
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          mostOpen = Math.max(mostOpen, ++open)
          server.connections.push(connection)
        }),
        () =>
          Effect.suspend(() => {
            connection.isOpen = false
            connection.isClosed = true
            return Effect.andThen(server.close, Effect.sync(() => open--))
          })
      )
      return {
        messages: Stream.fromQueue(incoming),
        send: (message) =>
          Effect.andThen(
            Effect.suspend(() => server.send(connection, message)),
            Effect.sync(() => {
              connection.sent.push(message)
              if (message.startsWith("+")) connection.keys.add(message.slice(1))
              if (message.startsWith("-")) connection.keys.delete(message.slice(1))
            })
          )
      }
    })
  }
  return server
}

/** How a listener of strings speaks to this server. */
export const protocol = {
  route: (message: Message) => message.key,
  subscribe: (key: string) => `+${key}`,
  unsubscribe: (key: string) => `-${key}`
}
