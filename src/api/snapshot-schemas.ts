// What goes through REST about snapshots.
import { Type, type Static } from 'typebox'
import { snapshotStates } from '../store/index.js'
import { ChapRequest, nullable, Strict, TimeoutSeconds } from './schema-parts.js'

const LayerName = Type.String({ description: 'A layer; "volume-head" is the one that is written to' })

const tree = {
  parent: nullable(Type.String({ description: 'The layer under it; null: it is at the bottom, or not known' })),
  children: Type.Array(LayerName, { description: 'Those right above it' }),
}

export const SnapshotView = Type.Object({
  volume: Type.String(),
  name: Type.String(),
  state: Type.Enum(snapshotStates),
  message: Type.String({ description: 'Why it is in this state, where there is more to say' }),
  labels: Type.Record(Type.String(), Type.String()),
  userCreated: Type.Boolean({ description: 'Somebody asked for it' }),
  createdAt: Type.String({ description: 'ISO 8601' }),
  sizeBytes: Type.Integer({ description: 'Of the volume then' }),
  pauseMs: nullable(Type.Number({ description: 'For how long I/O was held up; null: not known' })),
  layer: nullable(Type.String({ description: 'What replicas call it; null: none was taken' })),
  ...tree,
  allocatedBytes: nullable(
    Type.Integer({ description: 'What it takes up at each replica; null: the engine does not say' }),
  ),
  clones: Type.Array(Type.String(), {
    description: 'Volumes that are linked clones of it: it cannot be deleted before them',
  }),
})
export type SnapshotView = Static<typeof SnapshotView>

export const LayerView = Type.Object({
  name: LayerName,
  head: Type.Boolean(),
  snapshot: nullable(Type.String({ description: 'The snapshot that has it; null: none' })),
  ...tree,
  allocatedBytes: Type.Integer({ description: 'What it takes up at each replica' }),
  removed: Type.Boolean({ description: "It is nobody's snapshot, and is merged in the background" }),
  clones: Type.Array(Type.String(), {
    description: 'Volumes that are linked clones with its file: what is removed is not merged before them',
  }),
  base: Type.Boolean({
    description: 'It came with the snapshot that the volume is a linked clone of: it is merged once nobody shares it',
  }),
})
export type LayerView = Static<typeof LayerView>

export const SnapshotList = Type.Object({
  volume: Type.String(),
  snapshots: Type.Array(SnapshotView, { description: 'In the order in which they were asked for' }),
  layers: nullable(
    Type.Array(LayerView, {
      description: 'As the engine last listed them, each behind the one under it; null: it does not say',
    }),
  ),
  message: Type.String({ description: 'Why there are no layers; empty where there are' }),
})
export type SnapshotList = Static<typeof SnapshotList>

export const SnapshotDeletionView = Type.Object({
  volume: Type.String(),
  name: Type.String(),
  deleted: Type.Boolean({ description: 'False: it is kept, and deleted when the volume is attached next' }),
  message: Type.String({ description: 'Why it is not deleted yet' }),
  allocatedBytes: nullable(
    Type.Integer({
      description:
        'What it took up at each replica. What of that neither the volume nor another snapshot needs comes back in the ' +
        'background. Null: not known',
    }),
  ),
})
export type SnapshotDeletionView = Static<typeof SnapshotDeletionView>

export const CreateSnapshot = Strict({
  name: Type.Optional(
    Type.String({ description: '1 to 63 lower-case letters, digits and hyphens; by the time if not given' }),
  ),
  labels: Type.Optional(
    Type.Record(Type.String(), Type.String(), { description: 'Of 4096 bytes as JSON at the most' }),
  ),
  timeoutSeconds: TimeoutSeconds,
})
export type CreateSnapshot = Static<typeof CreateSnapshot>

export const changedExtentsMax = 10_000

export const ListChanges = Strict({
  from: Type.Optional(
    Type.String({ description: 'The snapshot that it is compared with; if not given, what it has allocated is told' }),
  ),
  offset: Type.Optional(
    Type.Integer({ minimum: 0, multipleOf: 4096, description: 'From there on; 0 if not given, then `nextOffset`' }),
  ),
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: changedExtentsMax, description: 'Of extents; 1000 if not given' }),
  ),
})
export type ListChanges = Static<typeof ListChanges>

export const ChangesView = Type.Object({
  volume: Type.String(),
  snapshot: Type.String(),
  from: nullable(Type.String()),
  sizeBytes: Type.Integer({ description: 'Of the volume when the snapshot was taken' }),
  fromSizeBytes: nullable(
    Type.Integer({ description: 'And when `from` was. What lies behind that and is not listed reads as zeros' }),
  ),
  superset: Type.Boolean({
    description:
      'Blocks may be listed that hold the same in both: those that were written with what they held. None that differs ' +
      'is missing',
  }),
  extents: Type.Array(
    Type.Object({
      offset: Type.Integer(),
      length: Type.Integer(),
      kind: Type.Enum(['data', 'zero'], { description: '`zero`: it takes up no space, and reads as zeros' }),
    }),
    { description: 'Of bytes, whole blocks of 4096, ascending' },
  ),
  nextOffset: nullable(
    Type.Integer({ description: 'All before it is told: ask again from there. Null: that was all' }),
  ),
})
export type ChangesView = Static<typeof ChangesView>

export const ReadSnapshot = Strict({})

export const ReadableSnapshotView = Type.Object({
  volume: Type.String(),
  snapshot: Type.String(),
  sizeBytes: Type.Integer(),
  nbd: Type.Object({ uri: Type.String() }),
})
export type ReadableSnapshotView = Static<typeof ReadableSnapshotView>

export const RevertVolume = Strict({
  keepName: Type.Optional(
    Type.String({ description: 'Of the snapshot of what the volume holds now; by the time if not given' }),
  ),
  force: Type.Optional(
    Type.Boolean({
      description: 'Although clients are connected; what they have in their caches is of another content',
    }),
  ),
  timeoutSeconds: TimeoutSeconds,
})
export type RevertVolume = Static<typeof RevertVolume>

export const RevertView = Type.Object({
  volume: Type.String(),
  snapshot: Type.String({ description: 'The volume is what it holds' }),
  kept: Type.String({ description: 'The snapshot that has what the volume held before' }),
  pauseMs: nullable(Type.Number({ description: 'For how long I/O was held up; null: not known' })),
})
export type RevertView = Static<typeof RevertView>

export const CloneSnapshot = Strict({
  name: Type.String({ description: 'Of the new volume: 1 to 63 lower-case letters, digits and hyphens' }),
  chap: Type.Optional(ChapRequest),
  timeoutSeconds: TimeoutSeconds,
})
export type CloneSnapshot = Static<typeof CloneSnapshot>

export const DeleteSnapshot = Strict({ timeoutSeconds: TimeoutSeconds })
export type DeleteSnapshot = Static<typeof DeleteSnapshot>

export const SnapshotName = Type.Object({ name: Type.String(), snapshot: Type.String() })
