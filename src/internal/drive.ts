/**
 * One action of the heartbeat machine carried out against a registry, and its result as an event of the machine. Shared by
 * every driver (the loop of `Lifeline`, the one-shot `CheckIn`), so that a failure means the same in all of them.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Classify from "../Classify.ts"
import type * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Attempted, AuthFailed, LeaseLost, Refused, Transient } from "../LifelineError.ts"
import { retryAfter } from "../LifelineError.ts"
import type * as Registry from "../Registry.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import * as Telemetry from "../Telemetry.ts"
import { within } from "./deadline.ts"
import { traced } from "./traced.ts"

export type CallError = Transient | LeaseLost | AuthFailed | Refused

export const isDefinitive = (error: CallError | undefined): error is AuthFailed | Refused =>
  error?._tag === "AuthFailed" || error?._tag === "Refused"

/** The actions that send something. */
export type Call = "Register" | "Heartbeat" | "Verify"

export const isCall = (action: Heartbeat.Action): action is Call => action !== "Idle" && action !== "Stop"

/** What came of a call. `lease` is the one to go on with: none once it is lost. */
export interface Outcome {
  readonly event: Heartbeat.Event
  readonly lease: Lease.Lease | undefined
  readonly error: CallError | undefined
}

const succeeded = { Register: "Registered", Heartbeat: "Beaten", Verify: "Verified" } as const

/**
 * A peer that has spoken the protocol before, and now answers something else, redirects elsewhere or knows none of its own
 * routes, is most likely not the peer: a proxy, an ingress or a captive portal in between. That passes, unlike the same
 * answer at the start, where the URL is wrong.
 */
const isInBetween = ({ reason }: Refused): boolean =>
  reason._tag === "MalformedResponse" || reason._tag === "Unsupported" || reason._tag === "NotFound"

const eventOf = (error: CallError, everRegistered: boolean): Heartbeat.Event => {
  switch (error._tag) {
    case "Transient": {
      const hint = retryAfter(error)
      return { _tag: "Failed", hint: hint === undefined ? undefined : Duration.toMillis(hint) }
    }
    case "LeaseLost":
      return { _tag: "Lost", taken: error.reason._tag === "LeaseTaken" }
    case "AuthFailed":
      return { _tag: "Rejected", auth: true }
    case "Refused":
      return everRegistered && isInBetween(error) ? { _tag: "Failed" } : { _tag: "Rejected", auth: false }
  }
}

/** By series: to make one takes longer than to count. */
const counters: { [series: string]: typeof Telemetry.calls } = {}

/** An adapter that promises no deadline gets this one, so that it cannot hold up a driver for ever. */
const longestCall = /*#__PURE__*/ Duration.seconds(60)

/**
 * Carries out one call. Never fails; interruption passes through.
 *
 * A defect of an adapter, or an interruption that began inside it, is not allowed to end a heartbeat: it counts as a
 * failure for now, with the defect as cause. An interruption from outside never comes here: it ends the fiber.
 */
export const perform = (
  registry: Registry.Registry["Service"],
  call: Call,
  lease: Lease.Lease | undefined,
  instance: ServiceInstance.ServiceInstance,
  everRegistered: boolean
): Effect.Effect<Outcome> =>
  Effect.withFiber((fiber) => {
    const { adapter, deadline } = registry.capabilities
    // Of what no registry answered.
    const at: Attempted = { operation: call.toLowerCase(), target: adapter }
    const sentAt = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
    const count = (outcome: string): void =>
      (counters[`${adapter} ${call} ${outcome}`] ??= Metric.withAttributes(Telemetry.calls, { adapter, call, outcome }))
        .updateUnsafe(1, fiber.context)
    const request = Effect.suspend((): Effect.Effect<Lease.Lease | void, CallError> => {
      if (call === "Register") return registry.register(instance)
      if (lease === undefined) return Effect.fail(Classify.unknownLease(at))
      return call === "Heartbeat" ? registry.heartbeat(lease, instance) : registry.verify(lease, instance)
    })
    const bounded = deadline !== undefined
      ? request
      : Effect.withFiber(({ context }) =>
        within(context, request, longestCall, () => Effect.fail(Classify.timedOut({ ...at, after: longestCall })))
      )
    return Effect.matchCause(traced(Telemetry.spans[call], { adapter })(bounded), {
      onSuccess: (registered): Outcome => {
        count("ok")
        return { event: { _tag: succeeded[call], sentAt }, lease: registered ?? lease, error: undefined }
      },
      onFailure: (cause): Outcome => {
        const found = Cause.findError(cause)
        const error = Result.isSuccess(found)
          ? found.success
          : Classify.unreachable({ ...at, detail: "a bug, see the cause", cause: Cause.squash(cause) })
        count(Result.isSuccess(found) ? error._tag : "Defect")
        return { event: eventOf(error, everRegistered), lease: error._tag === "LeaseLost" ? undefined : lease, error }
      }
    })
  })
