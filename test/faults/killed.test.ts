// SIGKILL of each kind of process under load: the supervisor starts it again, and nobody leaves for it.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'
import { noteFigure } from './figures.js'

const rounds = 2

for (const together of [true, false]) {
  const where = together ? 'all on one machine' : 'each on its own machine'

  t.test(`a disk host is killed, ${where}`, { skip: lacks }, async (t) => {
    const event = `disk host killed, ${where}`
    const cluster = await aCluster(t, { together })
    const load = await cluster.load()
    let longestMs = 0
    for (let round = 0; round < rounds; round++) {
      const site = cluster.sites[round]!
      const killedAt = performance.now()
      await cluster.killed(() => cluster.diskHostPid(site))
      await cluster.whole()
      longestMs = Math.max(longestMs, performance.now() - killedAt)
      await load.more(200)
    }
    noteFigure(t, { event, what: 'to full redundancy', value: longestMs, unit: 'ms' }, 2000)
    await cluster.endsWell(load, event, { stallMs: 1000 })
  })

  t.test(`an engine is killed, ${where}: the clients log in again`, { skip: lacks }, async (t) => {
    const event = `engine killed, ${where}`
    const cluster = await aCluster(t, { together })
    const load = await cluster.load()
    let longestMs = 0
    for (let round = 0; round < rounds; round++) {
      const { logins } = load.progress
      const killedAt = performance.now()
      await cluster.killed(() => cluster.enginePid())
      await cluster.whole()
      longestMs = Math.max(longestMs, performance.now() - killedAt)
      await load.more(200)
      t.ok(load.progress.logins > logins, 'they had to')
    }
    noteFigure(t, { event, what: 'to full redundancy', value: longestMs, unit: 'ms' }, 5000)
    await cluster.endsWell(load, event, { stallMs: 3000 })
  })
}

t.test('everything is killed at once and started again', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  for (let round = 0; round < rounds; round++) {
    await Promise.all(cluster.network.hosts.map((host) => cluster.turnOff(host)))
    for (const host of cluster.network.hosts) await cluster.restart(host)
    await cluster.attach()
    await load.more(200)
  }
  await cluster.endsWell(load, 'everything killed at once')
})
