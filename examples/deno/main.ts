import { run } from "../program.ts"
import type { Handler } from "../program.ts"

const serve = async (port: number, handler: Handler) => {
  const server = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, handler)
  return { port: server.addr.port, stop: () => server.shutdown() }
}

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stop.abort())
Deno.exit(await run({ name: "deno", serve }, stop.signal))
