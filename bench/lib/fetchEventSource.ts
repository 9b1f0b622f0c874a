// @microsoft/fetch-event-source is for browsers: on Node it needs as much of `window` and `document` as it touches. They are
// global, and others take them for the sign of a browser, so only a process that does nothing else may call this.
import { load } from "./peers.ts"

type FetchEventSource = (
  url: string,
  options: {
    readonly openWhenHidden: boolean
    readonly onmessage?: (event: { readonly data: string }) => void
    readonly onclose?: () => void
  }
) => Promise<void>

export const loadFetchEventSource = async (): Promise<FetchEventSource> => {
  Object.assign(globalThis, {
    window: globalThis,
    document: { hidden: false, addEventListener: () => {}, removeEventListener: () => {} }
  })
  const module = await load<{ readonly fetchEventSource: FetchEventSource }>("@microsoft/fetch-event-source")
  return module.fetchEventSource
}
