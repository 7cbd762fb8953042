// What becomes of snapshots. Pure functions of what is stored, what the volume's engine reports and the clock: the plan
// says which layers an engine is to take and which there may not be, and whoever is started anew goes on with it.
//
//   creating ─▶ ready ─▶ failed: no replica has its layer any more; ready again if one has
//      ├──────▶ failed, with a layer: nobody knows what became of it, and the next list of layers tells ─▶ ready
//      │          ▼
//      ├──────▶ failed, without one: none was taken. Its name may be used again ─▶ creating
//      └▶ any ▶ deleting ─▶ gone
import { createHash, randomBytes } from 'node:crypto'
import { AnkoleError } from '../api/errors.js'
import type { EngineReport, SnapshotsPlan, SnapshotTrouble } from '../agent/index.js'
import type { Layer } from '../native/index.js'
import type { Draft, Snapshot, Volume } from '../store/index.js'

export const snapshotTriesMax = 5
/** Nobody wants a snapshot of another time than they asked for. */
export const snapshotCreatingMsMax = 600_000
/**
 * That exist of one volume, whatever their state. Reports, lists and plans are whole documents, several times a second
 * while something changes: with so many that is up to 300 KiB each. A backup an hour for six weeks has room in it.
 */
export const snapshotsMax = 1024

/** Who asked for it does not wait any more. */
export const revertMsMax = 120_000

const layerNameLengthMax = 63
const nameLengthMax = 63
const labelsBytesMax = 4096

/** What the engine may answer although the next try may do: it is not settled, or nobody knows what became of this one. */
const passingCodes: ReadonlySet<string> = new Set([
  ...['busy', 'unavailable', 'cancelled', 'connection-lost', 'timed-out', 'not-enough-replicas'],
  ...['already-exists', 'gone', 'timeout'],
])

export function snapshotKey(volume: string, name: string): string {
  return `${volume}.${name}`
}

/** Another one each time: names of layers are never used twice. */
export function newLayer(name: string): string {
  return layerNamed(name, randomBytes(4).toString('hex'))
}

function layerNamed(name: string, suffix: string): string {
  return `${name.slice(0, layerNameLengthMax - 1 - suffix.length).replace(/-+$/, '')}-${suffix}`
}

/** Of the time in UTC: «snap-20261125-163223». */
export function nameByTime(nowMs: number): string {
  const [, date = '', time = ''] = /^(.{10})T(.{8})/.exec(new Date(nowMs).toISOString()) ?? []
  return `snap-${date.replaceAll('-', '')}-${time.replaceAll(':', '')}`
}

/** Throws invalid-argument. */
export function checkLabels(labels: Record<string, string>): Record<string, string> {
  for (const [key, value] of Object.entries(labels)) {
    if (!/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?$/.test(key)) {
      throw badLabel(key, 'use letters, digits, dots, slashes, hyphens and underscores, a letter or digit at both ends')
    }
    if (/[\p{Cc}\p{Cs}]/u.test(value)) throw badLabel(key, 'its value has control characters or halves of characters')
  }
  const bytes = Buffer.byteLength(JSON.stringify(labels))
  if (bytes <= labelsBytesMax) return labels
  throw new AnkoleError(
    'invalid-argument',
    `The labels of a snapshot have ${bytes} bytes as JSON: ${labelsBytesMax} are the most.`,
  )
}

function badLabel(key: string, why: string): AnkoleError {
  return new AnkoleError(
    'invalid-argument',
    `${JSON.stringify(key.slice(0, 80))} cannot be a label of a snapshot: ${why}.`,
  )
}

export function draftSnapshot(
  volume: Volume,
  name: string,
  labels: Record<string, string>,
  abandonedLayers: string[],
  nowMs: number,
): Draft<'Snapshot'> {
  const { metadata, membership, spec } = volume
  const now = new Date(nowMs).toISOString()
  return {
    metadata: { name: snapshotKey(metadata.name, name) },
    spec: { volume: metadata.name, volumeUid: metadata.uid, name, labels, userCreated: true },
    ...{ askedAt: now, createdAt: now },
    ...{ layer: newLayer(name), attachment: membership.attachment, tries: 1, abandonedLayers },
    ...{ state: 'creating', message: '', sizeBytes: spec.sizeBytes, pauseMs: null },
  }
}

export interface SnapshotSurroundings {
  volume: Volume
  /** Of the attachment that the volume has. */
  engine: EngineReport | undefined
  /** The node follows a plan that does not ask for this layer. */
  isUnplanned: (layer: string) => boolean
  nowMs: number
}

/** As it is to be stored; null: it is gone. */
export function assessSnapshot(snapshot: Snapshot, surroundings: SnapshotSurroundings): Snapshot | null {
  const { revert } = snapshot
  if (revert?.state === 'asked') return { ...snapshot, revert: assessRevert(revert, surroundings) }
  switch (snapshot.state) {
    case 'creating':
      return assessCreating(withoutGoneLayers(snapshot, surroundings), surroundings)
    case 'deleting':
      return assessDeleting(snapshot, surroundings)
    case 'ready':
      return assessReady(withoutGoneLayers(snapshot, surroundings), surroundings)
    case 'failed':
      return assessFailed(withoutGoneLayers(snapshot, surroundings), surroundings)
  }
}

function assessCreating(snapshot: Snapshot, surroundings: SnapshotSurroundings): Snapshot {
  const { volume, engine, nowMs } = surroundings
  const { membership, spec, metadata } = volume
  const { layer, tries } = snapshot
  const isOfThisAttachment = snapshot.attachment === membership.attachment && membership.node !== null
  const answer = isOfThisAttachment ? engine?.snapshots?.answers.find((answer) => answer.layer === layer) : undefined
  if (answer?.taken) return ready(snapshot, { pauseMs: answer.pauseNs / 1e6, sizeBytes: spec.sizeBytes })
  if (metadata.deletionTimestamp !== undefined) return failed(snapshot, 'the volume is being deleted')
  // Its layer may be there, and sealed, and lack what was acknowledged.
  if (answer !== undefined && !passingCodes.has(answer.code)) return failed(snapshot, answer.message)
  const isLate = nowMs - Date.parse(snapshot.askedAt) > snapshotCreatingMsMax
  if (isOfThisAttachment && answer === undefined && !isLate) return snapshot // It is asked for.
  // What nobody answered for may be there all the same: the list tells, however late it is.
  const layers = engine?.snapshots?.layers
  const found = layers === undefined ? undefined : candidateOf(snapshot, layers)
  if (found !== undefined) return found.sealed ? readyAs(snapshot, found) : snapshot // It is sealed or deleted soon.
  if (isLate && engine?.snapshots?.taking === layer) return snapshot // Its answer is worth more than the list.
  if (isLate) {
    const late = `it was not taken within ${snapshotCreatingMsMax / 60_000} minutes`
    return assessFailed({ ...snapshot, state: 'failed', message: late }, surroundings)
  }
  if (membership.node === null && spec.nodeID === null) {
    return { ...snapshot, state: 'failed', message: 'the volume was detached' }
  }
  if (layers === undefined) return snapshot
  if (tries >= snapshotTriesMax) {
    const last = answer === undefined ? 'the volume was attached anew meanwhile' : answer.message
    return failed(snapshot, `none could be taken in ${tries} tries, the last time: ${last}`)
  }
  return {
    ...abandon(snapshot),
    ...{ layer: newLayer(snapshot.spec.name), attachment: membership.attachment, tries: tries + 1 },
    createdAt: new Date(nowMs).toISOString(),
    message: answer?.message ?? '',
  }
}

function ready(snapshot: Snapshot, taken: Pick<Snapshot, 'pauseMs' | 'sizeBytes'>): Snapshot {
  return { ...snapshot, state: 'ready', message: '', tries: 0, ...taken }
}

/** With a layer that nobody answered for. */
function readyAs(snapshot: Snapshot, { name: layer, sizeBytes }: Layer): Snapshot {
  const abandonedLayers = layersOf(snapshot).filter((other) => other !== layer)
  return ready({ ...snapshot, layer, abandonedLayers }, { pauseMs: null, sizeBytes })
}

/** For good. */
function failed(snapshot: Snapshot, message: string): Snapshot {
  return { ...abandon(snapshot), state: 'failed', message }
}

function abandon(snapshot: Snapshot): Snapshot {
  const { layer, abandonedLayers } = snapshot
  return layer === null ? snapshot : { ...snapshot, layer: null, abandonedLayers: [...abandonedLayers, layer] }
}

function assessDeleting(snapshot: Snapshot, { engine, isUnplanned }: SnapshotSurroundings): Snapshot | null {
  const own = layersOf(snapshot)
  if (own.length === 0) return null
  const { layers, troubles = [] } = engine?.snapshots ?? {}
  if (layers === undefined || layers.length === 0) return snapshot
  const message = troubles.find(({ layer }) => own.includes(layer))?.message ?? ''
  const isGone = own.every((layer) => isLayerGone(layer, layers, troubles))
  // One that is still asked for may come to be after this list.
  if (isGone && own.every(isUnplanned)) return null
  return message === snapshot.message ? snapshot : { ...snapshot, message }
}

/** The list is of one member: where a deletion failed the layer may be at another one. */
function isLayerGone(name: string, layers: readonly Layer[], troubles: readonly SnapshotTrouble[]): boolean {
  return !presentByName(layers).has(name) && !troubles.some(({ layer }) => layer === name)
}

/** What is deleted everywhere, and will not come to be any more, need not be kept in mind. */
function withoutGoneLayers(snapshot: Snapshot, { engine, isUnplanned }: SnapshotSurroundings): Snapshot {
  const { layers, troubles = [] } = engine?.snapshots ?? {}
  if (layers === undefined || layers.length === 0) return snapshot
  const unwanted = unwantedOf(snapshot)
  const gone = unwanted.filter((layer) => isLayerGone(layer, layers, troubles) && isUnplanned(layer))
  if (gone.length === 0) return snapshot
  return { ...snapshot, abandonedLayers: snapshot.abandonedLayers.filter((layer) => !gone.includes(layer)) }
}

type Revert = NonNullable<Snapshot['revert']>

/** Throws nothing: who may be taken back to is the keeper's affair. `after`: the newest layer. */
export function draftRevert({ spec }: Snapshot, volume: Volume, after: string, force: boolean, nowMs: number): Revert {
  return {
    ...{ layer: newLayer(`revert-${spec.name}`), after, attachment: volume.membership.attachment },
    ...{ askedAt: new Date(nowMs).toISOString(), force },
    ...{ state: 'asked', code: '', message: '', pauseMs: null },
  }
}

function assessRevert(revert: Revert, { volume, engine, nowMs }: SnapshotSurroundings): Revert {
  const { membership } = volume
  const isOfThisAttachment = revert.attachment === membership.attachment && membership.node !== null
  const answer = isOfThisAttachment ? engine?.snapshots?.revert : undefined
  if (answer?.layer === revert.layer) {
    if (answer.reverted) return { ...revert, state: 'done', pauseMs: answer.pauseNs / 1e6 }
    return { ...revert, state: 'failed', code: answer.code, message: answer.message }
  }
  if (membership.record.snapshot === revert.layer) return { ...revert, state: 'done' }
  const unknown = (message: string): Revert => ({ ...revert, state: 'unknown', message })
  if (!isOfThisAttachment) return unknown('the volume was detached before its engine answered')
  const isLate = nowMs - Date.parse(revert.askedAt) > revertMsMax
  return isLate ? unknown(`its engine did not answer within ${revertMsMax / 60_000} minutes`) : revert
}

/** A layer that is gone is told. */
function assessReady(snapshot: Snapshot, { engine }: SnapshotSurroundings): Snapshot {
  const layers = engine?.snapshots?.layers
  const { layer } = snapshot
  if (layer === null || layers === undefined || layers.length === 0) return snapshot
  if (candidateOf(snapshot, layers) !== undefined) return snapshot
  return { ...snapshot, state: 'failed', message: `no replica of the volume has its layer ${layer} any more` }
}

/** A layer is told that is back with a replica that was chosen by hand, or that was finished as nobody looked. */
function assessFailed(snapshot: Snapshot, { engine, isUnplanned }: SnapshotSurroundings): Snapshot {
  const layers = engine?.snapshots?.layers
  if (snapshot.layer === null || layers === undefined || layers.length === 0) return snapshot
  const found = candidateOf(snapshot, layers)
  const wasReady = snapshot.tries === 0
  if (found?.sealed) return wasReady ? { ...snapshot, state: 'ready', message: '' } : readyAs(snapshot, found)
  const mayCome = found !== undefined || wasReady || !candidatesOf(snapshot).every(isUnplanned)
  return mayCome ? snapshot : failed(snapshot, snapshot.message)
}

/** Each of these would be this snapshot. The others of its layers are none, and deleted wherever they turn up. */
function candidatesOf({ layer, tries, abandonedLayers }: Snapshot): string[] {
  if (layer === null) return []
  return tries === 0 ? [layer] : [...abandonedLayers, layer].slice(-tries)
}

function candidateOf(snapshot: Snapshot, layers: readonly Layer[]): Layer | undefined {
  const there = presentByName(layers)
  const found = candidatesOf(snapshot).flatMap((name) => there.get(name) ?? [])
  return found.find(({ sealed }) => sealed) ?? found[0]
}

/** Layers that are to be deleted where there are any. */
function unwantedOf(snapshot: Snapshot): string[] {
  if (snapshot.state === 'deleting') return layersOf(snapshot)
  const candidates = candidatesOf(snapshot)
  return snapshot.abandonedLayers.filter((layer) => !candidates.includes(layer))
}

function layersOf({ layer, abandonedLayers }: Snapshot): string[] {
  return layer === null ? abandonedLayers : [layer, ...abandonedLayers]
}

/** The frozen ones that are there as their snapshots' own. */
function present(layers: readonly Layer[]): Layer[] {
  return layers.filter(({ name, removed }) => name !== '' && !removed)
}

const indexes = new WeakMap<readonly Layer[], ReadonlyMap<string, Layer>>()

/** Each snapshot of a volume is looked for in the same list, which never changes. */
function presentByName(layers: readonly Layer[]): ReadonlyMap<string, Layer> {
  const known = indexes.get(layers)
  if (known !== undefined) return known
  const index = new Map(present(layers).map((layer) => [layer.name, layer]))
  indexes.set(layers, index)
  return index
}

/** Sealed layers that no snapshot of the store has: it was put back from a copy, above all. */
export function layersToAdopt(
  { metadata }: Volume,
  snapshots: readonly Snapshot[],
  engine: EngineReport | undefined,
  nowMs: number,
): Draft<'Snapshot'>[] {
  const known = new Set(snapshots.flatMap(layersOf))
  const names = new Set(snapshots.map(({ spec }) => spec.name))
  return present(engine?.snapshots?.layers ?? []).flatMap(
    ({ name: layer, sealed, userCreated, createdSeconds, sizeBytes }) => {
      if (!sealed || known.has(layer)) return []
      const name = nameOfLayer(layer, names)
      names.add(name)
      const createdAt = timeOf(createdSeconds, nowMs)
      return {
        metadata: { name: snapshotKey(metadata.name, name) },
        spec: { volume: metadata.name, volumeUid: metadata.uid, name, labels: {}, userCreated },
        ...{ askedAt: createdAt, createdAt },
        ...{ layer, attachment: 0, tries: 0, abandonedLayers: [], state: 'ready' as const },
        ...{ message: '', sizeBytes, pauseMs: null },
      }
    },
  )
}

const dateMsMax = 8.64e15

/** As a replica's disk has it: 0 is not known, and what is no time may be anything. */
function timeOf(createdSeconds: number, nowMs: number): string {
  const ms = createdSeconds * 1000
  return new Date(ms > 0 && ms <= dateMsMax ? ms : nowMs).toISOString()
}

/** The layer's own name, as far as that can name a snapshot; the same each time. */
export function nameOfLayer(layer: string, taken: ReadonlySet<string>): string {
  const name = layer
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, nameLengthMax)
  const isFine = name === layer && !taken.has(name)
  return isFine
    ? name
    : layerNamed(name === '' ? 'snap' : name, createHash('sha256').update(layer).digest('hex').slice(0, 8))
}

/** What the engine of the volume is to do; undefined: nothing. */
export function snapshotsPlan({ membership }: Volume, snapshots: readonly Snapshot[]): SnapshotsPlan | undefined {
  const take = snapshots
    .filter(({ state, layer, attachment }) => {
      return state === 'creating' && layer !== null && attachment === membership.attachment
    })
    .sort(byRequest)
    .map(({ layer, spec, createdAt }) => ({
      layer: layer ?? '',
      ...{ labels: spec.labels, userCreated: spec.userCreated },
      createdSeconds: Math.floor(Date.parse(createdAt) / 1000),
    }))
  const absent = snapshots.flatMap(unwantedOf)
  const revert = snapshots.flatMap(({ revert, layer: base }) => {
    if (revert?.state !== 'asked' || base === null || revert.attachment !== membership.attachment) return []
    const { layer, after, force } = revert
    return [{ layer, base, after, force }]
  })[0]
  if (take.length + absent.length === 0 && revert === undefined) return undefined
  return { take, absent, ...(revert === undefined ? {} : { revert }) }
}

/** In the order in which they were asked for. */
export function byRequest(a: Snapshot, b: Snapshot): number {
  return compare(a.askedAt, b.askedAt) || compare(a.metadata.name, b.metadata.name)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
