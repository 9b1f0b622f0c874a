// Reopen: how often clients open a connection within 10 s where the server gives them every reason to. Counted by the servers,
// which are a process of their own; each contender is a process too, and meets all its servers at once, so that what a busy
// one does to one server costs it attempts at the others: the counts are the least that there would be.
import { setTimeout as sleep } from "node:timers/promises"
import { withChild } from "./lib/child.ts"
import type { Child } from "./lib/child.ts"
import { atMost, plain } from "./lib/figure.ts"
import type { Context, Figure, Report, Table } from "./lib/figure.ts"
import { isInstalled, missing } from "./lib/peers.ts"
import "./lib/resolve.ts"
import { eventStreams, webSockets } from "./reopen/work.ts"
import type { Counts, Hostility, Places } from "./reopen/work.ts"

export const name = "reopen"

const rounds = 3
const bound = 8

interface Contender {
  readonly label: string
  readonly peer?: string
  readonly meets: ReadonlyArray<Hostility>
}

const contenders: ReadonlyArray<Contender> = [
  { label: "ours, events", meets: eventStreams },
  { label: "eventsource", peer: "eventsource", meets: eventStreams },
  { label: "fetch-event-source", peer: "@microsoft/fetch-event-source", meets: eventStreams },
  { label: "ours, WebSocket", meets: webSockets },
  { label: "reconnecting-websocket", peer: "reconnecting-websocket", meets: webSockets },
  { label: "partysocket", peer: "partysocket", meets: webSockets },
  { label: "graphql-ws", peer: "graphql-ws", meets: webSockets }
]

const isPresent = ({ peer }: Contender): boolean => peer === undefined || isInstalled(peer)

const moduleOf = (file: string): URL => new URL(`reopen/${file}`, import.meta.url)

const ask = async <A>(child: Child, question: object): Promise<A> => {
  child.send(question)
  return await child.next() as A
}

type Round = Readonly<Record<string, Counts>>

const round = (): Promise<Round> =>
  withChild(moduleOf("server.ts"), [], async (server) => {
    const present = contenders.filter(isPresent)
    const places = await ask<Readonly<Record<string, Places>>>(
      server,
      Object.fromEntries(present.map(({ label, meets }) => [label, meets]))
    )
    const refused = await Promise.all(present.map(({ label }) =>
      withChild(moduleOf("child.ts"), [], async (child) => {
        child.send({ contender: label, places: places[label] ?? {} })
        // 10 s from the first arrival, with time to start.
        await sleep(15_000)
        return [label, await ask<Counts>(child, {})] as const
      })
    ))
    const counted = await ask<Round>(server, {})
    return Object.fromEntries(refused.map(([label, counts]) => [label, { ...counted[label], ...counts }]))
  })

const figuresOf = (done: ReadonlyArray<Round>): ReadonlyArray<Figure> =>
  contenders.flatMap((contender) =>
    contender.meets.map((hostility) => {
      const counts = done.flatMap((counts) => counts[contender.label]?.[hostility] ?? [])
      const figure = `${contender.label}: ${hostility}`
      const value = counts.length === 0 ? null : Math.max(...counts)
      if (contender.peer === undefined) return atMost(figure, value === 0 ? null : value, "in 10 s", bound)
      return plain(figure, value, "in 10 s", isPresent(contender) ? undefined : missing)
    })
  )

const tableOf = (title: string, meets: ReadonlyArray<Hostility>, figures: ReadonlyArray<Figure>): Table => ({
  title,
  head: ["", ...meets],
  rows: contenders.filter((contender) => contender.meets === meets).map(({ label }) => [
    label,
    ...meets.map((hostility) => {
      const value = figures.find(({ figure }) => figure === `${label}: ${hostility}`)?.value ?? null
      return value === null ? "-" : String(value)
    })
  ])
})

export const run = async ({ progress }: Context): Promise<Report> => {
  const done: Array<Round> = []
  for (let n = 1; n <= rounds; n++) {
    progress(`reopen: ${n} of ${rounds}`)
    done.push(await round())
  }
  const figures = figuresOf(done)
  return {
    figures,
    tables: [
      tableOf(`Event streams: requests in 10 s, the most of ${rounds} rounds`, eventStreams, figures),
      tableOf(`WebSockets: handshakes in 10 s, the most of ${rounds} rounds`, webSockets, figures)
    ]
  }
}
