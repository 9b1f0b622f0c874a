import { assert, describe, it } from "@effect/vitest"
import * as ProcessAlive from "effect-lifeline/node/ProcessAlive"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Start from "../../src/node/internal/processStart.ts"

/** A shell that runs until the scope is closed, and the first line that it prints. */
const shell = (script: string) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly child: ChildProcess; readonly line: string }>((resume) => {
      const child = spawn("sh", ["-c", script], { stdio: ["ignore", "pipe", "inherit"] })
      child.stdout.once("data", (chunk: Buffer) => resume(Effect.succeed({ child, line: chunk.toString().trim() })))
    }),
    ({ child }) => ended(child)
  )

const ended = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

const sleeper = "echo up; exec sleep 30"

const pidOf = ({ pid }: ChildProcess): number => pid ?? 0

const holderOf = Effect.fnUntraced(function*(pid: number) {
  const holder = yield* ProcessAlive.holderOf(pid)
  assert.isDefined(holder)
  return holder
})

describe("ProcessAlive", () => {
  it.live("this process is alive, and always the same", () =>
    Effect.gen(function*() {
      const holder = yield* ProcessAlive.current
      assert.isTrue(holder.startsWith(`pid:${process.pid}:`))
      assert.strictEqual(yield* ProcessAlive.holderOf(process.pid), holder)
      assert.isTrue(yield* ProcessAlive.isAlive(holder))
    }))

  it.live("another process is alive until it ends", () =>
    Effect.gen(function*() {
      const { child } = yield* shell(sleeper)
      const holder = yield* holderOf(pidOf(child))
      assert.isTrue(yield* ProcessAlive.isAlive(holder))
      yield* ended(child)
      assert.isFalse(yield* ProcessAlive.isAlive(holder))
      assert.isUndefined(yield* ProcessAlive.holderOf(pidOf(child)))
    }).pipe(Effect.scoped))

  it.live("a pid that is used again is another process", () =>
    Effect.gen(function*() {
      const { child } = yield* shell(sleeper)
      const holder = yield* holderOf(pidOf(child))
      const other = yield* ProcessAlive.current
      // The same pid with the start of another process, and with one of another boot.
      const start = other.slice(other.indexOf(":", 4) + 1)
      assert.isFalse(yield* ProcessAlive.isAlive(`pid:${pidOf(child)}:${start}`))
      assert.isFalse(yield* ProcessAlive.isAlive(`${holder}0`))
      assert.isFalse(yield* ProcessAlive.isAlive(holder.replace(/:[^:]*$/, ":another-boot/1")))
    }).pipe(Effect.scoped))

  it.live("a zombie is dead", () =>
    Effect.gen(function*() {
      // Its parent has become a program that does not wait for it.
      const { line } = yield* shell("sleep 0.1 & echo $!; exec sleep 30")
      const pid = Number(line)
      for (let n = 0; n < 100 && (yield* ProcessAlive.holderOf(pid)) !== undefined; n++) yield* Effect.sleep(50)
      assert.isUndefined(yield* ProcessAlive.holderOf(pid))
      assert.isUndefined(yield* Start.byPs(pid))
      // The system still knows it.
      assert.doesNotThrow(() => process.kill(pid, 0))
    }).pipe(Effect.scoped))

  it.live("what is no process, and text of something else, is an error and never false", () =>
    Effect.gen(function*() {
      for (const pid of [0, -1, 1.5, Number.NaN, Infinity]) {
        assert.strictEqual((yield* Effect.flip(ProcessAlive.holderOf(pid)))._tag, "ProcessUnknown")
      }
      for (const holder of [undefined, "", "pid:", "pid:0:x", "pid:1:", "effect-lifeline/tab/1", "4711"]) {
        const error = yield* Effect.flip(ProcessAlive.isAlive(holder))
        assert.strictEqual(error._tag, "ProcessUnknown")
        assert.include(JSON.stringify(error), "cannot be known")
      }
    }))

  it.live("ps says the same of who is alive", () =>
    Effect.gen(function*() {
      const { child } = yield* shell(sleeper)
      const pid = pidOf(child)
      const start = yield* Start.byPs(pid)
      assert.match(start ?? "", /^[A-Z][a-z]{2}-[A-Z][a-z]{2}-\d{1,2}-\d\d:\d\d:\d\d-\d{4}$/)
      assert.strictEqual(yield* Start.byPs(pid), start)
      yield* ended(child)
      assert.isUndefined(yield* Start.byPs(pid))
    }).pipe(Effect.scoped))
})

const proc = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-proc-"))),
  (root) => Effect.promise(() => Fs.rm(root, { recursive: true, force: true }))
)

const statOf = (name: string, state: string, start: string) =>
  `4711 (${name}) ${state} ${Array.from({ length: 18 }, (_, n) => n).join(" ")} ${start} 0 0\n`

const writeStat = (root: string, pid: number, stat: string, boot?: string) =>
  Effect.promise(async () => {
    await Fs.mkdir(Path.join(root, String(pid)), { recursive: true })
    await Fs.writeFile(Path.join(root, String(pid), "stat"), stat)
    if (boot === undefined) return
    await Fs.mkdir(Path.join(root, "sys/kernel/random"), { recursive: true })
    await Fs.writeFile(Path.join(root, "sys/kernel/random/boot_id"), `${boot}\n`)
  })

describe("/proc", () => {
  it.live("names may hold anything", () =>
    Effect.gen(function*() {
      const root = yield* proc
      for (const name of ["node", "a b", "a) Z 1 (b", ")", "x) Z"]) {
        yield* writeStat(root, 4711, statOf(name, "S", "99"), "boot")
        assert.strictEqual(yield* Start.byProc(4711, root), "boot/99")
      }
      for (const state of ["Z", "X"]) {
        yield* writeStat(root, 4711, statOf("a", state, "99"))
        assert.isUndefined(yield* Start.byProc(4711, root))
      }
    }).pipe(Effect.scoped))

  it.live("what is not understood, or hidden, is an error", () =>
    Effect.gen(function*() {
      const root = yield* proc
      for (const stat of ["", "4711 (a) S 1", statOf("a", "S", "soon")]) {
        yield* writeStat(root, 4711, stat)
        assert.strictEqual((yield* Effect.flip(Start.byProc(4711, root)))._tag, "ProcessUnknown")
      }
      // Not there, and yet the system knows it.
      const error = yield* Effect.flip(Start.byProc(process.pid, root))
      assert.include(error.message, "ENOENT")
      // No such process at all.
      const { child } = yield* shell(sleeper)
      yield* ended(child)
      assert.isUndefined(yield* Start.byProc(pidOf(child), root))
    }).pipe(Effect.scoped))
})
