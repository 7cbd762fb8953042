// SIGSTOP: a disk host that is there, whose connections stay open, and that answers nothing. Longhorn's engine stalls all I/O for its 8 s
// timeout. Here the replica leaves 1 s after the others answered, while it still hangs.

import t from 'tap'
import { aCluster, lacks, signal } from './cluster.js'

for (const together of [true, false]) {
  const where = together ? 'all on one machine' : 'each on its own machine'
  t.test(`a disk host hangs, ${where}: its replica leaves, and no request fails`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t, { together })
    const load = await cluster.load()
    const site = cluster.sites[2]!
    const pid = cluster.diskHostPid(site)
    signal(pid, 'SIGSTOP')
    await cluster.leaves(site, 'no-answer')
    await load.more(300)
    signal(pid, 'SIGCONT')
    await cluster.whole()
    await load.more(300)
    await cluster.endsWell(load, `disk host hangs, ${where}`, { stallMs: 1500 })
  })
}
