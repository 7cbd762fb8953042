import { Command } from 'commander'
import type { NodeList, NodeView, ProcessList, ProcessView, VolumeList, VolumeView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { indent, print, printJson, table } from './output.js'
import { volumeTable } from './volume.js'

export interface Status {
  url: string
  nodes: NodeView[]
  volumes: VolumeView[]
  processes: ProcessView[]
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
  const [{ nodes }, { volumes }, { processes }] = await Promise.all([
    client.get<NodeList>('/v1/nodes'),
    client.get<VolumeList>('/v1/volumes'),
    client.get<ProcessList>('/v1/processes'),
  ])
  return { url: client.url, nodes, volumes, processes }
}

export function statusText({ url, nodes, volumes, processes }: Status): string {
  const sections = [
    `Ankole at ${url}`,
    'Portals',
    indent(portalTable(nodes)),
    'Disks',
    indent(diskTable(nodes)),
    'Volumes',
    indent(volumeTable(volumes)),
  ]
  if (volumes.length > 0) sections.push('Replicas', indent(replicaTable(volumes)))
  sections.push('Processes', indent(processTable(processes)))
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

function diskTable(nodes: readonly NodeView[]): string {
  const rows = nodes.flatMap(({ name, disks }) =>
    disks.map(({ id, state, freeBytes, totalBytes, scheduledBytes, ioBackend, directory, message }) => [
      name,
      id,
      state,
      `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)}`,
      formatBytes(scheduledBytes),
      ioBackend ?? '-',
      directory,
      message,
    ]),
  )
  return table(['NODE', 'DISK', 'STATE', 'FREE', 'SCHEDULED', 'IO', 'DIRECTORY', 'MESSAGE'], rows)
}

function replicaTable(volumes: readonly VolumeView[]): string {
  const rows = volumes.flatMap(({ name, replicas }) =>
    replicas.map(({ id, node, disk, state, directory, message }) => [name, id, node, disk, state, directory, message]),
  )
  return table(['VOLUME', 'REPLICA', 'NODE', 'DISK', 'STATE', 'DIRECTORY', 'MESSAGE'], rows)
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
