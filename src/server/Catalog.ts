/**
 * The embedded registry without HTTP: which services are registered and how they are. It answers reads from memory, writes
 * every change to its {@link Store.Store} before it answers, and tells {@link Events.Events} what happened.
 *
 * - Registering is an upsert by (name, type): the id stays, everything else is replaced, and the service is online.
 * - A heartbeat sets `lastSeen` and the status online. It is not stored: see the store's module comment.
 * - A service of type `download-client` is a download client of the same name too. That one stays when the service is
 *   deregistered, so that what an operator set on it is still there when the service comes back.
 * - After a restart, staleness counts from the restart: a registry that was away does not know who beat meanwhile.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { formatTime } from "../internal/time.ts"
import type * as ServiceInstance from "../ServiceInstance.ts"
import * as Events from "./Events.ts"
import * as KeyedLock from "./internal/lock.ts"
import { write } from "./internal/write.ts"
import * as Store from "./Store.ts"

/**
 * What a service says of itself when it registers, checked. `metadata` is JSON text.
 *
 * @category models
 * @since 0.1.0
 */
export interface Registration {
  readonly name: string
  readonly type: string
  readonly apiUrl: string
  readonly apiKey?: Redacted.Redacted | undefined
  readonly healthUrl?: string | undefined
  readonly version?: string | undefined
  readonly capabilities?: ReadonlyArray<string> | undefined
  readonly metadata?: string | undefined
}

/**
 * Which services to list. `capability` wins when both are given.
 *
 * @category models
 * @since 0.1.0
 */
export interface Query {
  readonly type?: string | undefined
  readonly capability?: string | undefined
}

/**
 * What an operator may change of a download client. The registry keeps it when the service registers again.
 *
 * @category models
 * @since 0.1.0
 */
export interface DownloadClientPatch {
  readonly enabled?: boolean | undefined
  readonly priority?: number | undefined
}

/**
 * What the registry knows, and what may be done with it.
 *
 * @category services
 * @since 0.1.0
 */
export class Catalog extends Context.Service<Catalog, {
  /** Adds or updates. When it returns, the store has it. */
  readonly register: (registration: Registration) => Effect.Effect<Store.Service, Store.StoreError>
  /** `false`: no such service. */
  readonly heartbeat: (id: string) => Effect.Effect<boolean>
  /** `false`: no such service. */
  readonly deregister: (id: string) => Effect.Effect<boolean, Store.StoreError>
  readonly get: (id: string) => Effect.Effect<Store.Service | undefined>
  /** Sorted by type, then name. */
  readonly list: (query?: Query) => Effect.Effect<ReadonlyArray<Store.Service>>
  /** The result of a health check of `service`, as it was when the check began. Ignored if it has changed since. */
  readonly report: (service: Store.Service, status: ServiceInstance.ServiceStatus) => Effect.Effect<void>
  /** Sets everything offline that has no health URL and was not seen for longer than this. */
  readonly expire: (after: Duration.Duration) => Effect.Effect<void>
  /** Stores the statuses that changed since the last time. A failure is logged. */
  readonly flush: Effect.Effect<void>
  /** Sorted by priority, then name. With their passwords: the HTTP routes leave those out. */
  readonly downloadClients: Effect.Effect<ReadonlyArray<Store.DownloadClient>>
  /** `undefined`: no such download client. */
  readonly updateDownloadClient: (
    id: string,
    patch: DownloadClientPatch
  ) => Effect.Effect<Store.DownloadClient | undefined, Store.StoreError>
  /** Those assigned to a service; `undefined`: no such service. */
  readonly indexers: (serviceId: string) => Effect.Effect<ReadonlyArray<Store.Indexer> | undefined>
  readonly qualityProfiles: Effect.Effect<ReadonlyArray<Store.QualityProfile>>
  readonly sharedSettings: Effect.Effect<Store.SharedSettings>
}>()("effect-lifeline/server/Catalog") {}

/** The reference server's own defaults. */
const defaultSharedSettings = (now: number): Store.SharedSettings => ({
  _tag: "SharedSettings",
  id: "shared",
  colonReplacement: "space-dash",
  importExtraFiles: false,
  extraFileExtensions: "srt,nfo",
  renameFiles: true,
  updatedAt: formatTime(now)
})

const downloadClientType = "download-client"

const identityOf = (service: { readonly name: string; readonly type: string }): string =>
  JSON.stringify([service.type, service.name])

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

const byTypeAndName = (a: Store.Service, b: Store.Service): number => compare(a.type, b.type) || compare(a.name, b.name)

/** Host and port of an URL; a bare `host:port` is read as http. `undefined` when there is no host. */
const addressOf = (apiUrl: string) => {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(apiUrl) ? apiUrl : `http://${apiUrl}`)
  if (url === null || url.hostname === "") return undefined
  const useSsl = url.protocol === "https:"
  return {
    host: url.hostname.replaceAll(/[[\]]/g, ""),
    port: url.port === "" ? (useSsl ? 443 : 80) : Number(url.port),
    useSsl
  }
}

const statusEvents = {
  online: "service_online",
  offline: "service_offline",
  degraded: "service_degraded",
  unknown: "health_check"
} as const

/** How long stopping may take to store the statuses that changed. They are found out anew after the next start anyway. */
const flushTimeout = "3 seconds"

/** How many statuses are stored at the same time. */
const flushConcurrency = 8

/**
 * Loads the store and makes a catalog. Changed statuses are stored once more when the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<
  Catalog["Service"],
  Store.StoreError,
  Store.Store | Events.Events | SecureRandom.SecureRandom | Scope.Scope
> = Effect.gen(function*() {
  const { load, remove: erase, save } = yield* Store.Store
  const events = yield* Events.Events
  const random = yield* SecureRandom.SecureRandom
  const startedAt = yield* Clock.currentTimeMillis
  const lock = KeyedLock.make()

  const services = new Map<string, Store.Service>()
  const ids = new Map<string, string>()
  const downloadClients = new Map<string, Store.DownloadClient>()
  const indexers: Array<Store.Indexer> = []
  const qualityProfiles: Array<Store.QualityProfile> = []
  let sharedSettings = defaultSharedSettings(startedAt)
  /** Ids sorted by type and name; made again when a service came or went. */
  let sorted: ReadonlyArray<string> | undefined
  /** Ids whose status is not stored yet. */
  const dirty = new Set<string>()

  const put = (service: Store.Service): void => {
    if (!services.has(service.id)) sorted = undefined
    services.set(service.id, service)
    ids.set(identityOf(service), service.id)
  }

  const all = (): ReadonlyArray<Store.Service> => {
    sorted ??= Array.from(services.values()).sort(byTypeAndName).map((service) => service.id)
    return sorted.flatMap((id) => services.get(id) ?? [])
  }

  const statusChanged = (before: Store.Service, after: Store.Service) =>
    Effect.andThen(
      events.publish({
        type: statusEvents[after.status],
        serviceId: after.id,
        data: { name: after.name, old_status: before.status, new_status: after.status }
      }),
      Effect.logInfo(`Service ${after.name} (${after.type}) was ${before.status}, is ${after.status}`)
    )

  const setStatus = (before: Store.Service, after: Store.Service): Effect.Effect<void> =>
    Effect.suspend(() => {
      services.set(after.id, after)
      if (before.status === after.status) return Effect.void
      dirty.add(after.id)
      return statusChanged(before, after)
    })

  const nextDownloadClient = Effect.fnUntraced(function*(service: Store.Service) {
    const address = addressOf(service.apiUrl)
    if (address === undefined) {
      yield* Effect.logWarning(
        `Service ${service.name} is a download client, but there is no host in its api_url: it is not listed as one`
      )
      return undefined
    }
    const known = Array.from(downloadClients.values()).find((client) => client.name === service.name)
    const client: Store.DownloadClient = {
      _tag: "DownloadClient",
      id: known?.id ?? (yield* random.uuidV4()),
      name: service.name,
      kind: service.name,
      protocol: service.capabilities.includes("supports_usenet") ? "usenet" : "torrent",
      enabled: known?.enabled ?? true,
      priority: known?.priority ?? 1,
      ...address,
      username: known?.username ?? "",
      ...(service.apiKey === undefined ? {} : { password: service.apiKey }),
      category: known?.category ?? "",
      directory: known?.directory ?? "",
      settings: "{\"pulse\":true}"
    }
    return client
  })

  const commit = Effect.fnUntraced(function*(registration: Registration) {
    const now = yield* Clock.currentTimeMillis
    const id = ids.get(identityOf(registration))
    const before = id === undefined ? undefined : services.get(id)
    const service: Store.Service = {
      _tag: "Service",
      id: before?.id ?? (yield* random.uuidV4()),
      name: registration.name,
      type: registration.type,
      apiUrl: registration.apiUrl,
      ...(registration.apiKey === undefined ? {} : { apiKey: registration.apiKey }),
      ...(registration.healthUrl === undefined ? {} : { healthUrl: registration.healthUrl }),
      ...(registration.version === undefined ? {} : { version: registration.version }),
      capabilities: Array.from(new Set(registration.capabilities)),
      metadata: registration.metadata ?? "{}",
      status: "online",
      lastSeen: now,
      registeredAt: before?.registeredAt ?? now
    }
    const client = service.type === downloadClientType ? yield* nextDownloadClient(service) : undefined
    // The service is written last: it is what makes the registration count.
    if (client !== undefined) yield* write("save", client, save(client))
    yield* write("save", service, save(service))
    if (client !== undefined) downloadClients.set(client.id, client)
    dirty.delete(service.id)
    const current = services.get(service.id)
    put(service)
    yield* events.publish({
      type: "service_registered",
      serviceId: service.id,
      data: { name: service.name, type: service.type, action: before === undefined ? "created" : "updated" }
    })
    if (current !== undefined && current.status !== "online") yield* statusChanged(current, service)
    return service
  })

  const register = (registration: Registration) =>
    Effect.uninterruptible(commit(registration)).pipe(lock(identityOf(registration)))

  const heartbeat = (id: string): Effect.Effect<boolean> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const service = services.get(id)
      if (service === undefined) return Effect.succeed(false)
      return Effect.as(setStatus(service, { ...service, status: "online", lastSeen: now }), true)
    })

  const remove = Effect.fnUntraced(function*(id: string) {
    const service = services.get(id)
    if (service === undefined) return false
    yield* write("remove", service, erase(service))
    services.delete(id)
    ids.delete(identityOf(service))
    dirty.delete(id)
    sorted = undefined
    yield* events.publish({
      type: "service_deregistered",
      serviceId: id,
      data: { name: service.name, type: service.type }
    })
    return true
  })

  const deregister = (id: string): Effect.Effect<boolean, Store.StoreError> =>
    Effect.suspend(() => {
      const service = services.get(id)
      return service === undefined
        ? Effect.succeed(false)
        : Effect.uninterruptible(remove(id)).pipe(lock(identityOf(service)))
    })

  const list = (query?: Query): Effect.Effect<ReadonlyArray<Store.Service>> =>
    Effect.sync(() => {
      const capability = query?.capability
      if (capability !== undefined && capability !== "") {
        return all().filter((service) => service.capabilities.includes(capability))
      }
      const type = query?.type
      return type === undefined || type === "" ? all() : all().filter((service) => service.type === type)
    })

  const report = (checked: Store.Service, status: ServiceInstance.ServiceStatus): Effect.Effect<void> =>
    Effect.suspend(() => {
      const service = services.get(checked.id)
      // Registered again meanwhile: the answer may be that of another address.
      if (service === undefined || service.healthUrl !== checked.healthUrl || service.apiKey !== checked.apiKey) {
        return Effect.void
      }
      return setStatus(service, { ...service, status })
    })

  const expire = (after: Duration.Duration): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const limit = now - Duration.toMillis(after)
      if (startedAt >= limit) return Effect.void
      const stale = all().filter((service) =>
        service.healthUrl === undefined && service.status !== "offline" && service.lastSeen < limit
      )
      return Effect.forEach(stale, (service) => setStatus(service, { ...service, status: "offline" }), {
        discard: true
      })
    })

  const flushOne = (id: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      const service = services.get(id)
      if (service === undefined) return Effect.void
      return Effect.suspend(() => {
        const current = services.get(id)
        if (current === undefined || !dirty.delete(id)) return Effect.void
        return Effect.catch(save(current), (error) => {
          dirty.add(id)
          return Effect.logWarning(`The status of service ${current.name} is not stored yet`, error)
        })
      }).pipe(lock(identityOf(service)))
    })

  const flush = Effect.suspend(() =>
    Effect.forEach(Array.from(dirty), flushOne, { concurrency: flushConcurrency, discard: true })
  )

  const updateDownloadClient = (id: string, patch: DownloadClientPatch) =>
    Effect.suspend(() => {
      const known = downloadClients.get(id)
      if (known === undefined) return Effect.succeed(undefined)
      return Effect.suspend(() => {
        const client: Store.DownloadClient = {
          ...(downloadClients.get(id) ?? known),
          ...(patch.enabled === undefined ? {} : { enabled: patch.enabled }),
          ...(patch.priority === undefined ? {} : { priority: patch.priority })
        }
        return Effect.map(write("save", client, save(client)), () => {
          downloadClients.set(id, client)
          return client
        })
      }).pipe(Effect.uninterruptible, lock(identityOf({ name: known.name, type: downloadClientType })))
    })

  /** Two records of one identity can only come from a write that failed half way: the newer one counts. */
  const adopt = Effect.fnUntraced(function*(service: Store.Service) {
    const other = services.get(ids.get(identityOf(service)) ?? "")
    if (other === undefined) return put(service)
    const [kept, dropped] = other.lastSeen > service.lastSeen ? [other, service] : [service, other]
    services.delete(dropped.id)
    sorted = undefined
    put(kept)
    yield* Effect.logWarning(`The registry's store holds service ${kept.name} (${kept.type}) twice: ${dropped.id} goes`)
    yield* Effect.ignore(erase(dropped))
  })

  for (const document of yield* load) {
    switch (document._tag) {
      case "Service":
        yield* adopt(document)
        break
      case "DownloadClient":
        downloadClients.set(document.id, document)
        break
      case "Indexer":
        indexers.push(document)
        break
      case "QualityProfile":
        qualityProfiles.push(document)
        break
      case "SharedSettings":
        sharedSettings = document
        break
    }
  }

  yield* Effect.addFinalizer(() => Effect.timeoutOption(Effect.interruptible(flush), flushTimeout))
  return Catalog.of({
    register,
    heartbeat,
    deregister,
    get: (id) => Effect.sync(() => services.get(id)),
    list,
    report,
    expire,
    flush,
    downloadClients: Effect.sync(() =>
      Array.from(downloadClients.values()).sort((a, b) => a.priority - b.priority || compare(a.name, b.name))
    ),
    updateDownloadClient,
    indexers: (serviceId) =>
      Effect.sync(() =>
        services.has(serviceId) ? indexers.filter((indexer) => indexer.assignedTo.includes(serviceId)) : undefined
      ),
    qualityProfiles: Effect.sync(() => qualityProfiles),
    sharedSettings: Effect.sync(() => sharedSettings)
  })
})

/**
 * {@link make} as a layer. Fails when the store cannot be read: a registry that started empty would forget everybody.
 *
 * **Example** (A registry in the same process, without HTTP)
 *
 * ```ts
 * import * as Catalog from "effect-lifeline/server/Catalog"
 * import * as Events from "effect-lifeline/server/Events"
 * import * as Store from "effect-lifeline/server/Store"
 * import * as SecureRandom from "effect/crypto/SecureRandom"
 * import * as Layer from "effect/Layer"
 *
 * export const layer = Catalog.layer.pipe(
 *   Layer.provide([Store.layerMemory, Events.layer()]),
 *   Layer.provide(SecureRandom.layerWebCrypto)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<
  Catalog,
  Store.StoreError,
  Store.Store | Events.Events | SecureRandom.SecureRandom
> = Layer.effect(Catalog, make)
