/** The program in a page, over a WebSocket that stands for each connection; ports and report are globals of the page. */
import * as Effect from "effect/Effect"
import * as Socket from "effect/socket/Socket"
import { program } from "./program.ts"
import type { Ports } from "./program.ts"

const place = globalThis as { readonly ports?: Ports; report?: string }

Effect.runFork(
  Effect.gen(function*() {
    const context = yield* Effect.context<Socket.WebSocketConstructor>()
    const report = yield* program(
      (port) => Effect.provide(Socket.makeWebSocket(`ws://127.0.0.1:${port}/`), context),
      place.ports ?? { server: 0, nobody: 0 }
    )
    place.report = JSON.stringify(report)
  }).pipe(Effect.provide(Socket.layerWebSocketConstructorGlobal))
)
