/** What `lifeline tunnel` does: keeps the tunnel, says where it is, and how it ended. */
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Backoff from "../../Backoff.ts"
import type * as Bore from "../../Bore.ts"
import type * as ControlChannel from "../../ControlChannel.ts"
import { NoProgress } from "../../LifelineError.ts"
import * as NodeDialer from "../../node/NodeDialer.ts"
import * as Tunnel from "../../Tunnel.ts"
import * as Address from "./address.ts"
import * as Exits from "./exits.ts"
import * as Logging from "./logging.ts"

export interface Options {
  readonly to: { readonly host: string; readonly port: number }
  readonly local: { readonly host: string; readonly port: number }
  /** 0: any. */
  readonly port: number
  readonly secret: Redacted.Redacted | undefined
  readonly reconnect: boolean
  /** Seconds. */
  readonly maxReconnectDelay: number | undefined
  readonly exitCodeOnDisconnect: number
  readonly logFormat: Logging.Format
}

/** So many connections that carry nothing, and it is not taken for a server of bore. */
const unclearLimit = 10

/**
 * Says where the tunnel is, whenever that changes, and runs until it ends for good. Gives up on a server only as long as it has
 * never let us in: one that has and does not any more, e.g. as it still holds our port for a connection that is no longer
 * there, is asked again and again.
 */
const follow = Effect.fnUntraced(function*<E>({ local, to }: Options, { channel, ended }: Tunnel.Tunnel<E>) {
  let announced: number | undefined
  let unclear = 0
  const watch = (status: ControlChannel.Status<Bore.Session, E>): Effect.Effect<void, NoProgress> => {
    if (status._tag === "Waiting" && status.cause?._tag === "Inconclusive" && announced === undefined) {
      if (++unclear < unclearLimit) return Effect.void
      const { cause } = status
      return Effect.fail(
        new NoProgress({ operation: cause.operation, target: cause.target, connections: unclear, last: cause })
      )
    }
    if (status._tag !== "Ready") return Effect.void
    const before = announced
    const { port } = status.session
    announced = port
    const here = Address.show(to.host, port)
    const what = `connected${before === undefined ? "" : " again"}: ${here} leads to ${
      Address.show(local.host, local.port)
    }`
    return Effect.andThen(
      before === port ? Effect.void : Console.log(`listening at ${here}`),
      Effect.annotateLogs(Effect.logInfo(what), { port })
    )
  }
  const changes = Stream.runForEach(SubscriptionRef.changes(channel.status), watch)
  return yield* Effect.raceFirst(ended, Effect.andThen(changes, Effect.never))
})

const keep = Effect.fnUntraced(function*(options: Options) {
  const { local, maxReconnectDelay, port, secret, to } = options
  const tunnel = { server: to, local, port, secret, noProgressLimit: Infinity }
  yield* Effect.logInfo(`connecting to ${Address.show(to.host, to.port)}`)
  if (!options.reconnect) return yield* follow(options, yield* Tunnel.make({ ...tunnel, reconnect: false }))
  const jitter = Backoff.boreControl.jitter.name
  const reconnect = maxReconnectDelay === undefined
    ? Backoff.boreControl
    : Backoff.make({ cap: Duration.seconds(maxReconnectDelay), jitter })
  return yield* follow(options, yield* Tunnel.make({ ...tunnel, reconnect }))
}, Effect.scoped)

/** Runs until it ends for good or is interrupted; then says why, and with which exit code. */
export const run = (options: Options): Effect.Effect<void, Exits.Exit> =>
  keep(options).pipe(
    Effect.onInterrupt(() => Effect.logInfo("stopped")),
    Effect.catch((error) => {
      // Nobody but this program closes the channel, and then nobody listens.
      if (error._tag === "Closed") return Effect.interrupt
      const { code, message } = Exits.endOf(error, {
        at: Address.show(options.to.host, options.to.port),
        port: options.port,
        onDisconnect: options.exitCodeOnDisconnect
      })
      const log = code === Exits.codes.clean ? Effect.logInfo : Effect.logFatal
      return log(message).pipe(
        Effect.annotateLogs({ exitCode: code }),
        Effect.andThen(Effect.fail(new Exits.Exit({ code })))
      )
    }),
    Effect.provide([NodeDialer.layer, Logging.layer({ format: options.logFormat })])
  )
