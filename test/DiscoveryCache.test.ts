import { assert, describe, it } from "@effect/vitest"
import type * as Directory from "effect-lifeline/Directory"
import * as Discovery from "effect-lifeline/Discovery"
import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import * as Errors from "effect-lifeline/LifelineError"
import * as Memory from "effect-lifeline/registry/Memory"
import type { RegisteredService } from "effect-lifeline/ServiceInstance"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import * as Directories from "./support/scriptedDirectory.ts"

const { service, unauthorized, unavailable } = Directories

const a = service("a")
const b = service("b", { type: "store", capabilities: ["fast"] })

/** Everything that is ready to run runs. */
const soon = TestClock.adjust(0)

const idsOf = (services: ReadonlyArray<RegisteredService>) => services.map(({ id }) => id)

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

type Script = ReturnType<typeof Directories.make>

/** A cache over a script, that has `a` and `b`, read and fresh. */
const running = <A, E>(
  use: (cache: DiscoveryCache.Service, script: Script) => Effect.Effect<A, E, Scope.Scope>,
  options: Parameters<typeof Directories.make>[0] & DiscoveryCache.Options = {}
) =>
  Effect.gen(function*() {
    const script = Directories.make(options)
    script.state.services = [a, b]
    const cache = yield* Effect.provide(DiscoveryCache.make(options), script.layer)
    yield* soon
    return yield* use(cache, script)
  }).pipe(Effect.scoped)

const statusOf = (cache: DiscoveryCache.Service) => SubscriptionRef.get(cache.status)

const freshnessOf = (cache: DiscoveryCache.Service) => Effect.map(statusOf(cache), ({ freshness }) => freshness._tag)

describe("DiscoveryCache, answers", () => {
  it.effect("come from memory: one connection and one read, however many calls", () =>
    running((cache, { state }) =>
      Effect.gen(function*() {
        for (let n = 0; n < 100; n++) {
          assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a"])
          assert.deepStrictEqual(idsOf(yield* cache.byType("worker")), ["a"])
          assert.deepStrictEqual(idsOf(yield* cache.byCapability("fast")), ["b"])
          assert.deepStrictEqual(idsOf(yield* cache.byName("b")), ["b"])
          assert.deepStrictEqual(yield* cache.peers, { a: "http://a:1", b: "http://b:1" })
          assert.strictEqual((yield* cache.pick({ type: "worker" })).id, "a")
          assert.strictEqual((yield* Effect.flip(cache.peer("c"))).reason._tag, "UnknownPeer")
        }
        const { freshness, services } = yield* cache.snapshot({ type: "store" })
        assert.deepStrictEqual(idsOf(services), ["b"])
        assert.strictEqual(freshness._tag, "Fresh")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(state.reads, [{}])
        assert.strictEqual(state.dials.length, 1)
      })
    ))

  it.effect("are those of both services that the layer provides", () =>
    Effect.gen(function*() {
      const memory = yield* Memory.Memory
      const discovery = yield* Discovery.Discovery
      const cache = yield* DiscoveryCache.DiscoveryCache
      yield* memory.registry.register({ name: "haul", type: "t", apiUrl: "http://haul:1", apiKey: Redacted.make("k") })
      yield* soon
      assert.strictEqual((yield* discovery.peer("haul")).url, "http://haul:1")
      assert.strictEqual((yield* cache.all).length, 1)
      yield* memory.failAs("Unreachable")
      assert.strictEqual((yield* discovery.all).length, 1)
    }).pipe(Effect.provide(DiscoveryCache.layer().pipe(Layer.provideMerge(Memory.layer())))))

  it.effect("wait for the first read, and for nothing else", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const script = Directories.make()
      script.state.answers.push({ when: gate, then: [a] })
      const cache = yield* Effect.provide(DiscoveryCache.make(), script.layer)
      const early = yield* Effect.forkChild(cache.all, { startImmediately: true })
      yield* soon
      assert.strictEqual(early.pollUnsafe(), undefined)
      assert.deepStrictEqual(yield* statusOf(cache), {
        freshness: { _tag: "Stale", since: 0, cause: undefined },
        updates: { _tag: "Open", since: 0 },
        readAt: undefined
      })
      yield* Deferred.succeed(gate, undefined)
      assert.deepStrictEqual(idsOf(yield* Fiber.join(early)), ["a"])
    }).pipe(Effect.scoped))

  it.effect("a first read that fails fails who waits for it, and is tried again", () =>
    Effect.gen(function*() {
      const script = Directories.make()
      script.state.answers.push(unavailable(), unavailable())
      const cache = yield* Effect.provide(DiscoveryCache.make(), script.layer)
      const watching = yield* Effect.forkChild(Stream.runHead(cache.watch()), { startImmediately: true })
      assert.strictEqual((yield* Effect.flip(cache.all)).reason._tag, "Unavailable")
      // Nor does a later caller hang while the next attempt is waited for.
      assert.strictEqual((yield* Effect.flip(cache.all)).reason._tag, "Unavailable")
      assert.strictEqual((yield* Effect.flip(cache.peer("a"))).message.includes("gave no answer"), true)
      assert.deepStrictEqual(yield* cache.peers, {})
      const { freshness } = yield* statusOf(cache)
      assert.strictEqual(freshness._tag === "Stale" ? freshness.cause?._tag : "", "Transient")
      assert.strictEqual(script.state.reads.length, 1)
      script.state.services = [a]
      yield* TestClock.adjust("1 second")
      assert.strictEqual(script.state.reads.length, 2)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(idsOf(yield* cache.all), ["a"])
      assert.strictEqual(yield* freshnessOf(cache), "Fresh")
      // Who watches was not told of the failures, but waited.
      assert.strictEqual((yield* Fiber.join(watching))._tag, "Some")
    }).pipe(Effect.scoped, quietly))

  it.effect("where the connection fails or takes its time, reads do without it", () =>
    Effect.gen(function*() {
      for (const refusal of [unavailable("changes"), "hang" as const]) {
        const script = Directories.make()
        script.state.services = [a]
        script.state.refusals.push(refusal, unavailable("changes"), unavailable("changes"))
        const cache = yield* Effect.provide(DiscoveryCache.make(), script.layer)
        const found = yield* Effect.forkChild(cache.all, { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(idsOf(yield* Fiber.join(found)), ["a"])
        assert.strictEqual(yield* freshnessOf(cache), "Stale")
        yield* TestClock.adjust("40 seconds")
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        assert.strictEqual(script.state.reads.length, 2)
      }
    }).pipe(Effect.scoped, quietly))
})

describe("DiscoveryCache, changes", () => {
  const c = service("c")

  const kinds: ReadonlyArray<
    readonly [
      name: string,
      change: Directory.Change,
      found: ReadonlyArray<RegisteredService>,
      reads: ReadonlyArray<Directory.Query>
    ]
  > = [
    ["a registration that carries the service", { _tag: "Registered", id: "c", service: c }, [b, a, c], []],
    ["a registration that is an update", { _tag: "Registered", id: "a", service: { ...a, version: "2" } }, [
      b,
      { ...a, version: "2" }
    ], []],
    [
      "a registration with a name and type is looked up by them",
      { _tag: "Registered", id: "c", query: { name: "c", type: "worker" } },
      [b, a, c],
      [{ name: "c", type: "worker" }]
    ],
    ["a registration with an id only is looked up among all", { _tag: "Registered", id: "c" }, [b, a, c], [{}]],
    ["a deregistration", { _tag: "Deregistered", id: "a" }, [b], []],
    ["a deregistration of nobody", { _tag: "Deregistered", id: "z" }, [b, a], []],
    ["a status", { _tag: "StatusChanged", id: "a", status: "offline" }, [b, { ...a, status: "offline" }], []],
    ["a status of an unknown service", { _tag: "StatusChanged", id: "c", status: "online" }, [b, a, c], [{}]],
    [
      "an unknown event of a known service",
      { _tag: "Other", type: "renamed", id: "a" },
      [b, a],
      [{ name: "a", type: "worker" }]
    ],
    ["an unknown event of an unknown service", { _tag: "Other", type: "renamed", id: "z" }, [b, a], []],
    ["an unknown event of no service", { _tag: "Other", type: "config_updated" }, [b, a], []]
  ]

  for (const [name, change, found, reads] of kinds) {
    it.effect(name, () =>
      running((cache, { state, tell }) =>
        Effect.gen(function*() {
          if (reads.length > 0) state.services = found
          state.reads.length = 0
          yield* tell(change)
          yield* soon
          assert.deepStrictEqual(yield* cache.all, found)
          assert.deepStrictEqual(state.reads, reads)
          assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        })
      ))
  }

  it.effect("of many services at once are one read of all", () =>
    running((cache, { state, tell }) =>
      Effect.gen(function*() {
        state.services = Array.from({ length: 50 }, (_, n) => service(`s${n}`))
        state.reads.length = 0
        yield* tell(...state.services.map(({ id, name, type }): Directory.Change => ({
          _tag: "Registered",
          id,
          query: { name, type }
        })))
        yield* soon
        assert.strictEqual((yield* cache.all).length, 50)
        assert.deepStrictEqual(state.reads, [{}])
      })
    ))

  it.effect("that never stop cost at most three reads at once, and one each second", () =>
    running((_, { state, tell }) =>
      Effect.gen(function*() {
        state.reads.length = 0
        for (let n = 0; n < 1000; n++) {
          yield* tell({ _tag: "Registered", id: `${n}`, query: { name: `${n}` } })
          yield* TestClock.adjust("10 millis")
        }
        assert.isAtMost(state.reads.length, 13)
        assert.isAtLeast(state.reads.length, 10)
      })
    ))

  it.effect("a read of one service that fails is made again", () =>
    running((cache, { state, tell }) =>
      Effect.gen(function*() {
        state.services = [a, b, c]
        state.answers.push(unavailable())
        state.reads.length = 0
        yield* tell({ _tag: "Registered", id: "c", query: { name: "c", type: "worker" } })
        yield* soon
        assert.strictEqual(yield* freshnessOf(cache), "Stale")
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a", "c"])
        assert.deepStrictEqual(state.reads, Array.from({ length: 2 }, () => ({ name: "c", type: "worker" })))
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
      })
    ))

  it.effect("who came and went at once is not asked for", () =>
    running((_, { state, tell }) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        state.reads.length = 0
        yield* tell(
          { _tag: "Registered", id: "c", query: { name: "c", type: "worker" } },
          { _tag: "Deregistered", id: "c" }
        )
        yield* soon
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(state.reads, [])
      })
    ))

  it.effect("a service that is not where it was is looked for among all", () =>
    running((cache, { state, tell }) =>
      Effect.gen(function*() {
        const renamed = { ...a, name: "z" }
        state.services = [renamed, b]
        state.reads.length = 0
        const seen: Array<number> = []
        yield* Effect.forkScoped(
          Stream.runForEach(cache.watch(), ({ services }) => Effect.sync(() => void seen.push(services.length))),
          { startImmediately: true }
        )
        yield* tell({ _tag: "Other", type: "renamed", id: "a" })
        yield* soon
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* cache.all, [b, renamed])
        // It was not away meanwhile.
        assert.deepStrictEqual(seen, [2, 2])
        assert.deepStrictEqual(state.reads, [{ name: "a", type: "worker" }, {}])
      })
    ))
})

describe("DiscoveryCache, what is told while a read is under way", () => {
  /** A full read is under way, which began before the change and answers as it was then, or later. */
  const during = (
    change: Directory.Change,
    answer: ReadonlyArray<RegisteredService>,
    now: ReadonlyArray<RegisteredService>
  ) =>
    running((cache, { say, state, tell }) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        state.answers.push({ when: gate, then: answer })
        state.reads.length = 0
        yield* say({ notice: "Gap" })
        yield* soon
        assert.strictEqual(state.reads.length, 1)
        yield* tell(change)
        yield* soon
        const meanwhile = yield* cache.all
        state.services = now
        yield* Deferred.succeed(gate, undefined)
        const states: Array<ReadonlyArray<RegisteredService>> = [meanwhile]
        yield* Effect.forkChild(
          Stream.runForEach(cache.watch(), ({ services }) => Effect.sync(() => void states.push(services))),
          { startImmediately: true }
        )
        yield* soon
        yield* TestClock.adjust("2 seconds")
        states.push(yield* cache.all)
        return { states, reads: state.reads.length }
      })
    )

  const down = { ...a, status: "offline" as const }
  const old = { ...a, version: "1" }
  const recent = { ...a, version: "2" }

  it.effect("is not lost: a deregistration, a status, a registration that the read did not see", () =>
    Effect.gen(function*() {
      const gone = yield* during({ _tag: "Deregistered", id: "a" }, [a, b], [b])
      assert.deepStrictEqual([...new Set(gone.states.map((services) => idsOf(services).join()))], ["b"])
      assert.strictEqual(gone.reads, 2)
      const offline = yield* during({ _tag: "StatusChanged", id: "a", status: "offline" }, [a, b], [down, b])
      assert.strictEqual(offline.states.every((services) => services[1]?.status === "offline"), true)
      const came = yield* during({ _tag: "Registered", id: "c", service: service("c") }, [a, b], [a, b, service("c")])
      assert.strictEqual(came.states.every((services) => services.length === 3), true)
    }))

  it.effect("does not overwrite what the read knows better", () =>
    Effect.gen(function*() {
      const updated = yield* during({ _tag: "Registered", id: "a", service: old }, [recent, b], [recent, b])
      assert.deepStrictEqual(updated.states.at(-1), [b, recent])
      const back = yield* during({ _tag: "Deregistered", id: "a" }, [recent, b], [recent, b])
      assert.deepStrictEqual(back.states.at(-1), [b, recent])
      assert.strictEqual(back.reads, 2)
    }))

  it.effect("costs no second read where both say the same", () =>
    Effect.gen(function*() {
      const { reads, states } = yield* during({ _tag: "Deregistered", id: "a" }, [b], [b])
      assert.deepStrictEqual(states.at(-1), [b])
      assert.strictEqual(reads, 1)
    }))

  it.effect("a connection that opens during a read needs another one", () =>
    running((cache, { drop, state }) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        state.answers.push({ when: gate, then: [a] })
        yield* cache.refresh
        yield* soon
        yield* drop()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(state.dials.length, 2)
        state.services = [b]
        yield* Deferred.succeed(gate, undefined)
        yield* soon
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* cache.all, [b])
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
      })
    ))
})

describe("DiscoveryCache, fresh and stale", () => {
  it.effect("a lost connection makes it stale; it answers on, connects again, and reads in full", () =>
    running((cache, { drop, state }) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        state.reads.length = 0
        state.refusals.push(unavailable("changes"))
        yield* drop(unavailable("changes"))
        yield* soon
        state.services = [service("c")]
        const lost = yield* statusOf(cache)
        assert.deepStrictEqual(
          lost.freshness._tag === "Stale" ? [lost.freshness.since, lost.freshness.cause?._tag] : [],
          [
            60_000,
            "Transient"
          ]
        )
        assert.strictEqual(lost.updates._tag, "Waiting")
        assert.strictEqual((yield* cache.snapshot()).freshness._tag, "Stale")
        assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a"])
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(state.dials.length, 3)
        assert.deepStrictEqual(state.reads, [{}])
        assert.deepStrictEqual(idsOf(yield* cache.all), ["c"])
        const back = yield* statusOf(cache)
        assert.strictEqual(back.freshness._tag, "Fresh")
        assert.isAbove(back.freshness.since, 60_000)
        assert.strictEqual(back.readAt, back.freshness.since)
      })
    ))

  it.effect("it resumes after the last change, and reads in full all the same", () =>
    running((_, { drop, say, state }) =>
      Effect.gen(function*() {
        yield* say({ value: { _tag: "StatusChanged", id: "a", status: "offline" }, cursor: "7" })
        yield* soon
        yield* drop()
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(state.dials, [undefined, "7"])
        assert.strictEqual(state.reads.length, 2)
      }), { watch: "resumable" }))

  it.effect("a gap: stale until everything was read anew", () =>
    running((cache, { say, state }) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        state.answers.push({ when: gate, then: [b] })
        state.reads.length = 0
        yield* say({ notice: "Gap" })
        yield* soon
        assert.strictEqual(yield* freshnessOf(cache), "Stale")
        assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a"])
        yield* Deferred.succeed(gate, undefined)
        yield* soon
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        assert.deepStrictEqual(idsOf(yield* cache.all), ["b"])
        assert.deepStrictEqual(state.reads, [{}])
      })
    ))

  it.effect("a full read that fails is tried again by the policy, and by each new connection", () =>
    running((cache, { drop, say, state }) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        state.reads.length = 0
        state.answers.push(...Array.from({ length: 100 }, () => unavailable()))
        yield* say({ notice: "Gap" })
        yield* soon
        yield* TestClock.adjust("60 seconds")
        // Windows of 1, 2, 4, 8, 16 and 30 s.
        assert.isAtMost(state.reads.length, 7)
        assert.isAtLeast(state.reads.length, 6)
        const { freshness } = yield* statusOf(cache)
        assert.strictEqual(freshness._tag === "Stale" ? freshness.cause?._tag : "", "Transient")
        assert.strictEqual(freshness.since, 60_000)
        const tried = state.reads.length
        yield* drop()
        yield* TestClock.adjust("1 second")
        assert.strictEqual(state.reads.length, tried + 1)
        state.answers.length = 0
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
      })
    ))

  it.effect("a proxy's page in the place of an answer, a defect, and an answer that does not come are failures for now", () =>
    running((cache, { drop, state }) =>
      Effect.gen(function*() {
        const never = yield* Deferred.make<void>()
        for (const answer of [Directories.malformed(), { defect: new Error("canary") }, { when: never, then: [] }]) {
          yield* TestClock.adjust("1 minute")
          state.answers.push(...("when" in answer ? [answer] : [answer, answer, answer]))
          const reads = state.reads.length
          yield* drop()
          yield* soon
          yield* TestClock.adjust("1 second")
          assert.isAbove(state.reads.length, reads)
          assert.strictEqual(yield* freshnessOf(cache), "Stale")
          assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a"])
          yield* TestClock.adjust("62 seconds")
          assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        }
      })
    ))

  it.effect("a refresh skips every wait", () =>
    running((cache, { drop, state }) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        state.refusals.push(...Array.from({ length: 6 }, () => unavailable("changes")))
        yield* drop()
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual(yield* freshnessOf(cache), "Stale")
        const dials = state.dials.length
        state.refusals.length = 0
        yield* cache.refresh
        yield* soon
        assert.strictEqual(state.dials.length, dials + 1)
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        state.reads.length = 0
        yield* cache.refresh
        // Nothing is known to be missing.
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(state.reads.length, 1)
      })
    ))

  it.effect("the log has a line for what fails, at every fifth failure, and for what recovered", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      yield* running((_, { say, state }) =>
        Effect.gen(function*() {
          yield* TestClock.adjust("1 minute")
          state.answers.push(...Array.from({ length: 6 }, () => unavailable()))
          yield* say({ notice: "Gap" })
          yield* soon
          yield* TestClock.adjust("5 minutes")
        })
      ).pipe(
        Effect.provideService(References.MinimumLogLevel, "Info"),
        Effect.provide(Logger.layer([logger]))
      )
      const failed = "discover (http://registry.test) failed for now: answered 503; failure"
      assert.deepStrictEqual(lines.map((line) => line.replace(/in [\d.a-z ]+$/, "in ...")), [
        `Warn ${failed} 1 in a row, next attempt in ...`,
        `Warn ${failed} 5 in a row, next attempt in ...`,
        "Info discover recovered after 6 failures"
      ])
    }))
})

describe("DiscoveryCache, the end", () => {
  it.effect("a refused credential reaches every caller and watcher, typed, and nothing more is sent", () =>
    Effect.gen(function*() {
      for (const how of ["connection", "read"] as const) {
        yield* running((cache, { drop, say, state }) =>
          Effect.gen(function*() {
            const watching = yield* Effect.forkChild(Effect.flip(Stream.runDrain(cache.watch())), {
              startImmediately: true
            })
            if (how === "connection") yield* drop(unauthorized("changes"))
            else {
              state.answers.push(unauthorized())
              yield* say({ notice: "Gap" })
            }
            yield* soon
            for (const call of [cache.all, cache.pick({}), cache.peer("a"), cache.peers, cache.snapshot()]) {
              assert.strictEqual(
                (yield* Effect.flip<unknown, Errors.AuthFailed | object, never>(call) as Effect.Effect<
                  Errors.AuthFailed
                >)._tag,
                "AuthFailed"
              )
            }
            assert.strictEqual((yield* Fiber.join(watching))._tag, "AuthFailed")
            assert.strictEqual((yield* Effect.flip(Stream.runDrain(cache.watch())))._tag, "AuthFailed")
            const status = yield* statusOf(cache)
            assert.strictEqual(status.updates._tag, "Halted")
            assert.strictEqual(status.freshness._tag === "Stale" ? status.freshness.cause?._tag : "", "AuthFailed")
            const [dials, reads] = [state.dials.length, state.reads.length]
            yield* TestClock.adjust("1 day")
            assert.deepStrictEqual([state.dials.length, state.reads.length, state.open], [dials, reads, 0])
            // Told to, it starts again.
            yield* cache.refresh
            yield* TestClock.adjust("2 seconds")
            assert.deepStrictEqual(idsOf(yield* cache.all), ["b", "a"])
            assert.strictEqual(yield* freshnessOf(cache), "Fresh")
          })
        )
      }
    }))

  it.effect("a new credential starts it again", () =>
    Effect.gen(function*() {
      const credentials = yield* Queue.unbounded<void>()
      yield* running((cache, { drop, state }) =>
        Effect.gen(function*() {
          state.refusals.push(unauthorized("changes"))
          yield* drop()
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual((yield* Effect.flip(cache.all))._tag, "AuthFailed")
          yield* Queue.offer(credentials, undefined)
          yield* TestClock.adjust("1 second")
          assert.strictEqual(yield* freshnessOf(cache), "Fresh")
          assert.strictEqual((yield* cache.all).length, 2)
        }), { credentialChanges: Stream.fromQueue(credentials) })
    }))

  it.effect("a first read that is refused for good reaches who waits for it", () =>
    Effect.gen(function*() {
      const script = Directories.make()
      script.state.answers.push(Directories.malformed())
      const cache = yield* Effect.provide(DiscoveryCache.make(), script.layer)
      assert.strictEqual((yield* Effect.flip(cache.all)).reason._tag, "MalformedResponse")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(script.state.reads.length, 1)
    }).pipe(Effect.scoped, quietly))

  it.effect("closing ends connections, watchers and waiters, and leaves nothing running", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const script = Directories.make()
      const gate = yield* Deferred.make<void>()
      script.state.answers.push({ when: gate, then: [a] })
      const cache = yield* DiscoveryCache.make().pipe(Effect.provide(script.layer), Scope.provide(scope))
      yield* soon
      assert.strictEqual(script.state.open, 1)
      const waiting = yield* Effect.forkChild(Effect.flip(cache.all), { startImmediately: true })
      const watching = yield* Effect.forkChild(Stream.runCollect(cache.watch()), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(script.state.open, 0)
      assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "Unsupported")
      assert.deepStrictEqual(yield* Fiber.join(watching), [])
      assert.strictEqual((yield* statusOf(cache)).updates._tag, "Closed")
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual([script.state.dials.length, script.state.reads.length], [1, 1])
    }))

  it.effect("without a registry: refused, and nothing is asked", () =>
    Effect.gen(function*() {
      const { disabled } = yield* Effect.promise(() => import("effect-lifeline/Directory"))
      const { Directory } = yield* Effect.promise(() => import("effect-lifeline/Directory"))
      const cache = yield* Effect.provideService(DiscoveryCache.make(), Directory, disabled)
      assert.strictEqual((yield* Effect.flip(cache.all)).reason._tag, "Unsupported")
      assert.deepStrictEqual(yield* cache.peers, {})
      assert.strictEqual((yield* Effect.flip(cache.peer("a"))).reason._tag, "NotConfigured")
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(cache.watch())))._tag, "Refused")
      assert.strictEqual((yield* statusOf(cache)).updates._tag, "Disabled")
    }).pipe(Effect.scoped))
})

describe("DiscoveryCache.watch", () => {
  const collect = (cache: DiscoveryCache.Service, query: Directory.Query | undefined) =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      yield* Effect.forkScoped(
        Stream.runForEach(cache.watch(query), ({ changes, freshness, services }) =>
          Effect.sync(() => {
            const what = changes.map(({ _tag, service }) => `${_tag} ${service.id}`).join(" ")
            seen.push(`${freshness._tag}: ${idsOf(services).join()}; ${what}`)
          })),
        { startImmediately: true }
      )
      yield* soon
      return seen
    })

  it.effect("first what is there, then each change of what matches, and of its freshness", () =>
    running((cache, { drop, state, tell }) =>
      Effect.gen(function*() {
        const workers = yield* collect(cache, { type: "worker" })
        const all = yield* collect(cache, undefined)
        yield* tell({ _tag: "StatusChanged", id: "b", status: "degraded" })
        yield* soon
        yield* tell({ _tag: "Registered", id: "c", service: service("c") }, { _tag: "Deregistered", id: "a" })
        yield* soon
        // A heartbeat alone is no news, nor is what is known already.
        yield* tell({ _tag: "Registered", id: "c", service: service("c", { lastSeen: 5 }) })
        yield* tell({ _tag: "StatusChanged", id: "b", status: "degraded" }, { _tag: "Deregistered", id: "z" })
        yield* soon
        state.services = [{ ...b, status: "degraded" }, service("c", { version: "2" })]
        yield* drop()
        yield* soon
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(workers, [
          "Fresh: a; Came a",
          "Fresh: c; Came c Went a",
          "Stale: c; ",
          "Fresh: c; Changed c"
        ])
        assert.deepStrictEqual(all, [
          "Fresh: b,a; Came b Came a",
          "Fresh: b,a; Changed b",
          "Fresh: b,c; Came c Went a",
          "Stale: b,c; ",
          "Fresh: b,c; Changed c"
        ])
      })
    ))

  it.effect("a thousand watchers share one connection, and a slow one gets the latest", () =>
    running((cache, { state, tell }) =>
      Effect.gen(function*() {
        let told = 0
        for (let n = 0; n < 1000; n++) {
          yield* Effect.forkScoped(
            Stream.runForEach(cache.watch(), () => Effect.sync(() => told++)),
            { startImmediately: true }
          )
        }
        const slow: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(cache.watch({ name: "a" }), ({ changes, services }) =>
            Effect.delay(
              Effect.sync(() => void slow.push(`${changes[0]?._tag} ${services[0]?.version}`)),
              "10 seconds"
            )),
          { startImmediately: true }
        )
        yield* soon
        for (let n = 1; n <= 50; n++) {
          yield* tell({ _tag: "Registered", id: "a", service: { ...a, version: `${n}` } })
          yield* soon
        }
        assert.strictEqual(told, 51_000)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(slow, ["Came undefined", "Changed 50"])
        assert.deepStrictEqual([state.dials.length, state.reads.length], [1, 1])
      })
    ))

  it.effect("a watcher that leaves is forgotten", () =>
    running((cache, { tell }) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Stream.runDrain(cache.watch()), { startImmediately: true })
        yield* soon
        yield* Fiber.interrupt(fiber)
        yield* tell({ _tag: "Deregistered", id: "a" })
        yield* soon
        assert.strictEqual((yield* cache.all).length, 1)
      })
    ))
})

describe("DiscoveryCache, polling", () => {
  for (const watch of ["none", "poll"] as const) {
    it.effect(`a directory whose watch is "${watch}" is asked again each interval, no two programs in step`, () =>
      Effect.gen(function*() {
        const firsts: Array<number> = []
        for (let n = 0; n < 20; n++) {
          yield* running((cache, { state }) =>
            Effect.gen(function*() {
              assert.strictEqual(yield* freshnessOf(cache), "Fresh")
              const { updates } = yield* statusOf(cache)
              assert.strictEqual(updates._tag, "Polling")
              const now = n * 630_000
              if (updates._tag === "Polling") firsts.push((updates.next ?? 0) - now)
              state.services = [a]
              yield* TestClock.adjust("30 seconds")
              assert.deepStrictEqual(idsOf(yield* cache.all), ["a"])
              assert.strictEqual(state.dials.length, 0)
              state.reads.length = 0
              yield* TestClock.adjust("10 minutes")
              assert.isAtLeast(state.reads.length, 18)
              assert.isAtMost(state.reads.length, 23)
            }), { watch })
        }
        assert.isBelow(Math.min(...firsts), 6000)
        assert.isAbove(Math.max(...firsts), 24_000)
      }).pipe(Random.withSeed("polling")))
  }

  it.effect("where changes are refused, or connections carry nothing", () =>
    Effect.gen(function*() {
      const endings: ReadonlyArray<readonly [string, ReadonlyArray<Errors.Refused | Errors.Inconclusive>]> = [
        ["Refused", [Directories.notFound()]],
        ["NoProgress", Array.from({ length: 10 }, () => new Errors.Inconclusive(Directories.at("changes")))]
      ]
      for (const [tag, refusals] of endings) {
        yield* running((cache, { drop, state }) =>
          Effect.gen(function*() {
            yield* TestClock.adjust("1 minute")
            state.refusals.push(...refusals)
            yield* drop()
            yield* TestClock.adjust("5 minutes")
            const { freshness, updates } = yield* statusOf(cache)
            assert.strictEqual(freshness._tag, "Fresh")
            assert.strictEqual(updates._tag === "Polling" ? updates.cause?._tag : updates._tag, tag)
            state.reads.length = 0
            const dials = state.dials.length
            yield* TestClock.adjust("10 minutes")
            assert.isAtLeast(state.reads.length, 9)
            assert.isAtMost(state.reads.length, 12)
            assert.strictEqual(state.dials.length, dials)
          }), { pollInterval: "1 minute" })
      }
    }))

  it.effect("a poll that fails makes it stale, and is tried again by the policy", () =>
    running((cache, { state }) =>
      Effect.gen(function*() {
        const { updates } = yield* statusOf(cache)
        state.answers.push(unavailable(), unavailable())
        yield* TestClock.adjust(updates._tag === "Polling" ? updates.next ?? 0 : 0)
        assert.strictEqual(yield* freshnessOf(cache), "Stale")
        yield* TestClock.adjust("4 seconds")
        assert.strictEqual(yield* freshnessOf(cache), "Fresh")
      }), { watch: "none", pollInterval: "30 seconds" }))
})
