// Keeps the snapshots of all volumes: takes in what users want of them, and brings each nearer to it at every look.
import type { EngineReport } from '../agent/index.js'
import { AnkoleError } from '../api/errors.js'
import { modify, type Snapshot, type Store, type Volume, type WatchEvent } from '../store/index.js'
import type { Logger } from './context.js'
import {
  assessSnapshot,
  byRequest,
  checkLabels,
  draftRevert,
  draftSnapshot,
  layersToAdopt,
  nameByTime,
  snapshotKey,
  snapshotsMax,
} from './snapshots.js'
import { checkName } from './volume-spec.js'

export interface SnapshotRequest {
  /** By the time if not given. */
  name?: string | undefined
  labels?: Record<string, string> | undefined
}

interface OfVolume {
  readonly byName: Map<string, Snapshot>
  /** In the order in which they were asked for; undefined: since a change nobody has looked. */
  sorted: readonly Snapshot[] | undefined
}

export class SnapshotKeeper {
  /** By the uid of their volume. Invariant: none is empty. */
  readonly #volumes = new Map<string, OfVolume>()

  constructor(
    private readonly store: Store,
    private readonly log: Logger,
  ) {}

  onEvent({ type, resource }: WatchEvent<'Snapshot'>): void {
    const { metadata, spec } = resource
    const volume: OfVolume = this.#volumes.get(spec.volumeUid) ?? { byName: new Map(), sorted: undefined }
    if (type === 'deleted') volume.byName.delete(metadata.name)
    else volume.byName.set(metadata.name, resource)
    volume.sorted = undefined
    if (volume.byName.size > 0) this.#volumes.set(spec.volumeUid, volume)
    else this.#volumes.delete(spec.volumeUid)
  }

  /** In the order in which they were asked for. */
  of({ metadata }: Volume): readonly Snapshot[] {
    const volume = this.#volumes.get(metadata.uid)
    if (volume === undefined) return []
    volume.sorted ??= [...volume.byName.values()].sort(byRequest)
    return volume.sorted
  }

  /** Throws not-found. */
  one(volume: Volume, name: string): Snapshot {
    const found = this.#find(volume, name)
    if (found !== undefined) return found
    throw new AnkoleError(
      'not-found',
      `Volume ${volume.metadata.name} has no snapshot ${JSON.stringify(name.slice(0, 80))}.`,
    )
  }

  #find({ metadata }: Volume, name: string): Snapshot | undefined {
    return this.#volumes.get(metadata.uid)?.byName.get(snapshotKey(metadata.name, name))
  }

  /** Stored when it resolves, and asked of the engine after that. */
  async create(volume: Volume, request: SnapshotRequest): Promise<Snapshot> {
    const labels = checkLabels(request.labels ?? {})
    const name = request.name === undefined ? this.#freeName(volume) : checkName(request.name, 'a snapshot')
    refuseUnserved(volume, `Snapshot ${name} of volume ${volume.metadata.name} cannot be taken`)
    const draft = (abandonedLayers: string[]) => draftSnapshot(volume, name, labels, abandonedLayers, Date.now())
    const before = this.#find(volume, name)
    if (before !== undefined) {
      return await modify(this.store, 'Snapshot', before.metadata.name, (snapshot) => {
        // Where none came about the name is free, but layers may yet turn up that were asked for under it.
        if (snapshot.state !== 'failed' || snapshot.layer !== null) throw exists(volume, name)
        Object.assign(snapshot, { ...draft(snapshot.abandonedLayers), metadata: snapshot.metadata })
        return true
      })
    }
    refuseMore(volume, name, this.of(volume).length)
    try {
      return await this.store.create('Snapshot', draft([]))
    } catch (error) {
      throw error instanceof AnkoleError && error.code === 'already-exists' ? exists(volume, name) : error
    }
  }

  /** Wants it gone. Done once the volume's engine has deleted its layer. */
  async remove(volume: Volume, name: string): Promise<Snapshot> {
    const { metadata } = this.one(volume, name)
    return await modify(this.store, 'Snapshot', metadata.name, (snapshot) => {
      if (snapshot.state === 'deleting') return false
      if (snapshot.revert?.state === 'asked') {
        throw new AnkoleError(
          'snapshot-in-use',
          `Snapshot ${name} of volume ${volume.metadata.name} cannot be deleted now: the volume is being reverted to it.`,
        )
      }
      snapshot.state = 'deleting'
      snapshot.message = ''
      return true
    })
  }

  /** Throws unless the volume can be taken back to it. */
  checkRevert(volume: Volume, name: string): Snapshot {
    const snapshot = this.one(volume, name)
    const what = `Volume ${volume.metadata.name} cannot be reverted to snapshot ${name}`
    refuseUnserved(volume, what)
    if (snapshot.state !== 'ready' || snapshot.layer === null) {
      throw new AnkoleError('snapshot-not-ready', `${what}: it is ${snapshot.state}, not ready.`)
    }
    const other = this.of(volume).find(({ revert }) => revert?.state === 'asked')
    if (other === undefined) return snapshot
    throw new AnkoleError('snapshot-in-use', `${what} now: it is being reverted to snapshot ${other.spec.name}.`)
  }

  /** Stored when it resolves, and asked of the engine after that. `kept`: the newest snapshot, of what is there now. */
  async revert(volume: Volume, name: string, kept: string, force: boolean): Promise<Snapshot> {
    const { metadata } = this.checkRevert(volume, name)
    const { layer: after } = this.one(volume, kept)
    if (after === null) throw new AnkoleError('internal', `Snapshot ${kept} has no layer.`)
    return await modify(this.store, 'Snapshot', metadata.name, (snapshot) => {
      this.checkRevert(volume, name)
      snapshot.revert = draftRevert(snapshot, volume, after, force, Date.now())
      return true
    })
  }

  /** One look. True: another one is due soon, whatever happens. */
  async bringNearer(
    volume: Volume,
    engine: EngineReport | undefined,
    isUnplanned: (layer: string) => boolean,
  ): Promise<boolean> {
    let waits = false
    for (const snapshot of this.of(volume)) {
      const next = assessSnapshot(snapshot, { volume, engine, isUnplanned, nowMs: Date.now() })
      await this.#write(snapshot, next)
      waits ||= next?.state === 'creating' || next?.revert?.state === 'asked'
    }
    for (const draft of layersToAdopt(volume, this.of(volume), engine, Date.now())) {
      const { spec, layer } = await this.store.create('Snapshot', draft)
      this.log.warn(
        { volume: spec.volume, snapshot: spec.name, layer },
        'a snapshot that the store did not know was found at the replicas',
      )
    }
    return waits
  }

  async #write(before: Snapshot, next: Snapshot | null): Promise<void> {
    const { metadata, spec } = before
    if (next === before) return
    const fields = { volume: spec.volume, snapshot: spec.name }
    if (next === null) {
      await this.store.delete('Snapshot', metadata.name, metadata.resourceVersion)
      this.log.info(fields, 'snapshot deleted')
      return
    }
    if (JSON.stringify(next) === JSON.stringify(before)) return
    await this.store.update('Snapshot', next)
    this.#tellRevert(before, next)
    if (next.state === before.state) return
    const { layer, pauseMs } = next
    if (next.state === 'ready') this.log.info({ ...fields, layer, pauseMs }, 'snapshot is ready')
    else if (next.state === 'failed') this.log.warn(fields, `snapshot failed: ${next.message}`)
  }

  #tellRevert({ spec, revert: before }: Snapshot, { revert }: Snapshot): void {
    if (revert === undefined || revert.state === before?.state) return
    const fields = { volume: spec.volume, snapshot: spec.name, layer: revert.layer }
    if (revert.state === 'done') this.log.info(fields, 'volume was reverted to the snapshot')
    else this.log.warn(fields, `volume was not reverted to the snapshot (${revert.state}): ${revert.message}`)
  }

  /** With the volume, whose replicas go with all layers. */
  async forget(volume: Volume): Promise<void> {
    for (const { metadata } of this.of(volume)) await this.store.delete('Snapshot', metadata.name)
  }

  /** Those of volumes that are no more. */
  async dropOrphans(volumes: readonly Volume[]): Promise<void> {
    const uids = new Set(volumes.map(({ metadata }) => metadata.uid))
    const orphans = [...this.#volumes].flatMap(([uid, { byName }]) => (uids.has(uid) ? [] : [...byName.keys()]))
    for (const name of orphans) await this.store.delete('Snapshot', name)
  }

  #freeName(volume: Volume): string {
    const name = nameByTime(Date.now())
    for (let n = 1; ; n++) {
      const candidate = n === 1 ? name : `${name}-${n}`
      if (this.#find(volume, candidate) === undefined) return candidate
    }
  }
}

/** Throws unless the volume is attached, and to stay so. */
function refuseUnserved({ metadata, spec, membership, status }: Volume, what: string): void {
  if (metadata.deletionTimestamp !== undefined) {
    throw new AnkoleError('volume-deleting', `${what}: the volume is being deleted.`)
  }
  if (status.state === 'attached' && spec.nodeID !== null && spec.nodeID === membership.node) return
  throw new AnkoleError('volume-not-attached', `${what}: the volume is ${status.state}, not attached.`)
}

/** Throws if there are as many as there may be. */
function refuseMore({ metadata }: Volume, name: string, count: number): void {
  if (count < snapshotsMax) return
  throw new AnkoleError(
    'too-many-snapshots',
    `Snapshot ${name} of volume ${metadata.name} cannot be taken: the volume has ${count}, with those that failed or are ` +
      `being deleted, and ${snapshotsMax} are the most. Delete some first.`,
  )
}

function exists({ metadata }: Volume, name: string): AnkoleError {
  return new AnkoleError('already-exists', `Volume ${metadata.name} has a snapshot ${name} already.`)
}
