/**
 * Times as text, to and from milliseconds since 1970.
 */
import * as DateTime from "effect/DateTime"

// Date parsers guess: "garbage 1" is a day of 2001 to V8. Only what starts like RFC 3339 or ends like an HTTP date is handed
// over.
const shape = /^\d{4}-\d\d-\d\d[T ]|GMT$/

/** Reads RFC 3339 and HTTP dates. Anything else, and Go's zero time, is `undefined`. */
export const parseTime = (text: string | null | undefined): number | undefined => {
  // oxlint-disable-next-line no-restricted-globals -- it reads a text and tells no time; DateTime costs a bundle 1 kB more
  const millis = shape.test(text ?? "") ? Date.parse(text ?? "") : NaN
  return millis >= 0 ? millis : undefined
}

/** RFC 3339 in UTC with milliseconds. */
export const formatTime = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
