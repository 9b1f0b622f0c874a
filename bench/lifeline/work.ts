// What a child process is told to do, what it reports, and what all children share.
import { setTimeout as sleep } from "node:timers/promises"

export interface Instance {
  readonly name: string
  readonly type: string
  readonly apiUrl: string
}

export const instances = (count: number): ReadonlyArray<Instance> =>
  Array.from({ length: count }, (_, index) => ({
    name: `worker-${index}`,
    type: "worker",
    apiUrl: `http://worker-${index}:8080`
  }))

/** The work of one side of the comparison. Times are milliseconds. */
export interface Work {
  readonly url: string
  readonly apiKey: string
  readonly count: number
  /** Between two beats of one service. */
  readonly interval: number
  /** Over how long the starts are spread. */
  readonly starting: number
  /** How many start at once at most. */
  readonly concurrency: number
  /** How long the last one to start has run when the measuring begins. */
  readonly warm: number
  /** How many intervals are measured: every service beats once in each. */
  readonly intervals: number
}

/** CPU of this process so far, all its threads and garbage collection included, in microseconds. */
export const cpu = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

/** When the service of this index is to start, in milliseconds from now. */
export const startsIn = (work: Work, begun: number, index: number): number =>
  Math.max(0, begun + index * work.starting / work.count - performance.now())

/** Does the work that the parent sends, once all services are started, and reports the CPU of the time that is measured. */
export const side = (start: (work: Work) => Promise<unknown>): void => {
  process.once("message", async (work: Work) => {
    const held = await start(work)
    await sleep(work.warm)
    const before = cpu()
    process.send?.("begin")
    await sleep(work.interval * work.intervals)
    process.send?.({ cpu: cpu() - before, held: held !== undefined })
  })
}
