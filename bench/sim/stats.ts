// What is asked of the moments at which a fleet came: how many in the worst second, and how late the last of them.

/** The most of them in any window of one second, wherever it begins. `times` in milliseconds, sorted. */
export const peakPerSecond = (times: Float64Array): number => {
  let peak = 0
  let first = 0
  for (let last = 0; last < times.length; last++) {
    while ((times[last] ?? 0) - (times[first] ?? 0) >= 1000) first++
    peak = Math.max(peak, last - first + 1)
  }
  return peak
}

/** The value below which that share of them lies. `sorted` must be. */
export const quantile = (sorted: Float64Array, share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? NaN

/** How many in each second from `from` on. */
export const perSecond = (times: Float64Array, from: number, seconds: number): ReadonlyArray<number> => {
  const counts = Array.from({ length: seconds }, () => 0)
  for (const time of times) {
    const second = Math.floor((time - from) / 1000)
    if (second >= 0 && second < seconds) counts[second] = (counts[second] ?? 0) + 1
  }
  return counts
}

/** Counts in slots of 10 ms, for more moments than can be kept one by one. */
export interface Histogram {
  readonly add: (time: number) => void
  /** The most in any second that begins at or after `from` with a slot. */
  readonly peakPerSecond: (from: number) => number
  /** How many per second on average from `from` on. */
  readonly meanPerSecond: (from: number) => number
  readonly total: () => number
}

export const makeHistogram = (duration: number): Histogram => {
  const slot = 10
  const counts = new Uint32Array(Math.ceil(duration / slot))
  const perSecond = 1000 / slot
  return {
    add: (time) => {
      const index = Math.floor(time / slot)
      if (index >= 0 && index < counts.length) counts[index] = (counts[index] ?? 0) + 1
    },
    peakPerSecond: (from) => {
      let inside = 0
      let peak = 0
      const first = Math.floor(from / slot)
      for (let index = first; index < counts.length; index++) {
        inside += counts[index] ?? 0
        if (index - perSecond >= first) inside -= counts[index - perSecond] ?? 0
        peak = Math.max(peak, inside)
      }
      return peak
    },
    meanPerSecond: (from) => {
      let total = 0
      for (let index = Math.floor(from / slot); index < counts.length; index++) total += counts[index] ?? 0
      return total / ((duration - from) / 1000)
    },
    total: () => counts.reduce((total, count) => total + count, 0)
  }
}
