/**
 * A program with a credential, as a process of its own: `node program.ts <url> <directory>`. Key and token are files in the
 * directory. For each line of stdin it beats once; what came of it is a line of JSON.
 */
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { createInterface } from "node:readline"
import * as Classify from "../../../src/Classify.ts"
import * as Credential from "../../../src/Credential.ts"
import type { AuthFailed, Refused, Transient } from "../../../src/LifelineError.ts"
import * as Shared from "./shared.ts"

const [, , url = "", directory = ""] = process.argv

const Token = Schema.Struct({ token: Schema.String })

/** A call that is signed as it is told to be; only a 401 is an answer that counts. */
const call = (path: string, authorizer: Credential.Authorizer, idempotencyKey = "") =>
  Effect.gen(function*() {
    const client = Credential.httpClient(yield* HttpClient.HttpClient, authorizer)
    const request = HttpClientRequest.post(`${url}/${path}`, { headers: { "idempotency-key": idempotencyKey } })
    return yield* Effect.flatMap(client.execute(request), HttpClientResponse.filterStatusOk)
  }).pipe(
    Effect.catchTag("HttpClientError", (error): Effect.Effect<never, AuthFailed | Transient> => {
      const at = { operation: path, target: url, status: error.response?.status }
      return Effect.fail(
        at.status === 401 ? Classify.make("Unauthorized", at) : Classify.make("Unavailable", at)
      )
    })
  )

const askFor = (path: "refresh" | "revive") =>
(
  context: Credential.RefreshContext | Credential.ReviveContext
): Effect.Effect<Credential.Token, AuthFailed | Refused | Transient, HttpClient.HttpClient> =>
  call(path, context, context.idempotencyKey).pipe(
    Effect.flatMap(HttpClientResponse.schemaBodyJson(Token)),
    Effect.map(({ token }) => ({ value: Redacted.make(token), jti: token })),
    Effect.catchTags({ HttpClientError: Effect.die, SchemaError: Effect.die })
  )

const main = Effect.gen(function*() {
  const credential = yield* Credential.Credential
  const beat = Effect.flatMap(
    credential.discharge(call("beat", credential)),
    () => Effect.map(credential.token, (token) => ({ jti: token?.jti }))
  )
  yield* Effect.sync(() => process.stdout.write("ready\n"))
  // It ends with its parent.
  for (const lines = createInterface(process.stdin)[Symbol.asyncIterator]();;) {
    const { done } = yield* Effect.promise(() => lines.next())
    if (done === true) return
    const result = yield* Effect.match(beat, {
      onFailure: (error) => ({ error: error.message }),
      onSuccess: (result) => result
    })
    yield* Effect.sync(() => process.stdout.write(`${JSON.stringify(result)}\n`))
  }
})

const layer = Credential.layerManaged({ name: Shared.name, refresh: askFor("refresh"), revive: askFor("revive") }).pipe(
  Layer.provide(Shared.layer(directory)),
  Layer.provideMerge(FetchHttpClient.layer)
)

const quiet = Layer.succeed(References.MinimumLogLevel, "None")

Effect.runPromise(Effect.scoped(Effect.provide(main, Layer.provideMerge(layer, quiet)))).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exit(1)
  }
)
