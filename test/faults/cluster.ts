// The machines of a test with one volume on them. The test is their manager and their store, so that it can also be out of reach.

import { fork, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import {
  newerRecord,
  socketDirectory,
  socketPath,
  type DiskPlan,
  type EnginePlan,
  type EngineReport,
  type MembershipRecord,
  type NodeCounters,
  type NodeReport,
} from '../../src/agent/index.js'
import { environment } from '../conformance/tools.js'
import { firstDifference } from '../conformance/volume.js'
import { Disk, disksLack, type FileSystem } from './disks.js'
import { LoadProcess, type LoadOptions } from './load-process.js'
import type { FromMachine, MachineConfig, ToMachine } from './machine.js'
import { Network, networkLacks, type Host } from './network.js'
import { noteFigure } from './figures.js'
import { seed } from './options.js'

/** For tap's `skip`. */
export const lacks = networkLacks() || disksLack()

const volume = 'tested'
const secret = Buffer.from(volume.padEnd(32, '.')).toString('hex')
const ports = { nbd: 10_809, iscsi: 3260, disk: 9600 } as const
const iqn = `iqn.2026-11.io.ankole:${volume}`

/** The default of --replica-grace. */
const lateMsDefault = 1000

const stateWaitMs = 60_000
const linesOfLog = 120
const machineProgram = fileURLToPath(new URL('./machine.js', import.meta.url))

export interface ClusterOptions {
  replicas?: number
  /** All on one machine, over Unix sockets and shared memory; else each disk host has its own. */
  together?: boolean
  sizeBytes?: number
  diskBytes?: number
  fileSystem?: FileSystem
  lateMs?: number
  /** See Disk. */
  directDisks?: boolean
  /** The last so many replicas are not there yet, and unknown to the first attachment: see Cluster.add. */
  absent?: number
}

/** «Figures to reach», compared only when asked for. */
export interface Promised {
  stallMs?: number
}

/** A machine that is on. */
export class Machine {
  report: NodeReport | undefined
  readonly log: string[] = []
  ends: string[] = []
  #child: ChildProcess
  #counters: ((counters: NodeCounters) => void)[] = []
  #exited: Promise<void>

  constructor(
    readonly host: Host,
    readonly config: MachineConfig,
    private readonly onStore: (message: Extract<FromMachine, { type: 'store' }>, machine: Machine) => void,
  ) {
    const [execPath, ...execArgv] = [...host.enter, process.execPath]
    this.#child = fork(machineProgram, [], {
      ...{ execPath: execPath, execArgv, env: environment, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    })
    this.#exited = new Promise((resolve) => this.#child.once('exit', () => resolve()))
    this.#child.on('message', (message: FromMachine) => {
      this.#onMessage(message)
    })
    this.send({ type: 'start', config })
  }

  send(message: ToMachine): void {
    if (this.#child.connected) this.#child.send(message)
  }

  counters(): Promise<NodeCounters> {
    return new Promise((resolve) => {
      this.#counters.push(resolve)
      this.send({ type: 'counters' })
    })
  }

  /** Clean. */
  async stop(): Promise<void> {
    this.send({ type: 'stop' })
    await this.#exited
  }

  /** All at once, as when it loses power. */
  async kill(): Promise<void> {
    const children = this.report?.processes.map(({ pid }) => pid) ?? []
    this.#child.kill('SIGKILL')
    for (const pid of children) signal(pid, 'SIGKILL')
    await this.#exited
    await until(
      `the processes of ${this.host.name} are gone`,
      () => !children.some(isAlive),
      () => '',
    )
  }

  #onMessage(message: FromMachine): void {
    switch (message.type) {
      case 'report':
        this.report = message.report
        break
      case 'log':
        this.log.push(
          `${new Date().toISOString().slice(11, 23)} ${this.host.name} ${message.level}: ${message.message}`,
        )
        break
      case 'store':
        this.onStore(message, this)
        break
      case 'counters':
        for (const resolve of this.#counters.splice(0)) resolve(message.counters)
        break
      case 'stopped':
        this.ends = message.ends
        break
    }
  }
}

/** One disk, the replica on it, and the machine that it is in. */
export interface Site {
  disk: Disk
  host: Host
  plan: DiskPlan
  replica: string
  /** Its disk is in no plan yet. */
  absent: boolean
}

export class Cluster {
  readonly sites: Site[] = []
  /** Those that are on, by host. */
  readonly #machines = new Map<Host, Machine>()
  readonly #log: string[] = []
  #version = 0
  #attachment = 0
  #record: MembershipRecord = { epoch: { attachment: 0, run: 0 }, generation: 0, members: [], snapshot: '' }
  /** The last of each machine: one that the volume left may know nothing of that. */
  readonly #engines = new Map<Host, EnginePlan>()
  #storeOutOfReach = false
  readonly #withoutStore = new Set<Host>()
  #waiting: (() => void)[] = []
  #loads: LoadProcess[] = []

  private constructor(
    private readonly t: Test,
    readonly network: Network,
    readonly directory: string,
    public engineHost: Host,
    private readonly options: Required<ClusterOptions>,
  ) {}

  static async start(t: Test, options: ClusterOptions): Promise<Cluster> {
    const all: Required<ClusterOptions> = {
      ...{ replicas: 3, together: false, sizeBytes: 64 << 20, diskBytes: 256 << 20 },
      ...{ fileSystem: 'ext4', lateMs: lateMsDefault, directDisks: false, absent: 0 },
      ...options,
    }
    const directory = mkdtempSync(join(tmpdir(), 'ankole-faults-'))
    const network = new Network(seed)
    const cluster = new Cluster(t, network, directory, await network.host('front'), all)
    t.teardown(() => cluster.#discard())
    for (let n = 1; n <= all.replicas; n++) {
      const host = all.together ? cluster.engineHost : await network.host(`disk-${n}`)
      cluster.#addSite(`disk-${n}`, host)
    }
    for (const host of network.hosts) cluster.turnOn(host)
    await cluster.until('the replicas are made', () =>
      cluster.sites.every((site) => site.absent || cluster.diskReport(site)?.replicas[0]?.state === 'ready'),
    )
    return cluster
  }

  #addSite(name: string, host: Host): void {
    const disk = new Disk(
      join(this.directory, name),
      this.options.diskBytes,
      this.options.fileSystem,
      this.options.directDisks,
    )
    const n = this.sites.length + 1
    const replica = n.toString(16).padStart(16, '0')
    const address = this.options.together
      ? `unix:${socketPath(socketDirectory(this.directory), name)}`
      : `tcp:${host.address}:${ports.disk}`
    const { sizeBytes } = this.options
    const replicas = [
      {
        ...{ volume, id: replica, sizeBytes, secret, cache: 'buffered' as const },
        ...{ checksums: true, desired: 'present' as const },
      },
    ]
    const plan: DiskPlan = { id: name, directory: disk.directory, listen: [address], replicas }
    this.sites.push({ disk, host, plan, replica, absent: n > this.options.replicas - this.options.absent })
  }

  /** A replica that was not there when the volume was attached, for the second time or later: it is made now, and empty. */
  add(site: Site): void {
    site.absent = false
    this.#plan(site.host)
  }

  // ------------------------------------------------------------ machines and processes

  machine(host: Host): Machine {
    const machine = this.#machines.get(host)
    if (machine === undefined) throw new Error(`${host.name} is off`)
    return machine
  }

  turnOn(host: Host): void {
    const config: MachineConfig = { node: host.name, dataDirectory: this.directory, ioBackend: 'auto' }
    this.#machines.set(host, new Machine(host, config, (message, machine) => void this.#store(message, machine)))
    this.#plan(host)
  }

  /** Its processes are gone at once, and nobody is told: no connection of it is closed. */
  async turnOff(host: Host): Promise<void> {
    await this.network.isolate(host)
    await this.#kill(host)
  }

  async #kill(host: Host): Promise<void> {
    const machine = this.machine(host)
    await machine.kill()
    this.#log.push(...machine.log)
    this.#machines.delete(host)
  }

  async restart(host: Host): Promise<void> {
    await this.network.reconnect(host)
    this.turnOn(host)
  }

  /** With what was not synced. The others go on. */
  async losePower(sites: readonly Site[]): Promise<void> {
    await Promise.all(sites.map(({ host }) => this.turnOff(host)))
    for (const { disk } of sites) {
      disk.losePower()
      disk.unmount()
      disk.mount()
    }
  }

  /** All at the same moment, the engine's too; they come back, and the volume is attached again. */
  async allLosePower(load: LoadProcess): Promise<void> {
    if (this.#machines.has(this.engineHost)) await this.turnOff(this.engineHost)
    await this.losePower(this.sites)
    await load.powerLost()
    for (const host of this.network.hosts) await this.restart(host)
    await this.attach(true)
  }

  diskReport(site: Site): NodeReport['disks'][number] | undefined {
    return this.#machines.get(site.host)?.report?.disks.find(({ id }) => id === site.plan.id)
  }

  get engine(): EngineReport | undefined {
    return this.engineOn(this.engineHost)
  }

  engineOn(host: Host): EngineReport | undefined {
    return this.#machines.get(host)?.report?.engines[0]
  }

  enginePid(): number {
    return this.#pid(this.engineHost, (process) => process.kind === 'engine')
  }

  diskHostPid(site: Site): number {
    return this.#pid(site.host, (process) => process.disk === site.plan.id)
  }

  #pid(host: Host, is: (process: NodeReport['processes'][number]) => boolean): number {
    const process = this.machine(host).report?.processes.find(is)
    if (process === undefined) throw new Error(`${host.name} does not run it`)
    return process.pid
  }

  /** SIGKILL; resolves once the supervisor has started it again. */
  async killed(pid: () => number): Promise<void> {
    const old = pid()
    process.kill(old, 'SIGKILL')
    await this.until('it is started again', () => {
      try {
        return pid() !== old
      } catch {
        return false
      }
    })
  }

  // ------------------------------------------------------------ the volume

  /** `clientsAnew`: the machine that it is attached to was booted anew. */
  async attach(clientsAnew = false): Promise<EngineReport> {
    const { sizeBytes, lateMs } = this.options
    // The very first start needs all that it is told of.
    const replicas = this.sites
      .filter(({ absent }) => !absent || this.#attachment > 0)
      .map(({ replica, plan }) => ({ id: replica, address: plan.listen[0]! }))
    const nbd = { host: '127.0.0.1', port: ports.nbd }
    const iscsi = {
      host: '127.0.0.1',
      port: ports.iscsi,
      target: iqn,
      serial: volume,
      physicalBlockBytes: 4096 as const,
    }
    const attachment = ++this.#attachment
    this.#engines.set(this.engineHost, {
      ...{ volume, sizeBytes, secret, attachment, record: this.#record, replicas, nbd, iscsi, lateMs },
      ...{ storeRestored: false, clientsAnew },
    })
    this.#plan(this.engineHost)
    return await this.serving()
  }

  /** A machine that is to have the volume next. */
  async anotherHost(): Promise<Host> {
    const host = await this.network.host('second')
    this.turnOn(host)
    return host
  }

  /** Nobody tells the machine that has it. */
  async attachElsewhere(host: Host): Promise<EngineReport> {
    this.engineHost = host
    return await this.attach(true)
  }

  /** Clean. */
  async detach(): Promise<void> {
    this.#engines.delete(this.engineHost)
    this.#plan(this.engineHost)
    await this.until('detached', () => this.engine === undefined)
  }

  serving(): Promise<EngineReport> {
    return this.engineIs('served', ({ attachment, state }) => {
      return attachment === this.#attachment && (state === 'serving' || state === 'degraded')
    })
  }

  async engineIs(
    what: string,
    is: (engine: EngineReport) => boolean,
    waitMs: number = stateWaitMs,
  ): Promise<EngineReport> {
    await this.until(`the volume is ${what}`, () => this.engine !== undefined && is(this.engine), waitMs)
    return this.engine!
  }

  members(count: number): Promise<EngineReport> {
    return this.engineIs(`on ${count} members`, ({ members, state }) => {
      return members.length === count && (state === 'serving' || state === 'degraded')
    })
  }

  /** All replicas are members, and connected. */
  whole(waitMs?: number): Promise<EngineReport> {
    const is = ({ members, state, replicas }: EngineReport): boolean => {
      const connected = replicas.every((replica) => replica.state === 'member')
      return state === 'serving' && connected && members.length === this.sites.length
    }
    return this.engineIs('whole', is, waitMs)
  }

  isMember(site: Site): boolean {
    return this.engine?.members.includes(site.replica) ?? false
  }

  /** What the engine says of a replica. */
  replicaReport(site: Site): EngineReport['replicas'][number] | undefined {
    return this.engine?.replicas.find(({ id }) => id === site.replica)
  }

  /** With `filled`, its `fill` is what comes next. */
  async load(options: Partial<LoadOptions> = {}): Promise<LoadProcess> {
    const { sizeBytes } = this.options
    const address = `127.0.0.1:${ports.iscsi},1`
    const load = new LoadProcess(this.engineHost, this.t.name, {
      ...{ volume, sizeBytes, nbd: { host: '127.0.0.1', port: ports.nbd }, iscsi: { address, iqn } },
      ...options,
    })
    this.#loads.push(load)
    if (options.filled !== true) await load.more(100)
    return load
  }

  async engineCounters(): Promise<NodeCounters['engines'][number]> {
    const { engines } = await this.machine(this.engineHost).counters()
    return engines[0]!
  }

  /** By the engine's process that runs now. */
  async resyncedBytes(): Promise<number> {
    return (await this.engineCounters()).resyncedBytes
  }

  headFile(site: Site): string {
    const { directory } = this.diskReport(site)!.replicas[0]!
    const heads = readdirSync(directory).filter((name) => /^volume-head-\d+\.img$/.test(name))
    if (heads.length !== 1) throw new Error(`${directory}: not one head`)
    return join(directory, heads[0]!)
  }

  /** Ends the load, checks what it saw, detaches the volume, and compares all members byte by byte. */
  async endsWell(load: LoadProcess, event: string, promised: Promised = {}): Promise<void> {
    const verdict = await load.finish()
    this.t.comment(
      `${verdict.acknowledgedWrites} writes, ${verdict.reads} reads, ${verdict.flushes} flushes, ${verdict.unmaps} unmaps, ` +
        `${verdict.logins} logins; seed ${seed}`,
    )
    noteFigure(
      this.t,
      { event, value: verdict.longestMs, unit: 'ms', what: `longest stall (${verdict.longest})` },
      promised.stallMs,
    )
    this.t.strictSame(verdict.errors, [], 'no request was answered with an error')
    this.t.strictSame(verdict.violations, [], `nothing lost, nothing taken back (${load.report}, seed ${seed})`)
    await this.membersAreEqual()
  }

  async membersAreEqual(): Promise<void> {
    const members = this.sites.filter((site) => this.isMember(site))
    const files = members.map((site) => this.headFile(site))
    await this.detach()
    this.t.ok(files.length > 0, `${files.length} members`)
    for (const file of files.slice(1)) {
      this.t.equal(firstDifference(files[0]!, file), undefined, 'the members are equal byte by byte')
    }
  }

  // ------------------------------------------------------------ the store

  storeOutOfReach(): void {
    this.#storeOutOfReach = true
  }

  /** As if it were cut off from the manager. */
  storeOutOfReachFrom(host: Host): void {
    this.#withoutStore.add(host)
  }

  storeInReach(): void {
    this.#storeOutOfReach = false
    this.#withoutStore.clear()
    for (const resume of this.#waiting.splice(0)) resume()
  }

  get record(): MembershipRecord {
    return this.#record
  }

  /** A record to be stored, or without one a question whether the store answers. */
  async #store(message: Extract<FromMachine, { type: 'store' }>, machine: Machine): Promise<void> {
    const { question, attachment, record } = message
    while (this.#storeOutOfReach || this.#withoutStore.has(machine.host)) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
    if (attachment < this.#attachment) {
      const message = `attachment ${attachment} is stale`
      machine.send({ type: 'stored', question, error: { code: 'stale-attachment', message } })
      return
    }
    if (record !== undefined) this.#record = newerRecord(this.#record, record)
    machine.send({ type: 'stored', question })
  }

  #plan(host: Host): void {
    const disks = this.sites.filter((site) => site.host === host && !site.absent).map(({ plan }) => plan)
    const engine = this.#engines.get(host)
    const engines = engine === undefined ? [] : [engine]
    this.machine(host).send({ type: 'plan', plan: { version: ++this.#version, node: host.name, disks, engines } })
  }

  // ------------------------------------------------------------ waiting, and the end

  until(what: string, is: () => boolean, waitMs?: number): Promise<void> {
    return until(what, is, () => this.describe(), waitMs)
  }

  describe(): string {
    const reports = [...this.#machines.values()].map(({ report }) => JSON.stringify(report?.engines))
    const lines = [...this.#log, ...[...this.#machines.values()].flatMap(({ log }) => log)].sort()
    return [...reports, ...lines.slice(-linesOfLog)].join('\n')
  }

  async #discard(): Promise<void> {
    if (!this.t.passing()) this.t.comment(this.describe())
    for (const load of this.#loads) load.kill()
    for (const { disk } of this.sites) if (disk.isFrozen) disk.thaw()
    await Promise.all([...this.#machines.keys()].map((host) => this.#kill(host)))
    for (const { disk } of this.sites) disk.discard()
    this.network.close()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Its replicas are there, and it is attached. */
export async function aCluster(t: Test, options: ClusterOptions = {}): Promise<Cluster> {
  const cluster = await Cluster.start(t, options)
  await cluster.attach()
  return cluster
}

async function until(
  what: string,
  is: () => boolean,
  describe: () => string,
  waitMs: number = stateWaitMs,
): Promise<void> {
  const deadline = performance.now() + waitMs
  while (!is()) {
    if (performance.now() > deadline) throw new Error(`${what}: not in time\n${describe()}`)
    await sleep(20)
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** One that has ended and that nobody has asked about yet is not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}
