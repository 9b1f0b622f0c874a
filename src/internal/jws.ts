/**
 * Compact JSON Web Signatures: made, taken apart, checked. What a part means is up to whoever asked.
 */
import * as Base64Url from "effect/encoding/Base64Url"
import * as Result from "effect/Result"
import { kinds } from "./jwk.ts"
import type { Algorithm } from "./jwk.ts"

const encoder = new TextEncoder()

/** A part of what is signed. */
export const encode = (part: object): string => Base64Url.encode(JSON.stringify(part))

/** `header` is {@link encode}d already: it is the same for all signatures of a key. */
export const sign = async (
  subtle: SubtleCrypto,
  algorithm: Algorithm,
  key: CryptoKey,
  header: string,
  payload: object
): Promise<string> => {
  const input = `${header}.${encode(payload)}`
  const signature = await subtle.sign(kinds[algorithm].signature, key, encoder.encode(input))
  return `${input}.${Base64Url.encode(new Uint8Array(signature))}`
}

export type Part = Readonly<Record<string, unknown>>

export interface Parsed {
  readonly header: Part
  readonly payload: Part
  readonly signature: Uint8Array<ArrayBuffer>
  readonly signed: Uint8Array<ArrayBuffer>
}

// An unsecured one (`alg` none) ends in a dot: it is well formed, and refused for its algorithm.
const shape = /^[\w-]+\.[\w-]+\.[\w-]*$/

const bytesOf = (text: string): Uint8Array<ArrayBuffer> | undefined => {
  const bytes = Base64Url.decode(text)
  return Result.isSuccess(bytes) ? new Uint8Array(bytes.success) : undefined
}

const partOf = (text: string): Part | undefined => {
  try {
    const part: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytesOf(text)))
    return typeof part === "object" && part !== null && !Array.isArray(part) ? part as Part : undefined
  } catch {
    return undefined
  }
}

/** `undefined` where it is not three parts, the first two of them JSON objects. */
export const parse = (text: string): Parsed | undefined => {
  if (!shape.test(text)) return undefined
  const [first = "", second = "", third = ""] = text.split(".")
  const header = partOf(first)
  const payload = partOf(second)
  const signature = bytesOf(third)
  return header === undefined || payload === undefined || signature === undefined
    ? undefined
    : { header, payload, signature, signed: encoder.encode(`${first}.${second}`) }
}

export const verify = (
  subtle: SubtleCrypto,
  algorithm: Algorithm,
  key: CryptoKey,
  { signature, signed }: Parsed
): Promise<boolean> => subtle.verify(kinds[algorithm].signature, key, signature, signed)
