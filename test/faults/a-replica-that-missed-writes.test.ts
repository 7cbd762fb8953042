// A replica that left and missed writes is there again after a restart of everything, and looks like the others. Longhorn takes it back as good
// when all its records were written alike, and reads alternate between old and new.

import t from 'tap'
import { aCluster, lacks, signal } from './cluster.js'

t.test('a replica missed writes, and everything is killed and started again', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  // The first in the list, which an engine without memory would choose to read from.
  signal(cluster.diskHostPid(cluster.sites[0]!), 'SIGSTOP')
  await cluster.members(2)
  await load.more(400)
  await Promise.all(cluster.network.hosts.map((host) => cluster.turnOff(host)))
  for (const host of cluster.network.hosts) await cluster.restart(host)
  await cluster.attach()
  await load.more(400)
  await cluster.endsWell(load, 'a replica missed writes, and everything was killed')
})
