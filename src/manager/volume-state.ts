// The state machine of a volume, in one function: from what is wanted and what is seen to what is reported and what is
// done next. Level-triggered: it looks at no history but the stored volume, so that a missed event changes nothing.
//
//   creating ──▶ detached ◀──▶ attaching ──▶ attached ──▶ detaching ──▶ detached
//       │            any state but deleting ──▶ faulted, and back when the cause is gone
//       └──────────▶ any state ──▶ deleting ──▶ gone

import type { EngineReport, ReplicaReport } from '../agent/index.js'
import { replicaStates, type ReplicaState, type Robustness, type Volume, type VolumeState } from '../store/index.js'
import { isBeingMade } from './clones.js'
import { expansionMessage } from './expansion.js'
import { count } from './placement.js'

export interface ObservedReplica {
  state: ReplicaReport['state'] | 'disk-starting' | 'disk-failed' | 'unknown'
  directory: string
  message: string
  /** Absent: not known. */
  readOnly?: boolean
}

export interface Observed {
  replicas: ReadonlyMap<string, ObservedReplica>
  /** On the node that has the attachment; of that attachment. */
  engine: EngineReport | undefined
  /** The node answered a plan without this engine, and reports none. */
  engineEnded: boolean
  /** How long a volume that wants an attachment has been waiting for its disks. */
  waitedMs: number
}

/** What brings the volume nearer to what is wanted. */
export type Step = 'none' | 'give-attachment' | 'release-attachment' | 'forget'

export interface Assessment {
  status: Volume['status']
  step: Step
}

/** A volume that has run before starts without disks that stay silent for so long: the engine decides by its record. */
export const diskWaitMs = 10_000

export function assess(volume: Volume, observed: Observed): Assessment {
  const { state, robustness, message, step } = decide(volume, observed)
  const replicas = volume.replicas.map(({ id }) => replicaStatus(volume, id, observed))
  const waitsFor = state === 'attached' ? (observed.engine?.waitsFor ?? '') : ''
  return { status: { state, robustness, message, ...(waitsFor === '' ? {} : { waitsFor }), replicas }, step }
}

interface Decision {
  state: VolumeState
  robustness: Robustness
  message: string
  step: Step
}

/** Whether the plan of `node` has this volume's engine. */
export function wantsEngine(volume: Volume, node: string): boolean {
  const { metadata, spec, membership } = volume
  return metadata.deletionTimestamp === undefined && spec.nodeID === node && membership.node === node
}

/** Replicas go only when no engine can be writing to them. */
export function wantsReplicasGone(volume: Volume): boolean {
  return volume.metadata.deletionTimestamp !== undefined && volume.membership.node === null
}

function decide(volume: Volume, observed: Observed): Decision {
  const { metadata, spec, membership } = volume
  const held = membership.node !== null
  if (metadata.deletionTimestamp !== undefined)
    return held ? stopping('deleting', observed) : removing(volume, observed)
  if (held && membership.node !== spec.nodeID) return stopping('detaching', observed)
  if (held) return running(volume, observed)
  return resting(volume, observed)
}

function stopping(state: 'deleting' | 'detaching', { engine, engineEnded }: Observed): Decision {
  const message = engine?.message === undefined || engine.message === '' ? 'the engine is stopping' : engine.message
  return { state, robustness: 'unknown', message, step: engineEnded ? 'release-attachment' : 'none' }
}

function removing(volume: Volume, { replicas }: Observed): Decision {
  const left = volume.replicas.filter(({ id }) => replicas.get(id)?.state !== 'removed')
  const troubles = left.flatMap(({ id, disk }) => {
    const replica = replicas.get(id)
    const bad = replica?.state === 'failed' || replica?.state === 'disk-failed'
    return bad ? [`${disk}: ${replica.message}`] : []
  })
  const why = troubles.length > 0 ? `; ${troubles.join('; ')}` : ''
  return {
    state: 'deleting',
    robustness: 'unknown',
    message: `${count(left.length, 'replica')} still to be removed${why}`,
    step: left.length === 0 ? 'forget' : 'none',
  }
}

function resting(volume: Volume, observed: Observed): Decision {
  const wanted = volume.spec.nodeID !== null
  const isNew = volume.membership.record.generation === 0 || isBeingMade(volume)
  const seen = volume.replicas.map(({ id, disk }) => ({ disk, replica: observed.replicas.get(id) }))
  const failed = seen.filter(({ replica }) => replica?.state === 'failed' || replica?.state === 'disk-failed')
  const pending = seen.filter(
    ({ replica, disk }) => replica?.state !== 'ready' && !failed.some((other) => other.disk === disk),
  )
  const failures = failed.map(({ disk, replica }) => `${disk}: ${replica?.message ?? ''}`).join('; ')
  if (isNew && failed.length > 0) return rest('faulted', `a replica could not be made, it is tried again: ${failures}`)
  if (isNew && pending.length > 0) return rest('creating', `waiting for ${pending.map(({ disk }) => disk).join(', ')}`)
  if (!wanted) return rest('detached', failures)
  if (failed.length === seen.length) return rest('faulted', `no replica can be reached: ${failures}`)
  if (pending.length > 0 && observed.waitedMs < diskWaitMs) {
    return rest('attaching', `waiting for ${pending.map(({ disk }) => disk).join(', ')}`)
  }
  return rest('attaching', 'starting the engine', 'give-attachment')
}

function rest(state: VolumeState, message: string, step: Step = 'none'): Decision {
  return { state, robustness: state === 'faulted' ? 'faulted' : 'unknown', message, step }
}

function running(volume: Volume, { engine }: Observed): Decision {
  const step = 'none'
  if (!engine) return { state: 'attaching', robustness: 'unknown', message: 'starting the engine', step }
  const message = engine.message === '' ? expansionMessage(volume, engine) : engine.message
  // What has no address yet serves nobody, whatever its replicas are.
  const isReachable = engine.nbd !== undefined && engine.iscsi !== undefined
  switch (engine.state) {
    case 'starting':
    case 'stopping':
    case 'stopped':
      return { state: 'attaching', robustness: 'unknown', message, step }
    case 'serving':
    case 'degraded':
      if (!isReachable) return { state: 'attaching', robustness: 'unknown', message, step }
      return { state: 'attached', robustness: robustnessOf(volume, engine), message, step }
    case 'waiting':
      if (!isReachable) return { state: 'attaching', robustness: 'unknown', message, step }
      return { state: 'attached', robustness: 'degraded', message: message === '' ? 'I/O waits' : message, step }
    case 'refused':
      return { state: 'faulted', robustness: 'faulted', message, step }
  }
}

function robustnessOf(volume: Volume, engine: EngineReport): Robustness {
  return engine.members.length >= volume.spec.numberOfReplicas && engine.state === 'serving' ? 'healthy' : 'degraded'
}

function replicaStatus(volume: Volume, id: string, observed: Observed): Volume['status']['replicas'][number] {
  const replica = observed.replicas.get(id)
  const before = volume.status.replicas.find((other) => other.id === id)
  const ofEngine = wantsEngine(volume, volume.membership.node ?? '')
    ? observed.engine?.replicas.find((other) => other.id === id)
    : undefined
  const state = replicaState(volume, id, replica, ofEngine?.state)
  const reason = ofEngine !== undefined && state === asReplicaState(ofEngine.state) ? ofEngine.reason : ''
  const fault = reason === '' ? '' : (ofEngine?.fault ?? '')
  return {
    ...(fault === '' ? {} : { fault }),
    id,
    state,
    directory:
      replica?.directory === undefined || replica.directory === '' ? (before?.directory ?? '') : replica.directory,
    message: reason === '' ? (replica?.message ?? '') : reason,
  }
}

function replicaState(
  volume: Volume,
  id: string,
  replica: ObservedReplica | undefined,
  ofEngine: string | undefined,
): ReplicaState {
  if (wantsReplicasGone(volume)) {
    return replica?.state === 'failed' || replica?.state === 'removed' ? replica.state : 'removing'
  }
  const { record } = volume.membership
  const left = record.generation > 0 && !record.members.includes(id)
  // The engine knows best who takes part; a disk that failed under a member is news that it has not heard yet.
  if (ofEngine === 'member' || ofEngine === 'left' || ofEngine === 'resyncing' || ofEngine === 'suspect')
    return ofEngine
  switch (replica?.state) {
    case 'failed':
    case 'disk-failed':
      return 'failed'
    case 'creating':
      return left ? 'left' : 'creating'
    case 'ready':
      return left ? 'left' : asReplicaState(ofEngine ?? 'ready')
    case 'removed':
    case 'unknown':
    case 'disk-starting':
    case undefined:
      return left ? 'left' : 'unknown'
  }
}

function asReplicaState(state: string): ReplicaState {
  return replicaStates.find((known) => known === state) ?? 'unknown'
}
