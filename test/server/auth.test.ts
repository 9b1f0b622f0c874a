import { assert, describe, it, vi } from "@effect/vitest"
import * as Auth from "effect-lifeline/server/internal/auth"
import * as Headers from "effect/http/Headers"
import * as Redacted from "effect/Redacted"

const key = "the key of the registry"
const encoder = new TextEncoder()

/** Whether this key is let in, and how many of its bytes were looked at. */
const shown = (isAllowed: (headers: Headers.Headers) => boolean, given: string) => {
  let reads = 0
  const bytes = new Proxy(encoder.encode(given), {
    get: (target, property) => {
      if (typeof property === "string" && /^\d+$/.test(property)) reads++
      return Reflect.get(target, property, target)
    }
  })
  const spy = vi.spyOn(TextEncoder.prototype, "encode").mockReturnValue(bytes)
  try {
    return { allowed: isAllowed(Headers.fromInput({ "x-api-key": given })), reads }
  } finally {
    spy.mockRestore()
  }
}

describe("the key", () => {
  const isAllowed = Auth.make({ apiKey: Redacted.make(key) })

  it.each([
    ["the right one", key, true],
    ["wrong from the first byte on", `_${key.slice(1)}`, false],
    ["wrong in the last byte", `${key.slice(0, -1)}_`, false],
    ["wrong everywhere", "_".repeat(key.length), false],
    ["a part of it", key.slice(0, 5), false],
    ["longer than it", `${key}_`, false],
    ["it twice", key + key, false],
    ["one byte", "_", false]
  ])("%s: each byte that was given is looked at once, however soon it differs", (_, given, allowed) => {
    assert.deepStrictEqual(shown(isAllowed, given), { allowed, reads: given.length })
  })

  it("none is not enough", () => {
    assert.isFalse(isAllowed(Headers.empty))
    assert.isFalse(isAllowed(Headers.fromInput({ "x-api-key": "" })))
  })
})
