/**
 * What waits to be sent on one connection, or, where it is `held` between them, on several: bounded by count and by bytes,
 * with a named policy for what does not fit. Each send is answered: it succeeds when the message was handed to the platform,
 * else it fails.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { Attempted } from "../LifelineError.ts"
import type { OutboxOptions } from "../WebSocket.ts"

/**
 * There is no room for a message in the outbox: the other side reads more slowly than the program writes. The message was
 * not sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class Overflow extends Data.TaggedError("Overflow")<
  Attempted & {
    /** What waits, in messages and in bytes. */
    readonly messages: number
    readonly bytes: number
    /** Whether this message made room for a newer one (`dropOldest`), or never got in. */
    readonly dropped: boolean
  }
> {
  override get message() {
    return `${this.operation} (${this.target}): ${this.dropped ? "made room" : "no room"}: ` +
      `${this.messages} messages, ${this.bytes} bytes not sent; raise its limits`
  }
}

interface Entry<E> {
  readonly message: string | Uint8Array
  readonly bytes: number
  readonly answer: (result: Exit.Exit<void, E | Overflow>) => void
}

export interface Outbox<E> {
  readonly send: (message: string | Uint8Array) => Effect.Effect<void, E | Overflow>
  /** Hands over what waits, as fast as the platform takes it; ends when nothing waits. */
  readonly drain: Effect.Effect<void>
  /** Takes no more messages: sends fail so. What waits still goes out. */
  readonly stop: (error: E) => void
  /** Fails what waits, and later sends. */
  readonly end: (error: E) => void
  readonly waiting: () => { readonly messages: number; readonly bytes: number }
}

/** More than this is not handed to the platform at once: there it could not be taken back. */
const handedOver = 64 * 1024

/** How often it is looked whether the platform takes more. */
const interval = "10 millis"

const encoder = new TextEncoder()

export const sizeOf = (message: string | Uint8Array): number =>
  (typeof message === "string" ? encoder.encode(message) : message).byteLength

export const make = <E>({ at, buffered, handOver, held, limits = {}, scope }: {
  readonly limits: OutboxOptions | undefined
  readonly scope: Scope.Scope
  readonly at: () => Attempted
  /** Hands one message to the platform. */
  readonly handOver: (message: string | Uint8Array) => Exit.Exit<void, E>
  /** Bytes that the platform has not sent yet. */
  readonly buffered: () => number
  /** While nothing can be handed over: what ends when that may have changed. @default it always can */
  readonly held?: (() => Effect.Effect<unknown> | undefined) | undefined
}): Outbox<E> => {
  const { maxBytes = 1024 * 1024, maxMessages = 1000, overflow: policy = "fail" } = limits
  const queue: Array<Entry<E>> = []
  let bytes = 0
  let refused: Exit.Exit<never, E> | undefined
  let draining = false

  const waiting = () => ({ messages: queue.length, bytes: bytes + buffered() })
  const overflow = (dropped: boolean) => Exit.fail(new Overflow({ ...at(), ...waiting(), dropped }))
  const take = () => {
    const entry = queue.shift()
    bytes -= entry?.bytes ?? 0
    return entry
  }
  const isFull = (size: number) => queue.length >= maxMessages || bytes + buffered() + size > maxBytes

  const stopped = Effect.sync(() => {
    draining = false
  })
  const drain: Effect.Effect<void> = Effect.suspend(() => {
    while (buffered() < handedOver) {
      const wait = queue.length > 0 ? held?.() : undefined
      if (wait !== undefined) return Effect.andThen(wait, drain)
      const entry = take()
      if (entry === undefined) {
        draining = false
        return Effect.void
      }
      entry.answer(handOver(entry.message))
    }
    return Effect.andThen(Effect.sleep(interval), drain)
  })
  const background = Effect.suspend(() => {
    if (draining) return Effect.void
    draining = true
    return Effect.forkIn(Effect.onInterrupt(drain, () => stopped), scope)
  })

  const enqueue = (message: string | Uint8Array, size: number) =>
    Effect.callback<void, E | Overflow>((answer) => {
      const entry = { message, bytes: size, answer }
      queue.push(entry)
      bytes += size
      // Whoever is interrupted takes its message back.
      return Effect.sync(() => {
        const at = queue.indexOf(entry)
        if (at < 0) return
        queue.splice(at, 1)
        bytes -= size
      })
    })

  return {
    waiting,
    drain,
    send: (message) =>
      Effect.suspend((): Effect.Effect<void, E | Overflow> => {
        if (refused !== undefined) return refused
        const size = sizeOf(message)
        if (size > maxBytes) return overflow(false)
        if (queue.length === 0 && buffered() < handedOver && held?.() === undefined) return handOver(message)
        while (isFull(size)) {
          if (policy === "suspend") break
          const oldest = policy === "fail" ? undefined : take()
          if (oldest === undefined) return overflow(false)
          oldest.answer(overflow(true))
        }
        return Effect.andThen(background, enqueue(message, size))
      }),
    stop: (error) => {
      refused ??= Exit.fail(error)
    },
    end: (error) => {
      refused = Exit.fail(error)
      for (let entry = take(); entry !== undefined; entry = take()) entry.answer(refused)
    }
  }
}
