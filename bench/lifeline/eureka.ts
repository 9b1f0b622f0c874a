// A peer: one eureka-js-client for each service, as it comes, except that it does not fetch the registry, which the others
// do not do either.
import { createRequire } from "node:module"
import { setTimeout as sleep } from "node:timers/promises"
import { instances, side, startsIn } from "./work.ts"

interface Eureka {
  readonly start: (done: (error: unknown) => void) => void
}

const { Eureka } = createRequire(import.meta.url)("eureka-js-client") as {
  readonly Eureka: new(config: unknown) => Eureka
}

const logger = { debug: () => {}, info: () => {}, warn: console.warn, error: console.error }

side(async (work) => {
  const { hostname, port } = new URL(work.url)
  const begun = performance.now()
  return Promise.all(
    instances(work.count).map(async ({ name }, index) => {
      const client = new Eureka({
        logger,
        eureka: { host: hostname, port, heartbeatInterval: work.interval, fetchRegistry: false },
        instance: {
          app: name,
          instanceId: name,
          hostName: name,
          ipAddr: "127.0.0.1",
          vipAddress: name,
          port: { $: 8080, "@enabled": true },
          dataCenterInfo: { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" }
        }
      })
      await sleep(startsIn(work, begun, index))
      await new Promise<void>((resolve, reject) => {
        client.start((error) => error ? reject(new Error("it did not start", { cause: error })) : resolve())
      })
      return client
    })
  )
})
