// `ankole volume salvage`: the owner of a volume that cannot start by rule 6 chooses the replicas to go on with. What is
// chosen and what it may cost is worked out here from what the engine heard; src/store/records.ts makes it so, in one
// step, as a new attachment with a record of run 0, which no engine writes.
import type { EngineReport } from '../agent/index.js'
import { AnkoleError } from '../api/errors.js'
import type { HeardReplica } from '../native/index.js'
import { compareRecords, type MembershipRecord, type Volume } from '../store/index.js'

export interface SalvagePlan {
  attachment: number
  record: MembershipRecord
  reason: string
  mayLose: string
}

type Answered = HeardReplica & Required<Pick<HeardReplica, 'record' | 'welcomed'>>

/** Throws salvage-not-needed, not-enough-replicas or invalid-argument. `chosen` empty: those with the newest record. */
export function planSalvage(volume: Volume, engine: EngineReport | undefined, chosen: readonly string[]): SalvagePlan {
  const { name } = volume.metadata
  const found = engine?.cannotStart
  if (engine === undefined || found === undefined || volume.status.state === 'attached') {
    throw new AnkoleError(
      'salvage-not-needed',
      `Volume ${name} cannot be salvaged: ${
        volume.membership.node === null
          ? 'it is not attached, so nothing has refused to start'
          : 'its engine has not refused to start'
      }.`,
    )
  }
  const answered = found.replicas.filter(isAnswered)
  const known = new Set(volume.replicas.map(({ id }) => id))
  const stranger = chosen.find((id) => !known.has(id))
  if (stranger !== undefined) {
    throw new AnkoleError('invalid-argument', `Volume ${name} cannot be salvaged: it has no replica ${stranger}.`)
  }
  const silent = chosen.find((id) => !answered.some((replica) => replica.id === id))
  if (silent !== undefined) {
    const why = found.replicas.find(({ id }) => id === silent)?.reason ?? 'it was not asked'
    throw new AnkoleError(
      'not-enough-replicas',
      `Volume ${name} cannot be salvaged with replica ${silent}: it does not answer (${why}).`,
    )
  }
  const withRecord = answered.filter(({ record }) => record.generation > 0)
  const newest = newestOf(withRecord)
  const members = chosen.length > 0 ? [...new Set(chosen)] : newest.map(({ id }) => id)
  if (members.length === 0) {
    throw new AnkoleError(
      'not-enough-replicas',
      `Volume ${name} cannot be salvaged: no replica that answers holds a record. ${found.lacking}.`,
    )
  }
  const { membership } = volume
  const records = [found.newest, membership.record, ...answered.map(({ record }) => record)]
  const attachments = [
    membership.attachment,
    ...records.map(({ epoch }) => epoch.attachment),
    ...answered.map(({ welcomed }) => welcomed.attachment),
  ]
  const attachment = Math.max(...attachments) + 1
  const kept = newestOf(withRecord.filter(({ id }) => members.includes(id)))
  return {
    attachment,
    record: {
      epoch: { attachment, run: 0 },
      generation: Math.max(...records.map(({ generation }) => generation)) + 1,
      members: members.sort(),
      snapshot: kept[0]?.record.snapshot ?? found.newest.snapshot,
    },
    reason: found.lacking === '' ? engine.message : found.lacking,
    mayLose: describeLoss(found.newest, kept),
  }
}

function isAnswered(replica: HeardReplica): replica is Answered {
  return replica.answered && replica.record !== undefined && replica.welcomed !== undefined
}

function newestOf(replicas: readonly Answered[]): Answered[] {
  const newest = replicas.reduce<Answered | undefined>(
    (best, replica) => (best === undefined || compareRecords(replica.record, best.record) > 0 ? replica : best),
    undefined,
  )
  return newest === undefined ? [] : replicas.filter(({ record }) => compareRecords(record, newest.record) === 0)
}

/** For the owner, before and after. */
function describeLoss(newest: MembershipRecord, kept: readonly Answered[]): string {
  const [first] = kept
  if (first === undefined) return 'everything: no chosen replica holds a record'
  if (compareRecords(first.record, newest) < 0) {
    return (
      `what was written since generation ${first.record.generation} (epoch ${first.record.epoch.attachment}.` +
      `${first.record.epoch.run}): members of generation ${newest.generation} are not among the chosen replicas`
    )
  }
  if (kept.every(({ suspect }) => suspect === true)) {
    return 'what was written and not flushed before the machines of the chosen replicas went down, and what members that do not answer hold of a newer generation'
  }
  return 'what members that do not answer hold of a newer generation, if there was one; if there was none, nothing'
}
