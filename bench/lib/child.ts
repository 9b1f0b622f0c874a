// Child processes that answer messages, each run by the node that runs this one.
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

export interface Child {
  readonly send: (message: object) => void
  /** The next message that was not read yet. Fails when the process ends instead. */
  readonly next: () => Promise<unknown>
}

/** Runs a module in a process of its own while `use` runs. */
export const withChild = async <A>(
  module: URL,
  args: ReadonlyArray<string>,
  use: (child: Child) => Promise<A>
): Promise<A> => {
  const child = fork(fileURLToPath(module), args, {
    execArgv: [...process.execArgv, "--expose-gc"],
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  const unread: Array<unknown> = []
  const readers: Array<(message: unknown) => void> = []
  child.on("message", (message) => {
    const reader = readers.shift()
    if (reader === undefined) unread.push(message)
    else reader(message)
  })
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  try {
    return await use({
      send: (message) => void child.send(message),
      next: () =>
        unread.length > 0 ? Promise.resolve(unread.shift()) : new Promise((resolve, reject) => {
          readers.push(resolve)
          void ended.then(() =>
            reject(new Error(`${module.pathname.split("/").at(-1)} ended (${child.exitCode ?? child.signalCode})`))
          )
        })
    })
  } finally {
    child.kill("SIGKILL")
    await ended
  }
}
