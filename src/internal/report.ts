/**
 * What a lifeline tells of one step of its machine: the events of its stream and the lines of its log. Kept apart from
 * the loop, so that the loop reads as what it does.
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

export interface Line {
  readonly level: "Debug" | "Info" | "Warn" | "Error"
  /** Put together when read: most lines are below the level that is logged. */
  readonly message: string
}

const milestone = 5

const inTime = (delay: number): string => Duration.format(Duration.millis(Math.round(delay)))

const plan = ({ after, now }: Report): string =>
  !Number.isFinite(after.dueAt)
    ? "nothing more is tried"
    : after.dueAt <= now
    ? "next attempt at once"
    : `next attempt in ${inTime(after.dueAt - now)}`

const callOf = (next: Heartbeat.Action): "Register" | "Heartbeat" | "Verify" =>
  next === "Register" || next === "Verify" ? next : "Heartbeat"

/** Whether this step ended an outage of a registration that once stood. */
const recovered = ({ after, before }: Report): boolean =>
  before.failures > 0 && after.failures === 0 && before.everRegistered && after.registered

/** Whether this step began an outage of a registration that once stood. */
export const beganOutage = ({ after, before }: Report): boolean =>
  before.failures === 0 && after.failures > 0 && before.everRegistered

const main = (report: Report): Event | undefined => {
  const { after, before, cause, event, lease, now: at } = report
  switch (event._tag) {
    case "Registered":
      return lease === undefined ? undefined : { _tag: "Registered", at, lease, again: before.everRegistered }
    case "Beaten":
      return { _tag: "Beat", at, nextAt: after.dueAt }
    case "Verified":
      return { _tag: "Verified", at }
    case "Failed": {
      const nextAttemptAt = Number.isFinite(after.dueAt) ? after.dueAt : undefined
      return cause === undefined
        ? undefined
        : { _tag: "Failed", at, call: callOf(before.next), cause, failures: after.failures, nextAttemptAt }
    }
    case "Lost":
      return cause === undefined ? undefined : { _tag: "LeaseLost", at, cause }
    case "Rejected":
      return cause === undefined ? undefined : { _tag: "Halted", at, cause }
    case "Woken":
      return { _tag: "Woken", at, late: at - before.dueAt }
    default:
      return undefined
  }
}

export const eventsOf = (report: Report): ReadonlyArray<Event> => {
  const { before, gaveUp, now: at } = report
  const events: Array<Event> = []
  const first = main(report)
  if (first !== undefined) events.push(first)
  if (gaveUp !== undefined) events.push({ _tag: "WentStandalone", at, cause: gaveUp })
  if (recovered(report)) events.push({ _tag: "Recovered", at, failures: before.failures })
  return events
}

const line = (level: Line["level"], message: () => string): Line => ({
  level,
  get message() {
    return message()
  }
})

const mainLine = (report: Report): Line | undefined => {
  const { after, before, cause, event, lease, now } = report
  switch (event._tag) {
    case "Registered":
      return line("Info", () => `${before.everRegistered ? "registered again" : "registered"} as ${lease?.id}`)
    case "Beaten":
      return line("Debug", () => `beat acknowledged, ${plan(report)}`)
    case "Failed": {
      const level = after.failures === 1 || after.failures % milestone === 0 ? "Warn" : "Debug"
      return line(level, () => `${cause?.message}; failure ${after.failures} in a row, ${plan(report)}`)
    }
    case "Lost":
      return line("Warn", () => `${cause?.message}; ${plan(report)}`)
    case "Rejected":
      return line("Error", () => `${cause?.message}; ${plan(report)}`)
    case "Woken":
      return line("Info", () => {
        const [late, delay] = [inTime(now - before.dueAt), inTime(after.dueAt - now)]
        return `the timer fired ${late} late: ${after.next.toLowerCase()} in ${delay}`
      })
    default:
      return undefined
  }
}

export const linesOf = (report: Report): ReadonlyArray<Line> => {
  const { after, before, gaveUp } = report
  const lines: Array<Line> = []
  const first = mainLine(report)
  if (first !== undefined) lines.push(first)
  if (gaveUp !== undefined) {
    const fate = Number.isFinite(after.dueAt) ? "going on standalone" : "not registered"
    lines.push(line("Warn", () => `${fate}: ${gaveUp.message}; ${plan(report)}`))
  }
  if (recovered(report)) {
    lines.push(
      line("Info", () => `recovered after ${before.failures} ${before.failures === 1 ? "failure" : "failures"}`)
    )
  }
  return lines
}
