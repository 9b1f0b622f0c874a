/**
 * examples/listener over real HTTP/2: the transport by itself, against each way in which a dispatcher can end a stream, then the
 * client on it, against dispatchers that are drained, deployed anew, killed, of an older version, or refuse.
 *
 * What Hatchet's TypeScript SDK (1.28.2) was seen to do in the same situations is told in the README of the example, with
 * where that comes from.
 */
import { Code } from "@connectrpc/connect"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { retryAfter } from "effect-lifeline/LifelineError"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import * as Http2 from "node:http2"
import type * as Net from "node:net"
import * as Client from "../../examples/listener/client.ts"
import * as Connection from "../../examples/listener/connection.ts"
import { Dispatcher, ListenRequest, RunEvent } from "../../examples/listener/protocol.ts"
import type { Method } from "../../examples/listener/protocol.ts"
import * as Server from "../../examples/listener/server.ts"
import * as FaultProxy from "../support/faultProxy.ts"
import * as HungPort from "../support/hungPort.ts"
import * as Leaks from "../support/leaks.ts"
import * as RawServer from "../support/rawServer.ts"
import * as Dist from "../support/runtimes/Dist.ts"
import * as Process from "../support/runtimes/Process.ts"

describe("protocol", () => {
  const proto = readFileSync(`${Process.root}/examples/listener/dispatcher.proto`, "utf8")
    .split("\n").map((line) => line.replace(/\/\/.*/, "").trim()).filter((line) => line !== "")

  it("is that of the .proto", () => {
    const kinds: Record<string, string> = { run_id: "string", type: "string", payload: "string", unsubscribe: "bool" }
    assert.deepStrictEqual(proto, [
      `syntax = "proto3";`,
      `package ${Dispatcher.file.proto.package};`,
      `service ${Dispatcher.name} {`,
      ...Dispatcher.methods.map((method) =>
        `rpc ${method.name}(stream ${method.input.name}) returns (stream ${method.output.name});`
      ),
      "}",
      ...[ListenRequest, RunEvent].flatMap((message) => [
        `message ${message.name} {`,
        ...message.fields.map((field) => `${kinds[field.name]} ${field.name} = ${field.number};`),
        "}"
      ])
    ])
  })
})

const tagOf = (error: { readonly _tag: string; readonly reason?: { readonly _tag: string } | undefined }) =>
  error.reason === undefined ? error._tag : `${error._tag}.${error.reason._tag}`

/** Waits for something to be so, at most 10 seconds. */
const until = (what: string, isSo: () => boolean) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1000 && !isSo(); n++) yield* Effect.sleep("10 millis")
    assert.isTrue(isSo(), what)
  })

/** How a connection ended, as `Tag` or `Tag.Reason`, and what it had carried until then. */
const ending = (
  options: Connection.Options,
  method: Method,
  runs: ReadonlyArray<string> = ["run-1"]
) =>
  Effect.gen(function*() {
    const events: Array<string> = []
    const ended = yield* Connection.open(options, method).pipe(
      Effect.tap(({ send }) => Effect.forEach(runs, (runId) => send({ runId }))),
      Effect.flatMap(({ messages }) => Stream.runForEach(messages, ({ type }) => Effect.sync(() => events.push(type)))),
      Effect.scoped,
      Effect.match({
        onSuccess: () => "end",
        onFailure: (error) => {
          assert.include(error.message, error._tag === "Closed" ? method : options.url)
          assert.notInclude(error.message, "undefined")
          return tagOf(error)
        }
      })
    )
    return { ended, events }
  })

/** Nothing of `effect` is left when it is done: no fiber, no socket, no timer. */
const leakless = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fibers = Leaks.fiberCounter()
    const left = yield* Leaks.resources
    const result = yield* fibers.watch(Effect.scoped(effect))
    assert.strictEqual(yield* fibers.left, 0, "fibers")
    assert.deepStrictEqual(yield* left, [], "sockets and timers")
    return result
  })

type Behaviour = (stream: Http2.ServerHttp2Stream, socket: Net.Socket) => void

const streaming = { ":status": 200, "content-type": "application/connect+proto" }

/** An HTTP/2 server that does the same with each stream. Gives its URL. */
const listen = (behaviour: Behaviour) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(async () => {
        const sockets = new Set<Net.Socket>()
        const server = Http2.createServer()
        server.on("connection", (socket: Net.Socket) => {
          sockets.add(socket)
          server.once("stream", (stream) => {
            stream.on("error", () => {})
            behaviour(stream, socket)
          })
        })
        await once(server.listen(0, "127.0.0.1"), "listening")
        return { server, sockets }
      }),
      ({ server, sockets }) =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          for (const socket of sockets) socket.destroy()
        })
    ),
    ({ server }) => `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`
  )

describe("connection", () => {
  const codes: ReadonlyArray<readonly [Server.Ending, string]> = [
    ["end", "end"],
    [Code.Unavailable, "Transient.Unavailable"],
    [Code.Internal, "Transient.Unavailable"],
    [Code.DeadlineExceeded, "Transient.Unavailable"],
    [Code.ResourceExhausted, "Transient.Throttled"],
    [Code.Unauthenticated, "AuthFailed.Unauthorized"],
    [Code.PermissionDenied, "AuthFailed.Forbidden"],
    [Code.InvalidArgument, "Refused.InvalidRequest"],
    [Code.FailedPrecondition, "Refused.Conflict"],
    [Code.NotFound, "Refused.NotFound"],
    [Code.Unimplemented, "Refused.Unsupported"],
    [Code.Canceled, "Inconclusive"],
    [Code.Unknown, "Inconclusive"],
    [Code.Aborted, "Inconclusive"],
    [Code.AlreadyExists, "Inconclusive"],
    [Code.OutOfRange, "Inconclusive"],
    [Code.DataLoss, "Inconclusive"]
  ]

  it("has a row for each code", () => {
    const all = Object.values(Code).filter((code) => typeof code === "number")
    assert.sameMembers(codes.flatMap(([code]) => code === "end" ? [] : [code]), all)
  })

  it.live.each(codes)("code %s is %s", ([code, verdict]) =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      yield* server.fail({ at: "open", ending: code })
      assert.deepStrictEqual(yield* ending({ url: server.url }, "listen", []), { ended: verdict, events: [] })
      assert.deepStrictEqual(yield* ending({ url: server.url }, "listenV2", []), { ended: verdict, events: [] })
      yield* server.fail({ at: "subscription", ending: code })
      assert.deepStrictEqual(yield* ending({ url: server.url }, "listen"), { ended: verdict, events: [] })
      assert.deepStrictEqual(yield* ending({ url: server.url }, "listenV2"), { ended: verdict, events: ["SUBSCRIBED"] })
      yield* until("no connection is left", () => server.connections() === 0)
    })))

  it.live("a method that is not there is Unsupported, a token that is not known Unauthorized", () =>
    leakless(Effect.gen(function*() {
      const token = Redacted.make("the-token")
      const server = yield* Server.make({ methods: ["listen"], token })
      const at = { url: server.url }
      assert.strictEqual((yield* ending({ ...at, token }, "listenV2")).ended, "Refused.Unsupported")
      assert.strictEqual((yield* ending(at, "listen")).ended, "AuthFailed.Unauthorized")
      assert.strictEqual(
        (yield* ending({ ...at, token: Redacted.make("other") }, "listen")).ended,
        "AuthFailed.Unauthorized"
      )
      yield* server.fail({ at: "open", ending: "end" })
      assert.strictEqual((yield* ending({ ...at, token }, "listen")).ended, "end")
    })))

  /** What answers is not a dispatcher, or a broken one. */
  const broken: ReadonlyArray<readonly [string, string, Behaviour]> = [
    ...([
      [400, "Transient.Unavailable"],
      [401, "AuthFailed.Unauthorized"],
      [403, "AuthFailed.Forbidden"],
      [404, "Refused.Unsupported"],
      [429, "Transient.Unavailable"],
      [500, "Inconclusive"],
      [502, "Transient.Unavailable"],
      [503, "Transient.Unavailable"],
      [504, "Transient.Unavailable"]
    ] as const).map(([status, verdict]) =>
      [`HTTP ${status}`, verdict, (stream) => stream.respond({ ":status": status }, { endStream: true })] as readonly [
        string,
        string,
        Behaviour
      ]
    ),
    ["an HTML page", "Inconclusive", (stream) => {
      stream.respond({ ":status": 200, "content-type": "text/html" })
      stream.end("<html>")
    }],
    ["a body that ends without its last word", "Transient.Unavailable", (stream) => {
      stream.respond(streaming)
      stream.end()
    }],
    ["a body that ends within a message", "Transient.Unavailable", (stream) => {
      stream.respond(streaming)
      stream.end(new Uint8Array([0, 0, 0, 0, 9, 1]))
    }],
    ["a stream that was reset", "Transient.Unavailable", (stream) => {
      stream.respond(streaming)
      stream.close(Http2.constants.NGHTTP2_CANCEL)
    }],
    [
      "a stream that was not taken",
      "Transient.Unavailable",
      (stream) => stream.close(Http2.constants.NGHTTP2_REFUSED_STREAM)
    ],
    ["a connection that was closed", "Transient.Unavailable", (stream) => {
      stream.respond(streaming)
      stream.session?.destroy()
    }],
    ["a connection that was reset", "Transient.Unavailable", (stream, socket) => {
      stream.respond(streaming)
      socket.resetAndDestroy()
    }]
  ]

  it.live.each(broken)("%s is %s", ([, verdict, behaviour]) =>
    leakless(Effect.gen(function*() {
      const url = yield* listen(behaviour)
      assert.strictEqual((yield* ending({ url }, "listen", [])).ended, verdict)
    })))

  it.live("a port where nobody listens, and a name that nobody has, are Unavailable", () =>
    leakless(Effect.gen(function*() {
      const url = yield* Effect.scoped(Effect.map(Server.make(), (server) => server.url))
      assert.strictEqual((yield* ending({ url }, "listen")).ended, "Transient.Unavailable")
      assert.strictEqual((yield* ending({ url: "http://dispatcher.invalid" }, "listen")).ended, "Transient.Unavailable")
    })))

  it.live("a port that does not answer is given up at the deadline", () =>
    leakless(Effect.gen(function*() {
      const url = `http://127.0.0.1:${yield* HungPort.make}`
      const { ended } = yield* ending({ url, connectWithin: "200 millis" }, "listen")
      assert.strictEqual(ended, "Transient.Unavailable")
    })))

  it.live("a connection on which nothing arrives any more is given up", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const proxy = yield* FaultProxy.make(Number(new URL(server.url).port))
      const { messages, send } = yield* Connection.open({ url: proxy.url, pingWithin: "200 millis" }, "listenV2")
      yield* send({ runId: "run-1" })
      const error = yield* messages.pipe(
        Stream.runForEach(() => Effect.sync(() => proxy.links[0]?.fault("both", "drop"))),
        Effect.flip
      )
      assert.strictEqual(error._tag, "Transient")
      assert.strictEqual(yield* Effect.map(Effect.flip(send({ runId: "run-2" })), (error) => error._tag), "Transient")
    })))

  it.live("what is sent when it is closed fails with Closed, what is sent when it ended with the reason", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const closed = yield* Effect.scoped(Connection.open(server, "listen"))
      assert.strictEqual((yield* Effect.flip(closed.send({ runId: "run-1" })))._tag, "Closed")
      yield* server.fail({ at: "subscription", ending: Code.Unauthenticated })
      const refused = yield* Connection.open(server, "listen")
      yield* refused.send({ runId: "run-1" })
      yield* Effect.exit(Stream.runDrain(refused.messages))
      assert.strictEqual((yield* Effect.flip(refused.send({ runId: "run-2" })))._tag, "AuthFailed")
    })))

  it.live("what a server asks to wait is handed on", () =>
    leakless(Effect.gen(function*() {
      const url = yield* listen((stream) => {
        stream.respond({ ":status": 503, "retry-after": "7" }, { endStream: true })
      })
      const { messages } = yield* Connection.open({ url }, "listen")
      const error = yield* Effect.flip(Stream.runDrain(messages))
      assert.deepStrictEqual(error._tag === "Transient" && retryAfter(error), Duration.seconds(7))
    })))

  it.live("a token is in no error, even if the server repeats it", () =>
    leakless(Effect.gen(function*() {
      const url = yield* listen((stream) => {
        const said = JSON.stringify({ error: { code: "unauthenticated", message: "no such token: swordfish" } })
        const head = new Uint8Array([2, 0, 0, 0, said.length])
        stream.respond(streaming)
        stream.end(Buffer.concat([head, Buffer.from(said)]))
      })
      const { messages } = yield* Connection.open({ url, token: Redacted.make("swordfish") }, "listen")
      const error = yield* Effect.flip(Stream.runDrain(messages))
      assert.strictEqual(error._tag, "AuthFailed")
      assert.include(error.message, "no such token: <redacted>")
      assert.notInclude(JSON.stringify(error) + String(error), "swordfish")
    })))

  it.live("a peer that accepts and does not speak HTTP/2 is given up", () =>
    leakless(Effect.gen(function*() {
      const silent = yield* RawServer.make(() => {})
      const { ended } = yield* ending({ url: silent.url, connectWithin: "200 millis" }, "listen")
      assert.strictEqual(ended, "Transient.Unavailable")
      const other = yield* RawServer.make(() => {}, (socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"))
      assert.strictEqual((yield* ending(other, "listen")).ended, "Transient.Unavailable")
    })))

  it.live.each(["", "dispatcher:7070", "ftp://127.0.0.1"])(
    "%j is refused as a URL",
    (url) =>
      leakless(Effect.gen(function*() {
        assert.strictEqual((yield* ending({ url }, "listen")).ended, "Refused.InvalidRequest")
      }))
  )
})

const methods = (server: Server.Server) => server.calls.map(({ method }) => method)

const runs = ["run-1", "run-2", "run-3"]

/** Waits for the result of each run in the background, and until the dispatcher knows that. */
const waiting = Effect.fnUntraced(function*(server: Server.Server, client: typeof Client.Runs.Service) {
  const calls = server.calls.length
  const fiber = yield* Effect.forkChild(Effect.forEach(runs, client.result, { concurrency: "unbounded" }))
  yield* until("subscribed to all", () => {
    const [call] = server.calls.slice(calls)
    return call !== undefined && call.subscribed.length === runs.length
  })
  return fiber
})

const finish = (server: Server.Server) =>
  Effect.forEach(runs, (runId) => server.emit(runId, "COMPLETED", `result of ${runId}`), { discard: true })

const results = runs.map((runId) => `result of ${runId}`)

describe("client", () => {
  it.live("gives the result of a run: one to come, one that is there, one that failed", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const client = yield* Client.make(server)
      const fiber = yield* waiting(server, client)
      yield* server.emit("run-1", "STARTED")
      yield* finish(server)
      assert.deepStrictEqual(yield* Fiber.join(fiber), results)
      assert.strictEqual(yield* client.result("run-1"), "result of run-1")
      yield* server.emit("run-4", "FAILED", "no disk")
      const failed = yield* Effect.flip(client.result("run-4"))
      assert.strictEqual(failed.message, "the run run-4 failed: no disk")
      assert.deepStrictEqual(methods(server), ["ListenV2"])
    })))

  it.live("gives the events of a run, to its end, and then tells the dispatcher to stop", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make({
        work: (runId) => Effect.succeed(`${runId} was easy`)
      })
      const client = yield* Client.make(server)
      const events = yield* Stream.runCollect(client.events("run-1"))
      assert.deepStrictEqual(events.map(({ payload, type }) => [type, payload]), [
        ["SUBSCRIBED", ""],
        ["STARTED", ""],
        ["COMPLETED", "run-1 was easy"]
      ])
      yield* until("unsubscribed", () => server.calls[0]?.unsubscribed.includes("run-1") ?? false)
      assert.deepStrictEqual(server.subscriptions(), [])
    })))

  it.live("answers two who wait for one run, with one connection", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const client = yield* Client.make(server)
      const first = yield* Effect.forkChild(client.result("run-1"))
      yield* until("the first is subscribed", () => server.calls[0]?.subscribed.length === 1)
      const second = yield* Effect.forkChild(client.result("run-1"))
      const third = yield* Effect.forkChild(client.result("run-1"))
      yield* until("all are subscribed", () => server.calls[0]?.subscribed.length === 3)
      yield* Fiber.interrupt(third)
      yield* server.emit("run-1", "COMPLETED", "42")
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], ["42", "42"])
      assert.deepStrictEqual(methods(server), ["ListenV2"])
    })))

  it.live.each(["end", Code.Unavailable] as const)(
    "survives a drain (%s) with runs pending",
    (how) =>
      leakless(Effect.gen(function*() {
        const server = yield* Server.make()
        const client = yield* Client.make(server)
        const fiber = yield* waiting(server, client)
        yield* server.drain(how)
        // Done while nobody listens: the dispatcher says so when it is asked again.
        yield* server.emit("run-1", "COMPLETED", "result of run-1")
        yield* until("subscribed to all again", () => server.calls[1]?.subscribed.length === 3)
        assert.sameMembers([...server.calls[1]?.subscribed ?? []], runs)
        yield* finish(server)
        assert.deepStrictEqual(yield* Fiber.join(fiber), results)
        assert.deepStrictEqual(methods(server), ["ListenV2", "ListenV2"])
        assert.strictEqual(server.connections(), 1)
      }))
  )

  it.live("falls back to V1 after one try of V2, and stays there", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make({ methods: ["listen"] })
      const client = yield* Client.make(server)
      const fiber = yield* Effect.forkChild(Effect.forEach(runs, client.result, { concurrency: "unbounded" }))
      yield* until("subscribed to all", () => server.calls[1]?.subscribed.length === 3)
      yield* server.drain("end")
      yield* until("subscribed to all again", () => server.calls[2]?.subscribed.length === 3)
      yield* finish(server)
      assert.deepStrictEqual(yield* Fiber.join(fiber), results)
      assert.deepStrictEqual(methods(server), ["ListenV2", "Listen", "Listen"])
    })))

  it.live("is refused where there is no V1 either", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make({ methods: [] })
      const client = yield* Client.make(server)
      const errors = yield* Effect.forEach(runs, (runId) => Effect.flip(client.result(runId)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(errors.map(tagOf), runs.map(() => "Refused.Unsupported"))
      assert.deepStrictEqual(methods(server), ["ListenV2", "Listen"])
    })))

  it.live("asks once where its token is not accepted, and tells all who wait", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make({ token: Redacted.make("another") })
      const client = yield* Client.make({ url: server.url, token: Redacted.make("swordfish") })
      const errors = yield* Effect.forEach(runs, (runId) => Effect.flip(client.result(runId)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(errors.map(tagOf), runs.map(() => "AuthFailed.Unauthorized"))
      for (const error of errors) assert.notInclude(JSON.stringify(error) + String(error), "swordfish")
      assert.deepStrictEqual(methods(server), ["ListenV2"])
      const status = yield* SubscriptionRef.get(client.status)
      assert.strictEqual(status._tag === "Closed" && status.cause?._tag, "AuthFailed")
    })))

  it.live("tells all who wait when the token is no longer accepted", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const client = yield* Client.make(server)
      const fiber = yield* waiting(server, client)
      yield* server.drain(Code.Unauthenticated)
      assert.strictEqual(tagOf(yield* Effect.flip(Fiber.join(fiber))), "AuthFailed.Unauthorized")
      assert.deepStrictEqual(methods(server), ["ListenV2"])
    })))

  const storms: ReadonlyArray<readonly [string, Server.Fault]> = [
    ["UNAVAILABLE", { at: "open", ending: Code.Unavailable }],
    ["an end without a word", { at: "open", ending: "end" }],
    ["an end after a word", { at: "subscription", ending: "end" }]
  ]

  it.live(
    "does not hammer a dispatcher in trouble, and is there when it is well again",
    () =>
      leakless(Effect.forEach(storms, ([name, fault]) =>
        Effect.scoped(Effect.gen(function*() {
          const server = yield* Server.make()
          const client = yield* Client.make(server)
          const fiber = yield* waiting(server, client)
          yield* server.fail(fault)
          yield* server.drain(Code.Unavailable)
          yield* Effect.sleep("3 seconds")
          assert.isAtMost(server.calls.length, 8, name)
          yield* finish(server)
          yield* server.fail(undefined)
          assert.deepStrictEqual(yield* Fiber.join(fiber), results, name)
        })), { concurrency: "unbounded" })),
    30_000
  )

  it.live(
    "survives a dispatcher that is killed and started again on the same port",
    () =>
      leakless(Effect.gen(function*() {
        const start = (port: string, run: string) =>
          Process.startRuntime("node", ["examples/listener/serve.ts"], {
            env: { DISPATCHER_PORT: port, DISPATCHER_RUN: run, DISPATCHER_DRAIN: "1 hour" }
          }).pipe(
            Effect.flatMap((process) =>
              Effect.map(process.line(/dispatcher at (http\S+)/), ([, url = ""]) => ({ ...process, url }))
            )
          )
        const before = yield* start("0", "1 hour")
        const client = yield* Client.make(before)
        const started = yield* Deferred.make<void>()
        const watcher = yield* client.events("run-1").pipe(
          Stream.tap(({ type }) => type === "STARTED" ? Deferred.succeed(started, undefined) : Effect.void),
          Stream.runCollect,
          Effect.forkChild
        )
        const waiter = yield* Effect.forkChild(client.result("run-1"))
        yield* Deferred.await(started)
        yield* before.kill("SIGKILL")
        yield* before.exited()
        const after = yield* start(new URL(before.url).port, "100 millis")
        assert.strictEqual(after.url, before.url)
        assert.strictEqual(yield* Fiber.join(waiter), "took 100ms")
        assert.strictEqual((yield* Fiber.join(watcher)).at(-1)?.payload, "took 100ms")
      })),
    60_000
  )

  it.live("answers all who wait when it is closed", () =>
    leakless(Effect.gen(function*() {
      const server = yield* Server.make()
      const scope = yield* Scope.make()
      const client = yield* Scope.provide(Client.make(server), scope)
      const fiber = yield* waiting(server, client)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(tagOf(yield* Effect.flip(Fiber.join(fiber))), "Closed.Shutdown")
      yield* until("disconnected", () => server.connections() === 0)
    })))
})

describe("programs", () => {
  const readme = readFileSync(`${Process.root}/examples/listener/README.md`, "utf8")
  const serve = ["examples/listener/serve.ts"]
  const main = ["examples/listener/main.ts"]

  beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

  it("are started as the README says", () => {
    for (const [path] of [serve, main]) assert.include(readme, `    npx node ${path}\n`)
  })

  it.live.each(["false", "true"])("do what the README says, with V1 only: %s", (old) =>
    Effect.gen(function*() {
      const server = yield* Process.startRuntime("node", serve, {
        env: {
          DISPATCHER_PORT: "0",
          DISPATCHER_RUN: "1 second",
          DISPATCHER_DRAIN: "1250 millis",
          DISPATCHER_OLD: old
        }
      })
      const [, url = ""] = yield* server.line(/dispatcher at (http\S+)/)
      const client = yield* Process.startRuntime("node", main, { env: { DISPATCHER_URL: url } })
      assert.deepStrictEqual(yield* client.exited("30 seconds"), { code: 0, signal: null }, client.lines.join("\n"))
      const said = client.lines.filter((line) => /^(run-|connection: (Closed|Open))/.test(line))
      const results = said.filter((line) => line.startsWith("run-"))
      assert.deepStrictEqual(results, ["run-1: took 1s", "run-2: took 2s", "run-3: took 3s"])
      assert.strictEqual(said[0], "connection: Closed")
      assert.strictEqual(said.at(-1), "connection: Closed")
      assert.isAtLeast(said.filter((line) => line === "connection: Open").length, 2)
      yield* server.kill("SIGTERM")
      assert.deepStrictEqual(yield* server.exited("5 seconds"), { code: 0, signal: null }, server.lines.join("\n"))
    }), 60_000)

  it.live("the client ends with 1 and says why where its token is not accepted", () =>
    Effect.gen(function*() {
      const server = yield* Server.make({ token: Redacted.make("swordfish") })
      const client = yield* Process.startRuntime("node", main, {
        env: { DISPATCHER_URL: server.url, DISPATCHER_TOKEN: "another" }
      })
      assert.deepStrictEqual(yield* client.exited("30 seconds"), { code: 1, signal: null })
      assert.include(client.lines.join("\n"), "the credential was not accepted")
      assert.lengthOf(server.calls, 1)
    }), 60_000)

  it.live("the server says when its port is taken", () =>
    Effect.gen(function*() {
      const { url } = yield* Server.make()
      const second = yield* Process.startRuntime("node", serve, { env: { DISPATCHER_PORT: new URL(url).port } })
      assert.deepStrictEqual(yield* second.exited("30 seconds"), { code: 1, signal: null })
      assert.include(second.lines.join("\n"), "EADDRINUSE")
    }), 60_000)
})
