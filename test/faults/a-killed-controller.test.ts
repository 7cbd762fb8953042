// The engine is killed under an initiator. It is to see its connection break, log in again and find everything as it was, and never to be told of
// a medium error: a file system on Longhorn turns read-only at once.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'

const rounds = 3

t.test(
  'an engine is killed under iSCSI sessions: no check condition but for the new login',
  { skip: lacks },
  async (t) => {
    const cluster = await aCluster(t)
    const load = await cluster.load({ sessions: { nbd: 0, iscsi: 6 } })
    for (let round = 0; round < rounds; round++) {
      const { logins } = load.progress
      await cluster.killed(() => cluster.enginePid())
      await load.more(200)
      t.ok(load.progress.logins >= logins + 6, 'all logged in again')
    }
    await cluster.endsWell(load, 'engine killed under iSCSI', { stallMs: 3000 })
  },
)
