// No token, proof or key of a lease in anything that can be seen from outside: logs, spans, errors, events, other answers.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { Meddle } from "../support/leaseRegistry.ts"
import { instance, makeProgram, pass, start, startRegistry, timed } from "../support/leaseRegistry.ts"
import * as Seen from "../support/seen.ts"

const apiKey = "canary-api-key"
const own = { ...instance, apiKey: Redacted.make("canary-own-key") }

/** A server that says back what it was sent, in every way that there is. */
const parrot = (status: number): Meddle => (request) => {
  const { authorization = "", dpop = "" } = request.headers
  const words = `${authorization} ${dpop}`
  return Effect.succeed(HttpClientResponse.fromWeb(
    request,
    new Response(JSON.stringify({ title: words, detail: words.split(" ")[1], errors: [{ message: authorization }] }), {
      status,
      headers: {
        "content-type": "application/problem+json",
        "www-authenticate": `DPoP error="invalid_token", error_description="${authorization}"`
      }
    })
  ))
}

describe("no secret is seen", () => {
  it.live(
    "of a lease that is registered, beaten, refreshed, rejected, revived and refused",
    timed((time) => {
      const { log, out, show, showExit, spans, tracer } = Seen.make()
      return Effect.gen(function*() {
        const registry = yield* startRegistry(time, {
          apiKey: Redacted.make(apiKey),
          leases: { reapEvery: "20 millis", revivals: 1 }
        })
        const after = yield* registry.events.position
        const program = yield* makeProgram()
        const options = { apiKey: Redacted.make(apiKey) }
        const run = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>) =>
          Effect.map(Effect.exit(Effect.withSpan(effect, what)), (exit) => {
            showExit(what, exit)
            return exit
          })
        const first = yield* Effect.scoped(Effect.gen(function*() {
          const { credential, registry: client } = yield* start(program, registry.url, options)
          const lease = yield* client.register(own)
          show("lease", lease)
          yield* run("heartbeat", client.heartbeat(lease, own))
          yield* run("refresh", credential.refresh)
          yield* run("heartbeat", client.heartbeat(lease, own))
          for (const status of [200, 400, 401, 403, 404, 409, 410, 429, 500, 503]) {
            program.meddle = parrot(status)
            yield* run(`heartbeat ${status}`, client.heartbeat(lease, own))
            yield* run(`register ${status}`, client.register(own))
            yield* run(`refresh ${status}`, credential.refresh)
            yield* run(`revive ${status}`, credential.revive)
            program.meddle = (request, send) => send(request)
            // What was rejected for good is replaced by hand.
            yield* run("clear", credential.clear)
            yield* run("register", client.register(own))
          }
          program.meddle = (request, send) => Effect.andThen(send(request), send(request))
          yield* run("replayed", client.heartbeat(lease, own))
          program.meddle = (request, send) =>
            send(HttpClientRequest.setHeader(
              request,
              "authorization",
              (request.headers["authorization"] ?? "").replace("DPoP", "Bearer")
            ))
          yield* run("bearer", client.heartbeat(lease, own))
          program.meddle = (request, send) => send(request)
          show("credential", credential)
          show("registry", client)
          return lease
        }))
        for (let n = 0; n < 2; n++) {
          yield* pass(time, "123 minutes")
          yield* registry.events.subscribe({ after }).pipe(
            Stream.filter((message) => message._tag === "Event" && message.event.type === "lease_timed_out"),
            Stream.take(n + 1),
            Stream.runDrain
          )
          yield* Effect.scoped(Effect.gen(function*() {
            const { registry: client } = yield* start(program, registry.url, options)
            const exit = yield* run("revival", client.heartbeat(first, own))
            assert.strictEqual(exit._tag, n === 0 ? "Success" : "Failure")
            if (n > 0) yield* run("register", client.register(own))
          }))
        }
        const thief = yield* makeProgram({ store: program.store })
        const stolen = yield* start(thief, registry.url, options)
        yield* run("stolen", stolen.registry.heartbeat(first, own))
        yield* run("taken", stolen.registry.register(own))
        const events = yield* registry.events.subscribe({ after, idleAfter: "50 millis" }).pipe(
          Stream.takeWhile((message) => message._tag !== "Idle"),
          Stream.runCollect
        )
        show("events", events)
        const secrets = [...program.secrets, ...thief.secrets, apiKey, "canary-own-key"]
        assert.isAbove(secrets.length, 30)
        return secrets
      }).pipe(
        Effect.scoped,
        Effect.provide(Logger.layer([log])),
        Effect.provideService(References.MinimumLogLevel, "Trace"),
        Effect.provideService(Tracer.Tracer, tracer),
        Effect.map((secrets) => {
          for (const { attributes, name, status } of spans) {
            show("span", [name, [...attributes]])
            // What a request succeeded with is the answer itself, which no exporter writes.
            if (status._tag === "Ended" && Exit.isFailure(status.exit)) showExit("failure of a span", status.exit)
          }
          const all = out.join("\n")
          assert.isAbove(spans.filter(({ kind }) => kind === "server").length, 20)
          assert.include(all, "lease_revived")
          for (const secret of secrets) {
            const at = all.indexOf(secret)
            assert.strictEqual(at, -1, all.slice(Math.max(0, at - 300), at + 10))
          }
        })
      )
    })
  )
})
