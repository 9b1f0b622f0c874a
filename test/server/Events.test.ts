import { assert, describe, it } from "@effect/vitest"
import * as Events from "effect-lifeline/server/Events"
import * as Sse from "effect-lifeline/server/internal/sse"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

const make = (options?: Events.Options) => Effect.provide(Events.make(options), SecureRandom.layerWebCrypto)

const short = (message: Events.Message): string =>
  message._tag === "Event" ? message.event.type : message._tag === "Gap" ? "gap" : message._tag.toLowerCase()

const publishAll = (events: Events.Events["Service"], types: ReadonlyArray<string>) =>
  Effect.forEach(types, (type) => events.publish({ type }), { discard: true })

/** The next messages of a subscription that stays open. */
const take = (events: Events.Events["Service"], count: number, options?: Events.SubscribeOptions) =>
  events.subscribe(options).pipe(Stream.take(count), Stream.runCollect)

describe("Events", () => {
  it.effect("gives what happens from now on, with the time", () =>
    Effect.gen(function*() {
      const events = yield* make()
      yield* events.publish({ type: "before" })
      const opened = yield* Deferred.make<void>()
      const fiber = yield* events.subscribe().pipe(
        Stream.tap((message) => message._tag === "Opened" ? Deferred.succeed(opened, undefined) : Effect.void),
        Stream.take(3),
        Stream.runCollect,
        Effect.forkChild
      )
      yield* Deferred.await(opened)
      yield* TestClock.adjust("1 second")
      yield* events.publish({ type: "one", serviceId: "s", data: { a: 1 } })
      yield* events.publish({ type: "two" })
      const messages = yield* Fiber.join(fiber)
      assert.deepStrictEqual(messages.map(short), ["opened", "one", "two"])
      assert.deepStrictEqual(messages[1]?._tag === "Event" ? messages[1].event : undefined, {
        type: "one",
        timestamp: "1970-01-01T00:00:01.000Z",
        service_id: "s",
        data: { a: 1 }
      })
    }))

  it.effect("numbers events one after the other, within one boot", () =>
    Effect.gen(function*() {
      const events = yield* make()
      const other = yield* make()
      const start = yield* events.position
      yield* publishAll(events, ["a", "b"])
      const ids = (yield* take(events, 3, { after: start })).map((message) => "id" in message ? message.id : "")
      const boot = start.slice(0, -2)
      assert.deepStrictEqual(ids, [`${boot}-0`, `${boot}-1`, `${boot}-2`])
      assert.notStrictEqual(yield* other.position, start)
    }))

  it.effect("resumes after any id of the history, without loss and without repetition", () =>
    Effect.gen(function*() {
      const events = yield* make()
      const boot = (yield* events.position).slice(0, -1)
      yield* publishAll(events, ["1", "2", "3", "4"])
      for (const [seen, expected] of [[0, "1234"], [1, "234"], [3, "4"]] as const) {
        const messages = yield* take(events, expected.length + 1, { after: `${boot}${seen}` })
        assert.deepStrictEqual(messages.slice(1).map(short).join(""), expected)
      }
    }))

  it.effect("keeps its place when the client has seen everything", () =>
    Effect.gen(function*() {
      const events = yield* make()
      yield* publishAll(events, ["1", "2"])
      const opened = yield* take(events, 1, { after: yield* events.position })
      assert.deepStrictEqual(opened.map((message) => "id" in message ? message.id : ""), [yield* events.position])
    }))

  it.effect("says so once when the history no longer reaches back, and goes on with what is left", () =>
    Effect.gen(function*() {
      const events = yield* make({ history: 3 })
      const start = yield* events.position
      const boot = start.slice(0, -1)
      yield* publishAll(events, ["1", "2", "3", "4", "5"])
      const messages = yield* take(events, 5, { after: start })
      assert.deepStrictEqual(messages.map(short), ["opened", "gap", "3", "4", "5"])
      const gap = messages[1]
      assert.deepStrictEqual(gap?._tag === "Gap" ? [gap.id, gap.event] : undefined, [`${boot}2`, {
        type: "gap",
        timestamp: "1970-01-01T00:00:00.000Z",
        data: { after: start, next: `${boot}3` }
      }])
      // Resuming from the gap itself misses nothing more.
      const again = yield* take(events, 4, { after: `${boot}2` })
      assert.deepStrictEqual(again.map(short), ["opened", "3", "4", "5"])
    }))

  it.effect.each(["00000000-7", "nonsense", "-", "%boot-99", "%boot-1.5", "%boot--1", "%boot-", "%boot-0x1"])(
    "takes %s for an id of an earlier boot: a gap, then all that there is",
    (text) =>
      Effect.gen(function*() {
        const events = yield* make()
        const boot = (yield* events.position).slice(0, -2)
        yield* publishAll(events, ["1", "2"])
        const messages = yield* take(events, 4, { after: String(text).replace("%boot", boot) })
        assert.deepStrictEqual(messages.map(short), ["opened", "gap", "1", "2"])
        // A connection that ends before the gap leaves the client where it was, so that it is told of the gap again.
        assert.deepStrictEqual(messages[0], { _tag: "Opened", id: undefined })
      })
  )

  it.effect("as server-sent events: the id comes with what opens the stream, or with the gap", () =>
    Effect.gen(function*() {
      const events = yield* make()
      const start = yield* events.position
      const first = (after?: string) =>
        Sse.encode(events.subscribe({ after })).pipe(Stream.take(1), Stream.decodeText, Stream.mkString)
      assert.strictEqual(yield* first(), `: open\nid: ${start}\n\n`)
      assert.strictEqual(yield* first("00000000-7"), ": open\n\n")
    }))

  it.effect("takes an empty id for none", () =>
    Effect.gen(function*() {
      const events = yield* make()
      yield* publishAll(events, ["1"])
      const opened = yield* take(events, 1, { after: "" })
      assert.deepStrictEqual(opened.map((message) => "id" in message ? message.id : ""), [yield* events.position])
    }))

  it.effect("tells a gap to a subscriber that is too slow, and keeps nothing for it", () =>
    Effect.gen(function*() {
      const events = yield* make({ history: 2 })
      const gate = yield* Deferred.make<void>()
      const opened = yield* Deferred.make<void>()
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      const fiber = yield* events.subscribe().pipe(
        Stream.runForEach((message) =>
          Ref.update(seen, (all) => [...all, short(message)]).pipe(
            Effect.andThen(Deferred.succeed(opened, undefined)),
            Effect.andThen(Deferred.await(gate))
          )
        ),
        Effect.forkChild
      )
      yield* Deferred.await(opened)
      yield* publishAll(events, Array.from({ length: 100 }, (_, n) => String(n)))
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* Ref.get(seen), ["opened", "gap", "98", "99"])
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("says that nothing happens, as often as asked", () =>
    Effect.gen(function*() {
      const events = yield* make()
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      yield* events.subscribe({ idleAfter: "15 seconds" }).pipe(
        Stream.runForEach((message) => Ref.update(seen, (all) => [...all, short(message)])),
        Effect.forkScoped
      )
      yield* TestClock.adjust("14 seconds")
      assert.deepStrictEqual(yield* Ref.get(seen), ["opened"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Ref.get(seen), ["opened", "idle"])
      yield* TestClock.adjust("10 seconds")
      yield* events.publish({ type: "x" })
      yield* TestClock.adjust("14 seconds")
      assert.deepStrictEqual(yield* Ref.get(seen), ["opened", "idle", "x"])
      yield* TestClock.adjust("16 seconds")
      assert.deepStrictEqual(yield* Ref.get(seen), ["opened", "idle", "x", "idle", "idle"])
    }))

  it.effect("gives back what a subscriber held, however it ended", () =>
    Effect.gen(function*() {
      const events = yield* make()
      yield* take(events, 1)
      assert.strictEqual(yield* events.subscribers, 0)
      const fibers = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () => Effect.forkChild(Stream.runDrain(events.subscribe({ idleAfter: "1 second" })))
      )
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* events.subscribers, 10)
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual(yield* events.subscribers, 0)
    }))

  it.effect("ends all subscriptions when its scope closes, and takes no more", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const events = yield* Scope.provide(make(), scope)
      const fiber = yield* Effect.forkChild(Stream.runCollect(events.subscribe()))
      yield* TestClock.adjust(0)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual((yield* Fiber.join(fiber)).map(short), ["opened"])
      yield* events.publish({ type: "late" })
      assert.deepStrictEqual((yield* Stream.runCollect(events.subscribe())).map(short), ["opened"])
      assert.strictEqual(yield* events.subscribers, 0)
    }))

  it.effect.prop(
    "gives a contiguous end of what happened, and a gap exactly when something before it is missing",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 })),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 25 })),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 25 }))
    ],
    ([history, published, position]) =>
      Effect.gen(function*() {
        const events = yield* make({ history })
        const boot = (yield* events.position).slice(0, -1)
        yield* publishAll(events, Array.from({ length: published }, (_, n) => String(n + 1)))
        const seen = Math.min(position, published)
        const missing = Math.max(0, published - history - seen)
        const left = published - seen - missing
        const messages = yield* take(events, 1 + Math.min(1, missing) + left, { after: `${boot}${seen}` })
        assert.deepStrictEqual(messages.map(short), [
          "opened",
          ...(missing > 0 ? ["gap"] : []),
          ...Array.from({ length: left }, (_, n) => String(published - left + n + 1))
        ])
      })
  )
})
