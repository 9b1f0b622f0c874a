/**
 * A registry whose answers are scripted, for tests in virtual time: it records every call with its time, answers each
 * from a queue, and falls back to a default when the queue is empty.
 */
import type * as Lease from "effect-lifeline/Lease"
import * as Errors from "effect-lifeline/LifelineError"
import * as Registry from "effect-lifeline/Registry"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"

export type CallName = "register" | "heartbeat" | "verify" | "deregister"

export type CallError = Errors.Transient | Errors.LeaseLost | Errors.AuthFailed | Errors.Refused

/** How one call goes: fine, with an error, after a time, never, or when a deferred is completed. */
export type Answer =
  | "ok"
  | CallError
  | { readonly after: Duration.Input; readonly then: "ok" | CallError }
  | { readonly when: Deferred.Deferred<void>; readonly then: "ok" | CallError }
  | "hang"
  | { readonly defect: unknown }
  | { readonly pick: () => Answer }

export interface Call {
  readonly name: CallName
  readonly at: number
}

export interface Scripted {
  readonly layer: Layer.Layer<Registry.Registry>
  readonly calls: Array<Call>
  readonly instances: Array<ServiceInstance.ServiceInstance>
  /** Calls of one name, as times in seconds since the first test instant. */
  readonly times: (name: CallName) => ReadonlyArray<number>
  /** Appends answers for the next calls of that name. */
  readonly script: (name: CallName, ...answers: ReadonlyArray<Answer>) => void
  /** The answer when nothing is scripted. */
  readonly otherwise: (name: CallName, answer: Answer) => void
  readonly inFlight: () => number
  readonly mostInFlight: () => number
}

/** A description that is right. */
export const haul = { name: "haul", type: "download-client", apiUrl: "http://haul:8484" }

const at = (operation: string): Errors.Attempted => ({ operation, target: `POST http://registry.test/${operation}` })

export const unavailable = (operation: string, retryAfter?: Duration.Input): Errors.Transient =>
  new Errors.Transient({
    ...at(operation),
    reason: new Errors.Unavailable({
      status: 503,
      retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter)
    })
  })
export const unauthorized = (operation: string): Errors.AuthFailed =>
  new Errors.AuthFailed({ ...at(operation), reason: new Errors.Unauthorized({}) })
export const unknownLease = (operation: string): Errors.LeaseLost =>
  new Errors.LeaseLost({ ...at(operation), reason: new Errors.UnknownLease() })
export const leaseTaken = (operation: string, by: string): Errors.LeaseLost =>
  new Errors.LeaseLost({ ...at(operation), reason: new Errors.LeaseTaken({ by }) })
export const malformed = (operation: string): Errors.Refused =>
  new Errors.Refused({ ...at(operation), reason: new Errors.MalformedResponse({ detail: "text/html" }) })
export const redirected = (operation: string): Errors.Refused =>
  new Errors.Refused({ ...at(operation), reason: new Errors.Unsupported({ detail: "a redirect to http://portal" }) })
export const noSuchRoute = (operation: string): Errors.Refused =>
  new Errors.Refused({ ...at(operation), reason: new Errors.NotFound({}) })
export const invalid = (operation: string): Errors.Refused =>
  new Errors.Refused({
    ...at(operation),
    reason: new Errors.InvalidRequest({ issues: [{ path: "body.name", message: "too long" }] })
  })

/** One error for each reason of a definitive no. */
export const definitive = (
  operation: string,
  detail = "said the server"
): ReadonlyArray<Errors.AuthFailed | Errors.Refused> => [
  ...[
    new Errors.Unauthorized({ detail }),
    new Errors.Forbidden({ detail }),
    new Errors.ProofRejected({ detail }),
    new Errors.CredentialExpired(),
    new Errors.CredentialMissing()
  ].map((reason) => new Errors.AuthFailed({ ...at(operation), reason })),
  ...[
    new Errors.InvalidRequest({ issues: [{ path: "", message: detail }] }),
    new Errors.NotFound({ detail }),
    new Errors.Conflict({ detail }),
    new Errors.Unsupported({ detail }),
    new Errors.MalformedResponse({ detail })
  ].map((reason) => new Errors.Refused({ ...at(operation), reason }))
]

export const make = (options: {
  readonly capabilities?: Partial<Registry.Capabilities> | undefined
  readonly expiresAfter?: Duration.Input | undefined
  readonly credentialChanges?: Stream.Stream<void> | undefined
} = {}): Scripted => {
  const calls: Array<Call> = []
  const instances: Array<ServiceInstance.ServiceInstance> = []
  const queues: { [name in CallName]: Array<Answer> } = { register: [], heartbeat: [], verify: [], deregister: [] }
  const defaults: { [name in CallName]: Answer } = { register: "ok", heartbeat: "ok", verify: "ok", deregister: "ok" }
  let inFlight = 0
  let mostInFlight = 0
  let registrations = 0

  const end = (then: "ok" | CallError): Effect.Effect<void, CallError> =>
    then === "ok" ? Effect.void : Effect.fail(then)

  const go = (answer: Answer): Effect.Effect<void, CallError> => {
    if (answer === "ok") return Effect.void
    if (answer === "hang") return Effect.never
    if ("defect" in answer) return Effect.die(answer.defect)
    if ("pick" in answer) return Effect.suspend(() => go(answer.pick()))
    if ("after" in answer) return Effect.andThen(Effect.sleep(answer.after), end(answer.then))
    if ("when" in answer) return Effect.andThen(Deferred.await(answer.when), end(answer.then))
    return end(answer)
  }

  const call = (name: CallName): Effect.Effect<void, CallError> =>
    Effect.gen(function*() {
      calls.push({ name, at: yield* Clock.currentTimeMillis })
      inFlight++
      mostInFlight = Math.max(mostInFlight, inFlight)
      yield* Effect.ensuring(go(queues[name].shift() ?? defaults[name]), Effect.sync(() => inFlight--))
    })

  const narrowed = <E extends CallError["_tag"]>(
    effect: Effect.Effect<void, CallError>,
    ...tags: ReadonlyArray<E>
  ): Effect.Effect<void, Extract<CallError, { readonly _tag: E }>> =>
    Effect.catch(effect, (error) =>
      tags.some((tag) => tag === error._tag)
        ? Effect.fail(error as Extract<CallError, { readonly _tag: E }>)
        : Effect.die(new Error(`a scripted ${error._tag} does not fit this call`)))

  const registry: Registry.Registry["Service"] = {
    capabilities: {
      adapter: "scripted",
      enabled: true,
      heartbeatDetectsLoss: true,
      expiresAfter: options.expiresAfter === undefined ? undefined : Duration.fromInputUnsafe(options.expiresAfter),
      onClose: "leave",
      browser: "any",
      ...options.capabilities
    },
    credential: { ...Registry.fixedCredential(), changes: options.credentialChanges },
    register: (instance) =>
      Effect.gen(function*() {
        instances.push(instance)
        yield* narrowed(call("register"), "Transient", "AuthFailed", "Refused")
        const lease: Lease.Lease = {
          id: `lease-${++registrations}`,
          name: instance.name,
          type: instance.type,
          registeredAt: yield* Clock.currentTimeMillis
        }
        return lease
      }),
    heartbeat: () => call("heartbeat"),
    verify: () => call("verify"),
    deregister: () => narrowed(call("deregister"), "Transient", "AuthFailed", "Refused")
  }

  return {
    layer: Layer.succeed(Registry.Registry, registry),
    calls,
    instances,
    times: (name) => calls.filter((one) => one.name === name).map((one) => one.at / 1000),
    script: (name, ...answers) => {
      queues[name].push(...answers)
    },
    otherwise: (name, answer) => {
      defaults[name] = answer
    },
    inFlight: () => inFlight,
    mostInFlight: () => mostInFlight
  }
}
