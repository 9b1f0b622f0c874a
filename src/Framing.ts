/**
 * Framing: where a message ends in a stream of bytes. A framing is a value, given to `ControlChannel`; both sides need the
 * same one.
 *
 * | framing | a message is |
 * |---|---|
 * | {@link nul} | followed by a NUL byte, and has none in it |
 * | {@link newline} | a line: followed by LF, or CR LF, and has no LF in it |
 * | {@link lengthPrefixed} | preceded by its length in bytes, big endian: any bytes |
 *
 * Each has a limit, which holds for what is sent and for what comes: no more than one message of that size is kept in memory
 * while it is not complete. What passes it is a {@link FrameError}, in both directions.
 *
 * **Example** (Frames, however the network cuts them)
 *
 * ```ts
 * import * as Framing from "effect-lifeline/Framing"
 *
 * const decode = Framing.nul({ maxBytes: 256 }).decoder()
 * const bytes = (text: string) => new TextEncoder().encode(text)
 *
 * export const none = decode(bytes("hel")).frames.length // => 0
 * export const one = decode(bytes("lo\0wor")).frames.length // => 1
 * ```
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"

/**
 * A message does not fit into a frame. `TooLong`: it passes the limit; `bytes` is its length as far as it is known.
 * `HasDelimiter`: it has the byte in it that ends a frame, so that it would come apart.
 *
 * @category errors
 * @since 0.1.0
 */
export class FrameError extends Data.TaggedError("FrameError")<{
  readonly reason: "TooLong" | "HasDelimiter"
  readonly bytes: number
  readonly maxBytes: number
}> {
  override get message() {
    return this.reason === "TooLong"
      ? `a frame of ${this.bytes} bytes or more, where ${this.maxBytes} are allowed`
      : `the message of ${this.bytes} bytes has the byte in it that ends a frame; encode it, or prefix its length`
  }
}

/**
 * What came of some bytes: the messages that are complete, and then, maybe, one that passes the limit. After an error nothing
 * more can be read from the same stream.
 *
 * @category models
 * @since 0.1.0
 */
export interface Decoded {
  readonly frames: ReadonlyArray<Uint8Array>
  readonly error: FrameError | undefined
}

/**
 * How messages are told apart.
 *
 * @category models
 * @since 0.1.0
 */
export interface Framing {
  /** The longest message, in bytes, without what the framing adds. */
  readonly maxBytes: number
  /** A message as it goes over the wire. */
  readonly encode: (message: Uint8Array) => Result.Result<Uint8Array, FrameError>
  /** One for each connection: it keeps what is not complete yet. */
  readonly decoder: () => (chunk: Uint8Array) => Decoded
}

/**
 * How long a message may be.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** In bytes, without what the framing adds. @default 65,536 */
  readonly maxBytes?: number | undefined
}

const defaultMax = 65_536

const tooLong = (bytes: number, maxBytes: number) => new FrameError({ reason: "TooLong", bytes, maxBytes })

const concat = (parts: ReadonlyArray<Uint8Array>, length: number): Uint8Array => {
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** `spare`: so many bytes at the end of a frame may turn out not to be part of the message. */
const delimited = (
  maxBytes: number,
  delimiter: number,
  spare: number,
  strip: (frame: Uint8Array) => Uint8Array
): Framing => ({
  maxBytes,
  encode: (message) => {
    const bytes = message.length
    if (bytes > maxBytes) return Result.fail(tooLong(bytes, maxBytes))
    if (message.includes(delimiter)) return Result.fail(new FrameError({ reason: "HasDelimiter", bytes, maxBytes }))
    return Result.succeed(concat([message, Uint8Array.of(delimiter)], bytes + 1))
  },
  decoder: () => {
    let parts: Array<Uint8Array> = []
    let length = 0
    return (chunk) => {
      const frames: Array<Uint8Array> = []
      let from = 0
      for (;;) {
        const end = chunk.indexOf(delimiter, from)
        const part = chunk.subarray(from, end < 0 ? chunk.length : end)
        if (part.length > 0) parts.push(part)
        length += part.length
        if (length > maxBytes + spare) return { frames, error: tooLong(length, maxBytes) }
        // What waits must not keep the whole chunk that it came in.
        if (end < 0) {
          parts = [concat(parts, length)]
          return { frames, error: undefined }
        }
        const frame = strip(concat(parts, length))
        parts = []
        length = 0
        from = end + 1
        if (frame.length > maxBytes) return { frames, error: tooLong(frame.length, maxBytes) }
        frames.push(frame)
      }
    }
  }
})

/**
 * Each message is followed by a NUL byte.
 *
 * @category constructors
 * @since 0.1.0
 */
export const nul = ({ maxBytes = defaultMax }: Options = {}): Framing => delimited(maxBytes, 0, 0, (frame) => frame)

/**
 * Each message is a line: what is sent ends in LF; what comes may also end in CR LF.
 *
 * @category constructors
 * @since 0.1.0
 */
export const newline = ({ maxBytes = defaultMax }: Options = {}): Framing =>
  delimited(maxBytes, 10, 1, (frame) => frame[frame.length - 1] === 13 ? frame.subarray(0, -1) : frame)

/**
 * Each message is preceded by its length, in 4 bytes unless told otherwise, the highest first. The limit is at most what the
 * prefix can say.
 *
 * @category constructors
 * @since 0.1.0
 */
export const lengthPrefixed = (
  options: Options & { readonly prefixBytes?: 1 | 2 | 4 | undefined } = {}
): Framing => {
  const { prefixBytes = 4 } = options
  const maxBytes = Math.min(options.maxBytes ?? defaultMax, 2 ** (8 * prefixBytes) - 1)
  return {
    maxBytes,
    encode: (message) => {
      if (message.length > maxBytes) return Result.fail(tooLong(message.length, maxBytes))
      const prefix = new Uint8Array(prefixBytes)
      for (let n = 0; n < prefixBytes; n++) prefix[n] = Math.floor(message.length / 2 ** (8 * (prefixBytes - 1 - n)))
      return Result.succeed(concat([prefix, message], prefixBytes + message.length))
    },
    decoder: () => {
      let seen = 0
      let due = 0
      let body: Uint8Array | undefined
      return (chunk) => {
        const frames: Array<Uint8Array> = []
        let from = 0
        for (;;) {
          while (body === undefined) {
            if (seen === prefixBytes) {
              if (due > maxBytes) return { frames, error: tooLong(due, maxBytes) }
              body = new Uint8Array(due)
              seen = 0
              break
            }
            const byte = chunk[from++]
            if (byte === undefined) return { frames, error: undefined }
            due = due * 256 + byte
            seen++
          }
          const part = chunk.subarray(from, from + body.length - seen)
          body.set(part, seen)
          seen += part.length
          from += part.length
          if (seen < body.length) return { frames, error: undefined }
          frames.push(body)
          body = undefined
          seen = due = 0
        }
      }
    }
  }
}
