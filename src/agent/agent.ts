// The node agent: makes this machine match the plan that the manager wrote for it, and reports what it finds.

import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import {
  RequestError,
  type DiskCounters,
  type DiskHostEvent,
  type DiskUsage,
  type EngineCounters,
  type EngineEvent,
  type EngineRequests,
  type IoBackend,
  type Layer,
  type PortalCounters,
  type PortalEvent,
  type Reply,
} from '../native/index.js'
import type { ProcessIdentity, ProcessKey, SupervisorClient, SupervisorEvent } from '../supervisor/index.js'
import { DiskController } from './disk.js'
import { EngineController, type RecordStore, type SnapshotQuestion } from './engine.js'
import type { Logger } from './log.js'
import type { NodePlan, NodeReport, ProcessReport } from './plan.js'
import { PortalController } from './portal.js'

export interface NodeCounters {
  engines: EngineCounters[]
  disks: DiskCounters[]
  portal?: PortalCounters
}

export interface AgentOptions {
  node: string
  supervisor: SupervisorClient
  recordStore: RecordStore
  log: Logger
  ioBackend: IoBackend
  /** Where an engine probes the io back end; it keeps nothing there. */
  dataDirectory?: string
}

const countersLimitMs = 1_000
const layersLimitMs = 2_000
const usageLimitMs = 2_000

/** Together, with engines and portal at once, under the 5 s in which a node stops, with what it takes to kill the rest. */
const stopLimitMs = { engine: 3_000, portal: 3_000, 'disk-host': 1_500 } as const

export class Agent {
  readonly #engines = new Map<string, EngineController>()
  readonly #disks = new Map<string, DiskController>()
  #portal: PortalController | undefined
  readonly #listeners = new Set<(report: NodeReport) => void>()
  readonly #unsubscribe: () => void
  #version = 0
  #announcing = false
  #stopping: Promise<void> | undefined
  readonly #ioBackendsSaid = new Set<string>()
  readonly #bootId = readBootId()

  constructor(private readonly options: AgentOptions) {
    this.#unsubscribe = options.supervisor.onEvent((event) => {
      this.#onEvent(event)
    })
  }

  /** Level-triggered: starts and stops what differs. Never blocks; how it goes is in the reports. */
  apply(plan: NodePlan): void {
    const { node, log } = this.options
    if (this.#stopping !== undefined) return
    if (plan.node !== node) {
      log.error({ node }, `a plan for node ${plan.node} came to node ${node}, and is not followed`)
      return
    }
    this.#version = plan.version
    for (const disk of plan.disks) this.#disk(disk).follow(disk)
    for (const engine of plan.engines) this.#engine(engine).follow(engine)
    this.#followPortal(plan)
    const wantedEngines = new Set(plan.engines.map(({ volume }) => volume))
    const wantedDisks = new Set(plan.disks.map(({ id }) => id))
    for (const [volume, engine] of this.#engines) {
      if (!wantedEngines.has(volume) && !engine.leaving) void this.#drop(this.#engines, volume, engine)
    }
    for (const [id, disk] of this.#disks) {
      if (!wantedDisks.has(id) && !disk.leaving) void this.#drop(this.#disks, id, disk)
    }
    this.#changed()
  }

  report(): NodeReport {
    return {
      version: this.#version,
      node: this.options.node,
      bootId: this.#bootId,
      disks: [...this.#disks.values()].map((disk) => disk.report()),
      engines: [...this.#engines.values()].map((engine) => engine.report()),
      ...(this.#portal === undefined ? {} : { portal: this.#portal.report() }),
      processes: this.options.supervisor.list().map((process): ProcessReport => {
        const { pid, kind, volume, disk, restarts, startedAt } = process
        const subject = { ...(volume === undefined ? {} : { volume }), ...(disk === undefined ? {} : { disk }) }
        return { pid, kind, ...subject, restarts, startedAt }
      }),
    }
  }

  /** Several changes at once are one call. */
  onChange(listener: (report: NodeReport) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Who is silent for a second is left out. */
  async counters(): Promise<NodeCounters> {
    const [engines, disks, [portal]] = await Promise.all([
      Promise.allSettled([...this.#engines.values()].map((engine) => engine.counters(countersLimitMs))),
      Promise.allSettled([...this.#disks.values()].map((disk) => disk.counters(countersLimitMs))),
      Promise.allSettled(this.#portal === undefined ? [] : [this.#portal.counters(countersLimitMs)]),
    ])
    return {
      ...{ engines: fulfilled(engines), disks: fulfilled(disks) },
      ...(portal?.status === 'fulfilled' ? { portal: portal.value } : {}),
    }
  }

  /** What the replicas of each disk take up now. Who is silent is left out. */
  async usage(): Promise<DiskUsage[]> {
    return fulfilled(await Promise.allSettled([...this.#disks.values()].map((disk) => disk.usage(usageLimitMs))))
  }

  /** Of one volume, as its engine lists them now; undefined: none serves it here. */
  async layers(volume: string): Promise<Layer[] | undefined> {
    return await this.#engines.get(volume)?.layers(layersLimitMs)
  }

  /** About what snapshots of a volume hold. Rejects with a RequestError, also where no engine serves it here. */
  async askEngine<Op extends SnapshotQuestion>(
    volume: string,
    op: Op,
    parameters: EngineRequests[Op]['parameters'],
  ): Promise<EngineRequests[Op]['result']> {
    const engine = this.#engines.get(volume)
    if (engine === undefined) throw new RequestError('gone', `no engine of volume ${volume} is here`)
    return await engine.ask(op, parameters)
  }

  /** The engines first, clean, as they need the disk hosts for that. Under 5 s in all; what is left then is killed. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    await Promise.all([
      this.#portal?.leave(stopLimitMs.portal),
      ...[...this.#engines.values()].map((engine) => engine.leave(stopLimitMs.engine)),
    ])
    await Promise.all([...this.#disks.values()].map((disk) => disk.leave(stopLimitMs['disk-host'])))
    this.#engines.clear()
    this.#disks.clear()
    this.#portal = undefined
    this.#unsubscribe()
    this.#changed()
  }

  #engine(plan: NodePlan['engines'][number]): EngineController {
    const known = this.#engines.get(plan.volume)
    if (known !== undefined) return known
    const { supervisor, recordStore, log, ioBackend, dataDirectory = tmpdir() } = this.options
    const changed = (): void => {
      this.#changed()
    }
    const context = { supervisor, recordStore, log, ioBackend, dataDirectory, changed }
    const engine = new EngineController(context, plan)
    this.#engines.set(plan.volume, engine)
    return engine
  }

  #disk(plan: NodePlan['disks'][number]): DiskController {
    const known = this.#disks.get(plan.id)
    if (known !== undefined) return known
    const { supervisor, log, ioBackend } = this.options
    const changed = (): void => {
      this.#changed()
    }
    const disk = new DiskController({ supervisor, log, ioBackend, changed }, plan)
    this.#disks.set(plan.id, disk)
    return disk
  }

  #followPortal({ portal: plan }: NodePlan): void {
    const known = this.#portal
    if (plan === undefined) {
      if (known === undefined || known.leaving) return
      void known.leave().then((gone) => {
        if (!gone || this.#portal !== known) return
        this.#portal = undefined
        this.#changed()
      })
      return
    }
    const { supervisor, log, ioBackend } = this.options
    const changed = (): void => {
      this.#changed()
    }
    this.#portal ??= new PortalController({ supervisor, log, ioBackend, changed }, plan)
    this.#portal.follow(plan)
  }

  /** Forgotten when its process is gone, unless a later plan wants it again. */
  async #drop<T extends { leave(): Promise<boolean> }>(all: Map<string, T>, name: string, one: T): Promise<void> {
    if ((await one.leave()) && all.get(name) === one) {
      all.delete(name)
      this.#changed()
    }
  }

  #onEvent(event: SupervisorEvent): void {
    switch (event.type) {
      case 'started':
        this.#onStarted(event.process)
        break
      case 'event':
        this.#onProcessEvent(event)
        return
      case 'output':
        this.options.log.error(event.process, event.line)
        return
      case 'exited':
        this.#onExited(event)
        break
      case 'spawn-failed':
        this.#controller(event.key)?.onSpawnFailed(event.reason, event.restartInMs)
        break
    }
    this.#changed() // The list of processes did.
  }

  #onStarted(process: ProcessIdentity): void {
    switch (process.kind) {
      case 'engine':
        this.#engines.get(process.volume)?.onStarted(process)
        break
      case 'disk-host':
        this.#disks.get(process.disk)?.onStarted(process)
        break
      case 'portal':
        this.#portal?.onStarted(process)
        break
    }
  }

  #onExited({ process, reason, restartInMs }: Extract<SupervisorEvent, { type: 'exited' }>): void {
    switch (process.kind) {
      case 'engine':
        this.#engines.get(process.volume)?.onExited(process, reason, restartInMs)
        break
      case 'disk-host':
        this.#disks.get(process.disk)?.onExited(process, reason, restartInMs)
        break
      case 'portal':
        this.#portal?.onExited(process, reason, restartInMs)
        break
    }
  }

  #onProcessEvent({ process, event }: Extract<SupervisorEvent, { type: 'event' }>): void {
    if ('reply' in event) {
      this.#controllerOf(process)?.requests.settle(event as Reply)
      return
    }
    if (event.event === 'io-backend') this.#sayIoBackend(event.backend, event.reason)
    // A process sends the events of its kind.
    switch (process.kind) {
      case 'engine':
        this.#engines.get(process.volume)?.onEvent(process, event as EngineEvent)
        break
      case 'disk-host':
        this.#disks.get(process.disk)?.onEvent(process, event as DiskHostEvent)
        break
      case 'portal':
        this.#portal?.onEvent(process, event as PortalEvent)
        break
    }
  }

  #controllerOf(process: ProcessIdentity): EngineController | DiskController | PortalController | undefined {
    switch (process.kind) {
      case 'engine':
        return this.#engines.get(process.volume)
      case 'disk-host':
        return this.#disks.get(process.disk)
      case 'portal':
        return this.#portal
    }
  }

  /** Once for all processes of the node that choose the same. */
  #sayIoBackend(backend: string, reason: string): void {
    if (this.#ioBackendsSaid.has(backend)) return
    this.#ioBackendsSaid.add(backend)
    this.options.log.info({ ioBackend: backend, reason }, `io back end: ${backend}`)
  }

  #controller(key: ProcessKey): EngineController | DiskController | PortalController | undefined {
    const portal = this.#portal === undefined ? [] : [this.#portal]
    return [...portal, ...this.#engines.values(), ...this.#disks.values()].find((controller) => controller.key === key)
  }

  #changed(): void {
    if (this.#announcing) return
    this.#announcing = true
    setImmediate(() => {
      this.#announcing = false
      const report = this.report()
      for (const listener of this.#listeners) listener(report)
    })
  }
}

function readBootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}

function fulfilled<T>(results: PromiseSettledResult<T>[]): T[] {
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
}
