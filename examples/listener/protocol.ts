/**
 * The protocol of `dispatcher.proto` for Connect.
 *
 * Usually a generator writes this file. Here the descriptor is put together when the program starts, from the library's own
 * message for descriptors, and `messageDesc` and `serviceDesc`, which generated code calls too, give it its types. So there is
 * nothing that has to be generated again. test/examples/listener.test.ts compares it with the `.proto`.
 */
import { create, createFileRegistry } from "@bufbuild/protobuf"
import type { Message } from "@bufbuild/protobuf"
import { messageDesc, serviceDesc } from "@bufbuild/protobuf/codegenv2"
import type { GenMessage } from "@bufbuild/protobuf/codegenv2"
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema
} from "@bufbuild/protobuf/wkt"

const name = "dispatcher.proto"
const label = FieldDescriptorProto_Label.OPTIONAL // as the descriptor of each plain field of proto3 says
const { BOOL, STRING } = FieldDescriptorProto_Type

/** Both methods are streams both ways. */
const method = (name: string) => ({
  name,
  inputType: ".lifeline.example.v1.ListenRequest",
  outputType: ".lifeline.example.v1.RunEvent",
  clientStreaming: true,
  serverStreaming: true
})

const proto = create(FileDescriptorProtoSchema, {
  name,
  package: "lifeline.example.v1",
  syntax: "proto3",
  messageType: [
    {
      name: "ListenRequest",
      field: [
        { name: "run_id", jsonName: "runId", number: 1, type: STRING, label },
        { name: "unsubscribe", jsonName: "unsubscribe", number: 2, type: BOOL, label }
      ]
    },
    {
      name: "RunEvent",
      field: [
        { name: "run_id", jsonName: "runId", number: 1, type: STRING, label },
        { name: "type", jsonName: "type", number: 2, type: STRING, label },
        { name: "payload", jsonName: "payload", number: 3, type: STRING, label }
      ]
    }
  ],
  service: [{ name: "Dispatcher", method: [method("Listen"), method("ListenV2")] }]
})

const file = createFileRegistry(proto, () => undefined).getFile(name)
if (file === undefined) throw new Error(`${name} is not in its own registry`)

export type ListenRequest = Message<"lifeline.example.v1.ListenRequest"> & {
  runId: string
  unsubscribe: boolean
}
export const ListenRequest: GenMessage<ListenRequest> = messageDesc<ListenRequest>(file, 0)

export type RunEvent = Message<"lifeline.example.v1.RunEvent"> & {
  runId: string
  type: string
  payload: string
}
export const RunEvent: GenMessage<RunEvent> = messageDesc<RunEvent>(file, 1)

/** A stream both ways, as each method of the service is. */
interface Listen {
  methodKind: "bidi_streaming"
  input: typeof ListenRequest
  output: typeof RunEvent
}

export const Dispatcher = serviceDesc<{ listen: Listen; listenV2: Listen }>(file, 0)

/** The versions of the protocol, by the name of their method. */
export type Method = keyof typeof Dispatcher.method
