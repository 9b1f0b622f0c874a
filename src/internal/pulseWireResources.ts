/**
 * What Pulse manages beside services: download clients, indexers, quality profiles and shared settings. Codecs between
 * the wire (snake_case) and the domain (camelCase); the fields that hold JSON as text stay text, as they are opaque to Pulse.
 * Apart from `pulseWire`, so that a program that only registers does not carry them.
 */
import * as Schema from "effect/Schema"

export const DownloadClient = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  /** E.g. `qbittorrent` or `sabnzbd`. */
  kind: Schema.String,
  /** `torrent` or `usenet`. */
  protocol: Schema.String,
  enabled: Schema.Boolean,
  priority: Schema.Int,
  host: Schema.String,
  port: Schema.Int,
  useSsl: Schema.Boolean,
  username: Schema.String,
  category: Schema.String,
  directory: Schema.String,
  /** JSON as text. */
  settings: Schema.String
}).pipe(Schema.encodeKeys({ useSsl: "use_ssl" }))

export const Indexer = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  kind: Schema.String,
  enabled: Schema.Boolean,
  priority: Schema.Int,
  url: Schema.String,
  /** JSON as text. */
  settings: Schema.String,
  createdAt: Schema.String,
  updatedAt: Schema.String
}).pipe(Schema.encodeKeys({ createdAt: "created_at", updatedAt: "updated_at" }))

export const QualityProfile = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  /** JSON as text. */
  cutoffJson: Schema.String,
  /** JSON as text. */
  qualitiesJson: Schema.String,
  upgradeAllowed: Schema.Boolean,
  /** JSON as text. */
  upgradeUntilJson: Schema.optionalKey(Schema.NullOr(Schema.String)),
  minCustomFormatScore: Schema.Int,
  upgradeUntilCfScore: Schema.Int,
  createdAt: Schema.String,
  updatedAt: Schema.String
}).pipe(Schema.encodeKeys({
  cutoffJson: "cutoff_json",
  qualitiesJson: "qualities_json",
  upgradeAllowed: "upgrade_allowed",
  upgradeUntilJson: "upgrade_until_json",
  minCustomFormatScore: "min_custom_format_score",
  upgradeUntilCfScore: "upgrade_until_cf_score",
  createdAt: "created_at",
  updatedAt: "updated_at"
}))

export const SharedSettings = Schema.Struct({
  colonReplacement: Schema.String,
  importExtraFiles: Schema.Boolean,
  extraFileExtensions: Schema.String,
  renameFiles: Schema.Boolean,
  updatedAt: Schema.String
}).pipe(Schema.encodeKeys({
  colonReplacement: "colon_replacement",
  importExtraFiles: "import_extra_files",
  extraFileExtensions: "extra_file_extensions",
  renameFiles: "rename_files",
  updatedAt: "updated_at"
}))
