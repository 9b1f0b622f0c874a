import { assert, describe, it } from "@effect/vitest"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import * as Registry from "effect-lifeline/Registry"
import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
import * as Events from "effect-lifeline/server/Events"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Server from "../support/webSocketServer.ts"

const apiKey = Redacted.make("canary-key")
const instance = { name: "haul", type: "worker", apiUrl: "http://haul:1", capabilities: ["x"] }

const registryOf = (options: PulseEvents.Options) =>
  Effect.provide(Registry.Registry, PulseEvents.layer(options).pipe(Layer.provide(FetchHttpClient.layer)))

const tags = (error: { readonly _tag: string; readonly reason: { readonly _tag: string } }) =>
  `${error._tag}.${error.reason._tag}`

const until = (done: () => boolean) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1000 && !done(); n++) {
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
    }
  })

describe("PulseEvents", () => {
  for (const [platform, layer] of [["Node's WebSocket", Layer.empty], ["ws", NodeWebSocket.layer]] as const) {
    it.live(`the embedded registry, by ${platform}: each change, and the end as a failure for now`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(NodeRegistry.make({ apiKey }), scope)
        const { url } = Context.get(server, NodeRegistry.NodeRegistry)
        const events = Context.get(server, Events.Events)
        const registry = yield* registryOf({ url, apiKey })
        assert.strictEqual(registry.capabilities.watch, "push")
        const seen: Array<Registry.Change> = []
        const reader = yield* Effect.forkChild(
          Effect.flip(Stream.runForEach(registry.changes, (change) => Effect.sync(() => void seen.push(change))))
        )
        // Pulse remembers nothing: what happens before it listens is not told.
        for (let n = 0; n < 500 && seen.length === 0; n++) {
          yield* events.publish({ type: "ping" })
          yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))
        }
        seen.length = 0
        const lease = yield* registry.register(instance)
        yield* until(() => seen.some((change) => change._tag === "Registered"))
        yield* registry.heartbeat(lease)
        yield* registry.deregister(lease)
        yield* events.publish({ type: "service_degraded", serviceId: "7" })
        yield* events.publish({ type: "service_registered", serviceId: "gone", data: { name: "gone", type: "t" } })
        yield* events.publish({ type: "config_updated", data: { key: "k" } })
        yield* events.publish({ type: "toString", serviceId: "7" })
        yield* until(() => seen.some((change) => change._tag === "Other" && change.type === "toString"))
        yield* Scope.close(scope, Exit.void)

        const told = seen.filter((change) => change._tag !== "Other" || change.type !== "ping")
        const [registered, ...rest] = told
        assert.strictEqual(registered?._tag, "Registered")
        if (registered?._tag === "Registered") {
          assert.strictEqual(registered.service.id, lease.id)
          assert.strictEqual(registered.service.apiUrl, instance.apiUrl)
        }
        assert.deepStrictEqual(rest.filter((change) => change._tag !== "StatusChanged" || change.id !== lease.id), [
          { _tag: "Deregistered", id: lease.id },
          { _tag: "StatusChanged", id: "7", status: "degraded" },
          { _tag: "Other", type: "service_registered", id: "gone", data: { name: "gone", type: "t" } },
          { _tag: "Other", type: "config_updated", id: undefined, data: { key: "k" } },
          { _tag: "Other", type: "toString", id: "7", data: undefined }
        ])
        assert.strictEqual(tags(yield* Fiber.join(reader)), "Transient.Unavailable")
      }).pipe(Effect.provide(layer), Effect.scoped))
  }

  it.live("a wrong key, and none that could be sent", () =>
    Effect.gen(function*() {
      const server = yield* NodeRegistry.make({ apiKey })
      const { url } = Context.get(server, NodeRegistry.NodeRegistry)
      for (
        const [key, expected] of [["wrong", "AuthFailed.Unauthorized"], [" ", "AuthFailed.CredentialMissing"]] as const
      ) {
        const registry = yield* registryOf({ url, apiKey: Redacted.make(key) })
        assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(registry.changes))), expected)
      }
    }).pipe(Effect.provide(NodeWebSocket.layer), Effect.scoped))

  it.live("what is no event is refused", () =>
    Effect.gen(function*() {
      for (const frame of ["<html>", "{}", "[]", "{\"type\":1,\"timestamp\":\"\"}"]) {
        const server = yield* Server.make({ open: (socket) => socket.send(frame) })
        const registry = yield* registryOf({ url: server.url.replace("ws:", "http:").replace("/live", "/") })
        assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(registry.changes))), "Refused.MalformedResponse")
        assert.strictEqual(server.requests[0]?.url, "/api/v1/ws")
      }
    }).pipe(Effect.scoped))

  it.effect("without a URL nothing is opened", () =>
    Effect.gen(function*() {
      const registry = yield* registryOf({ url: " " })
      assert.strictEqual(registry.capabilities.watch, "none")
      assert.strictEqual(tags(yield* Effect.flip(Stream.runDrain(registry.changes))), "Refused.Unsupported")
    }))

  it.live("the conformance suite's case", () =>
    Effect.gen(function*() {
      const server = yield* NodeRegistry.make({ apiKey })
      const { url } = Context.get(server, NodeRegistry.NodeRegistry)
      const found = RegistryConformance.cases({
        elapse: () => Effect.void,
        unauthorized: registryOf({ url, apiKey: Redacted.make("wrong") }).pipe(Effect.orDie),
        unreachable: registryOf({ url: "http://127.0.0.1:1", apiKey }).pipe(Effect.orDie)
      }).find(({ name }) => name.startsWith("changes"))
      assert.isDefined(found)
      if (found !== undefined) {
        yield* Effect.provideService(found.run, Registry.Registry, yield* registryOf({ url, apiKey }))
      }
    }).pipe(Effect.provide(NodeWebSocket.layer), Effect.scoped))
})
