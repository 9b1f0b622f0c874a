// Who waits is answered: every state in which somebody can wait for a listener, against every way in which that can end. Two
// wait in each case, so that what happens to one is seen not to happen to the other, or to happen to both.
import { assert, describe, it } from "@effect/vitest"
import * as Listener from "effect-lifeline/Listener"
import type * as Reconnect from "effect-lifeline/Reconnect"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as TestClock from "effect/testing/TestClock"
import { fiberCounter } from "./support/leaks.ts"
import * as Server from "./support/listenerServer.ts"

type Mode = "ok" | "hang" | Reconnect.Failure
type Waiting = Effect.Effect<unknown, { readonly _tag: string }, Scope.Scope>

/** A server whose dials and sends go well, hang or fail, until told otherwise. */
const makeWorld = Effect.gen(function*() {
  const server = Server.make()
  const modes: { dials: Mode; sends: Mode } = { dials: "ok", sends: "ok" }
  let changed = Deferred.makeUnsafe<void>()
  const goBy = (which: keyof typeof modes): Effect.Effect<void, Reconnect.Failure> =>
    Effect.suspend(() => {
      const mode = modes[which]
      if (mode === "ok") return Effect.void
      return mode === "hang" ? Effect.andThen(Deferred.await(changed), goBy(which)) : Effect.fail(mode)
    })
  server.accept = () => goBy("dials")
  server.send = () => goBy("sends")
  const listener = yield* Listener.make({
    ...Server.protocol,
    connect: server.connect,
    at: Server.at,
    noProgressLimit: 3,
    openTimeout: "1 hour",
    sendTimeout: "1 hour"
  })
  const set = (next: Partial<typeof modes>) =>
    Effect.andThen(
      Effect.sync(() => {
        Object.assign(modes, next)
        const before = changed
        changed = Deferred.makeUnsafe()
        Deferred.doneUnsafe(before, Exit.void)
      }),
      TestClock.adjust(0)
    )
  return { listener, server, set }
})
type World = Effect.Success<typeof makeWorld>

const settle = TestClock.adjust(0)

const subscribes = ({ listener }: World): Waiting => listener.subscribe("a")
const reads = ({ listener }: World): Waiting =>
  Effect.flatMap(listener.subscribe("a"), ({ messages }) => Stream.runHead(messages))
/** Something that is subscribed before those who wait come. */
const opened = ({ listener }: World) => Effect.asVoid(listener.subscribe("before"))

interface State {
  readonly name: string
  /** Brings the world to where who comes then has to wait. */
  readonly before: (world: World) => Effect.Effect<unknown, unknown, Scope.Scope>
  readonly waits: (world: World) => Waiting
  /** What is true of the world while they wait. */
  readonly status: Reconnect.Status["_tag"]
  /** Whether they wait for a connection, which is bounded, or for a message, which is not. */
  readonly isBounded: boolean
}

const lost = (error?: Reconnect.Failure) => (world: World) =>
  Effect.gen(function*() {
    yield* opened(world)
    world.server.last().push({ key: "before", text: "progress" })
    yield* settle
    yield* world.set({ dials: Server.transient })
    world.server.last().end(error)
    yield* settle
  })

const states: ReadonlyArray<State> = [
  {
    name: "subscribing, first of all",
    before: ({ set }) => set({ sends: "hang" }),
    waits: subscribes,
    status: "Connecting",
    isBounded: true
  },
  {
    name: "subscribing, on an open connection",
    before: (world) => Effect.andThen(opened(world), world.set({ sends: "hang" })),
    waits: subscribes,
    status: "Open",
    isBounded: true
  },
  {
    name: "subscribing, during a replay",
    before: (world) =>
      Effect.gen(function*() {
        yield* lost()(world)
        yield* world.set({ dials: "ok", sends: "hang" })
        yield* TestClock.adjust("1 second")
      }),
    waits: subscribes,
    status: "Connecting",
    isBounded: true
  },
  {
    name: "waiting for the first dial",
    before: ({ set }) => set({ dials: "hang" }),
    waits: subscribes,
    status: "Connecting",
    isBounded: true
  },
  {
    name: "waiting for a dial, with an await",
    before: ({ set }) => set({ dials: "hang" }),
    waits: ({ listener }) => listener.await("a", { fallback: Listener.poll(Effect.undefined) }),
    status: "Connecting",
    isBounded: true
  },
  { name: "in backoff", before: lost(Server.reset), waits: subscribes, status: "Waiting", isBounded: true },
  {
    name: "in backoff, with a send",
    before: lost(),
    waits: ({ listener }) => listener.send("message"),
    status: "Waiting",
    isBounded: true
  },
  {
    name: "in a send",
    before: (world) => Effect.andThen(opened(world), world.set({ sends: "hang" })),
    waits: ({ listener }) => listener.send("message"),
    status: "Open",
    isBounded: true
  },
  { name: "open, reading", before: () => Effect.void, waits: reads, status: "Open", isBounded: false },
  {
    name: "open, with an await",
    before: () => Effect.void,
    waits: ({ listener }) => listener.await("a"),
    status: "Open",
    isBounded: false
  },
  {
    name: "open, with an await that polls",
    before: () => Effect.void,
    waits: ({ listener }) => listener.await("a", { fallback: Listener.poll(Effect.undefined, "1 second") }),
    status: "Open",
    isBounded: false
  },
  {
    name: "draining: the connection before is still being closed",
    before: (world) => {
      world.server.close = Effect.sleep("1500 millis")
      return lost()(world)
    },
    waits: subscribes,
    status: "Open",
    isBounded: true
  }
]

interface Ending {
  readonly name: string
  /** Whether it ends the subscriptions that there are, too. */
  readonly isForAll: boolean
  readonly end: (world: World, one: Fiber.Fiber<unknown, unknown>) => Effect.Effect<void>
  /** The error of the first one, and of the other one; `undefined`: it is not affected, and gets what it waits for. */
  readonly one: (state: State) => string | undefined
  readonly other: (state: State) => string | undefined
}

const forBoth = (tag: (state: State) => string | undefined) => ({ one: tag, other: tag })

/** From now on nothing comes of it, for this reason. */
const breaks = (dials: Reconnect.Failure, error: Reconnect.Failure | undefined) =>
  Effect.fnUntraced(function*({ server, set }: World) {
    yield* set({ dials, sends: Server.reset })
    if (server.connections.at(-1)?.isOpen === true) server.last().end(error)
    yield* settle
    yield* TestClock.adjust("1 minute")
  })

const endings: ReadonlyArray<Ending> = [
  {
    name: "close",
    isForAll: true,
    end: ({ listener }) => Effect.andThen(Effect.forkDetach(listener.close), settle),
    ...forBoth(() => "Closed")
  },
  {
    name: "a permanent error",
    isForAll: true,
    end: breaks(Server.unauthorized, Server.unauthorized),
    ...forBoth(() => "AuthFailed")
  },
  {
    name: "no progress",
    isForAll: true,
    end: breaks(Server.inconclusive, Server.inconclusive),
    ...forBoth(() => "NoProgress")
  },
  {
    name: "nothing but transient errors",
    isForAll: false,
    end: breaks(Server.transient, Server.reset),
    ...forBoth(({ isBounded }) => isBounded ? "Exhausted" : undefined)
  },
  {
    name: "the interruption of one",
    isForAll: false,
    end: (_world, one) => Fiber.interrupt(one),
    one: () => "interrupted",
    other: () => undefined
  }
]

const outcome = (exit: Exit.Exit<unknown, { readonly _tag: string }> | undefined): string => {
  if (exit === undefined) return "waits"
  if (Exit.isSuccess(exit)) return "success"
  const error = Cause.findErrorOption(exit.cause)
  return error._tag === "Some" ? error.value._tag : Cause.hasInterrupts(exit.cause) ? "interrupted" : "died"
}

const pairs = states.flatMap((state) => endings.map((ending) => [state.name, ending.name, state, ending] as const))

describe("who waits is answered", () => {
  it.effect.each(pairs)("%s, ended by %s", ([, , state, ending]) =>
    Effect.gen(function*() {
      const { left, watch } = fiberCounter()
      yield* watch(Effect.scoped(Effect.gen(function*() {
        const world = yield* makeWorld
        yield* state.before(world)
        const others = yield* world.listener.size
        const one = yield* Effect.forkChild(Effect.scoped(state.waits(world)))
        const other = yield* Effect.forkChild(Effect.scoped(state.waits(world)))
        yield* settle
        const now = () => [outcome(one.pollUnsafe()), outcome(other.pollUnsafe())]
        assert.deepStrictEqual(now(), ["waits", "waits"])
        assert.strictEqual(SubscriptionRef.getUnsafe(world.listener.status)._tag, state.status)

        const before = yield* Clock.currentTimeMillis
        yield* ending.end(world, one)
        assert.deepStrictEqual(now(), [ending.one(state) ?? "waits", ending.other(state) ?? "waits"])
        if (ending.name === "close" || ending.name.includes("interruption")) {
          assert.strictEqual(yield* Clock.currentTimeMillis, before, "it takes no time")
        }

        // Those who are left get what they wait for once all is well.
        yield* world.set({ dials: "ok", sends: "ok" })
        yield* TestClock.adjust("1 minute")
        if (now().includes("waits")) {
          world.server.last().push({ key: "a", text: "at last" })
          yield* settle
        }
        assert.deepStrictEqual(now(), [ending.one(state) ?? "success", ending.other(state) ?? "success"])

        // Whoever was answered left nothing behind.
        assert.strictEqual(yield* world.listener.size, ending.isForAll ? 0 : others)
        world.server.close = Effect.void
      })))
      assert.strictEqual(yield* left, 0, "fibers")
    }))
})
