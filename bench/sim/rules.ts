// Rules by which clients come back after a failure: ours, by the real `Backoff.step`, and those of others, written anew from
// the constants that they publish.
import * as Backoff from "effect-lifeline/Backoff"

/** One failure of one client in one outage: `n` counts from 1. */
interface Failure {
  readonly n: number
  readonly now: number
  /** A source of draws in [0, 1). */
  readonly random: () => number
}

export interface Rule {
  readonly name: string
  /** Whose constants these are, and where they are published. */
  readonly source: string
  /** The waits of one client in one outage, in milliseconds. */
  readonly begin: () => (failure: Failure) => number
}

export const fromPolicy = (name: string, source: string, policy: Backoff.Unbounded, hint?: number): Rule => ({
  name,
  source,
  begin: () => {
    let state = Backoff.initial
    return ({ now, random }) => {
      state = Backoff.step(policy, state, { now, random: random(), hint }) ?? state
      return state.wait
    }
  }
})

const fromFormula = (name: string, source: string, wait: (n: number, random: () => number) => number): Rule => ({
  name,
  source,
  begin: () => ({ n, random }) => wait(n, random)
})

export const phase: Rule = fromPolicy("phase jitter (ours)", "Backoff.streams", Backoff.streams)

export const full: Rule = fromPolicy(
  "full jitter",
  "AWS Architecture Blog, \"Exponential Backoff And Jitter\"; Hatchet; Envoy. Windows 1 s x2, cap 30 s",
  Backoff.hatchetStreams
)

export const equal: Rule = fromPolicy(
  "equal jitter",
  "AWS Architecture Blog. Windows 1 s x2, cap 30 s",
  Backoff.make({ jitter: "equal" })
)

export const decorrelated: Rule = fromPolicy(
  "decorrelated jitter",
  "AWS Architecture Blog. Base 1 s, cap 30 s",
  Backoff.make({ jitter: "decorrelated" })
)

/** Jittered first, capped after: nothing is left of the jitter once half of the window is over the cap. */
export const socketIo: Rule = fromFormula(
  "socket.io",
  "socket.io-client 4, Manager options: reconnectionDelay 1 s, x2, reconnectionDelayMax 5 s, randomizationFactor 0.5",
  (n, random) => Math.min(5000, 1000 * 2 ** (n - 1) * (0.5 + random()))
)

export const centrifuge: Rule = fromFormula(
  "centrifuge",
  "centrifuge-js: minReconnectDelay 500 ms, maxReconnectDelay 20 s; the least plus full jitter, capped",
  (n, random) => Math.min(20_000, 500 + random() * Math.min(20_000, 500 * 2 ** (n - 1)))
)

export const grpc: Rule = fromFormula(
  "gRPC",
  "gRPC connection backoff protocol: 1 s x1.6, cap 120 s, jitter 0.2 of the capped window",
  (n, random) => Math.min(120_000, 1000 * 1.6 ** (n - 1)) * (0.8 + 0.4 * random())
)

export const reflector: Rule = fromFormula(
  "k8s reflector",
  "kubernetes/client-go reflector: 800 ms x2, cap 30 s, then up to as much again",
  (n, random) => Math.min(30_000, 800 * 2 ** (n - 1)) * (1 + random())
)

export const unjittered: Rule = fromPolicy(
  "no jitter",
  "any unjittered client (Pulse Go, Eureka JS, loops of Consul and etcd clients). Windows 1 s x2, cap 30 s",
  Backoff.make({ jitter: "none" })
)

/** Everybody, ours first. */
export const rules: ReadonlyArray<Rule> = [
  phase,
  full,
  equal,
  decorrelated,
  socketIo,
  centrifuge,
  grpc,
  reflector,
  unjittered
]
