import { assert, describe, it } from "@effect/vitest"
import * as Classify from "effect-lifeline/Classify"
import * as Wire from "effect-lifeline/internal/pulseWire"
import * as Resources from "effect-lifeline/internal/pulseWireResources"
import { formatTime, parseTime } from "effect-lifeline/internal/time"
import { showText, showUrl } from "effect-lifeline/internal/url"
import type { LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import * as FaultyHttpClient from "effect-lifeline/testing/FaultyHttpClient"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Calls from "../support/pulse.ts"

const Text = Schema.NonEmptyString
const Millis = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 8_000_000_000_000 }))

/** Services as the embedded registry holds them. */
const Service = Schema.Struct({
  id: Text,
  name: Schema.String,
  type: Schema.String,
  apiUrl: Schema.String,
  status: Schema.Literals(["online", "offline", "degraded", "unknown"]),
  capabilities: Schema.Array(Schema.String),
  apiKey: Schema.optionalKey(Text),
  healthUrl: Schema.optionalKey(Text),
  version: Schema.optionalKey(Text),
  lastSeen: Schema.optionalKey(Millis),
  registeredAt: Schema.optionalKey(Millis),
  metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json))
})

const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

const decodeService = Schema.decodeUnknownSync(Wire.Service)
const decodeRegister = Schema.decodeUnknownSync(Wire.Register)

const open = <A extends { readonly apiKey?: Redacted.Redacted | undefined }>({ apiKey, ...rest }: A) => ({
  ...rest,
  key: apiKey === undefined ? "" : Redacted.value(apiKey)
})

describe("Pulse's wire", () => {
  it.prop("a service that the registry wrote is read as it was", [Service], ([{ apiKey, ...plain }]) => {
    const metadata = plain.metadata === undefined ? undefined : throughJson(plain.metadata)
    const service = {
      ...plain,
      ...(apiKey === undefined ? {} : { apiKey: Redacted.make(apiKey) })
    }
    const read = Wire.toService(decodeService(throughJson(Wire.fromService(service))))
    const { metadata: _, ...expected } = open(service)
    const { metadata: actualMetadata, ...actual } = open(read)
    assert.deepStrictEqual(actual, expected)
    // No metadata and empty metadata are the same.
    assert.deepStrictEqual(actualMetadata ?? {}, metadata ?? {})
  })

  it.prop("a registration that the client wrote is read as it was", [Service], ([service]) => {
    const { apiUrl, capabilities, healthUrl, metadata, version } = service
    const instance: ServiceInstance.ServiceInstance = {
      name: `n${service.name}`.slice(0, 200),
      type: `t${service.type}`.slice(0, 50),
      apiUrl: `u${apiUrl}`,
      capabilities,
      ...(healthUrl === undefined ? {} : { healthUrl }),
      ...(version === undefined ? {} : { version }),
      ...(service.apiKey === undefined ? {} : { apiKey: Redacted.make(service.apiKey) }),
      ...(metadata === undefined || Object.keys(metadata).length === 0 ? {} : { metadata })
    }
    const read = Wire.fromRegister(decodeRegister(throughJson(Wire.toRegister(instance))))
    assert.deepStrictEqual(open(read), throughJson(open(instance)))
  })

  it.prop("whatever a server says of a service, reading it ends in a service", [Wire.Service], ([wire]) => {
    const service = Wire.toService(wire)
    assert.strictEqual(service.id, wire.id)
    assert.include(["online", "offline", "degraded", "unknown"], service.status)
    assert.strictEqual(JSON.stringify(service).includes("undefined"), JSON.stringify(wire).includes("undefined"))
  })

  it("what a Go client sends without values is read as not given", () => {
    const wire = decodeRegister({
      name: "n",
      type: "t",
      api_url: "u",
      api_key: "",
      health_url: "",
      version: "",
      capabilities: null,
      metadata: ""
    })
    assert.deepStrictEqual(Wire.fromRegister(wire), { name: "n", type: "t", apiUrl: "u" })
  })

  it("metadata that is no JSON object is dropped", () => {
    for (const metadata of ["", "{}", "x", "[1]", "null", "7", "{\"a\":", "\"{}\""]) {
      const service = Wire.toService({ id: "1", name: "n", type: "t", api_url: "u", metadata })
      assert.strictEqual("metadata" in service, false, metadata)
    }
  })

  for (const [name, schema] of Object.entries(Resources)) {
    it.prop(`${name} survives the wire`, [schema as Schema.Codec<object, unknown>], ([value]) => {
      const wire = throughJson(Schema.encodeSync(schema as Schema.Codec<object, unknown>)(value))
      assert.deepStrictEqual(
        Schema.decodeUnknownSync(schema as Schema.Codec<object, unknown>)(wire),
        throughJson(value)
      )
      assert.strictEqual(Object.keys(wire as object).some((key) => /[A-Z]/.test(key)), false)
    })
  }
})

describe("reading answers", () => {
  type PortError = Transient | LeaseLost | Refused

  it.effect.prop(
    "any JSON at all is a result or a MalformedResponse",
    [Schema.Json],
    ([value]) =>
      Effect.gen(function*() {
        const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.json(200, value))
        const registry = yield* Effect.provideService(
          Calls.make({ url: "http://pulse.test" }),
          HttpClient.HttpClient,
          http.client
        )
        for (const call of [registry.discover({}), registry.register({ name: "n", type: "t", apiUrl: "http://n" })]) {
          const error = yield* Effect.matchEffect(call as Effect.Effect<unknown, PortError>, {
            onSuccess: () => Effect.succeed("MalformedResponse"),
            onFailure: (error) => Effect.succeed(error.reason._tag)
          })
          assert.strictEqual(error, "MalformedResponse")
        }
      })
  )

  it.effect.prop(
    "any text at all is a result or a MalformedResponse",
    [Schema.String],
    ([body]) =>
      Effect.gen(function*() {
        const http = yield* FaultyHttpClient.make(() => FaultyHttpClient.respond(200, { body }))
        const registry = yield* Effect.provideService(
          Calls.make({ url: "http://pulse.test" }),
          HttpClient.HttpClient,
          http.client
        )
        const exit = yield* Effect.result(registry.discover({}))
        assert.strictEqual(
          exit._tag === "Failure" ? exit.failure.reason._tag : "MalformedResponse",
          "MalformedResponse"
        )
      })
  )

  it.prop("any answer at all is an error of the algebra that names where it came from", [
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 999 })),
    Schema.String,
    Schema.String,
    Schema.Json
  ], ([status, location, hint, body]) => {
    const headers = { location, "retry-after": hint, "content-type": hint }
    const error = Classify.fromResponse(
      Classify.httpLease,
      { status, headers, body: JSON.stringify(body) },
      { operation: "verify", target: "GET http://pulse.test/x", now: 0 }
    )
    assert.include(["Transient", "LeaseLost", "AuthFailed", "Refused"], error._tag)
    assert.strictEqual(error.message.includes("verify") && error.message.includes("GET http://pulse.test/x"), true)
  })
})

describe("texts", () => {
  it.prop("a time that was written is read as it was", [Millis], ([millis]) => {
    assert.strictEqual(parseTime(formatTime(millis)), millis)
  })

  it("times of Go are read, guesses are not made", () => {
    for (
      const [text, millis] of [
        ["2026-01-01T00:00:00Z", Date.UTC(2026, 0, 1)],
        ["2026-01-01T02:00:00.5+02:00", Date.UTC(2026, 0, 1) + 500],
        ["Thu, 01 Jan 2026 00:00:00 GMT", undefined],
        ["0001-01-01T00:00:00Z", undefined],
        ["2026", undefined],
        ["garbage 1", undefined],
        ["", undefined],
        [null, undefined],
        [undefined, undefined]
      ] as const
    ) {
      assert.strictEqual(parseTime(text), millis, String(text))
    }
  })

  it.prop("what is shown of a URL holds no user, password, query or fragment", [Schema.String], ([text]) => {
    const secret = encodeURIComponent(text.toWellFormed()) + "canary"
    for (
      const url of [`http://u:${secret}@host/p?q=${secret}#${secret}`, `x:${secret}@host?${secret}`, `${secret}@h`]
    ) {
      assert.strictEqual(showText(url).includes("canary"), false, url)
      assert.strictEqual(showUrl(url)?.includes("canary") ?? false, false, url)
    }
    assert.strictEqual(showUrl("http://u:p@host:8/p/q?x#y"), "http://host:8/p/q")
  })
})
