import type { Test } from 'tap'
import {
  Agent,
  type EnginePlan,
  type MembershipRecord,
  type NodePlan,
  type ReplicaPlan,
} from '../../../src/agent/index.js'
import type { DiskHostEvent, DiskReplica, EngineEvent, PortalEvent } from '../../../src/native/index.js'
import {
  specKey,
  type ProcessIdentity,
  type ProcessInfo,
  type ProcessKey,
  type ProcessSpec,
  type SupervisorClient,
  type SupervisorEvent,
} from '../../../src/supervisor/index.js'

type Posted = { request: number; op: string } & Record<string, unknown>

/** A supervisor whose processes are the test's own words. */
export class ScriptedSupervisor implements SupervisorClient {
  readonly specs = new Map<ProcessKey, ProcessSpec>()
  readonly processes = new Map<ProcessKey, ProcessIdentity>()
  readonly stops: { key: ProcessKey; limitMs: number | undefined }[] = []
  readonly posts: { key: ProcessKey; message: Posted }[] = []
  /** How a stop ends; by default at once. */
  stopping: (key: ProcessKey) => Promise<void> = () => Promise.resolve()
  /** What a disk host answers; undefined is silence. */
  answers: Record<string, (message: Posted, key: ProcessKey) => object | undefined> = {}
  readonly #listeners = new Set<(event: SupervisorEvent) => void>()
  #pids = 100
  #runs = new Map<string, number>()

  start(spec: ProcessSpec): void {
    const key = specKey(spec)
    const old = this.specs.get(key)
    this.specs.set(key, structuredClone(spec))
    const another = old?.kind === 'engine' && spec.kind === 'engine' && old.attachment !== spec.attachment
    if (another) this.end(key, 'exited with code 0', 0)
    if (!this.processes.has(key)) this.run(key)
  }

  async stop(key: ProcessKey, limitMs?: number): Promise<void> {
    this.stops.push({ key, limitMs })
    const spec = this.specs.get(key)
    await this.stopping(key)
    if (this.specs.get(key) !== spec) return // It is wanted again.
    this.specs.delete(key)
    if (this.processes.has(key)) this.end(key, 'exited with code 0')
  }

  post(key: ProcessKey, message: object): boolean {
    const identity = this.processes.get(key)
    if (identity === undefined) return false
    const posted = message as Posted
    this.posts.push({ key, message: posted })
    if (!('request' in posted)) return true
    const reply = this.answers[posted.op]?.(posted, key)
    if (reply !== undefined) {
      queueMicrotask(() => {
        const event = { reply: posted.request, ...reply } as unknown as Extract<
          SupervisorEvent,
          { type: 'event' }
        >['event']
        this.emit({ type: 'event', process: identity, event })
      })
    }
    return true
  }

  list(): ProcessInfo[] {
    return [...this.processes.values()].map((process) => ({
      key: process.key,
      kind: process.kind,
      ...('volume' in process ? { volume: process.volume } : {}),
      ...('disk' in process ? { disk: process.disk } : {}),
      pid: process.pid,
      state: 'running',
      restarts: 0,
      startedAt: '2020-01-01T00:00:00.000Z',
    }))
  }

  onEvent(listener: (event: SupervisorEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A process of the key comes up. */
  run(key: ProcessKey): void {
    const spec = this.specs.get(key)!
    const pid = this.#pids++
    let process: ProcessIdentity
    if (spec.kind === 'engine') {
      const { volume, attachment } = spec
      const run = (this.#runs.get(`${volume}@${attachment}`) ?? 0) + 1
      this.#runs.set(`${volume}@${attachment}`, run)
      process = { kind: 'engine', key, pid, volume, attachment, run }
    } else if (spec.kind === 'disk-host') {
      process = { kind: 'disk-host', key, pid, disk: spec.disk }
    } else {
      process = { kind: 'portal', key, pid }
    }
    this.processes.set(key, process)
    this.emit({ type: 'started', process, restarts: 0 })
  }

  /** The process of the key goes. */
  end(key: ProcessKey, reason: string, restartInMs?: number): void {
    const process = this.processes.get(key)!
    this.processes.delete(key)
    this.emit({ type: 'exited', process, reason, ...(restartInMs === undefined ? {} : { restartInMs }) })
  }

  /** The process of the key says something. */
  say(key: ProcessKey, event: EngineEvent | DiskHostEvent | PortalEvent, process = this.processes.get(key)!): void {
    this.emit({ type: 'event', process, event })
  }

  emit(event: SupervisorEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  posted(op: string): Posted[] {
    return this.posts.map(({ message }) => message).filter((message) => message.op === op)
  }
}

export interface Node {
  agent: Agent
  supervisor: ScriptedSupervisor
  /** What the store took, in order. */
  stored: { volume: string; record: MembershipRecord }[]
  /** How the store takes a record; by default at once. */
  storing: {
    take: (volume: string, record: MembershipRecord) => Promise<void>
    probe: (volume: string, attachment: number) => Promise<void>
  }
  lines: { level: string; fields: object; message: string }[]
  /** Replicas that are on the disks. */
  disk: Map<string, DiskReplica>
}

/** An agent over a scripted supervisor, whose disk hosts keep replicas as real ones do. */
export function aNode(t: Test): Node {
  const supervisor = new ScriptedSupervisor()
  const disk = new Map<string, DiskReplica>()
  supervisor.answers = {
    'list-replicas': () => ({ result: { replicas: [...disk.values()] } }),
    space: () => ({ result: { totalBytes: 1000, freeBytes: 400 } }),
    'create-replica': (message) => {
      const { volume, id, sizeBytes, adopt } = message as unknown as ReplicaPlan
      const readOnly = adopt?.readOnly ?? false
      const directory = `/disk/replicas/${volume}-${id}`
      disk.set(id, {
        volume,
        id,
        directory,
        sizeBytes,
        allocatedBytes: 0,
        readOnly,
        dirtyRegions: 0,
        state: 'open',
        error: '',
      })
      return { result: { directory, readOnly } }
    },
    'remove-replica': (message) => {
      disk.delete(message['id'] as string)
      return { result: {} }
    },
  }
  const stored: Node['stored'] = []
  const storing: Node['storing'] = { take: () => Promise.resolve(), probe: () => Promise.resolve() }
  const lines: Node['lines'] = []
  const logger = (level: string) => (fields: object, message: string) => void lines.push({ level, fields, message })
  const agent = new Agent({
    node: 'node-1',
    supervisor,
    recordStore: {
      store: async (volume, record) => {
        await storing.take(volume, record)
        stored.push({ volume, record })
      },
      probe: (volume, attachment) => storing.probe(volume, attachment),
    },
    log: { info: logger('info'), warn: logger('warn'), error: logger('error') },
    ioBackend: 'auto',
  })
  t.teardown(() => agent.stop())
  return { agent, supervisor, stored, storing, lines, disk }
}

export function aPlan(parts: Partial<NodePlan> = {}): NodePlan {
  return { version: 1, node: 'node-1', disks: [], engines: [], ...parts }
}

export function aDisk(replicas: ReplicaPlan[] = []): NodePlan['disks'][number] {
  return { id: 'disk-1', directory: '/disk', listen: ['unix:/run/disk-1.sock'], replicas }
}

export function aReplica(id: string, desired: ReplicaPlan['desired'] = 'present'): ReplicaPlan {
  return {
    volume: 'demo',
    id,
    sizeBytes: 1 << 30,
    secret: '00'.repeat(32),
    cache: 'buffered',
    checksums: true,
    desired,
  }
}

export function anEnginePlan(parts: Partial<EnginePlan> = {}): EnginePlan {
  return {
    volume: 'demo',
    sizeBytes: 1 << 30,
    secret: '00'.repeat(32),
    attachment: 3,
    record: aRecord(0),
    storeRestored: false,
    clientsAnew: false,
    replicas: [{ id: 'aa', address: 'unix:/run/disk-1.sock' }],
    nbd: { host: '127.0.0.1', port: 10810 },
    iscsi: {
      ...{ host: '127.0.0.1', port: 20810, target: 'iqn.2026-11.io.ankole:demo', serial: 'a-uid' },
      physicalBlockBytes: 4096,
    },
    lateMs: 1000,
    ...parts,
  }
}

export function aRecord(generation: number, epoch = { attachment: 3, run: 1 }): MembershipRecord {
  return { epoch, generation, members: generation === 0 ? [] : ['aa'], snapshot: '' }
}

/** All that is due without time passing: microtasks and immediates. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
}

export async function eventually(is: () => boolean): Promise<void> {
  while (!is()) await new Promise((resolve) => setTimeout(resolve, 5))
}
