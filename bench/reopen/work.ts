// What the processes of the bench tell each other, and how all of them count.

export const eventStreams = [
  "refuse",
  "reset",
  "200, end",
  "hello, end",
  "retry: 0",
  "503, again in 0 s",
  "redirect loop",
  "text/html"
] as const

export const webSockets = ["refuse", "reset", "503, again in 0 s", "hello, end", "1000", "1006", "1013"] as const

export type Hostility = (typeof eventStreams)[number] | (typeof webSockets)[number]

/** Where each hostile server is, as host and port. */
export type Places = Readonly<Partial<Record<Hostility, string>>>

/** By way of being hostile, how many arrived. */
export type Counts = Readonly<Partial<Record<Hostility, number>>>

const window = 10_000

/** Counts what arrives within 10 s from the first. */
export const makeCounter = () => {
  let first: number | undefined
  let count = 0
  return {
    arrived: (): void => {
      const now = performance.now()
      first ??= now
      if (now - first <= window) count++
    },
    count: (): number => count
  }
}
