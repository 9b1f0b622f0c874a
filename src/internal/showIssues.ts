/** Issues as text for a message. Apart from how they are found: an error's message needs no schema. */
import type { Issue } from "../LifelineError.ts"

export const showIssues = (issues: ReadonlyArray<Issue>): string =>
  issues.map(({ message, path }) => path === "" ? message : `${path}: ${message}`).join("; ")
