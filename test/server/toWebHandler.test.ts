import { assert, describe, it } from "@effect/vitest"
import * as Server from "effect-lifeline/server/Server"
import * as Store from "effect-lifeline/server/Store"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { makeRequest, minimal, serve } from "./support.ts"

const read = (reader: ReadableStreamDefaultReader<string> | undefined) => Effect.promise(async () => reader?.read())

const textOf = (response: Response) => response.body?.pipeThrough(new TextDecoderStream()).getReader()

describe("an event stream of a plain handler", () => {
  it.effect("carries a comment every 15 seconds", () =>
    Effect.gen(function*() {
      const { send } = yield* serve()
      const reader = textOf(yield* send(makeRequest("GET", "/api/v1/events")))
      yield* read(reader)
      const idle = read(reader)
      yield* TestClock.adjust("14 seconds")
      const next = Effect.runPromise(idle)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Effect.promise(() => next), { done: false, value: ": idle\n\n" })
      yield* Effect.promise(async () => reader?.cancel())
    }))

  it.effect("frees its subscription when the body is cancelled", () =>
    Effect.gen(function*() {
      const { events, send } = yield* serve()
      const responses = yield* Effect.forEach(
        Array.from({ length: 5 }),
        () => send(makeRequest("GET", "/api/v1/events"))
      )
      const readers = responses.map(textOf)
      yield* Effect.forEach(readers, read)
      assert.strictEqual(yield* events.subscribers, 5)
      yield* Effect.promise(() => Promise.all(readers.map((reader) => reader?.cancel())))
      assert.strictEqual(yield* events.subscribers, 0)
    }))

  it.effect("frees its subscription when the request is aborted", () =>
    Effect.gen(function*() {
      const { events, send } = yield* serve()
      const abort = new AbortController()
      const response = yield* send(new Request(makeRequest("GET", "/api/v1/events"), { signal: abort.signal }))
      const reader = textOf(response)
      yield* read(reader)
      assert.strictEqual(yield* events.subscribers, 1)
      abort.abort()
      yield* Effect.exit(Effect.tryPromise(async () => reader?.read()))
      assert.strictEqual(yield* events.subscribers, 0)
    }))
})

describe("toWebHandler", () => {
  it.live("starts with its first request, and ends its streams when it is disposed of", () =>
    Effect.gen(function*() {
      let loads = 0
      const store = Layer.succeed(Store.Store, {
        load: Effect.sync(() => {
          loads = loads + 1
          return []
        }),
        save: () => Effect.void,
        remove: () => Effect.void
      })
      const registry = Server.toWebHandler({ store })
      assert.strictEqual(loads, 0)
      const response = yield* Effect.promise(() => registry.handler(makeRequest("GET", "/api/v1/events")))
      const reader = textOf(response)
      assert.match((yield* read(reader))?.value ?? "", /^: open/)
      const registered = yield* Effect.promise(() =>
        registry.handler(makeRequest("POST", "/api/v1/services/register", { body: minimal }))
      )
      assert.strictEqual(registered.status, 201)
      yield* read(reader)
      assert.strictEqual(loads, 1)
      yield* Effect.promise(() => registry.dispose())
      assert.deepStrictEqual(yield* read(reader), { done: true, value: undefined })
    }))

  it.live("can be disposed of before it ever started", () => Effect.promise(() => Server.toWebHandler().dispose()))

  it.live("answers nothing while its store cannot be read, and starts when it can", () =>
    Effect.gen(function*() {
      let broken = true
      const store = Layer.succeed(Store.Store, {
        load: Effect.suspend(() =>
          broken ? Effect.fail(new Store.StoreError({ operation: "load", key: "all" })) : Effect.succeed([])
        ),
        save: () => Effect.void,
        remove: () => Effect.void
      })
      const { dispose, handler } = Server.toWebHandler({ store })
      const ask = Effect.tryPromise(() => handler(makeRequest("GET", "/health")))
      for (let n = 0; n < 2; n++) {
        const failure = yield* Effect.flip(ask)
        assert.include(String(failure.cause), "could not load")
      }
      broken = false
      assert.strictEqual((yield* ask).status, 200)
      yield* Effect.promise(() => dispose())
    }))
})
