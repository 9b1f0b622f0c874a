/** Waits for three runs at once, and says what becomes of the connection meanwhile. */
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Client from "./client.ts"

const settings = Config.all({
  url: Config.String("URL").pipe(Config.withDefault("http://127.0.0.1:7070")),
  token: Config.option(Config.Redacted("TOKEN"))
}).pipe(Config.nested("DISPATCHER"))

const program = Effect.gen(function*() {
  const runs = yield* Client.Runs
  yield* SubscriptionRef.changes(runs.status).pipe(
    Stream.map(({ _tag }) => _tag),
    Stream.changes,
    Stream.runForEach((status) => Console.log(`connection: ${status}`)),
    Effect.forkChild({ startImmediately: true })
  )
  yield* Effect.forEach(
    ["run-1", "run-2", "run-3"],
    (runId) => Effect.flatMap(runs.result(runId), (result) => Console.log(`${runId}: ${result}`)),
    { concurrency: "unbounded" }
  )
})

const main = Effect.flatMap(
  settings,
  ({ token, url }) => Effect.provide(program, Client.layer({ url, token: Option.getOrUndefined(token) }))
)

process.exitCode = await Effect.runPromise(Effect.match(main, {
  onSuccess: () => 0,
  onFailure: (error) => {
    console.error(error.message)
    return 1
  }
}))
