// Listener: what a subscription holds, how fast messages reach their readers and how long a new connection takes until all
// subscriptions are on it; and that all of it grows with their number and no faster. Over a connection within the process, so
// that nothing else is measured; a fresh process for each number.
import { withChild } from "./lib/child.ts"
import { atMost, plain } from "./lib/figure.ts"
import type { Context, Figure, Report, Table } from "./lib/figure.ts"
import { formatNumber } from "./lib/print.ts"
import "./lib/resolve.ts"
import { median } from "./lib/stats.ts"
import type { Held, Task } from "./listener/child.ts"

export const name = "listener"

const turns = 3
const few = 1000
const some = 10_000
const many = 100_000

const holding = (task: Task): Promise<Held> =>
  withChild(new URL("listener/child.ts", import.meta.url), [], async (child) => {
    child.send(task)
    return await child.next() as Held
  })

interface Quantity {
  readonly label: string
  readonly unit: string
  readonly of: (held: Held) => number
  /** At {@link some}. */
  readonly bound?: number
  /** Of what is at {@link many} over what is at {@link some}. */
  readonly growth?: number
  /** The same, over that of bare fibers. */
  readonly growthOverBare?: number
}

const bare: Quantity = { label: "CPU to wake a bare fiber", unit: "us", of: ({ bare }) => bare.cpu }

const quantities: ReadonlyArray<Quantity> = [
  { label: "heap of a subscription", unit: "kB", of: ({ heap }) => heap / 1000, bound: 2, growth: 1.3 },
  { label: "heap with a fiber that reads it", unit: "kB", of: ({ read }) => read / 1000, growth: 1.3 },
  { label: "CPU to subscribe", unit: "us", of: ({ subscribe }) => subscribe, growth: 2 },
  { label: "messages for one key each", unit: "/s", of: ({ single }) => single.perSecond },
  { label: "CPU of a message for one key", unit: "us", of: ({ single }) => single.cpu, growthOverBare: 1.5 },
  { label: "messages for all keys, as read", unit: "/s", of: ({ all }) => all.perSecond },
  { label: "CPU of a message for all keys, by reader", unit: "us", of: ({ all }) => all.cpu, growthOverBare: 1.5 },
  { label: "replay of all keys, from the dial", unit: "ms", of: ({ replayed }) => replayed },
  { label: "CPU of a replay, by key", unit: "us", of: ({ replay }) => replay, growth: 2 },
  bare
]

export const run = async ({ progress }: Context): Promise<Report> => {
  const held = new Map<number, Array<Held>>([few, some, many].map((count) => [count, []]))
  for (let turn = 1; turn <= turns; turn++) {
    for (const [count, all] of held) {
      progress(`listener: ${count} subscriptions, ${turn} of ${turns}`)
      all.push(await holding({ count, messages: 500_000, replays: 3 }))
    }
  }
  const at = (count: number, { of }: Quantity): number => median((held.get(count) ?? []).map(of))
  const grows = (quantity: Quantity): number => at(many, quantity) / at(some, quantity)
  const figures = quantities.flatMap((quantity): ReadonlyArray<Figure> => {
    const { bound, growth, growthOverBare, label, unit } = quantity
    const figure = `${label}, ${many} over ${some}`
    return [
      ...[...held.keys()].map((count) =>
        count === some && bound !== undefined
          ? atMost(`${count}: ${label}`, at(count, quantity), unit, bound)
          : plain(`${count}: ${label}`, at(count, quantity), unit)
      ),
      growth === undefined ? plain(figure, grows(quantity), "x") : atMost(figure, grows(quantity), "x", growth),
      // Nothing is searched or copied. But who waits for long is old when it is woken, and what it then waits with is young:
      // the garbage collector has the more to do the more there are, whoever wakes whom.
      ...(growthOverBare === undefined
        ? []
        : [atMost(`${figure}, over that of bare fibers`, grows(quantity) / grows(bare), "x", growthOverBare)])
    ]
  })
  const table: Table = {
    title: `One Listener, a connection within the process; medians of ${turns}. Growth: ${many} over ${some}`,
    head: ["", ...[...held.keys()].map(String), "", "growth"],
    rows: quantities.map((quantity) => [
      quantity.label,
      ...[...held.keys()].map((count) => formatNumber(at(count, quantity))),
      quantity.unit,
      grows(quantity).toFixed(2)
    ])
  }
  return { figures, tables: [table] }
}
