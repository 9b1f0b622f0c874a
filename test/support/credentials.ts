/** A server of tokens that records what it is sent, and what surrounds it: for tests in virtual time. */
import * as Classify from "effect-lifeline/Classify"
import * as Credential from "effect-lifeline/Credential"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import type * as Proof from "effect-lifeline/Proof"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"

export const url = "https://registry.test/lease/7"

export const minute = 60_000
export const hour = 60 * minute

export const token = (value: string, expiresAt?: number): Credential.Token => ({
  value: Redacted.make(value),
  jti: `jti of ${value}`,
  ...(expiresAt === undefined ? {} : { expiresAt })
})

/** A proof that says what it covers, made at once. */
export const fakeProof: Proof.Proof["Service"] = {
  thumbprint: "thumbprint",
  headers: ({ token }) =>
    Effect.succeed({
      dpop: Redacted.make("proof"),
      ...(token === undefined ? {} : { authorization: Redacted.make(`DPoP ${Redacted.value(token)}`) })
    }),
  received: () => Effect.succeed(false)
}

export const managed: Credential.Provenance = { _tag: "Managed", proof: fakeProof }
export const supplied: Credential.Provenance = { _tag: "Supplied" }

/** As a server sees it: `"DPoP t1"`, `"Bearer t1"`, `"proof"`, `"nothing"`. */
export const shown = (headers: Proof.ProofHeaders): string =>
  Redacted.value(headers["authorization"] ?? headers["dpop"] ?? Redacted.make("nothing"))

export const unauthorized = (operation: string): AuthFailed =>
  Classify.make("Unauthorized", { operation, target: url, detail: "invalid_token" })
export const unavailable = (operation: string): Transient =>
  Classify.make("Unavailable", { operation, target: url, status: 503 })

export interface FakeServer {
  /** What came, in order: what for, and what it presented. */
  readonly received: Array<string>
  /** What is accepted, as `shown` says it. */
  readonly accepts: Set<string>
  readonly beat: Effect.Effect<string, AuthFailed | Refused | Transient, Credential.Credential>
}

export const makeServer = (...accepts: ReadonlyArray<string>): FakeServer => {
  const server: FakeServer = {
    received: [],
    accepts: new Set(accepts),
    beat: Effect.gen(function*() {
      const credential = yield* Credential.Credential
      const { headers } = yield* credential.authorize({ method: "PUT", url })
      server.received.push(`beat ${shown(headers)}`)
      if (!server.accepts.has(shown(headers))) return yield* unauthorized("beat")
      return shown(headers)
    })
  }
  return server
}

export type Answer<E> = Credential.Token | E | "hang" | Effect.Effect<Credential.Token, E>

const isToken = (answer: object): answer is Credential.Token => "value" in answer && !Effect.isEffect(answer)

const give = <E extends object>(answer: Answer<E>): Effect.Effect<Credential.Token, E> => {
  if (answer === "hang") return Effect.never
  if (Effect.isEffect(answer)) return answer as Effect.Effect<Credential.Token, E>
  return isToken(answer) ? Effect.succeed(answer) : Effect.fail(answer as E)
}

/** Providers that present what they are told to, and answer from a list; the last answer stays. */
export const providers = (
  server: FakeServer,
  answers: {
    readonly refresh?: ReadonlyArray<Answer<Transient | AuthFailed | Refused>>
    readonly revive?: ReadonlyArray<Answer<Transient | AuthFailed | Refused | LeaseLost>>
  }
) => {
  const keys: Array<string> = []
  const refreshes = [...answers.refresh ?? []]
  const revivals = [...answers.revive ?? []]
  const next = <A>(list: Array<A>, otherwise: A): A => (list.length > 1 ? list.shift() : list[0]) ?? otherwise
  return {
    keys,
    ...(answers.refresh === undefined ? {} : {
      refresh: (context: Credential.RefreshContext) =>
        Effect.gen(function*() {
          keys.push(context.idempotencyKey)
          const { headers } = yield* context.authorize({ method: "POST", url })
          server.received.push(`refresh ${shown(headers)}`)
          return yield* give<Transient | AuthFailed | Refused>(next(refreshes, "hang"))
        })
    }),
    ...(answers.revive === undefined ? {} : {
      revive: (context: Credential.ReviveContext) =>
        Effect.gen(function*() {
          keys.push(context.idempotencyKey)
          const { headers } = yield* context.authorize({ method: "POST", url })
          server.received.push(`revive ${shown(headers)}`)
          return yield* give<Transient | AuthFailed | Refused | LeaseLost>(next(revivals, "hang"))
        })
    })
  }
}

export interface TestStore {
  readonly entries: Map<string, string>
  /** Each write and removal, in order. */
  readonly writes: Array<string>
  readonly store: KeyValueStore.KeyValueStore
  /** What happens before each call. */
  before: (method: "get" | "set" | "remove", key: string) => Effect.Effect<void, KeyValueStore.KeyValueStoreError>
}

export const makeStore = (): TestStore => {
  const entries = new Map<string, string>()
  const writes: Array<string> = []
  const self: TestStore = {
    entries,
    writes,
    before: () => Effect.void,
    store: KeyValueStore.makeStringOnly({
      get: (key) => Effect.andThen(Effect.suspend(() => self.before("get", key)), Effect.sync(() => entries.get(key))),
      set: (key, value) =>
        Effect.andThen(
          Effect.suspend(() => self.before("set", key)),
          Effect.sync(() => {
            writes.push(`set ${key}`)
            entries.set(key, value)
          })
        ),
      remove: (key) =>
        Effect.andThen(
          Effect.suspend(() => self.before("remove", key)),
          Effect.sync(() => {
            writes.push(`remove ${key}`)
            entries.delete(key)
          })
        ),
      clear: Effect.sync(() => entries.clear()),
      size: Effect.sync(() => entries.size),
      keys: Effect.sync(() => [...entries.keys()])
    })
  }
  return self
}

export const storeFailed = new KeyValueStore.KeyValueStoreError({ method: "any", message: "the disk is full" })

/** What a record holds, where it is not encrypted. */
export const recordOf = (store: TestStore, kind: "token" | "state" | "claim", name = "lease"): unknown => {
  const text = store.entries.get(`credential/${kind}/${name}`)
  return text === undefined ? undefined : JSON.parse(atob((JSON.parse(text) as { readonly data: string }).data))
}

/** Lines of the log of one level, without what they are annotated with. */
export const logged = (lines: Array<string>, level: string) =>
  Logger.layer([
    Logger.make((options) => {
      if (options.logLevel === level) lines.push(String(options.message))
    })
  ])

/** One process over the store. */
export const make = (store: TestStore, options: Partial<Credential.Options>) =>
  Credential.make({ provenance: managed, name: "lease", ...options }).pipe(
    Effect.provideService(KeyValueStore.KeyValueStore, store.store)
  )

/** Runs it while the clock goes on. */
export const during = <A, E, R>(effect: Effect.Effect<A, E, R>, time: number) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })

/** What it failed with. */
export const errorOf = <A, E>(exit: Exit.Exit<A, E>): E =>
  Option.getOrThrowWith(Exit.findErrorOption(exit), () => new Error(`it did not fail: ${String(exit)}`))
