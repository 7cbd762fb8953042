import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createMetrics, processUsage } from '../../../src/metrics/index.js'
import { operationNames, replicaFaults, type EngineCounters, type OperationTable } from '../../../src/native/index.js'
import { aCluster, aRequest } from '../manager/cluster.js'

function operations(count: number): OperationTable {
  const one = { count, bytes: count * 4096, errors: 1, latency: { sumSeconds: 0.5, buckets: [1, 2, 3] } }
  return Object.fromEntries(operationNames.map((name) => [name, structuredClone(one)])) as OperationTable
}

const noFaults = Object.fromEntries(replicaFaults.map((fault) => [fault, 0])) as EngineCounters['faults']

function engineCounters(volume: string, replica: string): EngineCounters {
  return {
    ...{ volume, ioBackend: 'uring', inFlight: 7, connections: 2, iscsiSessions: 3, heldBytes: 65536 },
    waitsFor: 'store',
    faults: { ...noFaults, 'no-answer': 2 },
    bucketBoundsSeconds: [0.001, 0.01],
    operations: operations(6),
    scrub: {
      ...{ id: 'one', running: true, finished: false, regions: 256, regionsDone: 64, regionsFailed: 0 },
      ...{ repairedBlocks: 3, corruptBlocks: 1, differingBlocks: 2 },
    },
    trim: {
      ...{ id: 'one', running: true, finished: false, bytes: 1000, bytesDone: 400, unmappedBytes: 300 },
      failedBytes: 20,
    },
    trimmedBytes: 500,
    ...{ dirtyRegions: 5, unequalRegions: 1, resyncedBytes: 4096, repairedBlocks: 2 },
    snapshots: { taken: 4, failed: 1, pause: { sumSeconds: 0.25, buckets: [3, 1, 0] } },
    replicas: [{ id: replica, state: 'member', inFlight: 1, resync: null, operations: operations(6) }],
  }
}

const nothing = () => Promise.resolve([])
const silence = () => new Promise<never>(() => undefined)
const gone = () => Promise.reject(new Error('the node is gone'))

const checksums = { errors: 3, pagesDamaged: 1, pagesDropped: 1 }

void t.test('a scrape shows volumes, replicas, disks and processes', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest())
  await cluster.manager.attach('demo')
  const volume = await cluster.untilState('demo', 'attached')
  const { id, disk } = volume.replicas[0]!
  await cluster.manager.scrub('demo', 0)
  await cluster.until('demo', () => cluster.agent.plan?.engines[0]?.scrub !== undefined)
  cluster.agent.scrubs({ finished: true, regionsDone: 256, repairedBlocks: 7, corruptBlocks: 1, differingBlocks: 2 })
  await cluster.manager.createSnapshot('demo', { name: 'monday' })
  await cluster.untilSnapshot('monday', 'ready')
  cluster.agent.freeze('demo', 'before', { removed: true, allocatedBytes: 100 })
  cluster.agent.changed()
  const { scrub } = await cluster.until('demo', ({ scrub }) => scrub?.last !== undefined)
  const counters = {
    engines: [engineCounters('demo', id)],
    disks: [
      {
        ...{ disk: 'disk-1', ioBackend: 'uring' as const, bucketBoundsSeconds: [0.001, 0.01] },
        replicas: [
          { volume: 'a', id, operations: operations(6), checksums },
          {
            ...{ volume: 'b', id, operations: operations(6), checksums },
            regions: { dirty: 5, missing: [{ replica: 'c', regions: 7 }] },
          },
        ],
      },
    ],
  }
  const portal = { connections: 1, logins: 9, redirects: 5, discoveries: 3, refused: 2 }
  const layers = [
    { name: '', allocatedBytes: 100 },
    { name: 'monday-1', allocatedBytes: 20 },
    { name: 'tuesday-1', allocatedBytes: 3 },
  ]
  const usage = () =>
    Promise.resolve([
      { disk: 'disk-1', totalBytes: 10, freeBytes: 1, replicas: [{ volume: 'a', id, layers, metadataBytes: 7 }] },
    ])
  const agents = new Map([['node-1', { counters: () => Promise.resolve({ ...counters, portal }), usage }]])
  const metrics = createMetrics({ source: () => cluster.manager, agents, node: 'node-1', version: '1.2.3' })
  const lines = (await metrics.text()).split('\n')
  const has = (line: string): void => void t.ok(lines.includes(line), line)
  has('ankole_build_info{version="1.2.3"} 1')
  has(`ankole_volume_size_bytes{volume="demo"} ${1024 ** 3}`)
  has('ankole_volume_state{volume="demo",state="attached"} 1')
  has('ankole_volume_state{volume="demo",state="detached"} 0')
  has('ankole_volume_robustness{volume="demo",robustness="healthy"} 1')
  has(`ankole_replica_state{volume="demo",replica="${id}",node="node-1",disk="${disk}",state="member"} 1`)
  has('ankole_volume_operations_total{volume="demo",operation="read"} 6')
  has('ankole_volume_bytes_total{volume="demo",operation="write"} 24576')
  has('ankole_volume_errors_total{volume="demo",operation="flush"} 1')
  has('ankole_volume_in_flight{volume="demo"} 7')
  has('ankole_volume_connections{volume="demo"} 2')
  has('ankole_volume_iscsi_sessions{volume="demo"} 3')
  has('ankole_portal_state{node="node-1",state="ready"} 1')
  has('ankole_portal_state{node="node-1",state="failed"} 0')
  has('ankole_portal_connections{node="node-1"} 1')
  has('ankole_portal_logins_total{node="node-1"} 9')
  has('ankole_portal_redirects_total{node="node-1"} 5')
  has('ankole_portal_discoveries_total{node="node-1"} 3')
  has('ankole_portal_refused_total{node="node-1"} 2')
  has('ankole_volume_operation_duration_seconds_bucket{volume="demo",operation="read",le="0.001"} 1')
  has('ankole_volume_operation_duration_seconds_bucket{volume="demo",operation="read",le="0.01"} 3')
  has('ankole_volume_operation_duration_seconds_bucket{volume="demo",operation="read",le="+Inf"} 6')
  has('ankole_volume_operation_duration_seconds_sum{volume="demo",operation="read"} 0.5')
  has('ankole_volume_operation_duration_seconds_count{volume="demo",operation="read"} 6')
  const replica = `volume="demo",replica="${id}",node="node-1",disk="${disk}"`
  has(`ankole_replica_operations_total{${replica},operation="write"} 6`)
  has('ankole_volume_scrub_running{volume="demo"} 1')
  has('ankole_volume_scrub_regions{volume="demo"} 256')
  has('ankole_volume_scrub_regions_done{volume="demo"} 64')
  has('ankole_volume_scrub_corrupt_blocks{volume="demo"} 1')
  has('ankole_volume_scrub_differing_blocks{volume="demo"} 2')
  has('ankole_disk_threshold_ratio{node="node-1",disk="disk-1",level="warning"} 0.8')
  has('ankole_disk_threshold_ratio{node="node-1",disk="disk-1",level="critical"} 0.9')
  has('ankole_disk_threshold_reached{node="node-1",disk="disk-1",level="warning"} 0')
  const of = `volume="a",replica="${id}",node="node-1",disk="disk-1"`
  has(`ankole_replica_allocated_bytes{${of},part="head"} 100`)
  has(`ankole_replica_allocated_bytes{${of},part="snapshots"} 23`)
  has(`ankole_replica_allocated_bytes{${of},part="metadata"} 7`)
  has('ankole_disk_replicas_allocated_bytes{node="node-1",disk="disk-1"} 130')
  has('ankole_volume_trim_running{volume="demo"} 1')
  has('ankole_volume_trim_bytes{volume="demo"} 1000')
  has('ankole_volume_trim_done_bytes{volume="demo"} 400')
  has('ankole_volume_trim_failed_bytes{volume="demo"} 20')
  has('ankole_volume_trimmed_bytes_total{volume="demo"} 500')
  has('ankole_volume_scrub_period_seconds{volume="demo"} 604800')
  has('ankole_volume_snapshots{volume="demo",state="ready"} 1')
  has('ankole_volume_snapshots{volume="demo",state="failed"} 0')
  has('ankole_volume_snapshot_allocated_bytes{volume="demo"} 4196')
  has('ankole_volume_snapshots_taken_total{volume="demo"} 4')
  has('ankole_volume_snapshots_failed_total{volume="demo"} 1')
  has('ankole_volume_snapshot_pause_seconds_bucket{volume="demo",le="0.01"} 4')
  has('ankole_volume_snapshot_pause_seconds_sum{volume="demo"} 0.25')
  has('ankole_volume_snapshot_pause_seconds_count{volume="demo"} 4')
  const ended = Date.parse(scrub!.last!.endedAt) / 1000
  has(`ankole_volume_scrub_last_ended_timestamp_seconds{volume="demo"} ${ended}`)
  has('ankole_volume_scrub_last_blocks{volume="demo",found="repaired"} 7')
  has('ankole_volume_scrub_last_blocks{volume="demo",found="corrupt"} 1')
  has('ankole_volume_scrub_last_blocks{volume="demo",found="differing"} 2')
  for (const volume of ['a', 'b']) {
    const kept = `volume="${volume}",replica="${id}",node="node-1",disk="disk-1"`
    has(`ankole_replica_checksum_errors_total{${kept}} 3`)
    has(`ankole_replica_checksum_pages_lost_total{${kept}} 2`)
  }
  has(`ankole_replica_in_flight{${replica}} 1`)
  const second = `volume="b",replica="${id}",node="node-1",disk="disk-1"`
  has(`ankole_replica_dirty_regions{${second}} 5`)
  has(`ankole_replica_missing_regions{${second},away="c"} 7`)
  t.notOk(lines.some((line) => line.startsWith('ankole_replica_dirty_regions{volume="a"')))
  has('ankole_disk_operations_total{node="node-1",disk="disk-1",operation="read"} 12')
  has('ankole_disk_operation_duration_seconds_bucket{node="node-1",disk="disk-1",operation="read",le="0.01"} 6')
  has('ankole_io_backend_info{node="node-1",kind="engine",volume="demo",backend="epoll"} 1')
  has('ankole_io_backend_info{node="node-1",kind="portal",backend="epoll"} 1')
  has('ankole_process_restarts_total{node="node-1",kind="disk-host",disk="disk-1"} 2')
  has('ankole_process_restarts_total{node="node-1",kind="portal"} 1')
  t.ok(lines.some((line) => /^ankole_process_pss_bytes\{node="node-1",kind="manager"\} [1-9]\d{6,}$/.test(line)))
  t.ok(lines.some((line) => /^ankole_process_cpu_seconds_total\{node="node-1",kind="manager"\} [\d.]+$/.test(line)))
  t.notOk(lines.some((line) => line.includes(volume.secret)))
})

void t.test('every family is announced once, and its samples stand together', async (t) => {
  const cluster = await aCluster(t)
  await cluster.manager.createVolume(aRequest({ name: 'a' }))
  await cluster.manager.createVolume(aRequest({ name: 'b' }))
  const agents = new Map([['node-1', { counters: () => Promise.resolve({ engines: [], disks: [] }), usage: nothing }]])
  const text = await createMetrics({ source: () => cluster.manager, agents, node: 'node-1', version: '1' }).text()
  const types = [...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name)
  t.equal(new Set(types).size, types.length)
  for (const name of types) t.match(name, /^ankole_[a-z_]+$/)
})

void t.test('a scrape gathers what nodes report once, however many volumes there are', async (t) => {
  const cluster = await aCluster(t)
  for (const name of ['a', 'b', 'c']) {
    await cluster.manager.createVolume(aRequest({ name }))
    await cluster.manager.attach(name)
    await cluster.untilState(name, 'attached')
  }
  const agents = new Map([['node-1', { counters: () => Promise.resolve({ engines: [], disks: [] }), usage: nothing }]])
  const metrics = createMetrics({ source: () => cluster.manager, agents, node: 'node-1', version: '1' })
  await new Promise((resolve) => setTimeout(resolve, 50)) // The manager has nothing left to look at.
  const report = cluster.agent.report.bind(cluster.agent)
  let reports = 0
  cluster.agent.report = () => {
    reports += 1
    return report()
  }
  const text = await metrics.text()
  t.equal(reports, 1)
  for (const name of ['a', 'b', 'c']) t.match(text, `ankole_volume_snapshot_allocated_bytes{volume="${name}"} 0`)
})

void t.test('a child that stays silent does not hang the scrape', async (t) => {
  const cluster = await aCluster(t)
  const agents = new Map([
    ['node-1', { counters: silence, usage: silence }],
    ['node-2', { counters: gone, usage: gone }],
  ])
  const metrics = createMetrics({ source: () => cluster.manager, agents, node: 'node-1', version: '1' })
  const started = performance.now()
  const text = await metrics.text()
  t.ok(performance.now() - started < 5000)
  t.match(text, 'ankole_node_counters_up{node="node-1"} 0')
  t.match(text, 'ankole_node_counters_up{node="node-2"} 0')
})

void t.test('memory and CPU time come from /proc, and a process that ended has none', async (t) => {
  const proc = t.testdir()
  mkdirSync(join(proc, '7'))
  writeFileSync(join(proc, '7', 'smaps_rollup'), '00400000-7fff [rollup]\nRss:   20 kB\nPss:   12 kB\nPss_Anon: 9 kB\n')
  const after = 'S 1 7 7 0 -1 4194560 500 0 0 0 150 50 0 0 20 0 11 0 100'
  writeFileSync(join(proc, '7', 'stat'), `7 (node (a) b) ${after}\n`)
  t.same(await processUsage(7, proc), { pssBytes: 12288, cpuSeconds: 2 })
  t.equal(await processUsage(8, proc), undefined)
  const own = await processUsage(process.pid)
  t.ok(own && own.pssBytes > 1024 ** 2)
})
