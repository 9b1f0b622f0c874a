/**
 * The one table of Pulse's routes. The client (`registry/Pulse`, `registry/PulseApi`) sends to these and the embedded
 * registry serves these, so the two cannot drift. Paths are templates with `:id`. Each
 * is a constant of its own, so that a bundle holds only those it uses.
 */

export const register = { method: "POST", path: "/api/v1/services/register" } as const
export const heartbeat = { method: "PUT", path: "/api/v1/services/:id/heartbeat" } as const
export const deregister = { method: "DELETE", path: "/api/v1/services/:id" } as const
export const service = { method: "GET", path: "/api/v1/services/:id" } as const
export const services = { method: "GET", path: "/api/v1/services" } as const
export const discover = { method: "GET", path: "/api/v1/services/discover" } as const
export const indexers = { method: "GET", path: "/api/v1/services/:id/indexers" } as const
export const downloadClients = { method: "GET", path: "/api/v1/download-clients" } as const
export const qualityProfiles = { method: "GET", path: "/api/v1/quality-profiles" } as const
export const sharedSettings = { method: "GET", path: "/api/v1/shared-settings" } as const
export const events = { method: "GET", path: "/api/v1/events" } as const
export const webSocket = { method: "GET", path: "/api/v1/ws" } as const
export const health = { method: "GET", path: "/health" } as const

export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "DELETE"
  readonly path: `/${string}`
}

/** The header of the API key. */
export const apiKeyHeader = "x-api-key"
