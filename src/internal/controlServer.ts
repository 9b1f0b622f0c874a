/**
 * The engine behind `ControlChannel.serve`. Each connection has a fiber, which opens it, lets the program's handshake run, takes
 * hold of the identity that it proved, and then waits for the first of: its handler ends, the transport is lost, somebody else
 * ends it (a newer connection of the same identity, the server's end). Then it parts: the handler's scope is closed and,
 * meanwhile, the client is told.
 *
 * An identity is held by at most one connection whose handler's scope is open. A newer one joins those that hold it, or wait for
 * it, ends them all, and waits until the last of them has let go; should it give up, they still have to for the next one.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Tracer from "effect/Tracer"
import * as Classify from "../Classify.ts"
import type {
  Connected,
  Connection,
  Ending,
  Failure,
  Identified,
  ServeOptions,
  Server,
  ServerEvent,
  ServerStatus
} from "../ControlChannel.ts"
import type { FrameError } from "../Framing.ts"
import { Closed, type Refused, Replaced, Shutdown } from "../LifelineError.ts"
import * as Telemetry from "../Telemetry.ts"
import * as Wire from "./controlWire.ts"
import * as EventFeed from "./eventFeed.ts"
import * as Outbox from "./outbox.ts"

/** One connection, as others see it. */
interface Peer<Session> {
  readonly id: number
  readonly place: Wire.Place
  /** Fails once somebody ends it: the first reason counts. */
  readonly told: Deferred.Deferred<never, Closed>
  /** Fails once the transport is gone, or is as good as gone. */
  readonly lost: Deferred.Deferred<never, Failure>
  /** Done once somebody waits for what it holds: then it is not given time to end. */
  readonly hurry: Deferred.Deferred<void>
  /** Done once the scope of its handler is closed, or is never to be opened. */
  readonly released: Deferred.Deferred<void>
  isGreeted: boolean
  connected: Connected<Session> | undefined
  by: number | undefined
}

/** Those who have an identity, or had it and did not let go of it yet, or wait for that. */
interface Claim<Session> {
  readonly peers: Set<Peer<Session>>
  /** Evictions in a row of those who had it for a short time only. */
  streak: number
}

/** A connection that is open. */
interface Line<In> {
  readonly wire: Wire.Wire<In, Closed>
  /** Bytes that the platform has not sent yet. */
  readonly buffered: () => number
  readonly writer: Socket.Writer
  /** Its end is the end of the connection. */
  readonly transport: Scope.Closeable
  /** Its end is the end of what we send. */
  readonly writing: Scope.Closeable
}

/** Two evictions within this time are a fight, rather than links that broke. */
const shortLived = 10_000
const milestone = 5
/** At most one line for each kind of event in this time, in milliseconds: clients do not decide how much we log. */
const lineEvery = 1000

const withoutSpan = <R>(context: Context.Context<R>): Context.Context<R> =>
  Context.omit(Tracer.ParentSpan)(context as Context.Context<R | Tracer.ParentSpan>) as Context.Context<R>

const over = <Session>({ lost, told }: Peer<Session>): Effect.Effect<never, Ending> =>
  Effect.raceFirst(Deferred.await(told), Deferred.await(lost))

const isOver = <Session>({ lost, told }: Peer<Session>) => Deferred.isDoneUnsafe(told) || Deferred.isDoneUnsafe(lost)

const build = Effect.fnUntraced(function*<In, Out, Session extends Identified, R>(
  options: ServeOptions<In, Out, Session, R>
): Effect.fn.Return<Server<Session>, Refused, Exclude<R, Scope.Scope>> {
  const { at = { operation: "accept", target: "control channel" }, codec, framing, isHeartbeat } = options
  const { farewell = () => undefined, liveness = {}, maxConnections = 1024, maxHandshakes = 128 } = options
  const step = Duration.fromInputUnsafe(options.stepTimeout ?? "3 seconds")
  const handshakeWithin = Duration.fromInputUnsafe(options.handshakeTimeout ?? "10 seconds")
  const evictWithin = Duration.fromInputUnsafe(options.evictTimeout ?? "2 seconds")
  const closeWithin = Duration.fromInputUnsafe(options.closeTimeout ?? "500 millis")
  const deadline = liveness.deadline === undefined ? undefined : Duration.fromInputUnsafe(liveness.deadline)
  // Each connection gets a scope of its own, and is no part of the span in which the server was made.
  const context = withoutSpan(yield* Effect.context<Exclude<R, Scope.Scope>>())
  const clock = yield* Clock.Clock
  const nanos = () => clock.monotonicTimeNanosUnsafe()
  const now = () => clock.currentTimeMillisUnsafe()
  const own = Scope.makeUnsafe()
  const events = EventFeed.make<ServerEvent<Session>>()
  const status = yield* SubscriptionRef.make<ServerStatus>({ _tag: "Serving", connections: 0, handshakes: 0 })

  const serverPlace: Wire.Place = { at, step, now, nanos }
  const terms = (place: Wire.Place): Wire.Terms<In, Out> => ({ ...place, framing, codec, isHeartbeat })
  const beat = liveness.heartbeat === undefined
    ? undefined
    : Wire.frame(terms(serverPlace), liveness.heartbeat)
  if (beat !== undefined && Result.isFailure(beat)) {
    return yield* Effect.fail(Wire.unfit(serverPlace, "liveness.heartbeat", beat.failure))
  }
  for (const [path, limit] of [["maxConnections", maxConnections], ["maxHandshakes", maxHandshakes]] as const) {
    if (limit >= 1) continue
    return yield* Effect.fail(
      Classify.invalidRequest({ ...at, issues: [{ path, message: `${limit} lets nobody in; at least 1` }] })
    )
  }

  let arrivals = 0
  let handshakes = 0
  let connections = 0
  let isClosing = false
  const claims = new Map<string, Claim<Session>>()
  /** Those who hold a place among `maxConnections`. */
  const admitted = new Set<Peer<Session>>()
  const running = new Map<Peer<Session>, Fiber.Fiber<unknown>>()

  // -- what is told of it -----------------------------------------------------------------------------------------------

  const measure = (metric: Metric.Metric<number, unknown>, by: number, outcome?: { readonly outcome: string }) =>
    Metric.withAttributes(metric, { operation: at.operation, ...outcome }).modifyUnsafe(by, context)

  const lines = new Map<string, { at: number; left: number }>()
  const log = (kind: string, level: "Info" | "Warn" | "Error", message: string): Effect.Effect<void> => {
    const last = lines.get(kind) ?? { at: -Infinity, left: 0 }
    lines.set(kind, last)
    const isDue = now() - last.at >= lineEvery
    const text = isDue && last.left > 0 ? `${message}; ${last.left} more like this since the last line` : message
    if (isDue) last.at = now()
    last.left = isDue ? 0 : last.left + 1
    return Effect.annotateLogs(Effect.logWithLevel(isDue ? level : "Debug")(text), {
      package: "effect-lifeline",
      ...at
    })
  }
  const name = ({ place }: Peer<Session>) => `${place.at.operation} (${place.at.target})`
  const closed = (peer: Peer<Session>, reason: Replaced | Shutdown) => new Closed({ operation: name(peer), reason })

  const report = Effect.suspend(() =>
    SubscriptionRef.set(status, {
      _tag: isClosing ? "Closing" : "Serving",
      connections,
      handshakes
    })
  )

  const turnedAway = (peer: Peer<Session>, cause: Ending) => {
    measure(Telemetry.dials, 1, { outcome: cause._tag })
    events.publish({ _tag: "Refused", at: now(), id: peer.id, cause })
    return cause._tag === "Closed"
      ? Effect.void
      : log("Refused", "Warn", `${name(peer)} got no session: ${whyOf(cause)}`)
  }

  // -- opening and parting ----------------------------------------------------------------------------------------------

  const open = Effect.fnUntraced(function*(socket: Socket.Socket, peer: Peer<Session>): Effect.fn.Return<
    Line<In>,
    Failure,
    Scope.Scope
  > {
    const lost = (error: Socket.SocketError, operation: string): Failure =>
      Wire.unreachable(peer.place, error, operation)
    const transport = yield* Scope.fork(yield* Effect.scope)
    const { pull } = yield* Wire.inTime(
      peer.place,
      Effect.mapError(Scope.provide(socket.reader, transport), (error) => lost(error, at.operation)),
      at.operation
    )
    const writing = yield* Scope.fork(transport)
    const writer = yield* Scope.provide(socket.writer, writing)
    const wire = yield* Scope.provide(
      Wire.make<In, Out, Closed>(terms(peer.place), {
        pull,
        writer,
        lost,
        readAhead: options.inbox ?? 64,
        // Nothing but the transport, and the deadline of silence, ends it before its fiber is done waiting for this.
        ended: (cause) => Deferred.doneUnsafe(peer.lost, Exit.failCause(cause as Cause.Cause<Failure>))
      }),
      transport
    )
    // A WebSocket takes everything at once: what of it is not sent it tells itself, where the server provides it.
    const webSocket = Option.getOrUndefined(yield* Effect.serviceOption(Socket.WebSocket))
    const buffered = () => wire.buffered() + amountOf(webSocket)
    return { wire, buffered, writer, transport, writing }
  })

  /**
   * Says what there is to say, and then, after our end of the stream, waits for the other one: what we said may be unread. Then
   * it is closed, whatever its handler still does.
   */
  const part = (
    { transport, wire, writer, writing }: Line<In>,
    peer: Peer<Session>,
    ending: Ending | undefined,
    { before = Effect.void, linger = true } = {}
  ): Effect.Effect<void> => {
    const say = Effect.gen(function*() {
      yield* before
      const { close, message } = (ending === undefined ? undefined : farewell(ending)) ?? {}
      const framed = message === undefined ? undefined : Wire.frame(terms(peer.place), message)
      if (framed !== undefined && Result.isFailure(framed)) {
        yield* log("Farewell", "Warn", `${name(peer)}: the farewell does not fit: ${framed.failure.message}`)
      } else if (framed !== undefined) wire.write(framed.success)
      yield* wire.flushed
      if (close !== undefined) {
        yield* Effect.ignore(writer.write(new Socket.CloseEvent(close.code, close.reason)))
      }
      yield* Scope.close(writing, Exit.void)
      if (linger) yield* wire.discard
    })
    // The platform would keep it as long as something is not sent; and who does not read that is in no hurry.
    const cutOff = Effect.ignore(Effect.timeoutOption(writer.write(new Socket.CloseEvent()), closeWithin))
    return Effect.suspend(() => wire.isBroken() ? Effect.succeedNone : Effect.timeoutOption(say, closeWithin)).pipe(
      Effect.flatMap((said) => Option.isNone(said) ? cutOff : Effect.void),
      Effect.catchCause((cause) => log("Defect", "Error", `${name(peer)}: parting failed: ${Cause.pretty(cause)}`)),
      Effect.ensuring(Scope.close(transport, Exit.void))
    )
  }

  // -- identities -------------------------------------------------------------------------------------------------------

  const release = (peer: Peer<Session>, identity: string | undefined) =>
    Effect.suspend(() => {
      if (admitted.delete(peer) && peer.connected !== undefined) connections--
      const claim = identity === undefined ? undefined : claims.get(identity)
      claim?.peers.delete(peer)
      if (identity !== undefined && claim?.peers.size === 0) claims.delete(identity)
      Deferred.doneUnsafe(peer.released, Exit.void)
      return report
    })

  /** Ends it for a newer one. */
  const evict = (peer: Peer<Session>, claim: Claim<Session>, identity: string, by: Peer<Session>) => {
    Deferred.doneUnsafe(peer.hurry, Exit.void)
    if (isOver(peer)) return Effect.void
    peer.by = by.id
    Deferred.doneUnsafe(
      peer.told,
      Exit.fail(closed(peer, new Replaced({ by: `connection ${by.id}` })))
    )
    if (peer.connected === undefined) return Effect.void
    claim.streak = now() - peer.connected.since < shortLived ? claim.streak + 1 : 1
    const isFight = claim.streak % milestone === 0
    return log(
      isFight ? "Fight" : "Evicted",
      isFight ? "Warn" : "Info",
      `${at.operation} (${at.target}): connection ${by.id} takes over ${
        JSON.stringify(identity)
      } from connection ${peer.id}${
        isFight
          ? `; the ${claim.streak}th time in a row after less than 10s: are there two programs with this identity?`
          : ""
      }`
    )
  }

  /** Makes the identity the peer's: nobody else holds it, or waits for it, any more. */
  const claim = Effect.fnUntraced(function*(
    peer: Peer<Session>,
    identity: string | undefined
  ): Effect.fn.Return<void, Ending> {
    // Who is gone already takes nothing from anybody.
    if (isOver(peer)) return yield* over(peer)
    const held = identity === undefined ? undefined : claims.get(identity) ?? { peers: new Set(), streak: 0 }
    const others = held === undefined ? [] : [...held.peers]
    const holder = others.find((other) => !isOver(other))
    if (holder !== undefined && options.onTaken === "refuse") {
      return yield* Effect.fail(Classify.conflict({
        ...Wire.place(peer.place, "handshake"),
        detail: `connection ${holder.id} has the identity ${JSON.stringify(identity)}`
      }))
    }
    if (others.length === 0 && admitted.size >= maxConnections) {
      return yield* Effect.fail(Classify.throttled({
        ...Wire.place(peer.place, "handshake"),
        detail: `there are ${admitted.size} connections, and no more may be (maxConnections)`
      }))
    }
    admitted.add(peer)
    if (held === undefined || identity === undefined) return
    claims.set(identity, held)
    held.peers.add(peer)
    for (const other of others) yield* evict(other, held, identity, peer)
    yield* Effect.forEach(others, (other) => Deferred.await(other.released), { discard: true }).pipe(
      Effect.raceFirst(over(peer)),
      Effect.timeoutOrElse({
        duration: evictWithin,
        orElse: () =>
          Effect.fail(Classify.unavailable({
            ...Wire.place(peer.place, "handshake"),
            detail: `who had the identity ${JSON.stringify(identity)} (${
              others.map(({ id }) => `connection ${id}`).join(", ")
            }) did not let go of it within ${Duration.format(evictWithin)}: a finalizer of the handler may hang`
          }))
      })
    )
  })

  // -- a connection with a session --------------------------------------------------------------------------------------

  const host = Effect.fnUntraced(function*(
    peer: Peer<Session>,
    line: Line<In>,
    session: Session
  ): Effect.fn.Return<void, never, Scope.Scope | R> {
    const { id } = peer
    const { wire } = line
    const scope = yield* Effect.scope
    const outbox = Outbox.make<Ending>({
      scope,
      at: () => ({ ...peer.place.at, operation: "send" }),
      limits: options.outbox,
      buffered: line.buffered,
      handOver: (message) => {
        // It is bytes that are sent.
        if (typeof message !== "string") wire.write(message)
        return Exit.void
      }
    })
    const connection: Connection<In, Out, Session> = {
      id,
      session,
      messages: Stream.fromPull(Effect.succeed(Queue.takeAll(wire.incoming))),
      send: (message) =>
        Effect.suspend((): Effect.Effect<void, Ending | Outbox.Overflow | FrameError> => {
          const framed = Wire.frame(terms(peer.place), message)
          return Result.isFailure(framed) ? Effect.fail(framed.failure) : outbox.send(framed.success)
        }),
      evicted: Effect.sync(() => peer.by !== undefined)
    }

    peer.connected = { id, session, since: now() }
    connections++
    measure(Telemetry.dials, 1, { outcome: "ok" })
    measure(Telemetry.openStreams, 1)
    yield* report
    events.publish({ _tag: "Connected", at: now(), id, session })

    const inside = yield* Scope.fork(scope)
    const handler = yield* Effect.suspend(() => options.handler(connection)).pipe(
      Scope.provide(inside),
      Effect.forkIn(scope)
    )
    yield* Scope.provide(
      Wire.keep(peer.place, wire, {
        deadline,
        // Whatever else waits to be written shows as well that we are there.
        ask: beat && (() => line.buffered() === 0 && wire.write(beat.success)),
        every: liveness.every ?? "500 millis"
      }),
      line.transport
    )
    yield* Effect.exit(Effect.raceFirst(over(peer), Fiber.await(handler)))

    const isEnded = isOver(peer)
    const exit: Exit.Exit<unknown, unknown> = isEnded ? yield* Effect.exit(over(peer)) : yield* Fiber.await(handler)
    const cause = Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause) ? exit.cause : undefined
    const error = errorOf(cause)
    const ending = (isEnded && error instanceof Closed) || Wire.isFailure(error) ? error : undefined
    const last = ending ?? closed(peer, new Shutdown())
    measure(Telemetry.openStreams, -1)
    // Who is gone, or was replaced, is sent nothing that waits.
    const drains = !isEnded || (ending?._tag === "Closed" && ending.reason._tag === "Shutdown")
    if (drains) outbox.stop(last)
    else outbox.end(last)
    // Later than that: the handler goes on at once.
    wire.end(last)
    yield* hasEnded(peer, session, { isEnded, cause, ending })

    const letGo = Effect.gen(function*() {
      yield* Effect.timeoutOption(Effect.raceFirst(Fiber.await(handler), Deferred.await(peer.hurry)), closeWithin)
      yield* Fiber.interrupt(handler)
      yield* Effect.catchCause(
        Scope.close(inside, yield* Fiber.await(handler)),
        (defect) => log("Defect", "Error", `${name(peer)}: its end failed: ${Cause.pretty(defect)}`)
      )
      yield* release(peer, session.identity)
    })
    yield* Effect.all([letGo, part(line, peer, ending, { before: drains ? outbox.drain : Effect.void })], {
      concurrency: "unbounded",
      discard: true
    })
    outbox.end(last)
  })

  /** Says how a connection with a session ended. */
  const hasEnded = (
    peer: Peer<Session>,
    session: Session,
    { cause, ending, isEnded }: {
      readonly isEnded: boolean
      readonly cause: Cause.Cause<unknown> | undefined
      readonly ending: Ending | undefined
    }
  ): Effect.Effect<void> => {
    const event = { at: now(), id: peer.id, session }
    if (isEnded && ending?._tag === "Closed") {
      if (peer.by !== undefined) events.publish({ ...event, _tag: "Evicted", by: peer.by })
      return Effect.void
    }
    if (isEnded && ending !== undefined && ending._tag !== "Closed") {
      measure(Telemetry.losses, 1)
      events.publish({ ...event, _tag: "Lost", cause: ending })
      return log(
        "Lost",
        "Info",
        `${name(peer)}: the session of ${JSON.stringify(session.identity)} is over: ${whyOf(ending)}`
      )
    }
    events.publish({ ...event, _tag: "Ended", cause })
    if (cause === undefined) return Effect.void
    return ending === undefined
      ? log("Defect", "Error", `${name(peer)}: it failed, and is over: ${Cause.pretty(cause)}`)
      : log("Handler", "Warn", `${name(peer)}: its handler ended it: ${ending.message}`)
  }

  // -- each connection --------------------------------------------------------------------------------------------------

  const greet = (peer: Peer<Session>, { wire }: Line<In>): Effect.Effect<Session, Ending, R> =>
    Effect.raceFirst(
      Wire.inTime(
        peer.place,
        // Nothing but the transport ends it as long as this runs.
        Effect.suspend(() =>
          options.handshake({
            ...Wire.exchange(terms(peer.place), { ...wire, incoming: wire.incoming as Queue.Dequeue<In, Failure> }),
            id: peer.id
          })
        ),
        "handshake",
        handshakeWithin
      ),
      Deferred.await(peer.told)
    )

  const converse = Effect.fnUntraced(function*(
    socket: Socket.Socket,
    peer: Peer<Session>
  ): Effect.fn.Return<void, never, Scope.Scope | R> {
    yield* Effect.addFinalizer(() => leaveHandshake(peer))
    yield* report
    const opened = yield* Effect.result(open(socket, peer))
    if (Result.isFailure(opened)) return yield* turnedAway(peer, opened.failure)
    const line = opened.success
    const greeted = yield* Effect.exit(greet(peer, line))
    if (Exit.isFailure(greeted)) return yield* reject(peer, line, greeted.cause)
    const session = greeted.value
    yield* Effect.addFinalizer(() => release(peer, session.identity))
    const claimed = yield* Effect.exit(claim(peer, session.identity))
    if (Exit.isFailure(claimed)) {
      yield* release(peer, session.identity)
      return yield* reject(peer, line, claimed.cause)
    }
    yield* leaveHandshake(peer)
    yield* host(peer, line, session)
  })

  const reject = Effect.fnUntraced(function*(peer: Peer<Session>, line: Line<In>, cause: Cause.Cause<Ending>) {
    const error = errorOf(cause)
    if (error === undefined) yield* log("Defect", "Error", `${name(peer)}: its handshake died: ${Cause.pretty(cause)}`)
    const ending = error ??
      Classify.inconclusive({ ...Wire.place(peer.place, "handshake"), detail: "a defect; see the log" })
    yield* turnedAway(peer, ending)
    yield* part(line, peer, ending)
  })

  const leaveHandshake = (peer: Peer<Session>) =>
    Effect.suspend(() => {
      if (!peer.isGreeted) handshakes--
      peer.isGreeted = true
      return report
    })

  /** Opened only so that it can be closed. */
  const turnAway = (socket: Socket.Socket, peer: Peer<Session>, why: Ending): Effect.Effect<void> =>
    Effect.scoped(
      open(socket, peer).pipe(
        Effect.flatMap((line) => part(line, peer, why, { linger: false })),
        Effect.ignore,
        Effect.andThen(turnedAway(peer, why))
      )
    )

  const accept = (socket: Socket.Socket): Effect.Effect<void> =>
    Effect.suspend(() => {
      const id = ++arrivals
      const peer: Peer<Session> = {
        id,
        place: { ...serverPlace, at: { ...at, target: `${at.target}, connection ${id}` } },
        told: Deferred.makeUnsafe(),
        lost: Deferred.makeUnsafe(),
        hurry: Deferred.makeUnsafe(),
        released: Deferred.makeUnsafe(),
        isGreeted: false,
        connected: undefined,
        by: undefined
      }
      if (isClosing) return turnAway(socket, peer, closed(peer, new Shutdown()))
      if (handshakes >= maxHandshakes) {
        return turnAway(
          socket,
          peer,
          Classify.throttled({
            ...Wire.place(peer.place, "handshake"),
            detail: `${handshakes} connections are in their handshake, and no more may be (maxHandshakes)`
          })
        )
      }
      handshakes++
      const run: Effect.Effect<void> = Effect.scoped(converse(socket, peer)).pipe(
        Effect.catchCause((cause) => log("Defect", "Error", `${name(peer)}: ${Cause.pretty(cause)}`)),
        // What the options need is there since the beginning; what came with the connection is not hidden.
        Effect.updateContext((input: Context.Context<never>) => Context.merge(input, context))
      )
      return Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(Effect.forkIn(run, own), (fiber) => {
          running.set(peer, fiber)
          fiber.addObserver(() => running.delete(peer))
          return restore(Fiber.await(fiber)).pipe(
            Effect.onInterrupt(() => Effect.andThen(Effect.sync(() => dismiss(peer)), Fiber.await(fiber))),
            Effect.asVoid
          )
        })
      )
    })

  const dismiss = (peer: Peer<Session>) => Deferred.doneUnsafe(peer.told, Exit.fail(closed(peer, new Shutdown())))

  const isShut = Deferred.makeUnsafe<void>()
  const shut = Effect.gen(function*() {
    for (const peer of running.keys()) dismiss(peer)
    yield* report
    yield* Effect.forEach([...running.values()], (fiber) => Fiber.await(fiber), { discard: true })
    yield* Scope.close(own, Exit.void)
    yield* SubscriptionRef.set(status, { _tag: "Closed" })
    events.publish({ _tag: "Closed", at: now() })
    events.end()
    Deferred.doneUnsafe(isShut, Exit.void)
  })

  return {
    accept,
    connections: Effect.sync(() => [...admitted].flatMap(({ connected }) => connected ?? [])),
    status,
    events: events.stream,
    close: Effect.suspend(() => {
      const first = !isClosing
      isClosing = true
      return Effect.andThen(first ? Effect.forkDetach(shut) : Effect.void, Deferred.await(isShut))
    })
  }
})

/** Why, in the words of this side: what an error says to do about it is said to clients. */
const whyOf = (error: Failure): string => {
  if (error._tag === "Inconclusive") return error.detail ?? error.message
  const { reason } = error
  if (reason._tag === "Unreachable") return `the client is gone (${reason.detail ?? "the connection ended"})`
  if (reason._tag === "TimedOut") return `no message came for ${Duration.format(reason.after)}`
  return reason.message
}

const amountOf = (webSocket: object | undefined): number =>
  webSocket !== undefined && "bufferedAmount" in webSocket && typeof webSocket.bufferedAmount === "number"
    ? webSocket.bufferedAmount
    : 0

/** The program's own errors, and no defects. */
const errorOf = <E>(cause: Cause.Cause<E> | undefined): E | undefined => {
  const found = cause && Cause.findError(cause)
  return found !== undefined && Result.isSuccess(found) ? found.success : undefined
}

export const make = <In, Out, Session extends Identified, R>(
  options: ServeOptions<In, Out, Session, R>
): Effect.Effect<Server<Session>, Refused, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.acquireRelease(build(options), ({ close }) => close)

export const serve = Effect.fnUntraced(function*<In, Out, Session extends Identified, R>(
  options: ServeOptions<In, Out, Session, R>
): Effect.fn.Return<Server<Session>, Refused, Exclude<R, Scope.Scope> | Scope.Scope | SocketServer.SocketServer> {
  const { run } = yield* SocketServer.SocketServer
  const server = yield* build(options)
  yield* run(server.accept).pipe(
    Effect.updateContext((input: Context.Context<never>) => withoutSpan(input)),
    Effect.catchCause((cause) =>
      Effect.andThen(
        Effect.annotateLogs(
          Effect.logError(`the socket server failed, and nobody is let in any more: ${Cause.pretty(cause)}`),
          {
            package: "effect-lifeline",
            ...options.at
          }
        ),
        server.close
      )
    ),
    Effect.forkScoped
  )
  // Later than that, and so before it: until everybody is told, those who come are told too.
  yield* Effect.addFinalizer(() => server.close)
  return server
})
