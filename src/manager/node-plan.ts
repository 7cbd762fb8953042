import type { DiskPlan, EnginePlan, NodePlan, PortalPlan, ScrubPlan } from '../agent/index.js'
import type { EngineSpace, HostPort, TrimRequest } from '../native/index.js'
import type { Node, Scrub, Snapshot, Trim, Volume } from '../store/index.js'
import { isReadOnly } from './adoption.js'
import { cloneSource } from './clones.js'
import { formatHostPort, iqnOf } from './addresses.js'
import { servedBytes } from './expansion.js'
import { scrubSettings } from './scrub.js'
import { snapshotsPlan } from './snapshots.js'
import type { DiskThresholds } from './thresholds.js'
import { trimCounts } from './trim.js'
import { physicalBlockBytesDefault } from './volume-spec.js'
import { wantsEngine, wantsReplicasGone } from './volume-state.js'

export interface PlanOptions {
  /** Engines reach the disk hosts of their own node by Unix sockets, unless TCP is asked for. */
  replication: 'unix' | 'tcp'
  socketPath: (disk: string) => string
  nbdHost: string
  iscsi: IscsiAddresses
  /** The first port that a volume may be given for NBD, below 55536; those for iSCSI begin 10000 above. Absent: the default. */
  nbdPortFirst?: number
  lateMs: number
  /** Bytes a second that an engine copies between replicas, where its volume has no own; absent: as fast as it goes. */
  resyncBandwidth?: number
  /** How full a disk is when people and initiators are told; absent: the default. */
  diskThresholds?: DiskThresholds
  /** Of the store as it is now; absent: it cannot have been restored. */
  storeId?: string
}

export interface IscsiAddresses {
  /** Of the well-known portal; engines listen on the same host, each on the port of its volume. */
  listen: HostPort
  /** What initiators reach that host by: another one than that of `listen` where it listens on every address. */
  host: string
}

/** What a node is to run: a pure function of the store. The version is the caller's. */
export function nodePlan(
  node: Node,
  volumes: readonly Volume[],
  options: PlanOptions,
  snapshotsOf: (volume: Volume) => readonly Snapshot[] = () => [],
  spaceOf: (volume: Volume) => EngineSpace | undefined = () => undefined,
): Omit<NodePlan, 'version'> {
  const { name } = node.metadata
  const disks = new Map<string, DiskPlan>()
  const addresses = new Map<string, string>()
  for (const disk of node.spec.disks) {
    const address = diskAddress(node, disk.id, options)
    addresses.set(disk.id, address)
    disks.set(disk.id, { id: disk.id, directory: disk.path, listen: [address], replicas: [] })
  }
  const engines: EnginePlan[] = []
  for (const volume of volumes) {
    const { sizeBytes, cache, checksums = true } = volume.spec
    const desired = wantsReplicasGone(volume) ? 'absent' : 'present'
    for (const { id, node: on, disk } of volume.replicas) {
      if (on !== name) continue
      const { metadata, secret } = volume
      const adopt = volume.adoption === undefined ? {} : { adopt: volume.adoption }
      const source = cloneSource(volume, id)
      const made = source === undefined ? adopt : { ...adopt, clone: source }
      const replica = { volume: metadata.name, id, sizeBytes, secret, cache, checksums, ...made, desired } as const
      disks.get(disk)?.replicas.push(replica)
    }
    const { iscsiPort } = volume // There is one before there is an attachment.
    if (wantsEngine(volume, name) && iscsiPort !== undefined) {
      const snapshots = snapshotsPlan(volume, snapshotsOf(volume))
      const space = spaceOf(volume)
      const of = enginePlan(volume, iscsiPort, addresses, options)
      const plan = space === undefined ? of : { ...of, space }
      engines.push(snapshots === undefined ? plan : { ...plan, snapshots })
    }
  }
  return { node: name, disks: [...disks.values()], engines, portal: portalPlan(volumes, options) }
}

/**
 * Every volume that is not on its way out: one that is not attached is known, and told from one that does not exist. One
 * that is attached for an import or export alone is not there for initiators.
 */
function portalPlan(volumes: readonly Volume[], { iscsi: { listen, host } }: PlanOptions): PortalPlan {
  const targets = volumes
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map((volume) => {
      const { metadata, membership, iscsiPort: port, transfer } = volume
      const served = membership.node !== null && wantsEngine(volume, membership.node) && transfer === undefined
      return { iqn: iqnOf(metadata.name), address: served && port !== undefined ? formatHostPort({ host, port }) : '' }
    })
  return { listen, advertisedHost: host, targets }
}

function enginePlan(
  volume: Volume,
  iscsiPort: number,
  addresses: ReadonlyMap<string, string>,
  options: PlanOptions,
): EnginePlan {
  const { attachment, record, storeId, clientsAnew = false } = volume.membership
  const resyncBandwidth = volume.spec.resyncBandwidth ?? options.resyncBandwidth
  return {
    volume: volume.metadata.name,
    sizeBytes: servedBytes(volume),
    ...(volume.expansion === undefined
      ? {}
      : { expansion: { id: volume.expansion.id, sizeBytes: volume.spec.sizeBytes } }),
    secret: volume.secret,
    attachment,
    record,
    storeRestored: options.storeId !== undefined && storeId !== undefined && storeId !== options.storeId,
    clientsAnew,
    replicas: volume.replicas.flatMap(({ id, disk }) => {
      const address = addresses.get(disk)
      return address === undefined ? [] : [{ id, address }]
    }),
    nbd: { host: options.nbdHost, port: volume.nbdPort },
    iscsi: {
      ...{ host: options.iscsi.listen.host, port: iscsiPort },
      target: iqnOf(volume.metadata.name),
      serial: volume.metadata.uid,
      physicalBlockBytes: volume.spec.physicalBlockBytes ?? physicalBlockBytesDefault,
      ...(volume.chap === undefined ? {} : { chap: volume.chap }),
    },
    ...(isReadOnly(volume) ? { readOnly: true } : {}),
    lateMs: options.lateMs,
    ...(resyncBandwidth === undefined ? {} : { resyncBandwidth }),
    ...(volume.scrub?.current === undefined ? {} : { scrub: scrubPlan(volume, volume.scrub.current) }),
    ...(volume.trim?.current === undefined ? {} : { trim: trimPlan(volume.trim.current) }),
  }
}

function scrubPlan(volume: Volume, { begunAt: id, bandwidth, ...before }: Scrub): ScrubPlan {
  return { id, bytesPerSecond: bandwidth ?? scrubSettings(volume).bandwidth, ...before }
}

function trimPlan(trim: Trim): TrimRequest {
  return { id: trim.begunAt, bytesPerSecond: trim.bandwidth, ...trimCounts(trim) }
}

/** Known before the disk host runs and the same after each restart, so that an engine finds its replicas again. */
function diskAddress(node: Node, id: string, options: PlanOptions): string {
  const port = node.spec.disks.find((disk) => disk.id === id)?.replicationPort
  if (options.replication === 'tcp' && port !== undefined) return `tcp:${node.spec.address}:${port}`
  return `unix:${options.socketPath(id)}`
}
