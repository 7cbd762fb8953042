// What the supervisor is asked and what it says. Plain documents, as the agent will be a process of its own beside it.

import type {
  DiskHostConfig,
  DiskHostEvent,
  DiskHostRequests,
  EngineConfig,
  EngineEvent,
  EngineRequests,
  PortalConfig,
  PortalEvent,
  PortalRequests,
  RecordAnswer,
  Reply,
} from '../native/index.js'
import type { ProcessState } from './process-state.js'

/** The supervisor gives the run, and what it kept of the engine before: both are filled in at each start. */
export interface EngineSpec {
  kind: 'engine'
  volume: string
  attachment: number
  config: Omit<EngineConfig, 'epoch' | 'kept' | 'alone'>
}

export interface DiskHostSpec {
  kind: 'disk-host'
  disk: string
  config: DiskHostConfig
}

/** At most one a node. */
export interface PortalSpec {
  kind: 'portal'
  config: PortalConfig
}

export type ProcessSpec = EngineSpec | DiskHostSpec | PortalSpec

/** At most one process of a key is alive. */
export type ProcessKey = `engine/${string}` | `disk-host/${string}` | 'portal'

export const portalKey: ProcessKey = 'portal'

export function engineKey(volume: string): ProcessKey {
  return `engine/${volume}`
}

export function diskHostKey(disk: string): ProcessKey {
  return `disk-host/${disk}`
}

export function specKey(spec: ProcessSpec): ProcessKey {
  switch (spec.kind) {
    case 'engine':
      return engineKey(spec.volume)
    case 'disk-host':
      return diskHostKey(spec.disk)
    case 'portal':
      return portalKey
  }
}

/** One process of a key: what it says is told apart from what the one before it said. */
export type ProcessIdentity =
  | { kind: 'engine'; key: ProcessKey; pid: number; volume: string; attachment: number; run: number }
  | { kind: 'disk-host'; key: ProcessKey; pid: number; disk: string }
  | { kind: 'portal'; key: ProcessKey; pid: number }

export type SupervisorEvent =
  | { type: 'started'; process: ProcessIdentity; restarts: number }
  | { type: 'event'; process: ProcessIdentity; event: EngineEvent | DiskHostEvent | PortalEvent | Reply }
  /** A line of its standard error: what Node.js or a failed CHECK left behind. */
  | { type: 'output'; process: ProcessIdentity; line: string }
  /** `restartInMs` is absent if it is not started again. */
  | { type: 'exited'; process: ProcessIdentity; reason: string; restartInMs?: number }
  /** No process could be made at all. */
  | { type: 'spawn-failed'; key: ProcessKey; reason: string; restartInMs?: number }

type RequestOf<T> = { [Op in keyof T]: { request: number; op: Op } }[keyof T]
export type ProcessMessage =
  RequestOf<EngineRequests> | RequestOf<DiskHostRequests> | RequestOf<PortalRequests> | RecordAnswer

export interface ProcessInfo {
  key: ProcessKey
  kind: ProcessSpec['kind']
  volume?: string
  disk?: string
  pid: number
  state: ProcessState
  restarts: number
  startedAt: string
}

/** What the agent needs of a supervisor. */
export interface SupervisorClient {
  start(spec: ProcessSpec): void
  stop(key: ProcessKey, limitMs?: number): Promise<void>
  post(key: ProcessKey, message: object): boolean
  list(): ProcessInfo[]
  onEvent(listener: (event: SupervisorEvent) => void): () => void
}
