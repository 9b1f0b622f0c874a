/**
 * Server-sent events as the WHATWG text defines them, from bytes to what a client must do about it.
 *
 * `effect/encoding/Sse` has a parser too. It follows the same text but for three things that resuming needs: it does not
 * tell of a block that is an id and nothing else (`id: 7`, blank line), which is what the embedded registry opens a stream
 * with; it starts each connection without an id, where the text keeps the last one; and its limit looks at what is left at
 * the end of a chunk only, so that whether an event is too large depends on how the network cut it.
 *
 * Every line is looked at once: a search goes on where the one before ended, and the pieces of a line that spans chunks
 * are joined when it ends.
 */

/** What is found, as it is found. */
export interface Handlers {
  /** A whole event. `id` is the last one that was set, on this connection or before; `undefined` when none ever was. */
  readonly event: (event: string, data: string, id: string | undefined) => void
  /** A whole block without data that set another id. */
  readonly id: (id: string) => void
  /** A `retry` field, in milliseconds: at once, not with the end of its block. */
  readonly retry: (millis: number) => void
}

export interface Options extends Handlers {
  /**
   * How many UTF-16 code units an event may have: its data so far with the line that is being read, however the line
   * began. So a line that never ends is bounded too.
   */
  readonly maxEventSize: number
  /** The id that was last set before this connection. */
  readonly lastEventId: string | undefined
}

/** Takes the bytes piece by piece; `false`: something was too large, and nothing after it was read. */
export type Parser = (bytes: Uint8Array) => boolean

const lf = 10
const space = 32
const colon = 58
const bom = 0xfeff

/** Where the value of a field begins, in a line from `start` to `end`; -1: it is another field. */
const valueOf = (field: string, text: string, start: number, end: number): number => {
  const at = start + field.length
  if (at > end || !text.startsWith(field, start)) return -1
  if (at === end) return end
  if (text.charCodeAt(at) !== colon) return -1
  return at + 1 < end && text.charCodeAt(at + 1) === space ? at + 2 : at + 1
}

export const make = ({ event, id, lastEventId, maxEventSize, retry }: Options): Parser => {
  let atStart = true
  /** The line before ended with the last code unit of a piece, a CR: an LF that comes next belongs to it. */
  let afterCr = false
  /** The beginning of a line whose end has not come. */
  let pieces: Array<string> = []
  let piecesSize = 0

  let data: string | undefined
  let type = ""
  /** The id of the block that is being read; it counts when the block is whole. */
  let blockId = lastEventId
  let committedId = lastEventId

  const dispatch = (): void => {
    const changed = blockId !== committedId
    committedId = blockId
    const whole = data
    const name = type
    data = undefined
    type = ""
    if (whole !== undefined) event(name === "" ? "message" : name, whole, committedId)
    else if (changed && committedId !== undefined) id(committedId)
  }

  const line = (text: string, start: number, end: number): void => {
    if (start === end) return dispatch()
    let at = valueOf("data", text, start, end)
    if (at >= 0) {
      const value = text.slice(at, end)
      data = data === undefined ? value : `${data}\n${value}`
    } else if ((at = valueOf("event", text, start, end)) >= 0) {
      type = text.slice(at, end)
    } else if ((at = valueOf("id", text, start, end)) >= 0) {
      const value = text.slice(at, end)
      if (!value.includes("\0")) blockId = value
    } else if ((at = valueOf("retry", text, start, end)) >= 0) {
      const value = text.slice(at, end)
      if (/^[0-9]+$/.test(value)) retry(Number(value))
    }
  }

  const fits = (size: number): boolean => size + (data === undefined ? 0 : data.length) <= maxEventSize

  // One byte order mark is dropped, below: `ignoreBOM` keeps the decoder from dropping another. What is not UTF-8 becomes
  // U+FFFD.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

  return (bytes) => {
    const text = decoder.decode(bytes, { stream: true })
    const length = text.length
    if (length === 0) return true
    let start = 0
    if (atStart) {
      atStart = false
      if (text.charCodeAt(0) === bom) start = 1
    } else if (afterCr && text.charCodeAt(0) === lf) {
      start = 1
    }
    afterCr = false
    let nextLf = -2
    let nextCr = -2
    while (start < length) {
      if (nextLf !== -1 && nextLf < start) nextLf = text.indexOf("\n", start)
      if (nextCr !== -1 && nextCr < start) nextCr = text.indexOf("\r", start)
      const end = nextCr === -1 || (nextLf !== -1 && nextLf < nextCr) ? nextLf : nextCr
      if (end === -1) {
        pieces.push(text.slice(start))
        piecesSize += length - start
        return fits(piecesSize)
      }
      if (!fits(piecesSize + end - start)) return false
      if (piecesSize === 0) {
        line(text, start, end)
      } else {
        pieces.push(text.slice(start, end))
        const joined = pieces.join("")
        pieces = []
        piecesSize = 0
        line(joined, 0, joined.length)
      }
      start = end + 1
      if (end === nextCr) {
        if (start === length) afterCr = true
        else if (text.charCodeAt(start) === lf) start++
      }
    }
    return true
  }
}
