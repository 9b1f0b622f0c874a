/** The program on Workers, over `connect()`; the ports come as a query. */
import { connect } from "cloudflare:sockets"
import * as CloudflareSocket from "effect-lifeline/cloudflare/CloudflareSocket"
import * as Effect from "effect/Effect"
import { program } from "./program.ts"

const open = (port: number) => CloudflareSocket.make(() => connect({ hostname: "127.0.0.1", port }))

export default {
  fetch: (request: Request): Promise<Response> => {
    const ports = new URL(request.url).searchParams
    return Effect.runPromise(Effect.map(
      program(open, { server: Number(ports.get("server")), nobody: Number(ports.get("nobody")) }),
      (report) => Response.json(report)
    ))
  }
}
