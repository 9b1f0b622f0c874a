import { assert, describe, it } from "@effect/vitest"
import * as LifelineError from "effect-lifeline/LifelineError"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { inspect } from "node:util"

const attempted = { operation: "heartbeat", target: "PUT http://registry:9696/api/v1/services/7f/heartbeat" }

const transient = (reason: LifelineError.TransientReason, cause?: Error) =>
  new LifelineError.Transient({ ...attempted, reason, cause })
const leaseLost = (reason: LifelineError.LeaseLostReason, cause?: Error) =>
  new LifelineError.LeaseLost({ ...attempted, reason, cause })
const authFailed = (reason: LifelineError.AuthFailedReason, cause?: Error) =>
  new LifelineError.AuthFailed({ ...attempted, reason, cause })
const refused = (reason: LifelineError.RefusedReason, cause?: Error) =>
  new LifelineError.Refused({ ...attempted, reason, cause })

const unreachable = new LifelineError.Unreachable({ detail: "ECONNREFUSED" })

type Algebra =
  | LifelineError.Transient
  | LifelineError.LeaseLost
  | LifelineError.AuthFailed
  | LifelineError.Refused
  | LifelineError.Exhausted
  | LifelineError.NoProgress
  | LifelineError.Closed

/** Every error with every reason, what came back, and what to do about it. */
const table: ReadonlyArray<readonly [error: Algebra, cameBack: string, advice: string]> = [
  [transient(unreachable), "no usable answer: ECONNREFUSED", "check that it runs and can be reached"],
  [transient(new LifelineError.Unreachable({})), "no usable answer;", "failed for now"],
  [
    transient(new LifelineError.TimedOut({ after: Duration.seconds(10) })),
    "no complete answer within 10s",
    "check that it runs and can be reached"
  ],
  [transient(new LifelineError.Throttled({})), "it asks for fewer requests", "failed for now"],
  [
    transient(new LifelineError.Throttled({ retryAfter: Duration.minutes(2) })),
    "the server asked to wait 2m",
    "failed for now"
  ],
  [
    transient(new LifelineError.Unavailable({ status: 503, detail: "starting", retryAfter: Duration.seconds(5) })),
    "answered 503: starting; the server asked to wait 5s",
    "failed for now"
  ],
  [leaseLost(new LifelineError.UnknownLease()), "lost the lease: the registry does not know it", "register again"],
  [leaseLost(new LifelineError.LeaseExpired()), "ran out before it was renewed", "register again"],
  [
    leaseLost(new LifelineError.LeaseTaken({ by: "http://haul-2:8484" })),
    "another instance has the same identity (http://haul-2:8484)",
    "give each a name of its own"
  ],
  [
    leaseLost(new LifelineError.LeaseTaken({})),
    "another instance has the same identity;",
    "give each a name of its own"
  ],
  [
    authFailed(new LifelineError.Unauthorized({ detail: "A valid X-Api-Key header is required." })),
    "the credential was not accepted: A valid X-Api-Key header is required; check it",
    "was not authorized"
  ],
  [authFailed(new LifelineError.Forbidden({})), "the credential may not do this", "check its rights"],
  [
    authFailed(new LifelineError.ProofRejected({ detail: "use_dpop_nonce" })),
    "the proof of possession was not accepted: use_dpop_nonce",
    "check that the credential belongs to this key"
  ],
  [authFailed(new LifelineError.CredentialExpired()), "the credential has expired", "provide a new one"],
  [authFailed(new LifelineError.CredentialMissing()), "there is no credential, so nothing was sent", "provide one"],
  [
    refused(
      new LifelineError.InvalidRequest({
        issues: [{ path: "instance.name", message: "must not be blank" }, { path: "", message: "body too large" }]
      })
    ),
    "instance.name: must not be blank; body too large",
    "was refused: invalid request"
  ],
  [refused(new LifelineError.NotFound({})), "not found", "check the URL"],
  [refused(new LifelineError.Conflict({ detail: "stale index" })), "stale index", "look at that"],
  [refused(new LifelineError.Unsupported({ detail: "no watch" })), "not supported here: no watch", "was refused"],
  [
    refused(new LifelineError.MalformedResponse({ detail: "expected JSON, got text/html" })),
    "expected JSON, got text/html",
    "check that the URL does not lead to a proxy"
  ],
  [
    new LifelineError.Exhausted({ attempts: 7, elapsed: Duration.seconds(94), last: transient(unreachable) }),
    "gave up after attempt 7, in 1m 34s: ",
    "check that it runs and can be reached"
  ],
  [
    new LifelineError.Exhausted({ attempts: 1, elapsed: Duration.zero, last: transient(unreachable) }),
    "gave up after attempt 1, in 0",
    "check that it runs and can be reached"
  ],
  [
    new LifelineError.NoProgress({ ...attempted, connections: 10, last: transient(unreachable) }),
    "10 connections in a row carried nothing: ",
    "check that the URL does not lead to a proxy"
  ],
  [
    new LifelineError.NoProgress({ ...attempted, connections: 10 }),
    "10 connections in a row carried nothing;",
    "check that the URL does not lead to a proxy"
  ]
]

describe("messages", () => {
  it.each(table)("%s", (error, cameBack, advice) => {
    assert.include(error.message, attempted.operation)
    assert.include(error.message, attempted.target)
    assert.include(error.message, cameBack)
    assert.include(error.message, advice)
    assert.notInclude(error.message, "undefined")
    assert.notInclude(error.message, "[object")
    assert.strictEqual(String(error), `${error._tag}: ${error.message}`)
  })

  it.each<[LifelineError.ClosedReason, string]>([
    [new LifelineError.Shutdown(), "it was shut down"],
    [new LifelineError.Replaced({}), "a newer instance took over; give each a name of its own"],
    [new LifelineError.Replaced({ by: "http://haul-2:8484" }), "a newer instance took over (http://haul-2:8484)"],
    [new LifelineError.Detached(), "the program deregistered it; register again"]
  ])("Closed: %s", (reason, said) => {
    const { message } = new LifelineError.Closed({ operation: "awaitOnline", reason })
    assert.isTrue(message.startsWith("awaitOnline has no answer: "))
    assert.include(message, said)
  })
})

describe("what is shown of an error", () => {
  const secret = "s3cr3t-api-key"
  const request = { method: "PUT", headers: { "x-api-key": secret }, body: { api_key: secret } }
  const cause = Object.assign(new TypeError("fetch failed"), { request, code: "ECONNREFUSED" })
  const withSecret: ReadonlyArray<Algebra> = [
    transient(unreachable, cause),
    leaseLost(new LifelineError.UnknownLease(), cause),
    authFailed(new LifelineError.Unauthorized({}), cause),
    refused(new LifelineError.NotFound({}), cause),
    new LifelineError.Exhausted({ attempts: 7, elapsed: Duration.zero, last: transient(unreachable, cause) }),
    new LifelineError.NoProgress({ ...attempted, connections: 10, last: transient(unreachable, cause) })
  ]

  it.each(withSecret)("%s: no secret of its cause", (error) => {
    assert.notInclude(error.message, secret)
    assert.notInclude(String(error), secret)
    assert.notInclude(JSON.stringify(error), secret)
    assert.notInclude(JSON.stringify({ nested: [error] }), secret)
    assert.notInclude(inspect(error, { depth: null, showHidden: true }), secret)
    assert.notInclude(inspect({ nested: [error] }, { depth: null }), secret)
    assert.notInclude(Cause.pretty(Cause.fail(error)), secret)
  })

  it.effect.each(withSecret)("%s: no secret of its cause in a log line", (error) =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const loggers = [Logger.formatJson, Logger.formatLogFmt, Logger.formatSimple].map((formatter) =>
        Logger.map(formatter, (line) => {
          lines.push(line)
        })
      )
      yield* Effect.logWarning("it failed", error, Cause.fail(error)).pipe(Effect.provide(Logger.layer(loggers)))
      assert.lengthOf(lines, 3)
      for (const line of lines) assert.notInclude(line, secret)
    }))

  it("JSON has the tag, what was tried, where, the reason and the message", () => {
    const error = transient(new LifelineError.Unavailable({ status: 503, retryAfter: Duration.seconds(5) }), cause)
    assert.deepStrictEqual(JSON.parse(JSON.stringify(error)), {
      _tag: "Transient",
      ...attempted,
      reason: { _tag: "Unavailable", status: 503, retryAfter: { _id: "Duration", _tag: "Millis", millis: 5000 } },
      message: error.message
    })
  })

  it("the cause is there for whoever asks for it", () => {
    assert.strictEqual(transient(unreachable, cause).cause, cause)
  })
})

describe("retryAfter", () => {
  it.each<[LifelineError.TransientReason, Duration.Duration | undefined]>([
    [unreachable, undefined],
    [new LifelineError.TimedOut({ after: Duration.seconds(10) }), undefined],
    [new LifelineError.Throttled({}), undefined],
    [new LifelineError.Throttled({ retryAfter: Duration.days(1) }), Duration.days(1)],
    [new LifelineError.Unavailable({ status: 503 }), undefined],
    [new LifelineError.Unavailable({ status: 503, retryAfter: Duration.zero }), Duration.zero]
  ])("%s", (reason, expected) => {
    assert.deepStrictEqual(LifelineError.retryAfter(transient(reason)), expected)
  })
})

describe("reasons", () => {
  it.effect("are handled by catchReason, and the rest stays", () =>
    Effect.gen(function*() {
      const call = (reason: LifelineError.TransientReason) =>
        Effect.catchReason(
          Effect.fail(transient(reason)),
          "Transient",
          "Throttled",
          () => Effect.succeed("throttled")
        )
      assert.strictEqual(yield* call(new LifelineError.Throttled({})), "throttled")
      assert.strictEqual((yield* Effect.flip(call(unreachable))).reason, unreachable)
    }))
})
