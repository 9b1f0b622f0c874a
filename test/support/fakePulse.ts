/**
 * A tiny Pulse as an `HttpClient`: enough of the wire protocol for the adapter's tests, with the reference server's habits
 * (heartbeats of unknown services are acknowledged, registering leaves a service offline until it beats).
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"

export const apiKey = "canary-key-of-the-registry"

interface Stored {
  readonly id: string
  readonly body: { readonly [key: string]: unknown }
  readonly lastSeen: number
  readonly online: boolean
}

const problem = (status: number, detail: string) =>
  new Response(JSON.stringify({ status, title: "problem", detail }), {
    status,
    headers: { "content-type": "application/problem+json" }
  })

const json = (status: number, value: unknown) =>
  new Response(JSON.stringify(value), { status, headers: { "content-type": "application/json" } })

const staleAfter = 120_000

export const make = (): HttpClient.HttpClient => {
  const stored = new Map<string, Stored>()
  let count = 0

  const show = (now: number) => ({ body, id, lastSeen, online }: Stored) => ({
    health_url: "",
    version: "",
    capabilities: [],
    metadata: "{}",
    ...body,
    id,
    status: online && now - lastSeen <= staleAfter ? "online" : "offline",
    last_seen: new Date(lastSeen).toISOString(),
    registered: new Date(0).toISOString()
  })

  const answer = (method: string, url: URL, body: string, now: number): Response => {
    const [, id = "", rest] = /^\/api\/v1\/services\/([^/]+)(\/heartbeat)?$/.exec(url.pathname) ?? []
    const key = decodeURIComponent(id)
    const found = stored.get(key)
    const all = [...stored.values()].map(show(now))
    if (method === "POST" && id === "register") {
      const sent: { readonly [key: string]: unknown } = JSON.parse(body)
      const same = [...stored.values()].find((it) =>
        it.body["name"] === sent["name"] && it.body["type"] === sent["type"]
      )
      const entry: Stored = { id: same?.id ?? `id/${++count}`, body: sent, lastSeen: now, online: false }
      stored.set(entry.id, entry)
      return json(201, show(now)(entry))
    }
    if (method === "PUT" && rest !== undefined) {
      if (found !== undefined) stored.set(key, { ...found, lastSeen: now, online: true })
      return new Response(null, { status: 204 })
    }
    if (method === "DELETE") {
      return stored.delete(key) ? new Response(null, { status: 204 }) : problem(404, "service not found")
    }
    if (url.pathname === "/api/v1/services") return json(200, all)
    if (id === "discover") {
      const capability = url.searchParams.get("capability")
      const type = url.searchParams.get("type")
      const listed = all.filter((it) =>
        capability !== null
          ? (it.capabilities as ReadonlyArray<unknown>).includes(capability)
          : type === null || (it as { readonly type?: unknown }).type === type
      )
      return json(200, listed)
    }
    return found === undefined ? problem(404, "service not found") : json(200, show(now)(found))
  }

  return HttpClient.make((request, url) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const body = request.body._tag === "Uint8Array" ? new TextDecoder().decode(request.body.body) : ""
      return HttpClientResponse.fromWeb(
        request,
        request.headers["x-api-key"] === apiKey
          ? answer(request.method, url, body, now)
          : problem(401, "A valid X-Api-Key header is required.")
      )
    })
  )
}

export const layer: Layer.Layer<HttpClient.HttpClient> = Layer.sync(HttpClient.HttpClient, make)
