/** A registry of leases that answers from lists and records what it is sent: for tests in virtual time. */
import type * as Classify from "effect-lifeline/Classify"
import type * as Credential from "effect-lifeline/Credential"
import type * as Lease from "effect-lifeline/Lease"
import type { AuthFailed, LeaseLost, Refused, Transient } from "effect-lifeline/LifelineError"
import type * as Recovery from "effect-lifeline/Recovery"
import * as Effect from "effect/Effect"
import { shown, token } from "./credentials.ts"

/** What the fake tokens hold, so that it can be searched for. */
export const canary = "canary-s3cr3t"

export const lease = (id: string, registeredAt = 0): Lease.Lease => ({ id, name: id, type: "job", registeredAt })

type Failure = Transient | AuthFailed | Refused | LeaseLost
export type Status = Classify.LeaseAnswer | Failure | "hang" | "die"
export type Refresh = Credential.Token | Transient | AuthFailed | Refused | "hang"
export type Beat = Recovery.Beat | Failure | "hang"

export interface Script {
  status?: ReadonlyArray<Status>
  refresh?: ReadonlyArray<Refresh>
  heartbeat?: ReadonlyArray<Beat>
}

export interface FakeApi extends Recovery.LeaseApi {
  /** In order: what for, which lease, and what it presented. */
  readonly received: Array<string>
  readonly of: (id: string) => ReadonlyArray<string>
  readonly keys: Array<string>
  /** Instead of the script of all, for one lease. */
  readonly scripts: Map<string, Script>
  /** What happens before an answer. */
  before: (call: string, id: string) => Effect.Effect<void>
}

const isError = (answer: object): answer is Failure => "_tag" in answer && "operation" in answer

/** The last answer of each list stays. */
export const makeApi = (script: Script, table?: Classify.LeaseTable): FakeApi => {
  const received: Array<string> = []
  const keys: Array<string> = []
  const scripts = new Map<string, Script>()
  const given = new Map<string, number>()

  const next = <K extends keyof Script>(id: string, kind: K): NonNullable<Script[K]>[number] => {
    const list: ReadonlyArray<Status | Refresh | Beat> = (scripts.get(id) ?? script)[kind] ?? []
    const count = given.get(`${kind} ${id}`) ?? 0
    given.set(`${kind} ${id}`, count + 1)
    return (list[Math.min(count, list.length - 1)] ?? "hang") as NonNullable<Script[K]>[number]
  }
  const call = (kind: string, { id }: Lease.Lease, authorizer: Credential.Authorizer) =>
    Effect.gen(function*() {
      const url = `https://registry.test/leases/${encodeURIComponent(id)}/${kind}`
      const { headers } = yield* authorizer.authorize({ method: "POST", url })
      received.push(`${kind} ${id} ${shown(headers)}`)
      yield* api.before(kind, id)
    })
  const give = <A extends object, E extends Failure>(answer: A | E | "hang" | "die"): Effect.Effect<A, E> =>
    answer === "hang"
      ? Effect.never
      : answer === "die"
      ? Effect.die(new Error(canary))
      : isError(answer)
      ? Effect.fail(answer) as Effect.Effect<never, E>
      : Effect.succeed(answer as A)

  const api: FakeApi = {
    received,
    keys,
    scripts,
    table,
    of: (id) => received.filter((line) => line.split(" ")[1] === id),
    before: () => Effect.void,
    status: (lease, authorizer) =>
      Effect.andThen(
        call("status", lease, authorizer),
        Effect.suspend(() => give<Classify.LeaseAnswer, Failure>(next(lease.id, "status")))
      ),
    refresh: (lease, context) =>
      Effect.andThen(
        call("refresh", lease, context),
        Effect.suspend(() => {
          keys.push(context.idempotencyKey)
          return give<Credential.Token, Transient | AuthFailed | Refused>(next(lease.id, "refresh"))
        })
      ),
    heartbeat: (lease, context) =>
      Effect.andThen(
        call("heartbeat", lease, context),
        Effect.suspend(() => {
          keys.push(context.idempotencyKey)
          return give<Recovery.Beat, Failure>(next(lease.id, "heartbeat"))
        })
      )
  }
  return api
}

export const revived = (value = `${canary}-revived`, expiresAt = 8 * 60 * 60_000): Recovery.Beat => ({
  status: 200,
  token: token(value, expiresAt)
})
