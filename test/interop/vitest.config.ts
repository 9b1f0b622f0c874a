import { defineConfig, mergeConfig } from "vitest/config"
import base from "../../vitest.config.ts"

const config = mergeConfig(base, defineConfig({ test: { testTimeout: 60_000, fileParallelism: false } }))
// Merging would add to the list.
if (config.test !== undefined) config.test.include = ["test/interop/*.interop.ts"]
export default config
