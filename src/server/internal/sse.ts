/**
 * The hub's messages as server-sent events. Every block is complete, so that a connection may end after any of them.
 */
import type * as Arr from "effect/Array"
import * as Stream from "effect/Stream"
import type * as Events from "../Events.ts"

const encoder = /*#__PURE__*/ new TextEncoder()

/** An id without data is not an event: it only sets where a client resumes. Comments keep proxies from closing an idle stream. */
const block = (message: Events.Message): string => {
  switch (message._tag) {
    case "Opened":
      return message.id === undefined ? ": open\n\n" : `: open\nid: ${message.id}\n\n`
    case "Idle":
      return ": idle\n\n"
    case "Gap":
    case "Event":
      return `id: ${message.id}\nevent: ${name(message.event.type)}\ndata: ${JSON.stringify(message.event)}\n\n`
  }
}

/** JSON has no line breaks of its own; a type could. */
const name = (type: string): string => type.replaceAll(/[\r\n]/g, " ")

export const encode = (messages: Stream.Stream<Events.Message>): Stream.Stream<Uint8Array> =>
  Stream.mapArray(messages, (chunk): Arr.NonEmptyReadonlyArray<Uint8Array> => [
    encoder.encode(chunk.map(block).join(""))
  ])
