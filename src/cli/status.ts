import { Command } from 'commander'
import type { NodeList, NodeView, ProcessList, ProcessView, SpaceView, VolumeList, VolumeView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { indent, print, printJson, table } from './output.js'
import { sizeOrDash } from './volume-space.js'
import { volumeTable } from './volume.js'

export interface Status {
  url: string
  nodes: NodeView[]
  volumes: VolumeView[]
  processes: ProcessView[]
  /** As the files are now. */
  space: SpaceView
}

export function statusCommand(): Command {
  return new Command('status')
    .description('Show nodes, disks, volumes with their replicas, and processes')
    .option('--json', 'print JSON')
    .action(async (_: object, command: Command) => {
      const { url, json } = command.optsWithGlobals<{ url: string; json?: true }>()
      const status = await readStatus(new Client(url))
      if (json) printJson(status)
      else print(statusText(status))
    })
}

async function readStatus(client: Client): Promise<Status> {
  const [{ nodes }, { volumes }, { processes }, space] = await Promise.all([
    client.get<NodeList>('/v1/nodes'),
    client.get<VolumeList>('/v1/volumes'),
    client.get<ProcessList>('/v1/processes'),
    client.get<SpaceView>('/v1/space'),
  ])
  return { url: client.url, nodes, volumes, processes, space }
}

export function statusText({ url, nodes, volumes, processes, space }: Status): string {
  const sections = [
    `Ankole at ${url}`,
    'Portals',
    indent(portalTable(nodes)),
    'Disks',
    indent(diskTable(nodes, space)),
    'Volumes',
    indent(volumeTable(volumes, space.volumes)),
  ]
  if (volumes.length > 0) sections.push('Replicas', indent(replicaTable(volumes, space)))
  sections.push('Processes', indent(processTable(processes)))
  for (const { node, id, level, usedPercent, ...limits } of space.disks) {
    if (level === 'ok') continue
    const percent = level === 'critical' ? limits.criticalPercent : limits.warningPercent
    sections.push(
      `Note: disk ${id} of ${node} is ${level}: ${Math.floor(usedPercent)} % is taken, the threshold is ${percent} %.`,
    )
  }
  for (const { name, warnings } of volumes) for (const warning of warnings) sections.push(`Note: ${name}: ${warning}.`)
  return sections.join('\n')
}

function portalTable(nodes: readonly NodeView[]): string {
  const rows = nodes.map(({ name, portal }) => [
    name,
    portal.address,
    portal.state,
    portal.ioBackend ?? '-',
    portal.message,
  ])
  return table(['NODE', 'ISCSI', 'STATE', 'IO', 'MESSAGE'], rows)
}

function diskTable(nodes: readonly NodeView[], space: SpaceView): string {
  const rows = nodes.flatMap(({ name, disks }) =>
    disks.map(({ id, state, scheduledBytes, ioBackend, directory, message, ...reported }) => {
      const now = space.disks.find((disk) => disk.node === name && disk.id === id)
      const { freeBytes, totalBytes } = now ?? reported
      return [
        ...[name, id, state, `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)}`, now?.level ?? '-'],
        ...[sizeOrDash(now?.replicasBytes), sizeOrDash(now?.otherBytes), formatBytes(scheduledBytes)],
        ...[ioBackend ?? '-', directory, message],
      ]
    }),
  )
  const head = [
    'NODE',
    'DISK',
    'STATE',
    'FREE',
    'SPACE',
    'REPLICAS',
    'OTHERS',
    'SCHEDULED',
    'IO',
    'DIRECTORY',
    'MESSAGE',
  ]
  return table(head, rows)
}

function replicaTable(volumes: readonly VolumeView[], space: SpaceView): string {
  const rows = volumes.flatMap(({ name, replicas }) =>
    replicas.map(({ id, node, disk, state, directory, message }) => {
      const now = space.volumes.find(({ volume }) => volume === name)?.replicas.find((replica) => replica.id === id)
      return [name, id, node, disk, state, sizeOrDash(now?.allocatedBytes), directory, message]
    }),
  )
  return table(['VOLUME', 'REPLICA', 'NODE', 'DISK', 'STATE', 'TAKEN', 'DIRECTORY', 'MESSAGE'], rows)
}

function processTable(processes: readonly ProcessView[]): string {
  const rows = processes.map(({ pid, kind, node, volume, disk, restarts, startedAt }) => [
    String(pid),
    kind,
    volume ?? disk ?? '-',
    node,
    String(restarts),
    startedAt,
  ])
  return table(['PID', 'KIND', 'OF', 'NODE', 'RESTARTS', 'STARTED'], rows)
}
