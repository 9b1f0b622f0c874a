/**
 * Every public module as a namespace. Programs for the edge import modules by path (`effect-lifeline/Lifeline`) instead:
 * that is what keeps a bundle small.
 *
 * @since 0.1.0
 */
export * as Backoff from "./Backoff.ts"
export * as BackoffConfig from "./BackoffConfig.ts"
export * as CheckIn from "./CheckIn.ts"
export * as Cipher from "./Cipher.ts"
export * as Classify from "./Classify.ts"
export * as Connectivity from "./Connectivity.ts"
export * as Credential from "./Credential.ts"
export * as Directory from "./Directory.ts"
export * as Discovery from "./Discovery.ts"
export * as DiscoveryCache from "./DiscoveryCache.ts"
export * as EventSource from "./EventSource.ts"
export * as Heartbeat from "./Heartbeat.ts"
export * as KeyStore from "./KeyStore.ts"
export * as Lease from "./Lease.ts"
export * as Lifeline from "./Lifeline.ts"
export * as LifelineError from "./LifelineError.ts"
export * as Listener from "./Listener.ts"
export * as Proof from "./Proof.ts"
export * as Reconnect from "./Reconnect.ts"
export * as Registry from "./Registry.ts"
export * as Memory from "./registry/Memory.ts"
export * as Pulse from "./registry/Pulse.ts"
export * as PulseApi from "./registry/PulseApi.ts"
export * as PulseDirectory from "./registry/PulseDirectory.ts"
export * as PulseEvents from "./registry/PulseEvents.ts"
export * as ServiceInstance from "./ServiceInstance.ts"
export * as Telemetry from "./Telemetry.ts"
export * as WebSocket from "./WebSocket.ts"
