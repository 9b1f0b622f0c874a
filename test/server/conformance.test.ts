import { assert, describe, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Registry from "effect-lifeline/Registry"
import * as PulseApi from "effect-lifeline/registry/PulseApi"
import type * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import { ports } from "../support/pulse.ts"

const apiKey = Redacted.make("conformance")

const client = (options: PulseDirectory.Options) => Effect.orDie(Effect.provide(ports(options), FetchHttpClient.layer))

const nobody = { registry: Registry.disabled, directory: Directory.disabled }

/** The real client and the real server, over the loopback interface, in the test's clock. */
const withRegistry = (options: NodeRegistry.Options) => (test: RegistryConformance.Case["name"]) =>
  Effect.gen(function*() {
    const context = yield* NodeRegistry.make({ apiKey, ...options })
    const { url } = Context.get(context, NodeRegistry.NodeRegistry)
    const cases = RegistryConformance.cases({
      elapse: TestClock.adjust,
      unauthorized: client({ url, apiKey: Redacted.make("wrong") }),
      // Nobody listens on the port for multiplexed services.
      unreachable: client({ url: "http://127.0.0.1:1", apiKey })
    })
    const found = cases.find(({ name }) => name === test)
    if (found === undefined) return yield* Effect.die(new Error(`no case ${test}`))
    const { directory, registry } = yield* client({ url, apiKey })
    yield* found.run.pipe(
      Effect.provideService(Registry.Registry, registry),
      Effect.provideService(Directory.Directory, directory)
    )
  })

const names = RegistryConformance.cases({
  elapse: TestClock.adjust,
  unauthorized: Effect.succeed(nobody),
  unreachable: Effect.succeed(nobody)
}).map(({ name }) => name)

describe.each<[string, NodeRegistry.Options]>([
  ["as it is", {}],
  ["with the reference's answer to unknown heartbeats", { heartbeatUnknown: 204 }]
])("the Pulse client against the embedded registry %s", (_, options) => {
  it.effect.each(names)("%s", (name) => withRegistry(options)(name))
})

describe("the Pulse client's reads of the embedded registry", () => {
  it.effect("find a download client, and whatever else is there", () =>
    Effect.gen(function*() {
      const context = yield* NodeRegistry.make({ apiKey })
      const { url } = Context.get(context, NodeRegistry.NodeRegistry)
      const { registry } = yield* client({ url, apiKey })
      const api = yield* Effect.orDie(Effect.provide(PulseApi.make({ url, apiKey }), FetchHttpClient.layer))
      const lease = yield* registry.register({
        name: "haul",
        type: "download-client",
        apiUrl: "http://haul:8484",
        capabilities: ["supports_usenet"]
      })
      const [found] = yield* api.downloadClients
      assert.deepInclude(found, { name: "haul", protocol: "usenet", host: "haul", port: 8484, useSsl: false })
      assert.deepStrictEqual(yield* api.indexers(lease.id), [])
      assert.deepStrictEqual(yield* api.qualityProfiles, [])
      assert.strictEqual((yield* api.sharedSettings).colonReplacement, "space-dash")
      const unknown = yield* Effect.flip(api.indexers("nobody"))
      assert.deepStrictEqual([unknown._tag, unknown.reason._tag], ["Refused", "NotFound"])
    }))
})
