import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const source = fileURLToPath(new URL("./src", import.meta.url))

export default defineConfig({
  resolve: {
    // Tests and examples import the package by its public names and run the sources.
    alias: [
      { find: /^effect-lifeline$/, replacement: `${source}/index.ts` },
      { find: /^effect-lifeline\/(.+)$/, replacement: `${source}/$1.ts` }
    ]
  },
  test: {
    environment: "node",
    include: ["test/**/*.test.ts"],
    // Two also on a machine of two cores: many tests wait for processes, browsers and real time.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // Generous: a loaded two-core machine must not decide a test. Virtual-time tests need none of it.
    testTimeout: 20_000,
    hookTimeout: 30_000,
    teardownTimeout: 10_000,
    passWithNoTests: false,
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"]
    }
  }
})
