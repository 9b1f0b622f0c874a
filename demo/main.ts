/**
 * The demo: two services register, their registry is killed and comes back empty, and they find their way back to it.
 *
 * Everything is real: the registry is a process of its own, all calls are HTTP over loopback, `kill -9` is `kill -9`.
 * What is shortened is time: a heartbeat each second instead of every 30. Each line with a tick is an expectation that
 * was checked, most of them through the registry's HTTP API; the first that is not met ends the demo with exit code 1.
 *
 * To see it fail: `DEMO_BREAK=key` (the registry comes back with another API key), `DEMO_BREAK=start` (it does not start).
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { check, Deviation, expect } from "./Expectation.ts"
import * as Member from "./Member.ts"
import * as RegistryApi from "./RegistryApi.ts"
import * as RegistryProcess from "./RegistryProcess.ts"
import { layer as timelineLayer, Timeline } from "./Timeline.ts"

const registryKey = Redacted.make("the-registry-key")
const wrongKey = Redacted.make("not-the-registry-key")
const haulKey = Redacted.make("the-key-that-haul-shares")
const pilotKey = Redacted.make("the-key-that-pilot-shares")

/** The whole demo ends after this, whatever happens. */
const deadline = "27 seconds"

const inSeconds = (millis: number): string => `${(millis / 1000).toFixed(2)} s`

// ---------------------------------------------------------------------------------------------------------------------
// The registry
// ---------------------------------------------------------------------------------------------------------------------

const startRegistry = Effect.fnUntraced(function*(
  port: number,
  apiKey: Redacted.Redacted,
  program?: string | undefined
) {
  const timeline = yield* Timeline
  yield* timeline.tell({
    who: "registry",
    state: "Starting",
    tone: "pending",
    what: `at port ${port}, with an empty memory`
  })
  const registry = yield* RegistryProcess.start({ port, apiKey, staleAfter: Member.expiresAfter, program })
  yield* timeline.tell({
    who: "registry",
    state: "Started",
    tone: "good",
    what: `listens at ${registry.url} (process ${registry.pid})`
  })
  return registry
})

/**
 * The registry has to come back at the same port, so it takes one from below the range from which the system serves
 * others: nobody is given it while the registry is away. Where it is taken, another one is tried.
 */
const startFirstRegistry = (program: string | undefined) =>
  Random.nextIntBetween(20_000, 30_000).pipe(
    Effect.flatMap((port) => Effect.map(startRegistry(port, registryKey, program), (registry) => ({ registry, port }))),
    Effect.retry({ times: 2 })
  )

// ---------------------------------------------------------------------------------------------------------------------
// The chapters
// ---------------------------------------------------------------------------------------------------------------------

/** What the members believe: each of them online, with the ids of their leases, by name. */
const allOnline = (members: ReadonlyArray<Member.Member>, isNew: (id: string) => boolean = () => true) =>
  Effect.forEach(
    members,
    ({ name, status }) =>
      Effect.flatMap(status, (now) =>
        now._tag === "Online" && isNew(now.lease.id)
          ? Effect.succeed({ name, id: now.lease.id })
          : Effect.fail(`${name} is ${now._tag}`))
  )

/** What the registry says: exactly these, online, under these ids. */
const listsExactly = (url: string, expected: ReadonlyArray<{ readonly name: string; readonly id: string }>) =>
  Effect.flatMap(RegistryApi.services(url, registryKey), (listed) =>
    Effect.as(
      check(
        listed.length === expected.length &&
          expected.every(({ id, name }) =>
            listed.some((service) => service.id === id && service.name === name && service.status === "online")
          ),
        `it lists ${RegistryApi.show(listed)}`
      ),
      listed
    ))

const register = Effect.fnUntraced(function*(url: string) {
  const registry = { url, apiKey: registryKey }
  yield* expect("the registry lists nobody", "2 seconds", listsExactly(url, []))
  const haul = yield* Member.start({ name: "haul", type: "download-client", ownKey: haulKey, registry })
  const pilot = yield* Member.start({ name: "pilot", type: "media-manager", ownKey: pilotKey, registry })
  const members = [haul, pilot]
  const leases = yield* expect("haul and pilot are registered, and confirmed", "5 seconds", allOnline(members))
  const listed = yield* expect(
    "the registry's API lists both as online, under the same ids",
    "2 seconds",
    listsExactly(url, leases)
  )
  const seenAtFirst = new Map(listed.map((service) => [service.id, service.last_seen]))
  yield* expect(
    "the registry has heard a heartbeat of each since",
    "4 seconds",
    Effect.flatMap(RegistryApi.services(url, registryKey), (now) =>
      check(
        now.length === 2 && now.every((service) => service.last_seen > (seenAtFirst.get(service.id) ?? "")),
        `last seen: ${now.map((service) => `${service.name} ${service.last_seen}`).join(", ")}`
      ))
  )
  return { haul, pilot, members, leases }
})

const grow = (waits: ReadonlyArray<number>): boolean =>
  waits.every((wait, index) => index === 0 || wait > (waits[index - 1] ?? Infinity))

const loseRegistry = Effect.fnUntraced(function*(
  registry: RegistryProcess.RegistryProcess,
  members: ReadonlyArray<Member.Member>
) {
  const timeline = yield* Timeline
  yield* registry.killHard
  yield* timeline.tell({ who: "registry", state: "Killed", tone: "bad", what: `kill -9 ${registry.pid}` })
  yield* expect(
    "nobody answers there any more",
    "2 seconds",
    Effect.flatMap(RegistryApi.answers(registry.url), (answers) => check(!answers, "something answers"))
  )
  yield* Effect.forEach(members, ({ name, waits }) =>
    expect(
      `${name} has tried 3 times, and waits longer each time`,
      "8 seconds",
      Effect.suspend(() =>
        check(waits.length >= 3 && grow(waits.slice(0, 3)), `waits of ${waits.map(inSeconds).join(", ")}`)
      )
    ), { concurrency: "unbounded" })
  yield* expect(
    "neither believes any longer that it is registered",
    "5 seconds",
    Effect.forEach(
      members,
      ({ name, status }) => Effect.flatMap(status, (now) => check(now._tag === "Offline", `${name} is ${now._tag}`))
    )
  )
})

const comeBack = Effect.fnUntraced(function*(
  port: number,
  apiKey: Redacted.Redacted,
  members: ReadonlyArray<Member.Member>,
  before: ReadonlyArray<{ readonly id: string }>
) {
  const registry = yield* startRegistry(port, apiKey)
  const backAt = yield* Clock.currentTimeMillis
  const isNew = (id: string) => before.every((lease) => lease.id !== id)
  const leases = yield* expect(
    "both are registered again, under new ids",
    "6 seconds",
    allOnline(members, isNew)
  )
  const took = (yield* Clock.currentTimeMillis) - backAt
  yield* expect(
    "the registry's API lists both as online, under the new ids",
    "2 seconds",
    listsExactly(registry.url, leases)
  )
  return { registry, took }
})

const callPeer = Effect.fnUntraced(function*(pilot: Member.Member) {
  const timeline = yield* Timeline
  const haul = yield* expect(
    "pilot finds haul through the registry, with the key that haul shares",
    "2 seconds",
    Effect.mapError(pilot.discovery.peer("haul"), (error) => error.message)
  )
  const call = (headers: { readonly [name: string]: string }) =>
    HttpClient.get(`${haul.url}/api/hello`, { headers }).pipe(
      Effect.flatMap((response) => Effect.map(response.text, (text) => ({ status: response.status, text }))),
      Effect.mapError((error) => error.message)
    )
  const answered = (expected: number) => (answer: { readonly status: number; readonly text: string }) =>
    Effect.as(check(answer.status === expected, `${answer.status} ${answer.text}`), answer)

  yield* timeline.tell({
    who: "pilot",
    state: "Calls",
    what: `GET ${haul.url}/api/hello with X-Api-Key: ${haul.apiKey}`
  })
  const greeting = yield* expect(
    "haul answers 200 to that key",
    "2 seconds",
    Effect.flatMap(call({ "x-api-key": Redacted.value(haul.apiKey) }), answered(200))
  )
  yield* timeline.tell({ who: "haul", state: "Answers", tone: "good", what: greeting.text })
  yield* expect("and 401 without it", "2 seconds", Effect.flatMap(call({}), answered(401)))
})

/** Counts what leaves the program, below everything that could try again. */
const counting = Effect.gen(function*() {
  const sent = yield* Ref.make(0)
  const client = Effect.map(HttpClient.HttpClient, HttpClient.tapRequest(() => Ref.update(sent, (n) => n + 1)))
  return { sent, layer: Layer.effect(HttpClient.HttpClient, client) }
})

const showWrongKey = Effect.fnUntraced(function*(url: string) {
  const timeline = yield* Timeline
  const { layer, sent } = yield* counting
  const apiKey = yield* SubscriptionRef.make(wrongKey)
  const prism = yield* Member.start({
    name: "prism",
    type: "media-manager",
    ownKey: Redacted.make("the-key-that-prism-shares"),
    registry: { url, apiKey }
  }).pipe(Effect.provide(Layer.provide(layer, FetchHttpClient.layer)))
  yield* expect(
    "prism is told so at once, as AuthFailed",
    "2 seconds",
    Effect.flatMap(
      prism.status,
      (now) => check(now._tag === "Halted" && now.cause._tag === "AuthFailed", `prism is ${now._tag}`)
    )
  )
  yield* Effect.sleep("2 seconds")
  yield* expect(
    "2 seconds later it has still sent one request, that one",
    "1 second",
    Effect.flatMap(Ref.get(sent), (count) => check(count === 1, `${count} requests`))
  )
  yield* expect(
    "the registry's API does not list it",
    "1 second",
    Effect.flatMap(
      RegistryApi.services(url, registryKey),
      (all) => check(!all.some(({ name }) => name === "prism"), `it lists ${RegistryApi.show(all)}`)
    )
  )
  yield* timeline.tell({ who: "prism", state: "New key", what: "somebody sets the right key, while it runs" })
  yield* SubscriptionRef.set(apiKey, registryKey)
  yield* expect("with the right key it registers by itself", "3 seconds", allOnline([prism]))
})

// ---------------------------------------------------------------------------------------------------------------------
// The story
// ---------------------------------------------------------------------------------------------------------------------

const settings = Config.option(Config.Literals(["key", "start"], "DEMO_BREAK"))

const story = Effect.gen(function*() {
  const broken = Option.getOrUndefined(yield* settings)
  const timeline = yield* Timeline

  yield* timeline.title("effect-lifeline: two services, and a registry that dies and forgets them")
  yield* timeline.remark(
    "Real processes, real HTTP. Only time is shortened: a heartbeat each second instead of every 30."
  )

  yield* timeline.chapter("1. haul and pilot register")
  const { port, registry } = yield* startFirstRegistry(broken === "start" ? "no-such-program.js" : undefined)
  const { leases, members, pilot } = yield* register(registry.url)

  yield* timeline.chapter("2. The registry dies")
  yield* loseRegistry(registry, members)

  yield* timeline.chapter("3. It comes back at the same port, and has forgotten everybody")
  const back = yield* comeBack(port, broken === "key" ? wrongKey : registryKey, members, leases)

  yield* timeline.chapter("4. pilot calls haul, with the API key that haul shares through the registry")
  yield* callPeer(pilot)

  yield* timeline.chapter("5. A third service has a wrong key for the registry")
  yield* showWrongKey(back.registry.url)
  return back.took
})

const report = Effect.fnUntraced(function*(cause: Cause.Cause<unknown>) {
  const timeline = yield* Timeline
  if (Cause.hasInterruptsOnly(cause)) return yield* timeline.chapter("Stopped before its end.")
  const error = Cause.squash(cause)
  yield* error instanceof Deviation
    ? timeline.verdict(false, error.message)
    : timeline.verdict(false, `a mistake in the demo itself: ${Cause.pretty(cause)}`)
  yield* timeline.chapter("The demo failed: not everything went as it says above.")
})

/** When this succeeds or fails, everything that the story started has ended: its scope is closed by then. */
const main = Effect.gen(function*() {
  const timeline = yield* Timeline
  const took = yield* story.pipe(
    Effect.scoped,
    Effect.timeoutOrElse({
      duration: deadline,
      orElse: () => Effect.fail(new Deviation({ expected: `the demo ends within ${deadline}`, found: "it goes on" }))
    }),
    Effect.onError(report)
  )
  const [met, elapsed] = [yield* timeline.met, yield* timeline.elapsed]
  yield* timeline.chapter(`All ${met} expectations were met, in ${elapsed.toFixed(1)} s.`)
  yield* timeline.remark(
    `${inSeconds(took)} after the registry was back, both services were registered again. Nobody restarted them.`
  )
})

NodeRuntime.runMain(
  main.pipe(
    // The timeline says what happens: no second account of it by the logs of the lifelines.
    Effect.provide([timelineLayer, NodeServices.layer, FetchHttpClient.layer, Logger.layer([])])
  ),
  { disableErrorReporting: true }
)
