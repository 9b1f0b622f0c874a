/**
 * Connections within the process: a test has the other end of each. What is written arrives at once; how much of it is taken, when
 * a connection opens and when its end is taken is the test's.
 */
import * as Dialer from "effect-lifeline/Dialer"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Queue from "effect/Queue"

/** The other end of a connection. */
export interface Far {
  readonly to: string
  /** What was written, in Latin-1. */
  readonly received: () => string
  /** What became of it, in order, e.g. `["end", "closed"]`. */
  readonly fate: ReadonlyArray<string>
  readonly send: (...chunks: ReadonlyArray<string>) => Effect.Effect<void>
  readonly end: Effect.Effect<void>
  /** Breaks it: reads fail once what was sent is read, writes at once. */
  readonly fail: (error: unknown) => Effect.Effect<void>
  /** Closed: what is written arrives, but nothing more is taken until it is opened. */
  readonly room: Latch.Latch
}

const toBytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0))

/** `start` may fail, wait, or send something; it runs while the connection opens. */
export const make = (start: (far: Far, n: number) => Effect.Effect<void, unknown>) => {
  const all: Array<Far> = []
  const dial = Effect.fnUntraced(function*({ host, port }: Dialer.Address) {
    const incoming = yield* Queue.unbounded<Uint8Array, unknown>()
    const room = yield* Latch.make(true)
    const fate: Array<string> = []
    const unread: Array<Uint8Array> = []
    let received = ""
    let broken: Effect.Effect<never, unknown> | undefined
    const far: Far = {
      to: `${host}:${port}`,
      received: () => received,
      fate,
      send: (...chunks) => Effect.asVoid(Queue.offerAll(incoming, chunks.map(toBytes))),
      end: Effect.asVoid(Queue.fail(incoming, undefined)),
      fail: (error) =>
        Effect.suspend(() => {
          broken = Effect.fail(error)
          return Effect.andThen(Queue.fail(incoming, error), room.open)
        }),
      room
    }
    yield* Effect.addFinalizer(() => Effect.sync(() => fate.push("closed")))
    const n = all.push(far) - 1
    yield* start(far, n)
    const connection: Dialer.Connection = {
      read: Effect.suspend(() => {
        const bytes = unread.shift()
        return bytes === undefined
          ? Effect.catchCause(Queue.take(incoming), (cause) => {
            const error = Cause.squash(cause)
            return error === undefined ? Effect.succeed(undefined) : Effect.failCause(cause)
          })
          : Effect.succeed(bytes)
      }),
      unread: (bytes) => {
        if (bytes.length > 0) unread.unshift(bytes)
      },
      write: (bytes) =>
        Effect.suspend(() => {
          if (broken !== undefined) return broken
          received += String.fromCharCode(...bytes)
          return Effect.andThen(room.await, Effect.suspend(() => broken ?? Effect.void))
        }),
      end: Effect.sync(() => {
        fate.push("end")
      }),
      reset: Effect.sync(() => {
        fate.push("reset")
      })
    }
    return connection
  })
  return { all, service: Dialer.Dialer.of({ dial }) }
}
