/**
 * The long-running driver of the heartbeat machine: one fiber that sleeps until something is due, carries it out, and
 * tells the machine what came of it.
 *
 * At any moment the fiber is either asleep or busy. What comes from outside (a new credential, a program that asks for a
 * beat) is queued; when the fiber is asleep it is replaced by a new one, which takes the queue up at once, and when it is
 * busy it takes the queue up after the step it is in. So there is never more than one call in flight, and no call is cut
 * off except by closing.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Tracer from "effect/Tracer"
import * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Event, Status } from "../Lifeline.ts"
import type { AuthFailed, ClosedReason, Refused } from "../LifelineError.ts"
import { Closed, Exhausted, Replaced } from "../LifelineError.ts"
import type { Registry } from "../Registry.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import * as Telemetry from "../Telemetry.ts"
import * as Drive from "./drive.ts"
import * as Reporting from "./report.ts"
import { statusOf } from "./status.ts"

export interface LoopOptions {
  readonly registry: Registry["Service"]
  readonly instance: ServiceInstance.ServiceInstance
  readonly heartbeat: Heartbeat.Options
}

type Answer = Deferred.Deferred<void, Drive.CallError | Closed>

export interface Loop {
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  readonly events: Stream.Stream<Event>
  readonly lease: () => Lease.Lease | undefined
  readonly closed: () => ClosedReason | undefined
  /** Completed when first registered; fails when that failed for good. */
  readonly started: Deferred.Deferred<void, AuthFailed | Refused | Exhausted>
  /** Starts with a fresh state, also after `stop`. */
  readonly start: Effect.Effect<void>
  readonly poke: (event: Heartbeat.Event) => Effect.Effect<void>
  /** Asks for an action now, and waits until nothing is due at once any more. */
  readonly ask: (action: "Register" | "Heartbeat") => Effect.Effect<void, Drive.CallError | Closed>
  /** Cuts off what is in flight, and answers whoever waits. */
  readonly stop: (reason: ClosedReason) => Effect.Effect<void>
  /** Forgets the lease: it was removed. */
  readonly forget: Effect.Effect<void>
}

/** Longer than any adapter's deadline: what is in flight for less than this cannot outlive the lease unnoticed. */
const longestCall = 60_000

/** So many events a slow reader may be behind before it misses the oldest. */
const eventBuffer = 256

export const make = Effect.fnUntraced(function*(options: LoopOptions): Effect.fn.Return<Loop> {
  const { instance, registry } = options
  const { adapter } = registry.capabilities
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  // The loop outlives whoever pokes it: it keeps the services it was made with, and starts traces of its own.
  const context = Context.omit(Tracer.ParentSpan)(yield* Effect.context<never>())
  const fork = Effect.runForkWith(context)
  const annotations = { package: "effect-lifeline", adapter, service: instance.name, type: instance.type }
  const onlineGauge = Metric.withAttributes(Telemetry.online, { adapter })
  const outageCounter = Metric.withAttributes(Telemetry.outages, { adapter })

  const policyFor = (expiresAfter: Duration.Input | undefined): Heartbeat.Policy =>
    Heartbeat.make({ ...options.heartbeat, expiresAfter: options.heartbeat.expiresAfter ?? expiresAfter })

  let policy = policyFor(registry.capabilities.expiresAfter)
  let state = Heartbeat.initial
  let lease: Lease.Lease | undefined
  let error: Drive.CallError | undefined
  let exhausted: Exhausted | undefined
  let heldUntil: number | undefined
  let closed: ClosedReason | undefined

  let fiber: Fiber.Fiber<void> | undefined
  let asleep = false
  let calling: Drive.Call | undefined
  let queue: Array<Heartbeat.Event> = []
  let answers: Array<Answer> = []
  let hub: PubSub.PubSub<Event> | undefined

  const started = yield* Deferred.make<void, AuthFailed | Refused | Exhausted>()
  const status = yield* SubscriptionRef.make<Status>({
    _tag: "Registering",
    since: clock.currentTimeMillisUnsafe(),
    attempt: 1,
    cause: undefined,
    nextAttemptAt: undefined
  })

  const setStatus = (next: Status): Effect.Effect<void> =>
    Effect.suspend(() => {
      const before = SubscriptionRef.getUnsafe(status)
      const set = SubscriptionRef.set(status, before._tag === next._tag ? { ...next, since: before.since } : next)
      const delta = Number(next._tag === "Online") - Number(before._tag === "Online")
      return delta === 0 ? set : Effect.andThen(set, Metric.modify(onlineGauge, delta))
    })

  const refresh = (now: number): Effect.Effect<void> => {
    const next = statusOf(policy, state, { lease, error, exhausted, heldUntil }, now)
    return next === undefined ? Effect.void : setStatus(next)
  }

  const publish = (events: ReadonlyArray<Event>): Effect.Effect<void> =>
    hub === undefined || events.length === 0 ? Effect.void : PubSub.publishAll(hub, events)

  const log = (line: Reporting.Line): Effect.Effect<void> => Effect.logWithLevel(line.level)(line.message)

  const settle: Effect.Effect<void> = Effect.suspend(() => {
    if (answers.length === 0) return Effect.void
    const waiting = answers
    answers = []
    const exit: Exit.Exit<void, Drive.CallError | Closed> = closed !== undefined
      ? Exit.fail(new Closed({ operation: `the lifeline of ${instance.name}`, reason: closed }))
      : error !== undefined
      ? Exit.fail(error)
      : Exit.void
    return Effect.forEach(waiting, (answer) => Deferred.done(answer, exit), { discard: true })
  })

  const close = (reason: ClosedReason): Effect.Effect<void> =>
    Effect.suspend(() => {
      closed = reason
      const at = clock.currentTimeMillisUnsafe()
      return setStatus({ _tag: "Closed", since: at, reason }).pipe(
        Effect.andThen(publish([{ _tag: "Closed", at, reason }])),
        Effect.andThen(settle)
      )
    })

  const gaveUp = (before: Heartbeat.State, cause: Drive.CallError | undefined, now: number): Exhausted | undefined =>
    state.exhausted && !before.exhausted && cause?._tag === "Transient"
      ? new Exhausted({
        attempts: state.failures,
        elapsed: Duration.millis(before.backoff.failures === 0 ? 0 : now - before.backoff.since),
        last: cause
      })
      : undefined

  /** What whoever waits for the start is told, if this step decided it. */
  const decideStart = (event: Heartbeat.Event, cause: Drive.CallError | undefined): Effect.Effect<unknown> => {
    if (event._tag === "Registered") return Deferred.succeed(started, void 0)
    if (exhausted !== undefined) return Deferred.fail(started, exhausted)
    return event._tag === "Rejected" && (cause?._tag === "AuthFailed" || cause?._tag === "Refused")
      ? Deferred.fail(started, cause)
      : Effect.void
  }

  /** One event into the machine, and all that follows from it outside. */
  const advance = Effect.fnUntraced(function*(event: Heartbeat.Event, cause?: Drive.CallError) {
    const now = clock.currentTimeMillisUnsafe()
    const before = state
    state = Heartbeat.step(policy, before, event, { now, random: random.nextDoubleUnsafe() }).state
    if (cause !== undefined) error = cause
    else if (state.failures === 0 && state.confirmedAt !== undefined && state.mode === "Running") error = undefined
    if (event._tag === "Beaten") heldUntil = Heartbeat.expiresAt(policy, state)
    if (event._tag === "Lost" && heldUntil !== undefined) heldUntil = Math.min(heldUntil, now)
    const report = { event, before, after: state, cause, lease, gaveUp: gaveUp(before, cause, now), now }
    exhausted = state.exhausted ? report.gaveUp ?? exhausted : undefined
    yield* refresh(now)
    if (Reporting.beganOutage(report)) yield* Metric.update(outageCounter, 1)
    yield* publish(Reporting.eventsOf(report))
    for (const line of Reporting.linesOf(report)) yield* log(line)
    yield* decideStart(event, cause)
    if (state.mode === "Stopped" && cause?._tag === "LeaseLost" && cause.reason._tag === "LeaseTaken") {
      yield* close(new Replaced({ by: cause.reason.by }))
    }
  })

  /** When the status has to become `Offline` by itself, where that is still to come. */
  const fenceAfter = (now: number): number | undefined => {
    const { _tag } = SubscriptionRef.getUnsafe(status)
    return (_tag === "Online" || _tag === "Unconfirmed") && heldUntil !== undefined && heldUntil > now &&
        heldUntil < Infinity
      ? heldUntil
      : undefined
  }

  const call = Effect.fnUntraced(function*(action: Drive.Call) {
    const now = clock.currentTimeMillisUnsafe()
    const fence = fenceAfter(now)
    const performed = Drive.perform(registry, action, lease, instance, state.everRegistered)
    calling = action
    const outcome = yield* fence !== undefined && fence - now < longestCall
      ? Effect.raceFirst(
        performed,
        Effect.sleep(fence - now).pipe(Effect.andThen(refresh(fence)), Effect.andThen(Effect.never))
      )
      : performed
    calling = undefined
    lease = outcome.lease
    if (outcome.event._tag === "Registered") {
      policy = policyFor(lease?.expiresAfter ?? registry.capabilities.expiresAfter)
    }
    yield* advance(outcome.event, outcome.error)
  })

  const sleep = (delay: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      asleep = true
      return Effect.map(Effect.sleep(delay), () => {
        asleep = false
      })
    })

  const sleepUntil = Effect.fnUntraced(function*(at: number, now: number) {
    const fence = fenceAfter(now)
    if (fence === undefined || fence >= at) return yield* sleep(at - now)
    yield* sleep(fence - now)
    yield* refresh(Math.max(fence, clock.currentTimeMillisUnsafe()))
    yield* sleep(at - fence)
  })

  const run = Effect.gen(function*() {
    while (true) {
      const event = queue.shift()
      if (event !== undefined) {
        yield* advance(event)
        continue
      }
      const { dueAt, next } = state
      if (next === "Idle" || next === "Stop") {
        yield* settle
        if (queue.length > 0) continue
        fiber = undefined
        return
      }
      const now = clock.currentTimeMillisUnsafe()
      if (dueAt > now) {
        yield* settle
        if (queue.length > 0) continue
        yield* sleepUntil(dueAt, now)
        // Only a clock that went ahead counts: one that was set back does not put off what is due after this sleep.
        if (Heartbeat.isLate(policy, state, clock.currentTimeMillisUnsafe())) {
          yield* advance({ _tag: "Woken" })
          continue
        }
      }
      yield* call(next)
    }
  }).pipe(Effect.annotateLogs(annotations))

  const joins = (event: Heartbeat.Event): boolean =>
    event._tag === "Asked" && calling !== undefined && (event.action === "Heartbeat" || calling === "Register")

  const pokeNow = (event: Heartbeat.Event): void => {
    if (closed !== undefined || joins(event)) return
    queue.push(event)
    if (fiber !== undefined && !asleep) return
    fiber?.interruptUnsafe()
    asleep = false
    fiber = fork(run)
  }

  return {
    status,
    events: Stream.unwrap(Effect.gen(function*() {
      hub ??= yield* PubSub.sliding<Event>(eventBuffer)
      return Stream.fromPubSub(hub)
    })),
    lease: () => lease,
    closed: () => closed,
    started,
    start: Effect.sync(() => {
      closed = undefined
      state = Heartbeat.initial
      pokeNow({ _tag: "Start" })
    }),
    poke: (event) => Effect.sync(() => pokeNow(event)),
    ask: (action) =>
      Effect.suspend(() => {
        if (closed !== undefined) {
          return Effect.fail(new Closed({ operation: `the lifeline of ${instance.name}`, reason: closed }))
        }
        if (state.mode === "Unauthorized" && error !== undefined) return Effect.fail(error)
        const answer: Answer = Deferred.makeUnsafe()
        answers.push(answer)
        pokeNow({ _tag: "Asked", action, within: 0 })
        return Deferred.await(answer)
      }),
    stop: (reason) =>
      Effect.suspend(() => {
        closed = reason
        queue = []
        const running = fiber
        fiber = undefined
        asleep = false
        calling = undefined
        const at = { now: clock.currentTimeMillisUnsafe(), random: 0 }
        const halted = running === undefined ? Effect.void : Fiber.interrupt(running)
        return Effect.andThen(
          halted,
          Effect.suspend(() => {
            state = Heartbeat.step(policy, state, { _tag: "Stop" }, at).state
            return close(reason)
          })
        )
      }),
    forget: Effect.sync(() => {
      lease = undefined
    })
  }
})
