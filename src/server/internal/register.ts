/**
 * The body of a registration: read within a limit and a deadline, then checked field by field. Done by hand and not by the
 * payload decoder of `HttpApi`, which answers a body that is too large, or no JSON, without saying so.
 */
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import type * as HttpServerError from "effect/http/HttpServerError"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Schema from "effect/Schema"
import * as Wire from "../../internal/pulseWire.ts"
import type * as Catalog from "../Catalog.ts"
import type * as Store from "../Store.ts"
import * as Problems from "./problems.ts"

/** In bytes: 1 MiB, as the reference. */
export const maxBodySize = 1024 * 1024

/** How long a client may take to send its body. */
const bodyTimeout = "15 seconds"

export const tooLarge: typeof Problems.PayloadTooLarge.Type = {
  status: 413,
  title: "Content Too Large",
  detail: "A body may have 1 MiB (1048576 bytes)."
}

const tooSlow: typeof Problems.RequestTimeout.Type = {
  status: 408,
  title: "Request Timeout",
  detail: `The body did not arrive within ${bodyTimeout}.`
}

const unsupported: typeof Problems.UnsupportedMediaType.Type = {
  status: 415,
  title: "Unsupported Media Type",
  detail: "A registration is JSON: send the header Content-Type: application/json."
}

const malformed = (message: string): typeof Problems.BadRequest.Type => ({
  status: 400,
  title: "Bad Request",
  detail: message,
  errors: [{ message, location: "body" }]
})

const unprocessable = (errors: ReadonlyArray<Problems.Issue>): typeof Problems.Unprocessable.Type => ({
  status: 422,
  title: "Unprocessable Entity",
  detail: "validation failed",
  errors
})

/** A service as it is answered. */
export const toWire = ({ metadata, ...service }: Store.Service): Wire.Service => ({
  ...Wire.fromService(service),
  metadata
})

type Problem =
  | typeof Problems.BadRequest.Type
  | typeof Problems.RequestTimeout.Type
  | typeof Problems.PayloadTooLarge.Type
  | typeof Problems.UnsupportedMediaType.Type
  | typeof Problems.Unprocessable.Type

const isTooLarge = (error: HttpServerError.HttpServerError): boolean =>
  error.reason._tag === "RequestParseError" && error.reason.reason === "BodyTooLarge"

const readText = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<string, Problem> =>
  request.text.pipe(
    Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(maxBodySize)),
    Effect.mapError((error): Problem => isTooLarge(error) ? tooLarge : malformed("The body could not be read.")),
    Effect.timeoutOrElse({ duration: bodyTimeout, orElse: () => Effect.fail(tooSlow) })
  )

const parse = (text: string): Effect.Effect<unknown, Problem> =>
  Effect.try({
    try: (): unknown => JSON.parse(text),
    // The parser's own message quotes the body, which may hold a key.
    catch: () => malformed(text.trim() === "" ? "The body is empty: a registration is JSON." : "The body is not JSON.")
  })

const decode = Schema.decodeUnknownEffect(Wire.Register, { errors: "all" })

const readJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

const text = (value: string | null | undefined): string | undefined =>
  value === undefined || value === null || value === "" ? undefined : value

/** A browser sends a form or plain text to any origin without asking first; JSON it does not. */
const isJsonType = (contentType: string | undefined): boolean =>
  contentType !== undefined && /^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(contentType.trim())

export const read = Effect.fnUntraced(function*(
  request: HttpServerRequest.HttpServerRequest
): Effect.fn.Return<Catalog.Registration, Problem> {
  if (!isJsonType(request.headers["content-type"])) return yield* Effect.fail<Problem>(unsupported)
  const input = yield* Effect.flatMap(readText(request), parse)
  const body = yield* Effect.mapError(
    decode(input),
    (error): Problem => unprocessable(Problems.issuesOf(error, "body", input))
  )
  const metadata = text(body.metadata)
  if (metadata !== undefined && readJson(metadata)._tag === "None") {
    return yield* Effect.fail<Problem>(
      unprocessable([{ message: "Expected JSON as text", location: "body.metadata" }])
    )
  }
  const { metadata: _, ...instance } = Wire.fromRegister(body)
  return { ...instance, metadata }
})
