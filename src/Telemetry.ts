/**
 * Every metric, span and log annotation of this package, named in one place.
 *
 * | metric | kind | attributes | counts |
 * |---|---|---|---|
 * | `lifeline_calls_total` | counter | `adapter`, `call` (`Register`, `Heartbeat`, `Verify`), `outcome` (`ok` or the error's tag) | calls to a registry |
 * | `lifeline_outages_total` | counter | `adapter` | confirmed leases that began to fail or were lost |
 * | `lifeline_online` | gauge | `adapter` | lifelines of this process that are online now |
 * | `lifeline_stream_dials_total` | counter | `operation`, `outcome` (`ok`, the error's tag or `Defect`) | attempts of streams to connect |
 * | `lifeline_stream_losses_total` | counter | `operation` | open connections of streams that ended, and not by us or for good |
 * | `lifeline_stream_open` | gauge | `operation` | connections of streams that are open now |
 *
 * | span | when |
 * |---|---|
 * | `Lifeline.register`, `Lifeline.heartbeat`, `Lifeline.verify`, `Lifeline.deregister` | one per call, kind `client`, attribute `adapter` |
 * | `CheckIn.run` | one per check-in, attribute `adapter` |
 * | `Reconnect.dial` | one per attempt of a stream to connect, kind `client`, attributes `operation`, `target`, `attempt`, `generation` |
 *
 * Spans are made where the program has a tracer. The metrics and the span of streams are there where the program provides
 * {@link layerStreams}: who does not look at them does not carry them.
 *
 * Log lines carry the annotations `package` (`effect-lifeline`), `adapter`, `service` and `type`. There is one line each
 * when a lease is lost or begins to fail (warning), at every fifth failure in a row (warning), when it recovered (info),
 * when the program goes on standalone (warning), and when nothing more is tried (error). Each beat is logged at debug level.
 * Those of streams carry `package`, `operation` and `target`, and come at the same points.
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
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import { DialObserver } from "./internal/dialObserver.ts"
import { traced } from "./internal/traced.ts"

/**
 * Calls to a registry.
 *
 * @category metrics
 * @since 0.1.0
 */
export const calls = Metric.counter("lifeline_calls_total", {
  description: "Calls, by call and outcome",
  incremental: true
})

/**
 * Confirmed leases that began to fail or were lost.
 *
 * @category metrics
 * @since 0.1.0
 */
export const outages = Metric.counter("lifeline_outages_total", {
  description: "Leases that failed or were lost",
  incremental: true
})

/**
 * Lifelines of this process that are online now.
 *
 * @category metrics
 * @since 0.1.0
 */
export const online = Metric.gauge("lifeline_online", { description: "Lifelines that are online" })

/**
 * Attempts of streams to connect.
 *
 * @category metrics
 * @since 0.1.0
 */
export const dials = Metric.counter("lifeline_stream_dials_total", {
  description: "Attempts of streams to connect, by outcome",
  incremental: true
})

/**
 * Open connections of streams that ended, and not by us or for good.
 *
 * @category metrics
 * @since 0.1.0
 */
export const losses = Metric.counter("lifeline_stream_losses_total", {
  description: "Open connections of streams that were lost",
  incremental: true
})

/**
 * Connections of streams that are open now.
 *
 * @category metrics
 * @since 0.1.0
 */
export const openStreams = Metric.gauge("lifeline_stream_open", { description: "Streams that are open now" })

/**
 * The name of the span around one attempt of a stream to connect. By itself, so that a stream does not carry the others.
 *
 * @category spans
 * @since 0.1.0
 */
export const dialSpan = "Reconnect.dial"

/**
 * Names of the spans of lifelines by what they are around.
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

/** `undefined`: whoever read the stream left, which is no outcome. */
const outcomeOf = (exit: Exit.Exit<unknown, { readonly _tag: string }>): string | undefined => {
  if (Exit.isSuccess(exit)) return "ok"
  if (Cause.hasInterruptsOnly(exit.cause)) return undefined
  return Option.match(Cause.findErrorOption(exit.cause), { onNone: () => "Defect", onSome: ({ _tag }) => _tag })
}

const observe: DialObserver = ({ operation, target }, { attempt, generation }) => (dialling) => {
  const present = Metric.withAttributes(openStreams, { operation })
  return dialling.pipe(
    traced(dialSpan, { operation, target, attempt, generation }),
    Effect.onExit((exit) => {
      const outcome = outcomeOf(exit)
      return outcome === undefined
        ? Effect.void
        : Metric.update(Metric.withAttributes(dials, { operation, outcome }), 1)
    }),
    Effect.tap(() => Effect.acquireRelease(Metric.modify(present, 1), () => Metric.modify(present, -1))),
    Effect.map(
      Effect.tapError(({ _tag }) =>
        _tag === "Stop" ? Effect.void : Metric.update(Metric.withAttributes(losses, { operation }), 1)
      )
    )
  )
}

/**
 * The metrics and the span of streams, for whatever is run with it: `Reconnect`, `EventSource`, `WebSocket`, `Listener`,
 * `ControlChannel`, and the changes of a `Directory`.
 *
 * **Example** (At the top of a program)
 *
 * ```ts
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Telemetry from "effect-lifeline/Telemetry"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const main = EventSource.stream("http://pulse:9696/api/v1/events").pipe(
 *   Stream.runForEach((event) => Effect.log(event)),
 *   Effect.provide(Telemetry.layerStreams)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStreams: Layer.Layer<never> = Layer.succeed(DialObserver, observe)
