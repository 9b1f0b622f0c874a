/**
 * The examples for Cloudflare in workerd: the cron is fired, the alarm fires by itself, state outlives the Worker.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isBeat, isRegistration } from "../support/runtimes/Front.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Registry from "../support/runtimes/Registry.ts"
import { RuntimeError } from "../support/runtimes/Watch.ts"
import * as Workers from "../support/runtimes/Workers.ts"

const url = "http://haul.test"

const temporary = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-lifeline-workers-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** Fires the cron once, and waits for its end. */
const fire = ({ miniflare }: Workers.Worker): Effect.Effect<string> =>
  Effect.promise(async () => {
    const worker = await miniflare.getWorker()
    return (await worker.scheduled({ cron: "* * * * *" })).outcome
  })

/** Calls the Worker as a peer does. */
const call = ({ miniflare }: Workers.Worker, path: string, apiKey = ""): Effect.Effect<unknown> =>
  Effect.promise(async () => {
    const response = await miniflare.dispatchFetch(`${url}${path}`, { headers: { "x-api-key": apiKey } })
    return response.json()
  })

const registrations = ({ front }: Effect.Success<typeof Registry.make>): number =>
  front.calls.filter(isRegistration).length

describe.each(["examples/cloudflare-cron", "examples/cloudflare-alarm"])("%s", (directory) => {
  // Cloudflare's types are global, and others than those of the sources.
  it.live("type-checks", () =>
    Effect.gen(function*() {
      const check = yield* Process.startRuntime("node", [
        "node_modules/typescript/bin/tsc",
        "--noEmit",
        "--project",
        `${directory}/tsconfig.json`
      ])
      const { code } = yield* check.exited("1 minute")
      assert.strictEqual(code, 0, check.lines.join("\n"))
    }), 70_000)
})

describe("examples/cloudflare-cron", () => {
  it.live(
    "registers once, beats with the crons after, and keeps its state between Workers",
    () =>
      Effect.gen(function*() {
        const registry = yield* Registry.make
        const storage = yield* temporary
        const start = Workers.start("examples/cloudflare-cron", {
          storage,
          vars: { PULSE_URL: registry.url, PULSE_API_KEY: Registry.key, HAUL_URL: url, HAUL_HEARTBEAT: "200 millis" }
        })
        /** Fires crons faster than any platform, until one more beat was due. */
        const nextBeat = Effect.fnUntraced(function*(worker: Workers.Worker) {
          const before = registry.front.calls.filter(isBeat).length
          yield* fire(worker).pipe(
            Effect.tap((outcome) => Effect.sync(() => assert.strictEqual(outcome, "ok", worker.lines.join("\n")))),
            Effect.repeat({
              until: () => registry.front.calls.filter(isBeat).length > before,
              schedule: Schedule.spaced("50 millis")
            }),
            Effect.timeoutOrElse({
              duration: "10 seconds",
              orElse: () => Effect.die(new RuntimeError({ problem: "no beat", seen: worker.lines.join("\n") }))
            })
          )
        })

        const { apiKey, id } = yield* Effect.scoped(Effect.gen(function*() {
          const worker = yield* start
          assert.deepStrictEqual(worker.config.triggers?.crons, ["* * * * *"])
          assert.strictEqual(yield* fire(worker), "ok", worker.lines.join("\n"))
          const service = yield* registry.service("haul-cron")
          assert.strictEqual(service.status, "online")
          assert.strictEqual(service.api_url, url)
          assert.deepStrictEqual(JSON.parse(service.metadata), { runtime: "cron" })
          const apiKey = service.api_key ?? ""
          assert.match(apiKey, /^[0-9a-f]{64}$/)

          yield* nextBeat(worker)
          assert.deepStrictEqual(yield* call(worker, "/health"), { status: "ok" })
          assert.deepStrictEqual(yield* call(worker, "/api/peers", apiKey), { "haul-cron": url })
          assert.propertyVal(yield* call(worker, "/api/peers", "wrong"), "status", 401)
          return { apiKey, id: service.id }
        }))
        assert.strictEqual(registrations(registry), 1)

        const worker = yield* start
        yield* nextBeat(worker)
        assert.strictEqual(registrations(registry), 1)
        assert.deepStrictEqual(yield* call(worker, "/api/hello", apiKey), { name: "haul-cron", runtime: "cron" })

        // The registry forgets it: the next due cron registers again, with the same key.
        yield* registry.forget(id)
        yield* nextBeat(worker)
        const again = yield* registry.service("haul-cron")
        assert.notStrictEqual(again.id, id)
        assert.strictEqual(again.api_key, apiKey)
        assert.strictEqual(registrations(registry), 2)
      }),
    40_000
  )

  it.live("fails as long as the registry refuses its key, and sends nothing more", () =>
    Effect.gen(function*() {
      const registry = yield* Registry.make
      const worker = yield* Workers.start("examples/cloudflare-cron", {
        storage: yield* temporary,
        vars: { PULSE_URL: registry.url, PULSE_API_KEY: "wrong-key", HAUL_URL: url }
      })
      assert.strictEqual(yield* fire(worker), "exception")
      assert.strictEqual(yield* fire(worker), "exception")
      assert.deepStrictEqual(registry.front.calls.map(({ status }) => status), [401])
      assert.notInclude(worker.lines.join("\n"), "wrong-key")
    }), 40_000)
})

describe("examples/cloudflare-alarm", () => {
  it.live(
    "registers once, beats by its alarm alone, and keeps its state between Workers",
    () =>
      Effect.gen(function*() {
        const registry = yield* Registry.make
        const storage = yield* temporary
        const start = Workers.start("examples/cloudflare-alarm", {
          storage,
          vars: { PULSE_URL: registry.url, PULSE_API_KEY: Registry.key, HAUL_URL: url, HAUL_HEARTBEAT: "200 millis" }
        })
        const beats = (count: number) =>
          registry.front.until(`${count} beats`, (calls) => calls.filter(isBeat).length >= count || undefined)

        const apiKey = yield* Effect.scoped(Effect.gen(function*() {
          const worker = yield* start
          assert.deepStrictEqual(yield* call(worker, "/health"), { status: "ok" })
          yield* beats(3)
          const service = yield* registry.service("haul-alarm")
          assert.strictEqual(service.status, "online")
          assert.deepStrictEqual(JSON.parse(service.metadata), { runtime: "alarm" })
          const apiKey = service.api_key ?? ""
          assert.deepStrictEqual(yield* call(worker, "/api/peers", apiKey), { "haul-alarm": url })
          return apiKey
        }))
        assert.strictEqual(registrations(registry), 1)

        const before = registry.front.calls.filter(isBeat).length
        const worker = yield* start
        assert.deepStrictEqual(yield* call(worker, "/api/hello", apiKey), { name: "haul-alarm", runtime: "alarm" })
        yield* beats(before + 2)
        assert.strictEqual(registrations(registry), 1)
      }),
    40_000
  )
})
