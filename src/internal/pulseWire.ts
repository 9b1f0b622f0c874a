/**
 * What Pulse puts on the wire for services: one schema per JSON body, with the wire's own field names, and pure
 * functions between those and the domain. Shared by the client and the embedded registry.
 *
 * Reading is lenient where a Go server is: absent, `null` and `""` all mean "not given", unknown fields are ignored, and
 * what is only informative (a time, the metadata) is dropped when it cannot be read, so that one odd service does not hide
 * all others. What identifies a service is required.
 */
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as ServiceInstance from "../ServiceInstance.ts"
import { formatTime, parseTime } from "./time.ts"

const Text = Schema.optionalKey(Schema.NullOr(Schema.String))

const Texts = Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String)))

/** Body of `POST /services/register`. Lengths are Pulse's, counted in UTF-16 units. */
export const Register = Schema.Struct({
  name: Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(200)),
  type: Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(50)),
  api_url: Schema.String.check(Schema.isMinLength(1)),
  api_key: Text,
  health_url: Text,
  version: Text,
  capabilities: Texts,
  metadata: Text
})

export type Register = typeof Register.Type

/** A registered service. `metadata` is JSON text, times are RFC 3339. */
export const Service = Schema.Struct({
  id: Schema.NonEmptyString,
  name: Schema.String,
  type: Schema.String,
  api_url: Schema.String,
  health_url: Text,
  version: Text,
  status: Text,
  last_seen: Text,
  registered: Text,
  capabilities: Texts,
  metadata: Text,
  api_key: Text
})

export type Service = typeof Service.Type

export const Services = Schema.Array(Service)

/** What a lifeline reads of its own service: the rest it has said itself. */
export const Registration = Schema.Struct({ id: Schema.NonEmptyString, api_url: Schema.String })

/** One event of `GET /ws` and `GET /events`. Unknown types pass through. */
export const Event = Schema.Struct({
  type: Schema.String,
  timestamp: Schema.String,
  service_id: Schema.optionalKey(Schema.String),
  data: Schema.optionalKey(Schema.NullOr(Schema.Record(Schema.String, Schema.Json)))
})

export type Event = typeof Event.Type

/** Body of `GET /health`. */
export const Health = Schema.Struct({ status: Schema.String })

const Metadata = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json))

const readMetadata = Schema.decodeUnknownOption(Metadata)

const secret = (text: string | null | undefined): Redacted.Redacted | undefined =>
  text ? Redacted.make(text) : undefined

const statuses: ReadonlyArray<ServiceInstance.ServiceStatus> = ["online", "offline", "degraded"]

const toStatus = (word: string | null | undefined): ServiceInstance.ServiceStatus =>
  statuses.find((status) => status === word) ?? "unknown"

const toMetadata = (text: string | null | undefined): ServiceInstance.RegisteredService["metadata"] => {
  const metadata = Option.getOrUndefined(readMetadata(text))
  return metadata !== undefined && Object.keys(metadata).length > 0 ? metadata : undefined
}

type Given<A> = { readonly [K in keyof A]?: NonNullable<A[K]> }

/** Those of the fields that are given. */
const given = <A extends object>(fields: A): Given<A> =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && value !== "")
  ) as Given<A>

/** What the client reads. */
export const toService = (wire: Service): ServiceInstance.RegisteredService => ({
  id: wire.id,
  name: wire.name,
  type: wire.type,
  apiUrl: wire.api_url,
  status: toStatus(wire.status),
  capabilities: wire.capabilities ?? [],
  ...given({
    apiKey: secret(wire.api_key),
    healthUrl: wire.health_url,
    version: wire.version,
    lastSeen: parseTime(wire.last_seen),
    registeredAt: parseTime(wire.registered),
    metadata: toMetadata(wire.metadata)
  })
})

/** What the embedded registry answers: every field that the reference server always sends is there. */
export const fromService = (service: ServiceInstance.RegisteredService): Service => ({
  id: service.id,
  name: service.name,
  type: service.type,
  api_url: service.apiUrl,
  health_url: service.healthUrl ?? "",
  version: service.version ?? "",
  status: service.status,
  last_seen: service.lastSeen === undefined ? "" : formatTime(service.lastSeen),
  registered: service.registeredAt === undefined ? "" : formatTime(service.registeredAt),
  capabilities: service.capabilities,
  metadata: JSON.stringify(service.metadata ?? {}),
  ...given({ api_key: service.apiKey && Redacted.value(service.apiKey) })
})

/** What the client sends. */
export const toRegister = (instance: ServiceInstance.ServiceInstance): Register => ({
  name: instance.name,
  type: instance.type,
  api_url: instance.apiUrl,
  ...given({
    api_key: instance.apiKey && Redacted.value(instance.apiKey),
    health_url: instance.healthUrl,
    version: instance.version,
    capabilities: instance.capabilities,
    metadata: instance.metadata && JSON.stringify(instance.metadata)
  })
})

/** What the embedded registry receives. */
export const fromRegister = (wire: Register): ServiceInstance.ServiceInstance => ({
  name: wire.name,
  type: wire.type,
  apiUrl: wire.api_url,
  ...given({
    apiKey: secret(wire.api_key),
    healthUrl: wire.health_url,
    version: wire.version,
    capabilities: wire.capabilities,
    metadata: toMetadata(wire.metadata)
  })
})
