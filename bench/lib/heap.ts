// The heap of this process once nothing more can be collected. Needs --expose-gc, which `withChild` gives.
import * as Effect from "effect/Effect"

const rounds = 20

/**
 * Bytes. Collected again and again, with time between: what is finalized goes only with the collection after that, and what a
 * large part left behind may take many. Settled when three in a row find less than a thousandth to free.
 */
export const heapNow: Effect.Effect<number> = Effect.gen(function*() {
  let least = Infinity
  for (let round = 0, idle = 0; round < rounds && idle < 3; round++) {
    yield* Effect.sleep(200)
    globalThis.gc?.()
    const { heapUsed } = process.memoryUsage()
    idle = heapUsed > least * 0.999 ? idle + 1 : 0
    least = Math.min(least, heapUsed)
  }
  return least
})
