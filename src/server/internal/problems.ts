/**
 * Error bodies of the embedded registry (RFC 9457), and issues of a schema as the list in them. `location` is the path of
 * the field (`body.name`); `value` is what was there, if that is short, plain and no secret.
 */
import * as HttpApiSchema from "effect/http-api/HttpApiSchema"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { codes, refusals } from "../../internal/pulseWireLease.ts"

export const contentType = "application/problem+json"

const Issue = Schema.Struct({
  message: Schema.String,
  location: Schema.String,
  value: Schema.optionalKey(Schema.Json)
})

export type Issue = typeof Issue.Type

const problem = <const Status extends number, const Title extends string>(status: Status, title: Title) =>
  Schema.Struct({
    status: Schema.Literal(status),
    title: Schema.Literal(title),
    detail: Schema.String,
    errors: Schema.optionalKey(Schema.Array(Issue))
  }).annotate({ identifier: title.replaceAll(" ", "") }).pipe(
    HttpApiSchema.status(status),
    HttpApiSchema.asJson({ contentType })
  )

export const BadRequest = problem(400, "Bad Request")
export const Unauthorized = problem(401, "Unauthorized")
export const NotFound = problem(404, "Not Found")
export const RequestTimeout = problem(408, "Request Timeout")
export const PayloadTooLarge = problem(413, "Content Too Large")
export const UnsupportedMediaType = problem(415, "Unsupported Media Type")
export const Unprocessable = problem(422, "Unprocessable Entity")
export const UpgradeRequired = problem(426, "Upgrade Required")
export const ServerError = problem(500, "Internal Server Error")
export const NotImplemented = problem(501, "Not Implemented")

/** What is wrong with a lease, a token or a proof: `code` says it exactly. */
const leaseProblem = <const Status extends number, const Title extends string>(status: Status, title: Title) =>
  Schema.Struct({
    status: Schema.Literal(status),
    title: Schema.Literal(title),
    detail: Schema.String,
    code: Schema.Literals(codes),
    reason: Schema.optionalKey(Schema.Literals(refusals))
  }).annotate({ identifier: `Lease${title.replaceAll(" ", "")}` }).pipe(
    HttpApiSchema.status(status),
    HttpApiSchema.asJson({ contentType })
  )

/** By what they mean: who reads only the status does the right thing too. */
export const leaseProblems = {
  400: leaseProblem(400, "Bad Request"),
  401: leaseProblem(401, "Unauthorized"),
  404: leaseProblem(404, "Not Found"),
  409: leaseProblem(409, "Conflict"),
  410: leaseProblem(410, "Gone"),
  503: leaseProblem(503, "Service Unavailable")
} as const

export const leaseTitles = {
  400: "Bad Request",
  401: "Unauthorized",
  404: "Not Found",
  409: "Conflict",
  410: "Gone",
  503: "Service Unavailable"
} as const

export const unauthorized: typeof Unauthorized.Type = {
  status: 401,
  title: "Unauthorized",
  detail: "A valid X-Api-Key header is required."
}

export const noSuchService: typeof NotFound.Type = {
  status: 404,
  title: "Not Found",
  detail: "There is no service with this id: register again."
}

export const noSuchRoute: typeof NotFound.Type = {
  status: 404,
  title: "Not Found",
  detail: "There is no such route. What there is: /api/openapi.json"
}

const secrets: ReadonlySet<PropertyKey> = new Set(["api_key", "password"])

const longestValue = 200

const isShown = (value: unknown): value is string | number | boolean | null =>
  value === null || typeof value === "number" || typeof value === "boolean" ||
  (typeof value === "string" && value.length <= longestValue)

const at = (input: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>(
    (value, key) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined,
    input
  )

const locationOf = (root: string, path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>((text, key) => typeof key === "number" ? `${text}[${key}]` : `${text}.${String(key)}`, root)

const format = /*#__PURE__*/ SchemaIssue.makeFormatterStandardSchemaV1()

/** `root` is `body`, `query` or `path`; `input` is what did not fit. */
export const issuesOf = (error: Schema.SchemaError, root: string, input: unknown): ReadonlyArray<Issue> =>
  format(error.issue).issues.map((issue) => {
    const path = (issue.path ?? []).map((segment) => typeof segment === "object" ? segment.key : segment)
    const value = at(input, path)
    const shown = path.length > 0 && !path.some((key) => secrets.has(key)) && isShown(value)
    return { message: issue.message, location: locationOf(root, path), ...(shown ? { value } : {}) }
  })
