// A peer: eventsource, as it comes.
import { load } from "../lib/peers.ts"
import { contender } from "./work.ts"

const { EventSource } = await load<{ readonly EventSource: new(url: string) => object }>("eventsource")

contender((url, onData) =>
  // Its shorter way: a listener that is added makes it slower.
  Object.assign(new EventSource(url), { onmessage: ({ data }: { readonly data: string }) => onData(data) })
)
