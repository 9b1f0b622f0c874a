import { run } from "../program.ts"
import type { Handler } from "../program.ts"

// What this example uses of Deno. Under Deno's own type checker this is not needed.
declare const Deno: {
  readonly serve: (
    options: { readonly hostname: string; readonly port: number; readonly onListen: () => void },
    handler: Handler
  ) => { readonly addr: { readonly port: number }; readonly shutdown: () => Promise<void> }
  readonly addSignalListener: (signal: "SIGINT" | "SIGTERM", listener: () => void) => void
  readonly exit: (code: number) => never
}

const serve = async (port: number, handler: Handler) => {
  const server = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, handler)
  return { port: server.addr.port, stop: () => server.shutdown() }
}

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => stop.abort())
Deno.exit(await run({ name: "deno", serve }, stop.signal))
