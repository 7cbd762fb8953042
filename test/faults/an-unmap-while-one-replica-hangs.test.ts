// On Longhorn an UNMAP that one replica does not answer takes a healthy replica with it.

import t from 'tap'
import { aCluster, lacks, signal, sleep } from './cluster.js'

/** Longer than what makes a replica late: whoever is to leave has left. */
const afterwardsMs = 2500

t.test('unmaps while a replica hangs: it leaves, and no other', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load({ percent: { read: 20, flush: 1, unmap: 50 } })
  const [one, other, hung] = cluster.sites
  const pid = cluster.diskHostPid(hung!)
  signal(pid, 'SIGSTOP')
  const { unmaps } = load.progress
  await cluster.members(2)
  await sleep(afterwardsMs)
  t.ok(cluster.isMember(one!) && cluster.isMember(other!), 'the healthy ones are members')
  t.ok(load.progress.unmaps > unmaps, 'it went on unmapping')
  signal(pid, 'SIGCONT')
  await load.more(200)
  t.ok(cluster.isMember(one!) && cluster.isMember(other!), 'and still are when it is back')
  await cluster.endsWell(load, 'unmaps while a replica hangs', { stallMs: 1500 })
})
