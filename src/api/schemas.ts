// What goes through REST: the single source of the types, of what is accepted and of the OpenAPI document. A field that
// is not named here does not leave the process, the volumes' secrets above all.
import { Type, type Static } from 'typebox'
import { ChapRequest, nullable, Strict, TimeoutSeconds } from './schema-parts.js'
import {
  cacheModes,
  longhornFaults,
  physicalBlockSizes,
  replicaStates,
  robustnesses,
  Salvage,
  transferKinds,
  trimOutcomes,
  volumeStates,
} from '../store/index.js'

export const ErrorView = Type.Object({
  error: Type.Object({
    code: Type.String({ description: 'One of docs/reference/errors.md' }),
    message: Type.String({ description: 'Names the object, the operation and the cause' }),
    action: Type.String({ description: 'What to do' }),
  }),
})
export type ErrorView = Static<typeof ErrorView>

export const ReplicaView = Type.Object({
  id: Type.String(),
  node: Type.String(),
  disk: Type.String(),
  directory: Type.String({ description: 'Where its files are on the node; empty until it is made' }),
  state: Type.Enum(replicaStates),
  fault: Type.String({ description: 'Why it is no member, one of docs/reference/faults.md; empty: it is one' }),
  message: Type.String(),
})

/** What an initiator needs: it discovers and logs in at the portal, which sends it on to where the volume is attached. */
export const IscsiView = Type.Object({
  portal: Type.String({ description: 'HOST:PORT of the well-known portal: the same for all volumes of a node' }),
  iqn: Type.String({ description: 'Name of the target' }),
  lun: Type.Integer(),
})
export type IscsiView = Static<typeof IscsiView>

const scrubFindings = {
  blocksNotChecked: Type.Integer({ description: 'In regions that could not be compared' }),
  bad: Type.Integer({ description: 'Found damaged at a replica' }),
  repaired: Type.Integer({ description: 'Of these, written anew from another replica' }),
  unrepairable: Type.Integer({
    description: 'Damaged at all replicas: reads of them fail until they are written anew',
  }),
  differing: Type.Integer({ description: 'Not damaged, and not the same at all replicas' }),
}

const LastScrub = nullable(
  Type.Object({
    begunAt: Type.String({ description: 'ISO 8601' }),
    endedAt: Type.String({ description: 'ISO 8601' }),
    ...scrubFindings,
  }),
)

const trimCounts = {
  bytesDone: Type.Integer({ description: 'All of the volume before it was looked at' }),
  unmappedBytes: Type.Integer({
    description:
      'Took up space at a replica and held nothing but zeros. They take up none any more, but for what snapshots hold',
  }),
  failedBytes: Type.Integer({ description: 'Could not be read or given back, and are as they were' }),
}

const LastTrim = nullable(
  Type.Object({
    begunAt: Type.String({ description: 'ISO 8601' }),
    endedAt: Type.String({ description: 'ISO 8601' }),
    outcome: Type.Enum(trimOutcomes, { description: 'interrupted: the volume was detached before its end' }),
    ...trimCounts,
  }),
)

export const VolumeView = Type.Object({
  name: Type.String(),
  sizeBytes: Type.Integer({ description: 'What clients have, or will have when it is attached' }),
  expandingToBytes: nullable(Type.Integer({ description: 'What it is to have instead; null: nothing else' })),
  numberOfReplicas: Type.Integer(),
  cache: Type.Enum(cacheModes),
  checksums: Type.Boolean({ description: 'Whether replicas keep a checksum of each block, and verify what they read' }),
  physicalBlockBytes: Type.Enum(physicalBlockSizes, { description: 'What iSCSI initiators are told' }),
  resyncBandwidth: nullable(
    Type.Integer({
      description: 'Bytes a second that are copied between replicas; 0: no bound. Null: as its node says',
    }),
  ),
  scrub: Type.Object({
    periodSeconds: Type.Integer({ description: 'How often all of it is compared at all replicas; 0: never by itself' }),
    bandwidth: Type.Integer({ description: 'Bytes a second that this compares; 0: no bound' }),
    running: Type.Boolean(),
    dueAt: nullable(Type.String({ description: 'When the next one begins, if it is attached then. ISO 8601' })),
    last: LastScrub,
  }),
  trim: Type.Object({ running: Type.Boolean(), last: LastTrim }),
  readOnly: Type.Boolean({ description: 'It was adopted from Longhorn, and may not be written to yet' }),
  adopted: nullable(
    Type.Object({
      directory: Type.String({ description: 'Where it is given back to if the volume is deleted' }),
      copied: Type.Boolean({ description: 'It was copied from elsewhere: nothing is given back' }),
    }),
  ),
  clonedFrom: nullable(
    Type.Object(
      {
        volume: Type.String(),
        snapshot: Type.String(),
        linked: Type.Boolean({ description: 'It has files of the snapshot, as long as both are there' }),
      },
      { description: 'What it held when it was made. These names may be of something else by now, or of nothing' },
    ),
  ),
  createdAt: Type.String(),
  state: Type.Enum(volumeStates),
  robustness: Type.Enum(robustnesses),
  message: Type.String({ description: 'Why it is in this state, where there is more to say' }),
  waitsFor: Type.String({ description: 'What I/O waits for, one of docs/reference/faults.md; empty: it does not' }),
  transfer: nullable(
    Type.Object({
      kind: Type.Enum(transferKinds, {
        description: 'import: it is not whole, and nobody else may attach it; export: it is attached for that alone',
      }),
      begunAt: Type.String({ description: 'ISO 8601' }),
    }),
  ),
  salvages: Type.Array(Salvage, { description: 'Starts against the rules that its owner asked for, the latest last' }),
  warnings: Type.Array(Type.String(), { description: 'What the owner should know of how it is set up' }),
  node: nullable(Type.String({ description: 'Where it is attached, or to be attached' })),
  attachment: Type.Integer({ description: 'Grows with each attachment' }),
  generation: Type.Integer({ description: 'Grows with each change of the in-sync replicas' }),
  chap: Type.Enum(['none', 'one-way', 'mutual'], {
    description: 'How an initiator must log in; secrets are not shown',
  }),
  iscsi: nullable(IscsiView),
  nbd: nullable(Type.Object({ uri: Type.String() })),
  replicas: Type.Array(ReplicaView),
})
export type VolumeView = Static<typeof VolumeView>

export const AttachmentView = Type.Object({
  volume: Type.String(),
  node: Type.String(),
  iscsi: IscsiView,
  nbd: Type.Object({ uri: Type.String() }),
})
export type AttachmentView = Static<typeof AttachmentView>

export const ActivityView = Type.Object({
  volume: Type.String(),
  nbdConnections: Type.Integer(),
  iscsiSessions: Type.Integer(),
  changes: Type.Integer({
    description: 'Requests that changed its content, since its engine started: where it did not grow, nobody did',
  }),
  epoch: Type.Object(
    { attachment: Type.Integer(), run: Type.Integer() },
    { description: 'Of its engine: another one counts anew' },
  ),
})
export type ActivityView = Static<typeof ActivityView>

export const DeletionView = Type.Object({ name: Type.String(), deleted: Type.Literal(true) })
export type DeletionView = Static<typeof DeletionView>

export const DiskView = Type.Object({
  id: Type.String(),
  directory: Type.String(),
  state: Type.Enum(['starting', 'ready', 'failed', 'unknown']),
  message: Type.String(),
  ioBackend: nullable(Type.String()),
  allowScheduling: Type.Boolean(),
  totalBytes: Type.Integer(),
  freeBytes: Type.Integer(),
  scheduledBytes: Type.Integer({ description: 'Sum of the sizes of the volumes with a replica here' }),
})

export const PortalView = Type.Object({
  address: Type.String({ description: 'HOST:PORT' }),
  state: Type.Enum(['starting', 'ready', 'failed', 'unknown']),
  message: Type.String(),
  ioBackend: nullable(Type.String()),
})

export const NodeView = Type.Object({
  name: Type.String(),
  address: Type.String(),
  allowScheduling: Type.Boolean(),
  portal: PortalView,
  disks: Type.Array(DiskView),
})
export type NodeView = Static<typeof NodeView>

export const ProcessView = Type.Object({
  pid: Type.Integer(),
  kind: Type.Enum(['manager', 'engine', 'disk-host', 'portal']),
  node: Type.String(),
  volume: Type.Optional(Type.String()),
  disk: Type.Optional(Type.String()),
  restarts: Type.Integer(),
  startedAt: Type.String(),
})
export type ProcessView = Static<typeof ProcessView>

export const VolumeList = Type.Object({ volumes: Type.Array(VolumeView) })
export type VolumeList = Static<typeof VolumeList>
export const NodeList = Type.Object({ nodes: Type.Array(NodeView) })
export type NodeList = Static<typeof NodeList>
export const ProcessList = Type.Object({ processes: Type.Array(ProcessView) })
export type ProcessList = Static<typeof ProcessList>

export const HealthView = Type.Object({ status: Type.Enum(['ok', 'starting']) })

export const ExpandVolume = Strict({
  size: Type.Union([Type.String(), Type.Integer()], {
    description: 'The new size, with a unit (20GiB, 20G), or bytes: a multiple of 4096. No less than it has',
  }),
  timeoutSeconds: TimeoutSeconds,
})
export type ExpandVolume = Static<typeof ExpandVolume>

export const ScrubVolume = Strict({
  bandwidth: Type.Optional(
    Type.Integer({ minimum: 0, description: 'Bytes of the volume a second; 64 MiB if not given, 0: no bound' }),
  ),
})

export const ScrubView = Type.Object({
  volume: Type.String(),
  running: Type.Boolean(),
  blocks: Type.Integer({ description: 'To be checked, of 4 KiB; 0: none is under way, and none has ended yet' }),
  blocksChecked: Type.Integer(),
  ...scrubFindings,
  last: LastScrub,
})
export type ScrubView = Static<typeof ScrubView>

export const TrimVolume = Strict({
  bandwidth: Type.Optional(
    Type.Integer({ minimum: 0, description: 'Bytes that are read a second; 64 MiB if not given, 0: no bound' }),
  ),
})

export const TrimView = Type.Object({
  volume: Type.String(),
  running: Type.Boolean(),
  bytes: Type.Integer({ description: 'Of the volume' }),
  ...trimCounts,
  last: LastTrim,
})
export type TrimView = Static<typeof TrimView>

export const VolumeName = Type.Object({ name: Type.String() })

const orDefault = (description: string) =>
  Type.Optional(Type.Union([Type.Integer({ minimum: 0 }), Type.Literal('default')], { description }))

export const UpdateVolume = Strict({
  resyncBandwidth: orDefault(
    'Bytes a second that are copied between replicas; 0: no bound. "default": as its node says',
  ),
  scrubPeriodSeconds: orDefault('How often it is scrubbed: 1 hour to 366 days, 0: never by itself. "default": 7 days'),
  readOnly: Type.Optional(
    Type.Literal(false, {
      description: 'A volume that was adopted may be written to from now on; it has to be detached',
    }),
  ),
  scrubBandwidth: orDefault('Bytes a second that a scrub of the schedule compares; 0: no bound. "default": 32 MiB'),
})
export type UpdateVolume = Static<typeof UpdateVolume>

const TransferId = (description: string) => Type.Optional(Type.String({ pattern: '^[0-9a-f]{16}$', description }))

export const CreateVolume = Strict({
  name: Type.String({ description: '1 to 63 lower-case letters, digits and hyphens' }),
  size: Type.Union([Type.String(), Type.Integer()], {
    description: 'With a unit (512MiB, 10GiB, 10G), or bytes: a multiple of 4096',
  }),
  numberOfReplicas: Type.Optional(Type.Integer({ description: '3 if not given' })),
  cache: Type.Optional(Type.Enum(cacheModes, { description: 'buffered if not given' })),
  checksums: Type.Optional(
    Type.Boolean({ description: 'Keep a checksum of each block on disk, and verify what is read; true if not given' }),
  ),
  physicalBlockBytes: Type.Optional(
    Type.Integer({
      description:
        'What iSCSI initiators are told: 4096 (if not given), or 512 for those that take no other disk. It cannot be changed later',
    }),
  ),
  chap: Type.Optional(ChapRequest),
  adopt: Type.Optional(
    Strict(
      {
        directory: Type.String({ description: 'Absolute, on the file system of the disk', maxLength: 4000 }),
        disk: Type.String({ description: 'Where the replica is to be' }),
        copied: Type.Optional(Type.Boolean({ description: 'It is a copy: deleting the volume deletes it' })),
        accept: Type.Optional(
          Type.Array(Type.Enum(longhornFaults), { description: 'What is taken although it speaks against it' }),
        ),
        snapshots: Type.Optional(
          Type.Array(
            Strict({
              layer: Type.String({ pattern: '^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$' }),
              labels: Type.Record(Type.String(), Type.String()),
              userCreated: Type.Boolean(),
              createdAt: Type.String(),
              sizeBytes: Type.Integer({ minimum: 0 }),
            }),
            { description: 'As the layers of the directory say; others are found when it is attached', maxItems: 1024 },
          ),
        ),
      },
      {
        description:
          "A replica directory of Longhorn's that becomes its one replica, and is read-only until that is confirmed",
      },
    ),
  ),
  copyOf: Type.Optional(
    Strict(
      { volume: Type.String(), snapshot: Type.String() },
      {
        description:
          'The snapshot that the client imports: only with `transfer`. Without `chap` it has that of the volume',
      },
    ),
  ),
  transfer: TransferId(
    'It is made for an import, to which the client gives this id: nobody without it may attach the volume before that has ended',
  ),
  timeoutSeconds: TimeoutSeconds,
})
export type CreateVolume = Static<typeof CreateVolume>

export const AttachVolume = Strict({
  node: Type.Optional(Type.String({ description: 'Not needed where there is one node' })),
  transfer: TransferId(
    'Of the import that it was made for, or of an export: where it was detached it is attached for that alone',
  ),
  timeoutSeconds: TimeoutSeconds,
})
export type AttachVolume = Static<typeof AttachVolume>

export const SalvageVolume = Strict({
  replicas: Type.Optional(
    Type.Array(Type.String({ pattern: '^[0-9a-f]{16}$' }), {
      maxItems: 8,
      description: 'Those to go on with; not given: those that answer with the newest record',
    }),
  ),
  confirm: Type.Optional(Type.Boolean({ description: 'Do it; else only what would be done is answered' })),
})
export type SalvageVolume = Static<typeof SalvageVolume>

export const SalvageView = Type.Object({
  volume: Type.String(),
  done: Type.Boolean(),
  attachment: Type.Integer({ description: 'The one that starts from it' }),
  replicas: Type.Array(Type.String(), { description: 'Those that were chosen' }),
  reason: Type.String({ description: 'Why the volume cannot start by the rules' }),
  mayLose: Type.String({ description: 'What may be lost' }),
})
export type SalvageView = Static<typeof SalvageView>

export const DetachVolume = Strict({
  transfer: TransferId('Only if it is attached for that import or export; else nothing is done'),
  timeoutSeconds: TimeoutSeconds,
})
export type DetachVolume = Static<typeof DetachVolume>

export const EndImport = Strict({ transfer: Type.String({ pattern: '^[0-9a-f]{16}$' }) })
export type EndImport = Static<typeof EndImport>

export const DeleteVolume = Strict({
  transfer: TransferId('Only if it was made for that import, and it has not ended'),
  force: Type.Optional(Type.Boolean({ description: 'Also while clients are connected' })),
  timeoutSeconds: TimeoutSeconds,
})
export type DeleteVolume = Static<typeof DeleteVolume>
