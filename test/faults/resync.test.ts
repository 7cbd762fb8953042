// A replica that was away comes back by copying what changed meanwhile, and little else.

import t from 'tap'
import { aCluster, lacks } from './cluster.js'
import { noteFigure } from './figures.js'

const regionBytes = 4 << 20
const sizeBytes = 1 << 30
/** Eight of them in a row, and the rows as far apart as the volume allows: 128 regions. */
const blocks = 1024
/** Four rows, and so four regions, that change while it is away. */
const changedBlocks = 32
const changedRegions = 4
const ratioMax = 1.2

t.test('a replica was away: at most 1.2 times the regions that changed are copied', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t, { sizeBytes, diskBytes: 2 * sizeBytes })
  const load = await cluster.load({ blocks, percent: { read: 10, flush: 1, unmap: 0 } })
  await load.more(2000)
  await load.narrow(changedBlocks)
  await load.more(200)
  const site = cluster.sites[2]!
  const before = await cluster.resyncedBytes()
  await cluster.network.isolate(site.host)
  await cluster.members(2)
  await load.more(500)
  await cluster.network.reconnect(site.host)
  await cluster.whole()
  const copied = (await cluster.resyncedBytes()) - before
  const ratio = copied / (changedRegions * regionBytes)
  noteFigure(t, {
    event: 'a replica was away',
    what: 'copied, of the regions that changed',
    value: ratio,
    unit: 'times',
  })
  t.ok(ratio <= ratioMax, `${copied} bytes were copied for ${changedRegions} regions`)
  await load.more(200)
  await cluster.endsWell(load, 'a replica was away', { stallMs: 1500 })
})
