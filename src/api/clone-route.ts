// REST /v1: linked clones of snapshots. Full ones are copied by the client, as an image is imported.
import { cloneMakingMsMax, isBeingMade, type Manager } from '../manager/index.js'
import type { Volume } from '../store/index.js'
import { AnkoleError } from './errors.js'
import { ErrorView, VolumeView } from './schemas.js'
import { CloneSnapshot, SnapshotName } from './snapshot-schemas.js'
import type { Server } from './server.js'
import { explained, milliseconds } from './waiting.js'

export function addCloneRoute(server: Server, current: () => Manager, view: (volume: Volume) => VolumeView): void {
  server.post(
    '/v1/volumes/:name/snapshots/:snapshot/clone',
    {
      schema: {
        summary:
          'Make a new volume of a snapshot, on the same disks and with the same files: at once, and without copying',
        tags: ['snapshots'],
        params: SnapshotName,
        body: CloneSnapshot,
        response: { 201: VolumeView, '4xx': ErrorView, '5xx': ErrorView },
      },
    },
    async ({ params: { name: source, snapshot }, body: { name, chap, timeoutSeconds } }, reply) => {
      const manager = current()
      const asked = await manager.cloneSnapshot(source, snapshot, { name, chap })
      try {
        return await reply.code(201).send(view(await made(manager, asked, milliseconds(timeoutSeconds))))
      } catch (error) {
        // Nothing is left that nobody asked for. What is stopping leaves it to be made, or deleted by hand.
        await manager.delete(name, true).catch(() => undefined)
        throw error
      }
    },
  )
}

function made(manager: Manager, asked: Volume, timeoutMs: number): Promise<Volume> {
  const { name, uid, creationTimestamp } = asked.metadata
  const lateMs = Date.parse(creationTimestamp) + cloneMakingMsMax(asked.spec)
  const now = () => manager.volume(name).status
  return explained(manager, { subject: `volume ${name}`, what: 'created', now }, timeoutMs, () => {
    const volume = manager.volumes().find(({ metadata }) => metadata.uid === uid)
    if (volume === undefined || volume.metadata.deletionTimestamp !== undefined) {
      throw new AnkoleError('cancelled', `Volume ${name} was deleted while it was made.`)
    }
    const { state } = volume.status
    if (!isBeingMade(volume) && state !== 'creating' && state !== 'faulted') return volume
    if (state !== 'faulted' || Date.now() < lateMs) return undefined
    const why = volume.status.replicas.filter(({ state }) => state === 'failed').map(({ message }) => message)
    throw new AnkoleError('clone-failed', `Volume ${name} was not made: ${why.join('; ')}.`)
  })
}
