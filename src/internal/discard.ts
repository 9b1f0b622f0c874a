/** An answer that nobody will read. */
import * as Effect from "effect/Effect"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"

/** Ends it: its connection is free for the next request. */
export const discard = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<void> =>
  Effect.sync(() => {
    const web = HttpClientResponse.toWeb(response)
    if (Option.isSome(web)) web.value.body?.cancel().catch(() => {})
  })
