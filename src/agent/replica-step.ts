// What is next to do for one replica of a disk, as one function of what the plan wants, what is known of it and what
// the disk host lists.

import type { DiskReplica } from '../native/index.js'
import type { ReplicaPlan, ReplicaReport } from './plan.js'

export type ReplicaStep =
  | { do: 'create' }
  | { do: 'remove' }
  /** Nothing: this is how it is. */
  | { do: 'note'; state: ReplicaReport['state']; message: string }

export interface KnownReplica {
  state: ReplicaReport['state']
  /** This agent has had it ready since it last became wanted: its directory must be there. */
  wasReady: boolean
}

export function nextReplicaStep(plan: ReplicaPlan, known: KnownReplica, listed: DiskReplica | undefined): ReplicaStep {
  switch (plan.desired) {
    case 'absent':
      return listed === undefined ? { do: 'note', state: 'removed', message: '' } : { do: 'remove' }
    case 'present':
      if (listed === undefined && known.wasReady) {
        // Created anew it would be empty under the name of one that holds data.
        return { do: 'note', state: 'failed', message: 'its directory is gone from the disk' }
      }
      if (listed?.state === 'failed') return { do: 'note', state: 'failed', message: listed.error }
      // Somebody confirmed that what was adopted may be written to.
      if (listed?.readOnly && plan.adopt?.readOnly === false) return { do: 'create' }
      if (listed !== undefined && known.wasReady) return { do: 'note', state: 'ready', message: '' }
      // Also one that is there: the disk host checks that it is what the plan means, and says so.
      return { do: 'create' }
  }
}
