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
import { Exhausted } from "../LifelineError.ts"
import type { CallError } from "./drive.ts"
import { isCall } from "./drive.ts"
import { nextAttempt } from "./status.ts"

/** One step: the state before and after, what happened and what it came from. */
export interface Report {
  readonly event: Heartbeat.Event
  readonly before: Heartbeat.State
  readonly after: Heartbeat.State
  readonly cause: CallError | undefined
  readonly lease: Lease.Lease | undefined
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

/** Whether this step began an outage of a registration that once stood. */
export const beganOutage = ({ after, before }: Report): boolean =>
  before.failures === 0 && after.failures > 0 && before.everRegistered

/** Set when the bounded backoff of the first registration gave up in this step. */
export const gaveUp = ({ after, before, cause, now }: Report): Exhausted | undefined =>
  after.exhausted && !before.exhausted && cause?._tag === "Transient"
    ? new Exhausted({
      attempts: after.failures,
      elapsed: Duration.millis(Math.max(0, now - (before.backoff.failures === 0 ? now : before.backoff.since))),
      last: cause
    })
    : undefined

const inTime = (delay: number): string => Duration.format(Duration.millis(Math.round(delay)))

export const noticesOf = (report: Report): ReadonlyArray<Notice> => {
  const { after, before, cause, event, lease, now: at } = report
  const { failures } = after
  const notices: Array<Notice> = []
  const tell = (level: Notice["level"], event: Event, message: () => string): void => {
    notices.push({ event, level, message })
  }
  const plan = (): string => {
    const wait = after.dueAt - at
    if (wait === Infinity) return "nothing more is tried"
    return `next attempt ${wait > 0 ? `in ${inTime(wait)}` : "at once"}`
  }
  if (cause !== undefined) {
    const message = (): string => `${cause.message}; ${plan()}`
    if (event._tag === "Lost") tell("Warn", { _tag: "LeaseLost", at, cause }, message)
    if (event._tag === "Rejected") tell("Error", { _tag: "Halted", at, cause }, message)
    if (event._tag === "Failed" && isCall(before.next)) {
      tell(
        failures === 1 || failures % milestone === 0 ? "Warn" : "Debug",
        { _tag: "Failed", at, call: before.next, cause, failures, nextAttemptAt: nextAttempt(after) },
        () => `${cause.message}; failure ${failures} in a row, ${plan()}`
      )
    }
  }
  if (event._tag === "Registered" && lease !== undefined) {
    const again = before.everRegistered
    tell("Info", { _tag: "Registered", at, lease, again }, () => `registered ${again ? "again " : ""}as ${lease.id}`)
  }
  if (event._tag === "Beaten") {
    tell("Debug", { _tag: "Beat", at, nextAt: after.dueAt }, () => `beat acknowledged, ${plan()}`)
  }
  if (event._tag === "Verified") tell("Debug", { _tag: "Verified", at }, () => `registration verified, ${plan()}`)
  if (event._tag === "Woken") {
    const late = at - before.dueAt
    tell(
      "Info",
      { _tag: "Woken", at, late },
      () => `the timer fired ${inTime(late)} late: ${after.next.toLowerCase()} in ${inTime(after.dueAt - at)}`
    )
  }
  const exhausted = gaveUp(report)
  if (exhausted !== undefined) {
    const fate = nextAttempt(after) === undefined ? "not registered" : "going on standalone"
    tell("Warn", { _tag: "WentStandalone", at, cause: exhausted }, () => `${fate}: ${exhausted.message}; ${plan()}`)
  }
  if (before.failures > 0 && failures === 0 && before.everRegistered && after.registered) {
    const count = before.failures
    tell(
      "Info",
      { _tag: "Recovered", at, failures: count },
      () => `recovered after ${count} failure${count === 1 ? "" : "s"}`
    )
  }
  return notices
}
