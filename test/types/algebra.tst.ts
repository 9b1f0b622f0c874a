// What each operator discharges: an operator removes from the error type what it handles, and nothing else.
import * as Backoff from "effect-lifeline/Backoff"
import * as BackoffConfig from "effect-lifeline/BackoffConfig"
import * as Directory from "effect-lifeline/Directory"
import type * as Lease from "effect-lifeline/Lease"
import type {
  AuthFailed,
  Exhausted,
  LeaseLost,
  NoProgress,
  Refused,
  Throttled,
  Transient,
  TransientReason
} from "effect-lifeline/LifelineError"
import * as Reconnect from "effect-lifeline/Reconnect"
import type { Registry } from "effect-lifeline/Registry"
import type * as ServiceInstance from "effect-lifeline/ServiceInstance"
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import type * as Schedule from "effect/Schedule"
import type * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"

declare const registry: Registry["Service"]
declare const directory: Directory.Directory["Service"]
declare const instance: ServiceInstance.ServiceInstance
declare const lease: Lease.Lease
declare const unknownBound: Backoff.Policy
declare const options: Backoff.Options
interface Dependency {
  readonly dependency: "dependency"
}

const register = registry.register(instance)

describe("Registry", () => {
  test("register and deregister: try again, never again, or not allowed", () => {
    expect(register).type.toBe<Effect.Effect<Lease.Lease, Transient | AuthFailed | Refused>>()
    expect(registry.deregister(lease)).type.toBe<Effect.Effect<void, Transient | AuthFailed | Refused>>()
  })

  test("heartbeat and verify can also find the lease lost", () => {
    expect(registry.heartbeat(lease)).type.toBe<Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused>>()
    expect(registry.verify(lease, instance)).type.toBe<
      Effect.Effect<void, Transient | LeaseLost | AuthFailed | Refused>
    >()
  })

  test("no method needs anything of its caller", () => {
    expect<Effect.Services<typeof register>>().type.toBe<never>()
  })
})

describe("Directory", () => {
  test("discover: as a call of the registry", () => {
    expect(directory.discover({})).type.toBe<
      Effect.Effect<ReadonlyArray<ServiceInstance.RegisteredService>, Transient | AuthFailed | Refused>
    >()
  })

  test("follow: a connection that ended is made again, so Transient is gone", () => {
    expect(Directory.follow()).type.toBe<
      Stream.Stream<Directory.Change | Reconnect.Gap, AuthFailed | Refused | NoProgress, Directory.Directory>
    >()
    expect(Directory.follow({ policy: Reconnect.bounded(Backoff.synchronous) })).type.toBe<
      Stream.Stream<
        Directory.Change | Reconnect.Gap,
        AuthFailed | Refused | NoProgress | Exhausted,
        Directory.Directory
      >
    >()
  })
})

describe("Backoff.make", () => {
  test("is unbounded without a limit", () => {
    expect(Backoff.make()).type.toBe<Backoff.Unbounded>()
    expect(Backoff.make({ base: "1 second", jitter: "full" })).type.toBe<Backoff.Unbounded>()
    expect(Backoff.make({ attempts: undefined, elapsed: undefined })).type.toBe<Backoff.Unbounded>()
  })

  test("is bounded with one", () => {
    expect(Backoff.make({ attempts: 3 })).type.toBe<Backoff.Bounded>()
    expect(Backoff.make({ elapsed: "1 minute" })).type.toBe<Backoff.Bounded>()
    expect(Backoff.make({ attempts: 3, elapsed: "1 minute" })).type.toBe<Backoff.Bounded>()
  })

  test("may be either where the type of the options does not say", () => {
    expect(Backoff.make(options)).type.toBe<Backoff.Policy>()
  })

  test("the presets say which they are", () => {
    expect(Backoff.streams).type.toBe<Backoff.Unbounded>()
    expect(Backoff.heartbeat("30 seconds")).type.toBe<Backoff.Unbounded>()
    expect(Backoff.pulseHeartbeat).type.toBe<Backoff.Unbounded>()
    expect(Backoff.hatchetStreams).type.toBe<Backoff.Unbounded>()
    expect(Backoff.boreControl).type.toBe<Backoff.Unbounded>()
    expect(Backoff.registration).type.toBe<Backoff.Bounded>()
    expect(Backoff.synchronous).type.toBe<Backoff.Bounded>()
    expect(Backoff.pulseRegistration).type.toBe<Backoff.Bounded>()
    expect(Backoff.hatchetSynchronous).type.toBe<Backoff.Bounded>()
    expect(Backoff.hatchetUnary).type.toBe<Backoff.Bounded>()
    expect(Backoff.hatchetRest).type.toBe<Backoff.Bounded>()
  })
})

describe("Backoff.retry", () => {
  test("a bounded policy puts Exhausted in the place of Transient", () => {
    expect(Backoff.retry(register, Backoff.registration)).type.toBe<
      Effect.Effect<Lease.Lease, Exhausted | AuthFailed | Refused>
    >()
    expect(register.pipe(Backoff.retry(Backoff.registration))).type.toBe<
      Effect.Effect<Lease.Lease, Exhausted | AuthFailed | Refused>
    >()
  })

  test("an unbounded policy leaves nothing in its place", () => {
    expect(Backoff.retry(register, Backoff.streams)).type.toBe<Effect.Effect<Lease.Lease, AuthFailed | Refused>>()
    expect(register.pipe(Backoff.retry(Backoff.streams))).type.toBe<Effect.Effect<Lease.Lease, AuthFailed | Refused>>()
    expect(pipe(register, Backoff.retry(Backoff.make()))).type.toBe<Effect.Effect<Lease.Lease, AuthFailed | Refused>>()
  })

  test("a policy of unknown bound counts as bounded", () => {
    expect(Backoff.retry(register, unknownBound)).type.toBe<
      Effect.Effect<Lease.Lease, Exhausted | AuthFailed | Refused>
    >()
    expect(register.pipe(Backoff.retry(Backoff.make(options)))).type.toBe<
      Effect.Effect<Lease.Lease, Exhausted | AuthFailed | Refused>
    >()
  })

  test("discharges Transient only", () => {
    expect(Backoff.retry(registry.heartbeat(lease), Backoff.streams)).type.toBe<
      Effect.Effect<void, LeaseLost | AuthFailed | Refused>
    >()
    expect(Backoff.retry(Backoff.retry(register, Backoff.registration), Backoff.streams)).type.toBe<
      Effect.Effect<Lease.Lease, Exhausted | AuthFailed | Refused>
    >()
  })

  test("what can fail with nothing else can fail with nothing", () => {
    const call = null as unknown as Effect.Effect<number, Transient>
    expect(Backoff.retry(call, Backoff.streams)).type.toBe<Effect.Effect<number>>()
    expect(Backoff.retry(call, Backoff.registration)).type.toBe<Effect.Effect<number, Exhausted>>()
  })

  test("keeps what the effect needs", () => {
    const call = null as unknown as Effect.Effect<number, Transient | "other", Dependency>
    expect(Backoff.retry(call, Backoff.streams)).type.toBe<Effect.Effect<number, "other", Dependency>>()
    expect(call.pipe(Backoff.retry(unknownBound))).type.toBe<Effect.Effect<number, Exhausted | "other", Dependency>>()
  })
})

describe("Backoff.toSchedule", () => {
  test("takes Transient, gives the number of failures, and needs nothing", () => {
    expect(Backoff.toSchedule(unknownBound)).type.toBe<Schedule.Schedule<number, Transient>>()
  })

  test("does not rewrite the error type: Effect.retry leaves the last Transient in it", () => {
    const call = null as unknown as Effect.Effect<number, Transient>
    expect(Effect.retry(call, Backoff.toSchedule(Backoff.streams))).type.toBe<Effect.Effect<number, Transient>>()
  })
})

describe("reasons", () => {
  test("are a closed set, reached by catchReason", () => {
    expect<Transient["reason"]>().type.toBe<TransientReason>()
    const handled = Effect.catchReason(register, "Transient", "Throttled", (reason) => {
      expect(reason).type.toBe<Throttled>()
      return Effect.succeed(lease)
    })
    expect(handled).type.toBe<Effect.Effect<Lease.Lease, Transient | AuthFailed | Refused>>()
  })

  test("unwrapReason puts the reasons in the place of the error", () => {
    expect(Effect.unwrapReason(register, "Transient")).type.toBe<
      Effect.Effect<Lease.Lease, TransientReason | AuthFailed | Refused>
    >()
  })
})

describe("BackoffConfig.config", () => {
  test("keeps whether a policy is bounded", () => {
    expect(BackoffConfig.config()).type.toBe<Config.Config<Backoff.Unbounded>>()
    expect(BackoffConfig.config(Backoff.streams)).type.toBe<Config.Config<Backoff.Unbounded>>()
    expect(BackoffConfig.config(Backoff.registration)).type.toBe<Config.Config<Backoff.Bounded>>()
    expect(BackoffConfig.config(unknownBound)).type.toBe<Config.Config<Backoff.Policy>>()
  })

  test("what comes as data may be either", () => {
    expect(BackoffConfig.decode({})).type.toBe<Effect.Effect<Backoff.Policy, Refused>>()
    expect<typeof BackoffConfig.Policy.Type>().type.toBe<Backoff.Policy>()
  })
})
