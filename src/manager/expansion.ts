// A volume that becomes larger. What is wanted is its spec's size; until its engine has said that clients have it, the
// store keeps what they had and which order it is. Functions of what is stored and what the engine reports.
import { randomBytes } from 'node:crypto'
import type { EngineReport } from '../agent/index.js'
import { AnkoleError, isErrorCode, type ErrorCode } from '../api/errors.js'
import type { Volume } from '../store/index.js'
import { formatBytes } from './volume-spec.js'

/** What clients are known to have seen: no engine serves less. */
export function servedBytes({ spec, expansion }: Volume): number {
  return expansion?.fromBytes ?? spec.sizeBytes
}

/** What people are shown: what clients have, and of a volume that has none what they will have. */
export function shownBytes(volume: Volume): number {
  return volume.membership.node === null ? volume.spec.sizeBytes : servedBytes(volume)
}

export interface ExpansionRefusal {
  id: string
  toBytes: number
  code: ErrorCode
  message: string
}

export interface ExpansionStep {
  volume: Volume
  /** It could not be: the volume is as it was. */
  refused?: ExpansionRefusal
}

/**
 * Wants it larger: true where there is something to do. `obstacle` says why its disks have no place for so many bytes more;
 * null: they have. Throws invalid-size, busy and cannot-place.
 */
export function orderExpansion(
  volume: Volume,
  sizeBytes: number,
  obstacle: (growthBytes: number) => string | null,
): boolean {
  const { spec, expansion, membership, metadata } = volume
  if (sizeBytes === spec.sizeBytes) return false
  const what = `Volume ${metadata.name} cannot be expanded to ${formatBytes(sizeBytes)} (${sizeBytes} bytes)`
  if (sizeBytes < spec.sizeBytes) {
    const has = `${formatBytes(spec.sizeBytes)} (${spec.sizeBytes} bytes)`
    throw new AnkoleError('invalid-size', `${what}: it has ${has}, and a volume does not become smaller.`)
  }
  const attached = membership.node !== null
  if (attached && expansion !== undefined) {
    throw new AnkoleError('busy', `${what} now: it is being expanded to ${formatBytes(spec.sizeBytes)}.`)
  }
  const reason = obstacle(sizeBytes - spec.sizeBytes)
  if (reason !== null) throw new AnkoleError('cannot-place', `${what}: ${reason}.`)
  volume.expansion = { id: randomBytes(8).toString('hex'), fromBytes: servedBytes(volume), attached }
  volume.spec.sizeBytes = sizeBytes
  return true
}

/** Throws what the engine said where this order could not be carried out. True: it was. */
export function isExpanded(volume: Volume, id: string, refused: ExpansionRefusal | undefined): boolean {
  const { name } = volume.metadata
  if (refused?.id === id) {
    const { code, toBytes, message } = refused
    const to = formatBytes(toBytes)
    throw new AnkoleError(code, `Volume ${name} cannot be expanded to ${to}: ${message}. It is as it was.`)
  }
  // What is detached meanwhile is expanded when it is attached again.
  return volume.expansion?.id !== id || volume.membership.node === null
}

/** The engine's report taken in. A volume never becomes smaller: what the engine serves counts in any case. */
export function assessExpansion(volume: Volume, engine: EngineReport | undefined): ExpansionStep {
  const { expansion, spec, membership } = volume
  const seenBytes = engine?.sizeBytes ?? 0
  if (expansion === undefined) return { volume: withSize(volume, Math.max(spec.sizeBytes, seenBytes)) }
  if (seenBytes >= spec.sizeBytes) return { volume: withSize(withoutExpansion(volume), seenBytes) }
  const fromBytes = Math.max(expansion.fromBytes, seenBytes)
  const said = engine?.expansion?.id === expansion.id ? engine.expansion : undefined
  if (said?.state === 'failed' && expansion.attached) {
    const { code, message } = said
    const known = isErrorCode(code) ? code : 'internal'
    const refused = { id: expansion.id, toBytes: spec.sizeBytes, code: known, message }
    return { volume: withSize(withoutExpansion(volume), fromBytes), refused }
  }
  // Detached meanwhile it is an order like one for a detached volume: carried out whenever it can be.
  const attached = expansion.attached && membership.node !== null
  return { volume: { ...volume, expansion: { ...expansion, fromBytes, attached } } }
}

/** Why the volume is not as large as it is wanted; empty: it is, or nothing is known. */
export function expansionMessage({ expansion }: Volume, engine: EngineReport | undefined): string {
  if (expansion === undefined || engine?.expansion?.id !== expansion.id) return ''
  const { state, message } = engine.expansion
  return state === 'done' || message === '' ? '' : `it is not as large as it is wanted: ${message}`
}

function withSize(volume: Volume, sizeBytes: number): Volume {
  return sizeBytes === volume.spec.sizeBytes ? volume : { ...volume, spec: { ...volume.spec, sizeBytes } }
}

function withoutExpansion(volume: Volume): Volume {
  const others = { ...volume }
  delete others.expansion
  return others
}
