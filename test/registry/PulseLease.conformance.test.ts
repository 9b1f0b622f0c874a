// What every adapter must do, by the adapter for leases and the embedded registry, over real HTTP.
import { describe, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as Registry from "effect-lifeline/Registry"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { makeProgram, start } from "../support/leaseRegistry.ts"

const apiKey = Redacted.make("conformance")

const client = Effect.fnUntraced(function*(options: { readonly url: string; readonly apiKey: Redacted.Redacted }) {
  const program = yield* makeProgram()
  const { registry } = yield* start(program, options.url, options)
  const directory = yield* Effect.provideService(PulseDirectory.make(options), HttpClient.HttpClient, program.client)
  return { registry, directory }
}, Effect.orDie)

const nobody = { registry: Registry.disabled, directory: Directory.disabled }

const names = RegistryConformance.cases({
  elapse: TestClock.adjust,
  unauthorized: Effect.succeed(nobody),
  unreachable: Effect.succeed(nobody)
}).map(({ name }) => name)

describe("the lease adapter against the embedded registry", () => {
  it.effect.each(names)("%s", (name) =>
    Effect.gen(function*() {
      const context = yield* NodeRegistry.make({ apiKey, leases: {} })
      const { url } = Context.get(context, NodeRegistry.NodeRegistry)
      const scope = yield* Effect.scope
      const here = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.provideService(effect, Scope.Scope, scope)
      const cases = RegistryConformance.cases({
        elapse: TestClock.adjust,
        unauthorized: here(client({ url, apiKey: Redacted.make("wrong") })),
        unreachable: here(client({ url: "http://127.0.0.1:1", apiKey }))
      })
      const found = cases.find((it) => it.name === name)
      if (found === undefined) return yield* Effect.die(new Error(`no case ${name}`))
      const { directory, registry } = yield* client({ url, apiKey })
      yield* found.run.pipe(
        Effect.provideService(Registry.Registry, registry),
        Effect.provideService(Directory.Directory, directory)
      )
    }))
})
