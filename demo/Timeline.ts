/**
 * What the demo prints: a line for each thing that happens, with the seconds since the start and who it happened to.
 *
 * Colours are used where the standard output is a terminal or `FORCE_COLOR` is set, and never where `NO_COLOR` is set.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { styleText } from "node:util"

/** How a line is meant: good and bad news, something on its way, a remark, or nothing in particular. */
export type Tone = "good" | "bad" | "pending" | "quiet" | "plain"

/** What happened to whom. `state` is one word, `what` a sentence. */
export interface Entry {
  readonly who: string
  readonly state?: string | undefined
  readonly what: string
  readonly tone?: Tone | undefined
}

export class Timeline extends Context.Service<Timeline, {
  readonly title: (text: string) => Effect.Effect<void>
  readonly chapter: (text: string) => Effect.Effect<void>
  readonly remark: (text: string) => Effect.Effect<void>
  readonly tell: (entry: Entry) => Effect.Effect<void>
  /** An expectation that was met, or not. */
  readonly verdict: (met: boolean, text: string) => Effect.Effect<void>
  /** Expectations met so far. */
  readonly met: Effect.Effect<number>
  /** Seconds since the start. */
  readonly elapsed: Effect.Effect<number>
}>()("demo/Timeline") {}

type Style = Parameters<typeof styleText>[0]

const styles: { readonly [T in Tone]: Style | undefined } = {
  good: "green",
  bad: "red",
  pending: "yellow",
  quiet: "gray",
  plain: undefined
}

/** Whoever has no colour of their own here speaks in the last one. */
const voices: { readonly [who: string]: Style } = { haul: "cyan", pilot: "magenta", registry: "bold" }
const otherVoice: Style = "blueBright"

const width = 104
const columns = { time: 7, who: 10, state: 13 }
const indent = columns.time + 2 + columns.who

/** Breaks a text at spaces; what cannot be broken, as a URL, sticks out. */
const wrap = (text: string, room: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line)
      line = word
    } else {
      line = line === "" ? word : `${line} ${word}`
    }
  }
  return [...lines, line]
}

/** The lines of a block: `head` before the first, as many spaces before the others. */
const block = (head: string, headWidth: number, text: string, paint: (line: string) => string): string =>
  wrap(text, width - headWidth).map((line, index) => (index === 0 ? head : " ".repeat(headWidth)) + paint(line)).join(
    "\n"
  )

const wantsColour = Effect.gen(function*() {
  const never = yield* Config.String("NO_COLOR").pipe(Config.withDefault(""))
  const always = yield* Config.String("FORCE_COLOR").pipe(Config.withDefault(undefined))
  return never === "" && (always === undefined ? process.stdout.isTTY : always !== "0")
})

export const layer: Layer.Layer<Timeline, Config.ConfigError> = Layer.effect(
  Timeline,
  Effect.gen(function*() {
    const colours = yield* wantsColour
    const started = yield* Clock.currentTimeMillis
    let met = 0
    const paint = (style: Style | undefined) => (text: string): string =>
      colours && style !== undefined ? styleText(style, text, { validateStream: false }) : text
    const elapsed = Effect.map(Clock.currentTimeMillis, (now) => (now - started) / 1000)

    return Timeline.of({
      title: (text) => Console.log(paint("bold")(text)),
      chapter: (text) => Console.log(`\n${paint("bold")(text)}`),
      remark: (text) => Console.log(paint("gray")(text)),
      tell: ({ state, tone = "plain", what, who }) =>
        Effect.flatMap(elapsed, (seconds) => {
          const time = paint("gray")(seconds.toFixed(2).padStart(columns.time))
          const name = paint(voices[who] ?? otherVoice)(who.padEnd(columns.who))
          const word = state === undefined ? "" : paint(styles[tone])(state.padEnd(columns.state))
          const headWidth = indent + (state === undefined ? 0 : columns.state)
          return Console.log(
            block(
              `${time}  ${name}${word}`,
              headWidth,
              what,
              paint(state === undefined || tone === "quiet" ? styles[tone] : undefined)
            )
          )
        }),
      verdict: (holds, text) =>
        Effect.suspend(() => {
          if (holds) met++
          const sign = paint(holds ? "green" : "red")(holds ? "✓" : "✗")
          return Console.log(
            block(`${" ".repeat(columns.time + 2)}${sign} `, columns.time + 4, text, paint(holds ? "green" : "red"))
          )
        }),
      met: Effect.sync(() => met),
      elapsed
    })
  })
)
