/**
 * What a server remembers of the proofs that it has accepted: 8 bytes each, in a table with open addressing, in two
 * generations. What comes is added to the current one. Once nothing in the previous one could be accepted a second time, it
 * is dropped and the current one takes its place: nothing is ever searched, sorted or timed.
 *
 * Two hashes of 32 bits stand for an entry. That two of a million differ and share both has a chance of 1 in 37 million, and
 * whoever brings it about with proofs of their own has only those refused. Where an entry goes depends on a seed that nobody
 * outside knows, so that nobody can choose proofs that all go to one place and make each search a long one.
 */

const smallest = 1024

class Table {
  count = 0
  /** When the last of them could be accepted for the last time, in milliseconds since 1970. */
  until = 0
  #slots = new Uint32Array(2 * smallest)

  /** Where that entry is, or would be. */
  #find(high: number, low: number): number {
    const slots = this.#slots
    const mask = slots.length - 1
    let at = (2 * low) & mask
    while (slots[at] !== 0 || slots[at + 1] !== 0) {
      if (slots[at] === high && slots[at + 1] === low) return at
      at = (at + 2) & mask
    }
    return at
  }

  get bytes(): number {
    return this.#slots.byteLength
  }

  has(high: number, low: number): boolean {
    const at = this.#find(high, low)
    return this.#slots[at] !== 0 || this.#slots[at + 1] !== 0
  }

  add(high: number, low: number): void {
    if (8 * this.count >= 3 * this.#slots.length) this.#grow()
    const at = this.#find(high, low)
    this.#slots[at] = high
    this.#slots[at + 1] = low
    this.count++
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Uint32Array(2 * old.length)
    for (let from = 0; from < old.length; from += 2) {
      const high = old[from] ?? 0
      const low = old[from + 1] ?? 0
      if (high === 0 && low === 0) continue
      const at = this.#find(high, low)
      this.#slots[at] = high
      this.#slots[at + 1] = low
    }
  }
}

/** Two numbers of 32 bits. */
export type Seed = readonly [high: number, low: number]

/** Neither half alone tells much of the other: they are multiplied by different constants, and mixed in the end. */
export const hash = (text: string, [seedHigh, seedLow]: Seed): readonly [high: number, low: number] => {
  let high = 0xdeadbeef ^ seedHigh
  let low = 0x41c6ce57 ^ seedLow
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    high = Math.imul(high ^ code, 0x9e3779b1)
    low = Math.imul(low ^ code, 0x5f356495)
  }
  high = Math.imul(high ^ (high >>> 16), 0x85ebca6b) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae35)
  low = Math.imul(low ^ (low >>> 16), 0x85ebca6b) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae35)
  // Nothing but an empty slot is 0 and 0.
  return [high >>> 0, (low >>> 0) || 1]
}

export interface Generations {
  readonly size: () => number
  /** What it holds: all of it is in the tables. */
  readonly bytes: () => number
  readonly seen: (id: string, now: number) => boolean
  readonly add: (id: string, until: number, now: number) => "added" | "seen" | "full"
}

export const make = (capacity: number, seed: Seed): Generations => {
  let previous = new Table()
  let current = new Table()
  const rotate = (now: number): void => {
    if (now < previous.until || current.count === 0) return
    previous = now < current.until ? current : new Table()
    current = new Table()
  }
  const has = (high: number, low: number): boolean => current.has(high, low) || previous.has(high, low)
  return {
    size: () => current.count + previous.count,
    bytes: () => current.bytes + previous.bytes,
    seen: (id, now) => {
      rotate(now)
      return has(...hash(id, seed))
    },
    add: (id, until, now) => {
      rotate(now)
      const [high, low] = hash(id, seed)
      if (has(high, low)) return "seen"
      if (current.count + previous.count >= capacity) return "full"
      current.add(high, low)
      current.until = Math.max(current.until, until)
      return "added"
    }
  }
}
