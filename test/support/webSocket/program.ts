/** What a WebSocket must do on each runtime, against the server of `test/WebSocket.runtimes.test.ts`. */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as Backoff from "../../../src/Backoff.ts"
import type * as Reconnect from "../../../src/Reconnect.ts"
import * as WebSocket from "../../../src/WebSocket.ts"

const dial: Reconnect.Dial<never> = { cursor: undefined, attempt: 1, generation: 1 }

const tags = (error: Reconnect.Failure): string => "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag

/** How opening ends, or else the connection. */
const outcome = (url: string, credential: WebSocket.Credential) =>
  Effect.scoped(
    Effect.flatMap(
      WebSocket.open({ url, credential: WebSocket.perDial(() => Effect.succeed(credential)) })(dial),
      ({ messages }) => Stream.runDrain(messages)
    )
  ).pipe(Effect.match({ onFailure: tags, onSuccess: () => "an end" }))

export interface Report {
  readonly echoed: ReadonlyArray<string>
  readonly protocol: string
  /** What came over two connections, of which the first was reset. */
  readonly survived: ReadonlyArray<string>
  readonly withHeaders: string
  readonly closed: string
  readonly refused: string
  readonly away: string
}

export const program = (url: string): Effect.Effect<Report> =>
  Effect.gen(function*() {
    const { echoed, protocol } = yield* Effect.scoped(Effect.gen(function*() {
      const connection = yield* WebSocket.open<never, "any">({
        url: Redacted.make(`${url}?ticket=t1`),
        credential: WebSocket.perDial(() => Effect.succeed({ first: Redacted.make("first") })),
        protocols: ["v1"],
        frames: "any"
      })(dial)
      yield* connection.send("größe")
      yield* connection.send(Uint8Array.of(0, 255, 1))
      const messages = yield* Stream.runCollect(Stream.take(connection.messages, 3))
      return { echoed: messages.map(String), protocol: connection.protocol }
    })).pipe(Effect.orDie)
    let connected: WebSocket.Connection | undefined
    const survived = yield* WebSocket.stream({
      url: WebSocket.perDial((dial: Reconnect.Dial<string>) => Effect.succeed(`${url}?after=${dial.cursor ?? 0}`)),
      cursorOf: (message) => message.split(" ")[0],
      onOpen: (connection) =>
        Effect.sync(() => {
          connected = connection
        }),
      policy: Backoff.make({ base: 250, cap: 500 })
    }).pipe(
      // Only now does the server break the connection off.
      Stream.tap((message) => message === "2 b" ? Effect.exit(connected?.send("break") ?? Effect.void) : Effect.void),
      Stream.take(3),
      Stream.runCollect,
      Effect.orDie
    )
    return {
      echoed,
      protocol,
      survived: survived.map(String),
      withHeaders: yield* outcome(`${url}?close=4000`, { headers: { "x-api-key": Redacted.make("k1") } }),
      closed: yield* outcome(`${url}?close=4403`, {}),
      refused: yield* outcome(`${url}?refuse=401`, {}),
      away: yield* outcome("ws://127.0.0.1:1/", {})
    }
  }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
