// Decides: reads what is wanted and what the nodes report, writes the store and the nodes' plans. The only writer of the
// store. One pass looks at every volume; passes follow each other, never overlap, and run whenever something changed.
import type { EngineReport, NodePlan, NodeReport } from '../agent/index.js'
import { AnkoleError, messageOf } from '../api/errors.js'
import type { EngineSpace, Layer } from '../native/index.js'
import {
  giveAttachment,
  modify,
  salvageVolume,
  type Node,
  type ScrubFindings,
  type ScrubState,
  type Snapshot,
  type TrimCounts,
  type TrimState,
  type Volume,
  type WatchEvent,
} from '../store/index.js'
import { confirmAdoption, refuseReadOnly, refuseUnsettled, settleAdoption } from './adoption.js'
import { isBeingMade, linkedClonesOf, refuseCloned, refuseWhileCloned, settleClone } from './clones.js'
import {
  agentOf,
  countersOf,
  deleting,
  placementNodes,
  type ClusterView,
  type ManagerOptions,
  type NodeUsage,
} from './context.js'
import { DiskLevels } from './disk-levels.js'
import { assessExpansion, isExpanded, orderExpansion, type ExpansionRefusal } from './expansion.js'
import { nodePlan } from './node-plan.js'
import { engineEnded, observeEngine, observeReplicas } from './observation.js'
import { count, growthObstacle } from './placement.js'
import { planSalvage, type SalvagePlan } from './salvage.js'
import { assessScrub, scrubDueMs, scrubsToBegin } from './scrub.js'
import { changesOf, readableSnapshot, refuseInUse, type Changes, type SnapshotAsker } from './snapshot-contents.js'
import { SnapshotKeeper, type SnapshotRequest } from './snapshot-keeper.js'
import { engineSpace, type DiskLevel, type DiskThresholds } from './thresholds.js'
import { attachedBy, checkMayAttach, endImport, isFor, letGo } from './transfer.js'
import { logScrub, logTransition, logTrim } from './transitions.js'
import { assessTrim } from './trim.js'
import { scrub, scrubProgress, stopScrub, stopTrim, trim, trimProgress, type UpkeepProgress } from './upkeep.js'
import { VolumeMaker, type CloneVolume, type VolumeRequest } from './volume-maker.js'
import { checkSettings, withSettings, type VolumeSettings } from './volume-settings.js'
import { formatBytes } from './volume-spec.js'
import { assess, type Assessment } from './volume-state.js'
import { Waiters } from './waiters.js'

/** Who uses an attached volume, and whether it was changed meanwhile: where two looks say the same, it was not. */
export interface Activity {
  nbdConnections: number
  iscsiSessions: number
  /** Requests that changed its content, since this engine's process started. */
  changes: number
  /** Of the engine: another one counts anew. */
  epoch: { attachment: number; run: number }
}

/** After something failed, and while a volume waits for its disks. */
const lookAgainMs = 1000

/** The clock may be set; so no wait for the next scrub is longer than this. */
const scrubWaitMsMax = 3_600_000

export class Manager {
  readonly #options: ManagerOptions
  readonly #volumes = new Map<string, Volume>()
  readonly #nodes = new Map<string, Node>()
  readonly #snapshots: SnapshotKeeper
  readonly #plans = new Map<string, NodePlan>()
  readonly #waitingSince = new Map<string, number>()
  /** The last one of each volume, for who waits for it. */
  readonly #refusedExpansions = new Map<string, ExpansionRefusal>()
  readonly #diskLevels: DiskLevels
  readonly #waiters = new Waiters()
  readonly #view: ClusterView
  readonly #maker: VolumeMaker
  readonly #endings: (() => void)[] = []
  #dirty = false
  #pass: Promise<void> | null = null
  /** Ports are given to one volume after the other. */
  #creating: Promise<unknown> = Promise.resolve()
  #timer: NodeJS.Timeout | null = null
  #scrubTimer: NodeJS.Timeout | null = null
  #stopped = false

  /** The agents' supervisors have just started: what engines there were before have ended. */
  static async start(options: ManagerOptions): Promise<Manager> {
    const manager = new Manager(options)
    await manager.#releaseEnded()
    const { store, agents } = options
    manager.#endings.push(
      store.watch('Node', (event) => manager.#onNode(event)),
      store.watch('Volume', (event) => manager.#onVolume(event)),
      store.watch('Snapshot', (event) => manager.#onSnapshot(event)),
      ...[...agents.values()].map((agent) => agent.onChange(() => manager.#look())),
    )
    manager.#look()
    return manager
  }

  private constructor(options: ManagerOptions) {
    this.#options = options
    this.#snapshots = new SnapshotKeeper(options.store, options.log)
    this.#diskLevels = new DiskLevels(options.log, options.plan.diskThresholds)
    this.#view = {
      options,
      volumes: () => [...this.#volumes.values()],
      volume: (name) => this.volume(name),
      nodes: () => [...this.#nodes.values()],
      reports: () => this.#reports(),
      engine: (volume) => this.engine(volume),
      snapshot: (volume, name) => this.snapshot(volume, name),
      change: (name, change) => this.#change(name, change),
    }
    this.#maker = new VolumeMaker(this.#view)
  }

  /** Ends all decisions; what runs goes on running. */
  async stop(): Promise<void> {
    this.#stopped = true
    for (const end of this.#endings) end()
    if (this.#timer) clearTimeout(this.#timer)
    await this.#pass
    if (this.#scrubTimer) clearTimeout(this.#scrubTimer)
    this.#waiters.stop()
  }

  volumes(): Volume[] {
    return [...this.#volumes.values()].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
  }

  volume(name: string): Volume {
    const volume = this.#volumes.get(name)
    if (volume) return volume
    throw new AnkoleError('not-found', `Volume ${JSON.stringify(name)} does not exist.`)
  }

  nodes(): { node: Node; report: NodeReport | undefined }[] {
    return [...this.#nodes.values()].map((node) => ({ node, report: this.report(node.metadata.name) }))
  }

  report(node: string): NodeReport | undefined {
    return this.#options.agents.get(node)?.report()
  }

  engine(volume: Volume): EngineReport | undefined {
    return observeEngine(volume, this.#reports())
  }

  /** Placed and stored when it resolves; its replicas are made after that. */
  createVolume(request: VolumeRequest): Promise<Volume> {
    return this.#inTurn(() => this.#maker.create(request))
  }

  /**
   * A new volume with what a snapshot holds, on the disks of the volume's replicas: placed and stored when it resolves;
   * its replicas are made after that.
   */
  cloneSnapshot(volume: string, snapshot: string, request: CloneVolume): Promise<Volume> {
    return this.#inTurn(() => this.#maker.clone(volume, snapshot, request))
  }

  /** Names of the volumes that are linked clones of it. */
  clonesOf(snapshot: Snapshot): string[] {
    return linkedClonesOf(snapshot, this.#volumes.values())
  }

  /**
   * Asks for the volume to be attached to the node; without one to where it is, or to the only node. With the id of a
   * transfer for that alone, unless it is attached already.
   */
  attach(name: string, node?: string, transfer?: string): Promise<Volume> {
    return this.#change(name, (volume) => {
      const wanted = node ?? volume.spec.nodeID ?? this.#defaultNode()
      if (!this.#nodes.has(wanted)) throw new AnkoleError('not-found', `Node ${JSON.stringify(wanted)} does not exist.`)
      if (volume.metadata.deletionTimestamp !== undefined) throw deleting(name, 'attached')
      checkMayAttach(volume, transfer)
      refuseUnsettled(volume)
      if (volume.spec.nodeID === wanted) return attachedBy(volume, transfer, false)
      const held = volume.spec.nodeID ?? volume.membership.node
      if (held !== null && held !== wanted) {
        throw new AnkoleError(
          'volume-attached',
          `Volume ${name} cannot be attached to ${wanted}: it is attached to ${held}.`,
        )
      }
      attachedBy(volume, transfer, volume.spec.nodeID === null)
      volume.spec.nodeID = wanted
      return true
    })
  }

  /** What salvage would do, and with `confirmed` does; see planSalvage for what it throws. */
  async salvage(name: string, replicas: readonly string[], confirmed: boolean): Promise<SalvagePlan> {
    const volume = this.volume(name)
    const plan = planSalvage(volume, this.engine(volume), replicas)
    if (!confirmed) return plan
    await salvageVolume(this.#options.store, name, volume.membership.attachment, plan)
    const { attachment, record, reason, mayLose } = plan
    this.#options.log.warn(
      { volume: name, attachment, replicas: record.members, reason, mayLose },
      `volume is salvaged with replicas ${record.members.join(', ')}: it could not start as ${reason}; may be lost: ${mayLose}`,
    )
    return plan
  }

  /** With the id of a transfer only where the volume is attached for that. */
  detach(name: string, transfer?: string): Promise<Volume> {
    return this.#change(name, (volume) => {
      if (transfer !== undefined && !isFor(volume, transfer)) return false
      const wasHeld = letGo(volume)
      if (volume.spec.nodeID === null) return wasHeld
      volume.spec.nodeID = null
      return true
    })
  }

  /** What was imported is whole, and the volume everybody's. */
  async endImport(name: string, transfer: string): Promise<Volume> {
    const volume = await this.#change(name, (volume) => endImport(volume, transfer))
    this.#options.log.info({ volume: name }, 'import has ended')
    return volume
  }

  /** Throws volume-not-attached, and unavailable where its engine does not answer. */
  async activity(name: string): Promise<Activity> {
    const volume = this.volume(name)
    const engine = this.engine(volume)
    if (volume.status.state !== 'attached' || engine === undefined) {
      throw new AnkoleError('volume-not-attached', `Volume ${name} is not attached: it is ${volume.status.state}.`)
    }
    const { attachment, run } = engine
    const counted = await countersOf(this.#view, volume)
    const now = this.engine(volume)
    if (counted === undefined || now?.run !== run) {
      throw new AnkoleError('unavailable', `The engine of volume ${name} does not say what it does.`)
    }
    const { operations, connections: nbdConnections, iscsiSessions } = counted
    const changes = (['write', 'zero', 'unmap'] as const).reduce((sum, name) => sum + operations[name].count, 0)
    return { nbdConnections, iscsiSessions, changes, epoch: { attachment, run } }
  }

  /**
   * Refuses while clients are connected, unless forced: what they wrote would be gone under their hands. With the id of
   * a transfer only where the volume was made for that: another one may have its name by now.
   */
  async delete(name: string, force: boolean, transfer?: string): Promise<Volume> {
    const volume = this.volume(name)
    if (!force && volume.status.state === 'attached') await this.#refuseWithClients(volume)
    const change = (volume: Volume): boolean => {
      if (transfer !== undefined && !isFor(volume, transfer)) {
        throw new AnkoleError('not-found', `Volume ${name} is not being imported by who wants it deleted.`)
      }
      if (volume.metadata.deletionTimestamp !== undefined) return false
      refuseWhileCloned(volume, this.#volumes.values())
      volume.metadata.deletionTimestamp = new Date().toISOString()
      volume.spec.nodeID = null
      return true
    }
    return await this.#inTurn(() => this.#change(name, change))
  }

  /** See Waiters. */
  waitFor<T>(what: string, timeoutMs: number, check: () => T | undefined): Promise<T> {
    return this.#waiters.waitFor(what, timeoutMs, check)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#creating.then(work)
    this.#creating = done.catch(() => undefined)
    return done
  }

  /** Confirms that a volume that was adopted may be written to. It is once it has no adoption any more. */
  async makeWritable(name: string): Promise<Volume> {
    const volume = await this.#change(name, confirmAdoption)
    this.#options.log.info({ volume: name }, 'volume may be written to from now on')
    return volume
  }

  scrub(name: string, bandwidth: number): Promise<Volume> {
    return scrub(this.#view, name, bandwidth)
  }

  stopScrub(name: string): Promise<Volume> {
    return stopScrub(this.#view, name)
  }

  scrubProgress(name: string): Promise<UpkeepProgress<ScrubFindings>> {
    return scrubProgress(this.#view, name)
  }

  trim(name: string, bandwidth: number): Promise<Volume> {
    return trim(this.#view, name, bandwidth)
  }

  stopTrim(name: string): Promise<Volume> {
    return stopTrim(this.#view, name)
  }

  trimProgress(name: string): Promise<UpkeepProgress<TrimCounts>> {
    return trimProgress(this.#view, name)
  }

  createSnapshot(volume: string, request: SnapshotRequest): Promise<Snapshot> {
    return this.#inTurn(() => {
      refuseReadOnly(this.volume(volume), 'No snapshot can be taken')
      return this.#snapshots.create(this.volume(volume), request)
    })
  }

  /**
   * Wants it gone: its layer once the volume is attached, the space that it takes up in the background. Throws
   * snapshot-in-use and snapshot-has-clones.
   */
  async deleteSnapshot(volume: string, name: string): Promise<Snapshot> {
    refuseReadOnly(this.volume(volume), `Snapshot ${name} cannot be deleted`)
    await refuseInUse(this.volume(volume), this.snapshot(volume, name), this.#askerOf(volume))
    // In turn with clones of it that are being asked for.
    return await this.#inTurn(async () => {
      refuseCloned(this.snapshot(volume, name), this.#volumes.values())
      return await this.#snapshots.remove(this.volume(volume), name)
    })
  }

  /** Throws unless the volume can be taken back to it now. */
  checkRevert(volume: string, name: string): Snapshot {
    refuseReadOnly(this.volume(volume), 'It cannot be reverted')
    return this.#snapshots.checkRevert(this.volume(volume), name)
  }

  /** What becomes of it the snapshot tells. `kept`: the newest snapshot, which has what the volume holds now. */
  revert(volume: string, name: string, kept: string, force: boolean): Promise<Snapshot> {
    return this.#inTurn(() => this.#snapshots.revert(this.volume(volume), name, kept, force))
  }

  snapshots(volume: string): readonly Snapshot[] {
    return this.#snapshots.of(this.volume(volume))
  }

  snapshot(volume: string, name: string): Snapshot {
    return this.#snapshots.one(this.volume(volume), name)
  }

  /** A part of what changed between two snapshots, or of what one has allocated, from `offset` on. */
  async snapshotChanges(
    volume: string,
    name: string,
    { from, offset, limit }: { from: string | null; offset: number; limit: number },
  ): Promise<Changes> {
    const before = from === null ? null : this.snapshot(volume, from)
    const wanted = { from: before, offset, limit }
    return await changesOf(this.volume(volume), this.snapshot(volume, name), wanted, this.#askerOf(volume))
  }

  /** From now on NBD clients can read it, where the volume is served. */
  async readSnapshot(volume: string, name: string): Promise<{ export: string; sizeBytes: number }> {
    return await readableSnapshot(this.volume(volume), this.snapshot(volume, name), this.#askerOf(volume))
  }

  /** What the replicas on all disks take up now; a node that does not say is left out. */
  async usage(): Promise<NodeUsage[]> {
    const answers = [...this.#options.agents].map(async ([node, agent]) => ({ node, disks: await agent.usage() }))
    return (await Promise.allSettled(answers)).flatMap((answer) =>
      answer.status === 'fulfilled' ? [answer.value] : [],
    )
  }

  #askerOf(volume: string): SnapshotAsker | undefined {
    return agentOf(this.#view, this.volume(volume))
  }

  /** Of an attached volume, as its engine has them now; undefined where that does not say. */
  async layers(name: string): Promise<Layer[] | undefined> {
    const volume = this.volume(name)
    if (volume.status.state !== 'attached') return undefined
    return await agentOf(this.#view, volume)?.layers(name)
  }

  /** What may change at any time. An engine that runs follows without a pause. */
  update(name: string, settings: VolumeSettings): Promise<Volume> {
    checkSettings(settings)
    return this.#change(name, (volume) => {
      if (volume.metadata.deletionTimestamp !== undefined) throw deleting(name, 'changed')
      volume.spec = withSettings(volume.spec, settings)
      return true
    })
  }

  /**
   * Wants the volume larger. Resolves once that is stored; the id is that of the order, null where there is nothing to
   * wait for: it is as large, or is not attached. What becomes of the order `checkExpansion` tells.
   */
  expand(name: string, sizeBytes: number): Promise<{ volume: Volume; id: string | null }> {
    return this.#inTurn(() => this.#expand(name, sizeBytes))
  }

  async #expand(name: string, sizeBytes: number): Promise<{ volume: Volume; id: string | null }> {
    const volume = await this.#change(name, (volume) => {
      if (volume.metadata.deletionTimestamp !== undefined) throw deleting(name, 'expanded')
      if (sizeBytes !== volume.spec.sizeBytes) refuseReadOnly(volume, `It cannot be expanded`)
      const cluster = placementNodes(this.#view)
      return orderExpansion(volume, sizeBytes, (growthBytes) => growthObstacle(cluster, volume.replicas, growthBytes))
    })
    const { expansion } = volume
    this.#options.log.info({ volume: name, sizeBytes, expansion: expansion?.id }, 'volume is to be expanded')
    return { volume, id: expansion?.attached ? expansion.id : null }
  }

  /** Throws what the engine said where the order could not be carried out. True: it was. */
  checkExpansion(volume: Volume, id: string): boolean {
    return isExpanded(volume, id, this.#refusedExpansions.get(volume.metadata.name))
  }

  async #refuseWithClients(volume: Volume): Promise<void> {
    const engine = await countersOf(this.#view, volume)
    const clients = engine && engine.connections + engine.iscsiSessions
    if (clients === 0) return
    const cause = clients
      ? `${count(clients, 'client connection')} to it ${clients === 1 ? 'is' : 'are'} open`
      : 'its engine does not say whether clients are connected'
    throw new AnkoleError('volume-in-use', `Volume ${volume.metadata.name} cannot be deleted: ${cause}.`)
  }

  #defaultNode(): string {
    const [first, second] = [...this.#nodes.keys()]
    if (first !== undefined && second === undefined) return first
    throw new AnkoleError('invalid-argument', 'Name the node to attach to: there is not exactly one.')
  }

  async #change(name: string, change: (volume: Volume) => boolean): Promise<Volume> {
    this.volume(name) // one message for what is not there
    return await modify(this.#options.store, 'Volume', name, change)
  }

  #reports(): Map<string, NodeReport> {
    return new Map([...this.#options.agents].map(([name, agent]) => [name, agent.report()]))
  }

  async #releaseEnded(): Promise<void> {
    const { store, agents } = this.#options
    for (const { metadata } of await store.list('Volume')) {
      await modify(store, 'Volume', metadata.name, ({ membership }) => {
        if (membership.node === null || !agents.has(membership.node)) return false
        membership.node = null
        return true
      })
    }
  }

  #onNode({ type, resource }: WatchEvent<'Node'>): void {
    if (type === 'deleted') this.#nodes.delete(resource.metadata.name)
    else this.#nodes.set(resource.metadata.name, resource)
    this.#look()
  }

  #onVolume({ type, resource }: WatchEvent<'Volume'>): void {
    if (type === 'deleted') {
      this.#volumes.delete(resource.metadata.name)
      this.#refusedExpansions.delete(resource.metadata.name)
    } else this.#volumes.set(resource.metadata.name, resource)
    this.#look()
    this.#waiters.tell()
  }

  #onSnapshot(event: WatchEvent<'Snapshot'>): void {
    this.#snapshots.onEvent(event)
    this.#look()
    this.#waiters.tell()
  }

  /** Asks for a pass; one that runs already is followed by another. */
  #look(): void {
    this.#dirty = true
    if (this.#pass || this.#stopped) return
    this.#pass = this.#passes().finally(() => {
      this.#pass = null
    })
  }

  async #passes(): Promise<void> {
    // Not before the caller's own work is done: several changes in one turn are one pass.
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#dirty && !this.#stopped) {
      this.#dirty = false
      const reports = this.#reports()
      this.#diskLevels.assess(reports)
      const scrubs = scrubsToBegin([...this.#volumes.values()], Date.now())
      for (const name of [...this.#volumes.keys()]) {
        const volume = this.#volumes.get(name) // as it is now: it may have changed while others were looked at
        if (volume) await this.#bringNearer(volume, reports, scrubs.has(name))
      }
      await this.#dropOrphans()
      this.#writePlans()
      this.#waitForScrubs()
      this.#waiters.tell()
    }
  }

  async #bringNearer(volume: Volume, reports: ReadonlyMap<string, NodeReport>, mayScrub: boolean): Promise<void> {
    const { name } = volume.metadata
    try {
      if (volume.iscsiPort === undefined && volume.metadata.deletionTimestamp === undefined) {
        await this.#inTurn(() => this.#maker.givePort(name)) // The next look is at the volume that has it.
        return
      }
      const node = volume.membership.node
      const engine = observeEngine(volume, reports)
      const replicas = observeReplicas(volume, reports)
      const assessed = assessExpansion(volume, engine)
      const settled = settleClone(settleAdoption(assessed.volume, replicas), replicas, Date.now())
      const expanded = { ...assessed, volume: settled }
      if (isBeingMade(settled)) this.#lookLater()
      // An order that is over is not what the status tells of.
      const assessment = assess(expanded.volume, {
        replicas,
        engine,
        engineEnded: node !== null && engineEnded(volume, this.#plans.get(node), reports.get(node)),
        waitedMs: this.#waitedMs(volume),
      })
      const scrub = assessScrub(volume, engine, Date.now(), mayScrub)
      const trim = assessTrim(volume, engine, Date.now())
      if (expanded.refused) this.#noteRefused(name, expanded.refused)
      await this.#carryOut(volume, expanded.volume, assessment, { scrub, trim })
      if (assessment.step === 'forget') return
      const isUnplanned = (layer: string): boolean => this.#isUnplanned(volume, layer, reports)
      if (await this.#snapshots.bringNearer(volume, engine, isUnplanned)) this.#lookLater()
    } catch (error) {
      this.#lookLater()
      if (error instanceof AnkoleError && (error.code === 'conflict' || error.code === 'not-found')) return
      this.#options.log.error({ volume: name }, `volume cannot be brought nearer to its goal: ${messageOf(error)}`)
    }
  }

  #noteRefused(name: string, refused: ExpansionRefusal): void {
    if (this.#refusedExpansions.get(name)?.id === refused.id) return
    this.#refusedExpansions.set(name, refused)
    this.#options.log.warn(
      { volume: name, expansion: refused.id, code: refused.code },
      `volume cannot be expanded to ${formatBytes(refused.toBytes)}: ${refused.message}`,
    )
  }

  /** The node has followed a plan that does not ask for this layer. */
  #isUnplanned({ metadata, membership }: Volume, layer: string, reports: ReadonlyMap<string, NodeReport>): boolean {
    const plan = this.#plans.get(membership.node ?? '')
    if (plan === undefined || reports.get(plan.node)?.version !== plan.version) return false
    const engine = plan.engines.find(({ volume }) => volume === metadata.name)
    return engine?.snapshots?.take.every((take) => take.layer !== layer) ?? true
  }

  async #dropOrphans(): Promise<void> {
    try {
      await this.#snapshots.dropOrphans([...this.#volumes.values()])
    } catch (error) {
      this.#lookLater()
      this.#options.log.error({}, `snapshots of volumes that are gone cannot be forgotten: ${messageOf(error)}`)
    }
  }

  #waitedMs({ metadata: { name }, spec, membership }: Volume): number {
    if (spec.nodeID === null || membership.node !== null) {
      this.#waitingSince.delete(name)
      return 0
    }
    const since = this.#waitingSince.get(name) ?? performance.now()
    this.#waitingSince.set(name, since)
    this.#lookLater()
    return performance.now() - since
  }

  /** `expanded` is the volume with what its engine said of its size. */
  async #carryOut(
    volume: Volume,
    expanded: Volume,
    { status, step }: Assessment,
    { scrub, trim }: { scrub: ScrubState | undefined; trim: TrimState | undefined },
  ): Promise<void> {
    const { store, log } = this.#options
    const { name, resourceVersion } = volume.metadata
    const node = volume.spec.nodeID
    let next: Volume = {
      ...{ ...expanded, status },
      ...(scrub === undefined ? {} : { scrub }),
      ...(trim === undefined ? {} : { trim }),
    }
    switch (step) {
      case 'none':
        break
      case 'give-attachment':
        if (node !== null) next = giveAttachment(next, node, this.report(node)?.bootId ?? '')
        break
      case 'release-attachment':
        next = { ...next, membership: { ...next.membership, node: null } }
        break
      case 'forget':
        await this.#snapshots.forget(volume)
        await store.delete('Volume', name, resourceVersion)
        log.info({ volume: name }, 'volume deleted')
        return
    }
    if (JSON.stringify(next) === JSON.stringify(volume)) return
    await store.update('Volume', next)
    logTransition(log, this.#options.plan, volume, next)
    if (volume.expansion !== undefined && next.expansion === undefined) {
      log.info({ volume: name, sizeBytes: next.spec.sizeBytes }, `volume has ${formatBytes(next.spec.sizeBytes)}`)
    }
    logScrub(log, next, volume.scrub?.last?.endedAt)
    logTrim(log, next, volume.trim?.last?.endedAt)
  }

  get diskThresholds(): DiskThresholds {
    return this.#diskLevels.thresholds
  }

  diskLevel(node: string, disk: string): DiskLevel {
    return this.#diskLevels.of(node, disk)
  }

  #writePlans(): void {
    const reports = this.#reports()
    const level = (node: string, disk: string): DiskLevel => this.diskLevel(node, disk)
    const spaceOf = (volume: Volume): EngineSpace | undefined =>
      engineSpace(volume, reports, level, this.diskThresholds)
    for (const [name, agent] of this.#options.agents) {
      const node = this.#nodes.get(name)
      if (!node) continue
      const before = this.#plans.get(name)
      const wanted = nodePlan(node, this.volumes(), this.#options.plan, (volume) => this.#snapshots.of(volume), spaceOf)
      if (before && JSON.stringify({ ...wanted, version: before.version }) === JSON.stringify(before)) continue
      const plan = { ...wanted, version: (before?.version ?? 0) + 1 }
      this.#plans.set(name, plan)
      agent.apply(plan)
      this.#look() // the report may answer the new plan without any other change in it
    }
  }

  /** Looks again when the next volume is due. */
  #waitForScrubs(): void {
    if (this.#scrubTimer) clearTimeout(this.#scrubTimer)
    const now = Date.now()
    const waits = [...this.#volumes.values()].flatMap((volume) => {
      const dueMs = volume.scrub?.current === undefined ? scrubDueMs(volume) : null
      // What is due already waits for another one to end, or to be attached: that is looked at as it happens.
      return dueMs !== null && dueMs > now ? [dueMs - now] : []
    })
    this.#scrubTimer = setTimeout(
      () => {
        this.#look()
      },
      Math.min(scrubWaitMsMax, ...waits),
    ).unref()
  }

  #lookLater(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      this.#look()
    }, lookAgainMs)
  }
}
