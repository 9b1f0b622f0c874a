// A peer: eventsource-parser over fetch, and nothing around it: no second connection, no deadline, no cursor.
import { load } from "../lib/peers.ts"
import { contender } from "./work.ts"

interface Parser {
  readonly createParser: (callbacks: { readonly onEvent: (event: { readonly data: string }) => void }) => {
    readonly feed: (text: string) => void
  }
}

const { createParser } = await load<Parser>("eventsource-parser")

contender(async (url, onData) => {
  const parser = createParser({ onEvent: ({ data }) => onData(data) })
  const decoder = new TextDecoder()
  const response = await fetch(url, { headers: { accept: "text/event-stream" } })
  if (response.body === null) throw new Error("there is no body")
  for await (const bytes of response.body) parser.feed(decoder.decode(bytes, { stream: true }))
})
