// A registry to beat against: a bare node:http server in a process of its own, so that it is not what is measured. It
// speaks just enough of Pulse (register, heartbeat, verify) and of Eureka (register, renew), remembers nothing but the
// addresses that were registered, and counts the beats that it acknowledged.
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"

const addresses = new Map<string, string>()
let beats = 0

const answer = (response: ServerResponse, status: number, body?: unknown): void => {
  if (body === undefined) response.writeHead(status).end()
  else response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
}

const register = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  let text = ""
  for await (const chunk of request) text += chunk
  const { api_url, name, type } = JSON.parse(text) as Record<"api_url" | "name" | "type", string>
  const id = `00000000-0000-4000-8000-${String(addresses.size).padStart(12, "0")}`
  addresses.set(id, api_url)
  const now = new Date().toISOString()
  answer(response, 201, {
    id,
    name,
    type,
    api_url,
    health_url: "",
    version: "",
    status: "offline",
    last_seen: now,
    registered: now,
    capabilities: [],
    metadata: "{}"
  })
}

const server = createServer((request, response) => {
  const path = request.url ?? ""
  const eureka = path.startsWith("/eureka/")
  if (request.method === "PUT") {
    beats++
    answer(response, eureka ? 200 : 204)
  } else if (eureka) {
    request.resume()
    answer(response, 204)
  } else if (request.method === "POST") {
    void register(request, response)
  } else {
    const id = path.slice(path.lastIndexOf("/") + 1)
    answer(response, 200, { id, name: "worker", type: "worker", api_url: addresses.get(id) ?? "", status: "online" })
  }
})

server.listen(0, "127.0.0.1", 4096, () => {
  const address = server.address()
  process.send?.(typeof address === "object" && address !== null ? address.port : 0)
})
process.on("message", () => process.send?.(beats))
