// The documents that go through the addon's door. They are JSON text there; these are their types. The C++ side writes
// the same fields in native/napi, native/engine and native/replica.

/** What the caller asks for; the addon says in an `io-backend` event what it took and why. */
export type IoBackend = 'auto' | 'uring' | 'epoll'
export type ChosenIoBackend = 'uring' | 'epoll'

/** Grows each time a volume is attached (attachment, given by the store) or its engine starts (run, by the supervisor). */
export interface Epoch {
  attachment: number
  run: number
}

/** Who the in-sync replicas are, since which generation. Generation 0 without members: the volume was never started. */
export interface MembershipRecord {
  epoch: Epoch
  generation: number
  members: string[]
  snapshot: string
}

/** `unix:/path` or `tcp:host:port`. */
export type Address = string

export interface HostPort {
  host: string
  port: number
}

/** What the engine before this one said of its members: the last complete record, and what it proposed since. */
export interface KeptMembership {
  complete: MembershipRecord
  proposals: MembershipRecord[]
}

export interface EngineConfig {
  volume: string
  /** What clients are known to have seen, of a multiple of 4096. */
  sizeBytes: number
  /** What the volume is to have instead: the engine sees to it before clients come. */
  expansion?: ExpansionRequest
  /** 64 hex digits: the key of the volume's challenge and response with its replicas. */
  secret: string
  epoch: Epoch
  record: MembershipRecord
  /** Absent: the supervisor keeps nothing of an engine before this one, and the first record needs the store. */
  kept?: KeptMembership
  /** No engine before this one can answer reads any more, as far as the supervisor saw. */
  alone: boolean
  /** The store was restored from a copy, and no record of the volume was confirmed under it yet. */
  storeRestored: boolean
  /** The attachment is to another host than the one before, or to one that was booted anew since. */
  clientsAnew: boolean
  replicas: { id: string; address: Address }[]
  nbd: HostPort
  iscsi: IscsiConfig
  /** Clients may look, and change nothing; absent: false. */
  readOnly?: boolean
  ioBackend: IoBackend
  lateMs: number
  /** Bytes a second that are copied between replicas; absent or 0: as fast as it goes. */
  resyncBandwidth?: number
  startWaitMs: number
  /** Where the io back end is probed with one real read and fsync. */
  dataDirectory: string
}

/** Where a volume is a LUN, and as what. */
export interface IscsiConfig extends HostPort {
  /** The name of the target; its one LUN is 0. */
  target: string
  /** As INQUIRY tells it: the same for as long as the volume is. */
  serial: string
  /** 512 or 4096, as READ CAPACITY (16) tells it. */
  physicalBlockBytes: number
  /** Absent: whoever reaches the port may log in. */
  chap?: Chap
}

/** Who the initiator must prove to be and, where it is mutual, the target in turn: RFC 7143, section 12.1.3. */
export interface Chap {
  user: string
  secret: string
  mutualUser?: string
  mutualSecret?: string
}

/** A target of the well-known portal: where logins to it are sent on to, HOST:PORT; empty while it is served nowhere. */
export interface PortalTarget {
  iqn: string
  address: string
}

export interface PortalConfig {
  listen: HostPort
  /** What discovery says instead of the host that it listens on. */
  advertisedHost: string
  targets: PortalTarget[]
  ioBackend: IoBackend
}

export interface DiskHostConfig {
  disk: string
  directory: string
  listen: Address[]
  ioBackend: IoBackend
}

// ---------------------------------------------------------------- events

export interface IoBackendEvent {
  event: 'io-backend'
  backend: ChosenIoBackend
  reason: string
}

export type LogLevel = 'info' | 'warn' | 'error'

export interface LogEvent {
  event: 'log'
  level: LogLevel
  message: string
  [field: string]: unknown
}

export interface StoppedEvent {
  event: 'stopped'
  clean: boolean
}

/** The engine goes on only when the store holds this record; see RecordAnswer. */
export interface RecordEvent {
  event: 'record'
  question: number
  record: MembershipRecord
}

/** Whether the store can be read: a minority is proposed only then. Answered as a record is. */
export interface ProbeEvent {
  event: 'probe'
  question: number
}

/** Said before any replica gets the record. */
export interface ProposalEvent {
  event: 'proposal'
  record: MembershipRecord
}

/** The record counts. For the store it is a hint: nothing waits for it. */
export interface CompleteEvent {
  event: 'complete'
  record: MembershipRecord
}

/** What a replica said to an engine that cannot start. */
export interface HeardReplica {
  id: string
  answered: boolean
  /** Of one that answered. */
  record?: MembershipRecord
  welcomed?: Epoch
  suspect?: boolean
  unclean?: boolean
  /** Why it did not. */
  reason?: string
}

export interface CannotStartEvent {
  event: 'cannot-start'
  newest: MembershipRecord
  lacking: string
  replicas: HeardReplica[]
}

/** Why a replica is no member: docs/reference/faults.md. */
export const replicaFaults = [
  'connection-lost',
  'no-answer',
  'io-error',
  'flush-failed',
  'no-space',
  'record-failed',
  'suspect',
  'older-record',
  'refused',
  'wrong-size',
  'not-heard',
] as const
export type ReplicaFault = (typeof replicaFaults)[number]

/** What I/O waits for: docs/reference/faults.md. */
export const waitCauses = ['members', 'majority', 'store', 'space'] as const
export type WaitCause = (typeof waitCauses)[number]

export type EngineState = 'starting' | 'serving' | 'degraded' | 'waiting' | 'refused' | 'stopping' | 'stopped'

export interface EngineStateEvent {
  event: 'state'
  state: EngineState
  message: string
  waitsFor: WaitCause | ''
  members: string[]
  generation: number
}

export interface ServingEvent {
  event: 'serving'
  nbd: HostPort
  iscsi?: HostPort
}

export type ReplicaConnectionState = 'connecting' | 'member' | 'left' | 'resyncing' | 'suspect'

export interface ReplicaStateEvent {
  event: 'replica'
  id: string
  state: ReplicaConnectionState
  fault: ReplicaFault | ''
  reason: string
}

/** A scrub ended, or went on for a while. */
export interface ScrubEvent {
  event: 'scrub'
  progress: ScrubProgress
}

/** A trim ended, or went on for a while. */
export interface TrimEvent {
  event: 'trim'
  progress: TrimProgress
}

/** Before `serving`, and when either has changed. */
export interface SizeEvent {
  event: 'size'
  /** What clients have. */
  sizeBytes: number
  /** The last order to become larger, as far as this process knows. */
  expansion?: ExpansionProgress
}

/** To become larger. */
export interface ExpansionRequest {
  /** Another one for each order. */
  id: string
  sizeBytes: number
}

export interface ExpansionProgress extends ExpansionRequest {
  state: 'running' | 'done' | 'failed'
  /** Of the failure; else empty. */
  code: string
  /** Why it failed, or what it waits for. */
  message: string
}

export interface ListeningEvent {
  event: 'listening'
  addresses: Address[]
}

/** The disk directory cannot be used, or the portal's address: that one tries again by itself, each second. */
export interface FailedEvent {
  event: 'failed'
  code: string
  message: string
}

export type EngineEvent =
  | IoBackendEvent
  | LogEvent
  | RecordEvent
  | ProbeEvent
  | ProposalEvent
  | CompleteEvent
  | CannotStartEvent
  | EngineStateEvent
  | ServingEvent
  | ReplicaStateEvent
  | ScrubEvent
  | TrimEvent
  | SizeEvent
  | StoppedEvent

export type DiskHostEvent = IoBackendEvent | LogEvent | ListeningEvent | FailedEvent | StoppedEvent

export type PortalEvent = IoBackendEvent | LogEvent | ListeningEvent | FailedEvent | StoppedEvent

// ---------------------------------------------------------------- requests, answers

export interface ErrorDocument {
  code: string
  message: string
}

/** Each request gets exactly one. */
export type Reply = { reply: number; result: unknown } | { reply: number; error: ErrorDocument }

/**
 * Refused with the code `fenced`, the engine ends for good: a newer attachment has the volume. Refused without, it asks
 * again after a while.
 */
export type RecordAnswer =
  { answer: number; ok: true } | { answer: number; ok: false; code?: 'fenced'; message: string }

export type CacheMode = 'buffered' | 'direct'

export interface DiskReplica {
  volume: string
  id: string
  directory: string
  sizeBytes: number
  allocatedBytes: number
  /** It was adopted, and nobody confirmed that it may be written to. */
  readOnly: boolean
  /** Of 4 MiB: written, and not known to be equal on all members. */
  dirtyRegions: number
  state: 'open' | 'closed' | 'failed'
  error: string
}

/** op → what is asked with it, and what comes back. */
export interface EngineRequests {
  stop: { parameters: object; result: object }
  counters: { parameters: object; result: EngineCounters }
  status: { parameters: object; result: object }
  set: { parameters: EngineSettings; result: object }
  /**
   * Compares all of the volume at all members, behind the regions that are done by what it is given. One of the same id
   * that is under way goes on with the new rate; one of another id ends.
   */
  scrub: { parameters: ScrubRequest; result: ScrubProgress }
  /** Makes the volume larger, while clients are at work. Answered at once; `size` events say what becomes of it. */
  expand: { parameters: ExpansionRequest; result: object }
  'stop-scrub': { parameters: object; result: ScrubProgress }
  /**
   * Gives back what takes up space at any member and holds nothing but zeros, behind what is done by what it is given. One
   * of the same id that is under way goes on with the new rate; one of another id ends.
   */
  trim: { parameters: TrimRequest; result: TrimProgress }
  'stop-trim': { parameters: object; result: TrimProgress }
  /**
   * Those about snapshots are served one after the other, in their order. What is not answered with success may be there
   * all the same until `list-layers` says otherwise.
   */
  'take-snapshot': { parameters: TakeSnapshot; result: { members: number; pauseNs: number } }
  /** The volume is what the snapshot `base` holds; of what it held before only snapshots are left. */
  revert: { parameters: RevertRequest; result: { members: number; pauseNs: number } }
  'delete-snapshot': { parameters: { layer: string }; result: { members: number } }
  /** As one member has them; none at all where it knows of no layers. */
  'list-layers': { parameters: object; result: { members: number; layers: Layer[] } }
  /** What changed between two snapshots, a part at a time; `busy` while too much is asked for. */
  'snapshot-changes': { parameters: ChangesRequest; result: SnapshotChanges }
  /** From now on NBD clients can read it, as the export that is answered. One that nobody uses for 10 s is closed. */
  'read-snapshot': { parameters: { layer: string; snapshot: string }; result: { export: string; sizeBytes: number } }
  /** Answered with `busy` while a client reads it, or is just about to. */
  'check-unread': { parameters: { layer: string }; result: object }
}

export interface ChangesRequest {
  layer: string
  /** Absent: nothing, so that what the layer's snapshot has allocated is told. */
  from?: string
  /** From there on; a multiple of 4096. */
  offset: number
  /** Of extents. */
  limit: number
}

export interface SnapshotChanges {
  /** Of the volume then, and when `from` was taken; 0: there is no `from`. */
  sizeBytes: number
  fromSizeBytes: number
  /** All before it is told; the size: that was all. */
  nextOffset: number
  /** Ascending. `zero`: it takes up no space, and reads as zeros. */
  extents: { offset: number; length: number; zero: boolean }[]
}

export interface TakeSnapshot {
  /** Of 1 to 63 letters, digits, dots, hyphens and underscores; never used twice within a volume. */
  layer: string
  labels: Record<string, string>
  /** A person asked for it, or a job of theirs. */
  userCreated: boolean
  createdSeconds: number
}

export interface RevertRequest {
  /** Of the revert itself, like a snapshot's: never used twice within a volume. */
  layer: string
  base: string
  /** It takes place only where this is what the volume's record names: once, however often it is asked for. */
  after: string
  /** Although clients are connected. */
  force: boolean
}

export interface Layer {
  /** Empty: the head, which is written to. */
  name: string
  /** The layer under it; empty: it is at the bottom. */
  parent: string
  /** Since 1970; 0: not known. */
  createdSeconds: number
  /** What its file takes up. */
  allocatedBytes: number
  /** Of the volume when it was frozen. */
  sizeBytes: number
  /** Its snapshot was deleted: it stays for those above it until it is merged. */
  removed: boolean
  userCreated: boolean
  /** Durable and equal at all members: what is not is no snapshot yet, and may never be one. */
  sealed: boolean
}

/** What may change while an engine runs; what is absent stays. */
export interface EngineSettings {
  resyncBandwidth?: number
  space?: EngineSpace
}

/** Of the fullest disk that a replica lies on: SCSI initiators are told. */
export interface EngineSpace {
  totalBytes: number
  freeBytes: number
  /** What is free where the soft threshold lies. */
  softBytes: number
  /** It was crossed: with each change to true all initiators get a unit attention. */
  low: boolean
}

export interface ScrubRequest extends ScrubFindings {
  id: string
  /** Of the volume; 0: no bound. */
  bytesPerSecond: number
}

/** Of the scrub that is under way, or of the last one since the engine's process started. */
export interface ScrubProgress extends ScrubFindings {
  /** As it was asked for; empty: there was none. */
  id: string
  running: boolean
  /** It came to its end. */
  finished: boolean
  /** Of 4 MiB. */
  regions: number
}

export interface ScrubFindings {
  /** Of 4 MiB; all regions before the first that is not done. */
  regionsDone: number
  /** That could not be compared. */
  regionsFailed: number
  /** Of 4 KiB: damaged at one replica and written anew from another; damaged at all; not the same at all. */
  repairedBlocks: number
  corruptBlocks: number
  differingBlocks: number
}

export interface TrimRequest extends TrimFindings {
  id: string
  /** That are read; 0: no bound. */
  bytesPerSecond: number
}

/** Of the trim that is under way, or of the last one since the engine's process started. */
export interface TrimProgress extends TrimFindings {
  /** As it was asked for; empty: there was none. */
  id: string
  running: boolean
  /** It came to its end. */
  finished: boolean
  /** That it goes through. */
  bytes: number
}

export interface TrimFindings {
  /** All before it is done. */
  bytesDone: number
  /** Took up space and held zeros: given back, or masked where a snapshot has it. */
  unmappedBytes: number
  /** Could not be read or unmapped. */
  failedBytes: number
}

/** A directory of Longhorn's that becomes the replica, instead of one that is made empty. */
export interface Adoption {
  directory: string
  /** It is a copy: nobody wants it back. */
  copied: boolean
  /** What is taken although it speaks against it. */
  accept: LonghornFault[]
  /** Nobody has confirmed yet that its layers may be changed. */
  readOnly: boolean
}

/** What a replica is made of: of a snapshot that another one on the same disk has, by second names of its files. */
export interface CloneSource {
  volume: string
  replica: string
  /** Of the snapshot. */
  layer: string
  /** All replicas that are made so, this one too: what each of them notes as the volume's first record. */
  members: string[]
}

export interface DiskHostRequests {
  'create-replica': {
    parameters: {
      volume: string
      id: string
      sizeBytes: number
      secret: string
      cache: CacheMode
      checksums: boolean
      adopt?: Adoption
      clone?: CloneSource
    }
    result: { directory: string; readOnly: boolean }
  }
  'remove-replica': { parameters: { volume: string; id: string }; result: object }
  'list-replicas': { parameters: object; result: { replicas: DiskReplica[] } }
  space: { parameters: object; result: { totalBytes: number; freeBytes: number } }
  /** As it is now: files are looked at. */
  usage: { parameters: object; result: DiskUsage }
  counters: { parameters: object; result: DiskCounters }
  stop: { parameters: object; result: object }
}

/** Of the file system that the disk is on, and what the files of its replicas take up there. */
export interface DiskUsage {
  disk: string
  totalBytes: number
  freeBytes: number
  replicas: ReplicaUsage[]
}

export interface ReplicaUsage {
  volume: string
  id: string
  /** Empty name: the head. */
  layers: { name: string; allocatedBytes: number }[]
  /** Everything else in its directory: maps, checksums, records. */
  metadataBytes: number
}

export interface PortalRequests {
  /** These and no others from now on. */
  targets: { parameters: { targets: PortalTarget[] }; result: object }
  counters: { parameters: object; result: PortalCounters }
  stop: { parameters: object; result: object }
}

// ---------------------------------------------------------------- counters

export const operationNames = ['read', 'write', 'flush', 'unmap', 'zero', 'status'] as const
export type OperationName = (typeof operationNames)[number]

export interface OperationCounters {
  count: number
  bytes: number
  errors: number
  /** Plain counts, not cumulative. One more than the bounds: the last bucket has none. */
  latency: { sumSeconds: number; buckets: number[] }
}

export type OperationTable = Record<OperationName, OperationCounters>

export interface EngineCounters {
  volume: string
  ioBackend: ChosenIoBackend
  inFlight: number
  waitsFor: WaitCause | ''
  /** How often a replica left, by why; since the engine's process started. */
  faults: Record<ReplicaFault, number>
  /** NBD. */
  connections: number
  iscsiSessions: number
  heldBytes: number
  bucketBoundsSeconds: number[]
  operations: OperationTable
  /** Regions of 4 MiB that are dirty at some member, and of these those that members may differ in. */
  dirtyRegions: number
  unequalRegions: number
  /** Copied between replicas, and blocks that were corrupt at one and written anew; since the process started. */
  resyncedBytes: number
  repairedBlocks: number
  scrub: ScrubProgress
  trim: TrimProgress
  /** By trims, since the process started. */
  trimmedBytes: number
  /** Taken and failed since the process started, and for how long each held up I/O. */
  snapshots: { taken: number; failed: number; pause: { sumSeconds: number; buckets: number[] } }
  replicas: ReplicaCounters[]
}

export interface ReplicaCounters {
  id: string
  state: ReplicaConnectionState
  inFlight: number
  /** How far one that is no member is on its way to become one; null for members. */
  resync: ResyncProgress | null
  operations: OperationTable
}

export interface ResyncProgress {
  state: 'waiting' | 'held-off' | 'copying' | 'paused' | 'joining'
  /** That were to be compared when it began, and since. */
  regions: number
  regionsToGo: number
  /** Of the snapshots that it lacked: the one that it is given now, and those after that. */
  snapshotsToGo: number
  copiedBytes: number
  bytesPerSecond: number
}

export interface DiskCounters {
  disk: string
  ioBackend: ChosenIoBackend
  bucketBoundsSeconds: number[]
  replicas: {
    volume: string
    id: string
    operations: OperationTable
    /** Since the disk host started: blocks that did not match, pages of checksums that were not whole or had no space. */
    checksums: { errors: number; pagesDamaged: number; pagesDropped: number }
    /** Of 4 MiB: how many are dirty, and how many each replica that is away misses. Of open replicas only. */
    regions?: { dirty: number; missing: { replica: string; regions: number }[] }
  }[]
}

/** Since its process started, but for the connections: those that are open. */
export interface PortalCounters {
  connections: number
  /** For discovery; those for a volume are redirected or refused. */
  logins: number
  redirects: number
  discoveries: number
  /** Connections over the limit, too. */
  refused: number
}

// ---------------------------------------------------------------- directories of Longhorn's

/** What may be wrong with one and be taken all the same. */
export const longhornFaults = ['dirty', 'rebuilding', 'error'] as const
export type LonghornFault = (typeof longhornFaults)[number]

/** What a command does by itself: see native/replica/longhorn_tool.h. */
export type LonghornWork =
  | { what: 'check'; directory: string; backingFile?: string; copied?: boolean }
  | { what: 'copy'; directory: string; target: string; backingFile?: string; accept: LonghornFault[] }
  | { what: 'prepare'; directory: string; backingFile?: string; accept: LonghornFault[]; copied: boolean }
  | {
      what: 'export'
      directory: string
      target: string
      /** The layer of a snapshot; absent: what the volume holds now. */
      snapshot?: string
      /** What snapshots are called there, by their layers. */
      names: Record<string, string>
      anyLength: boolean
    }

export interface LonghornReport {
  directory: string
  /** As Longhorn has it, and as a volume has it here: whole blocks. */
  sizeBytes: number
  volumeBytes: number
  /** How many of the layers the head stands on, it among them. */
  chain: number
  /** Of the file revision.counter; null: there is none. */
  revision: number | null
  /** Empty: none. */
  backingFile: string
  /** From the head down to the bottom, then other branches. */
  layers: LonghornLayer[]
  notes: string[]
  problems: { kind: LonghornFault | ''; message: string }[]
}

export interface LonghornLayer {
  file: string
  /** What it is called here; empty: the head. */
  layer: string
  parent: string
  sizeBytes: number
  allocatedBytes: number
  /** Allocated and never written, over other layers: it hides them. */
  unwrittenBytes: number
  removed: boolean
  userCreated: boolean
  created: string
  labels: Record<string, unknown>
}

export interface LonghornExport {
  directory: string
  sizeBytes: number
  chain: number
  layers: number
  copiedBytes: number
  /** Written as zeros, as Longhorn reads no masks. */
  maskedBytes: number
  notes: string[]
}

export type LonghornEvent =
  | { event: 'progress'; bytes: number }
  | { event: 'done'; result: unknown }
  | { event: 'failed'; code: string; message: string }
  | LogEvent
