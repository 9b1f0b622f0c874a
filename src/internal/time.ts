/**
 * Times as text, to and from milliseconds since 1970.
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"

// Date parsers guess: "garbage 1" is a day of 2001 to V8. Only what starts like RFC 3339 is handed over.
const shape = /^\d{4}-\d\d-\d\d[T ]/

/** Reads RFC 3339. Anything else, and Go's zero time, is `undefined`. */
export const parseTime = (text: string | null | undefined): number | undefined => {
  const time = typeof text === "string" && shape.test(text) ? DateTime.make(text) : Option.none()
  const millis = Option.isSome(time) ? DateTime.toEpochMillis(time.value) : -1
  return millis >= 0 ? millis : undefined
}

/** RFC 3339 in UTC with milliseconds. */
export const formatTime = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
