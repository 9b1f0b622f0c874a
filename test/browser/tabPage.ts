/** What a page of the test can do with its lock: in the global scope, for Playwright. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as TabAlive from "../../src/browser/TabAlive.ts"

export interface TabPage {
  readonly hold: (name?: string) => Promise<string>
  readonly release: () => Promise<void>
  /** `"unknown"` where it fails. */
  readonly isAlive: (holder: string | undefined) => Promise<boolean | "unknown">
}

let scope = Scope.makeUnsafe()

const page: TabPage = {
  hold: (name) => Effect.runPromise(Scope.provide(TabAlive.hold({ name }), scope)),
  release: () => {
    const before = scope
    scope = Scope.makeUnsafe()
    return Effect.runPromise(Scope.close(before, Exit.void))
  },
  isAlive: (holder) => Effect.runPromise(Effect.orElseSucceed(TabAlive.isAlive(holder), () => "unknown" as const))
}

Object.assign(globalThis, { page })
