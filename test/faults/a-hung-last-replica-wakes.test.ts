// The only replica that is left hangs for longer than any time limit of ours, and wakes. Longhorn's engine gives it up after 8 s, and the volume
// has failed for good by then.

import t from 'tap'
import { aCluster, lacks, signal } from './cluster.js'
import { longRun } from './options.js'

const hangsMs = longRun ? 60_000 : 7_000

t.test('the only replica hangs: everything waits, and goes on when it wakes', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t, { replicas: 1 })
  const load = await cluster.load()
  const pid = cluster.diskHostPid(cluster.sites[0]!)
  signal(pid, 'SIGSTOP')
  await load.rests(hangsMs)
  signal(pid, 'SIGCONT')
  await load.more(300)
  await cluster.endsWell(load, `the only replica hangs for more than ${hangsMs / 1000} s`)
})

t.test('two of three hang, one after the other, and then the last', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const pids = cluster.sites.map((site) => cluster.diskHostPid(site))
  for (const [n, pid] of pids.slice(0, 2).entries()) {
    signal(pid, 'SIGSTOP')
    await cluster.members(2 - n)
    await load.more(100)
  }
  signal(pids[2]!, 'SIGSTOP')
  await load.rests(2000)
  signal(pids[2]!, 'SIGCONT')
  await load.more(300)
  for (const pid of pids.slice(0, 2)) signal(pid, 'SIGCONT')
  await cluster.endsWell(load, 'the last of three hangs')
})
