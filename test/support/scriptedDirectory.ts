/**
 * A directory whose answers and changes are scripted, for tests in virtual time: it records every read and every connection,
 * answers each read from a queue and then with what is in `services`, and has one connection at a time to say something on.
 */
import * as Directory from "effect-lifeline/Directory"
import * as Errors from "effect-lifeline/LifelineError"
import type * as Reconnect from "effect-lifeline/Reconnect"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

type Service = ServiceInstance.RegisteredService
type ReadError = Errors.Transient | Errors.AuthFailed | Errors.Refused

/** How one read goes: with these services, with an error, or as it was when it began but only when the deferred is done. */
export type Answer =
  | ReadonlyArray<Service>
  | ReadError
  | { readonly when: Deferred.Deferred<void>; readonly then: ReadonlyArray<Service> | ReadError }
  | { readonly defect: unknown }

export type Item = Reconnect.Frame<Directory.Change, string> | Reconnect.Notice<string>

export const at = (operation: string): Errors.Attempted => ({ operation, target: "http://registry.test" })

export const unavailable = (operation = "discover"): Errors.Transient =>
  new Errors.Transient({ ...at(operation), reason: new Errors.Unavailable({ status: 503 }) })
export const unauthorized = (operation = "discover"): Errors.AuthFailed =>
  new Errors.AuthFailed({ ...at(operation), reason: new Errors.Unauthorized({}) })
export const notFound = (operation = "changes"): Errors.Refused =>
  new Errors.Refused({ ...at(operation), reason: new Errors.NotFound({}) })
export const malformed = (operation = "discover"): Errors.Refused =>
  new Errors.Refused({ ...at(operation), reason: new Errors.MalformedResponse({ detail: "text/html" }) })

export const service = (id: string, more: Partial<Service> = {}): Service => ({
  id,
  name: id,
  type: "worker",
  apiUrl: `http://${id}:1`,
  status: "online",
  capabilities: [],
  ...more
})

export const make = (options: {
  readonly watch?: Directory.Capabilities["watch"] | undefined
  readonly credentialChanges?: Stream.Stream<void> | undefined
} = {}) => {
  const state = {
    /** What the registry has. */
    services: [] as ReadonlyArray<Service>,
    reads: [] as Array<Directory.Query>,
    /** Answers reads that nothing else is scripted for. */
    respond: undefined as undefined | ((query: Directory.Query) => Effect.Effect<ReadonlyArray<Service>, ReadError>),
    /** The dials, with where each was to resume. */
    dials: [] as Array<string | undefined>,
    /** Connections that are open now. */
    open: 0,
    /** What the next reads are answered with. */
    answers: [] as Array<Answer>,
    /** What the next dials fail with, or never come back from. */
    refusals: [] as Array<Reconnect.Failure | "hang">
  }
  let current: Queue.Queue<Item, Reconnect.Failure | Cause.Done> | undefined

  const settle = (answer: ReadonlyArray<Service> | ReadError, query: Directory.Query) =>
    "_tag" in answer ? Effect.fail(answer) : Effect.succeed(answer.filter((it) => Directory.matches(query, it)))

  const directory: Directory.Directory["Service"] = {
    capabilities: {
      adapter: "scripted",
      target: "http://registry.test",
      enabled: true,
      watch: options.watch ?? "push",
      browser: "any"
    },
    credentialChanges: options.credentialChanges,
    discover: (query) =>
      Effect.suspend(() => {
        state.reads.push(query)
        const answer = state.answers.shift()
        if (answer === undefined) return state.respond?.(query) ?? settle(state.services, query)
        if ("defect" in answer) return Effect.die(answer.defect)
        return "when" in answer
          ? Effect.flatMap(Deferred.await(answer.when), () => settle(answer.then, query))
          : settle(answer, query)
      }),
    changes: ({ cursor }) =>
      Effect.gen(function*() {
        state.dials.push(cursor)
        const refusal = state.refusals.shift()
        if (refusal === "hang") return yield* Effect.never
        if (refusal !== undefined) return yield* Effect.fail(refusal)
        const queue = yield* Queue.unbounded<Item, Reconnect.Failure | Cause.Done>()
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            state.open++
            current = queue
          }),
          () =>
            Effect.sync(() => {
              state.open--
            })
        )
        return Stream.fromQueue(queue)
      })
  }

  return {
    state,
    layer: Layer.succeed(Directory.Directory, directory),
    /** Says something on the connection. */
    say: (...items: ReadonlyArray<Item>) =>
      Effect.sync(() => {
        if (current !== undefined) Queue.offerAllUnsafe(current, items)
      }),
    tell: (...changes: ReadonlyArray<Directory.Change>) =>
      Effect.sync(() => {
        if (current !== undefined) Queue.offerAllUnsafe(current, changes.map((value) => ({ value })))
      }),
    /** Ends the connection, with an error or without. */
    drop: (error?: Reconnect.Failure) =>
      Effect.sync(() => {
        if (current === undefined) return
        if (error === undefined) Queue.endUnsafe(current)
        else Queue.failCauseUnsafe(current, Cause.fail(error))
      })
  }
}
