/**
 * What following events must do on each runtime, against the server of `test/streams/runtimes.test.ts`. It imports the
 * package by its public names: as a process it runs the build, in a bundle the sources.
 */
import * as Backoff from "effect-lifeline/Backoff"
import * as EventSource from "effect-lifeline/EventSource"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"

export interface Followed {
  /** Each event as its id and its data. */
  readonly events: ReadonlyArray<string>
  readonly ended: string
}

const policy = Backoff.make({ base: 250, cap: 500 })

export interface Report {
  readonly followed: { readonly [path: string]: Followed }
  /** Which answers the server still has to write to although they were left, while the program still runs. */
  readonly stillOpen: ReadonlyArray<string>
}

export const program = (url: string): Effect.Effect<Report> => {
  /** Follows until so many events came, or the stream ends before; `onEvent` is part of handling each. */
  const follow = (
    path: string,
    options: EventSource.Options & { readonly take?: number; readonly onEvent?: (id: string | undefined) => void } = {}
  ) =>
    Effect.suspend(() => {
      const events: Array<string> = []
      return EventSource.stream(`${url}/${path}`, {
        policy,
        headers: { "x-api-key": Redacted.make("k1") },
        ...options
      }).pipe(
        Stream.take(options.take ?? 100),
        Stream.runForEach((event) =>
          Effect.sync(() => {
            const id = event._tag === "Gap" ? "gap" : event.id
            events.push(`${id} ${event._tag === "Gap" ? "" : event.data}`)
            options.onEvent?.(id)
          })
        ),
        Effect.match({
          onSuccess: () => "end",
          onFailure: (error) => "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag
        }),
        Effect.map((ended) => ({ events, ended }))
      )
    })

  return Effect.gen(function*() {
    const followed = {
      resumed: yield* follow("resumed", {
        take: 4,
        // Only now does the server break the connection off.
        onEvent: (id) => {
          if (id === "2") void fetch(`${url}/break`).then((response) => response.text())
        }
      }),
      silent: yield* follow("silent", { take: 2, idleTimeout: "800 millis" }),
      unanswered: yield* follow("unanswered", { take: 1, connectTimeout: "800 millis" }),
      stopped: yield* follow("stopped"),
      unauthorized: yield* follow("unauthorized"),
      page: yield* follow("page"),
      gzip: yield* follow("gzip", { take: 1 }),
      moved: yield* follow("moved", { take: 1 }),
      endless: yield* follow("endless", { take: 1 })
    }
    const stillOpen = yield* Effect.promise(async () => (await fetch(`${url}/left`)).json())
    return { followed, stillOpen }
  }).pipe(Effect.provide(FetchHttpClient.layer), Effect.provideService(References.MinimumLogLevel, "None"))
}
