import * as Connectivity from "effect-lifeline/Connectivity"
import * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import * as Lifeline from "effect-lifeline/Lifeline"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as PulseEvents from "effect-lifeline/registry/PulseEvents"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import { Haul, layer, options } from "../program.ts"
import { show } from "./page.ts"

// The page comes from the registry's own origin, so it needs no key. "?heartbeat=1 second" changes the interval.
const url = location.origin
const settings = ConfigProvider.fromUnknown({
  PULSE: { URL: url },
  HAUL: {
    URL: url,
    HEARTBEAT: new URLSearchParams(location.search).get("heartbeat") ?? "5 seconds"
  }
})

const program = Effect.gen(function*() {
  const haul = yield* Haul
  const lifeline = yield* Lifeline.make({ ...options(haul, url), startup: "background" })
  yield* show(haul.name, url, lifeline, yield* DiscoveryCache.DiscoveryCache)
})

// Who is registered, live: over one stream of events, which resumes; the browser tells of online, offline and wake.
const services = DiscoveryCache.layer().pipe(
  Layer.provide(PulseDirectory.layer({ url, events: PulseEvents.sse() })),
  Layer.provideMerge(layer("browser")),
  Layer.provide([KeyValueStore.layerMemory, ConfigProvider.layer(settings), Connectivity.layerBrowser])
)

Effect.runFork(program.pipe(Effect.scoped, Effect.provide(services)))
