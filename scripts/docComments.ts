// What a doc comment must have, for scripts/check-docs.ts. By the layout that the formatter gives: an export begins its line,
// and its comment ends on the line before.

const isExport = /^export (?:declare )?(?:abstract )?(?:async )?(?:const|let|function\*?|class|interface|type) (\w+)/

/** The lines inside doc comments that do not begin with a star: tools and editors show such a comment broken. */
export const withoutStar = (text: string): ReadonlyArray<number> => {
  const lines: Array<number> = []
  let inside = false
  for (const [index, line] of text.split("\n").entries()) {
    if (!inside) inside = /^\s*\/\*\*(?!.*\*\/)/.test(line)
    else if (line.includes("*/")) inside = false
    else if (!/^\s*\*(?: |$)/.test(line)) lines.push(index + 1)
  }
  return lines
}

/** The doc comment that ends on the line before `index`, as its lines without stars. */
const commentBefore = (lines: ReadonlyArray<string>, index: number): ReadonlyArray<string> => {
  if (!(lines[index - 1] ?? "").endsWith("*/")) return []
  let first = index - 1
  while (first > 0 && !(lines[first] ?? "").startsWith("/**")) first--
  return lines.slice(first, index).map((line) => line.replace(/^\s*(?:\/\*\*|\*\/|\*)/, "").replace(/\*\/$/, "").trim())
}

/** What the comments of the exports of a public module lack. Overloads after the first share its comment. */
export const missing = (text: string): ReadonlyArray<{ readonly line: number; readonly what: string }> => {
  const lines = text.split("\n")
  const seen = new Set<string>()
  return lines.flatMap((line, index) => {
    const name = isExport.exec(line)?.[1]
    if (name === undefined || (seen.has(name) && line.startsWith("export function"))) return []
    seen.add(name)
    const comment = commentBefore(lines, index)
    const first = comment.find((text) => text !== "")
    const lacks = [
      ...(first === undefined || first.startsWith("@") ? ["a summary"] : []),
      ...["@category", "@since"].filter((tag) => !comment.some((text) => text.startsWith(`${tag} `)))
    ]
    return lacks.map((lack) => ({ line: index + 1, what: `${name} lacks ${lack}` }))
  })
}
