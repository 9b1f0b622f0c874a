/** Both ends of a tunnel, as sockets of `node:net`: a server of bore, a service behind the tunnel, visitors. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { createHash } from "node:crypto"
import { once } from "node:events"
import * as Net from "node:net"
import * as Relay from "../boreRelay.ts"

export const makeRelay = (options?: Relay.Options) =>
  Effect.acquireRelease(Effect.promise(() => Relay.start(options)), ({ stop }) => Effect.promise(stop))

/** The service behind the tunnel. */
export const serve = (onConnection: (socket: Net.Socket) => void, port = 0) =>
  Effect.acquireRelease(Effect.promise(() => Relay.serve(port, onConnection)), ({ stop }) => Effect.promise(stop))

export const echo = (socket: Net.Socket): void => void socket.pipe(socket)

/** Everything that came, once the other side ended. */
export const all = async (socket: Net.Socket): Promise<Buffer> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

export const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")

export const visit = (port: number): Net.Socket => {
  const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  socket.on("error", () => {})
  return socket
}

/** Sends it all, then the end; a slow receiver slows it down. */
export const send = (socket: Net.Socket, bytes: Uint8Array): void => void socket.end(bytes)

/** What the socket ended with. */
export const fate = async (socket: Net.Socket): Promise<string> => {
  socket.resume()
  if (socket.errored !== null) return "code" in socket.errored ? String(socket.errored.code) : "error"
  const ended = socket.readableEnded ? Promise.resolve() : once(socket, "end")
  return Promise.race([
    ended.then(() => "end"),
    new Promise<string>((resolve) =>
      socket.once("error", (error) => resolve("code" in error ? String(error.code) : ""))
    )
  ])
}

/** Waits for it, at most 15 seconds. */
export const until = (isSo: () => boolean) =>
  Effect.gen(function*() {
    for (let n = 0; n < 1500 && !isSo(); n++) yield* Effect.sleep("10 millis")
    assert.isTrue(isSo())
  })
