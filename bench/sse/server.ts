// Sends events of `size` characters of data, each with an id, to the reader that asked for `/id`, as many as it is told to and
// as fast as they are taken. In a process of its own, from buffers that are ready, so that it is not what is measured.
import { createServer } from "node:http"
import type { ServerResponse } from "node:http"
import { inBuffer, now } from "./work.ts"
import type { Order } from "./work.ts"

const buffers = new Map<number, Buffer>()
const readers = new Map<string, ServerResponse>()
/** Orders whose reader is not there yet. */
const early = new Map<string, Order>()

const bufferOf = (size: number): Buffer => {
  const known = buffers.get(size)
  if (known !== undefined) return known
  const data = "x".repeat(size)
  const events = Array.from({ length: inBuffer(size) }, (_, index) => `id: ${index}\ndata: ${data}\n\n`)
  const buffer = Buffer.from(events.join(""))
  buffers.set(size, buffer)
  return buffer
}

const obey = (order: Order): void => {
  const { count, id, size } = order
  const reader = readers.get(id)
  if (reader === undefined) return void early.set(id, order)
  const buffer = bufferOf(size)
  process.send?.(now())
  for (let sent = 0; sent < count; sent += inBuffer(size)) reader.write(buffer)
}

const server = createServer((request, response) => {
  const id = (request.url ?? "/").slice(1)
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
  response.flushHeaders()
  readers.set(id, response)
  const order = early.get(id)
  early.delete(id)
  if (order !== undefined) obey(order)
})

server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  process.send?.(typeof address === "object" && address !== null ? address.port : 0)
})
process.on("message", obey)
