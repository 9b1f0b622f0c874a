/**
 * The registry as a plain handler, served by whatever runtime this runs in. Prints the address.
 */
import * as Server from "effect-lifeline/server/Server"
import * as Redacted from "effect/Redacted"

type Handler = (request: Request) => Promise<Response>

interface Deno {
  readonly serve: (options: object, handler: Handler) => { readonly addr: { readonly port: number } }
}

interface Bun {
  readonly serve: (options: object) => { readonly port: number }
}

const deno: Deno | undefined = Reflect.get(globalThis, "Deno")
const bun: Bun | undefined = Reflect.get(globalThis, "Bun")

const { handler } = Server.toWebHandler({
  apiKey: Redacted.make("right-key"),
  health: { interval: "100 millis" }
})

const serve = (): number => {
  if (deno !== undefined) {
    return deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler).addr.port
  }
  if (bun !== undefined) {
    return bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: handler }).port
  }
  throw new Error("neither Deno nor Bun")
}

console.log(`listening on http://127.0.0.1:${serve()}`)
