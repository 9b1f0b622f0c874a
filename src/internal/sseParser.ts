/**
 * Server-sent events as the WHATWG text defines them, from bytes to what a client must do about it.
 *
 * `effect/encoding/Sse` has a parser too. It follows the same text but for three things that resuming needs: it does not
 * tell of a block that is an id and nothing else (`id: 7`, blank line), which is what the embedded registry opens a stream
 * with; it starts each connection without an id, where the text keeps the last one; and its limit looks at what is left at
 * the end of a chunk only, so that whether an event is too large depends on how the network cut it.
 *
 * Every piece is looked through once; a line that spans several of them is put together when it ends.
 */

/** What is found beside events, as it is found. */
export type Found =
  /** A whole block without data that set another id. */
  | { readonly notice: "Cursor"; readonly cursor: string }
  /** A `retry` field, in milliseconds: at once, not with the end of its block. */
  | { readonly notice: "Retry"; readonly base: number }

/** Takes the bytes piece by piece; `false`: something was too large, and nothing after it was read. */
export type Parser = (bytes: Uint8Array) => boolean

/**
 * `maxEventSize` is how many UTF-16 code units an event may have: its data so far with the line that is being read, however
 * the line began. So a line that never ends is bounded too. `lastEventId` is the id that was set before this connection. The id
 * of an event is the last one that was set, on this connection or before; `undefined` when none ever was. Events are told in
 * pieces: as objects that are made here, among others that are not events, they cost half as much again.
 */
export const make = (
  maxEventSize: number,
  lastEventId: string | undefined,
  tell: (found: Found) => void,
  event: (event: string, data: string, id: string | undefined) => void
): Parser => {
  let atStart = true
  /** The piece before ended with a CR: an LF that comes next belongs to it. */
  let afterCr = false
  /** The beginning of a line whose end has not come. Made flat only when it is read. */
  let rest = ""

  let data: string | undefined
  let type = ""
  /** The id of the block that is being read; it counts when the block is whole. */
  let blockId = lastEventId
  let committedId = lastEventId

  /** Takes a whole line. */
  const read = (line: string): void => {
    const colon = line.indexOf(":")
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    switch (colon < 0 ? line : line.slice(0, colon)) {
      case "data":
        data = data === undefined ? value : `${data}\n${value}`
        break
      case "event":
        type = value
        break
      case "id":
        if (!value.includes("\0")) blockId = value
        break
      case "retry":
        if (/^\d+$/.test(value)) tell({ notice: "Retry", base: Number(value) })
        break
      case "":
        if (line !== "") break
        if (data !== undefined) event(type || "message", data, blockId)
        else if (blockId !== undefined && blockId !== committedId) tell({ notice: "Cursor", cursor: blockId })
        committedId = blockId
        data = undefined
        type = ""
    }
  }

  const fits = (line: string): boolean => line.length + (data?.length ?? 0) <= maxEventSize

  // One byte order mark is dropped, below: not all decoders do it where the mark is cut in two. What is not UTF-8 becomes
  // U+FFFD.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })

  return (bytes) => {
    let text = decoder.decode(bytes, { stream: true })
    if (text === "") return true
    if (text[0] === (atStart ? "\ufeff" : afterCr ? "\n" : "")) text = text.slice(1)
    atStart = false
    afterCr = text.endsWith("\r")
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n")
    let start = 0
    for (let end; (end = text.indexOf("\n", start)) >= 0; start = end + 1) {
      const line = rest + text.slice(start, end)
      rest = ""
      if (!fits(line)) return false
      read(line)
    }
    rest += text.slice(start)
    return fits(rest)
  }
}
