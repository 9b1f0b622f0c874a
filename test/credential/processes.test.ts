// Programs that share a directory with a key and a token, and are all told at once that the token is no good.
import { assert, describe, it } from "@effect/vitest"
import * as Credential from "effect-lifeline/Credential"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { once } from "node:events"
import * as Fs from "node:fs/promises"
import * as Http from "node:http"
import { fileURLToPath } from "node:url"
import { layer, name } from "../support/credential/shared.ts"
import { spawn, temporary } from "./support.ts"

const program = fileURLToPath(new URL("../support/credential/program.ts", import.meta.url))

interface Server {
  readonly url: string
  /** What is accepted. */
  token: string
  refreshes: boolean
  /** What came, as `"beat DPoP t1 401"`. */
  readonly received: Array<string>
  readonly keys: Set<string>
  /** How many beats are to be rejected before a refresh or a revival is answered: all processes are at it by then. */
  crowd: number
}

/** Gives tokens, and counts what for. */
const serve = Effect.acquireRelease(
  Effect.promise(async () => {
    let minted = 1
    const waiting: Array<() => void> = []
    const self: Server & { readonly close: () => void } = {
      url: "",
      token: "t1",
      refreshes: true,
      received: [],
      keys: new Set(),
      crowd: 0,
      close: () => {
        server.closeAllConnections()
        server.close()
      }
    }
    const server = Http.createServer((request, response) => {
      const operation = String(request.url).slice(1)
      const shown = request.headers.authorization ?? (request.headers["dpop"] === undefined ? "nothing" : "proof")
      const answer = (status: number, body: object = {}) => {
        self.received.push(`${operation} ${shown} ${status}`)
        response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
      }
      request.resume()
      if (operation === "beat") {
        const accepted = shown === `DPoP ${self.token}`
        answer(accepted ? 200 : 401)
        if (!accepted && --self.crowd <= 0) {
          for (const go of waiting.splice(0)) go()
        }
        return
      }
      self.keys.add(String(request.headers["idempotency-key"]))
      const go = () => {
        if (operation === "refresh" && !self.refreshes) return answer(401)
        self.token = `t${++minted}`
        // Who comes late has time to do it once more.
        setTimeout(() => answer(200, { token: self.token }), 200)
      }
      if (self.crowd > 0) waiting.push(go)
      else go()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    return Object.assign(self, { url: `http://127.0.0.1:${port}` })
  }),
  ({ close }) => Effect.sync(close)
)

/** The key that all have, and the first token. */
const prepare = (directory: string) =>
  Effect.flatMap(Credential.Credential, (credential) => credential.accept({ value: Redacted.make("t1"), jti: "t1" }))
    .pipe(
      Effect.provide(Layer.provide(Credential.layerManaged({ name }), layer(directory)))
    )

const rounds = 4

describe("processes that share a credential", () => {
  for (const count of [2, 3]) {
    it.live(`${count} that are rejected at once: one refresh, one revival, one token`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const server = yield* serve
        yield* prepare(directory)
        yield* Effect.scoped(Effect.gen(function*() {
          let processes = yield* Effect.all(
            Array.from({ length: count }, () => spawn(program, [server.url, directory])),
            {
              concurrency: "unbounded"
            }
          )
          for (let round = 0; round < rounds; round++) {
            const before = server.token
            server.token = "none yet"
            server.refreshes = round % 2 === 0
            server.crowd = count
            server.received.length = 0
            server.keys.clear()
            const results = yield* Effect.all(processes.map(({ ask }) => ask), { concurrency: "unbounded" })
            const calls = server.received.filter((line) => !line.startsWith("beat"))
            // What was rejected is not sent again, by nobody.
            assert.deepStrictEqual(
              calls,
              server.refreshes ? ["refresh proof 200"] : ["refresh proof 401", "revive proof 200"],
              `round ${round}`
            )
            assert.strictEqual(server.keys.size, calls.length)
            assert.deepStrictEqual(
              server.received.filter((line) => line.startsWith("beat")).toSorted(),
              [
                ...Array.from({ length: count }, () => `beat DPoP ${before} 401`),
                ...Array.from({ length: count }, () => `beat DPoP ${server.token} 200`)
              ].toSorted()
            )
            assert.deepStrictEqual(results, Array.from({ length: count }, () => ({ jti: server.token })))
            // Half of the time by processes that have just been started.
            if (round === 1) {
              processes = yield* Effect.all(
                Array.from({ length: count }, () => spawn(program, [server.url, directory])),
                {
                  concurrency: "unbounded"
                }
              )
            }
          }
        }))
        // Neither a claim nor a draft.
        assert.deepStrictEqual((yield* Effect.promise(() => Fs.readdir(directory))).toSorted(), [
          "credential%2Fstate%2Fhaul.value",
          "credential%2Ftoken%2Fhaul.value",
          "proof-key%2Fhaul.value"
        ])
      }), 60_000)
  }
})
