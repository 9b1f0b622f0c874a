/**
 * A service of the demo: it serves a greeting, stays registered with a lifeline, and shows on the timeline what its
 * lifeline believes, as it changes.
 */
import * as Backoff from "effect-lifeline/Backoff"
import * as Discovery from "effect-lifeline/Discovery"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Hello from "./Hello.ts"
import type { Entry } from "./Timeline.ts"
import { Timeline } from "./Timeline.ts"

export interface Options {
  readonly name: string
  readonly type: string
  /** What it shares with its peers through the registry. */
  readonly ownKey: Redacted.Redacted
  readonly registry: {
    readonly url: string
    readonly apiKey: Redacted.Redacted | SubscriptionRef.SubscriptionRef<Redacted.Redacted>
  }
}

export interface Member {
  readonly name: string
  readonly status: Effect.Effect<Lifeline.Status>
  /** How it finds its peers. */
  readonly discovery: Discovery.Discovery["Service"]
  /** The waits that followed failed calls so far, in milliseconds. */
  readonly waits: ReadonlyArray<number>
}

/** How long after the last heartbeat the registry drops a service: it and the services have to agree on that. */
export const expiresAfter = "2500 millis"

/** What takes 30 seconds to minutes by default takes seconds here. */
const heartbeat = {
  interval: "1 second",
  expiresAfter,
  registering: Backoff.make({ base: "400 millis", cap: "3 seconds" }),
  failing: Backoff.make({ base: "400 millis", cap: "3 seconds" })
} as const

type Failing = Extract<Lifeline.Status, { readonly failures: number }>

const why = ({ cause }: Failing): string =>
  cause?.reason._tag === "Unreachable" ? cause.reason.detail ?? "no answer" : cause?.reason.message ?? "no answer"

/** The wait in figures, and as a bar that can be seen to grow. */
const showWait = (millis: number): string => `${(millis / 1000).toFixed(2)} s ${"▪".repeat(Math.ceil(millis / 200))}`

const failure = (status: Failing, now: number): string => {
  if (status.cause?._tag === "LeaseLost") return `${status.cause.reason.message}: it registers again at once`
  const wait = Math.max(0, (status.nextAttemptAt ?? now) - now)
  return `heartbeat ${status.failures} failed: ${why(status)}. Next try in ${showWait(wait)}`
}

const shortId = (id: string): string => id.slice(0, 8)

/** What to say of a change of the status; nothing where nothing happened that matters here. */
const describe = (
  before: Lifeline.Status | undefined,
  status: Lifeline.Status,
  knownId: string | undefined,
  now: number
): Omit<Entry, "who"> | undefined => {
  const state = status._tag
  switch (status._tag) {
    case "Registering":
      return before === undefined ? { state, tone: "pending", what: "sends its registration" } : undefined
    case "Online": {
      if (before?._tag === "Online") {
        return status.confirmedAt > before.confirmedAt
          ? { state, tone: "quiet", what: "heartbeat acknowledged" }
          : undefined
      }
      const id = shortId(status.lease.id)
      if (knownId === undefined) return { state, tone: "good", what: `registered as ${id}, confirmed by a heartbeat` }
      return {
        state,
        tone: "good",
        what: knownId === status.lease.id
          ? "confirmed again"
          : `registered again, now as ${id}, confirmed by a heartbeat`
      }
    }
    case "Unconfirmed":
    case "Offline": {
      const tone = state === "Offline" ? "bad" : "pending"
      const failuresBefore = before !== undefined && "failures" in before ? before.failures : 0
      if (status.failures > failuresBefore) return { state, tone, what: failure(status, now) }
      return before?._tag === "Unconfirmed" && state === "Offline"
        ? { state, tone, what: "the lease has run out: by its rules the registry has dropped it" }
        : undefined
    }
    case "Halted":
      return { state, tone: "bad", what: status.cause.message }
    default:
      return { state, what: "" }
  }
}

const follow = Effect.fnUntraced(function*(name: string, lifeline: Lifeline.Lifeline["Service"]) {
  const timeline = yield* Timeline
  let knownId: string | undefined
  yield* SubscriptionRef.changes(lifeline.status).pipe(
    Stream.zipWithPrevious,
    Stream.runForEach(Effect.fnUntraced(function*([before, status]) {
      const entry = describe(Option.getOrUndefined(before), status, knownId, yield* Clock.currentTimeMillis)
      if (status._tag === "Online") knownId = status.lease.id
      if (entry !== undefined) yield* timeline.tell({ who: name, ...entry })
    })),
    Effect.forkScoped({ startImmediately: true })
  )
})

const collectWaits = Effect.fnUntraced(function*(lifeline: Lifeline.Lifeline["Service"]) {
  const waits: Array<number> = []
  yield* lifeline.events.pipe(
    Stream.runForEach((event) =>
      Effect.sync(() => {
        if (event._tag === "Failed" && event.nextAttemptAt !== undefined) waits.push(event.nextAttemptAt - event.at)
      })
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  return waits
})

/** Starts a service that lives as long as the scope. It is not registered yet when this returns. */
export const start = Effect.fnUntraced(function*({ name, ownKey, registry, type }: Options) {
  const apiUrl = yield* Hello.serve(name, ownKey)
  const context = yield* Layer.build(
    Lifeline.layer({ instance: { name, type, apiUrl, apiKey: ownKey }, startup: "background", heartbeat }).pipe(
      Layer.provide(Pulse.layer(registry)),
      Layer.merge(Layer.provide(Discovery.layer, PulseDirectory.layer(registry)))
    )
  )
  const lifeline = Context.get(context, Lifeline.Lifeline)
  yield* follow(name, lifeline)
  const member: Member = {
    name,
    status: SubscriptionRef.get(lifeline.status),
    discovery: Context.get(context, Discovery.Discovery),
    waits: yield* collectWaits(lifeline)
  }
  return member
})
