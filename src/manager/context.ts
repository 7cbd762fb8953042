// What the parts of the manager work with: what it was given, and what it sees of the cluster.
import type { EngineReport, NodeCounters, NodePlan, NodeReport } from '../agent/index.js'
import { AnkoleError } from '../api/errors.js'
import type { DiskUsage, Layer } from '../native/index.js'
import type { Node, Snapshot, Store, Volume } from '../store/index.js'
import type { PlanOptions } from './node-plan.js'
import { clusterNodes } from './observation.js'
import type { ClusterNode } from './placement.js'
import type { SnapshotAsker } from './snapshot-contents.js'

/** The part of a node's agent that the manager needs. */
export interface NodeAgent extends SnapshotAsker {
  apply(plan: NodePlan): void
  report(): NodeReport
  onChange(listener: (report: NodeReport) => void): () => void
  /** Leaves out who does not answer in time. */
  counters(): Promise<NodeCounters>
  /** What the replicas of each disk take up now. Leaves out disks that do not answer in time. */
  usage(): Promise<DiskUsage[]>
  /** Of one volume, as its engine lists them now; undefined: none serves it. */
  layers(volume: string): Promise<Layer[] | undefined>
}

/** What the disks of a node said of their files. */
export interface NodeUsage {
  node: string
  disks: DiskUsage[]
}

export interface Logger {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface ManagerOptions {
  store: Store
  agents: ReadonlyMap<string, NodeAgent>
  plan: PlanOptions
  log: Logger
}

/** The cluster as it is now, and the one way to change a stored volume. */
export interface ClusterView {
  readonly options: ManagerOptions
  volumes(): readonly Volume[]
  /** Throws not-found. */
  volume(name: string): Volume
  nodes(): readonly Node[]
  reports(): Map<string, NodeReport>
  engine(volume: Volume): EngineReport | undefined
  /** Throws not-found. */
  snapshot(volume: string, name: string): Snapshot
  /** What `change` makes of it is stored, where it returns true. Throws not-found. */
  change(name: string, change: (volume: Volume) => boolean): Promise<Volume>
}

/** Of the node where it is attached. */
export function agentOf({ options }: ClusterView, { membership }: Volume): NodeAgent | undefined {
  return options.agents.get(membership.node ?? '')
}

export async function countersOf(
  cluster: ClusterView,
  volume: Volume,
): Promise<NodeCounters['engines'][number] | undefined> {
  const counters = await agentOf(cluster, volume)?.counters()
  return counters?.engines.find((engine) => engine.volume === volume.metadata.name)
}

/** What placement works on. */
export function placementNodes(cluster: ClusterView): ClusterNode[] {
  return clusterNodes(cluster.nodes(), cluster.volumes(), cluster.reports())
}

export function deleting(volume: string, wanted: string): AnkoleError {
  return new AnkoleError('volume-deleting', `Volume ${volume} cannot be ${wanted}: it is being deleted.`)
}
