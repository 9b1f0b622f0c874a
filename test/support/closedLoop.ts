/**
 * A ClosedLoop server on loopback, as far as loops go: it authenticates as the reference does, verifies signatures over the path as it
 * came on the wire, and records every request. It answers as told where a test wants it to.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export interface Loop {
  status: string
  /** Of the token that counts. */
  token: string | undefined
  revivals: number
}

export interface Received {
  readonly method: string
  /** As it came, before anybody has parsed it. */
  readonly path: string
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly body: string
}

/** Instead of an answer: a status, a whole answer, no answer ever, or a connection that breaks. */
export type Override =
  | number
  | { readonly status: number; readonly headers?: Record<string, string>; readonly body: string }
  | "hang"
  | "break"

export interface ClosedLoopServer {
  readonly url: string
  readonly received: Array<Received>
  readonly loops: Map<string, Loop>
  /** By what the request is for; each is used once for each entry of the list, the last one for ever. */
  readonly overrides: { status?: Array<Override>; refresh?: Array<Override>; heartbeat?: Array<Override> }
  /** `"status Bearer token"`, `"heartbeat proof"`, ... */
  readonly brief: () => ReadonlyArray<string>
}

export interface Gateway {
  readonly id: string
  readonly apiKey: string
  readonly publicKey: { readonly x: string }
}

const freshness = 60

const send = (response: ServerResponse, status: number, body: unknown) => {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
}
const success = (response: ServerResponse, data: unknown) => send(response, 200, { success: true, data })
const failure = (response: ServerResponse, status: number, error: string, code?: string) =>
  send(response, status, { success: false, error, ...(code === undefined ? {} : { code }) })

const bearer = (headers: Received["headers"]): string => headers["authorization"]?.replace(/^Bearer /, "") ?? ""

/** As the reference has it, with the path as it was received. */
const isProven = ({ headers, method, path }: Received, gateway: Gateway): boolean => {
  const timestamp = headers["x-desktop-timestamp"] ?? ""
  const signature = headers["x-desktop-signature"] ?? ""
  const id = headers["x-desktop-gateway-id"]
  if (bearer(headers) !== gateway.apiKey || id !== gateway.id) return false
  if (!/^\d+$/.test(timestamp) || !/^[A-Za-z0-9_-]+={0,2}$/.test(signature)) return false
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > freshness) return false
  const [pathname = ""] = path.split("?")
  const signed = [method.toUpperCase(), pathname, timestamp, id].join("\n")
  const key = Crypto.createPublicKey({
    format: "jwk",
    key: { kty: "OKP", crv: "Ed25519", x: gateway.publicKey.x }
  })
  return Crypto.verify(null, Buffer.from(signed, "utf8"), key, Buffer.from(signature, "base64url"))
}

export const makeClosedLoop = (
  gateway: Gateway,
  options: { readonly base?: string } = {}
): Effect.Effect<ClosedLoopServer, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { base = "" } = options
    const received: Array<Received> = []
    const loops = new Map<string, Loop>()
    const overrides: ClosedLoopServer["overrides"] = {}
    let issued = 0

    const issue = () => {
      issued++
      return {
        token: `runner-s3cr3t-${issued}`,
        expiresAt: new Date(Date.now() + 8 * 60 * 60_000).toISOString(),
        jti: `jti-${issued}`
      }
    }

    const kindOf = ({ method, path }: Received): "status" | "refresh" | "heartbeat" =>
      method === "GET" ? "status" : path.endsWith("/refresh-token") ? "refresh" : "heartbeat"

    const answer = (request: Received, response: ServerResponse) => {
      const kind = kindOf(request)
      const match = /^\/loops\/([^/]+)(\/heartbeat|\/refresh-token)?$/.exec(request.path.slice(base.length))
      const id = match?.[1] === undefined ? undefined : decodeURIComponent(match[1])
      const loop = id === undefined ? undefined : loops.get(id)
      const isRunner = loop?.token !== undefined && bearer(request.headers) === loop.token
      const isGateway = isProven(request, gateway)
      const list = overrides[kind]
      const override = list !== undefined && list.length > 1 ? list.shift() : list?.[0]
      if (override === "hang") return
      if (override === "break") return void response.destroy()
      if (typeof override === "number") return failure(response, override, `told to answer ${override}`)
      if (override !== undefined) return response.writeHead(override.status, override.headers).end(override.body)
      switch (kind) {
        case "status":
          if (!isRunner && !isGateway) return failure(response, 401, "Unauthorized")
          if (loop === undefined) return failure(response, 404, "Loop not found")
          return success(response, { id, status: loop.status, command: "EXECUTE" })
        case "refresh": {
          if (!isRunner) return failure(response, 401, "Unauthorized", "JTI_MISMATCH")
          const fresh = issue()
          loop.token = fresh.token
          return success(response, fresh)
        }
        case "heartbeat": {
          if (isRunner) {
            return loop.status === "RUNNING"
              ? success(response, { bumped: true })
              : failure(response, 410, "Loop is no longer running", "TERMINAL_LOOP")
          }
          if (!isGateway || loop?.status !== "TIMED_OUT" || loop.revivals >= 3) {
            return failure(response, 410, "Loop is no longer running", "TERMINAL_LOOP")
          }
          const fresh = issue()
          Object.assign(loop, { status: "RUNNING", token: fresh.token, revivals: loop.revivals + 1 })
          return success(response, { bumped: true, revived: true, ...fresh })
        }
      }
    }

    const listener = (incoming: IncomingMessage, response: ServerResponse) => {
      const chunks: Array<Buffer> = []
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk))
      incoming.on("end", () => {
        const headers: Record<string, string | undefined> = {}
        for (let n = 0; n < incoming.rawHeaders.length; n += 2) {
          headers[(incoming.rawHeaders[n] ?? "").toLowerCase()] = incoming.rawHeaders[n + 1]
        }
        const request: Received = {
          method: incoming.method ?? "",
          path: incoming.url ?? "",
          headers,
          body: Buffer.concat(chunks).toString("utf8")
        }
        received.push(request)
        answer(request, response)
      })
    }

    const server = yield* Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const created = createServer(listener)
        created.listen(0, "127.0.0.1", () => resume(Effect.succeed(created)))
      }),
      (created) =>
        Effect.callback<void>((resume) => {
          created.close(() => resume(Effect.void))
          created.closeAllConnections()
        })
    )
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}${base}`,
      received,
      loops,
      overrides,
      brief: () =>
        received.map((request) => {
          const value = bearer(request.headers)
          return `${kindOf(request)} ${value === gateway.apiKey ? "key" : value === "" ? "nothing" : value}`
        })
    }
  })
