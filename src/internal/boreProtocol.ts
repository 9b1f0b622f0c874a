/** The wire protocol of bore: its messages, and the answer to a challenge. Written from its description, see `Bore`. */
import { WebCrypto } from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { ClientMessage, ServerMessage } from "../Bore.ts"
import * as Classify from "../Classify.ts"
import type { Codec } from "../ControlChannel.ts"
import { text } from "../ControlChannel.ts"
import * as Framing from "../Framing.ts"
import type { Attempted, AuthFailed, Inconclusive } from "../LifelineError.ts"

/** What a peer may send: none of it is trusted to be more than this. */
const Port = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65_535 }))
const Message = Schema.fromJsonString(Schema.Union([
  Schema.Literal("Heartbeat"),
  Schema.Struct({ Challenge: Schema.String }),
  Schema.Struct({ Hello: Port }),
  Schema.Struct({ Connection: Schema.String }),
  Schema.Struct({ Error: Schema.String })
]))
const decode = Schema.decodeUnknownResult(Message)

export const framing: Framing.Framing = Framing.nul({ maxBytes: 256 })

export const codec: Codec<ServerMessage, ClientMessage> = {
  decode: (frame) => Result.flatMap(text.decode(frame), decode),
  encode: (message) => text.encode(JSON.stringify(message))
}

/** The 16 bytes of a UUID. */
export const bytesOf = (uuid: string): Uint8Array<ArrayBuffer> | undefined => {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(uuid)) return undefined
  const bytes = Hex.decode(uuid.replaceAll("-", ""))
  return Result.isSuccess(bytes) ? new Uint8Array(bytes.success) : undefined
}

export const answer = Effect.fnUntraced(function*(
  secret: Redacted.Redacted,
  challenge: string
): Effect.fn.Return<string | undefined> {
  const bytes = bytesOf(challenge)
  if (bytes === undefined) return undefined
  const { subtle } = yield* WebCrypto
  const signed = yield* Effect.promise(async () => {
    const hashed = await subtle.digest("SHA-256", new TextEncoder().encode(Redacted.value(secret)))
    const key = await subtle.importKey("raw", hashed, { name: "HMAC", hash: "SHA-256" }, false, ["sign"])
    return subtle.sign("HMAC", key, bytes)
  })
  return Hex.encode(new Uint8Array(signed))
})

export const isChallenge = (message: ServerMessage): message is { readonly Challenge: string } =>
  typeof message === "object" && "Challenge" in message

/** What answers the first message of a server that is to ask for the secret. */
export const prove = Effect.fnUntraced(function*(
  at: Attempted,
  secret: Redacted.Redacted,
  first: ServerMessage
): Effect.fn.Return<{ readonly Authenticate: string }, AuthFailed | Inconclusive> {
  if (!isChallenge(first)) {
    return yield* Effect.fail(
      typeof first === "object" && "Error" in first
        ? Classify.inconclusive({ ...at, detail: first.Error })
        : Classify.notChallenged(at)
    )
  }
  const proof = yield* answer(secret, first.Challenge)
  return proof === undefined
    ? yield* Effect.fail(Classify.inconclusive({ ...at, detail: "the challenge is not a UUID" }))
    : { Authenticate: proof }
})
