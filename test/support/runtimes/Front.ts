/**
 * A loopback HTTP server that stands before a registry: it forwards every call, and keeps what was called and answered.
 * So a test sees on the wire what a program in another runtime did, and waits for it without polling.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createServer, request } from "node:http"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import * as Watch from "./Watch.ts"
import type { RuntimeError } from "./Watch.ts"

export interface Call {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  /** 502 where the registry did not answer. */
  readonly status: number
}

export interface Front {
  readonly url: string
  readonly calls: ReadonlyArray<Call>
  /** Forwards to another server from now on. */
  readonly retarget: (target: string) => void
  /** Waits until `find` returns something for all calls so far. */
  readonly until: <A>(
    what: string,
    find: (calls: ReadonlyArray<Call>) => A | undefined,
    within?: Duration.Input
  ) => Effect.Effect<A, RuntimeError>
}

export const isRegistration = (call: Call): boolean =>
  call.method === "POST" && call.path.endsWith("/services/register")

export const isBeat = (call: Call): boolean => call.method === "PUT" && call.path.endsWith("/heartbeat")

export const make = (firstTarget: string): Effect.Effect<Front, never, Scope.Scope> =>
  Effect.gen(function*() {
    let target = firstTarget
    const calls = Watch.make<Call>((call) => `${call.method} ${call.path} ${call.status}`)
    const forward = (incoming: IncomingMessage, answer: ServerResponse): void => {
      const { headers, method = "GET", url: path = "/" } = incoming
      const seen = (status: number): void => calls.add({ method, path, headers, status })
      const outgoing = request(new URL(path, target), { method, headers }, (response) => {
        const status = response.statusCode ?? 0
        answer.writeHead(status, response.headers)
        response.pipe(answer)
        answer.once("close", () => {
          response.destroy()
          seen(status)
        })
      })
      outgoing.once("error", () => {
        if (answer.headersSent) return void answer.destroy()
        answer.writeHead(502).end()
        seen(502)
      })
      incoming.pipe(outgoing)
    }
    const server = yield* Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const created = createServer(forward)
        created.listen(0, "127.0.0.1", () => resume(Effect.succeed(created)))
      }),
      (created) =>
        Effect.callback<void>((resume) => {
          created.close(() => resume(Effect.void))
          created.closeAllConnections()
        })
    )
    const { port } = server.address() as AddressInfo
    return {
      url: `http://127.0.0.1:${port}`,
      calls: calls.seen,
      retarget: (next) => {
        target = next
      },
      until: calls.until
    }
  })
