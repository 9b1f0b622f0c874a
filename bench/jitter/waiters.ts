// The waits of others, as their own code computes them: asked for where they can be, else taken from the timers they set.
import { load } from "../lib/peers.ts"

export interface Waiter {
  readonly rule: string
  readonly peer?: string
  /** In milliseconds. */
  readonly cap: number
  /** The first `count` waits of one client. */
  readonly waits: (count: number, random: () => number) => Promise<ReadonlyArray<number>>
}

const cap = 30_000

/** Runs `use` with another source of chance, and with timers that only tell how long they would have been. */
const instrumented = async <A>(
  random: () => number,
  timer: (millis: number) => void,
  use: () => Promise<A>
): Promise<A> => {
  const [before, setTimeout] = [Math.random, globalThis.setTimeout]
  Math.random = random
  Object.assign(globalThis, {
    setTimeout: (done: () => void, millis = 0) => {
      timer(millis)
      queueMicrotask(done)
    }
  })
  try {
    return await use()
  } finally {
    Math.random = before
    globalThis.setTimeout = setTimeout
  }
}

/** A function that is retried for ever, by timers. */
const byTimers =
  (retry: (attempt: () => Promise<never>, again: () => boolean) => Promise<unknown>): Waiter["waits"] =>
  async (count, random) => {
    const waits: Array<number> = []
    const attempt = () => Promise.reject(new Error("away"))
    await instrumented(random, (millis) => waits.push(millis), () => retry(attempt, () => waits.length < count)).catch(
      () => {}
    )
    return waits
  }

interface Steps {
  readonly duration: number
  readonly next: () => Steps
}

const exponentialBackoff = (jitter: "none" | "full"): Waiter => ({
  rule: `exponential-backoff, jitter: "${jitter}", maxDelay: 30 s`,
  peer: "exponential-backoff",
  cap,
  waits: byTimers(async (attempt, retry) => {
    const { backOff } = await load<{
      readonly backOff: (attempt: () => Promise<never>, options: object) => Promise<unknown>
    }>("exponential-backoff")
    return backOff(attempt, { startingDelay: 1000, maxDelay: cap, numOfAttempts: Infinity, jitter, retry })
  })
})

const pRetry = (randomize: boolean): Waiter => ({
  rule: `p-retry, randomize: ${randomize}, maxTimeout: 30 s`,
  peer: "p-retry",
  cap,
  waits: byTimers(async (attempt, shouldRetry) => {
    const { default: retry } = await load<{
      readonly default: (attempt: () => Promise<never>, options: object) => Promise<unknown>
    }>("p-retry")
    return retry(attempt, { retries: Infinity, maxTimeout: cap, randomize, shouldRetry })
  })
})

export const waiters: ReadonlyArray<Waiter> = [
  {
    rule: "socket.io-client, its Manager's defaults",
    peer: "socket.io-client",
    cap: 5000,
    waits: async (count, random) => {
      const { Manager } = await load<{
        readonly Manager: new(url: string, options: object) => { readonly backoff: { readonly duration: () => number } }
      }>("socket.io-client")
      const { backoff } = new Manager("http://127.0.0.1", { autoConnect: false })
      return instrumented(random, () => {}, async () => Array.from({ length: count }, () => backoff.duration()))
    }
  },
  {
    rule: "cockatiel, ExponentialBackoff's defaults",
    peer: "cockatiel",
    cap,
    waits: async (count, random) => {
      const { ExponentialBackoff } = await load<{ readonly ExponentialBackoff: new() => Pick<Steps, "next"> }>(
        "cockatiel"
      )
      return instrumented(random, () => {}, async () => {
        let step = new ExponentialBackoff().next()
        return Array.from({ length: count }, () => {
          const { duration } = step
          step = step.next()
          return duration
        })
      })
    }
  },
  pRetry(true),
  pRetry(false),
  exponentialBackoff("full"),
  exponentialBackoff("none")
]
