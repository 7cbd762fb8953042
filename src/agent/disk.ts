// One disk of the plan: keeps its disk host wanted, and makes the replicas on it those of the plan.

import {
  Requests,
  type DiskCounters,
  type DiskHostEvent,
  type DiskHostRequests,
  type DiskReplica,
  type DiskUsage,
  type IoBackend,
} from '../native/index.js'
import { diskHostKey, type ProcessIdentity, type ProcessKey, type SupervisorClient } from '../supervisor/index.js'
import { messageOf } from './engine.js'
import { endMessage, logEvent, type Logger } from './log.js'
import type { DiskPlan, DiskReport, ReplicaPlan, ReplicaReport } from './plan.js'
import { nextReplicaStep, type KnownReplica } from './replica-step.js'

export interface DiskContext {
  supervisor: SupervisorClient
  log: Logger
  ioBackend: IoBackend
  changed: () => void
}

type DiskHostIdentity = Extract<ProcessIdentity, { kind: 'disk-host' }>

interface ReplicaEntry extends KnownReplica {
  plan: ReplicaPlan
  directory: string
  message: string
  readOnly?: boolean
}

/** A removal may have a great many extents to free. */
const requestLimitMs = 30_000

/** Of a linked clone the checksums are copied, which grow with the volume. */
const cloneLimitMs = ({ sizeBytes }: ReplicaPlan): number => requestLimitMs + (60_000 * sizeBytes) / 2 ** 40

const parallelRequestsMax = 8

const retry = { baseMs: 200, maxMs: 5_000 } as const

/** Free space, and whether all replicas are still there and well. */
const lookIntervalMs = 30_000

export class DiskController {
  readonly key: ProcessKey
  readonly requests: Requests<DiskHostRequests>
  #plan: DiskPlan
  #process: DiskHostIdentity | undefined
  #host: Omit<DiskReport, 'id' | 'replicas'> = hostBeforeStart
  readonly #replicas = new Map<string, ReplicaEntry>()
  #pass: 'idle' | 'running' | 'again' = 'idle'
  #failedPasses = 0
  #timer: NodeJS.Timeout | undefined
  #leaving: Promise<void> | undefined

  constructor(
    private readonly context: DiskContext,
    plan: DiskPlan,
  ) {
    this.#plan = plan
    this.key = diskHostKey(plan.id)
    this.requests = new Requests((document) => context.supervisor.post(this.key, document))
  }

  report(): DiskReport {
    const replicas = [...this.#replicas.values()].map((entry): ReplicaReport => {
      const { plan, directory, state, message, readOnly } = entry
      return {
        ...{ volume: plan.volume, id: plan.id, directory, state, message },
        ...(readOnly === undefined ? {} : { readOnly }),
      }
    })
    return { id: this.#plan.id, ...structuredClone(this.#host), replicas }
  }

  /** Level-triggered: any plan may come at any time, the same one again too. */
  follow(plan: DiskPlan): void {
    this.#plan = plan
    this.#leaving = undefined
    this.#followReplicas(plan.replicas)
    const { id, directory, listen } = plan
    const config = { disk: id, directory, listen, ioBackend: this.context.ioBackend }
    this.context.supervisor.start({ kind: 'disk-host', disk: id, config })
    this.#look()
  }

  async leave(limitMs?: number): Promise<boolean> {
    if (this.#leaving === undefined || limitMs !== undefined) {
      clearTimeout(this.#timer)
      this.#leaving = this.context.supervisor.stop(this.key, limitMs)
    }
    const leaving = this.#leaving
    await leaving
    return this.#leaving === leaving
  }

  get leaving(): boolean {
    return this.#leaving !== undefined
  }

  counters(limitMs: number): Promise<DiskCounters> {
    return this.requests.send('counters', {}, limitMs)
  }

  usage(limitMs: number): Promise<DiskUsage> {
    return this.requests.send('usage', {}, limitMs)
  }

  onStarted(process: DiskHostIdentity): void {
    this.#process = process
  }

  onExited(process: DiskHostIdentity, reason: string, restartInMs: number | undefined): void {
    if (this.#process?.pid === process.pid) this.#process = undefined
    this.requests.abandon(`disk host ${this.#plan.id} ${reason}`)
    this.#afterEnd(reason, restartInMs)
  }

  onSpawnFailed(reason: string, restartInMs: number | undefined): void {
    this.#afterEnd(reason, restartInMs)
  }

  onEvent(process: DiskHostIdentity, event: DiskHostEvent): void {
    switch (event.event) {
      case 'log':
        logEvent(this.context.log, this.#subject(process), event)
        break
      case 'io-backend':
        this.#setHost({ ioBackend: event.backend })
        break
      case 'listening':
        this.#setHost({ state: 'ready', message: '', addresses: event.addresses })
        this.#look()
        break
      case 'failed':
        if (event.message !== this.#host.message) {
          this.context.log.error({ ...this.#subject(process), code: event.code }, `disk failed: ${event.message}`)
        }
        this.#setHost({ state: 'failed', message: event.message })
        break
      case 'stopped':
        if (!event.clean) this.context.log.warn(this.#subject(process), 'the disk host did not stop clean')
        break
    }
  }

  #afterEnd(reason: string, restartInMs: number | undefined): void {
    if (this.#leaving !== undefined) return
    clearTimeout(this.#timer)
    const message = endMessage('the disk host', reason, restartInMs)
    // A disk that failed stays so, with its reason, until a disk host can use it.
    if (this.#host.state !== 'failed') {
      this.#setHost({ state: 'starting', message })
      this.context.log.warn({ disk: this.#plan.id }, message)
    }
    this.#setHost({ addresses: [] })
    for (const entry of this.#replicas.values()) {
      // The next disk host is asked anew what is there.
      if (entry.state === 'ready') this.#setReplica(entry, { state: 'creating', message: 'waits for the disk host' })
    }
  }

  #followReplicas(plans: ReplicaPlan[]): void {
    const planned = new Set(plans.map(({ id }) => id))
    for (const id of this.#replicas.keys()) if (!planned.has(id)) this.#replicas.delete(id)
    for (const plan of plans) {
      const entry = this.#replicas.get(plan.id)
      if (entry === undefined) {
        this.#replicas.set(plan.id, { plan, state: 'creating', message: '', directory: '', wasReady: false })
      } else {
        if (plan.desired === 'absent') entry.wasReady = false
        entry.plan = plan
      }
    }
    this.context.changed()
  }

  /** One pass at a time; one that was asked for during another follows it. */
  #look(): void {
    if (this.#pass !== 'idle') {
      this.#pass = 'again'
      return
    }
    this.#pass = 'running'
    void this.#passes()
  }

  async #passes(): Promise<void> {
    do {
      this.#pass = 'running'
      clearTimeout(this.#timer)
      if (this.#host.state !== 'ready' || this.#leaving !== undefined) break
      const good = await this.#onePass()
      this.#failedPasses = good ? 0 : this.#failedPasses + 1
    } while (this.#isAgain())
    this.#pass = 'idle'
    if (this.#host.state !== 'ready' || this.#leaving !== undefined) return // `listening` brings the next.
    const delayMs =
      this.#failedPasses === 0 ? lookIntervalMs : Math.min(retry.maxMs, retry.baseMs * 2 ** (this.#failedPasses - 1))
    this.#timer = setTimeout(() => {
      this.#look()
    }, delayMs).unref()
  }

  #isAgain(): boolean {
    return this.#pass === 'again'
  }

  /** False if something is left to be tried again. */
  async #onePass(): Promise<boolean> {
    let listed: Map<string, DiskReplica>
    try {
      const { replicas } = await this.requests.send('list-replicas', {}, requestLimitMs)
      listed = new Map(replicas.map((replica) => [replica.id, replica]))
    } catch (error) {
      this.context.log.warn({ disk: this.#plan.id }, `the disk host does not list its replicas: ${messageOf(error)}`)
      return false
    }
    const todo = [...this.#replicas.values()]
    let good = true
    const worker = async (): Promise<void> => {
      for (let entry = todo.pop(); entry !== undefined; entry = todo.pop()) {
        if (!(await this.#stepReplica(entry, listed.get(entry.plan.id)))) good = false
      }
    }
    await Promise.all(Array.from({ length: parallelRequestsMax }, worker))
    return (await this.#readSpace()) && good
  }

  async #stepReplica(entry: ReplicaEntry, listed: DiskReplica | undefined): Promise<boolean> {
    const { plan } = entry
    const step = nextReplicaStep(plan, entry, listed)
    try {
      switch (step.do) {
        case 'note':
          if (listed !== undefined) {
            entry.directory = listed.directory
            this.#setReadOnly(entry, listed.readOnly)
          }
          this.#setReplica(entry, step)
          // A failed one may be well at the next look, which is soon enough.
          return true
        case 'create': {
          const { volume, id, sizeBytes, secret, cache, checksums, adopt, clone } = plan
          const { directory, readOnly } = await this.requests.send(
            'create-replica',
            {
              ...{ volume, id, sizeBytes, secret, cache, checksums },
              ...(adopt === undefined ? {} : { adopt }),
              ...(clone === undefined ? {} : { clone }),
            },
            clone === undefined ? requestLimitMs : cloneLimitMs(plan),
          )
          entry.directory = directory
          this.#setReadOnly(entry, readOnly)
          this.#setReplica(entry, { state: 'ready', message: '' })
          return true
        }
        case 'remove':
          await this.requests.send('remove-replica', { volume: plan.volume, id: plan.id }, requestLimitMs)
          this.#setReplica(entry, { state: 'removed', message: '' })
          return true
      }
    } catch (error) {
      const message = `cannot ${step.do} it: ${messageOf(error)}`
      if (message !== entry.message) {
        this.context.log.warn({ disk: this.#plan.id, volume: plan.volume, replica: plan.id }, `replica: ${message}`)
      }
      this.#setReplica(entry, { state: 'failed', message })
      return false
    }
  }

  async #readSpace(): Promise<boolean> {
    try {
      const { totalBytes, freeBytes } = await this.requests.send('space', {}, requestLimitMs)
      this.#setHost({ totalBytes, freeBytes })
      return true
    } catch (error) {
      this.context.log.warn({ disk: this.#plan.id }, `the disk host does not tell its space: ${messageOf(error)}`)
      return false
    }
  }

  #subject({ disk, pid }: DiskHostIdentity): object {
    return { disk, diskHostPid: pid }
  }

  #setReplica(entry: ReplicaEntry, { state, message }: Pick<ReplicaEntry, 'state' | 'message'>): void {
    if (state === 'ready') entry.wasReady = true
    if (entry.state === state && entry.message === message) return
    entry.state = state
    entry.message = message
    this.context.changed()
  }

  #setReadOnly(entry: ReplicaEntry, readOnly: boolean): void {
    if (entry.readOnly === readOnly) return
    entry.readOnly = readOnly
    this.context.changed()
  }

  #setHost(change: Partial<Omit<DiskReport, 'id' | 'replicas'>>): void {
    const before = JSON.stringify(this.#host)
    this.#host = { ...this.#host, ...change }
    if (JSON.stringify(this.#host) !== before) this.context.changed()
  }
}

const hostBeforeStart: Omit<DiskReport, 'id' | 'replicas'> = {
  ...{ state: 'starting', message: '', addresses: [], totalBytes: 0, freeBytes: 0 },
}
