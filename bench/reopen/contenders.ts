// Each contender as it comes, following one place for as long as it does.
import { loadFetchEventSource } from "../lib/fetchEventSource.ts"
import { load } from "../lib/peers.ts"

type Start = (place: string) => unknown

const http = (place: string) => `http://${place}/`
const ws = (place: string) => `ws://${place}/`

type Socket = new(url: string) => object

const ours = async () => {
  const [EventSource, WebSocket, Effect, FetchHttpClient, References, Stream] = await Promise.all([
    import("effect-lifeline/EventSource"),
    import("effect-lifeline/WebSocket"),
    import("effect/Effect"),
    import("effect/http/FetchHttpClient"),
    import("effect/References"),
    import("effect/Stream")
  ])
  return {
    events: (place: string) =>
      Stream.runDrain(EventSource.stream(http(place))).pipe(
        Effect.provide(FetchHttpClient.layer),
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.runFork
      ),
    socket: (place: string) =>
      Stream.runDrain(WebSocket.stream({ url: ws(place) })).pipe(
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.runFork
      )
  }
}

export const contenders: Readonly<Record<string, () => Promise<Start>>> = {
  "ours, events": async () => (await ours()).events,
  "ours, WebSocket": async () => (await ours()).socket,
  eventsource: async () => {
    const { EventSource } = await load<{ readonly EventSource: Socket }>("eventsource")
    return (place) => new EventSource(http(place))
  },
  "fetch-event-source": async () => {
    const fetchEventSource = await loadFetchEventSource()
    return (place) =>
      fetchEventSource(http(place), {
        openWhenHidden: true,
        // Left alone it never comes back from a clean end; this is how its documentation has one make it.
        onclose: () => {
          throw new Error("the stream ended")
        }
      })
  },
  "reconnecting-websocket": async () => {
    const { default: ReconnectingWebSocket } = await load<{ readonly default: Socket }>("reconnecting-websocket")
    return (place) => new ReconnectingWebSocket(ws(place))
  },
  partysocket: async () => {
    const { default: WebSocket } = await load<{ readonly default: Socket }>("partysocket/ws")
    return (place) => new WebSocket(ws(place))
  },
  "graphql-ws": async () => {
    const { createClient } = await load<{
      readonly createClient: (options: { readonly url: string }) => {
        readonly subscribe: (payload: object, sink: object) => void
      }
    }>("graphql-ws")
    return (place) =>
      createClient({ url: ws(place) }).subscribe(
        { query: "subscription { hello }" },
        { next: () => {}, error: () => {}, complete: () => {} }
      )
  }
}
