/**
 * One subscription: its queue, what came and was not read yet, within a bound, and what becomes of more. Ten thousand of them
 * may be idle, so one has neither a fiber nor, before something came, anywhere to put it.
 */
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Ended, Key } from "../Listener.ts"

/**
 * The reader of a subscription was further behind than its `Buffer` allows.
 *
 * @category errors
 * @since 0.1.0
 */
export class Lagged extends Data.TaggedError("Lagged")<{
  readonly key: Key
  /** In messages. */
  readonly capacity: number
}> {
  override get message() {
    return `the reader of ${JSON.stringify(this.key)} is behind by ${this.capacity} messages; raise its capacity`
  }
}

/** A `Buffer` with nothing left open. */
export interface Limits {
  readonly capacity: number
  readonly overflow: "fail" | "dropOldest" | "suspend"
}

/** A subscription. */
export interface Registration<In> {
  readonly key: Key
  /** The last connection that a replay put it on. */
  on: number
  readonly limits: Limits
  /** What waits to be read. Given away whole; the next message starts another one. */
  messages: Array<In> | undefined
  /** What came in all, and what of it made room for something newer. */
  received: number
  dropped: number
  /** Whether the reader was given a chance to make room since it last took something. */
  warned: boolean
  /** How it ended; told once everything was read. */
  ended: Exit.Exit<never, Ended | Lagged> | undefined
  /** Completed when there is something to read; when something was read. */
  filled: Deferred.Deferred<void> | undefined
  emptied: Deferred.Deferred<void> | undefined
}

export const make = <In>(key: Key, limits: Limits): Registration<In> => ({
  key,
  on: 0,
  limits,
  messages: undefined,
  received: 0,
  dropped: 0,
  warned: false,
  ended: undefined,
  filled: undefined,
  emptied: undefined
})

/** Who waits runs at once, and may wait again before this returns. */
const wake = <In>(self: Registration<In>, what: "filled" | "emptied"): void => {
  const deferred = self[what]
  self[what] = undefined
  if (deferred !== undefined) Deferred.doneUnsafe(deferred, Exit.void)
}

const isFull = <In>({ limits, messages }: Registration<In>): boolean =>
  messages !== undefined && messages.length >= limits.capacity

const add = <In>(self: Registration<In>, message: In): void => {
  if (self.messages === undefined) self.messages = [message]
  else self.messages.push(message)
  wake(self, "filled")
}

/** Adds a message, unless somebody has to be waited for first: then {@link insist} does. */
export const offer = <In>(self: Registration<In>, message: In): boolean => {
  if (self.ended !== undefined) return true
  if (isFull(self)) {
    if (!self.warned || self.limits.overflow !== "dropOldest") return false
    self.messages?.shift()
    self.dropped++
  }
  self.received++
  add(self, message)
  return true
}

/** Adds a message to a queue that was full: gives the reader one chance to make room, then goes by the policy. */
export const insist = <In>(self: Registration<In>, message: In, lagged: () => void): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (offer(self, message)) return Effect.void
    if (!self.warned) {
      self.warned = true
      return Effect.andThen(Effect.yieldNow, insist(self, message, lagged))
    }
    if (self.limits.overflow === "fail") {
      lagged()
      return Effect.void
    }
    self.emptied ??= Deferred.makeUnsafe()
    return Effect.andThen(Deferred.await(self.emptied), insist(self, message, lagged))
  })

/** What came, as soon as anything did; then how it ended. */
export const take = <In>(self: Registration<In>): Effect.Effect<[In, ...Array<In>], Ended | Lagged> =>
  Effect.suspend(() => {
    const { messages } = self
    if (messages !== undefined) {
      self.messages = undefined
      self.warned = false
      wake(self, "emptied")
      return Effect.succeed(messages as [In, ...Array<In>])
    }
    if (self.ended !== undefined) return self.ended
    self.filled ??= Deferred.makeUnsafe()
    return Effect.andThen(Deferred.await(self.filled), take(self))
  })

/** Only the first end counts. */
export const end = <In>(self: Registration<In>, how: Exit.Exit<never, Ended | Lagged>): void => {
  self.ended ??= how
  wake(self, "filled")
  wake(self, "emptied")
}
