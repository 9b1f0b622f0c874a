/**
 * Times as text, to and from milliseconds since 1970. `Date` itself is out of bounds here: `DateTime` wraps it.
 */
import * as DateTime from "effect/DateTime"

// Date parsers guess: "garbage 1" is a day of 2001 to V8. Only what starts like RFC 3339 or an HTTP date is handed over.
const shape = /^(\d{4}-\d\d-\d\d[T ]|[A-Z][a-z]{2,8}, .*GMT$)/

/** Reads RFC 3339 and HTTP dates. Anything else, and Go's zero time, is `undefined`. */
export const parseTime = (text: string | null | undefined): number | undefined => {
  if (typeof text !== "string" || !shape.test(text)) return undefined
  const time = DateTime.make(text)
  return time._tag === "Some" && time.value.epochMilliseconds >= 0 ? time.value.epochMilliseconds : undefined
}

/** RFC 3339 in UTC with milliseconds. */
export const formatTime = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
