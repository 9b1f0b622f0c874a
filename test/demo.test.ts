/**
 * The demo, run as its users run it: as a process, from start to end, over real HTTP.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Dist from "./support/runtimes/Dist.ts"
import * as Process from "./support/runtimes/Process.ts"

beforeAll(() => Effect.runPromise(Dist.ensure), 150_000)

const start = (env: Readonly<Record<string, string>> = {}) => Process.startRuntime("node", ["demo/main.ts"], { env })

/** The processes of the registries that a demo has started, by what it said of them. */
const registries = (demo: Process.Process): ReadonlyArray<number> =>
  demo.lines.flatMap((line) => {
    const match = /\(process (\d+)\)/.exec(line)
    return match === null ? [] : [Number(match[1])]
  })

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const assertNoneLeft = (demo: Process.Process, started: number): void => {
  const pids = registries(demo)
  assert.strictEqual(pids.length, started)
  assert.deepStrictEqual(pids.filter(isRunning), [])
}

const patient = { timeout: 60_000 }

// Together, as each spends its time waiting.
describe.concurrent("the demo", () => {
  it.live(
    "shows the whole story, ends with 0 within its 30 seconds and leaves nothing behind",
    () =>
      Effect.gen(function*() {
        const demo = yield* start()
        const { code } = yield* demo.exited("40 seconds")
        const output = demo.lines.join("\n")
        assert.strictEqual(code, 0, output)
        const inOrder = [
          /registry +Started +listens at http:\/\/127\.0\.0\.1:\d+ \(process \d+\)$/,
          /haul +Registering +sends its registration$/,
          /haul +Online +registered as [0-9a-f]{8}, confirmed by a heartbeat$/,
          /✓ the registry's API lists both as online, under the same ids$/,
          /✓ the registry has heard a heartbeat of each since$/,
          /registry +Killed +kill -9 \d+$/,
          /✓ nobody answers there any more$/,
          /Unconfirmed +heartbeat 1 failed: \w+\. Next try in 0\.\d\d s/,
          /heartbeat 3 failed: \w+\. Next try in [01]\.\d\d s/,
          /Offline /,
          /✓ neither believes any longer that it is registered/,
          /registry +Started +listens at http:\/\/127\.0\.0\.1:\d+ \(process \d+\)$/,
          /Online +registered again, now as [0-9a-f]{8}, confirmed by a heartbeat$/,
          /✓ both are registered again, under new ids$/,
          /✓ the registry's API lists both as online, under the new ids$/,
          /pilot +Calls +GET http:\/\/127\.0\.0\.1:\d+\/api\/hello with X-Api-Key: <redacted>$/,
          /✓ haul answers 200 to that key$/,
          /haul +Answers +Hello from haul$/,
          /prism +Halted +register \(POST/,
          /✓ 2 seconds later it has still sent one request, that one$/,
          /✓ with the right key it registers by itself$/,
          /^All 17 expectations were met, in [12]?\d\.\d s\.$/
        ]
        let from = 0
        for (const pattern of inOrder) {
          const found = demo.lines.findIndex((line, index) => index >= from && pattern.test(line))
          assert.isAtLeast(found, 0, `no line like ${pattern} after line ${from} of\n${output}`)
          from = found + 1
        }
        assert.notInclude(output, "✗")
        assert.notInclude(output, "\u001b")
        for (const secret of ["the-registry-key", "the-key-that-haul-shares"]) assert.notInclude(output, secret)
        assertNoneLeft(demo, 2)
      }),
    patient
  )

  it.live(
    "ends with 1, and says what is wrong, when the registry comes back with another key",
    () =>
      Effect.gen(function*() {
        const demo = yield* start({ DEMO_BREAK: "key" })
        const { code } = yield* demo.exited("40 seconds")
        const output = demo.lines.join("\n")
        assert.strictEqual(code, 1, output)
        assert.match(output, /✗ expected: both are registered again, under new ids; found: \w+ is Halted/)
        assert.include(output, "The demo failed")
        assert.notInclude(output, "expectations were met")
        assertNoneLeft(demo, 2)
      }),
    patient
  )

  it.live("ends with 1 when the registry does not start", () =>
    Effect.gen(function*() {
      const demo = yield* start({ DEMO_BREAK: "start" })
      const { code } = yield* demo.exited("40 seconds")
      const output = demo.lines.join("\n")
      assert.strictEqual(code, 1, output)
      assert.include(output, "✗ expected: the registry starts; found: it ended")
      assert.include(output, "Cannot find module")
    }), patient)

  it.live("Ctrl-C ends it, and what it started", () =>
    Effect.gen(function*() {
      const demo = yield* start()
      yield* demo.line(/pilot +Online/)
      yield* demo.kill("SIGINT")
      const { code } = yield* demo.exited("20 seconds")
      assert.strictEqual(code, 130, demo.lines.join("\n"))
      assert.include(demo.lines, "Stopped before its end.")
      assertNoneLeft(demo, 1)
    }), patient)

  it.live("killed itself, it leaves no registry behind", () =>
    Effect.gen(function*() {
      const demo = yield* start()
      yield* demo.line(/pilot +Online/)
      yield* demo.kill("SIGKILL")
      yield* demo.exited("20 seconds")
      yield* Effect.suspend(() => registries(demo).some(isRunning) ? Effect.fail("still there") : Effect.void).pipe(
        Effect.retry(Schedule.spaced("50 millis")),
        Effect.timeout("10 seconds")
      )
      assertNoneLeft(demo, 1)
    }), patient)

  it.live("is coloured when told so, and never where NO_COLOR is set", () =>
    Effect.gen(function*() {
      const coloured = yield* start({ DEMO_BREAK: "start", NO_COLOR: "", FORCE_COLOR: "1" })
      yield* coloured.exited("40 seconds")
      assert.include(coloured.lines.join("\n"), "\u001b[1meffect-lifeline")
      assert.include(coloured.lines.join("\n"), "\u001b[31m✗")
      const plain = yield* start({ DEMO_BREAK: "start", NO_COLOR: "1", FORCE_COLOR: "1" })
      yield* plain.exited("40 seconds")
      assert.notInclude(plain.lines.join("\n"), "\u001b")
    }), patient)
})
