// From what is stored and reported to what REST shows, one function each.
import type { NodeReport, PortalReport } from '../agent/index.js'
import {
  clusterNodes,
  count,
  iqnOf,
  isReadOnly,
  lun,
  nbdUri,
  physicalBlockBytesDefault,
  scrubDueMs,
  scrubSettings,
  shownBytes,
  transferMessage,
} from '../manager/index.js'
import type { Node, ScrubFindings, TrimCounts, Volume } from '../store/index.js'
import type { AttachmentView, IscsiView, NodeView, ProcessView, ScrubView, TrimView, VolumeView } from './schemas.js'

/** Where clients reach volumes. */
export interface Faces {
  nbdHost: string
  /** HOST:PORT of the well-known iSCSI portal. */
  portal: string
}

const blockBytes = 4096
const blocksOfRegion = (4 * 1024 * 1024) / blockBytes

/** Of the scrub that is under way, which has come as far as `progress` says, or of the last one. */
export function scrubView(volume: Volume, progress?: ScrubFindings): ScrubView {
  const { metadata, scrub = {} } = volume
  const { current, last } = scrub
  const found = current === undefined ? last : (progress ?? current)
  const blocks = found === undefined ? 0 : Math.ceil(shownBytes(volume) / blockBytes)
  const blocksChecked = Math.min(blocks, (found?.regionsDone ?? 0) * blocksOfRegion)
  return {
    ...{ volume: metadata.name, running: current !== undefined, blocks, blocksChecked },
    ...findings(found),
    last: lastScrub(scrub),
  }
}

function lastScrub({ last }: NonNullable<Volume['scrub']>): ScrubView['last'] {
  return last === undefined ? null : { begunAt: last.begunAt, endedAt: last.endedAt, ...findings(last) }
}

function findings(found: ScrubFindings | undefined) {
  const { regionsFailed = 0, repairedBlocks = 0, corruptBlocks = 0, differingBlocks = 0 } = found ?? {}
  return {
    blocksNotChecked: regionsFailed * blocksOfRegion,
    ...{ bad: repairedBlocks + corruptBlocks, repaired: repairedBlocks, unrepairable: corruptBlocks },
    differing: differingBlocks,
  }
}

function scrubOf(volume: Volume): VolumeView['scrub'] {
  const { scrub = {} } = volume
  const dueMs = scrub.current === undefined ? scrubDueMs(volume) : null
  return {
    ...scrubSettings(volume),
    running: scrub.current !== undefined,
    dueAt: dueMs === null ? null : new Date(dueMs).toISOString(),
    last: lastScrub(scrub),
  }
}

/** Of the trim that is under way, which has come as far as `progress` says, or of the last one. */
export function trimView(volume: Volume, progress?: TrimCounts): TrimView {
  const { metadata, trim = {} } = volume
  const { current, last } = trim
  const { bytesDone, unmappedBytes, failedBytes } = (current === undefined ? last : (progress ?? current)) ?? noTrim
  return {
    ...{ volume: metadata.name, running: current !== undefined, bytes: shownBytes(volume) },
    ...{ bytesDone, unmappedBytes, failedBytes },
    last: last ?? null,
  }
}

const noTrim: TrimCounts = { bytesDone: 0, unmappedBytes: 0, failedBytes: 0 }

export function volumeView(volume: Volume, { nbdHost, portal }: Faces): VolumeView {
  const { metadata, spec, membership, status, chap, transfer } = volume
  const isAttached = status.state === 'attached'
  return {
    name: metadata.name,
    sizeBytes: shownBytes(volume),
    expandingToBytes: shownBytes(volume) === spec.sizeBytes ? null : spec.sizeBytes,
    numberOfReplicas: spec.numberOfReplicas,
    cache: spec.cache,
    checksums: spec.checksums ?? true,
    readOnly: isReadOnly(volume),
    adopted:
      volume.adoption === undefined ? null : { directory: volume.adoption.directory, copied: volume.adoption.copied },
    clonedFrom: volume.clonedFrom === undefined ? null : cloned(volume.clonedFrom),
    physicalBlockBytes: spec.physicalBlockBytes ?? physicalBlockBytesDefault,
    resyncBandwidth: spec.resyncBandwidth ?? null,
    scrub: scrubOf(volume),
    trim: { running: volume.trim?.current !== undefined, last: volume.trim?.last ?? null },
    createdAt: metadata.creationTimestamp,
    state: status.state,
    robustness: status.robustness,
    message: status.message === '' ? transferMessage(volume) : status.message,
    waitsFor: status.waitsFor ?? '',
    transfer: transfer === undefined ? null : { kind: transfer.kind, begunAt: transfer.begunAt },
    salvages: volume.salvages ?? [],
    warnings: warningsOf(volume),
    node: membership.node ?? spec.nodeID,
    attachment: membership.attachment,
    generation: membership.record.generation,
    chap: chap === undefined ? 'none' : chap.mutualUser === undefined ? 'one-way' : 'mutual',
    // Initiators do not find what is attached for an import or export alone.
    iscsi: isAttached && transfer === undefined ? iscsiView(volume, portal) : null,
    nbd: isAttached ? { uri: nbdUri(volume, nbdHost) } : null,
    replicas: volume.replicas.map(({ id, node, disk }) => {
      const seen = status.replicas.find((replica) => replica.id === id)
      return {
        ...{ id, node, disk },
        directory: seen?.directory ?? '',
        state: seen?.state ?? 'unknown',
        fault: seen?.fault ?? '',
        message: seen?.message ?? '',
      }
    }),
  }
}

function cloned({ volume, snapshot, linked }: NonNullable<Volume['clonedFrom']>): VolumeView['clonedFrom'] {
  return { volume, snapshot, linked }
}

function warningsOf({ spec, replicas, membership }: Volume): string[] {
  const nodes = new Set(replicas.map((replica) => replica.node))
  const warnings: string[] = []
  if (replicas.length > nodes.size) {
    warnings.push(
      `${count(replicas.length, 'replica')} on ${count(nodes.size, 'node')}: the volume survives the loss of disks, ` +
        `not that of a node`,
    )
  }
  if (replicas.length === 1) warnings.push('one replica: the volume is lost with its disk')
  if (spec.physicalBlockBytes === 512) {
    warnings.push('physical blocks of 512 bytes: initiators may write less than 4096 bytes at a time, which is slower')
  }
  const { record } = membership
  const left = replicas.filter(({ id }) => record.generation > 0 && !record.members.includes(id))
  if (left.length > 0) {
    warnings.push(
      `${left.map(({ disk }) => disk).join(', ')} left the volume and is not used until it is up to date again`,
    )
  }
  return warnings
}

/** The same for as long as the volume is attached to its node. */
export function attachmentView(volume: Volume, { nbdHost, portal }: Faces): AttachmentView {
  return {
    volume: volume.metadata.name,
    node: volume.membership.node ?? '',
    iscsi: iscsiView(volume, portal),
    nbd: { uri: nbdUri(volume, nbdHost) },
  }
}

export function iscsiView({ metadata }: Volume, portal: string): IscsiView {
  return { portal, iqn: iqnOf(metadata.name), lun }
}

export function nodeViews(
  nodes: readonly Node[],
  volumes: readonly Volume[],
  reports: Reports,
  { portal: address }: Faces,
): NodeView[] {
  const cluster = clusterNodes(nodes, volumes, reports)
  return nodes.map(({ metadata: { name }, spec }, index) => ({
    name,
    address: spec.address,
    allowScheduling: spec.allowScheduling,
    portal: portalView(address, reports.get(name)?.portal),
    disks: spec.disks.map(({ id, path, allowScheduling }, at) => {
      const disk = reports.get(name)?.disks.find((disk) => disk.id === id)
      return {
        ...{ id, directory: path, allowScheduling },
        state: disk?.state ?? 'unknown',
        message: disk?.message ?? '',
        ioBackend: disk?.ioBackend ?? null,
        totalBytes: disk?.totalBytes ?? 0,
        freeBytes: disk?.freeBytes ?? 0,
        scheduledBytes: cluster[index]?.disks[at]?.scheduledBytes ?? 0,
      }
    }),
  }))
}

function portalView(address: string, portal: PortalReport | undefined): NodeView['portal'] {
  const { state = 'unknown', message = '', ioBackend = null } = portal ?? {}
  return { address, state, message, ioBackend }
}

export type Reports = ReadonlyMap<string, NodeReport>

const startedAt = new Date(Date.now() - performance.now()).toISOString()

/** This process runs the manager and, on a single machine, agent and supervisor too. */
export function processViews(managerNode: string, reports: Reports): ProcessView[] {
  const manager: ProcessView = { pid: process.pid, kind: 'manager', node: managerNode, restarts: 0, startedAt }
  const children = [...reports].flatMap(([node, { processes }]) =>
    processes.map(({ pid, kind, volume, disk, restarts, startedAt }) => ({
      ...{ pid, kind, node, restarts, startedAt },
      ...(volume === undefined ? {} : { volume }),
      ...(disk === undefined ? {} : { disk }),
    })),
  )
  return [manager, ...children]
}
