/**
 * EventSource: server-sent events over fetch, as a stream that survives its connections.
 *
 * {@link stream} is {@link Reconnect.stream} over {@link connect}, a transport: one request, read as the WHATWG text says.
 * What it does beyond the `EventSource` of browsers: headers and POST, errors that say what is wrong, an end to a
 * connection that went silent, and a server that is down for now (503) is tried again.
 *
 * | what happens | what follows |
 * |---|---|
 * | 200 with `text/event-stream` | events; when it ends, the next connection, with `Last-Event-ID` |
 * | 204 | the stream ends |
 * | a redirect | followed, 5 at most; headers of the caller do not go to another origin |
 * | any other status | by the table, `Classify.httpEventStream` unless told otherwise |
 * | 200 with another content type, or encoded in a way that the client does not undo | `Refused` |
 * | an event over `maxEventSize` | `Refused` with {@link EventTooLarge} as its cause: it would come again |
 * | no byte for `idleTimeout`, a body that breaks off | tried again; an event that was not whole is dropped, its id too |
 *
 * Compressed answers need the client over fetch. On Cloudflare Workers the option `cache` of fetch, without which a stream may
 * come from a cache, needs a compatibility date of 2024-11-11 or later.
 *
 * **Example** (Following the events of a registry)
 *
 * ```ts
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * export const follow = EventSource.stream("http://pulse:9696/api/v1/events", {
 *   isGap: (event) => event.event === "gap"
 * }).pipe(
 *   Stream.runForEach((event) =>
 *     event._tag === "Gap" ? Effect.log("events may be missing") : Effect.log(event.event, event.data)
 *   )
 * )
 * ```
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import { isArrayNonEmpty } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { EventTooLarge } from "effect/encoding/Sse"
import { constVoid, identity } from "effect/Function"
import type * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import type { HttpMethod } from "effect/http/HttpMethod"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import * as Classify from "./Classify.ts"
import { setFetchOptions } from "./internal/fetchOptions.ts"
import * as Engine from "./internal/reconnect.ts"
import * as Sse from "./internal/sseParser.ts"
import { showText } from "./internal/url.ts"
import type { Attempted, AuthFailed, Exhausted, LeaseLost, NoProgress, Refused, Transient } from "./LifelineError.ts"
import * as Reconnect from "./Reconnect.ts"

/**
 * One event. `event` is its type, `"message"` where the server gave none. `id` is the last one that the server set, with
 * this event or before it, also on an earlier connection; `undefined` where it never set one.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event {
  readonly _tag: "Event"
  readonly event: string
  readonly data: string
  readonly id: string | undefined
}

export {
  /**
   * An event, or a line, was larger than `maxEventSize` allows: the cause of the {@link Refused} that the stream fails with.
   *
   * @category errors
   * @since 0.1.0
   */
  EventTooLarge
} from "effect/encoding/Sse"

/**
 * What a status means for an event stream. As {@link Classify.Table}, without the verdicts on leases.
 *
 * @category models
 * @since 0.1.0
 */
export type Table = {
  readonly [key: string]: Classify.Verdict<Exclude<Classify.Failure, LeaseLost>>
}

/**
 * Headers by name. What is `Redacted` is not shown by anything here.
 *
 * @category models
 * @since 0.1.0
 */
export type Headers = { readonly [name: string]: string | Redacted.Redacted | undefined }

/**
 * What a connection sends. See {@link post}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Method {
  readonly name: "GET" | "POST"
  readonly body?: HttpBody.HttpBody | undefined
  readonly "~effect-lifeline/Reconnect": <R>(transport: Transport<R>, at: Attempted) => Transport<R>
}

type Transport<R> = Reconnect.Connect<Event, string, R>

/**
 * How one connection is made, and what it is held to.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectOptions<out R = never> {
  /** What is sent: {@link post} is another one. @default a GET */
  readonly method?: Method | undefined
  /** Sent with the request; an effect is evaluated for each connection, within `connectTimeout`. @default none */
  readonly headers?: Headers | Effect.Effect<Headers, Transient | AuthFailed | Refused, R> | undefined
  /** How long the server may take to begin its answer. @default 10 seconds */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * How long the connection may be silent while we read, comments included, until it is given up.
   *
   * @default 45 seconds: three of the comments that servers send every 15 seconds, as the WHATWG text advises
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * How large an event may be, in UTF-16 code units: its data with the line that is being read.
   *
   * @default 10,485,760 (10 Mi), as `effect/encoding/Sse`
   */
  readonly maxEventSize?: number | undefined
  /**
   * What a status means. With `Classify.httpEventStreamStrict` every one but 200 is final, even 503, as in browsers.
   *
   * @default `Classify.httpEventStream`
   */
  readonly table?: Table | undefined
  /**
   * Which events say that events before them are gone. They are not handed over as events but as a gap.
   *
   * @default none: server-sent events have no word for it
   */
  readonly isGap?: ((event: Event) => boolean) | undefined
  /** Whether trace headers are sent. In browsers they force a CORS preflight. @default false */
  readonly tracePropagation?: boolean | undefined
  /** What errors call it. @default "subscribe" */
  readonly operation?: string | undefined
}

type Item = Reconnect.Frame<Event, string> | Reconnect.Notice<string>

/** How many redirects are followed. Browsers follow 20, each of which a server in a loop sees. */
const maxRedirects = 5

/** What fetch undoes. It leaves the header; other clients hand the body over as it is. */
const fetchDecodes = /gzip|deflate|br|zstd|identity/i

/** A header that can be sent, with its name. */
const sendable = /^[!#$%&'*+.^_`|~\w-]+:[\t -~\x80-\xff]*$/

/** UTF-8 as the bytes of a header, which is how the WHATWG text sends an id. */
const headerOf = (id: string): string =>
  Array.from(new TextEncoder().encode(id), (byte) => String.fromCharCode(byte)).join("")

const cancel = (reader: ReadableStreamDefaultReader<Uint8Array> | undefined): Effect.Effect<unknown> =>
  Effect.sync(() => reader?.cancel().catch(constVoid))

const get: Method = { name: "GET", "~effect-lifeline/Reconnect": identity }

/**
 * A POST with a body. It is sent once and never again, however it ends, unless it is declared `idempotent`: when the answer
 * ends, so does the stream, and what would be tried again is `Refused`. The body of one that is must be one that can be
 * sent more than once.
 *
 * **Example** (A POST that may be sent again)
 *
 * ```ts
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as HttpBody from "effect/http/HttpBody"
 * import * as Redacted from "effect/Redacted"
 *
 * export const answers = (key: Redacted.Redacted) =>
 *   EventSource.stream("https://search.example/api/follow", {
 *     method: EventSource.post(HttpBody.jsonUnsafe({ query: "up" }), { idempotent: true }),
 *     headers: { "x-api-key": key },
 *     idleTimeout: "2 minutes"
 *   })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const post = (
  body?: HttpBody.HttpBody,
  options?: { readonly idempotent?: boolean | undefined }
): Method => ({
  name: "POST",
  body,
  "~effect-lifeline/Reconnect": options?.idempotent === true ? identity : once
})

/** What would be tried again must not be where that would send a POST twice. */
const once = <R>(transport: Transport<R>, at: Attempted): Transport<R> => {
  const stop = new Reconnect.Stop(at)
  const final = (error: Reconnect.Failure): Reconnect.Failure =>
    error._tag === "Transient"
      ? Classify.unsupported({
        ...at,
        detail: `${error.reason.message}; a POST is not sent again unless it is declared idempotent`,
        cause: error
      })
      : error
  return (dial) =>
    dial.generation > 1 ? Effect.fail(stop) : Effect.mapBoth(transport(dial), {
      onFailure: final,
      onSuccess: (stream) => Stream.concat(Stream.mapError(stream, final), Stream.fail(stop))
    })
}

/**
 * The transport: one request for each call, whose body lives as long as the scope.
 *
 * **Example** (One connection, without reconnecting)
 *
 * ```ts
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Effect from "effect/Effect"
 * import * as Stream from "effect/Stream"
 *
 * const connect = EventSource.connect("http://pulse:9696/api/v1/events")
 *
 * export const once = connect({ cursor: undefined, attempt: 1, generation: 1 }).pipe(
 *   Effect.flatMap(Stream.runForEach((frame) => Effect.log(frame))),
 *   Effect.scoped
 * )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = <R = never>(
  url: string | URL,
  options: ConnectOptions<R> = {}
): Reconnect.Connect<Event, string, HttpClient.HttpClient | Scope.Scope | R> => {
  const { headers: given = {}, isGap, maxEventSize = 10_485_760, method = get, tracePropagation = false } = options
  const table: Table = options.table ?? Classify.httpEventStream
  const at = atOf(url, options)

  const invalid = (path: string, message: string) => Classify.invalidRequest({ ...at, issues: [{ path, message }] })

  /** The body of an answer that is an event stream. */
  const open = Effect.fnUntraced(function*(cursor: string | undefined) {
    const client = yield* HttpClient.HttpClient
    const place = URL.parse(url)
    if (place !== null && !/^https?:\/\/[^@/]+\//.test(place.href)) {
      return yield* invalid("url", "must be http(s), without credentials")
    }
    const headers: Record<string, string | undefined> = {}
    for (const [name, secret] of Object.entries(Effect.isEffect(given) ? yield* given : given)) {
      const value = Redacted.isRedacted(secret) ? Redacted.value(secret) : secret
      if (value !== undefined && !sendable.test(`${name}:${value}`)) {
        return yield* invalid(`options.headers.${name}`, "is not a valid header")
      }
      headers[name] = value
    }
    const own = { accept: "text/event-stream", "last-event-id": cursor }
    const request = HttpClientRequest.make(method.name)(url, { headers: { ...headers, ...own }, body: method.body })

    let redirect: RequestRedirect = "manual"
    /** The only one so far; empty once there were two. */
    let origin: string | undefined
    const hop = HttpClient.makeWith((request) =>
      Effect.flatMap(request, (request) => {
        const to = URL.parse(request.url)?.origin ?? ""
        origin = to === (origin ?? to) ? to : ""
        // What the caller or the client adds to a request goes to no other origin, and not back from one.
        return Effect.as(
          setFetchOptions({ cache: "no-store", redirect }),
          origin === to
            ? request
            : HttpClientRequest.make(request.method as HttpMethod)(request.url, { headers: own, body: request.body })
        )
      }).pipe(
        client.postprocess,
        Effect.catchReason("HttpClientError", "StatusCodeError", ({ response }) => Effect.succeed(response))
      ), client.preprocess)
    const answer = Effect.mapError(
      HttpClient.followRedirects(hop, maxRedirects).execute(request),
      (error) => Classify.fromClientError(table, error, { ...at, now: 0 })
    )
    let response = yield* answer
    if (response.status === 0 && method === get) {
      // Browsers do not show where a redirect leads: there the platform follows it.
      redirect = "follow"
      response = yield* answer
    }

    const web = HttpClientResponse.toWeb(response)
    const body = Option.isSome(web) ? web.value.body : Stream.toReadableStream(response.stream)
    const reader = body?.getReader()
    yield* Effect.addFinalizer(() => cancel(reader))

    const { status } = response
    const { "content-encoding": encoding = "identity", "content-type": type = "" } = response.headers
    const isPlain = (Option.isSome(web) ? fetchDecodes : /^identity$/).test(encoding)
    if (status === 200 && /^\s*text\/event-stream\s*(;|$)/i.test(type) && isPlain) return reader
    const detail = status === 200
      ? `the content type is ${showText(type) || "missing"}; text/event-stream is due, in a known encoding`
      : status === 0 || (status >= 300 && status < 400)
      ? "a redirect that leads nowhere"
      : undefined
    return yield* Classify.fromStatus(table, response, { ...at, detail, now: yield* Clock.currentTimeMillis })
  })

  const transport = Effect.fnUntraced(function*({ cursor }: Reconnect.Dial<string>) {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    let items: Array<Item> = []
    let header = cursor && headerOf(cursor)
    if (header && !sendable.test(`a:${header}`)) {
      header = undefined
      items.push({ notice: "Gap" })
    }
    let reader = yield* open(header || undefined).pipe(
      Engine.deadline(() => at, options.connectTimeout ?? 10_000),
      Effect.provideService(HttpClient.TracerPropagationEnabled, tracePropagation)
    )

    const tell = (item: Item) => void items.push(item)
    const parse = Sse.make(maxEventSize, cursor, tell, (event, data, id) => {
      const value: Event = { _tag: "Event", event, data, id }
      tell(isGap?.(value) ? { notice: "Gap", cursor: id } : { value, cursor: id })
    })

    /** Since when a read is waited for. What nobody reads is not silent. */
    let since = Infinity
    /** A read whose reader was interrupted goes on: its bytes are for the next one. */
    let reading: Promise<{ readonly value?: Uint8Array | undefined } | undefined> | undefined
    const read = Effect.tryPromise({
      try: async () => {
        since = now()
        return reading ??= reader?.read()
      },
      catch: (cause) => Classify.unreachable({ ...at, detail: Classify.codeOf(cause), cause })
    }).pipe(Effect.ensuring(Effect.sync(() => {
      since = Infinity
    })))

    // A deadline for each read would cost a fiber and a timer for each: instead one fiber looks when the time is up how long
    // the present one takes, and ends the body, which ends the read.
    const idleTimeout = options.idleTimeout ?? 45_000
    let end: Effect.Effect<never, Cause.Done | Transient | Refused> = Cause.done()
    yield* Effect.forkScoped(Effect.gen(function*() {
      for (;;) {
        const left = Duration.toMillis(idleTimeout) - Math.max(0, now() - since)
        if (left <= 0) break
        yield* Effect.sleep(Math.ceil(left))
      }
      end = Effect.fail(Classify.timedOut({ ...at, after: idleTimeout }))
      yield* cancel(reader)
    }))

    const pull: Pull.Pull<NonEmptyReadonlyArray<Item>, Transient | Refused> = Effect.suspend(() => {
      if (isArrayNonEmpty(items)) {
        // Not emptied: to copy a thousand events costs as much as to parse them.
        const found = items
        items = []
        return Effect.succeed(found)
      }
      return Effect.flatMap(read, (result) => {
        reading = undefined
        if (result?.value === undefined) return end
        if (!parse(result.value)) {
          const cause = new EventTooLarge({ maxEventSize })
          end = Effect.fail(Classify.malformedResponse({ ...at, detail: `maxEventSize: ${cause.message}`, cause }))
          reader = undefined
        }
        return pull
      })
    })
    return Stream.fromPull(Effect.succeed(pull))
  })

  return method["~effect-lifeline/Reconnect"](transport, at)
}

/**
 * How events are followed: a connection, and what becomes of the stream between two of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<out R = never>
  extends ConnectOptions<R>, Omit<Reconnect.Options<string>, "at" | "openTimeout">
{
  /** The waits between two connections. A `retry` of the server replaces its base, inside 250 ms to 60 s. @default `Backoff.streams` */
  readonly policy?: Backoff.Unbounded | Reconnect.Bounded | undefined
}

/**
 * Events, over as many connections as it takes: see {@link Reconnect.stream}. It resumes with the id of the last event that
 * was handed over; where the server cannot (see `isGap`), a {@link Reconnect.Gap} says so.
 *
 * **Example** (With an idle deadline of its own, and a few attempts)
 *
 * ```ts
 * import * as Backoff from "effect-lifeline/Backoff"
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as Reconnect from "effect-lifeline/Reconnect"
 *
 * export const prices = EventSource.stream("https://feed.example/prices", {
 *   idleTimeout: "2 minutes",
 *   policy: Reconnect.bounded(Backoff.synchronous)
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function stream<R = never>(
  url: string | URL,
  options?: Options<R> & { readonly policy?: Backoff.Unbounded | undefined }
): Stream.Stream<
  Event | Reconnect.Gap,
  AuthFailed | Refused | NoProgress,
  HttpClient.HttpClient | Exclude<R, Scope.Scope>
>
export function stream<R = never>(
  url: string | URL,
  options: Options<R>
): Stream.Stream<
  Event | Reconnect.Gap,
  AuthFailed | Refused | NoProgress | Exhausted,
  HttpClient.HttpClient | Exclude<R, Scope.Scope>
>
export function stream<R = never>(
  url: string | URL,
  options: Options<R> = {}
): Stream.Stream<
  Event | Reconnect.Gap,
  AuthFailed | Refused | NoProgress | Exhausted,
  HttpClient.HttpClient | Exclude<R, Scope.Scope>
> {
  // The deadline of an attempt is the transport's: it knows what a POST that got no answer means.
  return Engine.stream(connect(url, options), { ...options, at: atOf(url, options), openTimeout: Infinity })
}

const atOf = (url: string | URL, { method = get, operation = "subscribe" }: ConnectOptions<unknown>): Attempted => ({
  operation,
  target: `${method.name} ${showText(String(url))}`
})
