// What stands before each contender: a server of bore for those that speak its protocol, and for the plain proxy a port that joins
// visitors with it, by the same code. One process for all, so that this hop costs each of them the same.
import * as Net from "node:net"
import * as Relay from "../../test/support/boreRelay.ts"

/** What it is told: where the plain proxy is. */
export interface Told {
  readonly proxy: number
}

/** What it answers: where clients of bore connect to, and visitors of the proxy. */
export interface Listening {
  readonly port: number
  readonly front: number
}

/** Where the visitors of a client of bore connect to; asked for by any message. */
export interface Given {
  readonly given: number | null
}

const [listen, secret] = process.argv.slice(2)

let proxy = 0
const relay = await Relay.start({ listen: Number(listen), secret })
const front = await Relay.serve(0, (near) => {
  const far = Net.connect({ port: proxy, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  far.on("error", () => {})
  Relay.join(near, far)
})
process.on("message", (told: Partial<Told>) => {
  if (told.proxy !== undefined) proxy = told.proxy
  const answer: Given = { given: relay.given() ?? null }
  process.send?.(answer)
})
const listening: Listening = { port: relay.port, front: front.port }
process.send?.(listening)
