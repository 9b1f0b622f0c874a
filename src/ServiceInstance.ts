/**
 * Services: what a program says of itself when it registers ({@link ServiceInstance}), and what a registry says of
 * a service that is registered ({@link RegisteredService}).
 *
 * Programs write a plain object, {@link Input}. It is checked by {@link make} before any request is sent, and every
 * problem is reported at once, each with the path of its field.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Classify from "./Classify.ts"
import { issuesOf } from "./internal/issues.ts"
import { showUrl } from "./internal/url.ts"
import type { Refused } from "./LifelineError.ts"

const text = (maximum: number) =>
  Schema.String.check(Schema.makeFilter((value) => {
    if (value.trim() === "") return "must not be blank"
    return value.length <= maximum || `must be at most ${maximum} characters, is ${value.length}`
  }))

const HttpUrl = Schema.String.check(
  Schema.makeFilter((value) => showUrl(value) !== undefined || "must be an absolute http or https URL")
)

/**
 * Schema of a {@link ServiceInstance}. Lengths are those of Pulse: name 1 to 200, type 1 to 50 characters.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ServiceInstance = Schema.Struct({
  /** Together with `type` the identity: registering again with the same two updates the registration. */
  name: text(200),
  type: text(50),
  /** Where peers reach this service. */
  apiUrl: HttpUrl,
  /** Shared with peers that discover this service, so that they can authenticate to it. Not the registry's key. */
  apiKey: Schema.optional(Schema.Redacted(Schema.String)),
  /** Polled by registries that check health themselves. */
  healthUrl: Schema.optional(HttpUrl),
  version: Schema.optional(Schema.String),
  capabilities: Schema.optional(Schema.Array(text(200))),
  metadata: Schema.optional(Schema.Record(Schema.String, Schema.Json))
})

/**
 * What a program says of itself, checked.
 *
 * @category models
 * @since 0.1.0
 */
export type ServiceInstance = typeof ServiceInstance.Type

/**
 * What a program writes: the same fields, not yet checked.
 *
 * @category models
 * @since 0.1.0
 */
export interface Input {
  readonly name: string
  readonly type: string
  readonly apiUrl: string
  readonly apiKey?: Redacted.Redacted | undefined
  readonly healthUrl?: string | undefined
  readonly version?: string | undefined
  readonly capabilities?: ReadonlyArray<string> | undefined
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
}

const decode = Schema.decodeUnknownEffect(Schema.toType(ServiceInstance), { errors: "all" })

/**
 * Checks what a program says of itself. Fails with `Refused` (`InvalidRequest`, one issue per field); sends nothing.
 *
 * **Example** (A blank name is found before any request)
 *
 * ```ts
 * import * as ServiceInstance from "effect-lifeline/ServiceInstance"
 * import * as Effect from "effect/Effect"
 *
 * export const haul = ServiceInstance.make({ name: "haul", type: "download-client", apiUrl: "http://haul:8484" })
 * export const wrong = Effect.flip(ServiceInstance.make({ name: " ", type: "x", apiUrl: "haul:8484" }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (input: Input): Effect.Effect<ServiceInstance, Refused> =>
  Effect.mapError(decode(input), (error) =>
    Classify.invalidRequest({
      operation: "register",
      target: "before any request",
      issues: issuesOf(error, "instance")
    }))

/**
 * What a registry thinks of a service. Unknown words of other registries become `"unknown"`.
 *
 * @category models
 * @since 0.1.0
 */
export type ServiceStatus = "online" | "offline" | "degraded" | "unknown"

/**
 * What a registry says of a registered service.
 *
 * @category models
 * @since 0.1.0
 */
export interface RegisteredService {
  readonly id: string
  readonly name: string
  readonly type: string
  readonly apiUrl: string
  readonly status: ServiceStatus
  readonly capabilities: ReadonlyArray<string>
  /** Shared by the service for its peers; absent when it shares none or the registry does not pass it on. */
  readonly apiKey?: Redacted.Redacted | undefined
  readonly healthUrl?: string | undefined
  readonly version?: string | undefined
  /** Milliseconds since 1970, by the registry's clock. */
  readonly lastSeen?: number | undefined
  /** Milliseconds since 1970, by the registry's clock. */
  readonly registeredAt?: number | undefined
  readonly metadata?: { readonly [key: string]: Schema.Json } | undefined
}
