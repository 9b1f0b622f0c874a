import { assert, describe, it } from "@effect/vitest"
import * as Directory from "effect-lifeline/Directory"
import type { AuthFailed, Inconclusive, Refused, Stop, Transient } from "effect-lifeline/LifelineError"
import * as NodeRegistry from "effect-lifeline/node/NodeRegistry"
import * as NodeWebSocket from "effect-lifeline/node/NodeWebSocket"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as Registry from "effect-lifeline/Registry"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
import * as Events from "effect-lifeline/server/Events"
import * as RegistryConformance from "effect-lifeline/testing/RegistryConformance"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Calls from "../support/pulse.ts"
import * as RawServer from "../support/rawServer.ts"
import * as Server from "../support/webSocketServer.ts"

const apiKey = Redacted.make("canary-key")
const instance = { name: "haul", type: "worker", apiUrl: "http://haul:1", capabilities: ["x"] }

const directoryOf = (options: PulseDirectory.Options) =>
  Effect.provide(Directory.Directory, PulseDirectory.layer(options).pipe(Layer.provide(FetchHttpClient.layer)))

const dial = { cursor: undefined, attempt: 1, generation: 1 }

type Item = Reconnect.Frame<Directory.Change, string> | Reconnect.Notice<string>

/** Everything that one connection says, and how it ends. */
const reading = (connect: ReturnType<Directory.Directory["Service"]["changes"]>, seen: Array<Item>) =>
  Effect.scoped(Effect.flatMap(connect, Stream.runForEach((item) => Effect.sync(() => void seen.push(item)))))

const tags = (error: Transient | AuthFailed | Refused | Inconclusive | Stop) =>
  "reason" in error ? `${error._tag}.${error.reason._tag}` : error._tag

const changesOf = (items: ReadonlyArray<Item>) => items.flatMap((item) => item.notice === undefined ? [item.value] : [])

const ways = [
  ["Node's WebSocket", PulseEvents.webSocket(), "push", Layer.empty, "Transient.Unavailable"],
  ["ws", PulseEvents.webSocket(), "push", NodeWebSocket.layer, "Transient.Unavailable"],
  ["server-sent events", PulseEvents.sse(), "resumable", Layer.empty, "an end"]
] as const

describe("PulseDirectory", () => {
  for (const [name, events, watch, layer, ending] of ways) {
    it.live(`the embedded registry, by ${name}: each change once it is connected, until the server ends it`, () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(NodeRegistry.make({ apiKey }), scope)
        const { url } = Context.get(server, NodeRegistry.NodeRegistry)
        const hub = Context.get(server, Events.Events)
        const directory = yield* directoryOf({ url, apiKey, events })
        const { registry } = yield* Effect.provide(Calls.ports({ url, apiKey }), FetchHttpClient.layer)
        assert.deepStrictEqual(directory.capabilities, {
          adapter: "pulse",
          target: url,
          enabled: true,
          watch,
          browser: "same-origin"
        })
        const seen: Array<Item> = []
        const end = yield* Effect.scoped(Effect.gen(function*() {
          const items = yield* directory.changes(dial)
          // From here on, not from the first read on: what happens now is told.
          const lease = yield* registry.register(instance)
          yield* registry.deregister(lease)
          yield* hub.publish({ type: "service_degraded", serviceId: "7" })
          yield* hub.publish({ type: "service_registered", serviceId: "8" })
          yield* hub.publish({ type: "config_updated", data: { key: "k" } })
          yield* hub.publish({ type: "toString", serviceId: "7" })
          const isLast = (item: Item) =>
            item.notice === undefined && item.value._tag === "Other" &&
            item.value.type === "toString"
          return yield* Effect.result(Stream.runForEach(items, (item) => {
            seen.push(item)
            return isLast(item) ? Effect.asVoid(Effect.forkDetach(Scope.close(scope, Exit.void))) : Effect.void
          }))
        }))
        assert.deepStrictEqual(
          changesOf(seen).map((change) =>
            change._tag === "Registered" || change._tag === "Deregistered"
              ? { ...change, id: change.id.length === 36 ? "<uuid>" : change.id }
              : change
          ),
          [
            { _tag: "Registered", id: "<uuid>", query: { name: "haul", type: "worker" } },
            { _tag: "Deregistered", id: "<uuid>" },
            { _tag: "StatusChanged", id: "7", status: "degraded" },
            { _tag: "Registered", id: "8", query: { name: undefined, type: undefined } },
            { _tag: "Other", type: "config_updated", data: { key: "k" } },
            { _tag: "Other", type: "toString", id: "7", data: undefined }
          ]
        )
        assert.strictEqual(end._tag === "Failure" ? tags(end.failure) : "an end", ending)
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live(`by ${name}: a wrong key, and keys that cannot be sent`, () =>
      Effect.gen(function*() {
        const server = yield* NodeRegistry.make({ apiKey })
        const { url } = Context.get(server, NodeRegistry.NodeRegistry)
        for (
          const [key, expected] of [
            // Node's own WebSocket does not tell the status of a refused handshake.
            ["wrong", name === "Node's WebSocket" ? "Transient.Unreachable" : "AuthFailed.Unauthorized"],
            [" ", "AuthFailed.CredentialMissing"],
            ["a\nb", "AuthFailed.Unauthorized"]
          ] as const
        ) {
          const directory = yield* directoryOf({ url, apiKey: Redacted.make(key), events })
          const error = yield* Effect.flip(reading(directory.changes(dial), []))
          assert.strictEqual(tags(error), expected)
        }
      }).pipe(Effect.provide(layer), Effect.scoped))

    it.live(`by ${name}: the conformance suite's cases`, () =>
      Effect.gen(function*() {
        const server = yield* NodeRegistry.make({ apiKey })
        const { url } = Context.get(server, NodeRegistry.NodeRegistry)
        const found = RegistryConformance.cases().filter(({ name }) => /^changes|gap$/.test(name))
        assert.strictEqual(found.length, 2)
        const { directory, registry } = yield* Effect.provide(
          Calls.ports({ url, apiKey, events }),
          FetchHttpClient.layer
        )
        for (const { run } of found) {
          yield* run.pipe(
            Effect.provideService(Directory.Directory, directory),
            Effect.provideService(Registry.Registry, registry)
          )
        }
      }).pipe(Effect.provide(layer), Effect.scoped))
  }

  it.live("what is no event is refused, over either", () =>
    Effect.gen(function*() {
      for (const frame of ["<html>", "{}", "[]", "{\"type\":1,\"timestamp\":\"\"}"]) {
        const sockets = yield* Server.make({ open: (socket) => socket.send(frame) })
        const http = yield* RawServer.make(
          RawServer.always(200, `data: ${frame}\n\n`, { "Content-Type": "text/event-stream" })
        )
        const ways = [
          [sockets.url.replace("ws:", "http:").replace("/live", "/"), PulseEvents.webSocket()],
          [http.url, PulseEvents.sse()]
        ] as const
        for (const [url, events] of ways) {
          const directory = yield* directoryOf({ url, events })
          const error = yield* Effect.flip(reading(directory.changes(dial), []))
          assert.strictEqual(tags(error), "Refused.MalformedResponse")
        }
        assert.strictEqual(sockets.requests[0]?.url, "/api/v1/ws")
        assert.strictEqual(http.requests[0]?.line, "GET /api/v1/events")
      }
    }).pipe(Effect.scoped))

  it.live("over server-sent events a later connection is told what it missed, or that it cannot be", () =>
    Effect.gen(function*() {
      const server = yield* NodeRegistry.make({ events: { history: 4 } })
      const { url } = Context.get(server, NodeRegistry.NodeRegistry)
      const hub = Context.get(server, Events.Events)
      const directory = yield* directoryOf({ url, events: PulseEvents.sse() })
      const position = yield* hub.position
      const take = (generation: number, cursor: string | undefined, count: number) =>
        Effect.scoped(Effect.gen(function*() {
          const items = yield* directory.changes({ cursor, attempt: 1, generation })
          yield* hub.publish({ type: "service_online", serviceId: "last" })
          return yield* items.pipe(
            Stream.filter((item) => item.notice !== "Cursor"),
            Stream.map((item) =>
              item.notice ?? (item.value._tag === "StatusChanged" ? item.value.id : item.value._tag)
            ),
            Stream.take(count),
            Stream.runCollect
          )
        }))
      for (const id of ["1", "2"]) yield* hub.publish({ type: "service_offline", serviceId: id })
      assert.deepStrictEqual(yield* take(2, position, 3), ["1", "2", "last"])
      for (const id of ["3", "4", "5", "6", "7", "8", "9"]) {
        yield* hub.publish({ type: "service_offline", serviceId: id })
      }
      assert.deepStrictEqual((yield* take(3, position, 2))[0], "Gap")
      // Nothing was ever heard, so there is nothing to resume after.
      assert.deepStrictEqual(yield* take(2, undefined, 2), ["Gap", "last"])
      assert.deepStrictEqual(yield* take(1, undefined, 1), ["last"])
    }).pipe(Effect.scoped))

  it.live("each gap on one connection is told, where it was", () =>
    Effect.gen(function*() {
      const event = (id: number, type: string) =>
        `id: ${id}\nevent: ${type}\ndata: {"type":"${type}","timestamp":"","service_id":"s"}\n\n`
      const http = yield* RawServer.make(
        RawServer.always(200, ["gap", "x", "gap", "y"].map((type, n) => event(n, type)).join(""), {
          "Content-Type": "text/event-stream"
        })
      )
      const directory = yield* directoryOf({ url: http.url, events: PulseEvents.sse() })
      const seen: Array<Item> = []
      yield* reading(directory.changes({ ...dial, cursor: "-1" }), seen)
      const told = seen.map((item) => item.notice ?? (item.value._tag === "Other" ? item.value.type : item.value._tag))
      assert.deepStrictEqual(told, ["Gap", "x", "Gap", "y"])
      assert.deepStrictEqual(seen.map((item) => item.notice === "Retry" ? "" : item.cursor), ["0", "1", "2", "3"])
    }).pipe(Effect.scoped))

  it.live("a WebSocket has no memory: each connection but the first begins with a gap", () =>
    Effect.gen(function*() {
      const server = yield* NodeRegistry.make()
      const { url } = Context.get(server, NodeRegistry.NodeRegistry)
      const directory = yield* directoryOf({ url, events: PulseEvents.webSocket() })
      const first = yield* Effect.scoped(
        Effect.flatMap(directory.changes({ ...dial, generation: 2 }), Stream.runHead)
      )
      assert.deepStrictEqual(first._tag === "Some" ? first.value : undefined, { notice: "Gap" })
    }).pipe(Effect.scoped))

  it.effect("without events, and without a URL, changes are unsupported and nothing is opened", () =>
    Effect.gen(function*() {
      for (const options of [{ url: "http://pulse:9696" }, { url: " ", events: PulseEvents.sse() }]) {
        const directory = yield* directoryOf(options)
        assert.strictEqual(directory.capabilities.watch, "none")
        assert.strictEqual(tags(yield* Effect.flip(reading(directory.changes(dial), []))), "Refused.Unsupported")
      }
    }))

  it.effect("a URL that is none is refused when the layer is built", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(directoryOf({ url: "pulse:9696" }))
      assert.strictEqual(error.reason._tag === "InvalidRequest" ? error.reason.issues[0]?.path : "", "options.url")
    }))

  it.effect("can be read from the configuration", () =>
    Effect.gen(function*() {
      const directory = yield* Directory.Directory
      assert.strictEqual(directory.capabilities.target, "http://from.env:1")
      assert.strictEqual(directory.capabilities.watch, "resumable")
    }).pipe(Effect.provide(
      PulseDirectory.layerConfig({ url: Config.String("PULSE_URL") }, PulseEvents.sse()).pipe(
        Layer.provide(FetchHttpClient.layer),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ PULSE_URL: "http://from.env:1" })))
      )
    )))
})
