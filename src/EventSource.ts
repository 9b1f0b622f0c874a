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
 * | any other status | by the table, `Classify.http` unless told otherwise; with `strict` final, as in browsers |
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
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Backoff from "./Backoff.ts"
import * as Classify from "./Classify.ts"
import { setFetchOptions } from "./internal/fetchOptions.ts"
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

/**
 * An event, or a line, was larger than `maxEventSize` allows: the cause of the {@link Refused} that the stream fails with.
 *
 * @category errors
 * @since 0.1.0
 */
export class EventTooLarge extends Data.TaggedError("EventTooLarge")<{
  /** In UTF-16 code units. */
  readonly maxEventSize: number
}> {
  override get message() {
    return `an event of more than ${this.maxEventSize} characters; raise maxEventSize if the server means it`
  }
}

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
 * How one connection is made, and what it is held to.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectOptions<out R = never> {
  /**
   * A POST is sent once and never again, however it ends, unless it is declared `idempotent`: when the answer ends, so does
   * the stream, and what would be tried again is `Refused`.
   *
   * @default "GET"
   */
  readonly method?: "GET" | "POST" | undefined
  /** The body of a POST. It must be one that can be sent more than once where the POST is `idempotent`. */
  readonly body?: HttpBody.HttpBody | undefined
  /** Whether a POST may be sent again. @default false */
  readonly idempotent?: boolean | undefined
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
  /** What a status means. @default `Classify.http` */
  readonly table?: Table | undefined
  /** Every status but 200 is final, even 503, as the WHATWG text has it. @default false */
  readonly strict?: boolean | undefined
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
type Reader = ReadableStreamDefaultReader<Uint8Array>

const defaultTimeout = 10_000

/** How many redirects are followed. Browsers follow 20, each of which a server in a loop sees. */
const maxRedirects = 5

const fetchDecodes = /^((x-)?gzip|deflate|br|zstd|identity|[\s,])+$/i

const token = /^[!#$%&'*+.^_`|~\w-]+$/
const sendable = /^[\t\x20-\x7e\x80-\xff]*$/

/** UTF-8 as the bytes of a header, which is how the WHATWG text sends an id; `undefined`: no header can carry it. */
const headerOf = (id: string): string | undefined => {
  const bytes = Array.from(new TextEncoder().encode(id), (byte) => String.fromCharCode(byte)).join("")
  return sendable.test(bytes) ? bytes : undefined
}

/** The request that a redirect leads to, as fetch makes it; to another origin only what the protocol needs goes along. */
const redirected = (
  { body, headers, method }: HttpClientRequest.HttpClientRequest,
  status: number,
  from: string,
  to: URL
): HttpClientRequest.HttpClientRequest => {
  const { accept, "content-type": contentType, "last-event-id": lastEventId } = headers
  const isSameOrigin = URL.parse(from)?.origin === to.origin
  const keeps = method === "POST" && status > 303
  return HttpClientRequest.make(keeps ? "POST" : "GET")(to.href, {
    headers: {
      ...(isSameOrigin ? headers : { accept, "last-event-id": lastEventId }),
      "content-type": keeps ? contentType : undefined
    },
    body: keeps ? body : undefined
  })
}

/** The body as one kind of stream, whichever client answered. */
const readerOf = (response: HttpClientResponse.HttpClientResponse): Reader | undefined => {
  const web = HttpClientResponse.toWeb(response)
  return Option.isSome(web) ? web.value.body?.getReader() : Stream.toReadableStream(response.stream).getReader()
}

const cancel = (reader: Reader | undefined): void => {
  reader?.cancel().catch(() => {})
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
  const { headers: given = {}, isGap, maxEventSize = 10 * 1024 * 1024, method = "GET" } = options
  const { table = options.strict === true ? Classify.httpEventStreamStrict : Classify.httpEventStream } = options
  const at = atOf(url, options)
  const within = Duration.fromInputUnsafe(options.connectTimeout ?? defaultTimeout)
  const idleTimeout = Duration.fromInputUnsafe(options.idleTimeout ?? 45_000)

  const invalid = (path: string, message: string) => Classify.invalidRequest({ ...at, issues: [{ path, message }] })

  const open = Effect.fnUntraced(function*(cursor: string | undefined) {
    const client = yield* HttpClient.HttpClient
    const place = URL.parse(url)
    if (place !== null && (!/^https?:$/.test(place.protocol) || place.username !== "" || place.password !== "")) {
      return yield* invalid("url", "must be an http or https URL without user name and password")
    }
    const headers: Record<string, string | undefined> = {}
    for (const [name, secret] of Object.entries(Effect.isEffect(given) ? yield* given : given)) {
      const value = Redacted.isRedacted(secret) ? Redacted.value(secret) : secret
      if (value !== undefined && (!token.test(name) || !sendable.test(value))) {
        return yield* invalid(`options.headers.${name}`, "holds characters that a header cannot carry")
      }
      headers[name] = value
    }
    let request = HttpClientRequest.make(method)(url, {
      headers: { ...headers, accept: "text/event-stream", "last-event-id": cursor },
      body: options.body
    })
    let redirect: RequestRedirect = "manual"
    for (let n = 0;; n++) {
      // What the client does to a request (a base URL, a credential) is done once, not again for each redirect.
      const prepared = Effect.tap(n === 0 ? client.preprocess(request) : Effect.succeed(request), (prepared) => {
        request = prepared
        return setFetchOptions({ cache: "no-store", redirect })
      })
      const answered = Effect.catch(client.postprocess(prepared), (error) =>
        error.reason._tag === "StatusCodeError"
          ? Effect.succeed(error.reason.response)
          : Effect.fail(Classify.fromClientError(table, error, { ...at, now: 0 })))
      const [response, reader] = yield* Effect.acquireRelease(
        Effect.map(answered, (response) => [response, readerOf(response)] as const),
        ([, reader]) => Effect.sync(() => cancel(reader)),
        { interruptible: true }
      )
      const { headers, status } = response
      const { "content-encoding": encoding = "identity", "content-type": type = "", location } = headers
      // Fetch decodes what it knows, and leaves the header; other clients hand the body over as it is.
      const isEncoded = encoding !== "identity" &&
        (Option.isNone(HttpClientResponse.toWeb(response)) || !fetchDecodes.test(encoding))
      if (status === 200 && /^\s*text\/event-stream\s*(;|$)/i.test(type) && !isEncoded) return reader
      cancel(reader)
      if (status === 0 && method === "GET" && redirect === "manual") {
        // Browsers do not show where a redirect leads: there the platform follows it.
        redirect = "follow"
      } else if (status === 0 || (status >= 300 && status < 400)) {
        const to = [301, 302, 303, 307, 308].includes(status) && location ? URL.parse(location, response.url) : null
        if (to === null || n === maxRedirects) {
          return yield* Classify.malformedResponse({ ...at, status, detail: "a redirect that leads nowhere" })
        }
        request = redirected(request, status, response.url, to)
      } else if (status === 200 && !Classify.isHtml(headers)) {
        const is = type === "" ? "no content type" : `the content type ${type.replace(/[\s;].*$/s, "").slice(0, 100)}`
        return yield* Classify.malformedResponse({
          ...at,
          status,
          detail: isEncoded
            ? "it is encoded, which this HTTP client does not undo; the one over fetch undoes gzip, deflate and br"
            : `${is}, not text/event-stream`
        })
      } else {
        return yield* Classify.fromStatus(table, response, { ...at, now: yield* Clock.currentTimeMillis })
      }
    }
  })

  const transport = Effect.fnUntraced(function*({ cursor }: Reconnect.Dial<string>) {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    let items: Array<Item> = []
    const header = cursor === undefined || cursor === "" ? undefined : headerOf(cursor)
    if (header === undefined && cursor) items.push({ notice: "Gap" })
    const reader = yield* open(header).pipe(
      Effect.timeoutOrElse({
        duration: within,
        orElse: () => Effect.fail(Classify.timedOut({ ...at, after: within }))
      }),
      Effect.provideService(HttpClient.TracerPropagationEnabled, options.tracePropagation === true)
    )

    const parse = Sse.make({
      maxEventSize,
      lastEventId: cursor,
      event: (name, data, id) => {
        const event: Event = { _tag: "Event", event: name, data, id }
        if (isGap?.(event) !== true) items.push({ value: event, cursor: id })
        else {
          items.push({ notice: "Gap" })
          if (id !== undefined) items.push({ notice: "Cursor", cursor: id })
        }
      },
      id: (cursor) => items.push({ notice: "Cursor", cursor }),
      retry: (base) => items.push({ notice: "Retry", base })
    })

    // A deadline for each read would cost a fiber and a timer for each: instead one fiber looks when the time is up how
    // long the read that is waiting has been waiting. What nobody reads is not silent.
    let since = 0
    let waiting: ((result: Effect.Effect<Uint8Array | undefined, Transient>) => void) | undefined
    /** A read whose reader was interrupted goes on: its bytes are for the next one. */
    let reading: ReturnType<Reader["read"]> | undefined
    const read = Effect.callback<Uint8Array | undefined, Transient>((resume) => {
      since = now()
      waiting = resume
      reading ??= reader?.read() ?? Promise.resolve({ done: true, value: undefined })
      reading.then(
        ({ value }) => resume(Effect.succeed(value)),
        (cause) => resume(Effect.fail(Classify.unreachable({ ...at, detail: Classify.codeOf(cause), cause })))
      )
      return Effect.sync(() => {
        waiting = undefined
      })
    })
    const watch: Effect.Effect<void> = Effect.suspend(() => {
      const left = Duration.toMillis(idleTimeout) - (waiting === undefined ? 0 : now() - since)
      if (left > 0) return Effect.flatMap(Effect.sleep(left), () => watch)
      waiting?.(Effect.fail(Classify.timedOut({ ...at, after: idleTimeout })))
      return Effect.void
    })

    let isWhole = true
    const pull: Pull.Pull<NonEmptyReadonlyArray<Item>, Transient | Refused> = Effect.suspend(() => {
      if (isArrayNonEmpty(items)) {
        const found = items
        items = []
        return Effect.succeed(found)
      }
      if (!isWhole) {
        const cause = new EventTooLarge({ maxEventSize })
        return Effect.fail(Classify.malformedResponse({ ...at, detail: cause.message, cause }))
      }
      return Effect.flatMap(read, (chunk) => {
        waiting = reading = undefined
        if (chunk === undefined) return Cause.done()
        isWhole = parse(chunk)
        return pull
      })
    })
    yield* Effect.forkScoped(watch)
    return Stream.fromPull(Effect.succeed(pull))
  })

  if (method === "GET" || options.idempotent === true) return transport

  /** What would be tried again must not be where that would send a POST twice. */
  const final = (error: Reconnect.Failure): Reconnect.Failure =>
    error._tag === "Transient"
      ? Classify.unsupported({
        ...at,
        detail: `${error.reason.message}; a POST is not sent again unless it is declared idempotent`,
        cause: error
      })
      : error
  const stop = new Reconnect.Stop(at)
  return (dial) =>
    dial.generation > 1 ? Effect.fail(stop) : Effect.mapBoth(transport(dial), {
      onFailure: final,
      onSuccess: (stream) => Stream.concat(Stream.mapError(stream, final), Stream.fail(stop))
    })
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
  readonly policy?: Backoff.Policy | undefined
}

/**
 * Events, over as many connections as it takes: see {@link Reconnect.stream}. It resumes with the id of the last event that
 * was handed over; where the server cannot (see `isGap`), a {@link Reconnect.Gap} says so.
 *
 * **Example** (A POST that may be sent again, and a server that knows better when to come back)
 *
 * ```ts
 * import * as EventSource from "effect-lifeline/EventSource"
 * import * as HttpBody from "effect/http/HttpBody"
 * import * as Redacted from "effect/Redacted"
 *
 * export const answers = (key: Redacted.Redacted) =>
 *   EventSource.stream("https://search.example/api/follow", {
 *     method: "POST",
 *     body: HttpBody.jsonUnsafe({ query: "up" }),
 *     idempotent: true,
 *     headers: { "x-api-key": key },
 *     idleTimeout: "2 minutes"
 *   })
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
  const openTimeout = Duration.sum(
    Duration.fromInputUnsafe(options.connectTimeout ?? defaultTimeout),
    Duration.seconds(1)
  )
  return Reconnect.stream(connect(url, options), { ...options, at: atOf(url, options), openTimeout })
}

const atOf = (url: string | URL, { method = "GET", operation = "subscribe" }: ConnectOptions<unknown>): Attempted => ({
  operation,
  target: `${method} ${showText(String(url))}`
})
