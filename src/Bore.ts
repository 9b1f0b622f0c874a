/**
 * Bore: the control connection of a client of [bore](https://github.com/ekzhang/bore), as a `ControlChannel`: says hello to the
 * server, gets a port, and is told of each connection that comes to it. What to do with those is the program's.
 *
 * Messages are JSON, followed by a NUL byte, at most 256 bytes, over TCP. The server lives as long as it sends a heartbeat, at
 * most 500 ms apart; its silence for 8 s is its death.
 *
 * | the server | is |
 * |---|---|
 * | wants a secret, and there is none | `AuthFailed` (`CredentialMissing`) |
 * | does not accept the secret | `AuthFailed` (`Unauthorized`) |
 * | does not ask for the secret that there is: maybe the wrong server | `AuthFailed` (`NotChallenged`); the secret was not used |
 * | does not give the port that was asked for | `Refused` (`Conflict`) |
 * | does not give the port that it had given to us before | `Inconclusive`: it may still hold our old connection; 10 in a row are `NoProgress` |
 * | hangs up, or is silent, in the handshake | `Transient` |
 * | sends what is none of this protocol | `Inconclusive` |
 *
 * The texts of its errors are shown, and not looked at. The protocol has no answer to a secret that was accepted: a refusal
 * comes at once, so the client waits a moment for one (twice what it took to connect, 200 ms to 1 s) before it says hello. One
 * that comes later is taken for a refusal of the port: the end as well on a first connection, tried again on a later one. A
 * server that is silent is asked for a port after 2 s: only one that wants no secret answers that.
 *
 * **Example** (A port on a relay)
 *
 * ```ts
 * import * as NodeSocket from "@effect/platform-node/NodeSocket"
 * import * as Bore from "effect-lifeline/Bore"
 * import * as Effect from "effect/Effect"
 * import * as Redacted from "effect/Redacted"
 * import * as Stream from "effect/Stream"
 *
 * export const program = Effect.gen(function*() {
 *   const channel = yield* Bore.make({
 *     open: NodeSocket.makeNet({
 *       host: "relay.example",
 *       port: Bore.port,
 *       keepAlive: true,
 *       keepAliveInitialDelay: 30_000
 *     }),
 *     secret: Redacted.make("...")
 *   })
 *   yield* Effect.log(`listening at relay.example:${(yield* channel.session).port}`)
 *   yield* Stream.runForEach(channel.messages, (message) => Effect.log(message))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Backoff from "./Backoff.ts"
import * as Classify from "./Classify.ts"
import * as ControlChannel from "./ControlChannel.ts"
import * as Protocol from "./internal/boreProtocol.ts"
import type { AuthFailed, Exhausted, NoProgress, Refused } from "./LifelineError.ts"

/**
 * The TCP port that servers listen on.
 *
 * @category constants
 * @since 0.1.0
 */
export const port = 7835

/**
 * What a server says.
 *
 * @category models
 * @since 0.1.0
 */
export type ServerMessage =
  | "Heartbeat"
  /** Prove that you have the secret: a UUID. */
  | { readonly Challenge: string }
  /** You have this port. */
  | { readonly Hello: number }
  /** Somebody connected to your port: connect again and accept this UUID. */
  | { readonly Connection: string }
  | { readonly Error: string }

/**
 * What a client says.
 *
 * @category models
 * @since 0.1.0
 */
export type ClientMessage =
  | { readonly Authenticate: string }
  /** Give me this port; 0: any. */
  | { readonly Hello: number }
  | { readonly Accept: string }

/**
 * What a handshake obtained.
 *
 * @category models
 * @since 0.1.0
 */
export interface Session {
  /** The port of the server that is ours. It is asked for again on each new connection. */
  readonly port: number
}

/**
 * A connection to a server of bore, in its handshake.
 *
 * @category models
 * @since 0.1.0
 */
export type Link = ControlChannel.Link<ServerMessage, ClientMessage, Session>

/**
 * Framing and codec of the protocol.
 *
 * @category protocol
 * @since 0.1.0
 */
export const protocol: {
  readonly framing: ControlChannel.Options<ServerMessage, ClientMessage, Session>["framing"]
  readonly codec: ControlChannel.Codec<ServerMessage, ClientMessage>
} = { framing: Protocol.framing, codec: Protocol.codec }

/**
 * The answer to a challenge: the hex HMAC-SHA256 of the 16 bytes of the UUID, keyed by the SHA-256 of the secret.
 * `undefined` where the challenge is not a UUID.
 *
 * **Example** (An answer)
 *
 * ```ts
 * import * as Bore from "effect-lifeline/Bore"
 * import * as Redacted from "effect/Redacted"
 *
 * export const answer = Bore.answer(Redacted.make("secret"), "00000000-0000-0000-0000-000000000000")
 * ```
 *
 * @category protocol
 * @since 0.1.0
 */
export const answer: (secret: Redacted.Redacted, challenge: string) => Effect.Effect<string | undefined> =
  Protocol.answer

/** How long a server may take to refuse an answer, by how far away it is. */
const patienceOf = (opened: Duration.Duration): Duration.Duration =>
  Duration.clamp(Duration.times(opened, 2), { minimum: Duration.millis(200), maximum: Duration.seconds(1) })

const evidence = (link: Link, detail?: string) => ({ ...link.at, operation: "handshake", detail })

/** An answer that the protocol does not know at this point. */
const unexpected = (link: Link, message: ServerMessage) =>
  Classify.inconclusive(
    evidence(link, `an unexpected ${typeof message === "string" ? message : Object.keys(message)[0]}`)
  )

/** Proves that we have the secret. `hello` is sent to a server that is silent, to find out whether it wants one. */
const authenticate = Effect.fnUntraced(function*(
  link: Link,
  secret: Redacted.Redacted,
  hello: ClientMessage
): Effect.fn.Return<void, ControlChannel.Failure> {
  // A server that wants a secret says so at once; one that does not waits for us, and gives up after 3 s.
  let first = yield* link.receiveWithin("2 seconds")
  if (first === undefined) {
    yield* link.send(hello)
    first = yield* link.receive
    // It did ask, and what it got was no answer: it will not take another.
    if (Protocol.isChallenge(first)) {
      return yield* Effect.fail(Classify.timedOut({ ...evidence(link), after: Duration.seconds(2) }))
    }
  }
  yield* link.send(yield* Protocol.prove(evidence(link), secret, first))
  // In parts: should this program have been held up, what came meanwhile is read before the time is over.
  const part = Duration.times(patienceOf(link.opened), 0.25)
  let refusal: ServerMessage | undefined
  for (let n = 0; n < 4 && refusal === undefined; n++) refusal = yield* link.receiveWithin(part)
  if (refusal === undefined) return
  return yield* Effect.fail(
    typeof refusal === "object" && ("Error" in refusal || "Challenge" in refusal)
      ? Classify.unauthorized(evidence(link, "Error" in refusal ? refusal.Error : "it asks again"))
      : unexpected(link, refusal)
  )
})

/**
 * The handshake of a control connection: proves that we have the secret, and asks for a port: the one that we had, else
 * `port`, else any.
 *
 * @category protocol
 * @since 0.1.0
 */
export const handshake = (options: {
  readonly secret?: Redacted.Redacted | undefined
  readonly port?: number | undefined
}): (link: Link) => Effect.Effect<Session, ControlChannel.Failure> =>
  Effect.fnUntraced(function*(link) {
    const hello = { Hello: link.previous?.port ?? options.port ?? 0 }
    if (options.secret !== undefined) yield* authenticate(link, options.secret, hello)
    yield* link.send(hello)
    const reply = yield* link.receive
    if (typeof reply === "object") {
      if ("Hello" in reply) return { port: reply.Hello }
      if ("Challenge" in reply && options.secret === undefined) {
        return yield* Effect.fail(Classify.credentialMissing(evidence(link)))
      }
      if ("Error" in reply) {
        return yield* Effect.fail(
          link.previous === undefined
            ? Classify.conflict(evidence(link, reply.Error))
            : Classify.inconclusive(evidence(link, reply.Error))
        )
      }
    }
    return yield* Effect.fail(unexpected(link, reply))
  })

/**
 * What a control connection is made from: `open` is needed; the rest is the protocol's, unless told otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<out R = never> extends
  Omit<
    ControlChannel.Options<ServerMessage, ClientMessage, Session, R>,
    "framing" | "codec" | "handshake" | "isHeartbeat"
  >
{
  /** The port to ask for first. @default 0: any */
  readonly port?: number | undefined
  /** What the server wants to be proven. @default none */
  readonly secret?: Redacted.Redacted | undefined
}

/**
 * The control connection. Messages are those of the server, without its heartbeats. A server that says `Error` on an open
 * connection hangs up by itself.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <R = never>(options: Options<R> & { readonly reconnect: false }): Effect.Effect<
    ControlChannel.ControlChannel<
      ServerMessage,
      ClientMessage,
      Session,
      AuthFailed | Refused | ControlChannel.Disconnected
    >,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
  <R = never>(options: Options<R> & { readonly reconnect?: Backoff.Unbounded | undefined }): Effect.Effect<
    ControlChannel.ControlChannel<ServerMessage, ClientMessage, Session, AuthFailed | Refused | NoProgress>,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
  <R = never>(options: Options<R> & { readonly reconnect?: Backoff.Policy | undefined }): Effect.Effect<
    ControlChannel.ControlChannel<
      ServerMessage,
      ClientMessage,
      Session,
      AuthFailed | Refused | NoProgress | Exhausted
    >,
    never,
    Exclude<R, Scope.Scope> | Scope.Scope
  >
} = (<R>(options: Options<R>) =>
  ControlChannel.make({
    at: { operation: "connect", target: "bore" },
    ...options,
    ...protocol,
    isHeartbeat: (message: ServerMessage) => message === "Heartbeat",
    handshake: handshake(options)
  })) as typeof make
