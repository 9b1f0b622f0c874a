// Web Locks in headless Chromium: tabs that are open, closed, reloaded and killed.
import { assert, describe, it } from "@effect/vitest"
import * as TabAlive from "effect-lifeline/browser/TabAlive"
import * as Effect from "effect/Effect"
import { build } from "esbuild"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import type { Page } from "playwright-core"
import * as Browser from "../support/runtimes/Browser.ts"
import * as Process from "../support/runtimes/Process.ts"
import type { TabPage } from "./tabPage.ts"

const site = Effect.gen(function*() {
  const code = yield* Effect.promise(async () => {
    const { outputFiles } = await build({
      absWorkingDir: Process.root,
      entryPoints: ["test/browser/tabPage.ts"],
      bundle: true,
      format: "iife",
      target: "es2024",
      write: false,
      logLevel: "silent"
    })
    return outputFiles.map(({ text }) => text).join("")
  })
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const created = createServer((request, response) => {
        const isScript = request.url === "/page.js"
        response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" })
          .end(isScript ? code : "<!doctype html><script src=\"/page.js\"></script>")
      })
      created.listen(0, "127.0.0.1", () => resume(Effect.succeed(created)))
    }),
    (created) =>
      Effect.callback<void>((resume) => {
        created.close(() => resume(Effect.void))
        created.closeAllConnections()
      })
  )
  return (server.address() as AddressInfo).port
})

type Window = { readonly page: TabPage }

const hold = (page: Page, name?: string) =>
  page.evaluate((name) => (globalThis as unknown as Window).page.hold(name), name)
const release = (page: Page) => page.evaluate(() => (globalThis as unknown as Window).page.release())
const isAlive = (page: Page, holder: string | undefined) =>
  page.evaluate((holder) => (globalThis as unknown as Window).page.isAlive(holder), holder)

/** A browser lets go of what a tab held a moment after the tab is gone. */
const dies = async (page: Page, holder: string): Promise<boolean> => {
  for (let n = 0; n < 100; n++) {
    if (await isAlive(page, holder) === false) return true
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return false
}

describe("TabAlive", () => {
  it.live("in Chromium", () =>
    Effect.gen(function*() {
      const port = yield* site
      const url = `http://127.0.0.1:${port}/`
      const { page } = yield* Browser.open({ width: 400, height: 300 })
      yield* Effect.promise(async () => {
        const context = await page.context().browser()?.newContext()
        assert.isDefined(context)
        const tab = async () => {
          const page = await context.newPage()
          await page.goto(url)
          return page
        }
        const watcher = await tab()

        // Its own, and that of another tab; each has a name of its own.
        const own = await hold(watcher)
        assert.strictEqual(await isAlive(watcher, own), true)
        const first = await tab()
        const closed = await hold(first)
        assert.notStrictEqual(closed, own)
        assert.strictEqual(await isAlive(watcher, closed), true)
        assert.strictEqual(await isAlive(first, own), true)

        // Closed.
        await first.close()
        assert.isTrue(await dies(watcher, closed))

        // Reloaded: another one, unless it holds the same name again.
        const second = await tab()
        const reloaded = await hold(second)
        const named = await hold(second, "job 7")
        await second.reload()
        assert.isTrue(await dies(watcher, reloaded))
        assert.strictEqual(await hold(second, "job 7"), named)
        assert.strictEqual(await isAlive(watcher, named), true)

        // Several hold one name: the last of them counts.
        const third = await tab()
        assert.strictEqual(await hold(third, "job 7"), named)
        await second.close()
        await new Promise((resolve) => setTimeout(resolve, 200))
        assert.strictEqual(await isAlive(watcher, named), true)

        // The scope is closed; the page goes elsewhere; it crashes.
        await release(third)
        assert.isTrue(await dies(watcher, named))
        const left = await hold(third)
        await third.goto("about:blank")
        assert.isTrue(await dies(watcher, left))
        const fourth = await tab()
        const crashed = await hold(fourth)
        await fourth.goto("chrome://crash").catch(() => {})
        assert.isTrue(await dies(watcher, crashed))

        // Another origin knows nothing of it: it must not ask.
        for (const holder of [undefined, "", "job 7", "pid:1:x"]) {
          assert.strictEqual(await isAlive(watcher, holder), "unknown")
        }
        assert.strictEqual(await isAlive(watcher, own), true)
      })
    }).pipe(Effect.scoped), 90_000)

  it.live("without Web Locks: an error, and never false", () =>
    Effect.gen(function*() {
      const before = Object.getOwnPropertyDescriptor(globalThis, "navigator")
      yield* Effect.acquireRelease(
        Effect.sync(() => Object.defineProperty(globalThis, "navigator", { configurable: true, value: undefined })),
        () => Effect.sync(() => before && Object.defineProperty(globalThis, "navigator", before))
      )
      for (const use of [Effect.asVoid(TabAlive.hold()), Effect.asVoid(TabAlive.isAlive("effect-lifeline/tab/1"))]) {
        const error = yield* Effect.flip(use)
        assert.strictEqual(error._tag, "TabUnknown")
        assert.include(JSON.stringify(error), "there are no Web Locks")
      }
    }).pipe(Effect.scoped))
})
