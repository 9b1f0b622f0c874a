import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import * as Duration from "effect/Duration"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Redacted from "effect/Redacted"

const at: Classify.At = { operation: "verify", target: "GET http://pulse.test/api/v1/services/7", now: 1_000_000 }

type PortError = Transient | LeaseLost | AuthFailed | Refused

const verdictOf = (error: PortError): string => `${error._tag}.${error.reason._tag}`

type PortTable = { readonly [key: string]: Classify.Verdict<PortError> }

const of = (table: PortTable, status: number, more: Partial<Classify.Response> = {}): PortError =>
  Classify.fromResponse(table, { status, headers: {}, ...more }, at)

/** What is expected, written down a second time and in another way: by ranges, from the specification. */
const expected = (status: number, lease: boolean): string => {
  if (status === 401) return "AuthFailed.Unauthorized"
  if (status === 403) return "AuthFailed.Forbidden"
  if (status === 404) return lease ? "LeaseLost.UnknownLease" : "Refused.NotFound"
  if (status === 410) return lease ? "LeaseLost.LeaseExpired" : "Refused.NotFound"
  if (status === 429) return "Transient.Throttled"
  if (status === 408 || status === 425) return "Transient.Unavailable"
  if (status === 409 || status === 412) return "Refused.Conflict"
  if (status === 405 || status === 501) return "Refused.Unsupported"
  if (status >= 300 && status < 400) return "Refused.Unsupported"
  if (status >= 400 && status < 500) return "Refused.InvalidRequest"
  if (status >= 500 && status < 600) return "Transient.Unavailable"
  return "Refused.MalformedResponse"
}

describe("Classify, HTTP statuses", () => {
  it("every status from 100 to 599, for calls without and with a lease", () => {
    for (let status = 100; status < 600; status++) {
      assert.strictEqual(verdictOf(of(Classify.http, status)), expected(status, false), `${status}`)
      assert.strictEqual(verdictOf(of(Classify.httpLease, status)), expected(status, true), `${status} of a lease`)
    }
  })

  it("what is no status at all is a wrong answer, and 0 a redirect that a browser hides", () => {
    for (const status of [-1, 1, 99, 600, 999, NaN]) {
      assert.strictEqual(verdictOf(of(Classify.http, status)), "Refused.MalformedResponse", `${status}`)
    }
    assert.strictEqual(verdictOf(of(Classify.http, 0)), "Refused.Unsupported")
    assert.strictEqual(of(Classify.http, 0).message.includes("answered 0"), false)
  })

  it("every error names the operation, the target and what came back", () => {
    for (let status = 100; status < 600; status++) {
      const { message } = of(Classify.httpLease, status)
      assert.strictEqual(message.includes("verify"), true, message)
      assert.strictEqual(message.includes("GET http://pulse.test/api/v1/services/7"), true, message)
      assert.strictEqual(message.includes("undefined"), false, message)
    }
    for (const status of [302, 405, 409, 413, 418, 500, 501, 503]) {
      assert.strictEqual(of(Classify.http, status).message.includes(`${status}`), true, `${status}`)
    }
  })

  it("a table is extended by spreading it, and a status comes before its class", () => {
    const table = { ...Classify.httpLease, 409: Classify.leaseTaken, "5xx": Classify.leaseExpired }
    assert.strictEqual(verdictOf(of(table, 409)), "LeaseLost.LeaseTaken")
    assert.strictEqual(verdictOf(of(table, 500)), "LeaseLost.LeaseExpired")
    assert.strictEqual(verdictOf(of(table, 501)), "Refused.Unsupported")
    assert.strictEqual(verdictOf(of({}, 500)), "Refused.MalformedResponse")
  })

  it("the type of the error follows from the table", () => {
    const response = { status: 500, headers: {} }
    expectTypeOf(Classify.fromResponse(Classify.http, response, at)).toEqualTypeOf<Transient | AuthFailed | Refused>()
    expectTypeOf(Classify.fromResponse(Classify.httpLease, response, at)).toEqualTypeOf<PortError>()
    expectTypeOf(Classify.fromResponse({ 409: Classify.leaseTaken }, response, at)).toEqualTypeOf<LeaseLost | Refused>()
    expectTypeOf(Classify.leaseTaken(at)).toEqualTypeOf<LeaseLost>()
    expectTypeOf(Classify.make("LeaseTaken", at)).toEqualTypeOf<LeaseLost>()
    expectTypeOf(Classify.make("CredentialMissing", at)).toEqualTypeOf<AuthFailed>()
  })
})

describe("Classify, bodies", () => {
  const body = (value: unknown) => ({ body: JSON.stringify(value) })

  it("a problem document adds its detail, else its title", () => {
    const detailOf = (more: Partial<Classify.Response>) => {
      const { reason } = of(Classify.http, 403, more)
      return "detail" in reason ? reason.detail : undefined
    }
    assert.strictEqual(detailOf(body({ detail: "no", title: "Forbidden" })), "no")
    assert.strictEqual(detailOf(body({ title: "Forbidden" })), "Forbidden")
    assert.strictEqual(detailOf(body({})), undefined)
  })

  it("validation errors become issues, with their location and never their value", () => {
    for (const status of [400, 422]) {
      const error = of(
        Classify.http,
        status,
        body({ errors: [{ message: "too long", location: "body.name", value: "canary" }, { message: "odd" }] })
      )
      assert.deepStrictEqual(error.reason._tag === "InvalidRequest" ? error.reason.issues : [], [
        { path: "body.name", message: "too long" },
        { path: "", message: "odd" }
      ])
      assert.strictEqual(JSON.stringify(error).includes("canary"), false)
    }
  })

  it("a request that is refused without issues says what came back", () => {
    for (
      const [status, more, message] of [
        [413, {}, "answered 413"],
        [422, body({ detail: "too large" }), "answered 422: too large"],
        [400, body({ errors: [] }), "answered 400"]
      ] as const
    ) {
      const { reason } = of(Classify.http, status, more)
      assert.deepStrictEqual(reason._tag === "InvalidRequest" ? reason.issues : [], [{ path: "", message }])
    }
  })

  it("anything else for a body changes nothing", () => {
    for (
      const odd of ["", "x", "<html>", "null", "7", "[]", "{\"detail\":7}", "{\"errors\":{}}", "{\"detail\":", "\u0000"]
    ) {
      const error = of(Classify.http, 422, { body: odd })
      assert.deepStrictEqual(error.reason._tag === "InvalidRequest" ? error.reason.issues : [], [
        { path: "", message: "answered 422" }
      ])
    }
  })

  it("a page is called a page, by its content type alone", () => {
    const headers = { "content-type": "text/html; charset=utf-8" }
    for (const status of [200, 502]) {
      assert.strictEqual(of(Classify.http, status, { headers, body: "canary" }).message.includes("an HTML page"), true)
    }
    assert.strictEqual(of(Classify.http, 200, { body: "<html>" }).message.includes("HTML"), false)
  })

  it("what a server says is cleaned: no secrets, one line, not too long", () => {
    const detailOf = (detail: string, secrets: ReadonlyArray<Redacted.Redacted | undefined>) => {
      const { reason } = Classify.fromResponse(
        Classify.http,
        { status: 401, headers: {}, ...body({ detail }) },
        { ...at, secrets }
      )
      return "detail" in reason ? reason.detail : undefined
    }
    const canary = Redacted.make("canary")
    assert.strictEqual(
      detailOf("canary, canary", [undefined, Redacted.make(" "), canary]),
      "<redacted>, <redacted>"
    )
    assert.strictEqual(detailOf("sent canary!", [Redacted.make("canary\n")]), "sent <redacted>!")
    assert.strictEqual(detailOf("a\r\n\tb\u0007c\u001b[31m", []), "a b c [31m")
    assert.strictEqual(detailOf("x".repeat(1000), [])?.length, 303)
  })

  it("a redirect says where to, without what may be secret there", () => {
    const detailOf = (location: string) => of(Classify.http, 307, { headers: { location } }).message
    assert.strictEqual(detailOf("https://u:canary@login.test/x?t=canary#canary").includes("https://login.test/x"), true)
    for (const location of ["https://u:canary@login.test/x?t=canary#canary", "/login?canary", "data:canary"]) {
      assert.strictEqual(detailOf(location).includes("canary"), false)
    }
  })
})

describe("Classify, Retry-After", () => {
  const read = (value: string | undefined) => {
    const hint = Classify.retryAfter(value, at.now)
    return hint === undefined ? undefined : Duration.toMillis(hint)
  }

  it("seconds, dates, and garbage", () => {
    for (
      const [value, millis] of [
        ["0", 0],
        ["7", 7000],
        ["86400", 86_400_000],
        ["9".repeat(400), Infinity],
        [new Date(at.now + 30_000).toUTCString(), 30_000],
        [new Date(0).toUTCString(), 0],
        ["Thu, 01 Jan 1970 00:00:01 GMT", 0],
        ["Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777_000 - at.now],
        ["", undefined],
        [" ", undefined],
        ["-1", undefined],
        ["1.5", undefined],
        ["1e3", undefined],
        ["soon", undefined],
        ["garbage 1", undefined],
        ["Foo, garbage GMT", undefined],
        ["120, 240", undefined],
        [undefined, undefined]
      ] as const
    ) {
      assert.strictEqual(read(value), millis, String(value))
    }
  })

  it("is carried as the server said it, by 429 and by 503", () => {
    for (const status of [408, 425, 429, 500, 503]) {
      const { reason } = of(Classify.http, status, { headers: { "retry-after": "86400" } })
      const hint = "retryAfter" in reason ? reason.retryAfter : undefined
      assert.strictEqual(hint === undefined ? 0 : Duration.toDays(hint), 1, `${status}`)
    }
    const { reason } = of(Classify.http, 429, { headers: { "retry-after": "garbage" } })
    assert.strictEqual("retryAfter" in reason ? reason.retryAfter : 0, undefined)
  })
})

describe("Classify, the client's own failures", () => {
  const request = HttpClientRequest.get("http://user:canary@pulse.test/?canary", { headers: { "x-api-key": "canary" } })
  const response = HttpClientResponse.fromWeb(
    request,
    new Response("", { status: 503, headers: { "retry-after": "3" } })
  )
  const of = (reason: HttpClientError.HttpClientErrorReason): PortError =>
    Classify.fromClientError(Classify.httpLease, new HttpClientError.HttpClientError({ reason }), at)

  it("no answer and a body that broke off are unreachable; what was never sent is refused", () => {
    for (
      const [reason, verdict] of [
        [new HttpClientError.TransportError({ request }), "Transient.Unreachable"],
        [new HttpClientError.DecodeError({ request, response }), "Transient.Unreachable"],
        [new HttpClientError.EmptyBodyError({ request, response }), "Transient.Unreachable"],
        [new HttpClientError.EncodeError({ request }), "Refused.InvalidRequest"],
        [new HttpClientError.InvalidUrlError({ request }), "Refused.InvalidRequest"],
        [new HttpClientError.StatusCodeError({ request, response }), "Transient.Unavailable"]
      ] as const
    ) {
      const error = of(reason)
      assert.strictEqual(verdictOf(error), verdict)
      assert.strictEqual(JSON.stringify(error).includes("canary"), false)
    }
  })

  it("a status that the client itself refused is read like any other", () => {
    const error = of(new HttpClientError.StatusCodeError({ request, response }))
    const hint = error.reason._tag === "Unavailable" ? error.reason.retryAfter : undefined
    assert.strictEqual(hint === undefined ? 0 : Duration.toSeconds(hint), 3)
  })

  it("the platform's word is the first code in the chain of causes", () => {
    const coded = (code: unknown, more: object = {}) => Object.assign(new Error("canary"), { code }, more)
    const loop: { code?: string; cause?: unknown } = {}
    loop.cause = loop
    for (
      const [cause, code] of [
        [coded("ECONNREFUSED"), "ECONNREFUSED"],
        [new TypeError("fetch failed", { cause: coded("ENOTFOUND") }), "ENOTFOUND"],
        [
          new TypeError("terminated", { cause: coded("UND_ERR_SOCKET", { cause: coded("ECONNRESET") }) }),
          "UND_ERR_SOCKET"
        ],
        [new TypeError("x", { cause: Object.assign(new AggregateError([coded("EPERM")]), {}) }), "EPERM"],
        [new AggregateError([]), undefined],
        [coded(7), undefined],
        [new TypeError("ECONNREFUSED"), undefined],
        ["ECONNREFUSED", undefined],
        [undefined, undefined],
        [null, undefined],
        [loop, undefined]
      ] as const
    ) {
      assert.strictEqual(Classify.codeOf(cause), code)
      const error = of(new HttpClientError.TransportError({ request, cause }))
      assert.strictEqual(error.reason._tag === "Unreachable" ? error.reason.detail : "", code)
    }
  })
})

describe("Classify, verdicts", () => {
  it("each leads to its reason with the evidence", () => {
    const evidence: Classify.Evidence = {
      ...at,
      status: 499,
      detail: "detail",
      issues: [{ path: "p", message: "m" }],
      retryAfter: Duration.seconds(1),
      after: Duration.seconds(2),
      by: "http://other"
    }
    const actual = Object.fromEntries(
      ([
        "Unreachable",
        "TimedOut",
        "Throttled",
        "Unavailable",
        "UnknownLease",
        "LeaseExpired",
        "LeaseTaken",
        "Unauthorized",
        "Forbidden",
        "ProofRejected",
        "CredentialExpired",
        "CredentialMissing",
        "NotChallenged",
        "InvalidRequest",
        "NotFound",
        "Conflict",
        "Unsupported",
        "MalformedResponse"
      ] as const).map((verdict) => {
        const error: PortError = Classify.make(verdict, evidence)
        assert.strictEqual(error.reason._tag, verdict)
        assert.strictEqual("cause" in error && error.cause !== undefined, false)
        return [verdict, error._tag]
      })
    )
    assert.deepStrictEqual(actual, {
      Unreachable: "Transient",
      TimedOut: "Transient",
      Throttled: "Transient",
      Unavailable: "Transient",
      UnknownLease: "LeaseLost",
      LeaseExpired: "LeaseLost",
      LeaseTaken: "LeaseLost",
      Unauthorized: "AuthFailed",
      Forbidden: "AuthFailed",
      ProofRejected: "AuthFailed",
      CredentialExpired: "AuthFailed",
      CredentialMissing: "AuthFailed",
      NotChallenged: "AuthFailed",
      InvalidRequest: "Refused",
      NotFound: "Refused",
      Conflict: "Refused",
      Unsupported: "Refused",
      MalformedResponse: "Refused"
    })
  })

  it("keeps the platform's error as its cause", () => {
    const cause = new Error("reset")
    assert.strictEqual(Classify.make("Unreachable", { ...at, cause }).cause, cause)
  })
})
