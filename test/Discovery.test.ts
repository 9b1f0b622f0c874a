import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import * as Discovery from "effect-lifeline/Discovery"
import type { AuthFailed, Refused } from "effect-lifeline/LifelineError"
import * as Memory from "effect-lifeline/registry/Memory"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { inspect } from "node:util"

const secret = "canary-of-a-peer"
const haul = {
  name: "haul",
  type: "download-client",
  apiUrl: "http://haul:8484",
  apiKey: Redacted.make(secret),
  capabilities: ["supports_torrent"]
}
const prism = { name: "prism", type: "media-manager", apiUrl: "http://prism:8282" }

const withMemory = Discovery.layer.pipe(Layer.provideMerge(Memory.layer()))

const setUp = Effect.gen(function*() {
  const memory = yield* Memory.Memory
  const discovery = yield* Discovery.Discovery
  yield* memory.registry.register(haul)
  yield* memory.registry.register(prism)
  return { memory, discovery }
})

const namesOf = (services: ReadonlyArray<{ readonly name: string }>) => services.map((service) => service.name)

describe("Discovery", () => {
  it.effect("finds all, by type, by capability and by name", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      yield* memory.registry.register({ ...haul, type: "other" })
      assert.deepStrictEqual(namesOf(yield* discovery.all), ["haul", "prism", "haul"])
      assert.deepStrictEqual(namesOf(yield* discovery.byType("media-manager")), ["prism"])
      assert.deepStrictEqual(namesOf(yield* discovery.byCapability("supports_torrent")), ["haul", "haul"])
      assert.deepStrictEqual((yield* discovery.byName("haul")).map((service) => service.type), [
        "download-client",
        "other"
      ])
      assert.deepStrictEqual(yield* discovery.byName("nobody"), [])
    }).pipe(Effect.provide(withMemory)))

  it.effect("asks the registry each time", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      assert.strictEqual((yield* discovery.all).length, 2)
      yield* memory.forgetAll
      assert.strictEqual((yield* discovery.all).length, 0)
    }).pipe(Effect.provide(withMemory)))

  it.effect("a peer is its URL and the key that it shares", () =>
    Effect.gen(function*() {
      const { discovery } = yield* setUp
      const peer = yield* discovery.peer("haul")
      assert.strictEqual(peer.url, "http://haul:8484")
      assert.strictEqual(Redacted.value(peer.apiKey), secret)
      assert.strictEqual(peer.service.type, "download-client")
      assert.strictEqual(JSON.stringify(peer).includes(secret), false)
      assert.strictEqual(inspect(peer, { depth: 9 }).includes(secret), false)
    }).pipe(Effect.provide(withMemory)))

  it.effect("of several with one name the first that is online is called, else the first", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      yield* memory.registry.register({ ...haul, type: "second", apiUrl: "http://second:1" })
      yield* memory.registry.register({ ...haul, type: "third", apiUrl: "http://third:1" })
      assert.strictEqual((yield* discovery.peer("haul")).url, "http://haul:8484")
      assert.strictEqual((yield* discovery.peers)["haul"], "http://haul:8484")
      yield* memory.setStatus(haul, "offline")
      assert.strictEqual((yield* discovery.peer("haul")).url, "http://second:1")
      assert.strictEqual((yield* discovery.peers)["haul"], "http://second:1")
      yield* memory.setStatus({ name: "haul", type: "second" }, "degraded")
      yield* memory.setStatus({ name: "haul", type: "third" }, "unknown")
      assert.strictEqual((yield* discovery.peer("haul")).url, "http://haul:8484")
      assert.strictEqual((yield* discovery.peers)["haul"], "http://haul:8484")
    }).pipe(Effect.provide(withMemory)))

  it.effect("an unknown peer is told which there are", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      const error = yield* Effect.flip(discovery.peer("houl"))
      assert.strictEqual(error._tag, "PeerUnavailable")
      assert.deepStrictEqual(error.reason._tag === "UnknownPeer" ? error.reason.known : [], ["haul", "prism"])
      assert.strictEqual(error.message.includes("houl") && error.message.includes("haul, prism"), true)
      yield* memory.forgetAll
      const none = yield* Effect.flip(discovery.peer("haul"))
      assert.strictEqual(none.message.includes("none"), true)
      for (let n = 0; n < 30; n++) yield* memory.registry.register({ ...prism, name: `n${n}` })
      const many = yield* Effect.flip(discovery.peer("haul"))
      assert.strictEqual(many.message.includes("and 10 more"), true)
    }).pipe(Effect.provide(withMemory)))

  it.effect("a peer that shares no key is named with its URL", () =>
    Effect.gen(function*() {
      const { discovery } = yield* setUp
      const error = yield* Effect.flip(discovery.peer("prism"))
      assert.strictEqual(error.reason._tag, "PeerSharesNoKey")
      assert.strictEqual(error.message.includes("prism") && error.message.includes("http://prism:8282"), true)
    }).pipe(Effect.provide(withMemory)))

  it.effect("a registry that does not answer: no peer, and no peers", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      yield* memory.failAs("Unreachable", { detail: "ECONNREFUSED" })
      const error = yield* Effect.flip(discovery.peer("haul"))
      assert.strictEqual(error.reason._tag, "RegistryUnreachable")
      assert.strictEqual(error.message.includes("haul") && error.message.includes("ECONNREFUSED"), true)
      assert.deepStrictEqual(yield* discovery.peers, {})
      assert.strictEqual((yield* Effect.flip(discovery.all))._tag, "Transient")
    }).pipe(Effect.provide(withMemory)))

  it.effect("a refused credential passes as it is", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      yield* memory.failAs("Unauthorized")
      assert.strictEqual((yield* Effect.flip(discovery.peer("haul")))._tag, "AuthFailed")
      assert.strictEqual((yield* Effect.flip(discovery.peers))._tag, "AuthFailed")
      assert.strictEqual((yield* Effect.flip(discovery.byType("x")))._tag, "AuthFailed")
    }).pipe(Effect.provide(withMemory)))

  it.effect("without a registry there are no peers, and a peer is not configured", () =>
    Effect.gen(function*() {
      const discovery = yield* Discovery.Discovery
      assert.deepStrictEqual(yield* discovery.peers, {})
      const error = yield* Effect.flip(discovery.peer("haul"))
      assert.strictEqual(error.reason._tag, "NotConfigured")
      assert.strictEqual((yield* Effect.flip(discovery.all)).reason._tag, "Unsupported")
    }).pipe(Effect.provide(Discovery.layer.pipe(Layer.provide(Directory.layerDisabled)))))

  it.effect("peers maps names to URLs, whatever the names are", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      yield* memory.registry.register({ ...prism, name: "__proto__" })
      const peers = yield* discovery.peers
      assert.deepStrictEqual(Object.entries(peers).sort(), [
        ["__proto__", "http://prism:8282"],
        ["haul", "http://haul:8484"],
        ["prism", "http://prism:8282"]
      ])
    }).pipe(Effect.provide(withMemory)))

  it("says in its types what can go wrong", () => {
    type Service = Discovery.Discovery["Service"]
    expectTypeOf<ReturnType<Service["peer"]>>().toEqualTypeOf<
      Effect.Effect<Discovery.Peer, Discovery.PeerUnavailable | AuthFailed | Refused>
    >()
    expectTypeOf<Service["peers"]>().toEqualTypeOf<
      Effect.Effect<Readonly<Record<string, string>>, AuthFailed | Refused>
    >()
  })

  it.effect("picks by chance among those that are best off, and says when there is none", () =>
    Effect.gen(function*() {
      const { discovery, memory } = yield* setUp
      const query = { type: "worker" }
      const none = yield* Effect.flip(discovery.pick(query))
      assert.strictEqual(none._tag, "NoneRegistered")
      assert.strictEqual(none.message, "no service is registered with type worker")
      for (const name of ["a", "b", "c", "d"]) {
        yield* memory.registry.register({ name, type: "worker", apiUrl: `http://${name}:1` })
      }
      const picked = () =>
        Effect.map(
          Effect.replicateEffect(discovery.pick(query), 200),
          (services) => [...new Set(namesOf(services))].sort().join()
        )
      assert.strictEqual(yield* picked(), "a,b,c,d")
      yield* memory.setStatus({ name: "a", type: "worker" }, "offline")
      yield* memory.setStatus({ name: "b", type: "worker" }, "degraded")
      assert.strictEqual(yield* picked(), "c,d")
      yield* memory.setStatus({ name: "c", type: "worker" }, "offline")
      yield* memory.setStatus({ name: "d", type: "worker" }, "unknown")
      assert.strictEqual(yield* picked(), "b")
      yield* memory.expire({ name: "b", type: "worker" })
      assert.strictEqual(yield* picked(), "d")
      yield* memory.expire({ name: "d", type: "worker" })
      assert.strictEqual(yield* picked(), "a,c")
      yield* memory.failAs("Unreachable")
      assert.strictEqual((yield* Effect.flip(discovery.pick(query)))._tag, "Transient")
    }).pipe(Effect.provide(withMemory)))
})
