/** The program as a process, whose report is a line, or in a page, of which it is a global. */
import * as Effect from "effect/Effect"
import { program } from "./program.ts"

const place = globalThis as {
  url?: string
  report?: string
  readonly process?: { readonly argv: ReadonlyArray<string> }
}

Effect.runFork(Effect.map(program(place.url ?? place.process?.argv[2] ?? ""), (report) => {
  place.report = JSON.stringify(report)
  console.log(`report ${place.report}`)
}))
