// The operator where it is used: around a registry for `Lifeline` and `CheckIn`, around what connects for streams.
import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as CheckIn from "effect-lifeline/CheckIn"
import * as Classify from "effect-lifeline/Classify"
import * as Credential from "effect-lifeline/Credential"
import * as EventSource from "effect-lifeline/EventSource"
import * as Lifeline from "effect-lifeline/Lifeline"
import type { AuthFailed } from "effect-lifeline/LifelineError"
import * as Listener from "effect-lifeline/Listener"
import * as Proof from "effect-lifeline/Proof"
import * as Reconnect from "effect-lifeline/Reconnect"
import * as Registry from "effect-lifeline/Registry"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import type { FakeServer, TestStore } from "./support/credentials.ts"
import {
  hour,
  makeServer,
  makeStore,
  managed,
  minute,
  providers,
  shown,
  token,
  unauthorized,
  unavailable,
  url
} from "./support/credentials.ts"
import * as FakeFetch from "./support/fakeFetch.ts"
import * as ListenerServer from "./support/listenerServer.ts"

const instance = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }

const refusedRefresh = unauthorized("refresh")
const refusedRevival = Classify.make("Conflict", { operation: "heartbeat", target: url })
const goneLease = Classify.make("LeaseExpired", { operation: "heartbeat", target: url })

/** An adapter whose calls present what the credential hands out. */
const adapter = (server: FakeServer) =>
  Layer.effect(
    Registry.Registry,
    Effect.gen(function*() {
      const credential = yield* Credential.Credential
      const call = (operation: string) =>
        Effect.gen(function*() {
          const { headers } = yield* credential.authorize({ method: "PUT", url })
          server.received.push(`${operation} ${shown(headers)}`)
          if (!server.accepts.has(shown(headers))) return yield* unauthorized(operation)
        })
      return {
        capabilities: {
          ...Registry.disabled.capabilities,
          adapter: "fake",
          enabled: true,
          expiresAfter: undefined
        },
        credential: Credential.info(credential),
        register: ({ name, type }) =>
          Effect.andThen(
            call("register"),
            Effect.map(Clock.currentTimeMillis, (registeredAt) => ({ id: "7", name, type, registeredAt }))
          ),
        heartbeat: () => call("heartbeat"),
        verify: () => call("verify"),
        deregister: () => call("deregister")
      }
    })
  )

/** The credential, what protects the registry with it, and the registry. */
const world = (store: TestStore, server: FakeServer, options: Partial<Credential.Options>) =>
  Layer.provideMerge(
    Layer.provide(Credential.layerRegistry, adapter(server)),
    Credential.layer({ provenance: managed, name: "lease", ...options })
  ).pipe(Layer.provideMerge(Layer.succeed(KeyValueStore.KeyValueStore, store.store)))

/** Lets it run to its end, also where something takes real time (a hash, a signature, a body). */
const settle = (fiber: Fiber.Fiber<unknown, unknown>) =>
  Effect.gen(function*() {
    for (let n = 0; n < 5000 && fiber.pollUnsafe() === undefined; n++) {
      yield* TestClock.adjust(10)
      yield* TestClock.withLive(Effect.sleep(1))
    }
  })

/** Sent once by whom it was rejected. */
const sentTwice = (server: FakeServer, value: string, since = 0) =>
  server.received.slice(since).filter((it) => it.endsWith(` ${value}`)).length > 1

describe("Lifeline", () => {
  it.effect("a token that is rejected in the middle: nobody notices, and the registration goes on", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      yield* Effect.gen(function*() {
        const { status } = yield* Lifeline.Lifeline
        yield* TestClock.adjust(minute)
        server.accepts.clear()
        server.accepts.add("DPoP t2")
        server.received.length = 0
        const seen: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(SubscriptionRef.changes(status), ({ _tag }) => Effect.sync(() => seen.push(_tag)))
        )
        yield* TestClock.adjust(minute)
        assert.deepStrictEqual([...new Set(seen)], ["Online"])
        assert.deepStrictEqual(server.received.slice(0, 3), ["heartbeat DPoP t1", "refresh proof", "heartbeat DPoP t2"])
        assert.isFalse(sentTwice(server, "DPoP t1"))
      }).pipe(Effect.provide(
        Layer.provideMerge(
          Lifeline.layer({ instance }),
          world(makeStore(), server, {
            token: token("t1", 100 * hour),
            ...providers(server, { refresh: [token("t2", 100 * hour)] })
          })
        )
      ))
    }))

  it.effect("Transient of a revival: it backs off as ever, sends the rejected token to nobody, and comes back", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1", "DPoP t2")
      const answers = [...Array.from({ length: 5 }, () => unavailable("heartbeat")), token("t2", 100 * hour)]
      yield* Effect.gen(function*() {
        const { status } = yield* Lifeline.Lifeline
        yield* TestClock.adjust(minute)
        server.accepts.delete("DPoP t1")
        server.received.length = 0
        for (let n = 0; n < 20; n++) yield* TestClock.adjust(minute)
        assert.strictEqual(SubscriptionRef.getUnsafe(status)._tag, "Online")
        assert.deepStrictEqual(server.received.filter((it) => /^re[fv]/.test(it)), [
          "refresh proof",
          ...Array.from({ length: 6 }, () => "revive proof")
        ])
        assert.isFalse(sentTwice(server, "DPoP t1"))
      }).pipe(Effect.provide(
        Layer.provideMerge(
          Lifeline.layer({ instance }),
          world(makeStore(), server, {
            token: token("t1", 100 * hour),
            ...providers(server, { refresh: [refusedRefresh], revive: answers })
          })
        )
      ))
    }))

  it.effect("nothing helps: it halts, sends nothing more, and starts again with another token", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      yield* Effect.gen(function*() {
        const { status } = yield* Lifeline.Lifeline
        const credential = yield* Credential.Credential
        yield* TestClock.adjust(minute)
        server.accepts.clear()
        server.received.length = 0
        yield* TestClock.adjust(minute)
        const halted = SubscriptionRef.getUnsafe(status)
        assert.strictEqual(halted._tag, "Halted")
        assert.strictEqual(
          Credential.causes((halted as Extract<Lifeline.Status, { readonly _tag: "Halted" }>).cause as AuthFailed)
            .length,
          3
        )
        const all = ["heartbeat DPoP t1", "refresh proof", "heartbeat DPoP t2", "revive proof"]
        assert.deepStrictEqual(server.received, all)
        yield* TestClock.adjust(24 * hour)
        assert.deepStrictEqual(server.received, all)
        server.accepts.add("DPoP t5")
        yield* credential.accept(token("t5", 100 * hour))
        yield* TestClock.adjust(minute)
        assert.strictEqual(SubscriptionRef.getUnsafe(status)._tag, "Online")
        for (const value of ["DPoP t1", "DPoP t2"]) assert.isFalse(sentTwice(server, value))
      }).pipe(Effect.provide(
        Layer.provideMerge(
          Lifeline.layer({ instance }),
          world(makeStore(), server, {
            token: token("t1", 100 * hour),
            ...providers(server, { refresh: [token("t2", 100 * hour)], revive: [refusedRevival] })
          })
        )
      ))
    }))

  it.effect("a lease that is gone is registered anew, with the key", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      yield* Effect.gen(function*() {
        const { status } = yield* Lifeline.Lifeline
        yield* TestClock.adjust(minute)
        server.accepts.clear()
        server.accepts.add("proof")
        server.received.length = 0
        yield* TestClock.adjust(minute)
        assert.strictEqual(SubscriptionRef.getUnsafe(status)._tag, "Online")
        assert.deepStrictEqual(server.received.slice(0, 5), [
          "heartbeat DPoP t1",
          "refresh proof",
          "revive proof",
          "register proof",
          "heartbeat proof"
        ])
      }).pipe(Effect.provide(
        Layer.provideMerge(
          Lifeline.layer({ instance }),
          world(makeStore(), server, {
            token: token("t1", 100 * hour),
            ...providers(server, { refresh: [refusedRefresh], revive: [goneLease] })
          })
        )
      ))
    }))

  it.effect("a lease that is gone at the start is registered, and one that is deregistered is gone", () =>
    Effect.gen(function*() {
      const server = makeServer("proof")
      yield* Effect.gen(function*() {
        const registry = yield* Registry.Registry
        const credential = yield* Credential.Credential
        const fiber = yield* Effect.forkChild(registry.register(instance))
        yield* TestClock.adjust(200)
        const lease = yield* Fiber.join(fiber)
        assert.deepStrictEqual(server.received, ["register DPoP t1", "revive proof", "register proof"])
        yield* credential.accept(token("t3", hour))
        const gone = yield* Effect.forkChild(registry.deregister(lease))
        yield* TestClock.adjust(200)
        yield* Fiber.join(gone)
        assert.deepStrictEqual(server.received.slice(3), ["deregister DPoP t3", "revive proof"])
      }).pipe(Effect.provide(
        world(makeStore(), server, { token: token("t1", hour), ...providers(server, { revive: [goneLease] }) })
      ))
    }))

  it.effect("a registry that is disabled stays so, and one without a deadline of its own gets that of the drivers", () =>
    Effect.gen(function*() {
      const credential = yield* Credential.make({ provenance: managed, name: "lease" }).pipe(
        Effect.provide(KeyValueStore.layerMemory)
      )
      const protect = (registry: Registry.Registry["Service"]) =>
        Effect.provideService(Credential.protect(registry), Credential.Credential, credential)
      assert.strictEqual(yield* protect(Registry.disabled), Registry.disabled)
      const capabilities = { ...Registry.disabled.capabilities, enabled: true, deadline: Duration.seconds(10) }
      assert.isUndefined((yield* protect({ ...Registry.disabled, capabilities })).capabilities.deadline)
    }))
})

describe("CheckIn", () => {
  /** One invocation: everything but the store is made anew. */
  const invoke = (store: TestStore, server: FakeServer, options: Partial<Credential.Options>) =>
    Effect.gen(function*() {
      server.received.length = 0
      const fiber = yield* Effect.forkChild(Effect.exit(
        Effect.provide(CheckIn.run({ instance }), world(store, server, options), { local: true })
      ))
      yield* settle(fiber)
      yield* TestClock.adjust(minute)
      return yield* Fiber.join(fiber)
    })

  it.effect("between invocations it is known what was rejected and what was spent", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t1", "DPoP t2")
      const provided = (refresh: Parameters<typeof providers>[1]["refresh"] = [refusedRefresh]) => ({
        token: token("t1", 100 * hour),
        ...providers(server, { refresh, revive: [token("t3", 100 * hour)] })
      })
      assert.isTrue(Exit.isSuccess(yield* invoke(store, server, provided())))
      server.accepts.delete("DPoP t1")
      const refreshed = yield* invoke(store, server, provided([token("t2", 100 * hour)]))
      assert.isTrue(Exit.isSuccess(refreshed))
      assert.deepStrictEqual(server.received.slice(0, 3), ["heartbeat DPoP t1", "refresh proof", "heartbeat DPoP t2"])
      assert.isTrue(Exit.isSuccess(yield* invoke(store, server, provided())))
      assert.isFalse(server.received.some((it) => it.includes("t1")))
      // Now everything is refused, the revived token included.
      server.accepts.clear()
      const failed = yield* invoke(store, server, provided())
      assert.isTrue(Exit.isFailure(failed))
      assert.deepStrictEqual(server.received, [
        "heartbeat DPoP t2",
        "refresh proof",
        "revive proof",
        "heartbeat DPoP t3"
      ])
      for (let n = 0; n < 5; n++) {
        assert.isTrue(Exit.isFailure(yield* invoke(store, server, provided())))
        assert.deepStrictEqual(server.received, [])
      }
      // Somebody supplies another one.
      server.accepts.add("DPoP t9")
      const supplied = { ...provided(), token: token("t9", 100 * hour) }
      assert.isTrue(Exit.isSuccess(yield* invoke(store, server, supplied)))
      assert.isTrue(server.received.every((it) => it.endsWith("DPoP t9")))
    }))

  it.effect("Transient: the next invocation goes on where this one stopped, and does not send the token", () =>
    Effect.gen(function*() {
      const store = makeStore()
      const server = makeServer("DPoP t1", "DPoP t2")
      const keys: Array<string> = []
      const provided = (answer: Parameters<typeof providers>[1]["revive"]) => {
        const made = providers(server, { refresh: [refusedRefresh], revive: answer ?? [] })
        const { refresh, revive } = made
        return {
          token: token("t1", 100 * hour),
          ...(refresh === undefined ? {} : { refresh }),
          revive: (context: Credential.ReviveContext) => {
            keys.push(context.idempotencyKey)
            return revive?.(context) ?? Effect.never
          }
        }
      }
      yield* invoke(store, server, provided([]))
      server.accepts.delete("DPoP t1")
      for (const expected of [["heartbeat DPoP t1", "refresh proof", "revive proof"], ["revive proof"]]) {
        const exit = yield* invoke(store, server, provided([unavailable("heartbeat")]))
        assert.isTrue(Exit.isSuccess(exit) && exit.value._tag === "Retrying")
        assert.deepStrictEqual(server.received, expected)
        yield* TestClock.adjust(5 * minute)
      }
      const exit = yield* invoke(store, server, provided([token("t2", 100 * hour)]))
      assert.isTrue(Exit.isSuccess(exit) && exit.value.calls.length > 0)
      assert.strictEqual(server.received[0], "revive proof")
      assert.isAbove(server.received.length, 1)
      assert.isTrue(server.received.slice(1).every((it) => it.endsWith(" DPoP t2")))
      assert.strictEqual(new Set(keys).size, 1)
    }))
})

describe("streams", () => {
  const options = (server: FakeServer): Partial<Credential.Options> => ({
    token: token("t1", 100 * hour),
    ...providers(server, { refresh: [token("t2", 100 * hour), refusedRefresh], revive: [refusedRevival] })
  })

  const provided = (server: FakeServer) =>
    Effect.provide(
      Credential.layer({ provenance: managed, name: "lease", ...options(server) }).pipe(
        Layer.provide(KeyValueStore.layerMemory)
      )
    )

  it.effect("Reconnect: a dial that is refused is made again with a new token, within the same attempt", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t2")
      const attempts: Array<number> = []
      const values: Array<string> = []
      const connect = (dial: Reconnect.Dial<never>) =>
        Effect.andThen(
          Effect.sync(() => attempts.push(dial.attempt)),
          Effect.map(server.beat, (value) => Stream.make({ value }))
        )
      const stream = Reconnect.stream((dial: Reconnect.Dial<never>) => Credential.revive(connect(dial)), {
        policy: Backoff.make({ jitter: "none" })
      })
      yield* Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Effect.flip(
          Stream.runForEach(stream, (value) => Effect.sync(() => values.push(String(value))))
        ))
        yield* TestClock.adjust(3000)
        assert.deepStrictEqual(server.received.slice(0, 3), ["beat DPoP t1", "refresh proof", "beat DPoP t2"])
        assert.isAbove(values.length, 1)
        assert.isTrue(attempts.every((attempt) => attempt === 1))
        // Refused for good: it ends, with all causes, and nothing more is sent.
        server.accepts.clear()
        server.received.length = 0
        yield* TestClock.adjust(hour)
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual(Credential.causes(error as AuthFailed).map(({ tried }) => tried), [
          "request",
          "refresh",
          "revival"
        ])
        assert.deepStrictEqual(server.received, ["beat DPoP t2", "refresh proof", "revive proof"])
      }).pipe(provided(server))
    }))

  it.effect("Reconnect: a token that is rejected while the connection is open is renewed for the next one", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1", "DPoP t2")
      const values: Array<string> = []
      const connect = (_dial: Reconnect.Dial<never>) =>
        Effect.map(server.beat, (value) =>
          value === "DPoP t1"
            ? Stream.concat(Stream.make({ value }), Stream.fromEffect(Effect.fail(unauthorized("listen"))))
            : Stream.concat(Stream.make({ value }), Stream.never))
      const stream = Reconnect.stream((dial: Reconnect.Dial<never>) =>
        connect(dial).pipe(Effect.flatMap(Credential.watch), Credential.revive)
      )
      yield* Effect.gen(function*() {
        yield* Effect.forkScoped(
          Stream.runForEach(stream, (value) => Effect.sync(() => values.push(String(value))))
        )
        yield* TestClock.adjust(minute)
        assert.deepStrictEqual(values, ["DPoP t1", "DPoP t2"])
        assert.deepStrictEqual(server.received, ["beat DPoP t1", "refresh proof", "beat DPoP t2"])
      }).pipe(provided(server))
    }))

  it.effect("it is the token which the connection was opened with that is rejected, not the one there is by then", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      yield* Effect.gen(function*() {
        const credential = yield* Credential.Credential
        const opened = yield* Credential.revive(
          Effect.flatMap(server.beat, () => Credential.watch(Stream.fail(unauthorized("listen"))))
        )
        yield* credential.accept(token("t5", 100 * hour))
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(opened)))._tag, "Transient")
        assert.isTrue(yield* credential.isRejected(token("t1")))
        assert.isFalse(yield* credential.isRejected(token("t5")))
      }).pipe(provided(server))
    }))

  it.effect("a stream whose opening asked the credential for something else first: what was presented last counts", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1", "DPoP t2")
      yield* Effect.gen(function*() {
        const credential = yield* Credential.Credential
        const opened = yield* Credential.revive(
          Effect.gen(function*() {
            yield* server.beat
            yield* Effect.orDie(credential.accept(token("t2", 100 * hour)))
            return yield* Credential.watch(Stream.fail(unauthorized("listen")))
          })
        )
        yield* Effect.flip(Stream.runDrain(opened))
        assert.isTrue(yield* credential.isRejected(token("t1")))
        assert.isFalse(yield* credential.isRejected(token("t2")))
      }).pipe(provided(server))
    }))

  it.effect("what ends a stream otherwise is as it was", () =>
    Effect.gen(function*() {
      const server = makeServer("DPoP t1")
      yield* Effect.gen(function*() {
        const credential = yield* Credential.Credential
        for (
          const failure of [
            unavailable("listen"),
            goneLease,
            Classify.make("Forbidden", { operation: "listen", target: url })
          ]
        ) {
          const watched = yield* Credential.watch(Stream.fail(failure))
          assert.strictEqual(yield* Effect.flip(Stream.runDrain(watched)), failure)
        }
        assert.isFalse(yield* credential.isRejected(token("t1")))
      }).pipe(provided(server))
    }))

  it.effect("EventSource: the same, with the headers of the credential", () =>
    Effect.gen(function*() {
      const server = makeServer()
      const seen: Array<string> = []
      const fetch = FakeFetch.make(({ headers }) => {
        seen.push(headers["authorization"] ?? headers["dpop"] ?? "nothing")
        return headers["authorization"] === "DPoP t2"
          ? FakeFetch.sse("data: hello\n\n")
          : new Response("no", { status: 401 })
      })
      const connect = EventSource.connect(url, {
        headers: Credential.Credential.use((credential) =>
          Effect.map(credential.authorize({ method: "GET", url }), ({ headers }) => headers)
        )
      })
      const events = Reconnect.stream((dial: Reconnect.Dial<string>) => Credential.revive(connect(dial)))
      yield* Effect.gen(function*() {
        const first = yield* Effect.forkChild(Stream.runHead(events))
        yield* settle(first)
        const event = yield* Fiber.join(first)
        assert.isTrue(event._tag === "Some" && event.value._tag === "Event" && event.value.data === "hello")
        assert.deepStrictEqual(seen, ["DPoP t1", "DPoP t2"])
      }).pipe(Effect.provide(fetch.layer), provided(server))
    }))

  it.effect("Listener: the connection is made with a new token, and subscriptions do not notice", () =>
    Effect.gen(function*() {
      const tokens = makeServer("DPoP t2")
      const server = ListenerServer.make()
      const scope = yield* Scope.make()
      yield* Effect.gen(function*() {
        const listener = yield* Listener.make({
          ...ListenerServer.protocol,
          at: ListenerServer.at,
          connect: (dial) => Credential.revive(Effect.andThen(tokens.beat, server.connect(dial)))
        })
        const subscribed = yield* Effect.forkChild(listener.subscribe("a"))
        yield* TestClock.adjust(1000)
        yield* Fiber.join(subscribed)
        assert.deepStrictEqual(tokens.received, ["beat DPoP t1", "refresh proof", "beat DPoP t2"])
        assert.strictEqual(server.connections.length, 1)
        assert.deepStrictEqual([...server.last().keys], ["a"])
      }).pipe(provided(tokens), Scope.provide(scope))
      yield* Scope.close(scope, Exit.void)
    }))
})

describe("over HTTP clients", () => {
  it.effect("each request is signed with what the ladder selects; a nonce is taken up; a 401 is discharged", () =>
    Effect.gen(function*() {
      const key = yield* Proof.generateKey()
      const proof = yield* Proof.dpop({ key })
      const seen: Array<string> = []
      const client = HttpClient.make((request) => {
        const authorization = request.headers["authorization"]
        const claims = JSON.parse(
          atob((request.headers["dpop"] ?? "").split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/") ?? "")
        ) as { readonly nonce?: string; readonly ath?: string }
        seen.push(`${request.url.split("/").at(-1)} ${authorization ?? "proof"} ${claims.nonce ?? "-"}`)
        assert.strictEqual(claims.ath === undefined, authorization === undefined)
        const answer = claims.nonce === undefined
          ? new Response(null, {
            status: 401,
            headers: { "www-authenticate": "DPoP error=\"use_dpop_nonce\"", "dpop-nonce": "n1" }
          })
          : authorization === "DPoP t1"
          ? new Response(null, { status: 401 })
          : new Response("ok")
        return Effect.succeed(HttpClientResponse.fromWeb(request, answer))
      })
      const call = (path: string, authorizer: Credential.Authorizer) =>
        Credential.httpClient(client, authorizer).execute(HttpClientRequest.put(`https://registry.test/${path}`)).pipe(
          Effect.flatMap(({ headers, status }) =>
            status === 200
              ? Effect.succeed("ok")
              : Effect.fail(
                Classify.fromStatus(Classify.http, { status, headers }, { operation: path, target: url, now: 0 })
              )
          ),
          Effect.catchTag("HttpClientError", () => Effect.die("unexpected"))
        )
      const transientOrAuth = <A>(
        self: Effect.Effect<A, ReturnType<typeof Classify.fromStatus<typeof Classify.http>>>
      ) => self
      const credential = yield* Credential.make({
        provenance: { _tag: "Managed", proof },
        name: "lease",
        token: token("t1", hour),
        refresh: (context) => Effect.as(transientOrAuth(call("refresh", context)), token("t2", hour))
      }).pipe(Effect.provide(KeyValueStore.layerMemory))
      const fiber = yield* Effect.forkChild(credential.discharge(call("beat", credential)))
      yield* settle(fiber)
      assert.strictEqual(yield* Fiber.join(fiber), "ok")
      assert.deepStrictEqual(seen, [
        "beat DPoP t1 -",
        "beat DPoP t1 n1",
        "refresh proof n1",
        "beat DPoP t2 n1"
      ])
    }))
})
