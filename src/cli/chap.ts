// CHAP on the command line: names as options, secrets in files, as what stands on a command line is for everybody to read.
import { closeSync, openSync, readSync } from 'node:fs'
import { AnkoleError, messageOf } from '../api/errors.js'
import { checkChap, secretBytesMax } from '../manager/chap.js'
import type { Chap } from '../store/index.js'

export interface ChapOptions {
  chapUser?: string
  chapSecretFile?: string
  chapMutualUser?: string
  chapMutualSecretFile?: string
}

/** Undefined where no CHAP is asked for. Throws invalid-chap. */
export function readChap(options: ChapOptions): Chap | undefined {
  const { chapUser: user, chapSecretFile: file, chapMutualUser: mutualUser, chapMutualSecretFile: mutualFile } = options
  belongTogether({ '--chap-user': user, '--chap-secret-file': file })
  belongTogether({ '--chap-mutual-user': mutualUser, '--chap-mutual-secret-file': mutualFile })
  if (user === undefined || file === undefined) {
    if (mutualUser === undefined) return undefined
    throw new AnkoleError('invalid-chap', 'Mutual CHAP needs --chap-user and --chap-secret-file too.')
  }
  const mutualSecret = mutualFile === undefined ? undefined : readSecret(mutualFile)
  return checkChap({ user, secret: readSecret(file), mutualUser, mutualSecret })
}

function belongTogether(options: Record<string, string | undefined>): void {
  const missing = Object.keys(options).filter((name) => options[name] === undefined)
  if (missing.length !== 1) return
  throw new AnkoleError(
    'invalid-chap',
    `${Object.keys(options).join(' and ')} belong together: ${missing[0]} is missing.`,
  )
}

/** Without the newline that editors and echo put at its end. What is longer than a secret may be is read no further. */
function readSecret(path: string): string {
  const bytes = Buffer.alloc(secretBytesMax + 3) // With «\r\n», and one to see that it is too long.
  let length = 0
  try {
    const file = openSync(path, 'r')
    try {
      let read
      do {
        read = readSync(file, bytes, length, bytes.length - length, null)
        length += read
      } while (read > 0 && length < bytes.length)
    } finally {
      closeSync(file)
    }
  } catch (error) {
    throw new AnkoleError('invalid-chap', `The file with the CHAP secret cannot be read: ${messageOf(error)}.`)
  }
  if (length === bytes.length) {
    throw new AnkoleError(
      'invalid-chap',
      `${path} is too long for a CHAP secret: ${secretBytesMax} bytes are the most.`,
    )
  }
  const secret = bytes.toString('utf8', 0, length).replace(/\r?\n$/, '')
  if (/[\r\n]/.test(secret))
    throw new AnkoleError('invalid-chap', `${path} has more than one line: one secret is wanted.`)
  return secret
}
