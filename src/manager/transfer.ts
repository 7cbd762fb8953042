// Images that are copied into a volume or out of it. Who copies made an id up, and acts by it: a volume that is imported
// is nobody else's until that has ended, and one that was attached for an export alone is detached after it. Each
// function changes the volume that it is given, and says whether it did.
import { AnkoleError } from '../api/errors.js'
import type { Transfer, Volume } from '../store/index.js'

const idPattern = /^[0-9a-f]{16}$/

/** Throws invalid-argument. */
export function checkTransferId(id: string): string {
  if (idPattern.test(id)) return id
  throw new AnkoleError('invalid-argument', `${JSON.stringify(id.slice(0, 80))} is no id of an import or export.`)
}

export function beginTransfer(kind: Transfer['kind'], id: string): Transfer {
  return { id: checkTransferId(id), kind, begunAt: new Date().toISOString() }
}

/** Before an attachment by who has the id `by`, or none. Throws volume-importing and busy. */
export function checkMayAttach({ metadata: { name }, transfer }: Volume, by: string | undefined): void {
  if (transfer === undefined || transfer.id === by) return
  const { kind, begunAt } = transfer
  if (kind === 'import') {
    throw new AnkoleError(
      'volume-importing',
      `Volume ${name} cannot be attached: its import, begun at ${begunAt}, has not ended.`,
    )
  }
  if (by === undefined) return
  // The other export would detach it while this one still reads.
  throw new AnkoleError(
    'busy',
    `Volume ${name} cannot be exported: another export, begun at ${begunAt}, has attached it for itself. ` +
      `If that was killed, end it: ankole volume detach ${name}`,
  )
}

/** Beside an attachment of a volume that was wanted nowhere (`isNew`), or where it is. */
export function attachedBy(volume: Volume, by: string | undefined, isNew: boolean): boolean {
  if (by === undefined) return letGo(volume)
  if (!isNew || volume.transfer !== undefined) return false
  volume.transfer = beginTransfer('export', by)
  return true
}

/** Who attaches or detaches it with no id has it from now on; the end of the export leaves it as it is then. */
export function letGo(volume: Volume): boolean {
  if (volume.transfer?.kind !== 'export') return false
  delete volume.transfer
  return true
}

/** Whether who has the id may end what the volume is attached or made for. */
export function isFor({ transfer }: Volume, by: string): boolean {
  return transfer?.id === by
}

/** The volume is whole. One that is imported no more stays as it is. Throws busy. */
export function endImport(volume: Volume, by: string): boolean {
  const { metadata, transfer, spec, membership } = volume
  if (transfer?.kind !== 'import' || transfer.id !== by) return false
  if (spec.nodeID !== null || membership.node !== null) {
    throw new AnkoleError('busy', `The import of volume ${metadata.name} cannot end before the volume is detached.`)
  }
  delete volume.transfer
  return true
}

/** For people; empty: none is under way. */
export function transferMessage({ transfer, spec }: Volume): string {
  if (transfer === undefined) return ''
  if (transfer.kind === 'export') return 'attached for an export alone'
  return spec.nodeID === null ? 'its import has not ended' : 'it is being imported'
}
