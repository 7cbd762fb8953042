// REST /v1: the snapshots of a volume.
import { nbdUriOf, type Manager } from '../manager/index.js'
import type { Snapshot, VolumeState } from '../store/index.js'
import { nameByTime } from '../manager/snapshots.js'
import { AnkoleError } from './errors.js'
import { ErrorView, VolumeName } from './schemas.js'
import {
  ChangesView,
  CreateSnapshot,
  DeleteSnapshot,
  ListChanges,
  ReadableSnapshotView,
  ReadSnapshot,
  RevertView,
  RevertVolume,
  SnapshotDeletionView,
  SnapshotList,
  SnapshotName,
  SnapshotView,
} from './snapshot-schemas.js'
import type { Server } from './server.js'
import { changesView, snapshotList, snapshotView } from './snapshot-views.js'
import { explained, milliseconds, type Waited } from './waiting.js'

const tags = ['snapshots']
const errors = { '4xx': ErrorView, '5xx': ErrorView }

const extentsDefault = 1000

export function addSnapshotRoutes(server: Server, current: () => Manager, nbdHost: string): void {
  server.post(
    '/v1/volumes/:name/snapshots',
    {
      schema: {
        summary: 'Take a snapshot of an attached volume, and wait until it is ready',
        tags,
        params: VolumeName,
        body: CreateSnapshot,
        response: { 201: SnapshotView, ...errors },
      },
    },
    async ({ params: { name: volume }, body: { name, labels, timeoutSeconds } }, reply) => {
      const manager = current()
      const asked = await manager.createSnapshot(volume, { name, labels })
      const snapshot = await taken(manager, asked, milliseconds(timeoutSeconds))
      return reply.code(201).send(snapshotView(snapshot, await manager.layers(volume), []))
    },
  )

  server.get(
    '/v1/volumes/:name/snapshots',
    {
      schema: {
        summary: 'The snapshots of a volume, and the tree of its layers',
        tags,
        params: VolumeName,
        response: { 200: SnapshotList, ...errors },
      },
    },
    async ({ params: { name: volume } }) => {
      const manager = current()
      const layers = await manager.layers(volume)
      const clonesOf = (snapshot: Snapshot): string[] => manager.clonesOf(snapshot)
      return snapshotList(manager.volume(volume), manager.snapshots(volume), layers, clonesOf)
    },
  )

  server.get(
    '/v1/volumes/:name/snapshots/:snapshot',
    { schema: { summary: 'One snapshot', tags, params: SnapshotName, response: { 200: SnapshotView, ...errors } } },
    async ({ params: { name: volume, snapshot } }) => {
      const manager = current()
      manager.snapshot(volume, snapshot)
      const layers = await manager.layers(volume)
      const found = manager.snapshot(volume, snapshot)
      return snapshotView(found, layers, manager.clonesOf(found))
    },
  )

  server.get(
    '/v1/volumes/:name/snapshots/:snapshot/changes',
    {
      schema: {
        summary: 'What of a snapshot may differ from another one, or what it has allocated; a part at a time',
        tags,
        params: SnapshotName,
        querystring: ListChanges,
        response: { 200: ChangesView, ...errors },
      },
    },
    async ({ params: { name: volume, snapshot }, query }) => {
      const { from = null, offset = 0, limit = extentsDefault } = query
      const changes = await current().snapshotChanges(volume, snapshot, { from, offset, limit })
      return changesView({ volume, snapshot, from }, changes)
    },
  )

  server.post(
    '/v1/volumes/:name/snapshots/:snapshot/read',
    {
      schema: {
        summary:
          'Serve a snapshot of an attached volume to NBD clients, to be read, until nobody has used it for 10 s; what is ' +
          'being read is not deleted',
        tags,
        params: SnapshotName,
        body: ReadSnapshot,
        response: { 200: ReadableSnapshotView, ...errors },
      },
    },
    async ({ params: { name, snapshot } }) => {
      const manager = current()
      const { export: exported, sizeBytes } = await manager.readSnapshot(name, snapshot)
      return { volume: name, snapshot, sizeBytes, nbd: { uri: nbdUriOf(manager.volume(name), nbdHost, exported) } }
    },
  )

  server.post(
    '/v1/volumes/:name/snapshots/:snapshot/revert',
    {
      schema: {
        summary: 'Take the volume back to the snapshot; what it holds now is kept as another snapshot first',
        tags,
        params: SnapshotName,
        body: RevertVolume,
        response: { 200: RevertView, ...errors },
      },
    },
    async ({ params: { name: volume, snapshot: name }, body: { keepName, force, timeoutSeconds } }) => {
      const manager = current()
      const limitMs = performance.now() + milliseconds(timeoutSeconds)
      const restMs = (): number => Math.max(1, limitMs - performance.now())
      manager.checkRevert(volume, name)
      const wanted = { name: keepName ?? `before-${nameByTime(Date.now())}`, labels: { 'reverted-to': name } }
      const kept = await taken(manager, await manager.createSnapshot(volume, wanted), restMs())
      const asked = await manager.revert(volume, name, kept.spec.name, force ?? false)
      return await reverted(manager, asked, kept, restMs())
    },
  )

  server.delete(
    '/v1/volumes/:name/snapshots/:snapshot',
    {
      schema: {
        summary: 'Delete a snapshot, and wait until it is gone; what only it holds comes back in the background',
        tags,
        params: SnapshotName,
        querystring: DeleteSnapshot,
        response: { 200: SnapshotDeletionView, 202: SnapshotDeletionView, ...errors },
      },
    },
    async ({ params: { name: volume, snapshot: name }, query }, reply) => {
      const manager = current()
      manager.snapshot(volume, name)
      const layers = await manager.layers(volume)
      const snapshot = await manager.deleteSnapshot(volume, name)
      const { allocatedBytes } = snapshotView(snapshot, layers, [])
      const state = await gone(manager, snapshot, milliseconds(query.timeoutSeconds))
      const deleted = state === 'gone'
      const message = deleted ? '' : `volume ${volume} is ${state}: it is deleted when that is attached next`
      return reply.code(deleted ? 200 : 202).send({ volume, name, deleted, message, allocatedBytes })
    },
  )
}

function taken(manager: Manager, asked: Snapshot, timeoutMs: number): Promise<Snapshot> {
  return explained(manager, waited(manager, asked, 'ready'), timeoutMs, () => {
    const snapshot = find(manager, asked)
    const what = `Snapshot ${asked.spec.name} of volume ${asked.spec.volume}`
    switch (snapshot?.state) {
      case 'creating':
        return undefined
      case 'ready':
        return snapshot
      case 'failed':
        throw new AnkoleError('snapshot-failed', `${what} was not taken: ${snapshot.message}.`)
      case 'deleting':
      case undefined:
        throw new AnkoleError('cancelled', `${what} was deleted while it was taken.`)
    }
  })
}

function reverted(manager: Manager, asked: Snapshot, kept: Snapshot, timeoutMs: number): Promise<RevertView> {
  const { volume, name } = asked.spec
  const saved = kept.spec.name
  const subject = `volume ${volume}`
  const now = (): ReturnType<Waited['now']> => ({
    state: find(manager, asked)?.revert?.state ?? 'gone',
    message: `it may be yet; what it held before is snapshot ${saved}`,
  })
  return explained(manager, { subject, what: `reverted to snapshot ${name}`, now }, timeoutMs, () => {
    const revert = find(manager, asked)?.revert
    const what = `Volume ${volume} was not reverted to snapshot ${name}`
    if (revert?.layer !== asked.revert?.layer || revert === undefined) {
      throw new AnkoleError('cancelled', `${what}: the snapshot is gone. What the volume held is snapshot ${saved}.`)
    }
    switch (revert.state) {
      case 'asked':
        return undefined
      case 'done':
        return { volume, snapshot: name, kept: saved, pauseMs: revert.pauseMs }
      case 'failed':
        // Nothing changed: nor is a snapshot left that nobody asked for.
        manager.deleteSnapshot(volume, saved).catch(() => undefined)
        throw new AnkoleError('revert-failed', `${what}: ${revert.message}.`)
      case 'unknown':
        throw new AnkoleError(
          'revert-unknown',
          `It is not known whether volume ${volume} was reverted to snapshot ${name}: ${revert.message}. What it held ` +
            `before is snapshot ${saved}.`,
        )
    }
  })
}

/** Or the state of the volume, where that has to be attached first. */
function gone(manager: Manager, asked: Snapshot, timeoutMs: number): Promise<'gone' | VolumeState> {
  return explained(manager, waited(manager, asked, 'deleted'), timeoutMs, () => {
    if (find(manager, asked) === undefined) return 'gone'
    const { state } = manager.volume(asked.spec.volume).status
    switch (state) {
      case 'detached':
      case 'detaching':
      case 'faulted':
        return state
      case 'attached':
      case 'attaching':
      case 'creating':
      case 'deleting':
        return undefined
    }
  })
}

function find(manager: Manager, { metadata, spec }: Snapshot): Snapshot | undefined {
  const isThere = manager.volumes().some((volume) => volume.metadata.uid === spec.volumeUid)
  if (!isThere) return undefined
  return manager.snapshots(spec.volume).find((other) => other.metadata.uid === metadata.uid)
}

function waited(manager: Manager, asked: Snapshot, what: string): Waited {
  const { volume, name } = asked.spec
  const now = (): ReturnType<Waited['now']> => find(manager, asked) ?? { state: 'gone', message: '' }
  return { subject: `snapshot ${name} of volume ${volume}`, what, now }
}
