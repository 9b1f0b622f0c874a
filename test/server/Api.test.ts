import { assert, describe, it } from "@effect/vitest"
import * as table from "effect-lifeline/internal/pulseRoutes"
import * as Api from "effect-lifeline/server/Api"

const endpoints = Object.values(Api.Api.groups).flatMap((group) => Object.values(group.endpoints))

describe("Api", () => {
  it("serves exactly the routes that the client uses", () => {
    const served = Object.fromEntries(
      endpoints.map((endpoint) => [endpoint.identifier, { method: endpoint.method, path: endpoint.path }])
    )
    const { apiKeyHeader: _, ...routes } = table
    assert.deepStrictEqual(served, routes)
  })

  it("asks for the key everywhere but at the probe", () => {
    const open = endpoints.filter((endpoint) => !endpoint.middlewares.has(Api.Authorization))
    assert.deepStrictEqual(open.map((endpoint) => endpoint.path), ["/health"])
  })
})
