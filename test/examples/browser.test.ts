/**
 * The example for browsers in headless Chromium: the page and its registry are of one origin, so it needs no key.
 */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import * as Browser from "../support/runtimes/Browser.ts"
import * as Dist from "../support/runtimes/Dist.ts"
import * as Front from "../support/runtimes/Front.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Registry from "../support/runtimes/Registry.ts"

const command = ["examples/browser/serve.ts"]

beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

/** Starts the server of page and registry, on a free port unless told otherwise, with an empty registry that wants a key. */
const serve = (port = "0") =>
  Effect.gen(function*() {
    const server = yield* Process.startRuntime("node", command, { env: { PORT: port, PULSE_API_KEY: Registry.key } })
    const [, url = ""] = yield* server.line(/ open (\S+)/)
    return { ...server, url }
  })

/** Takes a picture of the page, where the environment variable PICTURES names a directory for them. */
const picture = (tab: Browser.Tab, name: string) => {
  const directory = process.env["PICTURES"]
  return directory === undefined
    ? Effect.void
    : Browser.within(
      tab,
      `a picture of ${name}`,
      (page) => page.screenshot({ path: `${directory}/${name}.png`, fullPage: true })
    )
}

/** Another service registers, by hand. */
const register = (url: string, name: string) =>
  Effect.promise(() =>
    fetch(`${url}/api/v1/services/register`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": Registry.key },
      body: JSON.stringify({ name, type: "media-manager", api_url: `http://${name}:8282` })
    })
  )

const list = (tab: Browser.Tab, freshness: string) =>
  Browser.within(
    tab,
    `the list is ${freshness}`,
    (page) => page.waitForSelector(`#services[data-freshness=${freshness}]`, { timeout: 15_000 })
  )

const status = (tab: Browser.Tab, tag: string) =>
  Browser.within(
    tab,
    `the page shows ${tag}`,
    (page) => page.waitForSelector(`#status[data-status=${tag}]`, { timeout: 15_000 })
  )

const shows = (tab: Browser.Tab, list: string, text: string) =>
  Browser.within(
    tab,
    `#${list} says "${text}"`,
    (page) => page.locator(`#${list} li`, { hasText: text }).first().waitFor({ timeout: 15_000 })
  )

const click = (tab: Browser.Tab, button: string) =>
  Browser.within(
    tab,
    `a click on "${button}"`,
    (page) => page.getByRole("button", { name: button }).click({ timeout: 5000 })
  )

describe("examples/browser", () => {
  it("is started as its README says", () => {
    const readme = readFileSync(`${Process.root}/examples/browser/README.md`, "utf8")
    assert.include(readme, ` node ${command.join(" ")}\n`)
  })

  it.live("stays registered in Chromium through the death of its registry", () =>
    Effect.gen(function*() {
      const first = yield* serve()
      // Stays where it is while the registry behind it dies and comes back elsewhere.
      const front = yield* Front.make(first.url)
      const tab = yield* Browser.open({ width: 900, height: 760 })
      yield* Browser.within(tab, "the page opens", (page) =>
        page.goto(`${front.url}/?heartbeat=300 millis`, { timeout: 15_000 }))

      yield* status(tab, "Online")
      yield* shows(tab, "history", "registered")
      yield* shows(tab, "peers", "haul-browser")
      yield* front.until("three beats", (calls) =>
        calls.filter(Front.isBeat).length >= 3 || undefined)

      // The registry wants a key, and lets the page in without one: it is of the same origin.
      assert.propertyVal(yield* Registry.getJson(`${front.url}/api/v1/services`), "status", 401)
      const own = front.calls.filter((call) =>
        Front.isBeat(call) || Front.isRegistration(call)
      )
      for (const { headers } of own) {
        assert.notProperty(headers, "x-api-key")
        assert.propertyVal(headers, "sec-fetch-site", "same-origin")
      }
      assert.lengthOf(own.filter(Front.isRegistration), 1)

      yield* first.kill("SIGKILL")
      yield* first.exited()
      yield* status(tab, "Unconfirmed")
      yield* shows(tab, "history", "heartbeat failed, 2 in a row")

      const second = yield* serve()
      front.retarget(second.url)
      yield* status(tab, "Online")
      yield* shows(tab, "history", "registered again")
      yield* shows(tab, "history", "recovered after")
      yield* shows(tab, "peers", "haul-browser")

      yield* click(tab, "Deregister")
      yield* status(tab, "Closed")
      yield* front.until(
        "the deregistration",
        (calls) => calls.find((call) => call.method === "DELETE" && call.status === 204)
      )
      assert.deepStrictEqual(yield* Registry.getJson(`${second.url}/api/v1/services`, Registry.key), [])
      yield* click(tab, "Register again")
      yield* status(tab, "Online")
      assert.deepStrictEqual(tab.problems, [])
    }), 60_000)

  it.live(
    "shows who is registered, live, through a restart of the registry on the same port",
    () =>
      Effect.gen(function*() {
        const first = yield* serve()
        const tab = yield* Browser.open({ width: 900, height: 1100 })
        yield* register(first.url, "prism")
        yield* Browser.within(
          tab,
          "the page opens",
          (page) => page.goto(`${first.url}/?heartbeat=1 second`, { timeout: 15_000 })
        )
        yield* list(tab, "Fresh")
        yield* shows(tab, "peers", "prism")
        yield* shows(tab, "peers", "haul-browser")
        // By its event alone: nothing else asks.
        yield* register(first.url, "sonar")
        yield* shows(tab, "peers", "sonar")
        yield* shows(tab, "history", "sonar came")
        yield* picture(tab, "browser-fresh")

        yield* first.kill("SIGKILL")
        yield* first.exited()
        yield* list(tab, "Stale")
        yield* shows(tab, "peers", "prism")
        yield* Browser.within(
          tab,
          "the next attempt is counted down to",
          (page) => page.locator("#kept", { hasText: /stale for .*, next attempt in/ }).waitFor({ timeout: 15_000 })
        )
        yield* picture(tab, "browser-stale")

        const second = yield* serve(new URL(first.url).port)
        assert.strictEqual(second.url, first.url)
        yield* list(tab, "Fresh")
        yield* shows(tab, "history", "the list is live again")
        yield* shows(tab, "history", "prism went")
        yield* register(second.url, "radar")
        yield* shows(tab, "peers", "radar")
        yield* shows(tab, "peers", "haul-browser")
        const names = yield* Browser.within(tab, "the list", (page) => page.locator("#peers b").allInnerTexts())
        assert.deepStrictEqual(names, ["haul-browser", "radar"])
        yield* picture(tab, "browser-recovered")
        assert.deepStrictEqual(tab.problems, [])
      }),
    60_000
  )
})
