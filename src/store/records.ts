import { randomUUID } from 'node:crypto'
import { AnkoleError } from '../api/errors.js'
import type { Kind, MembershipRecord, Resources, Volume } from './resources.js'
import type { Store } from './store.js'

const triesMax = 20

/**
 * Reads, changes and writes until no one else wrote in between. `change` gets a copy of its own each time, and returns
 * false where there is nothing to do.
 */
export async function modify<K extends Kind>(
  store: Store,
  kind: K,
  name: string,
  change: (resource: Resources[K]) => boolean,
): Promise<Resources[K]> {
  for (let tries = 1; ; ++tries) {
    const resource = await store.get(kind, name)
    if (!resource) throw new AnkoleError('not-found', `${kind} ${name} does not exist.`)
    if (!change(resource)) return resource
    try {
      return await store.update(kind, resource)
    } catch (error) {
      if (tries < triesMax && error instanceof AnkoleError && error.code === 'conflict') continue
      throw error
    }
  }
}

/** Records are ordered by epoch, then by generation. */
export function compareRecords(a: MembershipRecord, b: MembershipRecord): number {
  return a.epoch.attachment - b.epoch.attachment || a.epoch.run - b.epoch.run || a.generation - b.generation
}

/**
 * Rule 3: the store gives the attachment and its record in one step, and refuses records of lower attachments from then
 * on. `volume` is as it was read: the update fails if anything was written since, a record above all.
 */
export function giveAttachment(volume: Volume, node: string, bootId: string): Volume {
  const { membership } = volume
  const before = membership.host
  // The clients of a host are gone with it. Where that is not known they are taken to be there still.
  const known = bootId !== '' && (before !== undefined || membership.attachment === 0)
  const clientsAnew = known && (before?.node !== node || before.bootId !== bootId)
  const attachment = membership.attachment + 1
  return { ...volume, membership: { ...membership, attachment, node, host: { node, bootId }, clientsAnew } }
}

const salvagesKept = 10

/**
 * Starts against the rules, as the owner asked: a new attachment and the record that it starts from, in one step. The
 * record is of run 0, which no engine writes. Rejects with conflict if the volume is no longer at `attachment`.
 */
export async function salvageVolume(
  store: Store,
  name: string,
  attachment: number,
  what: { attachment: number; record: MembershipRecord; reason: string; mayLose: string },
): Promise<Volume> {
  const storeId = await storeIdentity(store)
  return await modify(store, 'Volume', name, (volume) => {
    const { membership } = volume
    if (membership.attachment !== attachment) {
      throw new AnkoleError('conflict', `Volume ${name} was attached anew while it was to be salvaged.`)
    }
    const { record, reason, mayLose } = what
    volume.membership = { ...membership, attachment: what.attachment, record, storeId, clientsAnew: false }
    const salvage = { at: new Date().toISOString(), attachment: what.attachment, replicas: record.members }
    volume.salvages = [...(volume.salvages ?? []), { ...salvage, reason, mayLose }].slice(-salvagesKept)
    return true
  })
}

/** Reads the volume: the store answers, and the volume is still at this attachment. */
export async function probeStore(store: Store, name: string, attachment: number): Promise<void> {
  const volume = await store.get('Volume', name)
  if (!volume) throw new AnkoleError('not-found', `Volume ${name} does not exist.`)
  if (volume.membership.attachment !== attachment) {
    throw new AnkoleError(
      'stale-attachment',
      `Volume ${name} is at attachment ${volume.membership.attachment}, not ${attachment}.`,
    )
  }
}

/** Durable when it resolves. The same record again is fine; an older one, or one of a lower attachment, is refused. */
export async function storeRecord(store: Store, name: string, record: MembershipRecord): Promise<void> {
  const storeId = await storeIdentity(store)
  await modify(store, 'Volume', name, (volume) => {
    const { membership } = volume
    if (record.epoch.attachment !== membership.attachment) {
      throw new AnkoleError(
        'stale-attachment',
        `The record of volume ${name} was refused: it is of attachment ${record.epoch.attachment}, the volume is at ` +
          `attachment ${membership.attachment}.`,
      )
    }
    const order = compareRecords(record, membership.record)
    if (order < 0) {
      throw new AnkoleError(
        'stale-record',
        `The record of volume ${name} was refused: generation ${record.generation} of run ${record.epoch.run} is older ` +
          `than the stored generation ${membership.record.generation} of run ${membership.record.epoch.run}.`,
      )
    }
    if (order === 0) {
      if (sameMembers(record, membership.record)) return confirm(membership, storeId)
      throw new AnkoleError(
        'stale-record',
        `The record of volume ${name} was refused: generation ${record.generation} is stored with other members.`,
      )
    }
    const known = new Set(volume.replicas.map((replica) => replica.id))
    const stranger = record.members.find((id) => !known.has(id))
    if (record.members.length === 0 || stranger !== undefined) {
      throw new AnkoleError(
        'invalid-argument',
        `The record of volume ${name} was refused: ` +
          (stranger === undefined ? 'it has no members.' : `replica ${stranger} is not one of the volume's.`),
      )
    }
    membership.record = {
      epoch: { attachment: record.epoch.attachment, run: record.epoch.run },
      generation: record.generation,
      members: [...record.members],
      snapshot: record.snapshot,
    }
    confirm(membership, storeId)
    return true
  })
}

/** Rule 6: what was restored from a copy may be behind, until it has taken a record itself. */
function confirm(membership: Volume['membership'], storeId: string): boolean {
  if (membership.storeId === storeId) return false
  membership.storeId = storeId
  return true
}

function sameMembers(a: MembershipRecord, b: MembershipRecord): boolean {
  return a.snapshot === b.snapshot && [...a.members].sort().join() === [...b.members].sort().join()
}

/** The random id that this store got when it was made. */
export async function storeIdentity(store: Store): Promise<string> {
  const found = await store.get('StoreIdentity', 'store')
  if (found) return found.storeId
  return (await store.create('StoreIdentity', { metadata: { name: 'store' }, storeId: randomUUID() })).storeId
}
