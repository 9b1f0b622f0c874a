// A plot as SVG: one small panel for each rule, all on the same scales, so that they compare at a glance. Drawn without a
// background, in colours that can be read on white and on black.

export interface Panel {
  readonly title: string
  /** Set beside the title, smaller. */
  readonly note: string
  /** One value per second. */
  readonly values: ReadonlyArray<number>
  /** Said beside bars that are cut off. */
  readonly peak: string
  readonly ours: boolean
}

export interface Plot {
  readonly title: string
  readonly subtitle: string
  /** The highest value that is drawn to scale; what is higher is cut off and says how high it is. */
  readonly limit: number
  /** A line across all panels: the best that is possible. */
  readonly reference: { readonly value: number; readonly label: string }
  readonly axis: string
  readonly panels: ReadonlyArray<Panel>
}

const ink = "#717c88"
const own = "#2f9e8f"
const others = "#d9822b"

const escape = (text: string): string => text.replace(/[&<>"]/g, (char) => `&#${char.charCodeAt(0)};`)

const round = (value: number): string => Number(value.toFixed(1)).toString()

const text = (x: number, y: number, size: number, content: string, more = ""): string =>
  `<text x="${round(x)}" y="${round(y)}" font-size="${size}" ${more}>${escape(content)}</text>`

export const render = ({ axis, limit, panels, reference, subtitle, title }: Plot): string => {
  const columns = 2
  const width = 400
  const height = 104
  const gap = { x: 56, y: 54 }
  const left = 44
  const top = 96
  const rows = Math.ceil(panels.length / columns)
  const total = {
    width: left + columns * width + (columns - 1) * gap.x + 16,
    height: top + rows * height + (rows - 1) * gap.y + 48
  }
  const panel = ({ note, ours, peak, title, values }: Panel, index: number): string => {
    const x = left + index % columns * (width + gap.x)
    const y = top + Math.floor(index / columns) * (height + gap.y)
    const bar = width / values.length
    const scale = (value: number): number => Math.min(value, limit) / limit * height
    const colour = ours ? own : others
    const bars = values.map((value, second) =>
      value > 0
        ? `<rect x="${round(x + second * bar)}" y="${round(y + height - scale(value))}" width="${
          round(bar - 0.8)
        }" height="${round(scale(value))}"/>`
        : ""
    )
    const over = values.findIndex((value) => value > limit)
    const beside = values.findIndex((value, second) => second > over && value === 0)
    const cut = over < 0 ? [] : [text(x + beside * bar + 6, y + 11, 12, peak, `fill="${colour}" font-weight="600"`)]
    const across = y + height - scale(reference.value)
    return [
      text(x, y - 12, 14, title, `fill="${colour}" font-weight="600"`),
      text(x + width, y - 12, 12, note, `fill="${ink}" text-anchor="end"`),
      `<g fill="${colour}">${bars.join("")}</g>`,
      ...cut,
      `<path d="M${x} ${y + height}H${x + width}" stroke="${ink}" fill="none"/>`,
      `<path d="M${x} ${round(across)}H${x + width}" stroke="${ink}" stroke-dasharray="4 4" fill="none"/>`,
      ...[0, limit / 2, limit].map((value) =>
        text(x - 6, y + height - scale(value) + 4, 11, `${value}`, `fill="${ink}" text-anchor="end"`)
      ),
      ...[0, 15, 30, 45, 60].filter((second) => second <= values.length).map((second) =>
        text(x + second * bar, y + height + 15, 11, `${second}`, `fill="${ink}" text-anchor="middle"`)
      )
    ].join("\n")
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total.width} ${total.height}" width="${total.width}" height="${total.height}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" role="img" aria-label="${
      escape(title)
    }">`,
    text(left, 26, 18, title, `fill="${ink}" font-weight="600"`),
    text(left, 48, 13, subtitle, `fill="${ink}"`),
    ...panels.map(panel),
    text(left, total.height - 10, 12, `${axis}; dashed: ${reference.label}`, `fill="${ink}"`),
    "</svg>",
    ""
  ].join("\n")
}
