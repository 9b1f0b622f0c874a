import { assert, describe, it } from "@effect/vitest"
import * as Cipher from "effect-lifeline/Cipher"
import * as Classify from "effect-lifeline/Classify"
import * as Credential from "effect-lifeline/Credential"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type { TestStore } from "./support/credentials.ts"
import {
  during,
  errorOf,
  hour,
  logged,
  make,
  makeServer,
  makeStore,
  managed,
  minute,
  providers,
  recordOf,
  shown,
  storeFailed,
  supplied,
  token,
  unauthorized,
  unavailable,
  url
} from "./support/credentials.ts"
import { fiberCounter } from "./support/leaks.ts"

const run = <A, E>(effect: Effect.Effect<A, E, Credential.Credential>, credential: Credential.Credential["Service"]) =>
  Effect.provideService(effect, Credential.Credential, credential)

const presents = (credential: Credential.Credential["Service"]) =>
  Effect.map(credential.authorize({ method: "GET", url }), ({ headers }) => shown(headers))

describe("the ladder", () => {
  it.effect("1. a token that is present, not rejected, and does not expire within 30 s", () =>
    Effect.gen(function*() {
      for (const provenance of [managed, supplied]) {
        const store = makeStore()
        const credential = yield* make(store, { provenance, token: token("t1", 30_001) })
        const { headers, presented } = yield* credential.authorize({ method: "GET", url })
        assert.strictEqual(shown(headers), provenance === managed ? "DPoP t1" : "Bearer t1")
        assert.deepStrictEqual(
          Object.keys(headers).toSorted(),
          provenance === managed ? ["authorization", "dpop"] : ["authorization"]
        )
        assert.deepStrictEqual(presented, { _tag: "Token", token: token("t1", 30_001), stale: false })
      }
    }))

  it.effect("2. the managed key with a proof: none, stale, expired, rejected", () =>
    Effect.gen(function*() {
      const none = yield* make(makeStore(), {})
      assert.strictEqual(yield* presents(none), "proof")
      const stale = yield* make(makeStore(), { token: token("t1", 30_000) })
      assert.strictEqual(yield* presents(stale), "proof")
      const rejected = yield* make(makeStore(), { token: token("t1", hour) })
      assert.strictEqual(yield* presents(rejected), "DPoP t1")
      yield* rejected.reject(token("t1"))
      assert.strictEqual(yield* presents(rejected), "proof")
      assert.deepStrictEqual((yield* rejected.authorize({ method: "GET", url })).presented, { _tag: "Proof" })
      assert.isTrue(yield* rejected.isRejected(token("t1")))
      assert.isFalse(yield* rejected.isRejected(token("t2")))
    }))

  it.effect("3. the stale token, with a warning, once for each token", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      yield* Effect.gen(function*() {
        const credential = yield* make(makeStore(), { provenance: supplied, token: token("t1", 30_000) })
        assert.strictEqual(yield* presents(credential), "Bearer t1")
        assert.strictEqual(yield* presents(credential), "Bearer t1")
        assert.deepStrictEqual(lines, [
          "the token expires at 1970-01-01T00:00:30.000Z and there is no newer one: it is sent all the same"
        ])
        yield* TestClock.adjust(minute)
        yield* credential.accept(token("t2", minute - 1))
        const { presented } = yield* credential.authorize({ method: "GET", url })
        assert.isTrue(presented._tag === "Token" && presented.stale)
        yield* presents(credential)
        assert.strictEqual(lines.length, 2)
        assert.include(lines[1], "expired at 1970-01-01T00:00:59.999Z")
      }).pipe(Effect.provide(logged(lines, "Warn")))
    }))

  it.effect("4. nothing: CredentialMissing, and no request is sent; a rejected token does not count as stale", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), { provenance: supplied })
      const error = yield* Effect.flip(run(server.beat, credential))
      assert.strictEqual(error.reason._tag, "CredentialMissing")
      yield* credential.accept(token("t1", hour))
      yield* credential.reject(token("t1"))
      assert.strictEqual((yield* Effect.flip(run(server.beat, credential))).reason._tag, "CredentialMissing")
      yield* TestClock.adjust(2 * hour)
      assert.strictEqual((yield* Effect.flip(run(server.beat, credential))).reason._tag, "CredentialMissing")
      assert.deepStrictEqual(server.received, [])
    }))

  it.effect("a token that was selected is not sent any more once it was rejected", () =>
    Effect.gen(function*() {
      const credential = yield* make(makeStore(), { token: token("t1", hour) })
      const presented = yield* credential.select
      yield* credential.reject(token("t1"))
      const { headers } = yield* credential.authorize({ method: "GET", url, presented })
      assert.strictEqual(shown(headers), "proof")
    }))

  it.effect("what cannot be sent is not: blank tokens, line breaks, URLs that are none", () =>
    Effect.gen(function*() {
      for (const provenance of [managed, supplied]) {
        for (const value of [" ", "a\nb", "a\u0100"]) {
          const credential = yield* make(makeStore(), { provenance })
          yield* credential.accept(token(value, hour))
          const error = yield* Effect.flip(presents(credential))
          assert.strictEqual(error.reason._tag, "Unauthorized")
        }
      }
      const credential = yield* make(makeStore(), { provenance: supplied, token: token("t1") })
      assert.strictEqual(
        shown((yield* credential.authorize({ method: "GET", url: "wss://host/live" })).headers),
        "Bearer t1"
      )
      for (const url of ["/relative", "ftp://host/", "nonsense"]) {
        const error = yield* Effect.flip(credential.authorize({ method: "GET", url }))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
      }
    }))
})

describe("what is kept", () => {
  it.effect("a token is there after a restart, with its jti and expiry, and rejected ones are known", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const first = yield* make(store, {})
      yield* first.accept(token("t1", hour))
      const second = yield* make(store, {})
      assert.deepStrictEqual(yield* second.token, token("t1", hour))
      yield* second.reject(token("t1"))
      const third = yield* make(store, {})
      assert.isTrue(yield* third.isRejected(token("t1")))
      assert.strictEqual(yield* presents(third), "proof")
      assert.notInclude(JSON.stringify(recordOf(store, "state")), "t1")
    }))

  it.effect("an expiry that is no time counts as none", () =>
    Effect.gen(function*() {
      for (const expiresAt of [NaN, Infinity, -Infinity, 1e300]) {
        const store = makeStore()
        const credential = yield* make(store, {
          provenance: supplied,
          token: token("t1", expiresAt),
          refresh: () => Effect.succeed(token("t2", expiresAt))
        })
        assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t1"))
        assert.deepStrictEqual(yield* during(credential.refresh, 50), Exit.succeed(token("t2")))
        assert.strictEqual(yield* presents(credential), "Bearer t2")
      }
    }))

  it.effect("clear deletes all of it", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const credential = yield* make(store, { provenance: supplied, token: token("t1") })
      yield* credential.reject(token("t0"))
      assert.isAbove(store.entries.size, 1)
      yield* credential.clear
      assert.strictEqual(store.entries.size, 0)
      assert.isUndefined(yield* credential.token)
      assert.strictEqual((yield* Effect.flip(presents(credential))).reason._tag, "CredentialMissing")
    }))

  it.effect("a token to begin with: behind what is kept, before it once it is another one", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const valueOf = (credential: Credential.Credential["Service"]) =>
        Effect.map(credential.token, (token) => token && Redacted.value(token.value))
      const first = yield* make(store, { token: token("seed 1") })
      yield* first.accept(token("t1"))
      assert.strictEqual(yield* valueOf(yield* make(store, { token: token("seed 1") })), "t1")
      assert.strictEqual(yield* valueOf(yield* make(store, {})), "t1")
      assert.strictEqual(yield* valueOf(yield* make(store, { token: token("seed 2") })), "seed 2")
      assert.strictEqual(yield* valueOf(yield* make(store, { token: token("seed 2") })), "seed 2")
    }))

  it.effect("encrypted with a cipher: nothing of it can be read, and another key is a fresh start with a warning", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const cipher = Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(7)))
      const store = makeStore()
      const first = yield* make(store, { cipher, token: token("canary-token", hour) })
      yield* first.reject(token("t0"))
      for (const text of store.entries.values()) {
        assert.notInclude(text, "canary")
        assert.notInclude(atob((JSON.parse(text) as { readonly data: string }).data), "canary")
      }
      assert.deepStrictEqual(yield* (yield* make(store, { cipher })).token, token("canary-token", hour))
      const other = Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(8)))
      const fresh = yield* make(store, { cipher: other }).pipe(Effect.provide(logged(lines, "Warn")))
      assert.isUndefined(yield* fresh.token)
      assert.strictEqual(lines.length, 1)
      // A record moved to another place is not taken for what it is not.
      const moved = store.entries.get("credential/token/lease") ?? ""
      store.entries.set("credential/token/other", moved)
      assert.isUndefined(yield* (yield* make(store, { cipher, name: "other" })).token)
    }))

  it.effect.each([
    ["no JSON", "{"],
    ["another version", JSON.stringify({ version: 2, data: btoa("{}") })],
    ["no base64", JSON.stringify({ version: 1, data: "%%%" })],
    ["not what it should be", JSON.stringify({ version: 1, data: btoa(JSON.stringify({ value: 7 })) })],
    [
      "a blank token",
      JSON.stringify({ version: 1, data: btoa(JSON.stringify({ value: "", revision: 1, acceptedAt: 0 })) })
    ],
    ["nothing", ""]
  ])("corrupt (%s): a fresh start with a warning, and then as ever", ([, text = ""]) =>
    Effect.gen(function*() {
      for (const kind of ["token", "state", "claim"]) {
        const lines: Array<string> = []
        const store = makeStore()
        store.entries.set(`credential/${kind}/lease`, text)
        const server = makeServer("DPoP t1")
        const credential = yield* make(store, providers(server, { refresh: [token("t1", hour)] })).pipe(
          Effect.provide(logged(lines, "Warn"))
        )
        assert.isUndefined(yield* credential.token)
        assert.strictEqual(lines.length, kind === "claim" ? 0 : 1)
        yield* credential.accept(token("t0", hour))
        yield* credential.reject(token("t0"))
        const exit = yield* during(run(Credential.revive(server.beat), credential), 100)
        assert.deepStrictEqual(exit, Exit.succeed("DPoP t1"))
        assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t1", hour))
      }
    }))

  it.effect("a store that cannot be read is an error, one that cannot be written costs the persistence", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const store = makeStore()
      store.before = () => Effect.fail(storeFailed)
      assert.strictEqual((yield* Effect.flip(make(store, {})))._tag, "KeyValueStoreError")
      store.before = () => Effect.never
      const hanging = yield* during(make(store, {}), 5000)
      assert.strictEqual(errorOf(hanging)._tag, "KeyValueStoreError")
      store.before = (method) => method === "get" ? Effect.void : Effect.fail(storeFailed)
      const credential = yield* make(store, { token: token("t1") }).pipe(Effect.provide(logged(lines, "Warn")))
      assert.strictEqual(lines.length, 1)
      assert.strictEqual(yield* presents(credential), "DPoP t1")
      assert.strictEqual((yield* Effect.flip(credential.accept(token("t2"))))._tag, "KeyValueStoreError")
      assert.strictEqual(yield* presents(credential), "DPoP t2")
      yield* credential.reject(token("t2"))
      assert.strictEqual(yield* presents(credential), "proof")
      assert.strictEqual((yield* Effect.flip(credential.clear))._tag, "KeyValueStoreError")
    }))

  it.effect("changes: one for each new token, and when it is deleted", () =>
    Effect.gen(function*() {
      const credential = yield* make(makeStore(), {})
      let changes = 0
      yield* Effect.forkScoped(
        Stream.runForEach(Credential.info(credential).changes ?? Stream.empty, () => Effect.sync(() => changes++)),
        { startImmediately: true }
      )
      const current = Effect.map(Credential.info(credential).current, (it) => it && Redacted.value(it))
      assert.strictEqual(yield* current, "thumbprint")
      yield* credential.accept(token("t1"))
      yield* TestClock.adjust(0)
      assert.strictEqual(changes, 1)
      assert.strictEqual(yield* current, "t1")
      yield* credential.accept(token("t1", hour))
      yield* credential.reject(token("t1"))
      yield* TestClock.adjust(0)
      assert.strictEqual(changes, 1)
      yield* credential.clear
      yield* TestClock.adjust(0)
      assert.strictEqual(changes, 2)
    }))
})

describe("refresh", () => {
  it.effect("single flight: callers share one call, and one that is interrupted leaves the others alone", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [Effect.as(Effect.sleep(5000), token("t2", 2 * hour))] })
      })
      const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(credential.refresh))
      yield* TestClock.adjust(1000)
      yield* Fiber.interrupt(fibers[0] ?? assert.fail())
      yield* TestClock.adjust(4100)
      for (const fiber of fibers.slice(1)) assert.deepStrictEqual(yield* Fiber.join(fiber), token("t2", 2 * hour))
      assert.deepStrictEqual(server.received, ["refresh DPoP t1"])
      assert.deepStrictEqual(yield* credential.token, token("t2", 2 * hour))
    }))

  it.effect("all callers gone: it goes on all the same, and its token is kept", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const credential = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [Effect.as(Effect.sleep(5000), token("t2", 2 * hour))] })
      })
      const fiber = yield* Effect.forkChild(credential.refresh)
      yield* TestClock.adjust(1000)
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust(4100)
      assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t2", 2 * hour))
    }))

  it.effect.each<readonly [string, () => Effect.Effect<never>, number]>([
    ["hangs", () => Effect.never, 10_050],
    ["hangs and cannot be interrupted", () => Effect.uninterruptible(Effect.never), 10_050],
    ["dies", () => Effect.die(new TypeError("canary")), 50],
    ["interrupts itself", () => Effect.interrupt, 50],
    [
      "throws",
      () => {
        throw new RangeError("canary")
      },
      50
    ]
  ])(
    "a provider that %s is Transient after at most 10 s, and wedges nothing",
    ([, bad, time]) =>
      Effect.gen(function*() {
        for (const operation of ["refresh", "revive"] as const) {
          const lines: Array<string> = []
          let good = false
          const provide = () => good ? Effect.succeed(token("t2", hour)) : bad()
          const credential = yield* make(makeStore(), { token: token("t1", hour), [operation]: provide }).pipe(
            Effect.provide(logged(lines, "Warn"))
          )
          const fiber = yield* Effect.forkChild(Effect.exit(credential[operation]))
          yield* TestClock.adjust(time - 1)
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust(1)
          const error = errorOf(yield* Fiber.join(fiber))
          assert.strictEqual(error._tag, "Transient")
          assert.strictEqual(error.reason._tag, time > 1000 ? "TimedOut" : "Unreachable")
          assert.notInclude(error.message + lines.join(), "canary")
          assert.strictEqual(lines.length, 1)
          good = true
          assert.deepStrictEqual(yield* during(credential[operation], 50), Exit.succeed(token("t2", hour)))
        }
      })
  )

  it.effect("the idempotency key is kept before the call, and the same until there is an answer", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const provided = providers(server, {
        refresh: [unavailable("refresh"), unavailable("refresh"), token("t2", 2 * hour), token("t3", 3 * hour)]
      })
      const keptBefore: Array<unknown> = []
      const credential = yield* make(store, {
        token: token("t1", hour),
        refresh: (context) =>
          Effect.suspend(() => {
            keptBefore.push(recordOf(store, "claim"))
            return provided.refresh?.(context) ?? Effect.never
          })
      })
      for (let n = 0; n < 4; n++) yield* during(credential.refresh, 50)
      const [first, second, third, fourth] = provided.keys
      assert.match(first ?? "", /^[0-9a-f]{32}$/)
      assert.strictEqual(second, first)
      assert.strictEqual(third, first)
      assert.notStrictEqual(fourth, first)
      assert.deepStrictEqual(
        keptBefore.map((it) => (it as { readonly idempotencyKey: string }).idempotencyKey),
        provided.keys
      )
      assert.isUndefined(recordOf(store, "claim"))
    }))

  it.effect("a store that does not take the key: no call is made, and it may be tried again", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const credential = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t2", hour)] })
      })
      store.before = (method) => method === "set" ? Effect.fail(storeFailed) : Effect.void
      assert.strictEqual(errorOf(yield* during(credential.refresh, 50))._tag, "Transient")
      store.before = () => Effect.never
      assert.strictEqual(errorOf(yield* during(credential.refresh, 5000))._tag, "Transient")
      assert.deepStrictEqual(server.received, [])
      store.before = () => Effect.void
      assert.deepStrictEqual(yield* during(credential.refresh, 50), Exit.succeed(token("t2", hour)))
    }))

  it.effect.each(["before the call", "before the answer", "before the token is kept"])(
    "a crash %s: the next process makes the same refresh",
    (when) =>
      Effect.gen(function*() {
        const store = makeStore()
        const server = makeServer("DPoP t2")
        const provided = providers(server, { refresh: [token("t2", 2 * hour)] })
        const scope = yield* Scope.make()
        // Killed: from here on nothing of this process reaches the store.
        let killed = false
        const crashing: TestStore = {
          ...store,
          store: KeyValueStore.makeStringOnly({
            ...store.store,
            get: (key) => killed ? Effect.never : store.store.get(key),
            set: (key, value) =>
              killed || (when === "before the token is kept" && key.includes("token"))
                ? Effect.never
                : store.store.set(key, value),
            remove: (key) => killed ? Effect.never : store.store.remove(key)
          })
        }
        yield* (yield* make(store, {})).accept(token("t1", hour))
        const first = yield* make(crashing, {
          refresh: (context) => {
            if (when === "before the call") return Effect.never
            const made = provided.refresh?.(context) ?? Effect.never
            return when === "before the answer" ? Effect.andThen(made, Effect.never) : made
          }
        }).pipe(Scope.provide(scope))
        yield* first.reject(token("t1"))
        yield* Effect.forkChild(first.refresh)
        yield* TestClock.adjust(1000)
        killed = true
        const claim = recordOf(store, "claim") as { readonly idempotencyKey: string }
        const second = yield* make(store, provided)
        const exit = yield* during(run(Credential.revive(server.beat), second), 20_000)
        assert.deepStrictEqual(exit, Exit.succeed("DPoP t2"))
        assert.strictEqual(new Set([claim.idempotencyKey, ...provided.keys]).size, 1)
        assert.strictEqual(provided.keys.length, when === "before the call" ? 1 : 2)
        assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t2", 2 * hour))
        yield* Effect.forkChild(Scope.close(scope, Exit.void))
        yield* TestClock.adjust(minute)
      })
  )

  it.effect("a rejected token is refreshed with the proof, a good one with itself; a refresh that says 401 rejects it", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { refresh: [unauthorized("refresh"), token("t2", hour)] })
      })
      assert.strictEqual(errorOf(yield* during(credential.refresh, 50))._tag, "AuthFailed")
      assert.isTrue(yield* credential.isRejected(token("t1")))
      yield* credential.accept(token("t3", hour))
      yield* credential.reject(token("t3"))
      assert.deepStrictEqual(yield* during(credential.refresh, 50), Exit.succeed(token("t2", hour)))
      assert.deepStrictEqual(server.received, ["refresh DPoP t1", "refresh proof"])
    }))

  it.effect("what a server gives again after it was rejected is no new token", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        provenance: supplied,
        token: token("t1", hour),
        refresh: () => Effect.succeed(token("t1", hour))
      })
      const error = errorOf(yield* during(run(Credential.revive(server.beat), credential), 50))
      assert.isTrue(error._tag === "AuthFailed")
      assert.deepStrictEqual(
        error._tag === "AuthFailed" ? Credential.causes(error).map(({ tried }) => tried) : [],
        ["request", "refresh"]
      )
      assert.include(error.message, "rejected before")
      assert.deepStrictEqual(server.received, ["beat Bearer t1"])
    }))

  it.effect("deleted or replaced while it is under way: what comes late does not overwrite that", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const slow = Effect.as(Effect.sleep(5000), token("late", hour))
      const credential = yield* make(store, { token: token("t1", hour), ...providers(server, { refresh: [slow] }) })
      const first = yield* Effect.forkChild(Effect.exit(credential.refresh))
      yield* TestClock.adjust(1000)
      yield* credential.clear
      yield* TestClock.adjust(4100)
      assert.strictEqual(errorOf(yield* Fiber.join(first))._tag, "AuthFailed")
      assert.isUndefined(yield* credential.token)
      assert.strictEqual(store.entries.size, 0)
      yield* credential.accept(token("t2", hour))
      const second = yield* Effect.forkChild(Effect.exit(credential.refresh))
      yield* TestClock.adjust(1000)
      yield* credential.accept(token("t3", hour))
      yield* TestClock.adjust(4100)
      assert.deepStrictEqual(yield* Fiber.join(second), Exit.succeed(token("t3", hour)))
      assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t3", hour))
    }))

  it.effect("deleted by another process while it is under way: it stays deleted", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const credential = yield* make(store, {
        token: token("t1", hour),
        refresh: () => Effect.as(Effect.sleep(5000), token("late", hour))
      })
      const there = yield* make(store, {})
      const fiber = yield* Effect.forkChild(Effect.exit(credential.refresh))
      yield* TestClock.adjust(1000)
      yield* there.clear
      yield* TestClock.adjust(5000)
      assert.strictEqual(errorOf(yield* Fiber.join(fiber))._tag, "AuthFailed")
      assert.isUndefined(yield* credential.token)
      assert.isUndefined(recordOf(store, "token"))
    }))

  it.effect("a token that could not be kept: its claim stays, and the next process makes the same call", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const provided = providers(server, { refresh: [token("t2", hour)] })
      const first = yield* make(store, { token: token("t1", hour), ...provided })
      store.before = (method, key) => method === "set" && key.includes("token") ? Effect.fail(storeFailed) : Effect.void
      assert.deepStrictEqual(yield* during(first.refresh, 50), Exit.succeed(token("t2", hour)))
      store.before = () => Effect.void
      yield* TestClock.adjust(minute)
      const second = yield* make(store, provided)
      assert.deepStrictEqual(yield* during(second.refresh, 50), Exit.succeed(token("t2", hour)))
      assert.strictEqual(new Set(provided.keys).size, 1)
      assert.deepStrictEqual(yield* (yield* make(store, {})).token, token("t2", hour))
    }))

  it.effect("what could not be kept is newer than what is kept", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer()
      const credential = yield* make(store, {
        token: token("t1", hour),
        ...providers(server, { refresh: [token("t3", hour)] })
      })
      store.before = (method) => method === "set" ? Effect.fail(storeFailed) : Effect.void
      yield* Effect.flip(credential.accept(token("t2", hour)))
      store.before = () => Effect.void
      assert.deepStrictEqual(yield* during(credential.refresh, 50), Exit.succeed(token("t3", hour)))
      assert.deepStrictEqual(server.received, ["refresh DPoP t2"])
    }))

  it.effect("a revival presents the proof, also where the token is a good one", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        ...providers(server, { revive: [token("t2", hour)] })
      })
      assert.deepStrictEqual(yield* during(credential.revive, 50), Exit.succeed(token("t2", hour)))
      assert.deepStrictEqual(server.received, ["revive proof"])
    }))

  it.effect("closing answers whoever waits", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const credential = yield* make(makeStore(), {
        token: token("t1", hour),
        refresh: () => Effect.uninterruptible(Effect.never)
      }).pipe(Scope.provide(scope))
      const fiber = yield* Effect.forkChild(Effect.exit(credential.refresh))
      yield* TestClock.adjust(1000)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(errorOf(yield* Fiber.join(fiber))._tag, "Transient")
    }))

  it.effect("closing leaves no fiber behind, whatever was under way", () =>
    Effect.gen(function*() {
      const fibers = fiberCounter()
      yield* Effect.gen(function*() {
        const scope = yield* Scope.make()
        const credential = yield* make(makeStore(), {
          token: token("t1", hour),
          refresh: () => Effect.never,
          revive: () => Effect.never
        }).pipe(Scope.provide(scope))
        const flight = yield* Effect.forkChild(Effect.exit(credential.refresh))
        const waiting = yield* Effect.forkChild(Effect.exit(credential.revive))
        yield* TestClock.adjust(1000)
        yield* Fiber.interrupt(waiting)
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(flight)
      }).pipe(fibers.watch)
      assert.strictEqual(yield* fibers.left, 0)
    }))

  it.effect("nothing to refresh with, or nothing to refresh: CredentialMissing", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const without = yield* make(makeStore(), { token: token("t1") })
      assert.strictEqual((yield* Effect.flip(without.refresh)).reason._tag, "CredentialMissing")
      assert.strictEqual((yield* Effect.flip(without.revive)).reason._tag, "CredentialMissing")
      const empty = yield* make(makeStore(), providers(server, { refresh: [token("t1")] }))
      assert.strictEqual((yield* Effect.flip(empty.refresh)).reason._tag, "CredentialMissing")
      assert.deepStrictEqual(server.received, [])
    }))
})

describe("ahead of the expiry", () => {
  const refreshesAt = (times: Array<number>, answers: Parameters<typeof providers>[1]["refresh"] = []) => {
    const provided = providers(makeServer(), { refresh: answers })
    return {
      refresh: (context: Credential.RefreshContext) =>
        Effect.andThen(
          Effect.clockWith((clock) => Effect.sync(() => times.push(clock.currentTimeMillisUnsafe()))),
          Effect.suspend(() => provided.refresh?.(context) ?? Effect.never)
        )
    }
  }

  it.effect("30 minutes before, or a tenth of its life", () =>
    Effect.gen(function*() {
      for (
        const [life, lead] of [[24 * hour, 30 * minute], [hour, 6 * minute], [5 * hour, 30 * minute], [
          minute,
          6000
        ]] as const
      ) {
        const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        const times: Array<number> = []
        yield* Effect.scoped(Effect.gen(function*() {
          const credential = yield* make(makeStore(), refreshesAt(times, [token("t2")]))
          yield* credential.accept(token("t1", now + life))
          yield* TestClock.adjust(life - lead - 1)
          assert.deepStrictEqual(times, [])
          yield* TestClock.adjust(60)
          assert.deepStrictEqual(times, [now + life - lead + 50])
          yield* TestClock.adjust(48 * hour)
          assert.strictEqual(times.length, 1)
        }))
      }
    }))

  it.effect("again after every new token: of a refresh, a revival, or from outside, and after a restart", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      const store = makeStore()
      const scope = yield* Scope.make()
      const provided = refreshesAt(times, [
        Effect.suspend(() => Effect.succeed(token("t2", 20 * hour))),
        token("t4", 100 * hour),
        token("t5")
      ])
      const credential = yield* make(store, { ...provided, revive: () => Effect.succeed(token("t3", 40 * hour)) }).pipe(
        Scope.provide(scope)
      )
      yield* credential.accept(token("t1", 10 * hour))
      yield* TestClock.adjust(9.5 * hour + 50)
      assert.deepStrictEqual(times, [9.5 * hour + 50])
      // Before t2 is due there is another one.
      assert.deepStrictEqual(yield* during(credential.revive, 50), Exit.succeed(token("t3", 40 * hour)))
      yield* TestClock.setTime(39.5 * hour - 1)
      assert.strictEqual(times.length, 1)
      yield* TestClock.adjust(51)
      assert.deepStrictEqual(times.slice(1), [39.5 * hour + 50])
      yield* Scope.close(scope, Exit.void)
      yield* make(store, provided)
      yield* TestClock.setTime(99.5 * hour - 1)
      assert.strictEqual(times.length, 2)
      yield* TestClock.adjust(51)
      assert.deepStrictEqual(times.slice(2), [99.5 * hour + 50])
    }))

  it.effect("at once for the new token, also where that is due much sooner than the one before it", () =>
    Effect.gen(function*() {
      for (const how of ["a revival", "from outside"] as const) {
        const start = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        const times: Array<number> = []
        yield* Effect.scoped(Effect.gen(function*() {
          const next = token("t2", start + 75 * minute)
          const credential = yield* make(makeStore(), {
            ...refreshesAt(times, [token("t3")]),
            revive: () => Effect.succeed(next)
          })
          yield* credential.accept(token("t1", start + 100 * hour))
          yield* TestClock.adjust(65 * minute)
          if (how === "a revival") yield* during(credential.revive, 50)
          else yield* credential.accept(next)
          yield* TestClock.setTime(start + 74 * minute - 1)
          assert.deepStrictEqual(times, [], how)
          yield* TestClock.adjust(minute / 2)
          assert.strictEqual(times.length, 1, how)
        }))
      }
    }))

  // With the waits of seed 44 the clock comes to 1.5e-8 ms before it is due: a sleep of that length does not move it.
  it.effect.each([1, 2, 44])(
    "after failure, with the waits of the backoff, as long as it takes (seed %i)",
    (seed) =>
      Effect.gen(function*() {
        const times: Array<number> = []
        const answers = [
          unavailable("refresh"),
          "hang" as const,
          Effect.die("canary"),
          unavailable("refresh"),
          token("t2", 20 * hour),
          token("t3")
        ]
        const credential = yield* make(makeStore(), refreshesAt(times, answers))
        yield* credential.accept(token("t1", 10 * hour))
        yield* TestClock.adjust(9.5 * hour)
        for (let n = 0; n < 60; n++) yield* TestClock.adjust(1000)
        assert.strictEqual(times.length, 5)
        const gaps = times.slice(1).map((time, n) => time - (times[n] ?? 0))
        for (const gap of gaps) assert.isAtLeast(gap, 100)
        assert.isAtLeast(gaps[1] ?? 0, 10_000)
        assert.deepStrictEqual(yield* credential.token, token("t2", 20 * hour))
        yield* TestClock.setTime(19.5 * hour + 1000)
        assert.strictEqual(times.length, 6)
      }).pipe(Random.withSeed(seed))
  )

  it.effect("a definitive no ends it for this token, which is used on as long as it is good; a new one starts it again", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      const no = Classify.make("InvalidRequest", { operation: "refresh", target: url })
      const credential = yield* make(makeStore(), refreshesAt(times, [no, token("t3")]))
      yield* credential.accept(token("t1", 10 * hour))
      yield* TestClock.adjust(9.9 * hour)
      assert.strictEqual(times.length, 1)
      assert.strictEqual(yield* presents(credential), "DPoP t1")
      yield* credential.accept(token("t2", 20 * hour))
      yield* TestClock.setTime(19.6 * hour)
      assert.strictEqual(times.length, 2)
    }))

  it.effect("tokens that are due as soon as they come are no hot loop", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      let n = 0
      const expired = Effect.sync(() => token(`t${++n}`, 1))
      const credential = yield* make(makeStore(), refreshesAt(times, [expired]))
      yield* TestClock.adjust(hour)
      yield* credential.accept(token("t0", 1))
      for (let n = 0; n < 60; n++) yield* TestClock.adjust(minute)
      assert.isAbove(times.length, 5)
      assert.isBelow(times.length, 60)
    }))

  it.effect("it does not need the program's token to be used, and closing ends it", () =>
    Effect.gen(function*() {
      const times: Array<number> = []
      yield* Effect.scoped(Effect.flatMap(
        make(makeStore(), { ...refreshesAt(times, [token("t2", 20 * hour)]), token: token("t1", 10 * hour) }),
        () => TestClock.adjust(hour)
      ))
      yield* TestClock.adjust(48 * hour)
      assert.deepStrictEqual(times, [])
    }))
})
