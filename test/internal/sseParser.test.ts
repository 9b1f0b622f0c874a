/**
 * Vectors for every clause of the WHATWG text on parsing event streams, each cut in every way that one or two bytes allow:
 * whole, byte by byte, in twos from either end, in two at every place, and with a piece of one or two bytes at every place.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Sse from "effect/encoding/Sse"
import * as Parser from "../../src/internal/sseParser.ts"

/** An event as `[type, data, id]`, an id by itself, a retry; `"too large"` where the parser gave up. */
type Found =
  | readonly [string, string, string | undefined]
  | { readonly id: string }
  | { readonly retry: number }
  | string

const encoder = new TextEncoder()

const parse = (
  pieces: Iterable<Uint8Array>,
  options: { readonly maxEventSize?: number; readonly lastEventId?: string | undefined } = {}
): ReadonlyArray<Found> => {
  const found: Array<Found> = []
  const parser = Parser.make(
    options.maxEventSize ?? 1000,
    options.lastEventId,
    (item) => found.push(item.notice === "Retry" ? { retry: item.base } : { id: item.cursor }),
    (event, data, id) => found.push([event, data, id])
  )
  for (const piece of pieces) {
    if (!parser(piece)) {
      found.push("too large")
      break
    }
  }
  return found
}

function* inPieces(bytes: Uint8Array, first: number, size: number) {
  if (first > 0) yield bytes.subarray(0, first)
  for (let at = first; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** Every way of cutting, with its name. */
function* cuts(bytes: Uint8Array): Generator<readonly [string, Iterable<Uint8Array>]> {
  yield ["whole", [bytes]]
  yield ["byte by byte", inPieces(bytes, 0, 1)]
  yield ["in twos", inPieces(bytes, 0, 2)]
  yield ["in twos, the first alone", inPieces(bytes, 1, 2)]
  yield ["byte by byte, with empty pieces", [...inPieces(bytes, 0, 1)].flatMap((piece) => [new Uint8Array(), piece])]
  for (let at = 1; at < bytes.length; at++) {
    yield [`in two at ${at}`, [bytes.subarray(0, at), bytes.subarray(at)]]
    for (const size of [1, 2]) {
      yield [`${size} at ${at}`, [bytes.subarray(0, at), bytes.subarray(at, at + size), bytes.subarray(at + size)]]
    }
  }
}

const message = (data: string, id?: string): Found => ["message", data, id]

interface Vector {
  readonly clause: string
  readonly text: string | ReadonlyArray<number>
  readonly found: ReadonlyArray<Found>
  readonly lastEventId?: string
  readonly maxEventSize?: number
}

const bytesOf = (text: string | ReadonlyArray<number>): Uint8Array =>
  typeof text === "string" ? encoder.encode(text) : Uint8Array.from(text)

const ascii = (text: string): ReadonlyArray<number> => [...encoder.encode(text)]

const vectors: ReadonlyArray<Vector> = [
  // Lines.
  { clause: "LF ends a line", text: "data: a\n\n", found: [message("a")] },
  { clause: "CR ends a line", text: "data: a\r\r", found: [message("a")] },
  { clause: "CRLF ends one line, not two", text: "data: a\r\ndata: b\r\n\r\n", found: [message("a\nb")] },
  {
    clause: "line ends may be mixed",
    text: "data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\ndata: e\r\n\n",
    found: [message("a\nb\nc"), message("d"), message("e")]
  },
  { clause: "LF CR is two line ends", text: "data: a\n\rdata: b\n\r", found: [message("a"), message("b")] },
  { clause: "CR CR LF is two line ends", text: "data: a\r\r\ndata: b\r\r\n", found: [message("a"), message("b")] },
  { clause: "an event with CR is there at once, without its LF", text: "data: a\r\n\r", found: [message("a")] },
  {
    clause: "no other separator ends a line",
    text: "data: a\u2028b\u2029c\u0085d\v\f\n\n",
    found: [
      message("a\u2028b\u2029c\u0085d\v\f")
    ]
  },
  {
    clause: "blank lines before, between and after are nothing",
    text: "\n\r\n\rdata: a\n\n\n\n\r\r",
    found: [message("a")]
  },

  { clause: "a line of spaces is not blank", text: "data: a\n \n  \ndata: b\n\n", found: [message("a\nb")] },

  // Byte order mark and decoding.
  { clause: "one byte order mark at the start is dropped", text: "\ufeffdata: a\n\n", found: [message("a")] },
  {
    clause: "a second one is part of the first field's name",
    text: "\ufeff\ufeffdata: a\n\ndata: b\n\n",
    found: [
      message("b")
    ]
  },
  {
    clause: "one that comes later is text",
    text: "data: a\n\n\ufeffdata: b\n\ndata: \ufeffc\n\n",
    found: [
      message("a"),
      message("\ufeffc")
    ]
  },
  { clause: "nothing but a byte order mark", text: "\ufeff", found: [] },
  { clause: "the start is the first byte, not the first line", text: "\n\ufeffdata: a\n\n", found: [] },
  { clause: "one before a line end leaves a blank line", text: "\ufeff\r\ndata: a\n\n", found: [message("a")] },
  { clause: "one before a colon leaves a comment", text: "\ufeff: x\n\ufeff: y\ndata: a\n\n", found: [message("a")] },
  {
    clause: "half a byte order mark is not one",
    text: [0xef, 0xbb, ...ascii("data: a\n\ndata: b\n\n")],
    found: [
      message("b")
    ]
  },
  {
    clause: "UTF-8 of two, three and four bytes",
    text: "data: é€𝄞\n\nid: ü\ndata\n\n",
    found: [
      message("é€𝄞"),
      message("", "ü")
    ]
  },
  {
    clause: "bytes that are not UTF-8 become U+FFFD",
    text: [...ascii("data: "), 0xff, 0xc3, 0x28, 0xe2, 0x82, ...ascii("\n\ndata: b\n\n")],
    found: [message("\ufffd\ufffd(\ufffd"), message("b")]
  },
  {
    clause: "surrogates, overlong forms and what is past U+10FFFF are not UTF-8",
    text: [...ascii("data: "), 0xed, 0xa0, 0x80, 0xc0, 0x8a, 0xf5, 0x80, 0x80, 0x80, ...ascii(".\n\n")],
    found: [message("\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd.")]
  },
  { clause: "NUL is text in data and type", text: "event: a\0b\ndata: c\0d\n\n", found: [["a\0b", "c\0d", undefined]] },

  // Fields.
  {
    clause: "one space after the colon is dropped, not two",
    text: "data:a\ndata: b\ndata:  c\ndata:\td\n\n",
    found: [
      message("a\nb\n c\n\td")
    ]
  },
  {
    clause: "of every field, not of data alone",
    text: "event:a\nid:1\ndata\n\nevent: b\nid: 2\ndata\n\nevent:  c\nid:  3\ndata\n\nretry:4\nretry: 5\n",
    found: [["a", "", "1"], ["b", "", "2"], [" c", "", " 3"], { retry: 4 }, { retry: 5 }]
  },
  { clause: "spaces at the end stay", text: "data: a \n\n", found: [message("a ")] },
  {
    clause: "only the first colon separates",
    text: "data:a:b: c\n\ndata::\n\ndata: :\n\n",
    found: [
      message("a:b: c"),
      message(":"),
      message(":")
    ]
  },
  { clause: "a field without colon has no value", text: "data\n\ndata\ndata\n\n", found: [message(""), message("\n")] },
  {
    clause: "a line that begins with a colon is a comment",
    text: ":\n: a\n:data: b\ndata: c\n:\n\n",
    found: [message("c")]
  },
  {
    clause: "unknown fields are nothing",
    text: "foo: a\nfoo\nDATA: b\nData: c\ndata: d\nda\ndat\ndatax\n\n",
    found: [
      message("d")
    ]
  },
  {
    clause: "a name is matched whole, spaces and all",
    text: " data: a\ndata : b\nids: 7\nid : 8\nretry : 9\nevents: x\n\n",
    found: []
  },
  { clause: "lines are joined with LF", text: "data: a\r\ndata\rdata: \ndata:b\n\n", found: [message("a\n\n\nb")] },
  {
    clause: "empty data is an event",
    text: "data\n\ndata:\n\ndata: \n\n",
    found: [message(""), message(""), message("")]
  },
  { clause: "a block without data is no event", text: "event: a\n\nfoo\n\n: x\n\n", found: [] },
  { clause: "the type of a block without data is forgotten", text: "event: a\n\ndata: b\n\n", found: [message("b")] },
  {
    clause: "the type is that of the event, not of the next",
    text: "event: a\ndata: b\n\ndata: c\n\n",
    found: [
      ["a", "b", undefined],
      message("c")
    ]
  },
  {
    clause: "the last type counts; an empty one is message",
    text: "event: a\nevent: b\ndata: c\n\nevent: a\nevent\ndata: d\n\n",
    found: [
      ["b", "c", undefined],
      message("d")
    ]
  },
  {
    clause: "the order of fields does not matter",
    text: "data: a\nid: 1\ndata: b\nevent: c\n\n",
    found: [["c", "a\nb", "1"]]
  },

  // Ids.
  {
    clause: "an id stays until another is set",
    text: "id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n",
    found: [
      message("a", "1"),
      message("b", "1"),
      message("c", "2")
    ]
  },
  {
    clause: "an id stays over a connection",
    text: "data: a\n\nid: 8\ndata: b\n\n",
    lastEventId: "7",
    found: [
      message("a", "7"),
      message("b", "8")
    ]
  },
  {
    clause: "an empty id unsets it",
    text: "id: 1\ndata: a\n\nid\ndata: b\n\nid:\n\n",
    found: [message("a", "1"), message("b", "")]
  },
  {
    clause: "an id with NUL is ignored",
    text: "id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid: \0\n\n",
    found: [
      message("a", "1"),
      message("b", "1")
    ]
  },
  { clause: "a block that is an id and nothing else counts", text: "id: 7\n\n", found: [{ id: "7" }] },
  {
    clause: "also with other fields, and once",
    text: ": open\nid: 7\nevent: x\n\nid: 7\n\nid\n\n",
    lastEventId: "6",
    found: [
      { id: "7" },
      { id: "" }
    ]
  },
  { clause: "a block that sets no id tells of none", text: ": open\n\n\nid: 7\n\n", lastEventId: "7", found: [] },
  { clause: "the last id of a block counts", text: "id: 1\nid: 2\ndata: a\n\n", found: [message("a", "2")] },
  {
    clause: "an id in a block that is not whole does not count",
    text: "id: 1\ndata: a\n\nid: 2\n",
    found: [message("a", "1")]
  },

  // The end.
  { clause: "an event without its blank line is dropped", text: "data: a\n\ndata: b\n", found: [message("a")] },
  { clause: "so is one in mid line", text: "data: a\n\nid: 2\ndata: b", found: [message("a")] },
  { clause: "so is one whose last line has no end", text: "data: a\n\ndata: b\n:", found: [message("a")] },
  {
    clause: "so is what ends in the middle of a character",
    text: [...ascii("data: a\n\ndata: "), 0xf0, 0x9d],
    found: [message("a")]
  },
  { clause: "its type is not that of what comes on the next connection", text: "event: x\ndata: a\n", found: [] },
  { clause: "a CR that is the last byte ends a line", text: "id: 1\ndata: a\r\r", found: [message("a", "1")] },
  { clause: "nothing at all", text: "", found: [] },

  // Retry.
  {
    clause: "retry is in milliseconds, digits only",
    text: "retry: 1500\nretry:0\nretry: 007\n",
    found: [
      { retry: 1500 },
      { retry: 0 },
      { retry: 7 }
    ]
  },
  {
    clause: "anything else is ignored",
    text:
      "retry\nretry:\nretry: \nretry:  1\nretry: 1 \nretry: -1\nretry: +1\nretry: 1.5\nretry: 1e3\nretry: 0x1\nretry: ١\nretry: 1s\n\n",
    found: []
  },
  { clause: "retry counts at once, whatever becomes of its block", text: "retry: 10\ndata: a", found: [{ retry: 10 }] },
  {
    clause: "retry is no part of an event",
    text: "data: a\nretry: 10\ndata: b\n\n",
    found: [{ retry: 10 }, message("a\nb")]
  },

  // The limit: data so far with the line that is being read.
  { clause: "what just fits", text: "data: 34\n\nevent: a\n\n", maxEventSize: 8, found: [message("34")] },
  {
    clause: "a line over the limit",
    text: "data: 0\n\ndata: 345\n\n",
    maxEventSize: 8,
    found: [message("0"), "too large"]
  },
  {
    clause: "data over the limit, in short lines",
    text: "data:1\ndata:2\ndata:3\ndata:4\n\n",
    maxEventSize: 10,
    found: [
      "too large"
    ]
  },
  { clause: "a line that never ends", text: `data: ${"x".repeat(50)}`, maxEventSize: 20, found: ["too large"] },
  { clause: "a comment that never ends", text: `:${"x".repeat(50)}`, maxEventSize: 20, found: ["too large"] },
  {
    clause: "many events that fit, together over the limit",
    text: "data: 1\n\n".repeat(5),
    maxEventSize: 8,
    found: [
      message("1"),
      message("1"),
      message("1"),
      message("1"),
      message("1")
    ]
  }
]

/** The text of the standard, word by word, over a stream that is there as a whole. */
const literally = (bytes: Uint8Array): ReadonlyArray<Found> => {
  const found: Array<Found> = []
  const lines = new TextDecoder("utf-8").decode(bytes).split(/\r\n|\n|\r/)
  // What the last line end does not end.
  lines.pop()
  let data = ""
  let type = ""
  let id: string | undefined
  let told: string | undefined
  for (const line of lines) {
    if (line === "") {
      if (data !== "") found.push([type === "" ? "message" : type, data.slice(0, -1), id])
      else if (id !== told) found.push({ id: id ?? "" })
      told = id
      data = ""
      type = ""
      continue
    }
    const colon = line.indexOf(":")
    if (colon === 0) continue
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "")
    if (field === "event") type = value
    else if (field === "data") data += `${value}\n`
    else if (field === "id" && !value.includes("\0")) id = value
    else if (field === "retry" && /^[0-9]+$/.test(value)) found.push({ retry: Number(value) })
  }
  return found
}

describe("sseParser", () => {
  it.each(vectors)("$clause", ({ found, text, ...options }) => {
    const bytes = bytesOf(text)
    for (const [cut, pieces] of cuts(bytes)) assert.deepStrictEqual(parse(pieces, options), found, cut)
  })

  it("cut into ones and twos in every way there is", () => {
    const short: ReadonlyArray<readonly [string, ReadonlyArray<Found>]> = [
      ["\ufeffdata\r\n\r\n", [message("")]],
      ["data:\ud834\udd1e\r\r\n", [message("\ud834\udd1e")]],
      ["id:ü\n\ndata\n\n", [{ id: "ü" }, message("", "ü")]],
      ["data:€\n\rid:1\r\n\n", [message("€"), { id: "1" }]],
      [":\r\rretry:1\r\n", [{ retry: 1 }]],
      ["event:é\ndata\r\r", [["é", "", undefined]]],
      ["data:\ufeff\r\n\r\n", [message("\ufeff")]]
    ]
    for (const [text, found] of short) {
      const bytes = bytesOf(text)
      let ways = 0
      const cut = (at: number, pieces: ReadonlyArray<Uint8Array>) => {
        if (at === bytes.length) {
          ways++
          assert.deepStrictEqual(parse(pieces), found, JSON.stringify(pieces.map((piece) => [...piece])))
          return
        }
        for (const size of at + 2 <= bytes.length ? [1, 2] : [1]) {
          cut(at + size, [...pieces, bytes.subarray(at, at + size)])
        }
      }
      cut(0, [])
      assert.isAtLeast(ways, 100)
    }
  })

  it("10,000 streams of anything, as the text read word by word has them", () => {
    const parts = [
      "\n",
      "\r",
      "\r\n",
      ":",
      " ",
      "data",
      "event",
      "id",
      "retry",
      "data:",
      "data: ",
      "event: ",
      "id:",
      "retry:",
      "x",
      "0",
      "7",
      "\t",
      "\0",
      "\ufeff",
      "ü",
      "€",
      "\ud834\udd1e",
      "\u2028"
    ].map(bytesOf)
    // So that there are events among it.
    parts.push(
      ...["\n\n", "\r\r", "\r\n\r\n", "\ndata", "\rdata:", "\r\ndata: ", "\nid:", "\revent:", "\nretry: 1\n"].map(
        bytesOf
      )
    )
    const bad = [0xff, 0xc3, 0xe2, 0x82, 0xf0, 0xed].map((byte) => Uint8Array.of(byte))
    let state = 1
    const draw = (below: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return Math.floor(state / 2 ** 32 * below)
    }
    let events = 0
    for (let n = 0; n < 10_000; n++) {
      const from = n % 4 === 0 ? [...parts, ...bad] : parts
      const bytes = Buffer.concat(Array.from({ length: draw(40) }, () => from[draw(from.length)] ?? Uint8Array.of()))
      const pieces: Array<Uint8Array> = []
      for (let at = 0; at < bytes.length;) {
        const size = 1 + draw(2)
        pieces.push(bytes.subarray(at, at + size))
        at += size
      }
      const expected = literally(bytes)
      events += expected.length
      assert.deepStrictEqual(parse(pieces), expected, JSON.stringify(bytes.toString("latin1")))
    }
    assert.isAbove(events, 5000)
  })

  it("the limit does not depend on how the network cut an event", () => {
    for (let size = 1; size < 40; size++) {
      const bytes = bytesOf("data: 12345\ndata: 6789\nid: 7\n\ndata: b\r\n\r\n: c\ndata\n\n")
      const expected = parse([bytes], { maxEventSize: size })
      for (const [cut, pieces] of cuts(bytes)) {
        assert.deepStrictEqual(parse(pieces, { maxEventSize: size }), expected, cut)
      }
    }
  })

  it("reads a megabyte that comes in small pieces, and many short lines, in linear time", () => {
    const big = bytesOf(`data: ${"x".repeat(1_000_000)}\n\n`)
    const [event] = parse(inPieces(big, 0, 100), { maxEventSize: 2_000_000 })
    assert.strictEqual(typeof event === "object" && "1" in event ? event[1].length : 0, 1_000_000)
    const lines = bytesOf(`${"data\r".repeat(20_000)}${"x\n".repeat(200_000)}${":\r\n".repeat(100_000)}\n`)
    assert.strictEqual(parse([lines], { maxEventSize: 2_000_000 }).length, 1)
  })
})

describe("why not effect/encoding/Sse", () => {
  const parseWithEffect = (pieces: ReadonlyArray<string>, options?: Sse.DecodeOptions) => {
    const found: Array<Sse.AnyEvent> = []
    const parser = Sse.makeParser((event) => found.push(event), options)
    const errors = pieces.map((piece) => parser.feed(piece)?.reason._tag)
    return { found, errors }
  }

  it("it does not tell of an id by itself", () => {
    assert.deepStrictEqual(parseWithEffect(["id: 7\n\n"]).found, [])
  })

  it("its limit depends on how the network cut an event", () => {
    const limit = { maxEventSize: 8 }
    assert.deepStrictEqual(parseWithEffect(["data: 12345678\n\n"], limit).errors, [undefined])
    assert.deepStrictEqual(parseWithEffect(["data: 12345678", "\n\n"], limit).errors, ["EventTooLarge", undefined])
  })
})
