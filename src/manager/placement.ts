// Where replicas go: a pure function of a snapshot of the cluster. Hard limits first, then the soft ones; where it
// cannot place, it says why.
import { formatBytes } from './volume-spec.js'

export interface ClusterDisk {
  id: string
  allowScheduling: boolean
  ready: boolean
  totalBytes: number
  freeBytes: number
  /** Sum of the sizes of the volumes that have a replica here. */
  scheduledBytes: number
}

export interface ClusterNode {
  name: string
  allowScheduling: boolean
  disks: ClusterDisk[]
}

export interface PlacementRequest {
  sizeBytes: number
  numberOfReplicas: number
}

export interface PlacementLimits {
  /** Volumes are thin: this much of a disk's size may be promised, in percent. */
  overProvisioningPercent: number
  /** Nothing new goes to a disk with less free space: the smaller of the two. */
  freeBytesMin: number
  freePercentMin: number
}

export const defaultLimits: PlacementLimits = {
  overProvisioningPercent: 200,
  freeBytesMin: 10 * 1024 ** 3,
  freePercentMin: 5,
}

export type Placement = { placed: true; replicas: { node: string; disk: string }[] } | { placed: false; reason: string }

interface Candidate {
  node: string
  disk: ClusterDisk
  /** Share of what may be promised that is promised, with the new replica. The emptiest is taken. */
  fill: number
}

export function place(
  nodes: readonly ClusterNode[],
  request: PlacementRequest,
  limits: PlacementLimits = defaultLimits,
): Placement {
  const refused = new Map<string, string[]>()
  const byNode: Candidate[][] = []
  for (const node of nodes) {
    const candidates: Candidate[] = []
    for (const disk of node.disks) {
      const obstacle = node.allowScheduling ? obstacleOn(disk, request, limits) : 'the node takes no new replicas'
      if (obstacle === null) candidates.push({ node: node.name, disk, fill: fillOf(disk, request, limits) })
      else addTo(refused, obstacle, `${node.name}/${disk.id}`)
    }
    if (candidates.length > 0) byNode.push(candidates.sort(byFill))
  }
  // Distinct nodes are a hard limit where the cluster has enough of them; else distinct disks, evenly over the nodes.
  const perNodeMax = nodes.length >= request.numberOfReplicas ? 1 : Infinity
  const chosen = chooseInRounds(byNode, request.numberOfReplicas, perNodeMax)
  if (chosen.length === request.numberOfReplicas) {
    return { placed: true, replicas: chosen.map(({ node, disk }) => ({ node, disk: disk.id })) }
  }
  return { placed: false, reason: explain(nodes, request, chosen.length, perNodeMax, refused) }
}

/** Each round takes at most one disk of each node, the emptiest first. */
function chooseInRounds(byNode: readonly Candidate[][], wanted: number, perNodeMax: number): Candidate[] {
  const chosen: Candidate[] = []
  for (let round = 0; round < perNodeMax && chosen.length < wanted; ++round) {
    const offers = byNode.map((candidates) => candidates[round]).filter((offer) => offer !== undefined)
    if (offers.length === 0) break
    chosen.push(...lowest(offers, wanted - chosen.length))
  }
  return chosen
}

/** The n lowest by fill, in one pass: n is small, the offers are many. */
function lowest(offers: readonly Candidate[], n: number): Candidate[] {
  const kept: Candidate[] = []
  for (const offer of offers) {
    const last = kept.at(-1)
    if (kept.length === n && last !== undefined && byFill(offer, last) >= 0) continue
    let at = kept.length
    while (at > 0 && byFill(offer, kept[at - 1] ?? offer) < 0) --at
    kept.splice(at, 0, offer)
    if (kept.length > n) kept.pop()
  }
  return kept
}

function byFill(a: Candidate, b: Candidate): number {
  if (a.fill !== b.fill) return a.fill - b.fill
  if (a.node !== b.node) return a.node < b.node ? -1 : 1
  return a.disk.id < b.disk.id ? -1 : a.disk.id > b.disk.id ? 1 : 0
}

function obstacleOn(disk: ClusterDisk, request: PlacementRequest, limits: PlacementLimits): string | null {
  if (!disk.ready) return 'the disk is not ready'
  if (!disk.allowScheduling) return 'the disk takes no new replicas'
  return spaceObstacle(disk, request.sizeBytes, limits)
}

/** Why volumes that are placed cannot become larger, each by so much; null: they can. A disk that is away is not known. */
export function growthObstacle(
  nodes: readonly ClusterNode[],
  replicas: readonly { node: string; disk: string }[],
  moreBytes: number,
  limits: PlacementLimits = defaultLimits,
): string | null {
  const obstacles = replicas.flatMap(({ node, disk: id }) => {
    const disk = nodes.find(({ name }) => name === node)?.disks.find((disk) => disk.id === id)
    const obstacle = disk?.ready ? spaceObstacle(disk, moreBytes, limits) : null
    return obstacle === null ? [] : [`${obstacle} (${node}/${id})`]
  })
  return obstacles.length === 0 ? null : obstacles.join('; ')
}

function spaceObstacle(disk: ClusterDisk, bytes: number, limits: PlacementLimits): string | null {
  const freeMin = Math.min(limits.freeBytesMin, (disk.totalBytes * limits.freePercentMin) / 100)
  if (disk.freeBytes < freeMin)
    return `less than ${limits.freePercentMin}% or ${formatBytes(limits.freeBytesMin)} is free`
  if (disk.scheduledBytes + bytes > promisable(disk, limits)) {
    return `more than ${limits.overProvisioningPercent}% of the disk would be promised`
  }
  return null
}

function fillOf(disk: ClusterDisk, request: PlacementRequest, limits: PlacementLimits): number {
  return (disk.scheduledBytes + request.sizeBytes) / Math.max(1, promisable(disk, limits))
}

function promisable(disk: ClusterDisk, limits: PlacementLimits): number {
  return (disk.totalBytes * limits.overProvisioningPercent) / 100
}

const examplesMax = 4

function explain(
  nodes: readonly ClusterNode[],
  request: PlacementRequest,
  found: number,
  perNodeMax: number,
  refused: ReadonlyMap<string, string[]>,
): string {
  const disks = nodes.reduce((sum, node) => sum + node.disks.length, 0)
  const each = perNodeMax === 1 ? 'a node of its own' : 'a disk of its own'
  const parts = [
    `${request.numberOfReplicas} replicas of ${formatBytes(request.sizeBytes)} need ${each} each, and ${found} of them ` +
      `can be placed on the ${count(disks, 'disk')} of ${count(nodes.length, 'node')}`,
  ]
  for (const [obstacle, where] of refused) {
    const more = where.length > examplesMax ? ` and ${where.length - examplesMax} more` : ''
    parts.push(`${obstacle} (${where.slice(0, examplesMax).join(', ')}${more})`)
  }
  return parts.join('; ')
}

export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}

function addTo(map: Map<string, string[]>, key: string, value: string): void {
  const list = map.get(key)
  if (list) list.push(value)
  else map.set(key, [value])
}
