/**
 * The picture that `DiscoveryCache` keeps of a registry: services by id, and what reads and changes do to it. No clock, no effects.
 *
 * A change is newer than what was read before it. Against a read that was under way when it came nothing says which of the two
 * is newer: where they differ the picture stays as it is, and the service is in question until a later read.
 */
import * as Equal from "effect/Equal"
import type * as Directory from "../Directory.ts"
import type { RegisteredService } from "../ServiceInstance.ts"

export type Services = ReadonlyMap<string, RegisteredService>

/** Beats alone change nothing. */
export const isSame = (a: RegisteredService | undefined, b: RegisteredService | undefined): boolean =>
  a === b ||
  (a !== undefined && b !== undefined &&
    Equal.equals({ ...a, lastSeen: undefined }, { ...b, lastSeen: undefined }))

/** A service of which a read has to say more, and how it is found; without a query only among all. */
export interface Question {
  readonly id: string
  readonly query: Directory.Query | undefined
}

const identityOf = ({ name, type }: RegisteredService): Directory.Query => ({ name, type })

/** Puts a change into the picture. */
export const tell = (services: Map<string, RegisteredService>, change: Directory.Change): Question | undefined => {
  const known = change.id === undefined ? undefined : services.get(change.id)
  switch (change._tag) {
    case "Registered": {
      if (change.service !== undefined) {
        services.set(change.id, change.service)
        return undefined
      }
      const { name, type } = change.query ?? {}
      return { id: change.id, query: name === undefined && type === undefined ? undefined : { name, type } }
    }
    case "Deregistered":
      services.delete(change.id)
      return undefined
    case "StatusChanged":
      if (known === undefined) return { id: change.id, query: undefined }
      services.set(change.id, { ...known, status: change.status })
      return undefined
    case "Other":
      return known === undefined ? undefined : { id: known.id, query: identityOf(known) }
  }
}

/** What a read leads to: another picture, and which services are in question. */
export interface Read {
  readonly services: Map<string, RegisteredService>
  readonly questions: ReadonlySet<string>
}

/**
 * @param isCovered whether the read would have found this service, were it registered
 * @param touched services of which something was told while the read was under way
 */
export const read = (
  services: Services,
  found: ReadonlyArray<RegisteredService>,
  isCovered: (service: RegisteredService) => boolean,
  touched: ReadonlySet<string>
): Read => {
  const next = new Map<string, RegisteredService>()
  const questions = new Set<string>()
  for (const service of services.values()) {
    if (!isCovered(service)) next.set(service.id, service)
  }
  for (const service of found) next.set(service.id, service)
  for (const id of touched) {
    const told = services.get(id)
    if (isSame(told, next.get(id))) continue
    questions.add(id)
    if (told === undefined) next.delete(id)
    else next.set(id, told)
  }
  return { services: next, questions }
}

/** Services that came, went or changed, for who knew `before`. */
export type Difference =
  | { readonly _tag: "Came"; readonly service: RegisteredService }
  | { readonly _tag: "Changed"; readonly service: RegisteredService; readonly before: RegisteredService }
  | { readonly _tag: "Went"; readonly service: RegisteredService }

export const differences = (before: Services, after: Services): ReadonlyArray<Difference> => {
  const found: Array<Difference> = []
  for (const [id, service] of after) {
    const known = before.get(id)
    if (known === undefined) found.push({ _tag: "Came", service })
    else if (!isSame(known, service)) found.push({ _tag: "Changed", service, before: known })
  }
  for (const [id, service] of before) {
    if (!after.has(id)) found.push({ _tag: "Went", service })
  }
  return found
}

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0

/** In an order that does not depend on when what was heard. */
export const list = (services: Services): ReadonlyArray<RegisteredService> =>
  [...services.values()].sort((a, b) => compare(a.type, b.type) || compare(a.name, b.name) || compare(a.id, b.id))
