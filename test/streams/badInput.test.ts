/**
 * What servers and networks may say instead of an event stream or of WebSocket frames, over real sockets, for each client
 * that programs use on Node. Each row ends in the right tag and reason, names the operation and the place, shows no secret, and
 * leaves nothing behind. (`EventSource.server.test.ts` and `WebSocket.server.test.ts` have more that ends well.)
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, describe, it } from "@effect/vitest"
import * as EventSource from "effect-lifeline/EventSource"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { inspect } from "node:util"
import * as Zlib from "node:zlib"
import * as Leaks from "../support/leaks.ts"
import * as RawServer from "../support/rawServer.ts"

const dial: Reconnect.Dial<never> = { cursor: undefined, attempt: 1, generation: 1 }

const key = "canary-key"
const ticket = "canary-ticket"

/** `"end"`, or tag and reason of an error that is fit to be read and to be logged. */
const outcomeOf =
  (operations: ReadonlyArray<string>, place: string) => <A, R>(effect: Effect.Effect<A, Reconnect.Failure, R>) =>
    Effect.match(effect, {
      onSuccess: () => "end",
      onFailure: (error) => {
        assert.include(operations, error.operation)
        assert.include(error.message, error.operation)
        assert.include(error.message, place)
        assert.notInclude(error.message, "undefined")
        const shown = [
          String(error),
          JSON.stringify(error),
          inspect(error, { depth: 20, showHidden: true }),
          error.stack
        ]
        for (const text of shown) assert.notInclude(text, "canary")
        return "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag
      }
    })

/** What follows must leave neither fibers nor anything that the process waits for, nor connections to the server. */
const clean = <E, R>(script: RawServer.Script, test: (server: RawServer.RawServer) => Effect.Effect<void, E, R>) =>
  Effect.gen(function*() {
    const fibers = Leaks.fiberCounter()
    const left = yield* Leaks.resources
    yield* Effect.scoped(Effect.gen(function*() {
      const server = yield* RawServer.make(script)
      yield* fibers.watch(test(server))
      assert.strictEqual(yield* fibers.left, 0, "fibers")
    }))
    assert.deepStrictEqual(yield* left, [], "resources")
  }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

const sum = (expected: string | Readonly<Record<string, string>>, client: string) =>
  typeof expected === "string" ? expected : expected[client]

/** Where no connection comes about: no server, no name, no TLS. */
const nowhere: ReadonlyArray<readonly [string, (server: RawServer.RawServer) => Effect.Effect<string>]> = [
  ["a port where nobody listens", () => Effect.scoped(Effect.map(RawServer.make(() => {}), ({ url }) => url))],
  // A label of 64 characters fails in the resolver itself: where there is no name server, others take their time.
  ["a name that does not resolve", () => Effect.succeed(`http://${"x".repeat(64)}.invalid:9696`)],
  ["TLS with who does not speak it", ({ url }) => Effect.succeed(url.replace("http:", "https:"))]
]

/** Answers in plain text, whatever is said to it. */
const inPlainText = RawServer.make(() => {}, (socket) => socket.end(RawServer.answer(400)))

// ---------------------------------------------------------------------------------------------------------------------
// Event streams
// ---------------------------------------------------------------------------------------------------------------------

const clients = {
  "fetch": FetchHttpClient.layer,
  "undici": NodeHttpClient.layerUndici,
  "node:http": NodeHttpClient.layerNodeHttp
}

interface SseRow {
  readonly name: string
  readonly at: RawServer.Script
  readonly ended: string | Readonly<Record<string, string>>
  /** What came before. @default nothing */
  readonly data?: ReadonlyArray<string> | Readonly<Record<keyof typeof clients, ReadonlyArray<string>>>
  readonly options?: EventSource.ConnectOptions
}

const text = "data: a\n\ndata: b\n\n"
const stream = { "Content-Type": "text/event-stream" }
const head = (more = "") => `HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n${more}\r\n`
const chunked = head("Transfer-Encoding: chunked\r\n")
const chunk = (body: string) => `${Buffer.byteLength(body).toString(16)}\r\n${body}\r\n`

const say = (...bytes: ReadonlyArray<string | Uint8Array>): RawServer.Script => (socket) => {
  for (const some of bytes) socket.write(some)
}

const sayAndEnd = (...bytes: ReadonlyArray<string | Uint8Array>): RawServer.Script => (socket, request) => {
  say(...bytes)(socket, request)
  socket.end()
}

const flood = (first: string, again: string): RawServer.Script => (socket) => {
  const more = () => {
    while (socket.writable && socket.write(again)) {
      // Until the buffers are full.
    }
  }
  socket.on("drain", more)
  socket.write(first)
  more()
}

/** One byte at a time, each well within what counts as silence here. */
const drip = (first: string, then: string): RawServer.Script => (socket) => {
  socket.write(first)
  let at = 0
  const timer = setInterval(() => socket.write(then.charAt(at++ % then.length)), 10)
  socket.on("close", () => clearInterval(timer))
}

const short = "300 millis"

const sseRows: ReadonlyArray<SseRow> = [
  // Too much.
  {
    name: "an event that is too large, in one line",
    at: say(chunked, chunk(`${text}data: ${"x".repeat(1000)}\n\n`)),
    options: { maxEventSize: 500 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "an event that is too large, in many short lines",
    at: say(chunked, chunk(`${text}${"data: x\n".repeat(500)}\n`)),
    options: { maxEventSize: 500 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "a line that never ends",
    at: flood(head() + text, "x".repeat(65_536)),
    options: { maxEventSize: 1_000_000 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "a comment that never ends",
    at: flood(`${head()}${text}:`, "x".repeat(65_536)),
    options: { maxEventSize: 1_000_000 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "an id that never ends",
    at: flood(`${head()}${text}id: `, "x".repeat(65_536)),
    options: { maxEventSize: 1_000_000 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "headers that never end",
    at: flood("HTTP/1.1 200 OK\r\n", `X-${"x".repeat(1000)}: ${key}\r\n`),
    ended: "Transient.Unreachable"
  },
  {
    name: "a header that never ends",
    at: flood(`HTTP/1.1 200 OK\r\nX-Key: `, key.repeat(1000)),
    ended: "Transient.Unreachable"
  },

  // Too slow. Silence is counted in bytes: who says one now and then is there, and may take as long as it likes over an
  // event, but not to begin; the size of an event is what ends it.
  {
    name: "headers, one byte at a time",
    at: drip("HTTP/1.1 200 OK\r\nX-", "x"),
    options: { connectTimeout: short },
    ended: "Transient.TimedOut"
  },
  {
    name: "an event, one byte at a time, without end",
    at: drip(head() + text, "data: x\n"),
    options: { idleTimeout: "500 millis", maxEventSize: 16 },
    ended: "Refused.MalformedResponse",
    data: ["a", "b"]
  },
  {
    name: "a byte, then nothing for too long",
    at: say(head(), text, "d"),
    options: { idleTimeout: short },
    ended: "Transient.TimedOut",
    data: ["a", "b"]
  },

  // Not what it says.
  ...([
    ["none", ""],
    ["JSON", "Content-Type: application/json\r\n"],
    ["text", `Content-Type: text/plain; charset="${key}"\r\n`],
    ["nearly the right one", "Content-Type: text/event-stream-2\r\n"],
    ["two", "Content-Type: text/event-stream, application/json\r\n"],
    ["a page", "Content-Type: text/html\r\n"]
  ] as const).map(([name, header]): SseRow => ({
    name: `the content type is ${name}`,
    at: sayAndEnd(`HTTP/1.1 200 OK\r\n${header}Content-Length: ${text.length}\r\n\r\n${text}`),
    ended: "Refused.MalformedResponse"
  })),
  {
    name: "bytes that are not UTF-8 are U+FFFD, and nothing else is lost",
    at: sayAndEnd(head(), Buffer.from("data: \xff\xfe\xc3\n\ndata: \xe2\x82\n\ndata: b\n\n", "latin1")),
    ended: "end",
    data: ["\ufffd\ufffd\ufffd", "\ufffd", "b"]
  },
  {
    name: "UTF-16",
    at: sayAndEnd(head(), Buffer.from(`\ufeff${text}`, "utf16le")),
    ended: "end"
  },
  { name: "zeros", at: sayAndEnd(head(), Buffer.alloc(1000)), ended: "end" },

  // Compressed.
  ...([
    ["gzip", Zlib.gzipSync(text)],
    ["deflate", Zlib.deflateSync(text)],
    ["br", Zlib.brotliCompressSync(text)]
  ] as const).map(([encoding, body]): SseRow => ({
    name: `compressed with ${encoding}`,
    at: sayAndEnd(head(`Content-Encoding: ${encoding}\r\nContent-Length: ${body.length}\r\n`), body),
    ended: { "fetch": "end", "undici": "Refused.MalformedResponse", "node:http": "Refused.MalformedResponse" },
    data: { "fetch": ["a", "b"], "undici": [], "node:http": [] }
  })),
  {
    name: "compressed, and cut off",
    at: sayAndEnd(head("Content-Encoding: gzip\r\nContent-Length: 12\r\n"), Zlib.gzipSync(text).subarray(0, 12)),
    ended: {
      // Node's fetch takes what there is for the whole.
      "fetch": "end",
      "undici": "Refused.MalformedResponse",
      "node:http": "Refused.MalformedResponse"
    }
  },
  {
    name: "compressed by nobody knows what",
    at: sayAndEnd(head(`Content-Encoding: x-${key}\r\nContent-Length: ${text.length}\r\n`), text),
    ended: "Refused.MalformedResponse"
  },

  // Cut, or miscounted.
  {
    name: "a chunked body that breaks off in a chunk",
    at: sayAndEnd(chunked, chunk(text), "40\r\ndata: c"),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a chunked body that breaks off in a chunk's size",
    at: sayAndEnd(chunked, chunk(text), "4"),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a chunk whose size is none",
    at: say(chunked, `${chunk(text)}${key}\r\n`),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a length that is too long",
    at: sayAndEnd(head("Content-Length: 1000\r\n"), text, "id: 1\ndata: c\n"),
    ended: "Transient.Unreachable",
    data: ["a", "b"]
  },
  {
    name: "a length that is too short: what is beyond it is no part of the answer",
    at: sayAndEnd(head(`Content-Length: ${text.length}\r\n`), `${text}data: c\n\n`),
    ended: "end",
    data: ["a", "b"]
  },
  {
    name: "a length in the middle of an event",
    at: sayAndEnd(head(`Content-Length: ${text.length - 1}\r\n`), text),
    ended: "end",
    data: ["a"]
  },
  {
    name: "two lengths that differ",
    at: sayAndEnd(head("Content-Length: 9\r\nContent-Length: 18\r\n"), text),
    ended: "Transient.Unreachable"
  },
  {
    name: "an answer to something else",
    at: sayAndEnd("SSH-2.0-OpenSSH_9.6\r\n"),
    ended: "Transient.Unreachable"
  }
]

describe.each(Object.entries(clients))("event streams over %s", (client, layer) => {
  const read = (url: string, options: EventSource.ConnectOptions = {}) => {
    const data: Array<string> = []
    return EventSource.connect(`${url}/events?ticket=${ticket}`, {
      headers: { "x-api-key": Redacted.make(key) },
      ...options
    })({ cursor: undefined, attempt: 1, generation: 1 }).pipe(
      Effect.flatMap(Stream.runForEach((item) =>
        Effect.sync(() => {
          if (item.notice === undefined) data.push(item.value.data)
        })
      )),
      Effect.scoped,
      outcomeOf(["subscribe"], `${url}/events`),
      Effect.map((ended) => ({ ended, data })),
      Effect.provide(layer)
    )
  }

  it.live.each(sseRows.map((row) => [row.name, row] as const))(
    "%s",
    ([, row]) =>
      clean(row.at, (server) =>
        Effect.gen(function*() {
          const { data, ended } = yield* read(server.url, row.options)
          const expected = row.data ?? []
          assert.deepStrictEqual({ ended, data }, {
            ended: sum(row.ended, client),
            data: "fetch" in expected ? expected[client as keyof typeof clients] : expected
          })
          assert.strictEqual(server.requests.length, 1)
        }))
  )

  it.live.each(nowhere)("%s is for now", ([, place]) =>
    Effect.gen(function*() {
      const server = yield* inPlainText
      const url = yield* place(server)
      assert.deepStrictEqual(yield* read(url), { ended: "Transient.Unreachable", data: [] })
      assert.deepStrictEqual(yield* read(url, { method: EventSource.post() }), {
        ended: "Refused.Unsupported",
        data: []
      })
    }).pipe(Effect.scoped))

  it.live.each([301, 302, 303, 307, 308])(
    "a redirect (%i) to another origin takes no secret along, nor back",
    (status) =>
      Effect.scoped(Effect.gen(function*() {
        let back = ""
        const elsewhere = yield* RawServer.make((socket) => {
          socket.end(RawServer.answer(status, "", { Location: back }))
        })
        const server = yield* RawServer.make((socket, { n }) => {
          socket.end(
            n === 0
              ? RawServer.answer(status, "", { Location: `${elsewhere.url}/there` })
              : RawServer.answer(200, text, stream)
          )
        })
        back = `${server.url}/back`
        const { data, ended } = yield* read(server.url, {
          headers: { "x-api-key": Redacted.make(key), authorization: Redacted.make(key), cookie: Redacted.make(key) }
        })
        assert.deepStrictEqual({ data, ended }, { data: ["a", "b"], ended: "end" })
        assert.include(server.requests[0]?.head, key)
        for (const { head } of [elsewhere.requests[0], server.requests[1]].filter((one) => one !== undefined)) {
          assert.notInclude(head, "canary")
          assert.match(head, /accept: text\/event-stream/i)
        }
        assert.deepStrictEqual([server.requests.length, elsewhere.requests.length], [2, 1])
      }))
  )

  it.live("a drip that completes events is a stream like any other", () =>
    clean(drip(head(), "data: c\n\n"), (server) =>
      Effect.gen(function*() {
        const items = yield* EventSource.connect(`${server.url}/events`, { idleTimeout: "500 millis" })({
          cursor: undefined,
          attempt: 1,
          generation: 1
        }).pipe(
          Effect.flatMap((stream) => Stream.runCollect(Stream.take(stream, 8))),
          Effect.scoped,
          Effect.provide(layer),
          Effect.orDie
        )
        assert.deepStrictEqual(
          items.map((item) => item.notice ?? item.value.data),
          Array.from({ length: 8 }, () => "c")
        )
      })))
})

// ---------------------------------------------------------------------------------------------------------------------
// WebSocket
// ---------------------------------------------------------------------------------------------------------------------

interface Frame {
  readonly opcode: number
  readonly payload?: Uint8Array | string
  readonly fin?: boolean
  /** Reserved bits, as a number of 0 to 7. */
  readonly reserved?: number
  readonly masked?: boolean
  /** What the frame says of its length. @default the truth */
  readonly length?: bigint
}

const frame = ({ fin = true, length, masked = false, opcode, payload = "", reserved = 0 }: Frame): Uint8Array => {
  const body = typeof payload === "string" ? Buffer.from(payload) : Buffer.from(payload)
  const said = length ?? BigInt(body.length)
  const bit = masked ? 0x80 : 0
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode
  const size = said < 126n
    ? Buffer.from([first, bit | Number(said)])
    : said < 65_536n
    ? Buffer.from([first, bit | 126, Number(said >> 8n), Number(said & 255n)])
    : Buffer.concat([Buffer.from([first, bit | 127]), Buffer.from(said.toString(16).padStart(16, "0"), "hex")])
  return Buffer.concat([size, masked ? Buffer.alloc(4) : Buffer.alloc(0), body])
}

const words = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9 }

const accept = (request: RawServer.Request, more = ""): string => {
  const [, nonce = ""] = /^sec-websocket-key: *(.*)$/im.exec(request.head) ?? []
  const proof = createHash("sha1").update(`${nonce.trim()}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
  return `HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${proof}\r\n${more}\r\n`
}

/** Accepts, sends this, and waits. */
const sends = (...frames: ReadonlyArray<Uint8Array>): RawServer.Script => (socket, request) => {
  socket.write(accept(request))
  for (const bytes of frames) socket.write(bytes)
}

const hello = frame({ opcode: words.text, payload: "hello" })

interface WebSocketRow {
  readonly name: string
  readonly at: RawServer.Script
  /** By Node's own, and by ws. */
  readonly ended: string | { readonly own: string; readonly ws: string }
  readonly seen?: ReadonlyArray<string>
  readonly options?: Partial<WebSocket.Options<never, keyof WebSocket.Kinds>>
}

const raw = (...bytes: ReadonlyArray<number>) => Uint8Array.from(bytes)

const closing = (code: number, reason: string | Uint8Array = "") =>
  frame({ opcode: words.close, payload: Buffer.concat([raw(code >> 8, code & 255), Buffer.from(reason)]) })

const broken = "Transient.Unavailable"
const malformed = "Refused.MalformedResponse"
const tooLarge = { own: malformed, ws: "Refused.InvalidRequest" }

/** By breach of the protocol: what ws calls so, and Node's own merely ends. */
const breach = { own: broken, ws: malformed }

const webSocketRows: ReadonlyArray<WebSocketRow> = [
  // What is no message of the kind that is due.
  {
    name: "binary where text is due",
    at: sends(hello, frame({ opcode: words.binary, payload: key })),
    ended: malformed,
    seen: ["hello"]
  },
  {
    name: "text where binary is due",
    at: sends(frame({ opcode: words.text, payload: key })),
    options: { frames: "binary" },
    ended: malformed
  },
  {
    name: "text that is not UTF-8",
    at: sends(hello, frame({ opcode: words.text, payload: raw(0xff, 0xfe) })),
    ended: breach,
    seen: ["hello"]
  },
  {
    name: "text that is not UTF-8, over two frames",
    at: sends(
      frame({ opcode: words.text, payload: raw(0xe2, 0x82), fin: false }),
      frame({ opcode: words.continuation, payload: "x" })
    ),
    ended: breach
  },
  {
    name: "a message that is too long",
    at: sends(hello, frame({ opcode: words.text, payload: "x".repeat(1001) })),
    ended: { own: malformed, ws: malformed },
    seen: ["hello"]
  },
  {
    name: "one that is far too long",
    at: sends(hello, frame({ opcode: words.text, payload: "x".repeat(100_000) })),
    ended: tooLarge,
    seen: ["hello"]
  },
  {
    name: "a frame that says it is longer than anything",
    at: sends(hello, frame({ opcode: words.text, length: 0x7fff_ffff_ffff_ffffn })),
    ended: { own: broken, ws: "Refused.InvalidRequest" },
    seen: ["hello"]
  },
  {
    name: "a message of frames without end, in a hurry",
    at: (socket, request) => {
      socket.write(accept(request))
      socket.write(frame({ opcode: words.text, payload: "x", fin: false }))
      for (let n = 0; n < 100; n++) {
        socket.write(frame({ opcode: words.continuation, payload: "x".repeat(1000), fin: false }))
      }
    },
    options: { liveness: WebSocket.liveness({ deadline: short, ping: "ping" }) },
    // Node's own keeps what came: only that it is silent ends it.
    ended: { own: "Transient.TimedOut", ws: "Refused.InvalidRequest" }
  },

  // Breaches of the protocol.
  ...([
    ["an opcode that there is not", frame({ opcode: 3, payload: key })],
    ["a reserved bit", frame({ opcode: words.text, payload: key, reserved: 2 })],
    ["a compressed message, which nobody asked for", frame({ opcode: words.text, payload: key, reserved: 4 })],
    ["a masked frame", frame({ opcode: words.text, payload: key, masked: true })],
    ["a continuation of nothing", frame({ opcode: words.continuation, payload: key })],
    ["a ping in two frames", frame({ opcode: words.ping, payload: key, fin: false })],
    ["a ping that is too long", frame({ opcode: words.ping, payload: "x".repeat(126) })],
    ["a close with half a code", frame({ opcode: words.close, payload: raw(3) })],
    ["a close with a code that must not be sent", closing(1006)],
    ["a close with a code that is none", closing(99)],
    ["a close whose reason is not UTF-8", closing(1000, raw(0xff))]
  ] as const).map(([name, bytes]): WebSocketRow => ({ name, at: sends(hello, bytes), ended: breach, seen: ["hello"] })),
  {
    name: "a reason that repeats what we sent",
    at: (socket, request) => {
      socket.end(Buffer.concat([Buffer.from(accept(request)), closing(4400, `no: ${key} ${ticket}`)]))
    },
    ended: "Refused.InvalidRequest"
  },
  {
    name: "a goodbye, and a connection that stays",
    at: sends(hello, closing(4400)),
    options: { liveness: WebSocket.liveness({ deadline: short, ping: "ping" }) },
    // Node's own does not tell of the goodbye before the connection is gone.
    ended: { own: "Transient.TimedOut", ws: "Refused.InvalidRequest" },
    seen: ["hello"]
  },
  { name: "an end without a goodbye", at: (socket, request) => socket.end(accept(request)), ended: broken },
  {
    name: "half a frame, and the end",
    at: (socket, request) => socket.end(Buffer.concat([Buffer.from(accept(request)), hello, hello.subarray(0, 4)])),
    ended: broken,
    seen: ["hello"]
  },
  {
    name: "half a frame, and a reset",
    at: (socket, request) => {
      socket.write(accept(request))
      socket.write(Buffer.concat([hello, hello.subarray(0, 4)]), () => setTimeout(() => socket.resetAndDestroy(), 50))
    },
    ended: broken,
    seen: ["hello"]
  },
  {
    name: "half a frame, and silence",
    at: sends(hello, hello.subarray(0, 4)),
    options: { liveness: WebSocket.liveness({ deadline: short, ping: "ping" }) },
    ended: "Transient.TimedOut",
    seen: ["hello"]
  },

  // Handshakes that are none.
  ...([
    [
      "a wrong proof",
      (request: RawServer.Request) => accept(request).replace(/Accept: .*/, "Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    ],
    ["no proof", (request: RawServer.Request) => accept(request).replace(/Sec-WebSocket-Accept: .*\r\n/, "")],
    ["a switch to something else", (request: RawServer.Request) => accept(request).replace("websocket", "h2c")],
    [
      "a subprotocol that was not offered",
      (request: RawServer.Request) => accept(request, `Sec-WebSocket-Protocol: ${key}\r\n`)
    ],
    [
      "an extension that was not offered",
      (request: RawServer.Request) => accept(request, `Sec-WebSocket-Extensions: x-${key}\r\n`)
    ],
    ["no HTTP", () => "SSH-2.0-OpenSSH_9.6\r\n\r\n"]
  ] as const).map(([name, answer]): WebSocketRow => ({
    name: `a handshake with ${name}`,
    at: (socket, request) => void socket.write(answer(request)),
    ended: "Transient.Unreachable"
  })),
  {
    name: "a handshake whose head never ends, slowly",
    at: drip("HTTP/1.1 101 X\r\nX-", "x"),
    ended: "Transient.TimedOut"
  },
  {
    name: "a handshake whose head never ends, in a hurry",
    at: flood("HTTP/1.1 101 X\r\n", `X-${"x".repeat(1000)}: ${key}\r\n`),
    ended: "Transient.Unreachable"
  },
  {
    name: "a redirect",
    at: RawServer.always(302, "", { Location: "/elsewhere" }),
    ended: { own: "Transient.Unreachable", ws: "Refused.Unsupported" }
  },
  {
    name: "a page that says to sign in",
    at: RawServer.always(200, `<p>${key}</p>`, { "Content-Type": "text/html" }),
    ended: { own: "Transient.Unreachable", ws: malformed }
  },
  {
    name: "a refusal that repeats the credential, and whose body never ends",
    at: say(`HTTP/1.1 403 ${key}\r\nX-Key: ${key}\r\nContent-Length: 9\r\n\r\n{`),
    ended: { own: "Transient.Unreachable", ws: "AuthFailed.Forbidden" }
  }
]

const platforms = { "own": Layer.empty, "ws": NodeWebSocket.layer }

describe.each(Object.entries(platforms))("WebSockets by Node's own, or ws: %s", (platform, layer) => {
  it.live.each(webSocketRows.map((row) => [row.name, row] as const))(
    "%s",
    ([, row]) =>
      clean(row.at, (server) =>
        Effect.gen(function*() {
          const seen: Array<string> = []
          const url = server.url.replace("http", "ws")
          const ended = yield* WebSocket.open<never, keyof WebSocket.Kinds>({
            url: Redacted.make(`${url}/live?ticket=${ticket}`),
            credential: WebSocket.perDial(() => Effect.succeed({ headers: { "x-api-key": Redacted.make(key) } })),
            connectWithin: "500 millis",
            closeWithin: "100 millis",
            maxMessage: 1000,
            ...row.options
          })(dial).pipe(
            Effect.flatMap(({ messages }) =>
              Stream.runForEach(messages, (message) => Effect.sync(() => seen.push(String(message))))
            ),
            Effect.scoped,
            outcomeOf(["connect", "read"], `${url}/live`),
            Effect.provide(layer)
          )
          assert.deepStrictEqual({ ended, seen }, {
            ended: sum(typeof row.ended === "string" ? row.ended : row.ended[platform as "own" | "ws"], ""),
            seen: row.seen ?? []
          })
        }))
  )

  it.live.each(nowhere)("%s is for now", ([, place]) =>
    Effect.gen(function*() {
      const server = yield* inPlainText
      const url = (yield* place(server)).replace("http", "ws")
      const ended = yield* WebSocket.open({ url: `${url}/live?ticket=${ticket}`, closeWithin: "100 millis" })(dial)
        .pipe(
          Effect.scoped,
          outcomeOf(["connect"], `${url}/live`),
          Effect.provide(layer)
        )
      assert.strictEqual(ended, "Transient.Unreachable")
    }).pipe(Effect.scoped))
})
