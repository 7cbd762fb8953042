// What goes through REST about the space that things take up.
import { Type, type Static } from 'typebox'
import { diskLevels } from '../manager/index.js'
import { nullable } from './schema-parts.js'

const taken = 'Blocks of the file system that are allocated to files, as stat(2) counts them'

export const ReplicaSpaceView = Type.Object({
  id: Type.String(),
  node: Type.String(),
  disk: Type.String(),
  allocatedBytes: nullable(
    Type.Integer({ description: `${taken}: all of its directory. Null: its disk host does not say` }),
  ),
  dataBytes: nullable(Type.Integer({ description: 'Of that, its layers' })),
  metadataBytes: nullable(
    Type.Integer({ description: 'And all else: maps, checksums, records, and layers that are still to be deleted' }),
  ),
  layers: Type.Array(
    Type.Object({
      name: Type.String({ description: '"volume-head" is the one that is written to' }),
      snapshot: nullable(Type.String({ description: 'The snapshot that has it; null: none' })),
      allocatedBytes: Type.Integer(),
    }),
    { description: 'The head first; others by their names' },
  ),
})

export const VolumeSpaceView = Type.Object({
  volume: Type.String(),
  sizeBytes: Type.Integer({ description: 'What clients may write' }),
  allocatedBytes: nullable(
    Type.Integer({ description: `${taken}: of all its replicas together. Null: one of them is not known` }),
  ),
  snapshotBytes: nullable(
    Type.Integer({ description: 'Of that, what snapshots hold, and layers that are to be merged' }),
  ),
  replicas: Type.Array(ReplicaSpaceView),
})
export type VolumeSpaceView = Static<typeof VolumeSpaceView>

export const DiskSpaceView = Type.Object({
  node: Type.String(),
  id: Type.String(),
  totalBytes: Type.Integer({ description: 'Of its file system; 0: not known' }),
  freeBytes: Type.Integer({ description: 'Of that, what may still be written' }),
  usedPercent: Type.Number({ description: 'Of its file system, whoever takes it up' }),
  level: Type.Enum(diskLevels, { description: 'As it was last looked at, each 30 s; it ends 2 % below its threshold' }),
  warningPercent: Type.Number(),
  criticalPercent: Type.Number(),
  replicasBytes: nullable(Type.Integer({ description: 'What the replicas on it take up; null: it does not say' })),
  otherBytes: nullable(
    Type.Integer({ description: 'And all else on that file system, with what that keeps for itself' }),
  ),
  scheduledBytes: Type.Integer({ description: 'Sum of the sizes of the volumes with a replica here' }),
})
export type DiskSpaceView = Static<typeof DiskSpaceView>

export const SpaceView = Type.Object({ disks: Type.Array(DiskSpaceView), volumes: Type.Array(VolumeSpaceView) })
export type SpaceView = Static<typeof SpaceView>
