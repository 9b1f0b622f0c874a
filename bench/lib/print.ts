// Tables for people.
import { holds } from "./figure.ts"
import type { Figure, Report, Table } from "./figure.ts"

const numeric = /^[<>=~ ]*-?[\d.,]+( ?[^\d\s]+)?$|^-?$/

/** Columns as wide as their widest cell; a column of numbers is aligned right. */
export const formatTable = ({ head, rows, title }: Table): string => {
  const all = [head, ...rows]
  const columns = Math.max(...all.map((row) => row.length))
  const width = (column: number) => Math.max(...all.map((row) => (row[column] ?? "").length))
  const right = (column: number) => column > 0 && rows.every((row) => numeric.test(row[column] ?? ""))
  const line = (row: ReadonlyArray<string>): string =>
    Array.from({ length: columns }, (_, column) => {
      const cell = row[column] ?? ""
      return right(column) ? cell.padStart(width(column)) : cell.padEnd(width(column))
    }).join("  ").trimEnd()
  return [title, ...all.map((row) => `  ${line(row)}`)].join("\n")
}

/** Four significant digits are more than any of these figures is worth. */
export const formatNumber = (value: number): string =>
  Math.abs(value) >= 1000 ? Math.round(value).toString() : Number(value.toPrecision(4)).toString()

const formatFigure = (figure: Figure): ReadonlyArray<string> => [
  figure.figure,
  figure.value === null ? "-" : formatNumber(figure.value),
  figure.unit,
  figure.bound === null ? "" : `${figure.direction === "atMost" ? "<=" : ">="} ${formatNumber(figure.bound)}`,
  { true: "ok", false: "FAIL", null: "" }[String(holds(figure))] ?? "",
  figure.note ?? ""
]

export const formatReport = (name: string, { figures, tables }: Report): string => {
  const listed = tables === undefined ? figures : figures.filter(({ bound }) => bound !== null)
  const blocks = (tables ?? []).map(formatTable)
  if (listed.length > 0) {
    blocks.push(
      formatTable({ title: name, head: ["figure", "value", "unit", "bound", "", ""], rows: listed.map(formatFigure) })
    )
  }
  return blocks.join("\n\n")
}
