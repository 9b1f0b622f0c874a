// `lifeline tunnel` as a process, against a server on loopback that follows bore's protocol.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as BoreServer from "../support/boreServer.ts"
import * as HungPort from "../support/hungPort.ts"
import * as Dist from "../support/runtimes/Dist.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Tool from "./tool.ts"

const hellos = (said: ReadonlyArray<string>) =>
  said.filter((line) => line.includes("Hello")).map((line) => line.slice(line.indexOf("{")))

const connections = (said: ReadonlyArray<string>) => said.filter((line) => line.endsWith("connected")).length

/** Says this, whoever it is, and waits for the other side to hang up. */
const saying = (message: string): NonNullable<BoreServer.Options["instead"]> => (socket) => {
  socket.on("end", () => socket.end())
  socket.write(message)
  return true
}

const closedPort = Effect.flatMap(BoreServer.make(), ({ port, stop }) => Effect.as(stop, port))

describe("the tunnel", () => {
  it.live("says where it is on the standard output, and nothing else; asks for any port, or for a given one", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make()
      for (const [args, hello] of [[[], "{\"Hello\":0}"], [["--port", "2222"], "{\"Hello\":2222}"]] as const) {
        const tool = yield* Tool.tunnel(server.port, args)
        const { host, port } = yield* Tool.listening(tool)
        yield* tool.line(new RegExp(`INFO  connected: 127.0.0.1:${port} leads to localhost:9$`))
        assert.strictEqual(host, "127.0.0.1")
        assert.strictEqual(hellos(server.said).at(-1), hello)
        assert.deepStrictEqual(tool.stdout, [`listening at 127.0.0.1:${port}`])
      }
    }))

  it.live.each<readonly [string, Readonly<Record<string, string>>, ReadonlyArray<string>]>([
    ["--secret", {}, ["--secret", "open sesame"]],
    ["LIFELINE_SECRET", { LIFELINE_SECRET: "open sesame" }, []],
    ["BORE_SECRET", { BORE_SECRET: "open sesame" }, []],
    ["--secret before the environment", { LIFELINE_SECRET: "another", BORE_SECRET: "another" }, ["-s", "open sesame"]],
    ["LIFELINE_SECRET before BORE_SECRET", { LIFELINE_SECRET: "open sesame", BORE_SECRET: "another" }, []],
    ["BORE_SECRET where LIFELINE_SECRET is empty", { LIFELINE_SECRET: "", BORE_SECRET: "open sesame" }, []]
  ])("takes the secret from %s", ([, env, args]) =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({ secret: "open sesame" })
      yield* Tool.listening(yield* Tool.tunnel(server.port, args, { env }))
    }))

  it.live("takes what bore's own client takes from the environment; an empty secret is none", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make()
      const env = { BORE_SERVER: `127.0.0.1:${server.port}`, BORE_LOCAL_PORT: "9", BORE_SECRET: "" }
      const tool = yield* Tool.start(["tunnel", "-l", "127.0.0.1"], { env })
      yield* tool.line(/connected: .* leads to 127.0.0.1:9$/)
    }))

  it.live("a server that is restarted: asks for the port that it had, and does not say it again", () =>
    Effect.gen(function*() {
      const first = yield* BoreServer.make({ secret: "open sesame" })
      const tool = yield* Tool.tunnel(first.port, [], { env: { BORE_SECRET: "open sesame" } })
      const { port } = yield* Tool.listening(tool)
      yield* first.stop
      yield* tool.line(/WARN .*next attempt in/)
      const second = yield* BoreServer.make({ listen: first.port, secret: "open sesame" })
      yield* tool.line(new RegExp(`INFO  connected again: 127.0.0.1:${port} leads to localhost:9$`))
      assert.deepStrictEqual(hellos(second.said), [`{"Hello":${port}}`])
      assert.deepStrictEqual(tool.stdout, [`listening at 127.0.0.1:${port}`])
    }))

  it.live("a server that gives another port later: says so", () =>
    Effect.gen(function*() {
      const first = yield* BoreServer.make()
      const tool = yield* Tool.tunnel(first.port, ["--max-reconnect-delay", "1"])
      const { port } = yield* Tool.listening(tool)
      yield* first.stop
      yield* BoreServer.make({ listen: first.port, instead: saying(BoreServer.frame({ Hello: port + 1 })) })
      yield* tool.line(new RegExp(`^listening at 127.0.0.1:${port + 1}$`))
      assert.deepStrictEqual(tool.stdout, [`listening at 127.0.0.1:${port}`, `listening at 127.0.0.1:${port + 1}`])
    }))

  it.live("goes on where nobody reads what it says", () =>
    Effect.gen(function*() {
      const first = yield* BoreServer.make()
      const node = yield* Process.binary("node")
      const command = [
        node,
        Tool.source,
        "tunnel",
        "9",
        "--to",
        `127.0.0.1:${first.port}`,
        "--max-reconnect-delay",
        "1"
      ]
      const shell = yield* Process.start("sh", ["-c", `"$@" | true`, "sh", ...command])
      yield* shell.line(/connected: /)
      yield* first.stop
      // It comes back, and ends as this one wants a secret.
      yield* BoreServer.make({ listen: first.port, secret: "open sesame" })
      yield* shell.line(/FATAL .* asks for a secret/)
      yield* shell.exited()
      assert.notMatch(shell.lines.join("\n"), /EPIPE|^\s+at /m)
    }))
})

describe("exit codes", () => {
  it.live.each<
    readonly [string, BoreServer.Options, ReadonlyArray<string>, { readonly code: number; readonly says: RegExp }]
  >([
    [
      "the wrong secret",
      { secret: "open sesame" },
      ["--secret", "another"],
      { code: 3, says: /does not accept the secret \(it says: invalid secret\)\. Set LIFELINE_SECRET/ }
    ],
    ["no secret", { secret: "open sesame" }, [], {
      code: 3,
      says: /asks for a secret, and there is none\. Set LIFELINE/
    }],
    [
      "a secret that nobody asks for",
      {},
      ["--secret", "open sesame"],
      { code: 3, says: /does not ask for a secret, .* Check --to/ }
    ],
    [
      "a port that is not given",
      { allowed: (port) => port > 1024 },
      ["--port", "80"],
      { code: 4, says: /does not give port 80 \(it says: client port number not in allowed range\)\. Ask for another/ }
    ],
    ["no port at all", { allowed: () => false }, [], { code: 4, says: /does not give a port/ }]
  ])("%s: at once, after one attempt", ([, options, args, { code, says }]) =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make(options)
      const tool = yield* Tool.tunnel(server.port, args)
      const ran = yield* Tool.ran(tool)
      assert.deepStrictEqual({ code: ran.code, stdout: ran.stdout }, { code, stdout: "" })
      const last = tool.stderr.at(-1) ?? ""
      assert.match(last, says)
      assert.match(last, new RegExp(`FATAL .*127\\.0\\.0\\.1:${server.port} .* exitCode=${code}$`))
      assert.strictEqual(tool.stderr.filter((line) => /FATAL|ERROR|WARN/.test(line)).length, 1, "it is said once")
      yield* server.until("it is gone", (said) => said.includes("0: closed"))
      assert.strictEqual(connections(server.said), 1)
    }))

  it.live("--no-reconnect: 6 where there was no connection, whatever a disconnect means", () =>
    Effect.gen(function*() {
      const port = yield* closedPort
      const args = ["--no-reconnect", "--exit-code-on-disconnect", "75"]
      const { code, stderr } = yield* Effect.flatMap(Tool.tunnel(port, args), Tool.ran)
      assert.strictEqual(code, 6)
      assert.match(stderr, new RegExp(`FATAL no connection to 127.0.0.1:${port}: .*ECONNREFUSED`))
    }))

  it.live.each(
    [
      [[], 0, "INFO"],
      [["--exit-code-on-disconnect", "75"], 75, "FATAL"],
      [["--exit-code-on-disconnect", "0"], 0, "INFO"]
    ] as const
  )("--no-reconnect %j: %i when the connection is lost", ([args, expected, level]) =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make()
      const tool = yield* Tool.tunnel(server.port, ["--no-reconnect", ...args])
      yield* Tool.listening(tool)
      yield* server.stop
      const { code } = yield* tool.exited()
      assert.strictEqual(code, expected)
      assert.match(
        tool.stderr.at(-1) ?? "",
        new RegExp(`${level} +the connection to .* was lost: .* exitCode=${code}$`)
      )
    }))

  it.live("a signal ends the whole process, and a shell says so", () =>
    Effect.gen(function*() {
      const port = yield* closedPort
      const node = yield* Process.binary("node")
      const shell = yield* Process.start("sh", [
        "-c",
        `"$@" & pid=$!; echo pid $pid; wait $pid; echo code $?`,
        "sh",
        node,
        Tool.source,
        "tunnel",
        "9",
        "--to",
        `127.0.0.1:${port}`
      ])
      const [, pid] = yield* shell.line(/^pid (\d+)$/)
      yield* shell.line(/next attempt/)
      process.kill(Number(pid), "SIGTERM")
      yield* shell.line(/^code 143$/)
    }))
})

// They wait most of the time.
describe.concurrent("servers that let nobody in", () => {
  it.live("what is none of the protocol, again and again", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({ instead: saying("HTTP/1.1 400 Bad Request\r\n\r\n\0") })
      const tool = yield* Tool.tunnel(server.port, ["--max-reconnect-delay", "1"])
      assert.strictEqual((yield* tool.exited("35 seconds")).code, 5)
      assert.match(
        tool.stderr.at(-1) ?? "",
        /FATAL 10 connections in a row to .* carried nothing; .*\. Check that --to is a server of bore/
      )
      assert.strictEqual(connections(server.said), 10)
    }), 40_000)

  it.live(
    "a server that lets us in no more for a while, e.g. as it still holds our port: is asked until it does",
    () =>
      Effect.gen(function*() {
        const first = yield* BoreServer.make()
        const tool = yield* Tool.tunnel(first.port, ["--max-reconnect-delay", "1", "--log-level", "debug"])
        const { port } = yield* Tool.listening(tool)
        yield* first.stop
        const no = saying(BoreServer.frame({ Error: "port already in use" }))
        const second = yield* BoreServer.make({ listen: first.port, instead: (socket, n) => n < 12 && no(socket, n) })
        yield* tool.line(new RegExp(`connected again: 127.0.0.1:${port} `), "40 seconds")
        assert.strictEqual(hellos(second.said).at(-1), `{"Hello":${port}}`)
        assert.strictEqual(connections(second.said), 13)
      }),
    60_000
  )
})

interface Running {
  readonly tool: Process.Process
  readonly server?: BoreServer.Server
}

/** The tool, as soon as it is so. */
const states = {
  "connecting, and nobody answers": Effect.gen(function*() {
    const tool = yield* Tool.tunnel(yield* HungPort.make)
    yield* tool.line(/connecting to/)
    return { tool }
  }),
  "in the handshake": Effect.gen(function*() {
    const server = yield* BoreServer.make({ instead: saying("") })
    const tool = yield* Tool.tunnel(server.port, ["--secret", "open sesame"])
    yield* server.until("it is connected", (said) => said.includes("0: connected"))
    return { tool, server }
  }),
  "waiting for the next attempt": Effect.gen(function*() {
    const tool = yield* Tool.tunnel(yield* closedPort)
    yield* tool.line(/next attempt in/)
    return { tool }
  }),
  connected: Effect.gen(function*() {
    const server = yield* BoreServer.make()
    const tool = yield* Tool.tunnel(server.port)
    yield* Tool.listening(tool)
    return { tool, server }
  })
} satisfies { readonly [state: string]: Effect.Effect<Running, unknown, Scope.Scope> }

describe("signals: ends by the signal, within a second", () => {
  it.live.each(
    (["SIGINT", "SIGTERM"] as const).flatMap((signal) =>
      (Object.keys(states) as ReadonlyArray<keyof typeof states>).map((state) => [signal, state] as const)
    )
  )("%s, %s", ([signal, state]) =>
    Effect.gen(function*() {
      const { server, tool }: Running = yield* states[state]
      yield* tool.kill(signal)
      assert.deepStrictEqual(yield* tool.exited("1 second"), { code: null, signal })
      // All is closed: it was not cut off at the end of the second.
      assert.match(tool.stderr.at(-1) ?? "", /INFO  stopped$/)
      assert.notMatch(tool.lines.join("\n"), /FATAL|ERROR|^\s+at /m)
      if (server !== undefined) yield* server.until("it is gone", (said) => said.includes("0: closed"))
    }))
})

describe("a program that does not end by itself", () => {
  it.live("is ended within the second, by the signal", () =>
    Effect.gen(function*() {
      const stuck = yield* Process.startRuntime("node", ["test/cli/stuck.ts"])
      yield* stuck.line(/^ready$/)
      yield* stuck.kill("SIGTERM")
      yield* stuck.line(/^closing$/)
      assert.deepStrictEqual(yield* stuck.exited("1 second"), { code: null, signal: "SIGTERM" })
    }))
})

describe("logs, on the standard error output", () => {
  /** Connected, lost, and not let in again: info, warnings and a fatal end. */
  const life = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) {
    const first = yield* BoreServer.make({ secret: env["BORE_SECRET"] })
    const tool = yield* Tool.tunnel(first.port, ["--max-reconnect-delay", "1", ...args], { env })
    yield* Tool.listening(tool)
    const commandLine = Fs.existsSync("/proc/self") ? Fs.readFileSync(`/proc/${tool.pid}/cmdline`, "utf8") : undefined
    yield* first.stop
    yield* BoreServer.make({ listen: first.port, secret: "quite another" })
    return { ...(yield* Tool.ran(tool)), tool, commandLine }
  })

  it.live("as JSON: each line is an object with time, level, message and annotations", () =>
    Effect.gen(function*() {
      const { code, stdout, tool } = yield* life(["--log-format", "json", "--log-level", "all"], { BORE_SECRET: "a" })
      const lines = tool.stderr.map((line) => JSON.parse(line))
      for (const line of lines) {
        assert.hasAllKeys(line, ["timestamp", "level", "message", "annotations"])
        assert.isFalse(Number.isNaN(Date.parse(line.timestamp)))
        assert.isString(line.message)
      }
      const levels = lines.map(({ level }) => level)
      for (const level of ["INFO", "WARN", "FATAL"]) assert.include(levels, level)
      const connected = lines.find(({ annotations }) => annotations.port !== undefined)
      assert.strictEqual(stdout, `listening at 127.0.0.1:${connected?.annotations.port}`)
      assert.deepStrictEqual(lines.at(-1)?.annotations, { exitCode: 3 })
      assert.strictEqual(code, 3)
    }))

  it.live("as text, by default: a line each, with time and level", () =>
    Effect.gen(function*() {
      const { tool } = yield* life([], { BORE_SECRET: "a" })
      for (const line of tool.stderr) assert.match(line, /^\d\d:\d\d:\d\d (INFO |WARN |FATAL) \S/)
    }))

  it.live.each([["error", /^\S+ FATAL [^\n]*$/], ["none", /^$/]] as const)(
    "--log-level %s",
    ([level, expected]) =>
      Effect.gen(function*() {
        const { code, stderr } = yield* life(["--log-level", level], { BORE_SECRET: "a" })
        assert.strictEqual(code, 3)
        assert.match(stderr, expected)
      })
  )

  it.live("what a server says cannot steer the terminal", () =>
    Effect.gen(function*() {
      const server = yield* BoreServer.make({ instead: saying(BoreServer.frame({ Error: "\u001b[31mred\nand more" })) })
      const { stderr } = yield* Effect.flatMap(Tool.tunnel(server.port), Tool.ran)
      assert.include(stderr, "\\x1b[31mred\\x0aand more")
    }))

  it.live.each(
    (["pretty", "json"] as const).flatMap((format) =>
      ([
        [["--secret", "canary"], { BORE_SECRET: "canary" }],
        [[], { BORE_SECRET: "canary" }],
        [[], { BORE_SECRET: "canary", LIFELINE_SECRET: "canary" }]
      ] as const).map(([args, env]) => [format, args, env] as const)
    )
  )("a secret is nowhere: %s, %j %j", ([format, args, env]) =>
    Effect.gen(function*() {
      const flags = ["--log-format", format, "--log-level", "all", ...args]
      const { code, commandLine, tool } = yield* life(flags, env)
      assert.strictEqual(code, 3)
      assert.isAbove(tool.lines.length, 3)
      assert.notInclude(tool.lines.join("\n"), "canary")
      // The first moments aside, not even there; where the system does not have it there is nothing to see.
      assert.notInclude(commandLine ?? "", "canary")
      assert.include(commandLine ?? "tunnel", "tunnel")
    }))
})

describe("as it is installed", () => {
  it.live.each<readonly [Process.Runtime, ReadonlyArray<string>]>([
    ["node", []],
    ["deno", ["run", "--allow-all"]],
    ["bun", ["run"]]
  ])("on %s: connects, reconnects, ends by Ctrl-C", ([runtime, args]) =>
    Effect.gen(function*() {
      yield* Dist.ensure
      const { bin } = JSON.parse(Fs.readFileSync(`${Process.root}/package.json`, "utf8"))
      const first = yield* BoreServer.make({ secret: "open sesame" })
      const tool = yield* Process.startRuntime(
        runtime,
        [...args, bin.lifeline, "tunnel", "9", "--to", `127.0.0.1:${first.port}`, "--max-reconnect-delay", "1"],
        { env: { LIFELINE_SECRET: "open sesame" } }
      )
      const { port } = yield* Tool.listening(tool)
      yield* first.stop
      const second = yield* BoreServer.make({ listen: first.port, secret: "open sesame" })
      yield* tool.line(/connected again/)
      assert.deepStrictEqual(hellos(second.said), [`{"Hello":${port}}`])
      yield* tool.kill("SIGINT")
      assert.deepStrictEqual(yield* tool.exited("1 second"), { code: null, signal: "SIGINT" })
      assert.notMatch(tool.lines.join("\n"), /FATAL|ERROR|^\s+at /m)
    }), 60_000)
})
