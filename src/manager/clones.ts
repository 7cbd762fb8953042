// Volumes that are made of a snapshot of another one. A linked clone has its replicas on the disks of the other volume's,
// of whose files theirs are second names; a full one is copied by whoever asked for it, as an image is imported. Each
// function is one of what is stored and what is seen.
import { AnkoleError } from '../api/errors.js'
import type { CloneSource } from '../native/index.js'
import type { ClonedFrom, MembershipRecord, Snapshot, Volume } from '../store/index.js'
import type { ObservedReplica } from './volume-state.js'

export interface CloneRequest {
  volume: string
  snapshot: string
  linked: boolean
}

/** What a linked clone is made of. */
export interface LinkedClone {
  clonedFrom: ClonedFrom
  replicas: Volume['replicas']
  record: MembershipRecord
}

/**
 * After that a linked clone begins with the replicas that there are, if these are most of them: the others are filled from
 * them. What grows with its size are the checksums, of which copies are made: about 1 GiB for each TiB of data.
 */
export function cloneMakingMsMax({ sizeBytes }: { sizeBytes: number }): number {
  return 10_000 + (60_000 * sizeBytes) / 2 ** 40
}

/** Throws snapshot-not-ready and volume-deleting. */
export function checkCloneable({ metadata }: Volume, { spec, state, layer, message }: Snapshot): string {
  const what = `Snapshot ${spec.name} of volume ${spec.volume} cannot be cloned`
  if (metadata.deletionTimestamp !== undefined) {
    throw new AnkoleError('volume-deleting', `${what}: the volume is being deleted.`)
  }
  if (state === 'ready' && layer !== null) return layer
  throw new AnkoleError('snapshot-not-ready', `${what}: it is ${state}${message === '' ? '' : `, ${message}`}.`)
}

/** The replicas that have the snapshot, which are the members, on disks that are ready. Throws cannot-place. */
export function cloneSources(
  { metadata, membership, replicas }: Volume,
  members: readonly string[] | undefined,
  isDiskReady: (node: string, disk: string) => boolean,
): Volume['replicas'] {
  const known = members ?? membership.record.members
  const found = replicas.filter(({ id, node, disk }) => known.includes(id) && isDiskReady(node, disk))
  if (found.length > 0) return found
  throw new AnkoleError(
    'cannot-place',
    `A snapshot of volume ${metadata.name} cannot be cloned: none of its up-to-date replicas is on a disk that is ready.`,
  )
}

/** `newId` gives one for each replica. */
export function draftLinked(
  { metadata }: Volume,
  { spec }: Snapshot,
  layer: string,
  sources: Volume['replicas'],
  newId: () => string,
): LinkedClone {
  const making = sources.map(({ id: source }) => ({ id: newId(), source }))
  return {
    clonedFrom: {
      ...{ volume: metadata.name, volumeUid: metadata.uid, snapshot: spec.name },
      ...{ linked: true, layer, making },
    },
    replicas: sources.map(({ node, disk }, index) => ({ id: making[index]?.id ?? '', node, disk })),
    record: firstRecord(making.map(({ id }) => id)),
  }
}

/** As each replica that is made notes it (`FirstRecordOfClone` in native/replica/clone.h): the volume begins with it. */
function firstRecord(ids: string[]): MembershipRecord {
  return { epoch: { attachment: 0, run: 1 }, generation: 1, members: ids.sort(), snapshot: '' }
}

/** What the disk host makes the replica of; undefined: it is made of nothing, or was made. */
export function cloneSource({ clonedFrom, membership }: Volume, id: string): CloneSource | undefined {
  const source = clonedFrom?.making?.find((made) => made.id === id)?.source
  if (clonedFrom?.layer === undefined || source === undefined) return undefined
  const { volume, layer } = clonedFrom
  return { volume, replica: source, layer, members: membership.record.members }
}

export function isBeingMade({ clonedFrom }: Volume): boolean {
  return (clonedFrom?.making ?? []).length > 0
}

/** Notes the replicas that were made. What could not be made in time is filled from the others, as any new replica is. */
export function settleClone(volume: Volume, replicas: ReadonlyMap<string, ObservedReplica>, nowMs: number): Volume {
  const { clonedFrom, metadata, membership, spec } = volume
  if (clonedFrom?.making === undefined) return volume
  const { making, ...done } = clonedFrom
  const left = making.filter(({ id }) => replicas.get(id)?.state !== 'ready')
  const isLate = nowMs - Date.parse(metadata.creationTimestamp) > cloneMakingMsMax(spec)
  const { members } = membership.record
  const mayBegin = isLate && 2 * (members.length - left.length) > members.length
  if (left.length === 0 || mayBegin) return { ...volume, clonedFrom: done }
  return left.length === making.length ? volume : { ...volume, clonedFrom: { ...done, making: left } }
}

/** Names of the volumes that share files with the snapshot. */
export function linkedClonesOf({ spec }: Snapshot, volumes: Iterable<Volume>): string[] {
  return [...volumes].flatMap(({ metadata, clonedFrom }) => {
    const isOf = clonedFrom?.linked && clonedFrom.volumeUid === spec.volumeUid && clonedFrom.snapshot === spec.name
    return isOf ? [metadata.name] : []
  })
}

/** Throws snapshot-has-clones. */
export function refuseCloned(snapshot: Snapshot, volumes: Iterable<Volume>): void {
  const clones = linkedClonesOf(snapshot, volumes)
  if (clones.length === 0) return
  const { name, volume } = snapshot.spec
  const are = clones.length === 1 ? `volume ${clones[0]} is a linked clone` : 'there are linked clones'
  const names = clones.length === 1 ? '' : `, volumes ${clones.join(', ')}`
  throw new AnkoleError(
    'snapshot-has-clones',
    `Snapshot ${name} of volume ${volume} cannot be deleted: ${are} of it${names}.`,
  )
}

/** Throws busy. Once its clones are made, a volume may go: they keep what they have of it. */
export function refuseWhileCloned({ metadata }: Volume, volumes: Iterable<Volume>): void {
  const clone = [...volumes].find((volume) => {
    const isWanted = volume.metadata.deletionTimestamp === undefined
    return isWanted && volume.clonedFrom?.volumeUid === metadata.uid && isBeingMade(volume)
  })
  if (clone === undefined) return
  throw new AnkoleError(
    'busy',
    `Volume ${metadata.name} cannot be deleted now: volume ${clone.metadata.name} is being cloned from it.`,
  )
}
