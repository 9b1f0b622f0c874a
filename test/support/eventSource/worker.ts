/** The program on Workers; the URL comes as a query. */
import * as Effect from "effect/Effect"
import { program } from "./program.ts"

export default {
  fetch: (request: Request): Promise<Response> =>
    Effect.runPromise(
      Effect.map(
        program(new URL(request.url).searchParams.get("url") ?? ""),
        (report) => new Response(JSON.stringify(report))
      )
    )
}
