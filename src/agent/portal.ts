// The well-known portal of the plan: keeps its process wanted, and tells it the targets when they change.

import {
  Requests,
  type IoBackend,
  type PortalCounters,
  type PortalEvent,
  type PortalRequests,
} from '../native/index.js'
import { portalKey, type ProcessIdentity, type ProcessKey, type SupervisorClient } from '../supervisor/index.js'
import { messageOf } from './engine.js'
import { endMessage, logEvent, type Logger } from './log.js'
import type { PortalPlan, PortalReport } from './plan.js'

export interface PortalContext {
  supervisor: SupervisorClient
  log: Logger
  ioBackend: IoBackend
  changed: () => void
}

type PortalIdentity = Extract<ProcessIdentity, { kind: 'portal' }>

const targetsLimitMs = 2_000
const targetsRetryMs = 1_000

export class PortalController {
  readonly key: ProcessKey = portalKey
  readonly requests: Requests<PortalRequests>
  #plan: PortalPlan
  #process: PortalIdentity | undefined
  #report: PortalReport = reportOfStart
  /** The targets that the present process knows, as JSON. */
  #told = ''
  #telling = false
  #leaving: Promise<void> | undefined

  constructor(
    private readonly context: PortalContext,
    plan: PortalPlan,
  ) {
    this.#plan = plan
    this.requests = new Requests((document) => context.supervisor.post(this.key, document))
  }

  report(): PortalReport {
    return structuredClone(this.#report)
  }

  /** Level-triggered: any plan may come at any time, the same one again too. */
  follow(plan: PortalPlan): void {
    this.#plan = plan
    this.#leaving = undefined
    const { listen, advertisedHost, targets } = plan
    // One that runs goes on, and its next start has these targets.
    const { ioBackend } = this.context
    this.context.supervisor.start({ kind: 'portal', config: { listen, advertisedHost, targets, ioBackend } })
    if (!this.#telling) void this.#tell()
  }

  async leave(limitMs?: number): Promise<boolean> {
    if (this.#leaving === undefined || limitMs !== undefined) {
      this.#leaving = this.context.supervisor.stop(this.key, limitMs)
    }
    const leaving = this.#leaving
    await leaving
    return this.#leaving === leaving
  }

  get leaving(): boolean {
    return this.#leaving !== undefined
  }

  counters(limitMs: number): Promise<PortalCounters> {
    return this.requests.send('counters', {}, limitMs)
  }

  onStarted(process: PortalIdentity): void {
    this.#process = process
    this.#told = JSON.stringify(this.#plan.targets) // It was started with them.
  }

  onExited(process: PortalIdentity, reason: string, restartInMs: number | undefined): void {
    if (this.#process?.pid === process.pid) this.#process = undefined
    this.requests.abandon(`the portal ${reason}`)
    this.#afterEnd(reason, restartInMs)
  }

  onSpawnFailed(reason: string, restartInMs: number | undefined): void {
    this.#afterEnd(reason, restartInMs)
  }

  onEvent(process: PortalIdentity, event: PortalEvent): void {
    const { log } = this.context
    const subject = { portalPid: process.pid }
    switch (event.event) {
      case 'log':
        logEvent(log, subject, event)
        break
      case 'io-backend':
        this.#set({ ioBackend: event.backend })
        break
      case 'listening':
        log.info({ ...subject, addresses: event.addresses }, 'the iSCSI portal listens')
        this.#set({ state: 'ready', code: '', message: '', addresses: event.addresses })
        break
      case 'failed':
        // It tries again by itself, and may say so each time.
        if (event.message !== this.#report.message) {
          log.error({ ...subject, code: event.code }, event.message)
        }
        this.#set({ state: 'failed', code: event.code, message: event.message, addresses: [] })
        break
      case 'stopped':
        if (!event.clean) log.warn(subject, 'the portal did not stop clean')
        break
    }
  }

  /** Until the process knows the targets of the plan. One that ends meanwhile is followed by one that was started with them. */
  async #tell(): Promise<void> {
    this.#telling = true
    let said = ''
    for (let process = this.#process; this.#isBehind() && process !== undefined; process = this.#process) {
      const { targets } = this.#plan
      try {
        await this.requests.send('targets', { targets }, targetsLimitMs)
        if (this.#process?.pid === process.pid) this.#told = JSON.stringify(targets)
      } catch (error) {
        if (this.#process?.pid !== process.pid) continue
        const message = `the portal did not take its targets: ${messageOf(error)}`
        if (message !== said) this.context.log.warn({ portalPid: process.pid }, message)
        said = message
        await new Promise((resolve) => setTimeout(resolve, targetsRetryMs).unref())
      }
    }
    this.#telling = false
  }

  #isBehind(): boolean {
    return this.#leaving === undefined && this.#told !== JSON.stringify(this.#plan.targets)
  }

  #afterEnd(reason: string, restartInMs: number | undefined): void {
    if (this.#leaving !== undefined) return
    const message = endMessage('the portal', reason, restartInMs)
    this.context.log.warn({}, message)
    this.#set({ state: 'starting', code: '', message, addresses: [] })
  }

  #set(change: Partial<PortalReport>): void {
    const before = JSON.stringify(this.#report)
    this.#report = { ...this.#report, ...change }
    if (JSON.stringify(this.#report) !== before) this.context.changed()
  }
}

const reportOfStart: PortalReport = { state: 'starting', code: '', message: '', addresses: [] }
