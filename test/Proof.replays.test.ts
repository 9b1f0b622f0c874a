// What a server remembers of proofs: bounded, whatever comes.
import { assert, describe, it } from "@effect/vitest"
import * as Proof from "effect-lifeline/Proof"
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { memoryUsage } from "node:process"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { hash, make } from "../src/internal/proofReplays.ts"

const seed = [1, 2] as const

const id = (index: number) =>
  `https://registry.example/api/v1/services/7/heartbeat ${index.toString(36).padStart(22, "-")}`

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

/** Of the heap alone: tables are beside it, and freed some time after. */
const heap = (): number => {
  gc()
  return memoryUsage().heapUsed
}

describe("replays", () => {
  it("a million of them are told apart, in 17 MB, and no more are taken", () => {
    const count = 1_000_000
    const before = heap()
    const replays = make(count, seed)
    const wrong: Array<number> = []
    for (let index = 0; index < count; index++) {
      if (replays.add(id(index), 120_000, index / 100) !== "added") wrong.push(index)
    }
    const after = heap()
    assert.deepStrictEqual(wrong, [])
    assert.strictEqual(replays.size(), count)
    assert.strictEqual(replays.add(id(count), 120_000, 10_000), "full")
    for (let index = 0; index < count; index++) if (!replays.seen(id(index), 60_000)) wrong.push(index)
    for (let index = count; index < 2 * count; index++) if (replays.seen(id(index), 60_000)) wrong.push(index)
    assert.deepStrictEqual(wrong, [])
    // Beside the tables there is nothing that grows.
    assert.isBelow(after - before, 10_000_000)
    assert.isAtMost(replays.bytes(), 17_000_000)
  }, 60_000)

  it("a million come and go, and no more than the two windows are held", () => {
    const replays = make(1_000_000, seed)
    const window = 120_000
    const perSecond = 400
    let most = 0
    let wrong = 0
    for (let second = 0; second < 2500; second++) {
      const now = second * 1000
      for (let index = 0; index < perSecond; index++) {
        if (replays.add(id(second * perSecond + index), now + window, now) !== "added") wrong++
      }
      most = Math.max(most, replays.size())
    }
    assert.strictEqual(wrong, 0)
    assert.isAtMost(most, 2 * perSecond * (window / 1000 + 1))
  }, 60_000)

  it.effect.prop(
    "one is never forgotten before its time",
    [Schema.Array(Schema.Struct({
      id: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 30 })),
      wait: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 90 })),
      keep: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120 }))
    }))],
    ([events]) =>
      Effect.sync(() => {
        const replays = make(1_000_000, seed)
        const known = new Map<string, number>()
        let now = 1
        for (const event of events) {
          now += event.wait
          const name = `${event.id}`
          const isKnown = (known.get(name) ?? 0) > now
          if (isKnown) {
            assert.isTrue(replays.seen(name, now))
            assert.strictEqual(replays.add(name, now + event.keep, now), "seen")
          } else if (replays.add(name, now + event.keep, now) === "added") {
            known.set(name, now + event.keep)
          }
        }
      })
  )

  it("proofs that were chosen to go to one place with one seed are spread with another", () => {
    const place = (name: string, seed: readonly [number, number]) => hash(name, seed)[1] % 1024
    const chosen = Array.from({ length: 300_000 }, (_, index) => id(index)).filter((name) => place(name, seed) === 7)
    assert.isAbove(chosen.length, 200)
    for (const other of [[3, 2], [1, 3], [0x9e3779b9, 0x7f4a7c15]] as const) {
      assert.isAbove(new Set(chosen.map((name) => place(name, other))).size, chosen.length / 2)
    }
  })

  it.effect("each store has a seed of its own, by chance", () =>
    Effect.gen(function*() {
      const crypto = yield* WebCrypto
      const drawn: Array<unknown> = []
      const counting = Object.assign(Object.create(crypto), {
        getRandomValues: (array: Uint32Array<ArrayBuffer>) => {
          drawn.push(array)
          return crypto.getRandomValues(array)
        }
      })
      yield* Effect.provideService(Proof.makeReplays(), WebCrypto, counting)
      yield* Effect.provideService(Proof.makeReplays(), WebCrypto, counting)
      assert.lengthOf(drawn, 2)
      assert.notDeepEqual(drawn[0], drawn[1])
    }))

  it.effect("what is remembered is dropped, at the latest after twice its time", () =>
    Effect.gen(function*() {
      const replays = yield* Proof.makeReplays()
      yield* TestClock.setTime(1_000_000)
      for (let index = 0; index < 1000; index++) yield* replays.add(id(index), 1_000_000 + 120_000)
      assert.strictEqual(yield* replays.size, 1000)
      yield* TestClock.adjust("4 minutes")
      yield* replays.add("one", 1_000_000 + 360_000)
      assert.strictEqual(yield* replays.size, 1)
    }))
})
