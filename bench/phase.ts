// Phase: 10,000 lifelines start at once, as after a deployment. From the third interval on their load is even, for a whole
// day, also after an outage in it. In virtual time, by the real machine of `Heartbeat`.
import * as Heartbeat from "effect-lifeline/Heartbeat"
import { atMost, plain } from "./lib/figure.ts"
import type { Context, Report } from "./lib/figure.ts"
import { phase } from "./sim/phase.ts"

export const name = "phase"

const seed = 20_260_101
const clients = 10_000
const day = 86_400_000
const hour = day / 24

export const run = async ({ progress }: Context): Promise<Report> => {
  const policy = Heartbeat.make({ interval: "30 seconds" })
  const settled = 2 * policy.interval
  progress("phase: a day")
  const even = phase({ clients, policy, duration: day, seed })
  progress("phase: a day with an outage")
  const back = 12 * hour + 600_000
  const broken = phase({ clients, policy, duration: day, seed, down: [12 * hour, back] })
  return {
    figures: [
      plain("clients, all started within 50 ms", clients, "", `interval 30 s, seed ${seed}`),
      plain("heartbeats in a day", even.beats.total, ""),
      atMost(
        "a day from the third interval on: peak second of heartbeats",
        even.beats.peakOverMean(settled),
        "x mean",
        1.5
      ),
      atMost(
        "a day from the third interval on: peak second of requests",
        even.requests.peakOverMean(settled),
        "x mean",
        1.5
      ),
      plain("the same: peak second of requests", even.requests.peakPerSecond(settled), "/s"),
      atMost(
        "after an outage of 10 min, once all are back: peak second of requests",
        broken.requests.peakOverMean(back + 3 * policy.failing.cap),
        "x mean",
        1.5
      )
    ]
  }
}
