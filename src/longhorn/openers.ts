// Who has files of a directory open. Longhorn's replicas of earlier releases hold no lock, so that their descriptors are
// all that tells; those of other users' processes, and of other machines, cannot be seen.
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

export interface Opener {
  pid: number
  file: string
}

/** The first of them; undefined: none that can be seen. */
export async function findOpener(directory: string, procDirectory = '/proc'): Promise<Opener | undefined> {
  const files = new Map<string, string>()
  for (const name of await readdir(directory)) {
    if (!/\.img$/.test(name)) continue
    const key = await identityOf(join(directory, name))
    if (key !== undefined) files.set(key, name)
  }
  for (const entry of await namesIn(procDirectory)) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const descriptors = join(procDirectory, entry, 'fd')
    for (const descriptor of await namesIn(descriptors)) {
      const key = await identityOf(join(descriptors, descriptor))
      const file = key === undefined ? undefined : files.get(key)
      if (file !== undefined) return { pid, file }
    }
  }
  return undefined
}

async function identityOf(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path, { bigint: true })
    return `${dev}:${ino}`
  } catch {
    return undefined // It ended or was closed meanwhile.
  }
}

async function namesIn(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch {
    return []
  }
}
