/**
 * What the two Pulse clients share (`registry/Pulse`, `registry/PulseApi`): where the registry is, with which key, and one
 * call of a route.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Classify from "../Classify.ts"
import type { Attempted, AuthFailed, Refused, Transient } from "../LifelineError.ts"
import type { CredentialInfo } from "../Registry.ts"
import * as HttpExchange from "./httpExchange.ts"
import type { Route } from "./pulseRoutes.ts"
import { apiKeyHeader } from "./pulseRoutes.ts"
import { readUrl } from "./registryUrl.ts"

export interface Options {
  readonly url?: string | undefined
  readonly apiKey?: Redacted.Redacted | SubscriptionRef.SubscriptionRef<Redacted.Redacted> | undefined
  readonly requestTimeout?: Duration.Input | undefined
  readonly tracePropagation?: boolean | undefined
}

export interface Call<A, E> {
  readonly id?: string | undefined
  readonly query?: { readonly [name: string]: string | undefined } | undefined
  /** Sent as JSON. */
  readonly payload?: unknown
  /** Sent with the request, beside the API key, and kept out of errors. */
  readonly secret?: Redacted.Redacted | ReadonlyArray<Redacted.Redacted | undefined> | undefined
  /** Instead of the adapter's own: one that signs what it sends. */
  readonly client?: HttpExchange.ExchangeClient | undefined
  /** Reads the body of a success. Absent: a success needs no body. */
  readonly read?: ((body: string, at: Attempted) => Effect.Effect<A, E>) | undefined
}

/** One call of a route; `operation` is in the words of the port. */
export type Send = <const T extends Classify.Table, A = void, E = never>(
  operation: string,
  route: Route,
  table: T,
  call: Call<A, E>
) => Effect.Effect<A, Classify.ErrorsOf<T> | Transient | AuthFailed | E>

/** Whether a registry is configured at all. */
export const isConfigured = (options: Options): boolean => options.url !== undefined && options.url.trim() !== ""

type ApiKey = NonNullable<Options["apiKey"]>

const isFixed = (key: ApiKey): key is Redacted.Redacted => Redacted.isRedacted(key)

const currentKey = (key: Options["apiKey"]): Effect.Effect<Redacted.Redacted | undefined> =>
  key === undefined || isFixed(key) ? Effect.succeed(key) : SubscriptionRef.get(key)

/** What drivers may know of the key. */
export const credential = (key: Options["apiKey"]): CredentialInfo => ({
  current: currentKey(key),
  changes: key === undefined || isFixed(key)
    ? undefined
    : SubscriptionRef.changes(key).pipe(Stream.changes, Stream.drop(1), Stream.map(() => undefined))
})

// What a header can carry: visible Latin-1, spaces within.
const sendable = /^[\x20-\x7e\xa0-\xff]+$/

/** The key that is to be sent now, fit for a header: what spaces there are around it are not part of it. */
export const sendableKey = (
  key: Options["apiKey"],
  at: Attempted
): Effect.Effect<Redacted.Redacted | undefined, AuthFailed> =>
  Effect.flatMap(currentKey(key), (given) => {
    if (given === undefined) return Effect.succeed(given)
    const text = Redacted.value(given)
    const value = text.trim()
    if (value === "") return Effect.fail(Classify.credentialMissing(at))
    return sendable.test(value)
      ? Effect.succeed(text === value ? given : Redacted.make(value))
      : Effect.fail(Classify.unauthorized({ ...at, detail: "no header can carry it, so nothing was sent" }))
  })

/** A client of one registry. */
export interface Client {
  /** Where the registry is, as it may be shown. */
  readonly target: string
  /** How long one call may take, its whole answer included. */
  readonly deadline: Duration.Duration
  readonly send: Send
}

export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<Client, Refused, HttpClient.HttpClient> {
  const client = yield* HttpClient.HttpClient
  const target = yield* readUrl(options.url?.trim() ?? "")
  const deadline = Duration.fromInputUnsafe(options.requestTimeout ?? "10 seconds")
  const exchange = HttpExchange.make(client, deadline, options.tracePropagation ?? false)
  const send: Send = (operation, route, table, call) => {
    const url = target + route.path.replace(":id", encodeURIComponent(call.id ?? ""))
    const at: Attempted = { operation, target: `${route.method} ${url}` }
    return Effect.flatMap(sendableKey(options.apiKey, at), (key) => {
      const request = HttpClientRequest.make(route.method)(url, {
        headers: { accept: "application/json", [apiKeyHeader]: key && Redacted.value(key) },
        urlParams: call.query,
        body: call.payload === undefined ? undefined : HttpBody.jsonUnsafe(call.payload)
      })
      return exchange({
        request,
        at,
        table,
        read: call.read,
        secrets: [key].concat(call.secret),
        client: call.client
      })
    })
  }
  return { target, deadline, send }
})
