// One contender against all of its hostile servers at once. A port that refuses cannot count: there each fetch and each
// WebSocket that is made counts, which is why both are wrapped before any contender is loaded.
import type { Counts, Places } from "./work.ts"
import { makeCounter } from "./work.ts"

const refused = makeCounter()
let refusing: string | undefined

const made = (url: unknown): void => {
  const text = typeof url === "object" && url !== null && "url" in url ? String(url.url) : String(url)
  if (refusing !== undefined && text.includes(refusing)) refused.arrived()
}

const { fetch, WebSocket } = globalThis
globalThis.fetch = (input, init) => {
  made(input)
  return fetch(input, init)
}
globalThis.WebSocket = class extends WebSocket {
  constructor(url: string | URL, protocols?: string | Array<string>) {
    made(url)
    super(url, protocols)
  }
}

const { contenders } = await import("./contenders.ts")

process.once("message", async ({ contender, places }: { readonly contender: string; readonly places: Places }) => {
  refusing = places.refuse
  const start = await contenders[contender]?.()
  for (const place of Object.values(places)) start?.(place)
  // From here on, what a contender does not handle is not to end what it does elsewhere.
  process.on("unhandledRejection", () => {})
  process.on("uncaughtException", () => {})
  process.on("message", () => {
    const counts: Counts = { refuse: refused.count() }
    process.send?.(counts)
  })
})
