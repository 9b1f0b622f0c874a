// Ours, one effect for each event, as a program would use it.
import * as EventSource from "effect-lifeline/EventSource"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Stream from "effect/Stream"
import { contender } from "./work.ts"

contender((url, onData) =>
  EventSource.stream(url).pipe(
    Stream.runForEach((event) =>
      Effect.sync(() => {
        if (event._tag === "Event") onData(event.data)
      })
    ),
    Effect.provide(FetchHttpClient.layer),
    Effect.runFork
  )
)
