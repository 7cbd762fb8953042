import type { DiskPlan, EnginePlan, NodePlan } from '../agent/index.js'
import type { Node, Volume } from '../store/index.js'
import { wantsEngine, wantsReplicasGone } from './volume-state.js'

export interface PlanOptions {
  /** Engines reach the disk hosts of their own node by Unix sockets, unless TCP is asked for. */
  replication: 'unix' | 'tcp'
  socketPath: (disk: string) => string
  nbdHost: string
  lateMs: number
}

/** What a node is to run: a pure function of the store. The version is the caller's. */
export function nodePlan(node: Node, volumes: Iterable<Volume>, options: PlanOptions): Omit<NodePlan, 'version'> {
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
    const { sizeBytes, cache } = volume.spec
    const desired = wantsReplicasGone(volume) ? 'absent' : 'present'
    for (const { id, node: on, disk } of volume.replicas) {
      if (on !== name) continue
      const replica = { volume: volume.metadata.name, id, sizeBytes, secret: volume.secret, cache, desired } as const
      disks.get(disk)?.replicas.push(replica)
    }
    if (wantsEngine(volume, name)) engines.push(enginePlan(volume, addresses, options))
  }
  return { node: name, disks: [...disks.values()], engines }
}

function enginePlan(volume: Volume, addresses: ReadonlyMap<string, string>, options: PlanOptions): EnginePlan {
  const { attachment, record } = volume.membership
  return {
    volume: volume.metadata.name,
    sizeBytes: volume.spec.sizeBytes,
    secret: volume.secret,
    attachment,
    record,
    replicas: volume.replicas.flatMap(({ id, disk }) => {
      const address = addresses.get(disk)
      return address === undefined ? [] : [{ id, address }]
    }),
    nbd: { host: options.nbdHost, port: volume.nbdPort },
    lateMs: options.lateMs,
  }
}

/** Known before the disk host runs and the same after each restart, so that an engine finds its replicas again. */
function diskAddress(node: Node, id: string, options: PlanOptions): string {
  const port = node.spec.disks.find((disk) => disk.id === id)?.replicationPort
  if (options.replication === 'tcp' && port !== undefined) return `tcp:${node.spec.address}:${port}`
  return `unix:${options.socketPath(id)}`
}
