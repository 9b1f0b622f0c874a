/**
 * The one table of Pulse's routes. The client (`registry/Pulse`, `registry/PulseApi`) sends to these and the embedded
 * registry serves these, so the two cannot drift. Paths are templates with `:id`.
 */

export const routes = {
  register: { method: "POST", path: "/api/v1/services/register" },
  heartbeat: { method: "PUT", path: "/api/v1/services/:id/heartbeat" },
  deregister: { method: "DELETE", path: "/api/v1/services/:id" },
  service: { method: "GET", path: "/api/v1/services/:id" },
  services: { method: "GET", path: "/api/v1/services" },
  discover: { method: "GET", path: "/api/v1/services/discover" },
  indexers: { method: "GET", path: "/api/v1/services/:id/indexers" },
  downloadClients: { method: "GET", path: "/api/v1/download-clients" },
  qualityProfiles: { method: "GET", path: "/api/v1/quality-profiles" },
  sharedSettings: { method: "GET", path: "/api/v1/shared-settings" },
  events: { method: "GET", path: "/api/v1/events" },
  webSocket: { method: "GET", path: "/api/v1/ws" },
  health: { method: "GET", path: "/health" }
} as const

export type Route = typeof routes[keyof typeof routes]

/** The header of the API key. */
export const apiKeyHeader = "x-api-key"
