// From what disk hosts say of their files to what REST shows.
import {
  clusterNodes,
  shownBytes,
  usedPercent,
  type DiskLevel,
  type DiskThresholds,
  type NodeUsage,
} from '../manager/index.js'
import type { ReplicaUsage } from '../native/index.js'
import type { Node, Snapshot, Volume } from '../store/index.js'
import type { DiskSpaceView, VolumeSpaceView } from './space-schemas.js'
import type { Reports } from './views.js'

/** Longhorn's name for it. */
const headName = 'volume-head'

export function volumeSpace(
  volume: Volume,
  snapshots: readonly Snapshot[],
  usage: readonly NodeUsage[],
): VolumeSpaceView {
  const replicas = volume.replicas.map(({ id, node, disk }) => {
    const found = usage
      .find((one) => one.node === node)
      ?.disks.find((one) => one.disk === disk)
      ?.replicas.find((replica) => replica.id === id && replica.volume === volume.metadata.name)
    return { id, node, disk, ...replicaSpace(found, snapshots) }
  })
  const snapshotsOf = ({ layers }: VolumeSpaceView['replicas'][number]): number =>
    sum(layers.map(({ name, allocatedBytes }) => (name === headName ? 0 : allocatedBytes)))
  const known = replicas.every(({ allocatedBytes }) => allocatedBytes !== null)
  return {
    volume: volume.metadata.name,
    sizeBytes: shownBytes(volume),
    allocatedBytes: known ? sum(replicas.map(({ allocatedBytes }) => allocatedBytes ?? 0)) : null,
    snapshotBytes: known ? sum(replicas.map(snapshotsOf)) : null,
    replicas,
  }
}

function replicaSpace(usage: ReplicaUsage | undefined, snapshots: readonly Snapshot[]) {
  if (usage === undefined) return { allocatedBytes: null, dataBytes: null, metadataBytes: null, layers: [] }
  const { metadataBytes } = usage
  const dataBytes = sum(usage.layers.map(({ allocatedBytes }) => allocatedBytes))
  const layers = usage.layers.map(({ name, allocatedBytes }) => ({
    name: name === '' ? headName : name,
    snapshot: snapshots.find(({ layer }) => layer === name)?.spec.name ?? null,
    allocatedBytes,
  }))
  return { allocatedBytes: dataBytes + metadataBytes, dataBytes, metadataBytes, layers }
}

/** Sizes as the disk hosts say them now, and else as they were last reported. */
export function diskSpaces(
  nodes: readonly Node[],
  volumes: readonly Volume[],
  reports: Reports,
  usage: readonly NodeUsage[],
  { diskThresholds, levelOf }: { diskThresholds: DiskThresholds; levelOf: (node: string, disk: string) => DiskLevel },
): DiskSpaceView[] {
  return clusterNodes(nodes, volumes, reports).flatMap(({ name: node, disks }) =>
    disks.map(({ id, scheduledBytes, ...reported }) => {
      const said = usage.find((one) => one.node === node)?.disks.find(({ disk }) => disk === id)
      const { totalBytes, freeBytes } = said ?? reported
      const replicasBytes = said === undefined ? null : replicasOf(said.replicas)
      const otherBytes = replicasBytes === null ? null : Math.max(0, totalBytes - freeBytes - replicasBytes)
      return {
        ...{ node, id, totalBytes, freeBytes },
        ...{ usedPercent: usedPercent({ totalBytes, freeBytes }), level: levelOf(node, id), ...diskThresholds },
        ...{ replicasBytes, otherBytes, scheduledBytes },
      }
    }),
  )
}

function replicasOf(replicas: readonly ReplicaUsage[]): number {
  return sum(replicas.map(({ layers, metadataBytes }) => metadataBytes + sum(layers.map((one) => one.allocatedBytes))))
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
