// From snapshots that are stored, and layers as an engine lists them, to what REST shows.
import type { Changes } from '../manager/index.js'
import type { Layer } from '../native/index.js'
import type { Snapshot, Volume } from '../store/index.js'
import type { ChangesView, LayerView, SnapshotList, SnapshotView } from './snapshot-schemas.js'

/** Longhorn's name for it. */
const headName = 'volume-head'

export function snapshotView(snapshot: Snapshot, layers: readonly Layer[] | undefined, clones: string[]): SnapshotView {
  const { spec, state, message, createdAt, sizeBytes, pauseMs, layer } = snapshot
  const found = layers?.find(({ name, removed }) => name === layer && !removed)
  return {
    ...{ volume: spec.volume, name: spec.name, state, message, labels: spec.labels, userCreated: spec.userCreated },
    ...{ createdAt, sizeBytes, pauseMs, layer },
    parent: found === undefined || found.parent === '' ? null : found.parent,
    children: found === undefined ? [] : childrenOf(found, layers ?? []),
    allocatedBytes: found?.allocatedBytes ?? null,
    clones,
  }
}

export function snapshotList(
  { metadata, clonedFrom, status: { state } }: Volume,
  snapshots: readonly Snapshot[],
  layers: readonly Layer[] | undefined,
  clonesOf: (snapshot: Snapshot) => string[],
): SnapshotList {
  const base = baseOf(clonedFrom?.layer, layers ?? [])
  const sharers = sharersOf(snapshots, layers ?? [], clonesOf)
  const why = state === 'attached' ? 'its engine does not answer now' : `it is ${state}`
  return {
    volume: metadata.name,
    snapshots: snapshots.map((snapshot) => snapshotView(snapshot, layers, clonesOf(snapshot))),
    layers: layers?.map((layer) => layerView(layer, layers, snapshots, { base, sharers })) ?? null,
    message: layers === undefined ? why : '',
  }
}

export function changesView(
  names: Pick<ChangesView, 'volume' | 'snapshot' | 'from'>,
  { sizeBytes, fromSizeBytes, nextOffset, superset, extents }: Changes,
): ChangesView {
  return {
    ...names,
    ...{ sizeBytes, fromSizeBytes: names.from === null ? null : fromSizeBytes, superset },
    extents: extents.map(({ offset, length, zero }) => ({ offset, length, kind: zero ? 'zero' : 'data' })),
    nextOffset: nextOffset < sizeBytes ? nextOffset : null,
  }
}

/** The layers that a linked clone began with, which are removed: from that of the snapshot down. */
function baseOf(layer: string | undefined, layers: readonly Layer[]): ReadonlySet<string> {
  const base = new Set<string>()
  for (let name = layer; name !== undefined && name !== '' && !base.has(name);) {
    const found = layers.find((other) => other.name === name && other.removed)
    if (found !== undefined) base.add(name)
    name = found?.parent
  }
  return base
}

/** By layer: the linked clones of the snapshots that stand on it, which have its file. */
function sharersOf(
  snapshots: readonly Snapshot[],
  layers: readonly Layer[],
  clonesOf: (snapshot: Snapshot) => string[],
): ReadonlyMap<string, string[]> {
  const parents = new Map(layers.map(({ name, parent }) => [name, parent]))
  const sharers = new Map<string, Set<string>>()
  for (const snapshot of snapshots) {
    const clones = clonesOf(snapshot)
    const seen = new Set<string>()
    for (let name = snapshot.layer ?? ''; clones.length > 0 && name !== '' && !seen.has(name);) {
      sharers.set(name, new Set([...(sharers.get(name) ?? []), ...clones]))
      seen.add(name)
      name = parents.get(name) ?? ''
    }
  }
  return new Map([...sharers].map(([name, clones]) => [name, [...clones].sort()]))
}

function layerView(
  layer: Layer,
  layers: readonly Layer[],
  snapshots: readonly Snapshot[],
  { base, sharers }: { base: ReadonlySet<string>; sharers: ReadonlyMap<string, string[]> },
): LayerView {
  const { name, parent, allocatedBytes, removed } = layer
  const owner = removed ? undefined : snapshots.find((snapshot) => snapshot.layer === name)
  return {
    ...{ name: name === '' ? headName : name, head: name === '', snapshot: owner?.spec.name ?? null },
    ...{ parent: parent === '' ? null : parent, children: childrenOf(layer, layers), allocatedBytes, removed },
    ...{ base: base.has(name), clones: sharers.get(name) ?? [] },
  }
}

function childrenOf({ name }: Layer, layers: readonly Layer[]): string[] {
  if (name === '') return []
  return layers.flatMap((other) => (other.parent === name ? [other.name === '' ? headName : other.name] : []))
}
