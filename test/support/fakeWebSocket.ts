/** A platform's WebSocket under the control of a test: what it was asked, what was sent, and what it reports when. */
import * as WebSocket from "effect-lifeline/WebSocket"
import * as Effect from "effect/Effect"

export interface FakeWire {
  readonly handshake: WebSocket.Handshake
  readonly events: WebSocket.Events
  readonly sent: Array<WebSocket.Message>
  readonly closes: Array<number>
  pings: number
  terminated: number
  /** What the platform has not sent yet. */
  buffered: number
  isOpen: boolean
  paused: boolean
}

export interface Options {
  /** Whether the handshake succeeds at once. @default true */
  readonly opens?: boolean
  /** Whether closing is answered. @default true */
  readonly answersClose?: boolean
  readonly canPing?: boolean
  readonly canPause?: boolean
  /** Whether what is sent stays in the platform's buffer. */
  readonly buffers?: boolean
}

export const make = (options: Options = {}) => {
  const wires: Array<FakeWire> = []
  const counts = { open: 0 }
  const dialer: WebSocket.Dialer = (handshake, events) =>
    Effect.gen(function*() {
      const wire: FakeWire = {
        handshake,
        events,
        sent: [],
        closes: [],
        pings: 0,
        terminated: 0,
        buffered: 0,
        isOpen: options.opens ?? true,
        paused: false
      }
      wires.push(wire)
      yield* Effect.acquireRelease(
        Effect.sync(() => counts.open++),
        () => Effect.sync(() => counts.open--)
      )
      if (wire.isOpen) events.opened(handshake.protocols[0] ?? "")
      return {
        send: (message) => {
          if (!wire.isOpen) return false
          wire.sent.push(message)
          if (options.buffers === true) wire.buffered += message.length
          return true
        },
        close: (code) => {
          wire.isOpen = false
          wire.closes.push(code)
          if (options.answersClose !== false) events.closed({ code })
        },
        buffered: () => wire.buffered,
        terminate: () => void wire.terminated++,
        ping: options.canPing === true ? () => void wire.pings++ : undefined,
        liveness: options.canPing === true ? WebSocket.liveness() : undefined,
        flow: options.canPause === true
          ? {
            pause: () => {
              wire.paused = true
            },
            resume: () => {
              wire.paused = false
            }
          }
          : undefined
      } satisfies WebSocket.Wire
    })
  return {
    wires,
    counts,
    last: () => {
      const wire = wires.at(-1)
      if (wire === undefined) throw new Error("nothing was dialled")
      return wire
    },
    provide: Effect.provideService(WebSocket.Dialer, dialer)
  }
}
