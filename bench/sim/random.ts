// Chance that can be repeated: the same seed gives the same draws on every machine (sfc32, seeded through splitmix32).

/** A source of draws in [0, 1). */
export const makeRandom = (seed: number): () => number => {
  let mixed = seed >>> 0
  const mix = (): number => {
    mixed = (mixed + 0x9e3779b9) >>> 0
    let word = mixed ^ (mixed >>> 16)
    word = Math.imul(word, 0x21f0aaad)
    word ^= word >>> 15
    word = Math.imul(word, 0x735a2d97)
    return (word ^ (word >>> 15)) >>> 0
  }
  let a = mix()
  let b = mix()
  let c = mix()
  let counter = 1
  return () => {
    const word = (a + b + counter) >>> 0
    counter = (counter + 1) >>> 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) >>> 0
    c = (((c << 21) | (c >>> 11)) + word) >>> 0
    return word / 2 ** 32
  }
}
