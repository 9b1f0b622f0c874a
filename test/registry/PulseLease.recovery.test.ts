// Boot recovery of leases of the embedded registry, over real HTTP on the loopback interface.
import { assert, describe, it } from "@effect/vitest"
import type * as Lease from "effect-lifeline/Lease"
import * as Proof from "effect-lifeline/Proof"
import * as Recovery from "effect-lifeline/Recovery"
import * as PulseLease from "effect-lifeline/registry/PulseLease"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type { Program, Time } from "../support/leaseRegistry.ts"
import {
  answered,
  clockOf,
  instance,
  makeProgram,
  makeStore,
  pass,
  startRegistry,
  timed
} from "../support/leaseRegistry.ts"

type Registered = {
  readonly id: string
  readonly lease: { readonly token: string; readonly expires_at: string; readonly jti: string }
}

/** Registers by HTTP alone, and keeps lease and token as a program does. */
const register = Effect.fnUntraced(function*(
  options: Recovery.Options,
  program: Program,
  url: string,
  name: string,
  provenance: "Managed" | "Supplied" = "Managed"
) {
  const signed = Proof.httpClient(program.client, { proof: program.proof })
  const response = yield* signed.post(`${url}/api/v1/services/register`, {
    body: HttpBody.jsonUnsafe({
      name,
      type: instance.type,
      api_url: instance.apiUrl
    })
  })
  assert.strictEqual(response.status, 201)
  const { id, lease: granted } = (yield* response.json) as unknown as Registered
  const lease: Lease.Lease = { id, name, type: instance.type, registeredAt: yield* Clock.currentTimeMillis }
  const leases = yield* Recovery.makeLeases()
  const entry = yield* leases.put({ lease, provenance })
  const credential = yield* Recovery.credential(options, entry)
  yield* credential.accept({
    value: Redacted.make(granted.token),
    expiresAt: Date.parse(granted.expires_at),
    jti: granted.jti
  })
  return lease
}, Effect.scoped)

const optionsOf = Effect.fnUntraced(function*(program: Program, url: string, isAlive = true) {
  const api = yield* Effect.provideService(
    PulseLease.makeLeaseApi({ url, requestTimeout: "1 second" }),
    HttpClient.HttpClient,
    program.client
  )
  const options: Recovery.Options = {
    api,
    proof: program.proof,
    isAlive: () => Effect.succeed(isAlive),
    timeout: "2 seconds"
  }
  return options
})

/** A look at the lease that is no recovery: by the registry's word, with a proof. */
const revivalsOf = Effect.fnUntraced(function*(program: Program, url: string, { id }: Lease.Lease) {
  const signed = Proof.httpClient(program.client, { proof: program.proof })
  const response = yield* signed.get(`${url}/api/v1/services/${id}/lease`)
  const { revivals, status } = (yield* response.json) as { readonly revivals?: number; readonly status: unknown }
  return [response.status, status, revivals] as const
})

/** A program that registered, ended, and starts when its lease has timed out. */
const slept = Effect.fnUntraced(function*(
  time: Time,
  options: { readonly isAlive?: boolean; readonly provenance?: "Managed" | "Supplied" } = {}
) {
  const { url } = yield* startRegistry(time)
  const program = yield* makeProgram()
  const boot = yield* optionsOf(program, url, options.isAlive ?? true)
  const lease = yield* register(boot, program, url, "haul", options.provenance).pipe(
    Effect.provideService(KeyValueStore.KeyValueStore, program.store)
  )
  yield* pass(time, "123 minutes")
  yield* Effect.repeat(revivalsOf(program, url, lease), {
    until: ([status]) => status === 401,
    schedule: Schedule.spaced("10 millis"),
    times: 300
  })
  program.sent.length = 0
  return { url, program, boot, lease }
})

const reconcile = (program: Program, options: Recovery.Options) =>
  Effect.provideService(Recovery.reconcile(options), KeyValueStore.KeyValueStore, program.store)

const tokenOf = (program: Program, { id }: Lease.Lease) => program.store.get(`recovery/credential/token/${id}`)

const heartbeats = ({ sent }: Program) => sent.filter((line) => line.startsWith("PUT heartbeat"))

describe("boot recovery against the embedded registry", () => {
  it.live(
    "R1: alive, and the heartbeat revives: attached, the token kept, one heartbeat, by the key alone",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program, url } = yield* slept(time)
        const before = yield* tokenOf(program, lease)
        const [report] = yield* reconcile(program, boot)
        assert.deepInclude(report, { _tag: "Attached", id: lease.id, revived: true })
        assert.deepStrictEqual(heartbeats(program), ["PUT heartbeat proof 200"])
        assert.isDefined(yield* tokenOf(program, lease))
        assert.notStrictEqual(yield* tokenOf(program, lease), before)
        const credential = yield* Recovery.credential(boot, { lease, provenance: "Managed" }).pipe(
          Effect.provideService(KeyValueStore.KeyValueStore, program.store)
        )
        const token = yield* credential.token
        assert.isTrue(token?.jti?.startsWith(`${lease.id}.`))
        assert.approximately(token?.expiresAt ?? 0, (yield* Clock.currentTimeMillis) + 3_600_000, 10_000)
        assert.deepStrictEqual(yield* revivalsOf(program, url, lease), [200, "active", 1])
        // The next boot finds it alive.
        const [next] = yield* reconcile(program, boot)
        assert.deepInclude(next, { _tag: "Attached", revived: false })
        assert.lengthOf(heartbeats(program), 1)
      })
    )
  )

  it.live(
    "R2: alive, and the lease has ended: finalised, the token deleted",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program, url } = yield* slept(time)
        yield* Effect.promise(() => fetch(`${url}/api/v1/services/${lease.id}`, { method: "DELETE" }))
        const [report] = yield* reconcile(program, boot)
        assert.deepStrictEqual(report, { _tag: "Finalised", id: lease.id, reason: "Gone" })
        assert.isUndefined(yield* tokenOf(program, lease))
      })
    )
  )

  it.live(
    "R3: supplied, though there is a signer: no heartbeat, finalised",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program } = yield* slept(time, { provenance: "Supplied" })
        const [report] = yield* reconcile(program, boot)
        assert.deepInclude(report, { _tag: "Finalised", reason: "Unauthorized" })
        assert.deepStrictEqual(heartbeats(program), [])
        assert.isUndefined(yield* tokenOf(program, lease))
      })
    )
  )

  it.live.each(["503", "a network error", "a registry that hangs"] as const)(
    "R4: alive, and the heartbeat comes to %s: attached, the token kept, tried again",
    (what) =>
      timed((time) =>
        Effect.gen(function*() {
          const { boot, lease, program, url } = yield* slept(time)
          program.meddle = (request, send) =>
            request.method !== "PUT"
              ? send(request)
              : what === "503"
              ? answered(request, 503, { "retry-after": "30" })
              : what === "a network error"
              ? send(HttpClientRequest.setUrl(request, "http://127.0.0.1:1/"))
              : Effect.never
          const [report] = yield* reconcile(program, boot)
          assert.deepInclude(report, { _tag: "Attached", revived: false })
          assert.isTrue(report?._tag === "Attached" && report.retryAt !== undefined)
          assert.isDefined(yield* tokenOf(program, lease))
          assert.deepStrictEqual((yield* revivalsOf(program, url, lease))[0], 401)
          program.meddle = (request, send) => send(request)
          const [again] = yield* reconcile(program, boot)
          assert.deepInclude(again, { _tag: "Attached", revived: true })
          assert.deepStrictEqual(yield* revivalsOf(program, url, lease), [200, "active", 1])
        })
      )()
  )

  it.live(
    "R5: dead: no heartbeat is sent, finalised, the token deleted, one attempt; it stays dead",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program, url } = yield* slept(time, { isAlive: false })
        const [report] = yield* reconcile(program, boot)
        assert.deepStrictEqual(report, { _tag: "Finalised", id: lease.id, reason: "Unauthorized" })
        assert.deepStrictEqual(heartbeats(program), [])
        assert.isUndefined(yield* tokenOf(program, lease))
        const leases = yield* Effect.provideService(Recovery.makeLeases(), KeyValueStore.KeyValueStore, program.store)
        assert.strictEqual((yield* leases.get(lease.id))?.attempts, 1)
        // Not even somebody who now says that it is alive brings it back.
        assert.deepStrictEqual(yield* reconcile(program, { ...boot, isAlive: () => Effect.succeed(true) }), [])
        assert.deepStrictEqual((yield* revivalsOf(program, url, lease))[0], 401)
      })
    )
  )

  it.live(
    "R5, where the registry says that it is active: finalised all the same, without a heartbeat",
    timed((time) =>
      Effect.gen(function*() {
        const { url } = yield* startRegistry(time)
        const program = yield* makeProgram()
        const boot = yield* optionsOf(program, url, false)
        const lease = yield* register(boot, program, url, "haul").pipe(
          Effect.provideService(KeyValueStore.KeyValueStore, program.store)
        )
        const [report] = yield* reconcile(program, boot)
        assert.deepStrictEqual(report, { _tag: "Finalised", id: lease.id, reason: "Dead" })
        assert.deepStrictEqual(heartbeats(program), [])
        assert.isUndefined(yield* tokenOf(program, lease))
      })
    )
  )

  it.live(
    "R7: two boots at once: one revival, and both attach",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program, url } = yield* slept(time)
        const both = yield* Effect.all([reconcile(program, boot), reconcile(program, boot)], { concurrency: 2 })
        for (const [report] of both) assert.deepInclude(report, { _tag: "Attached" })
        assert.deepStrictEqual(yield* revivalsOf(program, url, lease), [200, "active", 1])
      })
    )
  )

  it.live.each([["behind", -600_000], ["ahead", 600_000]] as const)(
    "R8: a clock that is 10 minutes %s: revived",
    ([, skew]) =>
      timed((time) =>
        Effect.gen(function*() {
          const { boot, lease, program, url } = yield* slept(time)
          const fresh = yield* makeProgram({ key: program.key, store: program.store })
          const [report] = yield* Effect.gen(function*() {
            return yield* reconcile(fresh, { ...yield* optionsOf(fresh, url), isAlive: boot.isAlive })
          }).pipe(Effect.provideService(Clock.Clock, clockOf(time, skew)))
          assert.deepInclude(report, { _tag: "Attached", revived: true })
          assert.deepStrictEqual(yield* revivalsOf(program, url, lease), [200, "active", 1])
        })
      )()
  )

  it.live(
    "R9: a key that is not the lease's revives nothing",
    timed((time) =>
      Effect.gen(function*() {
        const { boot, lease, program, url } = yield* slept(time)
        const thief = yield* makeProgram({ store: program.store })
        const [report] = yield* reconcile(thief, { ...yield* optionsOf(thief, url), isAlive: boot.isAlive })
        assert.strictEqual(report?._tag, "Finalised")
        assert.deepStrictEqual((yield* revivalsOf(program, url, lease))[0], 401)
      })
    )
  )

  it.live(
    "R10: of many leases, one cannot be read and one hangs: the others are recovered",
    timed((time) =>
      Effect.gen(function*() {
        const many = 40
        const { url } = yield* startRegistry(time)
        const inner = makeStore()
        const broken = new Set<string>()
        const store = KeyValueStore.makeStringOnly({
          get: (key) =>
            broken.has(key)
              ? Effect.fail(new KeyValueStore.KeyValueStoreError({ method: "get", key, message: "cannot be read" }))
              : inner.get(key),
          set: inner.set,
          remove: inner.remove,
          clear: inner.clear,
          size: inner.size,
          keys: inner.keys
        })
        const program = yield* makeProgram({ store })
        const boot = yield* optionsOf(program, url)
        const leases = yield* Effect.forEach(
          Array.from({ length: many }, (_, n) => `service-${n}`),
          (name) => register(boot, program, url, name),
          { concurrency: 8 }
        ).pipe(Effect.provideService(KeyValueStore.KeyValueStore, store))
        yield* pass(time, "123 minutes")
        yield* Effect.forEach(leases, (lease) =>
          Effect.repeat(revivalsOf(program, url, lease), {
            until: ([status]) => status === 401,
            schedule: Schedule.spaced("10 millis"),
            times: 300
          }))
        const [unreadable, hanging] = leases
        broken.add(`recovery/lease/${unreadable?.id}`)
        program.meddle = (request, send) => request.url.includes(hanging?.id ?? "-") ? Effect.never : send(request)
        const reports = yield* reconcile(program, boot)
        assert.lengthOf(reports.filter((report) => report._tag === "Attached" && report.revived), many - 2)
        assert.deepInclude(reports.find(({ id }) => id === unreadable?.id), { _tag: "Deferred" })
        assert.deepInclude(reports.find(({ id }) => id === hanging?.id), { _tag: "Attached", revived: false })
      })
    )
  )
})
