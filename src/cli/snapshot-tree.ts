// The snapshots of a volume as people read them: the tree of its layers, each below the one that it builds on.
import type { LayerView, SnapshotList, SnapshotView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { table } from './output.js'

export function snapshotText({ volume, snapshots, layers, message }: SnapshotList, nowMs: number): string {
  if (snapshots.length === 0 && (layers ?? []).length <= 1) {
    return `Volume ${volume} has no snapshots. Take one with: ankole snapshot create ${volume}`
  }
  const owners = new Map(snapshots.map((snapshot) => [snapshot.name, snapshot]))
  const shown = new Set((layers ?? []).map(({ snapshot }) => snapshot))
  const inTree = drawTree(layers ?? []).map(({ prefix, layer }) =>
    layerRow(prefix, layer, owners.get(layer.snapshot ?? ''), nowMs),
  )
  const others = snapshots.filter(({ name }) => !shown.has(name)).map((snapshot) => snapshotRow('', snapshot, nowMs))
  const note = layers === null ? `\nOf volume ${volume} sizes, and what builds on what, are not known: ${message}.` : ''
  return `${table(['SNAPSHOT', 'SIZE', 'AGE', 'STATE', 'LABELS', 'MESSAGE'], [...inTree, ...others])}${note}`
}

function layerRow(prefix: string, layer: LayerView, owner: SnapshotView | undefined, nowMs: number): string[] {
  if (owner !== undefined) return snapshotRow(prefix, owner, nowMs)
  const size = formatBytes(layer.allocatedBytes)
  if (layer.head) return [`${prefix}* head`, size, '-', 'written to', '', '']
  const state = layer.base ? 'base' : layer.removed ? 'removed' : 'unfinished'
  const why = layer.removed && layer.clones.length > 0 ? `not merged before: ${layer.clones.join(', ')}` : ''
  // What is neither is about to be finished or deleted.
  return [`${prefix}(${layer.name})`, size, '-', state, '', why]
}

function snapshotRow(prefix: string, snapshot: SnapshotView, nowMs: number): string[] {
  const { name, allocatedBytes, createdAt, state, labels, clones } = snapshot
  const size = allocatedBytes === null ? '-' : formatBytes(allocatedBytes)
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  const cloned = clones.length === 0 ? '' : `cloned: ${clones.join(', ')}`
  const message = [snapshot.message, cloned].filter((part) => part !== '').join('; ')
  return [`${prefix}${name}`, size, ageText(nowMs - Date.parse(createdAt)), state, pairs.join(','), message]
}

/** «12 s», «5 min», «3 h», «9 d». */
export function ageText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}

interface Drawn {
  prefix: string
  layer: LayerView
}

/** What has one layer above it goes on in its column; only where the tree branches it goes to the right. */
export function drawTree(layers: readonly LayerView[]): Drawn[] {
  const above = new Map<string | null, LayerView[]>()
  for (const layer of layers) above.set(layer.parent, [...(above.get(layer.parent) ?? []), layer])
  const drawn: Drawn[] = []
  // A chain may be as long as it likes: no recursion.
  const waiting = (above.get(null) ?? []).map((layer) => ({ first: '', rest: '', layer })).reverse()
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { first, rest, layer } = next
    drawn.push({ prefix: first, layer })
    const children = layer.head ? [] : (above.get(layer.name) ?? [])
    if (children.length === 1) waiting.push(...children.map((layer) => ({ first: rest, rest, layer })))
    else {
      const branches = children.map((layer, index) => {
        const isLast = index === children.length - 1
        return { first: `${rest}${isLast ? '└─ ' : '├─ '}`, rest: `${rest}${isLast ? '   ' : '│  '}`, layer }
      })
      waiting.push(...branches.reverse())
    }
  }
  return drawn
}
