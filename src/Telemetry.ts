/**
 * Every metric, span and log annotation of this package, named in one place.
 *
 * | metric | kind | attributes | counts |
 * |---|---|---|---|
 * | `lifeline_calls_total` | counter | `adapter`, `call` (`Register`, `Heartbeat`, `Verify`), `outcome` (`ok` or the error's tag) | calls to a registry |
 * | `lifeline_outages_total` | counter | `adapter` | confirmed leases that began to fail or were lost |
 * | `lifeline_online` | gauge | `adapter` | lifelines of this process that are online now |
 *
 * | span | when |
 * |---|---|
 * | `Lifeline.register`, `Lifeline.heartbeat`, `Lifeline.verify`, `Lifeline.deregister` | one per call, kind `client`, attribute `adapter` |
 * | `CheckIn.run` | one per check-in, attribute `adapter` |
 *
 * Spans are made where the program has a tracer.
 *
 * Log lines carry the annotations `package` (`effect-lifeline`), `adapter`, `service` and `type`. There is one line each
 * when a lease is lost or begins to fail (warning), at every fifth failure in a row (warning), when it recovered (info),
 * when the program goes on standalone (warning), and when nothing more is tried (error). Each beat is logged at debug level.
 *
 * **Example** (How many lifelines of this process are online)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as Metric from "effect/Metric"
 * import * as Telemetry from "effect-lifeline/Telemetry"
 *
 * export const online = Metric.value(Metric.withAttributes(Telemetry.online, { adapter: "pulse" })).pipe(
 *   Effect.map((gauge) => gauge.value)
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * Calls to a registry.
 *
 * @category metrics
 * @since 0.1.0
 */
export const calls = Metric.counter("lifeline_calls_total", {
  description: "Calls to a registry by call and outcome",
  incremental: true
})

/**
 * Confirmed leases that began to fail or were lost.
 *
 * @category metrics
 * @since 0.1.0
 */
export const outages = Metric.counter("lifeline_outages_total", {
  description: "Leases that began to fail or were lost",
  incremental: true
})

/**
 * Lifelines of this process that are online now.
 *
 * @category metrics
 * @since 0.1.0
 */
export const online = Metric.gauge("lifeline_online", { description: "Lifelines that are online now" })

/**
 * Names of spans by what they are around.
 *
 * @category spans
 * @since 0.1.0
 */
export const spans = {
  Register: "Lifeline.register",
  Heartbeat: "Lifeline.heartbeat",
  Verify: "Lifeline.verify",
  Deregister: "Lifeline.deregister",
  CheckIn: "CheckIn.run"
} as const
