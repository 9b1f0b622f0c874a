/**
 * The program of the examples as a process on Node, Deno and Bun, against the embedded registry over loopback.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import * as Dist from "../support/runtimes/Dist.ts"
import { isBeat, isRegistration } from "../support/runtimes/Front.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Registry from "../support/runtimes/Registry.ts"

const commands: ReadonlyArray<readonly [runtime: Process.Runtime, args: ReadonlyArray<string>]> = [
  ["node", ["examples/node/main.ts"]],
  ["deno", ["run", "--allow-net", "--allow-env", "examples/deno/main.ts"]],
  ["bun", ["examples/bun/main.ts"]]
]

/** Starting three runtimes takes its time where other tests run beside. */
const patience = 60_000

beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

/** Starts the program as its README says, on a free port. Gives the URL where it listens. */
const start = Effect.fnUntraced(function*(
  runtime: Process.Runtime,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>>
) {
  const program = yield* Process.startRuntime(runtime, args, {
    env: { HAUL_PORT: "0", HAUL_HEARTBEAT: "200 millis", ...env }
  })
  const [, url = ""] = yield* program.line(/ listens at (\S+)/)
  return { ...program, url }
})

/** Ends a program as a service manager does. It must end by itself, well before one would kill it. */
const terminate = Effect.fnUntraced(function*(program: Process.Process) {
  yield* program.kill("SIGTERM")
  const exited = yield* program.exited("5 seconds")
  assert.deepStrictEqual(exited, { code: 0, signal: null }, program.lines.join("\n"))
  yield* program.line(/ stopped$/)
})

/** A URL of this machine where nothing listens. */
const nowhere = Effect.callback<string>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(`http://127.0.0.1:${port}`)))
  })
})

describe.each(commands)("examples/%s", (runtime, args) => {
  const name = `haul-${runtime}`

  it("is started as its README says", () => {
    const readme = readFileSync(`${Process.root}/examples/${runtime}/README.md`, "utf8")
    assert.include(readme, ` ${[runtime, ...args].join(" ")}\n`)
  })

  it.live("registers, beats, answers, and ends on SIGTERM with exit code 0", () =>
    Effect.gen(function*() {
      const registry = yield* Registry.make
      const program = yield* start(runtime, args, { PULSE_URL: registry.url, PULSE_API_KEY: Registry.key })
      yield* program.line(/started, registered with the registry/)

      yield* registry.front.until("three beats", (calls) => calls.filter(isBeat).length >= 3 || undefined)
      const service = yield* registry.service(name)
      assert.strictEqual(service.status, "online")
      assert.strictEqual(service.api_url, program.url)
      assert.deepStrictEqual(JSON.parse(service.metadata), { runtime })
      assert.lengthOf(registry.front.calls.filter(isRegistration), 1)
      for (const call of registry.front.calls.filter(isBeat)) {
        assert.strictEqual(call.path, `/api/v1/services/${service.id}/heartbeat`)
        assert.strictEqual(call.status, 204)
      }

      const ownKey = service.api_key ?? ""
      assert.match(ownKey, /^[0-9a-f]{64}$/)
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/health`), { status: "ok" })
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/peers`, ownKey), { [name]: program.url })
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/peers`, `${ownKey.slice(1)}0`), {
        status: 401,
        detail: "A valid X-Api-Key header is required."
      })
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/hello?of=nobody`, ownKey), {
        status: 404,
        detail: `cannot call nobody: the registry knows no service of that name; it knows ${name}`
      })

      yield* terminate(program)
      const output = program.lines.join("\n")
      assert.notInclude(output, ownKey)
      assert.notInclude(output, Registry.key)
      // Pulse deletes more than the registration when a service is deleted: ending leaves it.
      assert.strictEqual((yield* registry.service(name)).id, service.id)
    }), patience)

  it.live("goes on standalone when the registry cannot be reached", () =>
    Effect.gen(function*() {
      const program = yield* start(runtime, args, {
        PULSE_URL: yield* nowhere,
        HAUL_RETRY_WINDOW: "100 millis",
        HAUL_API_KEY: "own"
      })
      yield* program.line(/started standalone: the registry could not be reached, attempts continue/)
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/peers`, "own"), {})
      const answer = yield* Registry.getJson(`${program.url}/api/hello?of=haul-node`, "own")
      assert.propertyVal(answer, "status", 503)
      yield* terminate(program)
    }), patience)

  it.live("answers, and can be ended, while its start still waits for the registry", () =>
    Effect.gen(function*() {
      const program = yield* start(runtime, args, { PULSE_URL: yield* nowhere })
      yield* program.line(/register .* failed for now/)
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/health`), { status: "ok" })
      yield* terminate(program)
      assert.notMatch(program.lines.join("\n"), /started/)
    }), patience)

  it.live("goes on without a registry when none is configured", () =>
    Effect.gen(function*() {
      const program = yield* start(runtime, args, { HAUL_API_KEY: "own" })
      yield* program.line(/started standalone: no registry is configured/)
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/peers`, "own"), {})
      assert.deepStrictEqual(yield* Registry.getJson(`${program.url}/api/hello?of=haul-node`, "own"), {
        status: 503,
        detail: "cannot call haul-node: no registry is configured; set its URL"
      })
      yield* terminate(program)
    }), patience)

  it.live("ends with exit code 1 after one request when the registry refuses its key", () =>
    Effect.gen(function*() {
      const registry = yield* Registry.make
      const program = yield* start(runtime, args, { PULSE_URL: registry.url, PULSE_API_KEY: "wrong-key" })
      const { code } = yield* program.exited("10 seconds")
      assert.strictEqual(code, 1)
      assert.deepStrictEqual(registry.front.calls.map((call) => call.status), [401])
      yield* program.line(/the credential was not accepted/)
      assert.notInclude(program.lines.join("\n"), "wrong-key")
    }), patience)
})

describe("examples/deno", () => {
  // The others are checked with all sources; Deno has types of its own.
  it.live("type-checks", () =>
    Effect.gen(function*() {
      const check = yield* Process.startRuntime("deno", ["check", "examples/deno/main.ts"])
      const { code } = yield* check.exited("1 minute")
      assert.strictEqual(code, 0, check.lines.join("\n"))
    }), 70_000)
})

describe("examples together", () => {
  it.live(
    "programs on three runtimes find and call one another with the keys they share",
    () =>
      Effect.gen(function*() {
        const registry = yield* Registry.make
        const programs = yield* Effect.forEach(commands, ([runtime, args]) =>
          Effect.gen(function*() {
            const program = yield* start(runtime, args, { PULSE_URL: registry.url, PULSE_API_KEY: Registry.key })
            yield* program.line(/started, registered with the registry/)
            return { ...program, runtime }
          }), { concurrency: "unbounded" })
        const everybody = Object.fromEntries(programs.map(({ runtime, url }) => [`haul-${runtime}`, url]))

        for (const caller of programs) {
          const { api_key: ownKey } = yield* registry.service(`haul-${caller.runtime}`)
          assert.deepStrictEqual(yield* Registry.getJson(`${caller.url}/api/peers`, ownKey), everybody)
          for (const { runtime } of programs) {
            const name = `haul-${runtime}`
            const hello = yield* Registry.getJson(`${caller.url}/api/hello?of=${name}`, ownKey)
            assert.deepStrictEqual(hello, { name, runtime })
          }
        }
        yield* Effect.forEach(programs, terminate, { concurrency: "unbounded" })
      }),
    patience
  )
})
