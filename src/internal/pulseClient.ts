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
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Classify from "../Classify.ts"
import type { AuthFailed, Refused, Transient } from "../LifelineError.ts"
import type { Answer } from "./httpExchange.ts"
import { exchange, prepare } from "./httpExchange.ts"
import type { Route } from "./pulseRoutes.ts"
import { apiKeyHeader } from "./pulseRoutes.ts"
import { showText } from "./url.ts"

export interface Options {
  readonly url?: string | undefined
  readonly apiKey?: Redacted.Redacted | SubscriptionRef.SubscriptionRef<Redacted.Redacted> | undefined
  readonly requestTimeout?: Duration.Input | undefined
  readonly tracePropagation?: boolean | undefined
}

export interface Call<T extends Classify.Table> {
  /** In the words of the port. */
  readonly operation: string
  readonly route: Route
  readonly table: T
  readonly id?: string | undefined
  readonly query?: { readonly [name: string]: string | undefined } | undefined
  /** Sent as JSON. */
  readonly payload?: unknown
  /** `false`: a success needs no body. */
  readonly body: boolean
  /** Beside the API key. */
  readonly secrets?: ReadonlyArray<Redacted.Redacted> | undefined
}

/** One call: the answer, and where it came from, for what is said of it. */
export type Send = <const T extends Classify.Table>(
  call: Call<T>
) => Effect.Effect<Answer & { readonly target: string }, Classify.ErrorsOf<T> | Transient | AuthFailed>

/** Whether a registry is configured at all. */
export const isConfigured = (options: Options): boolean => options.url !== undefined && options.url.trim() !== ""

/** The current key; a key that never changes is its own value. */
export const currentKey = (options: Options): Effect.Effect<Redacted.Redacted | undefined> =>
  options.apiKey === undefined || Redacted.isRedacted(options.apiKey)
    ? Effect.succeed(options.apiKey)
    : SubscriptionRef.get(options.apiKey)

// What a header can carry: visible Latin-1, spaces within.
const sendable = /^[\x20-\x7e\xa0-\xff]+$/

const readUrl = (text: string): Effect.Effect<string, Refused> => {
  const url = URL.parse(text.trim())
  const wrong = url === null || (url.protocol !== "http:" && url.protocol !== "https:")
    ? "must be an absolute http or https URL, e.g. http://pulse:9696"
    : url.username !== "" || url.password !== ""
    ? "must not hold a user name or a password; the API key is an option of its own"
    : url.search !== "" || url.hash !== ""
    ? "must not have a query or a fragment"
    : undefined
  return url === null || wrong !== undefined
    ? Effect.suspend(() =>
      Effect.fail(Classify.make("InvalidRequest", {
        operation: "configure",
        target: showText(text.trim()),
        issues: [{ path: "options.url", message: wrong ?? "" }]
      }))
    )
    : Effect.succeed(`${url.origin}${url.pathname.replace(/\/+$/, "")}`)
}

export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<Send, Refused, HttpClient.HttpClient> {
  const client = prepare(yield* HttpClient.HttpClient)
  const base = yield* readUrl(options.url ?? "")
  const timeout = Duration.fromInputUnsafe(options.requestTimeout ?? "10 seconds")
  return Effect.fnUntraced(function*(call) {
    const url = `${base}${call.route.path.replace(":id", encodeURIComponent(call.id ?? ""))}`
    const target = `${call.route.method} ${url}`
    let request = HttpClientRequest.make(call.route.method)(url, {
      acceptJson: true,
      urlParams: call.query,
      body: call.payload === undefined ? undefined : HttpBody.text(JSON.stringify(call.payload), "application/json")
    })
    const key = yield* currentKey(options)
    if (key !== undefined) {
      const value = Redacted.value(key).trim()
      if (value === "") return yield* Classify.make("CredentialMissing", { operation: call.operation, target })
      if (!sendable.test(value)) {
        return yield* Classify.make("Unauthorized", {
          operation: call.operation,
          target,
          detail: "it holds characters that a header cannot carry, so nothing was sent"
        })
      }
      request = HttpClientRequest.setHeader(request, apiKeyHeader, value)
    }
    const answer = yield* exchange(client, request, {
      operation: call.operation,
      target,
      table: call.table,
      timeout,
      body: call.body,
      tracePropagation: options.tracePropagation ?? false,
      secrets: [...(key === undefined ? [] : [key]), ...(call.secrets ?? [])]
    })
    return { ...answer, target }
  })
})
