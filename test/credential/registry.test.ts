// Programs that share a key, a token and a lease, against the embedded registry: counted on the wire.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { pass, startRegistry, timed } from "../support/leaseRegistry.ts"
import * as Front from "../support/runtimes/Front.ts"
import { spawn, temporary } from "./support.ts"

const program = fileURLToPath(new URL("../server/runtimes/leaseProgram.ts", import.meta.url))

describe("processes that share a lease of the embedded registry", () => {
  it.live(
    "three at once: an expired token is refreshed once, a lease that timed out is revived once",
    timed((time) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        // The proof is for where clients reach it.
        const front = yield* Front.make("http://127.0.0.1:9")
        const { events, url } = yield* startRegistry(time, { leases: { origin: front.url, reapEvery: "20 millis" } })
        front.retarget(url)

        const run = Effect.fnUntraced(function*(count: number, ...id: ReadonlyArray<string>) {
          const before = front.calls.length
          const after = yield* events.position
          const processes = yield* Effect.all(
            Array.from({ length: count }, () => spawn(program, [front.url, directory, ...id])),
            { concurrency: "unbounded" }
          )
          const results = yield* Effect.all(processes.map(({ ask }) => ask), { concurrency: "unbounded" })
          const [first] = results as ReadonlyArray<{ readonly id: string; readonly jti: string }>
          for (const result of results) assert.deepStrictEqual(result, first)
          const told = yield* events.subscribe({ after, idleAfter: "100 millis" }).pipe(
            Stream.takeWhile((message) => message._tag !== "Idle"),
            Stream.runCollect
          )
          return {
            id: String(first?.id),
            jti: first?.jti,
            refreshes: front.calls.slice(before).filter((call) => call.path.endsWith("/refresh")).length,
            revivals: told.filter((message) =>
              message._tag === "Event" && message.event.type === "lease_revived"
            ).length
          }
        })

        const registered = yield* run(1)
        assert.deepInclude(registered, { refreshes: 0, revivals: 0 })
        const { id } = registered
        // By the registry's clock; theirs does not see it.
        yield* pass(time, "61 minutes")
        const refreshed = yield* run(3, id)
        assert.deepInclude(refreshed, { id, refreshes: 1, revivals: 0 })
        assert.notStrictEqual(refreshed.jti, registered.jti)
        // Whose heartbeat comes first is revived by it, with the token and the proof that it has; the others take over that token.
        yield* pass(time, "123 minutes")
        const revived = yield* run(3, id)
        assert.deepInclude(revived, { id, refreshes: 0, revivals: 1 })
        assert.notStrictEqual(revived.jti, refreshed.jti)
      })
    ),
    60_000
  )
})
