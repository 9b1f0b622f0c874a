/**
 * What a lifeline tells of one step of its machine: the events of its stream, each with its line for the log. Kept apart
 * from the loop, so that the loop reads as what it does.
 *
 * One line each when a lease begins to fail or is lost, at every fifth failure in a row, when it recovered, when the
 * program goes on standalone, and when nothing more is tried; the rest is debug.
 */
import * as Duration from "effect/Duration"
import type * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Event } from "../Lifeline.ts"
import type { Exhausted } from "../LifelineError.ts"
import type { CallError } from "./drive.ts"
import { nextAttempt } from "./status.ts"

/** One step: the state before and after, what happened and what it came from. */
export interface Report {
  readonly event: Heartbeat.Event
  readonly before: Heartbeat.State
  readonly after: Heartbeat.State
  readonly cause: CallError | undefined
  readonly lease: Lease.Lease | undefined
  /** Set when the bounded backoff of the first registration gave up in this step. */
  readonly gaveUp: Exhausted | undefined
  readonly now: number
}

/** One thing to tell: what happened, for the stream, and how the log says it. */
export interface Notice {
  readonly event: Event
  readonly level: "Debug" | "Info" | "Warn" | "Error"
  /** Put together where it is logged: most lines are below the level that is. */
  readonly message: () => string
}

const milestone = 5

const inTime = (delay: number): string => Duration.format(Duration.millis(Math.round(delay)))

const plan = ({ after, now }: Report): string =>
  nextAttempt(after) === undefined
    ? "nothing more is tried"
    : after.dueAt <= now
    ? "next attempt at once"
    : `next attempt in ${inTime(after.dueAt - now)}`

/** Whether this step ended an outage of a registration that once stood. */
const recovered = ({ after, before }: Report): boolean =>
  before.failures > 0 && after.failures === 0 && before.everRegistered && after.registered

/** Whether this step began an outage of a registration that once stood. */
export const beganOutage = ({ after, before }: Report): boolean =>
  before.failures === 0 && after.failures > 0 && before.everRegistered

const notice = (level: Notice["level"], event: Event, message: () => string): Notice => ({ event, level, message })

const ofError = (report: Report, cause: CallError): Notice | undefined => {
  const { after, before: { next: call }, event, now: at } = report
  switch (event._tag) {
    case "Failed": {
      if (call === "Idle" || call === "Stop") return undefined
      const { failures } = after
      return notice(
        failures === 1 || failures % milestone === 0 ? "Warn" : "Debug",
        { _tag: "Failed", at, call, cause, failures, nextAttemptAt: nextAttempt(after) },
        () => `${cause.message}; failure ${failures} in a row, ${plan(report)}`
      )
    }
    case "Lost":
      return notice("Warn", { _tag: "LeaseLost", at, cause }, () => `${cause.message}; ${plan(report)}`)
    case "Rejected":
      return notice("Error", { _tag: "Halted", at, cause }, () => `${cause.message}; ${plan(report)}`)
    default:
      return undefined
  }
}

const main = (report: Report): Notice | undefined => {
  const { after, before, cause, event, lease, now: at } = report
  if (cause !== undefined) return ofError(report, cause)
  switch (event._tag) {
    case "Registered": {
      const again = before.everRegistered
      return lease && notice(
        "Info",
        { _tag: "Registered", at, lease, again },
        () => `${again ? "registered again" : "registered"} as ${lease.id}`
      )
    }
    case "Beaten":
      return notice("Debug", { _tag: "Beat", at, nextAt: after.dueAt }, () => `beat acknowledged, ${plan(report)}`)
    case "Verified":
      return notice("Debug", { _tag: "Verified", at }, () => `registration verified, ${plan(report)}`)
    case "Woken": {
      const late = at - before.dueAt
      return notice(
        "Info",
        { _tag: "Woken", at, late },
        () => `the timer fired ${inTime(late)} late: ${after.next.toLowerCase()} in ${inTime(after.dueAt - at)}`
      )
    }
    default:
      return undefined
  }
}

export const noticesOf = (report: Report): ReadonlyArray<Notice> => {
  const { after, before: { failures }, gaveUp, now: at } = report
  const first = main(report)
  const notices = first === undefined ? [] : [first]
  if (gaveUp !== undefined) {
    const fate = nextAttempt(after) === undefined ? "not registered" : "going on standalone"
    notices.push(notice(
      "Warn",
      { _tag: "WentStandalone", at, cause: gaveUp },
      () => `${fate}: ${gaveUp.message}; ${plan(report)}`
    ))
  }
  if (recovered(report)) {
    notices.push(notice(
      "Info",
      { _tag: "Recovered", at, failures },
      () => `recovered after ${failures} ${failures === 1 ? "failure" : "failures"}`
    ))
  }
  return notices
}
