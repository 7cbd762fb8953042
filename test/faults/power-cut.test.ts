// Machines lose power: what their disks had not synced vanishes.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'

const rounds = 2

t.test('one machine loses power: no request fails', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const site = cluster.sites[1]!
  await cluster.losePower([site])
  await cluster.restart(site.host)
  await load.more(500)
  await cluster.whole()
  await cluster.endsWell(load, 'one machine loses power', { stallMs: 3000 })
})

t.test(
  'all lose power: what was flushed is there, and nothing is there that was taken back',
  { skip: lacks },
  async (t) => {
    const cluster = await aCluster(t)
    const load = await cluster.load({ percent: { read: 40, flush: 5, unmap: 4 } })
    for (let round = 0; round < rounds; round++) {
      await load.more(400)
      await cluster.allLosePower(load)
      await load.more(200)
      await cluster.whole()
    }
    await cluster.endsWell(load, 'all machines lose power')
  },
)
