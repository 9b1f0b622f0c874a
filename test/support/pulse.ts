/** Both of Pulse's adapters as one, for tests of what every call has in common. */
import type * as Directory from "effect-lifeline/Directory"
import type * as Registry from "effect-lifeline/Registry"
import * as Pulse from "effect-lifeline/registry/Pulse"
import * as PulseDirectory from "effect-lifeline/registry/PulseDirectory"
import * as Effect from "effect/Effect"

export interface Calls extends Readonly<Registry.Registry["Service"]> {
  readonly discover: Directory.Directory["Service"]["discover"]
}

export const make = (options: Pulse.Options) =>
  Effect.gen(function*() {
    const { discover } = yield* PulseDirectory.make(options)
    const calls: Calls = { ...(yield* Pulse.make(options)), discover }
    return calls
  })

/** As the conformance suite wants them. */
export const ports = (options: PulseDirectory.Options) =>
  Effect.gen(function*() {
    return { registry: yield* Pulse.make(options), directory: yield* PulseDirectory.make(options) }
  })
