// The tunnel over loopback: a server of bore that joins visitors with data connections, a local service, and sockets of node:net
// at both ends.
import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as NodeDialer from "effect-lifeline/node/NodeDialer"
import * as Tunnel from "effect-lifeline/Tunnel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import type * as Net from "node:net"
import { fileURLToPath } from "node:url"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { crc32 } from "node:zlib"
import * as Relay from "./support/boreRelay.ts"
import * as Leaks from "./support/leaks.ts"
import * as Dist from "./support/runtimes/Dist.ts"
import * as Process from "./support/runtimes/Process.ts"
import * as Watch from "./support/runtimes/Watch.ts"
import { all, echo, fate, makeRelay, send, serve, sha, until, visit } from "./support/tunnel/sockets.ts"

const secret = "open sesame"

/** Comes back soon. */
const reconnect = Backoff.make({ base: 20, cap: 100, floor: 10 })

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

/** Bytes of buffers that are in use. What is free is freed by a thread of its own. */
const held = Effect.gen(function*() {
  for (let n = 0; n < 3; n++) {
    gc()
    yield* Effect.sleep("100 millis")
  }
  return process.memoryUsage().arrayBuffers
})

const tags = (error: { readonly _tag: string; readonly reason?: unknown } | undefined) => {
  const { reason } = (error ?? {}) as { readonly reason?: { readonly _tag?: string } }
  return reason?._tag === undefined ? error?._tag : `${error?._tag}.${reason._tag}`
}

/** A tunnel that is ready, with its events as they come. */
const open = Effect.fnUntraced(function*(
  relay: { readonly port: number },
  local: number,
  options: Partial<Tunnel.Options> = {}
) {
  const tunnel = yield* Tunnel.make({
    server: { host: "127.0.0.1", port: relay.port },
    local: { host: "127.0.0.1", port: local },
    reconnect,
    ...options
  }).pipe(Effect.provide(NodeDialer.layer))
  const events = Watch.make<Tunnel.Event>((event) => JSON.stringify(event))
  yield* Effect.forkScoped(
    Stream.runForEach(tunnel.events, (event) => Effect.sync(() => events.add(event))),
    { startImmediately: true }
  )
  const { port } = yield* tunnel.channel.session
  /** The n-th event of this kind, from 1. */
  const event = <T extends Tunnel.Event["_tag"]>(tag: T, n = 1) =>
    events.until(
      `${tag} ${n}`,
      (seen) => seen.filter((event): event is Extract<Tunnel.Event, { readonly _tag: T }> => event._tag === tag)[n - 1]
    )
  return { tunnel, event, events: events.seen, port }
})

describe("Tunnel over TCP", () => {
  it.live.each([undefined, secret])(
    "bytes arrive as they were, both ways at once; secret: %s",
    (secret) =>
      Effect.gen(function*() {
        const up = randomBytes(12_000_001)
        const down = randomBytes(9_000_003)
        const relay = yield* makeRelay({ secret })
        let received: Promise<Buffer> | undefined
        const service = yield* serve((socket) => {
          received = all(socket)
          send(socket, down)
        })
        const { event, port, tunnel } = yield* open(
          relay,
          service.port,
          secret === undefined ? {} : { secret: Redacted.make(secret) }
        )
        const visitor = visit(port)
        send(visitor, up)
        assert.strictEqual(sha(yield* Effect.promise(() => all(visitor))), sha(down))
        assert.strictEqual(sha((yield* Effect.promise(async () => received)) ?? Buffer.of()), sha(up))
        const closed = yield* event("Closed")
        assert.deepInclude(closed, { connection: 1, bytesIn: up.length, bytesOut: down.length, cause: undefined })
        assert.deepStrictEqual(yield* tunnel.stats, {
          open: 0,
          opened: 1,
          closed: 1,
          failed: 0,
          bytesIn: up.length,
          bytesOut: down.length
        })
      })
  )

  it.live("the end of one direction is passed on, and the other goes on: the visitor first", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay()
      // Answers only when it knows that there is nothing more.
      const service = yield* serve((socket) => void all(socket).then((bytes) => socket.end(`got ${bytes.length}`)))
      const { event, port } = yield* open(relay, service.port)
      const visitor = visit(port)
      visitor.end("x".repeat(100_000))
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "got 100000")
      assert.isUndefined((yield* event("Closed")).cause)
    }))

  it.live("the end of one direction is passed on, and the other goes on: the service first", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay()
      let received: Promise<Buffer> | undefined
      const service = yield* serve((socket) => {
        received = all(socket)
        socket.end("that is all")
      })
      const { event, port } = yield* open(relay, service.port)
      const visitor = visit(port)
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "that is all")
      visitor.end("and this")
      yield* event("Closed")
      assert.strictEqual(String(yield* Effect.promise(async () => received)), "and this")
    }))

  it.live("who does not read holds up who sends; nothing is lost when it reads again", () =>
    Effect.gen(function*() {
      const size = 96 << 20
      const relay = yield* makeRelay()
      const arrived: Array<Net.Socket> = []
      const service = yield* serve((socket) => void arrived.push(socket.pause()))
      const { event, port, tunnel } = yield* open(relay, service.port)
      const before = yield* held
      const visitor = visit(port)
      const chunk = randomBytes(1 << 20)
      const hash = createHash("sha256")
      let sent = 0
      const push = (): void => {
        while (sent < size) {
          sent += chunk.length
          hash.update(chunk)
          if (!visitor.write(chunk)) return void visitor.once("drain", push)
        }
        visitor.end()
      }
      push()
      yield* event("Opened")
      // Until nothing has moved for half a second.
      for (let n = 0, last = -1; n < 100 && last !== sent; n++) {
        last = sent
        yield* Effect.sleep("500 millis")
      }
      const { bytesIn } = yield* tunnel.stats
      // The buffers of the system, of which there are six on the way; not the 96 MB.
      assert.isBelow(sent, size / 2)
      assert.isBelow(bytesIn, size / 4)
      // What this process holds beyond what was there: two chunks of the visitor, some 64 kB at each of the other sockets.
      assert.isBelow((yield* held) - before, 8 << 20)
      const received = createHash("sha256")
      arrived[0]?.on("data", (bytes) => received.update(bytes)).on("end", () => arrived[0]?.end()).resume()
      const closed = yield* event("Closed")
      assert.strictEqual(closed.bytesIn, size)
      assert.strictEqual(received.digest("hex"), hash.digest("hex"))
    }), 120_000)

  it.live.each([undefined, secret])(
    "what comes right behind the handshake, before anything was accepted, is the visitor's; secret: %s",
    (secret) =>
      Effect.gen(function*() {
        const early = "early\0bytes\0"
        const relay = yield* makeRelay({
          secret,
          instead: (socket, n) => {
            if (n !== 1) return false
            socket.write((secret === undefined ? "" : Relay.frame({ Challenge: crypto.randomUUID() })) + early)
            socket.on("data", (bytes) => {
              if (bytes.includes("Accept")) socket.end("late")
            })
            return true
          }
        })
        const received = Promise.withResolvers<Buffer>()
        const service = yield* serve((socket) => void all(socket).then(received.resolve))
        const { port } = yield* open(
          relay,
          service.port,
          secret === undefined ? {} : { secret: Redacted.make(secret) }
        )
        visit(port)
        assert.strictEqual(String(yield* Effect.promise(() => received.promise)), `${early}late`)
      })
  )

  it.live("a service that is not there costs that connection, with a line in the log; it is not the end", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel === "Warn") lines.push(String(message))
      })
      const relay = yield* makeRelay({ secret })
      const reserved = yield* serve(echo)
      yield* Effect.promise(reserved.stop)
      const { event, port, tunnel } = yield* Effect.provide(
        open(relay, reserved.port, { secret: Redacted.make(secret) }),
        Logger.layer([logger])
      )
      const hungUp = visit(port)
      const failed = yield* event("Failed")
      assert.strictEqual(tags(failed.cause), "Transient.Unreachable")
      assert.strictEqual(failed.connection, 1)
      yield* Effect.promise(() => fate(hungUp))
      assert.strictEqual(lines.length, 1)
      assert.include(lines[0], `connect to the local service (127.0.0.1:${reserved.port})`)
      assert.include(lines[0], "ECONNREFUSED; check that it runs")
      yield* serve(echo, reserved.port)
      const visitor = visit(port)
      visitor.end("hello")
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "hello")
      yield* event("Closed")
      assert.deepInclude(yield* tunnel.stats, { open: 0, opened: 1, closed: 1, failed: 1 })
    }))

  it.live("a refusal of the proof fails that connection, and nothing of it reaches the service", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay({
        secret,
        instead: (socket, n) => {
          if (n !== 1) return false
          socket.write(Relay.frame({ Challenge: crypto.randomUUID() }))
          socket.once("data", () => socket.end(Relay.frame({ Error: "invalid secret" })))
          return true
        }
      })
      const received: Array<string> = []
      const service = yield* serve((socket) => {
        socket.on("data", (bytes) => received.push(bytes.toString()))
        socket.pipe(socket)
      })
      const { event, port } = yield* open(relay, service.port, { secret: Redacted.make(secret) })
      visit(port)
      const { cause } = yield* event("Closed")
      assert.strictEqual(tags(cause), "AuthFailed.Unauthorized")
      assert.include(cause?.message, "invalid secret")
      const visitor = visit(port)
      visitor.end("hello")
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "hello")
      assert.deepStrictEqual(received, ["hello"])
    }))

  it.live("a visitor's bytes that look like a refusal arrive all the same", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay({ secret })
      const service = yield* serve(echo)
      const { port } = yield* open(relay, service.port, { secret: Redacted.make(secret) })
      const visitor = visit(port)
      const text = Relay.frame({ Error: "invalid secret" })
      visitor.write(text)
      const [bytes] = yield* Effect.promise(() => once(visitor, "data"))
      assert.strictEqual(String(bytes), text)
      visitor.end("more")
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "more")
    }))

  it.live.each(["visitor", "service"] as const)("a reset by the %s resets the other", (who) =>
    Effect.gen(function*() {
      const relay = yield* makeRelay()
      const arrived = Promise.withResolvers<Net.Socket>()
      const service = yield* serve((socket) => arrived.resolve(socket))
      const { event, port, tunnel } = yield* open(relay, service.port)
      const visitor = visit(port)
      const served = yield* Effect.promise(() => arrived.promise)
      yield* event("Opened")
      const [one, other] = who === "visitor" ? [visitor, served] : [served, visitor]
      one.write("half of it")
      yield* Effect.promise(() => once(other, "data"))
      one.resetAndDestroy()
      assert.strictEqual(yield* Effect.promise(() => fate(other)), "ECONNRESET")
      assert.strictEqual(tags((yield* event("Closed")).cause), "Transient.Unreachable")
      assert.strictEqual((yield* tunnel.stats).open, 0)
    }))

  it.live("open connections survive the loss of the control connection, which comes back for the same port", () =>
    Effect.gen(function*() {
      const relay = yield* makeRelay({ secret })
      const service = yield* serve(echo)
      const { port, tunnel } = yield* open(relay, service.port, { secret: Redacted.make(secret) })
      const visitor = visit(port)
      const say = (text: string) =>
        Effect.promise(async () => {
          visitor.write(text)
          const [bytes] = await once(visitor, "data")
          return String(bytes)
        })
      assert.strictEqual(yield* say("before"), "before")
      const lost = yield* Effect.forkChild(
        Stream.runCollect(Stream.take(tunnel.channel.events, 2)),
        { startImmediately: true }
      )
      relay.dropControl()
      assert.deepStrictEqual((yield* Fiber.join(lost)).map(({ _tag }) => _tag), ["Lost", "Ready"])
      assert.strictEqual(yield* say("after"), "after")
      assert.deepStrictEqual(yield* tunnel.channel.session, { port })
      const another = visit(port)
      another.end("another")
      assert.strictEqual(String(yield* Effect.promise(() => all(another))), "another")
      assert.strictEqual(yield* say("still"), "still")
    }))

  it.live("a server that is restarted: the same port, and visitors come again", () =>
    Effect.gen(function*() {
      const first = yield* makeRelay()
      const service = yield* serve(echo)
      const { event, port, tunnel } = yield* open(first, service.port)
      visit(port).write("x")
      yield* event("Opened")
      yield* Effect.promise(first.stop)
      yield* event("Closed")
      const second = yield* makeRelay({ listen: first.port })
      yield* until(() => second.given() === port)
      assert.deepStrictEqual(yield* tunnel.channel.session, { port })
      const visitor = visit(port)
      visitor.end("again")
      assert.strictEqual(String(yield* Effect.promise(() => all(visitor))), "again")
    }))

  it.live("the end of the scope resets what is open, and leaves no fiber, no socket, no timer", () =>
    Effect.gen(function*() {
      const fibers = Leaks.fiberCounter()
      const beyond = yield* Leaks.resources
      yield* fibers.watch(Effect.scoped(Effect.gen(function*() {
        const relay = yield* makeRelay({ secret })
        const served: Array<Net.Socket> = []
        const service = yield* serve((socket) => {
          served.push(socket)
          echo(socket)
        })
        const scope = yield* Scope.make()
        const { event, port } = yield* Scope.provide(
          open(relay, service.port, { secret: Redacted.make(secret) }),
          scope
        )
        const visitors = Array.from({ length: 20 }, () => visit(port))
        for (const visitor of visitors) {
          visitor.write("x")
          yield* Effect.promise(() => once(visitor, "data"))
        }
        // One that is over by then.
        visitors[0]?.end()
        yield* event("Closed")
        const fates = visitors.slice(1).map(fate)
        const ends = served.slice(1).map(fate)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual([...new Set(yield* Effect.promise(() => Promise.all(ends)))], ["ECONNRESET"])
        assert.deepStrictEqual([...new Set(yield* Effect.promise(() => Promise.all(fates)))], ["ECONNRESET"])
        yield* until(() => relay.open().clients === 0)
      })))
      assert.strictEqual(yield* fibers.left, 0)
      assert.deepStrictEqual(yield* beyond, [])
    }))
})

describe("a tunnel in a process of its own", () => {
  beforeAll(() => Effect.runPromise(Dist.ensure), 120_000)

  const program = fileURLToPath(new URL("./support/tunnel/client.ts", import.meta.url))

  const start = Effect.fnUntraced(function*(local: number) {
    const relay = yield* makeRelay()
    const client = yield* Process.startRuntime("node", [program, String(relay.port), String(local)])
    const [, port] = yield* client.line(/^listening at (\d+)$/)
    let asked = 0
    /** What it holds, and what it carried. */
    const holds = Effect.gen(function*() {
      asked++
      yield* client.kill("SIGUSR2")
      yield* until(() => client.lines.filter((line) => line.startsWith("holds ")).length === asked)
      const line = client.lines.findLast((line) => line.startsWith("holds ")) ?? ""
      return JSON.parse(line.slice(6)) as Tunnel.Stats & { readonly held: number }
    })
    return { client, holds, port: Number(port) }
  })

  it.live(
    "1,000 connections at once move 1 GB without loss, and the memory is then as before",
    () =>
      Effect.gen(function*() {
        const many = 1000
        const size = 500_000
        const service = yield* serve(echo)
        const { holds, port } = yield* start(service.port)
        // Each sends another part of it, so that bytes that came to the wrong one would be seen.
        const pool = randomBytes(size + many * 1000)
        let idle = 0
        /** Connects, waits until all are there, and then sends and receives. */
        const round = (count: number) =>
          Effect.promise(async () => {
            const visitors = await Promise.all(Array.from({ length: count }, async () => {
              const visitor = visit(port)
              visitor.write("?")
              await once(visitor, "data")
              return visitor
            }))
            return { open: visitors }
          }).pipe(
            Effect.tap(({ open }) =>
              Effect.map(holds, (stats) => {
                assert.strictEqual(stats.open, open.length)
                idle = stats.held
              })
            ),
            Effect.flatMap(({ open }) =>
              Effect.promise(() =>
                Promise.all(open.map(async (visitor, n) => {
                  const bytes = pool.subarray(n * 1000, n * 1000 + size)
                  let sum = 0
                  let length = 0
                  visitor.on("data", (chunk) => {
                    sum = crc32(chunk, sum)
                    length += chunk.length
                  })
                  visitor.end(bytes)
                  await once(visitor, "end")
                  return length === size && sum === crc32(bytes)
                }))
              )
            )
          )
        // Once with few: what every program needs once is there by then.
        yield* round(50)
        const before = yield* holds
        const whole = yield* round(many)
        assert.strictEqual(whole.filter(Boolean).length, many)
        const after = yield* holds
        assert.deepInclude(after, { open: 0, opened: 50 + many, closed: 50 + many, failed: 0 })
        assert.strictEqual(after.bytesIn + after.bytesOut - before.bytesIn - before.bytesOut, many * (size + 1) * 2)
        assert.isBelow((idle - before.held) / many, 64_000)
        assert.isBelow(after.held - before.held, 8 << 20)
      }),
    60_000
  )

  it.live("Ctrl-C: hangs up on everyone, and ends within a second", () =>
    Effect.gen(function*() {
      const service = yield* serve(echo)
      const { client, port } = yield* start(service.port)
      const visitor = visit(port)
      visitor.write("x")
      yield* Effect.promise(() => once(visitor, "data"))
      yield* client.kill("SIGINT")
      const { code } = yield* client.exited("5 seconds")
      assert.strictEqual(code, 130)
      assert.include(client.lines, "the end")
      assert.strictEqual(yield* Effect.promise(() => fate(visitor)), "ECONNRESET")
    }))
})
