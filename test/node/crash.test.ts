import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as ChildProcess from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Http from "node:http"
import * as Os from "node:os"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

const main = fileURLToPath(new URL("../../src/node/registryMain.ts", import.meta.url))

const temporary = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-crash-"))),
  (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
)

interface Running {
  readonly url: string
  /** As `kill -9` does it, by the child's own id. */
  readonly kill: Effect.Effect<void>
}

/** The registry as a process. It ends with the scope, and with this process. */
const spawn = (args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const child = ChildProcess.spawn(process.execPath, [main, "--until-stdin-ends", ...args], {
        stdio: ["pipe", "pipe", "inherit"]
      })
      const [line] = await once(createInterface(child.stdout), "line")
      return { child, url: String(JSON.parse(String(line)).url) }
    }),
    ({ child }) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        child.kill("SIGKILL")
        await once(child, "exit")
      })
  ).pipe(Effect.map(({ child, url }): Running => ({
    url,
    kill: Effect.promise(async () => {
      child.kill("SIGKILL")
      await once(child, "exit")
    })
  })))

interface Reply {
  readonly status: number
  readonly text: string
}

/** `undefined`: no whole answer came. */
const request = (agent: Http.Agent, url: string, method: string, path: string, body?: unknown) =>
  new Promise<Reply | undefined>((resolve) => {
    const text = body === undefined ? undefined : JSON.stringify(body)
    const sent = Http.request(`${url}${path}`, {
      agent,
      method,
      ...(text === undefined
        ? {}
        : { headers: { "content-type": "application/json", "content-length": Buffer.byteLength(text) } })
    }, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }))
      response.on("error", () => resolve(undefined))
      response.on("aborted", () => resolve(undefined))
    })
    sent.on("error", () => resolve(undefined))
    sent.end(text)
  })

/** What clients were told: by name, the last answer they got. */
interface Told {
  readonly id: string
  readonly version: number
  readonly gone: boolean
}

const workers = 8
const rounds = 4

describe("a durable registry that is killed", () => {
  it.live("has every registration that it answered with 201, as it answered it", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const told = new Map<string, Told>()
      let version = 0

      for (let round = 0; round < rounds; round++) {
        const registry = yield* spawn(["--dir", directory])
        const agent = new Http.Agent({ keepAlive: true })
        const until = 60 + 37 * round
        let answered = 0
        let unanswered = 0
        let reached = () => {}
        const enough = new Promise<void>((resolve) => {
          reached = resolve
        })

        /** Registers, registers again, and now and then deregisters, until nobody answers. */
        const work = async (worker: number): Promise<void> => {
          for (let n = 0;; n++) {
            const name = `service-${worker}-${n % 25}`
            const known = told.get(name)
            if (known !== undefined && !known.gone && n % 7 === 3) {
              const reply = await request(agent, registry.url, "DELETE", `/api/v1/services/${known.id}`)
              // Unanswered: it may be gone or not, so nothing was promised.
              if (reply === undefined) return void (told.delete(name), unanswered++)
              assert.strictEqual(reply.status, 204)
              told.set(name, { ...known, gone: true })
            } else {
              version = version + 1
              const mine = version
              const reply = await request(agent, registry.url, "POST", "/api/v1/services/register", {
                name,
                type: worker % 2 === 0 ? "download-client" : "app",
                api_url: `http://service:${1000 + n}`,
                version: String(mine),
                api_key: `key-${mine}`
              })
              if (reply === undefined) return void unanswered++
              assert.strictEqual(reply.status, 201)
              const service = JSON.parse(reply.text)
              assert.strictEqual(service.version, String(mine))
              if (known !== undefined && !known.gone) assert.strictEqual(service.id, known.id)
              told.set(name, { id: service.id, version: mine, gone: false })
            }
            answered = answered + 1
            if (answered === until) reached()
          }
        }

        const all = Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)))
        yield* Effect.promise(() => Promise.race([enough, all]))
        yield* registry.kill
        yield* Effect.promise(() => all)
        agent.destroy()
        assert.isAtLeast(answered, until)
        assert.isAtLeast(unanswered, 1, "the registry was killed in the middle of requests")

        const restarted = yield* spawn(["--dir", directory])
        const plain = new Http.Agent()
        const reply = yield* Effect.promise(() => request(plain, restarted.url, "GET", "/api/v1/services"))
        const services: ReadonlyArray<{ id: string; name: string; version: string; api_key: string }> = JSON.parse(
          reply?.text ?? ""
        )
        const byName = new Map(services.map((service) => [service.name, service]))
        assert.strictEqual(byName.size, services.length)
        for (const [name, { gone, id, version }] of told) {
          const service = byName.get(name)
          // A later registration that nobody was told of may have been stored too.
          if (gone) {
            if (service !== undefined) assert.notStrictEqual(service.id, id, `${name} was deregistered`)
          } else {
            assert.strictEqual(service?.id, id, `${name} was answered with 201`)
            assert.isAtLeast(Number(service?.version), version)
            assert.strictEqual(service?.api_key, `key-${service?.version}`)
          }
        }
        const clients = yield* Effect.promise(() => request(plain, restarted.url, "GET", "/api/v1/download-clients"))
        const listed: ReadonlyArray<{ name: string }> = JSON.parse(clients?.text ?? "")
        for (const [name, { gone }] of told) {
          const isClient = Number(name.split("-")[1]) % 2 === 0
          if (isClient && !gone) assert.isTrue(listed.some((client) => client.name === name), name)
        }
        yield* restarted.kill
      }
      assert.isAbove(told.size, 50)
    }), 60_000)

  it.live("starts over a directory in which records were torn, with all others", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const agent = new Http.Agent()
      const first = yield* spawn(["--dir", directory])
      for (const name of ["a", "b"]) {
        const reply = yield* Effect.promise(() =>
          request(agent, first.url, "POST", "/api/v1/services/register", { name, type: "t", api_url: "http://x" })
        )
        assert.strictEqual(reply?.status, 201)
      }
      yield* first.kill
      const files = yield* Effect.promise(() => Fs.readdir(directory))
      for (const file of files) {
        const path = Path.join(directory, file)
        const text = yield* Effect.promise(() => Fs.readFile(path, "utf8"))
        if (text.includes("\"name\":\"a\"")) yield* Effect.promise(() => Fs.writeFile(path, text.slice(0, 40)))
      }
      const second = yield* spawn(["--dir", directory])
      const reply = yield* Effect.promise(() => request(agent, second.url, "GET", "/api/v1/services"))
      assert.deepStrictEqual(JSON.parse(reply?.text ?? "").map((service: { name: string }) => service.name), ["b"])
    }))
})

describe("the registry as a process", () => {
  it.live("stops when it is told to, and when its parent is gone", () =>
    Effect.gen(function*() {
      for (const end of ["SIGTERM", "SIGINT", "stdin"] as const) {
        const child = ChildProcess.spawn(process.execPath, [main, "--until-stdin-ends"], {
          stdio: ["pipe", "pipe", "inherit"]
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
        const exited = once(child, "exit")
        yield* Effect.promise(() => once(createInterface(child.stdout), "line"))
        if (end === "stdin") child.stdin.end()
        else child.kill(end)
        const [code, signal] = yield* Effect.promise(() => exited)
        assert.isNull(signal, end)
        assert.oneOf(code, [0, 130], end)
      }
    }))

  it.live("takes the key from the environment, and options from its arguments", () =>
    Effect.gen(function*() {
      const registry = yield* spawn(["--heartbeat-unknown", "204", "--port", "0"])
      const agent = new Http.Agent()
      const reply = yield* Effect.promise(() =>
        request(agent, registry.url, "PUT", "/api/v1/services/nobody/heartbeat")
      )
      assert.strictEqual(reply?.status, 204)
      const child = ChildProcess.spawn(process.execPath, [main], {
        stdio: ["ignore", "pipe", "inherit"],
        env: { ...process.env, LIFELINE_REGISTRY_API_KEY: "from-env" }
      })
      yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
      const [line] = yield* Effect.promise(() => once(createInterface(child.stdout), "line"))
      const url = String(JSON.parse(String(line)).url)
      const refused = yield* Effect.promise(() => request(agent, url, "GET", "/api/v1/services"))
      assert.strictEqual(refused?.status, 401)
    }))

  it.live("exits with an error for arguments that it does not know", () =>
    Effect.gen(function*() {
      for (const args of [["--prot", "1"], ["--port", "99999"], ["--heartbeat-unknown", "500"]]) {
        const child = ChildProcess.spawn(process.execPath, [main, ...args], { stdio: ["ignore", "ignore", "ignore"] })
        yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
        const [code] = yield* Effect.promise(() => once(child, "exit"))
        assert.strictEqual(code, 1)
      }
    }))
})
