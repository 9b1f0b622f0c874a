/**
 * One connection to the dispatcher, as `Listener` wants it: a stream both ways, over an HTTP/2 connection of its own. It never
 * retries, and what goes wrong on it becomes an error of `LifelineError` by one table, `Classify.grpcSubscribed`.
 *
 * An HTTP/2 connection for each stream, where Connect would share one, is what makes a new generation new: a half-open
 * connection is left behind with its stream.
 */
import { Code, ConnectError, createClient } from "@connectrpc/connect"
import { createConnectTransport } from "@connectrpc/connect-node"
import * as Classify from "effect-lifeline/Classify"
import { Closed, Shutdown } from "effect-lifeline/LifelineError"
import type * as Listener from "effect-lifeline/Listener"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Http2 from "node:http2"
import { Dispatcher } from "./protocol.ts"
import type { Method, RunEvent } from "./protocol.ts"

export interface Options {
  /** Where the dispatcher is, e.g. `"http://127.0.0.1:7070"`. It is shown in errors; what is secret goes into `token`. */
  readonly url: string
  /** What to show it. @default nothing */
  readonly token?: Redacted.Redacted | undefined
  /** The deadline of one attempt to connect. @default 5 seconds */
  readonly connectWithin?: Duration.Input | undefined
  /** A connection that does not answer a ping within this is dead; it is asked as often. @default 10 seconds */
  readonly pingWithin?: Duration.Input | undefined
}

/** What the dispatcher is asked: to send a run's events, or to stop that. */
export interface Request {
  readonly runId: string
  readonly unsubscribe?: boolean
}

/** What the table leads to. */
type Failure = Classify.ErrorsOf<typeof Classify.grpcSubscribed>

type Fail = (status: Classify.GrpcStatus) => Failure

/**
 * An HTTP/2 connection, once the other side has shown that it speaks HTTP/2. Connect's own manager is not used, as it shares
 * connections between streams and dials again by itself: how often that happens is for `Listener` to decide.
 */
const connect = ({ connectWithin = "5 seconds", pingWithin = "10 seconds", url }: Options, fail: Fail) =>
  Effect.gen(function*() {
    const session = yield* Effect.acquireRelease(
      Effect.try({
        try: () => Http2.connect(url).on("error", constVoid), // who needs to know of errors is told below
        catch: (cause) => fail({ code: Code.InvalidArgument, message: "this is not the URL of a dispatcher", cause })
      }),
      (session) => Effect.sync(() => session.destroy())
    )
    yield* Effect.callback<void, Failure>((resume) => {
      session.once("remoteSettings", () => resume(Effect.void))
      session.once(
        "error",
        (cause) => resume(Effect.fail(fail({ code: Code.Unavailable, message: Classify.codeOf(cause), cause })))
      )
      session.once(
        "close",
        () => resume(Effect.fail(fail({ code: Code.Unavailable, message: "the connection was closed" })))
      )
    }).pipe(
      Effect.timeoutOrElse({
        duration: connectWithin,
        orElse: () =>
          Effect.fail(fail({
            code: Code.DeadlineExceeded,
            message: `no connection within ${Duration.format(Duration.fromInputUnsafe(connectWithin))}`
          }))
      })
    )
    // A stream may be silent for hours. A connection on which no ping is answered is dead, and its stream ends with it.
    yield* Effect.sleep(pingWithin).pipe(
      Effect.andThen(Effect.callback<void>((resume) => {
        if (session.destroyed || !session.ping(() => resume(Effect.void))) resume(Effect.void)
      })),
      Effect.timeoutOrElse({
        duration: Duration.times(Duration.fromInputUnsafe(pingWithin), 2),
        orElse: () => Effect.sync(() => session.destroy())
      }),
      Effect.repeat({ until: () => session.destroyed }),
      Effect.forkScoped
    )
    return session
  })

/** Connects, as long as the scope is open. */
export const open = (
  options: Options,
  method: Method
): Effect.Effect<Listener.Connection<RunEvent, Request>, Failure, Scope.Scope> =>
  Effect.gen(function*() {
    const { token, url } = options
    const clock = yield* Clock.Clock
    const at = { operation: method, target: `${url}/${Dispatcher.typeName}`, secrets: [token] }
    const fail: Fail = (status) =>
      Classify.fromGrpc(Classify.grpcSubscribed, status, { ...at, now: clock.currentTimeMillisUnsafe() })

    const failure = (reason: unknown): Failure => {
      const cause = ConnectError.from(reason)
      // What the server answered comes with its headers. What Connect makes up where a stream or a connection broke off has
      // none, and is called CANCELED, ABORTED or INVALID_ARGUMENT, as if the server had said so: it is UNAVAILABLE.
      const answered = [...cause.metadata].length > 0
      return fail({
        code: answered ? cause.code : Code.Unavailable,
        message: cause.rawMessage,
        retryAfter: Classify.retryAfter(
          cause.metadata.get("retry-after") ?? undefined,
          clock.currentTimeMillisUnsafe()
        ),
        cause
      })
    }

    const session = yield* connect(options, fail)
    const transport = createConnectTransport({
      baseUrl: url,
      httpVersion: "2",
      sessionManager: {
        authority: new URL(url).origin,
        request: async (method, path, headers, options) =>
          session.request({ ...headers, ":method": method, ":path": path }, options),
        notifyResponseByteRead: constVoid
      }
    })

    // Each message with who waits for it to be sent.
    const outbox = yield* Queue.unbounded<readonly [Request, Deferred.Deferred<void>], Cause.Done>()
    const requests = async function*() {
      for await (const [request, sent] of Stream.toAsyncIterable(Stream.fromQueue(outbox))) {
        yield request
        // Connect asks for more: Node took it.
        Deferred.doneUnsafe(sent, Effect.void)
      }
    }

    const ended = yield* Deferred.make<never, Failure | Closed>()
    const aborter = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      (aborter) =>
        Effect.sync(() => {
          aborter.abort()
          Queue.endUnsafe(outbox)
          Deferred.doneUnsafe(ended, Effect.fail(new Closed({ operation: method, reason: new Shutdown() })))
        })
    )
    const responses = createClient(Dispatcher, transport)[method](requests(), {
      signal: aborter.signal,
      ...(token && { headers: { authorization: `Bearer ${Redacted.value(token)}` } })
    })

    // Read beside whoever reads `messages`, so that who sends learns of the end too.
    const inbox = yield* Queue.bounded<RunEvent, Failure | Cause.Done>(64)
    yield* Stream.fromAsyncIterable(responses, failure).pipe(
      Stream.runForEach((event) => Queue.offer(inbox, event)),
      Effect.matchEffect({
        onFailure: (error) => Effect.andThen(Queue.fail(inbox, error), Deferred.fail(ended, error)),
        onSuccess: () =>
          Effect.andThen(
            Queue.end(inbox),
            Deferred.fail(ended, fail({ code: Code.Unavailable, message: "the server ended the stream" }))
          )
      }),
      Effect.forkScoped({ startImmediately: true })
    )

    return {
      messages: Stream.fromQueue(inbox),
      send: (request) =>
        Effect.gen(function*() {
          // V1 cannot be told to stop; what it sends nevertheless has no subscription here, and is dropped.
          if (request.unsubscribe === true && method === "listen") return
          const sent = yield* Deferred.make<void>()
          yield* Queue.offer(outbox, [request, sent])
          yield* Effect.raceFirst(Deferred.await(sent), Deferred.await(ended))
        })
    }
  })
