// bench/package.json, which holds the peers, makes the benches a package of their own, in which Node would not find this one
// by its name. Importing this file makes it look from the root of the repository, as everybody else does; processes that a
// bench forks inherit it.
import { registerHooks } from "node:module"

const root = new URL("../../package.json", import.meta.url).href

registerHooks({
  resolve: (specifier, context, next) =>
    next(specifier, specifier.startsWith("effect-lifeline/") ? { ...context, parentURL: root } : context)
})

if (!process.execArgv.includes(import.meta.url)) process.execArgv.push("--import", import.meta.url)
