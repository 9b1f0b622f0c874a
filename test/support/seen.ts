/** Everything that can be seen of a program from outside, as text: for tests that search it for secrets. */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { inspect } from "node:util"

/** A tracer, and the spans that it keeps. */
export const keepSpans = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

const plain = (_key: string, value: unknown): unknown => typeof value === "bigint" ? String(value) : value

/** `show` writes a value in each way in which somebody may print it; `log` is a logger, `tracer` a tracer. */
export const make = () => {
  const out: Array<string> = []
  const show = (what: string, value: unknown): void => {
    out.push(`${what}: ${inspect(value, { depth: 20, showHidden: true, getters: true })}`)
    out.push(`${what} as JSON: ${JSON.stringify(value, plain)} ${String(value)}`)
    if (value instanceof Error) out.push(`${what} as text: ${value.message} ${value.stack}`)
  }
  const showExit = (what: string, exit: Exit.Exit<unknown, unknown>): void => {
    show(what, exit)
    if (Exit.isFailure(exit)) {
      out.push(Cause.pretty(exit.cause))
      for (const reason of exit.cause.reasons) if (reason._tag === "Fail") show(`${what}, its error`, reason.error)
    }
  }
  const log = Logger.make((options) => {
    show("log", options.message)
    show("annotations", options.fiber.getRef(References.CurrentLogAnnotations))
    show("cause", options.cause)
    out.push(Cause.pretty(options.cause))
  })
  return { out, show, showExit, log, ...keepSpans() }
}
