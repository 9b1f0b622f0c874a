// The npm packages that the benches compare with. They are in bench/package.json and need not be installed: they are found
// when a bench runs, not when it is type-checked, and where one is missing its figures say so.
import { existsSync } from "node:fs"

export const missing = "not installed: npm ci --prefix bench"

export const isInstalled = (name: string): boolean =>
  existsSync(new URL(`../node_modules/${name}/package.json`, import.meta.url))

/** The module that one gets by importing `name`; `A` is as much of its type as the caller uses. */
export const load = async <A>(name: string): Promise<A> => await import(name) as A
