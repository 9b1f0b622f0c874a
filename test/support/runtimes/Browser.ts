/**
 * Headless Chromium in a scope: the one inside the npm package `@sparticuz/chromium`, or the one that the environment
 * variable CHROMIUM names.
 */
import sparticuz from "@sparticuz/chromium"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { chromium } from "playwright-core"
import type { Page } from "playwright-core"
import { RuntimeError } from "./Watch.ts"

/** No sandbox, since CI often runs as root; and nothing that calls out by itself. */
const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync"
]

const help =
  `Chromium did not start. It comes with "npm ci", inside the package @sparticuz/chromium, for Linux on x64, and
unpacks itself into the temporary directory (delete "chromium" there if it is damaged). Where it lacks a library, on
Debian: apt-get install libnss3. Or install one (apt-get install chromium) and set CHROMIUM=/usr/bin/chromium`

export interface Tab {
  readonly page: Page
  /** What the page logged as errors, and errors that nobody caught. */
  readonly problems: ReadonlyArray<string>
}

/** A page of a browser of its own, as wide and as high as given. */
export const open = (
  viewport: { readonly width: number; readonly height: number }
): Effect.Effect<Tab, RuntimeError, Scope.Scope> =>
  Effect.gen(function*() {
    const server = yield* Effect.acquireRelease(
      Effect.tryPromise({
        try: async () =>
          chromium.launchServer({
            executablePath: process.env["CHROMIUM"] ?? await sparticuz.executablePath(),
            headless: true,
            args: flags,
            timeout: 20_000
          }),
        catch: (cause) => new RuntimeError({ problem: help, seen: String(cause), cause })
      }),
      // Nothing of the browser is worth a graceful end, which may take for ever.
      (launched) => Effect.promise(() => launched.kill())
    )
    const page = yield* Effect.promise(async () => {
      const browser = await chromium.connect(server.wsEndpoint())
      return browser.newPage({ viewport })
    })
    const problems: Array<string> = []
    page.on("pageerror", (error) => problems.push(error.message))
    return { page, problems }
  })

/** Does something with the page; where it fails, so does the test, with the page as it is as a picture. */
export const within = <A>(tab: Tab, what: string, act: (page: Page) => Promise<A>): Effect.Effect<A, RuntimeError> =>
  Effect.tryPromise(() => act(tab.page)).pipe(
    Effect.catch(({ cause }) =>
      Effect.gen(function*() {
        const picture = join(tmpdir(), `effect-lifeline-${process.pid}.png`)
        const pictured = yield* Effect.promise(() =>
          tab.page.screenshot({ path: picture, timeout: 5000 }).then(() => `picture: ${picture}`, () => "no picture")
        )
        const text = yield* Effect.promise(() => tab.page.innerText("body", { timeout: 5000 }).catch(String))
        const seen = [pictured, ...tab.problems, text].join("\n")
        return yield* new RuntimeError({ problem: `${what}: ${String(cause)}`, seen, cause })
      })
    )
  )
