/**
 * Whether the process that held something is still alive, for `Recovery`: a pid together with when it started, since
 * systems use pids again. Of Linux the start is read from `/proc`, with the boot that it belongs to; elsewhere `ps` is
 * asked, to the second.
 *
 * A process that has ended and that its parent has not taken note of (a zombie) is dead. What cannot be known is an
 * error, never `false`: no `ps` as on Windows, a system that hides other users' processes. Pids are those of one
 * machine, and of one container.
 *
 * **Example** (A child that may outlive this program)
 *
 * ```ts
 * import * as ProcessAlive from "effect-lifeline/node/ProcessAlive"
 * import * as Effect from "effect/Effect"
 *
 * export const program = Effect.gen(function*() {
 *   const holder = yield* ProcessAlive.holderOf(4711)
 *   // Kept somewhere, and after a restart:
 *   return yield* ProcessAlive.isAlive(holder)
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Start from "./internal/processStart.ts"
import { ProcessUnknown } from "./internal/processStart.ts"

export { ProcessUnknown } from "./internal/processStart.ts"

const shape = /^pid:([1-9]\d{0,9}):./

/**
 * Text that stands for a process: its pid, and when it started. `undefined`: there is none.
 *
 * @category constructors
 * @since 0.1.0
 */
export const holderOf = (pid: number): Effect.Effect<string | undefined, ProcessUnknown> =>
  Number.isSafeInteger(pid) && pid > 0
    ? Effect.map(Start.start(pid), (start) => start === undefined ? undefined : `pid:${pid}:${start}`)
    : Effect.fail(new ProcessUnknown({ detail: `${pid} is not the id of a process` }))

/**
 * {@link holderOf} this process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const current: Effect.Effect<string, ProcessUnknown> = /*#__PURE__*/ Effect.suspend(() =>
  Effect.flatMap(
    holderOf(process.pid),
    (holder) =>
      holder === undefined
        ? Effect.fail(new ProcessUnknown({ detail: "this process does not find itself" }))
        : Effect.succeed(holder)
  )
)

/**
 * Whether that very process is still there. Fails also for what {@link holderOf} did not give.
 *
 * @category getters
 * @since 0.1.0
 */
export const isAlive = (holder: string | undefined): Effect.Effect<boolean, ProcessUnknown> => {
  const pid = holder === undefined ? undefined : shape.exec(holder)?.[1]
  return pid === undefined
    ? Effect.fail(new ProcessUnknown({ detail: "there is no text of a process" }))
    : Effect.map(holderOf(Number(pid)), (found) => found === holder)
}
