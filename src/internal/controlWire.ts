/**
 * One connection of a control channel, whichever side of it we are on: its frames, its handshake's steps, its liveness.
 *
 * On each connection one fiber reads and one writes. Neither is ever interrupted to wait for something else: what was taken from
 * the socket is never lost half way.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import * as Classify from "../Classify.ts"
import type { Codec, Exchange, Failure } from "../ControlChannel.ts"
import type { FrameError, Framing } from "../Framing.ts"
import { type Attempted, AuthFailed, Inconclusive, Refused, Transient } from "../LifelineError.ts"
import * as Watch from "./liveness.ts"
import { deadline } from "./reconnect.ts"

export const isFailure = (error: unknown): error is Failure =>
  error instanceof Transient || error instanceof Inconclusive || error instanceof AuthFailed || error instanceof Refused

/** Which connection it is, to errors and deadlines. */
export interface Place {
  readonly at: Attempted
  /** The deadline of each step of the handshake. */
  readonly step: Duration.Duration
  readonly now: () => number
  readonly nanos: () => bigint
}

/** What both sides agree on. */
export interface Terms<in out In, in Out> extends Place {
  readonly framing: Framing
  readonly codec: Codec<In, Out>
  readonly isHeartbeat: ((message: In) => boolean) | undefined
}

export const place = ({ at, now }: Place, operation: string) => ({ ...at, operation, now: now() })

export const timedOut = (terms: Place, operation: string, after: Duration.Duration): Transient =>
  Classify.timedOut({ ...place(terms, operation), after })

/** A message as it goes over the wire. */
export const frame = <In, Out>(
  { codec, framing }: Terms<In, Out>,
  message: Out
): Result.Result<Uint8Array, FrameError> => framing.encode(codec.encode(message))

/** A message of the program's that does not fit into a frame, and will not the next time. */
export const unfit = (terms: Place, path: string, { message }: FrameError): Refused =>
  Classify.invalidRequest({ ...place(terms, "handshake"), issues: [{ path, message }] })

/** The end of the transport, where it has no more to say than its code. */
export const unreachable = (
  terms: Place,
  { reason }: Socket.SocketError,
  operation: string
): Transient => {
  const cause = "cause" in reason ? reason.cause : undefined
  return Classify.unreachable({
    ...place(terms, operation),
    detail: Classify.codeOf(cause) ?? "the connection ended",
    cause
  })
}

/** `E`: what else may end it from our side. */
export interface Wire<in out In, in out E> {
  /** What came, without heartbeats; ends, after that, with how the connection did. */
  readonly incoming: Queue.Queue<In, Failure | E>
  readonly write: (bytes: Uint8Array) => void
  /** Ends when all that was handed over so far is written. */
  readonly flushed: Effect.Effect<void>
  /** Bytes that were handed over and are not written. */
  readonly buffered: () => number
  /** Ends it for who reads. What comes afterwards is dropped. */
  readonly end: (error: Failure | E) => void
  /** Whether the transport is gone: nothing can be said any more. */
  readonly isBroken: () => boolean
  /** When a message last came, in nanoseconds. While nobody reads we do not either: then silence is ours. */
  readonly heard: () => bigint
  /** As if something had come. */
  readonly touch: () => void
  /** Reads on, for nobody, until the other side ends. To be used when nobody reads any more. */
  readonly discard: Effect.Effect<void>
}

/** Reads and writes as long as the scope is open. `ended` is told how it ended, before who reads is. */
export const make = Effect.fnUntraced(function*<In, Out, E = never>(
  terms: Terms<In, Out>,
  { ended, lost, pull, readAhead, writer }: {
    readonly pull: Socket.Reader["pull"]
    readonly writer: Socket.Writer
    /** So many messages are read ahead. */
    readonly readAhead: number
    readonly lost: (error: Socket.SocketError, operation: string) => Failure
    readonly ended?: ((cause: Cause.Cause<Failure | E>) => void) | undefined
  }
): Effect.fn.Return<Wire<In, E>, never, Scope.Scope> {
  const { codec, framing, isHeartbeat, nanos } = terms
  const incoming = yield* Queue.bounded<In, Failure | E>(readAhead)
  let isBroken = false
  const endWith = (cause: Cause.Cause<Failure | E>) => {
    ended?.(cause)
    Queue.failCauseUnsafe(incoming, cause)
  }
  const broken = (operation: string) => (error: Socket.SocketError) => {
    isBroken = true
    return lost(error, operation)
  }

  // -- reading
  const decode = framing.decoder()
  let heard = nanos()
  let isReading = true
  const unclear = (detail: string, cause?: Error) => Classify.inconclusive({ ...place(terms, "read"), detail, cause })
  const read = Effect.gen(function*() {
    for (;;) {
      for (const chunk of yield* Effect.mapError(pull, broken("read"))) {
        const { error, frames } = decode(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk)
        for (const frame of frames) {
          const decoded = codec.decode(frame)
          if (Result.isFailure(decoded)) {
            return yield* Effect.fail(unclear(`a message of ${frame.length} bytes that is none of this protocol`))
          }
          heard = nanos()
          if (isHeartbeat?.(decoded.success) === true || Queue.offerUnsafe(incoming, decoded.success)) continue
          isReading = false
          yield* Queue.offer(incoming, decoded.success)
          isReading = true
          heard = nanos()
        }
        if (error !== undefined) return yield* Effect.fail(unclear(error.message, error))
      }
    }
  })
  const reading = yield* read.pipe(
    Effect.catchCause((cause) => Effect.sync(() => endWith(cause))),
    Effect.forkScoped
  )

  // -- writing
  const outgoing = yield* Queue.unbounded<Uint8Array | Deferred.Deferred<void>>()
  let buffered = 0
  const write = Effect.flatMap(Queue.take(outgoing), (item) =>
    item instanceof Uint8Array
      ? Effect.map(writer.write(item), () => {
        buffered -= item.length
      })
      : Effect.asVoid(Deferred.succeed(item, undefined)))
  yield* Effect.forever(write).pipe(
    Effect.catch((error) => Effect.sync(() => endWith(Cause.fail(broken("send")(error))))),
    Effect.forkScoped
  )

  return {
    incoming,
    write: (bytes) => {
      buffered += bytes.length
      Queue.offerUnsafe(outgoing, bytes)
    },
    flushed: Effect.suspend(() => {
      const mark = Deferred.makeUnsafe<void>()
      Queue.offerUnsafe(outgoing, mark)
      return Deferred.await(mark)
    }),
    buffered: () => buffered,
    end: (error) => endWith(Cause.fail(error)),
    isBroken: () => isBroken,
    heard: () => isReading ? heard : nanos(),
    touch: () => {
      heard = nanos()
    },
    discard: Effect.andThen(Fiber.interrupt(reading), Effect.ignore(Effect.forever(pull)))
  }
})

/** The steps of a handshake on it. `incoming` may be ended by nothing but the connection until it is over. */
export const exchange = <In, Out>(
  terms: Terms<In, Out>,
  { flushed, incoming, write }: Pick<Wire<In, never>, "flushed" | "write"> & {
    readonly incoming: Queue.Dequeue<In, Failure>
  }
): Exchange<In, Out> => {
  const next = Queue.take(incoming)
  return {
    at: terms.at,
    send: (message) =>
      Effect.suspend((): Effect.Effect<void, Transient | Refused> => {
        const framed = frame(terms, message)
        if (Result.isFailure(framed)) return Effect.fail(unfit(terms, "message", framed.failure))
        write(framed.success)
        return inTime(terms, flushed, "handshake")
      }),
    receive: inTime(terms, next, "handshake"),
    receiveWithin: (within) =>
      Effect.timeoutOrElse(next, {
        duration: Duration.fromInputUnsafe(within),
        orElse: () => Effect.succeed(undefined)
      })
  }
}

/** At most `after`, else `Transient`. */
export const inTime = <A, E, R>(
  terms: Place,
  effect: Effect.Effect<A, E, R>,
  operation: string,
  after = terms.step
): Effect.Effect<A, E | Transient, R> => deadline(() => place(terms, operation), after)(effect)

/** Ends it when the other side has been silent for too long; and shows that ours is there. */
export const keep = Effect.fnUntraced(function*(
  terms: Place,
  wire: Pick<Wire<never, never>, "heard" | "touch" | "end">,
  { ask, deadline, every }: {
    /** @default it may be silent for ever */
    readonly deadline: Duration.Duration | undefined
    readonly ask: (() => void) | undefined
    /** How often to ask in any case. @default never */
    readonly every: Duration.Input | undefined
  }
): Effect.fn.Return<void, never, Scope.Scope> {
  wire.touch()
  if (deadline !== undefined) {
    yield* Watch.watch({ deadline, heard: wire.heard, ask }).pipe(
      Effect.andThen(Effect.sync(() => wire.end(timedOut(terms, "read", deadline)))),
      Effect.forkScoped
    )
  }
  if (ask !== undefined && every !== undefined) {
    yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.sync(ask), every)))
  }
})
