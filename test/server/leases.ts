/**
 * A program that holds a key, as the registry sees it: each call with a proof of its own, and once more where a nonce is asked
 * for. By `Proof` alone, so that what is tested is the wire.
 */
import * as Proof from "effect-lifeline/Proof"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Call, Reply } from "./support.ts"
import { field, origin as served } from "./support.ts"

export interface Send {
  /** Absent: that of `serve`. */
  readonly origin?: string
  readonly call: (method: string, path: string, call?: Call) => Effect.Effect<Reply>
}

export interface HolderCall extends Call {
  readonly token?: string | undefined
  /** What the proof is for, where that is not what is sent. */
  readonly proofFor?: { readonly method?: string; readonly url?: string; readonly token?: string } | undefined
}

/** The headers, in the clear. */
export const shown = (headers: Proof.ProofHeaders): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)]))

export const makeHolder = Effect.fnUntraced(function*({ call, origin = served }: Send, key?: Proof.KeyPair) {
  const pair = key ?? (yield* Effect.orDie(Proof.generateKey()))
  const proof = yield* Proof.dpop({ key: pair })

  const prove = (method: string, path: string, { proofFor, token }: HolderCall = {}) =>
    Effect.map(
      proof.headers({
        method: proofFor?.method ?? method,
        url: proofFor?.url ?? `${origin}${path}`,
        token: (proofFor?.token ?? token) === undefined ? undefined : Redacted.make(proofFor?.token ?? token ?? "")
      }),
      (headers) => ({ ...shown(headers), ...(token === undefined ? {} : { authorization: `DPoP ${token}` }) })
    ).pipe(Effect.orDie)

  const send = Effect.fnUntraced(
    function*(method: string, path: string, options: HolderCall = {}): Effect.fn.Return<Reply> {
      for (let attempt = 1;; attempt++) {
        const headers = { ...yield* prove(method, path, options), ...options.headers }
        const reply = yield* call(method, path, { ...options, headers })
        const isAsked = yield* proof.received({
          url: options.proofFor?.url ?? `${origin}${path}`,
          status: reply.status,
          headers: Object.fromEntries(reply.headers)
        })
        if (!isAsked || attempt === 2) return reply
      }
    }
  )

  return {
    key: pair,
    thumbprint: proof.thumbprint,
    prove,
    send,
    register: (body: unknown) => send("POST", "/api/v1/services/register", { body }),
    heartbeat: (id: string, options?: HolderCall) => send("PUT", `/api/v1/services/${id}/heartbeat`, options),
    status: (id: string, options?: HolderCall) => send("GET", `/api/v1/services/${id}/lease`, options),
    refresh: (id: string, key: string, options: HolderCall = {}) =>
      send("POST", `/api/v1/services/${id}/lease/refresh`, {
        ...options,
        headers: { ...options.headers, "idempotency-key": key }
      })
  }
})

export const tokenOf = (reply: Reply): string => {
  const lease = field(reply.json, "lease")
  return String(field(lease === null ? reply.json : lease, "token"))
}

export const codeOf = (reply: Reply): readonly [number, unknown] => [reply.status, field(reply.json, "code")]
