/**
 * The embedded registry's health checks: every 30 s a `GET` of each service's health URL, and a look at who has not been
 * seen for 2 minutes. Intervals are those of the reference server.
 *
 * | answer | status |
 * |---|---|
 * | 2xx | `online` |
 * | 5xx | `degraded` |
 * | anything else: a redirect, no answer within 5 s, a URL that is not http or https | `offline` |
 * | no health URL, not seen for over 2 min | `offline` |
 *
 * A service chooses its own health URL, so the checker is careful not to become a proxy into somebody's network: only http
 * and https, redirects are not followed, and of the answer only the status is looked at: the body is not read. What a
 * check found out is the word `online`, `degraded` or `offline`, and nothing else.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import { apiKeyHeader } from "../internal/pulseRoutes.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import * as Catalog from "./Catalog.ts"
import type * as Store from "./Store.ts"

/**
 * How often and how patiently services are checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * From one round to the next.
   *
   * @default "30 seconds"
   */
  readonly interval?: Duration.Input | undefined
  /**
   * How long a service may take to answer.
   *
   * @default "5 seconds"
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * How long a service without a health URL may be silent.
   *
   * @default "2 minutes"
   */
  readonly staleAfter?: Duration.Input | undefined
  /**
   * How many services are asked at the same time. With 10,000 services that all time out, a round takes 10,000 x 5 s / 64,
   * 13 minutes: raise it where that matters.
   *
   * @default 64
   */
  readonly concurrency?: number | undefined
}

const statusOf = (code: number): ServiceInstance.ServiceStatus =>
  code >= 200 && code < 300 ? "online" : code >= 500 && code < 600 ? "degraded" : "offline"

const isHttp = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && (url.protocol === "http:" || url.protocol === "https:")
}

/**
 * Asks one service how it is. Never fails: no answer is an answer too.
 *
 * **Example** (Looking at a service now)
 *
 * ```ts
 * import * as Health from "effect-lifeline/server/Health"
 * import type * as Store from "effect-lifeline/server/Store"
 * import * as Effect from "effect/Effect"
 * import * as HttpClient from "effect/http/HttpClient"
 *
 * export const look = (service: Store.Service) =>
 *   Effect.flatMap(HttpClient.HttpClient, (client) =>
 *     service.healthUrl === undefined
 *       ? Effect.succeed(service.status)
 *       : Health.check(client, { ...service, healthUrl: service.healthUrl }, "1 second"))
 * ```
 *
 * @category checks
 * @since 0.1.0
 */
export const check = (
  client: HttpClient.HttpClient,
  service: Store.Service & { readonly healthUrl: string },
  timeout: Duration.Input = "5 seconds"
): Effect.Effect<ServiceInstance.ServiceStatus> => {
  if (!isHttp(service.healthUrl)) return Effect.succeed("offline")
  const request = HttpClientRequest.get(service.healthUrl)
  return HttpClient.withScope(client).execute(
    service.apiKey === undefined
      ? request
      : HttpClientRequest.setHeader(request, apiKeyHeader, Redacted.value(service.apiKey))
  ).pipe(
    Effect.map((response) => statusOf(response.status)),
    Effect.scoped,
    Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.succeed("offline" as const) }),
    Effect.catch(() => Effect.succeed("offline" as const)),
    Effect.catchDefect(() => Effect.succeed("offline" as const)),
    Effect.provideService(FetchHttpClient.RequestInit, { redirect: "manual" }),
    Effect.provideService(HttpClient.TracerPropagationEnabled, false)
  )
}

const hasHealthUrl = (service: Store.Service): service is Store.Service & { readonly healthUrl: string } =>
  service.healthUrl !== undefined

/**
 * One round over all services.
 *
 * **Example** (A round when a program asks for it)
 *
 * ```ts
 * import * as Catalog from "effect-lifeline/server/Catalog"
 * import * as Health from "effect-lifeline/server/Health"
 * import * as Effect from "effect/Effect"
 *
 * export const checked = Effect.andThen(Health.round(), Catalog.Catalog.use((catalog) => catalog.list()))
 * ```
 *
 * @category checks
 * @since 0.1.0
 */
export const round = Effect.fnUntraced(function*(
  options?: Options
): Effect.fn.Return<void, never, Catalog.Catalog | HttpClient.HttpClient> {
  const catalog = yield* Catalog.Catalog
  const client = yield* HttpClient.HttpClient
  yield* catalog.expire(Duration.fromInputUnsafe(options?.staleAfter ?? "2 minutes"))
  const services = yield* catalog.list()
  yield* Effect.forEach(
    services.filter(hasHealthUrl),
    (service) => Effect.flatMap(check(client, service, options?.timeout), (status) => catalog.report(service, status)),
    { concurrency: options?.concurrency ?? 64, discard: true }
  )
  yield* catalog.flush
})

/**
 * Checks for as long as the layer is there, the first time after one interval.
 *
 * **Example** (A test that does not want to wait)
 *
 * ```ts
 * import * as Health from "effect-lifeline/server/Health"
 *
 * export const layer = Health.layer({ interval: "200 millis", staleAfter: "1 second" })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<never, never, Catalog.Catalog | HttpClient.HttpClient> =>
  Layer.effectDiscard(
    round(options).pipe(
      Effect.catchDefect((defect) => Effect.logWarning("A round of health checks failed", defect)),
      Effect.schedule(Schedule.fixed(options?.interval ?? "30 seconds")),
      Effect.forkScoped
    )
  )
