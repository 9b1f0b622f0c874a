// Proof: proofs signed and verified per second beside jose, in turns within one process, and what it costs to remember them.
//
// Both sides do the same. Signing: the claims of RFC 9449 with a token, a random jti each. Verifying: the signature against the
// key in the header, type, algorithm, htm, htu, iat, the hash of the token, the thumbprint of the key, and that it is new.
// jose has no replay store: beside it stands a Set that forgets nothing.
import * as Proof from "effect-lifeline/Proof"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { base64url, calculateJwkThumbprint, EmbeddedJWK, jwtVerify, SignJWT } from "jose"
import type { JWK } from "jose"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { atLeast, atMost, plain } from "./lib/figure.ts"
import type { Context, Figure, Report } from "./lib/figure.ts"
import "./lib/resolve.ts"

export const name = "proof"

// Many short turns, so that whatever else the machine does falls upon both alike.
const rounds = 60
const perRound = 150
const method = "PUT"
const url = "https://registry.example/api/v1/services/7/heartbeat"
const token = Redacted.make("a-token-of-the-bench-that-is-as-long-as-a-token-may-be")

type Algorithm = "ES256" | "EdDSA"

const hash = async (text: string): Promise<string> =>
  base64url.encode(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))))

const rate = async (count: number, f: () => Promise<unknown>): Promise<number> => {
  const started = performance.now()
  await f()
  return count / ((performance.now() - started) / 1000)
}

const median = (values: ReadonlyArray<number>): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

const runOurs = async (proof: Proof.Proof["Service"]): Promise<ReadonlyArray<string>> => {
  const made = await Effect.runPromise(
    Effect.forEach(Array.from({ length: perRound }), () => proof.headers({ method, url, token }))
  )
  return made.map(({ dpop }) => dpop === undefined ? "" : Redacted.value(dpop))
}

const compare = async (algorithm: Algorithm): Promise<ReadonlyArray<Figure>> => {
  const key = await Effect.runPromise(Proof.generateKey({ algorithm }))
  const proof = await Effect.runPromise(Proof.dpop({ key }))
  const jwk = { ...key.publicKey } as JWK
  // Ours remembers it for the next request with the same token.
  const ath = await hash(Redacted.value(token))

  const signByJose = async (): Promise<void> => {
    for (let index = 0; index < perRound; index++) {
      await new SignJWT({ htm: method, htu: url, ath })
        .setProtectedHeader({ typ: "dpop+jwt", alg: algorithm, jwk })
        .setJti(base64url.encode(crypto.getRandomValues(new Uint8Array(16))))
        .setIssuedAt()
        .sign(key.privateKey)
    }
  }
  const verifyByJose = async (proofs: ReadonlyArray<string>): Promise<void> => {
    const seen = new Set<string>()
    for (const dpop of proofs) {
      const { payload, protectedHeader } = await jwtVerify(dpop, EmbeddedJWK, {
        typ: "dpop+jwt",
        algorithms: ["ES256", "EdDSA"],
        maxTokenAge: 60
      })
      const thumbprint = await calculateJwkThumbprint(protectedHeader.jwk ?? {})
      const isRight = payload["htm"] === method && payload["htu"] === url && thumbprint === key.thumbprint &&
        payload["ath"] === await hash(Redacted.value(token)) && !seen.has(payload.jti ?? "")
      if (!isRight) throw new Error("jose refused a proof")
      seen.add(payload.jti ?? "")
    }
  }
  const verifyByOurs = (proofs: ReadonlyArray<string>): Promise<void> =>
    Effect.runPromise(Effect.gen(function*() {
      const replays = yield* Proof.makeReplays()
      for (const dpop of proofs) {
        const headers = { dpop, authorization: `DPoP ${Redacted.value(token)}` }
        yield* Proof.verify({ method, url, headers }, { replays, thumbprint: key.thumbprint })
      }
    }))

  const rates = {
    sign: [] as Array<number>,
    signByJose: [] as Array<number>,
    verify: [] as Array<number>,
    verifyByJose: [] as Array<number>
  }
  const turns = [
    async (round: number): Promise<void> => {
      const proofs = await runOurs(proof)
      rates.verify[round] = await rate(perRound, () => verifyByOurs(proofs))
      rates.sign[round] = await rate(perRound, () => runOurs(proof))
    },
    async (round: number): Promise<void> => {
      const proofs = await runOurs(proof)
      rates.verifyByJose[round] = await rate(perRound, () => verifyByJose(proofs))
      rates.signByJose[round] = await rate(perRound, signByJose)
    }
  ]
  // The first tenth is for the compilers.
  for (let round = -rounds / 10; round < rounds; round++) {
    for (const turn of round % 2 === 0 ? turns : turns.toReversed()) await turn(Math.max(round, 0))
  }
  const ratio = (ours: ReadonlyArray<number>, theirs: ReadonlyArray<number>): number =>
    median(ours.map((value, index) => value / (theirs[index] ?? NaN)))
  return [
    plain(`${algorithm}, signed, ours`, median(rates.sign), "1/s"),
    plain(`${algorithm}, signed, jose`, median(rates.signByJose), "1/s"),
    atLeast(`${algorithm}, signed, ours over jose`, ratio(rates.sign, rates.signByJose), "x", 0.8),
    plain(`${algorithm}, verified, ours`, median(rates.verify), "1/s"),
    plain(`${algorithm}, verified, jose`, median(rates.verifyByJose), "1/s"),
    atLeast(`${algorithm}, verified, ours over jose`, ratio(rates.verify, rates.verifyByJose), "x", 0.8)
  ]
}

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

const used = async (): Promise<number> => {
  gc()
  // What tables held is freed by a thread of its own.
  await new Promise((resolve) => setTimeout(resolve, 200))
  gc()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const remember = async (): Promise<ReadonlyArray<Figure>> => {
  const count = 1_000_000
  const until = Date.now() + 600_000
  const before = await used()
  const replays = await Effect.runPromise(Proof.makeReplays({ capacity: count }))
  let next = 0
  /** Nanoseconds to look for one and to add it. */
  const add = async (many: number): Promise<number> => {
    const started = performance.now()
    await Effect.runPromise(Effect.gen(function*() {
      for (const end = next + many; next < end; next++) {
        const id = `${url} ${next.toString(36).padStart(22, "-")}`
        yield* replays.seen(id)
        if ((yield* replays.add(id, until)) !== "added") throw new Error("it was not remembered")
      }
    }))
    return ((performance.now() - started) / many) * 1e6
  }
  await add(100_000)
  const early = await add(100_000)
  await add(700_000)
  const late = await add(100_000)
  const bytes = await used() - before
  const last = await Effect.runPromise(replays.add("one more", until))
  if (last !== "full") throw new Error(`a store that is full answered ${last}`)
  return [
    plain("remembering a proof, 100,000 known", early, "ns"),
    plain("remembering a proof, 900,000 known", late, "ns"),
    // Nothing is searched; what is over 1 is the caches, and the last doubling of the table.
    atMost("remembering a proof, 900,000 over 100,000 known", late / early, "x", 3),
    atMost("memory for 1,000,000 proofs", bytes / 1e6, "MB", 25)
  ]
}

export const run = async ({ progress }: Context): Promise<Report> => {
  const figures: Array<Figure> = []
  for (const algorithm of ["ES256", "EdDSA"] as const) {
    progress(`proof: ${algorithm}, ${rounds} rounds of ${perRound}, in turns with jose`)
    figures.push(...await compare(algorithm))
  }
  progress("proof: a million proofs remembered")
  figures.push(...await remember())
  return { figures }
}
