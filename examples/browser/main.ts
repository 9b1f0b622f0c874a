import * as Lifeline from "effect-lifeline/Lifeline"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import { Haul, layer, options } from "../program.ts"
import { show } from "./page.ts"

// The page comes from the registry's own origin, so it needs no key. "?heartbeat=1 second" changes the interval.
const settings = ConfigProvider.fromUnknown({
  PULSE: { URL: location.origin },
  HAUL: {
    URL: location.origin,
    HEARTBEAT: new URLSearchParams(location.search).get("heartbeat") ?? "5 seconds"
  }
})

const program = Effect.gen(function*() {
  const haul = yield* Haul
  const lifeline = yield* Lifeline.make({ ...options(haul, location.origin), startup: "background" })
  yield* show(haul.name, location.origin, lifeline)
})

Effect.runFork(program.pipe(
  Effect.scoped,
  Effect.provide(Layer.provide(layer("browser"), [KeyValueStore.layerMemory, ConfigProvider.layer(settings)]))
))
