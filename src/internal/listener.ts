/**
 * The engine behind `Listener`: who is subscribed, on which connection, and who waits for what.
 *
 * When to dial, how to wait and when to give up is `internal/reconnect`'s, as for every stream. What is here is its transport:
 * {@link make}'s `connect` takes one connection of the caller's, subscribes every key on it anew, and only then lets anybody
 * else send on it. The messages do not pass through that engine: it is told that something came, and how it ended.
 *
 * Three things live shorter and shorter:
 * - A **run**: from the first subscription until nothing more is dialled. It has the subscriptions; what ends it for good
 *   ends them, and all who wait, with it. The next subscription is the first of another run.
 * - A **generation**: one connection. Two fibers, one that reads and one that writes, in its scope. When it ends, whatever
 *   was to be sent on it is answered with "gone", and its sender goes on to the next one.
 * - A **registration**: one subscription. No fiber; a queue only once something came.
 *
 * Everything that has to happen at once (that a run stops and nobody subscribed, that a replay is complete and a connection
 * is open) happens in one piece of synchronous code. Completing a `Deferred` runs those who wait for it at once: it comes last,
 * when everything is as they may find it.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Backoff from "../Backoff.ts"
import * as Classify from "../Classify.ts"
import type { Exhausted, Refused } from "../LifelineError.ts"
import { Closed, Inconclusive, Shutdown, Stop } from "../LifelineError.ts"
import type { Buffer, Connection, Ended, Key, Listener, Options, Subscription } from "../Listener.ts"
import type { Dial, Failure, Frame, Status } from "../Reconnect.ts"
import { exhausted } from "./bounded.ts"
import * as Queue from "./listenerQueue.ts"
import * as Outage from "./outage.ts"
import type { Overflow } from "./outbox.ts"
import * as Engine from "./reconnect.ts"

/** The subscriptions of one key. */
interface Entry<In> {
  readonly registrations: Set<Queue.Registration<In>>
  /** The last generation on which the key may have been subscribed. */
  on: number
}

/** A message on its way, in the order in which they came. */
interface Job<Out> {
  readonly message: Out
  /** Looked at when its turn comes. */
  readonly isWanted: () => boolean
  /** Whether it was sent; not, where the connection was gone before. */
  readonly sent: Deferred.Deferred<boolean, Refused>
}

interface Generation<Out> {
  readonly number: number
  jobs: Array<Job<Out>>
  /** How many of them were begun. */
  begun: number
  /** The writer waits for work. */
  work?: Deferred.Deferred<void> | undefined
  /** Completed by the first message, and by the end. */
  readonly stirred: Deferred.Deferred<void>
  hasSpoken: boolean
  readonly gone: Deferred.Deferred<void>
  ended?: Exit.Exit<unknown, Failure>
}

interface Run<In, Out> {
  entries: Map<Key, Entry<In>>
  /** Sends that are waited for. */
  sends: number
  /** The connection that all keys are on, and the last one that was made. */
  open?: Generation<Out> | undefined
  latest?: Generation<Out>
  isDialling: boolean
  /** How long attempts took that are over. */
  dialled: number
  /** Attempts that failed, and how the last one did. */
  failures: number
  last?: Failure | undefined
  /** Completed, and replaced, when a connection is open, when an attempt failed, and at the end. */
  changed: Deferred.Deferred<void>
  ended?: Exit.Exit<never, Ended>
}

const complete = (deferred: Deferred.Deferred<void>): void => {
  Deferred.doneUnsafe(deferred, Exit.void)
}

const pulse = <In, Out>(run: Run<In, Out>): void => {
  const { changed } = run
  run.changed = Deferred.makeUnsafe()
  complete(changed)
}

const isWanted = <In, Out>(run: Run<In, Out>): boolean => run.entries.size > 0 || run.sends > 0

class Handle<In> implements Subscription<In> {
  private readonly queue: Queue.Registration<In>
  constructor(queue: Queue.Registration<In>) {
    this.queue = queue
  }
  get messages(): Stream.Stream<In, Ended | Queue.Lagged> {
    return Stream.fromPull(Effect.succeed(Queue.take(this.queue)))
  }
  get dropped(): Effect.Effect<number> {
    return Effect.sync(() => this.queue.dropped)
  }
}

const limitsOf = (
  { capacity, overflow }: Buffer = {},
  otherwise: Queue.Limits
): Queue.Limits => ({ capacity: capacity ?? otherwise.capacity, overflow: overflow ?? otherwise.overflow })

/** How long the waits of a policy may take together. Timers are late now and then: that must not cost an attempt. */
const patienceOf = (policy: Backoff.Bounded): number => {
  let sum = 0
  for (let n = 1; n < policy.attempts && sum < policy.elapsed; n++) sum += Outage.window(policy, n)
  return Math.min(sum, policy.elapsed) + 100
}

export const make = <K extends Key, In, Out, R>(
  options: Options<K, In, Out, R>
): Effect.Effect<Listener<K, In, Out>, never, Exclude<R, Scope.Scope> | Scope.Scope> =>
  Effect.gen(function*() {
    type Dependencies = Exclude<R, Scope.Scope>

    const { at = { operation: "listen", target: "listener" }, route, unsubscribe } = options
    const { policy = Backoff.streams, synchronous = Backoff.synchronous } = options
    const patience = patienceOf(synchronous)
    const limits = limitsOf(options.buffer, { capacity: 1024, overflow: "fail" })

    const context = yield* Effect.context<Dependencies>()
    const clock = Context.get(context, Clock.Clock)
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

    /** What runs in the background; closed when the listener is. */
    const own = Scope.makeUnsafe()
    const closed = Exit.fail(new Closed({ operation: `${at.operation} (${at.target})`, reason: new Shutdown() }))
    const idle = new Stop({ ...at, detail: "nothing is subscribed" })
    const status = yield* SubscriptionRef.make<Status>({ _tag: "Closed", cause: idle })
    const wires: Engine.Wires = {
      listeners: new Set(),
      set: (next) =>
        Effect.andThen(
          SubscriptionRef.set(status, next),
          Effect.sync(() => {
            if (next._tag === "Open" && current !== undefined) pulse(current)
          })
        )
    }

    let current: Run<In, Out> | undefined
    /** The engine of the run before, for as long as it takes to close its connection. */
    let fiber: Fiber.Fiber<void> | undefined
    let isClosed = false
    let generations = 0

    // -- runs and generations ---------------------------------------------------------------------------------------

    /** From here on nothing is sent on it; what was to be is answered. */
    const retire = (run: Run<In, Out>, generation: Generation<Out>, how: Exit.Exit<unknown, Failure>): void => {
      generation.ended = how
      if (run.open === generation) run.open = undefined
      for (const job of generation.jobs) Deferred.doneUnsafe(job.sent, Exit.succeed(false))
    }

    const endGeneration = (run: Run<In, Out>, generation: Generation<Out>, how: Exit.Exit<unknown, Failure>): void => {
      if (generation.ended !== undefined) return
      retire(run, generation, how)
      complete(generation.stirred)
      complete(generation.gone)
    }

    /** Answers all who are subscribed or wait. From here on, who comes begins another run. */
    const endRun = (run: Run<In, Out>, how: Exit.Exit<never, Ended>): void => {
      if (run.ended !== undefined) return
      run.ended = how
      if (current === run) current = undefined
      // The engine is not told: who ends a run ends that, too, or is the engine.
      if (run.latest?.ended === undefined && run.latest !== undefined) retire(run, run.latest, Exit.void)
      const { entries } = run
      run.entries = new Map()
      for (const { registrations } of entries.values()) {
        for (const registration of registrations) Queue.end(registration, how)
      }
      pulse(run)
    }

    const noteFailure = (run: Run<In, Out>, how: Exit.Exit<unknown, Failure>): void => {
      run.failures++
      run.last = Exit.isFailure(how) ? Option.getOrUndefined(Cause.findErrorOption(how.cause)) : undefined
      pulse(run)
    }

    // -- reading ----------------------------------------------------------------------------------------------------

    const deliver = (run: Run<In, Out>, message: In): Effect.Effect<void> | undefined => {
      const keys = route(message)
      if (keys === undefined) return undefined
      let full: Array<Queue.Registration<In>> | undefined
      for (const key of typeof keys === "object" ? keys : [keys]) {
        // Not those that come because of it.
        for (const registration of Array.from(run.entries.get(key)?.registrations ?? [])) {
          if (!Queue.offer(registration, message)) (full ??= []).push(registration)
        }
      }
      return full && Effect.forEach(full, (registration) =>
        Queue.insist(registration, message, () => {
          const { key, limits: { capacity } } = registration
          remove(run, registration, Exit.fail(new Queue.Lagged({ key, capacity })))
        }), { discard: true })
    }

    const deliverAll = (run: Run<In, Out>, messages: ReadonlyArray<In>, from: number): Effect.Effect<void> =>
      Effect.suspend(() => {
        for (let n = from; n < messages.length; n++) {
          const held = deliver(run, messages[n] as In)
          if (held !== undefined) return Effect.andThen(held, deliverAll(run, messages, n + 1))
        }
        return Effect.void
      })

    const read = (run: Run<In, Out>, generation: Generation<Out>, connection: Connection<In, Out>) =>
      connection.messages.pipe(
        Stream.runForEachArray((messages) => {
          if (!generation.hasSpoken) {
            generation.hasSpoken = true
            complete(generation.stirred)
          }
          return deliverAll(run, messages, 0)
        }),
        Effect.onExit((exit) => Effect.sync(() => endGeneration(run, generation, exit)))
      )

    // -- writing ----------------------------------------------------------------------------------------------------

    const submit = (generation: Generation<Out>, message: Out, wanted: () => boolean): Job<Out> => {
      const job: Job<Out> = { message, isWanted: wanted, sent: Deferred.makeUnsafe() }
      if (generation.ended !== undefined) Deferred.doneUnsafe(job.sent, Exit.succeed(false))
      else {
        generation.jobs.push(job)
        if (generation.work !== undefined) complete(generation.work)
      }
      return job
    }

    const send = (connection: Connection<In, Out>, message: Out) =>
      Engine.deadline(() => at, options.sendTimeout ?? 10_000)(connection.send(message))

    const unclear = (detail: string): Inconclusive => new Inconclusive({ ...at, detail })

    const toFailure = (error: Failure | Overflow | Closed): Failure =>
      error._tag === "Overflow" || error._tag === "Closed" ? unclear(error.message) : error

    const write = Effect.fnUntraced(
      function*(generation: Generation<Out>, connection: Connection<In, Out>): Effect.fn.Return<never, Failure> {
        for (;;) {
          const job = generation.jobs[generation.begun]
          if (job === undefined) {
            generation.jobs = []
            generation.begun = 0
            yield* Deferred.await(generation.work = Deferred.makeUnsafe<void>())
            generation.work = undefined
            continue
          }
          generation.begun++
          const isSent = job.isWanted() && (yield* send(connection, job.message).pipe(
            Effect.as(true),
            Effect.catch((error) => {
              if (error._tag !== "Overflow") return Effect.fail(toFailure(error))
              Deferred.doneUnsafe(job.sent, Exit.fail(Classify.invalidRequest({ ...at, detail: error.message })))
              return Effect.succeed(false)
            })
          ))
          Deferred.doneUnsafe(job.sent, Exit.succeed(isSent))
          if (generation.begun < 1024) continue
          generation.jobs.splice(0, generation.begun)
          generation.begun = 0
        }
      }
    )

    const replay = Effect.fnUntraced(
      function*(
        run: Run<In, Out>,
        generation: Generation<Out>,
        connection: Connection<In, Out>
      ): Effect.fn.Return<void, Failure> {
        // Also those that come meanwhile: a map is walked to what is its end by then.
        for (const [key, entry] of run.entries) {
          entry.on = generation.number
          for (const registration of entry.registrations) registration.on = generation.number
          yield* Effect.mapError(send(connection, options.subscribe(key as K)), toFailure)
        }
      }
    )

    // -- connecting -------------------------------------------------------------------------------------------------

    /** What a connection ended with, as the engine is to take it. Here a run ends that nobody needs any more. */
    const judge = (run: Run<In, Out>, error: Failure): Failure => {
      if (error._tag === "AuthFailed" || error._tag === "Refused") return error
      if (!isWanted(run)) {
        endRun(run, closed)
        return error._tag === "Stop" ? error : idle
      }
      return error._tag === "Stop" ? unclear(error.message) : error
    }

    const failed = (run: Run<In, Out>, cause: Cause.Cause<Failure>): Effect.Effect<never, Failure> => {
      const found = Cause.findError(cause)
      return Result.isFailure(found) ? Effect.failCause(found.failure) : Effect.fail(judge(run, found.success))
    }

    const ended = (
      run: Run<In, Out>,
      how: Exit.Exit<unknown, Failure> | undefined
    ): Effect.Effect<never, Failure | Cause.Done> => {
      if (how !== undefined && Exit.isFailure(how)) return failed(run, how.cause)
      if (isWanted(run)) return Cause.done()
      endRun(run, closed)
      return Effect.fail(idle)
    }

    /** One frame when the first message came; then the end, when it came. */
    const report = (run: Run<In, Out>, generation: Generation<Out>) => {
      let isTold = false
      const pull: Pull.Pull<NonEmptyReadonlyArray<Frame<undefined>>, Failure> = Effect.suspend(() => {
        if (isTold) {
          return Effect.andThen(
            Deferred.await(generation.gone),
            Effect.suspend(() => ended(run, generation.ended))
          )
        }
        return Effect.flatMap(Deferred.await(generation.stirred), () => {
          isTold = true
          return generation.hasSpoken ? Effect.succeed([{ value: undefined }] as const) : pull
        })
      })
      return Stream.fromPull(Effect.succeed(pull))
    }

    const open = Effect.fnUntraced(function*(run: Run<In, Out>, dial: Dial<never>) {
      const connection = yield* options.connect(dial)
      const scope = yield* Effect.scope
      const generation: Generation<Out> = {
        number: ++generations,
        jobs: [],
        begun: 0,
        stirred: Deferred.makeUnsafe(),
        hasSpoken: false,
        gone: Deferred.makeUnsafe()
      }
      run.latest = generation
      yield* Scope.addFinalizer(scope, Effect.sync(() => endGeneration(run, generation, Exit.void)))
      // Before anything is sent: a server that answers must not have to wait for us to listen.
      yield* Effect.forkIn(read(run, generation, connection), scope, { startImmediately: true })
      yield* Effect.raceFirst(
        replay(run, generation, connection),
        Deferred.await(generation.gone)
      )
      if (generation.ended === undefined) {
        run.open = generation
        yield* Effect.forkIn(
          Effect.onExit(write(generation, connection), (exit) =>
            Effect.sync(() => {
              if (generation.ended === undefined) noteFailure(run, exit)
              endGeneration(run, generation, exit)
            })),
          scope
        )
      }
      return generation
    })

    const connect = (run: Run<In, Out>) => (dial: Dial<never>) =>
      Effect.suspend(() => {
        if (!isWanted(run)) {
          endRun(run, closed)
          return Effect.fail(idle)
        }
        const started = now()
        run.isDialling = true
        return open(run, dial).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              run.dialled += now() - started
              run.isDialling = false
              const how = Exit.isFailure(exit) ? exit : exit.value.ended
              if (how !== undefined) noteFailure(run, how)
            })
          ),
          Effect.matchCauseEffect({
            onFailure: (cause) => failed(run, cause),
            onSuccess: (generation) => Effect.succeed(report(run, generation))
          })
        )
      })

    /** A run's engine. It closes the connection of the one before first. */
    const launch = (run: Run<In, Out>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const before = fiber
        const loop = Stream.runDrain(Engine.make(connect(run), { ...options, at, policy }, wires)).pipe(
          Effect.exit,
          Effect.flatMap((exit) =>
            Effect.sync(() => {
              endRun(run, Exit.isSuccess(exit) ? closed : exit as Exit.Exit<never, Ended>)
            })
          )
        )
        return Effect.map(
          Effect.forkIn(
            Effect.setContext(before === undefined ? loop : Effect.andThen(Fiber.await(before), loop), context),
            own
          ),
          (forked) => {
            fiber = forked
          }
        )
      })

    // -- those who wait ---------------------------------------------------------------------------------------------

    /** Runs what needs a run, and begins one where there is none. What it does at first it does at once. */
    const within = <A>(
      use: (run: Run<In, Out>) => Effect.Effect<A, Ended | Exhausted>
    ): Effect.Effect<A, Ended | Exhausted> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          if (isClosed) return closed
          if (current !== undefined) return restore(use(current))
          const run: Run<In, Out> = current = {
            entries: new Map(),
            sends: 0,
            isDialling: false,
            dialled: 0,
            failures: 0,
            changed: Deferred.makeUnsafe()
          }
          const used = use(run)
          return Effect.andThen(launch(run), restore(used))
        })
      )

    /** Sends a message on whatever connection is open, and waits for one, within bounds. */
    const place = (
      run: Run<In, Out>,
      message: Out,
      registration?: Queue.Registration<In>
    ): Effect.Effect<void, Ended | Exhausted> =>
      Effect.suspend(() => {
        const began = now()
        const { dialled, failures } = run
        let isHere = true
        const step: Effect.Effect<void, Ended | Exhausted> = Effect.suspend(() => {
          if (run.ended !== undefined) return run.ended
          const generation = run.open
          const elapsed = now() - began
          const rest = patience - elapsed + run.dialled - dialled
          const attempts = run.failures - failures
          const isOver = rest <= 0 && generation === undefined && !run.isDialling
          if (attempts >= synchronous.attempts || isOver) {
            return Effect.fail(exhausted(at, attempts, elapsed, run.last))
          }
          if (generation === undefined) {
            const changed = Deferred.await(run.changed)
            return Effect.andThen(rest > 0 ? Effect.raceFirst(changed, Effect.sleep(Math.ceil(rest))) : changed, step)
          }
          if (registration?.on === generation.number) return Effect.void
          const entry = registration && run.entries.get(registration.key)
          if (entry !== undefined) entry.on = generation.number
          return Effect.flatMap(
            Deferred.await(submit(generation, message, () => isHere).sent),
            // Not sent, its connection is gone: on to the next one, at once where there is one.
            (isSent) => isSent ? Effect.void : step
          )
        })
        return Effect.onInterrupt(step, () =>
          Effect.sync(() => {
            isHere = false
          }))
      })

    // -- subscriptions ----------------------------------------------------------------------------------------------

    const add = (run: Run<In, Out>, key: K, buffer: Queue.Limits): Queue.Registration<In> => {
      const registration = Queue.make<In>(key, buffer)
      const entry = run.entries.get(key)
      if (entry === undefined) run.entries.set(key, { registrations: new Set([registration]), on: 0 })
      else entry.registrations.add(registration)
      return registration
    }

    /** Takes back one registration; the last one of a key is told to the server. */
    const remove = (
      run: Run<In, Out>,
      registration: Queue.Registration<In>,
      how: Exit.Exit<never, Ended | Queue.Lagged>
    ): void => {
      const { key } = registration
      const entry = run.entries.get(key)
      if (entry === undefined || !entry.registrations.delete(registration)) return
      Queue.end(registration, how)
      if (entry.registrations.size > 0) return
      run.entries.delete(key)
      const { latest } = run
      if (unsubscribe === undefined || latest === undefined || entry.on !== latest.number) return
      // Subscribed again meanwhile, it must not be unsubscribed after that.
      submit(latest, unsubscribe(key as K), () => !run.entries.has(key))
    }

    const subscribe = (
      key: K,
      buffer: Queue.Limits
    ): Effect.Effect<Queue.Registration<In>, Ended | Exhausted, Scope.Scope> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const message = options.subscribe(key)
          let leave = () => {}
          return restore(within((run) => {
            // First of all: what comes as soon as the message is sent must find it.
            const registration = add(run, key, buffer)
            leave = () => remove(run, registration, closed)
            return Effect.as(place(run, message, registration), registration)
          })).pipe(
            Effect.onError(() => Effect.sync(() => leave())),
            Effect.tap(() => Effect.addFinalizer(() => Effect.sync(leave)))
          )
        })
      )

    const first = (queue: Queue.Registration<In>, filter: (message: In) => boolean): Effect.Effect<In, Ended> =>
      Effect.flatMap(
        // It has no bound that it could miss.
        Queue.take(queue) as Effect.Effect<ReadonlyArray<In>, Ended>,
        (messages) => {
          const found = messages.findIndex(filter)
          return found < 0 ? first(queue, filter) : Effect.succeed(messages[found] as In)
        }
      )

    // -- closing ----------------------------------------------------------------------------------------------------

    const done = Deferred.makeUnsafe<void>()
    const close = Effect.suspend(() => {
      if (isClosed) return Deferred.await(done)
      isClosed = true
      if (current !== undefined) endRun(current, closed)
      return Scope.close(own, Exit.void).pipe(
        Effect.andThen(SubscriptionRef.set<Status>(status, { _tag: "Closed", cause: new Shutdown() })),
        Effect.andThen(Effect.sync(() => complete(done))),
        Effect.uninterruptible
      )
    })
    yield* Effect.addFinalizer(() => close)

    return {
      status,
      subscribe: (key, buffer) =>
        Effect.map(
          subscribe(key, limitsOf(buffer, limits)),
          (queue) => new Handle(queue)
        ),
      await: (key, { fallback, filter = () => true } = {}) =>
        Effect.scoped(Effect.flatMap(subscribe(key, { capacity: Infinity, overflow: "fail" }), (queue) => {
          const found = first(queue, filter)
          return fallback === undefined ? found : Effect.raceFirst(found, fallback(() => queue.received))
        })),
      send: (message) =>
        Effect.suspend(() => {
          let leave = () => {}
          return Effect.ensuring(
            within((run) => {
              run.sends++
              leave = () => run.sends--
              return place(run, message)
            }),
            Effect.sync(() => leave())
          )
        }),
      size: Effect.sync(() => {
        let size = 0
        for (const { registrations } of current?.entries.values() ?? []) size += registrations.size
        return size
      }),
      reconnectNow: Effect.sync(() => {
        for (const listener of wires.listeners) listener("now")
      }),
      replace: (why) =>
        Effect.sync(() => {
          const generation = current?.open
          if (current === undefined || generation === undefined) return
          endGeneration(current, generation, Exit.fail(unclear(why)))
        }),
      close
    }
  })
