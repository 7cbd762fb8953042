// A node's agent as the manager sees it, without processes: it follows its plan at once, or as a test says.
import type {
  DiskPlan,
  EnginePlan,
  EngineReport,
  NodeCounters,
  NodePlan,
  NodeReport,
  PortalReport,
} from '../../../src/agent/index.js'
import type { NodeAgent } from '../../../src/manager/index.js'
import type { EngineCounters, EngineState, ScrubProgress } from '../../../src/native/index.js'

const GiB = 1024 ** 3

export class FakeAgent implements NodeAgent {
  plan: NodePlan | undefined
  plans = 0
  connections = 0
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
  /** Engines go on running until this is set to false. */
  holdsEngines = false
  readonly #running = new Map<string, EnginePlan>()
  readonly #listeners = new Set<(report: NodeReport) => void>()

  constructor(readonly node: string) {}

  apply(plan: NodePlan): void {
    this.plan = plan
    this.plans += 1
    this.changed()
  }

  /** Looks at the plan again and tells the manager. */
  changed(): void {
    const wanted = new Set(this.plan?.engines.map((engine) => engine.volume))
    for (const engine of this.plan?.engines ?? []) this.#running.set(engine.volume, engine)
    if (!this.holdsEngines) for (const name of this.#running.keys()) if (!wanted.has(name)) this.#running.delete(name)
    setImmediate(() => {
      for (const listener of this.#listeners) listener(this.report())
    })
  }

  onChange(listener: (report: NodeReport) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

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
    const operations = {} as EngineCounters['operations']
    const engines = [...this.#running.keys()].map((volume) => ({
      ...{ volume, ioBackend: 'epoll' as const, inFlight: 0, connections: this.connections, heldBytes: 0 },
      ...{ waitsFor: '' as const, faults: {} as EngineCounters['faults'] },
      ...{ iscsiSessions: this.iscsiSessions, bucketBoundsSeconds: [], operations, replicas: [] },
      ...{ dirtyRegions: 0, unequalRegions: 0, resyncedBytes: 0, repairedBlocks: 0, scrub: this.scrubbing },
    }))
    return Promise.resolve({ engines, disks: [] })
  }

  #diskReport({ id, directory, listen, replicas }: DiskPlan): NodeReport['disks'][number] {
    const state = this.diskStates.get(id) ?? 'ready'
    return {
      ...{ id, state, message: state === 'failed' ? 'it is broken' : '', ioBackend: 'epoll', addresses: listen },
      ...{ totalBytes: 100 * GiB, freeBytes: 50 * GiB },
      replicas: replicas.map(({ volume, id: replica, desired }) => {
        const failure = this.replicaFailures.get(id)
        const good = desired === 'present' ? ('ready' as const) : ('removed' as const)
        return {
          ...{ volume, id: replica, directory: `${directory}/replicas/${volume}-${replica}` },
          ...{ state: failure === undefined ? good : ('failed' as const), message: failure ?? '' },
        }
      }),
    }
  }

  #engineReport({ volume, attachment, record, replicas, nbd, iscsi }: EnginePlan): EngineReport {
    const isWanted = this.plan?.engines.some((engine) => engine.volume === volume) ?? false
    const members = replicas.map(({ id }) => id).filter((id) => !this.leftReplicas.has(id))
    return {
      ...{ volume, attachment, run: 1, members, generation: record.generation + 1, ioBackend: 'epoll' },
      ...(this.listens === 'none' ? {} : { nbd }),
      ...(this.listens === 'both' ? { iscsi: { host: iscsi.host, port: iscsi.port } } : {}),
      ...{ state: isWanted ? this.engineState : 'stopping', message: this.engineMessage, waitsFor: '' },
      ...(this.cannotStart === undefined ? {} : { cannotStart: this.cannotStart }),
      ...(this.scrubbing.id === '' ? {} : { scrub: this.scrubbing }),
      replicas: replicas.map(({ id }) => {
        const left = this.leftReplicas.has(id)
        const fault = left ? ('no-answer' as const) : ''
        return { id, state: left ? 'left' : 'member', fault, reason: left ? 'it was late' : '' }
      }),
    }
  }
}
