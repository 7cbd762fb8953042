// An engine is cut off together with one replica, and knows of nothing; the volume is attached elsewhere. There are never two that answer.

import t from 'tap'
import { aCluster, lacks, sleep, type Cluster } from './cluster.js'
import type { Host } from './network.js'

/** Longer than the lease of an engine's reads. */
const watchedMs = 4000
/** Blocks; the reader uses others. */
const written = 64
/** What was answered before is told by then. */
const toldMs = 200

async function split({ network }: Cluster, one: readonly Host[], other: readonly Host[]): Promise<void> {
  for (const here of one) {
    for (const there of other) {
      await network.cut(here, there)
      await network.cut(there, here)
    }
  }
}

t.test(
  'an old engine is cut off with one replica, and the volume is attached elsewhere',
  { skip: lacks },
  async (t) => {
    // Small: all of it is written, and copied, by way of the test's switch.
    const cluster = await aCluster(t, { sizeBytes: 16 << 20 })
    const oldHost = cluster.engineHost
    const newHost = await cluster.anotherHost()
    const [near, ...far] = cluster.sites.map(({ host }) => host)
    // One client that writes, and one that only reads, which needs but the replica that is left, and waits for no write.
    const writer = await cluster.load({ percent: { read: 0, flush: 2, unmap: 0 } })
    await writer.narrow(written)
    const reader = await cluster.load({ percent: { read: 100, flush: 0, unmap: 0 }, blocksLeftOut: written })
    await Promise.all([writer.more(100), reader.more(100)])

    cluster.storeOutOfReachFrom(oldHost)
    await split(cluster, [oldHost, near!], [newHost, ...far])
    await cluster.attachElsewhere(newHost)
    const load = await cluster.load({ filled: true })
    await load.fill()
    // From the first write here on the old engine answers nobody.
    await sleep(toldMs)
    const before = [writer.progress.answered, reader.progress.answered]
    await load.more(300)
    await sleep(watchedMs)
    t.strictSame([writer.progress.answered, reader.progress.answered], before, 'the old engine answers neither')
    t.strictSame([...writer.progress.errors, ...reader.progress.errors], [], 'and fails nothing')
    t.match(cluster.engineOn(oldHost), { attachment: 1, state: 'waiting', waitsFor: /^(majority|store)$/ })

    // It hears of the new one, and ends; what its clients had sent never happens.
    await cluster.network.reconnect(oldHost)
    await cluster.network.reconnect(near!)
    cluster.storeInReach()
    await cluster.until('the old engine is fenced off', () => cluster.engineOn(oldHost)?.state === 'refused')
    t.match(cluster.engineOn(oldHost), { message: /fenced|newer/ })
    for (const client of [writer, reader]) client.kill()
    await cluster.whole()
    await load.more(300)
    await cluster.endsWell(load, 'an old engine is cut off, and the volume attached elsewhere')
  },
)
