// Many sessions write the same few blocks at once, while one replica or another lags behind: all must end with the same bytes. Longhorn's engine
// sends what overlaps to each replica in whatever order it comes.

import t from 'tap'
import { aCluster, lacks, signal, sleep } from './cluster.js'

const pulses = 9
const lagMs = 120

for (const together of [true, false]) {
  const where = together ? 'all on one machine' : 'each on its own machine'
  t.test(`a few blocks, many writers, ${where}`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t, { together })
    const load = await cluster.load({
      ...{ sessions: { nbd: 7, iscsi: 7 }, blocks: 10, restMs: 0 },
      percent: { read: 15, flush: 1, unmap: 0 },
    })
    for (let pulse = 0; pulse < pulses; pulse++) {
      const pid = cluster.diskHostPid(cluster.sites[pulse % cluster.sites.length]!)
      signal(pid, 'SIGSTOP')
      await sleep(lagMs)
      signal(pid, 'SIGCONT')
      await load.more(300)
    }
    t.equal(cluster.engine!.members.length, 3, 'nobody left for it')
    await cluster.endsWell(load, `overlapping writes, ${where}`)
  })
}
