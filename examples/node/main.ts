import { once } from "node:events"
import { createServer } from "node:http"
import { run } from "../program.ts"
import type { Handler } from "../program.ts"

const serve = async (port: number, handler: Handler) => {
  const server = createServer(async ({ headers, method = "GET", url = "/" }, response) => {
    const key = headers["x-api-key"]
    const answer = await handler(
      new Request(new URL(url, "http://localhost"), {
        method,
        headers: typeof key === "string" ? { "x-api-key": key } : {}
      })
    )
    response.writeHead(answer.status, [...answer.headers].flat()).end(await answer.text())
  })
  await once(server.listen(port, "127.0.0.1"), "listening")
  const address = server.address()
  return {
    port: typeof address === "object" && address !== null ? address.port : port,
    stop: () => new Promise<void>((resolve) => void server.close(() => resolve()).closeAllConnections())
  }
}

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort())
process.exitCode = await run({ name: "node", serve }, stop.signal)
