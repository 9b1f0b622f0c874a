// Proofs, keys and credentials on every runtime: Node, Deno, Bun, workerd, Chromium. Each runs twice, over one store.
import { assert, describe, it } from "@effect/vitest"
import sparticuz from "@sparticuz/chromium"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { chromium } from "playwright-core"
import { bundle } from "../support/runtimes/Bundle.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Workers from "../support/runtimes/Workers.ts"
import type { Report } from "./program.ts"

const directory = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-proof-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true, maxRetries: 5 }))
)

const outcomes = [
  "accepted",
  "Replayed",
  "accepted",
  "WrongKey",
  "BadSignature",
  "WrongMethod",
  "WrongUrl",
  "WrongTime",
  "NonceRequired",
  "NonceRequired",
  "RepeatedProof",
  "BearerDowngrade"
]

/** What is the same everywhere; keys and revived tokens survive, and keys are readable nowhere. */
const check = (first: Report, again: Report): void => {
  for (const report of [first, again]) {
    const { keys, ladder: _, ...rest } = report
    assert.deepStrictEqual(rest, {
      byDefault: "EdDSA",
      rfc9449: ["accepted", "accepted", "accepted"],
      thumbprints: [
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
      ],
      closedLoop: true
    })
    assert.deepStrictEqual(
      keys.map(({ algorithm, htuByJose, outcomes, readable }) => ({ algorithm, readable, htuByJose, outcomes })),
      (["ES256", "EdDSA"] as const).map((algorithm) => ({
        algorithm,
        readable: [],
        htuByJose: "https://registry.example/a%20b/gr%C3%B6%C3%9Fe",
        outcomes
      }))
    )
  }
  assert.deepStrictEqual(first.ladder, [
    "beat DPoP t1 accepted",
    "refresh proof accepted",
    "revive proof accepted",
    "beat DPoP t2 accepted"
  ])
  assert.deepStrictEqual(again.ladder, ["beat DPoP t2 accepted"])
  assert.deepStrictEqual(first.keys.map((key) => key.thumbprint), again.keys.map((key) => key.thumbprint))
  assert.strictEqual(new Set(first.keys.map((key) => key.thumbprint)).size, 2)
}

const twice = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.all([effect, effect])

describe("Proof on every runtime", () => {
  const runtimes = [
    ["node", []],
    ["deno", ["run", "--no-config", "--allow-read", "--allow-write"]],
    ["bun", ["run"]]
  ] as const
  for (const [runtime, args] of runtimes) {
    it.live(runtime, () =>
      Effect.gen(function*() {
        const place = yield* directory
        const file = Path.join(place, "main.mjs")
        const code = yield* bundle("test/proof/main.ts")
        yield* Effect.promise(() => Fs.writeFile(file, code))
        const run = Effect.gen(function*() {
          const process = yield* Process.startRuntime(runtime, [...args, file, Path.join(place, "keys")])
          const [, report = ""] = yield* process.line(/^report (.*)$/, "30 seconds")
          return JSON.parse(report) as Report
        }).pipe(Effect.scoped)
        check(...(yield* twice(run)))
      }).pipe(Effect.scoped), 60_000)
  }

  it.live("workerd", () =>
    Effect.gen(function*() {
      const place = yield* directory
      const run = Effect.gen(function*() {
        const miniflare = yield* Workers.run("test/proof/worker.ts", {
          kvNamespaces: ["KV"],
          kvPersist: Path.join(place, "kv")
        })
        return yield* Effect.promise(async (): Promise<Report> => {
          const response = await miniflare.dispatchFetch("http://worker.example/")
          return JSON.parse(await response.text())
        })
      }).pipe(Effect.scoped)
      check(...(yield* twice(run)))
    }).pipe(Effect.scoped), 60_000)

  it.live("Chromium, where not even the page can read a key", () =>
    Effect.gen(function*() {
      const profile = yield* directory
      const code = yield* bundle("test/proof/page.ts")
      // The keys are those of an origin, port included: one server for both runs.
      const server = yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const created = createServer((_, response) => {
            response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>")
          })
          created.listen(0, "127.0.0.1", () => resume(Effect.succeed(created)))
        }),
        (created) =>
          Effect.callback<void>((resume) => {
            created.close(() => resume(Effect.void))
            created.closeAllConnections()
          })
      )
      const run = Effect.gen(function*() {
        const context = yield* Effect.acquireRelease(
          Effect.promise(async () =>
            chromium.launchPersistentContext(profile, {
              executablePath: process.env["CHROMIUM"] ?? await sparticuz.executablePath(),
              headless: true,
              args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
              timeout: 30_000
            })
          ),
          (opened) => Effect.promise(() => opened.close())
        )
        return yield* Effect.promise(
          async (): Promise<{ readonly report: Report; readonly looted: ReadonlyArray<string> }> => {
            const page = await context.newPage()
            await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)
            await page.addScriptTag({ type: "module", content: code })
            const handle = await page.waitForFunction(() => (globalThis as { readonly found?: string }).found)
            return JSON.parse(String(await handle.jsonValue()))
          }
        )
      }).pipe(Effect.scoped)
      const [first, again] = yield* twice(run)
      check(first.report, again.report)
      for (const { looted } of [first, again]) {
        assert.deepStrictEqual(looted, ["InvalidAccessError", "InvalidAccessError"])
      }
    }).pipe(Effect.scoped), 90_000)
})
