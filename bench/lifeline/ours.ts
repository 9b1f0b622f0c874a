// One side of the comparison: lifelines over Pulse and fetch. With the argument "defaults" they also verify, as they come.
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import { instances, side, startsIn } from "./work.ts"

const heartbeat = process.argv.includes("defaults") ? {} : { verifyEvery: 0 }

side((work) =>
  new Promise((resolve, reject) => {
    const begun = performance.now()
    Effect.forEach(
      instances(work.count),
      (instance, index) =>
        Effect.suspend(() =>
          Effect.delay(
            Lifeline.make({ instance, startup: "await", heartbeat: { ...heartbeat, interval: work.interval } }),
            startsIn(work, begun, index)
          )
        ),
      { concurrency: work.concurrency }
    ).pipe(
      Effect.flatMap((lifelines) => {
        resolve(lifelines)
        return Effect.never
      }),
      Effect.scoped,
      Effect.provide(
        Pulse.layer({ url: work.url, apiKey: Redacted.make(work.apiKey) }).pipe(Layer.provide(FetchHttpClient.layer))
      ),
      // Ten thousand lines "registered" are not what is measured.
      Effect.provideService(References.MinimumLogLevel, "Warn"),
      Effect.tapCause((cause) => Effect.sync(() => reject(cause))),
      Effect.runFork
    )
  })
)
