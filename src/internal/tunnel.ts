/**
 * The engine behind `Tunnel`: a control connection of `Bore` over a `Dialer`, and a fiber for each data connection, which opens it,
 * proves that we have the secret, accepts, connects to the local service, and copies both ways until both have ended.
 *
 * All that a data connection has is in a scope of its own. It is closed in an orderly way only after both directions have ended;
 * whatever else closes it, a failure as well as the end of the tunnel, resets both sides.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import type * as Backoff from "../Backoff.ts"
import * as Bore from "../Bore.ts"
import * as Classify from "../Classify.ts"
import type { Failure as ChannelFailure } from "../ControlChannel.ts"
import type { Address, Connection } from "../Dialer.ts"
import { Dialer } from "../Dialer.ts"
import { AuthFailed, Closed, Inconclusive, Shutdown } from "../LifelineError.ts"
import type { Attempted, Transient } from "../LifelineError.ts"
import type { Event, Failure, Options, Stats, Tunnel } from "../Tunnel.ts"
import * as Protocol from "./boreProtocol.ts"
import type { Ends } from "./controlChannel.ts"
import * as EventFeed from "./eventFeed.ts"
import { deadline } from "./reconnect.ts"

/**
 * There were as many data connections as there may be.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooMany extends Data.TaggedError("TooMany")<{ readonly maxConnections: number }> {
  override get message() {
    return `a connection was not taken up: ${this.maxConnections} are open, which is the limit; raise maxConnections, ` +
      "or find out who opens them"
  }
}

/** So many bytes are counted before the metric is told of them: to look it up costs as much as to copy. */
const metered = 1 << 20
/** What looks like a refusal is one if the stream ends with it, and that within this time. */
const refusalWithin = Duration.millis(200)
/** Failures are warnings at most so often: who comes to a tunnel does not decide how much is logged. */
const warnEvery = 1000

const connections = Metric.counter("lifeline_tunnel_connections_total", {
  description: "Data connections of tunnels that are over, by outcome",
  incremental: true
})
const carried = Metric.counter("lifeline_tunnel_bytes_total", {
  description: "Bytes that tunnels carried, by direction",
  incremental: true
})
const openNow = Metric.gauge("lifeline_tunnel_open", { description: "Data connections of tunnels that are open now" })

/** How far a data connection came. `since`, in nanoseconds: when it came about. */
interface Progress {
  bytesIn: number
  bytesOut: number
  since: bigint | undefined
}

const nameOf = ({ host, port }: Address): string => `${host.includes(":") ? `[${host}]` : host}:${port}`

/** The socket of a control connection. */
const socketOf = (connection: Connection): Socket.Socket => {
  const failed = (cause: unknown) => new Socket.SocketError({ reason: new Socket.SocketReadError({ cause }) })
  const write = (chunk: Uint8Array | string | Socket.CloseEvent) =>
    Socket.isCloseEvent(chunk)
      ? Effect.void
      : Effect.mapError(
        connection.write(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk),
        (cause) => new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })
      )
  return Socket.make({
    reader: Effect.succeed({
      pull: Effect.flatMap(Effect.mapError(connection.read, failed), (bytes) =>
        bytes === undefined
          ? Effect.fail(new Socket.SocketError({ reason: new Socket.SocketCloseError({ code: 1000 }) }))
          : Effect.succeed([bytes.slice()] as const)),
      upgrade: Socket.SocketUpgradeError.unsupported
    }),
    writer: Effect.succeed({ write, writeAll: (chunks) => Effect.forEach(chunks, write, { discard: true }) })
  })
}

const lost = (at: Attempted) => (cause: unknown): Transient =>
  Classify.unreachable({ ...at, detail: Classify.codeOf(cause), cause })

/** The first message of a server; what came behind it stays to be read. */
const receive = Effect.fnUntraced(function*(
  connection: Connection,
  at: Attempted
): Effect.fn.Return<Bore.ServerMessage, Transient | Inconclusive> {
  const decode = Protocol.framing.decoder()
  const read = Effect.mapError(connection.read, lost(at))
  const unclear = (detail: string) => Effect.fail(Classify.inconclusive({ ...at, detail }))
  for (;;) {
    const bytes = yield* read
    if (bytes === undefined) return yield* Effect.fail(Classify.unreachable({ ...at, detail: "the connection ended" }))
    const end = bytes.indexOf(0) + 1
    const { error, frames: [frame] } = decode(end === 0 ? bytes : bytes.subarray(0, end))
    if (error !== undefined) return yield* unclear(error.message)
    if (frame === undefined) continue
    connection.unread(bytes.subarray(end))
    const message = Protocol.codec.decode(frame)
    return Result.isSuccess(message)
      ? message.success
      : yield* unclear(`a message of ${frame.length} bytes that is none of this protocol`)
  }
})

/** The words of a server that says no, if that is all of it. */
const refusalOf = (bytes: Uint8Array): string | undefined => {
  if (bytes.indexOf(0) !== bytes.length - 1 || bytes.length > Protocol.framing.maxBytes + 1) return undefined
  const message = Protocol.codec.decode(bytes.subarray(0, -1))
  return Result.isSuccess(message) && typeof message.success === "object" && "Error" in message.success
    ? message.success.Error
    : undefined
}

/** One end of a data connection, and how a failure of it is told. */
interface End {
  readonly connection: Connection
  readonly lost: (cause: unknown) => Transient
}

/** Copies until the end, and passes that on. `moved` is told how many bytes were taken. */
const copy = (from: End, to: End, moved: (bytes: number) => void): Effect.Effect<void, Transient> =>
  Effect.suspend(() => {
    let at = from
    return Effect.mapError(
      Effect.gen(function*() {
        for (;;) {
          at = from
          const bytes = yield* from.connection.read
          at = to
          if (bytes === undefined) return yield* to.connection.end
          yield* to.connection.write(bytes)
          moved(bytes.length)
        }
      }),
      (cause) => at.lost(cause)
    )
  })

export const make = Effect.fnUntraced(function*<E extends Ends>(
  options: Options & { readonly reconnect?: Backoff.Policy | false | undefined }
): Effect.fn.Return<Tunnel<E>, never, Dialer | Scope.Scope> {
  const { local, maxConnections = 4096, server, ...control } = options
  const { secret } = options
  const { dial } = yield* Dialer
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const now = () => clock.currentTimeMillisUnsafe()
  const within = options.stepTimeout ?? "3 seconds"
  const remote: Address = { host: server.host, port: server.port ?? Bore.port }
  const service: Address = { host: local.host ?? "localhost", port: local.port }
  const toServer: Attempted = { operation: "open a data connection", target: nameOf(remote) }
  const toService: Attempted = { operation: "connect to the local service", target: nameOf(service) }

  // -- what is told -----------------------------------------------------------------------------------------------------

  const feed = EventFeed.make<Event>()
  const { publish } = feed
  yield* Effect.addFinalizer(() => Effect.sync(feed.end))
  const stats = { open: 0, opened: 0, closed: 0, failed: 0, bytesIn: 0, bytesOut: 0 }
  const count = (metric: Metric.Metric<number, unknown>, by: number) => metric.modifyUnsafe(by, context)
  /** Counts bytes of one direction; without an argument it tells the metric of the rest. */
  const meter = (direction: "in" | "out") => {
    const metric = Metric.withAttributes(carried, { direction })
    const total = direction === "in" ? "bytesIn" : "bytesOut"
    let untold = 0
    return (bytes?: number) => {
      untold += bytes ?? 0
      stats[total] += bytes ?? 0
      if (untold < (bytes === undefined ? 1 : metered)) return
      count(metric, untold)
      untold = 0
    }
  }
  const meterIn = meter("in")
  const meterOut = meter("out")

  const log = (level: "Debug" | "Warn" | "Error", connection: number, message: string) =>
    Effect.annotateLogs(Effect.logWithLevel(level)(message), {
      package: "effect-lifeline",
      server: toServer.target,
      connection
    })
  let warnedAt = -Infinity
  let unsaid = 0
  const warn = (connection: number, message: string) => {
    if (now() - warnedAt < warnEvery) {
      unsaid++
      return log("Debug", connection, message)
    }
    const before = unsaid === 0 ? "" : `; ${unsaid} before it are in the log at debug level only`
    warnedAt = now()
    unsaid = 0
    return log("Warn", connection, message + before)
  }

  // -- one data connection ----------------------------------------------------------------------------------------------

  const inTime = <A, E2, R>(effect: Effect.Effect<A, E2, R>, at: Attempted) => deadline(() => at, within)(effect)
  /** A connection that is reset unless everything in its scope succeeds. */
  const connect = (to: Address, at: Attempted) =>
    inTime(Effect.mapError(dial(to), lost(at)), at).pipe(
      Effect.tap((connection) => Effect.addFinalizer((exit) => Exit.isSuccess(exit) ? Effect.void : connection.reset))
    )

  const accept = Effect.fnUntraced(function*(uuid: string) {
    if (Protocol.bytesOf(uuid) === undefined) {
      return yield* Effect.fail(Classify.inconclusive({ ...toServer, detail: "it is called by what is not a UUID" }))
    }
    const connection = yield* connect(remote, toServer)
    const say = (message: Bore.ClientMessage) =>
      Effect.flatMap(
        Effect.orDie(Effect.fromResult(Protocol.framing.encode(Protocol.codec.encode(message)))),
        (bytes) => inTime(Effect.mapError(connection.write(bytes), lost(toServer)), toServer)
      )
    if (secret !== undefined) {
      const first = yield* inTime(receive(connection, toServer), toServer)
      yield* say(yield* Protocol.prove(toServer, secret, first))
    }
    yield* say({ Accept: uuid })
    return connection
  })

  /** Fails with the words of a server that refuses; leaves everything else to be read. */
  const notRefused = Effect.fnUntraced(function*(connection: Connection) {
    let first = yield* connection.read
    if (first === undefined) return
    const refusal = refusalOf(first)
    if (refusal !== undefined) {
      first = first.slice()
      const next = yield* Effect.timeoutOption(connection.read, refusalWithin)
      if (Option.isSome(next)) {
        if (next.value === undefined) {
          const evidence = { ...toServer, detail: refusal }
          return yield* Effect.fail(
            secret === undefined ? Classify.inconclusive(evidence) : Classify.unauthorized(evidence)
          )
        }
        connection.unread(next.value)
      }
    }
    connection.unread(first)
  })

  const carry = Effect.fnUntraced(function*(n: number, uuid: string, progress: Progress) {
    const far = yield* accept(uuid)
    const near = yield* connect(service, toService)
    progress.since = clock.monotonicTimeNanosUnsafe()
    stats.opened++
    count(openNow, 1)
    publish({ _tag: "Opened", at: now(), connection: n })
    const remoteEnd: End = { connection: far, lost: lost({ ...toServer, operation: "carry a connection" }) }
    const localEnd: End = { connection: near, lost: lost({ ...toService, operation: "carry a connection" }) }
    const inwards = notRefused(far).pipe(
      Effect.mapError((error) =>
        error instanceof AuthFailed || error instanceof Inconclusive ? error : remoteEnd.lost(error)
      ),
      Effect.andThen(copy(remoteEnd, localEnd, (bytes) => {
        progress.bytesIn += bytes
        meterIn(bytes)
      }))
    )
    const outwards = copy(localEnd, remoteEnd, (bytes) => {
      progress.bytesOut += bytes
      meterOut(bytes)
    })
    yield* Effect.all([inwards, outwards], { concurrency: 2, discard: true })
  })

  const over = (n: number, exit: Exit.Exit<void, ChannelFailure>, { bytesIn, bytesOut, since }: Progress) => {
    stats.open--
    const found = Exit.isFailure(exit) ? Cause.findError(exit.cause) : undefined
    const isDefect = Exit.isFailure(exit) && Cause.hasDies(exit.cause)
    const failure = found !== undefined && Result.isSuccess(found)
      ? found.success
      : isDefect
      ? Classify.inconclusive({ ...toServer, detail: "a defect, see the log" })
      : undefined
    const told = isDefect ? log("Error", n, Cause.pretty(exit.cause)) : Effect.void
    if (since === undefined) {
      // Interrupted before it came about: it is nobody's failure.
      if (failure === undefined) return told
      return Effect.andThen(told, failed(n, failure))
    }
    stats.closed++
    meterIn()
    meterOut()
    count(openNow, -1)
    count(Metric.withAttributes(connections, { outcome: Exit.isSuccess(exit) ? "ok" : failure?._tag ?? "Shutdown" }), 1)
    publish({
      _tag: "Closed",
      at: now(),
      connection: n,
      bytesIn,
      bytesOut,
      took: Duration.nanos(clock.monotonicTimeNanosUnsafe() - since),
      cause: Exit.isSuccess(exit) ? undefined : failure ?? new Shutdown()
    })
    const said = failure === undefined ? "" : `: ${failure.message}`
    return failure !== undefined && failure._tag !== "Transient"
      ? Effect.andThen(told, warn(n, failure.message))
      : Effect.andThen(told, log("Debug", n, `closed after ${bytesIn} bytes in, ${bytesOut} out${said}`))
  }

  const failed = (n: number, cause: Failure) => {
    stats.failed++
    count(Metric.withAttributes(connections, { outcome: cause._tag }), 1)
    publish({ _tag: "Failed", at: now(), connection: n, cause })
    return warn(n, cause.message)
  }

  // -- the tunnel -------------------------------------------------------------------------------------------------------

  const scope = yield* Effect.scope
  const all = yield* Scope.fork(scope, "parallel")
  let told = 0
  const take = (uuid: string) => {
    const n = ++told
    if (stats.open >= maxConnections) return failed(n, new TooMany({ maxConnections }))
    stats.open++
    const progress: Progress = { bytesIn: 0, bytesOut: 0, since: undefined }
    return carry(n, uuid, progress).pipe(
      Effect.scoped,
      Effect.onExit((exit) => over(n, exit, progress)),
      Effect.exit,
      Effect.forkIn(all)
    )
  }

  const channel = (yield* Bore.make({
    ...control as typeof control & { readonly reconnect?: Backoff.Policy },
    at: { operation: "connect", target: toServer.target },
    open: Effect.map(dial(remote), socketOf)
  })) as unknown as Tunnel<E>["channel"] & { readonly messages: Stream.Stream<Bore.ServerMessage, E | Closed> }
  const ended = Deferred.makeUnsafe<never, E | Closed>()
  yield* channel.messages.pipe(
    Stream.runForEach((message) =>
      typeof message === "object" && "Connection" in message ? take(message.Connection) : Effect.void
    ),
    Effect.onExit((exit) =>
      Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
        ? Deferred.failCause(ended, exit.cause)
        : Deferred.fail(ended, new Closed({ operation: "the tunnel", reason: new Shutdown() }))
    ),
    Effect.exit,
    Effect.forkIn(scope)
  )

  return {
    channel,
    events: feed.stream,
    stats: Effect.sync((): Stats => ({ ...stats })),
    ended: Deferred.await(ended)
  }
})
