/**
 * How soon a service is listed again after the registry lost it, with every adapter of this package: the real lifeline,
 * the real adapter and, for Pulse, the embedded registry's real handler, in one process and in virtual time.
 *
 * Each call is carried out at once and its answer takes `request` to arrive, so "one request" is a time.
 */
import { assert, describe, it } from "@effect/vitest"
import type * as Heartbeat from "effect-lifeline/Heartbeat"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as Registry from "effect-lifeline/Registry"
import * as Memory from "effect-lifeline/registry/Memory"
import * as Pulse from "effect-lifeline/registry/Pulse"
import type * as Server from "effect-lifeline/server/Server"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { origin, serve } from "./server/support.ts"

const instance = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }

const interval = 30_000
/** How long an answer is under way. All that happens falls on multiples of it. */
const request = 250

/** A registry under test: its adapter, what it lists, and the ways in which it loses what it had. */
interface Subject {
  readonly registry: Registry.Registry["Service"]
  readonly isListed: Effect.Effect<boolean>
  readonly lose: Effect.Effect<unknown, unknown, Scope.Scope>
}

const isInstance = ({ name, type }: { readonly name: string; readonly type: string }): boolean =>
  name === instance.name && type === instance.type

const memory = (lose: (memory: Memory.Memory["Service"]) => Effect.Effect<unknown>) =>
  Effect.map(Memory.make(), (memory): Subject => ({
    registry: memory.registry,
    isListed: Effect.map(memory.services, (services) => services.some(isInstance)),
    lose: lose(memory)
  }))

/** The Pulse client, and the embedded registry behind an `HttpClient` that is its handler: no socket, one clock. */
const pulse = Effect.fnUntraced(function*(how: "row" | "database", options: Server.Options) {
  let server = yield* serve(options)
  const client = HttpClient.make((request) =>
    HttpClientRequest.toWeb(request).pipe(
      Effect.orDie,
      Effect.flatMap((web) => server.send(web)),
      Effect.map((response) => HttpClientResponse.fromWeb(request, response))
    )
  )
  const registry = yield* Effect.provideService(Pulse.make({ url: origin }), HttpClient.HttpClient, client)
  const services = Effect.suspend(() => server.catalog.list())
  const subject: Subject = {
    registry,
    isListed: Effect.map(services, (services) => services.some(isInstance)),
    lose: how === "row"
      ? Effect.flatMap(services, (services) => Effect.forEach(services, ({ id }) => server.catalog.deregister(id)))
      : Effect.map(serve(options), (empty) => {
        server = empty
      })
  }
  return subject
})

interface Setting {
  readonly subject: Effect.Effect<Subject, unknown, Scope.Scope>
  /** Where in the interval the beats are: the draw of the first of them. */
  readonly draw: number
  readonly heartbeat?: Heartbeat.Options
}

/**
 * Runs a lifeline until `lostAt`, makes the registry lose it, and gives the time until it is listed again, with what was
 * sent meanwhile.
 */
const outage = Effect.fnUntraced(function*({ draw, heartbeat, subject }: Setting, lostAt: number, patience: number) {
  const { isListed, lose, registry } = yield* subject
  const sent: Array<readonly [call: string, at: number]> = []
  const busy = new Set<symbol>()
  const slow = (name: string) => <A, E>(call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.gen(function*() {
      sent.push([name, yield* Clock.currentTimeMillis])
      const token = Symbol(name)
      busy.add(token)
      const exit = yield* Effect.exit(call)
      busy.delete(token)
      yield* Effect.sleep(request)
      return yield* exit
    })
  const watched: Registry.Registry["Service"] = {
    ...registry,
    register: (instance: ServiceInstance.Input) => slow("register")(registry.register(instance)),
    heartbeat: (lease, instance) => slow("heartbeat")(registry.heartbeat(lease, instance)),
    verify: (lease, instance) => slow("verify")(registry.verify(lease, instance))
  }
  /** The answer of a web handler is a promise: the clock stands still until it is there. */
  const settled = Effect.gen(function*() {
    for (let turn = 0; turn === 0 || busy.size > 0; turn++) {
      if (turn === 10_000) return yield* Effect.die(new Error("a call that takes no time has no answer"))
      yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
    }
  })
  const step = Effect.andThen(TestClock.adjust(request), settled)

  const lifeline = yield* Lifeline.make({
    instance,
    startup: "background",
    heartbeat: { interval, ...heartbeat }
  }).pipe(
    Effect.provideService(Registry.Registry, watched),
    Effect.provideService(Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => draw })
  )
  yield* settled
  while ((yield* Clock.currentTimeMillis) < lostAt) yield* step
  assert.isTrue(yield* isListed, "listed before")
  const status = yield* SubscriptionRef.get(lifeline.status)
  assert.strictEqual(status._tag, "Online", "online before")
  sent.length = 0
  yield* lose
  assert.isFalse(yield* isListed, "not listed once lost")
  const until = lostAt + patience
  while (!(yield* isListed) && (yield* Clock.currentTimeMillis) < until) yield* step
  assert.isTrue(yield* isListed, `listed again within ${patience} ms`)
  const took = (yield* Clock.currentTimeMillis) - lostAt
  const calls = sent.map(([call, at]) => [call, at - lostAt] as const)
  // The answer to the registration, and then the beat that says that all is well.
  yield* step
  yield* step
  const after = yield* SubscriptionRef.get(lifeline.status)
  assert.strictEqual(after._tag, "Online", "online again")
  return { took, calls }
})

/** When beat `n` is sent. One comes right after registering; its answer draws the phase of beat 0. */
const beatAt = (draw: number, n: number): number => 2 * request + draw * interval + n * interval

describe("a lost lease, found by the next heartbeat: listed again within one interval and one request", () => {
  const subjects: ReadonlyArray<readonly [string, Setting["subject"]]> = [
    ["memory that forgot everything", memory(({ forgetAll }) => forgetAll)],
    ["memory whose lease ran out", memory(({ expire }) => expire(instance))],
    ["Pulse whose row is gone", pulse("row", { heartbeatUnknown: 404 })],
    ["Pulse that started anew without its data", pulse("database", {})]
  ]

  for (const [name, subject] of subjects) {
    for (const draw of [0.25, 0.5, 0.9]) {
      // Right after a beat was answered is the worst moment, right before the next the best.
      for (const since of [request, 10_000, interval - request]) {
        it.effect(`${name}: beats at ${draw} of the interval, lost ${since} ms after a beat`, () =>
          Effect.gen(function*() {
            const { calls, took } = yield* outage({ subject, draw }, beatAt(draw, 2) + since, interval + request)
            assert.strictEqual(took, interval - since + request)
            assert.deepStrictEqual(calls, [["heartbeat", interval - since], ["register", took]])
          }))
      }
    }
  }
})

describe("a lost lease whose heartbeats are still acknowledged (204), as the reference server does", () => {
  const subjects: ReadonlyArray<readonly [string, Setting["subject"]]> = [
    ["whose row is gone", pulse("row", { heartbeatUnknown: 204 })],
    ["that started anew without its data", pulse("database", { heartbeatUnknown: 204 })]
  ]

  for (const [name, subject] of subjects) {
    for (const since of [2 * request, 10_000, interval - request]) {
      it.effect(`${name}, verifying after every beat: within one interval and two requests; lost ${since} ms after a beat`, () =>
        Effect.gen(function*() {
          const setting = { subject, draw: 0.5, heartbeat: { verifyEvery: 1 } }
          const { calls, took } = yield* outage(setting, beatAt(0.5, 2) + since, interval + 2 * request)
          assert.strictEqual(took, interval - since + 2 * request)
          assert.deepStrictEqual(calls, [
            ["heartbeat", interval - since],
            ["verify", interval - since + request],
            ["register", took]
          ])
        }))
    }

    // With a draw of 0.5 the first verification follows the fifth beat, which is number 3 here; the next one the tenth after
    // that.
    for (const [n, beats] of [[3, 10], [4, 9], [7, 6], [12, 1]] as const) {
      it.effect(`${name}, by default: within ten beats; lost after beat ${n}, found ${beats} beats later`, () =>
        Effect.gen(function*() {
          const since = 2 * request
          const bound = 10 * interval + 2 * request
          const { calls, took } = yield* outage({ subject, draw: 0.5 }, beatAt(0.5, n) + since, bound)
          assert.strictEqual(took, beats * interval - since + 2 * request)
          assert.deepStrictEqual(calls.map(([call]) => call), [
            ...Array.from({ length: beats }, () => "heartbeat"),
            "verify",
            "register"
          ])
        }))
    }
  }
})
