// The operator that discharges a rejected credential, and the scenarios of a program that comes back by its key.
import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import * as Credential from "effect-lifeline/Credential"
import { AuthFailed, LeaseLost, Transient } from "effect-lifeline/LifelineError"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import type { Answer, FakeServer } from "./support/credentials.ts"
import {
  during,
  errorOf,
  hour,
  make,
  makeServer,
  makeStore,
  managed,
  providers,
  recordOf,
  shown,
  supplied,
  token,
  unauthorized,
  unavailable,
  url
} from "./support/credentials.ts"

type Service = Credential.Credential["Service"]

const isAuthFailed = (error: unknown): AuthFailed => {
  assert.instanceOf(error, AuthFailed)
  return error
}

const beat = (server: FakeServer, credential: Service) =>
  Effect.provideService(Credential.revive(server.beat), Credential.Credential, credential)

const refusedRefresh = Classify.make("Unauthorized", { operation: "refresh", target: url, detail: "expired_token" })
const goneLease = Classify.make("LeaseExpired", { operation: "heartbeat", target: url })
const refusedRevival = Classify.make("Conflict", { operation: "heartbeat", target: url, detail: "revived too often" })

describe("scenarios: status 401, refresh 401", () => {
  it.effect("R1: managed, the heartbeat revives: the token is kept with jti and expiry, one heartbeat", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t2")
      const credential = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [refusedRefresh], revive: [token("t2", 2 * hour)] })
      })
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof", "revive proof", "beat DPoP t2"])
      assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t2", 2 * hour))
      assert.isUndefined(recordOf(store, "claim"))
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
    }))

  it.effect("R2: the lease is gone: the token is deleted, and the error says so", () =>
    Effect.gen(function*() {
      for (const as of ["LeaseLost", "AuthFailed"] as const) {
        const store = makeStore()
        const server = makeServer()
        const credential = yield* make(store, {
          token: token("t1", hour),
          ...providers(server, { refresh: [refusedRefresh], revive: [goneLease] })
        })
        const run = Effect.provideService(server.beat, Credential.Credential, credential)
        const guarded: Effect.Effect<string, unknown> = as === "LeaseLost"
          ? credential.guard(run)
          : credential.discharge(run)
        const error = errorOf(yield* during(guarded, 200))
        if (as === "LeaseLost") assert.strictEqual(error, goneLease)
        else {
          assert.deepStrictEqual(
            Credential.causes(isAuthFailed(error)).map(({ error, tried }) => [tried, error._tag]),
            [["request", "AuthFailed"], ["refresh", "AuthFailed"], ["revival", "LeaseLost"]]
          )
        }
        assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof", "revive proof"])
        assert.isUndefined(yield* credential.token)
        assert.isUndefined(recordOf(store, "token"))
        // From now on it is somebody who has the key, and no lease.
        server.accepts.add("proof")
        assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("proof"))
      }
    }))

  it.effect("R3: supplied, though there is a way to revive: it is not used, and that is the end", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        provenance: supplied,
        token: token("t1", hour),
        ...providers(server, { revive: [token("t2", hour)] })
      })
      const error = isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      assert.strictEqual(error.reason._tag, "Unauthorized")
      assert.strictEqual((yield* Effect.flip(credential.revive)).reason._tag, "CredentialMissing")
      yield* during(beat(server, credential), 200)
      assert.deepStrictEqual(server.received, ["beat Bearer t1"])
    }))

  it.effect.each<readonly [string, Answer<Transient>]>([
    ["503", unavailable("heartbeat")],
    ["a network error", Classify.make("Unreachable", { operation: "heartbeat", target: url, detail: "ECONNREFUSED" })],
    ["a hang", "hang"],
    ["a defect", Effect.die(new Error("defect"))]
  ])(
    "R4: the heartbeat meets %s: Transient, the token is kept, and it is tried again, the refresh is not",
    ([, answer]) =>
      Effect.gen(function*() {
        const store = makeStore()
        const server = makeServer("DPoP t2")
        const provided = providers(server, {
          refresh: [refusedRefresh],
          revive: [answer, answer, token("t2", 2 * hour)]
        })
        const credential = yield* make(store, { token: token("t1", hour), ...provided })
        for (let n = 0; n < 2; n++) {
          assert.instanceOf(errorOf(yield* during(beat(server, credential), 11_000)), Transient)
          assert.deepStrictEqual(yield* credential.token, token("t1", hour))
          assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t1", hour))
        }
        assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
        assert.deepStrictEqual(server.received, [
          "beat DPoP t1",
          "refresh proof",
          "revive proof",
          "revive proof",
          "revive proof",
          "beat DPoP t2"
        ])
        assert.strictEqual(new Set(provided.keys.slice(1)).size, 1)
      })
  )

  it.effect("R6: rejected but unexpired: it is never sent again, not even by the next process", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const options = {
        ...providers(server, { refresh: [unavailable("refresh"), refusedRefresh], revive: [refusedRevival] })
      }
      const first = yield* make(store, { token: token("t1", hour), ...options })
      for (let n = 0; n < 3; n++) yield* during(beat(server, first), 1000)
      const second = yield* make(store, { token: token("t1", hour), ...options })
      for (let n = 0; n < 3; n++) isAuthFailed(errorOf(yield* during(beat(server, second), 1000)))
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof", "refresh proof", "revive proof"])
    }))

  it.effect.each([0, 5, 20])(
    "R7: two processes at once, over a store that takes up to %i ms: one refresh, one revival",
    (latency) =>
      Effect.gen(function*() {
        for (let seed = 0; seed < 20; seed++) {
          const store = makeStore()
          const server = makeServer("DPoP t2")
          const provided = providers(server, {
            refresh: [Effect.andThen(Effect.sleep(300), Effect.fail(refusedRefresh))],
            revive: [Effect.as(Effect.sleep(300), token("t2", 2 * hour))]
          })
          yield* (yield* make(store, {})).accept(token("t1", hour))
          const boots = [yield* make(store, provided), yield* make(store, provided), yield* make(store, provided)]
          store.before = () =>
            latency === 0 ? Effect.void : Effect.flatMap(Random.nextBetween(0, latency), Effect.sleep)
          const fibers = yield* Effect.forEach(boots, (credential) =>
            Effect.forkChild(Effect.andThen(
              Effect.flatMap(Random.nextBetween(0, 60), Effect.sleep),
              beat(server, credential)
            ))).pipe(Random.withSeed(`${latency} ${seed}`))
          for (let n = 0; n < 200; n++) yield* TestClock.adjust(50)
          for (const fiber of fibers) assert.strictEqual(yield* Fiber.join(fiber), "DPoP t2")
          assert.deepStrictEqual(server.received.filter((it) => !it.startsWith("beat")), [
            "refresh proof",
            "revive proof"
          ])
          assert.deepStrictEqual(server.received.filter((it) => it === "beat DPoP t2").length, 3)
        }
      })
  )
})

describe("at most one refresh, at most one revival, then fatal", () => {
  it.effect("a refresh is enough", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t2", 2 * hour), token("t3", 3 * hour)], revive: [refusedRevival] })
      })
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof", "beat DPoP t2"])
      // It worked, so the next 401 is another one.
      server.accepts.clear()
      server.accepts.add("DPoP t3")
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t3"))
      assert.deepStrictEqual(server.received.slice(3), ["beat DPoP t2", "refresh proof", "beat DPoP t3"])
    }))

  it.effect("each new token is rejected, too: one of each, also over many calls and a restart, with all causes", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const provided = providers(server, { refresh: [token("t2", 2 * hour)], revive: [token("t3", 3 * hour)] })
      const credential = yield* make(store, { token: token("t1", hour), ...provided })
      const error = isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      const all = ["beat DPoP t1", "refresh proof", "beat DPoP t2", "revive proof", "beat DPoP t3"]
      assert.deepStrictEqual(server.received, all)
      assert.strictEqual(error.operation, "beat")
      assert.strictEqual(error.reason._tag, "Unauthorized")
      assert.deepStrictEqual(Credential.causes(error).map((step) => step.tried), ["request", "request", "request"])
      assert.strictEqual(
        isAuthFailed(errorOf(yield* during(beat(server, credential), 200))).reason._tag,
        "Unauthorized"
      )
      const next = yield* make(store, { token: token("t1", hour), ...provided })
      const again = isAuthFailed(errorOf(yield* during(beat(server, next), 200)))
      assert.include(again.message, "rejected before")
      assert.deepStrictEqual(server.received, all)
      // Another token is another credential.
      server.accepts.add("DPoP t5")
      yield* next.accept(token("t4", hour))
      yield* next.accept(token("t5", hour))
      assert.deepStrictEqual(yield* during(beat(server, next), 200), Exit.succeed("DPoP t5"))
    }))

  it.effect("the error has everything that was tried, in order, in its causes, its text and its JSON", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [refusedRefresh], revive: [refusedRevival] })
      })
      const error = isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      assert.deepStrictEqual(
        Credential.causes(error).map(({ error, tried }) => [tried, error._tag, error.reason._tag]),
        [
          ["request", "AuthFailed", "Unauthorized"],
          ["refresh", "AuthFailed", "Unauthorized"],
          ["revival", "Refused", "Conflict"]
        ]
      )
      assert.instanceOf(error.cause, Credential.Spent)
      assert.strictEqual(error.cause?.cause, refusedRevival)
      const text = Cause.pretty(Cause.fail(error))
      for (const words of ["invalid_token", "expired_token", "revived too often"]) assert.include(text, words)
      assert.include(JSON.stringify(error.cause), "revived too often")
    }))

  it.effect("without a way to refresh or revive the error is that of the request, and nothing more is sent", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), { provenance: supplied, token: token("t1", hour) })
      const first = isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      assert.deepStrictEqual(Credential.causes(first), [])
      assert.include(first.message, "invalid_token")
      assert.strictEqual(errorOf(yield* during(beat(server, credential), 200)), first)
      assert.deepStrictEqual(server.received, ["beat Bearer t1"])
    }))

  it.effect("managed without a way to revive: the request itself is sent once with the proof alone", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const store = makeStore()
      const credential = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [refusedRefresh] })
      })
      for (let n = 0; n < 3; n++) isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      const all = ["beat DPoP t1", "refresh proof", "beat proof"]
      assert.deepStrictEqual(server.received, all)
      yield* credential.accept(token("t2", hour))
      server.accepts.add("proof")
      for (let n = 0; n < 3; n++) {
        assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("proof"))
      }
      assert.deepStrictEqual(server.received.slice(3), [
        "beat DPoP t2",
        "refresh proof",
        "beat proof",
        "beat proof",
        "beat proof"
      ])
      assert.isUndefined(recordOf(store, "token"))
    }))

  it.effect("a key whose proof alone is rejected is revived once, then that is the end for this process", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const store = makeStore()
      const provided = providers(server, { revive: [refusedRevival] })
      const credential = yield* make(store, provided)
      for (let n = 0; n < 3; n++) isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      assert.deepStrictEqual(server.received, ["beat proof", "revive proof"])
      // Another process asks once more: by then the key may stand for something.
      yield* credential.reject(token("t0"))
      server.accepts.add("proof")
      const next = yield* make(store, provided)
      assert.deepStrictEqual(yield* during(beat(server, next), 200), Exit.succeed("proof"))
    }))

  it.effect("an expired token: the proof alone, and then as if it was rejected", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const credential = yield* make(makeStore(), {
        token: token("t1", 0),
        ...providers(server, { revive: [token("t2", hour)] })
      })
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, ["beat proof", "revive proof", "beat DPoP t2"])
    }))

  it.effect("Transient of a refresh surfaces, is not counted, and the rejected token is not sent meanwhile", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, {
          refresh: [unavailable("refresh"), "hang", unavailable("refresh"), token("t2", hour)],
          revive: [refusedRevival]
        })
      })
      for (let n = 0; n < 3; n++) assert.instanceOf(errorOf(yield* during(beat(server, credential), 11_000)), Transient)
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, [
        "beat DPoP t1",
        "refresh proof",
        "refresh proof",
        "refresh proof",
        "refresh proof",
        "beat DPoP t2"
      ])
    }))
})

describe("what is no business of it", () => {
  const others = [
    Classify.make("Forbidden", { operation: "beat", target: url }),
    Classify.make("ProofRejected", { operation: "beat", target: url }),
    Classify.make("CredentialMissing", { operation: "beat", target: url }),
    unavailable("beat"),
    Classify.make("InvalidRequest", { operation: "beat", target: url }),
    Classify.make("UnknownLease", { operation: "beat", target: url }),
    "another error"
  ]
  it.effect.each(others)("passes: %s", (failure) =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t2", hour)], revive: [token("t3", hour)] })
      })
      const run = Effect.andThen(credential.authorize({ method: "GET", url }), Effect.fail(failure))
      assert.strictEqual(errorOf(yield* during(credential.discharge(run), 200)), failure)
      assert.deepStrictEqual(server.received, [])
      assert.isFalse(yield* credential.isRejected(token("t1")))
    }))

  it.effect("a LeaseLost of the effect itself is not one of a revival", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const credential = yield* make(store, { token: token("t1", hour) })
      const error = errorOf(yield* during(credential.discharge(Effect.fail(goneLease)), 0))
      assert.instanceOf(error, LeaseLost)
      assert.isDefined(recordOf(store, "token"))
    }))
})

describe("many at once", () => {
  it.effect("callers that are rejected together share one refresh, and each is sent again once", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [Effect.as(Effect.sleep(1000), token("t2", hour))] })
      })
      const slow = credential.discharge(
        Effect.flatMap(Effect.sleep(10), () => Effect.provideService(server.beat, Credential.Credential, credential))
          .pipe(
            Effect.tapError(() => Effect.sleep(10))
          )
      )
      const fibers = yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkChild(slow))
      yield* TestClock.adjust(500)
      yield* Fiber.interrupt(fibers[0] ?? assert.fail())
      yield* TestClock.adjust(1000)
      for (const fiber of fibers.slice(1)) assert.strictEqual(yield* Fiber.join(fiber), "DPoP t2")
      assert.deepStrictEqual(server.received, [
        "beat DPoP t1",
        "beat DPoP t1",
        "beat DPoP t1",
        "beat DPoP t1",
        "refresh proof",
        "beat DPoP t2",
        "beat DPoP t2",
        "beat DPoP t2"
      ])
    }))

  it.effect("a late 401 is about the token that was sent, not about the one there is by then", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t3", hour)] })
      })
      const answered = yield* Deferred.make<void>()
      let first = true
      const slow = Effect.gen(function*() {
        const { headers } = yield* credential.authorize({ method: "GET", url })
        server.received.push(`slow ${shown(headers)}`)
        if (first) {
          first = false
          yield* Deferred.await(answered)
          return yield* unauthorized("slow")
        }
        return shown(headers)
      })
      const fiber = yield* Effect.forkChild(credential.discharge(slow))
      yield* TestClock.adjust(0)
      yield* credential.accept(token("t2", hour))
      yield* Deferred.succeed(answered, undefined)
      yield* TestClock.adjust(200)
      assert.strictEqual(yield* Fiber.join(fiber), "DPoP t2")
      assert.isTrue(yield* credential.isRejected(token("t1")))
      assert.isFalse(yield* credential.isRejected(token("t2")))
      assert.deepStrictEqual(server.received, ["slow DPoP t1", "slow DPoP t2"])
    }))

  it.effect("a late success of a token that was replaced since is none of the one there is by then", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t2", hour), token("t3", hour)], revive: [refusedRevival] })
      })
      const answered = yield* Deferred.make<void>()
      const slow = yield* Effect.forkChild(credential.discharge(
        Effect.andThen(credential.authorize({ method: "GET", url }), Deferred.await(answered))
      ))
      yield* TestClock.adjust(0)
      isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      yield* Deferred.succeed(answered, undefined)
      yield* Fiber.join(slow)
      server.received.length = 0
      isAuthFailed(errorOf(yield* during(beat(server, credential), 200)))
      assert.deepStrictEqual(server.received, [])
    }))

  it.effect("the token that is changed between the start and the sending is the one that is rejected", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t3")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t3", hour)] })
      })
      let first = true
      const changing = Effect.suspend(() => {
        const before = first ? Effect.ignore(credential.accept(token("t2", hour))) : Effect.void
        first = false
        return Effect.andThen(before, Effect.provideService(server.beat, Credential.Credential, credential))
      })
      assert.deepStrictEqual(yield* during(credential.discharge(changing), 200), Exit.succeed("DPoP t3"))
      assert.isFalse(yield* credential.isRejected(token("t1")))
      assert.deepStrictEqual(server.received, ["beat DPoP t2", "refresh proof", "beat DPoP t3"])
    }))

  it.effect("an effect that asks the credential for nothing is taken to have sent its token", () =>
    Effect.gen(function*() {
      const credential = yield* make(makeStore(), { provenance: supplied, token: token("t1", hour) })
      yield* during(credential.discharge(Effect.fail(unauthorized("beat"))), 0)
      assert.isTrue(yield* credential.isRejected(token("t1")))
    }))

  it.effect("another process was faster: its token is adopted, and nothing is refreshed", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t2")
      const provided = providers(server, { refresh: [token("t9", hour)] })
      const here = yield* make(store, { token: token("t1", hour), ...provided })
      const there = yield* make(store, {})
      yield* there.accept(token("t2", 2 * hour))
      assert.deepStrictEqual(yield* during(beat(server, here), 200), Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "beat DPoP t2"])
      assert.deepStrictEqual(yield* here.token, token("t2", 2 * hour))
    }))

  it.effect("another process was through between a look at the token and one at its claim: nothing is done again", () =>
    Effect.gen(function*() {
      for (const result of ["token", "spent"]) {
        const store = makeStore()
        const server = makeServer("DPoP t2")
        const here = yield* make(store, {
          token: token("t1", hour),
          ...providers(server, { refresh: [token("t9", hour)] })
        })
        const there = yield* make(store, {
          refresh: () => result === "token" ? Effect.succeed(token("t2", hour)) : Effect.fail(refusedRefresh)
        })
        yield* here.reject(token("t1"))
        yield* there.reject(token("t1"))
        let looked = false
        store.before = (method, key) =>
          Effect.suspend(() => {
            if (looked || method !== "get" || !key.includes("claim")) return Effect.void
            looked = true
            return Effect.ignore(there.refresh)
          })
        const exit = yield* during(beat(server, here), 1000)
        assert.deepStrictEqual(server.received, result === "token" ? ["beat DPoP t2"] : ["beat proof"])
        assert.strictEqual(Exit.isSuccess(exit), result === "token")
        assert.isUndefined(recordOf(store, "claim"))
      }
    }))

  it.effect("what another process spent in vain meanwhile is not spent again", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const provided = providers(server, {
        refresh: [unavailable("refresh"), refusedRefresh],
        revive: [unavailable("heartbeat")]
      })
      const here = yield* make(store, { token: token("t1", hour), ...provided })
      const there = yield* make(store, provided)
      for (const credential of [there, here, there, here]) {
        assert.instanceOf(errorOf(yield* during(beat(server, credential), 200)), Transient)
      }
      assert.deepStrictEqual(server.received, [
        "beat DPoP t1",
        "refresh proof",
        "beat DPoP t1",
        "refresh proof",
        "revive proof",
        "revive proof",
        "revive proof"
      ])
    }))

  it.effect("who is told of a rejection that is known already does not undo what was spent meanwhile", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const provided = providers(server, { refresh: [Effect.delay(refusedRefresh, 500)] })
      const here = yield* make(store, { token: token("t1", hour), ...provided })
      const there = yield* make(store, provided)
      const first = yield* Effect.forkChild(Effect.exit(beat(server, here)))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof"])
      // Whatever it writes is from before, and comes after.
      let isSlow = true
      store.before = (method, key) => {
        if (!isSlow || method !== "set" || key !== "credential/state/lease") return Effect.void
        isSlow = false
        return Effect.sleep(2000)
      }
      const second = yield* Effect.forkChild(Effect.exit(beat(server, there)))
      yield* TestClock.adjust(4000)
      isAuthFailed(errorOf(yield* Fiber.join(first)))
      isAuthFailed(errorOf(yield* Fiber.join(second)))
      assert.deepStrictEqual(server.received.filter((line) => line.startsWith("refresh")), ["refresh proof"])
    }))

  it.effect("who wants to refresh a token that another process is reviving waits for that one", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t2")
      const { revive } = providers(server, { revive: [Effect.delay(Effect.succeed(token("t2", hour)), 3000)] })
      const { refresh } = providers(server, { refresh: [token("t9", hour)] })
      const here = yield* make(store, { token: token("t1", hour), ...revive && { revive } })
      const there = yield* make(store, { ...refresh && { refresh } })
      const first = yield* Effect.forkChild(beat(server, here))
      yield* TestClock.adjust(100)
      const second = yield* Effect.forkChild(there.refresh)
      yield* TestClock.adjust(4000)
      assert.strictEqual(yield* Fiber.join(first), "DPoP t2")
      assert.strictEqual((yield* Fiber.join(second)).jti, "jti of t2")
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "revive proof", "beat DPoP t2"])
      assert.isUndefined(recordOf(store, "claim"))
    }))

  it.effect("a refresh ahead of the expiry is no answer to a 401: the new token may be refreshed when it comes to one", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t3")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t2", hour), token("t3", hour)], revive: [refusedRevival] })
      })
      yield* during(credential.refresh, 200)
      assert.deepStrictEqual(yield* during(beat(server, credential), 200), Exit.succeed("DPoP t3"))
      assert.deepStrictEqual(server.received, ["refresh DPoP t1", "beat DPoP t2", "refresh proof", "beat DPoP t3"])
    }))

  it.effect("another process deleted it: a stale copy does not bring it back", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const here = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t9", hour)] })
      })
      const there = yield* make(store, {})
      yield* there.clear
      isAuthFailed(errorOf(yield* during(beat(server, here), 200)))
      assert.deepStrictEqual(server.received, ["beat DPoP t1", "beat proof"])
      assert.isUndefined(recordOf(store, "token"))
    }))

  it.effect("a process that died with its claim is waited for, then followed with the same key", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t2")
      const provided = providers(server, { refresh: [token("t2", hour)] })
      const credential = yield* make(store, { token: token("t1", hour), ...provided })
      const stuck = yield* make(store, { refresh: () => Effect.never })
      const crashed = yield* Effect.forkChild(stuck.refresh)
      yield* TestClock.adjust(100)
      const { idempotencyKey } = recordOf(store, "claim") as { readonly idempotencyKey: string }
      const fiber = yield* Effect.forkChild(beat(server, credential))
      yield* TestClock.adjust(5000)
      assert.deepStrictEqual(server.received, ["beat DPoP t1"])
      yield* TestClock.adjust(8000)
      assert.strictEqual(yield* Fiber.join(fiber), "DPoP t2")
      assert.deepStrictEqual(provided.keys, [idempotencyKey])
      yield* Fiber.interrupt(crashed)
    }))
})

describe("a process that is started for one request", () => {
  it.effect("does first what is due: the schedule of the others has no time", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t1", "DPoP t2")
      yield* (yield* make(store, {})).accept(token("t1", hour))
      yield* TestClock.adjust(55 * 60_000)
      const exit = yield* Effect.scoped(Effect.gen(function*() {
        const credential = yield* make(store, providers(server, { refresh: [token("t2", 2 * hour)] }))
        return yield* during(beat(server, credential), 200)
      }))
      assert.deepStrictEqual(exit, Exit.succeed("DPoP t2"))
      assert.deepStrictEqual(server.received, ["refresh DPoP t1", "beat DPoP t2"])
    }))

  it.effect("and goes on with the token it has where that fails", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t1")
      yield* (yield* make(store, {})).accept(token("t1", hour))
      yield* TestClock.adjust(55 * 60_000)
      const credential = yield* make(store, providers(server, { refresh: ["hang"] }))
      assert.deepStrictEqual(yield* during(beat(server, credential), 10_100), Exit.succeed("DPoP t1"))
    }))
})

describe("whatever happens", () => {
  const Step = Schema.Literals(["ok", "reject", "transient", "forbid", "restart", "wait", "accept"])
  const Provided = Schema.Literals(["new", "again", "transient", "hang", "auth", "refused", "lost", "die"])

  it.effect.prop(
    "no token is sent after it was rejected, each rejection is answered by one refresh and one revival at most",
    [Schema.Array(Step), Schema.Array(Provided), Schema.Boolean],
    ([steps, answers, isManaged]) =>
      Effect.scoped(Effect.gen(function*() {
        const store = makeStore()
        const rejected = new Set<string>()
        const log: Array<string> = []
        let count = 0
        let next = 0
        let mode: typeof Step.Type = "ok"
        const violations: Array<string> = []
        const fresh = () => token(`t${++count}`)
        const provide = (operation: string) => (context: Credential.Authorizer) =>
          Effect.gen(function*() {
            const { headers } = yield* context.authorize({ method: "POST", url })
            if (rejected.has(shown(headers))) violations.push(`${operation} sent ${shown(headers)}`)
            log.push(operation)
            switch (answers.length === 0 ? "new" : answers[next++ % answers.length]) {
              case "again":
                return token(`t${count}`)
              case "transient":
                return yield* unavailable(operation)
              case "hang":
                return yield* Effect.never
              case "auth":
                if (shown(headers) !== "proof") rejected.add(shown(headers))
                return yield* unauthorized(operation)
              case "refused":
                return yield* Classify.make("Conflict", { operation, target: url })
              case "lost":
                return yield* (operation === "revive" ? Effect.fail(goneLease) : unauthorized(operation))
              case "die":
                return yield* Effect.die("defect")
              default:
                return fresh()
            }
          })
        const options = {
          provenance: isManaged ? managed : supplied,
          refresh: (context: Credential.RefreshContext) =>
            Effect.catchTag(provide("refresh")(context), "LeaseLost", () => Effect.never),
          revive: provide("revive")
        }
        const request = (credential: Service) =>
          Effect.gen(function*() {
            const { headers } = yield* credential.authorize({ method: "PUT", url })
            const sent = shown(headers)
            if (rejected.has(sent)) violations.push(`sent ${sent} again`)
            log.push("request")
            if (mode === "transient") return yield* unavailable("beat")
            if (mode === "forbid") return yield* Classify.make("Forbidden", { operation: "beat", target: url })
            if (mode === "reject") {
              if (sent !== "proof") rejected.add(sent)
              return yield* unauthorized("beat")
            }
            return sent
          })
        let credential = yield* make(store, { ...options, token: fresh() })
        for (const step of steps) {
          if (step === "restart") credential = yield* make(store, options)
          else if (step === "wait") yield* TestClock.adjust(hour)
          else if (step === "accept") yield* credential.accept(fresh())
          else {
            mode = step
            log.length = 0
            yield* during(credential.guard(request(credential)), 60_000)
            assert.deepStrictEqual(violations, [])
            assert.isAtMost(log.filter((it) => it === "refresh").length, 1)
            assert.isAtMost(log.filter((it) => it === "revive").length, isManaged ? 1 : 0)
            assert.isAtMost(log.filter((it) => it === "request").length, 4)
          }
        }
      })),
    { arbitrary: { runs: 300, concurrency: 1 } }
  )
})
