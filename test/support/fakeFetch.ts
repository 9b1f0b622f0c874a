/** Fetch, scripted: what was asked for is recorded, what is answered is up to the test. Bodies are in the test's hands. */
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"

export interface Asked {
  readonly url: string
  readonly init: RequestInit
  readonly headers: { readonly [name: string]: string }
}

export type Answer = (asked: Asked, n: number) => Response | Promise<Response>

export interface FakeFetch {
  readonly layer: ReturnType<typeof makeLayer>
  readonly asked: ReadonlyArray<Asked>
}

const makeLayer = (fetch: typeof globalThis.fetch) =>
  FetchHttpClient.layer.pipe(Layer.provide(Layer.succeed(FetchHttpClient.Fetch, fetch)))

export const make = (answer: Answer): FakeFetch => {
  const asked: Array<Asked> = []
  const fetch = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    const one: Asked = { url: String(input), init, headers: Object.fromEntries(Object.entries(init.headers ?? {})) }
    asked.push(one)
    const response = await answer(one, asked.length - 1)
    // As fetch does; here for what nobody reads.
    if (response.body !== null && response.status >= 300 && response.status < 400) {
      init.signal?.addEventListener("abort", () => response.body?.cancel().catch(() => {}))
    }
    return response
  }
  return { layer: makeLayer(fetch), asked }
}

/** An answer as fetch gives it where a redirect was not followed and may not be looked at. */
export const opaqueRedirect = (): Response => {
  const response = Response.error()
  Object.defineProperty(response, "type", { value: "opaqueredirect" })
  return response
}

export const sse = (body: BodyInit | null, headers: Readonly<Record<string, string>> = {}): Response =>
  new Response(body, { headers: { "content-type": "text/event-stream", ...headers } })

/** A body that the test writes. */
export const body = () => {
  const encoder = new TextEncoder()
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined
  let cancelled = false
  const stream = new ReadableStream<Uint8Array>({
    start: (given) => {
      controller = given
    },
    cancel: () => {
      cancelled = true
    }
  })
  return {
    stream,
    write: (text: string) => Effect.sync(() => controller?.enqueue(encoder.encode(text))),
    close: Effect.sync(() => controller?.close()),
    fail: (error: unknown) => Effect.sync(() => controller?.error(error)),
    cancelled: () => cancelled
  }
}
