/**
 * `Discovery` from memory: a picture of the registry, kept right by its events, and watched by as many as like, over one
 * connection.
 *
 * - **Answers** come from memory, as soon as the registry was read once; no call waits for the registry after that.
 * - **Fresh or stale.** The picture is fresh while the connection is open and everything was read since it opened. While it is not,
 *   calls are answered all the same, and `status` and each {@link Snapshot} say that it is stale, since when and why.
 * - **Reads.** Everything is read in full at the start, after each connection that was made, and after each gap. A change that does
 *   not say everything (a registration without its service, an unknown event of a known service, a status of an unknown one)
 *   leads to a read of that service. What is told while a read is under way is not lost, nor does the older overwrite the
 *   newer: where the two differ the service is read once more. A read that fails is tried again by the policy.
 * - **The pace**: one read at a time, at most 3 at once and then one each second, whatever the registry tells.
 * - **Polling**, where the directory cannot watch, or refuses to, or its connections carry nothing: a full read every
 *   `pollInterval`, at a moment of each program's own.
 * - **The end**: a credential that is refused (`AuthFailed`), and a read that is refused for good (`Refused`), halt it. Nothing more is
 *   sent, and every call and every watcher fails with it, until the credential changes or `refresh` is called.
 *
 * Connecting again, with its waits, and where to resume, is `Reconnect`'s.
 *
 * **Example** (Greets every download client that comes)
 *
 * ```ts
 * import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
 * import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
 * import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
 * import * as Effect from "effect/Effect"
 * import * as FetchHttpClient from "effect/http/FetchHttpClient"
 * import * as Layer from "effect/Layer"
 * import * as Stream from "effect/Stream"
 *
 * export const program = Effect.gen(function*() {
 *   const discovery = yield* DiscoveryCache.DiscoveryCache
 *   yield* Stream.runForEach(discovery.watch({ type: "download-client" }), ({ changes, freshness }) =>
 *     Effect.forEach(changes, (change) => Effect.log(change._tag, change.service.name, freshness._tag)))
 * }).pipe(
 *   Effect.provide(DiscoveryCache.layer().pipe(
 *     Layer.provide(PulseDirectory.layer({ url: "http://pulse:9696", events: PulseEvents.sse() })),
 *     Layer.provide(FetchHttpClient.layer)
 *   ))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Backoff from "./Backoff.ts"
import * as Classify from "./Classify.ts"
import * as Directory from "./Directory.ts"
import * as Discovery from "./Discovery.ts"
import { notConfigured } from "./internal/notConfigured.ts"
import * as Picture from "./internal/picture.ts"
import type { AuthFailed, Inconclusive, NoProgress, Refused, Transient } from "./LifelineError.ts"
import { retryAfter, Shutdown } from "./LifelineError.ts"
import * as Reconnect from "./Reconnect.ts"
import type * as ServiceInstance from "./ServiceInstance.ts"

/**
 * How the picture is kept. Everything has a default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** How often everything is read where changes do not come by themselves. @default 30 seconds */
  readonly pollInterval?: Duration.Input | undefined
  /** The waits between two connections, and between two attempts to read. @default `Backoff.streams` */
  readonly policy?: Backoff.Unbounded | undefined
}

/**
 * Whether what is answered is what the registry says. Times are milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export type Freshness =
  | { readonly _tag: "Fresh"; readonly since: number }
  | {
    readonly _tag: "Stale"
    readonly since: number
    /** What is in the way; `undefined`: nothing failed, e.g. the first read is under way, or a connection ended by itself. */
    readonly cause: Transient | Inconclusive | AuthFailed | Refused | undefined
  }

/**
 * How the picture is kept at the moment: by a connection, which stands where `Reconnect` says, by asking again and again, or not at
 * all.
 *
 * @category models
 * @since 0.1.0
 */
export type Updates =
  | Reconnect.Status
  | {
    readonly _tag: "Polling"
    /** When the next read is due, milliseconds since 1970; `undefined`: now. */
    readonly next: number | undefined
    /** Why there is no connection; `undefined`: the directory cannot watch, or the server ended it for good. */
    readonly cause: Refused | NoProgress | undefined
  }
  | { readonly _tag: "Halted"; readonly cause: AuthFailed | Refused }
  | { readonly _tag: "Disabled" }

/**
 * Where a cache stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  readonly freshness: Freshness
  readonly updates: Updates
  /** When everything was last read, milliseconds since 1970; `undefined`: never so far. */
  readonly readAt: number | undefined
}

/**
 * What became of a service, for a watcher. A heartbeat alone is no change.
 *
 * @category models
 * @since 0.1.0
 */
export type ServiceChange =
  | { readonly _tag: "Came"; readonly service: ServiceInstance.RegisteredService }
  | {
    readonly _tag: "Changed"
    readonly service: ServiceInstance.RegisteredService
    readonly before: ServiceInstance.RegisteredService
  }
  | { readonly _tag: "Went"; readonly service: ServiceInstance.RegisteredService }

/**
 * The services that match, at one moment.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  /** By type, then by name. */
  readonly services: ReadonlyArray<ServiceInstance.RegisteredService>
  /** What is different from the snapshot that this watcher got before; in the first one they all came. */
  readonly changes: ReadonlyArray<ServiceChange>
  readonly freshness: Freshness
}

/**
 * `Discovery`, and what only a cache can do.
 *
 * @category models
 * @since 0.1.0
 */
export interface Service extends Readonly<Discovery.Discovery["Service"]> {
  readonly status: SubscriptionRef.SubscriptionRef<Status>
  /** The services that match, with whether that is fresh. Fails as every call does. `changes` says that they all came. */
  readonly snapshot: (query?: Directory.Query) => Effect.Effect<Snapshot, Transient | AuthFailed | Refused>
  /**
   * First what is registered now, as soon as that is known, then again after each change of it and of its freshness. Who is slow
   * gets the latest: nothing is queued, and nobody else waits. Ends with the cache, fails when that is halted.
   */
  readonly watch: (query?: Directory.Query) => Stream.Stream<Snapshot, AuthFailed | Refused>
  /** Reads everything anew, skips the rest of every wait, and starts again what was halted. Does not wait for it. */
  readonly refresh: Effect.Effect<void>
}

/**
 * The service.
 *
 * @category services
 * @since 0.1.0
 */
export class DiscoveryCache extends Context.Service<DiscoveryCache, Service>()("effect-lifeline/DiscoveryCache") {}

/** The pace of reads, as a leaky bucket. */
const burst = 3
const spacing = 1000

/** The deadline of a read, should the adapter have none. */
const readWithin = Duration.seconds(60)

/** How long the first read waits for the connection, so that it need not be done again. */
const patience = 1000
const milestone = 5

type RegisteredService = ServiceInstance.RegisteredService

/**
 * Makes the cache, and keeps its picture as long as the scope is open. Waits for nothing: the first calls do, for the outcome of
 * the first read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: (options?: Options) => Effect.Effect<Service, never, Directory.Directory | Scope.Scope> = Effect
  .fnUntraced(function*(options: Options = {}) {
    const { capabilities, changes, credentialChanges, discover } = yield* Directory.Directory
    const clock = yield* Clock.Clock
    const random = yield* Random.Random
    const policy = options.policy ?? Backoff.streams
    const pollInterval = Math.max(
      1000,
      Duration.toMillis(Duration.fromInputUnsafe(options.pollInterval ?? "30 seconds"))
    )
    const at = { operation: "discover", target: capabilities.target ?? capabilities.adapter }

    /** Milliseconds of a clock that nobody sets: for differences. What is shown to people is wall time. */
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    const wall = () => clock.currentTimeMillisUnsafe()

    let picture = new Map<string, RegisteredService>()
    /** How often the picture, or whether it is fresh, changed; what watchers go by. */
    let version = 0
    let listed: ReadonlyArray<RegisteredService> | undefined
    const watchers = new Set<() => void>()

    /** How many full reads were asked for, and how many of these the last full read came after. */
    let wanted = 1
    let done = 0
    /** The first of them without which something may be missing. */
    let needed = 1
    const questions = new Map<string, Directory.Query | undefined>()
    /** Of which services something was told since the read that is under way began. */
    let touched: Set<string> | undefined

    let readAt: number | undefined
    let failure: Transient | Refused | undefined
    let halted: AuthFailed | Refused | undefined
    let closed = false

    let polling = capabilities.watch === "none" || capabilities.watch === "poll"
    /** Whether the connection is open; and whether the first attempt at one has come to anything. */
    let open = false
    let settled = false
    let lostBy: Transient | Inconclusive | undefined
    let updates: Updates = !capabilities.enabled
      ? { _tag: "Disabled" }
      : polling
      ? { _tag: "Polling", next: undefined, cause: undefined }
      : { _tag: "Connecting", attempt: 1 }

    let freshness: Freshness = { _tag: "Stale", since: wall(), cause: undefined }
    let shown: Status = { freshness, updates, readAt }
    const status = yield* SubscriptionRef.make(shown)

    const log = (level: "Info" | "Warn" | "Error", message: string): Effect.Effect<void> =>
      Effect.annotateLogs(Effect.logWithLevel(level)(message), {
        package: "effect-lifeline",
        adapter: capabilities.adapter,
        ...at
      })

    // -- telling ----------------------------------------------------------------------------------------------------

    /** How often something was told: whoever waits for more says up to where it looked. */
    let told = 0

    const wake = (): void => {
      told++
      const all = [...watchers]
      watchers.clear()
      for (const resume of all) resume()
    }

    const changed = (): void => {
      version++
      listed = undefined
    }

    /** Tells whoever wants to know what is different now. */
    const publish: Effect.Effect<void> = Effect.suspend(() => {
      // What could not be read is not in question any more.
      if (failure !== undefined && touched === undefined && wanted === done && questions.size === 0) {
        failure = undefined
        state = Backoff.initial
        notBefore = 0
      }
      const isFresh = halted === undefined && readAt !== undefined && failure === undefined && done >= needed &&
        !closed &&
        (polling || open)
      const cause = halted ?? failure ?? (polling || open ? undefined : lostBy)
      if (isFresh !== (freshness._tag === "Fresh")) {
        freshness = isFresh ? { _tag: "Fresh", since: wall() } : { _tag: "Stale", since: wall(), cause }
        version++
      } else if (freshness._tag === "Stale" && freshness.cause !== cause) freshness = { ...freshness, cause }
      const isKnown = shown.freshness === freshness && shown.updates === updates && shown.readAt === readAt
      if (isKnown) return Effect.sync(wake)
      shown = { freshness, updates, readAt }
      return Effect.andThen(SubscriptionRef.set(status, shown), Effect.sync(wake))
    })

    const nextAfter = (seen: number): Effect.Effect<void> =>
      Effect.callback((resume) => {
        const watcher = () => resume(Effect.void)
        if (told === seen) watchers.add(watcher)
        else watcher()
        return Effect.sync(() => void watchers.delete(watcher))
      })

    // -- the connection ---------------------------------------------------------------------------------------------

    let reader: Deferred.Deferred<void> | undefined
    /** When the next read may be, by the backoff, and, where we poll, when it is due; skipped when we are told to. */
    let notBefore = 0
    let pollAt = 0
    let patientUntil = now() + patience

    const nudge = (): void => {
      if (reader !== undefined) Deferred.doneUnsafe(reader, Effect.void)
    }

    const handle = yield* Reconnect.makeHandle
    const wires = handle["~effect-lifeline/Reconnect"]

    /** Runs where the connection changes, before anything that comes on it. */
    const onStatus = (next: Reconnect.Status): Effect.Effect<void> =>
      Effect.suspend(() => {
        updates = next
        if (next._tag === "Open") {
          needed = ++wanted
          notBefore = 0
        }
        open = next._tag === "Open"
        settled ||= next._tag !== "Connecting"
        if (next._tag === "Waiting") lostBy = next.cause
        nudge()
        return publish
      })

    const hear = (change: Directory.Change | Reconnect.Gap): void => {
      if (change._tag === "Gap") {
        needed = ++wanted
        return
      }
      const before = change.id === undefined ? undefined : picture.get(change.id)
      const question = Picture.tell(picture, change)
      if (question !== undefined) questions.set(question.id, question.query)
      if (question !== undefined || change.id === undefined) return
      if (change._tag === "Deregistered") questions.delete(change.id)
      touched?.add(change.id)
      if (!Picture.isSame(before, picture.get(change.id))) changed()
    }

    const toPolling = (cause: Refused | NoProgress | undefined): Effect.Effect<void> =>
      Effect.suspend(() => {
        open = false
        polling = true
        updates = { _tag: "Polling", next: undefined, cause }
        needed = ++wanted
        nudge()
        return Effect.andThen(
          publish,
          log(
            "Warn",
            `changes do not come by themselves: asking again every ${Duration.format(Duration.millis(pollInterval))}${
              cause === undefined ? "" : `, because ${cause.message}`
            }`
          )
        )
      })

    const listen: Effect.Effect<never, AuthFailed> = Effect.suspend(() =>
      polling ? Effect.never : Reconnect.stream(changes, {
        policy,
        at: { ...at, operation: "changes" },
        handle: {
          ...handle,
          "~effect-lifeline/Reconnect": {
            ...wires,
            set: (next) => Effect.andThen(wires.set(next), onStatus(next))
          }
        }
      }).pipe(
        Stream.runForEachArray((all) =>
          Effect.suspend(() => {
            for (const change of all) hear(change)
            nudge()
            return publish
          })
        ),
        Effect.andThen(toPolling(undefined)),
        Effect.catchTag(["Refused", "NoProgress"], toPolling),
        Effect.catchDefect((defect) =>
          Effect.andThen(
            log("Error", `following changes went wrong: ${Cause.pretty(Cause.die(defect))}`),
            toPolling(undefined)
          )
        ),
        Effect.andThen(Effect.never)
      )
    )

    // -- reading ----------------------------------------------------------------------------------------------------

    let state = Backoff.initial
    let nextSlot = -Infinity

    const oneQuestion = (): Directory.Query | undefined => {
      const [query, ...others] = questions.values()
      return wanted === done && others.length === 0 ? query : undefined
    }

    const failed = (error: Transient | Refused): Effect.Effect<void> =>
      Effect.suspend(() => {
        failure = error
        const asked = error._tag === "Transient" ? retryAfter(error) : undefined
        const stepped = Backoff.step(policy, state, {
          now: now(),
          random: random.nextDoubleUnsafe(),
          hint: asked === undefined ? undefined : Duration.toMillis(asked)
        })
        state = stepped ?? state
        notBefore = now() + state.wait
        if (updates._tag === "Polling") updates = { ...updates, next: wall() + Math.ceil(state.wait) }
        return Effect.andThen(
          publish,
          state.failures === 1 || state.failures % milestone === 0
            ? log(
              "Warn",
              `${error.message}; failure ${state.failures} in a row, next attempt in ${
                Duration.format(Duration.millis(Math.round(state.wait)))
              }`
            )
            : Effect.void
        )
      })

    const succeeded = (
      found: ReadonlyArray<RegisteredService>,
      query: Directory.Query | undefined,
      asked: ReadonlyMap<string, Directory.Query | undefined>,
      goal: number
    ): Effect.Effect<void> =>
      Effect.suspend(() => {
        const heard = touched ?? new Set()
        const read = Picture.read(
          picture,
          found,
          // Who was asked for and is not where it was may be elsewhere: only a full read tells.
          (service) => query === undefined || (Directory.matches(query, service) && !asked.has(service.id)),
          heard
        )
        if (Picture.differences(picture, read.services).length > 0) changed()
        picture = read.services
        for (const id of read.questions) if (!questions.has(id)) questions.set(id, queryOf(picture.get(id)))
        if (query === undefined) {
          done = goal
          readAt = wall()
        } else {
          const ids = new Set(found.map((service) => service.id))
          for (const id of asked.keys()) if (!ids.has(id) && !heard.has(id)) wanted++
        }
        const failures = state.failures
        failure = undefined
        state = Backoff.initial
        notBefore = 0
        if (polling) {
          // At first anywhere in the interval, so that a fleet that started together does not ask together.
          const share = pollAt === 0 ? random.nextDoubleUnsafe() : 0.9 + 0.2 * random.nextDoubleUnsafe()
          pollAt = now() + pollInterval * share
          if (updates._tag === "Polling") updates = { ...updates, next: wall() + Math.ceil(pollInterval * share) }
        }
        return Effect.andThen(
          publish,
          failures === 0
            ? Effect.void
            : log("Info", `discover recovered after ${failures} ${failures === 1 ? "failure" : "failures"}`)
        )
      })

    const read: Effect.Effect<void, AuthFailed | Refused> = Effect.suspend(() => {
      const query = oneQuestion()
      const goal = wanted
      const asked = new Map(questions)
      questions.clear()
      touched = new Set()
      nextSlot = Math.max(nextSlot, now()) + spacing
      const giveBack = () => {
        for (const [id, query] of asked) if (!questions.has(id)) questions.set(id, query)
      }
      return discover(query ?? {}).pipe(
        Effect.timeoutOrElse({
          duration: readWithin,
          orElse: () => Effect.fail(Classify.timedOut({ ...at, after: readWithin }))
        }),
        Effect.catchDefect((cause) => Effect.fail(Classify.unreachable({ ...at, detail: "a defect", cause }))),
        Effect.matchEffect({
          onSuccess: (found) => succeeded(found, query, asked, goal),
          onFailure: (error) => {
            giveBack()
            // What answered before and now sends something else is most likely a proxy in between.
            const isForNow = error._tag === "Transient" ||
              (error.reason._tag === "MalformedResponse" && readAt !== undefined)
            return isForNow && error._tag !== "AuthFailed" ? failed(error) : Effect.fail(error)
          }
        }),
        Effect.onInterrupt(() => Effect.sync(giveBack)),
        Effect.ensuring(Effect.sync(() => {
          touched = undefined
        }))
      )
    })

    const keepReading: Effect.Effect<never, AuthFailed | Refused> = Effect.forever(Effect.suspend(() => {
      const woken = reader = Deferred.makeUnsafe<void>()
      const time = now()
      const may = polling || open || (readAt === undefined && (settled || time >= patientUntil))
      const isDue = wanted !== done || questions.size > 0
      if (may && !isDue && polling && time >= pollAt) wanted++
      if (!may && readAt !== undefined) return Deferred.await(woken)
      if (!may) return Effect.raceFirst(Effect.sleep(Math.ceil(patientUntil - time)), Deferred.await(woken))
      if (wanted === done && questions.size === 0) {
        return polling
          ? Effect.raceFirst(Effect.sleep(Math.ceil(pollAt - time)), Deferred.await(woken))
          : Deferred.await(woken)
      }
      const slot = nextSlot - (burst - 1) * spacing
      if (slot > time) return Effect.sleep(Math.ceil(slot - time))
      if (notBefore > time) {
        return Effect.raceFirst(Effect.sleep(Math.ceil(notBefore - time)), Deferred.await(woken))
      }
      return read
    }))

    // -- the whole --------------------------------------------------------------------------------------------------

    let revived: Deferred.Deferred<void> | undefined
    const revive = (): void => {
      if (revived !== undefined) Deferred.doneUnsafe(revived, Effect.void)
    }

    const halt = (error: AuthFailed | Refused): Effect.Effect<void> =>
      Effect.gen(function*() {
        const again = revived = Deferred.makeUnsafe<void>()
        open = false
        halted = error
        updates = { _tag: "Halted", cause: error }
        version++
        yield* publish
        yield* log(
          "Error",
          `${error.message}; nothing more is sent until the credential changes or a refresh is asked for`
        )
        yield* Deferred.await(again)
        revived = undefined
        halted = undefined
        failure = undefined
        state = Backoff.initial
        notBefore = 0
        needed = ++wanted
        polling = capabilities.watch === "none" || capabilities.watch === "poll"
        settled = false
        patientUntil = now() + patience
        updates = polling ? { _tag: "Polling", next: undefined, cause: undefined } : { _tag: "Connecting", attempt: 1 }
        version++
        yield* publish
      })

    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        closed = true
        if (updates._tag === "Polling") updates = { _tag: "Closed", cause: new Shutdown() }
        return publish
      })
    )
    if (capabilities.enabled) {
      yield* Effect.raceFirst(listen, keepReading).pipe(
        Effect.catch(halt),
        Effect.forever,
        Effect.forkScoped
      )
      if (credentialChanges !== undefined) {
        yield* Effect.forkScoped(Stream.runForEach(credentialChanges, () => Effect.sync(revive)))
      }
    }

    // -- answers ----------------------------------------------------------------------------------------------------

    /** `undefined`: not known yet. */
    const ending = (): AuthFailed | Refused | undefined =>
      halted ?? (closed ? Classify.unsupported({ ...at, detail: "the cache is closed" }) : undefined)

    const known = (query: Directory.Query): ReadonlyArray<RegisteredService> => {
      listed ??= Picture.list(picture)
      const { capability, name, type } = query
      return capability === undefined && name === undefined && type === undefined
        ? listed
        : listed.filter((service) => Directory.matches(query, service))
    }

    const find = (
      query: Directory.Query
    ): Effect.Effect<ReadonlyArray<RegisteredService>, Transient | AuthFailed | Refused> =>
      Effect.suspend(() => {
        if (!capabilities.enabled) return notConfigured("discover")
        const end = ending() ?? (readAt === undefined ? failure : undefined)
        if (end !== undefined) return Effect.fail(end)
        return readAt === undefined ? Effect.andThen(nextAfter(told), find(query)) : Effect.succeed(known(query))
      })

    const watch = (query: Directory.Query = {}): Stream.Stream<Snapshot, AuthFailed | Refused> =>
      Stream.suspend(() => {
        let before: Picture.Services | undefined
        let tag: Freshness["_tag"] | undefined
        let seen = -1
        const pull: Pull.Pull<readonly [Snapshot], AuthFailed | Refused> = Effect.suspend(() => {
          if (!capabilities.enabled) return notConfigured("watch")
          if (closed) return Cause.done()
          if (halted !== undefined) return Effect.fail(halted)
          if (readAt === undefined || seen === version) return Effect.andThen(nextAfter(told), pull)
          seen = version
          const services = known(query)
          const present = new Map(services.map((service) => [service.id, service]))
          const changes = Picture.differences(before ?? new Map(), present)
          if (before !== undefined && changes.length === 0 && tag === freshness._tag) {
            return Effect.andThen(nextAfter(told), pull)
          }
          before = present
          tag = freshness._tag
          return Effect.succeed([{ services, changes, freshness }] as const)
        })
        return Stream.fromPull(Effect.succeed(pull))
      })

    return {
      ...Discovery.fromFind(find, capabilities.enabled),
      status,
      snapshot: (query = {}) =>
        Effect.map(find(query), (services) => ({
          services,
          changes: services.map((service) => ({ _tag: "Came", service })),
          freshness
        })),
      watch,
      refresh: Effect.suspend(() => {
        wanted++
        notBefore = 0
        revive()
        nudge()
        return handle.reconnectNow
      })
    }
  })

const queryOf = (service: RegisteredService | undefined): Directory.Query | undefined =>
  service === undefined ? undefined : { name: service.name, type: service.type }

/**
 * {@link make} as a layer: both services, over one picture.
 *
 * **Example** (A program that knows of `Discovery` only)
 *
 * ```ts
 * import * as Discovery from "effect-lifeline/Discovery"
 * import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
 * import * as Memory from "effect-lifeline/registry/Memory"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * export const someWorker = Discovery.Discovery.use((discovery) => discovery.pick({ type: "worker" })).pipe(
 *   Effect.provide(DiscoveryCache.layer({ pollInterval: "1 minute" }).pipe(Layer.provide(Memory.layer())))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<DiscoveryCache | Discovery.Discovery, never, Directory.Directory> =>
  Layer.effectContext(
    Effect.map(make(options), (cache) =>
      Context.make(DiscoveryCache, cache).pipe(Context.add(Discovery.Discovery, cache)))
  )
