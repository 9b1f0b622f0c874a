// The command line: what is understood, what is refused and how that is said, what the help tells.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Address from "../../src/cli/internal/address.ts"
import * as Exits from "../../src/cli/internal/exits.ts"
import * as Process from "../support/runtimes/Process.ts"
import * as Tool from "./tool.ts"

const flags = [
  "--to",
  "--port",
  "--secret",
  "--local-host",
  "--no-reconnect",
  "--max-reconnect-delay",
  "--exit-code-on-disconnect",
  "--log-format",
  "--log-level",
  "--help",
  "--version",
  "--completions"
]

const variables = ["LIFELINE_SECRET", "BORE_SECRET", "BORE_SERVER", "BORE_LOCAL_PORT"]

describe("addresses", () => {
  it.each<readonly [string, string, number | undefined]>([
    ["bore.example", "bore.example", undefined],
    ["bore.example:7000", "bore.example", 7000],
    ["10.0.0.1:65535", "10.0.0.1", 65535],
    ["[::1]", "::1", undefined],
    ["[fe80::1%eth0]:7000", "fe80::1%eth0", 7000],
    ["::1", "::1", undefined],
    ["2001:db8::7835", "2001:db8::7835", undefined]
  ])("%s", (text, host, port) => {
    assert.deepStrictEqual(Address.parse(text), Result.succeed({ host, port }))
  })

  it.each([
    "",
    " ",
    ":7000",
    "bore.example:",
    "bore.example:0",
    "bore.example:65536",
    "bore.example:70x",
    "http://bore.example",
    "bore.example/path",
    "user:canary@bore.example",
    "[::1",
    "a b"
  ])("not %o", (text) => {
    const parsed = Address.parse(text)
    assert.isTrue(Result.isFailure(parsed))
    assert.notInclude(JSON.stringify(parsed), "canary")
  })

  it("are shown as they are read", () => {
    assert.strictEqual(Address.show("::1", 1), "[::1]:1")
    assert.strictEqual(Address.show("bore.example", 1), "bore.example:1")
  })
})

describe("help", () => {
  it.live("of the tunnel names every flag, variable and exit code, says that ps shows a secret, and fits a wide terminal", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Tool.run(["tunnel", "--help"])
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
      for (const flag of flags) assert.match(stdout, new RegExp(`^  ${flag}\\b`, "m"))
      for (const [exit, meaning] of Exits.table) assert.include(stdout, `  ${exit.padEnd(12)}${meaning}`)
      for (const exit of Object.values(Exits.codes)) {
        assert.include(Exits.table.map(([shown]) => shown), String(exit), "each exit code is in the table")
      }
      for (const name of ["LIFELINE_SECRET", "BORE_SECRET", "BORE_SERVER", "BORE_LOCAL_PORT"]) {
        assert.include(stdout, name)
      }
      assert.match(stdout, /--secret.*list of processes \(ps\)/)
      assert.isAtMost(Math.max(...stdout.split("\n").map((line) => line.length)), 120)
    }))

  it("and the page about it tell of the same flags, variables and exit codes", () => {
    const page = Fs.readFileSync(`${Process.root}/docs/TUNNEL.md`, "utf8")
    for (const flag of flags) assert.include(page, `\`${flag}`)
    for (const name of variables) assert.include(page, `\`${name}\``)
    for (const [exit] of Exits.table) assert.include(page, `\n| ${exit} |`)
  })

  it.live("of the tool names the command; nothing at all shows it too, as a mistake", () =>
    Effect.gen(function*() {
      const asked = yield* Tool.run(["--help"])
      assert.strictEqual(asked.code, 0)
      assert.include(asked.stdout, "tunnel")
      assert.deepStrictEqual(yield* Tool.run([]), { code: 2, stdout: "", stderr: asked.stdout })
    }))

  it.live("--version is that of the package", () =>
    Effect.gen(function*() {
      const { version } = JSON.parse(Fs.readFileSync(`${Process.root}/package.json`, "utf8"))
      assert.deepStrictEqual(yield* Tool.run(["--version"]), { code: 0, stdout: `lifeline ${version}`, stderr: "" })
    }))

  it.live("--completions is a script", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* Tool.run(["--completions", "bash"])
      assert.strictEqual(code, 0)
      assert.include(stdout, "--max-reconnect-delay")
    }))
})

describe("mistakes: exit code 2, on the standard error output, with how to go on", () => {
  it.live.each<readonly [string, ReadonlyArray<string>, RegExp]>([
    ["no port", ["tunnel", "--to", "x"], /Missing required argument: local-port/],
    [
      "a port that is none",
      ["tunnel", "65536", "--to", "x"],
      /<local-port>: "65536" is not a whole number from 1 to 65535/
    ],
    ["a port that is no number", ["tunnel", "web", "--to", "x"], /<local-port>: "web" is not a whole number/],
    ["no server", ["tunnel", "9"], /Missing required flag: --to/],
    ["a URL as server", ["tunnel", "9", "--to", "http://x"], /--to is a URL: write HOST or HOST:PORT/],
    ["a remote port that is none", ["tunnel", "9", "--to", "x", "--port", "70000"], /--port: "70000" is not/],
    ["a local host with a port", ["tunnel", "9", "--to", "x", "--local-host", "y:1"], /--local-host has a port/],
    [
      "a delay of 0",
      ["tunnel", "9", "--to", "x", "--max-reconnect-delay", "0"],
      /--max-reconnect-delay: "0" .*--no-reconnect/
    ],
    ["a delay below 0", ["tunnel", "9", "--to", "x", "--max-reconnect-delay=-1"], /--max-reconnect-delay: "-1" is not/],
    [
      "a delay of less than 1",
      ["tunnel", "9", "--to", "x", "--max-reconnect-delay", "0.5"],
      /--max-reconnect-delay: "0.5"/
    ],
    [
      "a delay where nothing is delayed",
      ["tunnel", "9", "--to", "x", "--no-reconnect", "--max-reconnect-delay", "9"],
      /--max-reconnect-delay and --no-reconnect exclude each other/
    ],
    [
      "an exit code of a disconnect that does not end it",
      ["tunnel", "9", "--to", "x", "--exit-code-on-disconnect", "75"],
      /--exit-code-on-disconnect goes with --no-reconnect/
    ],
    [
      "an exit code that is none",
      ["tunnel", "9", "--to", "x", "--no-reconnect", "--exit-code-on-disconnect", "256"],
      /--exit-code-on-disconnect: "256"/
    ],
    ["an empty secret", ["tunnel", "9", "--to", "x", "--secret="], /--secret is empty/],
    ["a format that is none", ["tunnel", "9", "--to", "x", "--log-format", "xml"], /--log-format.*"xml"/],
    ["a level that is none", ["tunnel", "9", "--to", "x", "--log-level", "loud"], /--log-level.*"loud"/],
    ["a flag that is none", ["tunnel", "9", "--to", "x", "--sercet"], /--sercet/],
    ["an argument too many", ["tunnel", "9", "10", "--to", "x"], /"10"/],
    ["a command that is none", ["tunnle"], /"tunnle"[^]*tunnel/]
  ])("%s", ([, args, expected]) =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Tool.run(args)
      assert.deepStrictEqual({ code, stdout }, { code: 2, stdout: "" })
      assert.match(stderr, expected)
      assert.match(stderr, /^lifeline: /)
      assert.match(stderr, /^Usage: lifeline /m)
      assert.match(stderr, /^More: lifeline .*--help$/m)
      assert.notMatch(stderr, /^\s+at /m)
    }))

  it.live("variables are looked at like flags", () =>
    Effect.gen(function*() {
      for (
        const [env, expected] of [
          [{ BORE_LOCAL_PORT: "web", BORE_SERVER: "x" }, /<local-port>: "web" is not a whole number/],
          [{ BORE_LOCAL_PORT: "9", BORE_SERVER: "http://x" }, /--to is a URL/]
        ] as const
      ) {
        const { code, stderr } = yield* Tool.run(["tunnel"], { env })
        assert.strictEqual(code, 2)
        assert.match(stderr, expected)
      }
    }))

  it.live.each<readonly [string, ReadonlyArray<string>]>([
    ["two words", ["tunnel", "9", "--to", "x", "--secret", "canary-1", "canary-2"]],
    ["before the command", ["--secret", "canary-1", "tunnel", "9", "--to", "x"]],
    ["given twice", ["tunnel", "9", "--to", "x", "--secret", "canary-1", "-s", "canary-2"]],
    ["like a flag", ["tunnel", "9", "--to", "x", "--secret", "--canary-1"]],
    ["like flags", ["tunnel", "9", "--to", "x", "-s", "-canary-1"]],
    ["with an equals sign", ["tunnel", "9", "--to", "x", "--secret=canary-1", "canary-2"]]
  ])("a secret that is %s is not repeated", ([, args]) =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* Tool.run(args)
      assert.deepStrictEqual({ code, stdout }, { code: 2, stdout: "" })
      assert.include(stderr, "secret")
      assert.notMatch(stderr, /canary|-c\b/)
    }))
})

describe("packages that it needs", () => {
  it.live("says what to install where the optional one is missing", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "lifeline-cli-"))),
        (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
      )
      Fs.cpSync(`${Process.root}/${Tool.source}`, `${directory}/lifelineMain.ts`)
      Fs.writeFileSync(`${directory}/package.json`, `{ "type": "module" }`)
      Fs.mkdirSync(`${directory}/node_modules`)
      Fs.symlinkSync(`${Process.root}/node_modules/effect`, `${directory}/node_modules/effect`)
      const process = yield* Process.startRuntime("node", [`${directory}/lifelineMain.ts`, "--help"])
      const { code, stderr, stdout } = yield* Tool.ran(process)
      assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
      assert.match(stderr, /^lifeline: @effect\/platform-node cannot be found/)
      assert.match(stderr, /npm install .*@effect\/platform-node/)
      assert.notMatch(stderr, /^\s+at /m)
    }))
})
