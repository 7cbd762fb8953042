// Where the Unix sockets of a node's disk hosts are put.

import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

/** sockaddr_un has 108 bytes, one of them for the end. */
const socketPathBytesMax = 107

const socketNameBytesMax = 40

const suffix = '.sock'

/**
 * The directory for the sockets of the node whose data is in `dataDirectory`, made if it is not there: `run` in it or,
 * where that is too long for a socket address, a short one under the directory for temporary files. Only its owner may
 * enter it; one that somebody else made there is refused.
 */
export function socketDirectory(dataDirectory: string): string {
  const data = resolve(dataDirectory)
  const hash = shortHash(data)
  const user = process.getuid?.() ?? 0
  const candidates = [join(data, 'run'), join(tmpdir(), `ankole-${user}-${hash}`), `/tmp/ankole-${user}-${hash}`]
  const directory = candidates.find((path) => Buffer.byteLength(path) + 1 + socketNameBytesMax <= socketPathBytesMax)
  if (directory === undefined) throw new Error(`no directory for sockets is short enough: ${candidates.join(', ')}`)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const found = lstatSync(directory)
  if (!found.isDirectory() || found.uid !== user || (found.mode & 0o022) !== 0) {
    throw new Error(`${directory} must be a directory that only user ${user} can write to: sockets are put there`)
  }
  return directory
}

/** A path in it that fits, whatever the name is. */
export function socketPath(directory: string, name: string): string {
  const fits = Buffer.byteLength(name) + suffix.length <= socketNameBytesMax && /^[\w.-]+$/.test(name)
  return join(directory, `${fits ? name : shortHash(name)}${suffix}`)
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
