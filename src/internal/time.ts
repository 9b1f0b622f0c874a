/**
 * Times as text, to and from milliseconds since 1970. `Date` itself is out of bounds here: `DateTime` wraps it.
 */
import * as DateTime from "effect/DateTime"

/** Reads RFC 3339 and HTTP dates. Anything else, and Go's zero time, is `undefined`. */
export const parseTime = (text: string | null | undefined): number | undefined => {
  if (text === undefined || text === null) return undefined
  const time = DateTime.make(text)
  return time._tag === "Some" && time.value.epochMilliseconds > 0 ? time.value.epochMilliseconds : undefined
}

/** RFC 3339 in UTC with milliseconds. */
export const formatTime = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
