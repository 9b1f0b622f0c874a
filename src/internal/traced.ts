/** Spans of what goes over the network. */
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/** Puts a span around it, unless there is no tracer that would keep it. */
export const traced =
  (name: string, attributes: Record<string, unknown>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
    Effect.withFiber((fiber) =>
      fiber.getRef(Tracer.Tracer) === Tracer.nativeTracer
        ? self as Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>>
        : Effect.withSpan(self, name, { kind: "client", attributes, captureStackTrace: false })
    )
