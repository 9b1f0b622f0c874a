/**
 * Schema errors as flat lists of issues, each with the dotted path of its field. Values are never part of a message:
 * parsing here never asks for `reportInput`, so a secret in a malformed document cannot leak through an error.
 */
import type * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import type { Issue } from "../LifelineError.ts"

const format = /*#__PURE__*/ SchemaIssue.makeFormatterStandardSchemaV1()

const pathOf = (root: string, path: ReadonlyArray<PropertyKey>): string =>
  path.reduce<string>((sofar, key) => sofar + (typeof key === "number" ? `[${key}]` : `.${String(key)}`), root)

export const issuesOf = (error: Schema.SchemaError, root: string): ReadonlyArray<Issue> =>
  format(error.issue).issues.map((issue) => ({
    path: pathOf(root, (issue.path ?? []).map((segment) => typeof segment === "object" ? segment.key : segment)),
    message: issue.message
  }))
