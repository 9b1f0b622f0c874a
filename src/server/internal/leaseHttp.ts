/**
 * Leases over HTTP: proofs are checked, and answers are put into words. All answers to who sent a proof carry a nonce.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { idempotencyHeader, idempotencyShape } from "../../internal/pulseLeaseRoutes.ts"
import type * as WireLease from "../../internal/pulseWireLease.ts"
import { formatTime } from "../../internal/time.ts"
import * as Proof from "../../Proof.ts"
import * as Leases from "../Leases.ts"
import type * as Store from "../Store.ts"
import * as Problems from "./problems.ts"
import * as Register from "./register.ts"

export interface Options {
  readonly origin?: string | undefined
  readonly replays?: number | undefined
}

type Response = HttpServerResponse.HttpServerResponse

const statuses: { readonly [K in WireLease.Code]: keyof typeof Problems.leaseTitles } = {
  lease_unknown: 404,
  lease_gone: 410,
  lease_held: 409,
  lease_timed_out: 401,
  token_rejected: 401,
  revival_refused: 410,
  proof_rejected: 401,
  use_dpop_nonce: 401,
  invalid_idempotency_key: 400,
  try_later: 503
}

const problem = (
  code: WireLease.Code,
  detail: string,
  options: { readonly reason?: WireLease.RefusalReason | undefined; readonly headers?: Record<string, string> } = {}
): Response => {
  const status = statuses[code]
  const { headers = {}, reason } = options
  return HttpServerResponse.jsonUnsafe(
    { status, title: Problems.leaseTitles[status], detail, code, ...(reason === undefined ? {} : { reason }) },
    { status, contentType: Problems.contentType, headers }
  )
}

/** Of what is wrong with the token, as RFC 9449, 7.1 has it. The words are ours: nothing in them needs quoting. */
const invalidToken = (detail: string): Record<string, string> => ({
  "www-authenticate": `DPoP error="invalid_token", error_description="${detail}", algs="ES256 EdDSA"`
})

const refused = ({ code, message, reason }: Leases.LeaseRefused): Response =>
  problem(code, message, { reason, headers: statuses[code] === 401 ? invalidToken(message) : {} })

const tryLater = (error: Store.StoreError): Effect.Effect<Response> =>
  Effect.as(
    Effect.logError("A change of a lease could not be stored, and was not made", error),
    problem("try_later", "The change could not be stored, and was not made. The registry's log says why.", {
      headers: { "retry-after": "5" }
    })
  )

const failed = (error: Leases.LeaseRefused | Store.StoreError): Effect.Effect<Response> =>
  error._tag === "StoreError" ? tryLater(error) : Effect.succeed(refused(error))

/** What clients see before the path, without a slash at its end. */
const readOrigin = (origin: string): string => {
  const url = URL.parse(origin)
  if ((url?.protocol !== "http:" && url?.protocol !== "https:") || url.search !== "" || url.hash !== "") {
    throw new Error("leases.origin must be an absolute http or https URL without query and fragment")
  }
  return url.href.replace(/\/+$/, "")
}

export const make = Effect.fnUntraced(function*(options: Options) {
  const leases = yield* Leases.Leases
  const origin = options.origin === undefined ? undefined : readOrigin(options.origin)
  const replays = yield* Proof.makeReplays({ capacity: options.replays })
  const nonces = yield* Proof.makeNonces()

  const urlOf = (request: HttpServerRequest.HttpServerRequest): string =>
    origin !== undefined
      ? origin + request.url
      : URL.parse(request.originalUrl)?.href ??
        Option.match(HttpServerRequest.toURL(request), { onNone: () => "", onSome: (url) => url.href })

  const verify = (request: HttpServerRequest.HttpServerRequest, thumbprint?: string) =>
    Effect.catch(
      Proof.verify({ method: request.method, url: urlOf(request), headers: request.headers }, {
        replays,
        nonces,
        thumbprint
      }),
      (error) => {
        const code = error.reason._tag === "NonceRequired"
          ? "use_dpop_nonce"
          : error.reason._tag === "ReplaysFull"
          ? "try_later"
          : "proof_rejected"
        const detail = `The proof of possession is refused: ${error.message}.`
        return Effect.fail(problem(code, detail, { headers: Proof.challenge(error).headers }))
      }
    )

  /** Every answer to a proof, and every refusal, has the newest nonce. */
  const withNonce = (self: Effect.Effect<Response, Response>): Effect.Effect<Response> =>
    Effect.flatMap(
      Effect.catch(self, Effect.succeed),
      (response) => Effect.map(nonces.issue, (nonce) => HttpServerResponse.setHeader(response, "dpop-nonce", nonce))
    )

  /** An unreadable key is refused; there is none only where it is not needed. */
  const idempotencyKey = (
    request: HttpServerRequest.HttpServerRequest,
    isNeeded: boolean
  ): Effect.Effect<string | undefined, Response> => {
    const key = request.headers[idempotencyHeader]
    return (key === undefined && !isNeeded) || (key !== undefined && idempotencyShape.test(key))
      ? Effect.succeed(key)
      : Effect.fail(problem(
        "invalid_idempotency_key",
        "The header Idempotency-Key is needed: 1 to 128 visible ASCII characters, the same for each attempt of one refresh."
      ))
  }

  /** For who holds the key of the lease. */
  const asHolder = (
    request: HttpServerRequest.HttpServerRequest,
    id: string,
    needsKey: boolean,
    use: (presented: Leases.Presented) => Effect.Effect<Response, Leases.LeaseRefused | Store.StoreError>
  ): Effect.Effect<Response> =>
    withNonce(Effect.gen(function*() {
      const lease = yield* leases.get(id)
      if (lease === undefined) return refused(new Leases.LeaseRefused({ code: "lease_unknown" }))
      const { thumbprint, token } = yield* verify(request, lease.thumbprint)
      const key = yield* idempotencyKey(request, needsKey)
      return yield* Effect.catch(use({ thumbprint, token, idempotencyKey: key }), failed)
    }))

  const wireToken = ({ expiresAt, jti, value }: Leases.Token): WireLease.Token => ({
    token: Redacted.value(value),
    expiresAt: formatTime(expiresAt),
    jti
  })

  return {
    register: (request: HttpServerRequest.HttpServerRequest) => {
      const hasProof = request.headers["dpop"] !== undefined
      const registered = Effect.gen(function*() {
        const thumbprint = hasProof ? (yield* verify(request)).thumbprint : undefined
        const registration = yield* Effect.mapError(
          Register.read(request),
          (body) => HttpServerResponse.jsonUnsafe(body, { status: body.status, contentType: Problems.contentType })
        )
        const { service, token } = yield* Effect.catch(
          leases.register(registration, thumbprint),
          (error) => Effect.flatMap(failed(error), (response) => Effect.fail(response))
        )
        const granted: { readonly lease?: typeof WireLease.Granted.Type } = token === undefined ? {} : {
          lease: {
            token: Redacted.value(token.value),
            expires_at: formatTime(token.expiresAt),
            jti: token.jti,
            stale_after: Math.round(Duration.toSeconds(leases.staleAfter)),
            interval: Math.round(Duration.toSeconds(leases.interval))
          }
        }
        return HttpServerResponse.jsonUnsafe({ ...Register.toWire(service), ...granted }, { status: 201 })
      })
      return hasProof ? withNonce(registered) : Effect.catch(registered, Effect.succeed)
    },

    /** `plain`: for a service without a lease, from who does not claim to have one. */
    heartbeat: <E>(request: HttpServerRequest.HttpServerRequest, id: string, plain: Effect.Effect<void, E>) =>
      Effect.flatMap(leases.get(id), (lease): Effect.Effect<Response | void, E> => {
        const hasProof = request.headers["dpop"] !== undefined
        if (!hasProof && (lease === undefined || lease.state === "ended")) return plain
        return asHolder(request, id, false, (presented) =>
          Effect.map(leases.heartbeat(id, presented), (token) => {
            const beat: WireLease.Beat = token === undefined
              ? { bumped: true }
              : { bumped: true, revived: true, ...wireToken(token) }
            return HttpServerResponse.jsonUnsafe(beat)
          }))
      }),

    refresh: (request: HttpServerRequest.HttpServerRequest, id: string) =>
      asHolder(
        request,
        id,
        true,
        (presented) =>
          Effect.map(leases.refresh(id, presented), (token) => HttpServerResponse.jsonUnsafe(wireToken(token)))
      ),

    status: (request: HttpServerRequest.HttpServerRequest, id: string) =>
      asHolder(request, id, false, (presented) =>
        Effect.map(leases.status(id, presented), (lease) => {
          const status: WireLease.Status = {
            status: lease.state,
            revivals: lease.revivals,
            lastHeartbeat: formatTime(lease.lastBeat),
            ...(lease.state === "active" ? {} : { since: formatTime(lease.since) })
          }
          return HttpServerResponse.jsonUnsafe(status)
        })),

    deregister: leases.deregister
  }
})

export type LeaseHttp = Effect.Success<ReturnType<typeof make>>
