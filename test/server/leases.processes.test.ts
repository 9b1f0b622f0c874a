// Leases with more than one process: a registry that is killed, and programs that share a key and a store.
import { assert, describe, it } from "@effect/vitest"
import type * as Proof from "effect-lifeline/Proof"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ChildProcess from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { instance, pass, startRegistry, timed } from "../support/leaseRegistry.ts"
import { makeHolder, tokenOf } from "./leases.ts"
import { idOf, toReply } from "./support.ts"
import type { Call, Reply } from "./support.ts"

const fileOf = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-leases-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** A process that ends with the scope. */
const spawn = (args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => ChildProcess.spawn(process.execPath, [...args], { stdio: ["pipe", "pipe", "inherit"] })),
    (child) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill("SIGKILL")
        await once(child, "exit")
      })
  )

const registry = Effect.fnUntraced(function*(directory: string) {
  const child = yield* spawn([
    fileOf("../../src/node/registryMain.ts"),
    "--until-stdin-ends",
    "--leases",
    "--dir",
    directory
  ])
  const [line] = yield* Effect.promise(() => once(createInterface(child.stdout), "line"))
  return {
    url: String(JSON.parse(String(line)).url),
    kill: Effect.promise(async () => {
      child.kill("SIGKILL")
      await once(child, "exit")
    })
  }
})

/** By fetch. What did not come back whole is status 0. */
const over = (url: string) => ({
  origin: url,
  call: (method: string, path: string, call: Call = {}): Effect.Effect<Reply> =>
    Effect.promise(() =>
      fetch(`${url}${path}`, {
        method,
        headers: { "content-type": "application/json", ...call.headers },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) })
      }).then(toReply).catch(() => ({ status: 0, headers: new Headers(), text: "", json: null }))
    )
})

interface Told {
  readonly key: Proof.KeyPair
  readonly id: string
  readonly token: string
  /** Where the token is from a refresh: its key, and the whole answer. */
  readonly refresh?: { readonly key: string; readonly text: string } | undefined
}

describe("a durable registry with leases that is killed", () => {
  it.live("accepts every token that it answered with, and gives the same answers again", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const told = new Map<string, Told>()
      for (let round = 0; round < 3; round++) {
        const running = yield* registry(directory)
        const enough = yield* Deferred.make<void>()
        const until = 80 + 30 * round
        let answers = 0
        let lost = 0
        const work = Effect.fnUntraced(function*(worker: number) {
          const holder = yield* makeHolder(over(running.url), told.get(`service-${worker}-0`)?.key)
          for (let n = 0;; n++) {
            const name = `service-${worker}-${n % 5}`
            const known = told.get(name)
            const key = `${round}-${n}`
            const reply = known === undefined || n % 3 === 0
              ? yield* holder.register({ ...instanceBody, name })
              : yield* holder.refresh(known.id, key)
            if (reply.status === 0) return void lost++
            assert.oneOf(reply.status, [200, 201], reply.text)
            if (++answers === until) yield* Deferred.succeed(enough, undefined)
            told.set(name, {
              key: holder.key,
              id: reply.status === 201 ? idOf(reply) : known?.id ?? "",
              token: tokenOf(reply),
              refresh: reply.status === 200 ? { key, text: reply.text } : undefined
            })
          }
        })
        yield* Effect.all([
          Effect.forEach([0, 1, 2, 3], work, { concurrency: "unbounded" }),
          Effect.andThen(Deferred.await(enough), running.kill)
        ], { concurrency: "unbounded" })
        assert.isAtLeast(lost, 1, "it was killed in the middle of requests")

        const again = yield* registry(directory)
        yield* Effect.forEach([...told], ([name, { id, key, refresh, token }]) =>
          Effect.gen(function*() {
            const holder = yield* makeHolder(over(again.url), key)
            const beat = yield* holder.heartbeat(id, { token })
            assert.deepStrictEqual([beat.status, beat.json], [200, { bumped: true }], name)
            if (refresh !== undefined) {
              assert.strictEqual((yield* holder.refresh(id, refresh.key)).text, refresh.text, name)
            }
          }))
        yield* again.kill
      }
      assert.strictEqual(told.size, 20)
    }), 60_000)
})

const instanceBody = { type: instance.type, api_url: instance.apiUrl }

describe("two processes with one key and one store", () => {
  const run = Effect.fnUntraced(function*(args: ReadonlyArray<string>) {
    const child = yield* spawn([fileOf("./runtimes/leaseProgram.ts"), ...args])
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
    const next = Effect.promise(() => lines.next())
    assert.strictEqual((yield* next).value, "ready")
    return {
      go: Effect.map(
        Effect.andThen(Effect.sync(() => child.stdin.write("go\n")), next),
        ({ value }) => JSON.parse(value ?? "{}") as { readonly id: string; readonly jti: string }
      )
    }
  })

  it.live(
    "revive once, and both go on",
    timed((time) =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const { events, url } = yield* startRegistry(time)
        const { id } = yield* (yield* run([url, directory])).go
        const after = yield* events.position
        yield* pass(time, "123 minutes")
        const both = yield* Effect.all([run([url, directory, id]), run([url, directory, id])], { concurrency: 2 })
        const results = yield* Effect.all(both.map(({ go }) => go), { concurrency: 2 })
        for (const result of results) assert.isTrue(result.jti.startsWith(`${id}.`))
        const told = yield* events.subscribe({ after, idleAfter: "100 millis" }).pipe(
          Stream.takeWhile((message) => message._tag !== "Idle"),
          Stream.runCollect
        )
        const types = told.flatMap((message) => message._tag === "Event" ? [message.event.type] : [])
        assert.deepStrictEqual(types.filter((type) => type.startsWith("lease_")), ["lease_timed_out", "lease_revived"])
      })
    ),
    40_000
  )
})
