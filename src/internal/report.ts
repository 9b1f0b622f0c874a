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
  /** Put together where it is wanted: most are of beats, and of no interest. */
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
      elapsed: Duration.millis(now - after.backoff.since),
      last: cause
    })
    : undefined

const inTime = (delay: number): string => Duration.format(Duration.millis(Math.round(delay)))

const plan = ({ dueAt, next }: Heartbeat.State, now: number): string => {
  if (!isCall(next)) return "nothing more is tried"
  return `next attempt ${dueAt > now ? `in ${inTime(dueAt - now)}` : "at once"}`
}

export const noticesOf = (report: Report): ReadonlyArray<Notice> => {
  const { after, before, cause, event, lease, now: at } = report
  const notices: Array<Notice> = []
  const tell = (level: Notice["level"], message: Notice["message"], event: Event): void => {
    notices.push({ event, level, message })
  }
  const next = () => plan(after, at)
  if (cause !== undefined) {
    const message = () => `${cause.message}; ${next()}`
    const { failures } = after
    if (event._tag === "Lost") tell("Warn", message, { _tag: "LeaseLost", at, cause })
    if (event._tag === "Rejected") tell("Error", message, { _tag: "Halted", at, cause })
    if (event._tag === "Failed" && isCall(before.next)) {
      tell(
        failures === 1 || failures % milestone === 0 ? "Warn" : "Debug",
        () => `${cause.message}; failure ${failures} in a row, ${next()}`,
        { _tag: "Failed", at, call: before.next, cause, failures, nextAttemptAt: nextAttempt(after) }
      )
    }
  }
  if (event._tag === "Registered" && lease !== undefined) {
    const again = before.everRegistered
    tell("Info", () => `registered ${again ? "again " : ""}as ${lease.id}`, { _tag: "Registered", at, lease, again })
  }
  if (event._tag === "Beaten") {
    tell("Debug", () => `beat acknowledged, ${next()}`, { _tag: "Beat", at, nextAt: after.dueAt })
  }
  if (event._tag === "Verified") tell("Debug", () => `registration verified, ${next()}`, { _tag: "Verified", at })
  if (event._tag === "Woken") {
    const late = at - before.dueAt
    tell("Info", () => `the timer fired ${inTime(late)} late, ${next()}`, { _tag: "Woken", at, late })
  }
  const exhausted = gaveUp(report)
  if (exhausted !== undefined) {
    const fate = isCall(after.next) ? "going on standalone" : "not registered"
    tell("Warn", () => `${fate}: ${exhausted.message}; ${next()}`, { _tag: "WentStandalone", at, cause: exhausted })
  }
  if (before.failures > 0 && after.failures === 0 && before.everRegistered && after.registered) {
    const { failures } = before
    tell("Info", () => `recovered after ${failures} failure${failures === 1 ? "" : "s"}`, {
      _tag: "Recovered",
      at,
      failures
    })
  }
  return notices
}
