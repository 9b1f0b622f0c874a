// What `npm run check:docs` demands of doc comments.
import { assert, describe, it } from "@effect/vitest"
import { missing, withoutStar } from "../scripts/docComments.ts"

const doc = (...lines: ReadonlyArray<string>): string => ["/**", ...lines.map((line) => ` * ${line}`), " */"].join("\n")
const whole = doc("What it is.", "", "@category models", "@since 0.1.0")

const whats = (text: string): ReadonlyArray<string> => missing(text).map(({ line, what }) => `${line}: ${what}`)

describe("doc comments", () => {
  it("each line begins with a star", () => {
    assert.deepStrictEqual(withoutStar(`${whole}\nexport const a = 1\n/** One line. */\nconst b = 2\n`), [])
    assert.deepStrictEqual(withoutStar("/**\n * A.\nimport * as B from \"b\"\n *\n */\nexport const a = 1\n"), [3])
    assert.deepStrictEqual(withoutStar("interface A {\n  /**\n   * B.\n   *C\n   */\n  readonly b: 1\n}\n"), [4])
  })

  it.each([
    "export const a = 1",
    "export function* a() {}",
    "export class A {}",
    "export interface A {}",
    "export type A = 1",
    "export declare const a: 1",
    "export abstract class A {}"
  ])("%s needs a summary, @category and @since", (code) => {
    assert.deepStrictEqual(whats(`${whole}\n${code}`), [])
    assert.lengthOf(whats(code), 3)
    assert.lengthOf(whats(`${whole}\n\n${code}`), 3)
    assert.match(String(whats(`${doc("@category models", "@since 0.1.0")}\n${code}`)), /^5: [aA] lacks a summary$/)
    assert.match(String(whats(`${doc("A.", "@since 0.1.0")}\n${code}`)), /^5: [aA] lacks @category$/)
    assert.match(String(whats(`${doc("A.", "@category models")}\n${code}`)), /^5: [aA] lacks @since$/)
    assert.match(String(whats(`${doc("A.", "@category", "@since 0.1.0")}\n${code}`)), /^6: [aA] lacks @category$/)
    assert.deepStrictEqual(whats(`/** A. */\n${code}`).length, 2)
  })

  it("the first overload carries the comment of all; what is not exported needs none", () => {
    assert.deepStrictEqual(whats(`${whole}\nexport function a(b: 1): 1\nexport function a(b: 2): 2\n`), [])
    assert.deepStrictEqual(whats("const a = 1\ninterface B {}\nexport {}\n"), [])
    assert.lengthOf(whats(`${whole}\nexport const A = 1\nexport type A = 1\n`), 3)
  })
})
