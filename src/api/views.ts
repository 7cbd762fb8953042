// From what is stored and reported to what REST shows, one function each.
import type { NodeReport } from '../agent/index.js'
import { clusterNodes, count } from '../manager/index.js'
import type { Node, Volume } from '../store/index.js'
import type { AttachmentView, NodeView, ProcessView, VolumeView } from './schemas.js'

export function volumeView(volume: Volume, nbdHost: string): VolumeView {
  const { metadata, spec, membership, status } = volume
  return {
    name: metadata.name,
    sizeBytes: spec.sizeBytes,
    numberOfReplicas: spec.numberOfReplicas,
    cache: spec.cache,
    createdAt: metadata.creationTimestamp,
    state: status.state,
    robustness: status.robustness,
    message: status.message,
    warnings: warningsOf(volume),
    node: membership.node ?? spec.nodeID,
    attachment: membership.attachment,
    generation: membership.record.generation,
    nbd: status.state === 'attached' ? { uri: nbdUri(volume, nbdHost) } : null,
    replicas: volume.replicas.map(({ id, node, disk }) => {
      const seen = status.replicas.find((replica) => replica.id === id)
      return {
        ...{ id, node, disk },
        directory: seen?.directory ?? '',
        state: seen?.state ?? 'unknown',
        message: seen?.message ?? '',
      }
    }),
  }
}

function warningsOf({ replicas, membership }: Volume): string[] {
  const nodes = new Set(replicas.map((replica) => replica.node))
  const warnings: string[] = []
  if (replicas.length > nodes.size) {
    warnings.push(
      `${count(replicas.length, 'replica')} on ${count(nodes.size, 'node')}: the volume survives the loss of disks, ` +
        `not that of a node`,
    )
  }
  if (replicas.length === 1) warnings.push('one replica: the volume is lost with its disk')
  const { record } = membership
  const left = replicas.filter(({ id }) => record.generation > 0 && !record.members.includes(id))
  if (left.length > 0) {
    warnings.push(`${left.map(({ disk }) => disk).join(', ')} left the volume and is not used: its copy is out of date`)
  }
  return warnings
}

/** The same for as long as the volume is attached to its node. */
export function attachmentView(volume: Volume, nbdHost: string): AttachmentView {
  return { volume: volume.metadata.name, node: volume.membership.node ?? '', nbd: { uri: nbdUri(volume, nbdHost) } }
}

function nbdUri({ metadata, nbdPort }: Volume, host: string): string {
  return `nbd://${host.includes(':') ? `[${host}]` : host}:${nbdPort}/${metadata.name}`
}

export function nodeViews(nodes: readonly Node[], volumes: readonly Volume[], reports: Reports): NodeView[] {
  const cluster = clusterNodes(nodes, volumes, reports)
  return nodes.map(({ metadata: { name }, spec }, index) => ({
    name,
    address: spec.address,
    allowScheduling: spec.allowScheduling,
    disks: spec.disks.map(({ id, path, allowScheduling }, at) => {
      const disk = reports.get(name)?.disks.find((disk) => disk.id === id)
      return {
        ...{ id, directory: path, allowScheduling },
        state: disk?.state ?? 'unknown',
        message: disk?.message ?? '',
        ioBackend: disk?.ioBackend ?? null,
        totalBytes: disk?.totalBytes ?? 0,
        freeBytes: disk?.freeBytes ?? 0,
        scheduledBytes: cluster[index]?.disks[at]?.scheduledBytes ?? 0,
      }
    }),
  }))
}

export type Reports = ReadonlyMap<string, NodeReport>

const startedAt = new Date(Date.now() - performance.now()).toISOString()

/** This process runs the manager and, on a single machine, agent and supervisor too. */
export function processViews(managerNode: string, reports: Reports): ProcessView[] {
  const manager: ProcessView = { pid: process.pid, kind: 'manager', node: managerNode, restarts: 0, startedAt }
  const children = [...reports].flatMap(([node, { processes }]) =>
    processes.map(({ pid, kind, volume, disk, restarts, startedAt }) => ({
      ...{ pid, kind, node, restarts, startedAt },
      ...(volume === undefined ? {} : { volume }),
      ...(disk === undefined ? {} : { disk }),
    })),
  )
  return [manager, ...children]
}
