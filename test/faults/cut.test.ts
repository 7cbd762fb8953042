// What the network between machines does: nothing passes one way, or both; packets are late and get lost.

import t from 'tap'
import { aCluster, lacks, sleep, type Cluster, type Site } from './cluster.js'
import { longRun } from './options.js'

interface Cut {
  title: string
  cut: (cluster: Cluster, site: Site) => Promise<void>
}

const cuts: readonly Cut[] = [
  { title: 'to a disk host', cut: ({ network, engineHost }, { host }) => network.cut(engineHost, host) },
  { title: 'from a disk host', cut: ({ network, engineHost }, { host }) => network.cut(host, engineHost) },
  { title: 'to and from a disk host', cut: ({ network }, { host }) => network.isolate(host) },
]

for (const { title, cut } of cuts) {
  t.test(`nothing passes ${title}: its replica leaves, and no request fails`, { skip: lacks }, async (t) => {
    const cluster = await aCluster(t)
    const load = await cluster.load()
    const site = cluster.sites[1]!
    await cut(cluster, site)
    await cluster.leaves(site, 'no-answer')
    await load.more(300)
    await cluster.network.reconnect(site.host)
    await cluster.whole()
    await load.more(300)
    await cluster.endsWell(load, `nothing passes ${title}`, { stallMs: 3000 })
  })
}

t.test(
  'a machine dies without a word, and comes back while its connections are half open',
  { skip: lacks },
  async (t) => {
    const cluster = await aCluster(t)
    const load = await cluster.load()
    const site = cluster.sites[0]!
    await cluster.turnOff(site.host)
    // In time for nobody to have left, or after: either is fine.
    await cluster.restart(site.host)
    await load.more(500)
    await cluster.whole()
    await cluster.endsWell(load, 'a machine dies without a word', { stallMs: 3000 })
  },
)

t.test('the network is away for less than the grace time: nobody leaves', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t, { lateMs: 20_000 })
  const load = await cluster.load()
  for (const { host } of cluster.sites) await cluster.network.isolate(host)
  await sleep(1500)
  for (const { host } of cluster.sites) await cluster.network.reconnect(host)
  await load.more(300)
  await cluster.whole()
  await cluster.endsWell(load, 'the network is away for 1.5 s')
})

t.test('100 ms of delay, and packets that get lost', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  await cluster.network.shape(100, 1)
  await load.more(longRun ? 3000 : 150)
  await cluster.network.shape(0, 0)
  await cluster.whole()
  await load.more(200)
  await cluster.endsWell(load, '100 ms of delay with 1 % of loss')
})

t.test(
  'the engine is cut off from two of three replicas: the store decides, and it goes on',
  { skip: lacks },
  async (t) => {
    const cluster = await aCluster(t)
    const load = await cluster.load()
    const [, one, other] = cluster.sites
    await cluster.network.isolate(one!.host)
    await cluster.network.isolate(other!.host)
    await cluster.members(1)
    await load.more(300)
    t.strictSame(cluster.record.members, [cluster.sites[0]!.replica], 'the store knows who is left')
    await cluster.network.reconnect(one!.host)
    await cluster.network.reconnect(other!.host)
    await cluster.whole()
    await cluster.endsWell(load, 'cut off from two of three, store in reach', { stallMs: 3000 })
  },
)

t.test('the same, and from the store: everything waits, and goes on when one is back', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const [, one, other] = cluster.sites
  cluster.storeOutOfReach()
  await cluster.network.isolate(one!.host)
  await cluster.network.isolate(other!.host)
  const { answered } = await load.rests(longRun ? 20_000 : 6000)
  t.equal(load.progress.errors.length, 0, 'nothing failed meanwhile')
  await cluster.network.reconnect(one!.host)
  cluster.storeInReach()
  await load.more(200)
  await cluster.network.reconnect(other!.host)
  await cluster.whole()
  await load.more(200)
  t.ok(load.progress.answered > answered)
  await cluster.endsWell(load, 'cut off from two of three and the store')
})
