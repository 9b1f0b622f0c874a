/**
 * The long-running driver of the heartbeat machine: one fiber that sleeps until something is due, carries it out, and
 * tells the machine what came of it.
 *
 * At any moment the fiber is either asleep or busy. What comes from outside (a new credential, a program that asks for a
 * beat) is queued; when the fiber is asleep it is replaced by a new one, which takes the queue up at once, and when it is
 * busy it takes the queue up after the step it is in. So there is never more than one call in flight, and no call is cut
 * off except by closing.
 *
 * A loop is a record and the functions on it are the module's: a process may hold many thousand lifelines, most of them
 * asleep, and so a lifeline should hold little more than its state.
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Tracer from "effect/Tracer"
import * as Heartbeat from "../Heartbeat.ts"
import type * as Lease from "../Lease.ts"
import type { Event, Status } from "../Lifeline.ts"
import type { AuthFailed, ClosedReason, Exhausted, Refused } from "../LifelineError.ts"
import { Closed, Replaced, Shutdown } from "../LifelineError.ts"
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

export interface Loop extends LoopOptions {
  readonly clock: Clock.Clock
  readonly random: typeof Random.Random.Service
  /** The loop outlives whoever pokes it: it keeps the services it was made with, and starts traces of its own. */
  readonly context: Context.Context<never>
  status: Status
  /** The status for whoever looks at it: made when somebody does, and kept up from then on. */
  shown?: SubscriptionRef.SubscriptionRef<Status>
  /** Completed when first registered; fails when that failed for good. */
  readonly started: Deferred.Deferred<void, AuthFailed | Refused | Exhausted>

  policy: Heartbeat.Policy
  state: Heartbeat.State
  lease?: Lease.Lease | undefined
  error?: Drive.CallError | undefined
  exhausted?: Exhausted | undefined
  heldUntil?: number | undefined
  closed?: ClosedReason | undefined

  fiber?: Fiber.Fiber<void> | undefined
  asleep: boolean
  calling?: Drive.Call | undefined
  readonly queue: Array<Heartbeat.Event>
  /** What whoever asked waits for. */
  answer?: Deferred.Deferred<void, Drive.CallError | Closed> | undefined
  /** Made when somebody first listens. */
  listeners?: Set<Queue.Enqueue<Event, Cause.Done>>
}

/** So many events a slow reader may be behind before it misses the oldest. */
const eventBuffer = 256

const policyFor = (
  { heartbeat, registry }: LoopOptions,
  expiresAfter: Duration.Input | undefined
): Heartbeat.Policy =>
  Heartbeat.make({
    ...heartbeat,
    expiresAfter: heartbeat.expiresAfter ?? expiresAfter ?? registry.capabilities.expiresAfter
  })

export const make = Effect.fnUntraced(function*(options: LoopOptions): Effect.fn.Return<Loop> {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  return {
    ...options,
    clock,
    random: yield* Random.Random,
    // Lifelines that are made with the same services share them.
    context: Context.getOrUndefined(context, Tracer.ParentSpan) === undefined
      ? context
      : Context.omit(Tracer.ParentSpan)(context),
    status: {
      _tag: "Registering",
      since: clock.currentTimeMillisUnsafe(),
      attempt: 1,
      cause: undefined,
      nextAttemptAt: undefined
    },
    started: Deferred.makeUnsafe(),
    policy: policyFor(options, undefined),
    state: Heartbeat.initial,
    asleep: false,
    queue: []
  }
})

const nowOf = ({ clock }: Loop): number => clock.currentTimeMillisUnsafe()

export const shownStatus = (loop: Loop): SubscriptionRef.SubscriptionRef<Status> =>
  loop.shown ??= Effect.runSync(SubscriptionRef.make(loop.status))

const setStatus = (loop: Loop, next: Status): void => {
  const { context, registry, shown, status: before } = loop
  loop.status = before._tag === next._tag ? { ...next, since: before.since } : next
  if (shown !== undefined) {
    // The loop is the only writer, so it need not take turns with others, as `SubscriptionRef.set` does.
    shown.value = loop.status
    PubSub.publishUnsafe(shown.pubsub, loop.status)
  }
  const delta = Number(next._tag === "Online") - Number(before._tag === "Online")
  if (delta !== 0) {
    Metric.withAttributes(Telemetry.online, { adapter: registry.capabilities.adapter }).modifyUnsafe(delta, context)
  }
}

const refresh = (loop: Loop, now: number): void => {
  const next = statusOf(loop.policy, loop.state, loop, now)
  if (next !== undefined) setStatus(loop, next)
}

/** What happened, for whoever listens. */
const publish = ({ listeners }: Loop, event: Event): void =>
  listeners?.forEach((listener) => Queue.offerUnsafe(listener, event))

const log = ({ context, instance, registry }: Loop, notices: ReadonlyArray<Reporting.Notice>): Effect.Effect<void> => {
  // Looked at here, as most lines are of beats, and of no interest.
  const minimum = Context.get(context, References.MinimumLogLevel)
  const wanted = notices.filter(({ level }) => !LogLevel.isGreaterThan(minimum, level))
  return wanted.length === 0 ?
    Effect.void :
    Effect.forEach(wanted, ({ level, message }) =>
      Effect.annotateLogs(Effect.logWithLevel(level)(message()), {
        package: "effect-lifeline",
        adapter: registry.capabilities.adapter,
        service: instance.name,
        type: instance.type
      }), { discard: true })
}

export const closedError = ({ closed, instance }: Loop): Closed =>
  new Closed({ operation: `the lifeline of ${instance.name}`, reason: closed ?? new Shutdown() })

/** Answers whoever asked. */
const settle = (loop: Loop): void => {
  const { answer, closed, error } = loop
  if (answer === undefined) return
  loop.answer = undefined
  const failure = closed === undefined ? error : closedError(loop)
  Deferred.doneUnsafe(answer, failure === undefined ? Exit.void : Exit.fail(failure))
}

/** Closed for good: only who deregistered may register again. */
const isFinal = (reason: ClosedReason | undefined): boolean => reason !== undefined && reason._tag !== "Detached"

const close = (loop: Loop, reason: ClosedReason): void => {
  loop.closed = reason
  const at = nowOf(loop)
  setStatus(loop, { _tag: "Closed", since: at, reason })
  publish(loop, { _tag: "Closed", at, reason })
  if (isFinal(reason)) loop.listeners?.forEach((listener) => Queue.endUnsafe(listener))
  settle(loop)
}

/** One event into the machine, and all that follows from it outside: what waits for it goes on once it is logged. */
const advance = (loop: Loop, event: Heartbeat.Event, cause?: Drive.CallError): Effect.Effect<void> => {
  const { context, policy, registry, started, state: before } = loop
  const now = nowOf(loop)
  const { state } = Heartbeat.step(policy, before, event, { now, random: loop.random.nextDoubleUnsafe() })
  const report = { event, before, after: state, cause, lease: loop.lease, now }
  loop.state = state
  loop.error = cause ?? (state.failures > 0 ? loop.error : undefined)
  loop.exhausted = Reporting.gaveUp(report) ?? loop.exhausted
  if (event._tag === "Beaten") loop.heldUntil = Heartbeat.expiresAt(policy, state)
  if (event._tag === "Lost" && loop.heldUntil !== undefined) loop.heldUntil = Math.min(loop.heldUntil, now)
  refresh(loop, now)
  if (Reporting.beganOutage(report)) {
    Metric.withAttributes(Telemetry.outages, { adapter: registry.capabilities.adapter }).updateUnsafe(1, context)
  }
  const notices = Reporting.noticesOf(report)
  for (const notice of notices) publish(loop, notice.event)
  if (event._tag === "Registered") Deferred.doneUnsafe(started, Exit.void)
  const { status } = loop
  if (status._tag === "Halted" || status._tag === "Standalone") Deferred.doneUnsafe(started, Exit.fail(status.cause))
  if (state.mode === "Stopped" && cause?._tag === "LeaseLost" && cause.reason._tag === "LeaseTaken") {
    close(loop, new Replaced({ by: cause.reason.by }))
  }
  return log(loop, notices)
}

/** In how many milliseconds the lease runs out, where that is before so many have passed; else 0. */
const leftOf = (loop: Loop, longest: number): number => {
  const left = (loop.heldUntil ?? 0) - nowOf(loop)
  return left > 0 && left < longest ? left : 0
}

/** The lease has run out, whatever a clock that was set back or a timer that fired early may say. */
const expire = (loop: Loop): void => refresh(loop, Math.max(loop.heldUntil ?? 0, nowOf(loop)))

/**
 * Waits for what takes at most so many milliseconds, and lets the status become `Offline` by itself when the lease runs
 * out meanwhile.
 */
const fenced = <A>(loop: Loop, wait: Effect.Effect<A>, longest: number): Effect.Effect<A> => {
  const left = leftOf(loop, longest)
  return left === 0 ? wait : Effect.raceFirst(
    wait,
    Effect.flatMap(Effect.sleep(left), () => {
      expire(loop)
      return Effect.never
    })
  )
}

const call = (loop: Loop, action: Drive.Call): Effect.Effect<void> => {
  const { heldUntil = Infinity, instance, lease, registry, state } = loop
  const { deadline = Infinity } = registry.capabilities
  const now = nowOf(loop)
  if (heldUntil <= now) refresh(loop, now)
  loop.calling = action
  const performed = Drive.perform(registry, action, lease, instance, state.everRegistered)
  return Effect.flatMap(fenced(loop, performed, Duration.toMillis(deadline)), (outcome) => {
    loop.calling = undefined
    loop.lease = outcome.lease
    if (loop.closed !== undefined) return Effect.void
    if (outcome.event._tag === "Registered") loop.policy = policyFor(loop, outcome.lease?.expiresAfter)
    return advance(loop, outcome.event, outcome.error)
  })
}

const run = Effect.fnUntraced(function*(loop: Loop) {
  const { queue } = loop
  while (true) {
    const event = queue.shift()
    if (event !== undefined) {
      yield* advance(loop, event)
      continue
    }
    const { dueAt, next } = loop.state
    const wait = dueAt - nowOf(loop)
    if (wait > 0) {
      settle(loop)
      if (queue.length > 0) continue
    }
    if (!Drive.isCall(next)) {
      loop.fiber = undefined
      return
    }
    if (wait > 0) {
      loop.asleep = true
      // As fenced, without a fiber more: an idle lifeline is one timer.
      const left = leftOf(loop, wait)
      if (left > 0) {
        yield* Effect.sleep(left)
        expire(loop)
      }
      yield* Effect.sleep(wait - left)
      loop.asleep = false
      // Only a clock that went ahead counts: one that was set back does not put off what is due after this sleep.
      if (Heartbeat.isLate(loop.policy, loop.state, nowOf(loop))) {
        yield* advance(loop, { _tag: "Woken" })
        continue
      }
    }
    yield* call(loop, next)
    if (loop.closed !== undefined) return
  }
})

const joins = ({ calling }: Loop, event: Heartbeat.Event): boolean =>
  event._tag === "Asked" && event.within === 0 && calling !== undefined &&
  (event.action === "Heartbeat" || calling === "Register")

/** Tells the loop what happened outside. */
export const poke = (loop: Loop, event: Heartbeat.Event): Effect.Effect<void> =>
  Effect.sync(() => {
    if (loop.closed !== undefined || joins(loop, event)) return
    loop.queue.push(event)
    if (loop.fiber !== undefined && !loop.asleep) return
    loop.fiber?.interruptUnsafe()
    loop.asleep = false
    loop.fiber = Effect.runForkWith(loop.context)(run(loop))
  })

/** Starts afresh, also after `stop`. */
export const start = (loop: Loop): Effect.Effect<void> =>
  Effect.suspend(() => {
    loop.closed = undefined
    return poke(loop, { _tag: "Start" })
  })

/** Asks for an action now, and waits until nothing is due at once any more. */
export const ask = (loop: Loop, action: "Register" | "Heartbeat"): Effect.Effect<void, Drive.CallError | Closed> =>
  Effect.suspend(() => {
    const { closed, error, state } = loop
    if (closed !== undefined) return Effect.fail(closedError(loop))
    if (state.mode === "Unauthorized" && error !== undefined) return Effect.fail(error)
    const answer = loop.answer ??= Deferred.makeUnsafe()
    return Effect.andThen(poke(loop, { _tag: "Asked", action, within: 0 }), Deferred.await(answer))
  })

/**
 * Cuts off what is in flight, and answers whoever waits. A registration in flight may have happened already: it gets
 * `patience`, so that its lease is known to whoever removes it.
 */
export const stop = Effect.fnUntraced(function*(loop: Loop, reason: ClosedReason, patience?: Duration.Input) {
  const { calling, fiber } = loop
  loop.closed = reason
  loop.queue.length = 0
  loop.fiber = undefined
  loop.asleep = false
  loop.calling = undefined
  if (fiber !== undefined && calling === "Register" && patience !== undefined) {
    yield* Effect.timeoutOption(Effect.interruptible(Fiber.await(fiber)), patience)
  }
  if (fiber !== undefined) yield* Fiber.interrupt(fiber)
  close(loop, reason)
})

/** What happens from now on, until it is closed for good. */
export const events = (loop: Loop): Stream.Stream<Event> =>
  Stream.callback<Event>((listener) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        if (isFinal(loop.closed)) Queue.endUnsafe(listener)
        return (loop.listeners ??= new Set()).add(listener)
      }),
      (listeners) => Effect.sync(() => listeners.delete(listener))
    ), { bufferSize: eventBuffer, strategy: "sliding" })
