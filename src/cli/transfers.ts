// Volumes that are attached or made for a copy alone: what was done for it is undone where it fails.
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AnkoleError, messageOf } from '../api/errors.js'
import type { AttachmentView, CreateVolume, DeletionView, VolumeView } from '../api/index.js'
import type { Client } from './client.js'
import { volumePath } from './command.js'
import type { ProgressReport } from './progress.js'

/** How often is looked whether it was written to, and what it waits for. */
export const lookMs = 1000
export function snapshotPath(volume: string, snapshot: string): string {
  return `${volumePath(volume)}/snapshots/${encodeURIComponent(snapshot)}`
}

interface Attaching {
  client: Client
  name: string
  timeout: number
  signal: AbortSignal
  progress: ProgressReport
}

/** A volume that was detached is so again after it, unless somebody attached it meanwhile. */
export async function whileAttached<T>(
  { client, name, timeout: timeoutSeconds, signal, progress }: Attaching,
  work: (attachment: AttachmentView) => Promise<T>,
): Promise<T> {
  const transfer = newTransfer()
  const body = { transfer, timeoutSeconds }
  return await withUndo(
    async () => {
      progress.stage(`Attaching volume ${name}`)
      const attachment = await client.post<AttachmentView>(`${volumePath(name)}/attach`, body)
      signal.throwIfAborted()
      return await work(attachment)
    },
    `Volume ${name} may still be attached`,
    () => client.post<VolumeView>(`${volumePath(name)}/detach`, body),
    'always',
  )
}

interface Filling {
  client: Client
  name: string
  progress: ProgressReport
  signal: AbortSignal
  /** Of the request that makes it. */
  body: Omit<CreateVolume, 'name' | 'transfer'> & { timeoutSeconds: number }
  /** To the NBD server at the address: on stable storage when it resolves. */
  copy: (uri: string) => Promise<void>
}

/** A new volume, nobody's but this command's until `copy` has filled it; without it nothing of it is left. */
export async function filled({ client, name, progress, signal, body, copy }: Filling): Promise<VolumeView> {
  const path = volumePath(name)
  const transfer = newTransfer()
  const { timeoutSeconds } = body
  const waiting = { transfer, timeoutSeconds }
  return await withUndo(
    async () => {
      signal.throwIfAborted()
      progress.stage(`Creating volume ${name}`)
      await client.post<VolumeView>('/v1/volumes', { ...body, name, transfer })
      signal.throwIfAborted()
      const { nbd } = await client.post<AttachmentView>(`${path}/attach`, waiting)
      const done = new AbortController()
      void everyLook(done.signal, async () => {
        const { waitsFor, message } = await client.get<VolumeView>(path)
        progress.waits(waitsFor === '' ? '' : message)
      })
      try {
        await copy(nbd.uri)
      } finally {
        done.abort()
      }
      progress.stage(`Detaching volume ${name}`)
      await client.post<VolumeView>(`${path}/detach`, waiting)
      signal.throwIfAborted()
      return await client.post<VolumeView>(`${path}/end-import`, { transfer })
    },
    `What was made of volume ${name} may still be there, and cannot be attached: ankole volume delete ${name}`,
    async () => {
      progress.stage(`Deleting what was made of volume ${name}`)
      await deleteMade(client, `${path}?transfer=${transfer}&force=true&timeoutSeconds=${timeoutSeconds}`)
    },
    'after failure',
  )
}

/** Only what was made for this import: a volume that had the name before is not it. */
async function deleteMade(client: Client, path: string): Promise<void> {
  try {
    await client.delete<DeletionView>(path)
  } catch (error) {
    if (!(error instanceof AnkoleError && error.code === 'not-found')) throw error
  }
}

function newTransfer(): string {
  return randomBytes(8).toString('hex')
}

/** What `work` failed of is told; what `undo` failed of, beside that. */
async function withUndo<T>(
  work: () => Promise<T>,
  left: string,
  undo: () => Promise<unknown>,
  when: 'always' | 'after failure',
): Promise<T> {
  let result: T
  try {
    result = await work()
  } catch (error) {
    try {
      await undo()
    } catch (second) {
      if (error instanceof AnkoleError) {
        throw new AnkoleError(error.code, `${error.message} ${left} (${messageOf(second)})`, { cause: error })
      }
    }
    throw error
  }
  if (when === 'always') await undo()
  return result
}

/** What it looks at may be away for a while: that is not what it is for. */
export async function everyLook(signal: AbortSignal, look: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      await sleep(lookMs, undefined, { signal })
      await look()
    } catch {
      if (signal.aborted) return
    }
  }
}
