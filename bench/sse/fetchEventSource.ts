// A peer: @microsoft/fetch-event-source. It is for browsers; here it gets as much of `window` and `document` as it touches.
import { loadFetchEventSource } from "../lib/fetchEventSource.ts"
import { contender } from "./work.ts"

const fetchEventSource = await loadFetchEventSource()

contender((url, onData) => fetchEventSource(url, { openWhenHidden: true, onmessage: ({ data }) => onData(data) }))
