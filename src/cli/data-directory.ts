// The data directory of a single machine: ankole.db (the store), disks/ (the replicas), ankole.pid.
import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { AnkoleError, messageOf } from '../api/errors.js'
import { freePort, replicationPortFirst } from '../manager/index.js'
import { SqliteStore, type Disk, type Node, type Store } from '../store/index.js'

export interface DataDirectory {
  path: string
  store: SqliteStore
  /** Lets the next one in. */
  close: () => Promise<void>
}

/** Throws data-directory-unusable, data-directory-in-use and the errors of the store. */
export function openDataDirectory(directory: string): DataDirectory {
  const path = resolve(directory)
  try {
    makeDirectories(path)
    accessSync(path, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new AnkoleError(
      'data-directory-unusable',
      `The data directory ${path} cannot be written: ${messageOf(error)}.`,
    )
  }
  const pidFile = join(path, 'ankole.pid')
  const store = openStore(path, pidFile)
  writeFileSync(pidFile, `${process.pid}\n`)
  return {
    path,
    store,
    close: async () => {
      rmSync(pidFile, { force: true })
      await store.close()
    },
  }
}

/** The store's own lock tells who is first, so that nothing stale stays behind a killed process. */
function openStore(path: string, pidFile: string): SqliteStore {
  try {
    return SqliteStore.open(join(path, 'ankole.db'))
  } catch (error) {
    if (!(error instanceof AnkoleError) || error.code !== 'data-directory-in-use') throw error
    const pid = readPid(pidFile)
    const who = pid === undefined ? 'another process' : `another \`ankole up\`, process ${pid}`
    throw new AnkoleError('data-directory-in-use', `The data directory ${path} is in use by ${who}.`, { cause: error })
  }
}

function readPid(pidFile: string): string | undefined {
  try {
    return /^\d+/.exec(readFileSync(pidFile, 'utf8'))?.[0]
  } catch {
    return undefined
  }
}

export interface NodeWish {
  path: string
  address: string
  /** What was asked for; undefined: what there is, or the default. */
  disks: number | undefined
  replication: 'unix' | 'tcp'
}

const disksDefault = 3

/** This machine as a resource: made at first, and brought in line with the command line after. Never drops a disk. */
export async function ensureNode(store: Store, wish: NodeWish): Promise<Node> {
  const [existing] = await store.list('Node')
  const disks = await wantedDisks(existing?.spec.disks ?? [], wish)
  for (const { path } of disks) makeDirectory(path)
  const spec = { address: wish.address, allowScheduling: existing?.spec.allowScheduling ?? true, disks }
  if (existing) return store.update('Node', { ...existing, spec })
  return store.create('Node', { metadata: { name: nodeName() }, spec })
}

async function wantedDisks(
  existing: readonly Disk[],
  { path, address, disks, replication }: NodeWish,
): Promise<Disk[]> {
  const number = Math.max(existing.length, disks ?? (existing.length === 0 ? disksDefault : 0))
  const taken = new Set(existing.flatMap(({ replicationPort }) => replicationPort ?? []))
  const wanted: Disk[] = []
  for (let index = 0; index < number; ++index) {
    const before = existing[index]
    const id = before?.id ?? `disk-${index + 1}`
    const disk: Disk = {
      ...before,
      id,
      path: join(path, 'disks', id),
      allowScheduling: before?.allowScheduling ?? true,
    }
    if (replication === 'tcp' && disk.replicationPort === undefined) {
      disk.replicationPort = await freePort(address, replicationPortFirst, taken)
      taken.add(disk.replicationPort)
    }
    wanted.push(disk)
  }
  return wanted
}

/** Where this fails the disk host says why, in the disk's state. */
function makeDirectory(path: string): void {
  try {
    makeDirectories(path)
  } catch {
    return
  }
}

/** As mkdir -p. Not by Node's own `recursive`, which never ends where mkdir answers ENOENT, as under /proc. */
function makeDirectories(path: string): void {
  if (existsSync(path)) return
  makeDirectories(dirname(path))
  mkdirSync(path)
}

function nodeName(): string {
  const name = hostname()
    .toLowerCase()
    .replaceAll(/[^-a-z0-9.]/g, '-')
    .replaceAll(/^[-.]+|[-.]+$/g, '')
  return name === '' ? 'node-1' : name.slice(0, 63)
}
