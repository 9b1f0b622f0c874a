// What a bench reports. A bench is a file `bench/NAME.ts` that exports
//
//   export const name = "NAME"
//   export const run = (context: Context): Promise<Report> | Effect<Report, unknown>
//
// and bench/run.ts finds it by being there. Whether a bound holds is computed here and nowhere else.
import type * as Effect from "effect/Effect"

/** One number. `value` is `null` where it could not be measured, e.g. a peer that cannot run here. */
export interface Figure {
  readonly figure: string
  readonly value: number | null
  readonly unit: string
  readonly bound: number | null
  /** Which side of the bound is right. */
  readonly direction: "atMost" | "atLeast"
  readonly note?: string | undefined
}

/** Several figures laid out for reading; what stands in it need not be listed once more. */
export interface Table {
  readonly title: string
  readonly head: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
}

export interface Report {
  readonly figures: ReadonlyArray<Figure>
  /** Where there are tables, only figures with a bound are listed beside them. */
  readonly tables?: ReadonlyArray<Table> | undefined
}

/** What the runner gives to a bench. */
export interface Context {
  /** Says what is going on, on stderr. */
  readonly progress: (text: string) => void
  /** Whether files that the repository holds (a plot) may be written anew. */
  readonly write: boolean
}

export interface Bench {
  readonly name: string
  readonly run: (context: Context) => Promise<Report> | Effect.Effect<Report, unknown>
}

/** A figure without a bound. */
export const plain = (figure: string, value: number | null, unit: string, note?: string): Figure => ({
  figure,
  value,
  unit,
  bound: null,
  direction: "atMost",
  note
})

/** A figure that must not pass its bound. */
export const atMost = (figure: string, value: number | null, unit: string, bound: number, note?: string): Figure => ({
  ...plain(figure, value, unit, note),
  bound
})

/** A figure that must reach its bound. */
export const atLeast = (figure: string, value: number | null, unit: string, bound: number, note?: string): Figure => ({
  ...atMost(figure, value, unit, bound, note),
  direction: "atLeast"
})

/** Whether the bound holds; `null` where there is none. What could not be measured does not hold. */
export const holds = ({ bound, direction, value }: Figure): boolean | null =>
  bound === null ? null : value !== null && (direction === "atMost" ? value <= bound : value >= bound)

/** The one line of a figure for `--json`. */
export const toJson = (bench: string, figure: Figure): string =>
  JSON.stringify({
    bench,
    figure: figure.figure,
    value: figure.value,
    unit: figure.unit,
    bound: figure.bound,
    holds: holds(figure)
  })
