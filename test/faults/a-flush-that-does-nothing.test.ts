// What was flushed before all lost power is there, on one replica and on each of three. A flush that is answered and does nothing loses it:
// between the last flush and the loss nothing else is written, so that nothing else can have synced it.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'

for (const replicas of [1, 3]) {
  t.test(`flushed, and then all ${replicas} lose power`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t, { replicas })
    const load = await cluster.load({ percent: { read: 20, flush: 0, unmap: 5 } })
    await load.more(400)
    await load.stopAndFlush()
    await cluster.allLosePower(load)
    await cluster.endsWell(load, `flushed, and then all ${replicas} lose power`)
  })
}
