/** Values of very different lengths that show whether they are whole. */
import { createHash } from "node:crypto"

const hash = (text: string): string => createHash("sha256").update(text).digest("hex")

/** The `n`th value of a writer. */
export const valueOf = (by: string, n: number): string => {
  const text = `${by} ${n} ${by.repeat(n % 7 === 0 ? 20_000 : n % 50)}`
  return `${hash(text)} ${text}`
}

/** `undefined`: there is none, or only a part of one. */
export const parse = (value: string | undefined): { readonly by: string; readonly n: number } | undefined => {
  const [sum, by, n] = value?.split(" ") ?? []
  return value === undefined || by === undefined || hash(value.slice(65)) !== sum ? undefined : { by, n: Number(n) }
}
