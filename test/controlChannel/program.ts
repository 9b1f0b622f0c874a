/**
 * What a control connection must do on each runtime, against the server of `runtimes.test.ts`: a client of bore that says what
 * it met. It imports the package by its public names: as a process it runs the build, in a bundle the sources.
 */
import * as Backoff from "effect-lifeline/Backoff"
import * as Bore from "effect-lifeline/Bore"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"

/** How each runtime opens a connection to a port of loopback. */
export type Open = (port: number) => Effect.Effect<Socket.Socket>

/** Where the server is, behind what breaks connections, and where nobody is. */
export interface Ports {
  readonly server: number
  readonly nobody: number
}

export interface Report {
  /** The port of the first session, and of the last. */
  readonly port: readonly [number, number]
  readonly messages: ReadonlyArray<string>
  /** How connections with a session ended. */
  readonly lost: ReadonlyArray<string>
  readonly wrongSecret: string
  readonly nobody: string
}

const tags = (error: { readonly _tag: string; readonly reason?: unknown }) => {
  const { reason } = error as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error._tag : `${error._tag}.${reason._tag}`
}

/** How it ends where nothing is tried again. */
const outcome = (open: Effect.Effect<Socket.Socket>, secret: string) =>
  Effect.scoped(
    Effect.flatMap(
      Bore.make({ open, secret: Redacted.make(secret), reconnect: false }),
      ({ session }) => Effect.flip(session)
    )
  ).pipe(
    Effect.map((error) => error._tag === "Disconnected" ? `Disconnected ${tags(error.last)}` : tags(error)),
    Effect.catch((session) => Effect.succeed(`port ${session.port}`))
  )

/** Three connections come to its port, and it accepts each; after the first and the second one the server fails. */
export const program = (open: Open, ports: Ports): Effect.Effect<Report> =>
  Effect.gen(function*() {
    const channel = yield* Bore.make({
      open: open(ports.server),
      secret: Redacted.make("open sesame"),
      // Comes back soon. All else as it is by default, the 8 seconds of silence too.
      reconnect: Backoff.make({ base: 100, cap: 500, floor: 50 })
    })
    const lost: Array<string> = []
    yield* Effect.forkScoped(
      Stream.runForEach(channel.events, (event) =>
        Effect.sync(() => {
          if (event._tag === "Lost") lost.push(tags(event.cause))
        })),
      { startImmediately: true }
    )
    const first = yield* channel.session
    const messages = yield* channel.messages.pipe(
      Stream.take(3),
      Stream.tap((message) =>
        typeof message === "object" && "Connection" in message
          ? channel.send({ Accept: message.Connection })
          : Effect.void
      ),
      Stream.map((message) => JSON.stringify(message)),
      Stream.runCollect
    )
    const last = yield* channel.session
    yield* channel.close
    return {
      port: [first.port, last.port] as const,
      messages,
      lost,
      wrongSecret: yield* outcome(open(ports.server), "another"),
      nobody: yield* outcome(open(ports.nobody), "open sesame")
    }
  }).pipe(Effect.scoped, Effect.orDie, Effect.provideService(References.MinimumLogLevel, "None"))
