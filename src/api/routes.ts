// REST /v1: volumes, nodes, processes. Handlers say what is wanted, wait for the manager, and show the result.
import { checkChap, checkName, parseSize, type Manager } from '../manager/index.js'
import type { Volume } from '../store/index.js'
import { AnkoleError } from './errors.js'
import {
  ActivityView,
  AttachmentView,
  AttachVolume,
  CreateVolume,
  DeleteVolume,
  DeletionView,
  DetachVolume,
  EndImport,
  ErrorView,
  ExpandVolume,
  NodeList,
  ProcessList,
  SalvageView,
  SalvageVolume,
  ScrubView,
  ScrubVolume,
  TrimView,
  TrimVolume,
  UpdateVolume,
  VolumeList,
  VolumeName,
  VolumeView,
} from './schemas.js'
import type { Server } from './server.js'
import { addCloneRoute } from './clone-route.js'
import { addSnapshotRoutes } from './snapshot-routes.js'
import { SpaceView, VolumeSpaceView } from './space-schemas.js'
import { diskSpaces, volumeSpace } from './space-views.js'
import {
  attachmentView,
  nodeViews,
  processViews,
  scrubView,
  trimView,
  volumeView,
  type Faces,
  type Reports,
} from './views.js'
import { explained, milliseconds, type Waited } from './waiting.js'

export interface RouteOptions {
  /** Throws not-ready until there is one. */
  manager: () => Manager
  /** The node that the manager runs on. */
  node: string
  faces: Faces
}

const errors = { '4xx': ErrorView, '5xx': ErrorView }
const replicasDefault = 3
const scrubBandwidthDefault = 64 * 1024 ** 2
const trimBandwidthDefault = 64 * 1024 ** 2

export function addRoutes(server: Server, { manager: current, node, faces }: RouteOptions): void {
  const reports = (): Reports =>
    new Map(
      current()
        .nodes()
        .flatMap(({ node, report }) => (report ? [[node.metadata.name, report] as const] : [])),
    )
  const view = (volume: Volume): VolumeView => volumeView(volume, faces)

  server.get(
    '/v1/volumes',
    { schema: { summary: 'All volumes', tags: ['volumes'], response: { 200: VolumeList, ...errors } } },
    () => ({ volumes: current().volumes().map(view) }),
  )

  server.post(
    '/v1/volumes',
    {
      schema: {
        summary: 'Create a volume, and wait until its replicas are made',
        tags: ['volumes'],
        body: CreateVolume,
        response: { 201: VolumeView, ...errors },
      },
    },
    async ({ body }, reply) => {
      const manager = current()
      const { metadata } = await manager.createVolume({
        name: checkName(body.name),
        sizeBytes: parseSize(body.size),
        numberOfReplicas: body.numberOfReplicas ?? (body.adopt === undefined ? replicasDefault : 1),
        cache: body.cache ?? 'buffered',
        checksums: body.checksums ?? true,
        physicalBlockBytes: body.physicalBlockBytes,
        ...(body.chap === undefined ? {} : { chap: checkChap(body.chap) }),
        transfer: body.transfer,
        copyOf: body.copyOf,
        ...(body.adopt === undefined ? {} : { adopt: { copied: false, accept: [], snapshots: [], ...body.adopt } }),
      })
      const volume = await made(manager, metadata.name, milliseconds(body.timeoutSeconds))
      return reply.code(201).send(view(volume))
    },
  )

  server.get(
    '/v1/volumes/:name',
    {
      schema: {
        summary: 'One volume',
        tags: ['volumes'],
        params: VolumeName,
        response: { 200: VolumeView, ...errors },
      },
    },
    ({ params }) => view(current().volume(params.name)),
  )

  server.patch(
    '/v1/volumes/:name',
    {
      schema: {
        summary:
          'Change how a volume is resynced and scrubbed, while it is attached too, or confirm that one that was adopted may be written to; what is not given stays',
        tags: ['volumes'],
        params: VolumeName,
        body: UpdateVolume,
        response: { 200: VolumeView, ...errors },
      },
    },
    async ({ params: { name }, body: { readOnly, ...settings } }) => {
      const manager = current()
      const volume = await manager.update(name, settings)
      if (readOnly === undefined) return view(volume)
      await manager.makeWritable(name)
      return view(
        await waiting(manager, name, 'writable', milliseconds(undefined), ({ adoption }) => adoption === undefined),
      )
    },
  )

  server.delete(
    '/v1/volumes/:name',
    {
      schema: {
        summary: 'Delete a volume with all its data, and wait until it is gone',
        tags: ['volumes'],
        params: VolumeName,
        querystring: DeleteVolume,
        response: { 200: DeletionView, ...errors },
      },
    },
    async ({ params: { name }, query }) => {
      const manager = current()
      const { metadata } = await manager.delete(name, query.force ?? false, query.transfer)
      await gone(manager, metadata.uid, name, milliseconds(query.timeoutSeconds))
      return { name, deleted: true } as const
    },
  )

  server.post(
    '/v1/volumes/:name/attach',
    {
      schema: {
        summary: 'Attach a volume, and wait until it serves; attaching it again changes nothing',
        tags: ['volumes'],
        params: VolumeName,
        body: AttachVolume,
        response: { 200: AttachmentView, ...errors },
      },
    },
    async ({ params: { name }, body }) => {
      const manager = current()
      await manager.attach(name, body.node, body.transfer)
      return attachmentView(await attached(manager, name, milliseconds(body.timeoutSeconds)), faces)
    },
  )

  server.post(
    '/v1/volumes/:name/salvage',
    {
      schema: {
        summary: 'Start a volume against the rules, with the replicas that its owner chooses; data may be lost',
        tags: ['volumes'],
        params: VolumeName,
        body: SalvageVolume,
        response: { 200: SalvageView, ...errors },
      },
    },
    async ({ params: { name }, body }) => {
      const done = body.confirm ?? false
      const { attachment, record, reason, mayLose } = await current().salvage(name, body.replicas ?? [], done)
      return { volume: name, done, attachment, replicas: record.members, reason, mayLose }
    },
  )

  server.post(
    '/v1/volumes/:name/expand',
    {
      schema: {
        summary:
          'Make a volume larger, while clients are at work, and wait until they have it; one that is detached has it when it is attached',
        tags: ['volumes'],
        params: VolumeName,
        body: ExpandVolume,
        response: { 200: VolumeView, ...errors },
      },
    },
    async ({ params: { name }, body }) => {
      const manager = current()
      const { volume, id } = await manager.expand(name, parseSize(body.size))
      if (id === null) return view(volume)
      return view(
        await waiting(manager, name, 'expanded', milliseconds(body.timeoutSeconds), (seen) =>
          manager.checkExpansion(seen, id),
        ),
      )
    },
  )

  server.post(
    '/v1/volumes/:name/end-import',
    {
      schema: {
        summary: 'The volume that was made for an import is whole, and detached: everybody may attach it',
        tags: ['volumes'],
        params: VolumeName,
        body: EndImport,
        response: { 200: VolumeView, ...errors },
      },
    },
    async ({ params: { name }, body }) => view(await current().endImport(name, body.transfer)),
  )

  server.get(
    '/v1/volumes/:name/activity',
    {
      schema: {
        summary: 'Who uses an attached volume, and whether its content changed since another look',
        tags: ['volumes'],
        params: VolumeName,
        response: { 200: ActivityView, ...errors },
      },
    },
    async ({ params: { name } }) => ({ volume: name, ...(await current().activity(name)) }),
  )

  const scrubSchema = { tags: ['volumes'], params: VolumeName, response: { 200: ScrubView, ...errors } }
  server.post(
    '/v1/volumes/:name/scrub',
    {
      schema: {
        ...scrubSchema,
        summary: 'Start to compare all of a volume at all replicas, and to repair what is damaged; does not wait',
        body: ScrubVolume,
      },
    },
    async ({ params: { name }, body }) =>
      scrubView(await current().scrub(name, body.bandwidth ?? scrubBandwidthDefault)),
  )
  server.get(
    '/v1/volumes/:name/scrub',
    { schema: { ...scrubSchema, summary: 'How far the scrub of a volume is, or what the last one found' } },
    async ({ params: { name } }) => {
      const { volume, progress } = await current().scrubProgress(name)
      return scrubView(volume, progress)
    },
  )
  server.delete(
    '/v1/volumes/:name/scrub',
    { schema: { ...scrubSchema, summary: 'Stop the scrub of a volume' } },
    async ({ params: { name } }) => scrubView(await current().stopScrub(name)),
  )

  const trimSchema = { tags: ['volumes'], params: VolumeName, response: { 200: TrimView, ...errors } }
  server.post(
    '/v1/volumes/:name/trim',
    {
      schema: {
        ...trimSchema,
        summary:
          'Start to give back what takes up space in an attached volume and holds nothing but zeros; does not wait',
        body: TrimVolume,
      },
    },
    async ({ params: { name }, body }) => trimView(await current().trim(name, body.bandwidth ?? trimBandwidthDefault)),
  )
  server.get(
    '/v1/volumes/:name/trim',
    { schema: { ...trimSchema, summary: 'How far the trim of a volume is, or what became of the last one' } },
    async ({ params: { name } }) => {
      const { volume, progress } = await current().trimProgress(name)
      return trimView(volume, progress)
    },
  )
  server.delete(
    '/v1/volumes/:name/trim',
    { schema: { ...trimSchema, summary: 'Stop the trim of a volume; what it gave back stays so' } },
    async ({ params: { name } }) => trimView(await current().stopTrim(name)),
  )

  server.post(
    '/v1/volumes/:name/detach',
    {
      schema: {
        summary: 'Detach a volume, and wait until its engine has stopped clean',
        tags: ['volumes'],
        params: VolumeName,
        body: DetachVolume,
        response: { 200: VolumeView, ...errors },
      },
    },
    async ({ params: { name }, body }) => {
      const manager = current()
      const seen = await manager.detach(name, body.transfer)
      if (seen.spec.nodeID !== null) return view(seen) // It is attached for somebody else, too.
      const timeoutMs = milliseconds(body.timeoutSeconds)
      return view(
        await waiting(manager, name, 'detached', timeoutMs, ({ membership, status }) => {
          return membership.node === null && status.state !== 'detaching' && status.state !== 'attaching'
        }),
      )
    },
  )

  server.get(
    '/v1/volumes/:name/space',
    {
      schema: {
        summary: 'What each replica of a volume takes up, layer by layer, as its files are now',
        tags: ['volumes'],
        params: VolumeName,
        response: { 200: VolumeSpaceView, ...errors },
      },
    },
    async ({ params: { name } }) => {
      const manager = current()
      manager.volume(name) // Before anybody is asked.
      const usage = await manager.usage()
      return volumeSpace(manager.volume(name), manager.snapshots(name), usage)
    },
  )

  server.get(
    '/v1/space',
    {
      schema: {
        summary: 'What every disk has, and what every volume takes up, as their files are now',
        tags: ['nodes'],
        response: { 200: SpaceView, ...errors },
      },
    },
    async () => {
      const manager = current()
      const usage = await manager.usage()
      const nodes = manager.nodes().map(({ node }) => node)
      return {
        disks: diskSpaces(nodes, manager.volumes(), reports(), usage, {
          diskThresholds: manager.diskThresholds,
          levelOf: (node, disk) => manager.diskLevel(node, disk),
        }),
        volumes: manager.volumes().map((volume) => volumeSpace(volume, manager.snapshots(volume.metadata.name), usage)),
      }
    },
  )

  addSnapshotRoutes(server, current, faces.nbdHost)
  addCloneRoute(server, current, view)

  server.get(
    '/v1/nodes',
    { schema: { summary: 'All nodes with their disks', tags: ['nodes'], response: { 200: NodeList, ...errors } } },
    () => {
      const nodes = current().nodes()
      return {
        nodes: nodeViews(
          nodes.map(({ node }) => node),
          current().volumes(),
          reports(),
          faces,
        ),
      }
    },
  )

  server.get(
    '/v1/processes',
    { schema: { summary: 'All processes of Ankole', tags: ['nodes'], response: { 200: ProcessList, ...errors } } },
    () => ({ processes: processViews(node, reports()) }),
  )
}

function made(manager: Manager, name: string, timeoutMs: number): Promise<Volume> {
  return waiting(manager, name, 'created', timeoutMs, (volume) => {
    if (volume.status.state === 'faulted') throw faulted(volume, 'created')
    return volume.status.state !== 'creating'
  })
}

function attached(manager: Manager, name: string, timeoutMs: number): Promise<Volume> {
  return waiting(manager, name, 'attached', timeoutMs, (volume) => {
    if (volume.spec.nodeID === null) throw new AnkoleError('cancelled', `Volume ${name} was detached meanwhile.`)
    if (volume.status.state === 'faulted') throw faulted(volume, 'attached')
    return volume.status.state === 'attached'
  })
}

function gone(manager: Manager, uid: string, name: string, timeoutMs: number): Promise<true> {
  return explained(manager, waited(manager, name, 'deleted'), timeoutMs, () =>
    manager.volumes().some(({ metadata }) => metadata.uid === uid) ? undefined : true,
  )
}

function waiting(
  manager: Manager,
  name: string,
  what: string,
  timeoutMs: number,
  done: (volume: Volume) => boolean,
): Promise<Volume> {
  return explained(manager, waited(manager, name, what), timeoutMs, () => {
    const volume = manager.volume(name)
    return done(volume) ? volume : undefined
  })
}

function waited(manager: Manager, name: string, what: string): Waited {
  return { subject: `volume ${name}`, what, now: () => manager.volume(name).status }
}

function faulted({ metadata, status }: Volume, what: string): AnkoleError {
  return new AnkoleError('volume-faulted', `Volume ${metadata.name} cannot be ${what} now: ${status.message}.`)
}
