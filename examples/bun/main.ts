import { run } from "../program.ts"
import type { Handler } from "../program.ts"

// What this example uses of Bun. In a project with Bun's own types (@types/bun) this is not needed.
declare const Bun: {
  readonly serve: (options: { readonly hostname: string; readonly port: number; readonly fetch: Handler }) => {
    readonly port: number
    readonly stop: (closeConnections: boolean) => Promise<void>
  }
}

const serve = async (port: number, handler: Handler) => {
  const server = Bun.serve({ hostname: "127.0.0.1", port, fetch: handler })
  return { port: server.port, stop: () => server.stop(true) }
}

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort())
process.exitCode = await run({ name: "bun", serve }, stop.signal)
