// Faults of all kinds, one after another and two at a time, as a seed mixes them: `npm run test:faults -- --seed N mixed` does the same again.

import t from 'tap'
import { aCluster, lacks, signal, sleep, type Cluster, type Site } from './cluster.js'
import { longRun, seed } from './options.js'
import { Random } from './random.js'

const rounds = longRun ? 100 : 20

/** Longer than any fault here: who is away comes back in time. */
const lateMs = 30_000

/** From its beginning to its end. */
type Fault = (cluster: Cluster, site: Site, ms: number) => Promise<void>

const faults: Record<string, Fault> = {
  'disk host killed': (cluster, site) => cluster.killed(() => cluster.diskHostPid(site)),
  'engine killed': (cluster) => cluster.killed(() => cluster.enginePid()),
  'disk host stopped': async (cluster, site, ms) => {
    const pid = cluster.diskHostPid(site)
    signal(pid, 'SIGSTOP')
    await sleep(ms)
    signal(pid, 'SIGCONT')
  },
  'engine stopped': async (cluster, _, ms) => {
    const pid = cluster.enginePid()
    signal(pid, 'SIGSTOP')
    await sleep(ms)
    signal(pid, 'SIGCONT')
  },
  'nothing passes to it': async ({ network, engineHost }, { host }, ms) => {
    await network.cut(engineHost, host)
    await sleep(ms)
    await network.join(engineHost, host)
  },
  'nothing passes from it': async ({ network, engineHost }, { host }, ms) => {
    await network.cut(host, engineHost)
    await sleep(ms)
    await network.join(host, engineHost)
  },
  'delay and loss': async ({ network }, _, ms) => {
    await network.shape(30, 2)
    await sleep(ms)
    await network.shape(0, 0)
  },
  'disk slow': async (_, { disk }, ms) => {
    disk.freeze()
    await sleep(ms)
    disk.thaw()
  },
  'machine dead': async (cluster, { host }, ms) => {
    await cluster.turnOff(host)
    await sleep(ms)
    await cluster.restart(host)
  },
}

t.test(
  `${rounds} rounds, mixed by seed ${seed}`,
  { skip: lacks, timeout: longRun ? 3_000_000 : 200_000 },
  async (t) => {
    const random = new Random(seed)
    const cluster = await aCluster(t, { lateMs })
    const load = await cluster.load()
    const names = Object.keys(faults)
    for (let round = 1; round <= rounds; round++) {
      const name = random.pick(names)
      const site = random.pick(cluster.sites)
      // Two at a time do not hit the same machine, and not the engine twice.
      const others = cluster.sites.filter((other) => other !== site)
      const second = random.chance(30) ? { name: 'disk host killed', site: random.pick(others) } : undefined
      const ms = random.between(100, 1200)
      t.comment(
        `round ${round}: ${name}, ${site.plan.id}, ${ms} ms${second === undefined ? '' : `, and ${second.name}, ${second.site.plan.id}`}`,
      )
      await Promise.all([
        faults[name]!(cluster, site, ms),
        ...(second === undefined ? [] : [faults[second.name]!(cluster, second.site, ms)]),
      ])
      await load.more(50)
    }
    await cluster.whole()
    await cluster.endsWell(load, `${rounds} rounds mixed by seed`)
  },
)
