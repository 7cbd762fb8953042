// A node of this machine with its real processes, without a manager: the test writes the plans.

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import {
  Agent,
  socketDirectory,
  socketPath,
  type DiskPlan,
  type EnginePlan,
  type EngineReport,
  type MembershipRecord,
  type NodeReport,
  type PortalPlan,
} from '../../src/agent/index.js'
import type { Chap, ExpansionRequest, HostPort, IoBackend } from '../../src/native/index.js'
import { Supervisor, type SupervisorEvent } from '../../src/supervisor/index.js'

export interface VolumeOptions {
  replicas?: number
  sizeBytes?: number
}

export interface PlanOptions {
  lateMs?: number
  /** For NBD. */
  port?: number
  physicalBlockBytes?: number
  chap?: Chap
  expansion?: ExpansionRequest
}

export class TestNode {
  readonly events: SupervisorEvent[] = []
  readonly lines: { level: string; message: string }[] = []
  /** What the store holds; it outlives the agent. */
  readonly records = new Map<string, MembershipRecord>()
  readonly #disks: DiskPlan[] = []
  readonly #engines = new Map<string, EnginePlan>()
  readonly #attachments = new Map<string, number>()
  #portal: PortalPlan | undefined
  /** Targets that are known and served nowhere. */
  readonly #resting = new Set<string>()
  #version = 0
  #agent: Agent

  constructor(
    readonly directory: string,
    disks: number,
    private readonly ioBackend: IoBackend,
  ) {
    const sockets = socketDirectory(directory)
    for (let n = 1; n <= disks; n++) {
      const id = `disk-${n}`
      mkdirSync(join(directory, id))
      const listen = [`unix:${socketPath(sockets, id)}`]
      this.#disks.push({ id, directory: join(directory, id), listen, replicas: [] })
    }
    this.#agent = this.#newAgent()
  }

  get agent(): Agent {
    return this.#agent
  }

  get report(): NodeReport {
    return this.#agent.report()
  }

  disk(id: string): DiskPlan {
    return this.#disks.find((disk) => disk.id === id)!
  }

  apply(): void {
    this.#agent.apply({
      version: ++this.#version,
      node: 'node-1',
      disks: structuredClone(this.#disks),
      engines: structuredClone([...this.#engines.values()]),
      ...(this.#portal === undefined ? {} : { portal: structuredClone(this.#portal) }),
    })
  }

  /** Wants a portal, with the targets of the engines that are planned by then and later. */
  async portal(): Promise<HostPort> {
    const listen = this.wantPortal(await aFreePort())
    await this.until('portal', ({ portal }) => portal?.state === 'ready')
    return listen
  }

  wantPortal(port: number): HostPort {
    this.#portal = { listen: { host: '127.0.0.1', port }, advertisedHost: '127.0.0.1', targets: [] }
    this.#planTargets()
    this.apply()
    return this.#portal.listen
  }

  #planTargets(): void {
    if (this.#portal === undefined) return
    const served = [...this.#engines.values()].map(({ iscsi: { target: iqn, host, port } }) => {
      return { iqn, address: `${host}:${port}` }
    })
    this.#portal.targets = [...served, ...[...this.#resting].map((iqn) => ({ iqn, address: '' }))]
  }

  /** Creates the replicas, and resolves when all are ready. */
  async create(volume: string, { replicas = 3, sizeBytes = 64 << 20 }: VolumeOptions = {}): Promise<void> {
    const secret = Buffer.from(volume.padEnd(32, '.')).toString('hex')
    for (const [n, disk] of this.#disks.slice(0, replicas).entries()) {
      const id = (Buffer.from(volume).toString('hex') + '0'.repeat(16)).slice(0, 14) + `0${n + 1}`
      disk.replicas.push({ volume, id, sizeBytes, secret, cache: 'buffered', checksums: true, desired: 'present' })
    }
    this.apply()
    await this.until(`replicas of ${volume}`, ({ disks }) =>
      this.#disks.every(
        ({ id, replicas }) =>
          replicas.filter((replica) => replica.volume === volume).length ===
          disks
            .find((disk) => disk.id === id)
            ?.replicas.filter((replica) => replica.volume === volume && replica.state === 'ready').length,
      ),
    )
  }

  /** Gives a new attachment, and resolves when the volume serves. */
  async attach(volume: string, options: PlanOptions = {}): Promise<EngineReport> {
    await this.plan(volume, options)
    return await this.serving(volume)
  }

  async plan(
    volume: string,
    { lateMs = 1000, port, physicalBlockBytes = 4096, chap, expansion }: PlanOptions = {},
  ): Promise<void> {
    const placed = this.#disks.flatMap((disk) =>
      disk.replicas
        .filter((replica) => replica.volume === volume)
        .map((replica) => ({ ...replica, address: disk.listen[0]! })),
    )
    const { sizeBytes, secret } = placed[0]!
    const attachment = (this.#attachments.get(volume) ?? 0) + 1
    this.#attachments.set(volume, attachment)
    const nbd = { host: '127.0.0.1', port: port ?? this.#engines.get(volume)?.nbd.port ?? (await aFreePort()) }
    const iscsi = {
      ...{ host: '127.0.0.1', port: this.#engines.get(volume)?.iscsi.port ?? (await aFreePort()) },
      ...{ target: `iqn.2026-11.io.ankole:${volume}`, serial: volume, physicalBlockBytes },
      ...(chap === undefined ? {} : { chap }),
    }
    const none: MembershipRecord = { epoch: { attachment: 0, run: 0 }, generation: 0, members: [], snapshot: '' }
    const record = this.records.get(volume) ?? none
    const replicas = placed.map(({ id, address }) => ({ id, address }))
    const basis = { attachment, record, storeRestored: false, clientsAnew: false }
    const wanted = expansion === undefined ? {} : { expansion }
    this.#engines.set(volume, { volume, sizeBytes, ...wanted, secret, ...basis, replicas, nbd, iscsi, lateMs })
    this.#planTargets()
    this.apply()
  }

  /** Wants it larger, as the manager does of one that is attached. */
  expand(volume: string, sizeBytes: number, id = 'one'): void {
    this.#engines.get(volume)!.expansion = { id, sizeBytes }
    this.apply()
  }

  storeAway = false

  /** Detaches; the portal still knows the target. */
  rest(volume: string): void {
    this.#resting.add(this.#engines.get(volume)!.iscsi.target)
    this.detach(volume)
  }

  detach(volume: string): void {
    this.#engines.delete(volume)
    this.#planTargets()
    this.apply()
  }

  serving(volume: string): Promise<EngineReport> {
    return this.engine(volume, ({ state }) => state === 'serving')
  }

  async engine(volume: string, is: (engine: EngineReport) => boolean): Promise<EngineReport> {
    const find = (report: NodeReport): EngineReport | undefined =>
      report.engines.find((engine) => engine.volume === volume && is(engine))
    await this.until(`engine ${volume}`, (report) => find(report) !== undefined)
    return find(this.report)!
  }

  pid(key: string): number {
    return this.report.processes.find(({ volume, disk }) => volume === key || disk === key)!.pid
  }

  async until(what: string, is: (report: NodeReport) => boolean): Promise<void> {
    const deadline = Date.now() + 30_000
    while (!is(this.report)) {
      if (Date.now() > deadline) throw new Error(`${what}: not in time; ${this.describe()}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  describe(): string {
    const lines = this.lines.slice(-20).map(({ level, message }) => `${level}: ${message}`)
    return `${JSON.stringify(this.report, undefined, 1)}\n${lines.join('\n')}`
  }

  /** How the processes ended that are gone. */
  ends(): string[] {
    return this.events.flatMap((event) => (event.type === 'exited' ? [`${event.process.key} ${event.reason}`] : []))
  }

  /** The whole node is stopped, and comes back with nothing but its directories and the store. Says how it stopped. */
  async restart(): Promise<string[]> {
    await this.#agent.stop()
    const ends = this.ends()
    this.events.length = 0
    this.#engines.clear()
    this.#agent = this.#newAgent()
    this.apply()
    return ends
  }

  #newAgent(): Agent {
    const supervisor = new Supervisor()
    supervisor.onEvent((event) => this.events.push(event))
    const line = (level: string) => (_: object, message: string) => void this.lines.push({ level, message })
    return new Agent({
      node: 'node-1',
      supervisor,
      recordStore: {
        probe: () => (this.storeAway ? Promise.reject(new Error('the store is away')) : Promise.resolve()),
        store: (volume, record) => {
          if (this.storeAway) return Promise.reject(new Error('the store is away'))
          if (record.epoch.attachment < (this.#attachments.get(volume) ?? 0)) {
            const error = new Error(`attachment ${record.epoch.attachment} is stale`)
            return Promise.reject(Object.assign(error, { code: 'stale-attachment' }))
          }
          this.records.set(volume, record)
          return Promise.resolve()
        },
      },
      log: { info: line('info'), warn: line('warn'), error: line('error') },
      ioBackend: this.ioBackend,
      dataDirectory: this.directory,
    })
  }
}

/** Short, as sockets are put there. */
export function aDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'ankole-test-'))
  t.teardown(() => {
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}

/** With as many disk hosts, ready. */
export async function aNode(t: Test, options: { disks?: number; ioBackend?: IoBackend } = {}): Promise<TestNode> {
  const node = new TestNode(aDirectory(t), options.disks ?? 3, options.ioBackend ?? 'auto')
  t.teardown(() => node.agent.stop())
  node.apply()
  await node.until('disks', ({ disks }) => disks.every(({ state }) => state === 'ready'))
  return node
}

export async function aFreePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('a TCP server without a port')
  return address.port
}

/** Data that is different at every place of every volume. */
export function pattern(seed: number, lengthBytes: number): Buffer {
  const data = Buffer.alloc(lengthBytes)
  let state = (seed + 1) * 2_654_435_761
  for (let offset = 0; offset + 4 <= lengthBytes; offset += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
    data.writeInt32LE(state, offset)
  }
  return data
}
