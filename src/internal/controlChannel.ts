/**
 * The engine behind `ControlChannel`: a transport for that of `Reconnect`, which opens a socket, frames it and lets the program's
 * handshake run on it; and one fiber in the background that reads the stream, so that the connection is kept whoever reads.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import type { ControlChannel, Event, Failure, Options, Status } from "../ControlChannel.ts"
import type { FrameError } from "../Framing.ts"
import type { Attempted, Inconclusive, Transient } from "../LifelineError.ts"
import { Closed, Shutdown, Stop } from "../LifelineError.ts"
import * as Reconnect from "../Reconnect.ts"
import * as Wire from "./controlWire.ts"
import * as EventFeed from "./eventFeed.ts"
import * as Outbox from "./outbox.ts"
import * as Engine from "./reconnect.ts"

/**
 * The connection ended, or did not come about, and the channel was told not to reconnect. `session` is whether the handshake
 * had succeeded.
 *
 * @category errors
 * @since 0.1.0
 */
export class Disconnected extends Data.TaggedError("Disconnected")<
  Attempted & { readonly session: boolean; readonly last: Transient | Inconclusive }
> {
  override get message() {
    return `${this.operation} (${this.target}): ${
      this.session ? "the connection was lost" : "there was no connection"
    }, and it is not to be made anew: ${this.last.message}`
  }
}

/** All ends there may be; which are possible goes by `reconnect`, and the public signature says it. */
export type Ends = Engine.Ends | Disconnected

/** So many messages are read ahead on a connection. */
const readAhead = 64

const withCause = (error: unknown): unknown =>
  typeof error === "object" && error !== null && "reason" in error && typeof error.reason === "object" &&
    error.reason !== null && "cause" in error.reason
    ? error.reason.cause
    : error

export const make = Effect.fnUntraced(function*<In, Out, Session, R, E extends Ends>(
  options: Options<In, Out, Session, R> & { readonly reconnect?: Backoff.Policy | false | undefined }
): Effect.fn.Return<
  ControlChannel<In, Out, Session, E>,
  never,
  Exclude<R, Scope.Scope> | Scope.Scope
> {
  type Ended = E | Closed
  const { at = { operation: "connect", target: "control channel" }, codec, framing, isHeartbeat } = options
  const { liveness = {}, reconnect = Backoff.boreControl } = options
  const step = Duration.fromInputUnsafe(options.stepTimeout ?? "3 seconds")
  const openWithin = Duration.fromInputUnsafe(options.openTimeout ?? "30 seconds")
  const closeWithin = Duration.fromInputUnsafe(options.closeTimeout ?? "500 millis")
  const deadline = Duration.fromInputUnsafe(liveness.deadline ?? "8 seconds")
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const nanos = () => clock.monotonicTimeNanosUnsafe()
  const now = () => clock.currentTimeMillisUnsafe()
  const inbox = yield* Queue.bounded<In, Ended>(options.inbox ?? 1024)
  const events = EventFeed.make<Event<Session, E>>()
  const status = yield* SubscriptionRef.make<Status<Session, E>>({ _tag: "Connecting", attempt: 1 })

  let session: Session | undefined
  let sessions = 0
  /** The connection that has a session, if there is one. */
  let current: Wire.Wire<In, never> | undefined
  let ready = Deferred.makeUnsafe<Session, Ended>()
  /** How the last connection ended. */
  let last: Failure | undefined
  let disconnected: Disconnected | undefined
  let ended: Ended | undefined

  const terms: Wire.Terms<In, Out> = { framing, codec, isHeartbeat, at, step, now, nanos }

  // -- sending ----------------------------------------------------------------------------------------------------------

  const outbox = Outbox.make<Ended>({
    scope,
    at: () => ({ ...at, operation: "send" }),
    limits: options.outbox,
    buffered: () => current?.buffered() ?? 0,
    held: () => current === undefined ? Effect.exit(Deferred.await(ready)) : undefined,
    handOver: (message) => {
      // It is held while there is none, and it is bytes that are sent.
      if (typeof message !== "string") current?.write(message)
      return Exit.void
    }
  })

  // -- one connection ---------------------------------------------------------------------------------------------------

  /** How a connection that was open, or about to be, ended, in the algebra. */
  const lost = (error: Socket.SocketError, operation: string): Failure => {
    const { reason } = error
    // 1000 is also what a socket calls the end of a TCP stream: to a program that did not leave it is a loss.
    return reason._tag === "SocketCloseError" && reason.code !== 1000 && reason.code !== 1006
      ? Classify.fromClose(
        Classify.webSocketSubscribed,
        { code: reason.code, reason: reason.closeReason },
        Wire.place(terms, operation)
      )
      : Wire.unreachable(terms, error, operation)
  }

  const connect = Effect.fnUntraced(function*(dial: Reconnect.Dial<never>) {
    const startedAt = nanos()
    const opening = Effect.gen(function*() {
      const socket = yield* options.open
      const { pull } = yield* socket.reader
      const writer = yield* socket.writer
      return { pull, writer }
    })
    const { pull, writer } = yield* Wire.inTime(
      terms,
      Effect.catch(opening, (error) => {
        const cause = withCause(error)
        return Effect.fail(
          Wire.isFailure(error) ? error : Classify.unreachable({ ...at, detail: Classify.codeOf(cause), cause })
        )
      }),
      at.operation
    )
    const opened = Duration.nanos(nanos() - startedAt)
    const wire = yield* Wire.make(terms, { pull, writer, readAhead, lost })

    // -- the handshake
    const { every, ping } = liveness
    const pinged = ping === undefined ? undefined : Wire.frame(terms, ping)
    if (pinged !== undefined && Result.isFailure(pinged)) {
      return yield* Effect.fail(Wire.unfit(terms, "liveness.ping", pinged.failure))
    }
    const obtained = yield* options.handshake({
      ...Wire.exchange(terms, wire),
      previous: session,
      attempt: dial.attempt,
      opened
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        if (current !== wire) return
        current = undefined
        if (ended === undefined && Deferred.isDoneUnsafe(ready)) ready = Deferred.makeUnsafe()
      })
    )
    session = obtained
    current = wire

    const ask = pinged === undefined ? undefined : () => wire.write(pinged.success)
    yield* Wire.keep(terms, wire, { deadline, ask, every })
    return Stream.fromPull(Effect.succeed(Queue.takeAll(wire.incoming))).pipe(
      Stream.map((message): Reconnect.Frame<{ readonly message: In }> => ({ value: { message }, progress: false }))
    )
  })

  /** Remembers how a connection ended; and makes it the end, where there is to be no other. */
  const ending = (isOpen: boolean) => (error: Failure): Failure | Stop => {
    last = error
    if (reconnect !== false || error._tag === "AuthFailed" || error._tag === "Refused") return error
    disconnected = new Disconnected({ ...at, session: isOpen, last: error })
    return new Stop({ ...at, detail: "it is not to be made anew" })
  }
  const transport = (dial: Reconnect.Dial<never>) =>
    Effect.suspend(() => {
      last = undefined
      return Wire.inTime(terms, connect(dial), at.operation, openWithin)
    }).pipe(Effect.mapError(ending(false)), Effect.map(Stream.mapError(ending(true))))

  // -- the channel ------------------------------------------------------------------------------------------------------

  const wires: Engine.Wires = {
    listeners: new Set(),
    set: Effect.fnUntraced(function*(next) {
      const before = SubscriptionRef.getUnsafe(status)
      if (before._tag === "Closed") return
      const wasReady = before._tag === "Ready"
      if (next._tag === "Open") {
        if (session === undefined) return
        const again = sessions++ > 0
        yield* SubscriptionRef.set(status, { _tag: "Ready", since: next.since, session })
        events.publish({ _tag: "Ready", at: now(), session, again })
        // Last: who waits for the session finds the status to say the same.
        Deferred.doneUnsafe(ready, Exit.succeed(session))
        return
      }
      const after: Status<Session, E> = next._tag !== "Closed"
        ? next
        : {
          _tag: "Closed",
          cause: next.cause?._tag === "Stop" ? disconnected as E | undefined : next.cause as E | Shutdown | undefined
        }
      yield* SubscriptionRef.set(status, after)
      if (last !== undefined && wasReady) events.publish({ _tag: "Lost", at: now(), cause: last })
      if (last !== undefined && before._tag === "Connecting" && after._tag !== "Connecting") {
        events.publish({ _tag: "Failed", at: now(), attempt: before.attempt, cause: last })
      }
      if (after._tag === "Closed") {
        events.publish({ _tag: "Closed", at: now(), cause: after.cause })
        events.end()
      }
    })
  }

  /** Answers everyone who waits. */
  const end = (error: Ended, cause: Cause.Cause<Ended> = Cause.fail(error)) => {
    if (ended !== undefined) return
    ended = error
    if (!Deferred.doneUnsafe(ready, Exit.failCause(cause))) {
      ready = Deferred.makeUnsafe()
      Deferred.doneUnsafe(ready, Exit.failCause(cause))
    }
    outbox.end(error)
    Queue.failCauseUnsafe(inbox, cause)
  }

  const closing = new Closed({ operation: "the control channel", reason: new Shutdown() })

  const stream = Engine.make(transport, {
    at,
    policy: reconnect === false ? Backoff.boreControl : Reconnect.bounded(reconnect),
    noProgressLimit: options.noProgressLimit,
    healthyAfter: options.healthyAfter,
    // That of the transport comes first.
    openTimeout: Duration.sum(openWithin, Duration.seconds(1))
  }, wires)

  const fiber = yield* stream.pipe(
    Stream.runForEach((item) => "message" in item ? Queue.offer(inbox, item.message) : Effect.void),
    Effect.matchCause({
      onSuccess: () => end(disconnected as E | undefined ?? closing),
      onFailure: (cause) => {
        const found = Cause.findError(cause)
        // A defect, e.g. of the handshake: it is told to who reads and who waits for the session.
        if (Result.isSuccess(found)) end(found.success as E)
        else end(closing, Cause.hasDies(cause) ? cause as Cause.Cause<never> : undefined)
      }
    }),
    Effect.forkIn(scope)
  )

  const closed = Deferred.makeUnsafe<void>()
  let isClosing = false
  const close = Effect.suspend(() => {
    if (isClosing) return Deferred.await(closed)
    isClosing = true
    outbox.stop(closing)
    const wire = current
    const flush = wire === undefined || ended !== undefined
      ? Effect.void
      : Effect.timeoutOption(Effect.andThen(outbox.drain, wire.flushed), closeWithin)
    return Effect.uninterruptible(flush.pipe(
      Effect.andThen(Effect.sync(() => end(closing))),
      Effect.andThen(Fiber.interrupt(fiber)),
      Effect.andThen(Deferred.succeed(closed, undefined)),
      Effect.asVoid
    ))
  })
  yield* Scope.addFinalizer(scope, close)

  return {
    messages: Stream.fromPull(Effect.succeed(Queue.takeAll(inbox))),
    send: (message) =>
      Effect.suspend((): Effect.Effect<void, Ended | Outbox.Overflow | FrameError> => {
        const framed = Wire.frame(terms, message)
        return Result.isFailure(framed) ? Effect.fail(framed.failure) : outbox.send(framed.success)
      }),
    session: Effect.suspend(() => Deferred.await(ready)),
    status,
    events: events.stream,
    reconnectNow: Effect.sync(() => {
      for (const listener of wires.listeners) listener("now")
    }),
    close
  }
})
