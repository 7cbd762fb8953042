// One engine of the plan: keeps its process wanted, answers its questions, and holds what it said of itself.

import {
  RequestError,
  Requests,
  type EngineCounters,
  type EngineEvent,
  type EngineRequests,
  type CompleteEvent,
  type EngineSpace,
  type EngineState,
  type ExpansionRequest,
  type IoBackend,
  type Layer,
  type LogEvent,
  type MembershipRecord,
  type ProbeEvent,
  type ProposalEvent,
  type RecordAnswer,
  type RecordEvent,
  type ServingEvent,
  type StoppedEvent,
} from '../native/index.js'
import { engineKey, type ProcessIdentity, type ProcessKey, type SupervisorClient } from '../supervisor/index.js'
import { endMessage, logEvent, type Logger } from './log.js'
import type { EnginePlan, EngineReport } from './plan.js'
import { SnapshotsController } from './snapshots.js'

/** Where complete records are kept: the manager's store. */
export interface RecordStore {
  /** Resolves once the record is durable; rejects, with the code `stale-attachment`, if the volume is at another. */
  store(volume: string, record: MembershipRecord): Promise<void>
  /** Resolves if the store answers and the volume is at this attachment; rejects as `store` does. */
  probe(volume: string, attachment: number): Promise<void>
}

export interface EngineContext {
  supervisor: SupervisorClient
  recordStore: RecordStore
  log: Logger
  ioBackend: IoBackend
  dataDirectory: string
  changed: () => void
}

type EngineIdentity = Extract<ProcessIdentity, { kind: 'engine' }>

/**
 * How long a start waits for members that it can do without. More than a restart of their processes
 * takes, and less than a boot: who is back later gets only what changed meanwhile.
 */
const startWaitMs = 5_000

/** About what snapshots hold. An engine that finds no member waits for one for 10 s. */
const questionLimitMs = 15_000
export type SnapshotQuestion = 'snapshot-changes' | 'read-snapshot' | 'check-unread'

/** A scrub or a trim, as the engine was told of it. */
interface ToldWalk {
  id: string
  bytesPerSecond: number
}

const steerLimitMs = 5_000
const steerAgainMs = 5_000
/** A volume that could not become as large as it is wanted. */
const expandAgainMs = 30_000

/** A hint that the store did not take is given again after this. */
const hintAgainMs = 1_000

export class EngineController {
  readonly key: ProcessKey
  readonly requests: Requests<EngineRequests>
  #plan: EnginePlan
  /** The newest that the store is known to hold: a later start of this attachment goes on from it. */
  #record: MembershipRecord
  #process: EngineIdentity | undefined
  #report: EngineReport
  /** The engine's own state, of its present process. */
  #said: EngineState = 'starting'
  /** Invariant: set once `leave` was called, and then never unset but by `follow`. */
  #leaving: Promise<void> | undefined
  /** The store sees the records of a volume in the order of the questions. */
  #answering: Promise<void> = Promise.resolve()
  /** The newest complete record that the store has not taken yet. */
  #hint: MembershipRecord | undefined
  #hinting = false
  /** What the present process was told of what may change while it runs. */
  #told: { resyncBandwidth?: number; space?: EngineSpace; scrub?: ToldWalk; trim?: ToldWalk; expansion?: string } = {}
  /** An expansion that failed, and is to be tried once more. */
  #expandAgain: string | undefined
  #steering = false
  readonly #snapshots: SnapshotsController

  constructor(
    private readonly context: EngineContext,
    plan: EnginePlan,
  ) {
    this.#plan = plan
    this.#record = plan.record
    this.#report = reportOfStart(plan)
    this.key = engineKey(plan.volume)
    this.requests = new Requests((document) => context.supervisor.post(this.key, document))
    this.#snapshots = new SnapshotsController(this.requests, context.changed)
  }

  report(): EngineReport {
    return structuredClone({ ...this.#report, snapshots: this.#snapshots.report() })
  }

  /** Level-triggered: any plan may come at any time, the same one again too. */
  follow(plan: EnginePlan): void {
    if (plan.attachment !== this.#plan.attachment) {
      this.#report = reportOfStart(plan)
      this.#record = plan.record
    }
    this.#plan = plan
    this.#record = newerRecord(this.#record, plan.record)
    this.#leaving = undefined
    this.#want()
    void this.#steer()
    this.#steerSnapshots()
  }

  /** Clean; resolves when the process is gone, true if the engine is still not wanted then. */
  async leave(limitMs?: number): Promise<boolean> {
    if (this.#leaving === undefined || limitMs !== undefined) {
      this.#set({ state: 'stopping', message: 'detaching' })
      this.#leaving = this.context.supervisor.stop(this.key, limitMs)
      this.#steerSnapshots()
    }
    const leaving = this.#leaving
    await leaving
    return this.#leaving === leaving
  }

  get leaving(): boolean {
    return this.#leaving !== undefined
  }

  counters(limitMs: number): Promise<EngineCounters> {
    return this.requests.send('counters', {}, limitMs)
  }

  /** The volume's layers as its engine lists them now; undefined: it serves nobody. */
  layers(limitMs: number): Promise<Layer[] | undefined> {
    return this.#snapshots.layers(limitMs)
  }

  /** Asked of the running engine; rejects with a RequestError. */
  ask<Op extends SnapshotQuestion>(op: Op, parameters: EngineRequests[Op]['parameters']) {
    return this.requests.send(op, parameters, questionLimitMs)
  }

  onStarted(process: EngineIdentity): void {
    this.#process = process
    const { message, scrub, trim } = this.#report
    this.#said = 'starting'
    this.#told = {}
    this.#expandAgain = undefined
    this.#replace({
      ...{ ...reportOfStart(this.#plan), message, attachment: process.attachment, run: process.run },
      ...(scrub === undefined ? {} : { scrub }),
      ...(trim === undefined ? {} : { trim }),
    })
    this.#steerSnapshots()
  }

  onExited(process: EngineIdentity, reason: string, restartInMs: number | undefined): void {
    if (this.#process?.pid === process.pid) this.#process = undefined
    this.#steerSnapshots()
    this.requests.abandon(`engine ${this.#plan.volume} ${reason}`)
    // An engine of an earlier attachment ends because this one is to follow it.
    if (process.attachment === this.#plan.attachment) this.#afterEnd(reason, restartInMs)
  }

  onSpawnFailed(reason: string, restartInMs: number | undefined): void {
    this.#afterEnd(reason, restartInMs)
  }

  onEvent(process: EngineIdentity, event: EngineEvent): void {
    switch (event.event) {
      case 'log':
        logEvent(this.context.log, this.#subject(process), event)
        return
      case 'record':
        this.#answering = this.#answering.then(() => this.#answer(process, event))
        return
      case 'probe':
        void this.#answerProbe(process, event)
        return
      case 'proposal':
        return // The supervisor keeps it.
      case 'complete':
        void this.#giveHint(event.record)
        return
      case 'stopped':
        if (!event.clean) this.context.log.warn(this.#subject(process), 'the engine did not stop clean')
        return
      case 'io-backend':
      case 'state':
      case 'serving':
      case 'replica':
      case 'scrub':
      case 'trim':
      case 'size':
      case 'cannot-start':
        // The report is that of the planned attachment; the engine of an earlier one is about to end.
        if (process.attachment === this.#plan.attachment) this.#onReport(process, event)
        return
    }
  }

  #onReport(process: EngineIdentity, event: ReportedEvent): void {
    switch (event.event) {
      case 'io-backend':
        this.#set({ ioBackend: event.backend })
        break
      case 'state':
        this.#onState(process, event)
        break
      case 'serving':
        this.#onServing(event)
        break
      case 'replica': {
        const { id, state, fault, reason } = event
        const others = this.#report.replicas.filter((replica) => replica.id !== id)
        this.#set({ replicas: [...others, { id, state, fault, reason }] })
        break
      }
      case 'scrub':
        this.#set({ scrub: event.progress })
        break
      case 'trim':
        this.#set({ trim: event.progress })
        break
      case 'size':
        this.#onSize(event)
        break
      case 'cannot-start': {
        const { newest, lacking, replicas } = event
        this.#set({ cannotStart: { newest, lacking, replicas } })
        break
      }
    }
  }

  /** Its front ends may come one after the other; a part of them is not yet an address of the volume. */
  #onServing({ nbd, iscsi }: ServingEvent): void {
    const report = { ...this.#report, nbd, ...(iscsi === undefined ? {} : { iscsi }) }
    delete report.cannotStart
    this.#replace({ ...report, state: reportedState(this.#said, listens(report)) })
  }

  #onState(process: EngineIdentity, event: Extract<EngineEvent, { event: 'state' }>): void {
    const { state, message, waitsFor, members, generation } = event
    if (state !== this.#said || message !== this.#report.message) {
      const trouble = state === 'degraded' || state === 'waiting' || state === 'refused'
      const line = message === '' ? `volume is ${state}` : `volume is ${state}: ${message}`
      this.context.log[trouble ? 'warn' : 'info']({ ...this.#subject(process), members, generation }, line)
    }
    this.#said = state
    this.#set({ state: reportedState(state, listens(this.#report)), message, waitsFor, members, generation })
    void this.#steer()
    this.#steerSnapshots()
  }

  /** The process that may be asked for what the plan says; undefined: none may. */
  #servingPid(): number | undefined {
    const serves = this.#said === 'serving' || this.#said === 'degraded' || this.#said === 'waiting'
    const isWanted = this.#leaving === undefined && this.#process?.attachment === this.#plan.attachment
    return serves && isWanted ? this.#process?.pid : undefined
  }

  #steerSnapshots(): void {
    this.#snapshots.follow(this.#plan.snapshots, this.#servingPid())
  }

  #onSize({ sizeBytes, expansion }: Extract<EngineEvent, { event: 'size' }>): void {
    this.#set({ sizeBytes, ...(expansion === undefined ? {} : { expansion }) })
    if (expansion?.state !== 'failed') return
    // Where it is still wanted then: space may have been made.
    setTimeout(() => {
      if (this.#report.expansion?.id !== expansion.id || this.#report.expansion.state !== 'failed') return
      delete this.#told.expansion
      this.#expandAgain = expansion.id
      void this.#steer()
    }, expandAgainMs).unref()
  }

  /** Level-triggered: tells the running engine what the plan says and it has not been told yet. */
  async #steer(): Promise<void> {
    if (this.#steering) return
    this.#steering = true
    for (let wish = this.#wish(); wish !== undefined; wish = this.#wish()) {
      const { pid } = this.#process ?? {}
      try {
        await wish()
      } catch (error) {
        // Of an engine that ended the next one is told, when it serves.
        if (this.#process?.pid !== pid) continue
        this.context.log.warn({ volume: this.#plan.volume }, `the engine does not follow its plan: ${messageOf(error)}`)
        await new Promise((resolve) => setTimeout(resolve, steerAgainMs).unref())
      }
    }
    this.#steering = false
  }

  /** The next of what it has to be told. */
  #wish(): (() => Promise<void>) | undefined {
    const { resyncBandwidth, expansion, space } = this.#plan
    if (this.#servingPid() === undefined) return undefined
    const told = this.#told
    if (resyncBandwidth !== undefined && resyncBandwidth !== told.resyncBandwidth) {
      return async () => {
        await this.requests.send('set', { resyncBandwidth }, steerLimitMs)
        told.resyncBandwidth = resyncBandwidth
      }
    }
    if (space !== undefined && JSON.stringify(space) !== JSON.stringify(told.space)) {
      return async () => {
        await this.requests.send('set', { space }, steerLimitMs)
        told.space = space
      }
    }
    if (expansion !== undefined && !this.#knowsExpansion(expansion)) {
      return async () => {
        await this.requests.send('expand', expansion, steerLimitMs)
        told.expansion = expansion.id
        this.#expandAgain = undefined
      }
    }
    return this.#scrubWish() ?? this.#trimWish()
  }

  #scrubWish(): (() => Promise<void>) | undefined {
    const { scrub } = this.#plan
    const told = this.#told
    if (scrub === undefined) {
      if (told.scrub === undefined) return undefined
      return async () => {
        await this.requests.send('stop-scrub', {}, steerLimitMs)
        delete told.scrub
      }
    }
    const known = this.#report.scrub?.id === scrub.id ? this.#report.scrub : undefined
    const isTold = told.scrub?.id === scrub.id && told.scrub.bytesPerSecond === scrub.bytesPerSecond
    if (isTold || known?.finished) return undefined
    return async () => {
      // What this engine or the one before it said may be newer than what the plan does.
      const before = known !== undefined && known.regionsDone > scrub.regionsDone ? known : scrub
      const { regionsDone, regionsFailed, repairedBlocks, corruptBlocks, differingBlocks } = before
      const findings = { regionsDone, regionsFailed, repairedBlocks, corruptBlocks, differingBlocks }
      const { id, bytesPerSecond } = scrub
      await this.requests.send('scrub', { id, bytesPerSecond, ...findings }, steerLimitMs)
      told.scrub = { id, bytesPerSecond }
    }
  }

  #trimWish(): (() => Promise<void>) | undefined {
    const { trim } = this.#plan
    const told = this.#told
    if (trim === undefined) {
      if (told.trim === undefined) return undefined
      return async () => {
        await this.requests.send('stop-trim', {}, steerLimitMs)
        delete told.trim
      }
    }
    const known = this.#report.trim?.id === trim.id ? this.#report.trim : undefined
    const isTold = told.trim?.id === trim.id && told.trim.bytesPerSecond === trim.bytesPerSecond
    if (isTold || known?.finished) return undefined
    return async () => {
      const before = known !== undefined && known.bytesDone > trim.bytesDone ? known : trim
      const { bytesDone, unmappedBytes, failedBytes } = before
      const { id, bytesPerSecond } = trim
      await this.requests.send('trim', { id, bytesPerSecond, bytesDone, unmappedBytes, failedBytes }, steerLimitMs)
      told.trim = { id, bytesPerSecond }
    }
  }

  /** The present process was told of it, or started with it, and it is not time to ask again. */
  #knowsExpansion({ id, sizeBytes }: ExpansionRequest): boolean {
    const { expansion, sizeBytes: has = 0 } = this.#report
    if (has >= sizeBytes || this.#told.expansion === id) return true
    return expansion?.id === id && this.#expandAgain !== id
  }

  #want(): void {
    const { volume, sizeBytes, secret, attachment, replicas, nbd, iscsi, lateMs } = this.#plan
    const { storeRestored, clientsAnew, resyncBandwidth, expansion, readOnly } = this.#plan
    const { ioBackend, dataDirectory } = this.context
    const config = {
      ...{ volume, sizeBytes, secret, record: this.#record, replicas, nbd, iscsi, lateMs },
      ...{ ioBackend, startWaitMs, dataDirectory, storeRestored, clientsAnew },
      ...(resyncBandwidth === undefined ? {} : { resyncBandwidth }),
      ...(readOnly === undefined ? {} : { readOnly }),
      // Here before the engine is asked: a run after it knows what clients may have seen.
      ...(expansion === undefined ? {} : { expansion }),
    }
    try {
      this.context.supervisor.start({ kind: 'engine', volume, attachment, config })
    } catch (error) {
      this.#set({ state: 'refused', message: messageOf(error) })
    }
  }

  /** Answered only when the store said that it is durable. */
  async #answer(process: EngineIdentity, { question, record }: RecordEvent): Promise<void> {
    const { volume } = this.#plan
    let answer: RecordAnswer
    try {
      await this.context.recordStore.store(volume, record)
      answer = { answer: question, ok: true }
      this.#record = newerRecord(this.#record, record)
      if (this.#leaving === undefined && process.attachment === this.#plan.attachment) this.#want()
    } catch (error) {
      const code = isStale(error) ? { code: 'fenced' as const } : {}
      answer = { answer: question, ok: false, ...code, message: messageOf(error) }
      this.context.log.warn(
        { ...this.#subject(process), generation: record.generation },
        `the store did not take the record: ${answer.message}`,
      )
    }
    // A question dies with the process that asked: the next run numbers its own from one.
    if (this.#process?.pid === process.pid) this.context.supervisor.post(this.key, answer)
  }

  /** A minority is proposed only when the store answers: it is read, and not from anybody's memory. */
  async #answerProbe(process: EngineIdentity, { question }: ProbeEvent): Promise<void> {
    let answer: RecordAnswer
    try {
      await this.context.recordStore.probe(this.#plan.volume, process.attachment)
      answer = { answer: question, ok: true }
    } catch (error) {
      const code = isStale(error) ? { code: 'fenced' as const } : {}
      answer = { answer: question, ok: false, ...code, message: messageOf(error) }
    }
    if (this.#process?.pid === process.pid) this.context.supervisor.post(this.key, answer)
  }

  /** Nobody waits for it, so it may come late; a newer one takes its place. */
  async #giveHint(record: MembershipRecord): Promise<void> {
    this.#hint = record
    if (this.#hinting) return
    this.#hinting = true
    for (let next: MembershipRecord | undefined = record; next !== undefined; next = this.#hint) {
      try {
        if (newerRecord(this.#record, next) === next) await this.context.recordStore.store(this.#plan.volume, next)
        this.#record = newerRecord(this.#record, next)
        if (this.#hint === next) this.#hint = undefined
      } catch (error) {
        // An older record or attachment will never be taken; the store has a newer one.
        if (isStale(error) && this.#hint === next) this.#hint = undefined
        else await new Promise((resolve) => setTimeout(resolve, hintAgainMs).unref())
      }
    }
    this.#hinting = false
    if (this.#leaving === undefined && record.epoch.attachment === this.#plan.attachment) this.#want()
  }

  #afterEnd(reason: string, restartInMs: number | undefined): void {
    if (this.#leaving !== undefined) return
    const message = endMessage('the engine process', reason, restartInMs)
    this.context.log.warn({ volume: this.#plan.volume }, message)
    const report = { ...this.#report }
    delete report.nbd
    delete report.iscsi
    // What the engine refused for is worth more to the reader than that it ended after it.
    this.#replace(report.state === 'refused' ? report : { ...report, state: 'starting', message })
  }

  #subject({ volume, pid }: EngineIdentity): object {
    return { volume, enginePid: pid }
  }

  #set(change: Partial<EngineReport>): void {
    this.#replace({ ...this.#report, ...change })
  }

  #replace(report: EngineReport): void {
    const before = JSON.stringify(this.#report)
    this.#report = report
    if (JSON.stringify(report) !== before) this.context.changed()
  }
}

/** By epoch, then generation. Of equal ones the first stays. */
export function newerRecord(one: MembershipRecord, other: MembershipRecord): MembershipRecord {
  const order =
    other.epoch.attachment - one.epoch.attachment ||
    other.epoch.run - one.epoch.run ||
    other.generation - one.generation
  return order > 0 ? other : one
}

function listens({ nbd, iscsi }: EngineReport): boolean {
  return nbd !== undefined && iscsi !== undefined
}

/** A volume serves when its front ends listen, which is a little after the engine could. */
function reportedState(said: EngineState, listening: boolean): EngineState {
  return !listening && (said === 'serving' || said === 'degraded') ? 'starting' : said
}

type ReportedEvent = Exclude<
  EngineEvent,
  LogEvent | RecordEvent | ProbeEvent | ProposalEvent | CompleteEvent | StoppedEvent
>

function isStale(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'stale-attachment'
}

function reportOfStart({ volume, attachment, record, replicas }: EnginePlan): EngineReport {
  return {
    ...{ volume, attachment, run: 0, state: 'starting', message: '', waitsFor: '' },
    ...{ members: record.members, generation: record.generation },
    replicas: replicas.map(({ id }) => ({ id, state: 'connecting', fault: '', reason: '' })),
  }
}

export function messageOf(error: unknown): string {
  if (error instanceof RequestError) return `${error.message} (${error.code})`
  return error instanceof Error ? error.message : String(error)
}
