/**
 * Options of `fetch` for the requests of one client, beside those that its layer was given. Clients that are not built on
 * fetch do not see them.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"

/**
 * Merges options into those that the fiber's context has. Restoring the context is up to whoever runs it: a
 * `provideService` around it does, and so does a fiber of its own.
 */
export const setFetchOptions = (options: globalThis.RequestInit): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const given = Context.getOrUndefined(fiber.context, FetchHttpClient.RequestInit)
    fiber.setContext(Context.add(fiber.context, FetchHttpClient.RequestInit, { ...given, ...options }))
    return Effect.void
  })
