/** The dispatcher as a process. Each run takes its time from when it is first asked for; nothing is kept over a restart. */
import { Code } from "@connectrpc/connect"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Server from "./server.ts"

const settings = Config.all({
  port: Config.Int("PORT").pipe(Config.withDefault(7070)),
  /** What callers must show. */
  token: Config.option(Config.Redacted("TOKEN")),
  /** Only V1 of the protocol. */
  old: Config.Boolean("OLD").pipe(Config.withDefault(false)),
  /** How long the first run takes; the second one takes twice as long, and so on. */
  run: Config.Duration("RUN").pipe(Config.withDefault(Duration.seconds(2))),
  /** How often it is drained from when it is first asked for a run: in turns cleanly and with UNAVAILABLE. */
  drain: Config.Duration("DRAIN").pipe(Config.withDefault(Duration.millis(2500)))
}).pipe(Config.nested("DISPATCHER"))

const program = Effect.gen(function*() {
  const { drain, old, port, run, token } = yield* settings
  const asked = yield* Deferred.make<void>()
  let runs = 0
  const server = yield* Server.make({
    port,
    token: Option.getOrUndefined(token),
    methods: old ? ["listen"] : ["listen", "listenV2"],
    work: (runId) =>
      Effect.suspend(() => {
        Deferred.doneUnsafe(asked, Effect.void)
        const takes = Duration.times(run, ++runs)
        return Effect.as(Effect.sleep(takes), `took ${Duration.format(takes)}`)
      }).pipe(Effect.tap(Console.log(`${runId} is done`)))
  })
  yield* Console.log(`dispatcher at ${server.url}`)
  yield* Deferred.await(asked)
  return yield* Effect.forEach(["end", Code.Unavailable] as const, (how) =>
    Effect.sleep(drain).pipe(
      Effect.andThen(Effect.suspend(() => Console.log(`drained, pending: ${server.subscriptions().join(", ")}`))),
      Effect.andThen(server.drain(how))
    )).pipe(Effect.forever)
}).pipe(Effect.scoped)

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort())
const exit = await Effect.runPromiseExit(program, { signal: stop.signal })
if (Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
  console.error(Cause.pretty(exit.cause))
  process.exitCode = 1
}
