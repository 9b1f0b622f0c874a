import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fs from "node:fs/promises"
import * as Http from "node:http"
import type * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { bundle } from "../support/runtimes/Bundle.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Workers from "../support/runtimes/Workers.ts"

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-server-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

/** A service whose health check gets this answer. */
const service = (status: number) =>
  Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const server = Http.createServer((_, response) => {
        response.writeHead(status, { location: "http://127.0.0.1:1/" }).end()
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  ).pipe(Effect.map((server) => `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}/health`))

const headers = { "x-api-key": "right-key", "content-type": "application/json" }

const register = async (url: string, body: object) => {
  const response = await fetch(`${url}/api/v1/services/register`, {
    method: "POST",
    headers,
    body: JSON.stringify({ type: "app", api_url: "http://app", ...body })
  })
  return { status: response.status, service: await response.json() }
}

const listed = async (url: string): Promise<ReadonlyArray<{ id: string; name: string; status: string }>> =>
  (await fetch(`${url}/api/v1/services`, { headers })).json()

const eventually = (condition: () => Promise<boolean>): Effect.Effect<void> =>
  Effect.flatMap(
    Effect.promise(condition),
    (holds) => holds ? Effect.void : Effect.andThen(Effect.sleep("20 millis"), eventually(condition))
  )

/** What a registry must do wherever it runs. */
const works = Effect.fnUntraced(function*(url: string) {
  const health = yield* Effect.promise(() => fetch(`${url}/health`))
  assert.deepStrictEqual(yield* Effect.promise(() => health.json()), { status: "ok" })
  const refused = yield* Effect.promise(() => fetch(`${url}/api/v1/services`))
  assert.strictEqual(refused.status, 401)
  yield* Effect.promise(() => refused.text())

  const abort = new AbortController()
  yield* Effect.addFinalizer(() => Effect.sync(() => abort.abort()))
  const stream = yield* Effect.promise(() => fetch(`${url}/api/v1/events`, { headers, signal: abort.signal }))
  const reader = stream.body?.pipeThrough(new TextDecoderStream()).getReader()
  const first = yield* Effect.promise(async () => (await reader?.read())?.value ?? "")
  assert.match(first, /^: open\nid: [0-9a-f]{8}-0\n\n$/)

  const created = yield* Effect.promise(() => register(url, { name: "a" }))
  assert.strictEqual(created.status, 201)
  const event = yield* Effect.promise(async () => (await reader?.read())?.value ?? "")
  assert.match(event, /\nevent: service_registered\n/)
  assert.include(event, created.service.id)
  const updated = yield* Effect.promise(() => register(url, { name: "a" }))
  assert.strictEqual(updated.service.id, created.service.id)

  const beat = yield* Effect.promise(() =>
    fetch(`${url}/api/v1/services/${created.service.id}/heartbeat`, { method: "PUT", headers })
  )
  assert.strictEqual(beat.status, 204)
  const wrong = yield* Effect.promise(() => register(url, { name: "" }))
  assert.strictEqual(wrong.status, 422)
  const large = yield* Effect.promise(() => register(url, { name: "a", metadata: " ".repeat(1024 * 1024) }))
  assert.strictEqual(large.status, 413)
  const socket = yield* Effect.promise(() => fetch(`${url}/api/v1/ws`, { headers }))
  assert.strictEqual(socket.status, 426)
  yield* Effect.promise(() => socket.text())

  const degraded = yield* service(503)
  const redirected = yield* service(302)
  yield* Effect.promise(() => register(url, { name: "degraded", health_url: degraded }))
  yield* Effect.promise(() => register(url, { name: "redirected", health_url: redirected }))
  yield* eventually(async () => {
    const statuses = (await listed(url)).map(({ name, status }) => `${name} ${status}`)
    return statuses.includes("degraded degraded") && statuses.includes("redirected offline")
  })
})

describe("the registry as a plain handler", () => {
  it.live.each(["deno", "bun"] as const)("works in %s", (runtime) =>
    Effect.gen(function*() {
      const file = Path.join(yield* temporary, "serve.mjs")
      const script = yield* bundle("test/server/runtimes/serve.ts")
      yield* Effect.promise(() => Fs.writeFile(file, script))
      const args = runtime === "deno" ? ["run", "--no-config", "--allow-net=127.0.0.1", file] : [file]
      const child = yield* Process.startRuntime(runtime, args)
      const [, url = ""] = yield* child.line(/listening on (.+)/)
      yield* works(url)
    }), 60_000)

  const startWorker = Effect.fnUntraced(function*(storage: string) {
    const miniflare = yield* Workers.run("test/server/runtimes/worker.ts", {
      durableObjects: { REGISTRY: { className: "Registry", useSQLite: true } },
      durableObjectsPersist: storage
    })
    return yield* Effect.promise(async () => (await miniflare.ready).origin)
  })

  it.live("works in a Durable Object, and its storage keeps what it answered", () =>
    Effect.gen(function*() {
      const storage = yield* temporary
      const before = yield* Effect.scoped(Effect.gen(function*() {
        const url = yield* startWorker(storage)
        yield* works(url)
        return yield* Effect.promise(() => listed(url))
      }))
      const url = yield* startWorker(storage)
      const after = yield* Effect.promise(() => listed(url))
      assert.deepStrictEqual(after.map(({ id }) => id), before.map(({ id }) => id))
      assert.strictEqual(after.length, 3)
    }), 60_000)
})
