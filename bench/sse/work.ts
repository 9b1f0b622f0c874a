// What a contender is told to do, and the one way in which all of them are measured.
import { GCProfiler } from "node:v8"

export interface Task {
  readonly url: string
  /** Characters of each event's data. */
  readonly size: number
  /** Events before measuring begins. */
  readonly warm: number
  readonly count: number
}

/** What the measured events took. */
export interface Took {
  readonly millis: number
  /** Of this process, all its threads and garbage collection included, in microseconds. */
  readonly cpu: number
  /** Bytes of heap that were allocated. */
  readonly allocated: number
  /** Bytes of heap that are still held after a garbage collection. */
  readonly kept: number
}

const cpu = (): number => {
  const { system, user } = process.cpuUsage()
  return system + user
}

const heapAfterGc = (): number => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

/** Allocated: what was in use at each collection, less what the one before had left. */
const allocatedBetween = (before: number, after: number, profiler: GCProfiler): number => {
  let left = before
  let sum = 0
  for (const { afterGC, beforeGC } of profiler.stop().statistics) {
    sum += beforeGC.heapStatistics.usedHeapSize - left
    left = afterGC.heapStatistics.usedHeapSize
  }
  return sum + after - left
}

/** Does the work that the parent sends: `follow` calls back with the data of each event, for ever. */
export const contender = (follow: (url: string, onData: (data: string) => void) => unknown): void => {
  process.once("message", ({ count, size, url, warm }: Task) => {
    let seen = 0
    let total = 0
    let started = 0
    let cpuBefore = 0
    let heapBefore = 0
    let profiler: GCProfiler | undefined
    follow(url, (data) => {
      seen++
      // Looked into, as any reader would: what is only pieces until then becomes one string.
      if (data.charCodeAt(data.length - 1) === 120) total += data.length
      if (seen === warm) {
        total = 0
        heapBefore = heapAfterGc()
        profiler = new GCProfiler()
        profiler.start()
        cpuBefore = cpu()
        started = performance.now()
      } else if (seen === warm + count && profiler !== undefined) {
        const millis = performance.now() - started
        const spent = cpu() - cpuBefore
        const allocated = allocatedBetween(heapBefore, process.memoryUsage().heapUsed, profiler)
        if (total !== size * count) throw new Error(`${total} characters came instead of ${size * count}`)
        const took: Took = { millis, cpu: spent, allocated, kept: heapAfterGc() - heapBefore }
        process.send?.(took)
      }
    })
  })
}
