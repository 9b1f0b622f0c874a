/** A server of bore as a process of its own, on the given port, so that it can be killed. */
import * as BoreRelay from "../support/boreRelay.ts"

const { port } = await BoreRelay.start({ listen: Number(process.argv[2]), secret: "open sesame" })
console.log(`ready ${port}`)
