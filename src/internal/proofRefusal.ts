/**
 * Why a server refuses a proof. Public as members of `Proof`.
 */
import * as Data from "effect/Data"

/**
 * A proof is needed, and the request has no `DPoP` header.
 *
 * @category refusals
 * @since 0.1.0
 */
export class MissingProof extends Data.TaggedError("MissingProof") {
  override get message() {
    return "there is no DPoP header"
  }
}

/**
 * There is more than one `DPoP` header.
 *
 * @category refusals
 * @since 0.1.0
 */
export class RepeatedProof extends Data.TaggedError("RepeatedProof") {
  override get message() {
    return "there is more than one DPoP header"
  }
}

/**
 * The header is no DPoP proof. `detail` says what of it is wrong.
 *
 * @category refusals
 * @since 0.1.0
 */
export class MalformedProof extends Data.TaggedError("MalformedProof")<{ readonly detail: string }> {
  override get message() {
    return `the proof is malformed: ${this.detail}`
  }
}

/**
 * A claim is missing that every proof has, or `ath`, which one that comes with a token has.
 *
 * @category refusals
 * @since 0.1.0
 */
export class MissingClaim extends Data.TaggedError("MissingClaim")<{ readonly claim: string }> {
  override get message() {
    return `the proof has no usable claim ${this.claim}`
  }
}

/**
 * Signed with an algorithm that is not allowed: `none`, a symmetric one, or one that is not listed.
 *
 * @category refusals
 * @since 0.1.0
 */
export class UnsupportedAlgorithm extends Data.TaggedError("UnsupportedAlgorithm")<{
  /** As the proof has it, cut to 20 characters. */
  readonly algorithm: string
  readonly allowed: ReadonlyArray<string>
}> {
  override get message() {
    return `the proof is signed with ${this.algorithm}; allowed are ${this.allowed.join(", ")}`
  }
}

/**
 * The signature does not belong to the key and the content.
 *
 * @category refusals
 * @since 0.1.0
 */
export class BadSignature extends Data.TaggedError("BadSignature") {
  override get message() {
    return "the signature of the proof is wrong"
  }
}

/**
 * The proof shows its private key. Whoever sent it must make a new one.
 *
 * @category refusals
 * @since 0.1.0
 */
export class PrivateKeyInProof extends Data.TaggedError("PrivateKeyInProof") {
  override get message() {
    return "the proof shows its private key, which is of no use any more: make a new one"
  }
}

/**
 * `htm` is not the method of the request.
 *
 * @category refusals
 * @since 0.1.0
 */
export class WrongMethod extends Data.TaggedError("WrongMethod")<{ readonly expected: string }> {
  override get message() {
    return `the proof is not for the method ${this.expected}`
  }
}

/**
 * `htu` is not the URL of the request.
 *
 * @category refusals
 * @since 0.1.0
 */
export class WrongUrl extends Data.TaggedError("WrongUrl")<{ readonly expected: string }> {
  override get message() {
    return `the proof is not for ${this.expected}; behind a proxy, the URL that clients see is needed`
  }
}

/**
 * The server wants a nonce, and the proof has none, one that is not the server's, or one that is too old. The request is to be
 * sent again with the one that comes with the answer.
 *
 * @category refusals
 * @since 0.1.0
 */
export class NonceRequired extends Data.TaggedError("NonceRequired")<{ readonly had: "none" | "another" }> {
  override get message() {
    return this.had === "none" ? "the proof has no nonce" : "the nonce of the proof is too old, or not of this server"
  }
}

/**
 * `iat` is too far from the server's clock.
 *
 * @category refusals
 * @since 0.1.0
 */
export class WrongTime extends Data.TaggedError("WrongTime")<{
  /** How far, in seconds; negative: in the past. */
  readonly skew: number
}> {
  override get message() {
    const seconds = Math.abs(this.skew)
    return `the proof was made ${seconds} s ${this.skew < 0 ? "ago" : "from now"}; check the clock of the device`
  }
}

/**
 * The proof was used before.
 *
 * @category refusals
 * @since 0.1.0
 */
export class Replayed extends Data.TaggedError("Replayed") {
  override get message() {
    return "the proof was used before"
  }
}

/**
 * `ath` is not the hash of the token that came with the proof.
 *
 * @category refusals
 * @since 0.1.0
 */
export class WrongToken extends Data.TaggedError("WrongToken") {
  override get message() {
    return "the proof is for another token"
  }
}

/**
 * The proof is signed with another key than the one that the token, or the lease, is bound to.
 *
 * @category refusals
 * @since 0.1.0
 */
export class WrongKey extends Data.TaggedError("WrongKey")<{
  /** The thumbprint of the key that it was signed with. */
  readonly thumbprint: string
}> {
  override get message() {
    return `what was sent is bound to another key than ${this.thumbprint}`
  }
}

/**
 * A token that is bound to a key came as a bearer token.
 *
 * @category refusals
 * @since 0.1.0
 */
export class BearerDowngrade extends Data.TaggedError("BearerDowngrade") {
  override get message() {
    return "a token that is bound to a key was sent as a bearer token"
  }
}

/**
 * So many proofs were accepted that no more can be remembered: nothing is wrong with this one, and it is to be sent later.
 *
 * @category refusals
 * @since 0.1.0
 */
export class ReplaysFull extends Data.TaggedError("ReplaysFull") {
  override get message() {
    return "no more proofs can be remembered at present"
  }
}

/**
 * Why a proof is refused.
 *
 * @category refusals
 * @since 0.1.0
 */
export type Refusal =
  | MissingProof
  | RepeatedProof
  | MalformedProof
  | MissingClaim
  | UnsupportedAlgorithm
  | BadSignature
  | PrivateKeyInProof
  | WrongMethod
  | WrongUrl
  | NonceRequired
  | WrongTime
  | Replayed
  | WrongToken
  | WrongKey
  | BearerDowngrade
  | ReplaysFull

/**
 * A server refused a proof. The `reason` says what is wrong with it; nothing of the proof or the token is in it.
 *
 * @category refusals
 * @since 0.1.0
 */
export class ProofRefused extends Data.TaggedError("ProofRefused")<{ readonly reason: Refusal }> {
  override get message() {
    return this.reason.message
  }
}
