// SIGKILL of each kind of process under load: the supervisor starts it again, and nobody leaves for it.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'

const rounds = 2

for (const together of [true, false]) {
  const where = together ? 'on one machine, through shared memory' : 'each on its own machine'
  t.test(`a disk host is killed, ${where}`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t, { together })
    const load = await cluster.load()
    for (let round = 0; round < rounds; round++) {
      const site = cluster.sites[round]!
      await cluster.killed(() => cluster.diskHostPid(site))
      await load.more(300)
      await cluster.members(3)
    }
    await cluster.endsWell(load, `a disk host is killed, ${where}`)
  })
}
