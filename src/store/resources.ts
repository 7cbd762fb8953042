// What the store holds. The schemas are the single source: types, validation of what is read back, and later the custom
// resource definitions. Durable facts only; what can be seen again by looking is in the node's report.

import { Type, type Static, type TSchema } from 'typebox'

const Id = Type.String({ pattern: '^[0-9a-f]{16}$' })
const Count = Type.Integer({ minimum: 0 })

export const Metadata = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 253 }),
  /** Never used again, so that a volume of the same name made later is another volume. */
  uid: Type.String({ minLength: 1 }),
  /** Opaque: compare for equality only. */
  resourceVersion: Type.String(),
  creationTimestamp: Type.String(),
  /** Set once: the resource is being taken down, and goes when its controller has cleaned up. */
  deletionTimestamp: Type.Optional(Type.String()),
})
export type Metadata = Static<typeof Metadata>

export const Disk = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 63 }),
  path: Type.String({ minLength: 1 }),
  allowScheduling: Type.Boolean(),
  /** Where its disk host listens for engines, by TCP; kept so that an engine finds it again after a restart. */
  replicationPort: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535 })),
})
export type Disk = Static<typeof Disk>

export const Node = Type.Object({
  metadata: Metadata,
  spec: Type.Object({
    /** Other nodes reach it here. */
    address: Type.String({ minLength: 1 }),
    allowScheduling: Type.Boolean(),
    disks: Type.Array(Disk),
  }),
})
export type Node = Static<typeof Node>

export const MembershipRecord = Type.Object({
  epoch: Type.Object({ attachment: Count, run: Count }),
  generation: Count,
  members: Type.Array(Id),
  snapshot: Type.String(),
})
export type MembershipRecord = Static<typeof MembershipRecord>

export const cacheModes = ['buffered', 'direct'] as const
export type CacheMode = (typeof cacheModes)[number]

/** The first is the logical block: for initiators that take no disk with two sizes. */
export const physicalBlockSizes = [512, 4096] as const
export type PhysicalBlockBytes = (typeof physicalBlockSizes)[number]

export const volumeStates = [
  'creating',
  'detached',
  'attaching',
  'attached',
  'detaching',
  'deleting',
  'faulted',
] as const
export const VolumeState = Type.Enum(volumeStates)
export type VolumeState = (typeof volumeStates)[number]

export const robustnesses = ['healthy', 'degraded', 'faulted', 'unknown'] as const
export const Robustness = Type.Enum(robustnesses)
export type Robustness = (typeof robustnesses)[number]

export const replicaStates = [
  'creating',
  'ready',
  'connecting',
  'member',
  'left',
  'resyncing',
  'suspect',
  'failed',
  'removing',
  'removed',
  'unknown',
] as const
export const ReplicaState = Type.Enum(replicaStates)
export type ReplicaState = (typeof replicaStates)[number]

const ChapName = Type.String({ minLength: 1, maxLength: 223 })
const ChapSecret = Type.String({ minLength: 12, maxLength: 64 })

/** Who may log in by iSCSI, and who the target says to be in turn: src/manager/chap.ts says what holds of it. */
export const Chap = Type.Object({
  user: ChapName,
  secret: ChapSecret,
  mutualUser: Type.Optional(ChapName),
  mutualSecret: Type.Optional(ChapSecret),
})
export type Chap = Static<typeof Chap>

export const Salvage = Type.Object({
  at: Type.String({ description: 'When, ISO 8601' }),
  attachment: Count,
  replicas: Type.Array(Id, { description: 'Those that were chosen' }),
  reason: Type.String({ description: 'Why the volume could not start by the rules' }),
  mayLose: Type.String({ description: 'What may be lost by it' }),
})
export type Salvage = Static<typeof Salvage>

const scrubFindings = {
  /** Of 4 MiB; all regions before the first that is not done. */
  regionsDone: Count,
  /** That could not be compared. */
  regionsFailed: Count,
  /** Of 4 KiB: damaged at a replica and written anew from another; damaged at all; not the same at all. */
  repairedBlocks: Count,
  corruptBlocks: Count,
  differingBlocks: Count,
}
export type ScrubFindings = Record<keyof typeof scrubFindings, number>

const Scrub = Type.Object({
  /** ISO 8601; names it, too. */
  begunAt: Type.String(),
  /** Bytes a second that somebody asked for; absent: it is one of the schedule, with the volume's bandwidth. */
  bandwidth: Type.Optional(Count),
  ...scrubFindings,
})
export type Scrub = Static<typeof Scrub>

const ScrubState = Type.Object({
  /** When the latest one was begun, whatever became of it. */
  begunAt: Type.Optional(Type.String()),
  /** As far as it is known to have come: an engine that is started anew goes on there. */
  current: Type.Optional(Scrub),
  /** That came to its end. */
  last: Type.Optional(Type.Object({ begunAt: Type.String(), endedAt: Type.String(), ...scrubFindings })),
})
export type ScrubState = Static<typeof ScrubState>

const trimCounts = {
  /** All before it is done. */
  bytesDone: Count,
  /** Took up space and held zeros: given back, or masked where a snapshot has it. */
  unmappedBytes: Count,
  /** Could not be read or unmapped. */
  failedBytes: Count,
}
export type TrimCounts = Record<keyof typeof trimCounts, number>

const Trim = Type.Object({
  /** ISO 8601; names it, too. */
  begunAt: Type.String(),
  /** Bytes a second that are read; 0: no bound. */
  bandwidth: Count,
  /** That it was asked for in: it ends with it. */
  attachment: Count,
  ...trimCounts,
})
export type Trim = Static<typeof Trim>

/** `interrupted`: the volume was detached before its end. */
export const trimOutcomes = ['done', 'stopped', 'interrupted'] as const
export type TrimOutcome = (typeof trimOutcomes)[number]

const TrimState = Type.Object({
  /** As far as it is known to have come: an engine that is started anew goes on there. */
  current: Type.Optional(Trim),
  last: Type.Optional(
    Type.Object({
      ...{ begunAt: Type.String(), endedAt: Type.String(), outcome: Type.Enum(trimOutcomes) },
      ...trimCounts,
    }),
  ),
})
export type TrimState = Static<typeof TrimState>

export const transferKinds = ['import', 'export'] as const

/** An image that is copied into the volume or out of it. */
const Transfer = Type.Object({
  /** Its client made it up: only who knows it acts for it. */
  id: Id,
  /** import: what the volume holds is not whole before it has ended. export: the volume is attached for nothing else. */
  kind: Type.Enum(transferKinds),
  /** ISO 8601 */
  begunAt: Type.String(),
})
export type Transfer = Static<typeof Transfer>

export const longhornFaults = ['dirty', 'rebuilding', 'error'] as const
export type LonghornFault = (typeof longhornFaults)[number]

/** A directory of Longhorn's that the volume's one replica is made of, until it is known to be and may be written to. */
const Adoption = Type.Object({
  directory: Type.String({ minLength: 1 }),
  copied: Type.Boolean(),
  accept: Type.Array(Type.Enum(longhornFaults)),
  /** Nobody has confirmed yet that its layers may be changed. */
  readOnly: Type.Boolean(),
})
export type Adoption = Static<typeof Adoption>

/** As replicas name it: 1 to 63 letters, digits, dots, hyphens and underscores. */
const LayerName = Type.String({ pattern: '^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$' })

/** The snapshot that the volume held when it was made. Whatever becomes of that, what is said here stays. */
const ClonedFrom = Type.Object({
  volume: Type.String({ minLength: 1 }),
  /** Of that very volume: one of the same name made later is another one. */
  volumeUid: Type.String({ minLength: 1 }),
  snapshot: Type.String({ minLength: 1 }),
  /** Of replicas on the same disks, by second names of their files; else everything was copied. */
  linked: Type.Boolean(),
  /** Of a linked one: what replicas call the snapshot. */
  layer: Type.Optional(LayerName),
  /** Replicas that are yet to be made of it, each of another volume's; absent: none. */
  making: Type.Optional(Type.Array(Type.Object({ id: Id, source: Id }))),
})
export type ClonedFrom = Static<typeof ClonedFrom>

export const Volume = Type.Object({
  metadata: Metadata,
  spec: Type.Object({
    sizeBytes: Type.Integer({ minimum: 4096 }),
    numberOfReplicas: Type.Integer({ minimum: 1 }),
    cache: Type.Enum(cacheModes),
    /** Whether replicas keep a checksum of each block beside the data. Absent in what an earlier release wrote: true. */
    checksums: Type.Optional(Type.Boolean()),
    /** As initiators are told it. Absent in what was stored before there was a choice: 4096. */
    physicalBlockBytes: Type.Optional(Type.Enum(physicalBlockSizes)),
    /** Bytes a second that are copied between replicas; 0: no bound. Absent: as its node says. */
    resyncBandwidth: Type.Optional(Count),
    /** How often all of it is compared at all replicas; 0: only when somebody asks for it. Absent: the default. */
    scrubPeriodSeconds: Type.Optional(Count),
    /** Bytes a second that this compares; 0: no bound. Absent: the default. */
    scrubBandwidth: Type.Optional(Count),
    /** Where the volume should be attached; null: nowhere. */
    nodeID: Type.Union([Type.String(), Type.Null()]),
  }),
  /** Key of the challenge and response between engine and replicas: 32 random bytes. Leaves neither by API nor by log. */
  secret: Type.String({ pattern: '^[0-9a-f]{64}$' }),
  nbdPort: Type.Integer({ minimum: 1, maximum: 65535 }),
  /** Absent in what a release without iSCSI wrote: the manager gives one at its next look, before it attaches the volume. */
  iscsiPort: Type.Optional(Type.Integer({ minimum: 1, maximum: 65535 })),
  /** Leaves neither by API nor by log. Absent: whoever reaches the portal may log in. */
  chap: Type.Optional(Chap),
  replicas: Type.Array(
    Type.Object({
      id: Id,
      node: Type.String(),
      disk: Type.String(),
    }),
  ),
  membership: Type.Object({
    /** The highest attachment given. Invariant: record.epoch.attachment <= attachment. */
    attachment: Count,
    /** The node that this attachment was given to, until its engine is known to have ended. */
    node: Type.Union([Type.String(), Type.Null()]),
    record: MembershipRecord,
    /** The store's own id when it last took a record of this volume: under another one it was restored from a copy. */
    storeId: Type.Optional(Type.String()),
    /** The machine that the attachment was given to, and which boot of it. */
    host: Type.Optional(Type.Object({ node: Type.String(), bootId: Type.String() })),
    /** It was another one than that of the attachment before. */
    clientsAnew: Type.Optional(Type.Boolean()),
  }),
  scrub: Type.Optional(ScrubState),
  trim: Type.Optional(TrimState),
  /** The volume is to become as large as its spec says, and its engine has not said that it is. */
  expansion: Type.Optional(
    Type.Object({
      /** Another one for each order. */
      id: Type.String({ minLength: 1 }),
      /** What clients are known to have seen. */
      fromBytes: Type.Integer({ minimum: 4096 }),
      /** Asked for while it was attached: where it cannot be, the size goes back. Else it is tried again. */
      attached: Type.Boolean(),
    }),
  ),
  transfer: Type.Optional(Transfer),
  adoption: Type.Optional(Adoption),
  clonedFrom: Type.Optional(ClonedFrom),
  /** Starts against the rules that its owner asked for, the latest last; at most ten are kept. */
  salvages: Type.Optional(Type.Array(Salvage)),
  status: Type.Object({
    state: VolumeState,
    robustness: Robustness,
    message: Type.String(),
    /** What I/O waits for: docs/reference/faults.md. */
    waitsFor: Type.Optional(Type.String()),
    replicas: Type.Array(
      Type.Object({
        id: Id,
        state: ReplicaState,
        directory: Type.String(),
        message: Type.String(),
        /** Why it is no member: docs/reference/faults.md. */
        fault: Type.Optional(Type.String()),
      }),
    ),
  }),
})
export type Volume = Static<typeof Volume>

export const snapshotStates = ['creating', 'ready', 'deleting', 'failed'] as const
export type SnapshotState = (typeof snapshotStates)[number]

/** `unknown`: it was not answered; the volume's engine may have carried it out all the same. */
export const revertStates = ['asked', 'done', 'failed', 'unknown'] as const

/** What a volume held at one instant. Its metadata's name is VOLUME.NAME. */
export const Snapshot = Type.Object({
  metadata: Metadata,
  spec: Type.Object({
    volume: Type.String({ minLength: 1 }),
    /** Of that very volume: one of the same name made later is another one. */
    volumeUid: Type.String({ minLength: 1 }),
    /** What the user calls it: unique within the volume. */
    name: Type.String({ pattern: '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' }),
    labels: Type.Record(Type.String(), Type.String()),
    userCreated: Type.Boolean(),
  }),
  /** When somebody wanted it. ISO 8601. Its document may be older: of one before that failed under this name. */
  askedAt: Type.String(),
  /** When its layer was asked for, or when it says it was made. ISO 8601. */
  createdAt: Type.String(),
  /** Of the replicas' files. Null: none is asked for yet, or none came about. */
  layer: Type.Union([LayerName, Type.Null()]),
  /** Whose engine was asked for that layer. */
  attachment: Count,
  /**
   * How many layers were asked for: one that nobody answered for is not asked for again, another one is. Each may be the
   * snapshot, until one of them is known to be: then 0.
   */
  tries: Count,
  /** Those that were asked for before, the last at the end: deleted wherever they turn up, once they cannot be it. */
  abandonedLayers: Type.Array(LayerName),
  state: Type.Enum(snapshotStates),
  /** Why it is in this state, where there is more to say. */
  message: Type.String(),
  /** Of the volume then. */
  sizeBytes: Count,
  /** For how long I/O was held up; null: nobody was told. */
  pauseMs: Type.Union([Type.Number({ minimum: 0 }), Type.Null()]),
  /** The last order to take the volume back to it. */
  revert: Type.Optional(
    Type.Object({
      /** What the engine's record names it. */
      layer: LayerName,
      /** The newest layer then: with another one it does not take place. */
      after: LayerName,
      attachment: Count,
      /** ISO 8601. */
      askedAt: Type.String(),
      /** Although clients are connected. */
      force: Type.Boolean(),
      state: Type.Enum(revertStates),
      /** Of what keeps it from taking place; else empty. */
      code: Type.String(),
      message: Type.String(),
      pauseMs: Type.Union([Type.Number({ minimum: 0 }), Type.Null()]),
    }),
  ),
})
export type Snapshot = Static<typeof Snapshot>

export const StoreIdentity = Type.Object({
  metadata: Metadata,
  /** Random; a restored store gets a new one. */
  storeId: Type.String({ minLength: 1 }),
})
export type StoreIdentity = Static<typeof StoreIdentity>

export interface Resources {
  Node: Node
  Volume: Volume
  Snapshot: Snapshot
  StoreIdentity: StoreIdentity
}
export type Kind = keyof Resources

export const resourceSchemas: Record<Kind, TSchema> = { Node, Volume, Snapshot, StoreIdentity }
