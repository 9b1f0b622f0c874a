// Sends events of `?size=` characters of data, each with an id, as fast as the reader takes them, until it goes. In a process
// of its own, from buffers that are ready, so that it is not what is measured.
import { createServer } from "node:http"

const bufferSize = 256 * 1024

const events = (size: number): Buffer => {
  const data = "x".repeat(size)
  const length = Math.max(1, Math.floor(bufferSize / size))
  return Buffer.from(Array.from({ length }, (_, index) => `id: ${index}\ndata: ${data}\n\n`).join(""))
}

const server = createServer((request, response) => {
  const size = Number(new URL(request.url ?? "/", "http://localhost").searchParams.get("size"))
  const buffer = events(size)
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
  const write = (error?: Error | null) => {
    if (!error && !response.destroyed) response.write(buffer, write)
  }
  // So many are always on their way: the reader never waits for this process to be told that it may go on.
  for (let n = 0; n < 8; n++) write()
})

server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  process.send?.(typeof address === "object" && address !== null ? address.port : 0)
})
