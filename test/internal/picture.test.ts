import { assert, describe, it } from "@effect/vitest"
import type * as Directory from "effect-lifeline/Directory"
import * as Picture from "effect-lifeline/internal/picture"
import type { RegisteredService } from "effect-lifeline/ServiceInstance"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

const service = (id: string, version: number): RegisteredService => ({
  id,
  name: id,
  type: "worker",
  apiUrl: `http://${id}:1`,
  status: "online",
  capabilities: [],
  version: `${version}`
})

/** Something that happens at the registry, to one of a few services. */
const Happening = Schema.Struct({
  id: Schema.Literals(["a", "b", "c"]),
  what: Schema.Literals(["register", "remove", "offline"])
})

const Plan = Schema.Struct({
  happenings: Schema.Array(Happening).check(Schema.isMaxLength(20)),
  /** When the registry answers the read, and how much of what happened was told by then. */
  answered: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 })),
  begun: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 }))
})

describe("picture", () => {
  it.prop(
    "whatever happens while a read is under way, what is not in question afterwards is as the registry has it",
    [Plan],
    ([{ answered, begun, happenings }]) => {
      const registry = new Map<string, RegisteredService>([["a", service("a", 0)]])
      const picture = new Map(registry)
      const touched = new Set<string>()
      let found: ReadonlyArray<RegisteredService> | undefined
      happenings.forEach(({ id, what }, n) => {
        if (n === answered && answered >= begun) found = [...registry.values()]
        const known = registry.get(id)
        let change: Directory.Change
        if (what === "register") {
          const made = service(id, n + 1)
          registry.set(id, made)
          change = { _tag: "Registered", id, service: made }
        } else if (known === undefined) return
        else if (what === "remove") {
          registry.delete(id)
          change = { _tag: "Deregistered", id }
        } else {
          registry.set(id, { ...known, status: "offline" })
          change = { _tag: "StatusChanged", id, status: "offline" }
        }
        assert.strictEqual(Picture.tell(picture, change), undefined)
        if (n >= begun) touched.add(id)
      })
      const read = Picture.read(picture, found ?? [...registry.values()], () => true, touched)
      for (const id of ["a", "b", "c"]) {
        // Everything was told, so what is kept for being in question is right as well.
        assert.deepStrictEqual(read.services.get(id), registry.get(id))
        if (!touched.has(id)) assert.strictEqual(read.questions.has(id), false)
      }
    }
  )

  it("differences are what turns the one into the other", () => {
    const before = new Map([["a", service("a", 1)], ["b", service("b", 1)]])
    const after = new Map([["b", service("b", 2)], ["c", service("c", 1)]])
    assert.deepStrictEqual(Picture.differences(before, after).map((it) => `${it._tag} ${it.service.id}`), [
      "Changed b",
      "Came c",
      "Went a"
    ])
    assert.deepStrictEqual(Picture.differences(before, before), [])
  })

  it("a heartbeat is no change, another key is", () => {
    const one = { ...service("a", 1), apiKey: Redacted.make("one"), metadata: { a: [1, { b: null }] } }
    assert.isTrue(
      Picture.isSame(one, { ...one, lastSeen: 7, apiKey: Redacted.make("one"), metadata: { a: [1, { b: null }] } })
    )
    assert.isFalse(Picture.isSame(one, { ...one, apiKey: Redacted.make("two") }))
    assert.isFalse(Picture.isSame(one, { ...one, metadata: { a: [1, { b: 2 }] } }))
    assert.isFalse(Picture.isSame(one, undefined))
  })
})
