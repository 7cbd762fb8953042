// Volumes that are made of a directory of Longhorn's. Their one replica is read-only until somebody confirms that it may be
// written to: so the way back stays open. Each function is one of what is stored and what is seen.
import { AnkoleError } from '../api/errors.js'
import type { Adoption, Draft, LonghornFault, Node, Volume } from '../store/index.js'
import { checkLabels, nameOfLayer, snapshotKey, snapshotsMax } from './snapshots.js'
import type { ObservedReplica } from './volume-state.js'

export interface AdoptionRequest {
  /** On the node, absolute; on the file system of the disk. */
  directory: string
  disk: string
  copied: boolean
  accept: LonghornFault[]
  snapshots: AdoptedSnapshot[]
}

/** As its layer's description says. */
export interface AdoptedSnapshot {
  layer: string
  labels: Record<string, string>
  userCreated: boolean
  createdAt: string
  sizeBytes: number
}

export function adoptionOf({ directory, copied, accept }: AdoptionRequest): Adoption {
  return { directory, copied, accept, readOnly: true }
}

/** Its space is taken already, so nothing but the disk itself is looked at. Throws invalid-argument and cannot-place. */
export function placeOf(
  { directory, disk }: AdoptionRequest,
  nodes: Iterable<Node>,
  isReady: (node: string, disk: string) => boolean,
): { node: string; disk: string } {
  if (!directory.startsWith('/')) {
    throw new AnkoleError('invalid-argument', `${JSON.stringify(directory.slice(0, 200))} is not an absolute path.`)
  }
  const found = [...nodes].filter(({ spec }) => spec.disks.some(({ id }) => id === disk))
  const [node] = found
  if (node === undefined || found.length > 1) {
    const why = node === undefined ? 'no node has that disk' : 'more than one node has a disk of that name'
    throw new AnkoleError('cannot-place', `${directory} cannot be adopted on disk ${disk}: ${why}.`)
  }
  if (!isReady(node.metadata.name, disk)) {
    throw new AnkoleError('cannot-place', `${directory} cannot be adopted on disk ${disk}: the disk is not ready.`)
  }
  return { node: node.metadata.name, disk }
}

/** What the volume has from its beginning. Labels that cannot be labels here stay in the layers' files alone. */
export function snapshotsOf({ metadata }: Volume, { snapshots }: AdoptionRequest, nowMs: number): Draft<'Snapshot'>[] {
  const names = new Set<string>()
  return snapshots.slice(0, snapshotsMax).map(({ layer, labels, userCreated, createdAt, sizeBytes }) => {
    const name = nameOfLayer(layer, names)
    names.add(name)
    const at = new Date(Number.isNaN(Date.parse(createdAt)) ? nowMs : Date.parse(createdAt)).toISOString()
    return {
      metadata: { name: snapshotKey(metadata.name, name) },
      spec: { volume: metadata.name, volumeUid: metadata.uid, name, labels: goodLabels(labels), userCreated },
      ...{ askedAt: at, createdAt: at },
      ...{ layer, attachment: 0, tries: 0, abandonedLayers: [], state: 'ready' as const },
      ...{ message: '', sizeBytes, pauseMs: null },
    }
  })
}

function goodLabels(labels: Record<string, string>): Record<string, string> {
  let good: Record<string, string> = {}
  for (const [key, value] of Object.entries(labels)) {
    try {
      good = checkLabels({ ...good, [key]: value })
    } catch {
      // Left out.
    }
  }
  return good
}

export function isReadOnly({ adoption }: Volume): boolean {
  return adoption?.readOnly === true
}

/** Throws volume-read-only. */
export function refuseReadOnly(volume: Volume, what: string): void {
  if (!isReadOnly(volume)) return
  const { name } = volume.metadata
  throw new AnkoleError(
    'volume-read-only',
    `${what}: volume ${name} was adopted from Longhorn, and nobody has confirmed yet that it may be written to.`,
  )
}

/** From now on it is written to. True: that has to be done yet. Throws volume-deleting and busy. */
export function confirmAdoption(volume: Volume): boolean {
  const { metadata, spec, membership, adoption } = volume
  if (adoption?.readOnly !== true) return false
  const what = `Volume ${metadata.name} cannot be made writable`
  if (metadata.deletionTimestamp !== undefined) {
    throw new AnkoleError('volume-deleting', `${what}: it is being deleted.`)
  }
  if (spec.nodeID !== null || membership.node !== null) {
    throw new AnkoleError('busy', `${what} while it is attached: ankole volume detach ${metadata.name}`)
  }
  volume.adoption = { ...adoption, readOnly: false }
  return true
}

/** Before an attachment. An engine that opened its replica before would take that for read-only. Throws busy. */
export function refuseUnsettled({ metadata: { name }, adoption }: Volume): void {
  if (adoption?.readOnly !== false) return
  throw new AnkoleError('busy', `Volume ${name} cannot be attached yet: its replica is being made writable.`)
}

/** The adoption is over once its replica may be written to. */
export function settleAdoption(volume: Volume, replicas: ReadonlyMap<string, ObservedReplica>): Volume {
  const { adoption, ...rest } = volume
  if (adoption?.readOnly !== false) return volume
  const isSettled = volume.replicas.every(({ id }) => {
    const replica = replicas.get(id)
    return replica?.state === 'ready' && replica.readOnly === false
  })
  return isSettled ? rest : volume
}
