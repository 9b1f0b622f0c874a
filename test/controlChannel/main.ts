/** The program on Node, Deno and Bun, over TCP; the ports are arguments, the report is a line. */
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Effect from "effect/Effect"
import { program } from "./program.ts"

const [server, nobody] = process.argv.slice(2).map(Number)

Effect.runFork(Effect.map(
  program((port) => NodeSocket.makeNet({ host: "127.0.0.1", port }), { server: server ?? 0, nobody: nobody ?? 0 }),
  (report) => console.log(`report ${JSON.stringify(report)}`)
))
