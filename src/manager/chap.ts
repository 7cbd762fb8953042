// The door for CHAP: what a user, or a file of his, gives as names and secrets, checked once. Messages never hold a secret.
import { AnkoleError } from '../api/errors.js'
import type { Chap } from '../store/index.js'

/** As long as an iSCSI name may be: initiators often use theirs. */
const userLengthMax = 223

/**
 * RFC 7143, section 9.2.1, wants at least 96 bits where the connection is not protected by IPsec; initiators take less than
 * this at most.
 */
const secretBytesMin = 12
export const secretBytesMax = 64

export interface ChapRequest {
  user: string
  secret: string
  mutualUser?: string | undefined
  mutualSecret?: string | undefined
}

/** Throws invalid-chap. */
export function checkChap({ user, secret, mutualUser, mutualSecret }: ChapRequest): Chap {
  checkUser('CHAP user', user)
  checkSecret('CHAP secret', secret)
  if (mutualUser === undefined && mutualSecret === undefined) return { user, secret }
  if (mutualUser === undefined) throw problem('Mutual CHAP has a secret, but no user.')
  if (mutualSecret === undefined) throw problem('Mutual CHAP has a user, but no secret.')
  checkUser('mutual CHAP user', mutualUser)
  checkSecret('mutual CHAP secret', mutualSecret)
  // RFC 7143, section 9.2.1: who knows one could answer the other's challenge with it.
  if (secret === mutualSecret) throw problem('The CHAP secret and the mutual CHAP secret are the same.')
  return { user, secret, mutualUser, mutualSecret }
}

function checkUser(what: string, user: string): void {
  if (user.length < 1 || user.length > userLengthMax) {
    throw problem(`The ${what} has ${user.length} characters: 1 to ${userLengthMax} are allowed.`)
  }
  if (!/^[!-~]*$/.test(user)) throw problem(`The ${what} holds a character that is not printable ASCII, or a space.`)
}

function checkSecret(what: string, secret: string): void {
  const bytes = Buffer.byteLength(secret)
  if (bytes < secretBytesMin || bytes > secretBytesMax) {
    throw problem(`The ${what} has ${bytes} bytes: ${secretBytesMin} to ${secretBytesMax} are allowed.`)
  }
  if (!/^[ -~]*$/.test(secret)) throw problem(`The ${what} holds a character that is not printable ASCII.`)
}

function problem(message: string): AnkoleError {
  return new AnkoleError('invalid-chap', message)
}
