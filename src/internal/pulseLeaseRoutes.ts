/**
 * The routes that an embedded registry with leases serves beside those of `internal/pulseRoutes`, for both sides as those are. A
 * table of its own, so that who needs no leases does not carry it.
 */

export const leaseStatus = { method: "GET", path: "/api/v1/services/:id/lease" } as const
export const leaseRefresh = { method: "POST", path: "/api/v1/services/:id/lease/refresh" } as const

/** The header of the key by which an answer is given again (refresh, and a heartbeat that revives). */
export const idempotencyHeader = "idempotency-key"

/** What such a key may be. */
export const idempotencyShape = /^[\x21-\x7e]{1,128}$/
