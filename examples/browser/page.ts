/**
 * The page: what the lifeline says, and who is registered, live. It only reads the status and the events of both, and asks them
 * for four things.
 */
import type * as DiscoveryCache from "effect-lifeline/DiscoveryCache"
import type * as Lifeline from "effect-lifeline/Lifeline"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

type Tone = "good" | "wait" | "bad" | "idle"

interface View {
  readonly tone: Tone
  readonly detail: string
  /** Label and value. */
  readonly facts: ReadonlyArray<readonly [string, string]>
}

const seconds = (millis: number): string => {
  const whole = Math.max(0, Math.round(millis / 1000))
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`
}

const next = (at: number | undefined, now: number): readonly [string, string] => [
  "Next attempt",
  at === undefined ? "none" : at > now ? `in ${seconds(at - now)}` : "now"
]

const view = (status: Lifeline.Status, now: number): View => {
  switch (status._tag) {
    case "Disabled":
      return { tone: "idle", detail: "No registry is configured. Nothing is ever sent.", facts: [] }
    case "Registering":
      return {
        tone: "wait",
        detail: status.cause?.message ?? "Registering for the first time.",
        facts: [["Attempt", String(status.attempt)], next(status.nextAttemptAt, now)]
      }
    case "Online":
      return {
        tone: "good",
        detail: "Registered, and a beat confirmed that the registry still counts on us.",
        facts: [
          ["Confirmed", `${seconds(now - status.confirmedAt)} ago`],
          ["Good for", status.expiresAt === undefined ? "ever" : seconds(status.expiresAt - now)],
          ["Lease", status.lease.id.slice(0, 8)]
        ]
      }
    case "Unconfirmed":
      return {
        tone: "wait",
        detail: status.cause?.message ?? "Beats fail, but by its own rules the registry still lists us.",
        facts: [["Failures", String(status.failures)], next(status.nextAttemptAt, now), [
          "Lease",
          status.lease.id.slice(0, 8)
        ]]
      }
    case "Offline":
      return {
        tone: "bad",
        detail: status.cause?.message ?? "The registry does not list us any more.",
        facts: [["Failures", String(status.failures)], next(status.nextAttemptAt, now)]
      }
    case "Standalone":
      return { tone: "bad", detail: status.cause.message, facts: [next(status.nextAttemptAt, now)] }
    case "Halted":
      return { tone: "bad", detail: status.cause.message, facts: [["Next attempt", "none until asked"]] }
    case "Closed":
      return { tone: "idle", detail: `Not registered: ${status.reason.message}.`, facts: [] }
  }
}

/** What the history says of an event; beats are drawn instead. */
const line = (event: Lifeline.Event): { readonly tone: Tone; readonly text: string } | undefined => {
  switch (event._tag) {
    case "Beat":
    case "Verified":
      return undefined
    case "Registered":
      return { tone: "good", text: event.again ? "registered again" : "registered" }
    case "Recovered":
      return { tone: "good", text: `recovered after ${event.failures} failure${event.failures === 1 ? "" : "s"}` }
    case "Failed":
      return {
        tone: "wait",
        text: `${event.call.toLowerCase()} failed${event.failures === 1 ? "" : `, ${event.failures} in a row`}`
      }
    case "LeaseLost":
      return { tone: "bad", text: "the registry forgot us" }
    case "WentStandalone":
      return { tone: "bad", text: "gave up the first registration, standalone" }
    case "Halted":
      return { tone: "bad", text: "a definitive no" }
    case "Woken":
      return { tone: "wait", text: `woke up ${seconds(event.late)} late` }
    case "Closed":
      return { tone: "idle", text: event.reason.message }
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Who is registered
// ---------------------------------------------------------------------------------------------------------------------

/** How the list is kept: a word, and what comes next. */
const keeping = (status: DiscoveryCache.Status, now: number): { readonly tone: Tone; readonly text: string } => {
  const { freshness, updates } = status
  const state = `${freshness._tag === "Fresh" ? "live" : "stale"} for ${seconds(now - freshness.since)}`
  switch (updates._tag) {
    case "Connecting":
      return { tone: "wait", text: status.readAt === undefined ? "connecting" : `${state}, connecting again` }
    case "Open":
      return freshness._tag === "Fresh" ? { tone: "good", text: state } : { tone: "wait", text: `${state}, reading` }
    case "Waiting":
      return { tone: "bad", text: `${state}, next attempt ${next(updates.until, now)[1]}` }
    case "Paused":
      return { tone: "bad", text: `${state}, the browser is offline` }
    case "Polling":
      return {
        tone: freshness._tag === "Fresh" ? "good" : "wait",
        text: `${state}, asked again ${next(updates.next, now)[1]}`
      }
    case "Halted":
      return { tone: "bad", text: updates.cause.message }
    case "Closed":
    case "Disabled":
      return { tone: "idle", text: updates._tag.toLowerCase() }
  }
}

const toneOf = {
  online: "good",
  degraded: "wait",
  offline: "bad",
  unknown: "idle"
} as const satisfies Record<string, Tone>

const said = {
  Came: { tone: "good", verb: "came" },
  Changed: { tone: "wait", verb: "is" },
  Went: { tone: "bad", verb: "went" }
} as const

// ---------------------------------------------------------------------------------------------------------------------
// The trace: one spike for each beat, one mark for each failure, over the last 30 seconds
// ---------------------------------------------------------------------------------------------------------------------

const span = 30_000
const width = 600
const rest = 54

/** A spike as offsets from the moment of the beat: milliseconds, and pixels down. */
const spike = [[-260, 0], [-200, -5], [-140, 0], [-70, 7], [0, -40], [80, 20], [150, 0], [270, -9], [390, 0]] as const

const trace = (beats: ReadonlyArray<number>, now: number): string => {
  const x = (at: number): number => Math.min(width, Math.max(0, width - (now - at) / span * width))
  // A beat so soon after another that their spikes would cross is left out.
  const apart = beats.filter((at, i) => at - (beats[i - 1] ?? -Infinity) > 650)
  const points = apart.flatMap((at) => spike.map(([after, down]) => [at + after, rest + down] as const))
  const seen = points.filter(([at]) => at > now - span && at <= now)
  return `M0 ${rest}${seen.map(([at, y]) => `L${x(at).toFixed(1)} ${y}`).join("")}L${width} ${seen.at(-1)?.[1] ?? rest}`
}

const marks = (failures: ReadonlyArray<number>, now: number): string =>
  failures.filter((at) => at > now - span).map((at) =>
    `M${(width - (now - at) / span * width).toFixed(1)} ${rest - 9}v18`
  )
    .join("")

// ---------------------------------------------------------------------------------------------------------------------
// The document
// ---------------------------------------------------------------------------------------------------------------------

const element = (id: string): Element => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`index.html has no element #${id}`)
  return found
}

const make = (tag: string, text: string): HTMLElement =>
  Object.assign(document.createElement(tag), { textContent: text })

const clockTime = (at: number): string => new Date(at).toLocaleTimeString([], { hour12: false })

/** Shows a lifeline, and who is registered, until the scope closes. */
export const show = Effect.fnUntraced(function*(
  name: string,
  registry: string,
  lifeline: Lifeline.Lifeline["Service"],
  discovery: DiscoveryCache.Service
) {
  element("name").textContent = name
  element("registry").textContent = registry
  const beats: Array<number> = []
  const failures: Array<number> = []
  const history: Array<Node> = []

  const draw = Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const status = SubscriptionRef.getUnsafe(lifeline.status)
    const { detail, facts, tone } = view(status, now)
    const section = element("status")
    section.setAttribute("data-status", status._tag)
    section.setAttribute("data-tone", tone)
    element("tag").textContent = status._tag
    element("for").textContent = `for ${seconds(now - status.since)}`
    element("detail").textContent = detail
    element("facts").replaceChildren(...facts.map(([label, value]) => {
      const fact = document.createElement("div")
      fact.append(make("dt", label), make("dd", value))
      return fact
    }))
    element("beat").toggleAttribute("disabled", status._tag === "Closed")
    element("leave").toggleAttribute("disabled", status._tag === "Closed")
    element("line").setAttribute("d", trace(beats, now))
    element("failures").setAttribute("d", marks(failures, now))
    const kept = SubscriptionRef.getUnsafe(discovery.status)
    const { text, tone: keptTone } = keeping(kept, now)
    element("services").setAttribute("data-freshness", kept.freshness._tag)
    element("services").setAttribute("data-tone", keptTone)
    element("kept").textContent = text
    element("why").textContent = kept.freshness._tag === "Stale" ? kept.freshness.cause?.message ?? "" : ""
    document.title = `${status._tag} · ${name}`
  })

  const tell = (at: number, tone: Tone, text: string): void => {
    const item = document.createElement("li")
    item.dataset["tone"] = tone
    item.append(make("time", clockTime(at)), make("b", text))
    history.unshift(item)
    history.length = Math.min(history.length, 12)
    element("history").replaceChildren(...history)
  }

  const remember = (event: Lifeline.Event) =>
    Effect.sync(() => {
      if (event._tag === "Beat") beats.push(event.at)
      if (event._tag === "Failed" || event._tag === "LeaseLost") failures.push(event.at)
      for (const moments of [beats, failures]) if (moments.length > 200) moments.shift()
      const said = line(event)
      if (said !== undefined) tell(event.at, said.tone, said.text)
    })

  let known: DiscoveryCache.Freshness["_tag"] | undefined
  const list = ({ changes, freshness, services }: DiscoveryCache.Snapshot) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const isNews = known !== undefined
      if (isNews && known !== freshness._tag) {
        if (freshness._tag === "Fresh") tell(now, "good", "the list is live again")
        else tell(now, "wait", "the list is stale: the stream of events broke off")
      }
      known = freshness._tag
      // Who was there before the page came is no news.
      for (const { _tag, service } of isNews ? changes : []) {
        const { tone, verb } = said[_tag]
        tell(now, tone, `${service.name} ${verb}${_tag === "Changed" ? ` ${service.status}` : ""}`)
      }
      const items = services.map((service) => {
        const item = document.createElement("li")
        item.dataset["tone"] = toneOf[service.status]
        item.append(
          make("b", service.name),
          make("i", service.type),
          make("span", service.apiUrl),
          make("em", service.status)
        )
        return item
      })
      element("peers").replaceChildren(...(items.length > 0 ? items : [make("li", "nobody")]))
    })

  const clicks = (id: string, action: Effect.Effect<unknown, unknown>) =>
    Stream.fromEventListener(element(id), "click").pipe(
      Stream.runForEach(() => Effect.ignore(action))
    )

  yield* Effect.all([
    Stream.runForEach(lifeline.events, remember),
    Stream.runForEach(SubscriptionRef.changes(lifeline.status), () => draw),
    Effect.repeat(draw, Schedule.spaced("100 millis")),
    Stream.runForEach(discovery.watch(), list),
    Stream.runForEach(SubscriptionRef.changes(discovery.status), () => draw),
    clicks("refresh", discovery.refresh),
    clicks("beat", lifeline.beatNow),
    clicks("leave", lifeline.deregister),
    clicks("return", lifeline.reregister)
  ], { concurrency: "unbounded", discard: true })
})
