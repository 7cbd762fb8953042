// What snapshots hold: asked of the engine of their volume, which reads them at its replicas.
import { AnkoleError, isErrorCode } from '../api/errors.js'
import { RequestError, type EngineRequests, type SnapshotChanges } from '../native/index.js'
import type { Snapshot, Volume } from '../store/index.js'

type Question = 'snapshot-changes' | 'read-snapshot' | 'check-unread'

/** The part of a node's agent that is needed here. Rejects with a RequestError. */
export interface SnapshotAsker {
  askEngine<Op extends Question>(
    volume: string,
    op: Op,
    parameters: EngineRequests[Op]['parameters'],
  ): Promise<EngineRequests[Op]['result']>
}

/** A part of what changed. */
export interface Changes extends SnapshotChanges {
  /** Blocks may be among them that hold the same in both: those that were written with what they held. */
  superset: boolean
}

interface ChangesWanted {
  /** Null: nothing, so that what the snapshot has allocated is told. */
  from: Snapshot | null
  /** A multiple of 4096. */
  offset: number
  /** Of extents. */
  limit: number
}

export async function changesOf(
  volume: Volume,
  snapshot: Snapshot,
  { from, offset, limit }: ChangesWanted,
  asker: SnapshotAsker | undefined,
): Promise<Changes> {
  const what = `${subjectOf(snapshot)} cannot be compared`
  const layer = readyLayer(volume, snapshot, what)
  const base = from === null ? {} : { from: readyLayer(volume, from, `${subjectOf(from)} cannot be compared`) }
  const changes = await ask(asker, volume, 'snapshot-changes', { layer, ...base, offset, limit }, what)
  return { ...changes, superset: from !== null }
}

/** NBD clients can read it from now on, as the export that is answered; one that nobody uses for 10 s is closed. */
export async function readableSnapshot(
  volume: Volume,
  snapshot: Snapshot,
  asker: SnapshotAsker | undefined,
): Promise<{ export: string; sizeBytes: number }> {
  const what = `${subjectOf(snapshot)} cannot be read`
  const layer = readyLayer(volume, snapshot, what)
  return await ask(asker, volume, 'read-snapshot', { layer, snapshot: snapshot.spec.name }, what)
}

/** Throws snapshot-in-use. An engine that does not answer deletes nothing: what it is asked for later it may refuse. */
export async function refuseInUse(
  { metadata, status }: Volume,
  snapshot: Snapshot,
  asker: SnapshotAsker | undefined,
): Promise<void> {
  const { layer } = snapshot
  if (layer === null || asker === undefined || status.state !== 'attached') return
  try {
    await asker.askEngine(metadata.name, 'check-unread', { layer })
  } catch (error) {
    if (!(error instanceof RequestError && error.code === 'busy')) return
    throw new AnkoleError('snapshot-in-use', `${subjectOf(snapshot)} cannot be deleted: a client reads it.`)
  }
}

function subjectOf({ spec }: Snapshot): string {
  return `Snapshot ${spec.name} of volume ${spec.volume}`
}

/** Throws volume-not-attached, and snapshot-not-ready. */
function readyLayer({ status }: Volume, { state, message, layer }: Snapshot, what: string): string {
  if (status.state !== 'attached') {
    throw new AnkoleError('volume-not-attached', `${what}: the volume is ${status.state}, not attached.`)
  }
  if (state === 'ready' && layer !== null) return layer
  throw new AnkoleError('snapshot-not-ready', `${what}: it is ${state}${message === '' ? '' : `, ${message}`}.`)
}

async function ask<Op extends Question>(
  asker: SnapshotAsker | undefined,
  { metadata }: Volume,
  op: Op,
  parameters: EngineRequests[Op]['parameters'],
  what: string,
): Promise<EngineRequests[Op]['result']> {
  try {
    if (asker === undefined) throw new RequestError('gone', 'no agent is on its node')
    return await asker.askEngine(metadata.name, op, parameters)
  } catch (error) {
    if (!(error instanceof RequestError)) throw error
    const isAway = error.code === 'gone' || error.code === 'timeout'
    const code = isAway ? 'unavailable' : isErrorCode(error.code) ? error.code : 'internal'
    throw new AnkoleError(code, `${what}: ${error.message}.`, { cause: error })
  }
}
