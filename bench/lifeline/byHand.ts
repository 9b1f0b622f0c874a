// The other side: what one writes without a library. A timer for each service and fetch with a deadline; the key is sent,
// the status checked, the body given back. No backoff, no re-registration, no status to look at: it is the floor.
import { setTimeout as sleep } from "node:timers/promises"
import { instances, side, startsIn } from "./work.ts"
import type { Instance } from "./work.ts"

side(async (work) => {
  const headers = { "x-api-key": work.apiKey, accept: "application/json" }
  const begun = performance.now()

  const call = async (method: string, path: string, body?: string): Promise<Response> => {
    const response = await fetch(work.url + path, {
      method,
      headers: body === undefined ? headers : { ...headers, "content-type": "application/json" },
      body: body ?? null,
      redirect: "manual",
      signal: AbortSignal.timeout(10_000)
    })
    if (response.ok) return response
    await response.body?.cancel()
    throw new Error(`${method} ${path} answered ${response.status}`)
  }

  const beat = async (id: string): Promise<void> => {
    try {
      const response = await call("PUT", `/api/v1/services/${encodeURIComponent(id)}/heartbeat`)
      await response.body?.cancel()
    } catch (error) {
      console.error("a heartbeat failed", error)
    }
  }

  const start = async ({ apiUrl, name, type }: Instance): Promise<void> => {
    const response = await call("POST", "/api/v1/services/register", JSON.stringify({ name, type, api_url: apiUrl }))
    const { id } = await response.json() as { readonly id: string }
    await beat(id)
    setTimeout(() => {
      void beat(id)
      setInterval(() => void beat(id), work.interval)
    }, Math.random() * work.interval)
  }

  const waiting = instances(work.count).entries()
  const worker = async (): Promise<void> => {
    for (const [index, instance] of waiting) {
      await sleep(startsIn(work, begun, index))
      await start(instance)
    }
  }
  await Promise.all(Array.from({ length: work.concurrency }, worker))
})
