// The tables for streams, row by row. What is expected is written down a second time, from the specification, in its own
// words; every code that exists is asked for, and some that do not.
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import type { AuthFailed, Inconclusive, Refused, Stop, Transient } from "effect-lifeline/LifelineError"
import * as Duration from "effect/Duration"
import * as Redacted from "effect/Redacted"

const at: Classify.At = { operation: "listen", target: "http://dispatcher.test/Listen", now: 1_000_000 }

type StreamError = Transient | AuthFailed | Refused | Inconclusive | Stop

const verdictOf = (error: StreamError): string => "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag

type StreamTable = { readonly [key: string]: Classify.Verdict<StreamError> }

const grpcRows: ReadonlyArray<readonly [number, name: string, connect: string, expected: string]> = [
  [1, "CANCELLED", "canceled", "Stop"],
  [2, "UNKNOWN", "unknown", "Inconclusive"],
  [3, "INVALID_ARGUMENT", "invalid_argument", "Refused.InvalidRequest"],
  [4, "DEADLINE_EXCEEDED", "deadline_exceeded", "Transient.Unavailable"],
  [5, "NOT_FOUND", "not_found", "Refused.NotFound"],
  [6, "ALREADY_EXISTS", "already_exists", "Inconclusive"],
  [7, "PERMISSION_DENIED", "permission_denied", "AuthFailed.Forbidden"],
  [8, "RESOURCE_EXHAUSTED", "resource_exhausted", "Transient.Throttled"],
  [9, "FAILED_PRECONDITION", "failed_precondition", "Refused.Conflict"],
  [10, "ABORTED", "aborted", "Inconclusive"],
  [11, "OUT_OF_RANGE", "out_of_range", "Inconclusive"],
  [12, "UNIMPLEMENTED", "unimplemented", "Refused.Unsupported"],
  [13, "INTERNAL", "internal", "Transient.Unavailable"],
  [14, "UNAVAILABLE", "unavailable", "Transient.Unavailable"],
  [15, "DATA_LOSS", "data_loss", "Inconclusive"],
  [16, "UNAUTHENTICATED", "unauthenticated", "AuthFailed.Unauthorized"]
]

const grpc = (table: StreamTable, status: Classify.GrpcStatus): StreamError => Classify.fromGrpc(table, status, at)

describe("Classify, gRPC and Connect", () => {
  it.each(grpcRows)("%i %s (%s) is %s", (number, name, connect, expected) => {
    for (const code of [number, name, connect, name.replace("LLED", "LED")]) {
      assert.strictEqual(verdictOf(grpc(Classify.grpc, { code })), expected, `${code}`)
      assert.strictEqual(
        verdictOf(grpc(Classify.grpcSubscribed, { code })),
        expected === "Stop" ? "Inconclusive" : expected,
        `${code} with subscriptions`
      )
    }
  })

  it("anything unrecognised is inconclusive", () => {
    for (const code of [-1, 0, 17, 1.5, NaN, "", "ok", "OK", "constructor", "__proto__", "*"]) {
      assert.strictEqual(verdictOf(grpc(Classify.grpc, { code })), "Inconclusive", `${code}`)
    }
  })

  it("every error names the operation, the target, the code and what the server said", () => {
    for (const [code, name] of grpcRows) {
      const { message } = grpc(Classify.grpc, { code, message: "said the server" })
      for (const part of ["listen", "http://dispatcher.test/Listen", name.replace("LLED", "LED"), "said the server"]) {
        assert.strictEqual(message.includes(part), true, `${message} has no ${part}`)
      }
      assert.strictEqual(message.includes("undefined"), false, message)
    }
  })

  it("what the server asked to wait, and the library's error, are kept", () => {
    const cause = new Error("connect error")
    const error = grpc(Classify.grpc, { code: 14, retryAfter: Duration.seconds(3), cause })
    assert.strictEqual(error._tag, "Transient")
    if (error._tag !== "Transient" || error.reason._tag !== "Unavailable") return
    assert.deepStrictEqual(error.reason.retryAfter, Duration.seconds(3))
    assert.strictEqual(error.cause, cause)
    const throttled = grpc(Classify.grpc, { code: 8, retryAfter: Duration.seconds(3) })
    assert.strictEqual(throttled.message.includes("asked to wait 3s"), true, throttled.message)
  })

  it("no secret, control character or novel of the server gets into an error", () => {
    const error = Classify.fromGrpc(Classify.grpc, { code: 2, message: `key canary\n\u0007 ${"x".repeat(5000)}` }, {
      ...at,
      secrets: [Redacted.make("canary")]
    })
    assert.strictEqual(JSON.stringify(error).includes("canary"), false)
    assert.strictEqual(/\p{Cc}/u.test(error.message), false)
    assert.isBelow(error.message.length, 500)
  })

  it("a table is extended by spreading it", () => {
    const table = { ...Classify.grpcSubscribed, ABORTED: Classify.unavailable, "*": Classify.malformedResponse }
    assert.strictEqual(verdictOf(grpc(table, { code: 10 })), "Transient.Unavailable")
    assert.strictEqual(verdictOf(grpc(table, { code: 2 })), "Refused.MalformedResponse")
    assert.strictEqual(verdictOf(grpc({}, { code: 14 })), "Refused.MalformedResponse")
  })
})

/** From the specification, by ranges. */
const closed = (code: number, subscribed: boolean): string => {
  if (code === 1000) return subscribed ? "Transient.Unavailable" : "Stop"
  if ([1001, 1005, 1006, 1011].includes(code)) return "Transient.Unavailable"
  if ([1012, 1013].includes(code)) return "Transient.Throttled"
  // Not in the specification: a gateway's and TLS's trouble, and a timeout of IANA's list, pass.
  if ([1014, 1015, 3008].includes(code)) return "Transient.Unavailable"
  if ([1002, 1003, 1007, 1008, 1009, 1010].includes(code)) return "Refused"
  // 3000 and 3003 are Unauthorized and Forbidden in IANA's list.
  if (code === 4401 || code === 3000) return "AuthFailed.Unauthorized"
  if (code === 4403 || code === 3003) return "AuthFailed.Forbidden"
  if (code >= 4400 && code <= 4499) return "Refused"
  if (code >= 4000 && code <= 4999) return "Transient.Unavailable"
  return "Inconclusive"
}

const close = (table: StreamTable, code: number, reason?: string): StreamError =>
  Classify.fromClose(table, { code, reason }, at)

describe("Classify, WebSocket close codes", () => {
  it("every code from 0 to 5000, without and with subscriptions", () => {
    for (let code = 0; code <= 5000; code++) {
      for (const subscribed of [false, true]) {
        const verdict = verdictOf(close(subscribed ? Classify.webSocketSubscribed : Classify.webSocket, code))
        const expected = closed(code, subscribed)
        assert.strictEqual(expected === "Refused" ? verdict.split(".")[0] : verdict, expected, `${code} ${subscribed}`)
      }
    }
    for (const code of [-1, 65_535, NaN, Infinity]) {
      assert.strictEqual(verdictOf(close(Classify.webSocket, code)), "Inconclusive", `${code}`)
    }
  })

  it("every error names the code, and what the server said", () => {
    for (const code of [1000, 1001, 1002, 1003, 1006, 1008, 1012, 1013, 3999, 4000, 4400, 4401, 4403, 4499]) {
      const { message } = close(Classify.webSocket, code, "going away")
      assert.strictEqual(message.includes(`${code}: going away`), true, message)
      assert.strictEqual(message.includes("http://dispatcher.test/Listen"), true, message)
    }
  })

  it("the caller's table comes first: 1008 as a refused credential, codes of its own", () => {
    const table = { ...Classify.webSocketSubscribed, "1008": Classify.unauthorized, "4001": Classify.credentialExpired }
    assert.strictEqual(verdictOf(close(table, 1008)), "AuthFailed.Unauthorized")
    assert.strictEqual(verdictOf(close(table, 4001)), "AuthFailed.CredentialExpired")
    assert.strictEqual(verdictOf(close(table, 4002)), "Transient.Unavailable")
  })
})

/** From the specification. */
const streamed = (status: number): string => {
  if (status === 204) return "Stop"
  if (status === 401 || status === 403) return "AuthFailed"
  if ([408, 425, 429, 500, 502, 503, 504].includes(status)) return "Transient"
  if ((status >= 400 && status < 500) || status === 501) return "Refused"
  return status >= 500 && status < 600 ? "Transient" : "Refused"
}

describe("Classify, HTTP on event streams", () => {
  it("every status, as we see it and as the WHATWG does", () => {
    for (let status = 100; status < 600; status++) {
      const response = { status, headers: {} }
      const expected = streamed(status)
      assert.strictEqual(Classify.fromStatus(Classify.httpEventStream, response, at)._tag, expected, `${status}`)
      assert.strictEqual(
        Classify.fromStatus(Classify.httpEventStreamStrict, response, at)._tag,
        expected === "Transient" ? "Refused" : expected,
        `${status}, strictly`
      )
    }
  })

  it("a hint is kept, and the answer without its body is as the one with it", () => {
    const response = { status: 503, headers: { "retry-after": "0" } }
    const error = Classify.fromStatus(Classify.httpEventStream, response, at)
    assert.deepStrictEqual(
      error._tag === "Transient" && error.reason._tag === "Unavailable" ? error.reason.retryAfter : undefined,
      Duration.zero
    )
    for (let status = 100; status < 600; status++) {
      const answer = { status, headers: { "content-type": "text/plain", location: "/a?b" } }
      assert.deepStrictEqual(
        JSON.stringify(Classify.fromStatus(Classify.http, answer, at)),
        JSON.stringify(Classify.fromResponse(Classify.http, answer, at))
      )
    }
  })

  it("a wrong content type is permanent", () => {
    const response = { status: 200, headers: { "content-type": "text/html" } }
    assert.strictEqual(
      verdictOf(Classify.fromStatus(Classify.httpEventStream, response, at)),
      "Refused.MalformedResponse"
    )
    const { message } = Classify.fromResponse(Classify.httpEventStream, response, at)
    assert.strictEqual(message.includes("an HTML page"), true, message)
  })
})

it("the type of the error follows from the table", () => {
  const status = { code: 14 }
  expectTypeOf(Classify.fromGrpc(Classify.grpc, status, at)).toEqualTypeOf<StreamError>()
  expectTypeOf(Classify.fromGrpc(Classify.grpcSubscribed, status, at)).toEqualTypeOf<Exclude<StreamError, Stop>>()
  expectTypeOf(Classify.fromClose(Classify.webSocket, { code: 1006 }, at)).toEqualTypeOf<StreamError>()
  expectTypeOf(Classify.fromStatus(Classify.httpEventStream, { status: 204, headers: {} }, at)).toEqualTypeOf<
    Exclude<StreamError, Inconclusive>
  >()
  expectTypeOf(Classify.make("Stop", at)).toEqualTypeOf<Stop>()
})
