// What the manager wants of a node, and what the node says of itself. Both are whole documents, versioned and
// idempotent: whoever missed one does the right thing with the next.

import type {
  Address,
  Adoption,
  CacheMode,
  CannotStartEvent,
  ChosenIoBackend,
  CloneSource,
  EngineSpace,
  EngineState,
  ExpansionProgress,
  ExpansionRequest,
  HostPort,
  IscsiConfig,
  Layer,
  MembershipRecord,
  PortalTarget,
  ReplicaFault,
  ScrubFindings,
  ScrubProgress,
  RevertRequest,
  TakeSnapshot,
  TrimProgress,
  TrimRequest,
  WaitCause,
} from '../native/index.js'

export type { MembershipRecord, EngineState, CacheMode } from '../native/index.js'

export interface NodePlan {
  version: number
  node: string
  disks: DiskPlan[]
  engines: EnginePlan[]
  /** The well-known portal; absent: none on this node. */
  portal?: PortalPlan
}

export interface DiskPlan {
  id: string
  directory: string
  listen: Address[]
  replicas: ReplicaPlan[]
}

export interface ReplicaPlan {
  volume: string
  id: string
  sizeBytes: number
  secret: string
  cache: CacheMode
  checksums: boolean
  /** It is made of a directory that is there; absent: of nothing, or that is long done. */
  adopt?: Adoption
  /** It is made of a snapshot of another volume's replica on the disk; absent: it is not, or that is long done. */
  clone?: CloneSource
  /** A replica that is in no plan is left alone: only `absent` removes one. */
  desired: 'present' | 'absent'
}

export interface EnginePlan {
  volume: string
  /** What clients are known to have seen. */
  sizeBytes: number
  /** What the volume is to have instead; absent: nothing else. */
  expansion?: ExpansionRequest
  secret: string
  attachment: number
  record: MembershipRecord
  /** No record of the volume was confirmed under the id that the store has now. */
  storeRestored: boolean
  /** The attachment is to another host than the one before, or to one that was booted anew since. */
  clientsAnew: boolean
  replicas: { id: string; address: Address }[]
  nbd: HostPort
  iscsi: IscsiConfig
  /** Clients may look, and change nothing. */
  readOnly?: true
  lateMs: number
  resyncBandwidth?: number
  /** What initiators are told of the space that there is; absent: nothing. */
  space?: EngineSpace
  /** What the engine is to be at; absent: none. */
  scrub?: ScrubPlan
  /** Likewise; its id is another one for each. */
  trim?: TrimRequest
  snapshots?: SnapshotsPlan
}

/** The layers that are named nowhere here stay as they are. */
export interface SnapshotsPlan {
  /** In this order. Each is asked of the engine once: whatever becomes of it, its layer's name is used up. */
  take: TakeSnapshot[]
  /** Layers that are deleted where there are any of these names. */
  absent: string[]
  /** Asked again and again until it is answered: the engine carries it out once. */
  revert?: RevertRequest
}

/** One scrub of the volume, and how far it is known to have come. */
export interface ScrubPlan extends ScrubFindings {
  /** Another one for each scrub. */
  id: string
  /** Of the volume; 0: no bound. */
  bytesPerSecond: number
}

/** Of the whole cluster: every target has its way from every portal. */
export interface PortalPlan {
  listen: HostPort
  /** What initiators reach it by; another one than that of `listen` where it listens on every address. */
  advertisedHost: string
  targets: PortalTarget[]
}

export interface NodeReport {
  /** Of the plan that this report answers; 0 before the first. */
  version: number
  node: string
  /** Another one after each boot of the machine; empty: not known. */
  bootId: string
  disks: DiskReport[]
  engines: EngineReport[]
  portal?: PortalReport
  processes: ProcessReport[]
}

export interface DiskReport {
  id: string
  state: 'starting' | 'ready' | 'failed'
  message: string
  ioBackend?: ChosenIoBackend
  addresses: Address[]
  totalBytes: number
  freeBytes: number
  replicas: ReplicaReport[]
}

export interface ReplicaReport {
  volume: string
  id: string
  directory: string
  state: 'creating' | 'ready' | 'removed' | 'failed'
  message: string
  /** Its layers do not change before somebody confirms that they may; absent: it is not known yet. */
  readOnly?: boolean
}

export interface EngineReport {
  volume: string
  attachment: number
  run: number
  state: EngineState
  message: string
  /** What I/O waits for; empty: it does not wait. */
  waitsFor: WaitCause | ''
  /** Why it cannot start, and what each replica said. */
  cannotStart?: CannotStart
  members: string[]
  generation: number
  nbd?: HostPort
  iscsi?: HostPort
  ioBackend?: ChosenIoBackend
  replicas: { id: string; state: string; fault: ReplicaFault | ''; reason: string }[]
  /** What clients have; absent: it has not said. */
  sizeBytes?: number
  expansion?: ExpansionProgress
  /** The scrub that it is or was at, as it last said; absent: none. */
  scrub?: ScrubProgress
  /** Likewise the trim. */
  trim?: TrimProgress
  snapshots?: SnapshotsReport
}

export interface SnapshotsReport {
  /** Of what the plan says to take: what the engine answered, or that it cannot answer any more. */
  answers: TakeAnswer[]
  /** As the engine listed them after all that it did; absent: it has not yet. Empty: its replicas know of no layers. */
  layers?: Layer[]
  /** The layer that the engine is asked to take right now. */
  taking?: string
  /** What it answered to the revert that the plan has. */
  revert?: RevertAnswer
  troubles: SnapshotTrouble[]
}

/** Why a layer that is to be absent may be there still: the last deletion of it failed, at one member at least. */
export interface SnapshotTrouble {
  layer: string
  message: string
}

export type RevertAnswer = { layer: string } & (
  { reverted: true; pauseNs: number } | { reverted: false; code: string; message: string }
)

export type TakeAnswer = { layer: string } & (
  { taken: true; pauseNs: number } | { taken: false; code: string; message: string }
)

export type CannotStart = Omit<CannotStartEvent, 'event'>

export interface PortalReport {
  state: 'starting' | 'ready' | 'failed'
  /** Of the failure; else empty. */
  code: string
  message: string
  /** Where it listens. */
  addresses: Address[]
  ioBackend?: ChosenIoBackend
}

export interface ProcessReport {
  pid: number
  kind: 'engine' | 'disk-host' | 'portal'
  volume?: string
  disk?: string
  restarts: number
  startedAt: string
}
