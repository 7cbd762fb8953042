// A node's agent as the manager sees it, without processes: it follows its plan at once, or as a test says.
import type {
  DiskPlan,
  EnginePlan,
  EngineReport,
  NodeCounters,
  NodePlan,
  NodeReport,
  PortalReport,
  SnapshotsReport,
  TakeAnswer,
} from '../../../src/agent/index.js'
import type { NodeAgent } from '../../../src/manager/index.js'
import {
  RequestError,
  type EngineCounters,
  type EngineRequests,
  type EngineState,
  type Layer,
  type DiskUsage,
  type ScrubProgress,
  type TrimProgress,
  type SnapshotChanges,
  type TakeSnapshot,
} from '../../../src/native/index.js'

const GiB = 1024 ** 3

export class FakeAgent implements NodeAgent {
  plan: NodePlan | undefined
  plans = 0
  connections = 0
  /** Writes that engines have counted. */
  writes = 0
  iscsiSessions = 0
  /** What engines do when they are asked to start. */
  engineState: EngineState = 'serving'
  engineMessage = ''
  cannotStart: EngineReport['cannotStart']
  bootId = 'boot-1'
  /** Which of their front ends engines listen with. */
  listens: 'both' | 'nbd' | 'none' = 'both'
  portal: PortalReport = { state: 'ready', code: '', message: '', addresses: [], ioBackend: 'epoll' }
  /** By disk; all others are ready. */
  readonly diskStates = new Map<string, 'starting' | 'failed'>()
  readonly replicaFailures = new Map<string, string>()
  readonly leftReplicas = new Set<string>()
  /** Replicas that were adopted become writable as the plan says. */
  confirms = true
  /** Engines go on running until this is set to false. */
  holdsEngines = false
  readonly #running = new Map<string, EnginePlan>()
  readonly #listeners = new Set<(report: NodeReport) => void>()

  /** What becomes of snapshots that engines are asked for; `held`: they do not answer yet. */
  taking: 'taken' | 'held' | { code: string; message: string } = 'taken'
  /** What becomes of reverts that engines are asked for. */
  reverting: 'done' | 'held' | { code: string; message: string } = 'done'
  /** What becomes of layers that are to be absent; a text: why they stay. */
  deleting: 'gone' | 'removed' | (string & {}) = 'gone'
  /** Engines have listed their layers. */
  lists = true
  /** What replicas have under the head, by volume. */
  layersOf = new Map<string, Layer[]>()
  /** What engines were asked to take, in its order. */
  readonly asked: TakeSnapshot[] = []
  readonly #answers = new Map<string, TakeAnswer>()

  constructor(readonly node: string) {}

  apply(plan: NodePlan): void {
    this.plan = plan
    this.plans += 1
    this.changed()
  }

  /** Looks at the plan again and tells the manager. */
  changed(): void {
    const wanted = new Set(this.plan?.engines.map((engine) => engine.volume))
    for (const engine of this.plan?.engines ?? []) {
      this.#running.set(engine.volume, engine)
      this.#snapshot(engine)
    }
    if (!this.holdsEngines) for (const name of this.#running.keys()) if (!wanted.has(name)) this.#running.delete(name)
    setImmediate(() => {
      for (const listener of this.#listeners) listener(this.report())
    })
  }

  #snapshot({ volume, snapshots }: EnginePlan): void {
    for (const take of snapshots?.take ?? []) {
      const { layer } = take
      if (!this.asked.some((asked) => asked.layer === layer)) this.asked.push(take)
      if (this.taking === 'held' || this.#answers.has(layer)) continue
      if (this.taking === 'taken') this.freeze(volume, layer)
      const answer =
        this.taking === 'taken'
          ? { taken: true as const, pauseNs: 1_500_000 }
          : { taken: false as const, ...this.taking }
      this.#answers.set(layer, { layer, ...answer })
    }
    const absent = (layer: Layer): boolean => snapshots?.absent.includes(layer.name) ?? false
    const layers = this.layersOf.get(volume) ?? []
    if (this.deleting === 'gone')
      this.layersOf.set(
        volume,
        layers.filter((layer) => !absent(layer)),
      )
    else if (this.deleting === 'removed') for (const layer of layers.filter(absent)) layer.removed = true
  }

  /** A layer comes to be, above all others. */
  freeze(volume: string, name: string, parts: Partial<Layer> = {}): void {
    const layers = this.layersOf.get(volume) ?? []
    const parent = layers.at(-1)?.name ?? ''
    const layer = { name, parent, createdSeconds: 1_780_000_000, allocatedBytes: 4096, sizeBytes: GiB }
    this.layersOf.set(volume, [...layers, { ...layer, removed: false, userCreated: true, sealed: true, ...parts }])
  }

  /** The process of the engine ended, and another one serves: what it had not answered it never will. */
  engineDies(volume: string): void {
    for (const { layer } of this.#running.get(volume)?.snapshots?.take ?? []) {
      if (!this.#answers.has(layer)) this.#answers.set(layer, { layer, taken: false, code: 'gone', message: 'it died' })
    }
    this.changed()
  }

  /** What engines say of changes, by layer; of no other one do they say anything. */
  readonly changesTo = new Map<string, SnapshotChanges>()
  /** Layers that clients read. */
  readonly read = new Set<string>()
  /** What engines were asked about what snapshots hold, in its order. */
  readonly questions: object[] = []
  /** Engines answer none of these. */
  isMute = false

  askEngine<Op extends 'snapshot-changes' | 'read-snapshot' | 'check-unread'>(
    volume: string,
    op: Op,
    parameters: EngineRequests[Op]['parameters'],
  ): Promise<EngineRequests[Op]['result']> {
    this.questions.push({ volume, op, ...parameters })
    if (this.isMute) return Promise.reject(new RequestError('timeout', `no answer to ${op} within 15000 ms`))
    const { layer } = parameters
    if (op === 'check-unread' && this.read.has(layer)) {
      return Promise.reject(new RequestError('busy', `snapshot ${layer} is being read`))
    }
    if (op === 'check-unread') return Promise.resolve({})
    if (op === 'read-snapshot') {
      const { snapshot } = parameters as EngineRequests['read-snapshot']['parameters']
      return Promise.resolve({ export: `${volume}@${snapshot}`, sizeBytes: GiB })
    }
    const changes = this.changesTo.get(layer)
    if (changes !== undefined) return Promise.resolve(changes)
    return Promise.reject(new RequestError('not-found', `there is no snapshot ${layer}`))
  }

  layers(volume: string): Promise<Layer[] | undefined> {
    return Promise.resolve(this.#running.has(volume) && this.lists ? this.#layersAndHead(volume) : undefined)
  }

  #layersAndHead(volume: string): Layer[] {
    const layers = this.layersOf.get(volume) ?? []
    const head = {
      name: '',
      parent: layers.at(-1)?.name ?? '',
      createdSeconds: 0,
      allocatedBytes: 8192,
      sizeBytes: GiB,
    }
    return [...layers, { ...head, removed: false, userCreated: false, sealed: false }]
  }

  #snapshotsReport({ volume, snapshots }: EnginePlan): SnapshotsReport {
    const take = snapshots?.take ?? []
    // Where one is being taken the list is of before.
    const busy = take.find(({ layer }) => !this.#answers.has(layer))
    const isStuck = this.deleting !== 'gone' && this.deleting !== 'removed'
    return {
      ...this.#revertReport(snapshots?.revert?.layer),
      answers: take.flatMap(({ layer }) => this.#answers.get(layer) ?? []),
      ...(busy === undefined ? {} : { taking: busy.layer }),
      ...(this.lists && busy === undefined ? { layers: structuredClone(this.#layersAndHead(volume)) } : {}),
      troubles: isStuck ? (snapshots?.absent ?? []).map((layer) => ({ layer, message: this.deleting })) : [],
    }
  }

  #revertReport(layer: string | undefined): Pick<SnapshotsReport, 'revert'> {
    if (layer === undefined || this.reverting === 'held') return {}
    const answer =
      this.reverting === 'done'
        ? { reverted: true as const, pauseNs: 2_500_000 }
        : { reverted: false as const, ...this.reverting }
    return { revert: { layer, ...answer } }
  }

  onChange(listener: (report: NodeReport) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** What engines do when they are to become larger. */
  expands: 'at once' | 'not yet' | 'never' = 'at once'

  /** What engines say of their scrubs. */
  scrubbing: ScrubProgress = {
    ...{ id: '', running: false, finished: false, regions: 0, regionsDone: 0, regionsFailed: 0 },
    ...{ repairedBlocks: 0, corruptBlocks: 0, differingBlocks: 0 },
  }

  /** The engine is at the scrub that its plan names, and reports this of it. */
  scrubs(progress: Partial<ScrubProgress>): void {
    const id = this.plan?.engines[0]?.scrub?.id ?? ''
    this.scrubbing = { ...this.scrubbing, id, running: true, regions: 256, ...progress }
    this.changed()
  }

  /** Likewise of their trims. */
  trimming: TrimProgress = {
    ...{ id: '', running: false, finished: false, bytes: 0, bytesDone: 0, unmappedBytes: 0, failedBytes: 0 },
  }

  trims(progress: Partial<TrimProgress>): void {
    const id = this.plan?.engines[0]?.trim?.id ?? ''
    this.trimming = { ...this.trimming, id, running: true, bytes: GiB, ...progress }
    this.changed()
  }

  report(): NodeReport {
    return {
      version: this.plan?.version ?? 0,
      node: this.node,
      bootId: this.bootId,
      disks: this.plan?.disks.map((disk) => this.#diskReport(disk)) ?? [],
      engines: [...this.#running.values()].map((engine) => this.#engineReport(engine)),
      ...(this.plan?.portal === undefined ? {} : { portal: this.portal }),
      processes: [
        { pid: process.pid, kind: 'disk-host', disk: 'disk-1', restarts: 2, startedAt: '2026-01-01T00:00:00.000Z' },
        { pid: process.pid, kind: 'portal', restarts: 1, startedAt: '2026-01-01T00:00:00.000Z' },
      ],
    }
  }

  counters(): Promise<NodeCounters> {
    const none = { count: 0, bytes: 0, errors: 0, latency: { sumSeconds: 0, buckets: [] } }
    const operations: EngineCounters['operations'] = {
      ...{ read: none, flush: none, unmap: none, zero: none, status: none },
      write: { ...none, count: this.writes },
    }
    const engines = [...this.#running.keys()].map((volume) => ({
      ...{ volume, ioBackend: 'epoll' as const, inFlight: 0, connections: this.connections, heldBytes: 0 },
      ...{ waitsFor: '' as const, faults: {} as EngineCounters['faults'] },
      ...{ iscsiSessions: this.iscsiSessions, bucketBoundsSeconds: [], operations, replicas: [] },
      ...{ dirtyRegions: 0, unequalRegions: 0, resyncedBytes: 0, repairedBlocks: 0, scrub: this.scrubbing },
      ...{ trim: this.trimming, trimmedBytes: 0 },
      snapshots: { taken: 0, failed: 0, pause: { sumSeconds: 0, buckets: [] } },
    }))
    return Promise.resolve({ engines, disks: [] })
  }

  /** By disk; 50 GiB of 100 where there is none. */
  readonly freeBytes = new Map<string, number>()

  /** What disk hosts say that replicas take up; each of its replicas is given the same. */
  taken = { layers: [{ name: '', allocatedBytes: 8192 }], metadataBytes: 4096 }

  usage(): Promise<DiskUsage[]> {
    const disks = this.plan?.disks ?? []
    return Promise.resolve(
      disks.map(({ id: disk, replicas }) => ({
        ...{ disk, totalBytes: 100 * GiB, freeBytes: 50 * GiB },
        replicas: replicas.map(({ volume, id }) => ({ volume, id, ...this.taken })),
      })),
    )
  }

  #diskReport({ id, directory, listen, replicas }: DiskPlan): NodeReport['disks'][number] {
    const state = this.diskStates.get(id) ?? 'ready'
    return {
      ...{ id, state, message: state === 'failed' ? 'it is broken' : '', ioBackend: 'epoll', addresses: listen },
      ...{ totalBytes: 100 * GiB, freeBytes: this.freeBytes.get(id) ?? 50 * GiB },
      replicas: replicas.map(({ volume, id: replica, desired, adopt }) => {
        const failure = this.replicaFailures.get(id)
        const good = desired === 'present' ? ('ready' as const) : ('removed' as const)
        return {
          ...{ volume, id: replica, directory: `${directory}/replicas/${volume}-${replica}` },
          ...(this.confirms ? { readOnly: adopt?.readOnly ?? false } : { readOnly: adopt !== undefined }),
          ...{ state: failure === undefined ? good : ('failed' as const), message: failure ?? '' },
        }
      }),
    }
  }

  #sizeOf({ sizeBytes, expansion }: EnginePlan): Pick<EngineReport, 'sizeBytes' | 'expansion'> {
    if (expansion === undefined) return { sizeBytes }
    switch (this.expands) {
      case 'at once':
        return { sizeBytes: expansion.sizeBytes, expansion: { ...expansion, state: 'done', code: '', message: '' } }
      case 'not yet':
        return { sizeBytes, expansion: { ...expansion, state: 'running', code: '', message: 'waiting for replica b' } }
      case 'never':
        return { sizeBytes, expansion: { ...expansion, state: 'failed', code: 'no-space', message: 'disk-2 is full' } }
    }
  }

  #engineReport(engine: EnginePlan): EngineReport {
    const { volume, attachment, record, replicas, nbd, iscsi } = engine
    const isWanted = this.plan?.engines.some((engine) => engine.volume === volume) ?? false
    const members = replicas.map(({ id }) => id).filter((id) => !this.leftReplicas.has(id))
    return {
      ...{ volume, attachment, run: 1, members, generation: record.generation + 1, ioBackend: 'epoll' },
      ...(this.listens === 'none' ? {} : { nbd }),
      ...(this.listens === 'both' ? { iscsi: { host: iscsi.host, port: iscsi.port } } : {}),
      ...{ state: isWanted ? this.engineState : 'stopping', message: this.engineMessage, waitsFor: '' },
      ...(this.cannotStart === undefined ? {} : { cannotStart: this.cannotStart }),
      ...(this.scrubbing.id === '' ? {} : { scrub: this.scrubbing }),
      ...(this.trimming.id === '' ? {} : { trim: this.trimming }),
      ...this.#sizeOf(engine),
      snapshots: this.#snapshotsReport(engine),
      replicas: replicas.map(({ id }) => {
        const left = this.leftReplicas.has(id)
        const fault = left ? ('no-answer' as const) : ''
        return { id, state: left ? 'left' : 'member', fault, reason: left ? 'it was late' : '' }
      }),
    }
  }
}
