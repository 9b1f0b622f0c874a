// Framings: however a network cuts the bytes, the same messages come out; and the limit holds in both directions.
import { assert, describe, it } from "@effect/vitest"
import * as Framing from "effect-lifeline/Framing"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const bytes = (text: string) => new TextEncoder().encode(text)
const textOf = (frame: Uint8Array) => new TextDecoder().decode(frame)
const texts = (frames: ReadonlyArray<Uint8Array>) => frames.map(textOf)

const framings = [
  ["nul", Framing.nul({ maxBytes: 256 })],
  ["newline", Framing.newline({ maxBytes: 256 })],
  ["lengthPrefixed, 1 byte", Framing.lengthPrefixed({ maxBytes: 255, prefixBytes: 1 })],
  ["lengthPrefixed, 2 bytes", Framing.lengthPrefixed({ maxBytes: 256, prefixBytes: 2 })],
  ["lengthPrefixed, 4 bytes", Framing.lengthPrefixed({ maxBytes: 256 })]
] as const

describe.each(framings)("Framing.%s", (_, framing) => {
  const encode = (message: Uint8Array) => Result.getOrThrow(framing.encode(message))

  it.effect.prop(
    "what is sent comes out again, however it is cut",
    [
      Schema.Array(Schema.String.check(Schema.isMaxLength(40))),
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9 }))
    ],
    ([messages, size]) =>
      Effect.sync(() => {
        // A message of one byte that is none of the delimiters, for each.
        const sent = messages.map((message) => `${message.replaceAll(/[\0\r\n]/g, "_")}.`.toWellFormed())
        const wire = sent.flatMap((message) => [...encode(bytes(message))])
        const decode = framing.decoder()
        const got: Array<string> = []
        for (let at = 0; at < wire.length; at += size) {
          const { error, frames } = decode(Uint8Array.from(wire.slice(at, at + size)))
          assert.isUndefined(error)
          got.push(...texts(frames))
        }
        assert.deepStrictEqual(got, sent)
      })
  )

  it("a message as long as the limit passes, one byte more does not, in either direction", () => {
    const most = "x".repeat(framing.maxBytes)
    assert.deepStrictEqual(texts(framing.decoder()(encode(bytes(most))).frames), [most])
    const refused = Result.getOrThrow(Result.flip(framing.encode(bytes(`${most}x`))))
    assert.strictEqual(refused.reason, "TooLong")
    assert.strictEqual(refused.maxBytes, framing.maxBytes)
  })

  it("an empty message is one", () => {
    assert.deepStrictEqual(texts(framing.decoder()(encode(bytes(""))).frames), [""])
  })
})

describe.each(framings.slice(0, 2))("Framing.%s", (_, framing) => {
  const end = Result.getOrThrow(framing.encode(bytes("")))

  it("what comes before a frame that is too long is handed over", () => {
    const wire = Uint8Array.from([...bytes("ok"), ...end, ...bytes("x".repeat(257)), ...end])
    const { error, frames } = framing.decoder()(wire)
    assert.deepStrictEqual(texts(frames), ["ok"])
    assert.strictEqual(error?.reason, "TooLong")
  })

  it("a frame that never ends is given up at the limit", () => {
    const decode = framing.decoder()
    let error: Framing.FrameError | undefined
    let sent = 0
    while (error === undefined && sent < 1000) {
      error = decode(bytes("x")).error
      sent++
    }
    assert.isAtMost(sent, 258)
    assert.strictEqual(error?.reason, "TooLong")
  })

  it("a message with the delimiter in it is refused", () => {
    const refused = Result.getOrThrow(Result.flip(framing.encode(Uint8Array.from([65, ...end, 65]))))
    assert.strictEqual(refused.reason, "HasDelimiter")
  })
})

describe("Framing", () => {
  it("a line may end in CR LF; the CR does not count, one within a line does", () => {
    const decode = Framing.newline({ maxBytes: 3 }).decoder()
    assert.deepStrictEqual(texts(decode(bytes("abc\r\na\rb\nx\n")).frames), ["abc", "a\rb", "x"])
    assert.strictEqual(decode(bytes("abcd\n")).error?.reason, "TooLong")
  })

  it("a length that passes the limit is refused before anything is kept for it", () => {
    const { error } = Framing.lengthPrefixed({ maxBytes: 256 }).decoder()(Uint8Array.of(255, 255, 255, 255))
    assert.strictEqual(error?.bytes, 2 ** 32 - 1)
  })

  it("the limit is at most what the prefix can say", () => {
    assert.strictEqual(Framing.lengthPrefixed({ prefixBytes: 1 }).maxBytes, 255)
  })

  it("a frame does not change when the chunk that it came in does", () => {
    const chunk = bytes("abc\0def")
    const decode = Framing.nul().decoder()
    const { frames } = decode(chunk)
    chunk.fill(0)
    assert.deepStrictEqual(texts(frames), ["abc"])
    assert.deepStrictEqual(texts(decode(bytes("\0")).frames), ["def"])
  })
})
