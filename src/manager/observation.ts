// What the nodes' reports say of one volume.
import type { DiskReport, EngineReport, NodePlan, NodeReport } from '../agent/index.js'
import type { Node, Volume } from '../store/index.js'
import type { ClusterNode } from './placement.js'
import type { ObservedReplica } from './volume-state.js'

export function observeReplicas(
  volume: Volume,
  reports: ReadonlyMap<string, NodeReport>,
): Map<string, ObservedReplica> {
  const seen = new Map<string, ObservedReplica>()
  for (const { id, node, disk: diskId } of volume.replicas) {
    const disk = reports.get(node)?.disks.find((disk) => disk.id === diskId)
    seen.set(id, observeReplica(disk, volume.metadata.name, id))
  }
  return seen
}

function observeReplica(disk: DiskReport | undefined, volume: string, id: string): ObservedReplica {
  const replica = disk?.replicas.find((replica) => replica.volume === volume && replica.id === id)
  const directory = replica?.directory ?? ''
  if (!disk) return { state: 'unknown', directory, message: 'the node has not reported the disk' }
  switch (disk.state) {
    case 'failed':
      return { state: 'disk-failed', directory, message: disk.message }
    case 'starting':
      return { state: 'disk-starting', directory, message: disk.message }
    case 'ready':
      return replica
        ? {
            ...{ state: replica.state, directory, message: replica.message },
            ...(replica.readOnly === undefined ? {} : { readOnly: replica.readOnly }),
          }
        : { state: 'unknown', directory, message: '' }
  }
}

export function observeEngine(volume: Volume, reports: ReadonlyMap<string, NodeReport>): EngineReport | undefined {
  const { node, attachment } = volume.membership
  if (node === null) return undefined
  return reports
    .get(node)
    ?.engines.find((engine) => engine.volume === volume.metadata.name && engine.attachment === attachment)
}

/** Nothing but a report that answers a plan without the engine shows that it has ended. */
export function engineEnded(volume: Volume, plan: NodePlan | undefined, report: NodeReport | undefined): boolean {
  if (!plan || report?.version !== plan.version) return false
  const { name } = volume.metadata
  return ![...plan.engines, ...report.engines].some((engine) => engine.volume === name)
}

/** It serves, and its size is known: a disk host says that a moment later. */
export function isReady(disk: DiskReport | undefined): boolean {
  return disk?.state === 'ready' && disk.totalBytes > 0
}

/** The snapshot that placement works on. */
export function clusterNodes(
  nodes: Iterable<Node>,
  volumes: Iterable<Volume>,
  reports: ReadonlyMap<string, NodeReport>,
): ClusterNode[] {
  const scheduled = new Map<string, number>()
  for (const { replicas, spec } of volumes) {
    for (const { node, disk } of replicas) {
      const key = `${node}/${disk}`
      scheduled.set(key, (scheduled.get(key) ?? 0) + spec.sizeBytes)
    }
  }
  return [...nodes].map(({ metadata: { name }, spec }) => ({
    name,
    allowScheduling: spec.allowScheduling,
    disks: spec.disks.map(({ id, allowScheduling }) => {
      const report = reports.get(name)?.disks.find((disk) => disk.id === id)
      return {
        id,
        allowScheduling,
        ready: isReady(report),
        totalBytes: report?.totalBytes ?? 0,
        freeBytes: report?.freeBytes ?? 0,
        scheduledBytes: scheduled.get(`${name}/${id}`) ?? 0,
      }
    }),
  }))
}
