/**
 * The runs of a dispatcher, for whoever waits for them: any number of waits, one connection.
 *
 * What happens to that connection is `Listener`'s business. A dispatcher that is deployed anew, crashes or is away for an hour
 * makes a result late; it never makes a wait hang, or fail, unless there is nothing left to wait for.
 */
import type { AuthFailed, Closed, Exhausted, NoProgress, Refused } from "effect-lifeline/LifelineError"
import * as Listener from "effect-lifeline/Listener"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as SubscriptionRef from "effect/SubscriptionRef"
import * as Connection from "./connection.ts"
import type { Method, RunEvent } from "./protocol.ts"

/** The run itself failed: the dispatcher says so. */
export class RunFailed extends Data.TaggedError("RunFailed")<{ readonly runId: string; readonly detail: string }> {
  override get message() {
    return `the run ${this.runId} failed: ${this.detail}`
  }
}

/**
 * Why there will be no answer:
 *
 * | error | means |
 * |---|---|
 * | `AuthFailed` | the dispatcher does not accept the token; it was asked once |
 * | `Refused` | it speaks none of our versions, or does not know what we ask for |
 * | `NoProgress` | it takes connections, ten in a row, and says nothing on any |
 * | `Exhausted` | it could not be reached when we subscribed, for 5 attempts or 15 seconds: ask again, or wait longer yourself |
 * | `Closed` | this program is shutting down |
 */
export type NoAnswer = AuthFailed | Refused | NoProgress | Exhausted | Closed

const isFinal = ({ type }: RunEvent) => type === "COMPLETED" || type === "FAILED"

export class Runs extends Context.Service<Runs, {
  /** Waits for the end of a run, for however long that takes. */
  readonly result: (runId: string) => Effect.Effect<string, RunFailed | NoAnswer>
  /** What happens to a run, to its end. After a reconnect it may say again what it said before. */
  readonly events: (runId: string) => Stream.Stream<RunEvent, NoAnswer | Listener.Lagged>
  /** Where the connection stands. */
  readonly status: SubscriptionRef.SubscriptionRef<Reconnect.Status>
}>()("examples/listener/Runs") {}

export const make = (options: Connection.Options): Effect.Effect<typeof Runs.Service, never, Scope.Scope> =>
  Effect.gen(function*() {
    const listener = yield* Listener.make({
      // One connection. When to make it, and when to make it again, is decided elsewhere.
      // The newest version first: a dispatcher that answers UNIMPLEMENTED to the one is asked for the other.
      connect: Listener.versions(
        ["listenV2", "listen"],
        ({ version }: Listener.Dial<Method>) => Connection.open(options, version)
      ),
      // Whose message it is, and what makes the dispatcher send more of them, on this connection and on each later one.
      route: (event: RunEvent) => event.runId,
      subscribe: (runId: string): Connection.Request => ({ runId }),
      unsubscribe: (runId: string): Connection.Request => ({ runId, unsubscribe: true }),
      at: { operation: "listen", target: options.url }
    })

    return {
      result: (runId) =>
        listener.await(runId, { filter: isFinal }).pipe(
          Effect.flatMap(({ payload, type }) =>
            type === "COMPLETED" ? Effect.succeed(payload) : Effect.fail(new RunFailed({ runId, detail: payload }))
          )
        ),
      events: (runId) =>
        listener.subscribe(runId).pipe(
          Effect.map(({ messages }) => Stream.takeUntil(messages, isFinal)),
          Stream.unwrap
        ),
      status: listener.status
    }
  })

export const layer = (options: Connection.Options): Layer.Layer<Runs> => Layer.effect(Runs, make(options))
