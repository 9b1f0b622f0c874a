/**
 * The port to what a registry knows of others: which services there are, and what changes.
 *
 * Apart from `Registry`, the port to what it knows of us: a program that only stays registered carries no discovery, a
 * dashboard carries no registration, and a registry may be read by another protocol than it is written by. `Discovery`
 * and `DiscoveryCache` are what programs use; they need this port.
 *
 * | member | fails with | |
 * |---|---|---|
 * | `discover` | `Transient`, `AuthFailed`, `Refused` | one read, nothing cached |
 * | `changes` | what transports fail with | one connection; `Refused` (`Unsupported`) where `watch` is `"none"` |
 *
 * `changes` is a transport for `Reconnect`, not a stream: an adapter makes one connection and says what comes on it, where to
 * resume (a cursor with each frame, where its registry has one) and when it cannot: where what happened since the connection before
 * is not told, a connection (of a `generation` over 1) begins with the notice `Gap`. When to connect again is
 * decided once, for all adapters, in `Reconnect`; {@link follow} is that stream. That the effect has succeeded means
 * that every change from then on comes: a picture that is read (`discover`) after it misses nothing.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import { notConfigured } from "./internal/notConfigured.ts"
import type { AuthFailed, Exhausted, NoProgress, Refused, Transient } from "./LifelineError.ts"
import * as Reconnect from "./Reconnect.ts"
import type * as ServiceInstance from "./ServiceInstance.ts"

/**
 * What differs between registries, as far as reading them goes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities {
  /** The adapter's name, for logs and metrics, e.g. `"pulse"`. */
  readonly adapter: string
  /** Where the registry is, e.g. `"http://pulse:9696"`; never with a secret in it. */
  readonly target?: string | undefined
  /** `false`: no registry is configured. Nothing is sent; calls fail as `Unsupported`. */
  readonly enabled: boolean
  /**
   * How `changes` gets what it tells: `"push"` has no memory of what was missed between two connections, `"resumable"` has one,
   * `"poll"` asks again and again, `"none"` cannot.
   */
  readonly watch: "none" | "poll" | "push" | "resumable"
  /** From where a browser may call: `"any"` origin, the `"same-origin"`, where `"configured"`, or `"no"` browser at all. */
  readonly browser: "any" | "same-origin" | "configured" | "no"
}

/**
 * Which services to list. Given fields must all match; an empty query lists all.
 *
 * @category models
 * @since 0.1.0
 */
export interface Query {
  readonly name?: string | undefined
  readonly type?: string | undefined
  readonly capability?: string | undefined
}

/**
 * Whether a service is among those that a query lists.
 *
 * @category models
 * @since 0.1.0
 */
export const matches = (query: Query, service: ServiceInstance.RegisteredService): boolean =>
  (query.name === undefined || service.name === query.name) &&
  (query.type === undefined || service.type === query.type) &&
  (query.capability === undefined || service.capabilities.includes(query.capability))

/**
 * Something changed in the registry.
 *
 * - `Registered`: a service is new, or registered again, maybe with other fields. `service` is what is known of it, where the
 *   registry tells; else a `discover` does, which `query` narrows down.
 * - `Other` carries what this version does not know: unknown events pass through. `id` is the service that it is about.
 *
 * @category models
 * @since 0.1.0
 */
export type Change =
  | {
    readonly _tag: "Registered"
    readonly id: string
    readonly service?: ServiceInstance.RegisteredService | undefined
    readonly query?: Query | undefined
  }
  | { readonly _tag: "Deregistered"; readonly id: string }
  | { readonly _tag: "StatusChanged"; readonly id: string; readonly status: ServiceInstance.ServiceStatus }
  | { readonly _tag: "Other"; readonly type: string; readonly id?: string | undefined; readonly data?: unknown }

/**
 * The port.
 *
 * @category services
 * @since 0.1.0
 */
export class Directory extends Context.Service<Directory, {
  readonly capabilities: Capabilities
  readonly discover: (
    query: Query
  ) => Effect.Effect<ReadonlyArray<ServiceInstance.RegisteredService>, Transient | AuthFailed | Refused>
  /** A transport: makes one connection, in the scope that it is given. */
  readonly changes: Reconnect.Connect<Change, string, Scope.Scope>
  /** Emits after each change of the credential: what was refused with the one before may be asked again. Absent: it never changes. */
  readonly credentialChanges?: Stream.Stream<void> | undefined
}>()("effect-lifeline/Directory") {}

/**
 * No registry is configured: every call fails with `Refused` (`Unsupported`), nothing is sent.
 *
 * **Example** (A program without a registry)
 *
 * ```ts
 * import * as Directory from "effect-lifeline/Directory"
 * import * as Effect from "effect/Effect"
 *
 * export const peers = Directory.Directory.use((directory) => directory.discover({})).pipe(
 *   Effect.catchTag("Refused", () => Effect.succeed([])),
 *   Effect.provide(Directory.layerDisabled)
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const disabled: Directory["Service"] = {
  capabilities: { adapter: "disabled", enabled: false, watch: "none", browser: "any" },
  discover: () => notConfigured("discover"),
  changes: () => notConfigured("changes")
}

/**
 * {@link disabled} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDisabled: Layer.Layer<Directory> = Layer.succeed(Directory, disabled)

/**
 * Every change, over as many connections as it takes: see `Reconnect.stream`. A `Gap` says that changes may be missing: it comes
 * with each connection but the first, unless the registry could resume. For a picture that is kept right see `DiscoveryCache`.
 *
 * **Example** (A log of who comes and goes)
 *
 * ```ts
 * import * as Directory from "effect-lifeline/Directory"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const log = Stream.runForEach(Directory.follow(), (change) => Effect.log(change._tag))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function follow(
  options?: FollowOptions & { readonly policy?: Backoff.Unbounded | undefined }
): Stream.Stream<Change | Reconnect.Gap, AuthFailed | Refused | NoProgress, Directory>
export function follow(
  options: FollowOptions
): Stream.Stream<Change | Reconnect.Gap, AuthFailed | Refused | NoProgress | Exhausted, Directory>
export function follow(
  options: FollowOptions = {}
): Stream.Stream<Change | Reconnect.Gap, AuthFailed | Refused | NoProgress | Exhausted, Directory> {
  return Stream.unwrap(
    Effect.map(
      Directory,
      ({ capabilities, changes }) => Reconnect.stream(changes, { at: atOf(capabilities), ...options })
    )
  )
}

/**
 * What {@link follow} takes from `Reconnect`.
 *
 * @category models
 * @since 0.1.0
 */
export interface FollowOptions extends Reconnect.Options<string> {
  /** The waits between two connections. @default `Backoff.streams` */
  readonly policy?: Backoff.Unbounded | Reconnect.Bounded | undefined
}

const atOf = ({ adapter, target }: Capabilities) => ({ operation: "changes", target: target ?? adapter })
