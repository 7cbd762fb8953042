// A replica that was away comes back by copying what changed meanwhile, and little else; a new one gets all. Under load, which is not to notice.
// With --figures on a volume of 10 GiB, which takes 50 GB of space and some minutes.

import { mkdtempSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { aCluster, lacks, signal, sleep, type Cluster } from './cluster.js'
import { Disk } from './disks.js'
import { noteFigure } from './figures.js'
import type { LoadOptions, LoadProcess } from './load-process.js'
import { run } from './network.js'
import { figures } from './options.js'

const regionBytes = 4 << 20
const ratioMax = 1.2

t.test('a replica was away: at most 1.2 times the regions that changed are copied', { skip: lacks }, async (t) => {
  const sizeBytes = 1 << 30
  /** Eight of them in a row, and the rows as far apart as the volume allows: 128 regions. */
  const blocks = 1024
  /** Four rows, and so four regions, that change while it is away. */
  const changedBlocks = 32
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
  noteCopied(t, 'a replica was away', (await cluster.resyncedBytes()) - before, 4)
  await load.more(200)
  await cluster.endsWell(load, 'a replica was away', { stallMs: 1500 })
})

function noteCopied(t: Test, event: string, copied: number, regions: number): void {
  const ratio = copied / (regions * regionBytes)
  noteFigure(t, { event, what: 'copied, of the regions that changed', value: ratio, unit: 'times' })
  t.ok(ratio <= ratioMax, `${copied} bytes were copied for ${regions} regions`)
}

const large = figures ? 10 * 2 ** 30 : 256 << 20
const awayMs = figures ? 60_000 : 3000
const resyncWaitMs = 600_000
/** Few, so that the client that keeps account of them has nothing to collect for longer than it measures. */
const rowsInRegion = 2

const written = {
  ...{ filled: true, blocks: (large / regionBytes) * rowsInRegion * 8, percent: { read: 30, flush: 1, unmap: 0 } },
}

/** All on one machine, so that no switch in Python stands between an engine and its replicas. */
async function aLargeVolume(
  t: Test,
  replicas: number,
  absent: number,
  load: Partial<LoadOptions>,
): Promise<[Cluster, LoadProcess]> {
  const diskBytes = Math.ceil(large * 1.1) + (64 << 20)
  const cluster = await aCluster(t, {
    ...{ sizeBytes: large, diskBytes, replicas, absent, together: true, directDisks: figures },
  })
  const client = await cluster.load({ ...written, ...load })
  await client.fill()
  return [cluster, client]
}

function noteStall(t: Test, load: LoadProcess, event: string, limitMs: number): void {
  const { longestMs, longest, ownMs } = load.progress
  const what = `longest stall (${longest}; the client itself did not run for up to ${Math.round(ownMs)} ms)`
  noteFigure(t, { event, what, value: longestMs, unit: 'ms' }, limitMs)
}

/** How long a request may take while nothing goes on but the load, and for how long that must hold. */
const quietMs = 50
const quietForMs = 10_000
const settleMs = 180_000

/**
 * What was written before lies in caches that no command reaches (of the machine that runs this one, or of the disk), and while
 * those are emptied a request takes up to a second, with nothing else going on at all. That is not what is measured.
 */
async function settle(t: Test, load: LoadProcess): Promise<void> {
  const until = performance.now() + settleMs
  for (;;) {
    await load.mark()
    await sleep(quietForMs)
    const { longestMs } = load.progress
    if (longestMs <= quietMs) return
    if (performance.now() < until) continue
    t.comment(`the disks are not quiet: a request takes up to ${Math.round(longestMs)} ms with nothing else going on`)
    return
  }
}

function dropCaches(): void {
  run('sync', [])
  writeFileSync('/proc/sys/vm/drop_caches', '3')
}

t.test('a replica was away under random writes all over the volume', { skip: lacks }, async (t) => {
  const event = `replica away for ${awayMs / 1000} s under random writes over ${large / 2 ** 30} GiB`
  const [cluster, load] = await aLargeVolume(t, 3, 0, { sessions: { nbd: 4, iscsi: 4 } })
  const pid = cluster.diskHostPid(cluster.sites[2]!)
  const before = await cluster.resyncedBytes()
  await load.mark()
  signal(pid, 'SIGSTOP')
  await cluster.members(2)
  await sleep(awayMs)
  noteStall(t, load, `${event}, while it is away`, 1500)
  const { regions } = load.progress
  await load.mark()
  const startedAt = performance.now()
  signal(pid, 'SIGCONT')
  await cluster.whole(resyncWaitMs)
  noteFigure(t, { event, what: 'to full redundancy', value: performance.now() - startedAt, unit: 'ms' })
  noteStall(t, load, `${event}, while it comes back`, 1500)
  noteCopied(t, event, (await cluster.resyncedBytes()) - before, regions)
  await cluster.endsWell(load, event, { stallMs: 1500 })
})

t.test('a new replica gets everything', { skip: lacks }, async (t) => {
  const event = `new replica, ${large / 2 ** 30} GiB written`
  const [cluster, load] = await aLargeVolume(t, 2, 1, { sessions: { nbd: 2, iscsi: 2 }, restMs: 20 })
  const site = cluster.sites[1]!
  await cluster.attach()
  await load.more(100)
  // Before and after, as what was read before is read faster, and each is the first once.
  const plainMs: number[] = []
  if (figures) {
    await settle(t, load)
    plainMs.push(copyMs(cluster))
    dropCaches()
    await settle(t, load)
  }
  await load.mark()
  cluster.add(site)
  const is = (state: string) => (): boolean => cluster.replicaReport(site)?.state === state
  await cluster.until('it is being filled', is('resyncing'))
  const startedAt = performance.now()
  await cluster.whole(resyncWaitMs)
  const tookMs = performance.now() - startedAt
  noteStall(t, load, event, 100)
  noteFigure(t, { event, what: 'to full redundancy', value: tookMs, unit: 'ms' })
  await load.more(200)
  await cluster.endsWell(load, event)
  if (figures) {
    plainMs.push(copyMs(cluster))
    const value = (tookMs * plainMs.length) / plainMs.reduce((sum, ms) => sum + ms)
    const each = plainMs.map((ms) => Math.round(ms / 1000)).join(' and ')
    noteFigure(t, { event, what: `of the time of plain copying (${each} s)`, value, unit: 'times' }, 1 / 0.6)
  }
})

/** How long `cp` and `sync` take for the same data, from the disk that it was copied from to one like it that is empty. */
function copyMs(cluster: Cluster): number {
  const [source] = cluster.sites
  const from = cluster.headFile(source!)
  const directory = mkdtempSync(join(cluster.directory, 'plain-'))
  const disk = new Disk(directory, Math.ceil(large * 1.1), 'ext4', true)
  try {
    dropCaches()
    const startedAt = performance.now()
    run('cp', ['--sparse=never', from, join(directory, 'copy')], 600_000)
    run('sync', ['--file-system', directory])
    return performance.now() - startedAt
  } finally {
    disk.unmount()
    disk.discard()
  }
}
