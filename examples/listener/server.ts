/**
 * A dispatcher of workflow runs over Connect on HTTP/2 without TLS: clients subscribe to runs and get their events. It
 * can be drained, and told to fail, as servers do when they are deployed anew or in trouble.
 */
import { create } from "@bufbuild/protobuf"
import { Code, ConnectError, createContextKey, createContextValues } from "@connectrpc/connect"
import type { HandlerContext } from "@connectrpc/connect"
import { connectNodeAdapter } from "@connectrpc/connect-node"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { once } from "node:events"
import * as Http2 from "node:http2"
import type { AddressInfo } from "node:net"
import { Dispatcher, RunEvent } from "./protocol.ts"
import type { ListenRequest, Method } from "./protocol.ts"

/** How a stream ends: cleanly, or with an error. */
export type Ending = "end" | Code

/** What the server does to each stream from now on. */
export interface Fault {
  /** Before it reads anything, or when it read the first subscription and, in V2, answered it. */
  readonly at: "open" | "subscription"
  readonly ending: Ending
}

export interface Options {
  /** @default 0: any free one */
  readonly port?: number | undefined
  /** What it implements. @default both */
  readonly methods?: ReadonlyArray<Method> | undefined
  /** What callers must show. @default nothing */
  readonly token?: Redacted.Redacted | undefined
  /** What a run does; it starts when somebody first asks for it. @default nothing: see `emit` */
  readonly work?: ((runId: string) => Effect.Effect<string>) | undefined
}

/** A request that came, whatever became of it. */
export interface Call {
  /** The last part of its path. */
  readonly method: string
  readonly subscribed: ReadonlyArray<string>
  readonly unsubscribed: ReadonlyArray<string>
}

export interface Server {
  readonly url: string
  /** Sends an event to whoever subscribed to the run. COMPLETED and FAILED are kept for those who come later. */
  readonly emit: (runId: string, type: string, payload?: string) => Effect.Effect<void>
  /** Ends all streams. The next ones are welcome. */
  readonly drain: (how: Ending) => Effect.Effect<void>
  /** `undefined`: no more of that. */
  readonly fail: (how: Fault | undefined) => Effect.Effect<void>
  readonly calls: ReadonlyArray<Call>
  /** The runs that somebody is subscribed to now, once for each stream. */
  readonly subscriptions: () => ReadonlyArray<string>
  /** How many clients are connected. */
  readonly connections: () => number
}

interface Listener {
  readonly runs: Set<string>
  readonly queue: Queue.Queue<RunEvent, ConnectError | Cause.Done>
}

interface Calling extends Call {
  readonly subscribed: Array<string>
  readonly unsubscribed: Array<string>
}

const calling = createContextKey<Calling>({ method: "", subscribed: [], unsubscribed: [] })

const isFinal = (type: string) => type === "COMPLETED" || type === "FAILED"

/** Listens on 127.0.0.1 as long as its scope is open. */
export const make = (options: Options = {}): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.gen(function*() {
    const calls: Array<Calling> = []
    const listeners = new Set<Listener>()
    const results = new Map<string, RunEvent>()
    const working = yield* FiberMap.make<string>()
    let fault: Fault | undefined

    const end = ({ queue }: Listener, how: Ending) =>
      how === "end" ? Queue.end(queue) : Queue.fail(queue, new ConnectError("as it was told to", how))

    /** A client that does not read is let go of: it may come again. */
    const send = (listener: Listener, event: RunEvent) =>
      Effect.suspend(() =>
        Queue.offerUnsafe(listener.queue, event) ? Effect.void : end(listener, Code.ResourceExhausted)
      )

    const emit = (runId: string, type: string, payload = "") =>
      Effect.suspend(() => {
        const event = create(RunEvent, { runId, type, payload })
        if (isFinal(type)) results.set(runId, event)
        return Effect.forEach(
          [...listeners].filter(({ runs }) => runs.has(runId)),
          (listener) => send(listener, event),
          { discard: true }
        )
      })

    const start = (runId: string) =>
      options.work === undefined || results.has(runId)
        ? Effect.void
        : FiberMap.run(
          working,
          runId,
          emit(runId, "STARTED").pipe(
            Effect.andThen(options.work(runId)),
            Effect.flatMap((result) => emit(runId, "COMPLETED", result))
          ),
          { onlyIfMissing: true }
        )

    const subscribe = (listener: Listener, runId: string, acknowledges: boolean) =>
      Effect.gen(function*() {
        listener.runs.add(runId)
        if (acknowledges) yield* send(listener, create(RunEvent, { runId, type: "SUBSCRIBED" }))
        const result = results.get(runId)
        yield* fault?.at === "subscription"
          ? end(listener, fault.ending)
          : result === undefined
          ? start(runId)
          : send(listener, result)
      })

    const answer = (listener: Listener, call: Calling, method: Method, { runId, unsubscribe }: ListenRequest) =>
      Effect.suspend(() => {
        if (unsubscribe && method === "listenV2") {
          call.unsubscribed.push(runId)
          listener.runs.delete(runId)
          return Effect.void
        }
        call.subscribed.push(runId)
        return subscribe(listener, runId, method === "listenV2")
      })

    const isAllowed = ({ requestHeader }: HandlerContext) =>
      options.token === undefined || requestHeader.get("authorization") === `Bearer ${Redacted.value(options.token)}`

    /** One stream: reads requests beside what it sends, until either side is done. */
    const listen = (method: Method) => (requests: AsyncIterable<ListenRequest>, context: HandlerContext) => {
      const call = context.values.get(calling)
      const events = Stream.callback<RunEvent, ConnectError>(
        Effect.fnUntraced(function*(queue) {
          const listener: Listener = { queue, runs: new Set() }
          // A client that left is not noticed otherwise: there may be nothing to send to it for hours.
          const left = () => void Queue.endUnsafe(queue)
          context.signal.addEventListener("abort", left, { once: true })
          listeners.add(listener)
          yield* Effect.addFinalizer(() =>
            Effect.sync(() => {
              context.signal.removeEventListener("abort", left)
              listeners.delete(listener)
            })
          )
          if (!isAllowed(context)) {
            yield* Queue.fail(queue, new ConnectError("unknown token", Code.Unauthenticated))
          } else if (fault?.at === "open") {
            yield* end(listener, fault.ending)
          } else {
            yield* Stream.fromAsyncIterable(requests, (error) => ConnectError.from(error)).pipe(
              // A client that has nothing more to ask for still listens.
              Stream.runForEach((request) => answer(listener, call, method, request)),
              Effect.catch((error) => Queue.fail(queue, error))
            )
          }
        }),
        { bufferSize: 10_000, strategy: "dropping" }
      )
      return Stream.toAsyncIterable(events)
    }

    const handler = connectNodeAdapter({
      routes: (router) => {
        const { methods = ["listen", "listenV2"] } = options
        // What is not there is answered with UNIMPLEMENTED by Connect.
        router.service(Dispatcher, Object.fromEntries(methods.map((method) => [method, listen(method)])))
      },
      contextValues: ({ url = "" }) => {
        const call: Calling = { method: url.slice(url.lastIndexOf("/") + 1), subscribed: [], unsubscribed: [] }
        calls.push(call)
        return createContextValues().set(calling, call)
      }
    })

    const sessions = new Set<Http2.ServerHttp2Session>()
    const http = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const http = Http2.createServer(handler)
        http.on("session", (session) => {
          sessions.add(session)
          session.on("close", () => sessions.delete(session))
        })
        await once(http.listen(options.port ?? 0, "127.0.0.1"), "listening")
        return http
      }),
      (http) =>
        Effect.callback<void>((resume) => {
          http.close(() => resume(Effect.void))
          for (const session of sessions) session.destroy()
        })
    )
    const { port } = http.address() as AddressInfo

    return {
      url: `http://127.0.0.1:${port}`,
      emit,
      drain: (how) => Effect.suspend(() => Effect.forEach([...listeners], (it) => end(it, how), { discard: true })),
      fail: (how) =>
        Effect.sync(() => {
          fault = how
        }),
      calls,
      subscriptions: () => [...listeners].flatMap(({ runs }) => [...runs]),
      connections: () => sessions.size
    }
  })
