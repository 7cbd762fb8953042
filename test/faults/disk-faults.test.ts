// Disks that fail, run full, or take their time.

import t from 'tap'
import { aCluster, lacks, sleep } from './cluster.js'
import { longRun } from './options.js'

const slowMs = longRun ? 10_000 : 4_000

t.test('every I/O of a disk fails with EIO: its replica leaves, and no request fails', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const site = cluster.sites[1]!
  site.disk.losePower()
  // Whichever of its writes and flushes meets it first.
  await cluster.leaves(site, 'io-error', 'flush-failed')
  await load.more(300)
  await cluster.endsWell(load, 'EIO', { stallMs: 1500 })
})

t.test('a disk takes seconds for one I/O: its replica leaves, and no request fails', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t)
  const load = await cluster.load()
  const site = cluster.sites[2]!
  site.disk.freeze()
  const frozen = sleep(slowMs)
  await cluster.leaves(site, 'no-answer')
  await load.more(300)
  await frozen
  site.disk.thaw()
  await cluster.whole()
  await load.more(300)
  await cluster.endsWell(load, `a disk takes ${slowMs / 1000} s for one I/O`, { stallMs: 1500 })
})

const small = { sizeBytes: 96 << 20, diskBytes: 112 << 20 }
/** More than what is left on a disk that was filled. */
const manyBlocks = 2400
const leftBytes = 2 << 20
const blocksToRead = 64

t.test('one disk is full: its replica leaves, and no request fails', { skip: lacks }, async (t) => {
  const cluster = await aCluster(t, small)
  const load = await cluster.load({ blocks: manyBlocks, percent: { read: 10, flush: 1, unmap: 0 }, restMs: 0 })
  const site = cluster.sites[0]!
  site.disk.fill(leftBytes)
  await cluster.leaves(site, 'no-space')
  await load.more(300)
  await cluster.endsWell(load, 'one disk is full')
})

t.test(
  'all disks are full: writes wait, reads go on, and all goes on when there is space',
  { skip: lacks },
  async (t) => {
    const cluster = await aCluster(t, small)
    const load = await cluster.load({ blocks: manyBlocks, percent: { read: 10, flush: 1, unmap: 0 }, restMs: 0 })
    // What a write that waits is for cannot be read meanwhile.
    const blocksLeftOut = manyBlocks - blocksToRead
    await load.narrow(blocksLeftOut)
    await load.more(50)
    // All at once: one that is full alone leaves.
    load.pause()
    for (const { disk } of cluster.sites) disk.fill(leftBytes)
    load.resume()
    await cluster.engineIs('out of space', ({ state }) => state === 'waiting')
    const reader = await cluster.load({
      ...{ blocks: manyBlocks, blocksLeftOut, percent: { read: 100, flush: 0, unmap: 0 } },
    })
    await reader.more(100)
    reader.kill()
    for (const { disk } of cluster.sites) disk.empty()
    await load.more(500)
    await cluster.endsWell(load, 'all disks are full')
  },
)
