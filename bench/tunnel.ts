// Tunnel: bytes per second through a server of bore and our client of it, beside a plain `node:net` proxy in the place of the client
// behind the same code in the place of the server; and beside the real `bore` client, where there is one: BORE=/path/to/bore, or
// on the PATH. Each is a process of its own. They take turns, and a ratio is the median of those of each turn. And how long a
// new connection takes, until a byte went to the service and one came back.
import { spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"
import { delimiter, join } from "node:path"
import { withChild } from "./lib/child.ts"
import type { Child } from "./lib/child.ts"
import { atLeast, plain } from "./lib/figure.ts"
import type { Context, Figure, Report } from "./lib/figure.ts"
import "./lib/resolve.ts"
import { serve } from "../test/support/boreRelay.ts"
import { median } from "./lib/stats.ts"
import type { Given, Listening, Told } from "./tunnel/relay.ts"
import { ask, move, service } from "./tunnel/traffic.ts"
import type { Direction } from "./tunnel/traffic.ts"

export const name = "tunnel"

const turns = 11
const asks = 300
const secret = "a-secret-of-the-bench"
/** The only port that the real client connects to. */
const borePort = 7835

const loads: ReadonlyArray<{
  readonly label: string
  readonly direction: Direction
  readonly bytes: number
  readonly connections: number
}> = [
  { label: "to the service, 1 connection", direction: "up", bytes: 128e6, connections: 1 },
  { label: "from the service, 1 connection", direction: "down", bytes: 128e6, connections: 1 },
  { label: "from the service, 100 connections", direction: "down", bytes: 100e6, connections: 100 }
]

const moduleOf = (file: string): URL => new URL(`tunnel/${file}`, import.meta.url)

const findBore = (): string | undefined => {
  const isThere = (path: string): boolean => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  }
  const asked = process.env["BORE"]
  if (asked !== undefined) return isThere(asked) ? asked : undefined
  return (process.env["PATH"] ?? "").split(delimiter).map((directory) => join(directory, "bore")).find(isThere)
}

const isFree = (port: number): Promise<boolean> =>
  serve(port, () => {}).then(({ stop }) => stop().then(() => true), () => false)

/** Somebody in the place of the client: where its visitors connect to, and how much CPU it took, in seconds. */
interface Contender {
  readonly label: string
  readonly port: number
  readonly cpu?: () => Promise<number>
}

const cpuOf = (child: Child) => async (): Promise<number> => {
  child.send({})
  const { system, user } = await child.next() as NodeJS.CpuUsage
  return (system + user) / 1e6
}

/** Waits until a client of bore has a port. */
const given = async (relay: Child): Promise<number> => {
  for (let n = 0; n < 500; n++) {
    relay.send({})
    const { given } = await relay.next() as Given
    if (given !== null) return given
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error("a client of bore did not get a port within 10 seconds")
}

const withOurs = <A>(
  label: string,
  local: number,
  secrets: ReadonlyArray<string>,
  use: (ours: Contender) => Promise<A>
): Promise<A> =>
  withChild(moduleOf("relay.ts"), ["0", ...secrets], async (relay) => {
    const { port } = await relay.next() as Listening
    return await withChild(moduleOf("ours.ts"), [String(port), String(local), ...secrets], async (ours) => {
      await ours.next()
      return await use({ label, port: await given(relay), cpu: cpuOf(ours) })
    })
  })

const withPlain = <A>(local: number, use: (plain: Contender) => Promise<A>): Promise<A> =>
  withChild(moduleOf("relay.ts"), ["0"], async (relay) => {
    const { front } = await relay.next() as Listening
    return await withChild(moduleOf("plain.ts"), [String(local)], async (proxy) => {
      const told: Told = { proxy: Number(await proxy.next()) }
      relay.send(told)
      await relay.next()
      return await use({ label: "plain proxy", port: front, cpu: cpuOf(proxy) })
    })
  })

const withBore = async <A>(
  local: number,
  use: (bore: Contender | undefined) => Promise<A>,
  progress: (text: string) => void
): Promise<A> => {
  const command = findBore()
  if (command === undefined || !await isFree(borePort)) {
    progress(
      command === undefined
        ? "tunnel: no bore client: its crate is bore-cli; set BORE to its path"
        : `tunnel: no figures of the bore client: port ${borePort} is taken`
    )
    return await use(undefined)
  }
  return await withChild(moduleOf("relay.ts"), [String(borePort), secret], async (relay) => {
    await relay.next()
    const child = spawn(command, ["local", String(local), "--local-host", "127.0.0.1", "--to", "127.0.0.1"], {
      env: { ...process.env, BORE_SECRET: secret },
      stdio: "ignore"
    })
    try {
      return await use({ label: "bore", port: await given(relay) })
    } finally {
      child.kill("SIGKILL")
    }
  })
}

const measure = async (
  contenders: ReadonlyArray<Contender>,
  progress: (text: string) => void
): Promise<ReadonlyArray<Figure>> => {
  const [ours, proxy, bore] = contenders
  const figures: Array<Figure> = []
  for (const { bytes, connections, direction, label } of loads) {
    progress(`tunnel: ${label}`)
    const rates = new Map<Contender | undefined, Array<number>>()
    const spent = new Map<Contender | undefined, number>()
    // The first is for the compilers.
    for (let turn = -1; turn < turns; turn++) {
      for (const contender of turn % 2 === 0 ? contenders : contenders.toReversed()) {
        const before = await contender.cpu?.() ?? 0
        const rate = await move(contender.port, direction, bytes, connections)
        if (turn < 0) continue
        rates.set(contender, [...rates.get(contender) ?? [], rate])
        spent.set(contender, (spent.get(contender) ?? 0) + (await contender.cpu?.() ?? 0) - before)
      }
    }
    const of = (contender: Contender | undefined) => rates.get(contender) ?? []
    const ratio = (theirs: Contender | undefined) =>
      median(of(ours).map((rate, turn) => rate / (of(theirs)[turn] ?? NaN)))
    const cpu = (contender: Contender | undefined) => (spent.get(contender) ?? NaN) / (turns * bytes / 1e9)
    figures.push(
      plain(`${label}: ours`, median(of(ours)) / 1e6, "MB/s"),
      plain(`${label}: plain proxy`, median(of(proxy)) / 1e6, "MB/s"),
      atLeast(`${label}: ours over plain proxy`, ratio(proxy), "x", 0.7),
      plain(`${label}: CPU, ours`, cpu(ours), "s/GB"),
      plain(`${label}: CPU, plain proxy`, cpu(proxy), "s/GB")
    )
    if (bore !== undefined) {
      figures.push(
        plain(`${label}: bore`, median(of(bore)) / 1e6, "MB/s"),
        plain(`${label}: ours over bore`, ratio(bore), "x")
      )
    }
  }
  return figures
}

const latency = async (
  contenders: ReadonlyArray<Contender>,
  progress: (text: string) => void
): Promise<ReadonlyArray<Figure>> => {
  progress("tunnel: new connections")
  const took = new Map<Contender, Array<number>>(contenders.map((contender) => [contender, []]))
  for (let turn = -asks / 10; turn < asks; turn++) {
    for (const [contender, all] of took) {
      const millis = await ask(contender.port)
      if (turn >= 0) all.push(millis)
    }
  }
  return [...took].map(([{ label }, all]) => plain(`a new connection, there and back: ${label}`, median(all), "ms"))
}

export const run = async ({ progress }: Context): Promise<Report> => {
  const served = await service()
  try {
    const figures = await withOurs(
      "ours",
      served.port,
      [],
      (open) =>
        withOurs(
          "ours, with a secret",
          served.port,
          [secret],
          (ours) =>
            withPlain(served.port, (proxy) =>
              withBore(served.port, async (bore) => {
                const others = bore === undefined ? [] : [{ ...bore, label: "bore, with a secret" }]
                return [
                  ...await measure([ours, proxy, ...others], progress),
                  ...await latency([proxy, open, ours, ...others], progress)
                ]
              }, progress))
        )
    )
    return { figures }
  } finally {
    await served.stop()
  }
}
