import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Classify from "effect-lifeline/Classify"
import * as Recovery from "effect-lifeline/Recovery"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { TestStore } from "./support/credentials.ts"
import { fakeProof, hour, makeStore, minute, storeFailed, token, unauthorized } from "./support/credentials.ts"
import type { Script } from "./support/leaseApi.ts"
import { canary, lease, makeApi, revived } from "./support/leaseApi.ts"

const day = 24 * hour

/** Everything that is logged, whole. */
const output: Array<string> = []

const captured = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  self.pipe(
    Effect.provide(Logger.layer([
      Logger.make((options) => {
        output.push(
          JSON.stringify([options.message, options.cause, options.fiber.getRef(References.CurrentLogAnnotations)])
        )
      })
    ])),
    Effect.provideService(References.MinimumLogLevel, "All")
  )

const prepared = Effect.fnUntraced(function*(
  _store: TestStore,
  id: string,
  options: {
    readonly provenance?: "Managed" | "Supplied"
    readonly token?: string | undefined
    readonly expiresAt?: number
  } = {}
) {
  const { provenance = "Managed" } = options
  const entry = { lease: lease(id), provenance, holder: id }
  const leases = yield* Recovery.makeLeases()
  yield* leases.put(entry)
  if ("token" in options && options.token === undefined) return
  const credential = yield* Recovery.credential({ api: makeApi({}), isAlive: () => Effect.succeed(true) }, entry)
  yield* credential.accept(token(options.token ?? `${canary}-${id}`, options.expiresAt ?? 8 * hour))
}, (effect, store) => Effect.scoped(over(store, effect)))

const over = <A, E, R>(store: TestStore, effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, KeyValueStore.KeyValueStore, store.store)

const alive = () => Effect.succeed(true)
const dead = () => Effect.succeed(false)

const boot = <R = never>(store: TestStore, options: Partial<Recovery.Options<R>> & Pick<Recovery.Options<R>, "api">) =>
  captured(over(
    store,
    Recovery.reconcile<R>({ isAlive: alive, proof: fakeProof, ...options })
  )).pipe(Effect.tap((reports) => Effect.sync(() => output.push(JSON.stringify(reports)))))

/** Runs it while the clock goes on. */
const during = <A, E, R>(effect: Effect.Effect<A, E, R>, time: Duration.Input = "1 minute") =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })

const tokenOf = (store: TestStore, id: string): unknown => {
  const text = store.entries.get(`recovery/credential/token/${id}`)
  return text === undefined ? undefined : JSON.parse(atob((JSON.parse(text) as { readonly data: string }).data))
}

const entryOf = (store: TestStore, id: string) =>
  over(store, Effect.flatMap(Recovery.makeLeases(), ({ get }) => get(id)))

const brief = (report: Recovery.Report | undefined): string => {
  switch (report?._tag) {
    case undefined:
      return "nothing"
    case "Attached":
      return `Attached${report.revived ? " revived" : ""}${report.retryAt === undefined ? "" : " open"}`
    case "Finalised":
      return `Finalised ${report.reason}`
    case "Deferred":
      return "Deferred"
  }
}

const all = (reports: ReadonlyArray<Recovery.Report>) => reports.map(brief)

/** One lease through one boot. */
const scenario = Effect.fnUntraced(function*(
  script: Script,
  options: Partial<Recovery.Options> & {
    readonly provenance?: "Managed" | "Supplied"
    readonly token?: string | undefined
    readonly expiresAt?: number
    readonly table?: Classify.LeaseTable
  } = {}
) {
  const store = makeStore()
  const { table, ...rest } = options
  yield* prepared(store, "7", rest)
  const api = makeApi(script, table)
  const reports = yield* during(boot(store, { api, ...rest }))
  return { api, store, reports, report: brief(reports[0]), calls: api.received.map((line) => line.replace(" 7", "")) }
})

const t = `${canary}-7`
const rejected: Script = { status: [{ status: 401 }], refresh: [unauthorized("refresh")] }

describe("the table", () => {
  const managed: Classify.Possession = { provenance: "Managed", signer: true }
  const unsigned: Classify.Possession = { provenance: "Managed", signer: false }
  const supplied: Classify.Possession = { provenance: "Supplied", signer: true }
  const terminal = (reason: string) => `Terminal ${reason}`

  const rows: ReadonlyArray<readonly [Classify.LeaseAnswer, Classify.Possession | undefined, string]> = [
    // status says `timed_out`, whatever the HTTP status
    ...[undefined, 200, 401, 403, 404, 408, 410, 429, 503].map((status) =>
      [{ says: "timed_out", status }, managed, terminal("TimedOut")] as const
    ),
    // status says `active`
    ...[undefined, 200, 401, 403, 404, 410, 429, 503].map((status) =>
      [{ says: "active", status }, managed, "Live"] as const
    ),
    // no HTTP status
    [{}, managed, "Transient"],
    [{ status: undefined }, undefined, "Transient"],
    // 401
    [{ status: 401 }, managed, "Revivable"],
    [{ status: 401 }, unsigned, terminal("Unauthorized")],
    [{ status: 401 }, supplied, terminal("Unauthorized")],
    [{ status: 401 }, undefined, terminal("Unauthorized")],
    // provenance is consulted for 401 only
    ...[managed, unsigned, supplied, undefined].flatMap((possession) => [
      [{ status: 404 }, possession, terminal("NotFound")] as const,
      [{ status: 410 }, possession, terminal("Gone")] as const,
      [{ status: 403 }, possession, terminal("Forbidden")] as const,
      ...[408, 425, 429, 500, 501, 502, 503, 504, 599].map((status) => [{ status }, possession, "Transient"] as const),
      ...[100, 200, 201, 204, 302, 400, 402, 405, 409, 412, 418, 422, 451, 600].map((status) =>
        [{ status }, possession, "Live, unexpected"] as const
      )
    ])
  ]
  const show = (classified: Classify.LeaseStanding) =>
    classified._tag === "Terminal"
      ? terminal(classified.reason)
      : classified._tag === "Live" && !classified.expected
      ? "Live, unexpected"
      : classified._tag

  for (const [answer, possession, expected] of rows) {
    it(`${JSON.stringify(answer)}, ${JSON.stringify(possession)}: ${expected}`, () => {
      assert.strictEqual(show(Classify.fromLeaseAnswer(Classify.leaseStatuses, answer, possession)), expected)
    })
  }

  it("provenance is consulted for 401 only, also where another status means the same", () => {
    const table = { ...Classify.leaseStatuses, "419": "Unauthorized" } as const
    assert.strictEqual(show(Classify.fromLeaseAnswer(table, { status: 419 }, managed)), terminal("Unauthorized"))
  })

  it("403 is what the adapter says", () => {
    const table = { ...Classify.leaseStatuses, "403": "Unexpected" } as const
    assert.strictEqual(show(Classify.fromLeaseAnswer(table, { status: 403 })), "Live, unexpected")
  })
})

describe("the holder is alive", () => {
  it.effect("what the status says decides; the token is sent as it is", () =>
    Effect.gen(function*() {
      const rows: ReadonlyArray<readonly [NonNullable<Script["status"]>, string]> = [
        [[{ status: 200, says: "active" }], "Attached"],
        [[{ status: 200 }], "Attached"],
        [[{ status: 418 }], "Attached"],
        [[{ status: 200, says: "timed_out" }], "Finalised TimedOut"],
        [[{ status: 403 }], "Finalised Forbidden"],
        [[{ status: 404 }], "Finalised NotFound"],
        [[{ status: 410 }], "Finalised Gone"],
        ...[408, 425, 429, 500, 503].map((status) => [[{ status }], "Attached open"] as const),
        [[{}], "Attached open"],
        [["hang"], "Attached open"],
        [["die"], "Deferred"],
        // Adapters may fail in the algebra.
        [[Classify.make("Unreachable", { operation: "status", target: "" })], "Attached open"],
        [[Classify.make("UnknownLease", { operation: "status", target: "" })], "Finalised NotFound"],
        [[Classify.make("LeaseExpired", { operation: "status", target: "" })], "Finalised Gone"],
        [[Classify.make("Forbidden", { operation: "status", target: "" })], "Finalised Forbidden"],
        [[Classify.make("CredentialMissing", { operation: "status", target: "" })], "Attached open"],
        [[Classify.make("Conflict", { operation: "status", target: "" })], "Attached"]
      ]
      for (const [status, expected] of rows) {
        const { calls, report, store } = yield* scenario({ status })
        assert.strictEqual(report, expected, JSON.stringify(status))
        assert.deepStrictEqual(calls, [`status DPoP ${t}`])
        // Only a definitive answer tears down.
        assert.strictEqual(tokenOf(store, "7") === undefined, expected.startsWith("Finalised"), JSON.stringify(status))
        assert.strictEqual((yield* entryOf(store, "7"))?.finalised === undefined, !expected.startsWith("Finalised"))
      }
    }))

  it.effect("live with a warning where the answer says nothing of the lease", () =>
    Effect.gen(function*() {
      const before = output.length
      yield* scenario({ status: [{ status: 418 }] })
      assert.isTrue(
        output.slice(before).some((line) => line.includes("the registry's answer (418) says nothing of the lease"))
      )
    }))

  it.effect("on 401 one refresh, and asked again with the new token", () =>
    Effect.gen(function*() {
      const { calls, report, store } = yield* scenario({
        status: [{ status: 401 }, { status: 200, says: "active" }],
        refresh: [token("fresh", 8 * hour)]
      })
      assert.strictEqual(report, "Attached")
      assert.deepStrictEqual(calls, [`status DPoP ${t}`, "refresh proof", "status DPoP fresh"])
      assert.include(tokenOf(store, "7") as object, { value: "fresh", jti: "jti of fresh", expiresAt: 8 * hour })
    }))

  it.effect("a refresh that was due anyway is the one", () =>
    Effect.gen(function*() {
      for (const time of [0, 2000]) {
        const store = makeStore()
        yield* prepared(store, "7", { expiresAt: 1 })
        const api = makeApi({
          status: [{ status: 401 }, { status: 200, says: "active" }],
          refresh: [token("fresh", 8 * hour)]
        })
        api.before = (call) => call === "status" ? Effect.sleep(time) : Effect.void
        assert.deepStrictEqual(all(yield* during(boot(store, { api }))), ["Attached"])
        assert.deepStrictEqual(api.received.toSorted(), ["refresh 7 proof", "status 7 DPoP fresh", "status 7 proof"])
      }
    }))

  it.effect("still 401 after the refresh: one heartbeat with the proof, and no second refresh", () =>
    Effect.gen(function*() {
      const { calls, report, store } = yield* scenario({
        status: [{ status: 401 }],
        refresh: [token("fresh", 8 * hour)],
        heartbeat: [revived()]
      })
      assert.strictEqual(report, "Attached revived")
      assert.deepStrictEqual(calls, [`status DPoP ${t}`, "refresh proof", "status DPoP fresh", "heartbeat proof"])
      assert.include(tokenOf(store, "7") as object, { value: `${canary}-revived` })
    }))

  it.effect("R1: the heartbeat revives: token stored with jti and expiry, attached, one heartbeat", () =>
    Effect.gen(function*() {
      const { calls, report, store } = yield* scenario({ ...rejected, heartbeat: [revived("new", 9 * hour)] })
      assert.strictEqual(report, "Attached revived")
      assert.deepStrictEqual(calls, [`status DPoP ${t}`, "refresh proof", "heartbeat proof"])
      assert.include(tokenOf(store, "7") as object, { value: "new", jti: "jti of new", expiresAt: 9 * hour })
      assert.isUndefined((yield* entryOf(store, "7"))?.finalised)
    }))

  it.effect("R1 with a stale token, which is not sent any more", () =>
    Effect.gen(function*() {
      const { calls, report } = yield* scenario({ ...rejected, heartbeat: [revived()] }, { expiresAt: 1 })
      assert.strictEqual(report, "Attached revived")
      assert.strictEqual(calls.filter((line) => line.startsWith("heartbeat")).length, 1)
      assert.strictEqual(calls.filter((line) => line.startsWith("refresh")).length, 1)
      assert.isTrue(calls.every((line) => line.endsWith(" proof")))
    }))

  it.effect("R2: 401, 404, 410: finalised, token deleted, not attached", () =>
    Effect.gen(function*() {
      for (const [status, reason] of [[401, "Unauthorized"], [404, "NotFound"], [410, "Gone"]] as const) {
        const at = { operation: "heartbeat", target: "" }
        const same = Classify.make(
          status === 401 ? "Unauthorized" : status === 404 ? "UnknownLease" : "LeaseExpired",
          at
        )
        for (const heartbeat of [{ status }, same]) {
          const { calls, report, store } = yield* scenario({ ...rejected, heartbeat: [heartbeat] })
          assert.strictEqual(report, `Finalised ${reason}`)
          assert.strictEqual(calls.filter((line) => line.startsWith("heartbeat")).length, 1)
          assert.deepStrictEqual([...store.entries.keys()], ["recovery/lease/7"])
          assert.strictEqual((yield* entryOf(store, "7"))?.finalised?.reason, reason)
        }
      }
    }))

  it.effect("R3: supplied, signer present: no heartbeat is sent; finalised", () =>
    Effect.gen(function*() {
      const { calls, report, store } = yield* scenario(rejected, { provenance: "Supplied" })
      assert.strictEqual(report, "Finalised Unauthorized")
      assert.deepStrictEqual(calls, [`status Bearer ${t}`])
      assert.isUndefined(tokenOf(store, "7"))
    }))

  it.effect("managed without a signer: likewise", () =>
    Effect.gen(function*() {
      const { calls, report } = yield* scenario(rejected, { proof: undefined })
      assert.strictEqual(report, "Finalised Unauthorized")
      assert.isFalse(calls.some((line) => line.startsWith("heartbeat")))
    }))

  it.effect("R4: 503, no answer, a hang, anything else: attached, token kept, open", () =>
    Effect.gen(function*() {
      const at = { operation: "heartbeat", target: "" }
      const beats: ReadonlyArray<NonNullable<Script["heartbeat"]>[number]> = [
        { status: 503 },
        { status: 429 },
        { status: 403 },
        { status: 400 },
        { status: 302 },
        {},
        "hang",
        Classify.make("Unreachable", at),
        Classify.make("Forbidden", at),
        Classify.make("CredentialMissing", at),
        Classify.make("MalformedResponse", { ...at, detail: "an HTML page" })
      ]
      for (const heartbeat of beats) {
        const { calls, report, store } = yield* scenario({ ...rejected, heartbeat: [heartbeat] })
        assert.strictEqual(report, "Attached open", JSON.stringify(heartbeat))
        assert.strictEqual(calls.filter((line) => line.startsWith("heartbeat")).length, 1)
        assert.include(tokenOf(store, "7") as object, { value: t })
        assert.isUndefined((yield* entryOf(store, "7"))?.finalised)
      }
    }))

  it.effect("a heartbeat that the server takes without reviving: attached, nothing is open", () =>
    Effect.gen(function*() {
      const { report } = yield* scenario({ ...rejected, heartbeat: [{ status: 200 }] })
      assert.strictEqual(report, "Attached")
    }))

  it.effect("a heartbeat that is taken, and says that the lease is over: finalised, whatever its status", () =>
    Effect.gen(function*() {
      const { report, store } = yield* scenario({ ...rejected, heartbeat: [{ status: 200, says: "timed_out" }] })
      assert.strictEqual(report, "Finalised Gone")
      assert.isUndefined(tokenOf(store, "7"))
      assert.isDefined((yield* entryOf(store, "7"))?.finalised)
    }))

  it.effect("R6: rejected but unexpired: the proof request uses the key, not that token", () =>
    Effect.gen(function*() {
      const { calls } = yield* scenario({ ...rejected, heartbeat: [revived()] }, { expiresAt: 100 * hour })
      assert.deepStrictEqual(calls.slice(1), ["refresh proof", "heartbeat proof"])
    }))

  it.effect("a refresh that fails for now tears down nobody", () =>
    Effect.gen(function*() {
      const now = Classify.make("Throttled", {
        operation: "refresh",
        target: "",
        retryAfter: Duration.seconds(40)
      })
      for (const provenance of ["Managed", "Supplied"] as const) {
        const store = makeStore()
        yield* prepared(store, "7", { provenance })
        const api = makeApi({ status: [{ status: 401 }], heartbeat: [{ status: 503 }] })
        const before = yield* Clock.currentTimeMillis
        // It brings a credential of its own.
        const [report] = yield* during(boot(store, { api: { ...api, refresh: () => Effect.fail(now) } }))
        assert.strictEqual(brief(report), "Attached open")
        assert.isDefined(tokenOf(store, "7"))
        const beats = api.received.filter((line) => line.startsWith("heartbeat")).length
        assert.strictEqual(beats, provenance === "Managed" ? 1 : 0)
        if (provenance === "Managed" || report?._tag !== "Attached") continue
        assert.isAtLeast(report.retryAt ?? 0, before + 40_000)
      }
    }))

  it.effect("a heartbeat that is put off is not tried before", () =>
    Effect.gen(function*() {
      const retryAfter = Duration.seconds(40)
      const at = { operation: "heartbeat", target: "" }
      for (const heartbeat of [{ status: 503, retryAfter }, Classify.make("Throttled", { ...at, retryAfter })]) {
        const before = yield* Clock.currentTimeMillis
        const { reports: [report] } = yield* scenario({ ...rejected, heartbeat: [heartbeat] })
        assert.isAtLeast(report?._tag === "Attached" ? report.retryAt ?? 0 : 0, before + 40_000)
      }
    }))

  it.effect("it is dead by the time of the heartbeat: none is sent", () =>
    Effect.gen(function*() {
      let asked = 0
      const { calls, report, store } = yield* scenario({ ...rejected, heartbeat: [revived()] }, {
        isAlive: () => Effect.sync(() => asked++ === 0)
      })
      assert.strictEqual(report, "Finalised Unauthorized")
      assert.isFalse(calls.some((line) => line.startsWith("heartbeat")))
      assert.strictEqual((yield* entryOf(store, "7"))?.attempts, 1)
    }))

  it.effect("without a token: the proof where there is one, else deferred and nothing is sent", () =>
    Effect.gen(function*() {
      const managed = yield* scenario({ status: [{ status: 200, says: "active" }] }, { token: undefined })
      assert.deepStrictEqual(managed.calls, ["status proof"])
      assert.strictEqual(managed.report, "Attached")
      const supplied = yield* scenario({}, { token: undefined, provenance: "Supplied" })
      assert.deepStrictEqual(supplied.calls, [])
      assert.strictEqual(supplied.report, "Deferred")
    }))

  it.effect("whether it is alive cannot be known: deferred, nothing is sent or changed", () =>
    Effect.gen(function*() {
      for (
        const isAlive of [
          () => Effect.fail(unauthorized(canary)),
          () => Effect.die(new Error(canary)),
          () => Effect.never,
          () => Effect.uninterruptible(Effect.never),
          (): Effect.Effect<boolean> => {
            throw new Error(canary)
          }
        ]
      ) {
        const { calls, report, store } = yield* scenario(rejected, { isAlive })
        assert.strictEqual(report, "Deferred")
        assert.deepStrictEqual(calls, [])
        assert.isDefined(tokenOf(store, "7"))
        assert.strictEqual((yield* entryOf(store, "7"))?.attempts, 0)
      }
    }))
})

describe("the holder is dead", () => {
  it.effect("R5: no heartbeat is sent; finalised; token deleted; one attempt", () =>
    Effect.gen(function*() {
      const { calls, report, store } = yield* scenario({ ...rejected, heartbeat: [revived()] }, { isAlive: dead })
      assert.strictEqual(report, "Finalised Unauthorized")
      assert.deepStrictEqual(calls, [`status DPoP ${t}`])
      assert.deepStrictEqual([...store.entries.keys()], ["recovery/lease/7"])
      assert.strictEqual((yield* entryOf(store, "7"))?.attempts, 1)
    }))

  it.effect("finalised whatever the server says, also that it is active", () =>
    Effect.gen(function*() {
      for (
        const [answer, reason] of [
          [{ status: 200, says: "active" }, "Dead"],
          [{ status: 418 }, "Dead"],
          [{ status: 200, says: "timed_out" }, "TimedOut"],
          [{ status: 404 }, "NotFound"],
          [{ status: 403 }, "Forbidden"]
        ] as const
      ) {
        const { calls, report, store } = yield* scenario({ status: [answer] }, { isAlive: dead })
        assert.strictEqual(report, `Finalised ${reason}`)
        assert.deepStrictEqual(calls, [`status DPoP ${t}`])
        assert.isUndefined(tokenOf(store, "7"))
      }
      const none = yield* scenario({}, { isAlive: dead, provenance: "Supplied", token: undefined })
      assert.strictEqual(none.report, "Finalised Dead")
    }))

  it.effect("at most three attempts across boots, then finalised", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({ status: [{ status: 503 }] })
      for (const [expected, attempts] of [["Deferred", 1], ["Deferred", 2], ["Finalised GaveUp", 3]] as const) {
        assert.deepStrictEqual(all(yield* boot(store, { api, isAlive: dead })), [expected])
        assert.strictEqual((yield* entryOf(store, "7"))?.attempts, attempts)
        assert.strictEqual(tokenOf(store, "7") === undefined, attempts === 3)
      }
      assert.strictEqual(api.received.length, 3)
      assert.isTrue(api.received.every((line) => line.startsWith("status")))
      // It is over: nothing is asked, nothing is reported.
      assert.deepStrictEqual(yield* boot(store, { api }), [])
      assert.strictEqual(api.received.length, 3)
    }))

  it.effect("a crash after the third attempt: finalised without a request", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      yield* over(
        store,
        Effect.flatMap(Recovery.makeLeases(), (leases) => leases.update("7", (entry) => ({ ...entry, attempts: 3 })))
      )
      const api = makeApi({ status: [{ status: 200, says: "active" }] })
      assert.deepStrictEqual(all(yield* boot(store, { api, isAlive: dead })), ["Finalised GaveUp"])
      assert.deepStrictEqual(api.received, [])
      assert.isUndefined(tokenOf(store, "7"))
    }))
})

describe("many leases", () => {
  const active: Script = { status: [{ status: 200, says: "active" }] }

  it.effect(
    "R10: one read fails, one server hangs: the other 198 are recovered within the deadline",
    () =>
      Effect.gen(function*() {
        const store = makeStore()
        const ids = Array.from({ length: 200 }, (_, n) => `lease-${n}`)
        for (const id of ids) yield* prepared(store, id)
        const api = makeApi({ ...rejected, heartbeat: [revived()] })
        api.scripts.set("lease-20", { status: ["hang"] })
        store.before = (method, key) =>
          method === "get" && key === "recovery/lease/lease-10" ? Effect.fail(storeFailed) : Effect.void
        const recovery = yield* captured(over(store, Recovery.make({ api, isAlive: alive, proof: fakeProof })))
        // Nobody waits behind the one that hangs: that takes its own 10 s.
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(all(yield* recovery.reports).filter((kind) => kind === "Attached revived").length, 198)
        assert.strictEqual((yield* recovery.reports).length, 199)
        yield* TestClock.adjust("6 seconds")
        const reports = yield* recovery.first
        assert.strictEqual(reports.length, 200)
        const counts = new Map<string, number>()
        for (const kind of all(reports)) counts.set(kind, (counts.get(kind) ?? 0) + 1)
        assert.deepStrictEqual(Object.fromEntries(counts), { "Attached revived": 198, Deferred: 1, "Attached open": 1 })
        for (const id of ids.filter((id) => id !== "lease-10" && id !== "lease-20")) {
          assert.strictEqual(api.of(id).filter((line) => line.startsWith("heartbeat")).length, 1)
        }
      }),
    30_000
  )

  it.effect("one that interrupts itself interrupts nobody else", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2", "3"]) yield* prepared(store, id)
      const api = makeApi(active)
      api.before = (_, id) => id === "1" ? Effect.interrupt : Effect.void
      const isAlive = ({ lease }: Recovery.Entry) => lease.id === "2" ? Effect.interrupt : Effect.succeed(true)
      const reports = yield* during(boot(store, { api, isAlive }))
      assert.deepStrictEqual(all(reports), ["Attached open", "Deferred", "Attached"])
    }))

  it.effect("a write that hangs holds up one lease, not the writes of others", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2", "3"]) yield* prepared(store, id)
      store.before = (method, key) => method === "set" && key === "recovery/lease/1" ? Effect.never : Effect.void
      const fiber = yield* Effect.forkChild(boot(store, { api: makeApi({ status: [{ status: 404 }] }) }))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(tokenOf(store, "2"))
      assert.isUndefined(tokenOf(store, "3"))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(all(yield* Fiber.join(fiber)), ["Deferred", "Finalised NotFound", "Finalised NotFound"])
      assert.isDefined(tokenOf(store, "1"))
    }))

  it.effect("a store that hangs holds up one lease for 5 s", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2", "3"]) yield* prepared(store, id)
      store.before = (_, key) => key === "recovery/lease/2" ? Effect.never : Effect.void
      const reports = yield* during(boot(store, { api: makeApi(active), concurrency: 1 }))
      assert.deepStrictEqual(all(reports), ["Attached", "Deferred", "Attached"])
    }))

  it.effect("side by side, and no more than told", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (let n = 0; n < 20; n++) yield* prepared(store, String(n))
      const api = makeApi(active)
      let now = 0
      let most = 0
      api.before = () =>
        Effect.gen(function*() {
          most = Math.max(most, ++now)
          yield* Effect.sleep("1 second")
          now--
        })
      const reports = yield* during(boot(store, { api, concurrency: 4 }))
      assert.strictEqual(reports.length, 20)
      assert.strictEqual(most, 4)
    }))

  it.effect("a damaged record, and one of another version: deferred, and left as they are", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2", "3"]) yield* prepared(store, id)
      store.entries.set("recovery/lease/1", `{"${canary}`)
      const other = store.entries.get("recovery/lease/2")?.replace("\"version\":1", "\"version\":2") ?? ""
      store.entries.set("recovery/lease/2", other)
      const reports = yield* boot(store, { api: makeApi(active), isAlive: alive })
      assert.deepStrictEqual(all(reports), ["Deferred", "Deferred", "Attached"])
      assert.strictEqual(store.entries.get("recovery/lease/2"), other)
      assert.isDefined(tokenOf(store, "1"))
      assert.isDefined(tokenOf(store, "2"))
    }))

  it.effect("the store cannot say which there are: reconcile fails, and changes nothing", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const broken = { ...store, store: { ...store.store, keys: Effect.fail(storeFailed) } }
      const error = yield* Effect.flip(boot(broken, { api: makeApi(active) }))
      assert.strictEqual(error._tag, "KeyValueStoreError")
      assert.isDefined(tokenOf(store, "7"))
    }))

  it.effect("tokens without a lease are swept, with what is known of them; others are left alone", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2", "3"]) yield* prepared(store, id)
      // 1: its record is gone. 2: a crash after it was finalised, before its token was deleted.
      store.entries.delete("recovery/lease/1")
      yield* over(
        store,
        Effect.flatMap(
          Recovery.makeLeases(),
          (leases) => leases.update("2", (entry) => ({ ...entry, finalised: { reason: "Gone", at: 0 } }))
        )
      )
      store.entries.set("credential/token/somebody else", "x")
      store.entries.set("recovery/credential/state/1", "x")
      store.entries.set("recovery/credential/state/4", "x")
      assert.deepStrictEqual(all(yield* boot(store, { api: makeApi(active) })), ["Attached"])
      assert.deepStrictEqual([...store.entries.keys()].toSorted(), [
        "credential/token/somebody else",
        "recovery/credential/token/3",
        "recovery/lease/2",
        "recovery/lease/3"
      ])
    }))

  it.effect("a token whose record cannot be read is not swept; one failure does not stop the sweep", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["1", "2"]) yield* prepared(store, id)
      store.entries.delete("recovery/lease/2")
      store.before = (method, key) =>
        method === "get" && key === "recovery/lease/1" ? Effect.fail(storeFailed) : Effect.void
      assert.deepStrictEqual(all(yield* boot(store, { api: makeApi(active) })), ["Deferred"])
      assert.isDefined(tokenOf(store, "1"))
      assert.isUndefined(tokenOf(store, "2"))
    }))

  it.effect("finalised leases are forgotten after a week", () =>
    Effect.gen(function*() {
      const { store } = yield* scenario({ status: [{ status: 404 }] })
      const api = makeApi(active)
      yield* TestClock.adjust(7 * day - 2 * minute)
      assert.deepStrictEqual(yield* boot(store, { api }), [])
      assert.strictEqual(store.entries.size, 1)
      yield* TestClock.adjust(3 * minute)
      assert.deepStrictEqual(yield* boot(store, { api }), [])
      assert.strictEqual(store.entries.size, 0)
      assert.deepStrictEqual(api.received, [])
    }))
})

describe("the store of leases", () => {
  it.effect("no stale copy overwrites a finalised record; a later registration does", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const leases = yield* over(store, Recovery.makeLeases())
      const stale = yield* leases.get("7")
      assert.isDefined(stale)
      // The same again is no new beginning.
      yield* leases.update("7", (entry) => ({ ...entry, attempts: 2 }))
      assert.strictEqual((yield* leases.put(stale)).attempts, 2)
      yield* boot(store, { api: makeApi({ status: [{ status: 404 }] }) })
      yield* leases.update("7", () => ({ ...stale, attempts: 2 }))
      assert.strictEqual((yield* leases.get("7"))?.finalised?.reason, "NotFound")
      assert.strictEqual((yield* leases.put(stale)).finalised?.reason, "NotFound")
      assert.strictEqual((yield* leases.get("7"))?.finalised?.reason, "NotFound")
      assert.isUndefined((yield* leases.put({ lease: lease("7", 1), provenance: "Supplied" })).finalised)
      assert.strictEqual((yield* leases.get("7"))?.provenance, "Supplied")
      assert.strictEqual((yield* leases.get("7"))?.attempts, 0)
      assert.isUndefined(yield* leases.update("8", (entry) => entry))
      assert.deepStrictEqual(yield* leases.ids, ["7"])
      yield* leases.remove("7")
      assert.deepStrictEqual(yield* leases.ids, [])
    }))

  it.effect("finalised by somebody else while it was asked for: that stays, also its reason", () =>
    Effect.gen(function*() {
      const scripts: ReadonlyArray<readonly [string, Script]> = [
        ["heartbeat", { ...rejected, heartbeat: [{ status: 410 }] }],
        ["heartbeat", { ...rejected, heartbeat: [{ status: 503 }] }],
        ["heartbeat", { ...rejected, heartbeat: [{ status: 200 }] }],
        ["heartbeat", { ...rejected, heartbeat: [revived()] }],
        ["status", { status: [{ status: 404 }] }]
      ]
      for (const [moment, script] of scripts) {
        const store = makeStore()
        yield* prepared(store, "7")
        const api = makeApi(script)
        const leases = yield* over(store, Recovery.makeLeases())
        api.before = (call) =>
          call === moment
            ? Effect.ignore(
              leases.update("7", (entry) => ({ ...entry, finalised: { reason: "TimedOut", at: 1 } }))
            )
            : Effect.void
        assert.deepStrictEqual(all(yield* during(boot(store, { api }))), ["Finalised TimedOut"])
        assert.deepStrictEqual((yield* leases.get("7"))?.finalised, { reason: "TimedOut", at: 1 })
        assert.isUndefined(tokenOf(store, "7"))
      }
    }))

  it.effect("ids may be anything", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["a b/c", "größe", "..", ""]) yield* prepared(store, id)
      const reports = yield* during(boot(store, { api: makeApi({ ...rejected, heartbeat: [revived()] }) }))
      assert.deepStrictEqual(all(reports), Array.from({ length: 4 }, () => "Attached revived"))
    }))
})

describe("several boots", () => {
  it.effect("R7: two at once: one refresh, one revival", () =>
    Effect.gen(function*() {
      for (const apart of [0, 10, 200]) {
        const store = makeStore()
        yield* prepared(store, "7")
        const api = makeApi({ ...rejected, heartbeat: [revived()] })
        // The server takes its time.
        api.before = (call) => Effect.sleep(call === "status" ? 20 : 1000)
        const both = yield* during(Effect.all([
          boot(store, { api }),
          Effect.andThen(Effect.sleep(apart), boot(store, { api }))
        ], { concurrency: 2 }))
        assert.deepStrictEqual(both.map(all), [["Attached revived"], ["Attached revived"]], `${apart} ms apart`)
        assert.strictEqual(api.received.filter((line) => line.startsWith("refresh")).length, 1, `${apart} ms apart`)
        assert.strictEqual(api.received.filter((line) => line.startsWith("heartbeat")).length, 1, `${apart} ms apart`)
        assert.include(tokenOf(store, "7") as object, { value: `${canary}-revived` })
      }
    }))

  it.effect("a crash after the heartbeat was refused: the next boot does not send a second one", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({ ...rejected, heartbeat: [{ status: 401 }] })
      // It cannot be finalised: as if the process died there.
      let writes = 0
      store.before = (method, key) =>
        method === "set" && key === "recovery/lease/7" && writes++ === 0 ? Effect.fail(storeFailed) : Effect.void
      assert.deepStrictEqual(all(yield* during(boot(store, { api }))), ["Deferred"])
      assert.deepStrictEqual(all(yield* during(boot(store, { api }))), ["Finalised Unauthorized"])
      assert.strictEqual(api.received.filter((line) => line.startsWith("heartbeat")).length, 1)
      assert.strictEqual(api.received.filter((line) => line.startsWith("refresh")).length, 1)
    }))

  it.effect("a crash during the heartbeat: made again with the same idempotency key", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({ ...rejected, heartbeat: ["hang", revived()] })
      const fiber = yield* Effect.forkChild(boot(store, { api }), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(all(yield* during(boot(store, { api }))), ["Attached revived"])
      const [, first, second] = api.keys
      assert.isDefined(first)
      assert.strictEqual(first, second)
    }))
})

describe("the layer", () => {
  const running = Effect.fnUntraced(function*(
    store: TestStore,
    options: Partial<Recovery.Options> & Pick<Recovery.Options, "api">
  ) {
    return yield* captured(over(
      store,
      Recovery.make({ isAlive: alive, proof: fakeProof, backoff: Backoff.make({ jitter: "none" }), ...options })
    ))
  })

  it.effect("R4: retried with the backoff until it is known; the reports say so", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({ ...rejected, heartbeat: [{ status: 503 }, {}, revived()] })
      const recovery = yield* running(store, { api })
      const seen: Array<ReadonlyArray<string>> = []
      yield* Effect.forkChild(
        Stream.runForEach(recovery.changes, (reports) => Effect.sync(() => seen.push(all(reports))))
      )
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(all(yield* recovery.first), ["Attached open"])
      const beats = () => api.received.filter((line) => line.startsWith("heartbeat")).length
      assert.strictEqual(beats(), 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(beats(), 2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(beats(), 2)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(beats(), 3)
      assert.deepStrictEqual(all(yield* recovery.reports), ["Attached revived"])
      assert.strictEqual(api.received.filter((line) => line.startsWith("refresh")).length, 1)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(beats(), 3)
      assert.deepStrictEqual(seen, [[], ["Attached open"], ["Attached open"], ["Attached revived"]])
    }).pipe(Effect.scoped))

  it.effect("waits at least as long as the server asks", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({
        status: [{ status: 503, retryAfter: Duration.seconds(40) }, { status: 200, says: "active" }]
      })
      const recovery = yield* running(store, { api })
      yield* TestClock.adjust("39 seconds")
      assert.strictEqual(api.received.length, 1)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(all(yield* recovery.reports), ["Attached"])
    }).pipe(Effect.scoped))

  it.effect("a dead one is tried again without counting: that is one boot", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({
        status: [...Array.from({ length: 6 }, () => ({ status: 503 })), { status: 200, says: "active" }]
      })
      const recovery = yield* running(store, { api, isAlive: dead })
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(all(yield* recovery.reports), ["Deferred"])
      assert.isAbove(api.received.length, 3)
      assert.strictEqual((yield* entryOf(store, "7"))?.attempts, 1)
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(all(yield* recovery.reports), ["Finalised Dead"])
      assert.isUndefined(tokenOf(store, "7"))
    }).pipe(Effect.scoped))

  it.effect("a store that cannot be listed is asked again; building it waits for nothing", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      let broken = true
      const flaky = {
        ...store,
        store: { ...store.store, keys: Effect.suspend(() => broken ? Effect.fail(storeFailed) : store.store.keys) }
      }
      const recovery = yield* running(flaky, { api: makeApi({ status: [{ status: 200, says: "active" }] }) })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* recovery.reports, [])
      broken = false
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(all(yield* recovery.first), ["Attached"])
    }).pipe(Effect.scoped))

  it.effect("finalised or removed by somebody else while it is open: said so, or forgotten", () =>
    Effect.gen(function*() {
      const store = makeStore()
      for (const id of ["7", "8", "9"]) yield* prepared(store, id)
      const recovery = yield* running(store, { api: makeApi({ status: [{ status: 503 }] }) })
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(all(yield* recovery.reports), ["Attached open", "Attached open", "Attached open"])
      const leases = yield* over(store, Recovery.makeLeases())
      yield* leases.update("7", (entry) => ({ ...entry, finalised: { reason: "Gone", at: 0 } }))
      yield* leases.remove("8")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(all(yield* recovery.reports), ["Finalised Gone", "Attached open"])
    }).pipe(Effect.scoped))

  it.effect("closing its scope ends it, whatever it is doing", () =>
    Effect.gen(function*() {
      const store = makeStore()
      yield* prepared(store, "7")
      const api = makeApi({ status: ["hang"] })
      const scope = yield* Scope.make()
      const recovery = yield* Scope.provide(running(store, { api }), scope)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(api.received.length, 1)
      yield* Scope.close(scope, Exit.void)
      // Who waits is answered.
      assert.deepStrictEqual(yield* recovery.first, [])
      yield* TestClock.adjust("1 day")
      assert.strictEqual(api.received.length, 1)
    }))
})

it("no secret is in what was logged and reported", () => {
  assert.isAbove(output.length, 100)
  const told = output.filter((line) => line.includes(canary))
  assert.deepStrictEqual(told, [])
})
