// A whole Ankole on one machine: manager, agent and supervisor in this process, engines and disk hosts under it.
import type { Logger } from 'pino'
import { Agent, socketDirectory, socketPath } from '../agent/index.js'
import { AnkoleError, buildServer, isErrorCode, listen, messageOf, type Faces, type Server } from '../api/index.js'
import { formatHostPort, isReady, Manager, type DiskThresholds } from '../manager/index.js'
import { createMetrics } from '../metrics/index.js'
import type { IoBackend } from '../native/index.js'
import { probeStore, storeIdentity, storeRecord, type Node, type Volume } from '../store/index.js'
import { Supervisor } from '../supervisor/index.js'
import { ensureNode, openDataDirectory } from './data-directory.js'
import { isLoopback, portalAddresses } from './portal-address.js'
import type { HostPort } from './values.js'

export interface LocalNodeOptions {
  data: string
  disks: number | undefined
  http: HostPort
  iscsi: HostPort
  demo: boolean
  ioBackend: IoBackend
  replicaGraceMs: number
  /** Bytes a second; 0: as fast as it goes. */
  resyncBandwidth: number
  diskThresholds: DiskThresholds
  nbdPortFirst: number
  replication: 'unix' | 'tcp'
  version: string
  log: Logger
}

export interface LocalNodeView {
  url: string
  path: string
  node: Node
  ioBackend: string
  volumes: Volume[]
  faces: Faces
  /** Made in this run: it holds nothing of anybody's yet. */
  demoIsNew: boolean
}

/** NBD has no login: only this machine may connect. */
const nbdHost = '127.0.0.1'

const portalReadyWaitMs = 15_000
const disksReadyWaitMs = 15_000
const volumesAttachedWaitMs = 15_000

export class LocalNode {
  readonly #options: LocalNodeOptions
  /** What to take down, last first. */
  readonly #endings: (() => Promise<void>)[] = []
  #manager: Manager | null = null
  #ready = false
  #ended: Promise<void> | null = null

  constructor(options: LocalNodeOptions) {
    this.#options = options
  }

  /** Serves when it resolves. Where it rejects, stop() takes down what was started. */
  async start(): Promise<LocalNodeView> {
    const { data, disks, replication, ioBackend, replicaGraceMs, resyncBandwidth, diskThresholds, nbdPortFirst, log } =
      this.#options
    const directory = openDataDirectory(data)
    this.#endings.push(() => directory.close())
    const { store, path } = directory
    const storeId = await storeIdentity(store)
    if (store.wasRestored) {
      log.warn({ storeId }, 'the store was put back from a copy: volumes start when all their members are there')
    }
    const iscsi = await portalAddresses(this.#options.iscsi)
    const portal = formatHostPort({ ...iscsi.listen, host: iscsi.host })
    if (!isLoopback(iscsi.host)) log.warn({ portal }, 'whoever reaches the iSCSI portal may use volumes without CHAP')
    const faces = { nbdHost, portal }
    const node = await ensureNode(store, { path, address: nbdHost, disks, replication })
    this.#checkGoesOn()

    const supervisor = new Supervisor()
    const recordStore = { store: storeRecord.bind(null, store), probe: probeStore.bind(null, store) }
    const name = node.metadata.name
    const agent = new Agent({ node: name, supervisor, recordStore, log, ioBackend, dataDirectory: path })
    const agents = new Map([[name, agent]])
    const server = await this.#buildServer(name, faces, agents)
    const url = await listen(server, this.#options.http)
    this.#endings.push(() => server.close())
    this.#checkGoesOn()

    const sockets = socketDirectory(path)
    const plan = {
      ...{
        replication,
        nbdHost,
        iscsi,
        lateMs: replicaGraceMs,
        resyncBandwidth,
        diskThresholds,
        nbdPortFirst,
        storeId,
      },
      socketPath: (disk: string) => socketPath(sockets, disk),
    }
    this.#endings.push(() => agent.stop())
    const manager = await Manager.start({ store, agents, plan, log })
    this.#manager = manager
    this.#endings.push(() => manager.stop())
    this.#checkGoesOn()

    await this.#portalReady(manager, name, portal)
    await this.#disksReady(manager)
    this.#ready = true
    const demoIsNew = await this.#addDemo(manager)
    await this.#volumesAttached(manager)
    const backends = agent.report().disks.flatMap((disk) => disk.ioBackend ?? [])
    return { url, path, node, faces, demoIsNew, volumes: manager.volumes(), ioBackend: backends[0] ?? 'unknown' }
  }

  /** Clean, in under 5 s. Again while start() was still on its way: takes down the rest. */
  stop(): Promise<void> {
    this.#ended = (this.#ended ?? Promise.resolve()).then(() => this.#stop())
    return this.#ended
  }

  async #stop(): Promise<void> {
    this.#ready = false
    for (let ending = this.#endings.pop(); ending; ending = this.#endings.pop()) {
      try {
        await ending()
      } catch (error) {
        this.#options.log.error({}, `stopping: ${messageOf(error)}`)
      }
    }
  }

  #checkGoesOn(): void {
    if (this.#ended) throw new Error('stopped while it was starting')
  }

  #buildServer(node: string, faces: Faces, agents: ReadonlyMap<string, Agent>): Promise<Server> {
    const { version, log } = this.#options
    const source = (): Manager | null => this.#manager
    return buildServer({
      ...{ node, faces, version, manager: source },
      ready: () => this.#ready && [...agents.values()].some((agent) => agent.report().disks.some(isReady)),
      metrics: createMetrics({ source, agents, node, version }),
      log: log.child({}, { level: log.level === 'debug' ? 'debug' : 'warn' }),
    })
  }

  /** Its address was asked for: there is no going on with one that cannot be had. A portal that is only slow comes later. */
  async #portalReady(manager: Manager, node: string, address: string): Promise<void> {
    try {
      await manager.waitFor('iSCSI portal', portalReadyWaitMs, () => {
        const portal = manager.report(node)?.portal
        if (portal?.state !== 'failed') return portal?.state === 'ready' ? true : undefined
        const code = isErrorCode(portal.code) ? portal.code : 'unavailable'
        throw new AnkoleError(code, `No iSCSI portal at ${address}: ${portal.message}.`)
      })
    } catch (error) {
      this.#checkGoesOn()
      if (!(error instanceof AnkoleError) || error.code !== 'timed-out') throw error
      this.#options.log.warn({}, `${error.message} ${manager.report(node)?.portal?.message ?? ''}`)
    }
  }

  /** A disk that fails is said in its state; the others serve. */
  async #disksReady(manager: Manager): Promise<void> {
    const { log } = this.#options
    try {
      await manager.waitFor('answer of every disk', disksReadyWaitMs, () => {
        const disks = manager
          .nodes()
          .flatMap(({ node, report }) => node.spec.disks.map(({ id }) => report?.disks.find((disk) => disk.id === id)))
        return disks.every((disk) => disk?.state === 'failed' || isReady(disk)) ? true : undefined
      })
    } catch (error) {
      this.#checkGoesOn()
      log.warn({}, messageOf(error))
    }
    for (const { node, report } of manager.nodes()) {
      for (const { id, path } of node.spec.disks) {
        const disk = report?.disks.find((disk) => disk.id === id)
        if (isReady(disk)) continue
        log.error({ disk: id, directory: path }, `disk ${id} is not ready: ${disk?.message ?? 'it does not answer'}`)
      }
    }
  }

  async #addDemo(manager: Manager): Promise<boolean> {
    const { demo, log } = this.#options
    if (!demo || manager.volumes().length > 0) return false
    const disks = manager.nodes().reduce((sum, { node }) => sum + node.spec.disks.length, 0)
    try {
      const numberOfReplicas = Math.min(3, disks)
      await manager.createVolume({ name: 'demo', sizeBytes: 1024 ** 3, numberOfReplicas, cache: 'buffered' })
      await manager.attach('demo')
      return true
    } catch (error) {
      this.#checkGoesOn()
      log.warn({ volume: 'demo' }, `the first volume was not made: ${messageOf(error)}`)
      return false
    }
  }

  async #volumesAttached(manager: Manager): Promise<void> {
    const isPending = ({ spec, status }: Volume): boolean =>
      spec.nodeID !== null && status.state !== 'attached' && status.state !== 'faulted'
    try {
      await manager.waitFor('answer of every attached volume', volumesAttachedWaitMs, () =>
        manager.volumes().some(isPending) ? undefined : true,
      )
    } catch (error) {
      this.#checkGoesOn()
      this.#options.log.warn({}, messageOf(error))
    }
  }
}
