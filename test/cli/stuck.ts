/** A program that never ends closing. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { runMain } from "../../src/cli/internal/main.ts"

Console.log("ready").pipe(
  Effect.andThen(Effect.never),
  Effect.onInterrupt(() => Effect.andThen(Console.log("closing"), Effect.never)),
  runMain
)
