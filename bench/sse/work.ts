// What a contender is told to do, and the one way in which all of them are measured.
import { GCProfiler } from "node:v8"

export interface Task {
  readonly url: string
  /** Characters of each event's data. */
  readonly size: number
  /** Events in one turn. */
  readonly slice: number
  /** How many turns come before measuring begins. */
  readonly warm: number
}

/** What the server is told: how many events it sends now, and to whom. */
export interface Order {
  readonly id: string
  readonly size: number
  /** A multiple of {@link inBuffer}. */
  readonly count: number
}

/** How many events of this size the server writes at once. */
export const inBuffer = (size: number): number => size > 10_000 ? 1 : size > 500 ? 100 : 1000

/** Where a contender stands when it has read the last event of a turn. */
export interface Stand {
  /** Milliseconds, on the clock that all processes share. */
  readonly at: number
  /** Of this process so far, all its threads and garbage collection included, in microseconds. */
  readonly cpu: number
}

/** What became of the heap in all the turns that were measured, in bytes. */
export interface Heap {
  readonly allocated: number
  /** What is still held after a garbage collection. */
  readonly kept: number
}

/** Milliseconds, on the clock that all processes share. */
export const now = (): number => performance.timeOrigin + performance.now()

const stand = (): Stand => {
  const { system, user } = process.cpuUsage()
  return { at: now(), cpu: system + user }
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

/**
 * Does the work that the parent sends: `follow` calls back with the data of each event, for ever. Reports where it stands
 * after each turn, and, told anything else, on its heap.
 */
export const contender = (follow: (url: string, onData: (data: string) => void) => unknown): void => {
  process.once("message", ({ size, slice, url, warm }: Task) => {
    let seen = 0
    let total = 0
    let turns = 0
    let heapBefore = 0
    const profiler = new GCProfiler()
    follow(url, (data) => {
      // Looked into, as any reader would: what is only pieces until then becomes one string.
      if (data.charCodeAt(data.length - 1) === 120) total += data.length
      if (++seen < slice) return
      const stands = stand()
      if (total !== size * slice) throw new Error(`${total} characters came instead of ${size * slice}`)
      seen = 0
      total = 0
      if (++turns === warm) {
        heapBefore = heapAfterGc()
        profiler.start()
        process.send?.(stand())
      } else {
        process.send?.(stands)
      }
    })
    process.once("message", () => {
      const allocated = allocatedBetween(heapBefore, process.memoryUsage().heapUsed, profiler)
      const heap: Heap = { allocated, kept: heapAfterGc() - heapBefore }
      process.send?.(heap)
    })
  })
}
