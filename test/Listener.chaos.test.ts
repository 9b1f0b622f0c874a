// The invariant of a listener, under chaos in virtual time: once things are quiet, every subscription that succeeded and was
// not given up is on the present connection, and nothing else is. LIFELINE_SEED=<seed> replays one seed, and tells what happened.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Listener from "effect-lifeline/Listener"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Server from "./support/listenerServer.ts"

const seeds = 1000
const replayed = process.env["LIFELINE_SEED"]
const settle = TestClock.adjust(0)

/** Numbers in [0, 1) that are the same for the same seed. */
const generator = (seed: number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const nothing = { breaks: 0, refusals: 0, subscribed: 0, failed: 0, cutOff: 0, left: 0, sent: 0, generations: 0 }
const counted = Object.keys(nothing) as ReadonlyArray<keyof typeof nothing>

interface Held {
  readonly key: string
  readonly subscription: Listener.Subscription<Server.Message>
  readonly scope: Scope.Closeable
  /** When it was asked for. */
  readonly since: number
}

/** A message that was received. */
interface Received {
  readonly message: string
  /** When sending it began. */
  readonly begun: number
}

const chaos = Effect.fnUntraced(function*(seed: number, tell: (line: string) => void) {
  const draw = generator(seed)
  const chance = (share: number) => draw() < share
  const seen = { ...nothing }
  let isQuiet = false
  const started = yield* Clock.currentTimeMillis
  const note = (what: string) =>
    Effect.map(Clock.currentTimeMillis, (now) => tell(`${String(now - started).padStart(6)} ${what}`))
  /** A while, in every other case none. */
  const lag = (most: number) =>
    Effect.suspend(() => isQuiet || chance(0.5) ? Effect.void : Effect.sleep(Math.ceil(draw() * most)))

  const server = Server.make()
  const refusing = new Set<Server.Connection>()
  server.accept = () =>
    Effect.andThen(
      lag(2000),
      Effect.suspend(() => {
        if (isQuiet || chance(0.7)) return Effect.void
        seen.refusals++
        return Effect.andThen(note("a dial is refused"), Effect.fail(Server.transient))
      })
    )
  // What happens at one moment has an order, too.
  let moment = 0
  const received = new Map<Server.Connection, Array<Received>>()
  const sending = new Set<Server.Connection>()
  let overlaps = 0
  server.send = (connection, message) =>
    Effect.suspend(() => {
      const begun = ++moment
      if (sending.has(connection)) overlaps++
      sending.add(connection)
      return lag(300).pipe(
        Effect.andThen(Effect.suspend(() => refusing.has(connection) ? Effect.fail(Server.reset) : Effect.void)),
        Effect.andThen(note(`connection ${connection.number}: ${message}`)),
        Effect.andThen(Effect.sync(() => {
          received.set(connection, [...received.get(connection) ?? [], { message, begun }])
        })),
        Effect.ensuring(Effect.sync(() => sending.delete(connection)))
      )
    })

  const breaking = Effect.gen(function*() {
    for (;;) {
      yield* Effect.sleep(Math.ceil(draw() * 2500))
      if (isQuiet) return
      const connection = server.connections.at(-1)
      if (connection === undefined || !connection.isOpen) continue
      seen.breaks++
      const isSilent = chance(0.5)
      yield* note(`connection ${connection.number} breaks${isSilent ? ", its sends succeed" : ""}`)
      if (!isSilent) refusing.add(connection)
      yield* lag(3000)
      connection.end(chance(0.3) ? undefined : Server.reset)
    }
  })

  const arrived = (connection: Server.Connection, message: string, since: number) =>
    received.get(connection)?.some((it) => it.message === message && it.begun > since) === true
  const arrivedAnywhere = (message: string, since: number) =>
    server.connections.some((connection) => arrived(connection, message, since))

  const listener = yield* Listener.make({
    ...Server.protocol,
    connect: server.connect,
    at: Server.at,
    policy: Backoff.make({ base: 300, cap: 2000 }),
    noProgressLimit: Infinity
  })
  const live = new Set<Held>()
  const adding = Effect.fnUntraced(function*(name: number) {
    const mine: Array<Held> = []
    for (let n = 0; n < 20; n++) {
      yield* Effect.sleep(Math.ceil(draw() * 1000))
      const given = chance(0.4) ? mine.splice(Math.floor(draw() * mine.length), 1)[0] : undefined
      if (given !== undefined) {
        yield* note(`${name} leaves ${given.key}`)
        seen.left++
        live.delete(given)
        yield* Scope.close(given.scope, Exit.void)
        if (chance(0.5)) continue
      }
      if (given === undefined && chance(0.2)) {
        const text = `message ${name}.${n}`
        const sent = yield* Effect.exit(listener.send(text))
        if (Exit.isFailure(sent)) continue
        assert.isTrue(arrivedAnywhere(text, 0), "what is said to be sent was")
        seen.sent++
        continue
      }
      const key = given?.key ?? `k${Math.floor(draw() * 8)}`
      const scope = yield* Scope.make()
      const since = ++moment
      const subscribing = listener.subscribe(key).pipe(Scope.provide(scope))
      yield* note(`${name} subscribes ${key}`)
      const result = yield* Effect.exit(
        chance(0.2) ? Effect.timeout(subscribing, Math.ceil(draw() * 500)) : subscribing
      )
      if (Exit.isSuccess(result)) {
        yield* note(`${name} is subscribed to ${key}`)
        assert.isTrue(arrivedAnywhere(`+${key}`, since), "who is told to be subscribed was")
        seen.subscribed++
        const held = { key, subscription: result.value, scope, since }
        mine.push(held)
        live.add(held)
      } else if (result.cause.toString().includes("Timeout")) seen.cutOff++
      else seen.failed++
    }
  })

  const fibers = yield* Effect.forEach([1, 2, 3, 4, 5, 6], (name) => Effect.forkChild(adding(name)))
  const breaker = yield* Effect.forkChild(breaking)
  yield* settle
  yield* TestClock.adjust("30 seconds")
  isQuiet = true
  tell("quiet")
  yield* TestClock.adjust("5 minutes")
  yield* Fiber.joinAll([...fibers, breaker])

  const wanted = [...new Set([...live].map(({ key }) => key))].toSorted()
  if (wanted.length > 0) {
    const connection = server.last()
    assert.isTrue(connection.isOpen, "a connection is open")
    assert.deepStrictEqual([...connection.keys].toSorted(), wanted, "what is subscribed on the present connection")
    for (const { key, since } of live) {
      // A server may answer each with where things stand, so one before the others' does not do.
      assert.isTrue(arrived(connection, `+${key}`, since), `${key} was subscribed since ${since}`)
    }
    const readers = yield* Effect.forEach(
      live,
      ({ key, subscription }) =>
        Effect.map(Effect.forkChild(Stream.runHead(subscription.messages)), (it) => ({ key, it }))
    )
    yield* settle
    connection.push(...wanted.map((key) => ({ key, text: "hello" })))
    yield* settle
    for (const { it, key } of readers) {
      assert.deepInclude(it.pollUnsafe(), { _tag: "Success" }, `the reader of ${key}`)
    }
  }
  assert.isAtMost(server.mostOpen(), 1, "connections at a time")
  assert.strictEqual(overlaps, 0, "messages that were sent while another one was")
  assert.strictEqual(yield* listener.size, live.size, "subscriptions left")
  yield* listener.close
  yield* Effect.forEach(live, ({ scope }) => Scope.close(scope, Exit.void))
  assert.strictEqual(server.open(), 0, "connections after the end")
  seen.generations = server.connections.length
  return seen
})

const run = (seed: number, tell: (line: string) => void) =>
  chaos(seed, tell).pipe(
    Random.withSeed(seed),
    Effect.scoped,
    Effect.catchDefect((defect) =>
      Effect.die(new Error(`LIFELINE_SEED=${seed} replays it: ${String(defect)}`, { cause: defect }))
    )
  )

describe("chaos", () => {
  if (replayed !== undefined) {
    it.effect(`seed ${replayed}`, () => {
      const lines: Array<string> = []
      return Effect.ensuring(
        run(Number(replayed), (line) => lines.push(line)),
        Effect.sync(() => process.stdout.write(`${lines.join("\n")}\n`))
      )
    })
    return
  }
  it.effect(
    `${seeds} seeds: who subscribed is on the present connection, nobody else is`,
    () =>
      Effect.gen(function*() {
        const sum = { ...nothing }
        for (let seed = 1; seed <= seeds; seed++) {
          const seen = yield* run(seed, () => {})
          for (const name of counted) sum[name] += seen[name]
        }
        // That it was chaos.
        assert.isAbove(sum.breaks, 5 * seeds)
        assert.isAbove(sum.refusals, seeds)
        assert.isAbove(sum.subscribed, 20 * seeds)
        assert.isAbove(sum.cutOff, seeds)
        assert.isAbove(sum.left, 5 * seeds)
        assert.isAbove(sum.sent, 5 * seeds)
        assert.isAbove(sum.generations, 5 * seeds)
      }),
    180_000
  )
})
