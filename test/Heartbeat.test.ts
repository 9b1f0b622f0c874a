import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "effect-lifeline/Backoff"
import * as Heartbeat from "effect-lifeline/Heartbeat"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"

// ---------------------------------------------------------------------------------------------------------------------
// Drivers
// ---------------------------------------------------------------------------------------------------------------------

/** The reference's numbers without jitter, so that times can be written down, but reset only after a healthy minute. */
const exact = Heartbeat.make({
  interval: 30_000,
  expiresAfter: 120_000,
  registering: Backoff.pulseRegistration,
  failing: { ...Backoff.pulseHeartbeat, resetAfter: 60_000 }
})

const byDefault = Heartbeat.make({ interval: 30_000, expiresAfter: 120_000 })

/** Feeds events one by one; seconds in, milliseconds in the machine. */
const machine = (policy: Heartbeat.Policy, from: Heartbeat.State = Heartbeat.initial) => {
  let state = from
  return {
    tell: (event: Heartbeat.Event, seconds: number, random = 0.5): Heartbeat.Step => {
      const next = Heartbeat.step(policy, state, event, { now: seconds * 1000, random })
      state = next.state
      return next
    },
    state: () => state,
    online: (seconds: number) => Heartbeat.isOnline(policy, state, seconds * 1000)
  }
}

const failed: Heartbeat.Event = { _tag: "Failed" }
const lost: Heartbeat.Event = { _tag: "Lost", taken: false }
const taken: Heartbeat.Event = { _tag: "Lost", taken: true }
const unauthorized: Heartbeat.Event = { _tag: "Rejected", auth: true }
const refused: Heartbeat.Event = { _tag: "Rejected", auth: false }
const beaten = (seconds: number): Heartbeat.Event => ({ _tag: "Beaten", sentAt: seconds * 1000 })

/** What is next, in seconds. */
const next = (step: Heartbeat.Step): readonly [Heartbeat.Action, number] => [step.action, step.delay / 1000]

/** Registered and confirmed at 0, the first beat of the rhythm acknowledged at 15 s: next beat at 45 s. */
const confirmed = (policy: Heartbeat.Policy = exact) => {
  const driven = machine(policy)
  driven.tell({ _tag: "Start" }, 0)
  driven.tell({ _tag: "Registered" }, 0)
  driven.tell(beaten(0), 0)
  driven.tell(beaten(15), 15)
  return driven
}

// ---------------------------------------------------------------------------------------------------------------------

describe("make", () => {
  it("takes Pulse's interval, and never waits longer than half of what the registry grants (Beat 10)", () => {
    const policy = Heartbeat.make({ expiresAfter: "2 minutes" })
    assert.strictEqual(policy.interval, 30_000)
    assert.strictEqual(policy.failing.cap, 60_000)
    const short = Heartbeat.make({ expiresAfter: "9 seconds" })
    assert.strictEqual(short.interval, 3000)
    assert.isAtMost(short.failing.cap, 4500)
    assert.isAtMost(short.failing.base, short.failing.cap)
    assert.isAtMost(short.failing.floor, short.failing.cap)
  })
})

describe("hatchetWorker", () => {
  const policy = Heartbeat.make(Heartbeat.hatchetWorker)

  it("beats every 4 s, and one failure never makes it one whose runs others get", () => {
    const driven = confirmed(policy)
    assert.deepStrictEqual(next(driven.tell(beaten(19), 19)), ["Heartbeat", 4])
    assert.deepInclude(policy, { interval: 4000, expiresAfter: 30_000 })
    assert.isAtMost(policy.failing.cap, 8000)
  })

  it("a timer that is 5 s late is told of, one that is less late is not", () => {
    const { state } = confirmed(policy)
    assert.isFalse(Heartbeat.isLate(policy, state(), state().dueAt + 4999))
    assert.isTrue(Heartbeat.isLate(policy, state(), state().dueAt + 5000))
  })
})

describe("registering", () => {
  it("registers at once, beats right after, then at a phase of the interval (Beat 4, 9)", () => {
    const driven = machine(byDefault)
    assert.deepStrictEqual(next(driven.tell({ _tag: "Start" }, 100)), ["Register", 0])
    assert.deepStrictEqual(next(driven.tell({ _tag: "Registered" }, 100.2)), ["Heartbeat", 0])
    assert.isFalse(driven.online(100.2))
    assert.deepStrictEqual(next(driven.tell(beaten(100.2), 100.3, 0.25)), ["Heartbeat", 7.5])
    assert.isTrue(driven.online(100.3))
    assert.deepStrictEqual(next(driven.tell(beaten(107.8), 107.9, 0.9)), ["Heartbeat", 29.9])
  })

  it("spreads the first beats of a fleet that starts at one instant over the whole interval (Beat 4)", () => {
    const phases = Array.from({ length: 100 }, (_, index) => {
      const driven = machine(byDefault)
      driven.tell({ _tag: "Registered" }, 0)
      return Math.round(driven.tell(beaten(0), 0, index / 100).delay)
    })
    for (const [index, phase] of phases.entries()) assert.strictEqual(phase, Math.max(100, index * 300))
  })

  it("makes six waits, then goes on unbounded at the cap (Beat 1, 6)", () => {
    const driven = machine(exact)
    driven.tell({ _tag: "Start" }, 0)
    const waits = Array.from({ length: 9 }, () => next(driven.tell(failed, 0)))
    assert.deepStrictEqual(waits, [2, 4, 8, 16, 32, 32, 32, 32, 32].map((wait) => ["Register", wait]))
    assert.isTrue(driven.state().exhausted)
    driven.tell({ _tag: "Registered" }, 0)
    assert.isFalse(driven.state().exhausted)
  })

  it("without keepTrying it stops after the bounded backoff, until asked (Beat 6)", () => {
    const driven = machine({ ...exact, keepTrying: false })
    for (let n = 0; n < 6; n++) driven.tell(failed, 0)
    assert.deepStrictEqual(next(driven.tell(failed, 0)), ["Idle", Infinity])
    assert.strictEqual(driven.state().mode, "GivenUp")
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Heartbeat", within: 0 }, 10)), ["Register", 0])
    assert.deepStrictEqual(next(driven.tell(failed, 10)), ["Idle", Infinity])
  })

  it("a rejected credential ends it at once (Beat 2)", () => {
    const driven = machine(exact)
    driven.tell({ _tag: "Start" }, 0)
    assert.deepStrictEqual(next(driven.tell(unauthorized, 0)), ["Idle", Infinity])
    assert.strictEqual(driven.state().mode, "Unauthorized")
  })
})

describe("beating", () => {
  it("keeps its phase: a late answer shortens the wait, what was missed meanwhile is skipped", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell(beaten(45), 52)), ["Heartbeat", 23])
    assert.deepStrictEqual(next(driven.tell(beaten(75), 152)), ["Heartbeat", 13])
  })

  it("verifies after every tenth beat, before the next one (Beat 5)", () => {
    const driven = confirmed()
    // The first time after 10 - floor(0.5 * 10) beats, 0.5 being the draw of this machine.
    for (let n = 3; n < 5; n++) assert.strictEqual(driven.tell(beaten(30 * n), 30 * n).action, "Heartbeat")
    assert.deepStrictEqual(next(driven.tell(beaten(150), 150)), ["Verify", 0])
    assert.deepStrictEqual(next(driven.tell({ _tag: "Verified" }, 151)), ["Heartbeat", 29])
    for (let n = 6; n < 15; n++) assert.strictEqual(driven.tell(beaten(30 * n), 30 * n).action, "Heartbeat")
    assert.deepStrictEqual(next(driven.tell(beaten(450), 450)), ["Verify", 0])
  })

  it("a fleet that starts or recovers at once does not verify at once ever after", () => {
    const firstAfter = (random: number, prepare: (driven: ReturnType<typeof machine>) => void): number => {
      const driven = machine(exact)
      driven.tell({ _tag: "Start" }, 0)
      driven.tell({ _tag: "Registered" }, 0, random)
      driven.tell(beaten(0), 0)
      prepare(driven)
      let beats = 1
      while (driven.tell(beaten(300 + 30 * beats), 300 + 30 * beats).action !== "Verify") beats++
      return beats
    }
    const recover = (random: number) => (driven: ReturnType<typeof machine>) => {
      driven.tell(failed, 30)
      driven.tell(beaten(300), 300)
      driven.tell({ _tag: "Verified" }, 300, random)
    }
    for (const [random, beats] of [[0, 10], [0.25, 8], [0.5, 5], [0.999, 1]] as const) {
      assert.strictEqual(firstAfter(random, recover(random)), beats)
      assert.strictEqual(firstAfter(random, () => undefined), Math.max(1, beats - 1))
    }
  })

  it("verifyEvery 0 never verifies beats", () => {
    const driven = confirmed({ ...exact, verifyEvery: 0 })
    for (let n = 3; n < 50; n++) assert.strictEqual(driven.tell(beaten(30 * n), 30 * n).action, "Heartbeat")
    driven.tell(failed, 1500)
    assert.deepStrictEqual(next(driven.tell(beaten(1530), 1530)), ["Heartbeat", 30])
    assert.isTrue(driven.online(1530))
  })

  it("waits 30, 45, 67.5, 101.25, 151.9, 227.8, then 300 s with the reference's numbers (Beat 7: the step says the real delay)", () => {
    const driven = confirmed({ ...exact, reregisterAfter: 0 })
    const waits = Array.from({ length: 8 }, () => driven.tell(failed, 45).delay / 1000)
    assert.deepStrictEqual(waits, [30, 45, 67.5, 101.25, 151.875, 227.8125, 300, 300])
    assert.strictEqual(driven.state().dueAt, 345_000)
  })

  it("registers again at the 5th, 10th, 15th failure in a row (Beat 3)", () => {
    const driven = confirmed()
    const actions = Array.from({ length: 15 }, () => driven.tell(failed, 45).action)
    assert.deepStrictEqual(
      actions.map((action, index) => action === "Register" ? index + 1 : 0).filter((n) => n > 0),
      [5, 10, 15]
    )
  })

  it("jitters the waits of the default policy by one phase per outage (Beat 4)", () => {
    const driven = confirmed(byDefault)
    const waits = [0.25, 0.9, 0.1].map((random) => driven.tell(failed, 45, random).delay / 1000)
    assert.deepStrictEqual(waits, [7.5, 37.5, 60])
  })

  it("heeds what the server asks to wait, inside the ceiling", () => {
    const driven = confirmed()
    assert.strictEqual(driven.tell({ _tag: "Failed", hint: 90_000 }, 45).delay, 90_000)
    assert.strictEqual(driven.tell({ _tag: "Failed", hint: 86_400_000 }, 145).delay, exact.failing.hint.ceiling)
  })
})

describe("recovering", () => {
  it("is over after a beat and a verification: only then do the counters go back (Beat 5)", () => {
    const driven = confirmed()
    driven.tell(failed, 45)
    driven.tell(failed, 75)
    assert.deepStrictEqual(next(driven.tell(beaten(120), 120)), ["Verify", 0])
    assert.strictEqual(driven.state().failures, 2)
    assert.isFalse(driven.online(120))
    assert.deepStrictEqual(next(driven.tell({ _tag: "Verified" }, 121)), ["Heartbeat", 29])
    assert.strictEqual(driven.state().failures, 0)
    assert.isTrue(driven.online(121))
  })

  it("a verification that fails is a failure more, and the next beat is verified again", () => {
    const driven = confirmed()
    driven.tell(failed, 45)
    driven.tell(beaten(75), 75)
    assert.deepStrictEqual(next(driven.tell(failed, 75)), ["Heartbeat", 45])
    assert.strictEqual(driven.state().failures, 2)
    assert.deepStrictEqual(next(driven.tell(beaten(120), 120)), ["Verify", 0])
  })

  it("the backoff starts over only after a healthy period", () => {
    const policy = Heartbeat.make({
      interval: 30_000,
      failing: Backoff.make({ base: 1000, cap: 64_000, jitter: "none", resetAfter: 60_000 })
    })
    const driven = confirmed(policy)
    assert.strictEqual(driven.tell(failed, 45).delay, 1000)
    assert.strictEqual(driven.tell(failed, 46).delay, 2000)
    driven.tell(beaten(48), 48)
    driven.tell({ _tag: "Verified" }, 48)
    driven.tell(beaten(78), 78)
    assert.strictEqual(driven.tell(failed, 107).delay, 4000)
    driven.tell(beaten(111), 111)
    driven.tell({ _tag: "Verified" }, 111)
    for (const n of [141, 171]) driven.tell(beaten(n), n)
    assert.strictEqual(driven.tell(failed, 201).delay, 1000)
  })

  it("a clock that was set back does not keep the backoff from starting over", () => {
    const driven = confirmed({ ...exact, failing: Backoff.make({ base: 1000, jitter: "none", resetAfter: 60_000 }) })
    driven.tell(failed, 1_000_000)
    driven.tell(beaten(1_000_001), 1_000_001)
    driven.tell({ _tag: "Verified" }, 1_000_001)
    for (const n of [30, 60, 90, 120]) driven.tell(beaten(n), n)
    assert.strictEqual(driven.tell(failed, 150).delay, 1000)
  })
})

describe("a lost lease", () => {
  it("is registered again at once, and beaten right after (Beat 3, 9)", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell(lost, 45)), ["Register", 0])
    assert.isFalse(driven.online(45))
    assert.deepStrictEqual(next(driven.tell({ _tag: "Registered" }, 45)), ["Heartbeat", 0])
    assert.isFalse(driven.online(45))
    driven.tell(beaten(45), 45)
    assert.isTrue(driven.online(45))
  })

  it("registering again that fails waits by the first window: at most one interval", () => {
    const driven = confirmed(byDefault)
    driven.tell(lost, 45)
    assert.deepStrictEqual(next(driven.tell(failed, 45, 0.999)), ["Register", 29.97])
  })

  it("counts as a failure until the new one was confirmed", () => {
    const driven = confirmed()
    driven.tell(lost, 45)
    assert.strictEqual(driven.state().failures, 1)
    driven.tell({ _tag: "Registered" }, 45)
    assert.strictEqual(driven.state().failures, 1)
    driven.tell(beaten(45), 45)
    assert.strictEqual(driven.state().failures, 0)
  })

  it("registered again: the beat right after is its confirmation, without a verification", () => {
    const driven = confirmed({ ...exact, verifyEvery: 1 })
    driven.tell(lost, 45)
    driven.tell({ _tag: "Registered" }, 45)
    assert.deepStrictEqual(next(driven.tell(beaten(45), 45)), ["Heartbeat", 30])
    assert.deepStrictEqual(next(driven.tell(beaten(75), 75)), ["Verify", 0])
  })

  it("found by a verification: registered again at once", () => {
    const driven = confirmed()
    driven.tell(failed, 45)
    driven.tell(beaten(75), 75)
    assert.deepStrictEqual(next(driven.tell(lost, 75)), ["Register", 0])
  })

  it("lost a second time before a healthy period has passed, it waits by the backoff", () => {
    const driven = confirmed()
    driven.tell(lost, 45)
    driven.tell({ _tag: "Registered" }, 45)
    driven.tell(beaten(45), 45)
    assert.deepStrictEqual(next(driven.tell(lost, 60)), ["Register", 30])
    driven.tell({ _tag: "Registered" }, 90)
    driven.tell(beaten(90), 90)
    assert.deepStrictEqual(next(driven.tell(lost, 105)), ["Register", 45])
  })

  it("lost by the very beat that follows the registration: the registry forgets at once, so it waits", () => {
    const driven = machine(exact)
    driven.tell({ _tag: "Start" }, 0)
    driven.tell({ _tag: "Registered" }, 0)
    assert.deepStrictEqual(next(driven.tell(lost, 0)), ["Register", 30])
  })

  it("is lost once for all: after a healthy period it is registered at once again", () => {
    const driven = confirmed(byDefault)
    driven.tell(lost, 45)
    driven.tell({ _tag: "Registered" }, 45)
    for (const n of [45, 75, 105, 135]) driven.tell(beaten(n), n)
    assert.deepStrictEqual(next(driven.tell(lost, 165)), ["Register", 0])
  })

  it("taken by another instance: taken back with growing waits (Beat 8)", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell(taken, 45)), ["Register", 30])
    driven.tell({ _tag: "Registered" }, 75)
    driven.tell(beaten(75), 75)
    assert.deepStrictEqual(next(driven.tell(taken, 80)), ["Register", 45])
  })

  it("taken by another instance with onTaken yield: stopped for good (Beat 8)", () => {
    const driven = confirmed({ ...exact, onTaken: "yield" })
    assert.deepStrictEqual(next(driven.tell(taken, 45)), ["Stop", Infinity])
    assert.strictEqual(driven.state().mode, "Stopped")
  })
})

describe("a definitive no", () => {
  it("of the credential: nothing until it changes, then verified within 1 s", () => {
    const driven = confirmed()
    driven.tell(unauthorized, 45)
    for (
      const event of [
        { _tag: "Woken" },
        { _tag: "Asked", action: "Heartbeat", within: 0 },
        { _tag: "Asked", action: "Register", within: 0 }
      ] as const
    ) assert.deepStrictEqual(next(driven.tell(event, 50)), ["Idle", Infinity])
    assert.deepStrictEqual(next(driven.tell({ _tag: "CredentialChanged" }, 60, 0.999)), ["Verify", 0.999])
  })

  it("of the credential before the first registration: registered within 1 s of the change", () => {
    const driven = machine(exact)
    driven.tell(unauthorized, 0)
    assert.deepStrictEqual(next(driven.tell({ _tag: "CredentialChanged" }, 60, 0.999)), ["Register", 0.999])
  })

  it("of the credential: not online again before a verification, however long registrations last", () => {
    const driven = confirmed({ ...exact, expiresAfter: undefined })
    driven.tell(unauthorized, 45)
    assert.isFalse(driven.online(45))
    driven.tell({ _tag: "CredentialChanged" }, 86_400)
    assert.isFalse(driven.online(86_400))
    assert.deepStrictEqual(next(driven.tell({ _tag: "Verified" }, 86_401)), ["Heartbeat", 0])
    assert.isFalse(driven.online(86_401))
    assert.deepStrictEqual(next(driven.tell(beaten(86_401), 86_401)), ["Heartbeat", 30])
    assert.isTrue(driven.online(86_401))
  })

  it("of the request: nothing until asked, and then not believed before it was verified", () => {
    const driven = confirmed({ ...exact, expiresAfter: undefined })
    driven.tell(refused, 45)
    for (const event of [{ _tag: "Woken" }, { _tag: "CredentialChanged" }] as const) {
      assert.deepStrictEqual(next(driven.tell(event, 50)), ["Idle", Infinity])
    }
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Heartbeat", within: 0 }, 60)), ["Heartbeat", 0])
    assert.deepStrictEqual(next(driven.tell(beaten(60), 60)), ["Verify", 0])
    assert.isFalse(driven.online(60))
  })

  it("a credential that changes while all is well changes nothing", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell({ _tag: "CredentialChanged" }, 20)), ["Heartbeat", 25])
  })
})

describe("after sleep", () => {
  it("verifies first, with jitter, then beats: never a blind beat (Beat 11)", () => {
    const driven = confirmed()
    assert.isTrue(Heartbeat.isLate(exact, driven.state(), 75_000))
    assert.isFalse(Heartbeat.isLate(exact, driven.state(), 74_999))
    assert.deepStrictEqual(next(driven.tell({ _tag: "Woken" }, 7200, 0.6)), ["Verify", 3])
    assert.isFalse(driven.online(7200))
    assert.deepStrictEqual(next(driven.tell({ _tag: "Verified" }, 7203)), ["Heartbeat", 0])
    assert.deepStrictEqual(next(driven.tell(beaten(7203), 7203)), ["Heartbeat", 30])
    assert.isTrue(driven.online(7203))
  })

  it("registers where there is no lease", () => {
    const driven = machine(exact)
    driven.tell(failed, 0)
    assert.deepStrictEqual(next(driven.tell({ _tag: "Woken" }, 7200, 0.6)), ["Register", 3])
  })

  it("what woke it again and again does not put the verification off", () => {
    const driven = confirmed()
    driven.tell({ _tag: "Woken" }, 7200, 0.6)
    assert.deepStrictEqual(next(driven.tell({ _tag: "Woken" }, 7201, 0.99)), ["Verify", 2])
    assert.deepStrictEqual(next(driven.tell({ _tag: "Woken" }, 7202, 0)), ["Verify", 0])
  })

  it("was failing when it fell asleep: failing until a beat was acknowledged, too", () => {
    const driven = confirmed({ ...exact, expiresAfter: undefined })
    driven.tell(failed, 45)
    driven.tell({ _tag: "Woken" }, 7200)
    driven.tell({ _tag: "Verified" }, 7203)
    assert.isFalse(driven.online(7203))
    assert.deepStrictEqual(next(driven.tell(beaten(7203), 7203)), ["Heartbeat", 30])
    assert.isTrue(driven.online(7203))
  })
})

describe("asked", () => {
  it("beats at a phase of the given time, unless a beat is due earlier", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Heartbeat", within: 30_000 }, 20, 0.5)), [
      "Heartbeat",
      15
    ])
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Heartbeat", within: 30_000 }, 30, 0.9)), [
      "Heartbeat",
      5
    ])
  })

  it("for a beat, never skips the verification or the registration that is due", () => {
    const woken = confirmed()
    woken.tell({ _tag: "Woken" }, 7200, 0.9)
    assert.deepStrictEqual(next(woken.tell({ _tag: "Asked", action: "Heartbeat", within: 0 }, 7200)), ["Verify", 0])
    const failing = confirmed()
    for (let n = 0; n < 5; n++) failing.tell(failed, 45)
    assert.deepStrictEqual(next(failing.tell({ _tag: "Asked", action: "Heartbeat", within: 0 }, 46)), ["Register", 0])
  })

  it("for a registration, registers", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Register", within: 0 }, 20)), ["Register", 0])
  })
})

describe("online", () => {
  it("ends when the registry's lease does (Beat 12)", () => {
    const driven = confirmed()
    assert.strictEqual(Heartbeat.expiresAt(exact, driven.state()), 135_000)
    assert.isTrue(driven.online(134.999))
    assert.isFalse(driven.online(135))
  })

  it("is not stretched by a clock that was set back (Beat 12)", () => {
    const driven = confirmed()
    driven.tell(beaten(1_000_000), 1_000_000)
    assert.isTrue(driven.online(999_999))
    assert.isFalse(driven.online(500_000))
  })

  it("needs a beat: being registered is not enough", () => {
    const driven = machine({ ...exact, expiresAfter: undefined })
    driven.tell({ _tag: "Registered" }, 0)
    assert.isFalse(driven.online(0))
  })
})

describe("a clock that was set back", () => {
  it("makes a beat follow a verification at once: nobody knows how old the last one is", () => {
    const driven = confirmed()
    driven.tell(beaten(1_000_000), 1_000_000)
    assert.deepStrictEqual(next(driven.tell({ _tag: "Verified" }, 100)), ["Heartbeat", 0])
    assert.deepStrictEqual(next(driven.tell(beaten(100), 100)), ["Heartbeat", 30])
  })

  it("does not make a wait longer than it was", () => {
    const driven = confirmed()
    driven.tell(beaten(1_000_000), 1_000_000)
    assert.deepStrictEqual(next(driven.tell({ _tag: "CredentialChanged" }, 100)), ["Heartbeat", 30])
    assert.deepStrictEqual(next(driven.tell({ _tag: "Asked", action: "Heartbeat", within: 60_000 }, 50, 0.999)), [
      "Heartbeat",
      30
    ])
  })
})

describe("stopped", () => {
  it("is for good: a beat that was in flight changes nothing", () => {
    const driven = confirmed()
    assert.deepStrictEqual(next(driven.tell({ _tag: "Stop" }, 50)), ["Stop", Infinity])
    for (
      const event of [
        lost,
        failed,
        beaten(50),
        { _tag: "Registered" },
        { _tag: "Start" },
        { _tag: "Woken" },
        { _tag: "CredentialChanged" },
        { _tag: "Asked", action: "Register", within: 0 }
      ] as const
    ) assert.deepStrictEqual(next(driven.tell(event, 51)), ["Stop", Infinity])
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Properties
// ---------------------------------------------------------------------------------------------------------------------

const between = (minimum: number, maximum: number) => Schema.Finite.check(Schema.isBetween({ minimum, maximum }))
const whole = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Draw = Schema.Union([Schema.Literals([0, 0.5, 1 - 2 ** -53]), between(0, 1 - 2 ** -53)])

const Options = Schema.Struct({
  interval: whole(1000, 600_000),
  expiresAfter: Schema.UndefinedOr(whole(3000, 1_800_000)),
  verifyEvery: Schema.Literals([0, 1, 2, 10]),
  reregisterAfter: Schema.Literals([0, 1, 2, 5]),
  keepTrying: Schema.Boolean,
  onTaken: Schema.Literals(["reclaim", "yield"])
})

/** How the server answers, how long that takes, what the clock does meanwhile, and what else happens then. */
const Turn = Schema.Struct({
  answer: Schema.Literals(["ok", "ok", "ok", "failed", "failed", "lost", "taken", "unauthorized", "refused"]),
  hint: Schema.UndefinedOr(Schema.Union([Schema.Literals([0, 1, 86_400_000, -5]), whole(0, 1_000_000)])),
  took: Schema.Literals([0, 5, 9999, 45_000]),
  clock: Schema.Literals([0, 0, 0, 0, -1, -3_600_000, 3_600_000, -31_536_000_000, 31_536_000_000]),
  event: Schema.Literals(["none", "none", "none", "Woken", "CredentialChanged", "Heartbeat", "Register", "Stop"]),
  within: whole(0, 60_000),
  random: Draw
})
type Turn = typeof Turn.Type

const Turns = Schema.NonEmptyArray(Turn).check(Schema.isMaxLength(80))

const outcome = (action: Heartbeat.Action, turn: Turn, sentAt: number): Heartbeat.Event => {
  switch (turn.answer) {
    case "ok":
      return action === "Register"
        ? { _tag: "Registered" }
        : action === "Verify"
        ? { _tag: "Verified" }
        : { _tag: "Beaten", sentAt }
    case "failed":
      return { _tag: "Failed", hint: turn.hint }
    case "lost":
    case "taken":
      // A registration has no lease to lose.
      return action === "Register" ? failed : { _tag: "Lost", taken: turn.answer === "taken" }
    case "unauthorized":
      return unauthorized
    case "refused":
      return refused
  }
}

const external = (turn: Turn): Heartbeat.Event | undefined => {
  switch (turn.event) {
    case "none":
      return undefined
    case "Heartbeat":
    case "Register":
      return { _tag: "Asked", action: turn.event, within: turn.within }
    default:
      return { _tag: turn.event }
  }
}

interface Seen {
  readonly event: Heartbeat.Event
  readonly before: Heartbeat.State
  readonly step: Heartbeat.Step
  /** The wall clock, which may jump. */
  readonly now: number
  /** The time that passed in truth. */
  readonly elapsed: number
  readonly random: number
}

/** Plays a script: one turn per request, the event of the turn after its answer. `elapsed` is true time, `now` the wall's. */
const play = (policy: Heartbeat.Policy, turns: ReadonlyArray<Turn>): ReadonlyArray<Seen> => {
  const seen: Array<Seen> = []
  let elapsed = 0
  let now = 1_700_000_000_000
  let state = Heartbeat.initial
  const tell = (event: Heartbeat.Event, random: number): Heartbeat.Step => {
    const before = state
    const step = Heartbeat.step(policy, before, event, { now, random })
    state = step.state
    seen.push({ event, before, step, now, elapsed, random })
    return step
  }
  const pass = (millis: number): void => {
    elapsed += millis
    now += millis
  }
  let step = tell({ _tag: "Start" }, 0)
  for (const turn of turns) {
    if (Number.isFinite(step.delay)) {
      pass(step.delay)
      const sentAt = now
      pass(turn.took)
      now += turn.clock
      step = tell(outcome(step.action, turn, sentAt), turn.random)
    } else {
      pass(1000)
      now += turn.clock
    }
    const event = external(turn)
    if (event !== undefined) {
      pass(Number.isFinite(step.delay) ? step.delay / 2 : 1000)
      step = tell(event, turn.random)
    }
  }
  return seen
}

const plain = (step: Heartbeat.Step): unknown => JSON.parse(JSON.stringify(step))

/** A jittered wait is a sum of two products: by so little it may pass what it is a fraction of, in milliseconds. */
const rounding = 1e-6

const many = { arbitrary: { runs: 1500 } } as const

describe("any sequence of answers, clock steps and events", () => {
  it.prop("keeps the invariants", { options: Options, turns: Turns }, ({ options, turns }) => {
    const policy = Heartbeat.make(options)
    // A hint may be jittered over as long again, at most over the cap.
    const longestHint = policy.failing.hint.ceiling + policy.failing.cap
    const longestRegistering = policy.registering.hint.ceiling + policy.registering.cap
    const longest = Math.max(policy.interval, longestHint, longestRegistering, 60_000)
    for (const { before, event, now, step } of play(policy, turns)) {
      const { action, delay, state } = step
      if (action === "Idle" || action === "Stop") assert.strictEqual(delay, Infinity)
      else {
        assert.isTrue(Number.isFinite(delay), `${event._tag} gave ${delay}`)
        assert.isAtLeast(delay, 0)
        assert.isAtMost(delay, longest + rounding, event._tag)
        if (event._tag === "Failed" && event.hint === undefined) {
          assert.isAtMost(delay, (before.everRegistered ? policy.failing : policy.registering).cap + rounding)
        }
        if (event._tag === "Beaten" || event._tag === "Verified") assert.isAtMost(delay, policy.interval)
      }
      assert.strictEqual(state.next, action)
      assert.strictEqual(action === "Stop", state.mode === "Stopped")
      assert.strictEqual(action === "Idle", !["Running", "Stopped"].includes(state.mode))
      if (before.mode === "Stopped") assert.strictEqual(state.mode, "Stopped")
      if (before.mode === "Unauthorized" && event._tag !== "CredentialChanged" && event._tag !== "Stop") {
        assert.strictEqual(action, "Idle")
      }
      if (before.mode === "Unauthorized" && event._tag === "CredentialChanged") assert.isAtMost(delay, 1000)
      if (action === "Heartbeat" || action === "Verify") assert.isTrue(state.registered)
      if (Heartbeat.isOnline(policy, state, now)) {
        assert.isTrue(state.registered)
        assert.isDefined(state.confirmedAt)
        assert.strictEqual(state.failures, 0)
        assert.isBelow(Math.abs(now - (state.confirmedAt ?? -Infinity)), policy.expiresAfter ?? Infinity)
      }
    }
  }, many)

  it.prop(
    "is plain data: a state that went through JSON goes on in the same way",
    { options: Options, turns: Turns },
    ({ options, turns }) => {
      const policy = Heartbeat.make(options)
      for (const { before, event, now, random, step } of play(policy, turns)) {
        const text = JSON.stringify(before)
        const parsed: Heartbeat.State = JSON.parse(text)
        const revived = { ...Heartbeat.initial, ...parsed, dueAt: parsed.dueAt ?? Infinity }
        assert.deepStrictEqual(plain(Heartbeat.step(policy, revived, event, { now, random })), plain(step))
      }
    },
    { arbitrary: { runs: 300 } }
  )

  it.prop("never makes more than four requests in a row without a wait", {
    options: Options,
    turns: Turns
  }, ({ options, turns }) => {
    const seen = play(
      Heartbeat.make(options),
      turns.map((turn) => ({ ...turn, event: "none" as const, took: 0 as const, clock: 0 as const }))
    )
    let atOnce = 0
    for (const { step } of seen) {
      atOnce = step.delay === 0 ? atOnce + 1 : 0
      assert.isAtMost(atOnce, 4)
    }
  }, many)
})

// ---------------------------------------------------------------------------------------------------------------------
// Never a hot loop
// ---------------------------------------------------------------------------------------------------------------------

interface WakeUp {
  readonly at: number
  readonly requests: ReadonlyArray<Heartbeat.Action>
  /** Whether the backoff was out of any outage after it. */
  readonly calm: boolean
  /** Leases that were lost out of calm in it. */
  readonly losses: number
}

const Answers = Schema.NonEmptyArray(Schema.Struct({
  answer: Schema.Literals(["ok", "failed", "lost", "taken"]),
  random: Draw
})).check(Schema.isMaxLength(200))

/** A server that answers at once, by the script again and again, from the moment that the first lease was confirmed. */
const wakeUps = (
  policy: Heartbeat.Policy,
  script: ReadonlyArray<{ readonly answer: Turn["answer"]; readonly random: number }>,
  until: number
): ReadonlyArray<WakeUp> => {
  const out: Array<WakeUp> = []
  let now = 0
  let step = Heartbeat.step(policy, Heartbeat.initial, { _tag: "Registered" }, { now, random: 0 })
  step = Heartbeat.step(policy, step.state, { _tag: "Beaten", sentAt: now }, { now, random: script[0]?.random ?? 0 })
  for (let index = 0; now + step.delay <= until;) {
    now += step.delay
    const requests: Array<Heartbeat.Action> = []
    let losses = 0
    do {
      const { answer, random } = script[index++ % script.length] ?? { answer: "failed", random: 0 }
      requests.push(step.action)
      const turn = { answer, random, hint: undefined, took: 0, clock: 0, event: "none", within: 0 } as const
      const calmBefore = step.state.losses === 0
      const event = outcome(step.action, turn, now)
      if (event._tag === "Lost" && calmBefore) losses++
      step = Heartbeat.step(policy, step.state, event, { now, random })
    } while (step.delay === 0 && requests.length < 20)
    out.push({ at: now, requests, calm: step.state.backoff.failures === 0 && step.state.losses === 0, losses })
  }
  return out
}

describe("never a hot loop, for any scripted server", () => {
  it.prop("wake-ups within one outage are at most 2 + log2(cap/base) + t/(cap/2)", {
    interval: whole(1000, 120_000),
    expiresAfter: Schema.UndefinedOr(whole(3000, 600_000)),
    script: Answers
  }, ({ expiresAfter, interval, script }) => {
    const policy = Heartbeat.make({ interval, expiresAfter })
    const { base, cap } = policy.failing
    // A beat that is acknowledged comes again after one interval, even where half of the cap is longer.
    const pace = Math.min(cap / 2, policy.interval)
    let since: number | undefined
    let count = 0
    for (const wakeUp of wakeUps(policy, script, 60 * interval)) {
      if (wakeUp.calm) {
        since = undefined
        continue
      }
      if (since === undefined) {
        since = wakeUp.at
        count = 0
      }
      count++
      const bound = 2 + Math.log2(cap / base) + (wakeUp.at - since) / pace
      assert.isAtMost(count, bound + 1e-9, `after ${wakeUp.at - since} ms with windows ${base} to ${cap}`)
    }
  }, { arbitrary: { runs: 1000 } })

  it.prop("a wake-up is at most 3 requests, 4 where a verification finds a lease lost out of calm", {
    interval: whole(1000, 120_000),
    script: Answers
  }, ({ interval, script }) => {
    const policy = Heartbeat.make({ interval })
    for (const { losses, requests } of wakeUps(policy, script, 60 * interval)) {
      assert.isAtMost(requests.length, losses === 0 ? 2 : requests.includes("Verify") ? 4 : 3, requests.join())
    }
  }, { arbitrary: { runs: 1000 } })

  it.each(
    [
      ["is down", ["failed"]],
      ["accepts and forgets", ["ok", "ok", "lost"]],
      ["forgets at once", ["ok", "lost"]],
      ["gives our name to others", ["ok", "ok", "taken"]],
      ["answers every other request", ["ok", "failed"]],
      ["acknowledges beats and breaks at the verification", ["ok", "failed", "failed"]]
    ] as const
  )("a registry that %s for a day sees no more than one request group per 30 s", (_, answers) => {
    const day = 86_400_000
    for (const random of [0, 0.001, 0.5, 0.999]) {
      const seen = wakeUps(byDefault, answers.map((answer) => ({ answer, random })), day)
      assert.isAtMost(seen.length, 2 + 1 + day / 30_000, `${answers.join()} with ${random}`)
      assert.isAtLeast(seen.length, day / 120_000)
    }
  })

  it("the first registration is tried at most 1 + log2(cap/base) + t/(cap/2) times", () => {
    for (const random of Array.from({ length: 100 }, (_, n) => n / 100)) {
      let step = Heartbeat.step(byDefault, Heartbeat.initial, { _tag: "Start" }, { now: 0, random })
      const { base, cap } = byDefault.registering
      let now = 0
      for (let attempts = 1; attempts < 1000; attempts++) {
        now += step.delay
        assert.isAtMost(attempts, 1 + Math.log2(cap / base) + now / (cap / 2))
        step = Heartbeat.step(byDefault, step.state, failed, { now, random })
      }
    }
  })
})

describe("bounds", () => {
  it.prop("a lost lease is registered again within one interval plus one request", {
    phase: Draw,
    lostAfter: between(0.001, 1),
    beats: whole(1, 30)
  }, ({ beats, lostAfter, phase }) => {
    // The registry forgets us at some moment of a beat's interval; its answers take 10 s.
    const took = 10_000
    const driven = confirmed(byDefault)
    let at = 15_000
    let step = driven.tell(beaten(at / 1000), at / 1000, phase)
    for (let n = 0; n < beats; n++) {
      at += step.delay
      step = driven.tell(beaten(at / 1000), at / 1000, phase)
      if (step.action === "Verify") step = driven.tell({ _tag: "Verified" }, at / 1000, phase)
    }
    const forgottenAt = at + lostAfter * step.delay
    const noticedAt = at + step.delay + took
    step = driven.tell(lost, noticedAt / 1000, phase)
    assert.strictEqual(step.action, "Register")
    assert.isAtMost(noticedAt + step.delay - forgottenAt, byDefault.interval + took)
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// As a schedule
// ---------------------------------------------------------------------------------------------------------------------

describe("toSchedule", () => {
  it.effect("drives an effect, which reads what to do from the schedule; ends on Stop", () =>
    Effect.gen(function*() {
      const log: Array<readonly [Heartbeat.Action, number]> = []
      const answers: Array<Heartbeat.Event> = [{ _tag: "Registered" }, beaten(0), failed, beaten(45), { _tag: "Stop" }]
      const beat = Effect.gen(function*() {
        log.push([yield* Heartbeat.currentAction, (yield* Clock.currentTimeMillis) / 1000])
        return answers.shift() ?? failed
      })
      const schedule = Heartbeat.toSchedule({ ...exact, failing: Backoff.pulseHeartbeat })
      const fiber = yield* Effect.forkChild(Effect.repeat(beat, schedule))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(fiber), "Stop")
      assert.deepStrictEqual(log.map(([action]) => action), [
        "Register",
        "Heartbeat",
        "Heartbeat",
        "Heartbeat",
        "Verify"
      ])
    }))
})
