// The plain proxy: LOCAL_PORT. Says where it listens, and then, whenever it is asked, how much CPU it took.
import * as Net from "node:net"
import { join, serve } from "../../test/support/boreRelay.ts"

const [local] = process.argv.slice(2)

const proxy = await serve(0, (near) => {
  const far = Net.connect({ port: Number(local), host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  far.on("error", () => {})
  join(near, far)
})
process.on("message", () => process.send?.(process.cpuUsage()))
process.send?.(proxy.port)
