// What the supervisor keeps of each volume's engine, so that the next run goes on from it without the store (rule 6), and
// without waiting for the lease of one before it (rule 4).
//
// An engine says each record before any replica gets it, on the channel that its questions to the store take too. One
// that dies may take its last words with it, but then they were of a record that needs no store: a start finds such a
// one by itself, with half of the members of the record before. If the supervisor dies all of this goes with it, and the
// next start needs the store.

import type { EngineConfig, EngineEvent, Epoch, KeptMembership } from '../native/index.js'

interface Membership {
  attachment: number
  kept: KeptMembership | undefined
  /** Every engine that could still answer reads of the volume ran here, and has ended. */
  alone: boolean
}

export class Memberships {
  readonly #volumes = new Map<string, Membership>()

  /** `volume` names it once and for all. For a run whose forerunners here, if any, were seen to end. */
  start(volume: string, { attachment, run }: Epoch): Pick<EngineConfig, 'kept' | 'alone'> {
    const before = this.#volumes.get(volume)
    const first = attachment === 1 && run === 1
    const follows = before !== undefined && attachment - before.attachment <= 1
    const membership: Membership = {
      attachment,
      // The store gave a new attachment with the record to start from.
      kept: before?.attachment === attachment ? before.kept : undefined,
      alone: first || (follows && before.alone),
    }
    this.#volumes.set(volume, membership)
    const { kept, alone } = membership
    return { alone, ...(kept === undefined ? {} : { kept: structuredClone(kept) }) }
  }

  onEvent(volume: string, event: EngineEvent): void {
    const membership = this.#volumes.get(volume)
    if (membership === undefined) return
    switch (event.event) {
      case 'proposal':
        membership.kept?.proposals.push(event.record)
        return
      case 'complete':
        membership.kept = { complete: event.record, proposals: [] }
        return
      case 'serving':
        // It waited for the lease of the one before it, or knew that there is none.
        membership.alone = true
        return
      case 'cannot-start':
      case 'io-backend':
      case 'log':
      case 'probe':
      case 'record':
      case 'replica':
      case 'scrub':
      case 'size':
      case 'state':
      case 'stopped':
      case 'trim':
        return
    }
  }
}
