/**
 * The body of an error as most HTTP APIs write it: RFC 9457, with the `errors` list of Pulse. Where it is anything else,
 * nothing is read from it: the status alone decides.
 */
import * as Schema from "effect/Schema"

const Text = Schema.optionalKey(Schema.String)

export const Problem = Schema.Struct({
  title: Text,
  detail: Text,
  errors: Schema.optionalKey(Schema.Array(Schema.Struct({
    message: Schema.String,
    /** E.g. `body.name`. */
    location: Text
  })))
})
