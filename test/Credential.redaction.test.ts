// Every scenario with secrets that can be found, and a search of everything that can be seen from outside.
import { assert, describe, it } from "@effect/vitest"
import * as Cipher from "effect-lifeline/Cipher"
import * as Classify from "effect-lifeline/Classify"
import * as Credential from "effect-lifeline/Credential"
import type * as Proof from "effect-lifeline/Proof"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import type { Answer } from "./support/credentials.ts"
import {
  fakeProof,
  makeServer,
  makeStore,
  providers,
  storeFailed,
  supplied,
  token as tokenOf,
  unauthorized,
  unavailable,
  url
} from "./support/credentials.ts"
import * as Seen from "./support/seen.ts"

/** Its `jti` is no secret. */
const token = (value: string, expiresAt?: number): Credential.Token => ({ ...tokenOf(value, expiresAt), jti: "a name" })

const cipherKey = "canary-cipher-key-of-32-bytes-ok"

const proof: Proof.Proof["Service"] = {
  ...fakeProof,
  headers: ({ token }) =>
    Effect.succeed({
      dpop: Redacted.make("canary-proof"),
      ...(token === undefined ? {} : { authorization: Redacted.make(`DPoP ${Redacted.value(token)}`) })
    })
}

const refused = Classify.make("Conflict", { operation: "heartbeat", target: url })
const gone = Classify.make("LeaseExpired", { operation: "heartbeat", target: url })

const dies = Effect.die(new Error("canary-token-1 and canary-proof"))
const diesOddly = Effect.die({ secret: "canary-token-1" })
const next = token("canary-token-2", 200_000)

interface Scenario {
  readonly refresh: ReadonlyArray<Answer<ReturnType<typeof unauthorized> | ReturnType<typeof unavailable>>>
  readonly revive: ReadonlyArray<
    Answer<ReturnType<typeof unauthorized> | ReturnType<typeof unavailable> | typeof refused | typeof gone>
  >
}

const scenarios: Readonly<Record<string, Scenario>> = {
  "all is well": { refresh: [next], revive: [next] },
  "refused": { refresh: [unauthorized("refresh")], revive: [refused] },
  "gone": { refresh: [unauthorized("refresh")], revive: [gone] },
  "for now": {
    refresh: [unavailable("refresh"), "hang", unauthorized("refresh")],
    revive: [unavailable("heartbeat"), next]
  },
  "dies": { refresh: [dies, diesOddly, unauthorized("refresh")], revive: [dies, diesOddly] },
  "the same again": { refresh: [token("canary-token-1")], revive: [token("canary-token-1")] },
  "cannot be sent": { refresh: [token("canary\n-token-3")], revive: [token("canary \u0100 token-4")] },
  "expired": { refresh: [token("canary-token-5", 1)], revive: [token("canary-token-6", 1)] }
}

const cases = Object.entries(scenarios).flatMap(([name, scenario]) =>
  ["managed", "supplied"].flatMap((provenance) =>
    [true, false].map((works) =>
      [`${name}, ${provenance}, ${works ? "a store" : "a store that fails"}`, provenance, works, scenario] as const
    )
  )
)

describe("no secret is seen", () => {
  it.effect.each(cases)("%s", ([, provenance, works, scenario]) =>
    Effect.gen(function*() {
      const { log, out, show, showExit, spans, tracer } = Seen.make()
      const store = makeStore()
      const server = makeServer()
      const options: Credential.Options = {
        provenance: provenance === "managed" ? { _tag: "Managed", proof } : supplied,
        name: "lease",
        cipher: Cipher.aesGcm(Redacted.make(new TextEncoder().encode(cipherKey))),
        ...providers(server, scenario)
      }
      const boot = (seed?: Credential.Token) =>
        Effect.provideService(
          Credential.make({ ...options, token: seed }),
          KeyValueStore.KeyValueStore,
          store.store
        )
      yield* Effect.gen(function*() {
        // The cipher takes real time.
        const pumped = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
            for (let n = 0; n < 3000 && fiber.pollUnsafe() === undefined; n++) {
              yield* TestClock.adjust(100)
              yield* TestClock.withLive(Effect.sleep(1))
            }
            return yield* Fiber.join(fiber)
          })
        let credential = yield* boot(token("canary-token-1", 100_000))
        if (!works) store.before = (method) => method === "set" ? Effect.fail(storeFailed) : Effect.void
        yield* Effect.forkScoped(
          Stream.runForEach(credential.changes, (change) => Effect.sync(() => show("change", change)))
        )
        for (let n = 0; n < 6; n++) {
          const beat = Effect.provideService(server.beat, Credential.Credential, credential)
          showExit("guard", yield* pumped(Effect.withSpan(credential.guard(beat), "beat")))
          showExit("discharge", yield* pumped(Effect.withSpan(credential.discharge(beat), "beat")))
          if (n === 2) {
            showExit("refresh", yield* pumped(credential.refresh))
            showExit("revive", yield* pumped(credential.revive))
            showExit("select", yield* pumped(credential.select))
            showExit("authorize", yield* pumped(credential.authorize({ method: "GET", url })))
            showExit("no URL", yield* pumped(credential.authorize({ method: "GET", url: "canary-url?key=canary" })))
          }
          if (n === 3) {
            const again = yield* pumped(boot(token("canary-token-1", 100_000)))
            if (Exit.isSuccess(again)) credential = again.value
          }
          if (n === 4) showExit("accept", yield* pumped(credential.accept(token("canary-token-7", 1))))
          show("credential", credential)
          show("info", Credential.info(credential))
          show("token", yield* credential.token)
        }
        showExit("clear", yield* pumped(credential.clear))
        for (const [key, text] of store.entries) {
          show("stored", [key, text, atob((JSON.parse(text) as { data: string }).data)])
        }
      }).pipe(
        Effect.scoped,
        Effect.provide(Logger.layer([log])),
        Effect.provideService(References.MinimumLogLevel, "Trace"),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      for (const span of spans) show("span", [span.name, [...span.attributes], span.status])
      show("metrics", yield* Metric.snapshot)
      const all = out.join("\n")
      assert.isAbove(out.length, 50)
      // That the search would find one: a value that is shown as it is.
      assert.include(all, "lease")
      const at = all.indexOf("canary")
      assert.strictEqual(at, -1, all.slice(Math.max(0, at - 600), at + 200))
    }))
})
