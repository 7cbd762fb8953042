// What /metrics shows, gathered at the scrape. Names follow Prometheus' conventions: base units, _total, and labels of
// bounded size: volumes, replicas, disks and nodes by name, no process numbers.
import type { EngineReport, NodeCounters, NodeReport } from '../agent/index.js'
import { observeEngine, scrubSettings, shownBytes, type DiskLevel, type DiskThresholds } from '../manager/index.js'
import {
  operationNames,
  replicaFaults,
  waitCauses,
  type DiskCounters,
  type DiskUsage,
  type EngineCounters,
  type OperationCounters,
  type OperationTable,
  type PortalCounters,
  type ScrubProgress,
} from '../native/index.js'
import {
  replicaStates,
  robustnesses,
  snapshotStates,
  volumeStates,
  type Node,
  type Snapshot,
  type Volume,
} from '../store/index.js'
import { contentType, Exposition, type Labels } from './exposition.js'
import { processUsage } from './processes.js'

export interface MetricsSource {
  volumes(): Volume[]
  snapshots(volume: string): readonly Snapshot[]
  nodes(): { node: Node; report: NodeReport | undefined }[]
  diskLevel(node: string, disk: string): DiskLevel
  diskThresholds: DiskThresholds
}

export interface CountersSource {
  counters(): Promise<NodeCounters>
  usage(): Promise<DiskUsage[]>
}

export interface MetricsOptions {
  /** Null until the manager has started. */
  source: () => MetricsSource | null
  agents: ReadonlyMap<string, CountersSource>
  /** The node of this process. */
  node: string
  version: string
}

/** A scrape goes on without who is silent for so long: Prometheus gives up after 10 s by default. */
const countersWaitMs = 2000

export function createMetrics(options: MetricsOptions): { contentType: string; text: () => Promise<string> } {
  return { contentType, text: () => collect(options) }
}

async function collect({ source, agents, node, version }: MetricsOptions): Promise<string> {
  const shown = new Exposition()
  shown.gauge('ankole_build_info', 'The release of Ankole that runs; always 1.', { version }, 1)
  const cluster = source()
  const nodes = cluster?.nodes() ?? []
  addVolumes(shown, cluster?.volumes() ?? [])
  const reports = new Map(nodes.flatMap(({ node, report }) => (report ? [[node.metadata.name, report] as const] : [])))
  for (const volume of cluster?.volumes() ?? []) {
    const { name } = volume.metadata
    addSnapshots(shown, name, cluster?.snapshots(name) ?? [], observeEngine(volume, reports))
  }
  for (const { node, report } of nodes) {
    if (!report) continue
    addDisks(shown, node.metadata.name, report)
    if (cluster) addThresholds(shown, node.metadata.name, report, cluster)
    addIoBackends(shown, node.metadata.name, report)
    if (report.portal) addPortal(shown, node.metadata.name, report.portal.state)
  }
  const places = placesOf(cluster?.volumes() ?? [])
  const asked = [...agents]
  const [answers, usages] = await Promise.all([
    Promise.all(asked.map(([node, agent]) => countersOf(node, agent))),
    Promise.all(asked.map(([node, agent]) => usageOf(node, agent))),
  ])
  for (const { node, counters } of answers) {
    shown.gauge(
      'ankole_node_counters_up',
      'Whether the node gave its counters to this scrape.',
      { node },
      counters === undefined ? 0 : 1,
    )
    for (const engine of counters?.engines ?? []) addEngine(shown, engine, places)
    for (const disk of counters?.disks ?? []) addDiskCounters(shown, node, disk)
    if (counters?.portal) addPortalCounters(shown, node, counters.portal)
  }
  for (const { node, disks } of usages) {
    for (const disk of disks) addUsage(shown, node, disk)
  }
  await addProcesses(shown, node, nodes)
  return shown.text()
}

async function usageOf(node: string, agent: CountersSource): Promise<{ node: string; disks: DiskUsage[] }> {
  return { node, disks: (await inTime(agent.usage())) ?? [] }
}

async function countersOf(node: string, agent: CountersSource) {
  return { node, counters: await inTime(agent.counters()) }
}

/** Undefined: it does not say. */
async function inTime<T>(answer: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, countersWaitMs, undefined)
  })
  try {
    return await Promise.race([answer, late])
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}

function addVolumes(shown: Exposition, volumes: readonly Volume[]): void {
  for (const one of volumes) {
    const { metadata, membership, status, replicas } = one
    const volume = metadata.name
    shown.gauge('ankole_volume_size_bytes', 'Size of the volume.', { volume }, shownBytes(one))
    shown.state(
      'ankole_volume_state',
      'The state of the volume: 1 for the one it is in.',
      'state',
      volumeStates,
      { volume },
      status.state,
    )
    shown.state(
      'ankole_volume_robustness',
      'The robustness of the volume: 1 for the one it has.',
      'robustness',
      robustnesses,
      { volume },
      status.robustness,
    )
    shown.counter(
      'ankole_volume_attachments_total',
      'How often the volume was attached.',
      { volume },
      membership.attachment,
    )
    shown.gauge(
      'ankole_volume_generation',
      'Grows with each change of the in-sync replicas.',
      { volume },
      membership.record.generation,
    )
    addScrubs(shown, one)
    for (const { id, node, disk } of replicas) {
      const state = status.replicas.find((replica) => replica.id === id)?.state ?? 'unknown'
      const labels = { volume, replica: id, node, disk }
      shown.state(
        'ankole_replica_state',
        'The state of the replica: 1 for the one it is in.',
        'state',
        replicaStates,
        labels,
        state,
      )
    }
  }
}

/** As they are kept: the engine's counters know of its own process only. */
function addScrubs(shown: Exposition, volume: Volume): void {
  const labels = { volume: volume.metadata.name }
  const period = 'How often all of the volume is compared at all replicas; 0: never by itself.'
  shown.gauge('ankole_volume_scrub_period_seconds', period, labels, scrubSettings(volume).periodSeconds)
  const { last } = volume.scrub ?? {}
  if (last === undefined) return
  const ended = 'When the last scrub came to its end, in seconds since 1970.'
  shown.gauge('ankole_volume_scrub_last_ended_timestamp_seconds', ended, labels, Date.parse(last.endedAt) / 1000)
  const found = 'Blocks of 4 KiB that the last scrub that came to its end found damaged or not the same.'
  for (const [what, count] of [
    ['repaired', last.repairedBlocks],
    ['corrupt', last.corruptBlocks],
    ['differing', last.differingBlocks],
  ] as const) {
    shown.gauge('ankole_volume_scrub_last_blocks', found, { ...labels, found: what }, count)
  }
}

/** Layers as the engine last listed them: a scrape does not ask it to. */
function addSnapshots(
  shown: Exposition,
  volume: string,
  snapshots: readonly Snapshot[],
  engine: EngineReport | undefined,
): void {
  const states = 'Snapshots of the volume, by state.'
  for (const state of snapshotStates) {
    const count = snapshots.filter((snapshot) => snapshot.state === state).length
    shown.gauge('ankole_volume_snapshots', states, { volume, state }, count)
  }
  const layers = engine?.snapshots?.layers
  if (layers === undefined || layers.length === 0) return
  const allocated = "What the volume's snapshots take up at each replica, with those deleted and not yet merged."
  const bytes = layers.reduce((sum, { name, allocatedBytes }) => sum + (name === '' ? 0 : allocatedBytes), 0)
  shown.gauge('ankole_volume_snapshot_allocated_bytes', allocated, { volume }, bytes)
}

function addDisks(shown: Exposition, node: string, report: NodeReport): void {
  for (const { id: disk, state, totalBytes, freeBytes } of report.disks) {
    const labels = { node, disk }
    shown.state(
      'ankole_disk_state',
      'The state of the disk: 1 for the one it is in.',
      'state',
      ['starting', 'ready', 'failed'],
      labels,
      state,
    )
    shown.gauge('ankole_disk_size_bytes', 'Size of the file system that the disk is on.', labels, totalBytes)
    shown.gauge('ankole_disk_free_bytes', 'Free space of the file system that the disk is on.', labels, freeBytes)
  }
}

function addThresholds(shown: Exposition, node: string, { disks }: NodeReport, source: MetricsSource): void {
  const { warningPercent, criticalPercent } = source.diskThresholds
  for (const { id: disk } of disks) {
    const level = source.diskLevel(node, disk)
    for (const [name, percent, reached] of [
      ['warning', warningPercent, level !== 'ok'],
      ['critical', criticalPercent, level === 'critical'],
    ] as const) {
      const of = { node, disk, level: name }
      const where = 'The share of its file system that is taken when the disk is said to be low on space.'
      shown.gauge('ankole_disk_threshold_ratio', where, of, percent / 100)
      const whether = 'Whether the threshold was reached; it ends 2 % below it.'
      shown.gauge('ankole_disk_threshold_reached', whether, of, reached ? 1 : 0)
    }
  }
}

function addIoBackends(shown: Exposition, node: string, { disks, engines, portal }: NodeReport): void {
  const processes = [
    ...disks.map(({ id, ioBackend }) => ({ labels: { kind: 'disk-host', disk: id }, ioBackend })),
    ...engines.map(({ volume, ioBackend }) => ({ labels: { kind: 'engine', volume }, ioBackend })),
    { labels: { kind: 'portal' }, ioBackend: portal?.ioBackend },
  ]
  for (const { labels, ioBackend } of processes) {
    if (ioBackend === undefined) continue
    shown.gauge(
      'ankole_io_backend_info',
      'The io back end that a process chose; always 1.',
      { node, ...labels, backend: ioBackend },
      1,
    )
  }
}

function addPortal(shown: Exposition, node: string, state: string): void {
  const states = ['starting', 'ready', 'failed']
  shown.state(
    'ankole_portal_state',
    'The state of the iSCSI portal: 1 for the one it is in.',
    'state',
    states,
    { node },
    state,
  )
}

function addPortalCounters(shown: Exposition, node: string, counters: PortalCounters): void {
  const { connections, logins, redirects, discoveries, refused } = counters
  shown.gauge('ankole_portal_connections', 'Connections to the iSCSI portal.', { node }, connections)
  shown.counter('ankole_portal_logins_total', 'Logins for discovery that the iSCSI portal let in.', { node }, logins)
  shown.counter(
    'ankole_portal_redirects_total',
    'Logins that the iSCSI portal sent on to the engine of a volume.',
    { node },
    redirects,
  )
  shown.counter('ankole_portal_discoveries_total', 'Discoveries that the iSCSI portal answered.', { node }, discoveries)
  shown.counter(
    'ankole_portal_refused_total',
    'Logins and connections that the iSCSI portal refused.',
    { node },
    refused,
  )
}

type Places = ReadonlyMap<string, Labels>

function placesOf(volumes: readonly Volume[]): Places {
  return new Map(volumes.flatMap(({ replicas }) => replicas.map(({ id, node, disk }) => [id, { node, disk }] as const)))
}

function addResync(shown: Exposition, engine: EngineCounters, labels: Labels): void {
  shown.gauge(
    'ankole_volume_dirty_regions',
    'Regions of 4 MiB that are compared after a crash.',
    labels,
    engine.dirtyRegions,
  )
  shown.gauge(
    'ankole_volume_unequal_regions',
    'Regions of 4 MiB that members may differ in since an unclean stop.',
    labels,
    engine.unequalRegions,
  )
  shown.counter(
    'ankole_volume_resynced_bytes_total',
    "Copied between the volume's replicas to make them equal.",
    labels,
    engine.resyncedBytes,
  )
  shown.counter(
    'ankole_volume_repaired_blocks_total',
    'Blocks that were corrupt at one replica and written anew from another.',
    labels,
    engine.repairedBlocks,
  )
}

function addEngine(shown: Exposition, engine: EngineCounters, places: Places): void {
  const { volume, bucketBoundsSeconds: bounds } = engine
  const labels = { volume }
  addOperations(shown, 'ankole_volume', "the volume's clients", labels, engine.operations, bounds)
  shown.gauge('ankole_volume_in_flight', 'Operations that the volume works on.', labels, engine.inFlight)
  shown.gauge('ankole_volume_connections', 'NBD connections to the volume.', labels, engine.connections)
  shown.gauge('ankole_volume_iscsi_sessions', 'iSCSI sessions with the volume.', labels, engine.iscsiSessions)
  shown.gauge('ankole_volume_held_bytes', 'Buffers that the volume holds for its clients.', labels, engine.heldBytes)
  for (const cause of waitCauses) {
    shown.gauge(
      'ankole_volume_waiting',
      'Whether I/O of the volume waits, and for what.',
      { ...labels, for: cause },
      engine.waitsFor === cause ? 1 : 0,
    )
  }
  for (const fault of replicaFaults) {
    shown.counter(
      'ankole_volume_replica_faults_total',
      'How often a replica left the volume, by why.',
      { ...labels, fault },
      engine.faults[fault],
    )
  }
  addResync(shown, engine, labels)
  addScrub(shown, labels, engine.scrub)
  addTrim(shown, labels, engine)
  addSnapshotCounters(shown, labels, engine)
  for (const { id, inFlight, resync, operations } of engine.replicas) {
    const of = { volume, replica: id, ...places.get(id) }
    if (resync) {
      shown.gauge(
        'ankole_replica_resync_regions',
        'Regions of 4 MiB that the replica lacks before it is a member again.',
        of,
        resync.regionsToGo,
      )
      shown.gauge(
        'ankole_replica_resync_snapshots',
        'Snapshots that the replica lacks before it is a member again.',
        of,
        resync.snapshotsToGo,
      )
      shown.gauge(
        'ankole_replica_resync_copied_bytes',
        'Copied to the replica since its resync began.',
        of,
        resync.copiedBytes,
      )
    }
    addOperations(shown, 'ankole_replica', 'the engine to one replica', of, operations, bounds)
    shown.gauge('ankole_replica_in_flight', 'Operations that the replica has not answered yet.', of, inFlight)
  }
}

function addSnapshotCounters(shown: Exposition, labels: Labels, engine: EngineCounters): void {
  const { taken, failed, pause } = engine.snapshots
  shown.counter('ankole_volume_snapshots_taken_total', 'Snapshots of the volume that were taken.', labels, taken)
  const refused = 'Snapshots of the volume that were asked of its engine and not taken.'
  shown.counter('ankole_volume_snapshots_failed_total', refused, labels, failed)
  const held = 'Time for which taking a snapshot held up I/O of the volume.'
  shown.histogram('ankole_volume_snapshot_pause_seconds', held, labels, engine.bucketBoundsSeconds, pause)
}

/** Of the scrub that is under way, or of the last one. */
function addScrub(shown: Exposition, labels: Labels, scrub: ScrubProgress): void {
  shown.gauge('ankole_volume_scrub_running', 'Whether a scrub is under way.', labels, scrub.running ? 1 : 0)
  const whole = 'Regions of 4 MiB that the scrub, or the last one, goes through.'
  shown.gauge('ankole_volume_scrub_regions', whole, labels, scrub.regions)
  shown.gauge('ankole_volume_scrub_regions_done', 'Of these, those that are done.', labels, scrub.regionsDone)
  const corrupt = 'Blocks that the scrub found damaged at all members.'
  shown.gauge('ankole_volume_scrub_corrupt_blocks', corrupt, labels, scrub.corruptBlocks)
  const differing = 'Blocks that the scrub found not to be the same at all members.'
  shown.gauge('ankole_volume_scrub_differing_blocks', differing, labels, scrub.differingBlocks)
}

/** Of the trim that is under way, or of the last one. */
function addTrim(shown: Exposition, labels: Labels, { trim, trimmedBytes }: EngineCounters): void {
  shown.gauge('ankole_volume_trim_running', 'Whether a trim is under way.', labels, trim.running ? 1 : 0)
  const whole = 'What the trim, or the last one, goes through.'
  shown.gauge('ankole_volume_trim_bytes', whole, labels, trim.bytes)
  shown.gauge('ankole_volume_trim_done_bytes', 'Of that, what it has looked at.', labels, trim.bytesDone)
  shown.gauge('ankole_volume_trim_failed_bytes', 'Of that, what it could not look at.', labels, trim.failedBytes)
  const unmapped = 'Zeros that took up space and that trims unmapped.'
  shown.counter('ankole_volume_trimmed_bytes_total', unmapped, labels, trimmedBytes)
}

/** Layers by what they are: there may be very many snapshots. */
function addUsage(shown: Exposition, node: string, { disk, replicas }: DiskUsage): void {
  let total = 0
  for (const { volume, id, layers, metadataBytes } of replicas) {
    const bytes = { head: 0, snapshots: 0, metadata: metadataBytes }
    for (const { name, allocatedBytes } of layers) bytes[name === '' ? 'head' : 'snapshots'] += allocatedBytes
    for (const [part, allocated] of Object.entries(bytes)) {
      const what = 'What the files of the replica take up, by what they hold.'
      shown.gauge('ankole_replica_allocated_bytes', what, { volume, replica: id, node, disk, part }, allocated)
      total += allocated
    }
  }
  const all = 'What the files of the replicas on the disk take up.'
  shown.gauge('ankole_disk_replicas_allocated_bytes', all, { node, disk }, total)
}

/** Operations are summed over the replicas of a disk: theirs are told apart as their engines see them. */
function addDiskCounters(shown: Exposition, node: string, counters: DiskCounters): void {
  const sum: Partial<OperationTable> = {}
  for (const { volume, id, operations, checksums, regions } of counters.replicas) {
    const of = { volume, replica: id, node, disk: counters.disk }
    shown.counter(
      'ankole_replica_checksum_errors_total',
      'Blocks that the replica read and that did not match their checksum at rest, or are known to be bad.',
      of,
      checksums.errors,
    )
    shown.counter(
      'ankole_replica_checksum_pages_lost_total',
      'Pages of 1024 checksums at rest that were damaged or found no space: their blocks are not verified.',
      of,
      checksums.pagesDamaged + checksums.pagesDropped,
    )
    if (regions) {
      const dirty = 'Regions of 4 MiB that were written and are not known to be equal everywhere.'
      shown.gauge('ankole_replica_dirty_regions', dirty, of, regions.dirty)
    }
    for (const { replica: away, regions: count } of regions?.missing ?? []) {
      const missing = 'Regions of 4 MiB that a replica that is away misses, as this one knows.'
      shown.gauge('ankole_replica_missing_regions', missing, { ...of, away }, count)
    }
    for (const name of operationNames) {
      const one = operations[name] as OperationCounters | undefined
      if (one) sum[name] = addUp(sum[name], one)
    }
  }
  addOperations(
    shown,
    'ankole_disk',
    'engines, as the disk host sees them',
    { node, disk: counters.disk },
    sum,
    counters.bucketBoundsSeconds,
  )
}

function addUp(a: OperationCounters | undefined, b: OperationCounters): OperationCounters {
  if (!a) return b
  return {
    count: a.count + b.count,
    bytes: a.bytes + b.bytes,
    errors: a.errors + b.errors,
    latency: {
      sumSeconds: a.latency.sumSeconds + b.latency.sumSeconds,
      buckets: a.latency.buckets.map((count, index) => count + (b.latency.buckets[index] ?? 0)),
    },
  }
}

function addOperations(
  shown: Exposition,
  prefix: string,
  whose: string,
  of: Labels,
  operations: Partial<OperationTable>,
  bounds: readonly number[],
): void {
  for (const operation of operationNames) {
    const counters = operations[operation]
    if (!counters) continue
    const labels = { ...of, operation }
    shown.counter(
      `${prefix}_operations_total`,
      `Finished operations of ${whose}, with those that failed.`,
      labels,
      counters.count,
    )
    shown.counter(`${prefix}_bytes_total`, `Bytes of the operations of ${whose}.`, labels, counters.bytes)
    shown.counter(`${prefix}_errors_total`, `Failed operations of ${whose}.`, labels, counters.errors)
    shown.histogram(
      `${prefix}_operation_duration_seconds`,
      `Time that operations of ${whose} took.`,
      labels,
      bounds,
      counters.latency,
    )
  }
}

async function addProcesses(
  shown: Exposition,
  node: string,
  nodes: { node: Node; report: NodeReport | undefined }[],
): Promise<void> {
  const own = { pid: process.pid, labels: { node, kind: 'manager' } as Labels, restarts: 0 }
  const children = nodes.flatMap(({ node, report }) =>
    (report?.processes ?? []).map(({ pid, kind, volume, disk, restarts }) => ({
      pid,
      restarts,
      labels: {
        ...{ node: node.metadata.name, kind },
        ...(volume === undefined ? {} : { volume }),
        ...(disk === undefined ? {} : { disk }),
      },
    })),
  )
  const all = [own, ...children]
  const usages = await Promise.all(all.map(({ pid }) => processUsage(pid)))
  for (const [index, { labels, restarts }] of all.entries()) {
    shown.counter(
      'ankole_process_restarts_total',
      'How often the process was started again after it ended.',
      labels,
      restarts,
    )
    const usage = usages[index]
    if (!usage) continue
    shown.gauge(
      'ankole_process_pss_bytes',
      'Memory of the process, shared pages by its share of them.',
      labels,
      usage.pssBytes,
    )
    shown.counter(
      'ankole_process_cpu_seconds_total',
      'CPU time of the process, user and system.',
      labels,
      usage.cpuSeconds,
    )
  }
}
