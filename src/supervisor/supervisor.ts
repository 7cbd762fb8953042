// Owns the engine, disk host and portal processes: starts, watches, restarts and stops them, and counts the runs of engines. It
// knows nothing of volumes beyond that, and asks nothing of anybody.

import { fileURLToPath } from 'node:url'
import type { EngineConfig, EngineEvent, Epoch } from '../native/index.js'
import {
  specKey,
  type EngineSpec,
  type ProcessIdentity,
  type ProcessInfo,
  type ProcessKey,
  type ProcessSpec,
  type SupervisorClient,
  type SupervisorEvent,
} from './messages.js'
import { Memberships } from './memberships.js'
import {
  defaultRestartPace,
  nextProcessState,
  restartDelayMs,
  type ProcessAction,
  type ProcessInput,
  type ProcessState,
  type RestartPace,
} from './process-state.js'
import { spawnChild, type ChildHandle } from './spawn.js'

export interface SupervisorOptions {
  /** What each kind of process runs. */
  programs?: Record<ProcessSpec['kind'], string>
  restartPace?: RestartPace
  /** Between SIGTERM and SIGKILL, where `stop` does not say. */
  stopLimitMs?: number
}

interface Entry {
  spec: ProcessSpec
  state: ProcessState
  /** Invariant: present in `running`, `stopping` and `replacing`, but for a process that could not be made. */
  child: ChildHandle | undefined
  identity: ProcessIdentity | undefined
  startedAt: Date
  startedAtMs: number
  starts: number
  failures: number
  timer: NodeJS.Timeout | undefined
  stopLimitMs: number
  /** Holds in `stopping` and `replacing`. */
  overdueAtMs: number
  whenAbsent: (() => void)[]
}

const defaultStopLimitMs = 5_000

const programs: Record<ProcessSpec['kind'], string> = {
  engine: fileURLToPath(new URL('../engine/main.js', import.meta.url)),
  'disk-host': fileURLToPath(new URL('../replica/main.js', import.meta.url)),
  portal: fileURLToPath(new URL('../portal/main.js', import.meta.url)),
}

export class Supervisor implements SupervisorClient {
  readonly #entries = new Map<ProcessKey, Entry>()
  /** Outlives the entries: an epoch is never given twice. */
  readonly #epochs = new Map<string, Epoch>()
  readonly #memberships = new Memberships()
  readonly #listeners = new Set<(event: SupervisorEvent) => void>()
  readonly #programs: Record<ProcessSpec['kind'], string>
  readonly #restartPace: RestartPace
  readonly #stopLimitMs: number

  constructor(options: SupervisorOptions = {}) {
    this.#programs = options.programs ?? programs
    this.#restartPace = options.restartPace ?? defaultRestartPace
    this.#stopLimitMs = options.stopLimitMs ?? defaultStopLimitMs
  }

  onEvent(listener: (event: SupervisorEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /**
   * Wants this process. One that runs already goes on, and the new configuration holds from its next start, unless it
   * is another attachment of the volume, another configuration of the disk host or another address of the portal: then
   * it is replaced.
   * Throws if the attachment is older than one that was started here.
   */
  start(spec: ProcessSpec): void {
    if (spec.kind === 'engine') this.#refuseOldAttachment(spec)
    const key = specKey(spec)
    const entry = this.#entries.get(key) ?? newEntry(spec)
    this.#entries.set(key, entry)
    const input = needsNewProcess(entry.spec, spec) ? 'restart' : 'start'
    if (input === 'restart') entry.failures = 0
    entry.spec = spec
    this.#step(key, entry, input)
  }

  /**
   * Resolves once no process of the key is left, or it is wanted again. One that does not stop by itself in time is
   * killed; of several limits the earliest holds.
   */
  stop(key: ProcessKey, limitMs: number = this.#stopLimitMs): Promise<void> {
    const entry = this.#entries.get(key)
    if (entry === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      entry.whenAbsent.push(resolve)
      entry.stopLimitMs = limitMs
      const isStopping = entry.state === 'stopping' || entry.state === 'replacing'
      this.#step(key, entry, 'stop')
      if (isStopping && performance.now() + limitMs < entry.overdueAtMs) this.#armOverdue(key, entry)
    })
  }

  async stopAll(limitMs?: number): Promise<void> {
    await Promise.all([...this.#entries.keys()].map((key) => this.stop(key, limitMs)))
  }

  /** False if there is no process to hear it. One that dies before it reads it says nothing either. */
  post(key: ProcessKey, message: object): boolean {
    return this.#entries.get(key)?.child?.send({ type: 'post', message }) ?? false
  }

  list(): ProcessInfo[] {
    const list: ProcessInfo[] = []
    for (const [key, entry] of this.#entries) {
      const { identity } = entry
      if (identity === undefined) continue
      list.push({
        key,
        kind: identity.kind,
        ...subjectOf(identity),
        pid: identity.pid,
        state: entry.state,
        restarts: entry.starts - 1,
        startedAt: entry.startedAt.toISOString(),
      })
    }
    return list
  }

  #step(key: ProcessKey, entry: Entry, input: ProcessInput): void {
    const { state, actions } = nextProcessState(entry.state, input)
    entry.state = state
    for (const action of actions) this.#act(key, entry, action)
    const wantedAgain = input === 'start' || input === 'restart'
    if (state === 'absent' || wantedAgain) for (const resolve of entry.whenAbsent.splice(0)) resolve()
    if (state !== 'absent') return
    clearTimeout(entry.timer)
    if (this.#entries.get(key) === entry) this.#entries.delete(key)
  }

  #act(key: ProcessKey, entry: Entry, action: ProcessAction): void {
    switch (action) {
      case 'fork':
        this.#fork(key, entry)
        break
      case 'terminate':
        entry.child?.kill('SIGTERM')
        this.#armOverdue(key, entry)
        break
      case 'kill':
        entry.child?.kill('SIGKILL')
        break
      case 'arm-back-off':
        this.#arm(key, entry, restartDelayMs(entry.failures, this.#restartPace), 'due')
        break
      case 'cancel-back-off':
        clearTimeout(entry.timer)
        break
    }
  }

  #armOverdue(key: ProcessKey, entry: Entry): void {
    entry.overdueAtMs = performance.now() + entry.stopLimitMs
    this.#arm(key, entry, entry.stopLimitMs, 'overdue')
  }

  #arm(key: ProcessKey, entry: Entry, delayMs: number, input: ProcessInput): void {
    clearTimeout(entry.timer)
    entry.timer = setTimeout(() => {
      this.#step(key, entry, input)
    }, delayMs)
  }

  #fork(key: ProcessKey, entry: Entry): void {
    const { spec } = entry
    entry.starts++
    entry.startedAt = new Date()
    entry.startedAtMs = performance.now()
    entry.stopLimitMs = this.#stopLimitMs
    const epoch = spec.kind === 'engine' ? this.#nextEpoch(spec) : undefined
    const config = epoch === undefined || spec.kind !== 'engine' ? spec.config : this.#engineConfig(spec, epoch)
    const child = spawnChild(this.#programs[spec.kind], {
      onEvent: (event) => {
        if (identity?.kind === 'engine' && 'event' in event) {
          this.#memberships.onEvent(volumeKey(spec as EngineSpec), event as EngineEvent)
        }
        if (identity !== undefined) this.#emit({ type: 'event', process: identity, event })
      },
      onOutput: (line) => {
        if (identity !== undefined) this.#emit({ type: 'output', process: identity, line })
      },
      onGone: (reason) => {
        this.#gone(key, entry, reason)
      },
    })
    const identity = child.pid === undefined ? undefined : identify(key, spec, child.pid, epoch)
    entry.child = child
    entry.identity = identity
    child.send({ type: 'start', config })
    if (identity !== undefined) this.#emit({ type: 'started', process: identity, restarts: entry.starts - 1 })
  }

  #engineConfig(spec: EngineSpec, epoch: Epoch): EngineConfig {
    return { ...spec.config, epoch, ...this.#memberships.start(volumeKey(spec), epoch) }
  }

  #gone(key: ProcessKey, entry: Entry, reason: string): void {
    const { identity } = entry
    clearTimeout(entry.timer)
    entry.child = undefined
    entry.identity = undefined
    const livedMs = performance.now() - entry.startedAtMs
    entry.failures = livedMs >= this.#restartPace.resetAfterMs ? 1 : entry.failures + 1
    // Said before the step: the start of the next comes after the end of this.
    const restart = nextProcessState(entry.state, 'exited').actions
    let restartInMs: number | undefined
    if (restart.includes('fork')) restartInMs = 0
    else if (restart.includes('arm-back-off')) restartInMs = restartDelayMs(entry.failures, this.#restartPace)
    const again = restartInMs === undefined ? {} : { restartInMs }
    if (identity === undefined) this.#emit({ type: 'spawn-failed', key, reason, ...again })
    else this.#emit({ type: 'exited', process: identity, reason, ...again })
    this.#step(key, entry, 'exited')
  }

  #emit(event: SupervisorEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  #refuseOldAttachment(spec: EngineSpec): void {
    const { volume, attachment } = spec
    const last = this.#epochs.get(volumeKey(spec))
    if (last !== undefined && attachment < last.attachment) {
      throw new RangeError(
        `volume ${volume}: attachment ${attachment} is older than ${last.attachment}, which ran here`,
      )
    }
  }

  #nextEpoch(spec: EngineSpec): Epoch {
    const { attachment } = spec
    const last = this.#epochs.get(volumeKey(spec))
    const epoch = { attachment, run: last?.attachment === attachment ? last.run + 1 : 1 }
    this.#epochs.set(volumeKey(spec), epoch)
    return epoch
  }
}

/** A volume of the same name that was made later is another one, and has another secret. */
function volumeKey({ volume, config }: EngineSpec): string {
  return `${volume}/${config.secret}`
}

function newEntry(spec: ProcessSpec): Entry {
  return {
    spec,
    state: 'absent',
    child: undefined,
    identity: undefined,
    startedAt: new Date(0),
    startedAtMs: 0,
    starts: 0,
    failures: 0,
    timer: undefined,
    stopLimitMs: defaultStopLimitMs,
    overdueAtMs: 0,
    whenAbsent: [],
  }
}

function needsNewProcess(old: ProcessSpec, wanted: ProcessSpec): boolean {
  if (old.kind === 'engine' && wanted.kind === 'engine') return old.attachment !== wanted.attachment
  // It hears of other targets by a message: connections of initiators stay.
  if (old.kind === 'portal' && wanted.kind === 'portal') {
    return JSON.stringify({ ...old.config, targets: [] }) !== JSON.stringify({ ...wanted.config, targets: [] })
  }
  return JSON.stringify(old.config) !== JSON.stringify(wanted.config)
}

function identify(key: ProcessKey, spec: ProcessSpec, pid: number, epoch: Epoch | undefined): ProcessIdentity {
  switch (spec.kind) {
    case 'engine':
      return { kind: 'engine', key, pid, volume: spec.volume, attachment: spec.attachment, run: epoch?.run ?? 0 }
    case 'disk-host':
      return { kind: 'disk-host', key, pid, disk: spec.disk }
    case 'portal':
      return { kind: 'portal', key, pid }
  }
}

/** Of what a process is. */
function subjectOf(identity: ProcessIdentity): { volume?: string; disk?: string } {
  switch (identity.kind) {
    case 'engine':
      return { volume: identity.volume }
    case 'disk-host':
      return { disk: identity.disk }
    case 'portal':
      return {}
  }
}
