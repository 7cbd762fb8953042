// SIGSTOP: a process that is there, whose connections stay open, and that answers nothing.

import t from 'tap'
import { aCluster, lacks, signal } from './cluster.js'
import { longRun } from './options.js'

const lastHangsMs = longRun ? 60_000 : 12_000

for (const together of [true, false]) {
  const where = together ? 'all on one machine' : 'each on its own machine'
  t.test(`a disk host hangs, ${where}: its replica leaves, and no request fails`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t, { together })
    const load = await cluster.load()
    const site = cluster.sites[2]!
    const pid = cluster.diskHostPid(site)
    signal(pid, 'SIGSTOP')
    await cluster.members(2)
    t.notOk(cluster.isMember(site), 'it is the one that hangs')
    await load.more(300)
    signal(pid, 'SIGCONT')
    await load.more(300)
    await cluster.endsWell(load, `disk host hangs, ${where}`, { stallMs: 1500 })
  })
}

t.test('the last replica hangs: everything waits, and goes on when it wakes', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t, { replicas: 1 })
  const load = await cluster.load()
  const pid = cluster.diskHostPid(cluster.sites[0]!)
  signal(pid, 'SIGSTOP')
  const { answered } = await load.rests(lastHangsMs)
  signal(pid, 'SIGCONT')
  await load.more(300)
  t.ok(load.progress.answered > answered)
  t.equal(load.progress.errors.length, 0)
  await cluster.endsWell(load, `the only replica hangs for ${lastHangsMs / 1000} s`)
})
