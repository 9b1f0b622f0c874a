// The adapter against the embedded registry, over real HTTP on the loopback interface.
import { assert, describe, it } from "@effect/vitest"
import type * as Credential from "effect-lifeline/Credential"
import type * as Lease from "effect-lifeline/Lease"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Proof from "effect-lifeline/Proof"
import * as Registry from "effect-lifeline/Registry"
import * as PulseLease from "effect-lifeline/registry/PulseLease"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Program, Time } from "../support/leaseRegistry.ts"
import {
  answered,
  clockOf,
  instance,
  makeProgram,
  pass,
  start,
  startRegistry,
  timed
} from "../support/leaseRegistry.ts"

const signedBy = (program: Program): Credential.Authorizer => ({
  select: Effect.succeed({ _tag: "Proof" }),
  authorize: (request) =>
    Effect.map(program.proof.headers(request), (headers) => ({ headers, presented: { _tag: "Proof" } })),
  received: program.proof.received
})

const api = (program: Program, url: string) =>
  Effect.provideService(PulseLease.makeLeaseApi({ url }), HttpClient.HttpClient, program.client)

/** Until the registry has seen that the lease is stale, by its own word. */
const untilTimedOut = Effect.fnUntraced(function*(program: Program, url: string, lease: Lease.Lease) {
  const { status } = yield* api(program, url)
  const other = yield* Effect.flip(status(lease, signedBy(program))).pipe(
    Effect.retry({ schedule: Schedule.spaced("10 millis"), times: 300 })
  )
  assert.strictEqual(other._tag, "AuthFailed")
  program.sent.length = 0
})

/** A program that registered, ended, and is started again when its lease has timed out. */
const slept = Effect.fnUntraced(function*(time: Time, url: string, program: Program) {
  const lease = yield* Effect.scoped(
    Effect.flatMap(start(program, url), ({ registry }) => registry.register(instance))
  )
  yield* pass(time, "123 minutes")
  yield* untilTimedOut(program, url, lease)
  return lease
})

const causes = (error: { readonly _tag: string; readonly reason: { readonly _tag: string } }) =>
  [error._tag, error.reason._tag] as const

describe("a program that is awake", () => {
  it.live(
    "registers, keeps the token, beats with it and the proof, and refreshes it",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const { credential, registry } = yield* start(program, url)
        const lease = yield* registry.register(instance)
        assert.deepInclude(lease, { name: "haul", type: "app", expiresAfter: 120_000 })
        const token = yield* credential.token
        assert.isTrue(token?.jti?.startsWith(`${lease.id}.`))
        yield* registry.heartbeat(lease, instance)
        yield* registry.verify(lease, instance)
        const refreshed = yield* credential.refresh
        assert.notStrictEqual(refreshed.jti, token?.jti)
        yield* registry.heartbeat(lease, instance)
        assert.deepStrictEqual(program.sent, [
          "POST register proof 201",
          "PUT heartbeat DPoP 200",
          `GET ${lease.id} nothing 200`,
          "POST refresh DPoP 200",
          "PUT heartbeat DPoP 200"
        ])
        yield* registry.deregister(lease, instance)
        assert.deepStrictEqual(causes(yield* Effect.flip(registry.heartbeat(lease))), ["LeaseLost", "LeaseExpired"])
        const again = yield* registry.register(instance)
        assert.notStrictEqual(again.id, lease.id)
        yield* registry.heartbeat(again)
      })
    )
  )

  it.live(
    "does not take a registry for one that gives leases",
    timed(() =>
      Effect.gen(function*() {
        const context = yield* NodeRegistry.make()
        const { url } = Context.get(context, NodeRegistry.NodeRegistry)
        const { registry } = yield* start(yield* makeProgram(), url)
        const error = yield* Effect.flip(registry.register(instance))
        assert.deepStrictEqual(causes(error), ["Refused", "Unsupported"])
        assert.include(error.message, "gives no leases")
      })
    )
  )

  it.live(
    "whose lease is not there any more is told so, also where the registry has no leases at all",
    timed((time) =>
      Effect.gen(function*() {
        const with_ = yield* startRegistry(time)
        const without = yield* NodeRegistry.make()
        const { url } = Context.get(without, NodeRegistry.NodeRegistry)
        const program = yield* makeProgram()
        const one = yield* start(program, with_.url)
        const lease = yield* one.registry.register(instance)
        const unknown = yield* Effect.flip(one.registry.heartbeat({ ...lease, id: "nobody" }))
        assert.deepStrictEqual(causes(unknown), ["LeaseLost", "UnknownLease"])
        const plain = yield* Effect.promise(() =>
          fetch(`${url}/api/v1/services/register`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify({ name: "haul", type: "app", api_url: "http://haul:8484" })
          }).then((response) => response.json() as Promise<{ readonly id: string }>)
        )
        const other = yield* start(program, url)
        const lost = yield* Effect.flip(other.registry.heartbeat({ ...lease, id: plain.id }))
        assert.deepStrictEqual(causes(lost), ["LeaseLost", "UnknownLease"])
      })
    )
  )

  it.live(
    "a wrong API key is not the credential's fault: one request, the token stays, and a new key is noticed",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time, { apiKey: Redacted.make("right-key") })
        const program = yield* makeProgram()
        const apiKey = yield* SubscriptionRef.make(Redacted.make("right-key"))
        const { credential, registry } = yield* start(program, url, { apiKey })
        const lease = yield* registry.register(instance)
        const before = yield* registry.credential.current
        yield* SubscriptionRef.set(apiKey, Redacted.make("wrong-key"))
        program.sent.length = 0
        const error = yield* Effect.flip(registry.heartbeat(lease))
        assert.deepStrictEqual(causes(error), ["AuthFailed", "Forbidden"])
        assert.deepStrictEqual(program.sent, ["PUT heartbeat DPoP 401"])
        for (const call of [registry.verify(lease, instance), registry.deregister(lease, instance)]) {
          assert.deepStrictEqual(causes(yield* Effect.flip(call)), ["AuthFailed", "Unauthorized"])
        }
        assert.lengthOf(program.sent, 3)
        const token = yield* credential.token
        assert.isFalse(token === undefined || (yield* credential.isRejected(token)))
        assert.isDefined(yield* credential.token)
        assert.notDeepEqual(
          Redacted.value((yield* registry.credential.current) ?? Redacted.make("")),
          before && Redacted.value(before)
        )
        yield* SubscriptionRef.set(apiKey, Redacted.make("right-key"))
        yield* registry.heartbeat(lease)
      })
    )
  )

  it.live(
    "another key of the same name is refused, in words",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        yield* (yield* start(yield* makeProgram(), url)).registry.register(instance)
        const other = yield* start(yield* makeProgram(), url)
        const error = yield* Effect.flip(other.registry.register(instance))
        assert.deepStrictEqual(causes(error), ["Refused", "Conflict"])
        assert.include(error.message, "another key")
      })
    )
  )

  it.live(
    "tells its drivers of a new token, and of a new API key",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time, { apiKey: Redacted.make("right-key") })
        const apiKey = yield* SubscriptionRef.make(Redacted.make("right-key"))
        const { credential, registry } = yield* start(yield* makeProgram(), url, { apiKey })
        const told = yield* Queue.unbounded<void>()
        yield* Effect.forkScoped(
          Stream.runForEach(registry.credential.changes ?? Stream.empty, () => Queue.offer(told, undefined)),
          { startImmediately: true }
        )
        yield* registry.register(instance)
        yield* Queue.take(told)
        yield* SubscriptionRef.set(apiKey, Redacted.make("another-key"))
        yield* Queue.take(told)
        yield* credential.clear
        yield* Queue.take(told)
      })
    )
  )

  it.live(
    "that revives a lease which is alive gets a token by its key, once for each attempt",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const { credential, registry } = yield* start(program, url)
        const lease = yield* registry.register(instance)
        const before = yield* credential.token
        const token = yield* credential.revive
        assert.notStrictEqual(token.jti, before?.jti)
        assert.deepStrictEqual(program.sent.slice(1), ["PUT heartbeat proof 200", "POST refresh proof 200"])
        yield* registry.heartbeat(lease)
        assert.strictEqual(program.sent.at(-1), "PUT heartbeat DPoP 200")
        // A registration shows the key; the token is of no use to it, so it stays at home.
        yield* registry.register(instance)
        assert.strictEqual(program.sent.at(-1), "POST register proof 201")
      })
    )
  )

  it.live(
    "stays registered by its Lifeline: through a sleep, and through a registry that forgot it",
    timed((time) =>
      Effect.gen(function*() {
        const { events, url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const { credential, registry } = yield* start(program, url)
        const context = yield* Layer.build(Layer.provide(
          Lifeline.layer({ instance, startup: "await", heartbeat: { interval: "1 minute" } }),
          Layer.succeed(Registry.Registry, registry)
        ))
        const lifeline = Context.get(context, Lifeline.Lifeline)
        const next = (type: string, after: string) =>
          events.subscribe({ after }).pipe(
            Stream.filter((message) => message._tag === "Event" && message.event.type === type),
            Stream.take(1),
            Stream.runDrain
          )
        const first = yield* Effect.map(lifeline.lease, Option.getOrUndefined)
        const token = yield* credential.token
        // The beat that follows a registration would keep the lease alive.
        yield* lifeline.beatNow

        const position = yield* events.position
        yield* pass(time, "123 minutes")
        yield* next("lease_timed_out", position)
        // Its own timer may find the sleep too.
        yield* Effect.all([lifeline.beatNow, next("lease_revived", position)], { concurrency: 2 })
        assert.strictEqual((yield* Effect.map(lifeline.lease, Option.getOrUndefined))?.id, first?.id)
        assert.notStrictEqual((yield* credential.token)?.jti, token?.jti)

        const forgotten = yield* events.position
        yield* Effect.promise(() => fetch(`${url}/api/v1/services/${first?.id}`, { method: "DELETE" }))
        yield* Effect.all([Effect.exit(lifeline.beatNow), next("service_registered", forgotten)], { concurrency: 2 })
        yield* lifeline.beatNow
        const second = yield* Effect.map(lifeline.lease, Option.getOrUndefined)
        assert.isDefined(second)
        assert.notStrictEqual(second?.id, first?.id)
      })
    )
  )
})

describe("a program that slept", () => {
  it.live(
    "comes back by its key with one heartbeat: the new token is kept, with its name and its end",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const lease = yield* slept(time, url, program)
        const { credential, registry } = yield* start(program, url)
        const old = yield* credential.token
        yield* registry.heartbeat(lease)
        assert.lengthOf(program.sent.filter((line) => line.startsWith("PUT heartbeat")), 1)
        const token = yield* credential.token
        assert.notStrictEqual(token?.jti, old?.jti)
        assert.isTrue(token?.jti?.startsWith(`${lease.id}.`))
        assert.isAbove(token?.expiresAt ?? 0, old?.expiresAt ?? 0)
        yield* registry.heartbeat(lease)
        assert.strictEqual(program.sent.at(-1), "PUT heartbeat DPoP 200")
        // And the next process finds it.
        const next = yield* start(program, url)
        assert.strictEqual((yield* next.credential.token)?.jti, token?.jti)
      })
    )
  )

  it.live(
    "with a clock that is 10 minutes wrong, either way",
    timed((time) =>
      Effect.gen(function*() {
        for (const skew of [-600_000, 600_000]) {
          const { url } = yield* startRegistry(time)
          const program = yield* makeProgram()
          const lease = yield* slept(time, url, program)
          // A proof of its own: what the registry's time is has to be found out anew.
          const fresh = yield* makeProgram({ key: program.key, store: program.store })
          yield* Effect.gen(function*() {
            const { credential, registry } = yield* start(fresh, url)
            yield* registry.heartbeat(lease)
            assert.isFalse(yield* credential.isRejected((yield* credential.token) ?? { value: Redacted.make("") }))
          }).pipe(Effect.provideService(Clock.Clock, clockOf(time, skew)))
          const { status } = yield* api(program, url)
          assert.strictEqual((yield* status(lease, signedBy(program))).says, "active")
        }
      })
    )
  )

  it.live.each(
    [
      ["503", (request: HttpClientRequest.HttpClientRequest) => answered(request, 503)],
      ["429", (request: HttpClientRequest.HttpClientRequest) => answered(request, 429, { "retry-after": "7" })],
      ["408", (request: HttpClientRequest.HttpClientRequest) => answered(request, 408)]
    ] as const
  )("%s: for now, the token is kept, and the next one revives", ([, answer]) =>
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const lease = yield* slept(time, url, program)
        program.meddle = (request, send) => request.method === "PUT" ? answer(request) : send(request)
        const { credential, registry } = yield* start(program, url)
        const error = yield* Effect.flip(registry.heartbeat(lease))
        assert.strictEqual(error._tag, "Transient")
        assert.isDefined(yield* credential.token)
        program.meddle = (request, send) => send(request)
        yield* registry.heartbeat(lease)
        assert.strictEqual(program.sent.at(-1), "PUT heartbeat proof 200")
      })
    )())

  it.live(
    "and whose revival is answered into the void gets the same answer when it asks again",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const lease = yield* slept(time, url, program)
        const { credential } = yield* start(program, url)
        const keys: Array<string | undefined> = []
        program.meddle = (request, send) => {
          if (request.method !== "PUT") return send(request)
          keys.push(request.headers["idempotency-key"])
          return Effect.andThen(send(request), answered(request, 503))
        }
        assert.strictEqual((yield* Effect.flip(credential.revive))._tag, "Transient")
        program.sent.length = 0
        program.meddle = (request, send) => {
          if (request.method === "PUT") keys.push(request.headers["idempotency-key"])
          return send(request)
        }
        const token = yield* credential.revive
        assert.isTrue(token.jti?.startsWith(`${lease.id}.`))
        // The heartbeat itself gave it: no refresh made up for what was lost.
        assert.deepStrictEqual(program.sent, ["PUT heartbeat proof 200"])
        assert.isDefined(keys[0])
        assert.strictEqual(new Set(keys).size, 1)
        assert.strictEqual(yield* revivalsOf(program, url, lease), 1)
      })
    )
  )

  it.live(
    "too long is told that the lease is gone, and registers anew",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const lease = yield* slept(time, url, program)
        yield* pass(time, "8 days")
        yield* Effect.gen(function*() {
          const { credential, registry } = yield* start(program, url)
          const error = yield* Effect.flip(registry.heartbeat(lease))
          assert.deepStrictEqual(causes(error), ["LeaseLost", "LeaseExpired"])
          const again = yield* registry.register(instance)
          assert.strictEqual(again.id, lease.id)
          assert.isDefined(yield* credential.token)
          yield* registry.heartbeat(again)
        })
      })
    )
  )

  it.live(
    "two processes with one key and one store: one revival, and both go on",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const lease = yield* slept(time, url, program)
        yield* Effect.gen(function*() {
          const both = yield* Effect.all([start(program, url), start(program, url)])
          yield* Effect.all(both.map(({ registry }) => registry.heartbeat(lease)), { concurrency: 2 })
          const tokens = yield* Effect.forEach(both, ({ registry }) => registry.heartbeat(lease))
          assert.lengthOf(tokens, 2)
        })
        const { status } = yield* Effect.map(api(program, url), ({ status }) => ({ status }))
        assert.strictEqual((yield* status(lease, signedBy(program))).says, "active")
        const revivals = yield* revivalsOf(program, url, lease)
        assert.strictEqual(revivals, 1)
      })
    )
  )
})

/** By the registry's word. */
const revivalsOf = Effect.fnUntraced(function*(program: Program, url: string, lease: Lease.Lease) {
  const path = `${url}/api/v1/services/${lease.id}/lease`
  const signed = Proof.httpClient(program.client, { proof: program.proof })
  const response = yield* signed.get(path)
  return ((yield* response.json) as { readonly revivals: number }).revivals
})

describe("a proof that is refused", () => {
  const rejected = Effect.fnUntraced(function*(
    time: Time,
    meddle: (request: HttpClientRequest.HttpClientRequest, send: Parameters<Program["meddle"]>[1]) => ReturnType<
      Program["meddle"]
    >
  ) {
    const { url } = yield* startRegistry(time)
    const program = yield* makeProgram()
    const { credential, registry } = yield* start(program, url)
    const lease = yield* registry.register(instance)
    yield* registry.heartbeat(lease)
    program.sent.length = 0
    program.meddle = (request, send) => request.method === "PUT" ? meddle(request, send) : send(request)
    const error = yield* Effect.flip(registry.heartbeat(lease))
    assert.deepStrictEqual(causes(error), ["AuthFailed", "ProofRejected"])
    assert.isDefined(yield* credential.token)
    // Neither refreshed nor revived: nothing but the right proof helps.
    assert.deepStrictEqual(program.sent.map((line) => line.split(" ")[1]), ["heartbeat"])
    program.meddle = (request, send) => send(request)
    yield* registry.heartbeat(lease)
    return error.message
  })

  it.live(
    "a replayed one",
    timed((time) =>
      Effect.gen(function*() {
        const message = yield* rejected(time, (request, send) => Effect.andThen(send(request), send(request)))
        assert.include(message, "used before")
      })
    )
  )

  it.live(
    "a token that was made a bearer token",
    timed((time) =>
      Effect.gen(function*() {
        const message = yield* rejected(time, (request, send) =>
          send(HttpClientRequest.setHeader(
            request,
            "authorization",
            (request.headers["authorization"] ?? "").replace("DPoP", "Bearer")
          )))
        assert.include(message, "bearer")
      })
    )
  )

  it.live(
    "two of them",
    timed((time) =>
      Effect.gen(function*() {
        const message = yield* rejected(
          time,
          (request, send) =>
            send(HttpClientRequest.setHeader(request, "dpop", `${request.headers["dpop"]}, ${request.headers["dpop"]}`))
        )
        assert.include(message, "more than one")
      })
    )
  )

  it.live(
    "one for another URL than the registry's own",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time, { leases: { origin: "https://pulse.example" } })
        const { registry } = yield* start(yield* makeProgram(), url)
        const error = yield* Effect.flip(registry.register(instance))
        assert.deepStrictEqual(causes(error), ["AuthFailed", "ProofRejected"])
        assert.include(error.message, "https://pulse.example")
      })
    )
  )

  it.live(
    "another key, with a token that was stolen",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const { credential, registry } = yield* start(program, url)
        const lease = yield* registry.register(instance)
        const thief = yield* makeProgram({ store: program.store })
        const stolen = yield* start(thief, url)
        assert.strictEqual((yield* stolen.credential.token)?.jti, (yield* credential.token)?.jti)
        const error = yield* Effect.flip(stolen.registry.heartbeat(lease))
        assert.deepStrictEqual(causes(error), ["AuthFailed", "ProofRejected"])
        assert.include(error.message, "another key")
        yield* registry.heartbeat(lease)
      })
    )
  )
})
