// Where keys survive a restart, and what can be read of them there.
import { assert, describe, it } from "@effect/vitest"
import * as Cipher from "effect-lifeline/Cipher"
import * as KeyStore from "effect-lifeline/KeyStore"
import * as FileStore from "effect-lifeline/node/FileStore"
import * as Proof from "effect-lifeline/Proof"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"

const cipher = Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(7)))

const bytes = (text: string) => new TextEncoder().encode(text)

/** A store whose entries can be looked at. */
const make = (entries = new Map<string, string>()) => {
  const store = KeyValueStore.makeStringOnly({
    get: (key) => Effect.sync(() => entries.get(key)),
    set: (key, value) => Effect.sync(() => void entries.set(key, value)),
    remove: (key) => Effect.sync(() => void entries.delete(key)),
    clear: Effect.sync(() => entries.clear()),
    clearPrefix: () => Effect.void,
    size: Effect.sync(() => entries.size),
    keys: Effect.sync(() => [...entries.keys()])
  })
  const keys = (options: Partial<KeyStore.Options> = {}) =>
    Effect.provideService(
      KeyStore.makeKeyValueStore({ cipher, ...options }),
      KeyValueStore.KeyValueStore,
      store
    )
  return { entries, keys }
}

const getOrGenerate = (
  store: KeyStore.KeyStore["Service"],
  name = "device",
  options?: { readonly algorithm?: Proof.Algorithm | undefined }
) => Effect.provideService(KeyStore.getOrGenerate(name, options), KeyStore.KeyStore, store)

describe("Cipher.aesGcm", () => {
  it.effect("decrypts what it encrypted, there and nowhere else; two encryptions differ", () =>
    Effect.gen(function*() {
      const one = yield* cipher.encrypt(bytes("secret"), "here")
      const two = yield* cipher.encrypt(bytes("secret"), "here")
      assert.notDeepEqual(one, two)
      assert.deepStrictEqual(yield* cipher.decrypt(one, "here"), bytes("secret"))
      assert.notInclude(new TextDecoder().decode(one), "secret")
      const other = Cipher.aesGcm(Redacted.make(new Uint8Array(32).fill(8)))
      const altered = one.map((byte, index) => index === one.length - 1 ? byte ^ 1 : byte)
      const attempts = [
        cipher.decrypt(one, "there"),
        other.decrypt(one, "here"),
        cipher.decrypt(altered, "here"),
        cipher.decrypt(one.slice(0, 10), "here"),
        cipher.decrypt(new Uint8Array(0), "here"),
        cipher.decrypt(one.with(0, 2), "here")
      ]
      for (const attempt of attempts) assert.strictEqual((yield* Effect.flip(attempt)).operation, "decrypt")
    }))

  it.effect("takes 16 bytes, 32 bytes, a CryptoKey; another length is an error that shows nothing of it", () =>
    Effect.gen(function*() {
      const key = yield* Effect.promise(() =>
        crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"])
      )
      for (const good of [Redacted.make(new Uint8Array(16)), Redacted.make(new Uint8Array(32)), key]) {
        const { decrypt, encrypt } = Cipher.aesGcm(good)
        assert.deepStrictEqual(yield* decrypt(yield* encrypt(bytes("a"), ""), ""), bytes("a"))
      }
      const error = yield* Effect.flip(Cipher.aesGcm(Redacted.make(bytes("canary"))).encrypt(bytes("canary"), ""))
      assert.include(error.message, "16 or 32 bytes")
      assert.notInclude(JSON.stringify(error) + String(error), "canary")
      const nowhere = Effect.provide(cipher.encrypt(bytes("a"), ""), WebCrypto.layer({} as Crypto))
      assert.include((yield* Effect.flip(nowhere)).message, "secure contexts")
    }))
})

describe("KeyStore", () => {
  for (const algorithm of ["ES256", "EdDSA"] as const) {
    it.effect(`a key survives, encrypted, and does not leave the runtime again (${algorithm})`, () =>
      Effect.gen(function*() {
        const { entries, keys } = make()
        const first = yield* getOrGenerate(yield* keys(), "device", { algorithm })
        const again = yield* getOrGenerate(yield* keys())
        assert.strictEqual(again.thumbprint, first.thumbprint)
        assert.deepStrictEqual(again.publicKey, first.publicKey)
        assert.isFalse(first.privateKey.extractable)
        assert.isFalse(again.privateKey.extractable)
        assert.deepStrictEqual([...entries.keys()], ["proof-key/device"])
        // A signature by the one is one by the other.
        const url = "https://a.example/"
        const proof = yield* Proof.dpop({ key: again })
        const headers = yield* proof.headers({ method: "GET", url })
        const verified = yield* Proof.verify(
          { method: "GET", url, headers: { dpop: headers["dpop"] && Redacted.value(headers["dpop"]) } },
          { replays: yield* Proof.makeReplays(), thumbprint: first.thumbprint }
        )
        assert.strictEqual(verified.algorithm, algorithm)
      }))
  }

  it.effect("nothing of the private key is readable in the store, nor in what is shown of a key", () =>
    Effect.gen(function*() {
      const { entries, keys } = make()
      const store = yield* keys()
      const made = yield* Proof.generateKey({ algorithm: "ES256", extractable: true })
      const { d = "" } = yield* Effect.promise(() => crypto.subtle.exportKey("jwk", made.privateKey))
      const secret = Buffer.from(d, "base64url")
      const kept = yield* store.put("device", made)
      const [record = ""] = entries.values()
      const { pkcs8 } = JSON.parse(record)
      assert.isFalse(Buffer.from(pkcs8, "base64").includes(secret))
      assert.deepStrictEqual(Object.keys(JSON.parse(record)).toSorted(), ["algorithm", "pkcs8", "version"])
      for (const shown of [JSON.stringify(made), String(made), JSON.stringify(kept), JSON.stringify({ ...made })]) {
        assert.notInclude(shown, d)
        assert.include(shown, made.thumbprint)
      }
      assert.notProperty({ ...made }, "privateKey")
      // With no cipher it is there: that is what `none` says.
      const plain = make()
      yield* (yield* plain.keys({ cipher: Cipher.none })).put("device", made)
      const [open = ""] = plain.entries.values()
      assert.isTrue(Buffer.from(JSON.parse(open).pkcs8, "base64").includes(secret))
    }))

  it.effect("what is there is not replaced: by a second key, by two at once", () =>
    Effect.gen(function*() {
      const { keys } = make()
      const store = yield* keys()
      const all = yield* Effect.all(Array.from({ length: 5 }, () => getOrGenerate(store)), { concurrency: "unbounded" })
      assert.strictEqual(new Set(all.map(({ thumbprint }) => thumbprint)).size, 1)
      const other = yield* Proof.generateKey({ extractable: true })
      assert.strictEqual((yield* store.put("device", other)).thumbprint, all[0]?.thumbprint)
      yield* store.remove("device")
      assert.isUndefined(yield* store.get("device"))
      assert.strictEqual((yield* store.put("device", other)).thumbprint, other.thumbprint)
    }))

  it.effect("another cipher key, another name, a damaged record: an error, and the record stays", () =>
    Effect.gen(function*() {
      const { entries, keys } = make()
      const first = yield* getOrGenerate(yield* keys(), "device", { algorithm: "ES256" })
      const record = entries.get("proof-key/device") ?? ""
      const unreadable = (store: KeyStore.KeyStore["Service"], name = "device") =>
        Effect.map(Effect.flip(getOrGenerate(store, name)), (error) => {
          assert.strictEqual(error.reason._tag, "Unreadable")
          assert.notInclude(JSON.stringify(error) + error.message, JSON.parse(record).pkcs8)
        })
      yield* unreadable(yield* keys({ cipher: Cipher.aesGcm(Redacted.make(new Uint8Array(32))) }))
      entries.set("proof-key/other", record)
      yield* unreadable(yield* keys(), "other")
      const { pkcs8 } = JSON.parse(record)
      const damaged = [
        "",
        "{}",
        JSON.stringify({ version: 2, algorithm: "ES256", pkcs8 }),
        JSON.stringify({ version: 1, algorithm: "HS256", pkcs8 }),
        JSON.stringify({ version: 1, algorithm: "EdDSA", pkcs8 }),
        JSON.stringify({ version: 1, algorithm: "ES256", pkcs8: "%" }),
        JSON.stringify({ version: 1, algorithm: "ES256", pkcs8: pkcs8.slice(4) })
      ]
      for (const text of damaged) {
        entries.set("proof-key/device", text)
        yield* unreadable(yield* keys())
        assert.strictEqual(entries.get("proof-key/device"), text)
      }
      entries.set("proof-key/device", record)
      assert.strictEqual((yield* getOrGenerate(yield* keys())).thumbprint, first.thumbprint)
    }))

  it.effect("a store that fails, and a key that cannot be kept there", () =>
    Effect.gen(function*() {
      const fails = Effect.fail(new KeyValueStore.KeyValueStoreError({ method: "get", message: "the disk is full" }))
      const store = KeyValueStore.makeStringOnly({
        get: () => Effect.succeed(undefined),
        set: () => fails,
        remove: () => fails,
        clear: fails,
        clearPrefix: () => fails,
        size: fails,
        keys: fails
      })
      const keys = yield* Effect.provideService(
        KeyStore.makeKeyValueStore({ cipher }),
        KeyValueStore.KeyValueStore,
        store
      )
      const error = yield* Effect.flip(getOrGenerate(keys))
      assert.strictEqual(error.message, "put: the store failed: the disk is full")
      assert.strictEqual((yield* Effect.flip(keys.remove("device"))).reason._tag, "StoreFailed")
      const inside = yield* Proof.generateKey()
      assert.strictEqual((yield* Effect.flip(keys.put("device", inside))).reason._tag, "NotExtractable")
    }))

  it.effect("in memory, keys are not extractable either", () =>
    Effect.gen(function*() {
      const key = yield* KeyStore.getOrGenerate("device")
      assert.isFalse(key.privateKey.extractable)
      assert.strictEqual((yield* KeyStore.getOrGenerate("device")).thumbprint, key.thumbprint)
      assert.notStrictEqual((yield* KeyStore.getOrGenerate("other")).thumbprint, key.thumbprint)
      const store = yield* KeyStore.KeyStore
      yield* store.remove("device")
      assert.isUndefined(yield* store.get("device"))
    }).pipe(Effect.provide(KeyStore.layerMemory)))

  it.live("in files: the same key after a restart, in a layer of proofs", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "lifeline-keys-"))),
        (directory) => Effect.promise(() => Fs.rm(directory, { recursive: true, force: true }))
      )
      const start = Proof.Proof.use(({ thumbprint }) => Effect.succeed(thumbprint)).pipe(
        Effect.provide(
          Proof.layerDpopStored({ name: "device" }).pipe(
            Layer.provide(KeyStore.layerKeyValueStore({ cipher, prefix: "k/" })),
            Layer.provide(FileStore.layer({ directory }))
          ),
          { local: true }
        )
      )
      assert.strictEqual(yield* start, yield* start)
      const [file = ""] = yield* Effect.promise(() => Fs.readdir(directory))
      const { mode } = yield* Effect.promise(() => Fs.stat(Path.join(directory, file)))
      assert.strictEqual(mode & 0o077, 0)
    }).pipe(Effect.scoped))
})
