import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Classify from "effect-lifeline/Classify"
import * as EventSource from "effect-lifeline/EventSource"
import type { AuthFailed } from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { flow, identity } from "effect/Function"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import { inspect } from "node:util"
import * as FakeFetch from "./support/fakeFetch.ts"

const url = "http://pulse:9696/api/v1/events"

const { sse } = FakeFetch

const dial = (cursor?: string): Reconnect.Dial<string> => ({ cursor, attempt: 1, generation: 1 })

type Item = Reconnect.Frame<EventSource.Event, string> | Reconnect.Notice<string>

const message = (data: string, id?: string): Item => ({
  value: { _tag: "Event", event: "message", data, id },
  cursor: id
})

/** One connection, read to its end: what came, and how it ended. */
const readAll = (
  fetch: FakeFetch.FakeFetch,
  options: EventSource.ConnectOptions = {},
  cursor?: string,
  adapt: (client: HttpClient.HttpClient) => HttpClient.HttpClient = identity
) => {
  const items: Array<Item> = []
  return EventSource.connect(url, options)(dial(cursor)).pipe(
    Effect.flatMap(Stream.runForEach((item) => Effect.sync(() => items.push(item)))),
    Effect.scoped,
    Effect.match({
      onSuccess: () => "end",
      onFailure: (error) => {
        assert.strictEqual(error.operation, "subscribe")
        assert.include(error.message, `${options.method?.name ?? "GET"} http://`)
        assert.notInclude(error.message, "undefined")
        for (const text of [String(error), JSON.stringify(error), inspect(error, { depth: 20 })]) {
          assert.notInclude(text, "canary")
        }
        return "reason" in error ? `${error._tag}.${error.reason._tag}: ${error.reason.message}` : error._tag
      }
    }),
    Effect.map((ended) => ({ items, ended })),
    Effect.provideServiceEffect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, adapt)),
    Effect.provide(fetch.layer)
  )
}

const outcome = (fetch: FakeFetch.FakeFetch, options?: EventSource.ConnectOptions) =>
  Effect.map(readAll(fetch, options), ({ ended }) => ended)

const empty = FakeFetch.make(() => sse(""))

describe("EventSource.connect", () => {
  describe("the request", () => {
    it.effect("asks for an event stream, past every cache, and says nothing else", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        yield* readAll(fetch)
        const [asked] = fetch.asked
        assert.strictEqual(asked?.url, url)
        assert.strictEqual(asked?.init.method, "GET")
        assert.strictEqual(asked?.init.cache, "no-store")
        assert.strictEqual(asked?.init.body, undefined)
        assert.deepStrictEqual(asked?.headers, { accept: "text/event-stream" })
      }))

    it.effect.each<readonly [string | undefined, string | undefined]>([
      [undefined, undefined],
      ["", undefined],
      ["7", "7"],
      ["a b", "a b"],
      // The bytes of UTF-8, as a header carries them.
      ["ü€", "\u00c3\u00bc\u00e2\u0082\u00ac"]
    ])("the id %j is sent as %j", ([cursor, header]) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse("data: a\n\n"))
        const { items } = yield* readAll(fetch, {}, cursor)
        assert.strictEqual(fetch.asked[0]?.headers["last-event-id"], header)
        assert.deepStrictEqual(items, [message("a", cursor)])
      }))

    it.effect("an id that no header can carry is not sent, which is a gap", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse("data: a\n\n"))
        const { items } = yield* readAll(fetch, {}, "a\u0001")
        assert.strictEqual(fetch.asked[0]?.headers["last-event-id"], undefined)
        assert.deepStrictEqual(items, [{ notice: "Gap" }, message("a", "a\u0001")])
      }))

    it.effect("headers of the caller go along; they do not replace what the protocol needs", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        const headers = { "X-Api-Key": Redacted.make("canary"), "X-Team": "a", "X-None": undefined, Accept: "*/*" }
        yield* readAll(fetch, { headers })
        assert.deepStrictEqual(fetch.asked[0]?.headers, {
          "x-api-key": "canary",
          "x-team": "a",
          accept: "text/event-stream"
        })
      }))

    it.effect("headers that are an effect are evaluated for each connection", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        let n = 0
        const connect = EventSource.connect(url, { headers: Effect.sync(() => ({ "x-token": `t${++n}` })) })
        for (let i = 0; i < 2; i++) {
          yield* connect(dial()).pipe(Effect.flatMap(Stream.runDrain), Effect.scoped, Effect.provide(fetch.layer))
        }
        assert.deepStrictEqual(fetch.asked.map((asked) => asked.headers["x-token"]), ["t1", "t2"])
      }))

    it.effect("headers that fail or hang are the failure of the connection; nothing is sent", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        const failing: Effect.Effect<never, AuthFailed> = Effect.suspend(() =>
          Effect.fail(Classify.make("CredentialExpired", { operation: "subscribe", target: "GET http://pulse" }))
        )
        assert.match(yield* outcome(fetch, { headers: failing }), /^AuthFailed\.CredentialExpired/)
        const hanging = yield* Effect.forkChild(outcome(fetch, { headers: Effect.never }))
        yield* TestClock.adjust("10 seconds")
        assert.match(yield* Fiber.join(hanging), /^Transient\.TimedOut.*10s/)
        assert.strictEqual(fetch.asked.length, 0)
      }))

    it.effect.each<readonly [string, EventSource.Headers]>([
      ["a value", { "x-key": "canary\n" }],
      ["a value beyond Latin-1", { "x-key": Redacted.make("canary€") }],
      ["a name", { "x key": "canary" }]
    ])("%s that a header cannot carry is refused before anything is sent", ([, headers]) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        assert.match(yield* outcome(fetch, { headers }), /^Refused\.InvalidRequest: .*options\.headers\.x.key/)
        assert.strictEqual(fetch.asked.length, 0)
      }))

    it.effect.each(["http://user:canary@pulse/", "http://canary@pulse/", "ftp://pulse/", "data:text/event-stream,"])(
      "%s is refused before anything is sent",
      (to) =>
        Effect.gen(function*() {
          const fetch = FakeFetch.make(() => sse(""))
          const exit = yield* EventSource.connect(to)(dial()).pipe(
            Effect.scoped,
            Effect.provide(fetch.layer),
            Effect.flip
          )
          assert.strictEqual(exit._tag === "Refused" ? exit.reason._tag : exit._tag, "InvalidRequest")
          assert.notInclude(inspect(exit), "canary")
          assert.strictEqual(fetch.asked.length, 0)
        })
    )

    it.effect("the options of the client's layer are kept, its own changes to requests too", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        const client = Effect.map(
          HttpClient.HttpClient,
          HttpClient.mapRequest((request) =>
            HttpClientRequest.prependUrl(HttpClientRequest.setHeader(request, "x-client", "1"), "http://pulse:9696")
          )
        )
        yield* EventSource.connect("/api/v1/events?a=1")(dial()).pipe(
          Effect.flatMap(Stream.runDrain),
          Effect.scoped,
          Effect.provideServiceEffect(HttpClient.HttpClient, client),
          Effect.provide(fetch.layer),
          Effect.provideService(FetchHttpClient.RequestInit, { credentials: "include", redirect: "error" })
        )
        const [asked] = fetch.asked
        assert.strictEqual(asked?.url, `${url}?a=1`)
        assert.strictEqual(asked?.headers["x-client"], "1")
        assert.strictEqual(asked?.init.credentials, "include")
        assert.strictEqual(asked?.init.cache, "no-store")
      }))

    it.effect.each([[undefined, false], [true, true]] as const)("trace headers with tracePropagation %j: %j", (
      [tracePropagation, sent]
    ) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse(""))
        const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
        yield* readAll(fetch, { tracePropagation }).pipe(
          Effect.withSpan("parent"),
          Effect.provideService(Tracer.Tracer, tracer)
        )
        assert.strictEqual("traceparent" in (fetch.asked[0]?.headers ?? {}), sent)
      }))
  })

  describe("the answer", () => {
    it.effect.each([
      "text/event-stream",
      "text/event-stream;charset=utf-8",
      "TEXT/Event-Stream ; charset=latin1",
      " text/event-stream"
    ])("the content type %j is one of an event stream", (type) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse("data: é\n\n", { "content-type": type }))
        assert.deepStrictEqual(yield* readAll(fetch), { items: [message("é")], ended: "end" })
      }))

    it.effect.each<readonly [string, string]>([
      ["application/json", "the content type is application/json"],
      ["text/event-streams", "the content type is text/event-streams"],
      ["text/plain; x=text/event-stream", "the content type is text/plain"],
      ["text/html", "the content type is text/html"],
      ["", "the content type is missing"]
    ])("the content type %j is refused", ([type, said]) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse("data: a\n\n", { "content-type": type }))
        const { ended, items } = yield* readAll(fetch)
        assert.match(ended, /^Refused\.MalformedResponse/)
        assert.include(ended, said)
        assert.deepStrictEqual(items, [])
      }))

    const rows: ReadonlyArray<readonly [status: number, plain: string, strict: string]> = [
      [201, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [204, "Stop", "Stop"],
      [205, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [206, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [300, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [304, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [400, "Refused.InvalidRequest", "Refused.InvalidRequest"],
      [401, "AuthFailed.Unauthorized", "AuthFailed.Unauthorized"],
      [403, "AuthFailed.Forbidden", "AuthFailed.Forbidden"],
      [404, "Refused.InvalidRequest", "Refused.InvalidRequest"],
      [408, "Transient.Unavailable", "Refused.MalformedResponse"],
      [425, "Transient.Unavailable", "Refused.MalformedResponse"],
      [429, "Transient.Throttled", "Refused.MalformedResponse"],
      [500, "Transient.Unavailable", "Refused.MalformedResponse"],
      [501, "Refused.MalformedResponse", "Refused.MalformedResponse"],
      [502, "Transient.Unavailable", "Refused.MalformedResponse"],
      [503, "Transient.Unavailable", "Refused.MalformedResponse"],
      [504, "Transient.Unavailable", "Refused.MalformedResponse"]
    ]
    for (const strict of [false, true]) {
      it.effect.each(rows)(`%i${strict ? ", strict" : ""}`, ([status, plain, whenStrict]) =>
        Effect.gen(function*() {
          const body = FakeFetch.body()
          const fetch = FakeFetch.make(() =>
            new Response([204, 205, 304].includes(status) ? null : body.stream, {
              status,
              headers: { "content-type": "text/event-stream" }
            })
          )
          const ended = yield* outcome(fetch, { table: strict ? Classify.httpEventStreamStrict : undefined })
          assert.strictEqual(ended.split(":")[0], strict ? whenStrict : plain)
          if (![204, 205, 304].includes(status)) assert.isTrue(body.cancelled(), "the body is not left open")
        }))
    }

    it.effect("a client that fails on a status of its own accord makes no difference", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => new Response("", { status: 503, headers: { "retry-after": "7" } }))
        const error = yield* EventSource.connect(url)(dial()).pipe(
          Effect.scoped,
          Effect.provideServiceEffect(
            HttpClient.HttpClient,
            Effect.map(HttpClient.HttpClient, HttpClient.filterStatusOk)
          ),
          Effect.provide(fetch.layer),
          Effect.flip
        )
        assert.include(error.message, "answered 503; the server asked to wait 7s")
      }))

    it.effect("the table can be the caller's", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => new Response("", { status: 404 }))
        const table = { ...Classify.httpEventStream, 404: Classify.unavailable }
        assert.match(yield* outcome(fetch, { table }), /^Transient\.Unavailable/)
      }))

    it.effect("no answer, and the platform's word for it", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => Promise.reject(new TypeError("x", { cause: { code: "ECONNREFUSED" } })))
        assert.match(yield* outcome(fetch), /^Transient\.Unreachable.*ECONNREFUSED/)
      }))

    it.effect("no answer in time", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => new Promise(() => {}))
        const fiber = yield* Effect.forkChild(outcome(fetch, { connectTimeout: "3 seconds" }))
        yield* TestClock.adjust("3 seconds")
        assert.match(yield* Fiber.join(fiber), /^Transient\.TimedOut.*3s/)
        assert.isTrue(fetch.asked[0]?.init.signal?.aborted, "the request is aborted")
      }))

    it.effect("200 without a body ends at once", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* readAll(FakeFetch.make(() => sse(null))), { items: [], ended: "end" })
      }))
  })

  describe("events", () => {
    it.effect("ids, retries and gaps keep their order among the events", () =>
      Effect.gen(function*() {
        const text =
          "id: 1\n\nretry: 5\ndata: a\n\nevent: gap\nid: 2\ndata: x\n\nid: 3\ndata: b\n\nevent: gap\nid\ndata\n\n"
        const { items } = yield* readAll(FakeFetch.make(() => sse(text)), { isGap: (event) => event.event === "gap" })
        assert.deepStrictEqual(items, [
          { notice: "Cursor", cursor: "1" },
          { notice: "Retry", base: 5 },
          message("a", "1"),
          { notice: "Gap", cursor: "2" },
          message("b", "3"),
          { notice: "Gap", cursor: "" }
        ])
      }))

    it.effect("a body that breaks off: what was whole is kept, the rest is dropped, its id too", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        const fiber = yield* Effect.forkChild(readAll(FakeFetch.make(() => sse(body.stream))))
        yield* body.write("id: 1\ndata: a\n\nid: 2\ndata: b\n")
        yield* TestClock.adjust(0)
        yield* body.fail(new TypeError("terminated", { cause: { code: "UND_ERR_SOCKET" } }))
        const { ended, items } = yield* Fiber.join(fiber)
        assert.deepStrictEqual(items, [message("a", "1")])
        assert.match(ended, /^Transient\.Unreachable.*UND_ERR_SOCKET/)
      }))

    it.effect("an event that is too large: those before it come, then a typed error", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        yield* body.write("data: a\n\ndata: 123456789\n\ndata: b\n\n")
        const items: Array<Item> = []
        const error = yield* EventSource.connect(url, { maxEventSize: 10 })(dial()).pipe(
          Effect.flatMap(Stream.runForEach((item) => Effect.sync(() => items.push(item)))),
          Effect.scoped,
          Effect.provide(FakeFetch.make(() => sse(body.stream)).layer),
          Effect.flip
        )
        assert.deepStrictEqual(items, [message("a")])
        assert.strictEqual(error._tag, "Refused")
        assert.instanceOf(error.cause, EventSource.EventTooLarge)
        assert.include(error.message, "maximum size of 10")
        assert.isTrue(body.cancelled())
      }))

    it.effect("a line that never ends is not kept for ever", () =>
      Effect.gen(function*() {
        const endless = new ReadableStream<Uint8Array>({
          pull: (controller) => controller.enqueue(new Uint8Array(65536).fill(120))
        })
        const { ended, items } = yield* readAll(FakeFetch.make(() => sse(endless)))
        assert.deepStrictEqual(items, [])
        assert.match(ended, /^Refused\.MalformedResponse: .*maximum size of 10485760/)
      }))
  })

  describe("silence", () => {
    it.effect("one byte a minute is too little", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        const fiber = yield* Effect.forkChild(readAll(FakeFetch.make(() => sse(body.stream))))
        yield* TestClock.adjust("30 seconds")
        yield* body.write("d")
        yield* TestClock.adjust("44 seconds")
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 second")
        assert.match((yield* Fiber.join(fiber)).ended, /^Transient\.TimedOut.*45s/)
        assert.isTrue(body.cancelled())
      }))

    it.effect("comments are bytes: they keep a connection, for as long as they come", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        const fiber = yield* Effect.forkChild(
          outcome(FakeFetch.make(() => sse(body.stream)), { idleTimeout: "20 seconds" })
        )
        for (let n = 0; n < 50; n++) {
          yield* TestClock.adjust("19 seconds")
          yield* body.write(":\n")
        }
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("20 seconds")
        assert.match(yield* Fiber.join(fiber), /^Transient\.TimedOut.*20s/)
      }))

    it.effect("what nobody reads is not silent", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        let seen = 0
        const fiber = yield* EventSource.connect(url)(dial()).pipe(
          Effect.flatMap(Stream.runForEach(() => Effect.andThen(Effect.sync(() => seen++), Effect.sleep("1 hour")))),
          Effect.scoped,
          Effect.provide(FakeFetch.make(() => sse(body.stream)).layer),
          Effect.forkChild
        )
        yield* body.write("data: a\n\n")
        yield* TestClock.adjust("30 minutes")
        yield* body.write("data: b\n\n")
        yield* TestClock.adjust("40 minutes")
        assert.strictEqual(seen, 2)
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* TestClock.adjust("52 minutes")
        assert.strictEqual((yield* Effect.flip(Fiber.join(fiber)))._tag, "Transient", "but when it is read again")
      }))

    it.effect("it may be for ever where the caller says so", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        const fetch = FakeFetch.make(() => sse(body.stream))
        const fiber = yield* Effect.forkChild(outcome(fetch, { idleTimeout: "Infinity" }))
        yield* TestClock.adjust("1000 days")
        yield* body.close
        assert.strictEqual(yield* Fiber.join(fiber), "end")
      }))
  })

  describe("redirects", () => {
    const redirect = (status: number, location?: string) =>
      new Response(null, { status, headers: location === undefined ? {} : { location } })

    it.effect("are followed, with everything, within the origin", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make((_, n) =>
          [
            redirect(301, "/b?x=a%20b"),
            redirect(302, "c"),
            redirect(303, url),
            redirect(307, url),
            redirect(308, url)
          ][n] ??
            sse("data: a\n\n")
        )
        const { items } = yield* readAll(fetch, { headers: { "x-key": "1" } }, "7")
        assert.deepStrictEqual(items, [message("a", "7")])
        assert.deepStrictEqual(fetch.asked.map((asked) => asked.url), [
          url,
          "http://pulse:9696/b?x=a%20b",
          "http://pulse:9696/c",
          url,
          url,
          url
        ])
        for (const { headers, init } of fetch.asked) {
          assert.deepStrictEqual(headers, { accept: "text/event-stream", "last-event-id": "7", "x-key": "1" })
          assert.strictEqual(init.redirect, "manual")
          assert.strictEqual(init.cache, "no-store")
        }
      }))

    it.effect("take no header of the caller, and none of the client, to another origin or back", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make((_, n) =>
          [redirect(302, "https://other/b"), redirect(302, url)][n] ?? sse("data: a\n\n")
        )
        const headers = { "x-api-key": Redacted.make("canary"), cookie: "canary" }
        yield* readAll(fetch, { headers }, "7", HttpClient.mapRequest(HttpClientRequest.bearerToken("canary")))
        assert.strictEqual(fetch.asked[0]?.headers["authorization"], "Bearer canary")
        assert.deepStrictEqual(fetch.asked.slice(1).map((asked) => asked.headers), [
          { accept: "text/event-stream", "last-event-id": "7" },
          { accept: "text/event-stream", "last-event-id": "7" }
        ])
      }))

    it.effect.each(
      [
        ["that lead in a circle", () => redirect(302, url), 6],
        ["that say nowhere", () => redirect(302), 1],
        ["that lead to no URL", () => redirect(302, "http://["), 1]
      ] as const
    )("%s are refused", ([, answer, requests]) =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(answer)
        assert.match(yield* outcome(fetch), /^Refused\.MalformedResponse.*redirect/)
        assert.strictEqual(fetch.asked.length, requests)
      }))

    it.effect("leave no body open, and are followed behind a client that fails on them", () =>
      Effect.gen(function*() {
        const page = FakeFetch.body()
        const body = FakeFetch.body()
        const fetch = FakeFetch.make((_, n) =>
          n === 0 ? new Response(page.stream, { status: 302, headers: { location: "/b" } }) : sse(body.stream)
        )
        const fiber = yield* Effect.forkChild(readAll(fetch, {}, undefined, HttpClient.filterStatusOk))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(fetch.asked.length, 2)
        assert.isTrue(page.cancelled())
        assert.isFalse(body.cancelled())
        yield* Fiber.interrupt(fiber)
      }))

    it.effect("that the platform hides, as browsers do, are left to the platform", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(({ init }) =>
          init.redirect === "follow" ? sse("data: a\n\n") : FakeFetch.opaqueRedirect()
        )
        assert.deepStrictEqual((yield* readAll(fetch)).items, [message("a")])
        assert.strictEqual(fetch.asked.length, 2)
        const post = FakeFetch.make(() => FakeFetch.opaqueRedirect())
        assert.match(yield* outcome(post, { method: EventSource.post() }), /^Refused\.MalformedResponse/)
        assert.strictEqual(post.asked.length, 1)
      }))

    it.effect.each([[301, "GET"], [302, "GET"], [303, "GET"], [307, "POST"], [308, "POST"]] as const)(
      "a POST that is answered %i goes on as %s",
      ([status, method]) =>
        Effect.gen(function*() {
          const fetch = FakeFetch.make((_, n) => n === 0 ? redirect(status, "/b") : sse(""))
          yield* readAll(fetch, { method: EventSource.post(HttpBody.text("{}", "application/json")) })
          const [, second] = fetch.asked
          assert.strictEqual(second?.init.method, method)
          assert.strictEqual(second?.init.body !== undefined, method === "POST")
          assert.strictEqual(second?.headers["content-type"], method === "POST" ? "application/json" : undefined)
        })
    )
  })

  describe("POST", () => {
    const body = HttpBody.text("{\"a\":1}", "application/json")

    it.effect("sends its body", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => sse("data: a\n\n"))
        const { ended, items } = yield* readAll(fetch, { method: EventSource.post(body) })
        assert.deepStrictEqual(items, [message("a")])
        assert.strictEqual(ended, "Stop", "and is over when its answer is")
        const [asked] = fetch.asked
        assert.strictEqual(asked?.init.method, "POST")
        assert.strictEqual(new TextDecoder().decode(asked?.init.body as Uint8Array), "{\"a\":1}")
        assert.strictEqual(asked?.headers["content-type"], "application/json")
      }))

    const failing = (error: unknown) =>
      new ReadableStream<Uint8Array>({ pull: (controller) => controller.error(error) })

    it.effect.each<readonly [string, FakeFetch.Answer, string]>([
      ["no answer", () => Promise.reject(new TypeError("x")), "Unreachable"],
      ["503", () => new Response("", { status: 503 }), "Unavailable"],
      ["429", () => new Response("", { status: 429 }), "Throttled"],
      ["a body that breaks off", () => sse(failing(new TypeError("x"))), "Unreachable"],
      ["silence", () => sse(new ReadableStream()), "TimedOut"],
      ["no answer in time", () => new Promise(() => {}), "TimedOut"]
    ])("%s: tried again only where it is declared idempotent", ([, answer, reason]) =>
      Effect.gen(function*() {
        const run = (idempotent: boolean) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(
              outcome(FakeFetch.make(answer), { method: EventSource.post(body, { idempotent }) })
            )
            yield* TestClock.adjust("1 minute")
            return yield* Fiber.join(fiber)
          })
        assert.match(yield* run(false), /^Refused\.Unsupported: .*declared idempotent/)
        assert.match(yield* run(true), new RegExp(`^Transient\\.${reason}`))
      }))

    it.effect("idempotent: the end of its answer is the end of a connection", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* outcome(empty, { method: EventSource.post(body, { idempotent: true }) }), "end")
      }))
  })

  describe("closing", () => {
    it.effect("the scope ends the body, whether or not it was read", () =>
      Effect.gen(function*() {
        for (const reads of [false, true]) {
          const body = FakeFetch.body()
          const { layer } = FakeFetch.make(() => sse(body.stream))
          const scope = yield* Scope.make()
          const provide = flow(Scope.provide(scope), Effect.provide(layer))
          const stream = yield* provide(EventSource.connect(url)(dial()))
          const fiber = reads ? yield* Effect.forkChild(provide(Stream.runDrain(stream))) : undefined
          yield* TestClock.adjust(0)
          assert.isFalse(body.cancelled())
          yield* Scope.close(scope, Exit.void)
          assert.isTrue(body.cancelled())
          if (fiber !== undefined) yield* Fiber.await(fiber)
        }
      }))

    it.effect("interrupting a connection attempt aborts the request", () =>
      Effect.gen(function*() {
        const fetch = FakeFetch.make(() => new Promise(() => {}))
        const fiber = yield* Effect.forkChild(outcome(fetch))
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(fiber)
        assert.isTrue(fetch.asked[0]?.init.signal?.aborted)
      }))

    it.effect("a read that was interrupted loses nothing", () =>
      Effect.gen(function*() {
        const body = FakeFetch.body()
        yield* Effect.gen(function*() {
          const stream = yield* EventSource.connect(url)(dial())
          const pull = yield* Stream.toPull(stream)
          const first = yield* Effect.forkChild(pull)
          yield* TestClock.adjust("1 second")
          yield* Fiber.interrupt(first)
          yield* body.write("data: a\n\n")
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(yield* pull, [message("a")])
        }).pipe(Effect.scoped, Effect.provide(FakeFetch.make(() => sse(body.stream)).layer))
      }))
  })
})

describe("EventSource.stream", () => {
  /** What came, with its time in seconds, and how it ended. */
  const run = (answer: FakeFetch.Answer, options: EventSource.Options = {}, time: Duration.Input = "10 minutes") =>
    Effect.gen(function*() {
      const fetch = FakeFetch.make(answer)
      const seen: Array<string> = []
      const fiber = yield* EventSource.stream(url, options).pipe(
        Stream.runForEach((event) => Effect.sync(() => seen.push(event._tag === "Gap" ? "gap" : event.data))),
        Effect.match({ onSuccess: () => "end", onFailure: (error) => error._tag }),
        Effect.provide(fetch.layer),
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.forkChild
      )
      yield* TestClock.adjust(time)
      const ended = fiber.pollUnsafe()
      yield* Fiber.interrupt(fiber)
      return {
        seen,
        ended: ended === undefined ? "open" : Exit.isSuccess(ended) ? ended.value : "defect",
        ids: fetch.asked.map((asked) => asked.headers["last-event-id"])
      }
    })

  const stop = () => new Response(null, { status: 204 })

  it.effect("resumes after the last whole event, over failures of every kind, until the server says to stop", () =>
    Effect.gen(function*() {
      const answers: ReadonlyArray<FakeFetch.Answer> = [
        () => sse("data: a\n\n"),
        () => sse("id: 1\ndata: b\n\nid: 2\ndata: lost\n"),
        () => Promise.reject(new TypeError("x")),
        () => new Response("", { status: 503 }),
        () => sse("data: c\n\n"),
        () => sse("id: 3\n\n"),
        () => sse("data: d\n\nid\ndata: e\n\n"),
        () => sse("data: f\n\n"),
        stop
      ]
      const { ended, ids, seen } = yield* run((asked, n) => (answers[n] ?? stop)(asked, n))
      assert.deepStrictEqual(seen, ["a", "b", "c", "d", "e", "f"])
      assert.deepStrictEqual(ids, [undefined, undefined, "1", "1", "1", "1", "3", undefined, undefined])
      assert.strictEqual(ended, "end")
    }))

  it.effect.each<readonly [string, FakeFetch.Answer, EventSource.Options, string, number]>([
    ["401", () => new Response("", { status: 401 }), {}, "AuthFailed", 1],
    ["another content type", () => new Response("{}"), {}, "Refused", 1],
    ["503, strict", () => new Response("", { status: 503 }), { table: Classify.httpEventStreamStrict }, "Refused", 1],
    ["streams without an event", () => sse(": hello\n\n"), {}, "NoProgress", 10],
    ["the same, sooner", () => sse(": hello\n\n"), { noProgressLimit: 3 }, "NoProgress", 3],
    [
      "503, with a bound",
      () => new Response("", { status: 503 }),
      { policy: Reconnect.bounded(Backoff.synchronous) },
      "Exhausted",
      5
    ],
    [
      "a POST that got no answer",
      () => Promise.reject(new TypeError("x")),
      { method: EventSource.post() },
      "Refused",
      1
    ],
    ["a POST that hangs", () => new Promise(() => {}), { method: EventSource.post() }, "Refused", 1],
    ["a POST that ends", () => sse("data: a\n\n"), { method: EventSource.post() }, "end", 1]
  ])("%s", ([, answer, options, expected, requests]) =>
    Effect.gen(function*() {
      const { ended, ids } = yield* run(answer, options)
      assert.strictEqual(ended, expected)
      assert.strictEqual(ids.length, requests)
    }))

  it.effect("a POST that was sent is not sent again when its connection is replaced", () =>
    Effect.gen(function*() {
      const fetch = FakeFetch.make(() => sse(new ReadableStream()))
      const handle = yield* Reconnect.makeHandle
      const fiber = yield* EventSource.stream(url, { method: EventSource.post(), handle }).pipe(
        Stream.runDrain,
        Effect.provide(fetch.layer),
        Effect.forkChild
      )
      yield* TestClock.adjust("1 second")
      yield* handle.replace
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.strictEqual(fetch.asked.length, 1)
    }))

  it.effect("retry: replaces the base, inside 250 ms to 60 s, and is kept", () =>
    Effect.gen(function*() {
      const policy = Backoff.make({ jitter: "none" })
      const times = (retry: string) =>
        Effect.gen(function*() {
          const at: Array<number> = []
          const clock = yield* Clock.Clock
          yield* run(
            (_, n) => {
              at.push(clock.currentTimeMillisUnsafe())
              return n === 0 ? sse(`retry: ${retry}\ndata: a\n\n`) : sse("data: b\n\n")
            },
            { policy },
            "3 minutes"
          )
          return [(at[1] ?? 0) - (at[0] ?? 0), (at[2] ?? 0) - (at[1] ?? 0)]
        })
      assert.deepStrictEqual(yield* times("none"), [1000, 1000])
      assert.deepStrictEqual(yield* times("5000"), [5000, 5000])
      assert.deepStrictEqual(yield* times("0"), [250, 250])
      assert.deepStrictEqual(yield* times("999999999999999999999999"), [60_000, 60_000])
      assert.deepStrictEqual(yield* times("9".repeat(400)), [60_000, 60_000])
    }))

  it.effect.each([429, 503])("%i with Retry-After is not asked again sooner", (status) =>
    Effect.gen(function*() {
      for (const [seconds, requests] of [[6, 1], [7, 2]] as const) {
        const { ids } = yield* run(
          (_, n) => n === 0 ? new Response("", { status, headers: { "retry-after": "7" } }) : sse(new ReadableStream()),
          { policy: Backoff.make({ jitter: "none" }) },
          `${seconds} seconds`
        )
        assert.strictEqual(ids.length, requests)
      }
    }))

  it.effect("an id that cannot be sent, and a server's word that events are gone, are a gap each", () =>
    Effect.gen(function*() {
      const { ids, seen } = yield* run(
        (_, n) =>
          n === 0
            ? sse("id: \u0001\ndata: a\n\n")
            : n === 1
            ? sse("event: lost\nid: 7\ndata: x\n\ndata: b\n\n")
            : stop(),
        { isGap: (event) => event.event === "lost" }
      )
      assert.deepStrictEqual(seen, ["a", "gap", "gap", "b"])
      assert.deepStrictEqual(ids, [undefined, undefined, "7"])
    }))
})
