/**
 * The port to a registry: the few calls with which a service is registered there and stays so, and what differs between
 * registries said as data ({@link Capabilities}). Finding and watching other services is a port of its own, `Directory`.
 *
 * What "the lease is lost" and "the credential is refused" look like on the wire belongs to the adapter, which
 * answers in the error algebra and so hides it: a 404, a 200 without a field, a 500 with a text. An adapter is one file
 * under `registry/` and passes the conformance suite of `testing`.
 *
 * | method | fails with | beside success |
 * |---|---|---|
 * | `register` | `Transient`, `AuthFailed`, `Refused` | same identity again: an update, never a second registration |
 * | `heartbeat` | also `LeaseLost` | an adapter whose registry accepts beats of unknown leases says so in `heartbeatDetectsLoss` |
 * | `verify` | also `LeaseLost` | the truth check: asks whether the registration is still there, and still ours (`LeaseTaken`) |
 * | `deregister` | `Transient`, `AuthFailed`, `Refused` | a lease that is gone already is success |
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import { notConfigured } from "./internal/notConfigured.ts"
import type * as Lease from "./Lease.ts"
import type { AuthFailed, LeaseLost, Refused, Transient } from "./LifelineError.ts"
import type * as ServiceInstance from "./ServiceInstance.ts"

/**
 * What differs between registries, and what the drivers need to know of it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities {
  /** The adapter's name, for logs and metrics, e.g. `"pulse"`. */
  readonly adapter: string
  /**
   * Where the registry is, e.g. `"http://pulse:9696"`; never with a secret in it. A one-shot driver sees by it that a
   * lease in its store belongs to another registry.
   */
  readonly target?: string | undefined
  /** `false`: no registry is configured. The drivers send nothing and report `Disabled`; calls fail as `Unsupported`. */
  readonly enabled: boolean
  /** Whether a heartbeat of an unknown lease is reported as `LeaseLost`. If not, a loss is found by the next `verify`, which
   * the drivers call now and then in any case, as another instance may have taken the identity. */
  readonly heartbeatDetectsLoss: boolean
  /**
   * How long after the last acknowledged heartbeat the registry drops a service, as far as the adapter knows before
   * registering. `undefined`: never. A {@link Lease.Lease} may say it more exactly.
   */
  readonly expiresAfter: Duration.Duration | undefined
  /**
   * No call takes longer than this: it fails as `TimedOut` by itself. `undefined`: not promised; the drivers then end a call
   * after 60 seconds.
   */
  readonly deadline?: Duration.Duration | undefined
  /**
   * What closing a scope should do. `"leave"`: the registration stays and goes stale by itself (deleting it would
   * delete more than the registration). `"deregister"`: it is removed.
   */
  readonly onClose: "leave" | "deregister"
  /** From where a browser may call: `"any"` origin, the `"same-origin"`, where `"configured"`, or `"no"` browser at all. */
  readonly browser: "any" | "same-origin" | "configured" | "no"
}

/**
 * The credential as far as drivers need to know it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CredentialInfo {
  /**
   * What is sent now, or the part of it that identifies it; `undefined`: nothing. A one-shot driver keeps a salted
   * fingerprint of it, never the value, to know which credential was refused.
   */
  readonly current: Effect.Effect<Redacted.Redacted | undefined>
  /** Emits after each change of the credential; `undefined`: it never changes. */
  readonly changes: Stream.Stream<void> | undefined
}

/**
 * The port.
 *
 * @category services
 * @since 0.1.0
 */
export class Registry extends Context.Service<Registry, {
  readonly capabilities: Capabilities
  readonly credential: CredentialInfo
  readonly register: (
    instance: ServiceInstance.ServiceInstance
  ) => Effect.Effect<Lease.Lease, Transient | AuthFailed | Refused>
  /** `instance` is for an adapter that has to know what must not come back in an error. */
  readonly heartbeat: (
    lease: Lease.Lease,
    instance?: ServiceInstance.ServiceInstance
  ) => Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused>
  readonly verify: (
    lease: Lease.Lease,
    instance: ServiceInstance.ServiceInstance
  ) => Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused>
  readonly deregister: (
    lease: Lease.Lease,
    instance?: ServiceInstance.ServiceInstance
  ) => Effect.Effect<void, Transient | AuthFailed | Refused>
}>()("effect-lifeline/Registry") {}

/**
 * A credential that never changes, or none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fixedCredential = (credential?: Redacted.Redacted): CredentialInfo => ({
  current: Effect.succeed(credential),
  changes: undefined
})

/**
 * No registry is configured. Drivers send nothing and report `Disabled`; a call fails with `Refused` (`Unsupported`).
 *
 * **Example** (A program without a registry)
 *
 * ```ts
 * import * as Registry from "effect-lifeline/Registry"
 * import * as Effect from "effect/Effect"
 *
 * export const isRegistering = Registry.Registry.useSync((registry) => registry.capabilities.enabled).pipe(
 *   Effect.provide(Registry.layerDisabled)
 * )
 * // => false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const disabled: Registry["Service"] = {
  capabilities: {
    adapter: "disabled",
    enabled: false,
    heartbeatDetectsLoss: true,
    expiresAfter: undefined,
    onClose: "leave",
    browser: "any"
  },
  credential: fixedCredential(),
  register: () => notConfigured("register"),
  heartbeat: () => notConfigured("heartbeat"),
  verify: () => notConfigured("verify"),
  deregister: () => notConfigured("deregister")
}

/**
 * {@link disabled} as a layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDisabled: Layer.Layer<Registry> = Layer.succeed(Registry, disabled)
