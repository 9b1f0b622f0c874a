/**
 * When a process started, as text that no other process on this machine has together with the same pid: by `/proc`
 * where there is one, else by `ps`.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import * as Fs from "node:fs/promises"

/**
 * Whether a process is alive could not be found out.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProcessUnknown extends Data.TaggedError("ProcessUnknown")<{
  readonly detail: string
  readonly cause?: Error | undefined
}> {
  override get message() {
    return `whether a process is alive cannot be known: ${this.detail}`
  }
  /** All but the cause, which is the platform's. */
  override toJSON() {
    return { _tag: this._tag, detail: this.detail, message: this.message }
  }
}

/** `undefined`: there is no such process, or it has ended and nobody has taken note of it yet. */
export type Start = Effect.Effect<string | undefined, ProcessUnknown>

const codeOf = (cause: unknown): unknown =>
  typeof cause === "object" && cause !== null && "code" in cause ? cause.code : undefined

const unreadable = (pid: number, cause: unknown): ProcessUnknown => {
  const detail = `the start of process ${pid} cannot be read (${String(codeOf(cause) ?? "not understood")})`
  return new ProcessUnknown(cause instanceof Error ? { detail, cause } : { detail })
}

const missing = (cause: unknown): boolean => codeOf(cause) === "ENOENT" || codeOf(cause) === "ESRCH"

/** Whether the system says that there is none, and does not only hide it. */
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch (cause) {
    return codeOf(cause) === "ESRCH"
  }
}

const hasEnded = (state: string): boolean => state.startsWith("Z") || state.startsWith("X")

/** Start times count from the boot: another boot has the same ones. */
const bootId = (root: string): Promise<string> =>
  Fs.readFile(`${root}/sys/kernel/random/boot_id`, "utf8").then((text) => text.trim(), (cause) => {
    if (missing(cause)) return ""
    throw cause
  })

export const byProc = (pid: number, root = "/proc"): Start =>
  Effect.tryPromise({
    try: async () => {
      const boot = await bootId(root)
      let stat: string
      try {
        stat = await Fs.readFile(`${root}/${pid}/stat`, "utf8")
      } catch (cause) {
        if (missing(cause) && isGone(pid)) return undefined
        throw cause
      }
      // The second field is the name, in parentheses, and may hold anything, more of them too. State is field 3, start
      // field 22.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
      const [state = ""] = fields
      const start = fields[19]
      if (start === undefined || !/^\d+$/.test(start)) throw new Error(`${root}/${pid}/stat is not understood`)
      return hasEnded(state) ? undefined : `${boot}/${start}`
    },
    catch: (cause) => unreadable(pid, cause)
  })

export const byPs = (pid: number): Start =>
  Effect.callback<string | undefined, ProcessUnknown>((resume) => {
    const child = execFile(
      "ps",
      ["-o", "stat=,lstart=", "-p", String(pid)],
      { env: { ...process.env, LC_ALL: "C", TZ: "UTC0" }, timeout: 5000 },
      (cause, output) => {
        const [state = "", ...start] = output.trim().split(/\s+/)
        if (state !== "" && start.length > 0) {
          return resume(Effect.succeed(hasEnded(state) ? undefined : start.join("-")))
        }
        resume(isGone(pid) ? Effect.succeed(undefined) : Effect.fail(unreadable(pid, cause)))
      }
    )
    return Effect.sync(() => void child.kill())
  })

export const start: (pid: number) => Start = process.platform === "linux" ? byProc : byPs
