// Size: what the package adds to a bundle. Measured by scripts/size.ts, which `npm run size` and the checks run too.
import { root, run as runCommand } from "../scripts/internal.ts"
import type { Figure, Report } from "./lib/figure.ts"

export const name = "size"

type Line = Pick<Figure, "figure" | "value" | "unit" | "bound">

export const run = async (): Promise<Report> => {
  // It ends with 1 where a bound does not hold, which is for the runner to say.
  const { output } = runCommand(process.execPath, [`${root}/scripts/size.ts`, "--json"])
  const figures = output.split("\n").filter((line) => line.startsWith("{")).map((line): Figure => {
    const { bound, figure, unit, value } = JSON.parse(line) as Line
    return { figure, value, unit, bound, direction: "atMost" }
  })
  if (figures.length === 0) throw new Error(`scripts/size.ts reports nothing:\n${output}`)
  return { figures }
}
